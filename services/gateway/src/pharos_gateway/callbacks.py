"""Callbacks: telling the address that came with a submit that its job has ended.

The events of ended jobs wait in a durable consumer that every gateway reads, so a callback is sent whoever is
alive and however often a gateway dies; it may be sent twice, and its ``delivery_id`` says so to the receiver.
A try that failed is handed back to the bus with a delay that doubles. A slow receiver costs two of the places
at most: what else is for it waits its turn here, and says so to the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup
from nats.aio.msg import Msg

from pharos_contracts.jobs.v1 import JobCancelled, JobCompleted, JobEvent, JobFailed, JobSkipped
from pharos_contracts.message import UnreadableMessage, decode, tag_of
from pharos_contracts.streams import (
    CALLBACK_ACK_WAIT_SECONDS,
    CALLBACK_DELIVERIES_MAX,
    CALLBACKS,
    JOBS,
)
from pharos_gateway.callback_url import CallbackAddress, InvalidCallbackUrl
from pharos_gateway.job_view import view
from pharos_gateway.posting import PostFailed
from pharos_gateway.signing import SigningSecrets, signature
from pharos_service.bus import TROUBLE, Bus
from pharos_service.ending import end
from pharos_service.pull import durable

log = structlog.get_logger()

AT_ONCE_MAX: Final = 16
AT_ONCE_PER_HOST_MAX: Final = 2
DELAY_SECONDS_MIN: Final = 10.0
DELAY_SECONDS_MAX: Final = 3_600.0
JITTER: Final = 0.25
STOP_SECONDS: Final = 1.0
GONE: Final = 410

_Ended = JobCompleted | JobFailed | JobCancelled | JobSkipped


def delay_seconds(tries: int, chance: float) -> float:
    """How long to wait after the *tries*-th try: 10 s, 20 s, … to an hour, give or take a quarter.

    *chance* is a number from 0 to 1. All tries together take two and a half to four and a half hours.
    """
    delay = min(DELAY_SECONDS_MIN * 2 ** (tries - 1), DELAY_SECONDS_MAX)
    return float(delay * (1 - JITTER + 2 * JITTER * chance))


def body_of(event: JobEvent) -> bytes:
    """What is sent: the same bytes at every try."""
    said: dict[str, Any] = {
        "event": f"job.{tag_of(event).rpartition('.')[2]}",
        "delivery_id": event.event_id,
        "at": event.at,
        "job": view(event.job, None, workers=None),
    }
    return msgspec.json.encode(said)


class Posts(Protocol):
    """How a callback leaves."""

    async def post(self, address: CallbackAddress, headers: dict[str, str], body: bytes) -> int: ...


class Callbacks:
    """Sends callbacks. ``run`` it in a task of its own."""

    def __init__(
        self,
        bus: Bus,
        poster: Posts,
        secrets: SigningSecrets,
        *,
        address_of: Callable[[str], CallbackAddress],
        now: Callable[[], datetime],
        delay_after: Callable[[int], float],
    ) -> None:
        self._bus = bus
        self._poster = poster
        self._secrets = secrets
        self._address_of = address_of
        self._now = now
        self._delay_after = delay_after
        self._in_hand: dict[str, Msg] = {}
        self._all = asyncio.Semaphore(AT_ONCE_MAX)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self) -> None:
        """For ever. What is in hand when it is cancelled is handed back for another gateway to send."""
        try:
            # See ``Live.run``: reading is a child too, so that no cancellation is forgotten.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, tasks)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_SECONDS):
                for message in self._in_hand.values():
                    await _settle(message.nak(delay=STOP_SECONDS))

    async def _read(self, tasks: TaskGroup) -> None:
        async with aclosing(durable(self._bus, JOBS, CALLBACKS)) as messages:
            async for message in messages:
                await self._take(message, tasks)

    async def _take(self, message: Msg, tasks: TaskGroup) -> None:
        try:
            event: JobEvent = decode(message.data, _Ended)
        except UnreadableMessage as error:
            log.warning("event_unreadable", sequence=message.metadata.sequence.stream, error=error.reason)
            await _settle(message.term())
            return
        if event.job.callback_url is None:
            await _settle(message.ack())
        elif event.event_id in self._in_hand:
            self._in_hand[event.event_id] = message  # it came again while its turn was awaited
        else:
            self._in_hand[event.event_id] = message
            tasks.start_soon(self._deliver, event, event.job.callback_url)

    async def _deliver(self, event: JobEvent, url: str) -> None:
        try:
            address = self._address_of(url)
        except InvalidCallbackUrl as error:  # the list of allowed hosts has changed since
            log.warning("callback_refused", job_id=event.job.job_id, reason=error.reason)
            await _settle(self._in_hand.pop(event.event_id).term())
            return
        host = self._hosts.setdefault(address.host, asyncio.Semaphore(AT_ONCE_PER_HOST_MAX))
        async with self._held(event.event_id), host, self._all:
            status, reason = await self._post(event, address)
        await self._conclude(event, self._in_hand.pop(event.event_id), status, reason)

    async def _post(self, event: JobEvent, address: CallbackAddress) -> tuple[int | None, str]:
        """(status or None, what to say of it)."""
        body = body_of(event)
        timestamp = str(int(self._now().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "pharos-callbacks",
            "X-Pharos-Timestamp": timestamp,
            "X-Pharos-Signature": signature(self._secrets.of(event.job.tenant), timestamp, body),
            "X-Pharos-Delivery": event.event_id,
        }
        try:
            status = await self._poster.post(address, headers, body)
        except PostFailed as error:
            return None, error.reason
        except Exception as error:  # a callback that breaks something here must not break those of others
            return None, f"it could not be sent ({type(error).__name__})"
        return status, f"it answered with status {status}"

    async def _conclude(self, event: JobEvent, message: Msg, status: int | None, reason: str) -> None:
        tries = message.metadata.num_delivered
        facts: dict[str, Any] = {"job_id": event.job.job_id, "delivery_id": event.event_id, "tries": tries}
        if status is not None and 200 <= status < 300:
            log.info("callback_delivered", **facts)
            await _settle(message.ack())
        elif status == GONE:
            log.warning("callback_unwanted", **facts, reason=reason)
            await _settle(message.term())
        elif tries >= CALLBACK_DELIVERIES_MAX:
            log.warning("callback_given_up", **facts, reason=reason)
            await _settle(message.term())
        else:
            delay = self._delay_after(tries)
            log.info("callback_failed", **facts, reason=reason, next_in_seconds=round(delay, 1))
            await _settle(message.nak(delay=delay))

    @asynccontextmanager
    async def _held(self, event_id: str) -> AsyncIterator[None]:
        """While the block runs the bus is told that the event is still in hand."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(CALLBACK_ACK_WAIT_SECONDS / 3)
                await _settle(self._in_hand[event_id].in_progress())

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            await end(renewing)


async def _settle(settling: Any) -> None:
    """Best effort: what the bus does not hear of comes again."""
    with contextlib.suppress(*TROUBLE):
        await settling
