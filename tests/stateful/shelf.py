"""The index in a few words: which run of which job wrote how many points, and when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from pharos_contracts.control.v1 import GraphState, InspectedDataset, LiveGeneration, StoredGeneration

DatasetName = tuple[str, str, str]  # tenant, project, dataset


class Row(msgspec.Struct, frozen=True):
    """One point, as the run of an attempt wrote it."""

    dataset: DatasetName
    generation: int
    job_id: str
    attempt: int
    run: str


class Deed(msgspec.Struct, frozen=True):
    """Something that was done for a job. ``at`` is on ``time.time``; ``by`` is the instance of a worker."""

    at: float
    what: str
    job_id: str
    attempt: int
    run: str
    by: str


WROTE: Final = "wrote"
BEGAN: Final = "began"
PUBLISHED: Final = "published"
DIED: Final = "died"
CLEARED: Final = "cleared"


class Shelf:
    """Threads of any worker may use it at once."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self._rows: list[Row] = []
        self._lock = threading.Lock()

    def note(self, what: str, job_id: str, attempt: int, run: str, by: str) -> None:
        with self._lock:
            self.deeds.append(Deed(time.time(), what, job_id, attempt, run, by))

    def number_of(self, job_id: str, run: str) -> int:
        """Which of the runs of the job this is, from 0, in the order in which they began."""
        return [deed.run for deed in self.done(BEGAN) if deed.job_id == job_id].index(run)

    def done(self, what: str) -> list[Deed]:
        """The deeds of one kind, in order."""
        with self._lock:
            return [deed for deed in self.deeds if deed.what == what]

    def put(self, row: Row, by: str) -> None:
        with self._lock:
            self._rows.append(row)
            self.deeds.append(Deed(time.time(), WROTE, row.job_id, row.attempt, row.run, by))

    def discard_unpublished(self, dataset: DatasetName, live: int) -> None:
        self._keep(lambda row: row.dataset != dataset or row.generation <= live)

    def collect(self, dataset: DatasetName, generation: int) -> None:
        """Remove the generation that was live before, which nobody reads any more."""
        self._keep(lambda row: row.dataset != dataset or row.generation != generation)

    def undo(self, dataset: DatasetName, job_id: str, attempts: int, live: int) -> None:
        """Remove what those attempts wrote above generation *live*."""
        self._keep(
            lambda row: (
                (row.dataset, row.job_id) != (dataset, job_id)
                or row.attempt > attempts
                or row.generation <= live
            )
        )

    def rows(self) -> Iterator[Row]:
        with self._lock:
            return iter(list(self._rows))

    def contents(self) -> tuple[StoredGeneration, ...]:
        """As the store describes itself to ``pharos-bus check``."""
        counts = Counter((*row.dataset, row.generation) for row in self.rows())
        return tuple(
            StoredGeneration(tenant=tenant, project=project, dataset=dataset, generation=generation, points=n)
            for (tenant, project, dataset, generation), n in counts.items()
        )

    def inspect(self, live: LiveGeneration) -> InspectedDataset:
        """As the store describes a dataset. Every run here writes all of it: what an earlier one wrote
        is retired as soon as a later one is live.
        """
        name = (live.tenant, live.project, live.dataset)
        numbers = [row.generation for row in self.rows() if row.dataset == name]
        seen = numbers.count(live.generation)
        return InspectedDataset(
            live=live,
            chunks=seen,
            files=1,
            without_vector=0,
            documents=seen,
            lexicon_unused=0,
            graph=GraphState.WHOLE,
            graph_files=1,
            retired=sum(number < live.generation for number in numbers),
            later=sum(number > live.generation for number in numbers),
        )

    def _keep(self, stays: Callable[[Row], bool]) -> None:
        with self._lock:
            self._rows = [row for row in self._rows if stays(row)]
