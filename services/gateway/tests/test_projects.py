"""Jobs in the words of projects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pharos_contracts.jobs.v1 import Progress, Stage
from pharos_contracts.lifecycle import JobState
from pharos_gateway import projects
from tests.support.gateway import job

AT = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)


def progress(percent: float, attempt: int = 1) -> Progress:
    return Progress(
        tenant="default",
        job_id="x",
        item_id="i",
        attempt=attempt,
        at=AT,
        stage=Stage.ENCODE,
        done=0,
        total=0,
        percent=percent,
    )


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("o/r", "github.com/o/r"),
        ("/o/r/", "github.com/o/r"),
        ("github.com/o/r", "github.com/o/r"),
        ("https://github.com/o/r.git", "https://github.com/o/r.git"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ("localhost:3000/r", "localhost:3000/r"),
        ("o", "o"),
        ("", ""),
    ],
)
def test_an_owner_and_a_name_alone_are_a_repository_of_github(text: str, means: str) -> None:
    assert projects.repository_text(text) == means


@pytest.mark.parametrize(
    ("hour", "minute", "said"),
    [(0, 5, "12:05 AM"), (10, 30, "10:30 AM"), (12, 0, "12:00 PM"), (23, 59, "11:59 PM"), (9, 7, "9:07 AM")],
)
def test_a_time_of_day_is_said_in_twelve_hours(hour: int, minute: int, said: str) -> None:
    assert projects.clock_time(AT.replace(hour=hour, minute=minute)) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(127.9, "2m 7s"), (7, "0m 7s"), (0, "0m 0s"), (3_600, "60m 0s")]
)
def test_a_duration_is_said_in_minutes_and_seconds(seconds: float, said: str) -> None:
    assert projects.duration(seconds) == said


@pytest.mark.parametrize("state", JobState)
def test_every_state_has_one_of_the_six_words(state: JobState) -> None:
    row = projects.row(job(1, state, started_at=AT), None)
    assert row.status in {"queued", "running", "completed", "failed", "cancelled", "skipped"}
    assert row.state is state


def test_a_job_that_never_started_took_no_time() -> None:
    row = projects.row(job(1, JobState.SKIPPED, ended_at=AT, reason="Task exceeded TTL"), None)
    assert (row.duration, row.duration_seconds, row.reason) == ("0m 0s", 0.0, "Task exceeded TTL")
    assert row.started_at == "10:00 AM"  # when it was submitted


def test_progress_of_an_attempt_that_is_past_is_not_told() -> None:
    running = job(1, JobState.RUNNING, started_at=AT, attempt=2)
    assert projects.row(running, progress(80)).progress == 0
    assert projects.row(running, progress(12.9, attempt=2)).progress == 12
    ended = job(1, JobState.FAILED, started_at=AT, ended_at=AT + timedelta(seconds=1), attempt=2)
    assert projects.row(ended, progress(80, attempt=2)).progress == 0
