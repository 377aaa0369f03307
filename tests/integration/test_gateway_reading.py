"""Status, history, jobs, datasets, search, and what every route has in common, over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import pkgutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from faststream.nats import NatsBroker
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from openapi_spec_validator import OpenAPIV31SpecValidator
from structlog.testing import capture_logs

import pharos_contracts
from pharos_contracts import rpc
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.graphs.v1 import (
    Direction,
    EdgeKind,
    FindRelated,
    GraphEdge,
    GraphFile,
    GraphPage,
    Indexed,
    MapPage,
    MappedFile,
    ReadGraph,
    ReadMap,
    RelatedFile,
    RelatedFiles,
    Tie,
)
from pharos_contracts.history.v1 import FindJob, JobPage, JobView, ListJobs
from pharos_contracts.identity import dataset_key, repository_id
from pharos_contracts.jobs.v1 import Job, JobKind, Scope
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_contracts.search.v1 import (
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
    SearchMode,
    SearchResult,
)
from pharos_contracts.streams import KV_DATASETS, KV_WORKERS
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway.app import serving
from pharos_gateway.reachability import Dependencies
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from tests.support.gateway import (
    BEARER,
    TOKEN,
    History,
    client,
    document_job,
    job,
    leading,
    now,
    result,
    settings,
    until_ready,
    worker,
)
from tests.support.nats_server import NatsServer
from tests.support.scheduling import document_command, submit

pytestmark = pytest.mark.anyio

INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"
HISTORY = "/api/v1/ingestion/jobs/history"
AT = datetime(2024, 1, 20, 10, 0, 0, tzinfo=UTC)


class Answers:
    """The history and search services, as far as the gateway can tell."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.listed: list[ListJobs] = []
        self.searched: list[Search] = []

    async def history(self, question: ListJobs | FindJob) -> Message:
        if isinstance(question, ListJobs):
            self.listed.append(question)
            found = [
                each
                for each in self.jobs
                if question.tenant in (None, each.tenant) and each.kind in (question.kinds or JobKind)
            ]
        else:
            found = [
                each
                for each in self.jobs
                if question.tenant in (None, each.tenant)
                and (each.job_id == question.job_id or each.number == question.number)
            ]
        views = tuple(JobView(job=each, sequence=1, changed_at=AT) for each in found)
        return JobPage(jobs=views[:100], cursor=None)

    async def search(self, question: Search | SearchBatch) -> Message:
        if isinstance(question, SearchBatch):
            answers = [await self.search(each) for each in question.queries]
            return SearchBatchAnswer(
                answers=tuple(each for each in answers if isinstance(each, SearchAnswer)), latency_ms=3
            )
        self.searched.append(question)
        return SearchAnswer(
            results=(
                SearchResult(
                    id="r1",
                    chunk="class Context:",
                    file="src/context.py",
                    line_span=LineSpan(start=12, end=48),
                    symbol="Context",
                    kind="class",
                    language="python",
                    project="default",
                    dataset="github.com/o/r@main",
                    repository="github.com/o/r",
                    commit="c" * 40,
                    url=None,
                    scores=Scores(dense=0.5, final=0.03),
                ),
            ),
            metadata={"mode": question.mode.value},
            latency_ms=1.5,
        )


@pytest.fixture
async def answers(bus: Bus, nats_server: NatsServer) -> AsyncIterator[Answers]:
    broker = NatsBroker(nats_server.url)
    found = Answers()
    answer(broker, rpc.HISTORY, ListJobs | FindJob, found.history)
    answer(broker, rpc.SEARCH, Search | SearchBatch, found.search)
    async with broker:
        await broker.start()
        yield found


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    chosen = settings(
        nats_server.url, git_allowed_hosts="http://git.test:9418", cors_origins=("https://ui.example",)
    )
    async with serving(chosen) as running, client(running.address) as connected:
        await until_ready(connected)
        yield connected


async def test_history_has_the_shapes_of_its_document_and_what_waits(
    answers: Answers, http: httpx.AsyncClient
) -> None:
    started = {"started_at": AT, "ended_at": AT + timedelta(seconds=127.5)}
    answers.jobs = [
        replace(job(13, JobState.COMPLETED), result=result(), **started),
        replace(job(12, JobState.FAILED), error="Failed to clone repository", **started),
        replace(
            job(11, JobState.SKIPPED),
            reason="Task exceeded TTL",
            age_seconds=90_000,
            ended_at=AT + timedelta(seconds=90_000),
        ),
        job(10, tenant="acme"),
    ]
    waiting = (await http.post(f"{INGEST}/user/new", headers=BEARER)).json()
    rows = (await http.get(f"{HISTORY}?limit=10")).json()["jobs"]
    assert rows.pop(0) == {
        "id": waiting["id"],
        "job_id": 1,
        "repo_url": "git.test:9418/user/new",
        "status": "queued",
        "timestamp": ANY,
    }
    assert rows[0].pop("id") == job(13).job_id
    assert rows[0] == {
        "job_id": 13,
        "repo_url": "github.com/user/repo13",
        "status": "complete",
        "duration_seconds": 127.5,
        "files_processed": 342,
        "embeddings_generated": 342,
        "timestamp": "2024-01-20T10:02:07.500000Z",
    }
    assert rows[1]["error"] == "Failed to clone repository"
    assert rows[2]["status"] == "skipped"
    assert (rows[2]["reason"], rows[2]["age_seconds"]) == ("Task exceeded TTL", 90_000)
    assert len(rows) == 3
    assert len((await http.get(f"{HISTORY}?limit=2")).json()["jobs"]) == 2
    for wrong in ("0", "101", "x", "-1", ""):
        assert (await http.get(f"{HISTORY}?limit={wrong}")).status_code == 400


