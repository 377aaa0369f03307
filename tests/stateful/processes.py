"""What takes the place of a process: a thread with an event loop, which can be frozen, and killed for good.

Frozen, its loop stands still between two steps, as under SIGSTOP: its connection stays, its clock runs on.
Killed, nothing that it still says reaches the bus: its line is cut first, then its loop stops for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nats.aio.client import Client

from tests.support.proxy import Proxy

BURIAL_SECONDS: Final = 5.0

_here = threading.local()


class Clock:
    """The time of day as one machine has it: ``ahead_seconds`` of the true one."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_seconds)


def this_process() -> Process | None:
    """The process that the calling thread stands for."""
    found: Process | None = getattr(_here, "process", None)
    return found


def now_here() -> datetime:
    """The time of day as the calling process has it."""
    process = this_process()
    return process.clock.now() if process is not None else datetime.now(UTC)


class Process:
    """Runs ``main`` until it returns, raises or is killed; then says so by ``on_end``, from its thread.

    ``error`` is what *main* raised, ``dead`` whether it was killed. Connections go through *proxy*;
    ``clients`` are told of, so that they end with the process.
    """

    def __init__(
        self,
        name: str,
        proxy: Proxy,
        clock: Clock,
        main: Callable[[Process], Coroutine[Any, Any, None]],
        on_end: Callable[[], None],
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.clock = clock
        self.clients: list[Client] = []
        self.dead = False
        self.error: BaseException | None = None
        self._main = main
        self._on_end = on_end
        self._loop = asyncio.new_event_loop()
        self._flowing = threading.Event()
        self._flowing.set()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.proxy.port}"

    def start(self) -> None:
        self._thread.start()

    # From any thread

    def freeze(self) -> None:
        self._flowing.clear()
        self.tell(self._flowing.wait)

    def thaw(self) -> None:
        self._flowing.set()

    def tell(self, act: Callable[[], object]) -> None:
        """Have *act* called in the process, unless it has ended."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(act)

    def kill(self) -> None:
        """As kill -9 does; what it does from now on nobody sees."""
        self.dead = True
        self.proxy.cut()
        self._flowing.set()
        self.tell(self._stop)

    def join(self) -> None:
        self._thread.join()

    # In its own thread

    def _run(self) -> None:
        _here.process = self
        task = self._loop.create_task(self._main(self))
        task.add_done_callback(lambda _: self._stop())
        try:
            self._loop.run_forever()
            self._over = True
            if task.done() and not task.cancelled() and not self.dead:
                self.error = task.exception()
            self._bury()
        finally:
            self._on_end()

    def _stop(self) -> None:
        if not self._over:
            self._loop.stop()

    def _bury(self) -> None:
        """End what is left of it, so that nothing of it outlives the test."""
        for client in self.clients:
            client._status = Client.CLOSED  # whatever its last words are, they fail at once
            if client._transport is not None:
                client._transport.close()  # type: ignore[no-untyped-call]
        deadline = self._loop.time() + BURIAL_SECONDS
        while (left := asyncio.all_tasks(self._loop)) and self._loop.time() < deadline:
            for task in left:
                task.cancel()
            done, _ = self._loop.run_until_complete(asyncio.wait(left, timeout=0.5))
            for task in done:
                if not task.cancelled():
                    task.exception()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
