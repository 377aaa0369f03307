"""Deleting what was indexed: the jobs that would bring it back are stopped first, then it goes, step by step.

Everything here can be repeated: whoever asks again after a failure deletes what is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import msgspec
import structlog

from pharos_contracts import rpc
from pharos_contracts.batches.v1 import connection_dataset
from pharos_contracts.control.v1 import Action
from pharos_contracts.datasets.v1 import DatasetDeleted, DeleteDataset, FindDatasets, FoundDatasets
from pharos_contracts.identity import documents_dataset, token
from pharos_contracts.jobs.v1 import ActiveJob, Job, SubmitJob, command_of
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.workers.v1 import Worker
from pharos_gateway.controlling import InvalidTransition
from pharos_gateway.sight import Sight
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusError
from pharos_service.pull import CaughtUp

log = structlog.get_logger()

FIND_SECONDS: Final = 1.8  # that nobody owns the store is told within two seconds
STEP_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 5.0
LET_GO_SECONDS: Final = 8.0
DELETE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
STOPPED_AT_ONCE: Final = 8
JOBS_MAX: Final = 1_000  # that are stopped in one round
# A batch that its owner has not started yet brings nothing back.
IDLE: Final = TERMINAL | {JobState.PENDING}
ROUNDS_MAX: Final = 10


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be deleted of a project: one dataset, or all of a repository (``host/owner/name``)."""

    tenant: str
    project: str
    dataset: str | None = None
    repository: str | None = None


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """Which datasets are gone, with how many vectors; and the jobs that were cancelled on the way."""

    datasets: tuple[str, ...]
    vectors: int
    jobs: tuple[str, ...]


class _Stopped(msgspec.Struct, frozen=True):
    """A job that was open, and whether it is cancelled now."""

    command: SubmitJob
    cancelled: bool


class StoreUnavailable(Exception):
    """No process that owns the store answers, or it refused. What was deleted until then stays deleted."""


class DeletionUnfinished(Exception):
    """It takes longer than anybody is to wait for it."""


class Known(Protocol):
    """What this process has seen lately."""

    def workers(self) -> Sequence[Worker]: ...
    def recent_jobs(self) -> Sequence[Job]: ...


class Control(Protocol):
    """Asks the scheduler for something."""

    async def control(self, sight: Sight, identifier: str, action: Action, *, by: str) -> Job | None: ...


def name_of(command: SubmitJob) -> str | None:
    """The dataset that *command* writes; None where only its worker finds out."""
    if command.dataset is not None:
        return command.dataset
    if command.document is not None:
        return documents_dataset(command.document.label)
    source = command.source
    return None if source is None or source.branch is None else f"{source.identity}@{source.branch}"


def concerns(command: SubmitJob, wanted: Wanted) -> bool:
    """Whether the job of *command* writes what is to be deleted, or may.

    A job that names neither its dataset nor a branch may write any that is called after its repository.
    """
    if (command.tenant, command.project) != (wanted.tenant, wanted.project):
        return False
    if wanted.repository is not None:
        source = command.source
        return source is not None and source.identity.lower() == wanted.repository.lower()
    assert wanted.dataset is not None, "one of the two is given"
    if command.batch is not None:
        return wanted.dataset in {connection_dataset(part.connection_id) for part in command.batch.parts}
    name = name_of(command)
    if name is not None or command.source is None:
        return name == wanted.dataset
    return wanted.dataset.startswith(f"{command.source.identity}@")


