"""``/api/v1/ingestion``: repositories in, worker status, history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from litestar import Request, Router, get, post
from litestar.params import HeaderParameter, QueryParameter

from pharos_contracts.identity import PROJECT_DEFAULT
from pharos_contracts.jobs.v1 import Priority
from pharos_gateway import examples, history, openapi, statuses
from pharos_gateway.access import Access
from pharos_gateway.addressing import rest_of_path, revision
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import OtherProject, caller_of
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.disk import Disk
from pharos_gateway.finding import Finder, HistoryUnavailable
from pharos_gateway.history import HistoryPage
from pharos_gateway.live import Live
from pharos_gateway.problems import invalid, unavailable
from pharos_gateway.quotas import subject_of
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.snapshots import Snapshots
from pharos_gateway.statuses import WorkerStatus
from pharos_gateway.submitting import Order, Submitted, Submitting
from pharos_service.bus import Bus, BusError
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url

PATH: Final = "/api/v1/ingestion"
SEGMENTS: Final = 4  # api, v1, ingestion, ingest
QUERY: Final = frozenset({"branch", "ref", "force", "priority", "callback_url"})


def routes(
    access: Access,
    disk: Disk,
    submitting: Submitting,
    allowed_hosts: AllowedHosts,
    callback_of: Callable[[str], CallbackAddress],
    bus: Bus,
    live: Live,
    finder: Finder,
    snapshots: Snapshots,
) -> Router:
    """The routes of this family."""

    @post(
        ["/ingest", "/ingest/{repo_url:path}"],
        guards=[access.editor, disk.has_room],
        status_code=200,
        summary="Submit a repository",
        description="`repo_url` is the rest of the path, raw or percent-encoded, with or without `https://`, "
        "`.git`, a trailing slash or `/tree/<branch>`, whose branch is all that follows, slashes included: a "
        "folder cannot be named. A second submit of the same repository and ref, while "
        "the first is pending or running, returns the first job with `deduplicated: true`. With "
        f"`callback_url`, {examples.CALLBACK}",
        security=list(openapi.SECURITY),
        responses={
            200: openapi.success(Submitted, examples.SUBMITTED, "Accepted, or found"),
            **openapi.errors(400, 401, 403, 429, 503, 507, invalid=examples.INVALID_URL),
        },
    )
    async def ingest(
        request: Request[Any, Any, Any],
        branch: Annotated[
            str | None, QueryParameter(description="A branch; default: the remote's HEAD.")
        ] = None,
        ref: Annotated[str | None, QueryParameter(description="A full commit id, or a branch.")] = None,
        force: Annotated[bool, QueryParameter(description="Index even what is indexed already.")] = False,
        priority: Annotated[
            Priority, QueryParameter(description="Its class in the queue.")
        ] = Priority.NORMAL,
        callback_url: Annotated[
            str | None,
            QueryParameter(
                description="Where to POST when the job has ended: https, public, no credentials. It is that "
                "of the job which is started; a submit answered with an earlier job adds none to it."
            ),
        ] = None,
        idempotency_key: Annotated[
            str | None,
            HeaderParameter(
                name="Idempotency-Key",
                max_length=255,
                description="The same key within 24 h returns the first answer.",
            ),
        ] = None,
    ) -> Submitted:
        for name in request.query_params:
            if name not in QUERY:
                # "?ref=…" misspelt and dropped would index the wrong thing.
                raise invalid(f"There is no query parameter {name[:80]!r} here", field=name[:80])
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
            raise invalid("Idempotency-Key must have 1 to 255 characters", field="Idempotency-Key")
        raw_path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        address = parse_repository_url(rest_of_path(raw_path, SEGMENTS), allowed_hosts=allowed_hosts)
        named, sha = revision(address, branch=branch, ref=ref)
        callback = None if callback_url is None else callback_of(callback_url)
        caller = caller_of(request)
        note_target(request, address.identity)
        if not caller.sight.project(PROJECT_DEFAULT):
            raise OtherProject(PROJECT_DEFAULT)
        return await submitting.submit(
            Order(
                tenant=caller.tenant,
                user=caller.user,
                address=address,
                branch=named,
                sha=sha,
                force=force,
                priority=priority,
                idempotency_key=idempotency_key,
                callback=callback,
                quota=subject_of(caller),
            )
        )

    @get(
        "/worker/status",
        guards=[access.public],
        summary="What the workers do",
        security=list(openapi.PUBLIC),
        responses={
            200: openapi.success(WorkerStatus, examples.WORKER_STATUS, "All workers in one phrase, and each"),
            **openapi.errors(401, 503),
        },
    )
    async def worker_status(request: Request[Any, Any, Any]) -> WorkerStatus:
        try:
            await reach(bus, live.workers_known)
        except Unreachable as error:
            raise unavailable("Worker status", error.reason) from error
        caller = caller_of(request)
        workers = live.workers()
        return statuses.status_of(workers, caller.sight.workers, await snapshots.numbers(workers))

    @get(
        "/jobs/history",
        guards=[access.public],
        summary="What became of recent submits of repositories",
        security=list(openapi.PUBLIC),
        responses={
            200: openapi.success(HistoryPage, examples.HISTORY, "Newest first"),
            **openapi.errors(400, 401, 503),
        },
    )
    async def jobs_history(
        request: Request[Any, Any, Any],
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many, 1 to 100.")] = 10,
    ) -> HistoryPage:
        sight = caller_of(request).sight_in_tenant.repositories
        try:
            await reach(bus)
            waiting = await finder.waiting(sight)
            page = await finder.page(sight, states=(), limit=limit, before=None)
        except (BusError, HistoryUnavailable, Unreachable) as error:
            raise unavailable("History", str(error)) from error
        jobs = history.merged((view.job for view in page.jobs), waiting, limit)
        return HistoryPage(jobs=tuple(history.row(job, live.progress(job.job_id)) for job in jobs))

    return Router(PATH, route_handlers=[ingest, worker_status, jobs_history], tags=["ingestion"])
