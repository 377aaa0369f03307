"""Sending an event stream: limits on how many are open, comments that keep proxies open, slow readers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from pharos_gateway.authentication import Unauthenticated
from pharos_gateway.happenings import comment
from pharos_gateway.problems import Problem
from pharos_service.ending import end

log = structlog.get_logger()

COMMENT_SECONDS: Final = 15.0
SEND_SECONDS_MAX: Final = 60.0
CANCEL_AGAIN_SECONDS: Final = 0.1  # below what whoever ends the stream waits; it has nothing to tidy up
MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE: Final = comment("keep-alive")

Blocks = Callable[[], AsyncGenerator[bytes, None]]


class Streams:
    """The open streams, counted by credential and all together."""

    def __init__(
        self,
        *,
        total_max: int,
        per_credential_max: int,
        is_good: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._is_good = is_good
        self._total_max = total_max
        self._per_credential_max = per_credential_max
        self._open: Counter[str] = Counter()
        self._endings: dict[str, asyncio.Event] = {}  # of the credentials with open streams

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open.total()

    def check(self, credential: str) -> None:
        """Raises the Problem of one stream too many."""
        if self._open[credential] >= self._per_credential_max:
            raise Problem(
                429,
                "too_many_streams",
                f"This key has {self._per_credential_max} event streams open already",
                headers={"Retry-After": "5"},
            )
        if self._open.total() >= self._total_max:
            raise Problem(
                503,
                "too_many_streams",
                f"{self._total_max} event streams are open already",
                headers={"Retry-After": "5"},
            )

    @contextmanager
    def opened(self, credential: str) -> Iterator[asyncio.Event]:
        """Counts one stream; what it gives is set when the stream must end.

        Unauthenticated where *credential* became good for nothing since it was let in.
        """
        self.check(credential)
        if not self._is_good(credential):
            raise Unauthenticated
        self._open[credential] += 1
        try:
            yield self._endings.setdefault(credential, asyncio.Event())
        finally:
            self._open[credential] -= 1
            if self._open[credential] <= 0:
                del self._open[credential]
                self._endings.pop(credential, None)

    def end(self, credential: str) -> None:
        """Send whoever holds *credential* away: it is not what it was. They may come back if it is good."""
        ending = self._endings.pop(credential, None)
        if ending is not None:
            ending.set()

    def answer(self, credential: str, blocks: Blocks) -> EventStream:
        """An answer that sends *blocks* as they come, to whoever holds *credential*."""
        self.check(credential)
        return EventStream(self, credential, blocks)


class EventStream(Response[bytes]):
    """An answer of type ``text/event-stream``."""

    def __init__(self, streams: Streams, credential: str, blocks: Blocks) -> None:
        super().__init__(content=b"", media_type=MEDIA_TYPE)
        self._streams = streams
        self._credential = credential
        self._blocks = blocks

    def to_asgi_response(
        self, app: Any = None, request: Request[Any, Any, Any] | None = None, **_: Any
    ) -> ASGIResponse:
        return _Sender(self._streams, self._credential, self._blocks)


class _Sender(ASGIResponse):
    """Sends blocks until they end, the client leaves, or it does not take them."""

    def __init__(self, streams: Streams, credential: str, blocks: Blocks) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        self._streams = streams
        self._credential = credential
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.opened(self._credential) as ending:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"text/event-stream; charset=utf-8"),
                        (b"x-accel-buffering", b"no"),
                    ],
                }
            )
            sending = asyncio.create_task(self._send_all(send))
            leaving = asyncio.create_task(_left(receive))
            tasks = (sending, leaving, asyncio.create_task(_set(ending)))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                results = await end(*tasks)
            if ending.is_set() and sending.cancelled():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _send_all(self, send: Send) -> None:
        try:
            async with aclosing(self._blocks()) as blocks:
                async for block in _kept_alive(blocks):
                    async with asyncio.timeout(SEND_SECONDS_MAX):
                        await send({"type": "http.response.body", "body": block, "more_body": True})
        except TimeoutError:
            log.info("stream_abandoned", reason="the client takes nothing")
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _kept_alive(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """*blocks*, with a comment in every silence of 15 s."""
    while True:
        following = asyncio.ensure_future(anext(blocks))
        try:
            while not (await asyncio.wait({following}, timeout=COMMENT_SECONDS))[0]:
                yield KEEP_ALIVE
            yield following.result()
        except StopAsyncIteration:
            return
        finally:
            await end(following, again_seconds=CANCEL_AGAIN_SECONDS)
