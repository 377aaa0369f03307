"""What the WebSockets of all families do alike: who is there, what is sent, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect

from pharos_gateway.access import Access
from pharos_gateway.authentication import Caller, Unauthenticated, address_of
from pharos_gateway.feeds import FeedClosed
from pharos_gateway.problems import Problem, body_of, invalid, problem_of
from pharos_gateway.streams import SEND_SECONDS_MAX, Streams
from pharos_service.ending import end

log = structlog.get_logger()

AUTH_SECONDS: Final = 10.0
SECOND_THOUGHT_SECONDS: Final = 1.0  # who may see nothing without a key may be about to send one
CLOSE_CODE: Final = 4_000  # of an error: this and its HTTP status

Socket = WebSocket[Any, Any, Any]
S = TypeVar("S", bound=msgspec.Struct)


class Presented(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of itself: ``type`` auth, and its key."""

    type: str | None = None
    token: str | None = None


class Introduced(Exception):
    """Somebody who was let in without a key has one after all."""

    def __init__(self, token: str) -> None:
        super().__init__("a key was presented")
        self.token = token


class Unread(Protocol):
    """What a socket still has to be sent."""

    async def next(self) -> bytes:
        """The next message; FeedClosed when there is none any more."""


class Conversing:
    """One object serves every socket of a process."""

    def __init__(self, access: Access, streams: Streams, now: Callable[[], datetime]) -> None:
        self._access = access
        self._streams = streams
        self._now = now

    async def attend(
        self,
        socket: Socket,
        converse: Callable[[Caller], Awaitable[None]],
        *,
        greeting: str | None = None,
    ) -> None:
        """Let *socket* in, have it *converse*, and close it as is fit.

        Who it is say its headers, a ticket or its first message, which *greeting* answers. Where nobody needs
        a key, one that comes in a message counts from then on.
        """
        try:
            await socket.accept()
            caller = await self._access.opening(socket)
            if caller is None:
                with self._streams.opened(f"address:{address_of(socket)}"):
                    caller = await self._introduced(socket)
                if greeting is not None:
                    await self.send(socket, greeting)
            try:
                await self._converse(socket, caller, converse)
            except Introduced as introduced:
                caller = await self._access.introduced(socket, introduced.token)
                if greeting is not None:
                    await self.send(socket, greeting)
                await converse(caller)
        except WebSocketDisconnect:
            return
        except TimeoutError:
            log.info("socket_abandoned", reason="the client takes nothing")
        except FeedClosed as closed:
            await socket.close(closed.code, closed.reason)
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 401:
                log.warning("authentication_failed", client=address_of(socket), method="WebSocket")
            elif problem.status == 500:
                log.error("socket_failed", exc_info=error)
            await self.send(socket, "error", **body_of(problem))
            await socket.close(CLOSE_CODE + problem.status, problem.code)

    async def _converse(
        self, socket: Socket, caller: Caller, converse: Callable[[Caller], Awaitable[None]]
    ) -> None:
        """Introduced where *caller* has no key, and presents one."""
        try:
            await converse(caller)
        except Problem as problem:
            if caller.key is not None or problem.status != 404:
                raise
            with self._streams.opened(caller.credential):
                try:
                    async with asyncio.timeout(SECOND_THOUGHT_SECONDS):
                        said = await heard(socket, Presented)
                except TimeoutError:
                    raise problem from None
            if said.type != "auth" or said.token is None:
                raise
            raise Introduced(said.token) from None

    async def _introduced(self, socket: Socket) -> Caller:
        """Whoever the first message says that the client is."""
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                said = await heard(socket, Presented)
        except TimeoutError:
            raise Unauthenticated from None
        if said.type != "auth" or said.token is None:
            raise Unauthenticated
        return await self._access.introduced(socket, said.token)

    async def send(self, socket: Socket, kind: str, **fields: Any) -> None:
        """A message of that kind, of now."""
        await deliver(socket, msgspec.json.encode({"type": kind, **fields, "timestamp": self._now()}))

    async def listen(
        self, socket: Socket, caller: Caller, type_: type[S], obey: Callable[[S], Awaitable[None]]
    ) -> None:
        """Have every message obeyed, each of which counts as a request. A mistake in one is answered.

        Introduced where *caller* has no key, and one of them presents one.
        """
        while True:
            try:
                text = await socket.receive_text()
                said = understood(text, type_)
                if caller.key is None:
                    presented = understood(text, Presented)
                    if presented.type == "auth" and presented.token is not None:
                        raise Introduced(presented.token)
                await self._access.count(socket, caller)
                await obey(said)
            except Problem as problem:
                await self.send(socket, "error", **body_of(problem))

    async def tell(self, socket: Socket, unread: Unread, *, ping_seconds: float | None = None) -> None:
        """Send what is unread as it comes, and a ping after so long a silence."""
        while True:
            try:
                async with asyncio.timeout(ping_seconds):
                    message = await unread.next()
            except TimeoutError:
                await self.send(socket, "ping")
                continue
            await deliver(socket, message)

    async def until_enough(self, ending: asyncio.Event, *both: Coroutine[Any, Any, None]) -> None:
        """Do *both* until one of the two has had enough, or *ending* says that the key is not what it was."""
        tasks = [asyncio.create_task(each) for each in (*both, _set(ending))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(*tasks)
        for task in done:
            task.result()
        raise Unauthenticated


async def heard(socket: Socket, type_: type[S]) -> S:
    """The next message. A Problem where it cannot be understood."""
    return understood(await socket.receive_text(), type_)


def understood(text: str, type_: type[S]) -> S:
    """*text* as what it means. A Problem where it cannot be understood."""
    try:
        return msgspec.json.decode(text, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid("The message is not JSON as it is spoken here") from error


async def deliver(socket: Socket, message: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS_MAX):
        await socket.send_text(message.decode())


async def _set(event: asyncio.Event) -> None:
    await event.wait()
