"""Events of made-up jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    AnyEvent,
    AnyJobEvent,
    IndexResult,
    ItemCommitting,
    ItemCompleted,
    ItemLexicalReady,
    ItemStarted,
    Job,
    JobEvent,
    JobKind,
    RepositorySource,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_contracts.subjects import item_event_subject, job_event_subject
from pharos_service.bus import Stored

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
RESULT = IndexResult(
    dataset="d", generation=1, commit="c" * 40, files_processed=3, embeddings_generated=7, chunks=7
)


def make_job(number: int, /, state: JobState = JobState.QUEUED, **more: Any) -> Job:
    values: dict[str, Any] = {
        "job_id": f"job-{number:06}",
        "number": number,
        "tenant": "acme",
        "key": "k",
        "kind": JobKind.REPOSITORY,
        "state": state,
        "source": RepositorySource(identity="host/o/r", clone_url="https://host/o/r"),
        "project": "default",
        "submitted_at": START,
        "submitted_by": "ann",
        "ttl_seconds": 86_400,
    }
    return Job(**(values | more))


def make_event(number: int, /, state: JobState = JobState.QUEUED, **more: Any) -> AnyJobEvent:
    """The event by which job *number* came to *state*."""
    job = make_job(number, state, **more)
    at = START + timedelta(seconds=number, milliseconds=list(JobState).index(state))
    event: Any = EVENT_OF_STATE[state](event_id=f"{job.job_id}:{state}", at=at, job=job)
    return event


def make_item_event(kind: type[Any], number: int, item_id: str = "0", **more: Any) -> Any:
    values: dict[str, Any] = {
        "event_id": f"{number}:{item_id}:{kind.__name__}",
        "at": START + timedelta(minutes=1, seconds=number),
        "tenant": "acme",
        "job_id": f"job-{number:06}",
        "item_id": item_id,
        "attempt": 1,
        "dispatch": 1,
        "worker": "w1",
    }
    return kind(**(values | more))


def life(number: int, **more: Any) -> Iterator[AnyEvent]:
    """All ten events of a job that goes well, in order."""
    yield make_event(number, JobState.QUEUED, **more)
    yield make_event(number, JobState.PAUSED, **more)
    yield make_event(number, JobState.QUEUED, dispatch=1, **more)
    yield make_event(number, JobState.RUNNING, attempt=1, dispatch=1, worker="w1", **more)
    yield make_item_event(ItemStarted, number)
    yield make_item_event(ItemLexicalReady, number, dataset="d", files=3, chunks=7)
    yield make_item_event(ItemCommitting, number, result=RESULT)
    yield make_event(number, JobState.COMMITTING, attempt=1, dispatch=1, worker="w1", **more)
    yield make_item_event(ItemCompleted, number, result=RESULT)
    yield make_event(number, JobState.COMPLETED, attempt=1, dispatch=1, result=RESULT, ended_at=START, **more)


def subject_of(event: AnyEvent) -> str:
    return job_event_subject(event) if isinstance(event, JobEvent) else item_event_subject(event)


def stored(sequence: int, event: AnyEvent) -> Stored:
    """*event* as JOBS would hold it at *sequence*."""
    return Stored(subject_of(event), encode(event), sequence, {})
