"""Resources: made searchable by a job each, kept in the bucket ``resources``, deleted by a job each.

The job comes first, the entry behind it: whoever asks again after a failure between the two has the text that
they gave. An entry goes when the job that deletes its text has ended, so that a deletion that failed half-way
can be asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from pharos_contracts.control.v1 import Action
from pharos_contracts.identity import PROJECT_DEFAULT, InvalidName, token
from pharos_contracts.jobs.v1 import DocumentSource, Job, JobKind
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.resources.v1 import RESOURCES_LABEL, Resource, resource_identity
from pharos_contracts.subjects import POOL_DOCUMENTS
from pharos_contracts.workers.v1 import Worker, WorkerState, slots_of
from pharos_gateway import resources
from pharos_gateway.authentication import Caller
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.controlling import InvalidTransition
from pharos_gateway.document_ingest import TEXT_TYPE, EmptyDocument
from pharos_gateway.finding import Finder
from pharos_gateway.projects import STATUS
from pharos_gateway.quotas import subject_of
from pharos_gateway.resource_store import ResourceStore
from pharos_gateway.resources import ResourceList, ResourceRequest, ResourceView
from pharos_gateway.sight import Sight
from pharos_gateway.submitting import DocumentOrder, QueueUnavailable, Submitted, Submitting
from pharos_gateway.uploads import Uploads
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import BusError, BusRefused, StreamFull

log = structlog.get_logger()

RESOURCES_PER_TENANT_MAX: Final = 10_000
DELETE_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.02
LOOK_SECONDS: Final = 1.0
TRIES_MAX: Final = 5
TOMBSTONE_SECONDS: Final = 86_400


class TooManyResources(Exception):
    """There is no room for another one; the text says why."""


class KeySpent(Exception):
    """The Idempotency-Key stands for a resource at another address, which is no more."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key stands for a resource that was deleted: use another one")


class ResourcesUnknown(Exception):
    """This gateway has not read them yet."""


class NobodyDeletes(Exception):
    """No worker that reads documents is alive."""

    def __init__(self) -> None:
        super().__init__("No worker that reads documents is alive")


class DeletionWaits(Exception):
    """The job that deletes it has not ended yet; it will."""

    def __init__(self, job_id: str) -> None:
        super().__init__("It is deleted as soon as a worker gets to it; ask again to see that it is gone")
        self.job_id = job_id


