"""The scheduler against a real bus: what is accepted ends, once, whatever dies on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import (
    ActiveJob,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, StreamFull
from pharos_service.settings import ServiceSettings
from tests.support.nats_server import NatsServer
from tests.support.scheduling import (
    RESULT,
    announce,
    command,
    ended,
    events_of,
    is_released,
    job_when,
    leading,
    messages_in,
    say,
    submit,
    take,
    until_holds,
)

pytestmark = pytest.mark.anyio

FAR_AWAY = "2099-01-01T00:00:00Z"


async def test_a_job_goes_from_the_queue_to_its_end(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        number = await submit(bus, wanted)
        queued = await job_when(bus, wanted, lambda job: job.state is JobState.QUEUED)
        assert queued.number == number
        await announce(bus)
        item, message = await take(bus)
        for kind, facts in (
            (ItemStarted, {}),
            (ItemCommitting, {"result": RESULT}),
            (ItemCompleted, {"result": RESULT}),
        ):
            await say(bus, item, kind, **facts)
        await message.ack()
        done = await job_when(bus, wanted, ended)
        assert done.result == RESULT
        await is_released(bus, wanted)
        assert [type(event).__name__ for event in await events_of(bus, wanted)] == [
            "JobQueued",
            "JobStarted",
            "JobCommitting",
            "JobCompleted",
        ]


async def test_nothing_leaves_the_queue_while_no_worker_is_alive(bus: Bus) -> None:
    async with leading(bus):
        waiting = [command(number) for number in range(10)]
        for each in waiting:
            await submit(bus, each)
        await job_when(bus, waiting[-1], lambda job: job.state is JobState.QUEUED)
        with pytest.raises(StreamFull):
            await submit(bus, command(10))
        await asyncio.sleep(6)  # longer than the queue waits for an acknowledgement
        state = (await bus.api(f"STREAM.INFO.{streams.Q}"))["state"]
        assert state["messages"] == 10
        await until_holds(bus, streams.WORK, 0)


async def test_jobs_that_wait_too_long_are_skipped_with_their_age_and_make_room(bus: Bus) -> None:
    async with leading(bus):
        waiting = [command(number, ttl_seconds=2) for number in range(10)]
        for each in waiting:
            await submit(bus, each)
        for each in waiting:
            job = await job_when(bus, each, ended)
            assert (job.state, job.reason) == (JobState.SKIPPED, "Task exceeded TTL")
            assert job.age_seconds is not None and job.age_seconds >= 2
            await is_released(bus, each)
        await until_holds(bus, streams.Q, 0)
        await announce(bus)
        await submit(bus, command(11))
        item, _ = await take(bus)
        assert item.job.number == 11  # none of the expired ones was handed out


async def test_a_job_that_came_and_went_while_no_scheduler_ran_still_ends(bus: Bus) -> None:
    wanted = command(1, ttl_seconds=1)
    await submit(bus, wanted)
    await asyncio.sleep(3)
    async with leading(bus):
        job = await job_when(bus, wanted, ended)
        assert (job.state, job.source.identity) == (JobState.SKIPPED, "github.com/o/r1")
        await is_released(bus, wanted)


async def test_a_failure_that_may_pass_is_tried_again_and_one_that_will_not_ends_the_job(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        await announce(bus)
        await submit(bus, wanted)
        item, message = await take(bus)
        await say(bus, item, ItemStarted)
        await say(bus, item, ItemFailed, error="The host did not answer", code="fetch_failed", transient=True)
        await message.ack()
        waiting = await job_when(bus, wanted, lambda job: job.state is JobState.RETRYING)
        assert waiting.next_attempt_at is not None
        again, message = await take(bus)
        assert again.attempt == 2
        await say(bus, again, ItemStarted, attempt=2)
        await say(
            bus, again, ItemFailed, attempt=2, error="Repository not found", code="repository_not_found"
        )
        await message.ack()
        job = await job_when(bus, wanted, ended)
        assert (job.state, job.error, job.attempt) == (JobState.FAILED, "Repository not found", 2)
        await is_released(bus, wanted)


@pytest.mark.parametrize("stop_after", ["queued", "dispatched", "started", "committing"])
async def test_the_next_leader_takes_up_where_the_last_one_stopped(bus: Bus, stop_after: str) -> None:
    wanted = command(1)
    item: WorkItem | None = None
    message: Any = None
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, lambda job: job.state is JobState.QUEUED)
        if stop_after != "queued":
            await announce(bus)
            item, message = await take(bus)
        if item and stop_after in ("started", "committing"):
            await say(bus, item, ItemStarted)
            await job_when(bus, wanted, lambda job: job.state is JobState.RUNNING)
    if item is None:
        await announce(bus)
    elif stop_after == "committing":
        await say(bus, item, ItemCommitting, result=RESULT)
    async with leading(bus):
        if item is None:
            item, message = await take(bus)
        if stop_after in ("queued", "dispatched"):
            await say(bus, item, ItemStarted)
        await say(bus, item, ItemCompleted, result=RESULT)
        await message.ack()
        await job_when(bus, wanted, ended)
    names = [type(event).__name__ for event in await events_of(bus, wanted)]
    assert names.count("JobCompleted") == 1
    assert names.count("JobQueued") == 1
    await until_holds(bus, streams.WORK, 0)


async def test_the_claim_of_a_job_that_lapsed_is_not_let_go_before_its_end_is_told(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker of its command was delivered to a leader that no longer hears it."""
    monkeypatch.setattr("pharos_scheduler.app.ORPHANS_SECONDS", 0.2)
    wanted = command(1, ttl_seconds=1, age_seconds=60)
    await submit(bus, wanted)
    await until_holds(bus, streams.Q, 0)
    await bus.api(f"CONSUMER.PAUSE.{streams.TIMERS}.{streams.SCHEDULER_EXPIRY}", {"pause_until": FAR_AWAY})
    async with leading(bus):
        assert (await job_when(bus, wanted, ended)).state is JobState.SKIPPED
        await is_released(bus, wanted)


