"""Schedules against a real bus: every planned run starts, once, whatever dies on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import (
    ActiveJob,
    Job,
    JobCompleted,
    JobStarted,
    RepositorySource,
    SubmitJob,
    Trigger,
    job_of,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.subjects import Due, DueKind, parse_due
from pharos_scheduler.job_store import BusJobStore
from pharos_scheduler.schedule_store import BusScheduleStore, BusSubmissions, BusWakeUps
from pharos_scheduler.schedules import (
    BEING_DECIDED,
    QUEUE_FULL,
    TRY_AGAIN_SECONDS,
    UNREADABLE,
    InvalidSchedule,
    Later,
    Merged,
    Pending,
    Schedules,
    Submitted,
    WakeUp,
    command_of,
)
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus, Stored
from pharos_service.lease import LeaseLost
from pharos_service.pull import durable
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

QUEUE_MAX = 10
LATER = subjects.later_subject(Due(DueKind.CRON, "default", "nightly"))


def now() -> datetime:
    return datetime.now(UTC)


def may_write() -> None:
    """The check of a leader that leads."""


def nightly(**facts: Any) -> Schedule:
    return replace(
        Schedule(
            schedule_id="nightly",
            tenant="default",
            source=RepositorySource(identity="github.com/o/r", clone_url="https://github.com/o/r"),
            project="default",
            cron="0 3 * * *",
            timezone="Europe/Berlin",
            ttl_seconds=3600,
            created_at=now(),
            created_by="admin",
        ),
        **facts,
    )


def submissions(bus: Bus, **facts: Any) -> BusSubmissions:
    wiring: dict[str, Any] = {"now": now, "check": may_write, "tenant_queue_max": None}
    return BusSubmissions(bus, BusJobStore(bus, now, may_write), **{**wiring, **facts})


def leader(bus: Bus, check: Callable[[], None] = may_write, clock: Callable[[], datetime] = now) -> Schedules:
    return Schedules(
        BusScheduleStore(bus, check), BusWakeUps(bus, check), submissions(bus, check=check), now=clock
    )


async def lead(bus: Bus) -> None:
    """One scheduler after the other: each ends with the first trouble on the bus."""
    while True:
        with contextlib.suppress(*TROUBLE):
            schedules = leader(bus)
            await schedules.recover()
            async with aclosing(durable(bus, streams.SCHED, streams.SCHEDULER_DUE)) as messages:
                async for message in messages:
                    due = parse_due(message.subject)
                    await schedules.due(due.tenant, due.id, decode(message.data, WakeUp))
                    await message.ack()
        await asyncio.sleep(0.1)


@asynccontextmanager
async def leading(bus: Bus) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lead, bus)
        yield
        tasks.cancel_scope.cancel()


async def planned(bus: Bus, at: datetime, **facts: Any) -> Schedule:
    """A schedule whose next run is at *at*: cron knows no seconds."""
    schedule = nightly(next_run_at=at.replace(microsecond=0), **facts)
    assert await BusScheduleStore(bus, may_write).write(schedule, 0)
    return schedule


async def stored(bus: Bus) -> Schedule:
    entry = await BusScheduleStore(bus, may_write).get("default", "nightly")
    assert entry is not None
    return entry.value


async def pending(bus: Bus) -> Pending | None:
    return await BusWakeUps(bus, may_write).pending("default", "nightly")


async def arrived(bus: Bus) -> int:
    """How many wake-ups have arrived."""
    info = await bus.api(f"STREAM.INFO.{streams.SCHED}", {"subjects_filter": "due.>"})
    return sum((info["state"].get("subjects") or {}).values())


async def queued(bus: Bus) -> list[SubmitJob]:
    found: list[SubmitJob] = []
    sequence = 1
    while (message := await bus.first(streams.Q, "cmd.ingest.>", sequence)) is not None:
        found.append(decode(message.data, SubmitJob))
        sequence = message.sequence + 1
    return found


async def when(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def when_noted(bus: Bus) -> Schedule:
    async def is_noted() -> bool:
        with contextlib.suppress(*TROUBLE):
            return (await stored(bus)).last_outcome is not None
        return False

    await when(is_noted)
    return await stored(bus)


async def publish(bus: Bus, command: SubmitJob) -> int:
    ack = await bus.publish(subjects.submit_subject(command), command, message_id=command.job_id)
    return ack.seq


async def claim(bus: Bus, command: SubmitJob, *, age_seconds: float = 0) -> None:
    value = ActiveJob(command=command, created_at=now() - timedelta(seconds=age_seconds))
    created = await Bucket(bus, streams.KV_ACTIVE, ActiveJob).create(
        subjects.active_key(command.tenant, command.key), value
    )
    assert created is not None


async def claimed_by(bus: Bus, command: SubmitJob) -> str | None:
    entry = await Bucket(bus, streams.KV_ACTIVE, ActiveJob).get(
        subjects.active_key(command.tenant, command.key)
    )
    return entry.value.command.job_id if entry else None


async def tell(bus: Bus, command: SubmitJob, state: JobState) -> Job:
    """What the scheduler says of the command's job."""
    job = replace(job_of(command, 1), state=state)
    kind = JobCompleted if state is JobState.COMPLETED else JobStarted
    event = kind(event_id=f"{job.job_id}:{state}", at=now(), job=job)
    await bus.publish(subjects.job_event_subject(event), event)
    return job


