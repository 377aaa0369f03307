"""``/batch/ws``: what happens to batches and their files, live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import structlog
from litestar import Router, WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath, QueryParameter

from pharos_contracts.jobs.v1 import Job
from pharos_gateway.access import Access
from pharos_gateway.acting import Acting, acting
from pharos_gateway.authentication import Caller, Unauthenticated, address_of
from pharos_gateway.batch_feeds import BatchFeed
from pharos_gateway.batches import UserId, shown_user
from pharos_gateway.batching import Batching
from pharos_gateway.boards import Boards
from pharos_gateway.feeds import FeedClosed
from pharos_gateway.finding import HistoryUnavailable
from pharos_gateway.live import Live
from pharos_gateway.problems import Problem, body_of, invalid, not_found, problem_of, unavailable
from pharos_gateway.reachability import reach
from pharos_gateway.routes.sockets import AUTH_SECONDS, CLOSE_CODE
from pharos_gateway.streams import SEND_SECONDS_MAX, Streams
from pharos_service.bus import Bus

log = structlog.get_logger()

PING_SECONDS: Final = 30.0

Socket = WebSocket[Any, Any, Any]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says: ``ping``, or who it is (``auth``). What a pong answers has its own time."""

    type: str = ""
    token: str | None = None
    timestamp: str | None = None


def routes(
    access: Access,
    bus: Bus,
    live: Live,
    streams: Streams,
    batching: Batching,
    boards: Boards,
    now: Callable[[], datetime],
) -> Router:
    """The WebSocket of this family."""

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

    async def listen(socket: Socket, caller: Caller) -> None:
        while True:
            try:
                said = await _heard(socket)
                await access.count(socket, caller)
                match said.type:
                    case "ping":
                        await send(socket, "pong")
                    case "pong" | "auth":
                        pass  # an answer to our ping; or a client that has sent its key in a header as well
                    case _:
                        raise invalid("The messages are ping, pong and auth", field="type")
            except Problem as problem:  # a mistake in one message; the socket goes on
                await send(socket, "error", **body_of(problem))

    async def tell(socket: Socket, feed: BatchFeed) -> None:
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    message = await feed.next()
            except TimeoutError:
                await send(socket, "ping")
                continue
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await socket.send_text(message.decode())

    async def followed(whom: Acting, job_id: str | None) -> Job | None:
        if job_id is None:
            return None
        job = await batching.find(whom.sight, job_id)
        if job is None:
            raise not_found("job")
        return job

    async def converse(socket: Socket, caller: Caller, user_id: str, job_id: str | None) -> None:
        """Until one of the two has had enough."""
        await reach(bus, live.ready)  # or what happens next could be taken for the past
        whom = acting(caller, user_id)
        try:
            job = await followed(whom, job_id)
            tenant = caller.tenant if job is None else job.tenant
            feed = BatchFeed(whom.within(tenant), None if job is None else job.job_id)
            with streams.opened(caller.credential) as ending:
                await send(
                    socket, "connection_established", user_id=shown_user(whom.owner), job_id=feed.job_id
                )
                async with boards.feeding(feed, whom.owner, job):
                    await attend(socket, caller, feed, ending)
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error

    async def attend(socket: Socket, caller: Caller, feed: BatchFeed, ending: asyncio.Event) -> None:
        tasks = (
            asyncio.create_task(listen(socket, caller)),
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

    @websocket("/batch/ws/{user_id:str}")
    async def batch_socket(
        socket: Socket,
        user_id: FromPath[UserId],
        job_id: Annotated[str | None, QueryParameter(description="Follow this batch only.")] = None,
    ) -> None:
        try:
            await socket.accept()
            caller = await access.opening(socket)
            if caller is None:
                with streams.opened(f"address:{address_of(socket)}"):
                    caller = await introduced(socket)
            await converse(socket, caller, user_id, job_id)
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

    return Router("/", route_handlers=[batch_socket])


async def _heard(socket: Socket) -> Said:
    """The next message. A Problem where it cannot be understood."""
    text = await socket.receive_text()
    try:
        return msgspec.json.decode(text, type=Said)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid("The message is not JSON as it is spoken here") from error


async def _set(event: asyncio.Event) -> None:
    await event.wait()