async def test_documents_are_no_part_of_the_history_of_repositories(
    bus: Bus, answers: Answers, http: httpx.AsyncClient
) -> None:
    answers.jobs = [*(document_job(n, JobState.COMPLETED) for n in range(20, 10, -1)), job(7)]
    await submit(bus, document_command(1))
    assert [row["job_id"] for row in (await http.get(f"{HISTORY}?limit=2")).json()["jobs"]] == [7]
    assert answers.listed[-1].kinds == (JobKind.REPOSITORY,)
    native = (await http.get("/api/v1/jobs?limit=100", headers=BEARER)).json()["jobs"]
    assert {found["kind"] for found in native} == {"repository", "text"}
    assert len(native) == 12


async def test_a_document_that_waits_can_be_read_before_any_scheduler_has_seen_it(
    bus: Bus, answers: Answers, http: httpx.AsyncClient
) -> None:
    wanted = document_command(1)
    await submit(bus, wanted)
    found = (await http.get(f"/api/v1/jobs/{wanted.job_id}", headers=BEARER)).json()
    assert (found["state"], found["number"], found["document"]["identity"]) == ("queued", 0, "note-1")
    assert (
        await http.get("/api/v1/jobs/1", headers=BEARER)
    ).status_code == 404  # its place in DOCS is no number
    other = {**BEARER, "x-tenant": "acme"}
    assert (await http.get(f"/api/v1/jobs/{wanted.job_id}", headers=other)).status_code == 404


async def test_a_worker_that_reads_a_document_names_no_number(
    bus: Bus, answers: Answers, http: httpx.AsyncClient
) -> None:
    wanted = document_command(1)
    await submit(bus, wanted)
    busy = worker(state=WorkerState.BUSY, tenant="default", repository="a document", job_ids=(wanted.job_id,))
    await Bucket(bus, KV_WORKERS, Worker).put(busy.name, busy)
    async with asyncio.timeout(10):
        while not (found := (await http.get("/api/v1/ingestion/worker/status")).json())["workers"]:
            await asyncio.sleep(0.02)
    assert found["status"] == "Training Graph on a document"
    assert found["workers"][0]["job_id"] is None


async def test_a_job_can_be_read_at_once_although_history_is_down(bus: Bus, http: httpx.AsyncClient) -> None:
    history = History(bus)
    await history.tell(job(7), JobState.RUNNING, attempt=1)
    async with asyncio.timeout(10):
        while (found := await http.get(f"/api/v1/jobs/{job(7).job_id}", headers=BEARER)).status_code != 200:
            await asyncio.sleep(0.02)
    assert found.json()["state"] == "running"
    assert (await http.get("/api/v1/jobs/7", headers=BEARER)).json() == found.json()
    down = await http.get(HISTORY)
    assert down.status_code == 503
    assert down.json()["detail"].startswith("History unavailable: ")


async def test_another_tenants_job_is_as_unknown_as_one_that_does_not_exist(
    bus: Bus, answers: Answers, http: httpx.AsyncClient
) -> None:
    await History(bus).tell(job(7), JobState.RUNNING)
    other = {**BEARER, "x-tenant": "acme"}
    bodies = []
    for identifier in (job(7).job_id, "7", job(99).job_id, "99", "no-such-thing", "0", "9" * 30):
        response = await http.get(f"/api/v1/jobs/{identifier}", headers=other)
        assert response.status_code == 404, identifier
        bodies.append(response.json())
    assert all(body == bodies[0] for body in bodies)
    answers.jobs = [job(99, JobState.COMPLETED)]
    assert (await http.get("/api/v1/jobs/99", headers=BEARER)).json()["state"] == "completed"


async def test_the_list_of_jobs_passes_states_and_cursor_on(
    answers: Answers, http: httpx.AsyncClient
) -> None:
    answers.jobs = [job(2, JobState.FAILED)]
    body = (await http.get("/api/v1/jobs?state=failed,cancelled&limit=5&cursor=9", headers=BEARER)).json()
    assert [each["number"] for each in body["jobs"]] == [2]
    assert body["cursor"] is None
    asked = answers.listed[-1]
    assert (asked.states, asked.limit, asked.before, asked.tenant) == (("failed", "cancelled"), 5, 9, None)
    assert (await http.get("/api/v1/jobs?state=lost", headers=BEARER)).status_code == 400


