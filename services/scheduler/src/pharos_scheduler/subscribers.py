"""The bus edge: decode, call, settle.

A command that cannot be read becomes a dead letter. An error of the bus leaves the message unsettled; it
comes again, and the term of leadership starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import msgspec
import structlog
from nats.aio.msg import Msg

from pharos_contracts import rpc, streams
from pharos_contracts.control.v1 import AnyCommand, AskPlace
from pharos_contracts.jobs.v1 import AnyItemEvent, SubmitJob, WorkItem
from pharos_contracts.message import Message, UnreadableMessage, decode, encode
from pharos_contracts.rpc import Refused
from pharos_contracts.subjects import DueKind, MalformedSubject, parse_due, parse_timer
from pharos_contracts.workers.v1 import Worker
from pharos_scheduler.controlling import Controller
from pharos_scheduler.dead_letters import unreadable
from pharos_scheduler.ports import DeadLetters
from pharos_scheduler.scheduler import Scheduler
from pharos_scheduler.schedules import Schedules, WakeUp
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import TROUBLE, Bus
from pharos_service.pull import durable

log = structlog.get_logger()

MARKER = "Nats-Marker-Reason"
INBOX = "_INBOX."
FOLLOWED_AT_ONCE = 32
BATCH = 64
# A leader that is frozen or cut off is still handed messages for this long, and the next one waits for them.
EXPIRES_SECONDS = 3.0


def messages_of(bus: Bus, stream: str, consumer: str, batch: int = BATCH) -> AsyncGenerator[Msg, None]:
    return durable(bus, stream, consumer, batch=batch, expires_seconds=EXPIRES_SECONDS)


async def commands(bus: Bus, scheduler: Scheduler, letters: DeadLetters) -> None:
    """Q: what was submitted."""
    async with aclosing(messages_of(bus, streams.Q, streams.SCHEDULER_QUEUE)) as messages:
        async for message in messages:
            try:
                command: SubmitJob = decode(message.data, SubmitJob)
            except UnreadableMessage as error:
                await _bury(letters, streams.Q, message, error.reason)
                continue
            await scheduler.accept(command, message.metadata.sequence.stream, message)


async def timers(bus: Bus, scheduler: Scheduler) -> None:
    """TIMERS: each timer says nothing; the marker that its expiry leaves behind does."""
    async with aclosing(messages_of(bus, streams.TIMERS, streams.SCHEDULER_EXPIRY)) as messages:
        async for message in messages:
            if MARKER in (message.headers or {}):
                try:
                    await scheduler.lapse(parse_timer(message.subject))
                except MalformedSubject as error:
                    log.error("timer_unreadable", error=str(error))
            await message.ack()


async def items_said(bus: Bus, scheduler: Scheduler) -> None:
    """JOBS: what workers say of items. Of different jobs at once; of one job in order, by the book's lock."""
    places = asyncio.Semaphore(FOLLOWED_AT_ONCE)

    async def follow(event: AnyItemEvent, message: Msg) -> None:
        try:
            await scheduler.follow(event, message.metadata.sequence.stream)
            await message.ack()
        finally:
            places.release()

    async with (
        aclosing(messages_of(bus, streams.JOBS, streams.SCHEDULER_ITEMS)) as messages,
        anyio.create_task_group() as tasks,
    ):
        async for message in messages:
            try:
                event: AnyItemEvent = decode(message.data, AnyItemEvent)
            except UnreadableMessage as error:
                log.error("item_event_unreadable", subject=message.subject, error=error.reason)
                await message.term()
                continue
            await places.acquire()
            tasks.start_soon(follow, event, message)


async def control(bus: Bus, controller: Controller, letters: DeadLetters) -> None:
    """CONTROL: what owners and operators ask, one after the other, each with its answer."""
    async with aclosing(messages_of(bus, streams.CONTROL, streams.SCHEDULER_CONTROL, batch=1)) as messages:
        async for message in messages:
            try:
                command: AnyCommand = decode(message.data, AnyCommand)
            except UnreadableMessage as error:
                await _bury(letters, streams.CONTROL, message, error.reason)
                continue
            answer = await controller.carry_out(command, message.metadata.sequence.stream)
            if command.reply_to.startswith(INBOX):  # who asked may be gone: it is for whoever still listens
                await bus.client.publish(command.reply_to, encode(answer))
            await message.ack()


async def due(bus: Bus, scheduler: Scheduler, schedules: Schedules) -> None:
    """SCHED: backoffs that are over, and schedules whose time has come."""
    async with aclosing(messages_of(bus, streams.SCHED, streams.SCHEDULER_DUE)) as messages:
        async for message in messages:
            try:
                what = parse_due(message.subject)
            except MalformedSubject as error:
                log.error("due_unreadable", error=str(error))
                await message.term()
                continue
            try:
                if what.kind is DueKind.CRON:
                    await schedules.due(what.tenant, what.id, decode(message.data, WakeUp))
                elif message.data.isdigit():
                    await scheduler.due(what.tenant, what.id, int(message.data))
            except UnreadableMessage as error:
                log.error("due_unreadable", subject=message.subject, error=error.reason)
            await message.ack()


async def places(bus: Bus, scheduler: Scheduler) -> None:
    """``rpc.scheduler``: where a job stands. Every leader answers; the first answer counts."""

    async def answer(message: Msg) -> None:
        try:
            question: AskPlace = decode(message.data, AskPlace)
            reply: Message = scheduler.place(question.job)
        except UnreadableMessage as error:
            reply = Refused(code="unreadable_question", detail=error.reason, status=400)
        if message.reply:
            await bus.client.publish(message.reply, encode(reply))

    subscription = await bus.client.subscribe(rpc.SCHEDULER, cb=answer)
    try:
        await asyncio.Event().wait()
    finally:
        with contextlib.suppress(*TROUBLE):
            await subscription.unsubscribe()


async def _bury(letters: DeadLetters, stream: str, message: Msg, reason: str) -> None:
    """A message that nobody can read is kept, and never delivered again."""
    log.error("message_unreadable", subject=message.subject, error=reason)
    await letters.put(
        unreadable(
            stream,
            message.metadata.sequence.stream,
            message.subject,
            message.data,
            reason,
            at=message.metadata.timestamp,
        )
    )
    await message.term()


class MaxDeliveries(msgspec.Struct):
    """The part that matters of the server's advisory (NATS ADR-1)."""

    stream: str
    stream_seq: int
    deliveries: int = 0


async def advisories(bus: Bus, scheduler: Scheduler) -> None:
    """ADVISORIES: items that the server will not deliver again."""
    async with aclosing(messages_of(bus, streams.ADVISORIES, streams.SCHEDULER_ADVISORIES)) as messages:
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
