"""Which callbacks are accepted, how they are signed, and when they are tried again: pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from pharos_contracts.jobs.v1 import EVENT_OF_STATE
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.streams import CALLBACK_DELIVERIES_MAX
from pharos_gateway.callback_url import InvalidCallbackUrl, parse_callback_url
from pharos_gateway.callbacks import body_of, delay_seconds
from pharos_gateway.signing import SigningSecrets, signature
from pharos_sources.hosts import AllowedHosts
from tests.support.gateway import job, now

ANY = ""
ONLY = "hooks.example, http://10.0.0.5:8080"


@pytest.mark.parametrize(
    ("url", "allowed", "expected"),
    [
        ("https://hooks.example", ANY, "https://hooks.example/"),
        ("https://hooks.example/", ANY, "https://hooks.example/"),
        ("HTTPS://Hooks.Example:443/A?b=c&d=%20", ANY, "https://hooks.example/A?b=c&d=%20"),
        ("https://hooks.example:8443?x=1", ANY, "https://hooks.example:8443/?x=1"),
        ("https://bücher.example/x", ANY, "https://xn--bcher-kva.example/x"),
        ("https://[2606:4700::1111]/x", ANY, "https://[2606:4700::1111]/x"),
        ("https://hooks.example/x?url=https://a@b/", ANY, "https://hooks.example/x?url=https://a@b/"),
        ("https://hooks.example/x", ONLY, "https://hooks.example/x"),
        ("http://10.0.0.5:8080/x", ONLY, "http://10.0.0.5:8080/x"),
    ],
)
def test_an_accepted_url_has_one_spelling(url: str, allowed: str, expected: str) -> None:
    hosts = AllowedHosts.parse(allowed)
    address = parse_callback_url(url, allowed_hosts=hosts)
    assert address.url == expected
    assert parse_callback_url(address.url, allowed_hosts=hosts) == address


@pytest.mark.parametrize(
    ("url", "allowed", "reason"),
    [
        ("", ANY, "the URL is empty"),
        ("hooks.example/x", ANY, "only https URLs are accepted"),
        ("http://hooks.example/x", ANY, "only https URLs are accepted"),
        ("http://hooks.example/x", ONLY, "only https URLs are accepted"),
        ("ftp://hooks.example/x", ANY, "only https URLs are accepted"),
        ("https:/hooks.example/x", ANY, "only https URLs are accepted"),
        ("https://hooks.example/x\n", ANY, "control characters are not accepted"),
        ("https:///x", ANY, "the host is missing"),
        ("https://u:p@hooks.example/x", ANY, "credentials in a URL are not accepted"),
        ("https://hooks.example/x#y", ANY, "a fragment is not accepted"),
        ("https://hooks.example/a b", ANY, "the path and the query must be percent-encoded"),
        ("https://hooks.example/é", ANY, "the path and the query must be percent-encoded"),
        ("https://hooks.example/x?a=<b>", ANY, "the path and the query must be percent-encoded"),
        ("https://hooks.example:0/x", ANY, "the port is not valid"),
        ("https://other.example/x", ONLY, "this host is not among the allowed hosts"),
        ("https://hooks.example:8443/x", ONLY, "this host is not among the allowed hosts"),
        ("https://10.0.0.5/x", ANY, "the host is not public"),
        ("https://169.254.169.254/x", ANY, "the host is not public"),
        ("https://0x7f.1/x", ANY, "an IP address must be written in its ordinary form"),
        ("https://[::1]/x", ANY, "the host is not public"),
        ("https://localhost/x", ANY, "the host is not public"),
        ("https://intranet/x", ANY, "the host is not public"),
        ("https://x.internal/x", ONLY, "the host is not public"),
        ("https://hooks.example/" + "x" * 2_048, ANY, "the URL is longer than 2048 characters"),
    ],
)
def test_another_url_is_refused_with_a_reason(url: str, allowed: str, reason: str) -> None:
    with pytest.raises(InvalidCallbackUrl) as raised:
        parse_callback_url(url, allowed_hosts=AllowedHosts.parse(allowed))
    assert raised.value.reason == reason


def test_an_address_does_not_show_its_path_or_its_query() -> None:
    address = parse_callback_url("https://hooks.example/hidden?token=hidden", allowed_hosts=AllowedHosts())
    assert "hidden" not in repr(address)


def test_a_signature_is_that_of_any_other_implementation() -> None:
    # openssl: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
    expected = "v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
    assert signature("secret", "1700000000", b'{"a":1}') == expected


def test_each_tenant_has_a_secret_of_its_own_that_only_the_key_decides() -> None:
    secrets = [SigningSecrets("k" * 32).of(tenant) for tenant in ("a", "b")]
    assert secrets == [SigningSecrets("k" * 32).of(tenant) for tenant in ("a", "b")]
    assert secrets[0] != secrets[1]
    assert secrets[0] != SigningSecrets("l" * 32).of("a")
    assert len(secrets[0]) == 64


def test_tries_come_ever_later_and_end_within_hours() -> None:
    delays = [delay_seconds(tries, 0.5) for tries in range(1, CALLBACK_DELIVERIES_MAX)]
    assert delays[:3] == [10, 20, 40]
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert delays[-1] == 3_600
    for chance, hours in ((0.0, 2.5), (1.0, 4.5)):
        total = sum(delay_seconds(tries, chance) for tries in range(1, CALLBACK_DELIVERIES_MAX))
        assert abs(total / 3_600 - hours) < 0.3


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_what_is_sent_is_the_event_and_the_job_without_where_it_goes(state: JobState) -> None:
    told = job(1, state, callback_url="https://hooks.example/hidden")
    event: Any = EVENT_OF_STATE[state](event_id="e-1", at=now(), job=told)
    body = body_of(event)
    said = msgspec.json.decode(body)
    assert (said["event"], said["delivery_id"], said["job"]["job_id"]) == (f"job.{state}", "e-1", told.job_id)
    assert b"hidden" not in body
    assert body == body_of(event)