async def test_a_claim_that_no_submit_followed_is_let_go(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pharos_scheduler.app.ORPHANS_SECONDS", 0.2)
    orphan, waiting = command(1, age_seconds=60), command(2, age_seconds=60)
    active = Bucket(bus, streams.KV_ACTIVE, ActiveJob)
    await active.create(
        subjects.active_key(orphan.tenant, orphan.key),
        ActiveJob(command=orphan, created_at=orphan.submitted_at),
    )
    await submit(bus, waiting)  # as old, and its number was not noted either
    async with leading(bus):
        await is_released(bus, orphan)
        await asyncio.sleep(0.5)  # two more rounds
        assert await active.get(subjects.active_key(waiting.tenant, waiting.key)) is not None


async def test_a_job_that_its_worker_has_ended_is_not_taken_for_lost(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fact that says so was delivered to a leader that no longer hears it."""
    monkeypatch.setattr("pharos_scheduler.scheduler.LOST_SECONDS", 1.0)
    wanted = command(1)
    async with leading(bus):
        await announce(bus)
        await submit(bus, wanted)
        item, message = await take(bus)
        await say(bus, item, ItemStarted)
        await job_when(bus, wanted, lambda job: job.state is JobState.RUNNING)
    await bus.api(f"CONSUMER.PAUSE.{streams.JOBS}.{streams.SCHEDULER_ITEMS}", {"pause_until": FAR_AWAY})
    await say(bus, item, ItemCompleted, result=RESULT)
    await message.ack()
    async with leading(bus):
        assert (await job_when(bus, wanted, ended)).state is JobState.COMPLETED
        assert await messages_in(bus, streams.WORK) == 0


async def test_the_claim_of_a_job_that_ended_is_let_go_although_its_leader_died_in_between(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = command(1, ttl_seconds=30, age_seconds=60)
    with monkeypatch.context() as patch:
        patch.setattr("pharos_scheduler.job_store.BusJobStore.release", _do_nothing)
        async with leading(bus):
            await submit(bus, wanted)
            assert (await job_when(bus, wanted, ended)).state is JobState.SKIPPED
    monkeypatch.setattr("pharos_scheduler.app.ORPHANS_SECONDS", 0.2)
    async with leading(bus):
        await is_released(bus, wanted)


async def _do_nothing(*_: Any) -> None: ...


async def test_the_queue_survives_a_crash_of_the_bus(bus: Bus, nats_server: NatsServer) -> None:
    wanted = command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, lambda job: job.state is JobState.QUEUED)
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        while not bus.connected:
            await asyncio.sleep(0.05)
        await announce(bus)
        item, message = await take(bus)
        await say(bus, item, ItemStarted)
        await say(bus, item, ItemCompleted, result=RESULT)
        await message.ack()
        await job_when(bus, wanted, ended)


async def test_a_command_that_was_lost_from_the_queue_is_handed_out_from_the_ledger(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_scheduler.scheduler.LOST_SECONDS", 1.0)
    wanted = command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, lambda job: job.state is JobState.QUEUED)
    await bus.api(f"STREAM.PURGE.{streams.Q}")
    async with leading(bus):
        await announce(bus)
        item, _ = await take(bus)
        assert item.job.job_id == wanted.job_id


async def test_an_item_that_a_crash_of_the_bus_brought_back_after_its_end_is_removed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_scheduler.scheduler.LOST_SECONDS", 1.0)
    past, running = command(1), command(2)
    async with leading(bus):
        await announce(bus, slots=2)
        await submit(bus, past)
        item, message = await take(bus)
        await say(bus, item, ItemFailed, error="x", code="c", cleared=True)
        await job_when(bus, past, lambda job: job.state is JobState.FAILED)
        await message.ack_sync()
        await submit(bus, running)
        other, _ = await take(bus)
        assert other.job.job_id == running.job_id
        await bus.publish(subjects.work_subject(item), item)  # as if it had never been settled
        async with asyncio.timeout(10):
            while await bus.last(streams.WORK, subjects.work_subject(item)) is not None:
                await asyncio.sleep(0.05)
        assert await bus.last(streams.WORK, subjects.work_subject(other)) is not None


async def test_of_two_schedulers_that_lead_at_once_neither_writes_a_state_twice(
    bus: Bus, bus_settings: ServiceSettings
) -> None:
    wanted = [command(number) for number in range(5)]
    async with leading(bus), leading(bus):
        await announce(bus, slots=5)
        for each in wanted:
            await submit(bus, each)
        for _ in wanted:
            item, message = await take(bus)
            await say(bus, item, ItemStarted)
            await say(bus, item, ItemCompleted, result=RESULT)
            await message.ack()
        for each in wanted:
            await job_when(bus, each, ended)
    for each in wanted:
        states = [event.job.state for event in await events_of(bus, each)]
        assert states == [JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED]
