"""Placement, as properties."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pharos_contracts.jobs.v1 import Job, JobKind, RepositorySource
from pharos_contracts.lifecycle import JobState
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_scheduler.placement import lane, order, plan, slots

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


@given(jobs, jobs, workers)
def test_a_plan_keeps_every_limit(waiting: list[Job], in_flight: list[Job], live: list[Worker]) -> None:
    chosen = plan(waiting, in_flight, live)
    assert len(chosen) <= max(0, slots(live) - len(in_flight))
    assert all(each in waiting for each in chosen)
    lanes = [lane(each) for each in chosen]
    assert len(set(lanes)) == len(lanes)
    assert not set(lanes) & {lane(each) for each in in_flight}
    assert chosen == sorted(chosen, key=order)


@given(jobs, workers)
def test_nothing_is_passed_over_without_a_reason(waiting: list[Job], live: list[Worker]) -> None:
    chosen = plan(waiting, [], live)
    if len(chosen) == slots(live):
        return
    left = [each for each in waiting if each not in chosen]
    assert all(lane(each) in {lane(other) for other in chosen} for each in left)


def test_nothing_is_handed_out_while_no_worker_is_alive() -> None:
    assert plan([job(1, 1)], [], []) == []


def test_a_draining_worker_gets_nothing() -> None:
    assert plan([job(1, 1)], [], [worker(1, 4, WorkerState.DRAINING)]) == []


def test_the_first_submitted_runs_first() -> None:
    waiting = [job(5, 1), job(2, 2), job(9, 3)]
    assert [each.number for each in plan(waiting, [], [worker(1, 2)])] == [2, 5]


def test_two_jobs_of_one_repository_do_not_run_at_once() -> None:
    assert [each.number for each in plan([job(1, 7), job(2, 7), job(3, 8)], [], [worker(1, 3)])] == [1, 3]
