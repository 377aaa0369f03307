"""What becomes of schedules, on fakes whose clock is turned by hand and which fail at any step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import Priority, RepositorySource, SubmitJob, Trigger
from pharos_contracts.lifecycle import JobState
from pharos_contracts.schedules.v1 import Schedule
from pharos_scheduler.schedules import (
    QUEUE_FULL,
    SCHEDULES_PER_TENANT_MAX,
    TRY_AGAIN_SECONDS,
    InvalidSchedule,
    Later,
    Merged,
    Pending,
    Schedules,
    Submitted,
    WakeUp,
    after_run,
    command_of,
    first_run,
    has_room,
    next_run,
    put_over,
)
from pharos_service.buckets import Entry
from pharos_service.bus import BusUnavailable, StreamFull

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def nightly(**facts: Any) -> Schedule:
    return replace(
        Schedule(
            schedule_id="nightly",
            tenant="default",
            source=RepositorySource(identity="github.com/o/r", clone_url="https://github.com/o/r"),
            project="default",
            cron="0 3 * * *",
            ttl_seconds=3600,
            created_at=AT,
            created_by="admin",
        ),
        **facts,
    )


class World:
    """A bus with a clock. Every write counts; the ``fails_at``-th fails, or is lost on its way back."""

    def __init__(self) -> None:
        self.time = AT
        self.revision = 0
        self.entries: dict[tuple[str, str], Entry[Schedule]] = {}
        self.held: dict[tuple[str, str], tuple[WakeUp, datetime, int]] = {}
        self.jobs: dict[str, SubmitJob] = {}
        self.others: Merged | None = None
        self.has_room = True
        self.edit: Schedule | None = None  # made while a run is being submitted
        self.store_is_full = False
        self.writes = 0
        self.fails_at = 0
        self.fails_before = True
        self.schedules = self.leader()

    def leader(self) -> Schedules:
        return Schedules(self, self, Queue(self), now=lambda: self.time)

    def take_effect(self) -> None:
        """To be called before and after each write, by turns."""
        self.writes += 1
        if self.writes == self.fails_at * 2 - self.fails_before:
            raise BusUnavailable("Not connected to the bus")

    # The bucket

    async def all(self) -> AsyncIterator[Entry[Schedule]]:
        for entry in list(self.entries.values()):
            yield entry

    async def get(self, tenant: str, schedule_id: str) -> Entry[Schedule] | None:
        return self.entries.get((tenant, schedule_id))

    async def write(self, schedule: Schedule, revision: int) -> bool:
        key = schedule.tenant, schedule.schedule_id
        if self.store_is_full:
            raise StreamFull("maximum bytes exceeded")
        if revision != (self.entries[key].revision if key in self.entries else 0):
            return False
        self.take_effect()
        self.revision += 1
        self.entries[key] = Entry(".".join(key), schedule, self.revision)
        self.take_effect()
        return True

    async def delete(self, entry: Entry[Schedule]) -> bool:
        key = entry.value.tenant, entry.value.schedule_id
        if self.entries[key].revision != entry.revision:
            return False
        self.take_effect()
        del self.entries[key]
        self.take_effect()
        return True

    # The wake-ups

    async def now(self) -> datetime:
        return self.time

    async def planned(self) -> dict[tuple[str, str], datetime]:
        return {key: wake_up.planned for key, (wake_up, _, _) in self.held.items()}

    async def pending(self, tenant: str, schedule_id: str) -> Pending | None:
        found = self.held.get((tenant, schedule_id))
        return None if found is None else Pending(found[0], found[2])

    async def place(self, tenant: str, schedule_id: str, wake_up: WakeUp, at: datetime, after: int) -> bool:
        key = tenant, schedule_id
        if after != (self.held[key][2] if key in self.held else 0):
            return False
        self.take_effect()
        self.revision += 1
        self.held[key] = wake_up, at, self.revision
        self.take_effect()
        return True

    async def remove(self, tenant: str, schedule_id: str, sequence: int) -> None:
        self.take_effect()
        if self.held[tenant, schedule_id][2] <= sequence:
            del self.held[tenant, schedule_id]
        self.take_effect()

    # Time

    async def live_until(self, moment: datetime) -> None:
        """Let wake-ups arrive until *moment*, each twice: what arrives at all may arrive again."""
        while self.held:
            key, (wake_up, at, _) = min(self.held.items(), key=lambda item: item[1][1])
            if at > moment:
                break
            self.time = max(self.time, at)
            del self.held[key]
            await self.schedules.due(*key, wake_up)
            await self.schedules.due(*key, wake_up)
        self.time = moment

    def entry(self, schedule_id: str = "nightly", tenant: str = "default") -> Schedule:
        return self.entries[tenant, schedule_id].value

    def submitted_at(self) -> list[datetime]:
        return sorted(job.submitted_at for job in self.jobs.values())


class Queue:
    """The way in, of a World."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def submit(self, command: SubmitJob) -> Submitted | Merged | Later:
        world = self._world
        if world.edit is not None:
            edit, world.edit = world.edit, None
            await world.schedules.put(edit)
        if command.job_id in world.jobs:
            return Submitted()
        if world.others is not None:
            return world.others
        if not world.has_room:
            return Later(QUEUE_FULL)
        world.take_effect()
        world.jobs[command.job_id] = command
        world.take_effect()
        return Submitted()


