"""The worker: takes an item, holds it, says what became of it. What is done with it is ``ports.Work``.

An item is delivered at least once. Who takes it says ``started`` behind whatever was said last; that
compare-and-set is what makes a second holder impossible. While it works it tells the queue so, and stops by
itself where the queue has not answered for as long as it takes to give the item to another. A worker that
dies leaves the item to the queue, and what it stored by content is found again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import anyio
import msgspec
import structlog
from msgspec.structs import replace
from nats.aio.msg import Msg

from pharos_contracts import streams
from pharos_contracts.control.v1 import DeadLetter, DeadLetterKind
from pharos_contracts.identity import TENANT_DEFAULT, InvalidName, token
from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Purpose,
    Stage,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.subjects import dead_letter_subject, held_name, work_message_id, work_subject
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_embedder.control import Control
from pharos_embedder.draining import Drain
from pharos_embedder.holding import Ending, Hold, clock
from pharos_embedder.items import ItemLog, last_fact
from pharos_embedder.ports import Failed, NothingToDo, Problem, Report, Stopped, Work, unexpected
from pharos_embedder.presence import Presence, ProgressFeed
from pharos_embedder.taking import DEATHS_MAX, Drop, Expire, Finish, Poisoned, Start, decide, holder
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import TROUBLE, Bus, WrongLastSequence
from pharos_service.ending import end
from pharos_service.journal import Superseded
from pharos_service.lease import Lease, term_of
from pharos_service.pull import durable

log = structlog.get_logger()

T = TypeVar("T")

EXPIRED: Final = "Task exceeded TTL"
POISON: Final = Problem(
    sentence=f"Its worker died {DEATHS_MAX} times while it worked on this job, so it is not tried again",
    code="poison",
)
LEASE_KEY: Final = "scheduler"
POLL_SECONDS: Final = 0.1
ASK_SECONDS: Final = 1.0
SETTLE_TRIES: Final = 20
SETTLE_RETRY_SECONDS: Final = 0.5
PUT_OFF_SECONDS: Final = 1.0
CLEAR_RETRY_SECONDS: Final = 2.0
FAREWELL_SECONDS: Final = 3.0
HOLDERS_SECONDS_MAX: Final = 2 * streams.WORKER_TTL_SECONDS
TURN_SECONDS_MAX: Final = 12 * 3600.0  # more than all stages together may take
EXIT_STUCK: Final = 70  # EX_SOFTWARE of sysexits.h: a supervisor starts it again


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds.

    ``hold``: between two messages that say that the item is being worked on. ``lapse``: without an answer to
    one of them, the item may be another's. ``stop``: what work may take to stop before the process ends
    itself. ``adoption``: what a new leader may take to look through what the one before handed out.
    """

    hold: float = 3.0
    # Well before the bucket forgets a worker that is cut off: one that is gone from there writes no more.
    lapse: float = streams.WORKER_TTL_SECONDS - 5.0
    stop: float = 30.0
    adoption: float = 5.0


def end_process() -> None:
    """At once: what would be waited for is what does not end."""
    os._exit(EXIT_STUCK)


