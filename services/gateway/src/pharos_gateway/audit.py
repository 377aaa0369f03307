"""The audit trail: who did what, to what, from where. Noted for each request that changes something.

No request waits for it: events are published behind its back, in order, and wait here while the bus is away.
An orderly stop publishes what is left. What is lost: the events of the last moments before the process is
killed (``BEHIND_SECONDS`` and one write of the bus while it is reachable), and the oldest ones beyond
``KEPT_MAX`` while it is not; how many those were is told by the next event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec.structs import replace

from pharos_contracts.audit.v1 import Audited
from pharos_contracts.subjects import audit_subject
from pharos_gateway.authentication import address_of, caller_if_any
from pharos_service.bus import Bus, BusError, BusRefused

log = structlog.get_logger()

KEPT_MAX: Final = 10_000
AT_ONCE: Final = 32
RETRY_SECONDS: Final = 0.25
# What a request started goes first: to write of it at once would delay its job by half a millisecond.
BEHIND_SECONDS: Final = 0.05
TARGET_LENGTH_MAX: Final = 256
READS: Final = {"reads": True}  # the ``opt`` of a route that changes nothing although it is a POST
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_TARGET: Final = "audit_target"


class Trail:
    """Publishes events. ``run`` it in a task of its own."""

    def __init__(self, bus: Bus, *, kept_max: int = KEPT_MAX) -> None:
        self._bus = bus
        self._kept_max = kept_max
        self._kept: deque[Audited] = deque()
        self._lost = 0
        self._something = asyncio.Event()

    def note(self, event: Audited) -> None:
        """*event* is published in its turn."""
        if len(self._kept) >= self._kept_max:
            self._kept.popleft()
            self._lost += 1
            if self._lost == 1:
                log.error("audit_lost", kept_max=self._kept_max)
        self._kept.append(event)
        self._something.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._something.wait()
            await asyncio.sleep(BEHIND_SECONDS)
            while self._something.is_set():
                if not await self._publish_some():
                    await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Publish what is left, for as long as the bus takes it. Nothing else may publish meanwhile."""
        while self._kept and await self._publish_some():
            pass
        if self._kept:
            log.error("audit_lost", count=len(self._kept) + self._lost, reason="the bus is away")

    async def _publish_some(self) -> bool:
        """Publish the oldest; whether the bus took them."""
        some = [self._kept[index] for index in range(min(AT_ONCE, len(self._kept)))]
        if not some:
            self._something.clear()
            return True
        lost, self._lost = self._lost, 0
        some[0] = replace(some[0], lost=some[0].lost + lost)
        taken = await asyncio.gather(*(self._publish(event) for event in some))
        for event, done in zip(some, taken, strict=True):
            # Beyond ``kept_max`` the oldest may have gone meanwhile: they are known by their ids.
            if done and self._kept and self._kept[0].event_id == event.event_id:
                self._kept.popleft()
            elif not done:
                break
        if not taken[0]:
            self._lost += lost
        return all(taken)

    async def _publish(self, event: Audited) -> bool:
        try:
            await self._bus.publish(audit_subject(event), event, message_id=event.event_id)
        except BusRefused as error:  # another try would not help
            log.error("audit_lost", event_id=event.event_id, reason=str(error))
        except BusError as error:
            log.debug("audit_waits", reason=str(error))
            return False
        return True


def note_target(connection: ASGIConnection[Any, Any, Any, Any], target: str) -> None:
    """What the request was about, where its address does not say so, or says more than may be kept."""
    connection.state[_TARGET] = target


def audited(app: ASGIApp, trail: Trail, *, now: Callable[[], datetime], new_id: Callable[[], str]) -> ASGIApp:
    """*app*, each of its requests that changes something noted on *trail*."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] in SAFE:
            await app(scope, receive, send)
            return
        status = 500

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, send_and_see)
        finally:
            event = _event(ASGIConnection(scope, receive), status, now, new_id)
            if event is not None:
                trail.note(event)

    return wrapped


def _event(
    connection: ASGIConnection[Any, Any, Any, Any],
    status: int,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> Audited | None:
    """What to note; None of a request that changes nothing, or of which nobody is known to be the author."""
    handler = connection.scope.get("route_handler")
    caller = caller_if_any(connection)
    if not isinstance(handler, BaseRouteHandler) or caller is None or handler.opt.get("reads"):
        return None
    target = connection.state.get(_TARGET)
    if target is None and status < 400:
        # The address of something that was not found is whatever somebody typed, a secret perhaps.
        target = "/".join(str(value) for value in connection.scope.get("path_params", {}).values())
    return Audited(
        event_id=new_id(),
        at=now(),
        tenant=caller.tenant,
        user=caller.user,
        role=caller.role,
        credential=caller.credential,
        client=address_of(connection),
        action=handler.handler_name,
        target=target[:TARGET_LENGTH_MAX] if target else None,
        status=status,
    )