# --- what is taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"cron": "0 3 * *"}, "five fields"),
        ({"cron": "* * * * * *"}, "five fields"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"cron": "0 0 */31 * 1#2"}, "never comes round"),
        ({"timezone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone"),
        ({"jitter_seconds": -1}, "between 0 and 86400 seconds"),
        ({"jitter_seconds": 86_401}, "between 0 and 86400 seconds"),
        ({"ttl_seconds": 0}, "at least one second"),
        ({"schedule_id": "every night"}, "'every night' is not a valid name"),
        ({"tenant": "a.b"}, "'a.b' is not a valid name"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_with_a_sentence(
    facts: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidSchedule) as refusal:
        first_run(nightly(**facts), AT)
    assert sentence in refusal.value.detail
    assert refusal.value.status == 422


def test_a_run_is_planned_in_the_schedules_own_time_zone() -> None:
    assert first_run(nightly(timezone="Asia/Tokyo"), AT) == datetime(2026, 6, 1, 18, 0, tzinfo=UTC)


def test_schedules_of_one_time_spread_over_their_jitter_each_at_its_own_part() -> None:
    midnight = datetime(2026, 6, 2, 3, 0, tzinfo=UTC)
    lateness = [
        (first_run(nightly(schedule_id=f"s{number}", jitter_seconds=3600), AT) - midnight).total_seconds()
        for number in range(100)
    ]
    assert 0 <= min(lateness) < 600
    assert 3000 < max(lateness) < 3600
    assert len(set(lateness)) > 90
    again = next_run(nightly(schedule_id="s7", jitter_seconds=3600), midnight + DAY / 2)
    assert again is not None
    assert (again - midnight - DAY).total_seconds() == lateness[7]


@given(st.integers(2, 100_000), st.data())
def test_scheduled_jobs_leave_half_of_the_queue(capacity: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, capacity))
    if has_room(size, capacity):
        free_afterwards = capacity - size - 1
        assert free_afterwards >= 1
        assert free_afterwards >= capacity / 2
    else:
        assert size + 1 + capacity / 2 > capacity


def test_a_queue_of_one_place_takes_a_scheduled_job_when_it_is_empty() -> None:
    assert has_room(0, 1)
    assert not has_room(1, 1)


def test_a_queue_without_a_cap_always_has_room() -> None:
    assert has_room(1_000_000, -1)


# --- the command of a run ----------------------------------------------------------------------------------


def test_the_same_run_has_the_same_job_and_every_other_run_another() -> None:
    schedules = [nightly(), nightly(schedule_id="weekly"), nightly(tenant="acme")]
    runs = [(schedule, WakeUp(planned=AT + DAY * day)) for schedule in schedules for day in range(3)]
    ids = [command_of(schedule, run, AT).job_id for schedule, run in runs]
    assert len(set(ids)) == len(runs)
    assert ids == [command_of(schedule, run, AT + DAY).job_id for schedule, run in runs]
    assert {UUID(job_id).version for job_id in ids} == {7}
    assert ids[:3] == sorted(ids[:3])


def test_a_run_says_who_asked_for_it_and_forces_nothing_by_default() -> None:
    command = command_of(nightly(priority=Priority.LOW), WakeUp(planned=AT), AT)
    assert command.trigger is Trigger.SCHEDULED
    assert command.submitted_by == "schedule:nightly"
    assert command.priority is Priority.LOW
    assert not command.force
    assert command_of(nightly(skip_unchanged=False), WakeUp(planned=AT), AT).force


def test_a_run_that_waited_for_room_has_only_the_rest_of_its_time_to_live() -> None:
    wake_up = WakeUp(planned=AT - DAY, waiting_since=AT)
    assert command_of(nightly(), wake_up, AT + timedelta(seconds=600)).ttl_seconds == 3000
    assert command_of(nightly(), WakeUp(planned=AT - DAY), AT).ttl_seconds == 3600


# --- putting -----------------------------------------------------------------------------------------------


def test_an_edit_that_leaves_the_rhythm_keeps_the_planned_run_and_what_is_known() -> None:
    missed = AT - DAY
    stored = nightly(next_run_at=missed, last_job_id="j", last_outcome="submitted", last_run_at=missed)
    wanted = nightly(priority=Priority.HIGH, created_by="somebody else", created_at=AT)
    kept = put_over(wanted, stored, AT + DAY)
    assert kept == replace(stored, priority=Priority.HIGH)


@pytest.mark.parametrize("facts", [{"cron": "0 4 * * *"}, {"timezone": "Asia/Tokyo"}, {"jitter_seconds": 9}])
def test_an_edit_of_the_rhythm_plans_anew(facts: dict[str, Any]) -> None:
    stored = nightly(next_run_at=AT - DAY, last_outcome="submitted")
    changed = put_over(nightly(**facts), stored, AT + DAY)
    assert changed.next_run_at == AT + DAY
    assert changed.last_outcome == "submitted"


def test_a_new_schedule_has_not_run_whatever_its_sender_says() -> None:
    claimed = nightly(last_run_at=AT, last_job_id="j", last_outcome="submitted", next_run_at=AT)
    assert put_over(claimed, None, AT + DAY) == nightly(next_run_at=AT + DAY)


@pytest.mark.anyio
async def test_a_tenant_has_a_thousand_schedules_and_may_still_edit_them() -> None:
    world = World()
    for number in range(SCHEDULES_PER_TENANT_MAX):
        await world.schedules.put(nightly(schedule_id=f"s{number}"))
    world.schedules = world.leader()
    await world.schedules.recover()
    with pytest.raises(InvalidSchedule) as refusal:
        await world.schedules.put(nightly(schedule_id="one-more"))
    assert refusal.value.code == "too_many_schedules"
    await world.schedules.put(nightly(schedule_id="s7", priority=Priority.LOW))
    await world.schedules.put(nightly(tenant="acme"))
    assert await world.schedules.delete("default", "s8")
    await world.schedules.put(nightly(schedule_id="one-more"))


@pytest.mark.anyio
async def test_a_full_bucket_refuses_a_schedule_and_stops_nothing_else() -> None:
    world = World()
    await world.schedules.put(nightly())
    world.store_is_full = True
    with pytest.raises(InvalidSchedule) as refusal:
        await world.schedules.put(nightly(schedule_id="weekly"))
    assert refusal.value.code == "too_many_schedules"
    await world.live_until(AT + DAY)
    world.store_is_full = False
    await world.live_until(AT + DAY * 2)
    assert len(world.jobs) == 2  # what could not be noted was not done again
    assert world.entry().last_outcome == "submitted"


# --- running -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_schedule_runs_at_each_of_its_times_and_once() -> None:
    world = World()
    await world.schedules.put(nightly())
    await world.live_until(AT + DAY * 3)
    first = datetime(2026, 6, 2, 3, 0, tzinfo=UTC)
    assert world.submitted_at() == [first, first + DAY, first + DAY * 2]
    schedule = world.entry()
    assert schedule.last_outcome == "submitted"
    assert schedule.last_run_at == first + DAY * 2
    assert schedule.last_job_id in world.jobs
    assert schedule.next_run_at == first + DAY * 3


@pytest.mark.anyio
async def test_runs_that_were_missed_for_three_days_are_one_late_run() -> None:
    world = World()
    await world.schedules.put(nightly())
    world.time += DAY * 3
    world.held.clear()  # a wake-up that nobody took in time is forgotten
    world.schedules = world.leader()
    await world.schedules.recover()
    await world.live_until(world.time)
    assert world.submitted_at() == [AT + DAY * 3]
    assert world.entry().next_run_at == datetime(2026, 6, 5, 3, 0, tzinfo=UTC)


@pytest.mark.anyio
async def test_a_run_waits_for_room_and_misses_nothing_but_what_it_stands_for() -> None:
    world = World()
    await world.schedules.put(nightly(cron="*/10 * * * *"))
    world.has_room = False
    await world.live_until(AT + timedelta(minutes=35))
    assert world.jobs == {}
    assert world.entry().next_run_at == AT + timedelta(minutes=10)
    world.has_room = True
    await world.live_until(AT + timedelta(minutes=36))
    (job,) = world.jobs.values()
    assert job.submitted_at <= AT + timedelta(minutes=35, seconds=TRY_AGAIN_SECONDS)
    assert job.ttl_seconds == 3600 - (job.submitted_at - AT - timedelta(minutes=10)).total_seconds()
    assert world.entry().next_run_at == AT + timedelta(minutes=40)


@pytest.mark.anyio
async def test_a_run_that_waited_for_its_time_to_live_is_given_up_and_says_so() -> None:
    world = World()
    await world.schedules.put(nightly(ttl_seconds=600))
    world.time += DAY * 3  # that it was missed is not its waiting
    world.has_room = False
    await world.live_until(world.time)
    assert world.entry().last_outcome is None
    await world.live_until(world.time + timedelta(seconds=599))
    assert world.entry().last_outcome is None
    await world.live_until(world.time + timedelta(seconds=1))
    assert world.jobs == {}
    assert world.entry().last_outcome == "given up after 600 s: the queue had no room"
    assert world.entry().last_job_id is None
    assert world.entry().next_run_at == datetime(2026, 6, 5, 3, 0, tzinfo=UTC)


@pytest.mark.anyio
async def test_a_run_is_merged_into_the_job_that_does_the_same() -> None:
    world = World()
    await world.schedules.put(nightly())
    world.others = Merged("other", JobState.RUNNING)
    await world.live_until(AT + DAY)
    assert world.jobs == {}
    assert world.entry().last_outcome == "already running"
    assert world.entry().last_job_id == "other"
    assert world.entry().next_run_at == datetime(2026, 6, 3, 3, 0, tzinfo=UTC)


@pytest.mark.anyio
async def test_a_wake_up_of_a_schedule_that_is_gone_does_nothing() -> None:
    world = World()
    put = await world.schedules.put(nightly())
    assert put.next_run_at is not None
    assert await world.schedules.delete("default", "nightly")
    assert world.held == {}
    await world.schedules.due("default", "nightly", WakeUp(planned=put.next_run_at))
    assert (world.jobs, world.held, world.entries) == ({}, {}, {})
    assert not await world.schedules.delete("default", "nightly")


@pytest.mark.anyio
async def test_a_wake_up_from_before_an_edit_does_nothing_and_the_right_one_follows() -> None:
    world = World()
    put = await world.schedules.put(nightly())
    edited = await world.schedules.put(nightly(cron="0 5 * * *"))
    assert put.next_run_at is not None
    assert edited.next_run_at is not None
    world.time, world.held = put.next_run_at, {}  # the old one arrives, and replaced the new one
    await world.schedules.due("default", "nightly", WakeUp(planned=put.next_run_at))
    assert world.jobs == {}
    await world.live_until(AT + DAY)
    assert world.submitted_at() == [edited.next_run_at]


@pytest.mark.anyio
async def test_an_edit_while_a_run_waits_for_room_lets_it_go() -> None:
    world = World()
    await world.schedules.put(nightly())
    world.has_room = False
    await world.live_until(datetime(2026, 6, 2, 3, 10, tzinfo=UTC))
    edited = await world.schedules.put(nightly(cron="0 5 * * *"))
    world.has_room = True
    await world.live_until(AT + DAY)
    assert world.submitted_at() == [edited.next_run_at]


@pytest.mark.anyio
@pytest.mark.parametrize("has_room", [True, False])
async def test_an_edit_in_the_middle_of_a_run_decides_the_next_one(has_room: bool) -> None:
    world = World()
    put = await world.schedules.put(nightly())
    world.edit, world.has_room = nightly(cron="0 5 * * *"), has_room
    await world.live_until(datetime(2026, 6, 2, 4, 0, tzinfo=UTC))
    assert world.submitted_at() == ([put.next_run_at] if has_room else [])
    assert world.entry().last_outcome == ("submitted" if has_room else None)
    assert world.entry().next_run_at == datetime(2026, 6, 2, 5, 0, tzinfo=UTC)
    assert is_right(world)


def test_noting_a_run_takes_no_other_run_off_the_plan() -> None:
    other = AT + timedelta(hours=1)
    noted = after_run(nightly(next_run_at=other), AT, AT + DAY, job_id="j", outcome="submitted")
    assert noted == nightly(
        next_run_at=other, last_run_at=AT + DAY, last_job_id="j", last_outcome="submitted"
    )


def test_a_time_zone_that_is_no_more_ends_the_runs_with_a_sentence() -> None:
    noted = after_run(nightly(timezone="Gone/By", next_run_at=AT), AT, AT, job_id="j", outcome="submitted")
    assert noted.next_run_at is None
    assert noted.last_outcome is not None
    assert "submitted; it will not run again: 'Gone/By' is not a time zone" in noted.last_outcome


@pytest.mark.anyio
async def test_an_operator_deletes_a_schedule_whoever_owns_it_unless_it_could_be_two() -> None:
    world = World()
    await world.schedules.put(nightly(tenant="acme"))
    await world.schedules.put(nightly(schedule_id="weekly"))
    await world.schedules.put(nightly(schedule_id="weekly", tenant="acme"))
    assert await world.schedules.delete(None, "nightly")
    assert not await world.schedules.delete(None, "nightly")
    with pytest.raises(InvalidSchedule) as refusal:
        await world.schedules.delete(None, "weekly")
    assert refusal.value.code == "ambiguous_schedule"
    assert await world.schedules.delete("acme", "weekly")
    assert set(world.entries) == {("default", "weekly")}


# --- failing at every step ---------------------------------------------------------------------------------


async def carried_out(world: World, fails_at: int, fails_before: bool, step: Any) -> bool:
    """Whether *step* got through with the given write failing; if not, it is done again by a new leader."""
    world.writes, world.fails_at, world.fails_before = 0, fails_at, fails_before
    try:
        await step(world.schedules)
    except BusUnavailable:
        world.fails_at = 0
        world.schedules = world.leader()
        await world.schedules.recover()
        await step(world.schedules)
        return False
    world.fails_at = 0
    return True


def is_right(world: World) -> bool:
    """Every schedule has the wake-up of its next run, and there is no other."""
    planned = {key: entry.value.next_run_at for key, entry in world.entries.items()}
    return planned == {key: wake_up.planned for key, (wake_up, _, _) in world.held.items()}


@pytest.mark.anyio
@pytest.mark.parametrize("fails_before", [True, False])
async def test_whatever_write_fails_a_put_schedule_has_its_wake_up(fails_before: bool) -> None:
    for fails_at in range(1, 20):
        world = World()
        await world.schedules.put(nightly(cron="0 9 * * *"))
        through = await carried_out(world, fails_at, fails_before, lambda leader: leader.put(nightly()))
        assert is_right(world)
        assert world.entry().cron == "0 3 * * *"
        if through:
            assert fails_at > 2
            return
    raise AssertionError("a put never got through")


@pytest.mark.anyio
@pytest.mark.parametrize("fails_before", [True, False])
async def test_whatever_write_fails_a_deleted_schedule_leaves_nothing(fails_before: bool) -> None:
    for fails_at in range(1, 20):
        world = World()
        await world.schedules.put(nightly())
        through = await carried_out(
            world, fails_at, fails_before, lambda leader: leader.delete("default", "nightly")
        )
        assert (world.entries, world.held) == ({}, {})
        if through:
            assert fails_at > 2
            return
    raise AssertionError("a delete never got through")


@pytest.mark.anyio
@pytest.mark.parametrize("fails_before", [True, False])
async def test_whatever_write_fails_a_run_is_one_job_and_the_next_is_planned(fails_before: bool) -> None:
    for fails_at in range(1, 20):
        world = World()
        put = await world.schedules.put(nightly())
        assert put.next_run_at is not None
        wake_up = WakeUp(planned=put.next_run_at)
        world.time, world.held = put.next_run_at, {}
        through = await carried_out(
            world, fails_at, fails_before, lambda leader, due=wake_up: leader.due("default", "nightly", due)
        )
        assert len(world.jobs) == 1
        assert is_right(world)
        assert world.entry().last_outcome == "submitted"
        assert world.entry().next_run_at == put.next_run_at + DAY
        if through:
            assert fails_at > 3
            return
    raise AssertionError("a run never got through")
