"""What becomes of a job when something happens to it. Pure: a job and a fact in, a job or nothing out."""

from __future__ import annotations

from datetime import datetime, timedelta
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
)
from pharos_contracts.lifecycle import TERMINAL, JobState, Signal, advance

BACKOFF_FIRST_SECONDS: Final = 2.0
BACKOFF_MAX_SECONDS: Final = 300.0
EXPIRED: Final = "Task exceeded TTL"


def age_seconds(job: Job, now: datetime) -> int:
    return max(0, int((now - job.submitted_at).total_seconds()))


def is_expired(job: Job, now: datetime) -> bool:
    """Whether *job* waited for too long. The time to live ends at the first start."""
    return job.attempt == 0 and (now - job.submitted_at).total_seconds() > job.ttl_seconds


def expired(job: Job, now: datetime) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.EXPIRE),
        reason=EXPIRED,
        age_seconds=age_seconds(job, now),
        ended_at=now,
    )


def backoff_seconds(attempt: int) -> float:
    """How long the next attempt waits after the *attempt*-th failed: doubling, from 2 s to 5 min."""
    return min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** (attempt - 1))


def failed(job: Job, *, error: str, code: str, at: datetime) -> Job:
    return replace(
        job,
        state=advance(job.state, Signal.FAIL),
        error=error,
        code=code,
        ended_at=at,
        next_attempt_at=None,
    )


def after(job: Job, event: AnyItemEvent) -> Job | None:
    """*job* one step after what a worker said of its item; None where there is no further step.

    Facts come at least once, and not always in order: one that a frozen leader held comes late. So each
    implies those before it: call this until it returns None. What was acted upon already is told by the
    attempt that it belongs to and by the state that the job is in.
    """
    if job.state in TERMINAL or event.attempt < job.attempt:
        return None
    match event:
        case ItemLexicalReady() | ItemCancelled() | ItemPaused():
            return None
        case ItemStarted():
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
            return _after_failure(job, event)
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
        error=None,
        code=None,
    )


def _after_failure(job: Job, event: ItemFailed) -> Job | None:
    if event.transient and (started := _started(job, event)) is not None:
        return started
    if job.state not in (JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING):
        return None
    attempted = replace(job, attempt=event.attempt)
    if not event.transient or event.attempt >= job.max_attempts or job.state is not JobState.RUNNING:
        return failed(attempted, error=event.error, code=event.code, at=event.at)
    return replace(
        attempted,
        state=advance(job.state, Signal.BACK_OFF),
        error=event.error,
        code=event.code,
        next_attempt_at=event.at + timedelta(seconds=backoff_seconds(event.attempt)),
    )
