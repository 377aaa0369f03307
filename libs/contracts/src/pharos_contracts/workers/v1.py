"""What a worker tells of itself, version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from pharos_contracts.message import Message
from pharos_contracts.subjects import POOL_DOCUMENTS


class WorkerState(StrEnum):
    IDLE = "idle"
    BUSY = "busy"
    ERROR = "error"
    DRAINING = "draining"


class Worker(Message, frozen=True, kw_only=True, tag="workers.view.v1.worker"):
    """One worker process, as of its last heartbeat; the bucket forgets it when heartbeats stop.

    ``slots`` are for repositories, ``document_slots`` for documents: neither waits for the other's.
    ``instance`` changes with every start, so that a restarted worker is not taken for the one that died.
    Memory is in bytes: the device's where it has its own, else the machine's; 0 where it cannot be told.
    """

    name: str
    instance: str
    pool: str
    state: WorkerState
    device: str
    slots: int
    document_slots: int = 0
    job_ids: tuple[str, ...] = ()
    tenant: str | None = None
    repository: str | None = None
    stage: str | None = None
    error: str | None = None
    since: datetime
    seen_at: datetime
    memory_used: int = 0
    memory_total: int = 0
    versions: dict[str, str] = msgspec.field(default_factory=dict)


def slots_of(worker: Worker, pool: str) -> int:
    """How many jobs of *pool* the worker holds at once."""
    return worker.document_slots if pool == POOL_DOCUMENTS else worker.slots
