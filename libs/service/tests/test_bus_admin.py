"""What differs between the server and the declaration. Pure; the server is met in tests/integration."""

from __future__ import annotations

import pytest

from pharos_contracts.streams import BusLimits, declare
from pharos_service.bus_admin import Difference, consumer_config, differences, stream_config


@pytest.mark.parametrize("stream", declare(BusLimits()).streams, ids=lambda stream: stream.name)
def test_a_stream_that_is_as_declared_differs_in_nothing(stream) -> None:
    config = stream_config(stream, 1)
    reported = {key: value for key, value in config.items() if value} | {"added_by_the_server": 1}
    assert differences(reported, config) == {}


@pytest.mark.parametrize("consumer", declare(BusLimits()).consumers, ids=lambda consumer: consumer.name)
def test_a_consumer_that_is_as_declared_differs_in_nothing(consumer) -> None:
    config = consumer_config(consumer)
    reported = dict(config)
    filters = config.get("filter_subjects", [])
    if len(filters) == 1:
        del reported["filter_subjects"]
        reported["filter_subject"] = filters[0]
    assert differences(reported, config) == {}


def test_a_difference_says_what_is_and_what_should_be() -> None:
    wanted = stream_config(declare(BusLimits(queue_max=3)).streams[0], 1)
    found = differences(wanted | {"max_msgs": 10}, wanted)
    assert found == {"max_msgs": (10, 3)}
    assert Difference("stream", "Q", True, found).sentence() == "stream Q: max_msgs: 10 -> 3"
    assert Difference("stream", "Q", False, {}).sentence() == "stream Q: missing"


def test_sources_are_compared_without_what_the_server_adds() -> None:
    ledger = next(stream for stream in declare(BusLimits()).streams if stream.name == "LEDGER")
    config = stream_config(ledger, 1)
    reported = config | {"sources": [config["sources"][0] | {"external": None, "start": 7}]}
    assert differences(reported, config) == {}
