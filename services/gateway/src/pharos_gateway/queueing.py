"""The queues of repositories (Q) and of documents (DOCS), as the gateway reads them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from pharos_contracts import subjects
from pharos_contracts.identity import token
from pharos_contracts.jobs.v1 import NO_NUMBER, Job, Priority, SubmitJob, job_of
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import DOCS, Q
from pharos_service.bus import Bus, Stored

log = structlog.get_logger()

T = TypeVar("T")

# Above this many holes the server's list of them would not fit into one answer.
HOLES_MAX: Final = 50_000
SCAN_MAX: Final = 256

_FIRST_TOKENS: Final[Mapping[str, str]] = {Q: "cmd.ingest", DOCS: "cmd.document"}


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue holds: ``size`` of ``capacity`` messages, from ``first`` to ``last`` without ``holes``."""

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


class QueueReport(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in the queues now: jobs that were resumed, are tried again or were scheduled wait outside.

    ``depth`` counts both queues; ``capacity`` is that of repositories and ``documents_capacity`` that of
    documents, each for all tenants together. ``oldest_age_seconds`` is None where nothing waits.
    ``by_kind`` tells repositories from documents. ``by_tenant`` is told to an admin.
    """

    depth: int
    capacity: int
    documents_capacity: int
    oldest_age_seconds: float | None
    by_priority: dict[str, int]
    by_kind: dict[str, int]
    by_tenant: dict[str, int] | UnsetType = UNSET


class Waiting(msgspec.Struct, frozen=True):
    """A command in a queue, and the number that Q gave it: NO_NUMBER of a document."""

    command: SubmitJob
    number: int

    @property
    def job(self) -> Job:
        return job_of(self.command, self.number)


def tenant_filter(tenant: str | None, stream: str = Q) -> str:
    """The commands of *tenant*, None is every one, that wait: the scope in which its queue is counted."""
    return f"{_FIRST_TOKENS[stream]}.{'*' if tenant is None else token(tenant)}.*.*.*"


class Shared(Generic[T]):
    """One question for everybody who asks at the same time; each hears what was true after it asked.

    While an answer is on its way, all who come share the question that follows it.
    """

    def __init__(self, question: Callable[[], Awaitable[T]]) -> None:
        self._question = question
        self._asked: asyncio.Task[T] | None = None
        self._following: asyncio.Task[T] | None = None

    async def ask(self) -> T:
        """The answer; raises what the question raises."""
        if self._following is None:
            self._following = asyncio.create_task(self._after(self._asked))
            self._following.add_done_callback(_heard)
        return await asyncio.shield(self._following)

    async def _after(self, asked: asyncio.Task[T] | None) -> T:
        if asked is not None:
            await asyncio.wait([asked])
        self._asked, self._following = self._following, None
        return await self._question()


def _heard(asked: asyncio.Task[T]) -> None:
    """Whoever asked may have gone since: an error that nobody waits for is no news."""
    if not asked.cancelled():
        asked.exception()


class Queue:
    """Reads of Q, or of another *stream* of commands. Errors of the bus pass through."""

    def __init__(self, bus: Bus, stream: str = Q) -> None:
        self._bus = bus
        self._stream = stream
        self._sizes = Shared(self._read_size)

    async def size(self) -> QueueState:
        """Size and cap, as of a moment after the call; holes are not looked for."""
        return await self._sizes.ask()

    async def _read_size(self) -> QueueState:
        return _state(await self._bus.api(f"STREAM.INFO.{self._stream}"))

    async def state(self) -> QueueState:
        """Size, cap and holes, as of one moment."""
        info = await self._bus.api(f"STREAM.INFO.{self._stream}")
        if 0 < int(info["state"].get("num_deleted", 0)) <= HOLES_MAX:
            info = await self._bus.api(f"STREAM.INFO.{self._stream}", {"deleted_details": True})
        return _state(info)

    async def of_job(self, job_id: str) -> Waiting | None:
        of_job = subjects.command_filter if self._stream == Q else subjects.document_command_filter
        return self._read(await self._bus.first(self._stream, of_job(job_id)))

    async def of_same_work(self, command: SubmitJob) -> Waiting | None:
        return self._read(await self._bus.first(self._stream, subjects.same_work_filter(command)))

    async def numbered(self, number: int) -> Waiting | None:
        """The command that is *number*, if it still waits; of repositories, as no other has one."""
        found = self._read(await self._bus.first(self._stream, tenant_filter(None, self._stream), number))
        return found if found is not None and found.number == number else None

    async def last_of(self, tenant: str) -> int:
        """The sequence of the last command of *tenant* that waits; 0 where none does."""
        stored = await self._bus.last(self._stream, tenant_filter(tenant, self._stream))
        return 0 if stored is None else stored.sequence

    async def size_of(self, tenant: str) -> int:
        """How many commands of *tenant* wait."""
        return len(await self.subjects(tenant))

    async def oldest(self, tenant: str | None) -> Waiting | None:
        """The command of *tenant* (None: of all) that came first."""
        return self._read(await self._bus.first(self._stream, tenant_filter(tenant, self._stream)))

    async def subjects(self, tenant: str | None) -> Sequence[Sequence[str]]:
        """The subjects of what waits, in their parts; each command has one of its own."""
        info = await self._bus.api(
            f"STREAM.INFO.{self._stream}", {"subjects_filter": tenant_filter(tenant, self._stream)}
        )
        return [subject.split(".") for subject in info["state"].get("subjects") or ()]

    async def waiting(self, tenant: str | None) -> Sequence[Waiting]:
        """The commands of *tenant* (None: all) among the last 256 numbers, oldest first."""
        state = await self.state()
        subject = tenant_filter(tenant, self._stream)
        found: list[Waiting] = []
        sequence = max(state.first, state.last - SCAN_MAX + 1, 1)
        while sequence <= state.last and len(found) < SCAN_MAX:
            stored = await self._bus.first(self._stream, subject, sequence)
            if stored is None:
                break
            waiting = self._read(stored)
            if waiting is not None:
                found.append(waiting)
            sequence = stored.sequence + 1
        return found

    def _read(self, stored: Stored | None) -> Waiting | None:
        if stored is None:
            return None
        try:
            command: SubmitJob = decode(stored.data, SubmitJob)
        except UnreadableMessage as error:
            log.warning("command_unreadable", sequence=stored.sequence, error=error.reason)
            return None
        return Waiting(command, stored.sequence if self._stream == Q else NO_NUMBER)


async def report(
    repositories: Queue, documents: Queue, tenant: str | None, *, now: datetime, by_tenant: bool
) -> QueueReport:
    """What waits, of *tenant*; None is every one's."""
    found = [
        (await queue.subjects(tenant), await queue.oldest(tenant)) for queue in (repositories, documents)
    ]
    commands = [parts for each, _ in found for parts in each]
    submitted = [oldest.command.submitted_at for _, oldest in found if oldest is not None]
    return QueueReport(
        depth=len(commands),
        capacity=(await repositories.size()).capacity,
        documents_capacity=(await documents.size()).capacity,
        oldest_age_seconds=None
        if not submitted
        else round(max(0.0, (now - min(submitted)).total_seconds()), 3),
        by_priority={
            priority.value: sum(parts[3] == priority for parts in commands) for priority in Priority
        },
        by_kind={"repository": len(found[0][0]), "document": len(found[1][0])},
        by_tenant=dict(sorted(Counter(parts[2] for parts in commands).items())) if by_tenant else UNSET,
    )


def _state(info: dict[str, Any]) -> QueueState:
    state = info["state"]
    return QueueState(
        size=int(state["messages"]),
        capacity=int(info["config"]["max_msgs"]),
        first=int(state["first_seq"]),
        last=int(state["last_seq"]),
        holes=tuple(state.get("deleted") or ()),
    )
