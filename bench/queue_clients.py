"""Clients that submit over HTTP: a connection each, kept alive, and no more code around it than that.

An HTTP library would take longer for a request than the gateway does, on the same two cores.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from bench.queue_stack import SOURCE

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Refused(Exception):
    """The gateway answered something else than 200; the text is what it said."""


def repositories() -> Iterator[str]:
    """Addresses that no one has submitted before."""
    return (f"{SOURCE}/bench/repository-{number}" for number in itertools.count())


class Client:
    """One connection, one request at a time. Use it with ``async with``."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def submit(self, repository: str) -> str:
        """The id of the job. Refused."""
        self._writer.write(f"POST /api/v1/ingestion/ingest/{repository} HTTP/1.1\r\n{self._head}".encode())
        head = (await self._reader.readuntil(_END)).lower()
        length = next(line for line in head.split(b"\r\n") if line.startswith(_LENGTH))
        body = await self._reader.readexactly(int(length.removeprefix(_LENGTH)))
        if head.split(b" ", 2)[1] != b"200":
            raise Refused(body.decode())
        return str(json.loads(body)["id"])


async def submit_all(
    port: int, token: str, addresses: Iterator[str], *, clients: int, jobs: int
) -> tuple[list[float], float]:
    """*jobs* submits by *clients* at once, each as fast as it is answered; (seconds of each, of all)."""
    seconds: list[float] = []
    left = jobs

    async def client() -> None:
        nonlocal left
        async with Client(port, token) as connection:
            while left > 0:
                left -= 1
                began = time.perf_counter()
                await connection.submit(next(addresses))
                seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, time.perf_counter() - began