class DeletionFailed(Exception):
    """The job that was to delete it ended otherwise."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"It could not be deleted: {job.error or job.reason or job.state}")


class Known(Protocol):
    """What this process has seen lately."""

    def workers(self) -> Sequence[Worker]: ...
    def recent(self, job_id: str) -> Job | None: ...


class Control(Protocol):
    """Asks the scheduler for something."""

    async def control(self, sight: Sight, identifier: str, action: Action, *, by: str) -> Job | None: ...


class ResourceKeeping:
    """The use cases. One object serves every request of a process."""

    def __init__(
        self,
        bucket: Bucket[Resource],
        store: ResourceStore,
        submitting: Submitting,
        uploads: Uploads,
        control: Control,
        finder: Finder,
        known: Known,
        *,
        callback_of: Callable[[str], CallbackAddress],
        now: Callable[[], datetime],
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._submitting = submitting
        self._uploads = uploads
        self._control = control
        self._finder = finder
        self._known = known
        self._callback_of = callback_of
        self._now = now

    async def put(
        self, request: ResourceRequest, caller: Caller, idempotency_key: str | None
    ) -> ResourceView:
        """The resource, whose text is about to be read.

        InvalidLink, InvalidCallbackUrl, EmptyDocument, TooManyResources, ResourcesUnknown, UploadsFull,
        KeySpent, and what ``Submitting.submit`` raises.
        """
        resources.check_link(request.url)
        if not request.content.strip():
            raise EmptyDocument
        identifier = resources.resource_id(caller.tenant, caller.user, request.url)
        await self._check_room(caller.tenant, identifier)
        try:
            submitted, began = await self._submit(request, caller, identifier, idempotency_key)
            resource = None
            if idempotency_key is not None and not began:
                resource = await self._kept_before(caller.tenant, submitted, identifier)
            if resource is None:
                resource = await self._keep(request, caller, identifier, submitted.id)
        except BusError as error:
            raise QueueUnavailable(str(error)) from error
        # As it was when it was asked for: a worker may have read it already.
        return replace(resources.view(resource, None), status=STATUS[JobState.QUEUED], job_id=submitted.id)

    async def _kept_before(self, tenant: str, submitted: Submitted, identifier: str) -> Resource | None:
        """The resource that an Idempotency-Key made by an earlier request, whatever this one asks for.

        None where it is to be kept as *identifier*: whoever began it may have failed before that. KeySpent.
        """
        job = await self._finder.known(tenant, submitted.id)
        if job is None or job.document is None:
            return None
        first = job.document.identity.rpartition("/")[2]
        if first == identifier and submitted.deduplicated:
            return None  # the same text, which waits, under a title that may be another one
        entry = await self._bucket.get(key_of(tenant, first))
        if entry is None and first != identifier:
            raise KeySpent
        return None if entry is None else entry.value

    async def _submit(
        self, request: ResourceRequest, caller: Caller, identifier: str, idempotency_key: str | None
    ) -> tuple[Submitted, bool]:
        """The job that makes it searchable, and whether this request began it."""
        callback = None if request.callback_url is None else self._callback_of(request.callback_url)
        content = request.content.encode(errors="replace")
        async with self._uploads.stored(content, filename="", media_type=TEXT_TYPE) as upload:
            document = DocumentSource(
                label=RESOURCES_LABEL,
                identity=resource_identity(identifier),
                media_type=upload.media_type,
                title=request.title,
                object_name=upload.object_name,
                size=upload.size,
                sha256=upload.sha256,
                link=request.url,
            )
            order = DocumentOrder(
                tenant=caller.tenant,
                user=caller.user,
                kind=JobKind.RESOURCE,
                document=document,
                idempotency_key=idempotency_key,
                callback=callback,
                quota=subject_of(caller),
            )
            upload.kept = True  # from here on a job may name it, whatever becomes of this request
            try:
                submitted, upload.kept = await self._submitting.begin(order)
            except Exception as error:
                # With an id, its fate is unknown: there may be a job that reads it.
                upload.kept = isinstance(error, QueueUnavailable) and error.job_id is not None
                raise
            return submitted, upload.kept

    async def _keep(self, request: ResourceRequest, caller: Caller, identifier: str, job_id: str) -> Resource:
        """The entry, made or replaced."""
        key, now = key_of(caller.tenant, identifier), self._now()
        for _ in range(TRIES_MAX):
            entry = await self._bucket.get(key)
            resource = Resource(
                resource_id=identifier,
                tenant=caller.tenant,
                project=PROJECT_DEFAULT,
                user=caller.user,
                title=request.title,
                url=request.url,
                resource_type=request.resource_type,
                job_id=job_id,
                created_at=now if entry is None else entry.value.created_at,
                updated_at=now,
            )
            try:
                if entry is None:
                    revision = await self._bucket.create(key, resource)
                else:
                    revision = await self._bucket.update(key, resource, entry.revision)
            except StreamFull as error:
                raise TooManyResources("There is no room for more resources") from error
            if revision is not None:
                self._store.note(Entry(key, resource, revision))
                return resource
        raise BusRefused("The resource is being changed by somebody else")

    async def _check_room(self, tenant: str, identifier: str) -> None:
        if not await self._store.known():
            raise ResourcesUnknown
        if self._store.has(key_of(tenant, identifier)):
            return
        if self._store.count(tenant) >= RESOURCES_PER_TENANT_MAX:
            raise TooManyResources(f"A tenant has at most {RESOURCES_PER_TENANT_MAX} resources")

    async def list(self, sight: Sight, *, resource_type: str | None, limit: int, offset: int) -> ResourceList:
        """A page of those that *sight* shows. ResourcesUnknown, BusError."""
        if not await self._store.known():
            raise ResourcesUnknown
        shown = self._store.shown(sight, resource_type)
        page = shown[offset : offset + limit]
        views = await asyncio.gather(*(self._view(each) for each in page))
        return ResourceList(
            resources=tuple(views),
            total=len(shown),
            limit=limit,
            offset=offset,
            has_more=offset + limit < len(shown),
        )

    async def one(self, sight: Sight, identifier: str) -> ResourceView | None:
        """The one of that id in the tenant of *sight*, if it is shown. BusError."""
        entry = await self._entry(sight, identifier)
        return None if entry is None else await self._view(entry.value)

    async def _view(self, resource: Resource) -> ResourceView:
        return resources.view(resource, await self._finder.known(resource.tenant, resource.job_id))

    async def _entry(self, sight: Sight, identifier: str) -> Entry[Resource] | None:
        assert sight.tenant is not None, "an id is looked for in one tenant"
        try:
            entry = await self._bucket.get(key_of(sight.tenant, identifier))
        except InvalidName:
            return None
        return entry if entry is not None and sight.resource(entry.value) else None

    async def remove(self, sight: Sight, identifier: str, *, by: str) -> bool:
        """Whether it was there; its text is found no more, and its vectors are gone.

        NobodyDeletes, DeletionWaits, DeletionFailed, BusError, and what submitting and ``Control`` raise.
        """
        entry = await self._entry(sight, identifier)
        if entry is None:
            return False
        resource = entry.value
        if not any(
            slots_of(worker, POOL_DOCUMENTS)
            for worker in self._known.workers()
            if worker.state is not WorkerState.DRAINING
        ):
            raise NobodyDeletes
        reading = await self._stopped(resource, by)
        source = DocumentSource(label=RESOURCES_LABEL, identity=resource_identity(resource.resource_id))
        submitted = await self._submitting.submit(
            DocumentOrder(
                tenant=resource.tenant,
                user=by,
                kind=JobKind.DELETE,
                document=source,
                project=resource.project,
            )
        )
        job = await self._ended(resource.tenant, submitted.id)
        if job.state not in (JobState.COMPLETED, JobState.SKIPPED):
            raise DeletionFailed(job)
        if reading is not None and reading.document is not None and reading.document.object_name is not None:
            await self._uploads.forget(reading.document.object_name)
        # Somebody may have given it a new text meanwhile: then it stays.
        if await self._bucket.delete(entry.key, entry.revision, tombstone_seconds=TOMBSTONE_SECONDS):
            self._store.forget(entry.key)
        return True

    async def _stopped(self, resource: Resource, by: str) -> Job | None:
        """The job that made it searchable, or would: cancelled, if it has not ended."""
        job = await self._finder.known(resource.tenant, resource.job_id)
        if job is None or job.state in TERMINAL:
            return job
        try:
            await self._control.control(Sight(tenant=resource.tenant), resource.job_id, Action.CANCEL, by=by)
        except InvalidTransition as error:
            # It is publishing: the job that deletes follows it, since only one may write a dataset.
            log.info("job_not_cancelled", job_id=resource.job_id, state=error.state)
        return job

    async def _ended(self, tenant: str, job_id: str) -> Job:
        """The job, when it has ended. DeletionWaits."""
        clock = asyncio.get_running_loop().time
        began = looked = clock()
        while True:
            job = self._known.recent(job_id)
            if (job is None or job.state not in TERMINAL) and clock() - looked >= LOOK_SECONDS:
                looked = clock()
                job = await self._finder.known(tenant, job_id)
            if job is not None and job.state in TERMINAL:
                return job
            if clock() - began >= DELETE_SECONDS:
                raise DeletionWaits(job_id)
            await asyncio.sleep(POLL_SECONDS)


def key_of(tenant: str, identifier: str) -> str:
    """The key of a resource in its bucket. InvalidName."""
    return f"{token(tenant)}.{token(identifier)}"
