"""Which waiting jobs are handed out now, and where each of the others stands. Pure.

A job's rank comes from its priority and from what asked for it, and falls while it waits, so that nothing is
starved: whoever has waited for ``RANKS_MAX`` steps of ageing ranks with the most urgent, and before all that
came later. Within a rank tenants are served in turn: first who has the fewest jobs running, then who was
served the longest ago; within a tenant the oldest job comes first.

Repositories and documents are two pools: each has slots of its own, and stands in an order of its own.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from pharos_contracts.jobs.v1 import Job, Priority, Trigger
from pharos_contracts.subjects import POOL_DEFAULT, POOLS, pool_of
from pharos_contracts.workers.v1 import Worker, WorkerState, slots_of

Lane = tuple[str, str, str]
Place = tuple[int, str]

RANKS_PER_PRIORITY: Final = 3
PRIORITY_RANK: Final[Mapping[Priority, int]] = {
    Priority.URGENT: 0,
    Priority.HIGH: 1 * RANKS_PER_PRIORITY,
    Priority.NORMAL: 2 * RANKS_PER_PRIORITY,
    Priority.LOW: 3 * RANKS_PER_PRIORITY,
}
TRIGGER_RANK: Final[Mapping[Trigger, int]] = {
    Trigger.INTERACTIVE: 0,
    Trigger.WEBHOOK: 1,
    Trigger.SCHEDULED: 2,
}
RANKS_MAX: Final = max(PRIORITY_RANK.values()) + max(TRIGGER_RANK.values())


def lane(job: Job) -> Lane:
    """What only one running job may write at a time: a dataset, or a repository that names its own."""
    return job.tenant, job.project, job.dataset or job.identity


def slots(workers: Iterable[Worker], pool: str = POOL_DEFAULT) -> int:
    """How many jobs of *pool* the live workers hold at once; one that drains takes no more."""
    return sum(slots_of(worker, pool) for worker in workers if worker.state is not WorkerState.DRAINING)


def rank(job: Job, now: datetime, ageing_seconds: float) -> int:
    """0 is the most urgent; a priority is worth ``ageing_seconds`` since *job* was submitted."""
    base = PRIORITY_RANK[job.priority] + TRIGGER_RANK[job.trigger]
    age_seconds = max(0.0, (now - job.submitted_at).total_seconds())
    return max(0, base - int(age_seconds * RANKS_PER_PRIORITY / ageing_seconds))


def place(job: Job) -> Place:
    """Where *job* stands among the jobs of its tenant, rank aside: as the queue numbered it."""
    return job.number, job.job_id


_RowKey = tuple[str, str, Priority, Trigger]


def _row_key(job: Job) -> _RowKey:
    return pool_of(job.kind), job.tenant, job.priority, job.trigger


class Waiting:
    """The jobs that wait, oldest first within each pool, tenant, priority and trigger.

    Only the first of each such row can be the next one: a queue of thousands costs what a handful does.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._rows: dict[_RowKey, list[tuple[Place, Job]]] = {}
        self._jobs: dict[str, Job] = {}
        for job in jobs:
            self.add(job)

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def add(self, job: Job) -> None:
        self.discard(job.job_id)
        self._jobs[job.job_id] = job
        row = self._rows.setdefault(_row_key(job), [])
        insort(row, (place(job), job), key=lambda entry: entry[0])

    def discard(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        key = _row_key(job)
        row = self._rows[key]
        del row[bisect_left(row, place(job), key=lambda entry: entry[0])]
        if not row:
            del self._rows[key]

    def rows(self, pool: str) -> list[Sequence[Job]]:
        return [_Row(row) for key, row in self._rows.items() if key[0] == pool]

    def count(self, pool: str) -> int:
        """How many jobs of *pool* wait."""
        return sum(len(row) for row in self.rows(pool))

    @contextmanager
    def joined_by(self, jobs: Iterable[Job]) -> Iterator[Waiting]:
        """These and *jobs*, while the block lasts; it must not await, since others use these."""
        joining = [job for job in jobs if job.job_id not in self]
        for job in joining:
            self.add(job)
        try:
            yield self
        finally:
            for job in joining:
                self.discard(job.job_id)

    def index_in_only_row(self, job: Job) -> int | None:
        """How many stand before *job*, where of its pool only its own row waits; None where others do."""
        key = _row_key(job)
        if any(each[0] == key[0] for each in self._rows if each != key):
            return None
        return bisect_left(self._rows[key], place(job), key=lambda entry: entry[0])


class _Row(Sequence[Job]):
    """The jobs of a row, without copying it."""

    def __init__(self, entries: list[tuple[Place, Job]]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Job:  # type: ignore[override]
        return self._entries[index][1]


class Turns(msgspec.Struct, frozen=True):
    """How many jobs of each tenant run, and when each tenant was served last, as any number that grows."""

    running: Mapping[str, int] = {}
    served: Mapping[str, int] = {}


def in_order(
    waiting: Waiting,
    turns: Turns,
    now: datetime,
    ageing_seconds: float,
    may_run: Callable[[Job], bool] = lambda job: True,
    pool: str = POOL_DEFAULT,
    *,
    slots: int | None = None,
    ending: Iterable[str] = (),
) -> Iterator[Job]:
    """The waiting jobs of *pool* as they are served, one after the other, each counted as running then.

    *may_run* is asked when a job's turn has come; one that may not is passed over. With *slots* one that runs
    ends before the next one is served, where all are taken: first those of the tenants in *ending*, which
    run there now, then those that were served here, in turn.
    """
    busy = deque(ending)
    rows = waiting.rows(pool)
    position = [0] * len(rows)
    running = Counter(turns.running)
    served = dict(turns.served)
    clock = max(served.values(), default=0)
    while True:
        while slots is not None and len(busy) >= slots:
            running[busy.popleft()] -= 1
        best: tuple[tuple[int, int, int, Place], int, Job] | None = None
        for index, row in enumerate(rows):
            while position[index] < len(row) and not may_run(row[position[index]]):
                position[index] += 1
            if position[index] == len(row):
                continue
            job = row[position[index]]
            turn = (
                rank(job, now, ageing_seconds),
                running[job.tenant],
                served.get(job.tenant, 0),
                place(job),
            )
            if best is None or turn < best[0]:
                best = turn, index, job
        if best is None:
            return
        _, index, job = best
        position[index] += 1
        running[job.tenant] += 1
        busy.append(job.tenant)
        clock += 1
        served[job.tenant] = clock
        yield job


def ahead(
    job: Job,
    waiting: Waiting,
    turns: Turns,
    now: datetime,
    ageing_seconds: float,
    *,
    slots: int,
    ending: Iterable[str],
) -> int:
    """How many of *waiting*, of which *job* is one, are served before it from the same slots.

    True if jobs end in the order in which they began: *ending* are the tenants of those that run, the first
    to end first. Without *slots* there is one.
    """
    index = waiting.index_in_only_row(job)
    if index is not None:
        return index  # nobody to take turns with
    pool = pool_of(job.kind)
    order = in_order(waiting, turns, now, ageing_seconds, pool=pool, slots=max(1, slots), ending=ending)
    for before, each in enumerate(order):
        if each.job_id == job.job_id:
            return before
    raise AssertionError("a job that waits has a place")


def plan(
    waiting: Waiting,
    in_flight: Collection[Job],
    workers: Collection[Worker],
    turns: Turns,
    now: datetime,
    ageing_seconds: float,
    busy: Collection[Lane] = (),
) -> list[Job]:
    """The jobs of *waiting* to hand out, in order; never more than free slots of a pool, one per lane.

    *busy* are lanes that are taken although no job runs in them.
    """
    running = Counter(pool_of(job.kind) for job in in_flight)
    taken = {lane(job) for job in in_flight} | set(busy)
    chosen: list[Job] = []
    for pool in POOLS:
        free = slots(workers, pool) - running[pool]
        if free <= 0:
            continue
        order = in_order(waiting, turns, now, ageing_seconds, lambda job: lane(job) not in taken, pool)
        for job in islice(order, free):
            taken.add(lane(job))
            chosen.append(job)
    return chosen


def start_in_seconds(
    ahead: int, remaining_seconds: Sequence[float], free: int, typical_seconds: float
) -> float:
    """When a job starts that *ahead* others precede, if each takes *typical_seconds*.

    *remaining_seconds* is what each running job may still take; *free* slots run nothing. There is at least
    one slot.
    """
    ends = [0.0] * free + [max(0.0, each) for each in remaining_seconds]
    heapq.heapify(ends)
    for _ in range(ahead):
        heapq.heapreplace(ends, ends[0] + typical_seconds)
    return ends[0]
