"""Workers in the words of the ingestion API, and what they mean for a submit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from pharos_contracts.subjects import POOL_DEFAULT
from pharos_contracts.workers.v1 import Worker, WorkerState, slots_of

PRIVATE: Final = "a private repository"
TARGET_ANY: Final = "any"
RETRY_SECONDS_MIN: Final = 5
RETRY_SECONDS_MAX: Final = 300
RETRY_SECONDS_UNKNOWN: Final = 30


class WorkerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. ``job_id`` is the number of its job, None where there is none or it is not yours to see.

    Memory is in bytes; None where it cannot be told.
    """

    name: str
    status: str
    device: str
    job_id: int | None
    since: datetime
    last_seen: datetime
    memory_used: int | None
    memory_total: int | None


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``Idle``, ``Training Graph on …``, ``Error: …`` or ``Offline``; and each worker by itself."""

    status: str
    workers: tuple[WorkerLine, ...]


def is_visible(worker: Worker, sees: str | None) -> bool:
    """Whether who sees tenant *sees* (None: all) may know what *worker* is working on."""
    return sees is None or worker.tenant is None or worker.tenant == sees


def words(worker: Worker, sees: str | None) -> str:
    """What *worker* does, told to somebody who sees tenant *sees*."""
    visible = is_visible(worker, sees)
    match worker.state:
        case WorkerState.ERROR:
            message = (worker.error or "unknown") if visible else f"a job of {PRIVATE} failed"
            return f"Error: {message}"
        case WorkerState.BUSY:
            return f"Training Graph on {_repository(worker, visible)}"
        case WorkerState.DRAINING if worker.job_ids:
            return f"Training Graph on {_repository(worker, visible)}"
        case WorkerState.DRAINING:
            return "Offline"  # it takes no more jobs
        case WorkerState.IDLE:
            return "Idle"


def _repository(worker: Worker, visible: bool) -> str:
    return (worker.repository or "a repository") if visible else PRIVATE


def summary(workers: Sequence[Worker], sees: str | None) -> str:
    """All workers in one phrase: work first (one's own before others'), then errors, then idleness."""
    ordered = sorted(workers, key=lambda worker: (not is_visible(worker, sees), worker.name))
    said = [words(worker, sees) for worker in ordered]
    for beginning in ("Training", "Error", "Idle"):
        for phrase in said:
            if phrase.startswith(beginning):
                return phrase
    return "Offline"


def status_of(workers: Sequence[Worker], sees: str | None, numbers: dict[str, int]) -> WorkerStatus:
    """The answer for somebody who sees tenant *sees*; *numbers* has the number of each known job."""
    lines = tuple(
        WorkerLine(
            name=worker.name,
            status=words(worker, sees),
            device=worker.device,
            job_id=numbers.get(worker.job_ids[0]) if worker.job_ids and is_visible(worker, sees) else None,
            since=worker.since,
            last_seen=worker.seen_at,
            memory_used=worker.memory_used or None,
            memory_total=worker.memory_total or None,
        )
        for worker in sorted(workers, key=lambda worker: worker.name)
    )
    return WorkerStatus(status=summary(workers, sees), workers=lines)


def target(workers: Sequence[Worker], pool: str = POOL_DEFAULT) -> str:
    """The live worker that would take the next job of *pool*: the one with the most room; ``any`` while none
    lives.
    """
    takers = [
        worker
        for worker in workers
        if worker.state is not WorkerState.DRAINING and slots_of(worker, pool) > 0
    ]
    if not takers:
        return TARGET_ANY
    return min(takers, key=lambda worker: (len(worker.job_ids) - slots_of(worker, pool), worker.name)).name


def retry_after_seconds(durations_seconds: Sequence[float], slots: int) -> int:
    """When a full queue may have room again: the mean time of recent jobs over the slots that run them."""
    if not durations_seconds:
        return RETRY_SECONDS_UNKNOWN
    mean = sum(durations_seconds) / len(durations_seconds)
    return int(min(max(mean / max(slots, 1), RETRY_SECONDS_MIN), RETRY_SECONDS_MAX))
