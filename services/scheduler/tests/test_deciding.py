"""What becomes of a job: every state against every fact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemEvent,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    JobKind,
    RepositorySource,
    is_expired,
)
from pharos_contracts.lifecycle import TERMINAL, IllegalTransition, JobState
from pharos_scheduler import deciding

AT = datetime(2026, 1, 15, 10, 0, tzinfo=UTC)
NOW = AT + timedelta(seconds=9)
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
    "paused": lambda attempt: fact(ItemPaused, attempt),
}

# (state and attempt of the job, fact and attempt of the item) -> state; what is not here changes nothing.
CHANGES = {
    ("queued", 0, "started", 1): "running",
    ("queued", 0, "lexical_ready", 1): "running",
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
    after = deciding.after(job(state, attempt), FACTS[name](item_attempt), NOW)
    expected = CHANGES.get((state.value, attempt, name, item_attempt))
    if later and expected is None and name != "started":
        return  # a later attempt says started first; the rest is drawn for the attempt under way
    assert (after.state.value if after else None) == expected


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("lexical_ready", "running"),
        ("committing", "committing"),
        ("completed", "completed"),
        ("transient", "retrying"),
        ("permanent", "failed"),
    ],
)
def test_a_fact_implies_those_that_come_late(name: str, end: str) -> None:
    current, steps = job(JobState.QUEUED, 0), 0
    while (following := deciding.after(current, FACTS[name](1), NOW)) is not None:
        current, steps = following, steps + 1
        assert steps < 5
    assert current.state == end
    assert deciding.after(current, FACTS["started"](1), NOW) is None


def test_what_an_earlier_attempt_said_changes_nothing() -> None:
    running = job(JobState.RUNNING, attempt=2)
    assert all(deciding.after(running, FACTS[name](1), NOW) is None for name in FACTS)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_fact_that_is_delivered_twice_counts_once(name: str) -> None:
    before = job(JobState.RUNNING, attempt=1)
    event = FACTS[name](1)
    once = deciding.after(before, event, NOW)
    assert once is None or deciding.after(once, event, NOW) is None


def test_a_completed_job_says_what_it_made_and_when() -> None:
    done = deciding.after(job(JobState.COMMITTING), FACTS["completed"](1), NOW)
    assert done is not None
    assert done.result == RESULT
    assert done.ended_at == AT + timedelta(seconds=9)


def test_the_start_time_is_that_of_the_first_attempt() -> None:
    started = job(JobState.RUNNING, attempt=1, started_at=AT)
    again = deciding.after(started, FACTS["started"](2), NOW)
    assert again is not None
    assert again.started_at == AT
    assert again.attempt == 2


def test_a_transient_failure_waits_longer_each_time_and_the_last_attempt_fails() -> None:
    waits = []
    for attempt in (1, 2):
        after = deciding.after(job(JobState.RUNNING, attempt), FACTS["transient"](attempt), NOW)
        assert after is not None and after.state is JobState.RETRYING and after.next_attempt_at is not None
        waits.append((after.next_attempt_at - AT - timedelta(seconds=9)).total_seconds())
    assert waits == [pytest.approx(deciding.backoff_seconds(attempt, "j"), abs=1e-5) for attempt in (1, 2)]
    last = deciding.after(job(JobState.RUNNING, 3), FACTS["transient"](3), NOW)
    assert last is not None
    assert (last.state, last.error, last.code) == (JobState.FAILED, "x", "c")


def test_a_worker_whose_clock_is_ahead_does_not_make_its_jobs_wait() -> None:
    hours_ahead = fact(ItemFailed, 1, error="x", code="c", transient=True)
    hours_ahead = replace(hours_ahead, at=AT + timedelta(hours=2))
    after = deciding.after(job(JobState.RUNNING, 1), hours_ahead, NOW)
    assert after is not None and after.next_attempt_at is not None
    assert after.next_attempt_at < NOW + timedelta(seconds=3)


@given(st.integers(1, 100), st.text())
def test_a_backoff_doubles_a_quarter_more_or_less_up_to_its_bound(attempt: int, seed: str) -> None:
    whole = min(deciding.BACKOFF_MAX_SECONDS, 2.0 * 2.0 ** (attempt - 1))
    assert 0.75 * whole <= deciding.backoff_seconds(attempt, seed) <= 1.25 * whole


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    assert len({deciding.backoff_seconds(3, f"job-{number}") for number in range(50)}) == 50


@pytest.mark.parametrize(("waited", "started", "expected"), [(60, 0, False), (61, 0, True), (9999, 1, False)])
def test_the_time_to_live_ends_at_the_first_start(waited: int, started: int, expected: bool) -> None:
    waiting = job(JobState.QUEUED, started, started_at=AT if started else None)
    assert is_expired(waiting, AT + timedelta(seconds=waited)) is expected


# What owners ask

WHO = {"by": "ada", "control": 7}
ALLOWED = {
    ("pause", "queued"): "paused",
    ("pause", "running"): "paused",
    ("resume", "paused"): "queued",
    ("cancel", "queued"): "cancelled",
    ("cancel", "running"): "cancelled",
    ("cancel", "paused"): "cancelled",
    ("cancel", "retrying"): "cancelled",
    ("retry", "failed"): "retrying",
    ("retry", "cancelled"): "retrying",
}
LATER = AT + timedelta(seconds=100)


def asked(action: str, before: Job, at: datetime = LATER) -> Job:
    match action:
        case "pause":
            return deciding.paused(before, now=at, facts_after=5, **WHO)
        case "resume":
            return deciding.resumed(before, now=at, **WHO)
        case "cancel":
            return deciding.cancelled(before, now=at, facts_after=5, **WHO)
        case _:
            return deciding.retried(before, now=at, facts_after=5, max_attempts=4, **WHO)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("action", ["pause", "resume", "cancel", "retry"])
def test_what_an_owner_asks_is_done_or_refused_in_every_state(action: str, state: JobState) -> None:
    before = job(state, paused_at=AT if state is JobState.PAUSED else None)
    expected = ALLOWED.get((action, state.value))
    if expected is None:
        with pytest.raises(IllegalTransition):
            asked(action, before)
        return
    after = asked(action, before)
    assert (after.state, after.controlled_by, after.control) == (expected, "ada", 7)


def test_a_pause_stops_the_time_to_live() -> None:
    """TTL 60 s: 30 s waited, 100 s paused, 29 s waited is not too old; 31 s is."""
    paused = asked("pause", job(JobState.QUEUED, 0), AT + timedelta(seconds=30))
    assert not is_expired(paused, AT + timedelta(days=3))
    resumed = asked("resume", paused, AT + timedelta(seconds=130))
    assert (resumed.state, resumed.paused_at) == (JobState.QUEUED, None)
    assert not is_expired(resumed, AT + timedelta(seconds=159))
    assert is_expired(resumed, AT + timedelta(seconds=161))


def test_a_paused_attempt_goes_on_and_one_that_waited_begins() -> None:
    running = asked("resume", asked("pause", job(JobState.RUNNING, attempt=2)))
    assert deciding.next_attempt(running) == 2
    started = deciding.after(running, FACTS["started"](2), NOW)
    assert started is not None
    assert (started.state, deciding.next_attempt(started)) == (JobState.RUNNING, 3)
    waiting = asked("resume", asked("pause", job(JobState.QUEUED, attempt=1)))
    assert deciding.next_attempt(waiting) == 2


def test_a_pause_while_it_waits_to_go_on_does_not_forget_the_attempt() -> None:
    once = asked("resume", asked("pause", job(JobState.RUNNING, attempt=2)))
    twice = asked("resume", asked("pause", once))
    assert deciding.next_attempt(twice) == 2


def test_a_retry_has_as_many_attempts_as_a_new_job_and_counts_on() -> None:
    failed = job(JobState.FAILED, attempt=3, error="x", ended_at=AT)
    again = asked("retry", failed)
    assert (again.max_attempts, deciding.next_attempt(again), again.ended_at) == (7, 4, None)
    queued = deciding.due(again)
    assert (queued.state, queued.next_attempt_at) == (JobState.QUEUED, None)
    assert deciding.waits_outside(queued)


def test_a_job_that_was_cancelled_before_it_ran_may_be_retried_long_after() -> None:
    cancelled = asked("cancel", job(JobState.QUEUED, 0), AT + timedelta(seconds=10))
    again = asked("retry", cancelled, AT + timedelta(days=5))
    assert not is_expired(again, AT + timedelta(days=5, seconds=40))


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.RETRYING])
@pytest.mark.parametrize("name", sorted(FACTS))
def test_nothing_that_a_worker_says_moves_a_job_that_no_worker_has(state: JobState, name: str) -> None:
    assert deciding.after(job(state), FACTS[name](1), NOW) is None


def test_an_expired_job_says_how_old_it_was() -> None:
    skipped = deciding.expired(job(JobState.QUEUED, 0), AT + timedelta(seconds=90))
    assert (skipped.state, skipped.reason, skipped.age_seconds) == (
        JobState.SKIPPED,
        "Task exceeded TTL",
        90,
    )


def test_an_item_that_its_worker_found_too_old_is_skipped_with_its_age() -> None:
    skipped = deciding.after(job(JobState.QUEUED, 0), FACTS["skipped"](1), NOW)
    assert skipped is not None
    assert (skipped.state, skipped.reason, skipped.age_seconds) == (JobState.SKIPPED, "r", 9)
