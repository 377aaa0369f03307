"""What a leader does by itself: hand out under its term, order what waits, keep backoffs and dead letters."""

from __future__ import annotations

import asyncio

import nats.errors
import pytest
from msgspec.structs import replace

from pharos_contracts import rpc, streams, subjects
from pharos_contracts.control.v1 import (
    Action,
    AskPlace,
    DeadLetter,
    DeadLetterKind,
    Place,
    Purged,
    PurgeDeadLetter,
    ReplayDeadLetter,
)
from pharos_contracts.jobs.v1 import (
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    Job,
    Priority,
    Purpose,
    SubmitJob,
    WorkItem,
    job_of,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_scheduler.app import _lead, utc_now
from pharos_scheduler.dispatcher import BusDispatcher
from pharos_scheduler.settings import Settings
from pharos_service.asking import ask as ask_service
from pharos_service.bus import Bus
from pharos_service.lease import Held, LeaseLost
from tests.support.scheduling import (
    RESULT,
    announce,
    ask,
    command,
    control,
    ended,
    events_of,
    is_in,
    job_when,
    leading,
    messages_in,
    running,
    say,
    submit,
    take,
    until_holds,
)

pytestmark = pytest.mark.anyio


# Leaders


async def test_a_leader_that_wakes_up_late_can_change_nothing(bus: Bus) -> None:
    """Its lease has run out while it stood still; whatever it was about to do it leaves."""
    wanted = command(1)
    await announce(bus)
    late = Held(1, 3, asyncio.get_running_loop().time() - 10)
    task = asyncio.create_task(_lead(bus, Settings(), late))
    await submit(bus, wanted)
    with pytest.raises((LeaseLost, BaseExceptionGroup)) as raised:
        await asyncio.wait_for(task, 10)
    assert isinstance(raised.value, LeaseLost) or raised.group_contains(LeaseLost)
    assert await events_of(bus, wanted) == []
    assert await messages_in(bus, streams.WORK) == 0


async def test_an_item_that_is_with_the_workers_is_not_handed_out_beside_itself(bus: Bus) -> None:
    wanted = job_of(command(1), 1)
    item = WorkItem(job=wanted, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1, term=1)
    for term in (1, 2):  # what makes them the same is not their message id: it names the term
        await BusDispatcher(bus, utc_now, lambda: None).dispatch(replace(item, term=term))
    assert await messages_in(bus, streams.WORK) == 1
    await take(bus)
    await BusDispatcher(bus, utc_now, lambda: None).dispatch(replace(item, term=3))
    assert await messages_in(bus, streams.WORK) == 1


async def test_what_a_leader_hands_out_carries_its_term(bus: Bus) -> None:
    async with leading(bus, term=41):
        await announce(bus)
        await submit(bus, command(1))
        item, _ = await take(bus)
        assert item.term == 41


# Order


async def test_an_urgent_job_goes_before_those_that_wait(bus: Bus) -> None:
    async with leading(bus):
        for number in (1, 2):
            await submit(bus, command(number))
        urgent = replace(command(3), priority=Priority.URGENT)
        await submit(bus, urgent)
        await job_when(bus, urgent, is_in(JobState.QUEUED))
        await announce(bus)
        item, _ = await take(bus)
        assert item.job.job_id == urgent.job_id


async def place_of(bus: Bus, job: Job) -> Place:
    return await ask_service(bus, rpc.SCHEDULER, AskPlace(job=job), Place, timeout=2)


async def test_the_scheduler_says_where_a_job_stands(bus: Bus) -> None:
    low = replace(command(1), priority=Priority.LOW)
    urgent = replace(command(2), priority=Priority.URGENT)
    async with leading(bus):
        await submit(bus, low)
        await job_when(bus, low, is_in(JobState.QUEUED))
        alone = await place_of(bus, job_of(low, 1))
        assert (alone.position, alone.waiting, alone.estimated_start_at) == (1, 1, None)
        not_known_yet = await place_of(bus, job_of(urgent, 2))
        assert (not_known_yet.position, not_known_yet.waiting) == (1, 2)
        await submit(bus, urgent)
        await job_when(bus, urgent, is_in(JobState.QUEUED))
        behind = await place_of(bus, job_of(low, 1))
        assert (behind.position, behind.waiting) == (2, 2)
        await announce(bus)
        item, message = await take(bus)
        assert item.job.job_id == urgent.job_id
        await say(bus, item, ItemStarted)
        assert (await place_of(bus, job_of(urgent, 2))).position == 0  # it does not wait
        await say(bus, item, ItemCompleted, result=RESULT)
        await message.ack()
        await job_when(bus, urgent, ended)
        item, message = await take(bus)
        soon = await place_of(bus, job_of(command(4), 9))
        assert soon.estimated_start_at is not None


# Dead letters


async def dead(bus: Bus, wanted: SubmitJob) -> DeadLetter:
    async with asyncio.timeout(5):
        while (found := await bus.last(streams.DEAD, subjects.dead_letters(None, wanted.job_id))) is None:
            await asyncio.sleep(0.02)
    letter: DeadLetter = decode(found.data, DeadLetter)
    return letter


async def test_a_job_that_killed_its_worker_twice_becomes_a_dead_letter_that_can_be_replayed(
    bus: Bus,
) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        await say(bus, item, ItemFailed, error="Its worker died twice", code="poison", deaths=2, cleared=True)
        await message.ack()
        assert (await job_when(bus, wanted, ended)).code == "poison"
        letter = await dead(bus, wanted)
        assert (letter.kind, letter.deaths, letter.workers) == (DeadLetterKind.JOB, 2, ("w1",))
        assert letter.job is not None and letter.job.job_id == wanted.job_id
        with pytest.raises(nats.errors.TimeoutError):
            await take(bus, seconds=1)
        asked = ReplayDeadLetter(
            tenant="default",
            by="ada",
            at=utc_now(),
            reply_to=bus.client.new_inbox(),
            letter_id=letter.letter_id,
        )
        assert (await ask(bus, asked)).job.state is JobState.QUEUED
        again, _ = await take(bus)
        assert again.attempt == 2
        assert await messages_in(bus, streams.DEAD) == 0
        assert (await ask(bus, asked)).status == 404


async def test_a_dead_letter_is_gone_when_its_owner_has_the_job_tried_again(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        await say(bus, item, ItemFailed, error="Its worker died twice", code="poison", deaths=2, cleared=True)
        await message.ack()
        await dead(bus, wanted)
        assert (await control(bus, wanted.job_id, Action.RETRY)).job.state is JobState.QUEUED
        assert await messages_in(bus, streams.DEAD) == 0


async def test_a_dead_letter_stays_over_restarts_and_is_gone_when_it_is_purged(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        await say(bus, item, ItemFailed, error="Its worker died twice", code="poison", deaths=2, cleared=True)
        await message.ack()
        await dead(bus, wanted)
    async with leading(bus):
        asked = PurgeDeadLetter(
            tenant=None,
            by="ada",
            at=utc_now(),
            reply_to=bus.client.new_inbox(),
            letter_id=wanted.job_id,
        )
        assert await ask(bus, asked) == Purged(id=wanted.job_id)
        assert await messages_in(bus, streams.DEAD) == 0
        assert (await job_when(bus, wanted, ended)).state is JobState.FAILED


async def test_a_command_that_nobody_can_read_becomes_a_dead_letter_and_holds_nothing_up(bus: Bus) -> None:
    async with leading(bus):
        wanted = command(1)
        subject = subjects.submit_subject(wanted)
        await bus.publish(subject, b"{not json")
        async with asyncio.timeout(5):
            while (found := await bus.last(streams.DEAD, "dead.default.*")) is None:
                await asyncio.sleep(0.02)
        letter: DeadLetter = decode(found.data, DeadLetter)
        assert (letter.subject, letter.payload, letter.stream) == (subject, b"{not json", "Q")
        await announce(bus)
        await submit(bus, command(2))
        item, _ = await take(bus)
        assert item.job.key == command(2).key
        await until_holds(bus, streams.Q, 0)


async def test_what_a_failed_job_left_is_cleared_away_where_its_worker_could_not(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _ = await running(bus, wanted)
        await say(bus, item, ItemFailed, error="The disk is broken", code="store_failed")
        await message.ack()
        await job_when(bus, wanted, ended)
        clear, message = await take(bus)
        assert (clear.purpose, clear.job.state) == (Purpose.CLEAR, JobState.FAILED)
        await message.ack()


async def test_a_lane_is_not_used_while_something_is_cleared_away_in_it(bus: Bus) -> None:
    first, second = command(1), command(2)
    second = replace(second, source=first.source)
    async with leading(bus):
        _, message, _ = await running(bus, first)
        await control(bus, first.job_id, Action.CANCEL)
        await message.ack()
        clear, message = await take(bus)
        assert clear.purpose is Purpose.CLEAR
        await submit(bus, second)
        with pytest.raises(nats.errors.TimeoutError):  # the leader has looked at the queue twice meanwhile
            await take(bus, seconds=2.5)
        await message.ack()
        item, _ = await take(bus)
        assert item.job.job_id == second.job_id


# Backoff


async def test_a_backoff_is_kept_by_the_bus_while_no_scheduler_runs(bus: Bus) -> None:
    wanted = command(1)
    async with leading(bus):
        item, message, _started = await running(bus, wanted)
        await say(bus, item, ItemFailed, error="x", code="c", transient=True)
        await message.ack()
        await job_when(bus, wanted, is_in(JobState.RETRYING))
    await until_holds(bus, streams.SCHED, 1, "due.retry.>")
    async with leading(bus):
        again, _ = await take(bus, seconds=3)
        assert again.attempt == 2
