"""The services of a history: real ones, each a process that is started again whenever it ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import anyio
import pytest
from nats.aio.msg import Msg

from pharos_contracts import streams
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.control import Control
from pharos_embedder.draining import Drain
from pharos_embedder.presence import Presence
from pharos_embedder.worker import Worker
from pharos_history.app import serve as serve_history
from pharos_history.settings import HistorySettings
from pharos_scheduler.app import LEASE_KEY, lead_term
from pharos_scheduler.settings import Settings
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus, connect
from pharos_service.lease import Held, Lease, lead
from pharos_service.pull import durable
from pharos_service.settings import ServiceSettings
from tests.stateful.judging import Harm
from tests.stateful.labour import Day, Labour
from tests.stateful.logbook import Logbook
from tests.stateful.processes import Clock, Process
from tests.stateful.shelf import Shelf
from tests.stateful.short_times import LEASE_SECONDS, WORKER
from tests.support.proxy import Proxy

BACK_SECONDS: Final = 0.2


class Member:
    """One name, whatever process has it at the moment. ``errors`` is what processes of it ended with.

    ``harms`` are the times at which an instance of a worker was killed, frozen or kept from the bus: nobody
    else may be taken for dead.
    """

    def __init__(
        self,
        name: str,
        proxy: Proxy,
        main: Callable[[Member, Process], Coroutine[Any, Any, None]],
        logbook: Logbook,
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.clock = Clock()
        self.drain = Drain()
        self.instance = ""
        self.harms: list[Harm] = []
        self.errors: list[BaseException] = []
        self.process: Process | None = None
        self._back_seconds = BACK_SECONDS
        self._main = main
        self._logbook = logbook

    async def keep(self) -> None:
        """Start it, and again whenever it ends, until cancelled; then it is killed."""
        loop = asyncio.get_running_loop()
        while True:
            ended = asyncio.Event()

            def tell(ended: asyncio.Event = ended) -> None:
                loop.call_soon_threadsafe(ended.set)

            process = Process(self.name, self.proxy, self.clock, self._start, tell)
            process.start()
            self.process = process
            self._logbook.write(self.name, "starts")
            try:
                await ended.wait()
            except asyncio.CancelledError:
                process.kill()
                with anyio.CancelScope(shield=True):
                    await ended.wait()
                raise
            finally:
                process.join()
                if process.error is not None:
                    self.errors.append(process.error)
            self._logbook.write(self.name, "ended", error=repr(process.error))
            await asyncio.sleep(self._back_seconds)
            self._back_seconds = BACK_SECONDS
            self.proxy.heal()

    async def _start(self, process: Process) -> None:
        await self._main(self, process)

    def kill(self, back_seconds: float) -> None:
        self.harm()
        self._back_seconds = back_seconds
        if self.process is not None:
            self.process.kill()

    def freeze(self) -> Harm:
        if self.process is not None:
            self.process.freeze()
        return self.harm()

    def thaw(self) -> None:
        if self.process is not None:
            self.process.thaw()

    def tell(self, act: Callable[[], object]) -> None:
        if self.process is not None:
            self.process.tell(act)

    def harm(self) -> Harm:
        """Something happens to the process that may look like its death; whoever ends it says so there."""
        self.harms.append(Harm(self.instance, time.time()))
        return self.harms[-1]


def scheduler(name: str, proxy: Proxy, logbook: Logbook) -> Member:
    """It stands by until the lease is free, then leads."""

    async def main(_member: Member, process: Process) -> None:
        async with _connected(process) as bus:

            async def term(held: Held) -> None:
                await lead_term(bus, Settings(nats_url=process.url), held)

            lease = Bucket(bus, streams.KV_LEASE, Lease)
            await lead(lease, LEASE_KEY, f"{name}.{uuid4().hex[:4]}", LEASE_SECONDS, term)

    return Member(name, proxy, main, logbook)


def worker(
    name: str,
    proxy: Proxy,
    logbook: Logbook,
    shelf: Shelf,
    day: Callable[[str, int], Day],
) -> Member:
    """It has one slot. It leaves when it was drained."""

    async def main(member: Member, process: Process) -> None:
        member.instance = instance = f"{name}.{uuid4().hex[:6]}"
        member.drain = drain = Drain()
        view = WorkerView(
            name=name,
            instance=instance,
            pool="default",
            state=WorkerState.IDLE,
            device="cpu",
            slots=1,
            since=process.clock.now(),
            seen_at=process.clock.now(),
        )
        async with _connected(process) as bus:
            presence = Presence(bus, view, process.clock.now)
            control = Control(bus)
            work = Labour(bus, shelf, process, instance, day)
            protocol = Worker(
                bus, work, presence, control, drain, now=process.clock.now, config=WORKER, die=process.kill
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(presence.beat)
                tasks.start_soon(control.follow)
                await protocol.serve()
                tasks.cancel_scope.cancel()

    return Member(name, proxy, main, logbook)


def history(name: str, proxy: Proxy, logbook: Logbook, home: Path) -> Member:
    """It keeps its views in *home*."""

    async def main(_member: Member, process: Process) -> None:
        await serve_history(HistorySettings(nats_url=process.url, home=str(home)))

    return Member(name, proxy, main, logbook)


@asynccontextmanager
async def _connected(process: Process) -> AsyncIterator[Bus]:
    bus = await connect(ServiceSettings(nats_url=process.url), process.name)
    process.clients.append(bus.client)
    try:
        yield bus
    finally:
        with suppress(*TROUBLE):
            await bus.client.close()


@contextmanager
def deliveries(most: int) -> Iterator[deque[Msg]]:
    """While the block lasts: the last few messages that workers were sent."""
    sent: deque[Msg] = deque(maxlen=most)

    async def noted(bus: Bus, stream: str, consumer: str, **options: Any) -> AsyncGenerator[Msg, None]:
        async with aclosing(durable(bus, stream, consumer, **options)) as messages:
            async for message in messages:
                sent.append(message)
                yield message

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pharos_embedder.worker.durable", noted)
        yield sent
