"""Searches, the structure of repositories, and datasets over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from faststream.nats import NatsBroker

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
from pharos_contracts.identity import dataset_key, repository_id
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_contracts.search.v1 import Search, SearchMode
from pharos_contracts.streams import KV_DATASETS
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from tests.support.answering_services import AT, Answers
from tests.support.gateway import BEARER, now
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio


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
