"""Which waiting jobs are handed out now. Pure: the leader calls it whenever something changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.workers.v1 import Worker, WorkerState


def lane(job: Job) -> tuple[str, str, str]:
    """What only one running job may write at a time: a dataset, or a repository that names its own."""
    return job.tenant, job.project, job.dataset or job.source.identity


def slots(workers: Iterable[Worker]) -> int:
    """How many jobs the live workers hold at once; one that drains takes no more."""
    return sum(worker.slots for worker in workers if worker.state is not WorkerState.DRAINING)


def order(job: Job) -> tuple[int, str]:
    """Where a job stands in the queue: as Q numbered it."""
    return job.number, job.job_id


def plan(waiting: Sequence[Job], in_flight: Collection[Job], workers: Collection[Worker]) -> list[Job]:
    """The jobs of *waiting* to hand out, in order; never more than free slots, one per lane."""
    free = slots(workers) - len(in_flight)
    taken = {lane(job) for job in in_flight}
    chosen: list[Job] = []
    for job in sorted(waiting, key=order):
        if len(chosen) >= free:
            break
        if lane(job) not in taken:
            taken.add(lane(job))
            chosen.append(job)
    return chosen
