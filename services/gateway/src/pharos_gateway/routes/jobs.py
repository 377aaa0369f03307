"""``/api/v1/jobs``, ``/api/v1/workers`` and ``/api/v1/datasets``: jobs of any kind, and what can be read."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta

from pharos_contracts.identity import PROJECT_DEFAULT, InvalidName, token
from pharos_contracts.jobs.v1 import JobKind
from pharos_contracts.lifecycle import JobState
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway import examples, history, openapi, statuses
from pharos_gateway.access import Access
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import caller_of
from pharos_gateway.controlling import Controlling, parse_action
from pharos_gateway.datasets import DatasetList, Datasets
from pharos_gateway.deleting import Deleted, Deleting, Wanted
from pharos_gateway.disk import Disk
from pharos_gateway.finding import Finder, HistoryUnavailable, find
from pharos_gateway.job_requests import JobRequest, JobRequests
from pharos_gateway.job_view import JobList, JobLogView, JobView, log_view
from pharos_gateway.live import Live
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.project_names import named_project
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.routes.deletions import delete_wanted
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_gateway.showing import Showing
from pharos_gateway.snapshots import Snapshots
from pharos_gateway.submitting import QueueUnavailable
from pharos_service.bus import Bus, BusError

PATH: Final = "/api/v1"
LOG_MAX: Final = 500
_STATE: Final = "|".join(JobState)
_KIND: Final = "|".join(JobKind)

W = TypeVar("W", bound=StrEnum)


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. What it works on is left out where it is not yours to see.

    Memory is in bytes, the device's where it has its own, else the machine's; None where it cannot be told.
    """

    name: str
    status: str
    state: WorkerState
    device: str
    pool: str
    slots: int
    job_id: int | None
    job_ids: tuple[str, ...]
    stage: str | None
    since: datetime
    last_seen: datetime
    memory_used: int | None
    memory_total: int | None
    versions: dict[str, str]


class DeleteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dataset."""

    dataset: Annotated[str, Meta(min_length=1, max_length=512, pattern=NO_CONTROLS)]
    project: Annotated[str, Meta(max_length=64, extra_json_schema=dict(openapi.NAME))] = PROJECT_DEFAULT


class WorkerList(msgspec.Struct, frozen=True, kw_only=True):
    """The live ones, by name."""

    workers: tuple[WorkerView, ...]


def routes(
    access: Access,
    disk: Disk,
    bus: Bus,
    live: Live,
    finder: Finder,
    showing: Showing,
    controlling: Controlling,
    snapshots: Snapshots,
    datasets: Datasets,
    deleting: Deleting,
    requests: JobRequests,
) -> Router:
    """The routes of this family."""
    common: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}

    @get(
        "/jobs",
        summary="Jobs, newest first",
        description="What was submitted a moment ago is on the first page, beyond its `limit` too. A page "
        "may have fewer jobs while there are more: `cursor` says so. `queue_position` and "
        "`estimated_start_at` are null here: they are told of one job at a time.",
        responses={
            200: openapi.success(JobList, examples.JOBS, "Newest first"),
            **openapi.errors(400, 401, 503),
        },
        **common,
    )
    async def list_jobs(
        request: Request[Any, Any, Any],
        named: Annotated[
            str | None,
            QueryParameter(
                name="state",
                schema_extra={"pattern": f"^({_STATE})(,({_STATE}))*$"},
                description="States, separated by commas.",
            ),
        ] = None,
        kind: Annotated[
            str | None,
            QueryParameter(
                schema_extra={"pattern": f"^({_KIND})(,({_KIND}))*$"},
                description="Kinds, separated by commas.",
            ),
        ] = None,
        project: Annotated[
            str | None,
            QueryParameter(schema_extra=openapi.NAME, description="Only those of this project."),
        ] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many, 1 to 100.")] = 20,
        cursor: openapi.Cursor = None,
    ) -> JobList:
        sight = caller_of(request).sight.within(_project(project))
        states = _chosen(JobState, "state", named)
        if kind is not None:
            sight = msgspec.structs.replace(sight, kinds=frozenset(_chosen(JobKind, "kind", kind)))
        try:
            await reach(bus)
            if cursor is None and (not states or JobState.QUEUED in states):
                known, following = await finder.newest(sight, states=states, limit=limit)
            else:
                page = await finder.page(sight, states=states, limit=limit, before=cursor)
                known, following = [found.job for found in page.jobs], page.cursor
        except (BusError, HistoryUnavailable, Unreachable) as error:
            raise unavailable("History", str(error)) from error
        jobs = history.merged(known, (), len(known))
        return JobList(jobs=tuple(showing.briefly(job) for job in jobs), cursor=following)

    @post(
        "/jobs",
        status_code=202,
        guards=[access.editor, disk.has_room],
        security=list(openapi.SECURITY),
        summary="Start a job",
        description="`kind` says of what: `repository`, `text`, `url` or `resource`. A file comes as a form "
        "(`/knowledge/ingest-file-async`), and batches and deletions have routes of their own: these kinds "
        "are answered with the route to use. While a job for the same waits or runs it is answered with that "
        f"(200). With `callback_url`, {examples.CALLBACK}",
        responses={
            202: openapi.success(JobView, examples.JOB, "Accepted"),
            200: openapi.success(JobView, examples.JOB, "An earlier job does the same"),
            **openapi.errors(400, 401, 403, 409, 413, 429, 503, 507, invalid=examples.INVALID_URL),
        },
    )
    async def start_job(
        request: Request[Any, Any, Any],
        data: JSONBody[JobRequest],
        idempotency_key: Annotated[
            str | None,
            HeaderParameter(
                name="Idempotency-Key",
                min_length=1,
                max_length=255,
                description="The same key within 24 h returns the first answer.",
            ),
        ] = None,
    ) -> Response[JobView]:
        caller = caller_of(request)
        job_id, deduplicated = await requests.submit(data, caller, idempotency_key)
        note_target(request, job_id)
        try:
            job = await finder.known(caller.tenant, job_id)
        except BusError as error:
            raise QueueUnavailable(str(error), job_id) from error
        if job is None:
            raise QueueUnavailable("The job was accepted and cannot be read yet", job_id)
        return Response(
            await showing.whole(job),
            status_code=200 if deduplicated else 202,
            headers={"Location": f"/api/v1/jobs/{job_id}"},
        )

    @get(
        "/jobs/{job_id:str}",
        summary="One job, by its UUID or its number",
        responses={
            200: openapi.success(JobView, examples.JOB, "As it is now"),
            **openapi.errors(401, 404, 503),
        },
        **common,
    )
    async def one_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobView:
        try:
            await reach(bus)
            job = await find(finder, caller_of(request).sight, job_id)
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error
        except (BusError, Unreachable) as error:
            raise unavailable("Jobs", str(error)) from error
        if job is None:
            raise not_found("job")
        return await showing.whole(job)

    @get(
        "/jobs/{job_id:str}/log",
        summary="What happened to a job",
        description="In sentences; of a batch, to its files too.",
        responses={
            200: openapi.success(JobLogView, examples.JOB_LOG, "Oldest first"),
            **openapi.errors(400, 401, 404, 503),
        },
        **common,
    )
    async def job_log(
        request: Request[Any, Any, Any],
        job_id: FromPath[str],
        limit: Annotated[
            int, QueryParameter(ge=1, le=LOG_MAX, description="How many lines, 1 to 500.")
        ] = 200,
        cursor: openapi.Cursor = None,
    ) -> JobLogView:
        try:
            await reach(bus)
            job = await find(finder, caller_of(request).sight, job_id)
            if job is None:
                raise not_found("job")
            return log_view(job, await finder.log(job, after=cursor, limit=limit))
        except (BusError, HistoryUnavailable, Unreachable) as error:
            raise unavailable("History", str(error)) from error

    @post(
        "/jobs/{job_id:str}/{action:str}",
        status_code=200,
        guards=[access.editor],
        security=list(openapi.SECURITY),
        summary="Pause, resume, cancel or retry a job",
        description="The answer is the job as the action left it. A command that was stored is carried out "
        "even where no scheduler answers in time.",
        responses={
            200: openapi.success(JobView, examples.PAUSED_JOB, "The job as the action left it"),
            **openapi.errors(400, 401, 403, 404, 409, 503, invalid=examples.UNKNOWN_ACTION),
        },
    )
    async def control_job(
        request: Request[Any, Any, Any], job_id: FromPath[str], action: FromPath[str]
    ) -> JobView:
        wanted = parse_action(action)
        caller = caller_of(request)
        try:
            await reach(bus)
            job = await controlling.control(caller.sight, job_id, wanted, by=caller.user)
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error
        except (BusError, Unreachable) as error:
            raise unavailable("Jobs", str(error)) from error
        if job is None:
            raise not_found("job")
        return await showing.whole(job)

    @get(
        "/workers",
        summary="The live workers",
        responses={
            200: openapi.success(WorkerList, examples.WORKERS, "By name"),
            **openapi.errors(401, 503),
        },
        **common,
    )
    async def list_workers(request: Request[Any, Any, Any]) -> WorkerList:
        try:
            await reach(bus, live.workers_known)
        except Unreachable as error:
            raise unavailable("Workers", error.reason) from error
        sees = caller_of(request).sight.workers
        workers = live.workers()
        numbers = await snapshots.numbers(workers)
        found = []
        for worker in workers:
            visible = statuses.is_visible(worker, sees)
            found.append(
                WorkerView(
                    name=worker.name,
                    status=statuses.words(worker, sees),
                    state=worker.state,
                    device=worker.device,
                    pool=worker.pool,
                    slots=worker.slots,
                    job_id=numbers.get(worker.job_ids[0]) if visible and worker.job_ids else None,
                    job_ids=_jobs_of(worker) if visible else (),
                    stage=worker.stage if visible else None,
                    since=worker.since,
                    last_seen=worker.seen_at,
                    memory_used=worker.memory_used or None,
                    memory_total=worker.memory_total or None,
                    versions=worker.versions,
                )
            )
        return WorkerList(workers=tuple(found))

    @get(
        "/datasets",
        summary="What can be searched",
        responses={
            200: openapi.success(DatasetList, examples.DATASETS, "By project and name"),
            **openapi.errors(400, 401, 503),
        },
        **common,
    )
    async def list_datasets(
        request: Request[Any, Any, Any],
        project: Annotated[
            str | None,
            QueryParameter(schema_extra=openapi.NAME, description="Only those of this project."),
        ] = None,
    ) -> DatasetList:
        named = _project(project)
        try:
            await reach(bus)
            return await datasets.list(caller_of(request).sight, named)
        except (BusError, Unreachable) as error:
            raise unavailable("Datasets", str(error)) from error

    @delete(
        "/datasets",
        status_code=200,
        guards=[access.editor],
        security=list(openapi.SECURITY),
        summary="Delete a dataset",
        description="Jobs that would write it again are cancelled first, those too of its repository that "
        "named no branch. A deletion that failed half-way is finished by asking again. "
        "`documents/resources`, where the resources of all users are, is for admins.",
        responses={
            200: openapi.success(Deleted, examples.DELETED, "It is gone"),
            **openapi.errors(400, 401, 403, 404, 503),
        },
    )
    async def delete_dataset(request: Request[Any, Any, Any], data: JSONBody[DeleteRequest]) -> Deleted:
        try:
            project = token(data.project)
        except InvalidName as error:
            raise invalid(str(error), field="project") from error
        wanted = Wanted(tenant=caller_of(request).tenant, project=project, dataset=data.dataset)
        return await delete_wanted(request, bus, deleting, wanted)

    return Router(
        PATH,
        route_handlers=[
            list_jobs,
            start_job,
            one_job,
            job_log,
            control_job,
            list_workers,
            list_datasets,
            delete_dataset,
        ],
        tags=["jobs"],
    )


def _jobs_of(worker: Worker) -> tuple[str, ...]:
    """The jobs that *worker* works on, each once: of a batch it may have several files."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in worker.job_ids))


def _chosen(words: type[W], field: str, text: str | None) -> tuple[W, ...]:
    """Which of *words* the parameter *field* names."""
    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in frozenset(words):
            raise invalid(
                f"There is no {field} {name[:40]!r}; the {field}s are {', '.join(words)}", field=field
            )
    return tuple(words(name) for name in names)


def _project(name: str | None) -> str | None:
    try:
        return None if name is None else named_project(name)
    except InvalidName as error:
        raise invalid(str(error), field="project") from error
