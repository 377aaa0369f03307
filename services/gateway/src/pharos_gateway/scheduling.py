"""Schedules: repositories that are indexed again and again. Read from their bucket, changed by commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from pharos_contracts.control.v1 import DeleteSchedule, PutSchedule, Scheduled
from pharos_contracts.identity import PROJECT_DEFAULT, InvalidName, token
from pharos_contracts.jobs.v1 import Priority, RepositorySource, Scope
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.streams import KV_SCHEDULES
from pharos_gateway.addressing import repository_dataset, revision
from pharos_gateway.commanding import Commands
from pharos_gateway.entries import entries
from pharos_gateway.project_names import one_project
from pharos_gateway.resolving import Address
from pharos_gateway.sight import Sight
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import RepositoryAddress, parse_repository_url

JITTER_SECONDS_MAX = 86_400

# Names of datasets are free text; what a terminal or a log would obey is not, and what nobody sees but which
# turns the text around it or makes two names look like one. In Python, `$` alone would let a line break pass
# at the end.
NO_CONTROLS = (
    r"^[^\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+"
    r"$(?!\n)"
)

_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class ScheduleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to index, and when."""

    repo_url: Annotated[str, Meta(max_length=2_048, description="As for a submit.")]
    cron: Annotated[str, Meta(max_length=256, description="Five fields, as in `0 3 * * *`.")]
    branch: Annotated[str, Meta(max_length=255, description="Default: the remote's HEAD.")] | None = None
    timezone: Annotated[str, Meta(max_length=64, description="An IANA name; `cron` is read in it.")] = "UTC"
    jitter_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=JITTER_SECONDS_MAX,
            description="Each run is late by the schedule's own part of this.",
        ),
    ] = 0
    priority: Priority = Priority.NORMAL
    project: _Name = PROJECT_DEFAULT
    dataset: Annotated[str, Meta(min_length=1, max_length=512, pattern=NO_CONTROLS)] | None = None
    scope: Scope = Scope.PROJECT
    skip_unchanged: Annotated[
        bool, Meta(description="A run that finds its commit indexed already ends as skipped.")
    ] = True
    id: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=64,
                description="Letters, digits, `-`, `_`; one of the same id is replaced. Default: a new one.",
            ),
        ]
        | None
    ) = None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, its next run and its last one. ``id`` is unique within its tenant."""

    id: str
    tenant: str
    repository: str
    branch: str | None
    project: str
    dataset: str | None
    scope: Scope
    priority: Priority
    cron: str
    timezone: str
    jitter_seconds: int
    skip_unchanged: bool
    created_at: datetime
    created_by: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_job_id: str | None
    last_outcome: str | None


class ScheduleList(msgspec.Struct, frozen=True, kw_only=True):
    """By tenant and id; ``truncated`` where there are more than 1,000."""

    schedules: tuple[ScheduleView, ...]
    truncated: bool


class ScheduleTaken(Exception):
    """A schedule of that id belongs to a project that the key is not for."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"The id {schedule_id!r} is taken; choose another one")


class Scheduling:
    """The use cases. Errors of the bus and of ``Commands.send`` pass through."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket[Schedule],
        commands: Commands,
        *,
        allowed_hosts: AllowedHosts,
        check_host: Callable[[Address], Awaitable[None]],
        ttl_seconds: int,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._commands = commands
        self._allowed_hosts = allowed_hosts
        self._check_host = check_host
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._new_id = new_id

    async def put(self, request: ScheduleRequest, *, sight: Sight, by: str) -> ScheduleView:
        """The schedule as it stands now.

        ScheduleTaken, ReservedDataset, InvalidRepositoryUrl, InvalidRef, InvalidName, ReservedProject,
        HostRefused, QuestionRefused.
        """
        tenant = sight.tenant
        assert tenant is not None, "a schedule is of one tenant"
        address = parse_repository_url(request.repo_url, allowed_hosts=self._allowed_hosts)
        if request.id is not None and sight.projects is not None:
            before = await self._entry(tenant, request.id)
            if before is not None and not sight.project(before.project):
                raise ScheduleTaken(request.id)
        schedule = self._schedule(request, address, tenant=tenant, by=by)
        await self._check_host(address)

        def command_to(reply_to: str) -> PutSchedule:
            return PutSchedule(
                tenant=tenant, by=by, at=schedule.created_at, reply_to=reply_to, schedule=schedule
            )

        answer = await self._commands.send(command_to)
        assert isinstance(answer, Scheduled), "a command over a schedule is answered with the schedule"
        return _view(answer.schedule)

    def _schedule(
        self, request: ScheduleRequest, address: RepositoryAddress, *, tenant: str, by: str
    ) -> Schedule:
        branch, _ = revision(address, branch=request.branch, ref=None)
        return Schedule(
            schedule_id=token(request.id) if request.id is not None else self._new_id(),
            tenant=tenant,
            source=RepositorySource(identity=address.identity, clone_url=address.clone_url, branch=branch),
            project=one_project(request.project),
            dataset=repository_dataset(request.dataset),
            scope=request.scope,
            priority=request.priority,
            cron=" ".join(request.cron.split()),
            timezone=request.timezone,
            jitter_seconds=request.jitter_seconds,
            skip_unchanged=request.skip_unchanged,
            repository_key=address.key,
            ttl_seconds=self._ttl_seconds,
            created_at=self._now(),
            created_by=by,
        )

    async def list(self, sight: Sight) -> ScheduleList:
        """Those that *sight* shows."""
        tenant = "*" if sight.tenant is None else token(sight.tenant)
        found, truncated = await entries(self._bus, KV_SCHEDULES, self._bucket, f"{tenant}.*")
        shown = (schedule for schedule in found if sight.project(schedule.project))
        return ScheduleList(schedules=tuple(_view(schedule) for schedule in shown), truncated=truncated)

    async def one(self, sight: Sight, schedule_id: str) -> ScheduleView | None:
        """The one of that id in the tenant of *sight*, if it is shown."""
        assert sight.tenant is not None, "an id is unique within one tenant"
        found = await self._entry(sight.tenant, schedule_id)
        return _view(found) if found is not None and sight.project(found.project) else None

    async def _entry(self, tenant: str, schedule_id: str) -> Schedule | None:
        try:
            entry = await self._bucket.get(f"{token(tenant)}.{token(schedule_id)}")
        except InvalidName:
            return None
        return None if entry is None else entry.value

    async def remove(self, sight: Sight, schedule_id: str, *, by: str) -> bool:
        """Whether it was there, and is no more. A job that it has started goes on."""
        if await self.one(sight, schedule_id) is None:
            return False
        tenant = sight.tenant

        def command_to(reply_to: str) -> DeleteSchedule:
            return DeleteSchedule(
                tenant=tenant, by=by, at=self._now(), reply_to=reply_to, schedule_id=schedule_id
            )

        return await self._commands.send(command_to) is not None


def _view(schedule: Schedule) -> ScheduleView:
    return ScheduleView(
        id=schedule.schedule_id,
        tenant=schedule.tenant,
        repository=schedule.source.identity,
        branch=schedule.source.branch,
        project=schedule.project,
        dataset=schedule.dataset,
        scope=schedule.scope,
        priority=schedule.priority,
        cron=schedule.cron,
        timezone=schedule.timezone,
        jitter_seconds=schedule.jitter_seconds,
        skip_unchanged=schedule.skip_unchanged,
        created_at=schedule.created_at,
        created_by=schedule.created_by,
        next_run_at=schedule.next_run_at,
        last_run_at=schedule.last_run_at,
        last_job_id=schedule.last_job_id,
        last_outcome=schedule.last_outcome,
    )
