"""What becomes of a job: every state against every fact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemEvent,
    ItemFailed,
    ItemLexicalReady,
    ItemSkipped,
    ItemStarted,
    Job,
    JobKind,
    RepositorySource,
)
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_scheduler import deciding

AT = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
RESULT = IndexResult(
    dataset="d", generation=1, commit="c", files_processed=1, embeddings_generated=1, chunks=1
)


def job(state: JobState, attempt: int = 1, **facts: Any) -> Job:
    return replace(
        Job(
            job_id="j",
            number=1,
            tenant="default",
            key="k",
            kind=JobKind.REPOSITORY,
            state=state,
            source=RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
            project="default",
            submitted_at=AT,
            submitted_by="u",
            ttl_seconds=60,
            attempt=attempt,
            max_attempts=3,
        ),
        **facts,
    )


def fact(kind: type[ItemEvent], attempt: int = 1, **facts: Any) -> Any:
    common = {
        "event_id": "e",
        "at": AT + timedelta(seconds=9),
        "tenant": "default",
        "job_id": "j",
        "item_id": "0",
        "dispatch": 1,
        "worker": "w",
    }
    return kind(attempt=attempt, **common, **facts)


FACTS = {
    "started": lambda attempt: fact(ItemStarted, attempt),
    "lexical_ready": lambda attempt: fact(ItemLexicalReady, attempt, dataset="d", files=1, chunks=1),
    "committing": lambda attempt: fact(ItemCommitting, attempt, result=RESULT),
    "completed": lambda attempt: fact(ItemCompleted, attempt, result=RESULT),
    "transient": lambda attempt: fact(ItemFailed, attempt, error="x", code="c", transient=True),
    "permanent": lambda attempt: fact(ItemFailed, attempt, error="x", code="c"),
    "skipped": lambda attempt: fact(ItemSkipped, attempt, reason="r"),
    "cancelled": lambda attempt: fact(ItemCancelled, attempt),
}

# (state and attempt of the job, fact and attempt of the item) -> state; what is not here changes nothing.
CHANGES = {
    ("queued", 0, "started", 1): "running",
    ("queued", 0, "permanent", 1): "failed",
    ("queued", 0, "transient", 1): "running",
    ("queued", 0, "committing", 1): "running",
    ("queued", 0, "completed", 1): "running",
    ("queued", 0, "skipped", 1): "skipped",
    ("running", 1, "started", 2): "running",
    ("running", 1, "committing", 1): "committing",
    ("running", 1, "completed", 1): "completed",
    ("running", 1, "transient", 1): "retrying",
    ("running", 1, "permanent", 1): "failed",
    ("running", 1, "skipped", 1): "skipped",
    ("committing", 1, "started", 2): "committing",
    ("committing", 1, "completed", 1): "completed",
    ("committing", 1, "permanent", 1): "failed",
    ("committing", 1, "transient", 1): "failed",
}


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING, *sorted(TERMINAL)])
@pytest.mark.parametrize("name", sorted(FACTS))
@pytest.mark.parametrize("later", [0, 1])
def test_a_fact_moves_the_job_as_drawn_or_changes_nothing(state: JobState, name: str, later: int) -> None:
    attempt = 0 if state is JobState.QUEUED else 1
    item_attempt = 1 if state is JobState.QUEUED else attempt + later
    after = deciding.after(job(state, attempt), FACTS[name](item_attempt))
    expected = CHANGES.get((state.value, attempt, name, item_attempt))
    if later and expected is None and name != "started":
        return  # a later attempt says started first; the rest is drawn for the attempt under way
    assert (after.state.value if after else None) == expected


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("committing", "committing"),
        ("completed", "completed"),
        ("transient", "retrying"),
        ("permanent", "failed"),
    ],
)
def test_a_fact_implies_those_that_come_late(name: str, end: str) -> None:
    current, steps = job(JobState.QUEUED, 0), 0
    while (following := deciding.after(current, FACTS[name](1))) is not None:
        current, steps = following, steps + 1
        assert steps < 5
    assert current.state == end
    assert deciding.after(current, FACTS["started"](1)) is None


def test_what_an_earlier_attempt_said_changes_nothing() -> None:
    running = job(JobState.RUNNING, attempt=2)
    assert all(deciding.after(running, FACTS[name](1)) is None for name in FACTS)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_fact_that_is_delivered_twice_counts_once(name: str) -> None:
    before = job(JobState.RUNNING, attempt=1)
    event = FACTS[name](1)
    once = deciding.after(before, event)
    assert once is None or deciding.after(once, event) is None


def test_a_completed_job_says_what_it_made_and_when() -> None:
    done = deciding.after(job(JobState.COMMITTING), FACTS["completed"](1))
    assert done is not None
    assert done.result == RESULT
    assert done.ended_at == AT + timedelta(seconds=9)


def test_the_start_time_is_that_of_the_first_attempt() -> None:
    started = job(JobState.RUNNING, attempt=1, started_at=AT)
    again = deciding.after(started, FACTS["started"](2))
    assert again is not None
    assert again.started_at == AT
    assert again.attempt == 2


def test_a_transient_failure_waits_longer_each_time_and_the_last_attempt_fails() -> None:
    waits = []
    for attempt in (1, 2):
        after = deciding.after(job(JobState.RUNNING, attempt), FACTS["transient"](attempt))
        assert after is not None and after.state is JobState.RETRYING and after.next_attempt_at is not None
        waits.append((after.next_attempt_at - AT - timedelta(seconds=9)).total_seconds())
    assert waits == [2.0, 4.0]
    last = deciding.after(job(JobState.RUNNING, 3), FACTS["transient"](3))
    assert last is not None
    assert (last.state, last.error, last.code) == (JobState.FAILED, "x", "c")


def test_a_backoff_has_an_upper_bound() -> None:
    assert deciding.backoff_seconds(9) <= deciding.BACKOFF_MAX_SECONDS
    assert deciding.backoff_seconds(60) == deciding.BACKOFF_MAX_SECONDS


@pytest.mark.parametrize(("waited", "attempt", "expected"), [(60, 0, False), (61, 0, True), (9999, 1, False)])
def test_the_time_to_live_ends_at_the_first_start(waited: int, attempt: int, expected: bool) -> None:
    waiting = job(JobState.QUEUED, attempt)
    assert deciding.is_expired(waiting, AT + timedelta(seconds=waited)) is expected


def test_an_expired_job_says_how_old_it_was() -> None:
    skipped = deciding.expired(job(JobState.QUEUED, 0), AT + timedelta(seconds=90))
    assert (skipped.state, skipped.reason, skipped.age_seconds) == (
        JobState.SKIPPED,
        "Task exceeded TTL",
        90,
    )


def test_an_item_that_its_worker_found_too_old_is_skipped_with_its_age() -> None:
    skipped = deciding.after(job(JobState.QUEUED, 0), FACTS["skipped"](1))
    assert skipped is not None
    assert (skipped.state, skipped.reason, skipped.age_seconds) == (JobState.SKIPPED, "r", 9)
