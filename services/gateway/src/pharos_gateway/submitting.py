"""Submitting a repository or a document: one job for one piece of work, however often and where it is asked.

The order of the writes is what makes it safe. The entry in the bucket ``active`` is created before the
command is published, so that of two submits one finds the other's entry. Whatever fails between the two
leaves an entry without a job, which the next submit takes over. The publish itself is guarded a second time
by the subjects of its queue, whose scope is the same work; or the whole tenant, where its queue has a limit:
what was counted is still true when the publish names the last command that was there before the count.

Repositories wait in Q, documents in DOCS: each with a cap, a place and slots of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec
import structlog
from nats.js.api import PubAck

from pharos_contracts import subjects
from pharos_contracts.control.v1 import Place
from pharos_contracts.identity import PROJECT_DEFAULT, documents_dataset, fingerprint, work_key
from pharos_contracts.jobs.v1 import (
    NO_NUMBER,
    ActiveJob,
    DocumentSource,
    Job,
    JobKind,
    Priority,
    RepositorySource,
    Scope,
    SubmitJob,
    job_of,
)
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import Message
from pharos_contracts.streams import DOCS, Q
from pharos_contracts.subjects import POOL_DEFAULT, POOL_DOCUMENTS, pool_of
from pharos_contracts.workers.v1 import Worker, slots_of
from pharos_gateway import statuses
from pharos_gateway.callback_url import CallbackAddress, InvalidCallbackUrl
from pharos_gateway.queueing import QueueState, Waiting, position, tenant_filter
from pharos_gateway.quotas import TooManyJobs
from pharos_gateway.resolving import Address, HostRefused
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import (
    Bus,
    BusError,
    BusRefused,
    FateUnknown,
    StreamFull,
    WrongLastSequence,
)
from pharos_sources.repository_url import RepositoryAddress

__all__ = [
    "DocumentOrder",
    "HostRefused",
    "Order",
    "QueueFull",
    "QueueUnavailable",
    "Remembered",
    "Submitted",
    "Submitting",
    "TenantQueueFull",
]

log = structlog.get_logger()

SUBMIT_SECONDS: Final = 1.8  # an answer, whatever it is, within two seconds
ORPHAN_SECONDS: Final = 10.0
EXPIRY_KEPT_SECONDS: Final = 8 * 86_400  # longer than the marker of an expired command is kept
POLL_SECONDS: Final = 0.05
PUBLISHES_MAX: Final = 3
COUNTS_MAX: Final = 30
COUNT_AGAIN_SECONDS: Final = 0.01
PLACE_SECONDS: Final = 0.1
DISPATCHED: Final = "dispatched"
NEVER_SEEN: Final = QueueState(size=0, capacity=0, first=1, last=0)
UNDECIDED: Final = "An earlier submit of the same is still being decided"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for, checked. ``sha`` wins over ``branch``.

    ``quota`` is whose jobs of the day this is one of; None is nobody's. ``dataset`` None is the one that is
    called after the repository and its branch.
    """

    tenant: str
    user: str
    address: RepositoryAddress
    branch: str | None = None
    sha: str | None = None
    force: bool = False
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    callback: CallbackAddress | None = None
    quota: str | None = None
    project: str = PROJECT_DEFAULT
    dataset: str | None = None
    scope: Scope = Scope.PROJECT


class DocumentOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A document that somebody wants read, checked; ``kind`` says how it was sent.

    ``address`` is that of a page. What was uploaded is told apart by its content: another version of a
    document that still waits is another job, which follows it.
    """

    tenant: str
    user: str
    kind: JobKind
    document: DocumentSource
    address: Address | None = None
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    callback: CallbackAddress | None = None
    quota: str | None = None
    project: str = PROJECT_DEFAULT


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A job was accepted, or the one that does the same already was (``deduplicated``).

    ``job_id`` is the job's number, 0 of a document, ``id`` its UUID. ``queue_position`` is 0 for a job that
    runs already.
    """

    status: str
    job_id: int
    queue_position: int
    target: str
    queue_size: int
    max_queue_size: int
    id: str
    deduplicated: bool = False


class Remembered(Message, frozen=True, kw_only=True, tag="idempotency.view.v1.submit"):
    """What an Idempotency-Key stands for: the job that it started, and the answer once there was one."""

    job_id: str
    answer: Submitted | None = None


class QueueFull(Exception):
    """The queue holds as many jobs as it may."""

    def __init__(self, size: int, capacity: int, retry_after_seconds: int) -> None:
        super().__init__("Queue is full")
        self.size = size
        self.capacity = capacity
        self.retry_after_seconds = retry_after_seconds


