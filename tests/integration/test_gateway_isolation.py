"""Who may see and do what: every route with every kind of credential.

The table of routes is the application's own: a route without a decision here fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from enum import Enum
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from nats.aio.client import Client
from nats.aio.msg import Msg
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pharos_contracts import rpc
from pharos_contracts.batches.v1 import BatchSource
from pharos_contracts.connections.v1 import Connection, SourceType
from pharos_contracts.control.v1 import AnyCommand, DeadLetter, DeadLetterKind, Purged, PutSchedule, Scheduled
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.graphs.v1 import (
    FindRelated,
    GraphPage,
    Indexed,
    MapPage,
    ReadGraph,
    ReadMap,
    RelatedFiles,
)
from pharos_contracts.history.v1 import (
    BatchPage,
    BatchSummary,
    FindJob,
    ItemPage,
    JobLog,
    JobPage,
    JobView,
    ListBatches,
    ListItems,
    ListJobs,
    LogEntry,
    MeasureSources,
    ReadLog,
    SourceRates,
    SummarizeBatches,
)
from pharos_contracts.identity import dataset_key, repository_id
from pharos_contracts.jobs.v1 import Job, JobKind, RepositorySource, Scope
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message, decode, encode
from pharos_contracts.resources.v1 import Resource
from pharos_contracts.rpc import Refused
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.search.v1 import Search, SearchAnswer, SearchBatch, SearchBatchAnswer
from pharos_contracts.streams import KV_CONNECTIONS, KV_DATASETS, KV_RESOURCES, KV_SCHEDULES, KV_WATCHES
from pharos_contracts.subjects import dead_letter_subject
from pharos_contracts.watches.v1 import Watch
from pharos_gateway.app import Parts, application, serving
from pharos_gateway.routes.conversing import CLOSE_CODE
from pharos_gateway.settings import Settings
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from tests.support.gateway import (
    BEARER,
    TOKEN,
    History,
    Received,
    client,
    events,
    job,
    leading,
    now,
    settings,
    shelving,
    until_ready,
)
from tests.support.keys import issue, with_key
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

MARKER = "marker"  # in the name of everything that belongs to the project atlas of the tenant acme
SOURCE = RepositorySource(identity=f"github.com/acme/{MARKER}", clone_url=f"https://github.com/acme/{MARKER}")
JOB = job(7, tenant="acme", project="atlas", source=SOURCE, submitted_by="ada")
PAPERS = BatchSource(name=MARKER, manifest="m", parts=())
BATCH = job(
    8,
    tenant="acme",
    project="atlas",
    source=None,
    batch=PAPERS,
    submitted_by="ada",
    kind=JobKind.BATCH,
    key="b",
)
REPOSITORY = repository_id("acme", SOURCE.identity)
BATCH = job(
    8,
    tenant="acme",
    project="atlas",
    source=None,
    batch=BatchSource(name=MARKER, manifest="m", parts=()),
    submitted_by="ada",
    kind=JobKind.BATCH,
    key="b",
)


Question = ListJobs | FindJob | ReadLog | ListBatches | ListItems | SummarizeBatches | MeasureSources


class Open(Enum):
    """Whom a route lets in."""

    EVERYBODY = "whatever they send"
    PUBLIC = "whoever sends nothing, or something good"
    VIEWER = "viewers"
    EDITOR = "editors"
    TENANT_EDITOR = "editors whose key is for the whole tenant"
    ADMIN = "admins"
    SIGNED = "whoever signs what they send"


# Whether a route is about one thing of the tenant, one of a user, all of them, something new in a
# project that is not ``elsewhere``, whatever is of the user whom the address names, or none of these.
ONE, OWN, ALL, PUT, USER, NONE = "one", "own", "all", "put", "user", "none"

DECISIONS: dict[tuple[str, str], tuple[Open, str]] = {
    ("GET", "/health"): (Open.EVERYBODY, NONE),
    ("GET", "/livez"): (Open.EVERYBODY, NONE),
    ("GET", "/readyz"): (Open.EVERYBODY, NONE),
    ("GET", "/metrics"): (Open.PUBLIC, NONE),
    ("GET", "/schema"): (Open.EVERYBODY, NONE),
    ("GET", "/schema/openapi.json"): (Open.EVERYBODY, NONE),
    ("GET", "/schema/{path}"): (Open.EVERYBODY, NONE),
    ("GET", "/schema/messages"): (Open.EVERYBODY, NONE),
    ("GET", "/api/v1/ingestion/worker/status"): (Open.PUBLIC, ALL),
    ("GET", "/api/v1/ingestion/jobs/history"): (Open.PUBLIC, ALL),
    ("GET", "/api/v1/ingestion/events"): (Open.PUBLIC, ALL),
    ("POST", "/api/v1/ingestion/ingest"): (Open.EDITOR, NONE),
    ("POST", "/api/v1/ingestion/ingest/{repo_url}"): (Open.EDITOR, PUT),
    ("GET", "/api/v1/jobs"): (Open.VIEWER, ALL),
    ("POST", "/api/v1/jobs"): (Open.EDITOR, PUT),
    ("GET", "/api/v1/jobs/{job_id}"): (Open.VIEWER, ONE),
    ("GET", "/api/v1/jobs/{job_id}/log"): (Open.VIEWER, ONE),
    ("POST", "/api/v1/jobs/{job_id}/{action}"): (Open.EDITOR, ONE),
    ("GET", "/api/v1/jobs/{job_id}/events"): (Open.VIEWER, ONE),
    ("GET", "/api/v1/workers"): (Open.VIEWER, ALL),
    ("GET", "/api/v1/datasets"): (Open.VIEWER, ALL),
    ("DELETE", "/api/v1/datasets"): (Open.EDITOR, ONE),
    ("GET", "/api/v1/events"): (Open.VIEWER, ALL),
    ("POST", "/api/v1/events/ticket"): (Open.VIEWER, NONE),
    ("GET", "/api/v1/schedules"): (Open.VIEWER, ALL),
    ("POST", "/api/v1/schedules"): (Open.EDITOR, PUT),
    ("GET", "/api/v1/schedules/{schedule_id}"): (Open.VIEWER, ONE),
    ("DELETE", "/api/v1/schedules/{schedule_id}"): (Open.EDITOR, ONE),
    ("GET", "/api/v1/webhooks"): (Open.VIEWER, ALL),
    ("POST", "/api/v1/webhooks"): (Open.EDITOR, PUT),
    ("GET", "/api/v1/webhooks/{watch_id}"): (Open.VIEWER, ONE),
    ("DELETE", "/api/v1/webhooks/{watch_id}"): (Open.EDITOR, ONE),
    ("POST", "/webhooks/github"): (Open.SIGNED, NONE),
    ("GET", "/api/v1/callbacks/secret"): (Open.TENANT_EDITOR, NONE),
    **{
        (method, f"{root}/connections{rest}"): decision
        for root in ("", "/api/v1")
        for method, rest, decision in (
            ("GET", "", (Open.VIEWER, ALL)),
            ("POST", "", (Open.EDITOR, PUT)),
            ("POST", "/upload", (Open.EDITOR, PUT)),
            ("GET", "/{connection_id}", (Open.VIEWER, OWN)),
            ("DELETE", "/{connection_id}", (Open.EDITOR, OWN)),
            ("GET", "/{connection_id}/files", (Open.VIEWER, OWN)),
            ("POST", "/{connection_id}/test", (Open.EDITOR, OWN)),
        )
    },
    ("POST", "/api/v1/search"): (Open.VIEWER, ALL),
    ("POST", "/api/v1/search/batch"): (Open.VIEWER, ALL),
    ("GET", "/api/v1/repositories"): (Open.VIEWER, ALL),
    ("GET", "/api/v1/repositories/{repository_id}"): (Open.VIEWER, ONE),
    ("GET", "/api/v1/repositories/{repository_id}/graph"): (Open.VIEWER, ONE),
    ("GET", "/api/v1/repositories/{repository_id}/related"): (Open.VIEWER, ONE),
    ("GET", "/api/v1/repositories/{repository_id}/map"): (Open.VIEWER, ONE),
    ("POST", "/projects/{project}/query"): (Open.VIEWER, ALL),
    ("POST", "/projects/{project}/ingest/github"): (Open.EDITOR, PUT),
    ("DELETE", "/projects/{project}/ingest/github"): (Open.EDITOR, ONE),
    ("GET", "/projects/{project}/ingest/history"): (Open.VIEWER, ALL),
    ("GET", "/projects/{project}/ingest/jobs/{job_id}"): (Open.VIEWER, ONE),
    ("GET", "/projects/{project}/ingest/jobs/{job_id}/logs"): (Open.VIEWER, ONE),
    ("POST", "/projects/{project}/ingest/jobs/{job_id}/{action}"): (Open.EDITOR, ONE),
    ("GET", "/projects/{project}/stats"): (Open.VIEWER, ALL),
    ("POST", "/projects/{project}/schedules"): (Open.EDITOR, PUT),
    ("POST", "/resources/ingest-repo"): (Open.EDITOR, PUT),
    ("POST", "/resources"): (Open.EDITOR, PUT),
    ("GET", "/resources"): (Open.VIEWER, ALL),
    ("GET", "/resources/{resource_id}"): (Open.VIEWER, OWN),
    ("DELETE", "/resources/{resource_id}"): (Open.EDITOR, OWN),
    ("POST", "/ingest"): (Open.EDITOR, PUT),
    ("POST", "/knowledge/ingest-text-async"): (Open.EDITOR, PUT),
    ("POST", "/knowledge/ingest-url-async"): (Open.EDITOR, PUT),
    ("POST", "/knowledge/ingest-file-async"): (Open.EDITOR, PUT),
    ("GET", "/ops/jobs/{job_id}"): (Open.EDITOR, ONE),
    ("WS", "/ws"): (Open.VIEWER, ALL),
    ("POST", "/batch/jobs"): (Open.EDITOR, NONE),
    ("GET", "/batch/jobs/{job_id}"): (Open.VIEWER, OWN),
    ("POST", "/batch/jobs/{job_id}/control"): (Open.EDITOR, OWN),
    ("POST", "/batch/jobs/list"): (Open.VIEWER, ALL),
    ("GET", "/batch/statistics"): (Open.VIEWER, ALL),
    ("WS", "/batch/ws/{user_id}"): (Open.VIEWER, USER),
    ("GET", "/ops/queue"): (Open.TENANT_EDITOR, ALL),
    ("GET", "/ops/dead-letters"): (Open.TENANT_EDITOR, ALL),
    ("GET", "/ops/dead-letters/{letter_id}"): (Open.TENANT_EDITOR, ONE),
    ("POST", "/ops/dead-letters/{letter_id}/replay"): (Open.TENANT_EDITOR, ONE),
    ("DELETE", "/ops/dead-letters/{letter_id}"): (Open.TENANT_EDITOR, ONE),
    ("DELETE", "/ops/dead-letters"): (Open.TENANT_EDITOR, NONE),
    ("GET", "/api/v1/keys"): (Open.ADMIN, ALL),
    ("POST", "/api/v1/keys"): (Open.ADMIN, NONE),
    ("GET", "/api/v1/keys/{key_id}"): (Open.ADMIN, ONE),
    ("POST", "/api/v1/keys/{key_id}/rotate"): (Open.ADMIN, ONE),
    ("POST", "/api/v1/keys/{key_id}/disable"): (Open.ADMIN, ONE),
    ("DELETE", "/api/v1/keys/{key_id}"): (Open.ADMIN, ONE),
    ("GET", "/api/v1/audit"): (Open.ADMIN, ALL),
}
SOCKET = "WS"
FORMS: dict[tuple[str, str], Any] = {
    ("POST", "/knowledge/ingest-file-async"): {"file": ("a.md", b"x")},
}
STREAMS = {"/api/v1/ingestion/events", "/api/v1/jobs/{job_id}/events", "/api/v1/events"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/search"): {"query": "x"},
    ("POST", "/api/v1/search/batch"): {"queries": [{"query": "x"}]},
    ("POST", "/projects/{project}/query"): {"query": "x"},
    ("POST", "/batch/jobs"): {
        "name": "x",
        "file_selections": [{"connection_id": "never", "source_type": "s3", "file_ids": ["x"]}],
    },
    ("POST", "/batch/jobs/{job_id}/control"): {"action": "pause"},
    ("POST", "/batch/jobs/list"): {},
    ("POST", "/api/v1/schedules"): {"repo_url": "http://git.test:9418/o/r", "cron": "0 3 * * *"},
    ("POST", "/api/v1/webhooks"): {"repo_url": "http://git.test:9418/o/r"},
    ("POST", "/webhooks/github"): {"repository": {"clone_url": SOURCE.clone_url}},
    ("DELETE", "/api/v1/datasets"): {"dataset": MARKER, "project": "atlas"},
    ("POST", "/projects/{project}/ingest/github"): {"repo": "http://git.test:9418/o/r"},
    ("DELETE", "/projects/{project}/ingest/github"): {"dataset": MARKER},
    ("POST", "/projects/{project}/schedules"): {"repo": "http://git.test:9418/o/r", "cron": "0 3 * * *"},
    ("POST", "/resources"): {"title": "x", "content": "x", "url": "https://h.example/x"},
    ("POST", "/resources/ingest-repo"): {"git_url": "http://git.test:9418/o/r"},
    ("POST", "/ingest"): {"repo_url": "http://git.test:9418/o/r"},
    **{
        ("POST", f"{root}/connections"): {"source_type": "s3", "config": {"bucket": "papers"}}
        for root in ("", "/api/v1")
    },
    ("POST", "/api/v1/jobs"): {"kind": "text", "text": "x"},
    ("POST", "/knowledge/ingest-text-async"): {"text": "x"},
    ("POST", "/knowledge/ingest-url-async"): {"url": "http://web.test/x"},
    ("POST", "/api/v1/keys"): {"user": "eve", "role": "viewer"},
    ("POST", "/api/v1/keys/{key_id}/rotate"): {},
}


def _routes() -> list[tuple[str, str]]:
    chosen = Settings(admin_token=settings("nats://127.0.0.1:1").admin_token)
    found = application(chosen, Parts.on(Bus(Client()), chosen)).routes
    return sorted(
        (str(method), route.path_format.replace(":str", "") or "/")
        for route in found
        for method in (getattr(route, "methods", ()) or (SOCKET,))
        if method not in ("OPTIONS", "HEAD")
    )


ROUTES = _routes()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_somebody_has_decided_who_may_use_each_route(route: tuple[str, str]) -> None:
    assert route in DECISIONS


def test_no_decision_is_about_a_route_that_is_gone() -> None:
    assert set(DECISIONS) == set(ROUTES)


class World:
    """A gateway, a tenant ``acme`` with one of each thing, and everybody who might ask for them."""

    def __init__(self, http: httpx.AsyncClient, bus: Bus) -> None:
        self.http = http
        self.bus = bus
        self.victim = ""
        self.searched: list[Search] = []
        self.credentials: dict[str, dict[str, str]] = {}

    async def furnish(self) -> None:
        await History(self.bus).tell(JOB, JobState.RUNNING)
        await History(self.bus).tell(BATCH, JobState.RUNNING)
        schedule = Schedule(
            schedule_id="nightly",
            tenant="acme",
            source=SOURCE,
            project="atlas",
            cron="0 3 * * *",
            ttl_seconds=60,
            created_at=now(),
            created_by="ada",
        )
        await Bucket(self.bus, KV_SCHEDULES, Schedule).put("acme.nightly", schedule)
        watch = Watch(
            watch_id="watch",
            tenant="acme",
            source=SOURCE,
            repository_key=SOURCE.identity,
            project="atlas",
            sealed="?",
            created_at=now(),
            created_by="ada",
        )
        await Bucket(self.bus, KV_WATCHES, Watch).put("acme.watch", watch)
        connection = Connection(
            connection_id="papers",
            tenant="acme",
            user="ada",
            project="atlas",
            source_type=SourceType.LOCAL_DIRECTORY,
            name=MARKER,
            config={"path": f"/nowhere/{MARKER}"},
            created_at=now(),
        )
        await Bucket(self.bus, KV_CONNECTIONS, Connection).put("acme.papers", connection)
        dataset = Dataset(
            tenant="acme",
            project="atlas",
            dataset=MARKER,
            scope=Scope.PROJECT,
            repository=SOURCE.identity,
            clone_url=SOURCE.clone_url,
            branch="main",
            commit="c" * 40,
            generation=1,
            stage=IndexStage.FULL,
            job_id=JOB.job_id,
            files=1,
            chunks=1,
            encoder="e",
            chunker="c",
            published_at=now(),
        )
        await Bucket(self.bus, KV_DATASETS, Dataset).put(dataset_key("acme", "atlas", MARKER), dataset)
        resource = Resource(
            resource_id="resource",
            tenant="acme",
            project="atlas",
            user="ada",
            title=MARKER,
            url="https://h.example/r",
            resource_type="PRACTICE",
            job_id=JOB.job_id,
            created_at=now(),
            updated_at=now(),
        )
        await Bucket(self.bus, KV_RESOURCES, Resource).put("acme.resource", resource)
        letter = DeadLetter(
            letter_id="letter",
            kind=DeadLetterKind.JOB,
            tenant="acme",
            at=now(),
            reason=MARKER,
            code="poison",
            job=JOB,
        )
        await self.bus.publish(dead_letter_subject(letter), letter)
        soon = (now() + timedelta(seconds=0.3)).isoformat()
        expired = await issue(self.http, expires_at=soon)
        disabled = await issue(self.http)
        await self.http.post(f"/api/v1/keys/{disabled['id']}/disable", headers=BEARER)
        self.victim = (await issue(self.http, name=MARKER))["id"]
        self.credentials = {
            "none": {},
            "wrong": {"Authorization": "Bearer nothing"},
            "expired": with_key(expired),
            "disabled": with_key(disabled),
            "viewer": with_key(await issue(self.http, role="viewer")),
            "owner": with_key(await issue(self.http)),
            "colleague": with_key(await issue(self.http, user="bob")),
            "elsewhere": with_key(await issue(self.http, projects=["elsewhere"])),
            "stranger": with_key(await issue(self.http, tenant="other")),
            "strange admin": {**with_key(await issue(self.http, role="admin")), "x-tenant": "other"},
            "admin": {**BEARER, "x-tenant": "acme"},
        }
        async with asyncio.timeout(5):
            while (await self.http.get("/api/v1/jobs", headers=with_key(expired))).status_code != 401:
                await asyncio.sleep(0.02)

    async def subscribe(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """As ``ask``, of a WebSocket: (the status in the code it is closed with, what it says)."""
        url = f"{self.http.base_url.copy_with(scheme='ws')}".rstrip("/") + path
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            with contextlib.suppress(ConnectionClosed):  # it may be sent away before it says anything
                await socket.send('{"action":"subscribe","project":"atlas"}')
            said = str(await socket.recv())
            if json.loads(said)["type"] in ("subscribed", "connection_established"):
                return 200, said
            await socket.wait_closed()
            return (socket.close_code or 0) - CLOSE_CODE, said

    async def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """(status, body); of a stream the status alone."""
        url = path.replace("{repo_url}", "http://git.test:9418/o/r")
        for name, value in {
            "job_id": (BATCH if path.startswith("/batch/") else JOB).job_id,
            "user_id": "ada",
            "action": "pause",
            "schedule_id": "nightly",
            "letter_id": "letter",
            "watch_id": "watch",
            "connection_id": "papers",
            "repository_id": REPOSITORY,
            "resource_id": "resource",
            "key_id": self.victim,
            "project": "atlas",
            "path": "openapi.json",
        }.items():
            url = url.replace(f"{{{name}}}", value)
        if method == SOCKET:
            return await self.subscribe(url, headers)
        if path in STREAMS:
            async with self.http.stream(method, url, headers=headers) as stream:
                return stream.status_code, ""
        answer = await self.http.request(
            method,
            url,
            headers=headers,
            json=BODIES.get((method, path)),
            files=FORMS.get((method, path)),
            follow_redirects=False,
        )
        return answer.status_code, answer.text


@pytest.fixture
async def world(bus: Bus, nats_server: NatsServer) -> AsyncIterator[World]:
    def decide(command: AnyCommand, _: int) -> Message:
        if isinstance(command, PutSchedule):
            return Scheduled(schedule=command.schedule)
        if command.__class__.__name__ in ("PurgeDeadLetter", "DeleteSchedule"):
            return Purged(id="x")
        return Refused(code="invalid_transition", detail="Cannot pause a completed job", status=409)

    chosen = settings(
        nats_server.url,
        git_allowed_hosts="http://git.test:9418",
        web_allowed_hosts="http://web.test",
        rate_limit_guesses_per_minute=0,
        secret_key=settings("x").admin_token,
    )
    async with (
        serving(chosen) as running,
        client(running.address) as http,
        leading(bus, decide),
        shelving(bus) as shelf,
    ):
        await until_ready(http)
        shelf.holds["acme", "atlas", MARKER] = 1
        found = World(http, bus)

        async def history(message: Msg) -> None:
            question = decode(message.data, Question)
            if isinstance(question, MeasureSources):
                await message.respond(encode(SourceRates(seconds_per_file={})))
                return
            if isinstance(question, SummarizeBatches):
                await message.respond(encode(BatchSummary(by_state={}, by_priority={}, by_source={})))
                return
            if isinstance(question, ListItems):
                await message.respond(encode(ItemPage(items=())))
                return
            if isinstance(question, ListBatches):
                mine = (question.tenant, question.owner) == ("acme", "ada")
                mine = mine and (question.projects is None or "atlas" in question.projects)
                view = JobView(job=replace(BATCH, state=JobState.RUNNING), sequence=1, changed_at=now())
                page = BatchPage(jobs=(view,) if mine else (), total=int(mine), sequence=10**6)
                await message.respond(encode(page))
                return
            if isinstance(question, ReadLog):
                line = LogEntry(sequence=1, event="jobs.event.v1.queued", at=now(), text=MARKER)
                await message.respond(encode(JobLog(entries=(line,))))
                return
            shown = [each for each in (JOB, BATCH) if question.tenant in (None, each.tenant)]
            views = tuple(
                JobView(job=replace(each, state=JobState.RUNNING), sequence=1, changed_at=now())
                for each in shown
            )
            await message.respond(encode(JobPage(jobs=views, cursor=None)))

        async def search(message: Msg) -> None:
            question = decode(message.data, Search | SearchBatch | ReadGraph | ReadMap | FindRelated)
            if isinstance(question, ReadGraph | ReadMap | FindRelated):
                await message.respond(encode(_of_structure(question)))
                return
            nothing = SearchAnswer(results=(), metadata={}, latency_ms=1)
            if isinstance(question, SearchBatch):
                found.searched.extend(question.queries)
                await message.respond(encode(SearchBatchAnswer(answers=(nothing,), latency_ms=1)))
                return
            found.searched.append(question)
            await message.respond(encode(nothing))

        await bus.client.subscribe(rpc.HISTORY, cb=history)
        await bus.client.subscribe(rpc.SEARCH, cb=search)
        await found.furnish()
        yield found


INDEXED = Indexed(
    tenant="acme",
    project="atlas",
    dataset=MARKER,
    repository=SOURCE.identity,
    branch="main",
    commit="c",
    generation=1,
)


def _of_structure(question: ReadGraph | ReadMap | FindRelated) -> Message:
    """As the search service answers, to those who may see the project atlas of acme."""
    shown = question.tenant in (None, "acme") and (question.projects is None or "atlas" in question.projects)
    if not shown or question.repository_id != REPOSITORY:
        return Refused(code="not_found", detail="There is no such repository", status=404)
    if isinstance(question, ReadGraph):
        return GraphPage(indexed=INDEXED, files=(), files_total=0, edges_total=0, edges_dropped=0, after=None)
    if isinstance(question, ReadMap):
        return MapPage(indexed=INDEXED, files=(), files_total=0, after=None)
    return RelatedFiles(indexed=INDEXED, path="a.py", symbol=None, files=())


def expected(open_to: Open, things: str, who: str) -> tuple[set[int] | None, bool | None]:
    """(the statuses that are right, None is any but a refusal; whether acme's things are in the answer)."""
    if open_to is Open.EVERYBODY:
        return None, False
    if open_to is Open.SIGNED:
        return {401}, False
    if who in ("wrong", "expired", "disabled"):
        return {401}, False
    if who == "none":
        return (None, False) if open_to is Open.PUBLIC else ({401}, False)
    rank = {"viewer": 0, "admin": 2, "strange admin": 2}.get(who, 1)
    needed = {Open.EDITOR: 1, Open.TENANT_EDITOR: 1, Open.ADMIN: 2}.get(open_to, 0)
    if rank < needed or (open_to is Open.TENANT_EDITOR and who == "elsewhere"):
        return {403}, False
    if things == PUT and who == "elsewhere":
        return {403}, False
    if who in ("stranger", "elsewhere", "strange admin"):
        return ({404} if things in (ONE, OWN) else None), False
    if things in (OWN, USER) and who == "colleague":
        return {404 if things == OWN else 403}, False
    return None, None


async def test_no_credential_opens_what_it_is_not_for(world: World) -> None:
    wrong = []
    for (method, path), (open_to, things) in DECISIONS.items():
        for who, headers in world.credentials.items():
            if who in ("admin", "owner", "colleague") and method in ("DELETE",):
                continue  # it would be gone for those who come after
            if (method, path) == ("POST", "/api/v1/keys/{key_id}/disable") and who == "admin":
                continue
            status, body = await world.ask(method, path, headers)
            right, shown = expected(open_to, things, who)
            refused = status in (401, 403, 404, 429) or status >= 500
            if (status not in right) if right is not None else (refused and not _unready(path, status)):
                wrong.append((method, path, who, status, body[:200]))
            if shown is False and MARKER in body:
                wrong.append((method, path, who, "shows what is acme's", body[:200]))
    assert wrong == []


def _unready(path: str, status: int) -> bool:
    return path == "/health" and status == 503  # nothing is wrong with whoever asks


async def test_what_is_refused_reads_like_what_does_not_exist(world: World) -> None:
    for who in ("stranger", "elsewhere"):
        for path, nowhere in (
            (f"/api/v1/jobs/{JOB.job_id}", f"/api/v1/jobs/{job(99).job_id}"),
            (f"/api/v1/jobs/{JOB.number}", "/api/v1/jobs/99"),
            ("/api/v1/schedules/nightly", "/api/v1/schedules/never"),
            ("/api/v1/webhooks/watch", "/api/v1/webhooks/never"),
            ("/connections/papers", "/connections/never"),
            ("/api/v1/connections/papers/files", "/api/v1/connections/never/files"),
            (f"/api/v1/repositories/{REPOSITORY}", "/api/v1/repositories/never"),
            (f"/api/v1/repositories/{REPOSITORY}/map", "/api/v1/repositories/never"),
        ):
            there = await world.http.get(path, headers=world.credentials[who])
            missing = await world.http.get(nowhere, headers=world.credentials[who])
            assert (there.status_code, there.json()) == (404, missing.json()), (who, path)


async def test_a_repository_is_its_tenants_and_a_batch_is_its_users(world: World) -> None:
    def path(of: Job) -> str:
        return f"/api/v1/jobs/{of.job_id}"

    for who, status in (("owner", 200), ("viewer", 200), ("admin", 200), ("colleague", 404)):
        headers = world.credentials[who]
        assert (await world.http.get(path(JOB), headers=headers)).status_code == 200, who
        assert (await world.http.get(path(BATCH), headers=headers)).status_code == status, who
        listed = {
            each["job_id"] for each in (await world.http.get("/api/v1/jobs", headers=headers)).json()["jobs"]
        }
        assert (JOB.job_id in listed, BATCH.job_id in listed) == (True, status == 200), who
    stopped = await world.http.post(f"{path(BATCH)}/cancel", headers=world.credentials["colleague"])
    assert stopped.status_code == 404


async def test_a_list_of_batches_shows_those_of_its_user_alone(world: World) -> None:
    for who, body, shown in (
        ("owner", {}, True),
        ("viewer", {"user_id": "ada"}, True),
        ("colleague", {}, False),
        ("elsewhere", {}, False),
        ("stranger", {}, False),
        ("admin", {"user_id": "ada"}, True),
        ("admin", {}, False),
        ("strange admin", {"user_id": "ada"}, False),
    ):
        answer = await world.http.post("/batch/jobs/list", json=body, headers=world.credentials[who])
        assert (answer.status_code, MARKER in answer.text) == (200, shown), (who, body)
    named = {"user_id": "ada"}
    for path, method in (("/batch/jobs/list", "POST"), ("/batch/statistics", "GET")):
        answer = await world.http.request(
            method,
            path,
            params=named if method == "GET" else None,
            json=named if method == "POST" else None,
            headers=world.credentials["colleague"],
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "other_user")


async def test_a_resource_is_its_users(world: World) -> None:
    for who, status in (("owner", 200), ("viewer", 200), ("admin", 200), ("colleague", 404)):
        headers = world.credentials[who]
        assert (await world.http.get("/resources/resource", headers=headers)).status_code == status, who
        listed = (await world.http.get("/resources", headers=headers)).json()
        assert listed["total"] == (status == 200), who
    refused = await world.http.delete("/resources/resource", headers=world.credentials["colleague"])
    assert (refused.status_code, refused.json()["detail"]) == (404, "There is no such resource")


async def test_a_search_is_told_the_tenant_and_the_projects_of_the_key(world: World) -> None:
    for who, headers, tenant, projects in (
        ("owner", {}, "acme", None),
        ("owner", {"x-tenant": "other"}, "acme", None),
        ("elsewhere", {}, "acme", ("elsewhere",)),
        ("stranger", {}, "other", None),
        ("admin", {"x-tenant": "acme"}, "acme", None),
    ):
        sent = {**world.credentials[who], **headers}
        for path in ("/api/v1/search", "/projects/all/query", "/projects/atlas/query"):
            assert (await world.http.post(path, json={"query": "x"}, headers=sent)).status_code == 200
            assert (world.searched[-1].tenant, world.searched[-1].projects) == (tenant, projects), (who, path)
        several = {"queries": [{"query": "x", "project": "atlas"}]}
        await world.http.post("/api/v1/search/batch", json=several, headers=sent)
        assert (world.searched[-1].tenant, world.searched[-1].projects) == (tenant, projects), who


async def test_a_stream_tells_of_nothing_that_its_key_may_not_see(world: World) -> None:
    async def first(who: str, path: str, **headers: str) -> list[Received]:
        seen: list[Received] = []
        async for event in events(world.http, path, **world.credentials[who], **headers):
            if event.name.startswith("job."):
                seen.append(event)
                if event.data.get("number", event.data.get("job_id")) in (9, 10):
                    return seen
        return seen

    history = History(world.bus)
    last = {
        who: asyncio.create_task(first(who, "/api/v1/events", **{"Last-Event-ID": "0"}))
        for who in ("owner", "colleague", "elsewhere", "stranger", "admin")
    }
    async with asyncio.timeout(20):
        await history.tell(job(9, tenant="acme", project="elsewhere"), JobState.RUNNING)
        await history.tell(job(10, tenant="other"), JobState.RUNNING)
        seen = {who: await task for who, task in last.items()}
    numbers = {who: [event.data["number"] for event in received] for who, received in seen.items()}
    assert numbers == {
        "owner": [7, 8, 9],
        "colleague": [7, 9],
        "elsewhere": [9],
        "stranger": [10],
        "admin": [7, 8, 9],
    }


async def test_a_key_of_some_projects_submits_and_schedules_only_there(world: World) -> None:
    elsewhere = world.credentials["elsewhere"]
    ingest = "/api/v1/ingestion/ingest/http://git.test:9418/o/r"
    assert (await world.http.post(ingest, headers=elsewhere)).json()["code"] == "other_project"
    plan = {"repo_url": "http://git.test:9418/o/r", "cron": "0 3 * * *"}
    there = await world.http.post("/api/v1/schedules", json={**plan, "project": "atlas"}, headers=elsewhere)
    taken = await world.http.post(
        "/api/v1/schedules", json={**plan, "project": "elsewhere", "id": "nightly"}, headers=elsewhere
    )
    here = await world.http.post(
        "/api/v1/schedules", json={**plan, "project": "elsewhere", "id": "mine"}, headers=elsewhere
    )
    assert (there.status_code, taken.status_code, here.status_code) == (403, 409, 201)
    body = {"repo": "http://git.test:9418/o/r"}
    github = [
        await world.http.post(f"/projects/{project}/ingest/github", json=body, headers=elsewhere)
        for project in ("atlas", "elsewhere")
    ]
    assert [answer.status_code for answer in github] == [403, 202]
    assert github[1].json()["project"] == "elsewhere"


async def test_all_is_no_project_but_every_one_that_the_key_reaches(world: World) -> None:
    for path, body in (
        ("/api/v1/schedules", {"repo_url": "http://git.test:9418/o/r", "cron": "0 3 * * *"}),
        ("/api/v1/webhooks", {"repo_url": "http://git.test:9418/o/r"}),
        ("/connections", {"source_type": "http", "config": {"urls": ["http://web.test/x"]}}),
        ("/api/v1/jobs", {"kind": "text", "text": "x"}),
        ("/knowledge/ingest-text-async", {"text": "x"}),
    ):
        refused = await world.http.post(path, headers=BEARER, json={**body, "project": "all"})
        assert (refused.status_code, refused.json()["field"]) == (400, "project"), refused.text
        assert "every project" in refused.json()["detail"]
    for path in ("/api/v1/datasets", "/api/v1/repositories", "/api/v1/jobs"):
        for owner, seen in (("owner", True), ("elsewhere", False)):
            found = await world.http.get(path, headers=world.credentials[owner], params={"project": "all"})
            assert found.status_code == 200
            assert (MARKER in found.text) == seen, (path, owner)


async def test_a_job_is_found_in_its_project_only(world: World) -> None:
    owner = world.credentials["owner"]
    for project, status in (("atlas", 200), ("all", 200), ("elsewhere", 404)):
        for path in ("", "/logs"):
            answer = await world.http.get(
                f"/projects/{project}/ingest/jobs/{JOB.job_id}{path}", headers=owner
            )
            assert answer.status_code == status, (project, path)


async def test_only_an_admin_submits_in_the_name_of_another_user(world: World) -> None:
    body = {"repo_url": "http://git.test:9418/o/r", "user_id": "bob"}
    refused = await world.http.post("/ingest", json=body, headers=world.credentials["owner"])
    own = await world.http.post("/ingest", json=body, headers=world.credentials["colleague"])
    assert (refused.status_code, refused.json()["code"], own.status_code) == (403, "other_user", 202)
    body["repo_url"] += "2"
    asked = await world.http.post("/ingest", json=body, headers=world.credentials["admin"])
    shown = await world.http.get(f"/api/v1/jobs/{asked.json()['id']}", headers=world.credentials["admin"])
    assert shown.json()["submitted_by"] == "bob"


async def test_nobody_is_an_admin_of_keys_by_sending_nothing(bus: Bus, nats_server: NatsServer) -> None:
    async with (
        serving(settings(nats_server.url, anonymous="default:admin")) as running,
        client(running.address) as http,
    ):
        await until_ready(http)
        assert (await http.get("/api/v1/jobs/1")).status_code in (404, 503)
        for path in ("/api/v1/keys", "/api/v1/audit"):
            assert (await http.get(path)).status_code == 401
            assert (await http.get(path, headers={"x-api-key": TOKEN})).status_code == 200