def of_a_person(command: SubmitJob) -> SubmitJob:
    """What somebody submits who wants the same."""
    return replace(
        command, job_id="0199a3c4-6c00-7abc-8def-0123456789ab", trigger=Trigger.INTERACTIVE, submitted_by="u"
    )


def run_of(schedule: Schedule) -> SubmitJob:
    assert schedule.next_run_at is not None
    return command_of(schedule, WakeUp(planned=schedule.next_run_at), now())


# --- schedules and their wake-ups --------------------------------------------------------------------------


async def test_a_put_schedule_has_one_wake_up_at_its_time(bus: Bus) -> None:
    schedules = leader(bus)
    first = await schedules.put(nightly())
    edited = await schedules.put(nightly(cron="0 5 * * *"))
    assert await stored(bus) == edited
    assert edited.next_run_at is not None
    assert edited.next_run_at != first.next_run_at
    found: Stored | None = await bus.last(streams.SCHED, "sched.cron.>")
    assert found is not None
    assert found.subject == LATER
    assert found.headers["Nats-Schedule"] == f"@at {edited.next_run_at:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert decode(found.data, WakeUp) == WakeUp(planned=edited.next_run_at)
    info = await bus.api(f"STREAM.INFO.{streams.SCHED}")
    assert info["state"]["messages"] == 1


async def test_a_deleted_schedule_leaves_no_wake_up_and_its_name_is_free(bus: Bus) -> None:
    schedules = leader(bus)
    await schedules.put(nightly())
    assert await schedules.delete("default", "nightly")
    assert await pending(bus) is None
    assert not await schedules.delete("default", "nightly")
    await schedules.put(nightly())
    assert await pending(bus) is not None


async def test_a_wake_up_that_was_taken_back_does_not_arrive(bus: Bus) -> None:
    soon = now() + timedelta(seconds=2)
    await planned(bus, soon)
    await planned(bus, soon, schedule_id="other")
    schedules = leader(bus)
    await schedules.recover()
    assert await schedules.delete("default", "nightly")

    async def other_arrived() -> bool:
        return await arrived(bus) > 0

    await when(other_arrived)
    assert await bus.last(streams.SCHED, "due.cron.default.nightly") is None


async def test_of_two_leaders_that_place_a_wake_up_one_wins(bus: Bus) -> None:
    tomorrow, far = now() + timedelta(days=1), now() + timedelta(days=3)
    wake_ups = BusWakeUps(bus, may_write)
    assert await wake_ups.place("default", "nightly", WakeUp(planned=tomorrow), tomorrow, 0)
    assert not await wake_ups.place("default", "nightly", WakeUp(planned=far), far, 0)
    found = await pending(bus)
    assert found is not None
    assert found.wake_up == WakeUp(planned=tomorrow)


