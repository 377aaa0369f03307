"""Batches: started in turn, their files handed out and counted, stopped and tried again by their owners."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace
from nats.errors import TimeoutError as NoMessage

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import Action, Controlled, StopItem
from pharos_contracts.jobs.v1 import (
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    Job,
    JobAdvanced,
    Priority,
    SubmitJob,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import Refused
from pharos_contracts.violations import Violation
from pharos_scheduler import batches, subscribers
from pharos_scheduler.batch_files import Files
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.bus_check import check
from pharos_service.journal import Superseded
from tests.support.batches import batch_command, create, hands, order
from tests.support.scheduling import (
    RESULT,
    announce,
    ended,
    events_of,
    job_when,
    leading,
    messages_in,
    say,
    take,
    until_holds,
)

pytestmark = pytest.mark.anyio


async def take_file(bus: Bus, seconds: float = 10) -> tuple[WorkItem, Any]:
    return await take(bus, seconds, consumer=streams.WORKERS_DOCUMENTS)


async def started(bus: Bus, wanted: SubmitJob) -> None:
    assert isinstance(await create(bus, wanted), Controlled)
    assert isinstance(await order(bus, wanted, Action.START), Controlled)


def files_in_memory() -> int:
    """Of how many batches the files are known to a leader in this process."""
    gc.collect()
    return sum(type(each) is Files for each in gc.get_objects())


def counts(job: Job) -> tuple[int, int, int]:
    assert job.tally is not None
    return job.tally.completed, job.tally.failed, job.tally.skipped


async def test_a_batch_waits_to_be_started_and_then_does_every_file_once(bus: Bus) -> None:
    wanted = batch_command(1, 7, 5)
    async with leading(bus):
        answer = await create(bus, wanted)
        assert (answer.job.state, counts(answer.job)) == (JobState.PENDING, (0, 0, 0))
        await announce(bus, document_slots=2)
        assert (await order(bus, wanted, Action.START)).job.state is JobState.QUEUED
        async with hands(bus) as workers:
            done = await job_when(bus, wanted, ended)
        assert (done.state, counts(done)) == (JobState.COMPLETED, (12, 0, 0))
        assert [part.completed for part in done.tally.parts] == [7, 5]
        assert set(workers.done.values()) == {1} and len(workers.done) == 12
        await until_holds(bus, streams.WORK, 0)
        names = [type(event).__name__ for event in await events_of(bus, wanted)]
        assert names[:3] == ["JobCreated", "JobQueued", "JobStarted"]
        assert names[-1] == "JobCompleted"


async def test_what_is_counted_never_falls_and_never_exceeds_the_files(bus: Bus) -> None:
    wanted = batch_command(1, 60)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        async with hands(bus, hold=lambda: asyncio.sleep(0.02)):
            await job_when(bus, wanted, ended)
        told = [counts(event.job)[0] for event in await events_of(bus, wanted)]
        assert told == sorted(told) and told[-1] == 60
        assert sum(isinstance(event, JobAdvanced) for event in await events_of(bus, wanted)) >= 1


@pytest.mark.parametrize(
    ("options", "most"),
    [({"max_workers": 3}, 3), ({"max_workers": 8, "parallel_processing": False}, 1)],
    ids=["three at once", "one after the other"],
)
async def test_no_more_files_are_with_workers_than_the_batch_allows(
    bus: Bus, options: dict[str, Any], most: int
) -> None:
    wanted = batch_command(1, 9, **options)
    async with leading(bus):
        await announce(bus, document_slots=8)
        await started(bus, wanted)
        async with hands(bus, 8, hold=lambda: asyncio.sleep(0.01)) as workers:
            await job_when(bus, wanted, ended)
        assert workers.most <= most and sum(workers.done.values()) == 9


async def test_a_file_that_failed_is_tried_again_as_often_as_was_asked(bus: Bus) -> None:
    tries: dict[str, int] = {}

    def do(item: WorkItem) -> str | None:
        tries[item.item_id] = tries.get(item.item_id, 0) + 1
        if item.item_id == "0":
            return "It is encrypted."
        if item.item_id == "1":
            return "again and again"
        return "again once" if item.item_id == "2" and tries["2"] == 1 else None

    wanted = batch_command(1, 4, max_retries=1)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        async with hands(bus, do=do):
            done = await job_when(bus, wanted, ended)
        assert (done.state, counts(done)) == (JobState.COMPLETED, (2, 2, 0))
        assert tries == {"0": 1, "1": 2, "2": 2, "3": 1}


async def test_a_batch_of_which_no_file_succeeded_has_failed_and_says_why(bus: Bus) -> None:
    wanted = batch_command(1, 2, retry_failed_files=False)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        async with hands(bus, do=lambda item: "again, but nobody asked for that"):
            done = await job_when(bus, wanted, ended)
        assert (done.state, done.code) == (JobState.FAILED, "no_file_succeeded")
        assert done.error == (
            "None of its 2 files succeeded; the first failed: again, but nobody asked for that"
        )


async def test_a_paused_batch_begins_no_file_and_finishes_what_is_in_flight(bus: Bus) -> None:
    wanted = batch_command(1, 6)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        begun, begun_message = await take_file(bus)
        await say(bus, begun, ItemStarted)
        handed, _ = await take_file(bus)  # it was handed out, and its worker has not begun it
        paused = (await order(bus, wanted, Action.PAUSE)).job
        assert paused.state is JobState.PAUSED
        with pytest.raises(Superseded):
            await say(bus, handed, ItemStarted, after=0)
        await until_holds(bus, streams.WORK, 1)
        await say(bus, begun, ItemCommitting, result=RESULT)
        await say(bus, begun, ItemCompleted, result=RESULT)
        await begun_message.ack()
        told = await job_when(bus, wanted, lambda job: counts(job) == (1, 0, 0))
        assert told.state is JobState.PAUSED
        await until_holds(bus, streams.WORK, 0)
        assert (await order(bus, wanted, Action.RESUME)).job.state is JobState.QUEUED
        async with hands(bus) as workers:
            done = await job_when(bus, wanted, ended)
        assert (done.state, counts(done), sum(workers.done.values())) == (JobState.COMPLETED, (6, 0, 0), 5)


async def test_a_batch_that_goes_on_does_not_wait_for_what_was_settled_meanwhile(bus: Bus) -> None:
    """It is resumed while the item of a file that failed is still with the worker that said so."""
    wanted = batch_command(1, 1)
    async with leading(bus):
        await announce(bus, document_slots=1)
        await started(bus, wanted)
        item, message = await take_file(bus)
        await say(bus, item, ItemStarted)
        await say(bus, item, ItemFailed, error="away", code="x", transient=True)
        assert (await order(bus, wanted, Action.PAUSE)).job.state is JobState.PAUSED
        await asyncio.sleep(0.6)  # so that what is known of a paused batch is forgotten, and read again
        await order(bus, wanted, Action.RESUME)
        await job_when(bus, wanted, lambda job: job.state is JobState.RUNNING)
        await message.ack()
        again, _ = await take_file(bus, 12)
        assert (again.item_id, again.attempt) == ("0", 2)


async def test_cancelling_takes_away_what_was_begun_and_waits_for_what_is_being_published(
    bus: Bus,
) -> None:
    wanted = batch_command(1, 9)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        begun, _ = await take_file(bus)
        await say(bus, begun, ItemStarted)
        publishing, _ = await take_file(bus)
        await say(bus, publishing, ItemStarted)
        await say(bus, publishing, ItemCommitting, result=RESULT)
        asked = asyncio.create_task(order(bus, wanted, Action.CANCEL))
        stops = Bucket(bus, streams.KV_CONTROL, StopItem)
        async with asyncio.timeout(5):
            while await stops.get(subjects.held_name(begun.job, begun.item_id)) is None:
                await asyncio.sleep(0.02)
        await say(bus, publishing, ItemCompleted, result=RESULT)
        job = (await asked).job
        assert (job.state, counts(job)) == (JobState.CANCELLED, (1, 0, 0))
        with pytest.raises(Superseded):
            await say(bus, begun, ItemCommitting, after=0, result=RESULT)
        clearing, _ = await take_file(bus)
        assert clearing.item_id == subjects.ITEM_CLEAR
        assert await messages_in(bus, streams.WORK, subjects.work_item(wanted.job_id, begun.item_id)) == 0


async def test_a_cancelled_batch_goes_on_with_what_did_not_succeed(bus: Bus) -> None:
    wanted = batch_command(1, 5)
    async with leading(bus):
        await announce(bus, document_slots=1)
        await started(bus, wanted)
        item, message = await take_file(bus)
        await say(bus, item, ItemStarted)
        await say(bus, item, ItemCommitting, result=RESULT)
        await say(bus, item, ItemCompleted, result=RESULT)
        await message.ack()
        await job_when(bus, wanted, lambda job: counts(job) == (1, 0, 0))
        assert (await order(bus, wanted, Action.CANCEL)).job.state is JobState.CANCELLED
        again = (await order(bus, wanted, Action.RETRY)).job
        assert (again.state, counts(again)) == (JobState.QUEUED, (1, 0, 0))
        async with hands(bus) as workers:
            done = await job_when(bus, wanted, ended)
        assert (done.state, counts(done)) == (JobState.COMPLETED, (5, 0, 0))
        assert len(workers.done) == 4 and set(workers.done.values()) == {1}


@pytest.mark.parametrize("failed_only", [True, False])
async def test_a_completed_batch_is_tried_again_only_if_files_failed(bus: Bus, failed_only: bool) -> None:
    broken = {"1"}
    wanted = batch_command(1, 3)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        async with hands(bus, do=lambda item: "It is broken." if item.item_id in broken else None) as workers:
            assert counts(await job_when(bus, wanted, ended)) == (2, 1, 0)
            broken.clear()
            again = (await order(bus, wanted, Action.RETRY, failed_only=failed_only)).job
            assert counts(again) == ((2, 0, 0) if failed_only else (0, 0, 0))
            done = await job_when(bus, wanted, lambda job: ended(job) and job.attempt == 2)
            assert (done.state, counts(done)) == (JobState.COMPLETED, (3, 0, 0))
            assert sum(workers.done.values()) == (3 if failed_only else 5)
            refused = await order(bus, wanted, Action.RETRY)
            assert isinstance(refused, Refused)
            assert (refused.status, refused.detail) == (409, "Cannot retry a completed job")


async def test_the_next_leader_goes_on_where_the_one_before_stopped(bus: Bus) -> None:
    wanted = batch_command(1, 8)
    async with leading(bus):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        done_item, done_message = await take_file(bus)
        await say(bus, done_item, ItemStarted)
        await say(bus, done_item, ItemCommitting, result=RESULT)
        await say(bus, done_item, ItemCompleted, result=RESULT)
        await done_message.ack()
        failed_item, failed_message = await take_file(bus)
        await say(bus, failed_item, ItemStarted)
        begun, begun_message = await take_file(bus)
        await say(bus, begun, ItemStarted)
    # While nobody leads:
    await say(bus, failed_item, ItemFailed, error="broken", code="x", cleared=True)
    await failed_message.ack()
    async with leading(bus, term=2):
        await job_when(bus, wanted, lambda job: counts(job) == (1, 1, 0))
        await say(bus, begun, ItemCommitting, result=RESULT)
        await say(bus, begun, ItemCompleted, result=RESULT)
        await begun_message.ack()
        async with hands(bus) as workers:
            done = await job_when(bus, wanted, ended)
        assert (done.state, counts(done)) == (JobState.COMPLETED, (7, 1, 0))
        assert set(workers.done.values()) == {1} and len(workers.done) == 5


@pytest.mark.parametrize(("most", "running"), [(2, ("urgent", "same")), (3, ("urgent", "same", "low"))])
async def test_batches_run_in_their_order_no_more_than_may_and_never_two_over_one_connection(
    bus: Bus, most: int, running: tuple[str, ...]
) -> None:
    """The normal one comes before the low one, and waits all the same for who reads from its connection."""
    wanted = {
        "low": replace(batch_command(1, 1, connection="a"), priority=Priority.LOW),
        "shared": batch_command(2, 1, connection="x"),
        "same": replace(batch_command(3, 1, connection="x"), priority=Priority.HIGH),
        "urgent": replace(batch_command(4, 1, connection="b"), priority=Priority.URGENT),
    }
    async with leading(bus, max_concurrent_jobs=most):
        for each in wanted.values():
            await started(bus, each)
        await announce(bus, document_slots=4)
        first = {(await take_file(bus))[0].job.job_id for _ in running}
        assert first == {wanted[name].job_id for name in running}
        with pytest.raises((TimeoutError, NoMessage)):
            await take_file(bus, 0.5)


async def test_nothing_is_handed_out_and_nothing_runs_while_no_worker_is_alive(bus: Bus) -> None:
    wanted = batch_command(1, 2)
    async with leading(bus):
        await started(bus, wanted)
        with pytest.raises((TimeoutError, NoMessage)):
            await take_file(bus, 1.5)
        assert (await events_of(bus, wanted))[-1].job.state is JobState.QUEUED


@pytest.mark.parametrize(
    ("action", "detail"),
    [
        (Action.PAUSE, "Cannot pause a pending job"),
        (Action.RESUME, "Cannot resume a pending job"),
        (Action.RETRY, "Cannot retry a pending job"),
    ],
)
async def test_what_is_not_possible_is_refused_with_its_state(bus: Bus, action: Action, detail: str) -> None:
    wanted = batch_command(1, 1)
    async with leading(bus):
        await create(bus, wanted)
        refused = await order(bus, wanted, action)
        assert isinstance(refused, Refused)
        assert (refused.status, refused.detail) == (409, detail)
        assert (await order(bus, wanted, Action.CANCEL)).job.state is JobState.CANCELLED
        refused = await order(bus, wanted, Action.START)
        assert refused.detail == "Cannot start a cancelled job"


async def test_a_batch_whose_files_nobody_knows_any_more_fails_with_a_sentence(bus: Bus) -> None:
    wanted = batch_command(1, 2)
    async with leading(bus):
        await started(bus, wanted)
        await bus.api(f"STREAM.PURGE.OBJ_{streams.OBJ_MANIFESTS}")
        await announce(bus, document_slots=1)
        done = await job_when(bus, wanted, ended)
        assert (done.state, done.code) == (JobState.FAILED, "files_forgotten")
        refused = await order(bus, wanted, Action.RETRY)
        assert (refused.status, refused.code) == (409, "files_forgotten")


async def test_a_command_that_comes_twice_is_carried_out_once(bus: Bus) -> None:
    wanted = batch_command(1, 3)
    async with leading(bus):
        first = await create(bus, wanted)
        assert (await create(bus, wanted)).job == first.job
        assert [type(event).__name__ for event in await events_of(bus, wanted)] == ["JobCreated"]


async def test_a_running_batch_whose_files_nobody_knows_any_more_ends_when_the_next_leader_looks(
    bus: Bus,
) -> None:
    wanted = batch_command(1, 2)
    async with leading(bus):
        await announce(bus, document_slots=1)
        await started(bus, wanted)
        await take_file(bus)
    await bus.api(f"STREAM.PURGE.OBJ_{streams.OBJ_MANIFESTS}")
    async with leading(bus, term=2):
        done = await job_when(bus, wanted, ended)
        assert (done.state, done.code) == (JobState.FAILED, "files_forgotten")


async def test_the_next_leader_knows_what_workers_have_of_a_batch_that_waits_to_go_on(bus: Bus) -> None:
    wanted, other = batch_command(1, 2, connection="a"), batch_command(2, 2, connection="b")
    async with leading(bus, max_concurrent_jobs=1):
        await announce(bus, document_slots=2)
        await started(bus, wanted)
        begun, _ = await take_file(bus)
        await say(bus, begun, ItemStarted)
        await started(bus, other)
        assert (await order(bus, wanted, Action.PAUSE)).job.state is JobState.PAUSED
        await job_when(bus, other, lambda job: job.state is JobState.RUNNING)
        assert (await order(bus, wanted, Action.RESUME)).job.state is JobState.QUEUED
    async with leading(bus, term=2, max_concurrent_jobs=1):
        assert (await order(bus, wanted, Action.CANCEL)).job.state is JobState.CANCELLED
        with pytest.raises(Superseded):
            await say(bus, begun, ItemCommitting, after=0, result=RESULT)
        assert await messages_in(bus, streams.WORK, subjects.work_item(wanted.job_id, begun.item_id)) == 0


async def test_of_a_paused_batch_nothing_stays_in_memory(bus: Bus) -> None:
    wanted = batch_command(1, 3)
    async with leading(bus):
        await announce(bus, document_slots=1)
        await started(bus, wanted)
        await take_file(bus)
        assert files_in_memory() == 1
        async with asyncio.timeout(5):  # until the leader has looked whether there is anything to tell
            while any(each._untold for each in gc.get_objects() if type(each) is batches.Batches):
                await asyncio.sleep(0.05)
        assert (await order(bus, wanted, Action.PAUSE)).job.state is JobState.PAUSED
        async with asyncio.timeout(5):
            while files_in_memory():
                await asyncio.sleep(0.05)


async def test_a_cancel_that_waits_for_a_file_holds_up_no_other_batch(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "AT_ONCE_MAX", 1)
    stopped = batch_command(1, 9, connection="a", max_workers=2)
    other = batch_command(2, 9, connection="b", max_workers=2)
    async with leading(bus):
        await announce(bus, document_slots=4)
        await started(bus, stopped)
        publishing, _ = await take_file(bus)
        await say(bus, publishing, ItemStarted)
        await say(bus, publishing, ItemCommitting, result=RESULT)
        begun, _ = await take_file(bus)
        await say(bus, begun, ItemStarted)
        await started(bus, other)
        first, _ = await take_file(bus)
        await take_file(bus)
        asked = asyncio.create_task(order(bus, stopped, Action.CANCEL))
        stops = Bucket(bus, streams.KV_CONTROL, StopItem)
        async with asyncio.timeout(5):
            while await stops.get(subjects.held_name(begun.job, begun.item_id)) is None:
                await asyncio.sleep(0.02)
        await say(bus, first, ItemStarted)
        await say(bus, first, ItemCommitting, result=RESULT)
        await say(bus, first, ItemCompleted, result=RESULT)
        following, _ = await take_file(bus, 3)
        assert following.job.job_id == other.job_id and not asked.done()
        await say(bus, publishing, ItemCompleted, result=RESULT)
        assert counts((await asked).job) == (1, 0, 0)


async def test_a_batch_that_was_created_is_not_refused_when_its_command_comes_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "OPEN_MAX", 1)
    wanted = batch_command(1, 3)
    async with leading(bus):
        first = await create(bus, wanted)
        assert (await create(bus, wanted)).job == first.job
        assert (await create(bus, batch_command(2, 3))).code == "too_many_batches"


async def what_is_wrong(bus: Bus) -> tuple[Violation, ...]:
    """What ``pharos-bus check`` would find, had it nothing but the bus."""
    return (await check(bus, settle_seconds=1, grace_seconds=0, history=False, index=False)).violations


async def test_a_file_that_is_published_longer_than_a_cancel_waits_is_finished_and_counted_by_a_retry(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PUBLISHING_SECONDS", 0.2)
    wanted = batch_command(1, 2)
    async with leading(bus):
        await announce(bus, document_slots=1)
        await started(bus, wanted)
        publishing, message = await take_file(bus)
        await say(bus, publishing, ItemStarted)
        await say(bus, publishing, ItemCommitting, result=RESULT)
        assert counts((await order(bus, wanted, Action.CANCEL)).job) == (0, 0, 0)
        await say(bus, publishing, ItemCompleted, result=RESULT)
        await message.ack()
        assert counts((await order(bus, wanted, Action.RETRY)).job) == (1, 0, 0)
        async with hands(bus) as workers:
            done = await job_when(bus, wanted, ended)
        assert (done.state, counts(done)) == (JobState.COMPLETED, (2, 0, 0))
        assert sum(workers.done.values()) == 1
        assert await what_is_wrong(bus) == ()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_its_owner_asks_and_whoever_leads_every_file_is_done_once(bus: Bus, seed: int) -> None:
    """Pauses, cancels and tries anew in any order, with another leader now and then."""
    chance = random.Random(seed)
    tried: Counter[tuple[str, str]] = Counter()

    def do(item: WorkItem) -> str | None:
        name = (item.job.job_id, item.item_id)
        tried[name] += 1
        return "again" if tried[name] == 1 and item.item_id.endswith("3") else None

    several = [batch_command(number, 14, 6, connection=f"b{number}-") for number in range(2)]
    async with hands(bus, 4, do=do, hold=lambda: asyncio.sleep(chance.random() * 0.03)) as workers:
        for term in range(1, 5):
            async with leading(bus, term=term):
                await announce(bus, document_slots=4)
                for wanted in several if term == 1 else []:
                    await started(bus, wanted)
                for _ in range(6 if term < 4 else 0):
                    action = chance.choice([Action.PAUSE, Action.RESUME, Action.CANCEL, Action.RETRY])
                    await order(bus, chance.choice(several), action)
                    await asyncio.sleep(chance.random() * 0.1)
                for wanted in several if term == 4 else []:
                    for action in (Action.RESUME, Action.RETRY):
                        await order(bus, wanted, action)
                    done = await job_when(bus, wanted, ended, 60)
                    assert (done.state, counts(done)) == (JobState.COMPLETED, (20, 0, 0))
                    for event in await events_of(bus, wanted):
                        assert sum(counts(event.job)) <= 20
                    assert all(workers.done[wanted.job_id, str(item)] == 1 for item in range(20))
        await until_holds(bus, streams.WORK, 0)
    assert await what_is_wrong(bus) == ()
