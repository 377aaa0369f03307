"""Clients that are slow, that say too much and that do not read: what they cost is bounded."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest

from pharos_contracts.lifecycle import JobState
from pharos_gateway import wire
from pharos_gateway.app import serving
from pharos_service.bus import Bus
from tests.support.gateway import BEARER, TOKEN, History, client, events, job, settings, until_ready
from tests.support.nats_server import NatsServer, free_port

pytestmark = pytest.mark.anyio

HEAD: Final = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST: Final = b"POST /api/v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + (
    b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
)
MIB: Final = 1024 * 1024


@pytest.fixture
async def address(nats_server: NatsServer) -> AsyncIterator[tuple[str, int]]:
    async with serving(settings(nats_server.url)) as running:
        url = httpx.URL(running.address)
        assert url.port is not None
        yield url.host, url.port


@asynccontextmanager
async def connected(
    address: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answers(reader: asyncio.StreamReader) -> list[tuple[int, dict[str, Any]]]:
    """(status, body) of each answer until the gateway closes the connection."""
    async with asyncio.timeout(10):
        rest = (await reader.read()).decode()
    found = []
    while rest:
        head, _, rest = rest.partition("\r\n\r\n")
        lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
        length = int(lines["content-length"])
        found.append((int(head.split(" ")[1]), json.loads(rest[:length])))
        rest = rest[length:]
    return found


async def test_a_request_must_come_to_its_end_in_time(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(wire, "BODY_SECONDS", 0.2)
    whole = HEAD + b"\r\n"
    for said, statuses in (
        (b"", [408]),
        (b"GET /livez HT", [408]),
        (HEAD, [408]),
        (whole + HEAD, [200, 408]),
        (POST + b"Content-Length: 9\r\n\r\n{", [408]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", [408]),
    ):
        async with connected(address) as (reader, writer):
            writer.write(said)
            told = await answers(reader)
            assert [status for status, _ in told] == statuses, said
            assert told[-1][1]["code"] == "too_slow"


async def test_who_leaves_in_the_middle_of_a_body_is_no_fault_of_the_gateway(
    address: tuple[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    async with connected(address) as (_, writer):
        writer.write(POST + b"Content-Length: 9\r\n\r\n{")
        await writer.drain()
    async with connected(address) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert [status for status, _ in await answers(reader)] == [200]
    assert "request_failed" not in capfd.readouterr().out


async def test_a_body_that_goes_on_coming_is_waited_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(wire, "BODY_BYTES_MIN", 1)
    body = b'{"query":""}    '
    async with connected(address) as (reader, writer):
        writer.write(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
        ((status, problem),) = await answers(reader)
        assert (status, problem["field"]) == (400, "query")


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (HEAD + b"X: " + b"x" * 100_000, 431, "head_too_large"),
        (HEAD + b"X: y\r\n" * 18_000, 431, "head_too_large"),
        (b"GET /" + b"x" * 100_000, 431, "head_too_large"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 18_000, 431, "head_too_large"),
        ((HEAD + b"\r\n") * 100, 400, "invalid_http"),
        (b"\x00\x01", 400, "invalid_http"),
    ],
    ids=["a header", "headers", "an address", "trailers", "requests ahead", "something else"],
)
async def test_who_says_more_than_anybody_needs_to_is_sent_away(
    address: tuple[str, int], said: bytes, status: int, code: str
) -> None:
    async with connected(address) as (reader, writer):
        writer.write(said)
        *_, (last, problem) = await answers(reader)
        assert (last, problem["code"]) == (status, code)


async def test_who_does_not_read_an_answer_is_cut_off(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "READ_SECONDS", 0.3)

    def ask(slow: socket.socket) -> bool:
        """Ask for more and more, and whether the gateway has had enough."""
        try:
            slow.sendall(b"GET /schema/messages HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
        except OSError:
            return True
        return False

    with deaf(address) as slow:
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(ask, slow):
                await asyncio.sleep(0.02)


@contextmanager
def deaf(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A connection whose other side soon finds that nothing more fits."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(address)
        yield made


def opened(slow: socket.socket) -> None:
    """Make a WebSocket of it, to the word with which the gateway agrees."""
    slow.sendall(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    )
    slow.settimeout(10)
    received = b""
    while b"\r\n\r\n" not in received:
        received += slow.recv(1)
    assert received.startswith(b"HTTP/1.1 101")


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """As a client sends it, masked with nothing."""
    assert len(payload) < 65_536
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return head + bytes([0xFE]) + struct.pack("!H", len(payload)) + bytes(4) + payload


def closed_with(slow: socket.socket) -> int:
    """The code of the closing frame, behind whatever else was sent."""
    received = bytearray()

    def more(length: int) -> bytes:
        while len(received) < length:
            chunk = slow.recv(65_536)
            assert chunk, "the gateway left without a word"
            received.extend(chunk)
        taken = bytes(received[:length])
        del received[:length]
        return taken

    while True:
        opcode, length = more(2)
        if length == 126:
            (length,) = struct.unpack("!H", more(2))
        payload = more(length)
        if opcode & 0x0F == 8:
            (code,) = struct.unpack_from("!H", payload)
            return int(code)


TEXT, MORE, PING = 1, 0, 9


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame(TEXT, b"x" * 16_385), 1009),
        (frame(TEXT, b"{", final=False) + frame(MORE, b"", final=False) * 1_000, 1009),
        (frame(TEXT, b"\xff"), 1007),
        (b"\xff" * 16, 1002),
    ],
    ids=["a large message", "empty fragments", "no text", "no frame"],
)
async def test_a_socket_that_says_too_much_is_closed(
    bus: Bus, address: tuple[str, int], said: bytes, code: int
) -> None:
    async with client(f"http://{address[0]}:{address[1]}", **BEARER) as http:
        await until_ready(http)
    with deaf(address) as slow:
        await asyncio.to_thread(opened, slow)
        slow.sendall(said)
        assert await asyncio.to_thread(closed_with, slow) == code


async def test_who_does_not_read_is_not_listened_to(bus: Bus, address: tuple[str, int]) -> None:
    def flood(slow: socket.socket) -> int:
        """How many bytes of pings go in before nothing more does; at most 64 MiB."""
        pings, sent = frame(PING, bytes(125)) * 1_000, 0
        slow.settimeout(1)
        try:
            while sent < 64 * MIB:
                sent += slow.send(pings)
        except TimeoutError:
            pass
        return sent

    async with client(f"http://{address[0]}:{address[1]}", **BEARER) as http:
        await until_ready(http)
    with deaf(address) as slow:
        await asyncio.to_thread(opened, slow)
        assert await asyncio.to_thread(flood, slow) < 16 * MIB


@contextmanager
def gateway(nats_url: str, home: Path) -> Iterator[tuple[psutil.Process, tuple[str, int]]]:
    """A gateway as a process of its own."""
    port = free_port()
    environ = {
        **os.environ,
        "PHAROS_HOME": str(home),
        "PHAROS_NATS_URL": nats_url,
        "PHAROS_PORT": str(port),
        "PHAROS_ADMIN_TOKEN": TOKEN,
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pharos_gateway"], env=environ, stdout=log, stderr=log
        )
    try:
        yield psutil.Process(process.pid), ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


async def test_clients_that_stop_reading_do_not_grow_the_gateway(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    history = History(bus)
    large = "x" * 40_000
    with gateway(nats_server.url, tmp_path) as (process, place), ExitStack() as stack:
        async with client(f"http://{place[0]}:{place[1]}", **BEARER) as http:
            await until_up(http)
            sockets = [stack.enter_context(deaf(place)) for _ in range(15)]
            for slow in sockets:
                await asyncio.to_thread(opened, slow)
                slow.sendall(frame(TEXT, b'{"action":"subscribe","project":"default"}'))
            for _ in range(15):
                reader = stack.enter_context(deaf(place))
                reader.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n")
                reader.sendall(b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
                assert await asyncio.to_thread(reader.recv, 1, socket.MSG_PEEK)
            before = process.memory_info().rss
            async with asyncio.timeout(60), aclosing(events(http, "/api/v1/events")) as stream:
                assert (await anext(stream)).comment == "connected"
                for start in range(1, 601, 20):
                    told = (
                        history.tell(job(number), JobState.FAILED, error=large)
                        for number in range(start, start + 20)
                    )
                    await asyncio.gather(*told)
                async for event in stream:  # until the gateway is through with all of them
                    if event.id is not None and event.data["number"] == 600:
                        break
            grown = process.memory_info().rss - before
            # 600 of 40 kB are kept once for all event streams; the sockets would have kept 360 MB.
            assert grown < 120 * MIB, f"{grown / MIB:.0f} MiB"
            codes = await asyncio.gather(*(asyncio.to_thread(closed_with, slow) for slow in sockets[:3]))
            assert set(codes) == {1013}


async def until_up(http: httpx.AsyncClient) -> None:
    """Wait until a gateway that was just started would take a job."""
    async with asyncio.timeout(30):
        while True:
            with suppress(httpx.TransportError):
                return await until_ready(http)
            await asyncio.sleep(0.05)
