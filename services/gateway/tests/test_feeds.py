"""What a WebSocket client is told, whatever it has read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import Job, Progress, Stage
from pharos_contracts.lifecycle import JobState
from pharos_gateway.feeds import PROJECTS_MAX, Feed, FeedClosed, TooManyProjects
from pharos_gateway.sight import Sight
from tests.support.gateway import job

pytestmark = pytest.mark.anyio

AT = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)
RUNNING = job(1, JobState.RUNNING, started_at=AT, attempt=1)
HERE = Sight(tenant="default", projects=frozenset({"default"}))


def feed(**others: Any) -> Feed:
    made = Feed(now=lambda: AT, **others)
    made.subscribe("default", HERE)
    return made


def progress(percent: float, of: Job = RUNNING, attempt: int = 1) -> Progress:
    return Progress(
        tenant="default",
        job_id=of.job_id,
        item_id="i",
        attempt=attempt,
        at=AT,
        stage=Stage.ENCODE,
        done=0,
        total=0,
        percent=percent,
        current_file="src/context.ts",
    )


async def read(found: Feed) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await found.next())
    return message


async def test_a_message_is_as_the_contract_shows_it() -> None:
    found = feed()
    found.progressed(progress(75), RUNNING)
    assert await read(found) == {
        "type": "github:progress",
        "project": "default",
        "timestamp": "2024-01-20T10:30:00Z",
        "data": {
            "jobId": RUNNING.job_id,
            "status": "in_progress",
            "progress": 75,
            "phase": "Indexing repository...",
            "currentFile": "src/context.ts",
            "error": None,
        },
    }


async def test_of_what_was_not_read_only_the_latest_of_each_job_is_kept() -> None:
    found, other = feed(unsent_max=2), job(2, JobState.RUNNING, started_at=AT, attempt=1)
    for percent in range(100):
        found.progressed(progress(percent), RUNNING)
        found.progressed(progress(percent, other), other)
    found.happened(replace(RUNNING, state=JobState.COMPLETED, ended_at=AT))
    last = [await read(found), await read(found)]
    assert [(each["data"]["status"], each["data"]["progress"]) for each in last] == [
        ("in_progress", 99),
        ("completed", 100),
    ]


async def test_who_leaves_too_much_unread_is_sent_away() -> None:
    found = feed(unsent_max=2)
    for number in range(1, 4):
        found.happened(job(number, JobState.RUNNING))
    with pytest.raises(FeedClosed) as closed:
        await found.next()
    assert closed.value.code == 1013


async def test_long_messages_count_for_more_and_what_was_read_counts_no_more() -> None:
    found, long = feed(unsent_bytes_max=10_000), "x" * 4_000
    for number in range(1, 10):
        found.happened(job(number, JobState.FAILED, error=long))
        assert (await read(found))["data"]["error"] == long
        found.happened(replace(RUNNING, state=JobState.FAILED, error=long))
        found.happened(replace(RUNNING, state=JobState.FAILED, error=long))
        found.unsubscribe("default")
        found.subscribe("default", HERE)
    for number in range(10, 13):
        found.happened(job(number, JobState.FAILED, error=long))
    with pytest.raises(FeedClosed) as closed:
        await found.next()
    assert closed.value.code == 1013


async def test_progress_never_falls_within_an_attempt() -> None:
    found, told = feed(), []
    second = replace(RUNNING, attempt=2)
    for step in (
        lambda: found.progressed(progress(60), RUNNING),
        lambda: found.progressed(progress(40), RUNNING),
        lambda: found.happened(replace(RUNNING, state=JobState.RETRYING)),
        lambda: found.happened(second),
        lambda: found.progressed(progress(5, attempt=2), second),
        lambda: found.happened(RUNNING),
    ):
        step()
        told.append((await read(found))["data"]["progress"])
    assert told == [60, 60, 60, 0, 5, 5]


async def test_nothing_is_told_of_what_is_not_asked_for_or_not_shown() -> None:
    found = feed()
    found.happened(job(2, project="other"))
    found.happened(job(3, tenant="other"))
    found.progressed(progress(10), None)
    found.unsubscribe("default")
    found.happened(RUNNING)
    found.subscribe("all", Sight(tenant="default"))
    found.happened(job(4, project="other"))
    message = await read(found)
    assert (message["project"], message["data"]["jobId"]) == ("other", job(4).job_id)


def test_one_socket_follows_so_many_projects_and_no_more() -> None:
    found = feed()
    for number in range(PROJECTS_MAX - 1):
        found.subscribe(f"p{number}", HERE)
    with pytest.raises(TooManyProjects):
        found.subscribe("one-too-many", HERE)
    found.subscribe("default", HERE)
