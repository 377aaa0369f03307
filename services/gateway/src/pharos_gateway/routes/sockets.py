"""``/ws``: progress of the jobs of projects, live."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
from litestar import Router, websocket

from pharos_contracts.identity import InvalidName
from pharos_gateway.authentication import Caller
from pharos_gateway.feeds import TOPIC, Feed, TooManyProjects
from pharos_gateway.live import Live
from pharos_gateway.problems import invalid
from pharos_gateway.project_names import named_project
from pharos_gateway.reachability import reach
from pharos_gateway.routes.conversing import Conversing, Socket
from pharos_gateway.streams import Streams
from pharos_service.bus import Bus

TOPICS_MAX: Final = 20


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says: an ``action``, or ``type`` ping."""

    action: str | None = None
    type: str | None = None
    project: str = "default"
    topics: list[str] = []


def routes(
    conversing: Conversing, bus: Bus, live: Live, streams: Streams, now: Callable[[], datetime]
) -> Router:
    """The routes of this family."""
    send = conversing.send

    async def obey(socket: Socket, feed: Feed, caller: Caller, said: Said) -> None:
        match said.action or said.type:
            case "ping":
                await send(socket, "pong")
            case "auth":  # some send their key in a header and in a message
                pass
            case "subscribe":
                unknown = [topic for topic in said.topics if topic != TOPIC]
                if unknown or len(said.topics) > TOPICS_MAX:
                    raise invalid(f"There is no such topic here; the topic is {TOPIC}", field="topics")
                try:
                    name = named_project(said.project)
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

    @websocket("/ws")
    async def progress_socket(socket: Socket) -> None:
        async def converse(caller: Caller) -> None:
            await reach(bus, live.ready)  # or what happens next could be taken for the past
            feed = Feed(now=now)
            with streams.opened(caller.credential) as ending, live.heard_by(feed):
                await conversing.until_enough(
                    ending,
                    conversing.listen(socket, caller, Said, lambda said: obey(socket, feed, caller, said)),
                    conversing.tell(socket, feed),
                )

        await conversing.attend(socket, converse, greeting="authenticated")

    return Router("/", route_handlers=[progress_socket])
