"""What becomes of a job when something happens to it. Pure: a job and a fact in, a job or nothing out."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, assert_never

from msgspec.structs import replace

from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    waited_seconds,
)
from pharos_contracts.lifecycle import TERMINAL, IllegalTransition, JobState, Signal, advance

BACKOFF_FIRST_SECONDS: Final = 2.0
BACKOFF_MAX_SECONDS: Final = 300.0
BACKOFF_SPREAD: Final = 0.25
EXPIRED: Final = "Task exceeded TTL"
RETRIED_BY_OWNER: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
POISON: Final = "poison"
WORKER_LOST: Final = "worker_lost"


def expired(job: Job, now: datetime) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.EXPIRE),
        reason=EXPIRED,
        age_seconds=int(waited_seconds(job, now)),
        ended_at=now,
    )


def backoff_seconds(attempt: int, seed: str) -> float:
    """How long the next attempt waits after the *attempt*-th failed: doubling, from 2 s to 5 min.

    A quarter more or less, by *seed*, keeps jobs that failed together from coming back together.
    """
    share = int.from_bytes(blake2b(f"{seed}:{attempt}".encode(), digest_size=4).digest(), "big") / 2**32
    whole = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** (min(attempt, 20) - 1))
    return whole * (1 - BACKOFF_SPREAD + 2 * BACKOFF_SPREAD * share)


def failed(job: Job, *, error: str, code: str, at: datetime) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.FAIL),
        error=error,
        code=code,
        ended_at=at,
        next_attempt_at=None,
    )


# What its owner asks. Each raises IllegalTransition where the job's state does not allow it.


def paused(job: Job, *, now: datetime, by: str, control: int, facts_after: int) -> Job:
    """*job* stands still; an attempt that runs goes on with the next hand-out."""
    return replace(
        job,
        state=advance(job.state, Signal.PAUSE),
        resuming=job.resuming or job.state is JobState.RUNNING,
        paused_at=now,
        controlled_by=by,
        control=control,
        facts_after=facts_after,
    )


def resumed(job: Job, *, now: datetime, by: str, control: int) -> Job:
    return replace(
        _unpaused(job, job.paused_at, now),
        state=advance(job.state, Signal.RESUME),
        controlled_by=by,
        control=control,
    )


def cancelled(job: Job, *, now: datetime, by: str, control: int, facts_after: int) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.CANCEL),
        ended_at=now,
        next_attempt_at=None,
        resuming=False,
        controlled_by=by,
        control=control,
        facts_after=facts_after,
    )


def retried(job: Job, *, now: datetime, by: str, control: int, facts_after: int, max_attempts: int) -> Job:
    """*job* is tried again, with as many attempts as a new one; it counts on from those that it had."""
    if job.state not in RETRIED_BY_OWNER:
        raise IllegalTransition(job.state, Signal.RETRY)
    return replace(
        _unpaused(job, job.ended_at, now),
        state=advance(job.state, Signal.RETRY),
        max_attempts=job.attempt + max_attempts,
        next_attempt_at=now,
        ended_at=None,
        result=None,
        reason=None,
        age_seconds=None,
        resuming=False,
        controlled_by=by,
        control=control,
        facts_after=facts_after,
    )


def due(job: Job) -> Job:
    """*job*, whose backoff is over, waits for a worker again."""
    return replace(job, state=advance(job.state, Signal.RETRY), next_attempt_at=None)


def _unpaused(job: Job, since: datetime | None, now: datetime) -> Job:
    """Time in which *job* could not have started does not count against its time to live."""
    stood_still = 0.0 if since is None else max(0.0, (now - since).total_seconds())
    return replace(job, paused_at=None, paused_seconds=job.paused_seconds + stood_still)


def next_attempt(job: Job) -> int:
    """The number of the attempt that the next hand-out of *job* begins, or goes on with."""
    return job.attempt if job.resuming else job.attempt + 1


def waits_outside(job: Job) -> bool:
    """Whether *job*, which is queued, has left Q for good: it was tried, resumed or retried."""
    return job.attempt > 0 or job.control > 0


def after(job: Job, event: AnyItemEvent, now: datetime) -> Job | None:
    """*job* one step after what a worker said of its item; None where there is no further step.

    What is to come is reckoned from *now*: the clock of a worker may be wrong.

    Facts come at least once, and not always in order: one that a frozen leader held comes late. So each
    implies those before it: call this until it returns None. What was acted upon already is told by the
    attempt that it belongs to and by the state that the job is in.
    """
    if job.state in TERMINAL or event.attempt < job.attempt:
        return None
    match event:
        case ItemCancelled() | ItemPaused():
            return None
        case ItemStarted() | ItemLexicalReady():
            return _started(job, event)
        case ItemCommitting():
            if (started := _started(job, event)) is not None:
                return started
            if job.state is not JobState.RUNNING:
                return None
            return replace(job, state=advance(job.state, Signal.COMMIT), result=event.result)
        case ItemCompleted():
            if (started := _started(job, event)) is not None:
                return started
            if job.state not in (JobState.RUNNING, JobState.COMMITTING):
                return None
            return replace(
                job, state=advance(job.state, Signal.COMPLETE), result=event.result, ended_at=event.at
            )
        case ItemFailed():
            return _after_failure(job, event, now)
        case ItemSkipped():
            if job.state is JobState.QUEUED:
                return replace(expired(job, event.at), reason=event.reason)
            if job.state is not JobState.RUNNING:
                return None
            return replace(job, state=advance(job.state, Signal.SKIP), reason=event.reason, ended_at=event.at)
        case _:
            assert_never(event)


def _started(job: Job, event: AnyItemEvent) -> Job | None:
    """*job* running the attempt of *event*; None where it is beyond that, or cannot run."""
    if event.attempt == job.attempt and job.state is not JobState.QUEUED:
        return None
    if job.state not in (JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING):
        return None
    return replace(
        job,
        state=advance(job.state, Signal.START),
        attempt=event.attempt,
        dispatch=event.dispatch,
        worker=event.worker,
        started_at=job.started_at or event.at,
        next_attempt_at=None,
        resuming=False,
        error=None,
        code=None,
    )


def _after_failure(job: Job, event: ItemFailed, now: datetime) -> Job | None:
    if event.transient and (started := _started(job, event)) is not None:
        return started
    if job.state not in (JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING):
        return None
    attempted = replace(job, attempt=event.attempt, resuming=False)
    if not event.transient or event.attempt >= job.max_attempts or job.state is not JobState.RUNNING:
        return failed(attempted, error=event.error, code=event.code, at=event.at)
    return replace(
        attempted,
        state=advance(job.state, Signal.BACK_OFF),
        error=event.error,
        code=event.code,
        next_attempt_at=now + timedelta(seconds=backoff_seconds(event.attempt, job.job_id)),
    )