async def test_a_new_leader_finds_every_wake_up_in_place_and_writes_nothing(bus: Bus) -> None:
    schedules = leader(bus)
    for number in range(20):
        await schedules.put(nightly(schedule_id=f"s{number}"))
    before = (await bus.api(f"STREAM.INFO.{streams.SCHED}"))["state"]["last_seq"]
    await leader(bus).recover()
    assert (await bus.api(f"STREAM.INFO.{streams.SCHED}"))["state"]["last_seq"] == before


async def test_a_new_leader_replaces_a_wake_up_that_is_missing_wrong_or_unreadable(bus: Bus) -> None:
    schedule = await planned(bus, now() + timedelta(days=1))
    assert schedule.next_run_at is not None
    wake_ups = BusWakeUps(bus, may_write)
    far = now() + timedelta(days=3)
    await leader(bus).recover()
    found = await pending(bus)
    assert found is not None
    assert await wake_ups.place("default", "nightly", WakeUp(planned=far), far, found.sequence)
    await leader(bus).recover()
    found = await pending(bus)
    assert found is not None
    assert found.wake_up == WakeUp(planned=schedule.next_run_at)
    await bus.publish(
        LATER,
        b"?",
        headers={"Nats-Schedule": f"@at {far:%Y-%m-%dT%H:%M:%SZ}", "Nats-Schedule-Target": "due.cron.x.y"},
    )
    await leader(bus).recover()
    found = await pending(bus)
    assert found is not None
    assert found.wake_up == WakeUp(planned=schedule.next_run_at)


async def test_an_entry_that_cannot_be_read_is_neither_run_nor_replaced(bus: Bus) -> None:
    await bus.publish("$KV.schedules.default.nightly", b"?")
    schedules = leader(bus)
    await schedules.recover()
    await schedules.due("default", "nightly", WakeUp(planned=now()))
    assert await queued(bus) == []
    with pytest.raises(InvalidSchedule) as refusal:
        await schedules.put(nightly())
    assert refusal.value.code == "schedule_stuck"


async def test_a_leader_that_woke_up_late_changes_nothing(bus: Bus) -> None:
    def lost() -> None:
        raise LeaseLost

    schedule = await planned(bus, now())
    assert schedule.next_run_at is not None
    late = leader(bus, lost)
    for step in (
        late.put(nightly(schedule_id="another")),
        late.delete("default", "nightly"),
        late.due("default", "nightly", WakeUp(planned=schedule.next_run_at)),
        late.recover(),
    ):
        with pytest.raises(LeaseLost):
            await step
    assert await stored(bus) == schedule
    assert await pending(bus) is None
    assert await queued(bus) == []
    assert await claimed_by(bus, run_of(schedule)) is None


# --- runs --------------------------------------------------------------------------------------------------


async def test_a_run_is_submitted_when_its_time_comes_and_the_next_is_planned(bus: Bus) -> None:
    schedule = await planned(bus, now() + timedelta(seconds=2))
    assert schedule.next_run_at is not None
    async with leading(bus):
        noted = await when_noted(bus)
    (command,) = await queued(bus)
    assert command.submitted_at >= schedule.next_run_at
    assert command.trigger is Trigger.SCHEDULED
    assert command.submitted_by == "schedule:nightly"
    assert noted.last_outcome == "submitted"
    assert noted.last_job_id == command.job_id == await claimed_by(bus, command)
    assert noted.next_run_at is not None
    assert noted.next_run_at > now()

    async def next_is_held() -> bool:
        found = await pending(bus)
        return found is not None and found.wake_up == WakeUp(planned=noted.next_run_at)

    async with leading(bus):
        await when(next_is_held)


async def test_a_run_outlives_a_crash_of_the_bus_and_happens_once_and_late(
    bus: Bus, nats_server: NatsServer
) -> None:
    schedule = await planned(bus, now() + timedelta(seconds=2))
    assert schedule.next_run_at is not None
    async with leading(bus):
        async with asyncio.timeout(10):
            while await pending(bus) is None:
                await asyncio.sleep(0.02)
        nats_server.kill()
        while now() <= schedule.next_run_at + timedelta(seconds=1):
            await asyncio.sleep(0.1)
        nats_server.start()
        noted = await when_noted(bus)
        (command,) = await queued(bus)
        assert command.job_id == noted.last_job_id
        assert command.submitted_at > schedule.next_run_at + timedelta(seconds=1)
        nats_server.kill()
        nats_server.start()

        async def next_is_held() -> bool:
            with contextlib.suppress(*TROUBLE):
                found = await pending(bus)
                return found is not None and found.wake_up == WakeUp(planned=noted.next_run_at)
            return False

        await when(next_is_held)
        assert len(await queued(bus)) == 1


