"""What owners ask of jobs, in every state and whatever dies in between: cancel, pause, resume, retry."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import nats.errors
import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action, ControlJob, Controlled, StopItem
from pharos_contracts.jobs.v1 import (
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemPaused,
    ItemStarted,
    Purpose,
    SubmitJob,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import Refused
from pharos_contracts.streams import BusLimits, declare
from pharos_scheduler.app import utc_now
from pharos_scheduler.items import BusItems
from pharos_scheduler.job_store import BusJobStore
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, StreamFull
from pharos_service.bus_admin import apply
from pharos_service.journal import Superseded
from tests.support.scheduling import (
    RESULT,
    announce,
    ask,
    command,
    control,
    ended,
    events_of,
    facts_of,
    is_in,
    is_released,
    job_when,
    leading,
    running,
    say,
    submit,
    take,
    until_holds,
)

pytestmark = pytest.mark.anyio


async def stop_of(bus: Bus, wanted: SubmitJob) -> StopItem:
    entry = await Bucket(bus, streams.KV_CONTROL, StopItem).get(wanted.job_id)
    assert entry is not None
    return entry.value


# Cancel


async def test_a_queued_job_that_is_cancelled_frees_its_place_and_never_runs(bus: Bus) -> None:
    async with leading(bus):
        waiting = [command(number) for number in range(10)]
        for each in waiting:
            await submit(bus, each)
        await job_when(bus, waiting[-1], is_in(JobState.QUEUED))
        answer = await control(bus, waiting[0].job_id, Action.CANCEL)
        assert (answer.job.state, answer.job.controlled_by) == (JobState.CANCELLED, "ada")
        await is_released(bus, waiting[0])
        await until_holds(bus, streams.Q, 9)
        await submit(bus, command(11))
        await announce(bus)
        item, _ = await take(bus)
        assert item.job.job_id == waiting[1].job_id


async def test_a_running_job_that_is_cancelled_is_taken_from_its_worker_and_cleared_away(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, started = await running(bus, wanted)
        answer = await control(bus, wanted.job_id, Action.CANCEL)
        assert answer.job.state is JobState.CANCELLED
        stop = await stop_of(bus, wanted)
        assert stop.action is Action.CANCEL
        assert isinstance((await facts_of(bus, wanted))[-1], ItemCancelled)
        with pytest.raises(Superseded):
            await say(bus, item, ItemCommitting, after=started, result=RESULT)
        await message.ack()
        clear, message = await take(bus)
        assert (clear.purpose, clear.item_id, clear.job.job_id) == (Purpose.CLEAR, "clear", wanted.job_id)
        await message.ack()
        await is_released(bus, wanted)
        assert (await job_when(bus, wanted, ended)).state is JobState.CANCELLED


async def test_a_job_that_is_publishing_cannot_be_cancelled(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        await say(bus, item, ItemCommitting, result=RESULT)
        for action in (Action.CANCEL, Action.PAUSE):
            answer = await control(bus, wanted.job_id, action)
            assert answer == Refused(
                code="invalid_transition", detail=f"Cannot {action} a committing job", status=409
            )
        await say(bus, item, ItemCompleted, result=RESULT)
        await message.ack()
        done = await job_when(bus, wanted, ended)
        assert done.state is JobState.COMPLETED
        answer = await control(bus, wanted.job_id, Action.CANCEL)
        assert answer.detail == "Cannot cancel a completed job"


async def test_a_worker_that_publishes_and_an_owner_who_cancels_exclude_each_other(bus: Bus) -> None:
    """Twenty races: the job is either published or cancelled, and both sides agree which."""
    async with leading(bus):
        await announce(bus, slots=30)
        wanted = [command(number) for number in range(1, 21)]
        for each in wanted:
            while True:
                try:
                    await submit(bus, each)
                    break
                except StreamFull:
                    await asyncio.sleep(0.02)
        items = {}
        for _ in wanted:
            item, _ = await take(bus)
            items[item.job.job_id] = item, await say(bus, item, ItemStarted)
        for each in wanted:
            await job_when(bus, each, is_in(JobState.RUNNING))

        async def publish(item: WorkItem, started: int) -> bool:
            try:
                await say(bus, item, ItemCommitting, after=started, result=RESULT)
            except Superseded:
                return False
            await say(bus, item, ItemCompleted, result=RESULT)
            return True

        async def race(each: SubmitJob) -> tuple[bool, bool]:
            published, answer = await asyncio.gather(
                publish(*items[each.job_id]), control(bus, each.job_id, Action.CANCEL)
            )
            return published, isinstance(answer, Controlled)

        for each in wanted:
            published, cancelled = await race(each)
            assert published is not cancelled
            job = await job_when(bus, each, ended)
            assert job.state is (JobState.COMPLETED if published else JobState.CANCELLED)


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.RETRYING])
async def test_a_job_that_stands_still_can_be_cancelled(bus: Bus, state: JobState) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        if state is JobState.PAUSED:
            await control(bus, wanted.job_id, Action.PAUSE)
        else:
            await say(bus, item, ItemFailed, error="x", code="c", transient=True)
        await message.ack()
        await job_when(bus, wanted, is_in(state))
        answer = await control(bus, wanted.job_id, Action.CANCEL)
        assert answer.job.state is JobState.CANCELLED
        clear, message = await take(bus)
        assert clear.purpose is Purpose.CLEAR
        await message.ack()
        with pytest.raises(nats.errors.TimeoutError):  # its backoff ends, and nothing comes of it
            await take(bus, seconds=4)
        assert (await job_when(bus, wanted, ended)).state is JobState.CANCELLED


# Pause and resume


async def test_a_paused_attempt_goes_on_with_its_next_hand_out(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        answer = await control(bus, wanted.job_id, Action.PAUSE)
        assert answer.job.state is JobState.PAUSED
        assert (await stop_of(bus, wanted)).action is Action.PAUSE
        assert isinstance((await facts_of(bus, wanted))[-1], ItemPaused)
        await message.ack()
        with pytest.raises(nats.errors.TimeoutError):
            await take(bus, seconds=1)
        answer = await control(bus, wanted.job_id, Action.RESUME)
        assert answer.job.state is JobState.QUEUED
        again, message = await take(bus)
        assert (again.attempt, again.job.facts_after) == (1, (await stop_of(bus, wanted)).fact)
        assert again.dispatch > item.dispatch
        await say(bus, again, ItemStarted)
        await say(bus, again, ItemCompleted, result=RESULT)
        await message.ack()
        await job_when(bus, wanted, ended)
        assert [type(event).__name__ for event in await events_of(bus, wanted)] == [
            "JobQueued",
            "JobStarted",
            "JobPaused",
            "JobResumed",
            "JobStarted",
            "JobCompleted",
        ]


async def test_a_queued_job_that_is_paused_frees_its_place_and_does_not_age(bus: Bus) -> None:
    wanted = command(1, ttl_seconds=2)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_in(JobState.QUEUED))
        await control(bus, wanted.job_id, Action.PAUSE)
        await until_holds(bus, streams.Q, 0)
        async with asyncio.timeout(8):  # its timer lapses meanwhile
            while utc_now() - wanted.submitted_at < timedelta(seconds=4):
                await asyncio.sleep(0.1)
        assert (await control(bus, wanted.job_id, Action.RESUME)).job.state is JobState.QUEUED
        await announce(bus)
        item, _ = await take(bus)
        assert item.job.job_id == wanted.job_id
    assert not [event for event in await events_of(bus, wanted) if event.job.state is JobState.SKIPPED]


async def test_a_resumed_job_does_not_count_against_the_cap(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_in(JobState.QUEUED))
        await control(bus, wanted.job_id, Action.PAUSE)
        for number in range(2, 12):
            while True:
                try:
                    await submit(bus, command(number))
                    break
                except StreamFull:  # its place is free as soon as the queue has heard
                    await asyncio.sleep(0.02)
        assert (await control(bus, wanted.job_id, Action.RESUME)).job.state is JobState.QUEUED
        await announce(bus, slots=11)
        taken = {(await take(bus))[0].job.job_id for _ in range(11)}
        assert wanted.job_id in taken


# Retry


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_job_that_ended_without_a_result_can_be_tried_again(bus: Bus, how: str) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        if how == "failed":
            await say(bus, item, ItemFailed, error="Not found", code="repository_not_found", cleared=True)
            await message.ack()
        else:
            await control(bus, wanted.job_id, Action.CANCEL)
            await message.ack()
            _, message = await take(bus)
            await message.ack()
        await job_when(bus, wanted, ended)
        await is_released(bus, wanted)
        answer = await control(bus, wanted.job_id, Action.RETRY)
        assert (answer.job.state, answer.job.max_attempts) == (JobState.QUEUED, 5)
        again, message = await take(bus)
        assert again.attempt == 2
        await say(bus, again, ItemStarted, attempt=2)
        await say(bus, again, ItemCompleted, attempt=2, result=RESULT)
        await message.ack()
        done = await job_when(bus, wanted, is_in(JobState.COMPLETED))
        assert (done.error, done.attempt) == (None, 2)


async def test_a_job_that_was_cancelled_before_it_started_is_handed_out_again_at_once(bus: Bus) -> None:
    """Its first hand-out and the one after the retry are told apart, although no attempt came in between."""
    wanted = command(1)
    async with leading(bus):
        await announce(bus)
        await submit(bus, wanted)
        await until_holds(bus, streams.WORK, 1)
        await control(bus, wanted.job_id, Action.CANCEL)
        await is_released(bus, wanted)
        assert (await control(bus, wanted.job_id, Action.RETRY)).job.state is JobState.QUEUED
        item, _ = await take(bus, seconds=5)
        assert (item.job.job_id, item.attempt) == (wanted.job_id, 1)


async def test_a_retry_is_refused_while_another_job_does_the_same(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_in(JobState.QUEUED))
        await control(bus, wanted.job_id, Action.CANCEL)
        await is_released(bus, wanted)
        other = replace(command(2), key=wanted.key)
        await submit(bus, other)
        answer = await control(bus, wanted.job_id, Action.RETRY)
        assert (answer.status, answer.code) == (409, "already_active")
        assert other.job_id in answer.detail


# Answers


async def test_a_job_that_nobody_has_or_that_is_somebody_elses_is_not_found(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_in(JobState.QUEUED))
        answers = [
            await control(bus, command(2).job_id, Action.CANCEL),
            await control(bus, wanted.job_id, Action.CANCEL, tenant="acme"),
        ]
        assert answers[0] == answers[1]
        assert answers[0].status == 404
        assert (await control(bus, wanted.job_id, Action.CANCEL, tenant=None)).job.job_id == wanted.job_id


async def test_a_command_that_overtakes_its_job_is_carried_out(bus: Bus) -> None:
    """Nothing of Q is read before CONTROL: both wait when the scheduler starts."""
    wanted = command(1)
    await submit(bus, wanted)
    asking = asyncio.create_task(control(bus, wanted.job_id, Action.CANCEL))
    await asyncio.sleep(0)
    async with leading(bus):
        assert (await asking).job.state is JobState.CANCELLED
        await announce(bus)
        with pytest.raises(nats.errors.TimeoutError):
            await take(bus, seconds=1)
    states = [event.job.state for event in await events_of(bus, wanted)]
    assert states == [JobState.QUEUED, JobState.CANCELLED]


async def test_a_command_that_is_delivered_twice_acts_once(bus: Bus) -> None:
    """The first scheduler dies after it has acted and before it has said so to the queue."""
    wanted = command(1)
    asked = ControlJob(
        tenant="default",
        by="ada",
        at=utc_now(),
        reply_to=bus.client.new_inbox(),
        job_id=wanted.job_id,
        action=Action.PAUSE,
    )
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_in(JobState.QUEUED))
        assert (await ask(bus, asked)).job.state is JobState.PAUSED
        assert (await control(bus, wanted.job_id, Action.RESUME)).job.state is JobState.QUEUED
    await bus.api(f"CONSUMER.DELETE.{streams.CONTROL}.{streams.SCHEDULER_CONTROL}")
    await apply(bus, declare(BusLimits()), 1)  # the consumer has forgotten everything
    before = len(await events_of(bus, wanted))
    async with leading(bus):
        answer = await control(bus, wanted.job_id, Action.CANCEL)  # behind the two that come again
        assert answer.job.state is JobState.CANCELLED
    assert len(await events_of(bus, wanted)) == before + 1


async def test_a_command_that_was_refused_is_not_carried_out_later(bus: Bus) -> None:
    """Even where the bus forgets that it was read."""
    wanted = command(1)
    async with leading(bus):
        item, message, _ = await running(bus, wanted)
        assert (await control(bus, wanted.job_id, Action.RETRY)).status == 409
        await say(bus, item, ItemFailed, error="Repository not found", code="repository_not_found")
        await message.ack()
        await job_when(bus, wanted, ended)
    await bus.api(f"CONSUMER.DELETE.{streams.CONTROL}.{streams.SCHEDULER_CONTROL}")
    await apply(bus, declare(BusLimits()), 1)
    async with leading(bus):
        assert (await control(bus, wanted.job_id, Action.PAUSE)).status == 409  # read behind the first
    assert (await events_of(bus, wanted))[-1].job.state is JobState.FAILED


@pytest.mark.parametrize("crash_after", ["the fact", "the event"])
async def test_a_stop_that_a_crash_interrupts_is_finished_by_the_next_leader(
    bus: Bus, crash_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = command(1)
    crashed = asyncio.Event()

    async def never(*_: Any, **__: Any) -> None:
        crashed.set()
        await asyncio.Event().wait()

    async with leading(bus):
        _item, message, _started = await running(bus, wanted)
        where = (
            "job_store.BusJobStore.record"
            if crash_after == "the fact"
            else "dispatcher.BusDispatcher.withdraw"
        )
        with monkeypatch.context() as patch:
            patch.setattr(f"pharos_scheduler.{where}", never)
            asking = asyncio.create_task(control(bus, wanted.job_id, Action.CANCEL))
            async with asyncio.timeout(10):
                await crashed.wait()
    async with leading(bus):
        assert (await asking).job.state is JobState.CANCELLED
        await message.ack()
        clear, _ = await take(bus)
        assert clear.purpose is Purpose.CLEAR
        await is_released(bus, wanted)
    assert [event.job.state for event in await events_of(bus, wanted)].count(JobState.CANCELLED) == 1


async def test_a_pause_that_a_crash_interrupts_does_not_keep_the_job_from_going_on(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its item is still in the queue when the next leader looks, and gone when it is resumed."""
    wanted = command(1)
    crashed = asyncio.Event()

    async def never(*_: Any, **__: Any) -> None:
        crashed.set()
        await asyncio.Event().wait()

    async with leading(bus):
        await running(bus, wanted)
        with monkeypatch.context() as patch:
            patch.setattr("pharos_scheduler.dispatcher.BusDispatcher.withdraw", never)
            asking = asyncio.create_task(control(bus, wanted.job_id, Action.PAUSE))
            async with asyncio.timeout(10):
                await crashed.wait()
    async with leading(bus):
        assert (await asking).job.state is JobState.PAUSED
        assert (await control(bus, wanted.job_id, Action.RESUME)).job.state is JobState.QUEUED
        await announce(bus)
        again, _ = await take(bus)
        assert (again.job.job_id, again.attempt) == (wanted.job_id, 1)


