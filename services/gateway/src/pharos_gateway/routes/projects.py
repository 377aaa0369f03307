"""``/projects/{project}``: repositories into a project, its history, its jobs, its schedules."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, Final, TypeVar

from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from pharos_contracts.identity import InvalidName
from pharos_contracts.jobs.v1 import Job
from pharos_gateway import examples, history, openapi, projects
from pharos_gateway.access import Access
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import Caller, OtherProject, caller_of
from pharos_gateway.controlling import Controlling, parse_action
from pharos_gateway.datasets import Datasets
from pharos_gateway.deleting import Deleting, Wanted
from pharos_gateway.disk import Disk
from pharos_gateway.finding import Finder, HistoryUnavailable, find
from pharos_gateway.live import Live
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.project_ingest import ProjectIngest
from pharos_gateway.project_names import ReservedProject, named_project, one_project
from pharos_gateway.projects import (
    GithubDeleted,
    GithubDeleteRequest,
    GithubIngested,
    GithubIngestRequest,
    IngestLog,
    IngestRow,
    ProjectSchedule,
    ProjectScheduleRequest,
    ProjectStats,
)
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.routes.deletions import delete_wanted
from pharos_gateway.scheduling import Scheduling
from pharos_gateway.sight import Sight
from pharos_gateway.snapshots import JOBS_MAX, OPEN_STATES
from pharos_service.bus import Bus, BusError

PATH: Final = "/projects/{project:str}"
ALL: Final = "The project `all` is every one that the key may see."
LOG_MAX: Final = 500

T = TypeVar("T")


def routes(
    access: Access,
    disk: Disk,
    bus: Bus,
    live: Live,
    finder: Finder,
    ingesting: ProjectIngest,
    controlling: Controlling,
    datasets: Datasets,
    scheduling: Scheduling,
    deleting: Deleting,
) -> Router:
    """The routes of this family, but for the search."""
    viewer: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}
    editor: dict[str, Any] = {"guards": [access.editor], "security": list(openapi.SECURITY)}

    async def read(what: str, answer: Awaitable[T]) -> T:
        """*answer*, or the Problem that the bus or the history service is away."""
        try:
            await reach(bus)
            return await answer
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error
        except (BusError, Unreachable) as error:
            raise unavailable(what, str(error)) from error

    def shown(job: Job) -> IngestRow:
        return projects.row(job, live.progress(job.job_id))

    async def job_of(request: Request[Any, Any, Any], project: str, job_id: str) -> Job:
        job = await find(finder, _sight(caller_of(request), project), job_id)
        if job is None:
            raise not_found("job")
        return job

    @post(
        "/ingest/github",
        status_code=202,
        guards=[access.editor, disk.has_room],
        security=list(openapi.SECURITY),
        summary="Index a repository into a project",
        description="Answered with the job that does the same already (200) while there is one, and with "
        "`skipped` (200) where this `sha` is indexed and `force` is not set. Without a `sha` the worker "
        f"finds out whether there is anything to do. With `callback_url`, {examples.CALLBACK}",
        responses={
            202: openapi.success(GithubIngested, examples.GITHUB_QUEUED, "Queued"),
            200: openapi.success(GithubIngested, examples.GITHUB_SKIPPED, "Nothing was started"),
            **openapi.errors(400, 401, 403, 429, 503, 507, invalid=examples.INVALID_URL),
        },
    )
    async def ingest_github(
        request: Request[Any, Any, Any],
        project: FromPath[str],
        data: JSONBody[GithubIngestRequest],
        idempotency_key: Annotated[
            str | None,
            HeaderParameter(
                name="Idempotency-Key",
                min_length=1,
                max_length=255,
                description="The same key within 24 h returns the first answer.",
            ),
        ] = None,
    ) -> Response[GithubIngested]:
        caller = caller_of(request)
        name = _for(caller, project)
        address = ingesting.address(data.repo)
        note_target(request, f"{name}/{address.identity}")
        answer, started = await ingesting.ingest(
            data, address, project=name, caller=caller, idempotency_key=idempotency_key
        )
        return Response(answer, status_code=202 if started else 200)

    @delete(
        "/ingest/github",
        status_code=200,
        summary="Delete a dataset, or every dataset of a repository",
        description="By `dataset` or by `repo`. Jobs that would write it again are cancelled first, those of "
        "its repository that named no branch too. Then everything of it is deleted: nothing finds it, counts "
        "it or lists it any more, and indexing it again begins afresh. A deletion that failed half-way is "
        "finished by asking again.",
        responses={
            200: openapi.success(GithubDeleted, examples.GITHUB_DELETED, "It is gone"),
            **openapi.errors(400, 401, 403, 404, 503),
        },
        **editor,
    )
    async def delete_github(
        request: Request[Any, Any, Any], project: FromPath[str], data: JSONBody[GithubDeleteRequest]
    ) -> GithubDeleted:
        name = _one(project)
        repository = None
        if (data.dataset is None) == (data.repo is None):
            raise invalid("Name either a dataset or a repo", field="dataset")
        if data.repo is not None:
            address = ingesting.address(data.repo)
            if address.branch is not None:
                raise invalid("Name the repository without a branch, or the dataset", field="repo")
            repository = address.identity
        wanted = Wanted(
            tenant=caller_of(request).tenant, project=name, dataset=data.dataset, repository=repository
        )
        gone = await delete_wanted(request, bus, deleting, wanted)
        return projects.deleted(wanted, gone)

    @get(
        "/ingest/history",
        summary="What became of recent submits",
        description=f"{ALL} `startedAt` and `duration` are for readers, `startedAtIso` and `durationSeconds` "
        "for programs.",
        responses={
            200: openapi.success(list[IngestRow], [examples.INGEST_ROW], "Newest first"),
            **openapi.errors(400, 401, 503),
        },
        **viewer,
    )
    async def ingest_history(
        request: Request[Any, Any, Any],
        project: FromPath[str],
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many, 1 to 100.")] = 50,
    ) -> list[IngestRow]:
        sight = _sight(caller_of(request), project)

        async def rows() -> list[IngestRow]:
            waiting = await finder.waiting(sight)
            page = await finder.page(sight, states=(), limit=limit, before=None)
            # History may be a moment behind what a client has just been told over its WebSocket.
            told = [job for job in live.recent_jobs() if sight.job(job)]
            known = [*(each.job for each in page.jobs), *told]
            return [shown(job) for job in history.merged(known, waiting, limit)]

        return await read("History", rows())

    @get(
        "/ingest/jobs/{job_id:str}",
        summary="One job of a project",
        description=ALL,
        responses={
            200: openapi.success(IngestRow, examples.INGEST_ROW, "As it is now"),
            **openapi.errors(400, 401, 404, 503),
        },
        **viewer,
    )
    async def ingest_job(
        request: Request[Any, Any, Any], project: FromPath[str], job_id: FromPath[str]
    ) -> IngestRow:
        return shown(await read("Jobs", job_of(request, project, job_id)))

    @get(
        "/ingest/jobs/{job_id:str}/logs",
        summary="What happened to a job",
        description=ALL,
        responses={
            200: openapi.success(IngestLog, examples.INGEST_LOG, "Oldest first"),
            **openapi.errors(400, 401, 404, 503),
        },
        **viewer,
    )
    async def ingest_logs(
        request: Request[Any, Any, Any],
        project: FromPath[str],
        job_id: FromPath[str],
        limit: Annotated[int, QueryParameter(ge=1, le=LOG_MAX, description="How many, 1 to 500.")] = 200,
        cursor: openapi.Cursor = None,
    ) -> IngestLog:
        async def log() -> IngestLog:
            job = await job_of(request, project, job_id)
            return projects.log_of(job, await finder.log(job, after=cursor, limit=limit))

        return await read("Jobs", log())

    @post(
        "/ingest/jobs/{job_id:str}/{action:str}",
        status_code=200,
        summary="Cancel, retry, pause or resume a job of a project",
        description=ALL,
        responses={
            200: openapi.success(IngestRow, examples.PAUSED_ROW, "The job as the action left it"),
            **openapi.errors(400, 401, 403, 404, 409, 503, invalid=examples.UNKNOWN_ACTION),
        },
        **editor,
    )
    async def control_ingest_job(
        request: Request[Any, Any, Any],
        project: FromPath[str],
        job_id: FromPath[str],
        action: FromPath[str],
    ) -> IngestRow:
        wanted = parse_action(action)
        caller = caller_of(request)
        sight = _sight(caller, project)
        job = await read("Jobs", controlling.control(sight, job_id, wanted, by=caller.user))
        if job is None:
            raise not_found("job")
        return shown(job)

    @get(
        "/stats",
        summary="What can be searched in a project, and what is being done",
        description=ALL,
        responses={
            200: openapi.success(ProjectStats, examples.PROJECT_STATS, "Now"),
            **openapi.errors(400, 401, 503),
        },
        **viewer,
    )
    async def project_stats(request: Request[Any, Any, Any], project: FromPath[str]) -> ProjectStats:
        sight = _sight(caller_of(request), project)

        async def counted() -> ProjectStats:
            held = await datasets.list(sight, _name(project))
            page = await finder.page(sight, states=OPEN_STATES, limit=JOBS_MAX, before=None)
            waiting = await finder.waiting(sight)
            jobs = history.merged((each.job for each in page.jobs), waiting, JOBS_MAX + len(waiting))
            return projects.stats(
                project,
                [each for each in held.datasets if sight.project(each.project)],
                jobs,
                truncated=held.truncated,
                more_jobs=page.cursor is not None,
            )

        return await read("Statistics", counted())

    @post(
        "/schedules",
        status_code=201,
        summary="Index a repository again and again into a project",
        description="As `/api/v1/schedules`, where they are listed and removed too.",
        responses={
            201: openapi.success(ProjectSchedule, examples.PROJECT_SCHEDULE, "It stands"),
            **openapi.errors(400, 401, 403, 409, 503, invalid=examples.INVALID_CRON),
        },
        **editor,
    )
    async def put_project_schedule(
        request: Request[Any, Any, Any], project: FromPath[str], data: JSONBody[ProjectScheduleRequest]
    ) -> ProjectSchedule:
        caller = caller_of(request)
        wanted = projects.schedule_request(data, _for(caller, project))
        await reach(bus)
        try:
            put = await scheduling.put(wanted, sight=caller.sight_in_tenant, by=caller.user)
        except InvalidName as error:
            raise invalid(str(error), field="id") from error
        return projects.schedule(put)

    return Router(
        PATH,
        route_handlers=[
            ingest_github,
            delete_github,
            ingest_history,
            ingest_job,
            ingest_logs,
            control_ingest_job,
            project_stats,
            put_project_schedule,
        ],
        tags=["projects"],
    )


def _name(project: str) -> str | None:
    try:
        return named_project(project)
    except InvalidName as error:
        raise invalid(str(error), field="project") from error


def _sight(caller: Caller, project: str) -> Sight:
    """What *caller* is shown of *project*: one of the tenant, or every one of every tenant that they see."""
    name = _name(project)
    return caller.sight if name is None else caller.sight_in_tenant.within(name)


def _for(caller: Caller, project: str) -> str:
    """The one project that *caller* puts something into. OtherProject."""
    name = _one(project)
    if not caller.sight.project(name):
        raise OtherProject(name)
    return name


def _one(project: str) -> str:
    try:
        return one_project(project)
    except (InvalidName, ReservedProject) as error:
        raise invalid(str(error), field="project") from error
