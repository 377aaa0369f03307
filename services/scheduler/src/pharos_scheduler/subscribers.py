"""The bus edge: decode, call, settle.

A message that cannot be read will never be readable: it is logged and terminated. An error of the bus
leaves the message unsettled; it comes again, and the term of leadership starts over.
"""

from __future__ import annotations

from contextlib import aclosing

import msgspec
import structlog

from pharos_contracts import streams
from pharos_contracts.jobs.v1 import AnyItemEvent, SubmitJob, WorkItem
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.subjects import MalformedSubject, parse_timer
from pharos_contracts.workers.v1 import Worker
from pharos_scheduler.scheduler import Scheduler
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import Bus
from pharos_service.pull import durable

log = structlog.get_logger()

MARKER = "Nats-Marker-Reason"


async def commands(bus: Bus, scheduler: Scheduler) -> None:
    """Q: what was submitted."""
    async with aclosing(durable(bus, streams.Q, streams.SCHEDULER_QUEUE)) as messages:
        async for message in messages:
            try:
                command: SubmitJob = decode(message.data, SubmitJob)
            except UnreadableMessage as error:
                log.error("command_unreadable", subject=message.subject, error=error.reason)
                await message.term()
                continue
            await scheduler.accept(command, message.metadata.sequence.stream, message)


async def timers(bus: Bus, scheduler: Scheduler) -> None:
    """TIMERS: each timer says nothing; the marker that its expiry leaves behind does."""
    async with aclosing(durable(bus, streams.TIMERS, streams.SCHEDULER_EXPIRY)) as messages:
        async for message in messages:
            if MARKER in (message.headers or {}):
                try:
                    await scheduler.lapse(parse_timer(message.subject))
                except MalformedSubject as error:
                    log.error("timer_unreadable", error=str(error))
            await message.ack()


async def items(bus: Bus, scheduler: Scheduler) -> None:
    """JOBS: what workers say of items."""
    async with aclosing(durable(bus, streams.JOBS, streams.SCHEDULER_ITEMS)) as messages:
        async for message in messages:
            try:
                event: AnyItemEvent = decode(message.data, AnyItemEvent)
            except UnreadableMessage as error:
                log.error("item_event_unreadable", subject=message.subject, error=error.reason)
                await message.term()
                continue
            await scheduler.follow(event)
            await message.ack()


class MaxDeliveries(msgspec.Struct):
    """The part that matters of the server's advisory (NATS ADR-1)."""

    stream: str
    stream_seq: int
    deliveries: int = 0


async def advisories(bus: Bus, scheduler: Scheduler) -> None:
    """ADVISORIES: items that the server will not deliver again."""
    async with aclosing(durable(bus, streams.ADVISORIES, streams.SCHEDULER_ADVISORIES)) as messages:
        async for message in messages:
            try:
                advisory: MaxDeliveries = decode(message.data, MaxDeliveries)
                stored = await bus.first(streams.WORK, "work.>", advisory.stream_seq)
                if stored is not None and stored.sequence == advisory.stream_seq:
                    item: WorkItem = decode(stored.data, WorkItem)
                    await scheduler.give_up(
                        item, f"It was handed to a worker {advisory.deliveries} times and never came back"
                    )
                    await bus.api(f"STREAM.MSG.DELETE.{streams.WORK}", {"seq": advisory.stream_seq})
            except UnreadableMessage as error:
                log.error("advisory_unreadable", error=error.reason)
            await message.ack()


async def workers(bus: Bus, scheduler: Scheduler) -> None:
    """KV ``workers``: who is alive."""
    async with aclosing(Bucket(bus, streams.KV_WORKERS, Worker).watch()) as changes:
        async for change in changes:
            if isinstance(change, Entry):
                scheduler.meet(change.value)
            elif isinstance(change, Gone):
                scheduler.miss(change.key)