@pytest.mark.parametrize(
    ("before", "action", "written"),
    [
        (JobState.FAILED, Action.RETRY, JobState.RETRYING),
        (JobState.FAILED, Action.RETRY, JobState.QUEUED),
        (JobState.PAUSED, Action.RESUME, JobState.QUEUED),
        (JobState.QUEUED, Action.PAUSE, JobState.PAUSED),
    ],
)
async def test_a_command_that_a_leader_carried_out_with_its_last_words_goes_on_with_the_next_one(
    bus: Bus, before: JobState, action: Action, written: JobState
) -> None:
    """They were on their way for so long that the next one had looked already; the command comes again."""
    wanted = command(1)
    async with leading(bus):
        await submit(bus, wanted)
        await job_when(bus, wanted, is_in(JobState.QUEUED))
        if before is JobState.PAUSED:
            await control(bus, wanted.job_id, Action.PAUSE)
        if before is JobState.FAILED:
            await announce(bus)
            item, message = await take(bus)
            await say(bus, item, ItemFailed, error="No", code="repository_not_found", cleared=True)
            await message.ack()
        await job_when(bus, wanted, is_in(before))
    async with leading(bus):
        # It answers behind all that it looked at.
        assert (await control(bus, "another", Action.PAUSE)).status == 404
        asked = (await bus.api(f"STREAM.INFO.{streams.CONTROL}"))["state"]["last_seq"] + 1
        await write_as_the_last_leader(bus, wanted, written, control=asked)

        answer = await control(bus, wanted.job_id, action)

        assert isinstance(answer, Controlled)
        if action is not Action.PAUSE:
            await announce(bus)
            again, _ = await take(bus, seconds=5)
            assert again.job.job_id == wanted.job_id
        else:
            assert (await control(bus, wanted.job_id, Action.RESUME)).job.state is JobState.QUEUED


