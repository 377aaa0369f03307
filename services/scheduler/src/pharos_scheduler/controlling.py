"""What owners and operators ask of jobs: pause, resume, cancel, retry; of schedules, dead letters, pushes.

To stop a job is two writes. The first takes its item away, by the same compare-and-set that every fact of a
worker goes through: a worker that is about to publish and an owner who cancels exclude each other there. The
second is the job's own event. Both can be repeated: a command that comes again, after a crash between the
two, goes on where the first stopped.
"""

from __future__ import annotations

from functools import partial
from typing import Final, assert_never

import structlog

from pharos_contracts.control.v1 import (
    Action,
    AnyCommand,
    ControlJob,
    Controlled,
    CreateBatch,
    DeadLetterKind,
    DeleteSchedule,
    Purged,
    PurgeDeadLetter,
    Push,
    PutSchedule,
    ReplayDeadLetter,
    Scheduled,
)
from pharos_contracts.jobs.v1 import ItemCancelled, ItemPaused, Job, JobKind
from pharos_contracts.lifecycle import IllegalTransition, JobState, Signal, advance
from pharos_contracts.rpc import Refused
from pharos_scheduler import deciding
from pharos_scheduler.ports import Clock, DeadLetters, Dispatcher, Items, JobStore, Tracked
from pharos_scheduler.pushes import Pushes
from pharos_scheduler.scheduler import Scheduler
from pharos_scheduler.schedules import InvalidSchedule, Schedules
from pharos_service.bus import BusError
from pharos_service.journal import Superseded

log = structlog.get_logger()

TRIES_MAX: Final = 20

Answer = Controlled | Purged | Scheduled | Refused

NOT_FOUND: Final = Refused(code="not_found", detail="There is no such job", status=404)
NO_LETTER: Final = Refused(code="not_found", detail="There is no such dead letter", status=404)
NO_SCHEDULE: Final = Refused(code="not_found", detail="There is no such schedule", status=404)