class Worker:
    """One slot: one item at a time."""

    def __init__(
        self,
        bus: Bus,
        work: Work,
        presence: Presence,
        control: Control,
        drain: Drain,
        *,
        now: Callable[[], datetime],
        consumer: str = streams.WORKERS,
        config: WorkerConfig | None = None,
        die: Callable[[], None] = end_process,
    ) -> None:
        self._bus = bus
        self._work = work
        self._presence = presence
        self._control = control
        self._drain = drain
        self._now = now
        self._consumer = consumer
        self._config = config or WorkerConfig()
        self._die = die
        self._lease = Bucket(bus, streams.KV_LEASE, Lease)
        self._workers = Bucket(bus, streams.KV_WORKERS, WorkerView)

    async def serve(self) -> None:
        """Take items, one after the other, until drained; cancelled, it hands back what it has."""
        async with aclosing(durable(self._bus, streams.WORK, self._consumer, batch=1)) as messages:
            # Who drains does not even ask: what is handed to it now would be lost for a while.
            while not self._drain.begun.is_set() and (message := await self._next(messages)) is not None:
                await self._take(message)

    async def _next(self, messages: AsyncGenerator[Msg, None]) -> Msg | None:
        """The next message; None once there is to be none."""
        found: list[Msg] = []
        async with anyio.create_task_group() as tasks:

            async def leave() -> None:
                await self._drain.begun.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave)
            found.append(await anext(messages))
            tasks.cancel_scope.cancel()
        if found and self._drain.begun.is_set():
            await found[0].nak()  # it came while this worker was asked to leave
            return None
        return found[0] if found else None

    # One item

    async def _take(self, message: Msg) -> None:
        try:
            item: WorkItem = decode(message.data, WorkItem)
        except UnreadableMessage as error:
            await self._bury(message, error.reason)
            return
        with structlog.contextvars.bound_contextvars(job_id=item.job.job_id, item_id=item.item_id):
            try:
                if item.purpose is Purpose.CLEAR:
                    await self._clear(item, message)
                else:
                    await self._do(item, message)
            except Superseded:
                log.warning("item_lost")  # whoever has it now will settle it
            except UnreadableMessage as error:
                # A newer release said something of it: let one of its workers have it.
                log.error("item_put_off", reason=error.reason)
                await message.nak(delay=PUT_OFF_SECONDS)
            except TROUBLE as error:
                # Nothing is settled: the item comes again, and what was done is found by content.
                log.warning("item_interrupted", reason=repr(error))
                await _give_back(message)
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_SECONDS):
                    await self._hand_back(item, message)
                raise

    async def _do(self, item: WorkItem, message: Msg) -> None:
        job = item.job
        last, late = await asyncio.gather(
            last_fact(self._bus, job.tenant, job.job_id, item.item_id), self._came_late(item, message)
        )
        if late is None:
            log.warning("item_put_off", reason="the new leader has not looked at what was handed out yet")
            await message.nak(delay=PUT_OFF_SECONDS)
            return
        if late:
            log.warning("item_dropped", reason="the leader that handed it out had lost its lease")
            await _settle(message)
            return
        take = decide(item, last, died=False, now=self._now())
        if isinstance(take, Start) and last is not None:
            if not await self._wait_for_its_turn(item, message):
                await _give_back(message)
                return
            # Only now: who was there when this one came may have been dying.
            before = holder(item, last)
            if before is not None and await self._is_gone(*before):
                take = decide(item, last, died=True, now=self._now())
        if isinstance(take, Drop):
            log.info("item_dropped", reason=take.why)
            await _settle(message)
            return
        items = ItemLog(
            self._bus,
            item,
            last,
            attempt=take.attempt,
            deaths=take.deaths,
            worker=self._presence.name,
            instance=self._presence.instance,
            now=self._now,
        )
        hold = Hold(self._config.lapse)
        keeping = asyncio.create_task(self._keep(message, hold, items))
        try:
            ending = await self._carry_out(item, take, items, hold)
        finally:
            with anyio.CancelScope(shield=True):
                await end(keeping)
        match ending:
            case None | Ending.CANCELLED | Ending.PAUSED:
                await _settle(message)
            case Ending.HANDED_BACK:
                await self._hand_back(item, message)
            case Ending.BEATEN:
                # The same item came twice. Settled now, it would be gone should the other one die.
                log.info("item_put_off", reason="another worker has just begun it")
                await _give_back(message)
            case Ending.TAKEN | Ending.LAPSED:
                pass  # it is another's, or will be

    async def _carry_out(
        self, item: WorkItem, take: Start | Finish | Expire | Poisoned, items: ItemLog, hold: Hold
    ) -> Ending | None:
        """Do what was decided and say what becomes of it; why that ended before it was done, if it did."""
        match take:
            case Expire():
                await items.say(ItemSkipped, reason=EXPIRED)
            case Poisoned():
                await self._fail(item, POISON, take.attempt, items)
            case Finish():
                await self._trying(
                    item, items, take.attempt, partial(self._publish, item, take.result, items)
                )
            case Start():
                with self._control.watching(item, hold) as watched:
                    try:
                        await items.say(ItemStarted)
                    except Superseded:
                        return Ending.BEATEN
                    watched.began(items.sequence)
                    return await self._trying(
                        item, items, take.attempt, partial(self._run, item, take, items, hold)
                    )
        return None

    async def _trying(
        self, item: WorkItem, items: ItemLog, attempt: int, work: Callable[[], Awaitable[T]]
    ) -> T | None:
        """What *work* returns; where it fails, that is said. What is wrong with the bus is raised."""
        self._presence.busy(item)
        error: str | None = None
        try:
            return await work()
        except Superseded:
            raise
        except NothingToDo as nothing:
            await items.say(ItemSkipped, reason=str(nothing))
        except Failed as failed:
            error = failed.problem.sentence
            await self._fail(item, failed.problem, attempt, items)
        except TROUBLE:
            raise
        except Exception as bug:
            log.exception("item_failed_unexpectedly")
            problem = unexpected(bug)
            error = problem.sentence
            await self._fail(item, problem, attempt, items)
        finally:
            self._presence.done(item, error)
        return None

    async def _run(self, item: WorkItem, take: Start, items: ItemLog, hold: Hold) -> Ending | None:
        feed = ProgressFeed(self._bus, item, take.attempt, self._presence, self._now)
        if take.again:
            await feed.take_up()
        sending = asyncio.create_task(feed.send())
        try:
            try:
                held = _InHand(item, take.attempt, feed.report, items, hold)
                result = await self._until_ended(hold, partial(self._work.run, held))
                if result is not None:
                    await items.say(ItemCommitting, result=result)
            except Superseded:
                other = await items.said_by_another()
                hold.end(_ending(other.event) if other is not None else Ending.TAKEN)
                result = None
            if result is None:
                assert hold.ending is not None, "work that returns nothing was ended"
                log.info("item_let_go", reason=hold.ending)
                if hold.ending is Ending.CANCELLED:
                    await self._remove(item, take.attempt, forget=True)
                return hold.ending
            feed.report(Stage.PUBLISH, 0, 1)
            await self._publish(item, result, items)
            feed.report(Stage.PUBLISH, 1, 1)
            return None
        finally:
            with anyio.CancelScope(shield=True):
                await end(sending)

    async def _until_ended(self, hold: Hold, work: Callable[[], Awaitable[T]]) -> T | None:
        """What *work* returns or raises; None where the hold ended first. Either way it goes on no more."""
        results: list[T] = []
        errors: list[Exception] = []
        stopped = anyio.Event()

        async def body() -> None:
            try:
                with hold.scope:
                    results.append(await work())
            except Exception as error:
                errors.append(error)
            finally:
                stopped.set()

        async def hurry() -> None:
            await self._drain.hurried.wait()
            hold.end(Ending.HANDED_BACK)

        async def see_it_stop() -> None:
            try:
                await hold.ended.wait()
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(self._config.stop):
                    await stopped.wait()
                if not stopped.is_set():
                    log.critical("work_does_not_stop", seconds=self._config.stop, reason=hold.ending)
                    self._die()

        # A task of its own: whatever cancels this one, threads of the work are waited for.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(body)
            tasks.start_soon(hurry)
            tasks.start_soon(see_it_stop)
            await stopped.wait()
            tasks.cancel_scope.cancel()
        if results:
            return results[0]
        if errors and isinstance(errors[0], Stopped):
            hold.end(Ending.LAPSED)
        if errors and hold.ending is None:
            raise errors[0]
        return None

    async def _publish(self, item: WorkItem, result: IndexResult, items: ItemLog) -> None:
        """Publish what is stored; also when an earlier worker died on the way."""
        try:
            published = await self._work.finish(item, result)
        except Failed as failed:
            # From here no way leads back to another attempt.
            raise Failed(replace(failed.problem, transient=False)) from failed
        await items.say(ItemCompleted, result=published)
        try:
            await self._work.tidy(item, published)
        except Exception:
            log.exception("not_tidied")

    async def _fail(self, item: WorkItem, problem: Problem, attempt: int, items: ItemLog) -> None:
        log.warning("item_failed", code=problem.code, error=problem.sentence, diagnostic=problem.diagnostic)
        for_good = not problem.transient or attempt >= item.job.max_attempts
        cleared = for_good and await self._remove(item, attempt, forget=False)
        await items.say(
            ItemFailed,
            error=problem.sentence,
            code=problem.code,
            transient=problem.transient,
            cleared=cleared,
        )

    async def _remove(self, item: WorkItem, attempt: int, *, forget: bool) -> bool:
        """Whether nothing is left of the item; else the scheduler has it cleared away later."""
        try:
            await self._work.clear(item, attempt, forget=forget)
        except Exception:
            log.exception("not_cleared")
            return False
        return True

    # What a cancelled job left

    async def _clear(self, item: WorkItem, message: Msg) -> None:
        """No attempt at the job: nothing is said of it, and it comes again until it is done."""
        keeping = asyncio.create_task(self._renew(message))
        try:
            await self._until_nobody_has(item, HOLDERS_SECONDS_MAX)
            await self._work.clear(item, item.attempt, forget=item.job.state is not JobState.FAILED)
        except Exception:
            log.exception("clearing_put_off")
            if message.metadata.num_delivered < streams.WORK_DELIVERIES_MAX - 1:
                await message.nak(delay=CLEAR_RETRY_SECONDS)
            else:
                await self._hand_back(item, message)
            return
        finally:
            with anyio.CancelScope(shield=True):
                await end(keeping)
        log.info("job_cleared")
        await _settle(message)

    async def _wait_for_its_turn(self, item: WorkItem, message: Msg) -> bool:
        """Whether nobody has *item* now; False when this worker is to take nothing more.

        Nobody starts an item that a live worker says it has. It may not have heard yet that it lost it; or
        the bus has forgotten, in a crash, that the item was delivered, and the work is well under way.
        """
        keeping = asyncio.create_task(self._renew(message))
        try:
            async with anyio.create_task_group() as tasks:

                async def leave() -> None:
                    await self._drain.begun.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(leave)
                await self._until_nobody_has(item, TURN_SECONDS_MAX)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await end(keeping)
        return not self._drain.begun.is_set()

    async def _until_nobody_has(self, item: WorkItem, seconds_max: float) -> None:
        """Wait for who is alive and says that it has *item*: it may be writing still."""
        busy: set[str] = set()
        caught_up = False
        with anyio.move_on_after(seconds_max):
            async with aclosing(self._workers.watch()) as changes:
                async for change in changes:
                    match change:
                        case Entry(value=worker) if _has(worker, item):
                            busy.add(change.key)
                        case Entry() | Gone():
                            busy.discard(change.key)
                        case _:
                            caught_up = True
                    if caught_up and not busy:
                        return

    # Holding, and letting go

    async def _keep(self, message: Msg, hold: Hold, items: ItemLog) -> None:
        """Tell the queue that the item is being worked on, and find out whether it still is this worker's."""
        await asyncio.sleep(self._config.hold)
        while True:
            asked_at = clock()
            try:
                async with asyncio.timeout(2 * ASK_SECONDS):
                    await self._bus.request(message.reply, Msg.Ack.Progress, ASK_SECONDS)
                    other = await items.said_by_another()
            except TROUBLE as error:
                log.debug("hold_not_confirmed", reason=repr(error))
                if hold.lapsed:
                    hold.end(Ending.LAPSED)
                await asyncio.sleep(min(ASK_SECONDS, self._config.hold))
                continue
            if other is not None:
                hold.end(_ending(other.event))
            hold.confirm(asked_at)
            await asyncio.sleep(self._config.hold)

    async def _renew(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(self._config.hold)
            try:
                await message.in_progress()
            except TROUBLE as error:
                log.debug("renewal_failed", reason=repr(error))

    async def _hand_back(self, item: WorkItem, message: Msg) -> None:
        """Hand the item out again: the same attempt, since it did not fail, as a new dispatch."""
        again = replace(item, dispatch=item.dispatch + 1, term=0)  # no leader's: it is not fenced like one
        try:
            await self._bus.publish(
                work_subject(again),
                again,
                message_id=work_message_id(again),
                # Not where its owner took it out of the queue meanwhile.
                expect_last=message.metadata.sequence.stream,
            )
            await _settle(message)
            log.info("item_handed_back", attempt=item.attempt)
        except WrongLastSequence:
            log.info("item_not_handed_back", reason="it is in the queue no more")
        except TROUBLE as error:
            log.warning("item_not_handed_back", reason=repr(error))

    # Who else

    async def _came_late(self, item: WorkItem, message: Msg) -> bool | None:
        """Whether a leader handed *item* out after it lost its lease; None where that is not known yet."""
        deadline = clock() + self._config.adoption
        while item.term:
            entry = await self._lease.get(LEASE_KEY)
            if entry is None or item.term >= term_of(entry):
                return False
            if entry.value.adopted is not None:
                return bool(message.metadata.sequence.stream > entry.value.adopted)
            if clock() >= deadline:
                return None
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _is_gone(self, worker: str, instance: str) -> bool:
        """Whether that process has died: a live one is in the bucket, under its name."""
        if instance == self._presence.instance:
            return False
        if worker == self._presence.name:
            return True  # this process has its name now, whatever the bucket still says
        entry = await self._workers.get(worker)
        return entry is None or (bool(instance) and entry.value.instance != instance)

    async def _bury(self, message: Msg, reason: str) -> None:
        """What nobody can read is kept where an operator finds it, and never delivered again."""
        log.error("item_unreadable", subject=message.subject, error=reason)
        letter = DeadLetter(
            letter_id=f"{streams.WORK}-{message.metadata.sequence.stream}",
            kind=DeadLetterKind.MESSAGE,
            tenant=_tenant_in(message.data),
            at=self._now(),
            reason=f"The message could not be read: {reason}",
            code="unreadable_message",
            stream=streams.WORK,
            subject=message.subject,
            payload=message.data,
        )
        try:
            await self._bus.publish(dead_letter_subject(letter), letter, message_id=letter.letter_id)
            await message.term()
        except TROUBLE as error:
            log.warning("dead_letter_not_written", reason=repr(error))  # the message comes again


class _InHand:
    """The ``ports.Held`` of one try."""

    def __init__(self, item: WorkItem, attempt: int, report: Report, items: ItemLog, hold: Hold) -> None:
        self.item: Final = item
        self.job: Final = item.job
        self.attempt: Final = attempt
        self.report: Final = report
        self.check: Final = hold.check
        self.check_midway: Final = hold.check_midway
        self._items = items

    async def lexical_ready(self, dataset: str, files: int, chunks: int) -> None:
        await self._items.say(ItemLexicalReady, dataset=dataset, files=files, chunks=chunks)


def _has(worker: WorkerView, item: WorkItem) -> bool:
    """Whether *worker* says that it has *item*; what clears a job waits for all items of it."""
    if item.purpose is Purpose.CLEAR:
        return any(name.partition(".")[0] == item.job.job_id for name in worker.job_ids)
    return held_name(item.job, item.item_id) in worker.job_ids


def _ending(event: object) -> Ending:
    """What it means for a worker that *event* was said behind its last word."""
    match event:
        case ItemCancelled():
            return Ending.CANCELLED
        case ItemPaused():
            return Ending.PAUSED
        case _:
            return Ending.TAKEN


def _tenant_in(payload: bytes) -> str:
    """Whose a message is that cannot be read, as far as that can be told."""
    try:
        return token(str(msgspec.json.decode(payload)["job"]["tenant"]))
    except (msgspec.DecodeError, KeyError, TypeError, InvalidName):
        return TENANT_DEFAULT


async def _settle(message: Msg) -> None:
    """Tell the queue, over a bus that may be away for a moment; if it stays away, the item comes again."""
    await _tell(lambda: message.ack_sync(timeout=ASK_SECONDS))


async def _give_back(message: Msg) -> None:
    """Have the item delivered again soon, not only when the queue has waited for this worker in vain.

    Later each time: deliveries are counted, and whatever is wrong must have time to pass.
    """
    delay = PUT_OFF_SECONDS * 2.0 ** (message.metadata.num_delivered - 1)
    await _tell(lambda: message.nak(delay=min(delay, streams.WORK_ACK_WAIT_SECONDS)))


async def _tell(queue: Callable[[], Awaitable[object]]) -> None:
    for _ in range(SETTLE_TRIES):
        try:
            await queue()
            return
        except TROUBLE as error:
            log.debug("settling_retried", reason=repr(error))
        await asyncio.sleep(SETTLE_RETRY_SECONDS)
