"""Servers that lie, flood, stall and explode: each row is an answer, and the error that it becomes.

Sizes and times are small here; what is tested is that there are any, and that each is noticed by counting.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
import traceback
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from itertools import repeat
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import anyio
import pytest

from pharos_sources.fetching import DocumentFetcher, DocumentLimits, WebDocument
from pharos_sources.hosts import AllowedHosts
from pharos_sources.transport import TransportLimits, guarded_client
from pharos_sources.web_address import parse_web_address
from pharos_sources.web_errors import (
    AnswerTooLarge,
    AnswerUnreadable,
    ContentRefused,
    HTTPError,
    RedirectRefused,
    WebError,
    WebHostUnreachable,
    WebTimedOut,
)
from tests.support.web_server import Answer, WebServer, answer, dripping

pytestmark = pytest.mark.anyio

CANARY = "canary-5f3a"
BYTES_MAX = 2_000_000
PATIENT = DocumentLimits(seconds=20.0, idle_seconds=10.0, bytes_max=BYTES_MAX)
HASTY = DocumentLimits(seconds=1.0, idle_seconds=0.3, bytes_max=BYTES_MAX)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
HTML = {"content_type": "text/html"}
DENSE = gzip.compress(bytes(1_500_000))
LARGE = gzip.compress(random.Random(1).randbytes(100_000) * 30)


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with WebServer() as running:
        yield running


async def fetched(
    server: WebServer, into: Path, path: str = "/doc", *, limits: DocumentLimits = PATIENT
) -> WebDocument:
    allowed = AllowedHosts.parse(server.url)
    address = parse_web_address(f"{server.url}{path}?token={CANARY}", allowed_hosts=allowed)
    async with DocumentFetcher(allowed, limits=limits) as fetcher:
        return await fetcher.fetch(address, into)


def zipped(body: bytes, **headers: str) -> bytes:
    return answer(body=body, **{"content_encoding": "gzip", **HTML, **headers})


def chunks(size: int, count: int) -> Iterator[bytes]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from repeat(b"%x\r\n%s\r\n" % (size, b"x" * size), count)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def hanging_up(writer: asyncio.StreamWriter) -> None:
    reset = struct.pack("ii", 1, 0)  # by a reset, not an end
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    writer.transport.abort()


class Row(NamedTuple):
    answer: Answer
    error: type[WebError]
    says: str
    transient: bool = False


ROWS = {
    # compression
    "a gzip bomb": Row(zipped(DENSE), AnswerUnreadable, "grows more than 200-fold"),
    "a larger gzip bomb": Row(
        zipped(gzip.compress(bytes(50_000_000))), AnswerTooLarge, "larger than 1.907 MiB"
    ),
    "a gzip bomb in chunks": Row(
        OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(DENSE), DENSE),
        AnswerUnreadable, "grows more than 200-fold",
    ),
    "a gzip bomb in a gzip bomb": Row(
        zipped(gzip.compress(DENSE), content_encoding="gzip, gzip"),
        AnswerUnreadable, "compressed more than once",
    ),
    "too many bytes after decompression": Row(zipped(LARGE), AnswerTooLarge, "larger than 1.907 MiB"),
    "many empty members": Row(
        zipped(gzip.compress(b"") * 2_000), AnswerUnreadable, "its compression is broken"
    ),
    "a brotli bomb": Row(zipped(b"\x1b" * 9, content_encoding="br"), AnswerUnreadable, "not asked for"),
    "a zstd bomb": Row(
        zipped(b"\x28\xb5\x2f\xfd", content_encoding="zstd"), AnswerUnreadable, "not asked for"
    ),
    "deflate": Row(
        zipped(zlib.compress(b"x"), content_encoding="deflate"), AnswerUnreadable, "not asked for"
    ),
    "an encoding that nobody knows": Row(
        zipped(b"x", content_encoding="\x1b[2J"), AnswerUnreadable, "not asked for"
    ),
    "gzip that is none": Row(zipped(b"<html>"), AnswerUnreadable, "its compression is broken"),
    "gzip with a wrong checksum": Row(
        zipped(gzip.compress(b"hello")[:-8] + bytes(8)), AnswerUnreadable, "its compression is broken"
    ),
    "gzip with something behind it": Row(
        zipped(gzip.compress(b"hello") + b"<script>"), AnswerUnreadable, "its compression is broken"
    ),
    "half of a gzip": Row(
        zipped(gzip.compress(b"hello" * 99)[:20]), AnswerUnreadable, "ends too early", True
    ),
    # sizes
    "a declared size beyond the limit": Row(
        answer(length=10**12, **HTML), AnswerTooLarge, "larger than 1.907 MiB"
    ),
    "a size that is only noticed by counting": Row(
        OK + b"\r\n" + bytes(BYTES_MAX + 1), AnswerTooLarge, "larger than 1.907 MiB"
    ),
    "chunks without end": Row(
        dripping(chunks(100_000, 1_000), seconds=0), AnswerTooLarge, "larger than 1.907 MiB"
    ),
    "less than was declared": Row(
        answer(body=b"hello", length=50, **HTML), AnswerUnreadable, "not complete HTTP", True
    ),
    "two sizes": Row(
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", AnswerUnreadable, "not complete HTTP", True
    ),
    "a negative size": Row(
        OK + b"Content-Length: -1\r\n\r\nx", AnswerUnreadable, "not complete HTTP", True
    ),
    "a size of ten thousand digits": Row(
        OK + b"Content-Length: " + b"9" * 10_000 + b"\r\n\r\nx", AnswerUnreadable, "not complete HTTP", True
    ),
    "a chunk of a size that nobody has": Row(
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        AnswerUnreadable, "not complete HTTP", True,
    ),
    "a chunk that is none": Row(
        OK + b"Transfer-Encoding: chunked\r\n\r\nhello", AnswerUnreadable, "not complete HTTP", True
    ),
    "chunks that break off": Row(
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", AnswerUnreadable, "not complete HTTP", True
    ),
    "a transfer coding that nobody knows": Row(
        OK + b"Transfer-Encoding: gzip\r\n\r\nhello", AnswerUnreadable, "not complete HTTP", True
    ),
    # headers
    "a header without end": Row(
        dripping([OK + b"X: ", *repeat(b"x" * 10_000, 100)], seconds=0),
        AnswerUnreadable, "not complete HTTP", True,
    ),
    "headers that are too large": Row(
        OK + b"X: " + b"x" * 40_000 + b"\r\nContent-Length: 0\r\n\r\n",
        AnswerUnreadable, "headers are too large",
    ),
    "too many headers": Row(
        OK + b"X: x\r\n" * 300 + b"Content-Length: 0\r\n\r\n", AnswerUnreadable, "headers are too large"
    ),
    "a flood of cookies": Row(
        OK + b"Set-Cookie: a=b\r\n" * 300 + b"\r\n", AnswerUnreadable, "headers are too large"
    ),
    "no HTTP at all": Row(b"SSH-2.0-OpenSSH_9.9\r\n", AnswerUnreadable, "not complete HTTP", True),
    "bytes at random": Row(bytes(range(256)), AnswerUnreadable, "not complete HTTP", True),
    "a null in a header": Row(OK + b"X: a\0b\r\n\r\n", AnswerUnreadable, "not complete HTTP", True),
    "nothing": Row(b"", AnswerUnreadable, "not complete HTTP", True),
    "a connection that is cut": Row(hanging_up, AnswerUnreadable, "connection was lost", True),
    # time
    "no answer": Row(silence, WebTimedOut, "within 0.3 seconds", True),
    "a header a moment at a time": Row(
        dripping(repeat(b"H", 100), seconds=0.1), WebTimedOut, "within 1 seconds", True
    ),
    "a slow header that is one": Row(
        dripping([OK, *repeat(b"X: x\r\n", 100)], seconds=0.1), WebTimedOut, "within 1 seconds", True
    ),
    "a body a byte at a time": Row(
        dripping([OK + b"\r\n", *repeat(b"x", 100)], seconds=0.1), WebTimedOut, "within 1 seconds", True
    ),
    "a body that stops": Row(
        dripping([OK + b"\r\n", b"x", b""], seconds=9), WebTimedOut, "within 0.3 seconds", True
    ),
    "please wait, for ever": Row(
        dripping(repeat(b"HTTP/1.1 102 Processing\r\n\r\n", 1_000), seconds=0.05),
        WebTimedOut, "within 1 seconds", True,
    ),
    # answers that are no document
    "a page that is missing": Row(answer("404 Nope", **HTML), HTTPError, "^HTTPError: 404 Not Found$"),
    "a page that is gone": Row(answer("410 Gone", **HTML), HTTPError, "^HTTPError: 410 Gone$"),
    "a page that wants a password": Row(
        answer("401 X", www_authenticate="Basic"), HTTPError, "^HTTPError: 401 Unauthorized$"
    ),
    "a page that is forbidden": Row(answer("403 X", **HTML), HTTPError, "^HTTPError: 403 Forbidden$"),
    "a server that is busy": Row(
        answer("429 X", **HTML), HTTPError, "^HTTPError: 429 Too Many Requests$", True
    ),
    "a server in trouble": Row(answer("503 X"), HTTPError, "^HTTPError: 503 Service Unavailable$", True),
    "a server that cannot": Row(answer("501 X"), HTTPError, "^HTTPError: 501 Not Implemented$"),
    "a status that nobody knows": Row(answer("799 X"), HTTPError, "^HTTPError: 799$"),
    "words that the server chose": Row(
        answer(f"404 {CANARY} <script>"), HTTPError, "^HTTPError: 404 Not Found$"
    ),
    "another protocol": Row(
        b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        AnswerUnreadable, "not complete HTTP", True,
    ),
    "not modified": Row(b"HTTP/1.1 304 X\r\n\r\n", HTTPError, "^HTTPError: 304 Not Modified$"),
    "a choice": Row(answer("300 X", location="/a"), HTTPError, "^HTTPError: 300 Multiple Choices$"),
    "a part": Row(
        answer("206 X", b"hello", content_range="bytes 0-4/99", **HTML), AnswerUnreadable, "only a part"
    ),
    "a redirect to nowhere": Row(answer("302 X"), RedirectRefused, "leads nowhere"),
    "a redirect in a circle": Row(answer("302 X", location="/doc"), RedirectRefused, "more than 5"),
    "a picture": Row(answer(body=b"x", content_type="image/png"), ContentRefused, "it serves image/png"),
    "a film": Row(answer(body=b"x", content_type="Video/MP4; x=y"), ContentRefused, "it serves video/mp4"),
    "a program": Row(
        answer(body=b"x", content_type="application/x-msdownload"), ContentRefused, "application/x-msdownload"
    ),
    "an archive": Row(answer(body=b"x", content_type="application/zip"), ContentRefused, "an archive"),
    "bytes without a name": Row(
        answer(body=b"x", content_type="application/octet-stream"), ContentRefused, "does not say what it is"
    ),
    "bytes with the name of a program": Row(
        answer(body=b"x", content_type="application/octet-stream", content_disposition="x; filename=a.exe"),
        ContentRefused, "does not say what it is",
    ),
    "nothing said": Row(answer(body=b"x"), ContentRefused, "does not say what it is"),
    "a kind that is none": Row(
        answer(body=b"x", content_type=f"<{CANARY}>"), ContentRefused, "does not say what it is"
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_a_hostile_answer_ends_in_one_sentence_and_leaves_nothing(
    server: WebServer, row: Row, tmp_path: Path
) -> None:
    server.answers["/doc"] = row.answer
    limits = HASTY if row.error is WebTimedOut else PATIENT
    with anyio.fail_after(10), pytest.raises(row.error, match=row.says) as failure:
        await fetched(server, tmp_path / "doc", limits=limits)
    assert type(failure.value) is row.error
    assert failure.value.transient is row.transient
    said = "".join(traceback.format_exception(failure.value))
    assert CANARY not in said and "/doc?" not in said
    assert list(tmp_path.iterdir()) == []


async def test_a_redirect_does_not_begin_the_time_anew(server: WebServer, tmp_path: Path) -> None:
    for number in range(3):
        moved = answer("302 X", location=f"/{number + 1}")
        server.answers[f"/{number}"] = dripping([b"", moved], seconds=0.4)
    server.answers["/3"] = dripping([OK + b"\r\n", *repeat(b"x", 100)], seconds=0.1)
    began = monotonic()
    with pytest.raises(WebTimedOut, match="within 2 seconds"):
        await fetched(server, tmp_path / "doc", "/0", limits=DocumentLimits(seconds=2.0))
    assert monotonic() - began < 3.1
    assert server.requests[-1].target.startswith("/3")
    assert list(tmp_path.iterdir()) == []


async def test_a_bomb_is_refused_before_it_is_in_memory(server: WebServer) -> None:
    """Also by those who read the whole body at once."""
    server.answers["/doc"] = zipped(gzip.compress(bytes(200_000_000), 1))
    async with guarded_client(AllowedHosts.parse(server.url)) as client:
        tracemalloc.start()
        try:
            with pytest.raises(AnswerUnreadable, match="grows more than 200-fold"):
                await client.get(f"{server.url}/doc")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 40_000_000, "one piece of 64 KiB may grow 200-fold before it counts as a bomb"


async def test_a_host_that_does_not_listen_is_worth_another_try(tmp_path: Path) -> None:
    async with WebServer() as server:
        pass
    allowed = AllowedHosts.parse("http://127.0.0.1:1")
    async with DocumentFetcher(allowed, limits=HASTY) as fetcher:
        with pytest.raises(WebHostUnreachable) as failure:
            address = parse_web_address("http://127.0.0.1:1/", allowed_hosts=allowed)
            await fetcher.fetch(address, tmp_path / "doc")
    assert failure.value.transient
    assert server.connections == 0


async def test_a_cancelled_fetch_leaves_no_file_and_no_connection(server: WebServer, tmp_path: Path) -> None:
    closed = anyio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        try:
            while True:
                writer.write(b"x" * 1_000)
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    server.answers["/doc"] = endless
    into = tmp_path / "doc"
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            await fetched(server, into)

        tasks.start_soon(work)
        with anyio.fail_after(5):
            while not into.exists():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert not into.exists()
    with anyio.fail_after(5):
        await closed.wait()


async def test_a_file_that_is_there_is_not_overwritten_and_not_removed(
    server: WebServer, tmp_path: Path
) -> None:
    server.answers["/doc"] = answer(body=b"new", **HTML)
    into = tmp_path / "doc"
    into.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        await fetched(server, into)
    assert into.read_bytes() == b"old"


async def test_connections_are_not_used_up_by_hostile_answers(server: WebServer) -> None:
    """Each of them gives its connection back, whatever it did to it."""
    quick = [row.answer for row in ROWS.values() if isinstance(row.answer, bytes)]
    quick += [ROWS["no answer"].answer, ROWS["a body a byte at a time"].answer]
    server.answers |= {f"/{number}": each for number, each in enumerate(quick)}
    server.answers["/well"] = answer(body=b"well", **HTML)
    limits = TransportLimits(connections_max=1, idle_seconds=1.0, seconds=2.0, bytes_max=BYTES_MAX)
    async with guarded_client(AllowedHosts.parse(server.url), limits=limits) as client:
        failed = 0
        for number in range(len(quick)):
            try:
                await client.get(f"{server.url}/{number}")
            except WebError:
                failed += 1
            assert (await client.get(f"{server.url}/well")).text == "well"
        assert failed > 20
