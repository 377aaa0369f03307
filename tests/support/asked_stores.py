"""The embedded store as another process sees it: an owner, and who asks it on another connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pharos_contracts.rpc import POINTS
from pharos_embedder.asked_store import AskedStore, AskingTimes, asked_store
from pharos_embedder.edge_store import EdgeEngine
from pharos_embedder.generations import Engine
from pharos_embedder.store_owner import StoreOwner
from pharos_service.bus import Bus, connect
from pharos_service.settings import ServiceSettings
from tests.support.nats_server import NatsServer

T = TypeVar("T")

BRIEF = AskingTimes(answer=1, away=10, pause=0.02)


class AskedStores:
    """A bus, and on it an owner with the index in *folder*. Enter it; `store` gives stores that ask.

    The event loop is another thread's, as it is for a worker whose stages run in threads.
    """

    def __init__(self, folder: Path, *, dimensions: int, engine: Engine | None = None) -> None:
        self.engine = engine or EdgeEngine(folder, dimensions=dimensions)
        self.server = NatsServer()
        self._dimensions = dimensions
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._owning: Future[None] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What *work* returns, on the event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def store(self, dimensions: int | None = None, *, times: AskingTimes = BRIEF) -> AskedStore:
        async def make() -> AskedStore:
            return asked_store(self.asking, dimensions=dimensions or self._dimensions, times=times)

        return self.run(make())

    def own(self) -> None:
        """Open the index and answer for it; returns when questions are heard."""
        self.engine.open()
        owner = StoreOwner(self.engine, dimensions=self._dimensions)
        self._owning = asyncio.run_coroutine_threadsafe(owner.serve(self.owning), self._loop)
        self.run(self._until_heard())

    async def _until_heard(self) -> None:
        async with asyncio.timeout(10):
            while POINTS not in {each.subject for each in self.owning.client._subs.values()}:
                await asyncio.sleep(0.005)
            await self.owning.client.flush()

    def disown(self) -> None:
        """Answer no more, and close the index."""
        if self._owning is not None:
            self._owning.cancel()
            self.run(self._until_silent())
            self._owning = None
        self.engine.close()

    async def _until_silent(self) -> None:
        async with asyncio.timeout(10):
            while POINTS in {each.subject for each in self.owning.client._subs.values()}:
                await asyncio.sleep(0.005)

    def __enter__(self) -> AskedStores:
        self.server.start()
        self._thread.start()
        settings = ServiceSettings(nats_url=self.server.url)
        self.owning: Bus = self.run(connect(settings, "owner"))
        self.asking: Bus = self.run(connect(settings, "asking"))
        self.own()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disown()
        self.run(self.asking.client.close())
        self.run(self.owning.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.server.__exit__(kind, error, trace)