class TenantQueueFull(Exception):
    """As many jobs of the tenant wait as may."""

    def __init__(self, size: int, capacity: int, retry_after_seconds: int) -> None:
        super().__init__("The tenant's queue is full")
        self.size = size
        self.capacity = capacity
        self.retry_after_seconds = retry_after_seconds


class QueueUnavailable(Exception):
    """The bus did not take the job; with a ``job_id`` it may have, and nobody can say yet."""

    def __init__(self, reason: str, job_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id


class Jobs(Protocol):
    """Where a job can be looked up at once."""

    async def known(self, tenant: str | None, job_id: str) -> Job | None: ...


class Pending(Protocol):
    """A queue."""

    async def size(self) -> QueueState: ...
    async def state(self) -> QueueState: ...
    async def of_same_work(self, command: SubmitJob) -> Waiting | None: ...
    async def last_of(self, tenant: str) -> int: ...
    async def size_of(self, tenant: str) -> int: ...


class Places(Protocol):
    """Whoever knows the order in which jobs will run."""

    async def of(self, job: Job, *, seconds: float) -> Place | None: ...


class Workers(Protocol):
    """What is known of workers."""

    def workers(self) -> Sequence[Worker]: ...
    def recent_durations_seconds(self, pool: str) -> Sequence[float]: ...


class Quota(Protocol):
    """How many jobs a user may start a day."""

    async def spend(self, user: str) -> None: ...
    def give_back(self, user: str) -> None: ...


class _Attempt:
    """How far a submit got: what a timeout means depends on it."""

    def __init__(self, quota: str | None) -> None:
        self.quota = quota
        self.counted = False
        self.command: SubmitJob | None = None  # set while its publish may or may not have been stored
        self.accepted: Job | None = None


class Submitting:
    """The use case. One object serves every request of a process."""

    def __init__(
        self,
        bus: Bus,
        repositories: Pending,
        documents: Pending,
        jobs: Jobs,
        workers: Workers,
        places: Places,
        *,
        active: Bucket[ActiveJob],
        remembered: Bucket[Remembered],
        check_host: Callable[[Address], Awaitable[None]],
        ttl_seconds: int,
        tenant_queue_max: int,
        now: Callable[[], datetime],
        new_job_id: Callable[[], str],
        jobs_of_the_day: Quota,
        deadline_seconds: float = SUBMIT_SECONDS,
    ) -> None:
        self._bus = bus
        self._queues: Mapping[str, Pending] = {POOL_DEFAULT: repositories, POOL_DOCUMENTS: documents}
        self._jobs = jobs
        self._workers = workers
        self._places = places
        self._active = active
        self._remembered = remembered
        self._check_host = check_host
        self._ttl_seconds = ttl_seconds
        self._tenant_queue_max = tenant_queue_max
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._now = now
        self._new_job_id = new_job_id
        self._jobs_of_the_day = jobs_of_the_day
        self._deadline_seconds = deadline_seconds
        self._last_states: dict[str, QueueState] = {}

    async def submit(self, order: Order | DocumentOrder) -> Submitted:
        """Accept *order*, or find the job that does the same.

        HostRefused, InvalidCallbackUrl, QueueFull, TenantQueueFull, TooManyJobs, QueueUnavailable.
        """
        return (await self.begin(order))[0]

    async def remembers(self, order: Order | DocumentOrder) -> bool:
        """Whether its Idempotency-Key stands for a job already. QueueUnavailable."""
        if order.idempotency_key is None:
            return False
        try:
            return await self._remembered.get(_remembered_key(order, order.idempotency_key)) is not None
        except BusError as error:
            raise QueueUnavailable(str(error)) from error

    async def begin(self, order: Order | DocumentOrder) -> tuple[Submitted, bool]:
        """As ``submit``; and whether this order began the job, and not an earlier one."""
        if not self._bus.connected:
            raise QueueUnavailable("Not connected to the bus")
        await asyncio.gather(self._check_address(order.address), self._check_callback(order.callback))
        attempt = _Attempt(order.quota)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await self._submit(order, attempt), attempt.accepted is not None
        except TimeoutError:
            if attempt.accepted is not None:
                return self._answer(attempt.accepted, self._guess(attempt.accepted), None), True
            if attempt.command is not None:
                raise QueueUnavailable("Connection timeout", attempt.command.job_id) from None
            raise QueueUnavailable(UNDECIDED if self._bus.connected else "Connection timeout") from None
        except BusError as error:
            raise QueueUnavailable(str(error)) from error
        finally:
            if attempt.quota is not None and attempt.counted and attempt.accepted is None:
                self._jobs_of_the_day.give_back(attempt.quota)

    async def _count(self, attempt: _Attempt) -> None:
        """One of the user's jobs of the day, once however often it is published. TooManyJobs."""
        if attempt.quota is not None and not attempt.counted:
            await self._jobs_of_the_day.spend(attempt.quota)
            attempt.counted = True

    async def _check_address(self, address: Address | None) -> None:
        if address is not None:
            await self._check_host(address)

    async def _check_callback(self, callback: CallbackAddress | None) -> None:
        if callback is not None:
            try:
                await self._check_host(callback)
            except HostRefused as error:
                raise InvalidCallbackUrl(error.reason) from error

    async def _submit(self, order: Order | DocumentOrder, attempt: _Attempt) -> Submitted:
        if order.idempotency_key is None:
            return await self._claim(self._command(order, self._new_job_id()), attempt)
        key = _remembered_key(order, order.idempotency_key)
        entry, fresh = await self._remember(key)
        if entry.value.answer is not None:
            return entry.value.answer
        job_id = entry.value.job_id
        job = None if fresh else await self._jobs.known(order.tenant, job_id)
        if job is None:
            # Published for the first time, or again: the fate of the first was unknown and nothing is stored.
            answer = await self._claim(self._command(order, job_id), attempt)
        else:
            answer = await self._answer_of(job, deduplicated=False)
        try:
            await self._remembered.update(key, Remembered(job_id=job_id, answer=answer), entry.revision)
        except BusError as error:  # the job id is remembered, and answers as well
            log.info("answer_not_remembered", job_id=job_id, reason=str(error))
        return answer

    async def _remember(self, key: str) -> tuple[Entry[Remembered], bool]:
        """The entry under *key*, and whether it is new."""
        value = Remembered(job_id=self._new_job_id())
        while True:
            revision = await self._remembered.create(key, value)
            if revision is not None:
                return Entry(key, value, revision), True
            found = await self._remembered.get(key)
            if found is not None:  # else it expired between the two
                return found, False

    def _command(self, order: Order | DocumentOrder, job_id: str) -> SubmitJob:
        if isinstance(order, DocumentOrder):
            return self._document_command(order, job_id)
        branch = order.branch if order.sha is None else None
        return SubmitJob(
            job_id=job_id,
            tenant=order.tenant,
            key=work_key(
                project=order.project,
                dataset=order.dataset,
                repository=order.address.key,
                ref=order.sha or branch,
            ),
            source=RepositorySource(
                identity=order.address.identity,
                clone_url=order.address.clone_url,
                branch=order.branch,
                sha=order.sha,
            ),
            project=order.project,
            dataset=order.dataset,
            scope=order.scope,
            priority=order.priority,
            force=order.force,
            submitted_at=self._now(),
            submitted_by=order.user,
            ttl_seconds=self._ttl_seconds,
            callback_url=None if order.callback is None else order.callback.url,
        )

    def _document_command(self, order: DocumentOrder, job_id: str) -> SubmitJob:
        document = order.document
        dataset = documents_dataset(document.label)
        return SubmitJob(
            job_id=job_id,
            tenant=order.tenant,
            key=work_key(
                project=order.project,
                dataset=dataset,
                repository=document.identity,
                ref=document.sha256,
            ),
            kind=order.kind,
            document=document,
            project=order.project,
            dataset=dataset,
            priority=order.priority,
            submitted_at=self._now(),
            submitted_by=order.user,
            ttl_seconds=self._ttl_seconds,
            callback_url=None if order.callback is None else order.callback.url,
        )

    async def _claim(self, command: SubmitJob, attempt: _Attempt) -> Submitted:
        """Claim the work, then publish; or the answer of whoever claimed it before."""
        key = subjects.active_key(command.tenant, command.key)
        claim = ActiveJob(command=command, created_at=self._now())
        publishes = 0
        while True:
            revision = await self._active.create(key, claim)
            if revision is None:
                entry = await self._active.get(key)
                if entry is None:
                    continue  # released in between
                if entry.value.command.job_id == command.job_id:
                    revision = entry.revision
                else:
                    job = await self._jobs.known(command.tenant, entry.value.command.job_id)
                    if job is not None and job.state not in TERMINAL:
                        return await self._answer_of(job, deduplicated=True)
                    if job is None and not self._is_orphan(entry.value):
                        await asyncio.sleep(POLL_SECONDS)  # its publish is under way
                        continue
                    if job is None:
                        await self._keep_for_expiry(entry.value)
                    revision = await self._active.update(key, claim, entry.revision)
                    if revision is None:
                        continue
                    log.info("claim_taken_over", job_id=command.job_id, was=entry.value.command.job_id)
            publishes += 1
            answer = await self._publish(command, key, claim, revision, attempt)
            if answer is not None:
                return answer
            if publishes >= PUBLISHES_MAX:
                raise QueueUnavailable(UNDECIDED)

    async def _keep_for_expiry(self, orphan: ActiveJob) -> None:
        """If its command expired while no scheduler ran, its job must still end with a name."""
        old = orphan.command
        await self._active.create(
            subjects.active_key(old.tenant, old.job_id), orphan, ttl_seconds=EXPIRY_KEPT_SECONDS
        )

    def _is_orphan(self, active: ActiveJob) -> bool:
        return (self._now() - active.created_at).total_seconds() > ORPHAN_SECONDS

    async def _publish(
        self, command: SubmitJob, key: str, claim: ActiveJob, revision: int, attempt: _Attempt
    ) -> Submitted | None:
        """The answer once the queue has decided; None where one for the same came and went meanwhile."""
        try:
            await self._count(attempt)
            ack = await self._store(command, attempt)
        except FateUnknown as error:
            raise QueueUnavailable(str(error), command.job_id) from error
        except WrongLastSequence:
            return await self._yield_to_other(command, key, claim, revision)
        except (TenantQueueFull, TooManyJobs):
            await self._release(key, revision)
            raise
        except StreamFull:
            await self._release(key, revision)
            same = await self._queue(command).of_same_work(command)
            if same is not None:
                return await self._answer_of(same.job, deduplicated=same.command.job_id != command.job_id)
            raise await self._full(command) from None
        except BusError as error:  # refused or not connected: nothing was stored
            await self._release(key, revision)
            raise QueueUnavailable(str(error)) from error
        accepted = job_of(command, NO_NUMBER if command.document else ack.seq)
        attempt.accepted = accepted
        log.info("job_submitted", job_id=command.job_id, number=accepted.number, tenant=command.tenant)
        size, place = await self._standing(accepted)
        if place is None and accepted.number != NO_NUMBER:
            # Nobody read the command: should it expire unread, the claim alone says which number it had.
            await self._note_number(key, claim, accepted.number, revision)
        return self._answer(accepted, size, place)

    async def _standing(self, job: Job) -> tuple[QueueState, Place | None]:
        """The queue, with its holes only where no scheduler says where *job* stands in it."""
        queue = self._queue(job)
        size, place = await asyncio.gather(
            self._state(job, queue.size), self._places.of(job, seconds=PLACE_SECONDS)
        )
        if place is None and job.number not in (NO_NUMBER, size.first):
            size = await self._state(job, queue.state)
        return size, place

    async def _store(self, command: SubmitJob, attempt: _Attempt) -> PubAck:
        """Publish *command*. WrongLastSequence where its queue has one for the same work; TenantQueueFull."""
        if not self._tenant_queue_max:
            return await self._publish_behind(0, subjects.same_work_filter(command), command, attempt)
        tenant, queue = command.tenant, self._queue(command)
        scope = tenant_filter(tenant, DOCS if command.document else Q)
        turn = self._turns.setdefault(scope, asyncio.Lock())
        for _ in range(COUNTS_MAX):
            async with turn:  # of submits at one gateway; those at others are told apart by the bus
                last = await queue.last_of(tenant)
                same, size = await asyncio.gather(queue.of_same_work(command), queue.size_of(tenant))
                if same is not None:
                    raise WrongLastSequence("A command for the same work waits already")
                if size >= self._tenant_queue_max:
                    raise TenantQueueFull(size, self._tenant_queue_max, self._retry_after_seconds(command))
                try:
                    return await self._publish_behind(last, scope, command, attempt)
                except WrongLastSequence:
                    log.debug("tenant_counted_again", tenant=tenant)
            await asyncio.sleep(COUNT_AGAIN_SECONDS * random.random())  # noqa: S311 (no secret)
        raise BusRefused("Too many submits of this tenant at once")

    async def _publish_behind(self, last: int, scope: str, command: SubmitJob, attempt: _Attempt) -> PubAck:
        """Publish *command* as the one that follows *last* in *scope*."""
        attempt.command = command
        try:
            return await self._bus.publish(
                subjects.submit_subject(command),
                command,
                message_id=command.job_id,
                # What expires in DOCS leaves no marker that would tell: the scheduler's own clock ends it.
                ttl_seconds=None if command.document else command.ttl_seconds,
                expect_last=last,
                expect_scope=scope,
            )
        except FateUnknown:
            raise
        except BusError:
            attempt.command = None  # nothing was stored
            raise

    async def _note_number(self, key: str, claim: ActiveJob, number: int, revision: int) -> None:
        try:
            await self._active.update(key, msgspec.structs.replace(claim, number=number), revision)
        except BusError as error:  # Q knows the number too
            log.info("number_not_noted", job_id=claim.command.job_id, reason=str(error))

    async def _yield_to_other(
        self, command: SubmitJob, key: str, claim: ActiveJob, revision: int
    ) -> Submitted | None:
        """The queue has a command for the same work already: its job is the answer, and the claim is its."""
        same = await self._queue(command).of_same_work(command)
        if same is None:
            return None
        owner = msgspec.structs.replace(claim, command=same.command, number=same.number or None)
        try:
            await self._active.update(key, owner, revision)
        except BusError as error:  # taken over by the next submit, when it has become an orphan
            log.info("claim_not_handed_over", job_id=same.command.job_id, reason=str(error))
        return await self._answer_of(same.job, deduplicated=same.command.job_id != command.job_id)

    async def _release(self, key: str, revision: int) -> None:
        try:
            await self._active.delete(key, revision)
        except BusError as error:  # an orphan, which the next submit takes over
            log.info("claim_not_released", reason=str(error))

    def _queue(self, asked: SubmitJob | Job) -> Pending:
        """The one that *asked* waits in."""
        return self._queues[pool_of(asked.kind)]

    async def _full(self, command: SubmitJob) -> QueueFull:
        state = await self._state(command, self._queue(command).size)
        return QueueFull(state.capacity, state.capacity, self._retry_after_seconds(command))

    def _retry_after_seconds(self, command: SubmitJob) -> int:
        pool = pool_of(command.kind)
        slots = sum(slots_of(worker, pool) for worker in self._workers.workers())
        return statuses.retry_after_seconds(self._workers.recent_durations_seconds(pool), slots)

    async def _state(self, asked: SubmitJob | Job, read: Callable[[], Awaitable[QueueState]]) -> QueueState:
        """The queue of *asked* as it is; as it was last seen when the bus does not say."""
        try:
            state = self._last_states[pool_of(asked.kind)] = await read()
        except BusError:
            return self._guess(asked)
        return state

    def _guess(self, asked: SubmitJob | Job) -> QueueState:
        last = self._last_states.get(pool_of(asked.kind), NEVER_SEEN)
        return msgspec.structs.replace(last, size=max(last.size, 1), capacity=max(last.capacity, 1))

    async def _answer_of(self, job: Job, *, deduplicated: bool) -> Submitted:
        if job.state in (JobState.QUEUED, JobState.PENDING):
            size, place = await self._standing(job)
            return self._answer(job, size, place, deduplicated=deduplicated)
        state = await self._state(job, self._queue(job).size)
        answer = self._answer(job, state, None, deduplicated=deduplicated)
        return msgspec.structs.replace(
            answer, queue_position=0, queue_size=state.size, target=job.worker or answer.target
        )

    def _answer(
        self, job: Job, state: QueueState, place: Place | None, *, deduplicated: bool = False
    ) -> Submitted:
        if place is not None:
            at = max(place.position, 1)  # a worker may have taken the job before anybody looked
        elif job.number == NO_NUMBER:
            at = max(state.size, 1)  # where DOCS has it cannot be told by a number: at its end, at the worst
        else:
            at = position(state, job.number)
        return Submitted(
            status=DISPATCHED,
            job_id=job.number,
            queue_position=at,
            target=statuses.target(self._workers.workers(), pool_of(job.kind)),
            # Jobs outside Q may run before this one; they take no room in it.
            queue_size=max(state.size, at if place is None else 1),
            max_queue_size=max(state.capacity, 1),
            id=job.job_id,
            deduplicated=deduplicated,
        )


def _remembered_key(order: Order | DocumentOrder, idempotency_key: str) -> str:
    """Where the answer to *order* is remembered.

    Two users may call different things alike, and so may one user a repository and a text: what is asked for
    would get lost.
    """
    kind = order.kind if isinstance(order, DocumentOrder) else JobKind.REPOSITORY
    return f"{order.tenant}.{fingerprint(order.user, kind.value, idempotency_key)}"
