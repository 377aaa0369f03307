"""What a slow reader is kept, and what it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pharos_contracts.jobs.v1 import EVENT_OF_STATE, Job, JobKind, RepositorySource
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_gateway.happenings import Happening, block, comment, read
from pharos_gateway.sight import Sight
from pharos_gateway.subscriptions import LATEST_MAX, STOPPING, TOO_SLOW, Closed, Subscription

pytestmark = pytest.mark.anyio

AT = datetime(2024, 1, 20, tzinfo=UTC)


def happening(sequence: int, state: JobState = JobState.QUEUED, tenant: str = "default") -> Happening:
    job = Job(
        job_id=f"job-{sequence}",
        number=sequence,
        tenant=tenant,
        key="k",
        kind=JobKind.REPOSITORY,
        state=state,
        source=RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
        project="default",
        submitted_at=AT,
        submitted_by="admin",
        ttl_seconds=1,
    )
    event = EVENT_OF_STATE[state](event_id="e", at=AT, job=job)
    found = read(sequence, encode(event), lambda _: None)
    assert found is not None
    return found


async def test_events_come_in_order_before_what_is_only_the_latest() -> None:
    subscription = Subscription(sight=Sight(tenant="default"))
    subscription.offer_latest("a", b"old")
    subscription.offer_latest("a", b"new")
    first, second = happening(1), happening(2)
    subscription.offer(first)
    subscription.offer(happening(9, tenant="acme"))
    subscription.offer(second)
    assert [await subscription.next() for _ in range(3)] == [first, second, b"new"]


async def test_a_reader_that_falls_too_far_behind_is_told_to_come_back() -> None:
    subscription = Subscription(sight=Sight(tenant=None), events_max=3)
    for sequence in range(5):
        subscription.offer(happening(sequence))
    with pytest.raises(Closed) as closed:
        await subscription.next()
    assert closed.value.farewell == TOO_SLOW


async def test_of_what_is_only_the_latest_the_oldest_goes_first() -> None:
    subscription = Subscription(sight=Sight(tenant=None))
    for number in range(LATEST_MAX + 5):
        subscription.offer_latest(str(number), str(number).encode())
    assert await subscription.next() == b"5"


async def test_progress_that_waits_is_dropped_when_its_job_ends() -> None:
    subscription = Subscription(sight=Sight(tenant=None))
    subscription.offer_latest("job-1", b"progress")
    subscription.offer(happening(1, JobState.COMPLETED))
    subscription.close(STOPPING)
    assert isinstance(await subscription.next(), Happening)
    with pytest.raises(Closed):
        await subscription.next()


async def test_what_was_offered_before_the_end_is_still_read() -> None:
    subscription = Subscription(sight=Sight(tenant=None))
    subscription.offer(happening(1))
    subscription.close(STOPPING)
    subscription.offer(happening(2))
    assert isinstance(await subscription.next(), Happening)
    with pytest.raises(Closed):
        await subscription.next()


@pytest.mark.parametrize("state", sorted(EVENT_OF_STATE))
def test_each_event_has_its_name_and_only_the_last_ends_the_job(state: JobState) -> None:
    names = {
        JobState.PENDING: "job.created",
        JobState.QUEUED: "job.queued",
        JobState.RUNNING: "job.started",
        JobState.PAUSED: "job.paused",
        JobState.RETRYING: "job.retrying",
        JobState.COMMITTING: "job.committing",
        JobState.COMPLETED: "job.completed",
        JobState.FAILED: "job.failed",
        JobState.CANCELLED: "job.cancelled",
        JobState.SKIPPED: "job.skipped",
    }
    told = happening(7, state)
    assert told.name == names[state]
    assert told.is_last == (state in {"completed", "failed", "cancelled", "skipped"})
    assert told.native.startswith(f"id: 7\nevent: {names[state]}\ndata: {{".encode())
    assert told.native.endswith(b"}\n\n")


def test_a_line_break_in_a_text_stays_inside_its_event() -> None:
    assert block("x", {"error": "a\n\nb\r"}) == b'event: x\ndata: {"error":"a\\n\\nb\\r"}\n\n'
    assert comment("hello") == b": hello\n\n"