async def test_a_run_that_came_due_while_no_scheduler_lived_happens_once(bus: Bus) -> None:
    await planned(bus, now() + timedelta(seconds=1))
    await leader(bus).recover()

    async def has_arrived() -> bool:
        return await arrived(bus) == 1

    await when(has_arrived)
    async with leading(bus):  # finds the wake-up that arrived, and places one more since none waits
        noted = await when_noted(bus)
        await when(lambda: _all_taken(bus))
    (command,) = await queued(bus)
    assert command.job_id == noted.last_job_id


async def test_runs_that_were_missed_for_days_are_one_run(bus: Bus) -> None:
    await planned(bus, now() - timedelta(days=3))
    async with leading(bus):
        noted = await when_noted(bus)
        await when(lambda: _all_taken(bus))
    assert len(await queued(bus)) == 1
    assert noted.next_run_at is not None
    assert noted.next_run_at > now()


async def _all_taken(bus: Bus) -> bool:
    info = await bus.api(f"CONSUMER.INFO.{streams.SCHED}.{streams.SCHEDULER_DUE}")
    return bool(info["num_pending"] == 0 and info["num_ack_pending"] == 0)


async def test_a_wake_up_that_arrives_again_after_the_job_has_ended_starts_nothing(bus: Bus) -> None:
    schedule = await planned(bus, now())
    command = run_of(schedule)
    assert await submissions(bus).submit(command) == Submitted()
    await tell(bus, command, JobState.COMPLETED)
    await bus.api(f"STREAM.PURGE.{streams.Q}")
    await Bucket(bus, streams.KV_ACTIVE, ActiveJob).delete(
        subjects.active_key(command.tenant, command.key), (await _revision(bus, command))
    )
    assert schedule.next_run_at is not None
    await leader(bus).due("default", "nightly", WakeUp(planned=schedule.next_run_at))
    assert await queued(bus) == []
    assert await claimed_by(bus, command) is None
    assert (await stored(bus)).last_job_id == command.job_id


async def _revision(bus: Bus, command: SubmitJob) -> int:
    entry = await Bucket(bus, streams.KV_ACTIVE, ActiveJob).get(
        subjects.active_key(command.tenant, command.key)
    )
    assert entry is not None
    return entry.revision


