"""The parser of event streams, by the examples of the standard and by its edges."""

from __future__ import annotations

import pytest

from pharos_client.sse import EventTooLarge, Parser, ServerSentEvent


def event(data: str, name: str = "message", own_id: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(event=name, data=data, id=own_id)


CASES = {
    "one event": (b"data: hello\n\n", [event("hello")]),
    "several lines of data": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [event("YHOO\n+2\n10")]),
    "a name": (b"event: add\ndata: 73857293\n\n", [event("73857293", "add")]),
    "the standard's example of ids": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [event("first event", own_id="1"), event("second event", own_id=""), event(" third event")],
    ),
    "the standard's example of empty data": (b"data\n\ndata\ndata\n\ndata:", [event(""), event("\n")]),
    "a space after the colon is left out, once": (
        b"data:test\n\ndata: test\n\n",
        [event("test"), event("test")],
    ),
    "carriage returns end lines": (b"data: a\rdata: b\r\r", [event("a\nb")]),
    "both together end one line": (b"data: a\r\ndata: b\r\n\r\n", [event("a\nb")]),
    "a mark of byte order at the start": (b"\xef\xbb\xbfdata: a\n\n", [event("a")]),
    "a mark of byte order later is text": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [event("a")]),
    "no data is no event": (b"event: ping\nid: 3\n\n", []),
    "a name without data does not stay": (b"event: ping\n\ndata: a\n\n", [event("a")]),
    "comments and unknown fields": (b": keep\nfoo: bar\ndata: a\n: b\n\n", [event("a")]),
    "an id with NUL is ignored": (b"id: 1\0\ndata: a\n\n", [event("a")]),
    "text beyond ASCII": ("data: öß→😀\n\n".encode(), [event("öß→😀")]),
    "broken UTF-8 is replaced": (b"data: \xff\n\n", [event("\ufffd")]),
    "an unfinished event is dropped": (b"data: a\n\ndata: b\n", [event("a")]),
    "empty lines": (b"\n\n\r\n\r\r", []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_read_as_the_standard_says(name: str) -> None:
    stream, expected = CASES[name]
    assert Parser().feed(stream) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("name", CASES)
def test_chunks_may_end_anywhere(name: str, size: int) -> None:
    stream, expected = CASES[name]
    parser = Parser()
    found = []
    for start in range(0, len(stream), size):
        found += parser.feed(stream[start : start + size])
        found += parser.feed(b"")
    assert found == expected


@pytest.mark.parametrize(
    ("field", "milliseconds"),
    [("retry: 250", 250), ("retry: 0", 0), ("retry: -1", None), ("retry: 1.5", None), ("retry: ٣", None)],
)
def test_only_digits_are_a_time_to_retry(field: str, milliseconds: int | None) -> None:
    parser = Parser()
    parser.feed(f"{field}\n\n".encode())
    assert parser.retry_ms == milliseconds


def test_the_last_id_stays_until_there_is_another() -> None:
    parser = Parser()
    parser.feed(b"id: 7\ndata: a\n\ndata: b\n\n")
    assert parser.last_event_id == "7"


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: xxxxxxxxxx\n" * 10])
def test_an_endless_event_is_refused(stream: bytes) -> None:
    with pytest.raises(EventTooLarge):
        Parser(event_bytes_max=64).feed(stream)
