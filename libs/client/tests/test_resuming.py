"""When a lost stream is tried again, and which events are new."""

from __future__ import annotations

import pytest

from pharos_client.errors import PharosError, unreachable
from pharos_client.resuming import WAIT_SECONDS_MAX, Resumption
from pharos_client.sse import ServerSentEvent

GONE = unreachable("http://x", OSError("refused"))


def state(own_id: str | None, name: str = "job.queued") -> ServerSentEvent:
    return ServerSentEvent(event=name, data="{}", id=own_id)


def test_waits_double_to_a_limit_and_begin_anew_with_a_connection() -> None:
    resumption = Resumption(None)
    waits = [resumption.wait_seconds(second, GONE) for second in range(8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    resumption.connected()
    assert resumption.wait_seconds(9, GONE) == 0.25


def test_patience_ends() -> None:
    resumption = Resumption(None, patience_seconds=60)
    resumption.wait_seconds(100.0, GONE)
    resumption.wait_seconds(159.0, GONE)
    with pytest.raises(PharosError):
        resumption.wait_seconds(160.0, GONE)


def test_a_stream_that_ends_well_is_resumed_without_end() -> None:
    resumption = Resumption(None, patience_seconds=60)
    assert all(resumption.wait_seconds(1000.0 * n, None) <= WAIT_SECONDS_MAX for n in range(20))


def test_the_gateway_may_ask_for_a_longer_wait_within_the_limit() -> None:
    busy = PharosError("busy", code="busy", status=503, retry_after_seconds=3)
    assert Resumption(None).wait_seconds(0, busy) == 3
    very_busy = PharosError("busy", code="busy", status=503, retry_after_seconds=900)
    assert Resumption(None).wait_seconds(0, very_busy) == WAIT_SECONDS_MAX


def test_events_seen_before_are_not_new() -> None:
    resumption = Resumption("5")
    assert [resumption.is_new(state(each)) for each in ("4", "5", "6", "6", "7", None, None, "7")] == [
        False,
        False,
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert resumption.headers() == {"Last-Event-ID": "7"}


def test_a_reset_begins_anew() -> None:
    resumption = Resumption("900")
    assert resumption.is_new(state("12", "reset"))
    assert resumption.is_new(state("13"))
    assert resumption.headers() == {"Last-Event-ID": "13"}
