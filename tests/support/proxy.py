"""TCP connections that can be cut, held, slowed down and healed, one proxy for each client that shall suffer.

All proxies turn on one event loop in a thread of its own, so that a test which waits or sleeps does not stand
in their way. What a proxy is told is in force when the call returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from pharos_service.ending import end
from tests.support.nats_server import free_port

READ_BYTES: Final = 64 * 1024
CALL_SECONDS: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, as a machine that is gone does

T = TypeVar("T")


class Network:
    """The loop of the proxies; use it in a ``with`` block. Coroutines of a test may run there too."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="network", daemon=True)
        self._proxies: list[Proxy] = []

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CALL_SECONDS)
        self.loop.close()

    async def _close(self) -> None:
        for proxy in self._proxies:
            await proxy.close()
        left = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}
        await end(*left)

    def call(self, coroutine: Coroutine[Any, Any, T], seconds: float = CALL_SECONDS) -> T:
        """The result of *coroutine*, for any other thread; TimeoutError after *seconds*, which ends it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def proxy(self, target_port: int) -> Proxy:
        """A new way to *target_port* of this machine; the target may be started later."""
        proxy = Proxy(self, target_port)
        self.call(proxy.open())
        self._proxies.append(proxy)
        return proxy


class Proxy:
    """One listening port. ``accepted`` counts the connections that clients have made so far."""

    def __init__(self, network: Network, target_port: int) -> None:
        self.port = free_port()
        self.accepted = 0
        self._network = network
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._wires: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._latency_seconds = 0.0
        self._bytes_per_second = 0.0

    # From any thread

    def cut(self) -> None:
        """Reset every connection, and every new one, until healed. What was on its way is lost."""
        self._network.call(self._do(self.cut_now))

    def hold(self) -> None:
        """Connections stand, and new ones are accepted, but nothing passes until healed; then all of it."""
        self._network.call(self._do(self.hold_now))

    def slow(self, latency_seconds: float, bytes_per_second: float = 0) -> None:
        """Delay whatever passes, each way, by so much; a rate of 0 is none."""

        def act() -> None:
            self._latency_seconds, self._bytes_per_second = latency_seconds, bytes_per_second

        self._network.call(self._do(act))

    def heal(self) -> None:
        """As if nothing had happened, but for connections that were cut."""
        self._network.call(self._do(self.heal_now))

    @staticmethod
    async def _do(act: Any) -> None:
        act()

    # In the network's own thread, at once

    def cut_now(self) -> None:
        self._refusing = True
        for writer in tuple(self._wires):
            _reset(writer)

    def hold_now(self) -> None:
        self._flowing.clear()

    def heal_now(self) -> None:
        self._refusing = False
        self._latency_seconds = self._bytes_per_second = 0.0
        self._flowing.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        assert self._server is not None, "open it first"
        self._server.close()
        self.cut_now()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._wires.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                _reset(writer)
                return
            await self._flowing.wait()
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._wires.add(far)
            if self._refusing:
                return
            await asyncio.gather(self._pump(reader, far), self._pump(far_reader, writer))
            for each in (writer, far):
                each.close()  # both have said their last word: what is still in a buffer arrives
        except OSError:
            pass  # one of the two is gone, and the other one is about to be
        finally:
            for each in (writer, far):
                if each is not None:
                    if not each.is_closing():
                        _reset(each)
                    self._wires.discard(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            if self._latency_seconds or self._bytes_per_second:
                pace = len(data) / self._bytes_per_second if self._bytes_per_second else 0.0
                await asyncio.sleep(self._latency_seconds + pace)
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        await self._flowing.wait()
        with contextlib.suppress(OSError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, and drop what is still in a buffer."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
