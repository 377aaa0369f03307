"""``/batch/ws``: what happens to batches and their files, live."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Router, websocket
from litestar.params import FromPath, QueryParameter

from pharos_contracts.jobs.v1 import Job
from pharos_gateway.acting import Acting, acting
from pharos_gateway.authentication import Caller
from pharos_gateway.batch_feeds import BatchFeed
from pharos_gateway.batches import UserId, shown_user
from pharos_gateway.batching import Batching
from pharos_gateway.boards import Boards
from pharos_gateway.finding import HistoryUnavailable
from pharos_gateway.live import Live
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.reachability import reach
from pharos_gateway.routes.conversing import Conversing, Socket
from pharos_gateway.streams import Streams
from pharos_service.bus import Bus

PING_SECONDS: Final = 30.0


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says: ``type`` ping, or pong, which answers ours."""

    type: str = ""


def routes(
    conversing: Conversing, bus: Bus, live: Live, streams: Streams, batching: Batching, boards: Boards
) -> Router:
    """The WebSocket of this family."""

    async def followed(whom: Acting, job_id: str | None) -> Job | None:
        if job_id is None:
            return None
        job = await batching.find(whom.sight, job_id)
        if job is None:
            raise not_found("job")
        return job

    @websocket("/batch/ws/{user_id:str}")
    async def batch_socket(
        socket: Socket,
        user_id: FromPath[UserId],
        job_id: Annotated[str | None, QueryParameter(description="Follow this batch only.")] = None,
    ) -> None:
        async def obey(said: Said) -> None:
            match said.type:
                case "ping":
                    await conversing.send(socket, "pong")
                case "pong" | "auth":  # some send their key in a header and in a message
                    pass
                case _:
                    raise invalid("The messages are ping, pong and auth", field="type")

        async def converse(caller: Caller) -> None:
            await reach(bus, live.ready)  # or what happens next could be taken for the past
            whom = acting(caller, user_id)
            try:
                job = await followed(whom, job_id)
                tenant = caller.tenant if job is None else job.tenant
                feed = BatchFeed(whom.within(tenant), None if job is None else job.job_id)
                with streams.opened(caller.credential) as ending:
                    await conversing.send(
                        socket, "connection_established", user_id=shown_user(whom.owner), job_id=feed.job_id
                    )
                    async with boards.feeding(feed, whom.owner, job):
                        await conversing.until_enough(
                            ending,
                            conversing.listen(socket, caller, Said, obey),
                            conversing.tell(socket, feed, ping_seconds=PING_SECONDS),
                        )
            except HistoryUnavailable as error:
                raise unavailable("History", str(error)) from error

        await conversing.attend(socket, converse)

    return Router("/", route_handlers=[batch_socket])