class Controller:
    """The use cases of one term of leadership."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: JobStore,
        items: Items,
        dispatcher: Dispatcher,
        letters: DeadLetters,
        schedules: Schedules,
        pushes: Pushes,
        *,
        now: Clock,
        max_attempts: int,
    ) -> None:
        self._scheduler = scheduler
        self._book = scheduler.book
        self._store = store
        self._items = items
        self._dispatcher = dispatcher
        self._letters = letters
        self._schedules = schedules
        self._pushes = pushes
        self._now = now
        self._max_attempts = max_attempts

    async def carry_out(self, command: AnyCommand, sequence: int) -> Answer | None:
        """Do what *command*, which is number *sequence* on CONTROL, asks. Repeatable.

        None where nobody waits for an answer.
        """
        match command:
            case ControlJob():
                return await self._control(command, sequence)
            case CreateBatch():
                return await self._scheduler.batches.create(command)
            case ReplayDeadLetter():
                return await self._replay(command, sequence)
            case PurgeDeadLetter():
                letter = await self._letters.get(command.tenant, command.letter_id)
                if letter is None:
                    return NO_LETTER
                await self._letters.purge(letter)
                return Purged(id=letter.letter_id)
            case PutSchedule() | DeleteSchedule():
                try:
                    return await self._reschedule(command)
                except InvalidSchedule as error:
                    return Refused(code=error.code, detail=error.detail, status=error.status)
            case Push():
                await self._pushes.arrive(command)
                return None
            case _:
                assert_never(command)

    async def _reschedule(self, command: PutSchedule | DeleteSchedule) -> Answer:
        if isinstance(command, PutSchedule):
            return Scheduled(schedule=await self._schedules.put(command.schedule))
        if await self._schedules.delete(command.tenant, command.schedule_id):
            return Purged(id=command.schedule_id)
        return NO_SCHEDULE

    async def _control(self, command: ControlJob, sequence: int) -> Answer:
        async with self._book.deciding(command.job_id):
            tracked = await self._find(command.tenant, command.job_id)
            if tracked is None:
                return NOT_FOUND
            if sequence <= tracked.job.control:
                return await self._go_on(tracked, sequence)
            try:
                return await self._act(command, tracked, sequence)
            except IllegalTransition as error:
                current = await self._reload(tracked)
                if sequence <= current.job.control:
                    return await self._go_on(current, sequence)
                return Refused(
                    code="invalid_transition",
                    detail=f"Cannot {command.action} a {error.state} job",
                    status=409,
                )

    async def _find(self, tenant: str | None, job_id: str) -> Tracked | None:
        """The job, even where this command has overtaken the one that asked for it."""
        tracked = await self._book.find(tenant, job_id)
        if tracked is None:
            queued = await self._dispatcher.queued(job_id)
            if queued is not None and tenant in (None, queued[0].tenant):
                return await self._scheduler.admit(*queued)
            timer = await self._dispatcher.lapsed(job_id)
            if timer is not None and tenant in (None, timer.tenant):
                return await self._scheduler.lapsed(timer)
        return tracked

    async def _go_on(self, tracked: Tracked, sequence: int) -> Controlled:
        """Do what must follow a command that was written already, perhaps after this leader had looked.

        The last words of a leader that is gone may have been on their way for as long.
        """
        job = tracked.job
        if job.control == sequence and job.kind is JobKind.BATCH:
            tracked = await self._scheduler.batches.go_on(tracked)
        elif job.control == sequence:
            await self._take_effect(job)
            if job.state is JobState.RETRYING and await self._is_untouched(job):
                tracked = await self._end_backoff(tracked)
            elif job.state is JobState.QUEUED:
                self._scheduler.take_up(tracked)
        return Controlled(job=tracked.job)

    async def _is_untouched(self, job: Job) -> bool:
        """Whether no worker has said anything of *job* since it was asked for again."""
        last = await self._items.last(job)
        return last is None or last.sequence <= job.facts_after

    async def _act(self, command: ControlJob, tracked: Tracked, sequence: int) -> Answer:
        if tracked.job.kind is JobKind.BATCH:
            return await self._scheduler.batches.control(command, tracked, sequence)
        match command.action:
            case Action.PAUSE | Action.CANCEL:
                return await self._stop(command, tracked, sequence)
            case Action.RESUME:
                now = self._now()
                written = await self._book.write_over(
                    tracked,
                    lambda job: deciding.resumed(job, now=now, by=command.by, control=sequence),
                    resumed=True,
                )
                assert written is not None, "a decision that never declines is written"
                return Controlled(job=written.job)
            case Action.RETRY:
                return await self._retry(tracked, command.by, sequence)
            case Action.START:  # only batches wait for that
                raise IllegalTransition(tracked.job.state, Signal.ENQUEUE)
            case _:
                assert_never(command.action)

    async def _stop(self, command: ControlJob, tracked: Tracked, sequence: int) -> Answer:
        """Take the item away from whoever has it, or may yet have it, then say so of the job."""
        pausing = command.action is Action.PAUSE
        signal = Signal.PAUSE if pausing else Signal.CANCEL
        for _ in range(TRIES_MAX):
            advance(tracked.job.state, signal)
            last = await self._items.last(tracked.job)
            if last is not None and last.sequence > tracked.job.facts_after:
                # What the worker has said already comes first: it may have ended, or be publishing.
                current = await self._scheduler.follow_up(tracked, last.event)
                if current.sequence != tracked.sequence:
                    tracked = current
                    continue
            try:
                fact = await self._items.take_away(
                    tracked.job, ItemPaused if pausing else ItemCancelled, last
                )
            except Superseded:
                tracked = await self._reload(tracked)
                continue
            decide = partial(
                deciding.paused if pausing else deciding.cancelled,
                now=self._now(),
                by=command.by,
                control=sequence,
                facts_after=fact,
            )
            written = await self._book.write_over(tracked, decide)
            assert written is not None, "a decision that never declines is written"
            await self._take_effect(written.job)
            return Controlled(job=written.job)
        raise BusError(f"the item of job {tracked.job.job_id} changed {TRIES_MAX} times")

    async def _reload(self, tracked: Tracked) -> Tracked:
        found = await self._store.load(tracked.job.tenant, tracked.job.job_id)
        assert found is not None, "a job that was written has a last event"
        return found

    async def _take_effect(self, job: Job) -> None:
        """What must follow a stop that was written: nothing of it queued, worked on or left."""
        if job.state not in (JobState.PAUSED, JobState.CANCELLED):
            return
        action = Action.PAUSE if job.state is JobState.PAUSED else Action.CANCEL
        await self._dispatcher.withdraw(job, action, job.facts_after)
        if job.state is JobState.CANCELLED and job.started_at is not None:
            await self._scheduler.clear(job)

    async def _retry(self, tracked: Tracked, by: str, sequence: int) -> Answer:
        if tracked.job.state not in deciding.RETRIED_BY_OWNER:
            raise IllegalTransition(tracked.job.state, Signal.RETRY)
        other = await self._store.claim(tracked.job)
        if other is not None:
            return Refused(
                code="already_active",
                detail=f"Job {other} does the same already",
                status=409,
            )
        last = await self._items.last(tracked.job)
        now = self._now()
        past = last.sequence if last is not None else 0
        written = await self._book.write_over(
            tracked,
            lambda job: deciding.retried(
                job,
                now=now,
                by=by,
                control=sequence,
                facts_after=max(past, job.facts_after),
                max_attempts=self._max_attempts,
            ),
        )
        assert written is not None, "a decision that never declines is written"
        letter = await self._letters.get(written.job.tenant, written.job.job_id)
        if letter is not None:  # it is being tried again: nobody is to replay it besides
            await self._letters.purge(letter)
        return Controlled(job=(await self._end_backoff(written)).job)

    async def _end_backoff(self, tracked: Tracked) -> Tracked:
        """What its owner asks for again waits for nothing but a worker."""
        queued = await self._book.write_over(
            tracked, lambda job: deciding.due(job) if job.state is JobState.RETRYING else None
        )
        return queued or tracked

    async def _replay(self, command: ReplayDeadLetter, sequence: int) -> Answer:
        letter = await self._letters.get(command.tenant, command.letter_id)
        if letter is None:
            return NO_LETTER
        if letter.kind is DeadLetterKind.MESSAGE or letter.job is None:
            await self._letters.republish(letter)
            await self._letters.purge(letter)
            return Purged(id=letter.letter_id)
        asked = ControlJob(
            tenant=command.tenant,
            by=command.by,
            at=command.at,
            reply_to=command.reply_to,
            job_id=letter.job.job_id,
            action=Action.RETRY,
        )
        answer = await self._control(asked, sequence)
        if isinstance(answer, Controlled):
            await self._letters.purge(letter)
        return answer
