"""Probes answer while the service runs, and say why it is not ready."""

from __future__ import annotations

import asyncio

import pytest

from pharos_service.health import probes
from tests.support.nats_server import free_port

pytestmark = pytest.mark.anyio


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]), body.strip()


async def test_it_is_alive_and_says_why_it_is_not_ready() -> None:
    reason: str | None = "not connected to the bus"
    port = free_port()
    async with probes("127.0.0.1", port, lambda: reason):
        assert await get(port, "/livez") == (200, "alive")
        assert await get(port, "/readyz") == (503, "not connected to the bus")
        reason = None
        assert await get(port, "/readyz") == (200, "ready")
        assert (await get(port, "/other"))[0] == 404


async def test_a_client_that_says_nothing_or_too_much_does_no_harm() -> None:
    port = free_port()
    async with probes("127.0.0.1", port, lambda: None):
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        _, loud = await asyncio.open_connection("127.0.0.1", port)
        loud.write(b"x" * 100_000)
        assert await get(port, "/livez") == (200, "alive")
        silent.close()
        loud.close()


async def test_port_zero_answers_nothing() -> None:
    async with probes("127.0.0.1", 0, lambda: None):
        pass
