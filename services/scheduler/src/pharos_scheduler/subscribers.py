"""The bus edge: decode, call, settle.

A command that cannot be read becomes a dead letter. An error of the bus leaves the message unsettled; it
comes again, and the term of leadership starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVarTuple, Unpack

import anyio
import msgspec
import structlog
from nats.aio.msg import Msg

from pharos_contracts import rpc, streams
from pharos_contracts.control.v1 import AnyCommand, AskPlace
from pharos_contracts.jobs.v1 import NO_NUMBER, AnyItemEvent, SubmitJob, WorkItem
from pharos_contracts.message import Message, UnreadableMessage, decode, encode
from pharos_contracts.rpc import Refused
from pharos_contracts.subjects import DueKind, MalformedSubject, parse_due, parse_timer
from pharos_contracts.workers.v1 import Worker
from pharos_scheduler.controlling import Controller
from pharos_scheduler.dead_letters import unreadable
from pharos_scheduler.ports import DeadLetters
from pharos_scheduler.pushes import HeldPushes, Pushes
from pharos_scheduler.scheduler import Scheduler
from pharos_scheduler.schedules import Schedules, WakeUp
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import MARKER, TROUBLE, Bus
from pharos_service.pull import durable

log = structlog.get_logger()

Args = TypeVarTuple("Args")

INBOX = "_INBOX."
AT_ONCE_MAX = 32
BATCH = 64
# A leader that is frozen or cut off is still handed messages for this long, and the next one waits for them.
EXPIRES_SECONDS = 3.0


def messages_of(bus: Bus, stream: str, consumer: str, batch: int = BATCH) -> AsyncGenerator[Msg, None]:
    return durable(bus, stream, consumer, batch=batch, expires_seconds=EXPIRES_SECONDS)


class _AtOnce:
    """Some messages handled at once; an error in one of them is an error of the block."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE_MAX)
        self._tasks = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._tasks.__aexit__(kind, error, trace)

    async def start(self, act: Callable[[Unpack[Args]], Awaitable[None]], *arguments: *Args) -> None:
        """Begin, as soon as there is a place."""
        await self._places.acquire()
        self._tasks.start_soon(self._do, act, *arguments)

    async def _do(self, act: Callable[[Unpack[Args]], Awaitable[None]], *arguments: *Args) -> None:
        try:
            await act(*arguments)
        finally:
            self._places.release()


async def commands(bus: Bus, scheduler: Scheduler, letters: DeadLetters) -> None:
    """Q: what was submitted. Different jobs at once: who asks where one stands knows of all before it."""
    await _submitted(bus, scheduler, letters, streams.Q, streams.SCHEDULER_QUEUE)


async def documents(bus: Bus, scheduler: Scheduler, letters: DeadLetters) -> None:
    """DOCS: likewise of documents."""
    await _submitted(bus, scheduler, letters, streams.DOCS, streams.SCHEDULER_DOCUMENTS)


async def _submitted(
    bus: Bus, scheduler: Scheduler, letters: DeadLetters, stream: str, consumer: str
) -> None:
    async with aclosing(messages_of(bus, stream, consumer)) as messages, _AtOnce() as at_once:
        async for message in messages:
            try:
                command: SubmitJob = decode(message.data, SubmitJob)
            except UnreadableMessage as error:
                await _bury(letters, stream, message, error.reason)
                continue
            number = message.metadata.sequence.stream if stream == streams.Q else NO_NUMBER
            scheduler.arrive(command, number)
            await at_once.start(scheduler.accept, command, number, message)


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

    async def follow(event: AnyItemEvent, message: Msg) -> None:
        await scheduler.follow(event, message.metadata.sequence.stream)
        await message.ack()

    async with (
        aclosing(messages_of(bus, streams.JOBS, streams.SCHEDULER_ITEMS)) as messages,
        _AtOnce() as at_once,
    ):
        async for message in messages:
            try:
                event: AnyItemEvent = decode(message.data, AnyItemEvent)
            except UnreadableMessage as error:
                log.error("item_event_unreadable", subject=message.subject, error=error.reason)
                await message.term()
                continue
            await at_once.start(follow, event, message)


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
            if isinstance(answer, Refused):
                # An acknowledgement may be forgotten by a crash, and what was refused must not be done then.
                await bus.api(
                    f"STREAM.MSG.DELETE.{streams.CONTROL}",
                    {"seq": message.metadata.sequence.stream, "no_erase": True},
                )
            if answer is not None and command.reply_to.startswith(
                INBOX
            ):  # who asked may be gone: it is for whoever still listens
                await bus.client.publish(command.reply_to, encode(answer))
            await message.ack()


async def due(bus: Bus, scheduler: Scheduler, schedules: Schedules, pushes: Pushes) -> None:
    """SCHED: backoffs that are over, schedules whose time has come, and pushes that rest."""
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
                elif what.kind is DueKind.PUSH:
                    await pushes.due(what, decode(message.data, HeldPushes))
                    # It may hold many pushes, and nobody needs it any more.
                    await bus.api(
                        f"STREAM.MSG.DELETE.{streams.SCHED}",
                        {"seq": message.metadata.sequence.stream, "no_erase": True},
                    )
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
            reply: Message = await scheduler.place(question.job)
        except UnreadableMessage as error:
            reply = Refused(code="unreadable_question", detail=error.reason, status=400)
        if message.reply:
            await bus.client.publish(message.reply, encode(reply))

    subscription = await bus.client.subscribe(rpc.SCHEDULER)
    try:
        async with _AtOnce() as at_once:
            async for message in subscription.messages:
                await at_once.start(answer, message)
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