class Deleting:
    """The use case. One object serves every request of a process."""

    def __init__(
        self,
        bus: Bus,
        active: Bucket[ActiveJob],
        control: Control,
        known: Known,
    ) -> None:
        self._bus = bus
        self._active = active
        self._control = control
        self._known = known

    async def delete(self, wanted: Wanted, *, by: str) -> Deleted | None:
        """Delete it; None where there is no such thing.

        StoreUnavailable, DeletionUnfinished, BusError, and what ``Control`` raises.
        """
        try:
            async with asyncio.timeout(DELETE_SECONDS):
                return await self._delete(wanted, by)
        except TimeoutError:
            raise DeletionUnfinished from None

    async def _delete(self, wanted: Wanted, by: str) -> Deleted | None:
        # First, since nothing is stopped for a deletion that cannot follow.
        names = await self._find(wanted)
        stopped = await self._stop_all(wanted, by)
        if not names and not stopped:
            return None
        if stopped:
            await self._until_let_go(stopped)
            names |= await self._find(wanted)
            names |= {name for name in (name_of(each.command) for each in stopped.values()) if name}
            if wanted.dataset is not None:
                names = {wanted.dataset}
        vectors = 0
        for name in sorted(names):
            vectors += await self._delete_one(wanted, name)
        log.info("datasets_deleted", tenant=wanted.tenant, datasets=len(names), vectors=vectors)
        return Deleted(
            datasets=tuple(sorted(names)),
            vectors=vectors,
            jobs=tuple(sorted(job_id for job_id, each in stopped.items() if each.cancelled)),
        )

    async def _find(self, wanted: Wanted) -> set[str]:
        question = FindDatasets(
            tenant=wanted.tenant,
            project=wanted.project,
            dataset=wanted.dataset,
            repository=wanted.repository,
        )
        try:
            found = await ask(self._bus, rpc.STORE, question, FoundDatasets, timeout=FIND_SECONDS)
        except (NobodyAnswers, QuestionRefused) as error:
            raise StoreUnavailable(str(error)) from error
        return set(found.datasets)

    async def _stop_all(self, wanted: Wanted, by: str) -> dict[str, _Stopped]:
        """Cancel every open job that concerns *wanted*; those that there were, by their ids."""
        seen: set[str] = set()
        stopped: dict[str, _Stopped] = {}
        for _ in range(ROUNDS_MAX):
            found = await self._open_jobs(wanted, but=seen)
            if not found:
                break
            turn = asyncio.Semaphore(STOPPED_AT_ONCE)
            for each in await asyncio.gather(*(self._stop(turn, command, by) for command in found)):
                if each is not None:
                    stopped[each.command.job_id] = each
            seen |= {command.job_id for command in found}
        return stopped

    async def _open_jobs(self, wanted: Wanted, *, but: Collection[str]) -> list[SubmitJob]:
        """At most 1,000 of them: those that were claimed, and those seen lately, such as batches."""
        found = {
            job.job_id: command_of(job)
            for job in self._known.recent_jobs()
            if job.state not in IDLE and job.job_id not in but and concerns(command_of(job), wanted)
        }
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                async with aclosing(self._active.watch(f"{token(wanted.tenant)}.>")) as claims:
                    async for claim in claims:
                        if isinstance(claim, CaughtUp) or len(found) >= JOBS_MAX:
                            break
                        if isinstance(claim, Entry):
                            command = claim.value.command
                            if command.job_id not in but and concerns(command, wanted):
                                found[command.job_id] = command
        except TimeoutError:
            raise BusError("What is being indexed cannot be read") from None
        return list(found.values())

    async def _stop(self, turn: asyncio.Semaphore, command: SubmitJob, by: str) -> _Stopped | None:
        """None where there was nothing to stop: a claim may outlive its job for a moment."""
        async with turn:
            try:
                job = await self._control.control(
                    Sight(tenant=command.tenant), command.job_id, Action.CANCEL, by=by
                )
            except InvalidTransition as error:
                log.info("job_not_cancelled", job_id=command.job_id, state=error.state)
                # One that is publishing is waited for.
                return None if error.state in TERMINAL else _Stopped(command, cancelled=False)
        return None if job is None else _Stopped(command, cancelled=True)

    async def _until_let_go(self, job_ids: Collection[str]) -> None:
        """Wait for workers that still have one of these in hand.

        Not for longer than a live one takes: what one that is cut off still writes it cannot publish, and it
        is cleared away.
        """
        try:
            async with asyncio.timeout(LET_GO_SECONDS):
                while True:
                    # Of a batch a worker holds a file, and names it behind the job's id.
                    held = {
                        name.partition(".")[0] for worker in self._known.workers() for name in worker.job_ids
                    }
                    if held.isdisjoint(job_ids):
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            log.warning("job_not_let_go", jobs=len(job_ids))

    async def _delete_one(self, wanted: Wanted, name: str) -> int:
        vectors, generation = 0, 0
        while True:
            command = DeleteDataset(
                tenant=wanted.tenant, project=wanted.project, dataset=name, generation=generation
            )
            try:
                step = await ask(self._bus, rpc.STORE, command, DatasetDeleted, timeout=STEP_SECONDS)
            except (NobodyAnswers, QuestionRefused) as error:
                raise StoreUnavailable(str(error)) from error
            vectors, generation = vectors + step.vectors, step.generation
            if not step.left:
                return vectors
