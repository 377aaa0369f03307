"""Workers and jobs in the words of the ingestion API: tables, tested whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import msgspec
import pytest

from pharos_contracts.control.v1 import Place
from pharos_contracts.jobs.v1 import IndexResult, Job, JobKind, Progress, RepositorySource, Stage, Trigger
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway import history, job_view, statuses

AT = datetime(2024, 1, 20, 10, 0, 0, tzinfo=UTC)


def worker(name: str = "w1", state: WorkerState = WorkerState.IDLE, **others: Any) -> Worker:
    values: dict[str, Any] = {"instance": "i", "pool": "default", "device": "cpu", "slots": 1}
    return Worker(name=name, state=state, since=AT, seen_at=AT, **{**values, **others})


def job(number: int = 1, state: JobState = JobState.QUEUED, **others: Any) -> Job:
    values: dict[str, Any] = {
        "job_id": f"id-{number}",
        "number": number,
        "tenant": "default",
        "key": "k",
        "kind": JobKind.REPOSITORY,
        "state": state,
        "source": RepositorySource(
            identity="github.com/user/repo1", clone_url="https://github.com/user/repo1"
        ),
        "project": "default",
        "submitted_at": AT,
        "submitted_by": "admin",
        "ttl_seconds": 86_400,
    }
    return Job(**{**values, **others})


def progress(**others: Any) -> Progress:
    values: dict[str, Any] = {
        "tenant": "default",
        "job_id": "id-1",
        "item_id": "0",
        "attempt": 1,
        "at": AT,
        "stage": Stage.ENCODE,
        "done": 1,
        "total": 3,
        "percent": 33.333,
    }
    return Progress(**{**values, **others})


MINE = {
    "tenant": "default",
    "repository": "github.com/user/repo1",
    "job_ids": ("id-1",),
    "error": "disk full",
}
THEIRS = {**MINE, "tenant": "acme"}


@pytest.mark.parametrize(
    ("state", "work", "said"),
    [
        (WorkerState.IDLE, {}, "Idle"),
        (WorkerState.IDLE, MINE, "Idle"),
        (WorkerState.IDLE, THEIRS, "Idle"),
        (WorkerState.BUSY, {}, "Training Graph on a repository"),
        (WorkerState.BUSY, MINE, "Training Graph on github.com/user/repo1"),
        (WorkerState.BUSY, THEIRS, "Training Graph on a private repository"),
        (WorkerState.ERROR, {}, "Error: unknown"),
        (WorkerState.ERROR, MINE, "Error: disk full"),
        (WorkerState.ERROR, THEIRS, "Error: a job of a private repository failed"),
        (WorkerState.DRAINING, {}, "Offline"),
        (WorkerState.DRAINING, MINE, "Training Graph on github.com/user/repo1"),
        (WorkerState.DRAINING, THEIRS, "Training Graph on a private repository"),
    ],
)
def test_a_worker_is_told_in_words_that_keep_other_tenants_private(
    state: WorkerState, work: dict[str, Any], said: str
) -> None:
    assert statuses.words(worker(state=state, **work), "default") == said
    if work is THEIRS:
        assert "private" not in statuses.words(worker(state=state, **work), None)


@pytest.mark.parametrize(("one", "other"), list(product(WorkerState, WorkerState)))
def test_of_two_workers_work_is_told_before_errors_before_idleness(
    one: WorkerState, other: WorkerState
) -> None:
    said = statuses.summary([worker("a", one), worker("b", other)], "default")
    states = {one, other}
    if WorkerState.BUSY in states:
        assert said.startswith("Training Graph on ")
    elif WorkerState.ERROR in states:
        assert said.startswith("Error: ")
    elif WorkerState.IDLE in states:
        assert said == "Idle"
    else:
        assert said == "Offline"


def test_without_workers_the_installation_is_offline() -> None:
    assert statuses.status_of([], "default", {}) == statuses.WorkerStatus(status="Offline", workers=())


def test_ones_own_work_is_told_before_that_of_others() -> None:
    busy = [worker("a", WorkerState.BUSY, **THEIRS), worker("b", WorkerState.BUSY, **MINE)]
    assert statuses.summary(busy, "default") == "Training Graph on github.com/user/repo1"
    lines = statuses.status_of(busy, "default", {"id-1": 7}).workers
    assert [line.job_id for line in lines] == [None, 7]


def test_the_target_is_the_live_worker_with_the_most_room() -> None:
    assert statuses.target([]) == "any"
    assert statuses.target([worker("a", WorkerState.DRAINING), worker("b", slots=0)]) == "any"
    assert statuses.target([worker("a", WorkerState.BUSY, **MINE), worker("b"), worker("c")]) == "b"
    assert statuses.target([worker("a"), worker("b", slots=3, **MINE)]) == "b"
    assert statuses.target([worker("a", WorkerState.BUSY, **MINE)]) == "a"


@pytest.mark.parametrize(
    ("durations", "slots", "seconds"),
    [((), 1, 30), ((1.0,), 1, 5), ((60.0, 120.0), 1, 90), ((60.0, 120.0), 3, 30), ((9e9,), 0, 300)],
)
def test_the_wait_for_a_full_queue_is_an_estimate_with_bounds(
    durations: tuple[float, ...], slots: int, seconds: int
) -> None:
    assert statuses.retry_after_seconds(durations, slots) == seconds


RESULT = IndexResult(
    dataset="d", generation=1, commit="c", files_processed=342, embeddings_generated=340, chunks=400
)
ENDED = {"started_at": AT + timedelta(seconds=2), "ended_at": AT + timedelta(seconds=129.5)}
BASE = {"job_id": 1, "repo_url": "github.com/user/repo1", "id": "id-1"}


@pytest.mark.parametrize(
    ("state", "facts", "row"),
    [
        (JobState.PENDING, {}, {"status": "queued", "timestamp": "2024-01-20T10:00:00Z"}),
        (JobState.QUEUED, {}, {"status": "queued", "timestamp": "2024-01-20T10:00:00Z"}),
        (
            JobState.RUNNING,
            {"started_at": AT, "attempt": 2},
            {
                "status": "running",
                "timestamp": "2024-01-20T10:00:00Z",
                "progress": 33.3,
                "stage": "encode",
                "attempt": 2,
            },
        ),
        (
            JobState.COMMITTING,
            {"started_at": AT, "attempt": 1},
            {
                "status": "running",
                "timestamp": "2024-01-20T10:00:00Z",
                "progress": 33.3,
                "stage": "encode",
                "attempt": 1,
            },
        ),
        (JobState.PAUSED, {}, {"status": "paused", "timestamp": "2024-01-20T10:00:00Z"}),
        (
            JobState.RETRYING,
            {"attempt": 1, "error": "timeout"},
            {"status": "retrying", "timestamp": "2024-01-20T10:00:00Z", "attempt": 1, "error": "timeout"},
        ),
        (
            JobState.COMPLETED,
            {**ENDED, "result": RESULT},
            {
                "status": "complete",
                "timestamp": "2024-01-20T10:02:09.500000Z",
                "duration_seconds": 127.5,
                "files_processed": 342,
                "embeddings_generated": 340,
            },
        ),
        (
            JobState.FAILED,
            {**ENDED, "error": "Failed to clone repository", "attempt": 4},
            {
                "status": "failed",
                "timestamp": "2024-01-20T10:02:09.500000Z",
                "error": "Failed to clone repository",
                "attempt": 4,
            },
        ),
        (JobState.CANCELLED, {}, {"status": "cancelled", "timestamp": "2024-01-20T10:00:00Z"}),
        (
            JobState.SKIPPED,
            {
                "ended_at": AT + timedelta(seconds=90_000),
                "reason": "Task exceeded TTL",
                "age_seconds": 90_000,
            },
            {
                "status": "skipped",
                "timestamp": "2024-01-21T11:00:00Z",
                "reason": "Task exceeded TTL",
                "age_seconds": 90_000,
            },
        ),
    ],
)
def test_every_state_has_its_row_in_the_history(
    state: JobState, facts: dict[str, Any], row: dict[str, Any]
) -> None:
    shown = msgspec.json.decode(msgspec.json.encode(history.row(job(1, state, **facts), progress())))
    assert shown == {**BASE, **row}


def test_no_state_is_without_a_word() -> None:
    assert set(history.STATUS) == set(JobState)


def test_a_skipped_job_without_an_age_is_as_old_as_it_was_when_it_ended() -> None:
    shown = history.row(job(1, JobState.SKIPPED, ended_at=AT + timedelta(seconds=7), reason="nothing to do"))
    assert shown.age_seconds == 7


def test_history_is_merged_newest_first_and_knows_better_than_the_queue() -> None:
    known = [job(3, JobState.COMPLETED), job(1, JobState.RUNNING)]
    waiting = [job(1), job(2), job(4)]
    merged = history.merged(known, waiting, 3)
    assert [(each.number, each.state) for each in merged] == [
        (4, JobState.QUEUED),
        (3, JobState.COMPLETED),
        (2, JobState.QUEUED),
    ]


@pytest.mark.parametrize("state", JobState)
def test_a_place_is_shown_of_a_queued_job_alone(state: JobState) -> None:
    place = Place(position=3, waiting=5, estimated_start_at=AT)
    shown = job_view.view(job(1, state), None, workers=None, place=place)
    queued = state is JobState.QUEUED
    assert (shown.queue_position, shown.estimated_start_at) == ((3, AT) if queued else (None, None))
    unknown = job_view.view(job(1, state), None, workers=None)
    assert (unknown.queue_position, unknown.estimated_start_at) == (None, None)


def test_who_controlled_a_job_and_what_asked_for_it_are_shown() -> None:
    told = job(
        1,
        JobState.PAUSED,
        trigger=Trigger.WEBHOOK,
        controlled_by="ann",
        paused_at=AT,
        callback_url="https://x",
    )
    shown = job_view.view(told, None, workers=None)
    assert (shown.trigger, shown.controlled_by, shown.paused_at) == (Trigger.WEBHOOK, "ann", AT)
    assert "https://x" not in repr(shown)


@pytest.mark.parametrize("state", JobState)
def test_progress_is_shown_for_the_attempt_that_runs_and_a_queued_job_says_whether_it_waits_in_vain(
    state: JobState,
) -> None:
    shown = job_view.view(job(1, state, attempt=1), progress(), workers=())
    assert (shown.progress is not None) == (state not in TERMINAL and state is not JobState.QUEUED)
    assert shown.waiting_for_worker == (state in (JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING))
    assert job_view.view(job(1, state, attempt=2), progress(), workers=None).progress is None


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.COMMITTING])
def test_a_job_whose_worker_died_says_that_it_waits_for_another(state: JobState) -> None:
    running = job(1, state, worker="w1")
    for workers, waits in (({"w1", "w2"}, False), ({"w2"}, True), (set(), True), (None, False)):
        assert job_view.view(running, None, workers=workers).waiting_for_worker is waits
