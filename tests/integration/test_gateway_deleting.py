"""Deleting datasets over HTTP: what would bring them back is stopped first; against a real bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from pharos_contracts import rpc
from pharos_contracts.audit.v1 import Audited
from pharos_contracts.control.v1 import ControlJob
from pharos_contracts.datasets.v1 import (
    Dataset,
    DatasetRecord,
    DeleteDataset,
    DeletedDataset,
    FindDatasets,
    IndexStage,
)
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import ActiveJob, Job, RepositorySource, Scope, command_of
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.streams import AUDIT, KV_ACTIVE, KV_DATASETS, KV_WORKERS
from pharos_contracts.subjects import active_key
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway import deleting
from pharos_gateway.app import serving
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from tests.support.gateway import (
    BEARER,
    History,
    client,
    job,
    leading,
    now,
    settings,
    shelving,
    until_ready,
    worker,
)
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

HERE = "/projects/default/ingest/github"
NAME = "atlas-core"
REPOSITORY = "github.com/o/r"
SOURCE = RepositorySource(identity=REPOSITORY, clone_url=f"https://{REPOSITORY}", branch="main")
OPEN = job(7, source=SOURCE, dataset=NAME)


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(settings(nats_server.url)) as running,
        client(running.address, **BEARER) as connected,
    ):
        await until_ready(connected)
        yield connected


async def delete(http: httpx.AsyncClient, body: dict[str, Any], path: str = HERE) -> httpx.Response:
    return await http.request("DELETE", path, json=body)


async def running(bus: Bus, told: Job, state: JobState = JobState.RUNNING) -> None:
    """*told* is open, and claimed as every open job is."""
    claim = ActiveJob(command=command_of(told), created_at=now())
    await Bucket(bus, KV_ACTIVE, ActiveJob).put(active_key(told.tenant, told.key), claim)
    await History(bus).tell(told, state)


async def test_what_is_deleted_is_counted_over_all_steps(bus: Bus, http: httpx.AsyncClient) -> None:
    async with shelving(bus, step=1_000) as shelf, leading(bus):
        shelf.put(NAME, 2_210, repository=REPOSITORY)
        answer = await delete(http, {"dataset": NAME})
        assert answer.status_code == 200
        told = answer.json()
        assert (told["deletedVectors"], told["datasets"], told["cancelledJobs"]) == (2_210, [NAME], [])
        steps = [each.generation for each in shelf.asked if isinstance(each, DeleteDataset)]
        assert steps == [0, 9, 9]  # only the first begins
        assert (await delete(http, {"dataset": NAME})).json() == {
            "detail": "There is no such dataset",
            "code": "not_found",
        }


async def test_every_dataset_of_a_repository_goes_and_no_other(bus: Bus, http: httpx.AsyncClient) -> None:
    async with shelving(bus) as shelf, leading(bus):
        shelf.put("b", 2, repository=REPOSITORY)
        shelf.put("a", 3, repository=REPOSITORY)
        shelf.put("c", 4, repository="github.com/o/other")
        shelf.put("a", 5, repository=REPOSITORY, project="atlas")
        told = (await delete(http, {"repo": f"https://{REPOSITORY}.git"})).json()
        assert (told["dataset"], told["datasets"], told["deletedVectors"]) == ("a", ["a", "b"], 5)
        assert sorted(shelf.holds) == [("default", "atlas", "a"), ("default", "default", "c")]


async def test_a_running_job_is_cancelled_and_let_go_before_anything_is_deleted(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    other = job(8, source=SOURCE, dataset="other", key="k8")
    await running(bus, OPEN)
    await running(bus, other)
    workers = Bucket(bus, KV_WORKERS, Worker)
    await workers.put("w", worker("w", WorkerState.BUSY, job_ids=(OPEN.job_id,)))
    async with asyncio.timeout(5):
        while (await http.get("/api/v1/workers")).json()["workers"][0]["job_ids"] != [OPEN.job_id]:
            await asyncio.sleep(0.02)
    async with shelving(bus) as shelf, leading(bus) as scheduler:
        shelf.put(NAME, 5, repository=REPOSITORY)
        asking = asyncio.create_task(delete(http, {"dataset": NAME}))
        async with asyncio.timeout(5):
            while not scheduler.commands:
                await asyncio.sleep(0.01)
        assert not any(isinstance(each, DeleteDataset) for each in shelf.asked)
        await workers.put("w", worker("w"))
        told = (await asking).json()
        assert (told["deletedVectors"], told["cancelledJobs"]) == (5, [OPEN.job_id])
        cancelled = [each.job_id for each in scheduler.commands if isinstance(each, ControlJob)]
        assert cancelled == [OPEN.job_id]


async def test_a_first_index_that_shows_nothing_yet_is_stopped_and_buried_as_well(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    await running(bus, replace(OPEN, dataset=None), JobState.QUEUED)
    async with shelving(bus) as shelf, leading(bus):
        told = await delete(http, {"dataset": f"{REPOSITORY}@main"})
        assert (told.status_code, told.json()["deletedVectors"]) == (200, 0)
        assert told.json()["cancelledJobs"] == [OPEN.job_id]
        assert isinstance(shelf.asked[-1], DeleteDataset)


async def test_a_claim_whose_job_has_ended_is_no_dataset(bus: Bus, http: httpx.AsyncClient) -> None:
    await running(bus, OPEN, JobState.FAILED)
    async with shelving(bus), leading(bus):
        assert (await delete(http, {"dataset": NAME})).status_code == 404


async def test_without_an_owner_of_the_store_nothing_is_stopped_and_it_is_told_at_once(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    await running(bus, OPEN)

    async def silent(_: object) -> None: ...

    async with leading(bus) as scheduler:
        for subscribe in (False, True):  # nobody is there, or a process that is frozen
            if subscribe:
                await bus.client.subscribe(rpc.STORE, cb=silent)
            began = time.monotonic()
            answer = await delete(http, {"dataset": NAME})
            assert time.monotonic() - began < 2.0
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.json()["detail"].startswith("Index unavailable: ")
        assert scheduler.commands == []


async def test_a_deletion_that_takes_too_long_says_so(
    bus: Bus, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "DELETE_SECONDS", 0.3)
    async with shelving(bus, step=0) as shelf, leading(bus):
        shelf.put(NAME, 5, repository=REPOSITORY)
        answer = await delete(http, {"dataset": NAME})
        assert (answer.status_code, answer.json()["code"]) == (503, "deletion_unfinished")


async def test_the_native_route_deletes_a_dataset_by_its_name(bus: Bus, http: httpx.AsyncClient) -> None:
    async with shelving(bus) as shelf, leading(bus):
        shelf.put(NAME, 5, repository=REPOSITORY, project="atlas")
        path = "/api/v1/datasets"
        assert (await delete(http, {"dataset": NAME}, path)).status_code == 404
        gone = await delete(http, {"dataset": NAME, "project": "atlas"}, path)
        assert gone.json() == {"datasets": [NAME], "vectors": 5, "jobs": []}
        wrong = await delete(http, {"dataset": NAME, "project": "no such name"}, path)
        assert (wrong.status_code, wrong.json()["field"]) == (400, "project")


async def test_a_deleted_dataset_is_listed_and_counted_no_more(bus: Bus, http: httpx.AsyncClient) -> None:
    record = Dataset(
        tenant="default",
        project="default",
        dataset=NAME,
        scope=Scope.PROJECT,
        repository=REPOSITORY,
        clone_url=f"https://{REPOSITORY}",
        branch="main",
        commit="c",
        generation=7,
        stage=IndexStage.FULL,
        job_id="j",
        files=1,
        chunks=1,
        encoder="e",
        chunker="1",
        published_at=now(),
    )
    bucket = Bucket[DatasetRecord](bus, KV_DATASETS, DatasetRecord)
    key = dataset_key("default", "default", NAME)
    await bucket.put(key, record)
    listed = (await http.get("/api/v1/datasets")).json()["datasets"]
    assert [each["dataset"] for each in listed] == [NAME]
    await bucket.put(
        key,
        DeletedDataset(tenant="default", project="default", dataset=NAME, generation=8, deleted_at=now()),
    )
    assert (await http.get("/api/v1/datasets")).json()["datasets"] == []


async def test_a_deletion_is_on_the_audit_trail(bus: Bus, http: httpx.AsyncClient) -> None:
    async with shelving(bus) as shelf, leading(bus):
        shelf.put(NAME, 5, repository=REPOSITORY)
        await delete(http, {"dataset": NAME})
    async with asyncio.timeout(5):
        while (found := await bus.first(AUDIT, "audit.>", 1)) is None:
            await asyncio.sleep(0.02)
    noted = decode(found.data, Audited)
    assert (noted.action, noted.target, noted.status) == ("delete_github", f"default/{NAME}", 200)


async def test_only_the_first_question_names_what_is_wanted(bus: Bus, http: httpx.AsyncClient) -> None:
    async with shelving(bus) as shelf, leading(bus):
        await delete(http, {"repo": REPOSITORY})
        assert shelf.asked == [FindDatasets(tenant="default", project="default", repository=REPOSITORY)]
