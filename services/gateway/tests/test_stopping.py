"""What reads the bus stops when it is told to, although Python 3.11 may forget that it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import nats.errors
import pytest

from pharos_contracts.workers.v1 import Worker
from pharos_gateway.callbacks import Callbacks
from pharos_gateway.live import Live
from pharos_gateway.signing import SigningSecrets
from pharos_gateway.streams import Streams
from pharos_service.buckets import Bucket

pytestmark = pytest.mark.anyio


class Forgetful:
    """A subscription that forgets a cancellation, as ``wait_for`` does when a message comes with it."""

    def __init__(self) -> None:
        self.listening = asyncio.Event()
        self.forgot = False

    async def next_msg(self, timeout: float) -> Any:
        self.listening.set()
        try:
            await asyncio.sleep(timeout)
        except asyncio.CancelledError:
            if self.forgot:
                raise
            self.forgot = True
        raise nats.errors.TimeoutError

    async def unsubscribe(self) -> None:
        return None


class World:
    """A bus with nothing on it, and everybody who listens to it."""

    connected = True

    def __init__(self) -> None:
        self.subscriptions: list[Forgetful] = []
        self.client = SimpleNamespace(
            stats={"reconnects": 0}, new_inbox=lambda: "inbox", subscribe=self.subscribe, publish=self.publish
        )

    async def subscribe(self, subject: str) -> Forgetful:
        self.subscriptions.append(Forgetful())
        return self.subscriptions[-1]

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        return None

    async def api(self, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"name": "c", "num_pending": 0, "state": {"first_seq": 1, "last_seq": 0}}


def callbacks(world: Any) -> Coroutine[Any, Any, None]:
    return Callbacks(
        world,
        world,
        SigningSecrets("k"),
        address_of=lambda url: pytest.fail("nothing is to be sent"),
        now=lambda: datetime.now(UTC),
        delay_after=lambda tries: 1.0,
    ).run()


def live(world: Any) -> Coroutine[Any, Any, None]:
    return Live(world, Bucket(world, "workers", Worker)).run()


async def test_an_event_stream_ends_with_its_client_although_a_cancellation_is_forgotten() -> None:
    listening = asyncio.Event()

    async def blocks() -> AsyncGenerator[bytes, None]:
        try:
            listening.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        yield b""

    async def receive() -> Any:
        await listening.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        return None

    streams = Streams(total_max=1, per_credential_max=1)
    answer = streams.answer("key", blocks).to_asgi_response()
    async with asyncio.timeout(5):
        await answer({}, receive, send)  # type: ignore[arg-type]
    streams.check("key")  # its place is free again


@pytest.mark.parametrize(("runs", "listeners"), [(callbacks, 1), (live, 3)])
async def test_a_forgotten_cancellation_is_repeated_until_everything_has_ended(
    runs: Callable[[Any], Coroutine[Any, Any, None]], listeners: int
) -> None:
    world = World()
    running = asyncio.create_task(runs(world))
    async with asyncio.timeout(5):
        while len(world.subscriptions) < listeners:
            await asyncio.sleep(0)
        for subscription in world.subscriptions:
            await subscription.listening.wait()
        running.cancel()
        ended, _ = await asyncio.wait({running}, timeout=2)
    assert ended == {running}
    assert all(subscription.forgot for subscription in world.subscriptions)