async def write_as_the_last_leader(bus: Bus, wanted: SubmitJob, state: JobState, *, control: int) -> None:
    """The event by which *wanted* comes to *state*, as command number *control* asked."""
    store = BusJobStore(bus, utc_now, lambda: None)
    tracked = await store.load(wanted.tenant, wanted.job_id)
    assert tracked is not None
    await store.claim(tracked.job)
    fact = tracked.sequence
    if state is JobState.PAUSED:
        fact = await BusItems(bus, utc_now).take_away(tracked.job, ItemPaused, None)
    job = replace(
        tracked.job,
        state=state,
        control=control,
        facts_after=fact,
        next_attempt_at=utc_now() if state is JobState.RETRYING else None,
        paused_at=utc_now() if state is JobState.PAUSED else None,
    )
    await store.record(job, tracked.sequence)


async def test_a_job_that_came_and_went_while_no_scheduler_ran_is_known_to_its_owner(
    bus: Bus,
) -> None:
    wanted = command(1, ttl_seconds=1)
    await submit(bus, wanted)
    await until_holds(bus, streams.Q, 0)
    asking = asyncio.create_task(control(bus, wanted.job_id, Action.PAUSE))
    await asyncio.sleep(0)
    async with leading(bus):
        assert (await asking).detail == "Cannot pause a skipped job"