async def test_the_list_of_jobs_is_of_some_kinds_and_of_a_project(
    bus: Bus, answers: Answers, http: httpx.AsyncClient
) -> None:
    answers.jobs = [job(2, JobState.FAILED), document_job(3)]
    waiting = (await http.post(f"{INGEST}/user/repo", headers=BEARER)).json()["id"]

    async def listed(**asked: str) -> set[str]:
        found = await http.get("/api/v1/jobs", params=asked, headers=BEARER)
        return {each["job_id"] for each in found.json()["jobs"]}

    repository, document = (each.job_id for each in answers.jobs)
    assert await listed() == {repository, document, waiting}
    assert await listed(kind="repository") == {repository, waiting}
    assert await listed(kind="text,url,file") == {document}
    assert answers.listed[-1].kinds == ("file", "text", "url")
    assert await listed(kind="batch") == set()
    assert await listed(project="default") == {repository, document, waiting}
    assert answers.listed[-1].project == "default"
    assert await listed(project="atlas") == set()
    for wrong, field in (("kind=lost", "kind"), ("project=a.b", "project")):
        refused = await http.get(f"/api/v1/jobs?{wrong}", headers=BEARER)
        assert (refused.status_code, refused.json()["field"]) == (400, field)


async def test_worker_status_follows_the_workers_and_keeps_other_tenants_private(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    workers = Bucket(bus, KV_WORKERS, Worker)
    path = "/api/v1/ingestion/worker/status"

    async def until(status: str, **headers: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (body := (await http.get(path, headers=headers)).json())["status"] != status:
                await asyncio.sleep(0.02)
        return dict(body)

    await until("Offline")
    await workers.put("w1", worker("w1"))
    await until("Idle")
    await History(bus).tell(job(7), JobState.RUNNING)
    busy = {"job_ids": (job(7).job_id,), "repository": "github.com/user/repo7"}
    await workers.put("w1", worker("w1", WorkerState.BUSY, tenant="default", **busy))
    body = await until("Training Graph on github.com/user/repo7")
    assert body["workers"][0]["job_id"] == 7
    assert set(body["workers"][0]) >= {"name", "status", "device", "job_id", "since", "last_seen"}
    await workers.put("w1", worker("w1", WorkerState.BUSY, tenant="acme", **busy))
    body = await until("Training Graph on a private repository")
    assert body["workers"][0]["job_id"] is None
    await until("Training Graph on github.com/user/repo7", **BEARER)
    await workers.put("w1", worker("w1", WorkerState.ERROR, tenant="default", error="disk full"))
    await until("Error: disk full")
    revision = await workers.get("w1")
    assert revision is not None
    await workers.delete("w1", revision.revision)
    await until("Offline")


async def test_status_and_workers_are_true_for_none_one_and_twenty_workers(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    bucket = Bucket(bus, KV_WORKERS, Worker)

    async def until(count: int, status: str) -> tuple[dict[str, Any], dict[str, Any]]:
        async with asyncio.timeout(10):
            while True:
                told = (await http.get("/api/v1/ingestion/worker/status", headers=BEARER)).json()
                listed = (await http.get("/api/v1/workers", headers=BEARER)).json()["workers"]
                if len(told["workers"]) == len(listed) == count and told["status"] == status:
                    return told, {each["name"]: each for each in listed}
                await asyncio.sleep(0.02)

    assert await until(0, "Offline") == ({"status": "Offline", "workers": []}, {})
    await bucket.put("w00", worker("w00", memory_used=3 * 2**30, memory_total=12 * 2**30))
    told, listed = await until(1, "Idle")
    assert (told["workers"][0]["memory_used"], told["workers"][0]["memory_total"]) == (3 * 2**30, 12 * 2**30)
    assert (listed["w00"]["memory_used"], listed["w00"]["memory_total"]) == (3 * 2**30, 12 * 2**30)
    history = History(bus)
    for number in range(1, 20):
        await history.tell(job(number), JobState.RUNNING, attempt=1)
        busy = worker(
            f"w{number:02}",
            WorkerState.BUSY,
            tenant="default",
            repository=f"github.com/user/repo{number}",
            job_ids=(job(number).job_id,),
            stage="encode",
            versions={"pharos": "0.1.0"},
        )
        await bucket.put(busy.name, busy)
    told, listed = await until(20, "Training Graph on github.com/user/repo1")
    assert [each["name"] for each in told["workers"]] == [f"w{number:02}" for number in range(20)]
    assert [each["job_id"] for each in told["workers"]] == [None, *range(1, 20)]
    assert [each["status"] for each in told["workers"][:2]] == [
        "Idle",
        "Training Graph on github.com/user/repo1",
    ]
    assert listed["w07"] | {"since": None, "last_seen": None} == {
        "name": "w07",
        "status": "Training Graph on github.com/user/repo7",
        "state": "busy",
        "device": "cuda:0",
        "pool": "default",
        "slots": 1,
        "job_id": 7,
        "job_ids": [job(7).job_id],
        "stage": "encode",
        "since": None,
        "last_seen": None,
        "memory_used": None,
        "memory_total": None,
        "versions": {"pharos": "0.1.0"},
    }
    for number in range(1, 20):
        entry = await bucket.get(f"w{number:02}")
        assert entry is not None
        await bucket.delete(entry.key, entry.revision)
    told, listed = await until(1, "Idle")
    assert set(listed) == {"w00"}


async def test_a_search_translates_every_filter_and_answers_to_the_letter(
    answers: Answers, http: httpx.AsyncClient
) -> None:
    body = {
        "query": "How does the Context class work?",
        "topK": 5,
        "dataset": ["a", "b*"],
        "repo": "github.com/o/r",
        "lang": "python",
        "pathPrefix": "src/",
        "threshold": 0.2,
        "includeGlobal": False,
        "mode": "lexical",
    }
    response = await http.post("/projects/default/query", json=body, headers=BEARER)
    found = response.json()
    assert response.status_code == 200
    assert set(found) == {"request_id", "results", "metadata", "latency_ms"}
    hit = found["results"][0]
    assert hit["lineSpan"] == {"start": 12, "end": 48}
    assert hit["scores"] == {
        "dense": 0.5,
        "sparse": None,
        "structural": None,
        "rerank": None,
        "final": 0.03,
    }
    assert set(hit) >= {"id", "chunk", "file", "symbol", "language", "repository", "commit", "url"}
    assert answers.searched[-1] == Search(
        tenant="default",
        query=body["query"],
        project="default",
        k=5,
        mode=SearchMode.LEXICAL,
        datasets=("a", "b*"),
        repositories=("github.com/o/r",),
        languages=("python",),
        path_prefix="src/",
        threshold=0.2,
        include_global=False,
    )
    await http.post("/projects/all/query", json={"query": "x"}, headers=BEARER)
    assert answers.searched[-1].project is None
    await http.post("/api/v1/search", json={"query": "x", "project": "p"}, headers=BEARER)
    assert (answers.searched[-1].project, answers.searched[-1].k) == ("p", 10)
    for wrong, named in (
        ({"query": "x", "kk": 5}, "kk"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": 101}, "k"),
        ({"query": "x", "k": 1, "topK": 2}, "topK"),
        ({"query": " "}, "query"),
        ({"k": 1}, "query"),
        ({"query": "x", "mode": "magic"}, "mode"),
        ({"query": "x", "dataset": 5}, "dataset"),
        ({"query": "x", "project": "../x"}, "project"),
        ([], ""),
    ):
        refused = await http.post("/api/v1/search", json=wrong, headers=BEARER)
        assert refused.status_code == 400, wrong
        assert named in refused.text


INDEXED = {
    "tenant": "default",
    "project": "default",
    "dataset": "github.com/o/r@main",
    "repository": "github.com/o/r",
    "branch": "main",
    "commit": "c" * 40,
    "generation": 7,
}
REPOSITORY = repository_id("default", "github.com/o/r")


@pytest.fixture
async def structure(bus: Bus, nats_server: NatsServer) -> AsyncIterator[list[Message]]:
    """The search service, asked about structure: the questions, each of which has an answer."""
    broker = NatsBroker(nats_server.url)
    asked: list[Message] = []
    indexed = Indexed(**INDEXED)

    async def respond(question: ReadGraph | ReadMap | FindRelated) -> Message:
        asked.append(question)
        match question:
            case ReadGraph():
                edge = GraphEdge(target="b.py", kind=EdgeKind.IMPORTS, weight=0.5)
                file = GraphFile(
                    path="a.py", language="python", lines=3, edges_in=0, edges_out=2, edges=(edge,)
                )
                return GraphPage(
                    indexed=indexed,
                    files=(file,),
                    files_total=2,
                    edges_total=1,
                    edges_dropped=4,
                    after="a.py",
                )
            case ReadMap():
                place = MappedFile(path="a.py", language="python", lines=3, x=0.5, y=-1.0)
                return MapPage(indexed=indexed, files=(place,), files_total=1, after=None)
            case FindRelated(path=None):
                return Refused(code="unknown_file", detail="No file in this index defines 'f'", status=404)
            case FindRelated():
                tie = Tie(kind=EdgeKind.REFERENCES, direction=Direction.IN, weight=0.5)
                related = RelatedFile(
                    path="b.py", language="python", lines=3, score=1.0, structural=None, mentions=None,
                    ties=(tie,), reasons=("uses names that a.py defines",),
                )  # fmt: skip
                return RelatedFiles(indexed=indexed, path="a.py", symbol=None, files=(related,))

    answer(broker, rpc.SEARCH, ReadGraph | ReadMap | FindRelated, respond)
    async with broker:
        await broker.start()
        yield asked


async def test_the_structure_of_a_repository_is_asked_of_the_search_service(
    http: httpx.AsyncClient, structure: list[Message]
) -> None:
    of = {"id": REPOSITORY, **INDEXED}

    async def read(path: str, status: int = 200) -> Any:
        told = await http.get(f"/api/v1/repositories/{REPOSITORY}/{path}", headers=BEARER)
        assert told.status_code == status, (path, told.text)
        return told.json()

    assert await read("graph?path_prefix=src&kind=imports&limit=5&cursor=a&branch=main&project=p") == {
        **of,
        "files": [{"path": "a.py", "language": "python", "lines": 3, "edges_in": 0, "edges_out": 2}],
        "edges": [{"source": "a.py", "target": "b.py", "kind": "imports", "weight": 0.5}],
        "files_total": 2,
        "edges_total": 1,
        "edges_left_out": 4,
        "cursor": "a.py",
    }
    assert await read("map?dataset=d") == {
        **of,
        "files": [{"path": "a.py", "language": "python", "lines": 3, "x": 0.5, "y": -1.0}],
        "files_total": 1,
        "cursor": None,
    }
    related = await read("related?path=a.py&k=3")
    assert related["related"] == [
        {
            "path": "b.py",
            "language": "python",
            "lines": 3,
            "score": 1.0,
            "structural": None,
            "mentions": None,
            "ties": [{"kind": "references", "direction": "in", "weight": 0.5}],
            "reasons": ["uses names that a.py defines"],
        }
    ]
    assert (await read("related?path=&symbol=f", 404))["code"] == "unknown_file"
    common: dict[str, Any] = {"repository_id": REPOSITORY, "tenant": None}
    assert structure == [
        ReadGraph(
            **common, project="p", branch="main", path_prefix="src", kind=EdgeKind.IMPORTS, limit=5, after="a"
        ),
        ReadMap(**common, dataset="d"),
        FindRelated(**common, path="a.py", k=3),
        FindRelated(**common, symbol="f"),
    ]
    for wrong in (
        "graph?limit=0", "graph?limit=501", "graph?kind=calls", "graph?project=no.dots", "map?limit=2001",
        "map?branch=", "map?cursor=", "related?k=0", "related?k=101",
    ):  # fmt: skip
        assert (await read(wrong, 400))["code"] == "invalid_request", wrong
    assert len(structure) == 4
    for strange in ("graph?path_prefix=%00", "map?cursor=%ED%A0%80", "graph?path_prefix=%FF%FE"):
        await read(strange)


async def test_repositories_are_told_from_datasets_without_any_service(
    http: httpx.AsyncClient, bus: Bus
) -> None:
    bucket = Bucket(bus, KV_DATASETS, Dataset)
    for name, repository, project in (
        ("github.com/o/r@main", "github.com/o/r", "default"),
        ("elsewhere", "github.com/o/r", "p"),
        ("documents/wiki", "", "default"),
    ):
        record = Dataset(
            tenant="default", project=project, dataset=name, scope=Scope.PROJECT, repository=repository,
            clone_url="", branch="main", commit="c" * 40, generation=1, stage=IndexStage.FULL, job_id="j",
            files=3, chunks=7, encoder="e", chunker="c", published_at=AT,
        )  # fmt: skip
        await bucket.put(dataset_key("default", project, name), record)
    told = (await http.get("/api/v1/repositories", headers=BEARER)).json()
    assert [(each["id"], each["host"], each["name"]) for each in told["repositories"]] == [
        (REPOSITORY, "github.com", "o/r")
    ]
    assert {each["project"] for each in told["repositories"][0]["branches"]} == {"default", "p"}
    assert told["repositories"][0]["freshness"]["indexed_at"] == "2024-01-20T10:00:00Z"
    assert told["repositories"][0]["freshness"]["age_seconds"] > 0
    of_p = (await http.get("/api/v1/repositories?project=p", headers=BEARER)).json()["repositories"]
    assert [each["dataset"] for each in of_p[0]["branches"]] == ["elsewhere"]
    one = await http.get(f"/api/v1/repositories/{REPOSITORY}", headers=BEARER)
    assert [each["dataset"] for each in one.json()["branches"]] == [
        each["dataset"] for each in told["repositories"][0]["branches"]
    ]
    missing = await http.get("/api/v1/repositories/never", headers=BEARER)
    assert (missing.status_code, missing.json()) == (
        404,
        {"detail": "There is no such repository", "code": "not_found"},
    )
    assert (await http.get("/api/v1/repositories?project=a.b", headers=BEARER)).status_code == 400
    nobody = await http.get(f"/api/v1/repositories/{REPOSITORY}/map", headers=BEARER)
    assert (nobody.status_code, nobody.json()["detail"][:19]) == (503, "Search unavailable:")


async def test_a_batch_of_searches_is_one_question_with_an_answer_for_each_query(
    http: httpx.AsyncClient, answers: Answers
) -> None:
    body = {
        "queries": [
            {"query": "How does the Context class work?"},
            {"query": " "},
            {"query": "x", "k": 3, "lang": "go"},
        ],
        "k": 5,
        "project": "p",
    }
    told = await http.post("/api/v1/search/batch", json=body, headers=BEARER)
    assert told.status_code == 200, told.text
    first, wrong, last = told.json()["answers"]
    assert (first["error"], first["results"][0]["lineSpan"]) == (None, {"start": 12, "end": 48})
    assert wrong == {
        "results": [],
        "metadata": {},
        "error": {"detail": "The query is empty", "code": "invalid_request", "field": "query"},
    }
    assert last["metadata"] == {"mode": "hybrid"}
    assert [(each.query, each.k, each.project, each.languages) for each in answers.searched] == [
        ("How does the Context class work?", 5, "p", ()),
        ("x", 3, "p", ("go",)),
    ]
    for wrong_whole in (
        {"queries": []},
        {"queries": [{"query": "x"}] * 21},
        {"queries": [{"query": "x", "k": 100}] * 3},
        {"queries": [{"query": "x"}], "mode": "fuzzy"},
    ):
        refused = await http.post("/api/v1/search/batch", json=wrong_whole, headers=BEARER)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), wrong_whole
    nothing = await http.post("/api/v1/search/batch", json={"queries": [None]}, headers=BEARER)
    assert [each["error"]["code"] for each in nothing.json()["answers"]] == ["invalid_request"]


async def test_datasets_are_listed_by_tenant_and_project(bus: Bus, http: httpx.AsyncClient) -> None:
    bucket = Bucket(bus, KV_DATASETS, Dataset)
    for tenant, project in (("default", "default"), ("default", "atlas"), ("acme", "default")):
        await bucket.put(
            dataset_key(tenant, project, "d"),
            Dataset(
                tenant=tenant,
                project=project,
                dataset="d",
                scope=Scope.PROJECT,
                repository="github.com/o/r",
                clone_url="https://github.com/o/r",
                branch="main",
                commit="c" * 40,
                generation=1,
                stage=IndexStage.FULL,
                job_id="j",
                files=1,
                chunks=2,
                encoder="e",
                chunker="c",
                published_at=now(),
            ),
        )
    default = {**BEARER, "x-tenant": "default"}
    found = (await http.get("/api/v1/datasets", headers=default)).json()["datasets"]
    assert [(each["tenant"], each["project"]) for each in found] == [
        ("default", "atlas"),
        ("default", "default"),
    ]
    assert len((await http.get("/api/v1/datasets", headers=BEARER)).json()["datasets"]) == 3
    of_atlas = (await http.get("/api/v1/datasets?project=atlas", headers=default)).json()["datasets"]
    assert [each["project"] for each in of_atlas] == ["atlas"]


def sent_as(content_type: str) -> dict[str, Any]:
    return {"content": b'{"query":"x"}', "headers": {**BEARER, "Content-Type": content_type}}


async def test_what_is_wrong_with_a_body_is_said_in_a_sentence(http: httpx.AsyncClient) -> None:
    for content, detail in (
        (b"", "The request has no body"),
        (b"{", "The body of the request is not valid JSON"),
        (b"[]", "Invalid request: Expected `object`, got `array`"),
        (b'{"query":"x","k":"5"}', "Invalid request: 'k': Expected `int | null`, got `str`"),
        (b'{"query":"x","lang":["a",""]}', "Invalid request: 'lang[1]': Expected `str` of length >= 1"),
    ):
        answer = await http.post("/api/v1/search", content=content, headers=BEARER)
        assert (answer.status_code, answer.json()["detail"]) == (400, detail)


async def test_options_names_every_method_of_a_path(http: httpx.AsyncClient) -> None:
    for path, methods in (
        ("/api/v1/keys", "GET, OPTIONS, POST"),
        ("/api/v1/schedules/nightly", "DELETE, GET, OPTIONS"),
        ("/api/v1/search", "OPTIONS, POST"),
    ):
        answer = await http.options(path)
        assert (answer.status_code, answer.headers["Allow"]) == (204, methods)


async def test_every_error_has_one_shape_and_every_answer_its_headers(http: httpx.AsyncClient) -> None:
    search = "/api/v1/search"
    for status, method, path, others in (
        (404, "GET", "/nothing/here", {}),
        (404, "GET", "/schema/nothing", {}),
        (405, "DELETE", "/health", {}),
        (405, "GET", "/api/v1/ingestion/ingest/x", {}),
        (401, "GET", "/api/v1/jobs", {}),
        (401, "POST", f"{INGEST}/o/r", {}),
        (400, "POST", search, {"content": b"{", "headers": BEARER}),
        (400, "POST", search, {"content": b"\xff\xfe", "headers": BEARER}),
        (400, "POST", search, {"content": b'{"query":"\xed\xa0\x80"}', "headers": BEARER}),
        (400, "POST", search, {"content": b'{"query":"\\ud800"}', "headers": BEARER}),
        (400, "POST", search, {"content": b'{"query":"x","threshold":NaN}', "headers": BEARER}),
        (400, "POST", search, {"content": b"", "headers": BEARER}),
        (400, "POST", search, {"content": b"[" * 100_000, "headers": BEARER}),
        (400, "POST", search, {"content": b'{"dataset":' + b"[" * 100_000, "headers": BEARER}),
        (400, "POST", search, {"json": {"query": "x", "k": "5"}, "headers": BEARER}),
        (400, "POST", search, {"json": {"query": "x", "includeGlobal": 0}, "headers": BEARER}),
        (415, "POST", search, {"data": {"query": "x"}, "headers": BEARER}),
        (415, "POST", search, sent_as("text/plain")),
        (415, "POST", search, sent_as("application/x-www-form-urlencoded")),
        (415, "POST", search, sent_as("application/jsonp")),
        (503, "POST", search, sent_as("application/json; charset=utf-8")),
        (503, "POST", search, sent_as("application/problem+json")),
        (503, "POST", search, {"content": b'{"query":"x"}', "headers": BEARER}),
        (413, "POST", search, {"content": b"x" * 1_048_577, "headers": BEARER}),
        (503, "POST", search, {"json": {"query": "x"}, "headers": BEARER}),
        (400, "GET", "/api/v1/events?last_event_id=x", {"headers": BEARER}),
        (400, "GET", "/api/v1/jobs", {"headers": {**BEARER, "x-role": "king"}}),
        (400, "GET", "/api/v1/jobs", {"headers": {**BEARER, "x-tenant": "a.b"}}),
    ):
        response = await http.request(method, path, **others)
        assert response.status_code == status, (method, path, response.text)
        body = response.json()
        assert isinstance(body["detail"], str)
        assert isinstance(body["code"], str)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in response.headers


async def test_credentials_are_taken_from_three_headers_and_roles_only_lowered(
    answers: Answers, http: httpx.AsyncClient
) -> None:
    jobs = "/api/v1/jobs"
    for headers in (
        BEARER,
        {"x-api-key": TOKEN},
        {"x-admin-key": TOKEN},
        {"Authorization": f"bearer {TOKEN}"},
    ):
        assert (await http.get(jobs, headers=headers)).status_code == 200
    for headers in (
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"x-api-key": ""},
        {"x-api-key": "é".encode()},
    ):
        response = await http.get(jobs, headers=headers)
        assert response.status_code == 401
        assert response.json()["detail"] == "Invalid or missing authentication token"
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (await http.get(HISTORY, headers={"x-api-key": "wrong"})).status_code == 401
    viewer = {**BEARER, "x-role": "viewer"}
    assert (await http.get(jobs, headers=viewer)).status_code == 200
    assert (await http.post(f"{INGEST}/o/r", headers=viewer)).status_code == 403


async def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy_and_no_token_is_logged(
    nats_server: NatsServer,
) -> None:
    wrong = {"Authorization": "Bearer not-the-token-but-secret", "X-Forwarded-For": "203.0.113.9"}
    for proxies, address in (((), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")):
        async with (
            serving(settings(nats_server.url, trusted_proxies=proxies)) as running,
            client(running.address) as http,
        ):
            with capture_logs() as lines:
                await http.post(f"{INGEST}/o/r", headers=wrong)
        refused = [line for line in lines if line["event"] == "authentication_failed"]
        assert [line["client"] for line in refused] == [address]
        assert "secret" not in str(lines)


async def test_origins_are_answered_only_when_they_are_listed(http: httpx.AsyncClient) -> None:
    preflight = {"Origin": "https://ui.example", "Access-Control-Request-Method": "POST"}
    allowed = await http.options("/api/v1/search", headers=preflight)
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://ui.example"
    simple = await http.get("/health", headers={"Origin": "https://ui.example"})
    assert simple.headers["Access-Control-Allow-Origin"] == "https://ui.example"
    other = await http.get("/health", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_anonymous_requests_act_as_configured_and_public_routes_can_be_closed(
    answers: Answers, nats_server: NatsServer
) -> None:
    closed = settings(nats_server.url, public_status=False)
    opened = settings(nats_server.url, anonymous="acme:editor", git_allowed_hosts="http://git.test:9418")
    async with serving(closed) as running, client(running.address) as http:
        await until_ready(http)
        for path in (HISTORY, "/api/v1/ingestion/worker/status", "/api/v1/ingestion/events"):
            assert (await http.get(path)).status_code == 401
        assert (await http.get(HISTORY, headers=BEARER)).status_code == 200
    async with serving(opened) as running, client(running.address) as http:
        await until_ready(http)
        submitted = (await http.post(f"{INGEST}/o/r")).json()
        shown = (await http.get(f"/api/v1/jobs/{submitted['id']}")).json()
        assert (shown["tenant"], shown["submitted_by"]) == ("acme", "anonymous")
        foreign = await http.post(f"{INGEST}/o/other", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 401
        own = await http.post(f"{INGEST}/o/r", headers={"Origin": running.address})
        assert own.json()["id"] == submitted["id"]
        assert (await http.get("/api/v1/jobs", headers={"x-role": "admin"})).status_code == 200


async def test_the_documents_are_valid_and_have_the_examples(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema")).json()
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/api/v1/ingestion/ingest/{repo_url}"]["post"]
    for status, word in (("200", "RTX-4070-Node"), ("400", "credentials in a URL"), ("429", "Queue is full")):
        assert word in str(operation["responses"][status]["content"]["application/json"]["examples"])
    assert operation["security"] == [{"bearer": []}, {"apiKey": []}, {"adminKey": []}]
    assert "Task exceeded TTL" in str(document["paths"][HISTORY])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json", {})
                if status.startswith("2") and path not in ("/livez", "/readyz"):
                    assert not content or content.get("examples"), (method, path, status)
    messages = (await http.get("/schema/messages")).json()
    assert "ingest.command.v1.submit" in str(messages["$defs"]["SubmitJob"])
    told = {each["$ref"].rpartition("/")[2] for each in messages["oneOf"]}
    assert {kind.__name__ for kind in contracted()} == told


def contracted() -> list[type[Message]]:
    """Every message that the contracts define, but those that are only the base of others."""
    names = [each.name for each in pkgutil.walk_packages(pharos_contracts.__path__, "pharos_contracts.")]
    return [
        value
        for module in map(importlib.import_module, names)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value.__module__ == module.__name__
        if "." in str(value.__struct_config__.tag)
    ]


async def test_a_compressed_body_is_refused_in_a_sentence(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(b'{"text":"x"}')
    headers = {**BEARER, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await http.post("/knowledge/ingest-text-async", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_encoding")
    assert answer.headers["Accept-Encoding"] == "identity"
    assert "without Content-Encoding" in answer.json()["detail"]


async def test_every_body_in_json_has_an_example_that_its_schema_allows(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                schema = {**content["schema"], "components": document["components"]}
                assert not [*Draft202012Validator(schema).iter_errors(content["example"])], (method, path)


async def test_what_a_route_takes_is_described_by_what_reads_it(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema")).json()
    wanted = document["components"]["schemas"]["RepositoryJob"]
    assert wanted["properties"]["kind"] == {"enum": ["repository"]}
    assert "kind" in wanted["required"]
    assert wanted["additionalProperties"] is False
    submit = document["paths"]["/api/v1/jobs"]["post"]
    assert {"400", "413", "415"} <= set(submit["responses"])
    listing = document["paths"]["/api/v1/jobs"]["get"]
    by_name = {parameter["name"]: parameter["schema"] for parameter in listing["parameters"]}
    assert by_name["cursor"]["minimum"] == 0
    assert {"431"} <= set(listing["responses"])
    stats = document["paths"]["/projects/{project}/stats"]["get"]
    assert stats["parameters"][0]["schema"]["pattern"].startswith("^[A-Za-z0-9]")


async def test_health_is_degraded_and_names_each_part_that_is_missing(
    bus: Bus, nats_server: NatsServer, http: httpx.AsyncClient
) -> None:
    alone = await http.get("/health")
    body = alone.json()
    assert (alone.status_code, body["status"], body["service"]) == (503, "degraded", "pharos-gateway")
    assert body["timestamp"].endswith("Z")
    assert body["dependencies"] == {
        "bus": "ok",
        "scheduler": "unavailable",
        "search": "unavailable",
        "history": "unavailable",
    }
    for part in ("scheduler", "search", "history"):
        assert part in body["detail"]
    assert (await http.get("/readyz")).status_code == 200  # a submit would succeed all the same

    async def until(status: int) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (answered := await http.get("/health")).status_code != status:
                await asyncio.sleep(0.02)
        return dict(answered.json())

    broker = NatsBroker(nats_server.url)
    found = Answers()
    answer(broker, rpc.HISTORY, ListJobs | FindJob, found.history)
    answer(broker, rpc.SEARCH, Search, found.search)
    async with broker:
        await broker.start()
        async with leading(bus):
            assert await until(200) | {"timestamp": None} == {
                "status": "healthy",
                "service": "pharos-gateway",
                "timestamp": None,
                "dependencies": {"bus": "ok", "scheduler": "ok", "search": "ok", "history": "ok"},
                "detail": None,
            }
        assert (await until(503))["detail"] == "no scheduler leads: jobs wait"


async def test_probes_answer_to_a_head_request_with_the_head_of_their_answer(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/livez", "/readyz"):
        head = await http.head(path)
        whole = await http.get(path)
        assert head.status_code == whole.status_code
        assert head.content == b""
        assert int(head.headers["Content-Length"]) > 0


async def test_many_probes_of_health_are_one_look_a_second(bus: Bus) -> None:
    looks: list[str] = []

    class Counted(Bus):
        async def api(self, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
            looks.append(subject)
            return await super().api(subject, request)

    clock = [0.0]
    dependencies = Dependencies(Counted(bus.client), clock=lambda: clock[0])
    await asyncio.gather(*(dependencies.condition() for _ in range(50)))
    assert len(looks) == 2  # the two streams that a submit needs
    clock[0] = 0.9
    await dependencies.condition()
    assert len(looks) == 2
    clock[0] = 1.1
    await dependencies.condition()
    assert len(looks) == 4
