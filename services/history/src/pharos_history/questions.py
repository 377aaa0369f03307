"""Answers to what other services ask of history; refusals are answers too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from pharos_contracts.history.v1 import FindJob, JobLog, JobPage, ListJobs, ReadLog
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import Refused
from pharos_history.database import DatabaseUnavailable
from pharos_history.view_store import ViewStore

Question = ListJobs | FindJob | ReadLog

LIST_MAX: Final = 1000
LOG_MAX: Final = 500
READERS_MAX: Final = 4

_STATES: Final = frozenset(state.value for state in JobState)

A = TypeVar("A")


class Questions:
    """Each question is answered in a thread; at most four at once, the others wait their turn."""

    def __init__(self, store: ViewStore) -> None:
        self._store = store
        self._readers = anyio.CapacityLimiter(READERS_MAX)

    async def answer(self, question: Question) -> JobPage | JobLog | Refused:
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
        case ListJobs(states=states) if not _STATES.issuperset(states):
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
