"""Placement, as properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import DocumentSource, Job, JobKind, Priority, RepositorySource, Trigger
from pharos_contracts.lifecycle import JobState
from pharos_contracts.subjects import POOL_DEFAULT, POOL_DOCUMENTS
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_scheduler.placement import (
    RANKS_MAX,
    Turns,
    Waiting,
    ahead,
    in_order,
    lane,
    place,
    plan,
    rank,
    slots,
    start_in_seconds,
)

AT = datetime(2026, 1, 15, tzinfo=UTC)


def job(number: int, repository: int, tenant: str = "default") -> Job:
    return Job(
        job_id=f"job-{number}",
        number=number,
        tenant=tenant,
        key=f"k{repository}",
        kind=JobKind.REPOSITORY,
        state=JobState.QUEUED,
        source=RepositorySource(
            identity=f"github.com/o/r{repository}", clone_url=f"https://github.com/o/r{repository}"
        ),
        project="default",
        submitted_at=AT,
        submitted_by="u",
        ttl_seconds=60,
    )


def document(number: int, label: int, tenant: str = "default") -> Job:
    return replace(
        job(number, 0, tenant),
        job_id=f"document-{number}",
        number=0,
        kind=JobKind.TEXT,
        source=None,
        document=DocumentSource(label=f"l{label}", identity=f"n{number}", object_name="o"),
        dataset=f"documents/l{label}",
    )


def worker(name: int, free: int, state: WorkerState = WorkerState.IDLE) -> Worker:
    return Worker(
        name=f"w{name}",
        instance="i",
        pool="default",
        state=state,
        device="cpu",
        slots=free,
        since=AT,
        seen_at=AT,
    )


jobs = st.lists(
    st.builds(job, st.integers(0, 200), st.integers(0, 12)), unique_by=lambda each: each.number, max_size=30
)
workers = st.lists(
    st.builds(worker, st.integers(0, 99), st.integers(0, 4), st.sampled_from(WorkerState)), max_size=6
)


AGEING_SECONDS = 600.0


def planned(
    waiting: Iterable[Job],
    in_flight: Collection[Job] = (),
    live: Collection[Worker] = (),
    turns: Turns | None = None,
    now: datetime = AT,
) -> list[Job]:
    return plan(Waiting(waiting), in_flight, live, turns or Turns(), now, AGEING_SECONDS)


@given(jobs, jobs, workers)
def test_a_plan_keeps_every_limit(waiting: list[Job], in_flight: list[Job], live: list[Worker]) -> None:
    chosen = planned(waiting, in_flight, live)
    assert len(chosen) <= max(0, slots(live) - len(in_flight))
    assert all(each in waiting for each in chosen)
    lanes = [lane(each) for each in chosen]
    assert len(set(lanes)) == len(lanes)
    assert not set(lanes) & {lane(each) for each in in_flight}


@given(jobs, workers)
def test_nothing_is_passed_over_without_a_reason(waiting: list[Job], live: list[Worker]) -> None:
    chosen = planned(waiting, [], live)
    if len(chosen) == slots(live):
        return
    left = [each for each in waiting if each not in chosen]
    assert all(lane(each) in {lane(other) for other in chosen} for each in left)


@given(jobs, workers, st.integers(0, 12))
def test_a_lane_that_is_busy_is_left_alone(waiting: list[Job], live: list[Worker], busy: int) -> None:
    lanes = [lane(job(0, busy))]
    chosen = plan(Waiting(waiting), [], live, Turns(), AT, AGEING_SECONDS, busy=lanes)
    assert lanes[0] not in {lane(each) for each in chosen}


def test_nothing_is_handed_out_while_no_worker_is_alive() -> None:
    assert planned([job(1, 1)]) == []


def test_a_draining_worker_gets_nothing() -> None:
    assert planned([job(1, 1)], live=[worker(1, 4, WorkerState.DRAINING)]) == []


def test_the_first_submitted_runs_first() -> None:
    waiting = [job(5, 1), job(2, 2), job(9, 3)]
    assert [each.number for each in planned(waiting, live=[worker(1, 2)])] == [2, 5]


def test_two_jobs_of_one_repository_do_not_run_at_once() -> None:
    assert [each.number for each in planned([job(1, 7), job(2, 7), job(3, 8)], live=[worker(1, 3)])] == [1, 3]


# Two pools

documents = st.lists(
    st.builds(document, st.integers(0, 200), st.integers(0, 12)),
    unique_by=lambda each: each.job_id,
    max_size=30,
)


@given(jobs, documents, st.integers(0, 4), st.integers(0, 4), st.integers(0, 8), st.integers(0, 8))
def test_neither_pool_takes_or_awaits_a_slot_of_the_other(
    repositories: list[Job], notes: list[Job], free: int, kept: int, running: int, reading: int
) -> None:
    in_flight = [*(job(300 + each, 20 + each) for each in range(running))]
    in_flight += [document(300 + each, 20 + each) for each in range(reading)]
    live = [replace(worker(1, free), document_slots=kept)]
    both = planned([*repositories, *notes], in_flight, live)
    apart = [planned(each, in_flight, live) for each in (repositories, notes)]
    assert both == [*apart[0], *apart[1]]
    assert len(apart[0]) <= max(0, free - running)
    assert len(apart[1]) <= max(0, kept - reading)


def test_a_note_is_handed_out_while_repositories_take_every_slot_of_theirs() -> None:
    live = [replace(worker(1, 1), document_slots=1)]
    chosen = planned([job(2, 2), job(3, 3), document(4, 1)], [job(1, 1)], live)
    assert [each.job_id for each in chosen] == ["document-4"]


def test_two_documents_of_one_dataset_are_not_read_at_once() -> None:
    live = [replace(worker(1, 0), document_slots=3)]
    chosen = planned([document(1, 7), document(2, 7), document(3, 8)], live=live)
    assert [each.job_id for each in chosen] == ["document-1", "document-3"]


def test_a_repository_that_names_a_dataset_of_documents_does_not_run_beside_one() -> None:
    live = [replace(worker(1, 1), document_slots=1)]
    named = replace(job(1, 1), dataset="documents/l7")
    assert planned([document(2, 7)], [named], live) == []
    assert planned([named], [document(2, 7)], live) == []


def test_a_place_is_told_among_those_that_wait_for_the_same_slots() -> None:
    waiting = Waiting([job(1, 1), job(2, 2), document(1, 1), document(2, 2)])
    assert [ahead(each, waiting, Turns(), AT, AGEING_SECONDS, slots=1, ending=()) for each in waiting] == [
        0,
        1,
        0,
        1,
    ]
    assert (waiting.count(POOL_DEFAULT), waiting.count(POOL_DOCUMENTS)) == (2, 2)


# Order

anything = st.builds(
    lambda number, tenant, priority, trigger: replace(
        job(number, number, tenant),
        priority=priority,
        trigger=trigger,
        submitted_at=AT - timedelta(seconds=(10_000 - number) * 0.4),  # up to six and a half steps of ageing
    ),
    st.integers(0, 10_000),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(Priority),
    st.sampled_from(Trigger),
)
queues = st.lists(anything, unique_by=lambda each: each.number, max_size=25)


def ordered(waiting: Iterable[Job], turns: Turns | None = None, now: datetime = AT) -> list[Job]:
    return list(in_order(Waiting(waiting), turns or Turns(), now, AGEING_SECONDS))


@given(queues)
def test_the_order_holds_every_job_once_and_ranks_never_fall(waiting: list[Job]) -> None:
    found = ordered(waiting)
    assert sorted(each.number for each in found) == sorted(each.number for each in waiting)
    ranks = [rank(each, AT, AGEING_SECONDS) for each in found]
    assert ranks == sorted(ranks)


@given(queues)
def test_the_rows_of_a_queue_lose_nothing_against_looking_at_every_job(waiting: list[Job]) -> None:
    """The same rule, written without rows: of all jobs the one whose turn is the smallest."""
    left, running, served, clock = list(waiting), Counter[str](), Counter[str](), 0
    expected = []
    while left:
        best = min(
            left,
            key=lambda each: (
                rank(each, AT, AGEING_SECONDS),
                running[each.tenant],
                served[each.tenant],
                place(each),
            ),
        )
        left.remove(best)
        expected.append(best)
        clock += 1
        running[best.tenant] += 1
        served[best.tenant] = clock
    assert ordered(waiting) == expected


@given(queues, st.data())
def test_a_queue_that_jobs_leave_and_enter_is_the_queue_of_those_that_are_there(
    waiting: list[Job], data: st.DataObject
) -> None:
    queue = Waiting(waiting)
    kept = list(waiting)
    for _ in range(min(5, len(waiting))):
        gone = data.draw(st.sampled_from(waiting))
        queue.discard(gone.job_id)
        kept = [each for each in kept if each.job_id != gone.job_id]
        if data.draw(st.booleans()):
            queue.add(gone)
            kept.append(gone)
    assert len(queue) == len(kept)
    assert list(in_order(queue, Turns(), AT, AGEING_SECONDS)) == ordered(kept)


@given(st.one_of(queues, jobs), st.integers(1, 3), st.lists(st.sampled_from("ab"), max_size=3))
def test_a_place_is_the_one_that_a_job_is_served_at(
    waiting: list[Job], free: int, running: list[str]
) -> None:
    """Played to the end with the rule that hands out, each job ending in the order in which it began."""
    alone = [replace(each, source=job(each.number, each.number).source) for each in waiting]  # no shared lane
    in_flight = [job(1_000 + index, 1_000 + index, tenant) for index, tenant in enumerate(running[:free])]
    places = {
        each.job_id: ahead(
            each,
            Waiting(alone),
            Turns(Counter(other.tenant for other in in_flight)),
            AT,
            AGEING_SECONDS,
            slots=free,
            ending=[other.tenant for other in in_flight],
        )
        for each in alone
    }
    left, served, told = list(alone), Counter[str](), []
    while left:
        turns = Turns(Counter(other.tenant for other in in_flight), served)
        for each in plan(Waiting(left), in_flight, [worker("1", free)], turns, AT, AGEING_SECONDS):
            told.append(each.job_id)
            served[each.tenant] = len(told)
            in_flight.append(each)
            left = [other for other in left if other.job_id != each.job_id]
        in_flight = in_flight[1:]
    assert [places[job_id] for job_id in told] == list(range(len(told)))


def test_a_place_knows_that_what_runs_now_ends_before_the_next_one_starts() -> None:
    waiting = [
        replace(job(1, 1, "b"), priority=Priority.URGENT),
        replace(job(2, 2, "a"), priority=Priority.URGENT),
        replace(job(3, 3, "c"), priority=Priority.HIGH),
        job(4, 4, "a"),
        job(5, 5, "b"),
        job(6, 6, "c"),
    ]
    places = [
        ahead(each, Waiting(waiting), Turns({"a": 1}), AT, AGEING_SECONDS, slots=1, ending=["a"])
        for each in waiting
    ]
    assert places == [0, 1, 2, 4, 3, 5]


def test_those_who_join_for_a_moment_are_gone_after_it() -> None:
    first, second = job(1, 1), job(2, 2)
    queue = Waiting([first])
    with queue.joined_by([first, second, second]) as everybody:
        assert len(everybody) == 2
        assert ahead(second, everybody, Turns(), AT, AGEING_SECONDS, slots=1, ending=()) == 1
    assert list(queue) == [first]


@pytest.mark.parametrize(("first", "second"), list(pairwise(Priority)))
def test_a_higher_priority_goes_first_however_late_it_came(first: Priority, second: Priority) -> None:
    earlier, later = replace(job(1, 1), priority=second), replace(job(2, 2), priority=first)
    assert [each.number for each in ordered([earlier, later])] == [2, 1]


@pytest.mark.parametrize(("first", "second"), list(pairwise(Trigger)))
def test_who_waits_for_a_job_goes_before_what_a_machine_asked_for(first: Trigger, second: Trigger) -> None:
    earlier, later = replace(job(1, 1), trigger=second), replace(job(2, 2), trigger=first)
    assert [each.number for each in ordered([earlier, later])] == [2, 1]


def test_a_priority_is_worth_more_than_a_trigger() -> None:
    scheduled = replace(job(1, 1), priority=Priority.HIGH, trigger=Trigger.SCHEDULED)
    assert [each.number for each in ordered([job(2, 2), scheduled])] == [1, 2]


def test_tenants_are_served_in_turn_however_many_jobs_one_has() -> None:
    waiting = [job(number, number, "many") for number in range(1, 9)]
    waiting += [job(number, number, "few") for number in (20, 21)]
    assert [each.tenant for each in ordered(waiting)][:4] == ["many", "few", "many", "few"]


def test_with_one_slot_the_tenant_that_was_served_last_waits_for_its_turn() -> None:
    waiting = [job(2, 2, "many"), job(3, 3, "many"), job(20, 20, "few")]
    turns = Turns(served={"many": 1})
    assert [each.number for each in planned(waiting, live=[worker(1, 1)], turns=turns)] == [20]


def test_the_tenant_with_fewer_running_jobs_goes_first() -> None:
    turns = Turns(running={"many": 3, "few": 1}, served={"few": 9})
    assert ordered([job(1, 1, "many"), job(2, 2, "few")], turns)[0].tenant == "few"


@given(
    st.sampled_from(Priority),
    st.sampled_from(Trigger),
    st.integers(1, 3),
    st.floats(5, 60),
    st.integers(1, 4),
)
def test_no_job_starves_under_a_steady_stream_of_urgent_ones(
    priority: Priority, trigger: Trigger, slots_: int, seconds: float, tenants: int
) -> None:
    """A job waits at most RANKS_MAX steps of ageing, and then one turn of every tenant.

    One slot is a job of *seconds* after the other; each tenant submits an urgent job whenever one starts.
    """
    victim = replace(job(0, 0, "t0"), priority=priority, trigger=trigger)
    queue, number, now = Waiting([victim]), 1, AT
    served: dict[str, int] = {}
    running: Counter[str] = Counter()
    bound = RANKS_MAX * AGEING_SECONDS / 3 + (tenants + 1) * seconds
    while victim.job_id in queue:
        assert (now - AT).total_seconds() <= bound
        for tenant in range(tenants):
            urgent = replace(job(number, number, f"t{tenant}"), priority=Priority.URGENT, submitted_at=now)
            queue.add(urgent)
            number += 1
        chosen = plan(queue, [], [worker(1, slots_)], Turns(running, served), now, AGEING_SECONDS)
        for each in chosen:
            queue.discard(each.job_id)
            served[each.tenant] = len(served) + number
        now += timedelta(seconds=seconds)


def test_ten_thousand_waiting_jobs_cost_no_more_than_the_rows_that_they_stand_in() -> None:
    asked = 0

    def may_run(_: Job) -> bool:
        nonlocal asked
        asked += 1
        return True

    queue = Waiting(job(number, number) for number in range(10_000))
    first = next(in_order(queue, Turns(), AT, AGEING_SECONDS, may_run))
    assert (first.number, asked) == (0, 1)


# When


@pytest.mark.parametrize(
    ("ahead", "remaining", "free", "expected"),
    [
        (0, [], 1, 0.0),  # a free slot
        (0, [7.0], 0, 7.0),
        (1, [7.0], 0, 17.0),
        (2, [7.0, 3.0], 0, 13.0),  # one starts at 3, one at 7, and the third when the first of them ends
        (0, [-4.0], 0, 0.0),  # one that takes longer than the others did may end at any moment
    ],
)
def test_a_start_is_estimated_from_what_runs_and_what_comes_before(
    ahead: int, remaining: list[float], free: int, expected: float
) -> None:
    assert start_in_seconds(ahead, remaining, free, 10.0) == expected
