"""``/ws``: progress of the jobs of projects, live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from litestar import Router, WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from pharos_contracts.identity import InvalidName
from pharos_gateway import projects
from pharos_gateway.access import Access
from pharos_gateway.authentication import Caller, Unauthenticated, address_of
from pharos_gateway.feeds import TOPIC, Feed, FeedClosed, TooManyProjects
from pharos_gateway.live import Live
from pharos_gateway.problems import Problem, body_of, invalid, problem_of
from pharos_gateway.reachability import reach
from pharos_gateway.streams import SEND_SECONDS_MAX, Streams
from pharos_service.bus import Bus

log = structlog.get_logger()

AUTH_SECONDS: Final = 10.0
CLOSE_CODE: Final = 4_000  # of an error: this and its HTTP status
TOPICS_MAX: Final = 20

Socket = WebSocket[Any, Any, Any]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says: an ``action``, or who it is (``type`` auth)."""

    action: str | None = None
    type: str | None = None
    token: str | None = None
    project: str = "default"
    topics: list[str] = []


def routes(access: Access, bus: Bus, live: Live, streams: Streams, now: Callable[[], datetime]) -> Router:
    """The routes of this family."""

    async def send(socket: Socket, kind: str, **fields: Any) -> None:
        message = msgspec.json.encode({"type": kind, **fields, "timestamp": now()})
        async with asyncio.timeout(SEND_SECONDS_MAX):
            await socket.send_text(message.decode())

    async def introduced(socket: Socket) -> Caller:
        """Whoever the first message says that the client is."""
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                said = await _heard(socket)
        except TimeoutError:
            raise Unauthenticated from None
        if said.type != "auth" or said.token is None:
            raise Unauthenticated
        return await access.introduced(socket, said.token)

    async def obey(socket: Socket, feed: Feed, caller: Caller, said: Said) -> None:
        match said.action or said.type:
            case "ping":
                await send(socket, "pong")
            case "subscribe":
                unknown = [topic for topic in said.topics if topic != TOPIC]
                if unknown or len(said.topics) > TOPICS_MAX:
                    raise invalid(f"There is no such topic here; the topic is {TOPIC}", field="topics")
                try:
                    name = projects.named_project(said.project)
                    sight = caller.sight if name is None else caller.sight_in_tenant.within(name)
                    feed.subscribe(said.project, sight.repositories)
                except (InvalidName, TooManyProjects) as error:
                    raise invalid(str(error), field="project") from error
                await send(socket, "subscribed", project=said.project, topics=[TOPIC])
            case "unsubscribe":
                feed.unsubscribe(said.project)
                await send(socket, "unsubscribed", project=said.project)
            case _:
                raise invalid("The actions are subscribe, unsubscribe and ping", field="action")

    async def listen(socket: Socket, feed: Feed, caller: Caller) -> None:
        while True:
            try:
                said = await _heard(socket)
                await access.count(socket, caller)
                await obey(socket, feed, caller, said)
            except Problem as problem:  # a mistake in one message; the socket goes on
                await send(socket, "error", **body_of(problem))

    async def tell(socket: Socket, feed: Feed) -> None:
        while True:
            message = await feed.next()
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await socket.send_text(message.decode())

    async def converse(socket: Socket, caller: Caller) -> None:
        """Until one of the two has had enough."""
        await reach(bus, live.ready)  # or what happens next could be taken for the past
        feed = Feed(now=now)
        with streams.opened(caller.credential) as ending, live.heard_by(feed):
            tasks = (
                asyncio.create_task(listen(socket, feed, caller)),
                asyncio.create_task(tell(socket, feed)),
                asyncio.create_task(_set(ending)),
            )
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()
            raise Unauthenticated  # the key is not what it was

    async def attend(socket: Socket) -> None:
        await socket.accept()
        caller = await access.opening(socket)
        if caller is None:
            with streams.opened(f"address:{address_of(socket)}"):
                caller = await introduced(socket)
            await send(socket, "authenticated")
        await converse(socket, caller)

    @websocket("/ws")
    async def progress_socket(socket: Socket) -> None:
        try:
            await attend(socket)
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
            await send(socket, "error", **body_of(problem))
            await socket.close(CLOSE_CODE + problem.status, problem.code)

    return Router("/", route_handlers=[progress_socket])


async def _heard(socket: Socket) -> Said:
    """The next message. A Problem where it cannot be understood."""
    text = await socket.receive_text()
    try:
        return msgspec.json.decode(text, type=Said)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid("The message is not JSON as it is spoken here") from error


async def _set(event: asyncio.Event) -> None:
    await event.wait()
