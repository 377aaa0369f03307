"""Answers to what other services ask of history; refusals are answers too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from pharos_contracts.history.v1 import (
    BatchPage,
    BatchSummary,
    FindJob,
    ItemPage,
    JobLog,
    JobPage,
    ListBatches,
    ListItems,
    ListJobs,
    MeasureSources,
    ReadLog,
    SourceRates,
    SummarizeBatches,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import Refused
from pharos_history.database import DatabaseUnavailable
from pharos_history.view_store import ViewStore

Question = ListJobs | FindJob | ReadLog | ListBatches | ListItems | SummarizeBatches | MeasureSources
Answer = JobPage | JobLog | BatchPage | ItemPage | BatchSummary | SourceRates

LIST_MAX: Final = 1000
LOG_MAX: Final = 500
BATCHES_MAX: Final = 100
ITEMS_MAX: Final = 10_000
OFFSET_MAX: Final = 1_000_000
READERS_MAX: Final = 4

_STATES: Final = frozenset(state.value for state in JobState)

A = TypeVar("A", bound=Answer)


class Questions:
    """Each question is answered in a thread; at most four at once, the others wait their turn."""

    def __init__(self, store: ViewStore) -> None:
        self._store = store
        self._readers = anyio.CapacityLimiter(READERS_MAX)

    async def answer(self, question: Question) -> Answer | Refused:
        """The answer; 400 for a question that makes no sense, 503 while the database is away."""
        mistake = mistake_in(question)
        if mistake is not None:
            return mistake
        try:
            match question:
                case ListJobs():
                    return await self._in_thread(self._store.list_jobs, question)
                case FindJob():
                    return await self._in_thread(self._store.find_job, question)
                case ReadLog():
                    return await self._in_thread(self._store.read_log, question)
                case ListBatches():
                    return await self._in_thread(self._store.list_batches, question)
                case ListItems():
                    return await self._in_thread(self._store.list_items, question)
                case SummarizeBatches():
                    return await self._in_thread(self._store.summarize_batches, question)
                case MeasureSources():
                    return await self._in_thread(self._store.measure_sources, question)
        except DatabaseUnavailable as error:
            return Refused(code="history_unavailable", detail=f"History cannot be read: {error}", status=503)

    async def _in_thread(self, ask: Callable[[Q], A], question: Q) -> A:
        return await anyio.to_thread.run_sync(ask, question, limiter=self._readers)


Q = TypeVar("Q", bound=Question)


def mistake_in(question: Question) -> Refused | None:
    """What is wrong with *question*; None where nothing is."""
    match question:
        case ListJobs(limit=limit) if not 1 <= limit <= LIST_MAX:
            return _refused("invalid_limit", f"limit must be from 1 to {LIST_MAX}, not {limit}")
        case ListBatches(limit=limit) if not 1 <= limit <= BATCHES_MAX:
            return _refused("invalid_limit", f"limit must be from 1 to {BATCHES_MAX}, not {limit}")
        case ListBatches(offset=offset) if not 0 <= offset <= OFFSET_MAX:
            return _refused("invalid_offset", f"offset must be from 0 to {OFFSET_MAX}, not {offset}")
        case ListItems(limit=limit) if not 1 <= limit <= ITEMS_MAX:
            return _refused("invalid_limit", f"limit must be from 1 to {ITEMS_MAX}, not {limit}")
        case ListItems(first=first) if not 0 <= first <= ITEMS_MAX:
            return _refused("invalid_limit", f"first must be from 0 to {ITEMS_MAX}, not {first}")
        case ListJobs(states=states) | ListBatches(states=states) if not _STATES.issuperset(states):
            unknown = ", ".join(sorted(set(states) - _STATES))
            return _refused("unknown_state", f"There is no state {unknown}")
        case FindJob(job_id=None, number=None):
            return _refused("nothing_to_find", "Give a job_id or a number")
        case ReadLog(limit=limit) if not 1 <= limit <= LOG_MAX:
            return _refused("invalid_limit", f"limit must be from 1 to {LOG_MAX}, not {limit}")
        case _:
            return None


def _refused(code: str, detail: str) -> Refused:
    return Refused(code=code, detail=detail[:500], status=400)
