"""The queue of repository jobs, as the gateway reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog

from pharos_contracts import subjects
from pharos_contracts.identity import token
from pharos_contracts.jobs.v1 import Job, SubmitJob, job_of
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import Q
from pharos_service.bus import Bus, Stored

log = structlog.get_logger()

# Above this many holes the server's list of them would not fit into one answer.
HOLES_MAX: Final = 50_000
SCAN_MAX: Final = 256


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """What Q holds: ``size`` of ``capacity`` messages from ``first`` to ``last``; ``holes`` are not there."""

    size: int
    capacity: int
    first: int
    last: int
    holes: tuple[int, ...] = ()


def position(state: QueueState, number: int) -> int:
    """The place of command *number*: the commands before it that still wait, plus one.

    A command that has left the queue already is told that it is the next one.
    """
    if not state.first <= number <= state.last or number in state.holes:
        return 1
    before = number - state.first - sum(1 for hole in state.holes if state.first <= hole < number)
    return max(1, min(before + 1, max(state.size, 1)))


class Waiting(msgspec.Struct, frozen=True):
    """A command in Q, and the number that Q gave it."""

    command: SubmitJob
    number: int

    @property
    def job(self) -> Job:
        return job_of(self.command, self.number)


class Queue:
    """Reads of Q. Errors of the bus pass through."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def state(self) -> QueueState:
        """Size, cap and holes, as of one moment."""
        info = await self._bus.api(f"STREAM.INFO.{Q}")
        if 0 < int(info["state"].get("num_deleted", 0)) <= HOLES_MAX:
            info = await self._bus.api(f"STREAM.INFO.{Q}", {"deleted_details": True})
        return _state(info)

    async def of_job(self, job_id: str) -> Waiting | None:
        return _read(await self._bus.first(Q, subjects.command_filter(job_id)))

    async def of_same_work(self, command: SubmitJob) -> Waiting | None:
        return _read(await self._bus.first(Q, subjects.same_work_filter(command)))

    async def numbered(self, number: int) -> Waiting | None:
        """The command that is *number*, if it still waits."""
        found = _read(await self._bus.first(Q, "cmd.ingest.>", number))
        return found if found is not None and found.number == number else None

    async def waiting(self, tenant: str | None) -> Sequence[Waiting]:
        """The commands of *tenant* (None: all) among the last 256 numbers of Q, oldest first."""
        state = await self.state()
        subject = f"cmd.ingest.{'*' if tenant is None else token(tenant)}.*.*.*"
        found: list[Waiting] = []
        sequence = max(state.first, state.last - SCAN_MAX + 1, 1)
        while sequence <= state.last and len(found) < SCAN_MAX:
            stored = await self._bus.first(Q, subject, sequence)
            if stored is None:
                break
            waiting = _read(stored)
            if waiting is not None:
                found.append(waiting)
            sequence = stored.sequence + 1
        return found


def _state(info: dict[str, Any]) -> QueueState:
    state = info["state"]
    return QueueState(
        size=int(state["messages"]),
        capacity=int(info["config"]["max_msgs"]),
        first=int(state["first_seq"]),
        last=int(state["last_seq"]),
        holes=tuple(state.get("deleted") or ()),
    )


def _read(stored: Stored | None) -> Waiting | None:
    if stored is None:
        return None
    try:
        return Waiting(decode(stored.data, SubmitJob), stored.sequence)
    except UnreadableMessage as error:
        log.warning("command_unreadable", sequence=stored.sequence, error=error.reason)
        return None
