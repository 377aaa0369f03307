"""How patiently a service is asked, and cursors."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec
import pytest

from pharos_sources import cursors
from pharos_sources.asking import Patience, from_web, patiently, retry_after
from pharos_sources.source import (
    Entry,
    EntryRefused,
    InvalidCursor,
    Page,
    SourceRefused,
    SourceUnavailable,
    SourceUnreadable,
    shown,
)
from pharos_sources.web_errors import AnswerUnreadable, WebAddressRefused, WebTimedOut

pytestmark = pytest.mark.anyio


class Service:
    """Is unavailable for some times, asking for the waits given, and then answers."""

    def __init__(self, *waits: float | None) -> None:
        self.waits = list(waits)
        self.asked = 0
        self.slept: list[float] = []

    async def ask(self) -> str:
        self.asked += 1
        if self.waits:
            raise SourceUnavailable("it is busy", retry_after_seconds=self.waits.pop(0))
        return "answer"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def with_(self, patience: Patience, chance: float = 1.0) -> str:
        return await patiently(self.ask, patience, sleep=self.sleep, chance=lambda: chance)


async def test_waits_double_up_to_a_limit_and_are_a_random_part_of_that() -> None:
    service = Service(None, None, None, None)
    assert await service.with_(Patience(first_seconds=1, wait_seconds_max=5)) == "answer"
    assert service.slept == [1, 2, 4, 5]
    service = Service(None, None, None)
    await service.with_(Patience(first_seconds=1), chance=0.25)
    assert service.slept == [0.25, 0.5, 1]


async def test_a_wait_that_the_service_asks_for_is_a_least_one() -> None:
    service = Service(7.0, 0.0, None)
    assert await service.with_(Patience(first_seconds=1)) == "answer"
    assert service.slept == [7, 2, 4]


@pytest.mark.parametrize(
    ("service", "patience", "asked"),
    [
        (Service(*[None] * 9), Patience(tries_max=3), 3),
        (Service(*[None] * 9), Patience(tries_max=1), 1),
        (Service(33.0), Patience(wait_seconds_max=32), 1),
        (Service(*[10.0] * 9), Patience(seconds_max=25), 3),
    ],
)
async def test_patience_ends(service: Service, patience: Patience, asked: int) -> None:
    with pytest.raises(SourceUnavailable):
        await service.with_(patience)
    assert service.asked == asked


async def test_what_will_not_pass_is_not_asked_again() -> None:
    asked = []

    async def refuse() -> None:
        asked.append(1)
        raise SourceRefused("no")

    with pytest.raises(SourceRefused):
        await patiently(refuse, Patience())
    assert asked == [1]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, 999_999_999.0),
        ("Thu, 15 Jan 2026 10:31:00 GMT", 60.0),
        ("Thu, 15 Jan 2026 10:29:00 GMT", 0.0),
        ("Thu, 15 Jan 2026 10:31:00", 60.0),
        ("Thu, 99 Jan 2026 10:31:00 GMT", None),
        ("Thu, 15 Jan 2026 10:31:00 +99999999999999999", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=datetime(2026, 1, 15, 10, 30, tzinfo=UTC)) == seconds


def test_errors_of_the_transport_are_those_of_the_source_or_of_one_file() -> None:
    assert isinstance(from_web(WebTimedOut("example.com", 5), "x"), SourceUnavailable)
    assert isinstance(from_web(WebAddressRefused("the host is not public"), "x"), SourceRefused)
    assert isinstance(from_web(AnswerUnreadable("example.com", "it is odd"), "x"), EntryRefused)
    assert isinstance(from_web(AnswerUnreadable("example.com", "it is odd")), SourceRefused)


def test_a_cursor_is_text_for_a_url_and_has_a_limit() -> None:
    cursor = cursors.encode(["ä", "b/c?d=e&f"])
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert cursors.decode(cursor, list[str]) == ["ä", "b/c?d=e&f"]
    with pytest.raises(InvalidCursor):
        cursors.decode(cursor, int)
    with pytest.raises(SourceUnreadable):
        cursors.encode("x" * 20_000)
    nested = base64.urlsafe_b64encode(b'{"more":' + b"[" * 5_000).decode()
    with pytest.raises(InvalidCursor):
        cursors.decode(nested, Page)


def test_of_what_a_server_says_of_a_file_no_more_is_held_than_is_needed() -> None:
    entry = Entry(
        id="x",
        name="a" * 10_000 + ".pdf",
        size=10**400,
        content_type="t" * 10_000,
        identity="etag:" + "e" * 10_000,
    )
    assert len(msgspec.json.encode(entry)) < 2_000
    assert entry.name.endswith("a.pdf")
    assert (entry.size, entry.content_type) == (None, None)
    assert Entry(id="x", name="x", size=-1).size is None
    assert entry.identity == msgspec.structs.replace(entry, name="x").identity
    assert entry.identity != Entry(id="x", name="x", identity="etag:" + "e" * 10_001).identity


def test_an_id_in_a_sentence_is_short_and_acts_on_no_terminal() -> None:
    assert shown("a\x1b[31m\nb\u202e") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b" + (
        "\N{REPLACEMENT CHARACTER}"
    )
    assert len(shown("x" * 10_000)) < 250