async def test_a_run_waits_outside_the_queue_and_leaves_half_of_it_to_people(bus: Bus) -> None:
    schedule = await planned(bus, now())
    assert schedule.next_run_at is not None
    command = run_of(schedule)
    for number in range(QUEUE_MAX - 1):
        await publish(bus, replace(of_a_person(command), job_id=f"j{number}", key=f"{number:032x}"))
    # Its clock is late, as that of another machine may be: the wake-up arrives by the clock of the bus.
    schedules = leader(bus, clock=lambda: now() - timedelta(minutes=5))
    before = now()
    await schedules.due("default", "nightly", WakeUp(planned=schedule.next_run_at))
    assert len(await queued(bus)) == QUEUE_MAX - 1
    assert await claimed_by(bus, command) is None
    assert await stored(bus) == schedule
    found = await pending(bus)
    assert found is not None
    assert found.wake_up is not None
    assert found.wake_up.planned == schedule.next_run_at
    assert found.wake_up.waiting_since is not None
    message = await bus.last(streams.SCHED, LATER)
    assert message is not None
    again = datetime.fromisoformat(message.headers["Nats-Schedule"].removeprefix("@at "))
    assert TRY_AGAIN_SECONDS - 1 <= (again - before).total_seconds() <= TRY_AGAIN_SECONDS + 2
    await bus.api(f"STREAM.PURGE.{streams.Q}", {"keep": QUEUE_MAX // 2 - 1})
    await schedules.due("default", "nightly", found.wake_up)
    assert [each.job_id for each in await queued(bus)][-1] == command.job_id
    assert (await stored(bus)).last_outcome == "submitted"


# --- the way into the queue --------------------------------------------------------------------------------


async def test_the_same_run_submitted_twice_is_one_job(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    assert await submissions(bus).submit(command) == Submitted()
    assert await submissions(bus).submit(replace(command, submitted_at=now())) == Submitted()
    assert await queued(bus) == [command]


async def test_a_submit_that_died_after_its_claim_goes_on(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    await claim(bus, command)
    assert await submissions(bus).submit(command) == Submitted()
    assert await queued(bus) == [command]


async def test_a_run_joins_a_job_that_waits_for_the_same(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    other = of_a_person(command)
    await claim(bus, other)
    await publish(bus, other)
    assert await submissions(bus).submit(command) == Merged(other.job_id, JobState.QUEUED)
    assert await claimed_by(bus, command) == other.job_id
    assert await queued(bus) == [other]


async def test_a_run_joins_a_job_that_runs(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    other = of_a_person(command)
    await claim(bus, other)
    await tell(bus, other, JobState.RUNNING)
    assert await submissions(bus).submit(command) == Merged(other.job_id, JobState.RUNNING)
    assert await queued(bus) == []


async def test_a_claim_that_stands_over_anothers_command_is_handed_to_it(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    other = of_a_person(command)
    await claim(bus, command)
    await publish(bus, other)
    assert await submissions(bus).submit(command) == Merged(other.job_id, JobState.QUEUED)
    assert await claimed_by(bus, command) == other.job_id


async def test_the_claim_of_a_job_that_ended_is_taken_over(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    other = of_a_person(command)
    await claim(bus, other)
    await tell(bus, other, JobState.COMPLETED)
    assert await submissions(bus).submit(command) == Submitted()
    assert await claimed_by(bus, command) == command.job_id


async def test_a_claim_without_a_job_is_waited_for_and_then_taken_over(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    other = of_a_person(command)
    await claim(bus, other)
    assert await submissions(bus).submit(command) == Later(BEING_DECIDED)
    assert await claimed_by(bus, command) == other.job_id
    in_a_minute = submissions(bus, now=lambda: now() + timedelta(seconds=60))
    assert await in_a_minute.submit(command) == Submitted()
    assert await claimed_by(bus, command) == command.job_id
    # Should that job have expired meanwhile, it still ends with a name.
    kept = await Bucket(bus, streams.KV_ACTIVE, ActiveJob).get(
        subjects.active_key(other.tenant, other.job_id)
    )
    assert kept is not None
    assert kept.value.command == other


async def test_a_queue_that_fills_in_the_last_moment_leaves_no_claim(bus: Bus) -> None:
    class Optimist(BusSubmissions):
        async def _has_room(self, tenant: str) -> bool:
            return True

    command = run_of(nightly(next_run_at=now()))
    for number in range(QUEUE_MAX):
        await publish(bus, replace(of_a_person(command), job_id=f"j{number}", key=f"{number:032x}"))
    optimist = Optimist(
        bus, BusJobStore(bus, now, may_write), now=now, check=may_write, tenant_queue_max=None
    )
    assert await optimist.submit(command) == Later(QUEUE_FULL)
    assert await claimed_by(bus, command) is None


async def test_the_schedules_of_a_tenant_leave_room_for_its_own_people(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    for number in range(2):
        await publish(bus, replace(of_a_person(command), job_id=f"j{number}", key=f"{number:032x}"))
    bounded = submissions(bus, tenant_queue_max=3)
    assert await bounded.submit(command) == Later(QUEUE_FULL)
    assert await bounded.submit(run_of(nightly(next_run_at=now(), tenant="acme"))) == Submitted()


async def test_same_work_that_cannot_be_read_is_left_alone(bus: Bus) -> None:
    command = run_of(nightly(next_run_at=now()))
    await bus.publish(f"$KV.active.{subjects.active_key(command.tenant, command.key)}", b"?")
    assert await submissions(bus).submit(command) == Later(UNREADABLE)
    assert await queued(bus) == []
