"""Status, history and jobs over HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import JobKind
from pharos_contracts.lifecycle import JobState
from pharos_contracts.streams import KV_WORKERS
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from tests.support.answering_services import AT, HISTORY, INGEST, Answers
from tests.support.gateway import BEARER, History, document_job, job, result, worker
from tests.support.scheduling import document_command, submit

pytestmark = pytest.mark.anyio


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
