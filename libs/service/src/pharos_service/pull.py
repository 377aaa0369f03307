"""Reading a stream so that a restart of the server is noticed in seconds.

Client-side watchers and ordered consumers were seen to stay deaf for 19 s after a restart of the server.
A pull here asks for idle heartbeats; when they stop, the consumer is taken for lost and bound again, or
made again from the last sequence seen (NATS ADR-37 describes the protocol of pulls).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pharos_service.bus import Bus, BusError, NotFound, Stored, heeding

log = structlog.get_logger()

HEARTBEAT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 2.5
LISTEN_SECONDS: Final = 0.4
RETRY_SECONDS: Final = 0.25
EXPIRES_SECONDS: Final = 20.0
BATCH: Final = 256


class ConsumerLost(Exception):
    """The consumer is gone or silent."""


class _Pull:
    """The messages of one consumer, over one inbox. Ends with ConsumerLost, never by itself."""

    def __init__(self, bus: Bus, stream: str, consumer: str, batch: int, expires_seconds: float) -> None:
        self._bus = bus
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._batch = batch
        self._expires_seconds = expires_seconds
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._wanted = 0
        self._connection = 0

    async def __aenter__(self) -> _Pull:
        self._connection = self._bus.client.stats["reconnects"]
        self._inbox = self._bus.client.new_inbox()
        try:
            self._subscription = await self._bus.client.subscribe(self._inbox)
        except nats.errors.Error as error:
            raise ConsumerLost(str(error)) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError, ValueError):
                await self._subscription.unsubscribe()

    async def _ask(self) -> None:
        request = {
            "batch": self._batch,
            "expires": int(self._expires_seconds * 1e9),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
        }
        try:
            await self._bus.client.publish(self._next, json.dumps(request).encode(), reply=self._inbox)
        except nats.errors.Error as error:
            raise ConsumerLost(str(error)) from error
        self._wanted = self._batch

    async def message(self) -> Msg:
        """The next message; waits for it. ConsumerLost when the server stops answering for the consumer."""
        assert self._subscription is not None, "enter the pull first"
        heard = asyncio.get_running_loop().time()
        while True:
            if self._wanted <= 0:
                await self._ask()
            try:
                message = await heeding(self._subscription.next_msg(timeout=LISTEN_SECONDS))
            except (nats.errors.TimeoutError, TimeoutError) as error:
                if self._bus.client.stats["reconnects"] != self._connection:
                    raise ConsumerLost("the connection is another one") from error
                if asyncio.get_running_loop().time() - heard > SILENCE_SECONDS:
                    raise ConsumerLost("no heartbeat") from error
                continue
            except nats.errors.Error as error:
                raise ConsumerLost(repr(error)) from error
            heard = asyncio.get_running_loop().time()
            if message.reply.startswith("$JS.ACK"):
                self._wanted -= 1
                return message
            headers = message.headers or {}
            status = headers.get("Status")
            if status == "100":
                continue
            if status in ("404", "408"):
                self._wanted = 0
                continue
            raise ConsumerLost(f"status {status} {headers.get('Description', '')}")


async def durable(
    bus: Bus, stream: str, consumer: str, *, batch: int = BATCH, expires_seconds: float = EXPIRES_SECONDS
) -> AsyncGenerator[Msg, None]:
    """The messages of a durable consumer, to be acknowledged by the reader, for ever.

    With a ``batch`` of n the server hands this reader at most n messages ahead of the one in hand. It goes on
    doing so for ``expires_seconds`` (3 or more) after the reader was frozen or cut off.
    """
    while True:
        try:
            async with _Pull(bus, stream, consumer, batch, expires_seconds) as pull:
                while True:
                    yield await pull.message()
        except ConsumerLost as lost:
            log.debug("consumer_lost", stream=stream, consumer=consumer, reason=str(lost))
        await asyncio.sleep(RETRY_SECONDS)


class CaughtUp(msgspec.Struct, frozen=True):
    """Everything that was stored when the tail began, or began anew, has been seen."""


async def tail(
    bus: Bus,
    stream: str,
    subjects: Sequence[str],
    *,
    after: int | None = None,
    last_per_subject: bool = False,
) -> AsyncGenerator[Stored | CaughtUp, None]:
    """Every message under *subjects*, in order and once, over reconnects and restarts, for ever.

    Begins behind sequence ``after``; with ``last_per_subject`` at the last message of each subject;
    else with what is stored from now on. ``CaughtUp`` follows the last message that was already there.
    """
    seen = after
    if seen is None and not last_per_subject:
        seen = await _last_sequence(bus, stream)
    while True:
        name: str | None = None
        try:
            created = await bus.api(f"CONSUMER.CREATE.{stream}", _ephemeral(stream, subjects, seen))
            name = str(created["name"])
            pending = int(created.get("num_pending", 0))
            delivered = 0
            if pending == 0:
                yield CaughtUp()
            async with _Pull(bus, stream, name, BATCH, EXPIRES_SECONDS) as pull:
                while True:
                    message = await pull.message()
                    position = message.metadata
                    delivered += 1
                    if position.sequence.consumer != delivered:
                        raise ConsumerLost("a message was lost on the way")
                    seen = position.sequence.stream
                    yield Stored(message.subject, message.data, seen, dict(message.headers or {}))
                    if delivered == pending:
                        yield CaughtUp()
        except (ConsumerLost, BusError) as lost:
            log.debug("tail_lost", stream=stream, reason=str(lost))
            if seen is not None and isinstance(lost, ConsumerLost):
                seen = await _still_valid(bus, stream, seen)
        finally:
            if name is not None:
                await _delete(bus, stream, name)
        await asyncio.sleep(RETRY_SECONDS)


async def _delete(bus: Bus, stream: str, name: str) -> None:
    """Best effort: the server forgets an idle consumer by itself."""
    if bus.connected:
        with contextlib.suppress(nats.errors.Error, OSError):
            await bus.client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")


def _ephemeral(stream: str, subjects: Sequence[str], seen: int | None) -> dict[str, object]:
    config: dict[str, object] = {
        "ack_policy": "none",
        "filter_subjects": list(subjects),
        "inactive_threshold": int(30e9),
        "mem_storage": True,
        "num_replicas": 1,
    }
    if seen is None:
        config["deliver_policy"] = "last_per_subject"
    else:
        config["deliver_policy"] = "by_start_sequence"
        config["opt_start_seq"] = seen + 1
    return {"stream_name": stream, "config": config}


async def _last_sequence(bus: Bus, stream: str) -> int:
    while True:
        try:
            info = await bus.api(f"STREAM.INFO.{stream}")
            return int(info["state"]["last_seq"])
        except BusError as error:
            log.debug("stream_unreachable", stream=stream, error=str(error))
        await asyncio.sleep(RETRY_SECONDS)


async def _still_valid(bus: Bus, stream: str, seen: int) -> int:
    """*seen*, unless the stream was made anew meanwhile (a memory stream after a restart): then its start."""
    with contextlib.suppress(BusError):
        try:
            info = await bus.api(f"STREAM.INFO.{stream}")
        except NotFound:
            return 0
        if int(info["state"]["last_seq"]) < seen:
            return 0
    return seen
