"""What becomes of a batch when its owner asks for something, or its files have ended. Pure.

Each raises IllegalTransition where the state of the batch does not allow it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from pharos_contracts.batches.v1 import Tally
from pharos_contracts.jobs.v1 import NO_NUMBER, Job, SubmitJob, job_of
from pharos_contracts.lifecycle import IllegalTransition, JobState, Signal, advance
from pharos_scheduler.batch_files import Files, no_tally, without_failures

NO_FILE_SUCCEEDED: Final = "no_file_succeeded"
NEVER_STARTED: Final = "It was not started within {days} days"
START_WITHIN: Final = timedelta(days=7)
RETRIED: Final = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.COMPLETED})


def created(command: SubmitJob) -> Job:
    assert command.batch is not None, "only batches are created before they are started"
    job = job_of(command, NO_NUMBER)
    return replace(job, state=JobState.PENDING, tally=no_tally(command.batch))


def enqueued(job: Job, *, by: str, control: int) -> Job:
    state = advance(job.state, Signal.ENQUEUE, batch=True)
    return replace(job, state=state, controlled_by=by, control=control)


def expired(job: Job, now: datetime) -> Job:
    """*job* was never started."""
    return replace(
        job,
        state=advance(job.state, Signal.EXPIRE, batch=True),
        reason=NEVER_STARTED.format(days=START_WITHIN.days),
        age_seconds=int((now - job.submitted_at).total_seconds()),
        ended_at=now,
    )


def is_expired(job: Job, now: datetime) -> bool:
    return job.state is JobState.PENDING and now - job.submitted_at > START_WITHIN


def started(job: Job, files: Files, now: datetime) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.START),
        attempt=max(1, job.attempt),
        started_at=job.started_at or now,
        tally=files.tally(),
        error=None,
        code=None,
    )


def ended(job: Job, files: Files, now: datetime) -> Job:
    """*job* when none of its files is to be tried any more: it failed only if no file succeeded."""
    tally = files.tally()
    if tally.completed + tally.skipped > 0:
        return replace(job, state=advance(job.state, Signal.COMPLETE), tally=tally, ended_at=now)
    count = "Its only file" if len(files) == 1 else f"None of its {len(files)} files succeeded; the first"
    return replace(
        job,
        state=advance(job.state, Signal.FAIL),
        tally=tally,
        error=f"{count} failed: {files.first_error()}",
        code=NO_FILE_SUCCEEDED,
        ended_at=now,
    )


def forgotten(job: Job, now: datetime) -> Job:
    """Nobody knows any more which files *job* is about."""
    return replace(
        job,
        state=advance(job.state, Signal.FAIL),
        error="The list of its files is not kept any more; create the batch again",
        code="files_forgotten",
        ended_at=now,
    )


def paused(job: Job, files: Files | None, *, now: datetime, by: str, control: int) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.PAUSE),
        paused_at=now,
        tally=job.tally if files is None else files.tally(),
        controlled_by=by,
        control=control,
    )


def resumed(job: Job, *, now: datetime, by: str, control: int) -> Job:
    stood_still = 0.0 if job.paused_at is None else max(0.0, (now - job.paused_at).total_seconds())
    return replace(
        job,
        state=advance(job.state, Signal.RESUME),
        paused_at=None,
        paused_seconds=job.paused_seconds + stood_still,
        controlled_by=by,
        control=control,
    )


def cancelled(job: Job, files: Files | None, *, now: datetime, by: str, control: int) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.CANCEL, batch=True),
        tally=job.tally if files is None else files.tally(),
        ended_at=now,
        next_attempt_at=None,
        controlled_by=by,
        control=control,
    )


def retried(job: Job, files: Files, *, now: datetime, by: str, control: int, failed_only: bool) -> Job:
    """*job* is tried again: what did not succeed, or everything.

    A batch that completed is tried again only if some of its files failed.
    """
    assert job.batch is not None, "only batches have files"
    tally = files.tally()
    if job.state not in RETRIED or (job.state is JobState.COMPLETED and tally.failed == 0):
        raise IllegalTransition(job.state, Signal.RETRY)
    last = max(files.last_sequence, job.facts_after)
    return replace(
        job,
        state=advance(job.state, Signal.RETRY, batch=True),
        attempt=job.attempt + 1,
        tally=without_failures(tally) if failed_only else no_tally(job.batch, last),
        facts_after=last,
        next_attempt_at=now,
        ended_at=None,
        error=None,
        code=None,
        reason=None,
        controlled_by=by,
        control=control,
    )


def due(job: Job) -> Job:
    """*job*, which is tried again, waits for its turn."""
    return replace(job, state=advance(job.state, Signal.RETRY), next_attempt_at=None)


def counted(job: Job, tally: Tally) -> Job | None:
    """*job* with what has become of its files since; None where that is known."""
    return None if job.tally == tally else replace(job, tally=tally)
