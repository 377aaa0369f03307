"""Who has let go of an item no longer tells the queue that it is being worked on."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from pharos_embedder.holding import Hold
from pharos_embedder.worker import Worker, WorkerConfig
from pharos_service.bus import Bus

pytestmark = pytest.mark.anyio


class LateClient:
    """Its first answer comes together with the cancellation of whoever asked, which is swallowed so."""

    is_connected = True

    def __init__(self) -> None:
        self.asked = 0
        self.waiting = asyncio.Event()

    def jetstream(self, **_: Any) -> None:
        """Nobody here publishes."""

    async def request(self, *_: Any, **__: Any) -> bytes:
        self.asked += 1
        self.waiting.set()
        with contextlib.suppress(*((asyncio.CancelledError,) if self.asked == 1 else ())):
            await asyncio.sleep(60)
        return b""


async def nobody() -> None:
    """Nobody else has said anything of the item."""


async def test_an_answer_that_comes_together_with_the_end_does_not_keep_the_item_from_others() -> None:
    client: Any = LateClient()
    others: Any = None
    worker = Worker(
        Bus(client), others, others, others, others, now=others, config=WorkerConfig(hold=0.01, lapse=60)
    )
    message: Any = SimpleNamespace(reply="ack")
    items: Any = SimpleNamespace(said_by_another=nobody)
    keeping = asyncio.create_task(worker._keep(message, Hold(60), items))
    await asyncio.wait_for(client.waiting.wait(), 5)

    keeping.cancel()
    await asyncio.wait([keeping], timeout=1)

    ended = keeping.done()
    keeping.cancel()
    assert ended
    assert client.asked == 1
