"""Submitting repositories over HTTP, against a real bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from pharos_contracts import subjects
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import ActiveJob, Scope, SubmitJob, job_of
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.streams import KV_ACTIVE, KV_DATASETS
from pharos_gateway.app import serving
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from tests.support.gateway import BEARER, History, client, now, settings, until_ready, worker
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

HOSTS = "http://git.test:9418, http://127.0.0.1:9418"
INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(settings(nats_server.url, git_allowed_hosts=HOSTS)) as running,
        client(running.address, **BEARER) as connected,
    ):
        await until_ready(connected)
        yield connected


async def command_of(bus: Bus, job_id: str) -> SubmitJob:
    stored = await bus.first("Q", subjects.command_filter(job_id))
    assert stored is not None
    assert stored.headers["Nats-TTL"] == "86400"
    command: SubmitJob = decode(stored.data, SubmitJob)
    return command


async def purge(bus: Bus, number: int) -> None:
    """As the scheduler does when it hands a job out."""
    await bus.api("STREAM.MSG.DELETE.Q", {"seq": number, "no_erase": True})


async def test_a_submit_is_answered_to_the_letter_and_stands_in_the_queue(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    response = await http.post(f"{INGEST}/user/repo1?branch=main")
    body = response.json()
    job_id = body.pop("id")
    assert response.status_code == 200
    assert body == {
        "status": "dispatched",
        "job_id": 1,
        "queue_position": 1,
        "target": "any",
        "queue_size": 1,
        "max_queue_size": 10,
        "deduplicated": False,
    }
    command = await command_of(bus, job_id)
    assert command.source.identity == "git.test:9418/user/repo1"
    assert command.source.branch == "main"
    assert command.ttl_seconds == 86_400
    entry = await Bucket(bus, KV_ACTIVE, ActiveJob).get(subjects.active_key("default", command.key))
    assert entry is not None
    assert entry.value.number == 1
    shown = (await http.get(f"/api/v1/jobs/{job_id}")).json()
    assert shown == (await http.get("/api/v1/jobs/1")).json()
    assert shown["state"] == "queued"
    assert shown["waiting_for_worker"] is True


async def test_another_spelling_of_a_pending_repository_is_the_same_job(http: httpx.AsyncClient) -> None:
    plain = (await http.post(f"{INGEST}/user/repo1")).json()
    branch = (await http.post(f"{INGEST}/user/repo1?branch=main")).json()
    assert plain["id"] != branch["id"]
    for spelling in (
        "http://git.test:9418/user/repo1.git",
        "http://git.test:9418/user/repo1/",
        "http:/git.test:9418/user/repo1",
        "http%3A%2F%2Fgit.test%3A9418%2Fuser%2Frepo1",
        "git.test:9418/user/repo1",
        "http://git.test:9418/user/repo1/tree/main",
        "http://git.test:9418/user/repo1?branch=main",
        "http://git.test:9418/user/repo1?ref=main",
    ):
        again = await http.post(f"/api/v1/ingestion/ingest/{spelling}")
        assert again.status_code == 200, spelling
        first = branch if "main" in spelling else plain
        assert again.json() == {**first, "deduplicated": True, "queue_size": 2}, spelling


async def test_a_ref_of_forty_digits_is_a_commit(bus: Bus, http: httpx.AsyncClient) -> None:
    body = (await http.post(f"{INGEST}/user/repo1?ref={'A' * 40}&priority=high&force=true")).json()
    command = await command_of(bus, body["id"])
    assert (command.source.sha, command.source.branch) == ("a" * 40, None)
    assert (command.priority, command.force) == ("high", True)


async def test_what_cannot_be_a_repository_is_refused_with_a_reason(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    for path, reason in (
        ("https://u:p@github.com/o/r", "credentials in a URL are not accepted"),
        ("https://elsewhere.example/o/r", "this host is not among the allowed hosts"),
        ("file:///etc/passwd", "only https URLs are accepted"),
        ("-oProxyCommand=x", "a URL may not start with a dash"),
        ("http%3A%2F%2Fgit.test%3A9418%2Fo%2Fr%3Fref%3Dmain", "a query string is not accepted"),
        ("", "the URL is empty"),
    ):
        response = await http.post(f"/api/v1/ingestion/ingest/{path}")
        assert response.status_code == 400, path
        assert response.json() == {
            "detail": "Invalid repository URL",
            "code": "invalid_repository_url",
            "reason": reason,
        }
    for query in ("?reff=main", "?priority=soon", "?force=perhaps", "?branch=a&ref=b", "?branch=a..b"):
        response = await http.post(f"{INGEST}/user/repo1{query}")
        assert response.status_code == 400, query
        assert set(response.json()) >= {"detail", "code"}
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 0


async def test_the_cap_is_exact_under_concurrency_and_every_position_is_given_once(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    responses = await asyncio.gather(*(http.post(f"{INGEST}/user/repo{n}") for n in range(25)))
    accepted = [response.json() for response in responses if response.status_code == 200]
    refused = [response for response in responses if response.status_code != 200]
    assert len(accepted) == 10
    assert sorted((body["job_id"], body["queue_position"]) for body in accepted) == [
        (n, n) for n in range(1, 11)
    ]
    for response in refused:
        assert response.status_code == 429
        assert 5 <= int(response.headers["Retry-After"]) <= 300
        assert response.json() == {
            "detail": "Queue is full (10 pending tasks). Please try again later.",
            "code": "queue_full",
            "queue_size": 10,
            "max_queue_size": 10,
        }
    active = await bus.api("STREAM.INFO.KV_active", {"subjects_filter": "$KV.active.>"})
    live = 0
    for subject in active["state"]["subjects"]:
        stored = await bus.last("KV_active", subject)
        live += stored is not None and "KV-Operation" not in stored.headers
    assert live == 10


async def test_a_duplicate_in_a_full_queue_is_answered_with_its_job(http: httpx.AsyncClient) -> None:
    bodies = [(await http.post(f"{INGEST}/user/repo{n}")).json() for n in range(10)]
    again = await http.post(f"{INGEST}/user/repo3")
    assert again.status_code == 200
    assert again.json() == {**bodies[3], "deduplicated": True, "queue_size": 10}


async def test_many_submits_of_one_repository_at_once_make_one_job(bus: Bus, http: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(http.post(f"{INGEST}/user/repo1") for _ in range(12)))
    bodies = [response.json() for response in responses]
    assert {response.status_code for response in responses} == {200}
    assert {body["id"] for body in bodies} == {bodies[0]["id"]}
    assert sum(not body["deduplicated"] for body in bodies) == 1
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 1


async def test_the_position_counts_only_what_still_waits(bus: Bus, http: httpx.AsyncClient) -> None:
    for n in range(1, 6):
        await http.post(f"{INGEST}/user/repo{n}")
    await purge(bus, 2)
    await purge(bus, 4)
    body = (await http.post(f"{INGEST}/user/repo6")).json()
    assert (body["job_id"], body["queue_position"], body["queue_size"]) == (6, 4, 4)


async def test_a_running_job_is_found_and_one_that_ended_is_not_in_the_way(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    first = (await http.post(f"{INGEST}/user/repo1")).json()
    history = History(bus)
    running = replace(job_of(await command_of(bus, first["id"]), 1), worker="w1")
    await history.tell(running, JobState.RUNNING, attempt=1)
    await purge(bus, 1)
    again = (await http.post(f"{INGEST}/user/repo1")).json()
    assert (again["id"], again["deduplicated"], again["queue_position"]) == (first["id"], True, 0)
    assert again["target"] == "w1"
    await history.tell(running, JobState.COMPLETED)
    third = (await http.post(f"{INGEST}/user/repo1")).json()
    assert third["id"] != first["id"]
    assert third["deduplicated"] is False


async def test_an_orphan_of_a_crashed_gateway_is_taken_over_after_ten_seconds(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    first = (await http.post(f"{INGEST}/user/repo1")).json()
    command = await command_of(bus, first["id"])
    await purge(bus, 1)  # as if it had never been published
    active = Bucket(bus, KV_ACTIVE, ActiveJob)
    key = subjects.active_key("default", command.key)
    young = await http.post(f"{INGEST}/user/repo1")
    assert young.status_code == 503
    assert "still being decided" in young.json()["detail"]
    await active.put(key, ActiveJob(command=command, created_at=now() - timedelta(seconds=11)))
    second = (await http.post(f"{INGEST}/user/repo1")).json()
    assert second["id"] != first["id"]
    assert second["deduplicated"] is False


async def test_a_command_without_an_entry_is_found_by_the_second_guard(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    first = (await http.post(f"{INGEST}/user/repo1")).json()
    command = await command_of(bus, first["id"])
    active = Bucket(bus, KV_ACTIVE, ActiveJob)
    entry = await active.get(subjects.active_key("default", command.key))
    assert entry is not None
    assert await active.delete(entry.key, entry.revision)
    again = (await http.post(f"{INGEST}/user/repo1")).json()
    assert again == {**first, "deduplicated": True}
    handed_over = await active.get(entry.key)
    assert handed_over is not None
    assert handed_over.value.command.job_id == first["id"]


async def test_the_same_idempotency_key_returns_the_first_answer_and_starts_nothing(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = (await http.post(f"{INGEST}/user/repo1", headers=key)).json()
    await http.post(f"{INGEST}/user/repo2")
    await purge(bus, 1)
    again = await http.post(f"{INGEST}/user/repo1", headers=key)
    assert again.json() == first
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 1
    others = await http.post(f"{INGEST}/user/repo3", headers={**key, "x-tenant": "acme"})
    assert others.json()["id"] != first["id"]


async def test_the_first_answer_of_a_project_comes_back_whatever_is_asked_or_indexed_since(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    sha = "a" * 40
    wanted = {"repo": "http://git.test:9418/o/r", "branch": "main", "dataset": "d", "sha": sha}

    async def asked(project: str, **changes: str) -> tuple[int, dict[str, Any]]:
        body = {**wanted, **changes}
        path = f"/projects/{project}/ingest/github"
        answer = await http.post(path, json=body, headers={**BEARER, "Idempotency-Key": "k-p"})
        return answer.status_code, answer.json()

    first = await asked("default")
    assert first[0] == 202
    assert await asked("atlas", repo="http://git.test:9418/o/other", dataset="e") == first
    indexed = Dataset(
        tenant="default",
        project="default",
        dataset="d",
        scope=Scope.PROJECT,
        repository="git.test:9418/o/r",
        clone_url="http://git.test:9418/o/r",
        branch="main",
        commit=sha,
        generation=1,
        stage=IndexStage.FULL,
        job_id=first[1]["jobId"],
        files=1,
        chunks=2,
        encoder="e",
        chunker="c",
        published_at=now(),
    )
    await Bucket(bus, KV_DATASETS, Dataset).put(dataset_key("default", "default", "d"), indexed)
    skipped = await http.post("/projects/default/ingest/github", json=wanted, headers=BEARER)
    assert skipped.json()["status"] == "skipped"
    assert await asked("default") == first


async def test_two_requests_with_one_idempotency_key_at_once_make_one_job(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k-2"}
    responses = await asyncio.gather(*(http.post(f"{INGEST}/user/repo1", headers=key) for _ in range(6)))
    assert {response.json()["id"] for response in responses} == {responses[0].json()["id"]}
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 1


async def test_a_key_whose_first_submit_was_refused_submits_again(bus: Bus, http: httpx.AsyncClient) -> None:
    for n in range(10):
        await http.post(f"{INGEST}/user/repo{n}")
    key = {"Idempotency-Key": "k-3"}
    assert (await http.post(f"{INGEST}/user/new", headers=key)).status_code == 429
    await purge(bus, 1)
    assert (await http.post(f"{INGEST}/user/new", headers=key)).status_code == 200


async def test_without_a_bus_a_submit_is_refused_within_two_seconds_and_never_stored(
    bus: Bus, http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    await asyncio.to_thread(nats_server.kill)
    started = time.monotonic()
    response = await http.post(f"{INGEST}/user/repo1")
    assert time.monotonic() - started < 2
    assert response.status_code == 503
    assert response.json()["detail"].startswith("Queue unavailable: ")
    for path in ("/health", "/readyz", "/api/v1/ingestion/worker/status", "/api/v1/events"):
        started = time.monotonic()
        assert (await http.get(path)).status_code == 503, path
        assert time.monotonic() - started < 2, path
    await asyncio.to_thread(nats_server.start)
    async with asyncio.timeout(10):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
        while not bus.connected:
            await asyncio.sleep(0.05)
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 0
    assert (await http.post(f"{INGEST}/user/repo1")).status_code == 200


async def test_a_submit_whose_fate_is_unknown_says_so_and_its_key_resolves_it(
    bus: Bus, http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    await http.post(f"{INGEST}/user/repo0")
    key = {"Idempotency-Key": "k-4"}
    started = time.monotonic()
    nats_server.freeze()
    try:
        response = await http.post(f"{INGEST}/user/repo1", headers=key)
        assert time.monotonic() - started < 2
        started = time.monotonic()
        answers = await asyncio.gather(
            *(
                http.get(path)
                for path in (
                    "/health",
                    "/readyz",
                    "/api/v1/ingestion/worker/status",
                    "/api/v1/ingestion/jobs/history",
                    "/api/v1/jobs",
                    "/api/v1/jobs/1",
                    "/api/v1/jobs/1/events",
                    "/api/v1/workers",
                    "/api/v1/datasets",
                    "/api/v1/events",
                )
            )
        )
        assert {each.status_code for each in answers} == {503}
        assert time.monotonic() - started < 2
    finally:
        nats_server.thaw()
    assert response.status_code == 503
    async with asyncio.timeout(10):
        while (again := await http.post(f"{INGEST}/user/repo1", headers=key)).status_code != 200:
            await asyncio.sleep(0.1)
    known = (await http.get(f"/api/v1/jobs/{again.json()['id']}")).json()
    assert known["number"] == again.json()["job_id"]
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 2


async def test_the_target_is_the_worker_with_room(bus: Bus, http: httpx.AsyncClient) -> None:
    await Bucket(bus, "workers", type(worker())).put("w1", worker("w1"))
    async with asyncio.timeout(10):
        while not (await http.get("/api/v1/workers")).json()["workers"]:
            await asyncio.sleep(0.02)
    assert (await http.post(f"{INGEST}/user/repo1")).json()["target"] == "w1"


@pytest.fixture
async def two_gateways(bus: Bus, nats_server: NatsServer) -> AsyncIterator[list[httpx.AsyncClient]]:
    """With room for three jobs of a tenant."""
    chosen = settings(nats_server.url, git_allowed_hosts=HOSTS, tenant_queue_max=3)
    async with (
        serving(chosen) as one,
        serving(chosen) as other,
        client(one.address, **BEARER) as first,
        client(other.address, **BEARER) as second,
    ):
        for connected in (first, second):
            await until_ready(connected)
        yield [first, second]


async def test_of_fifty_submits_at_once_at_two_gateways_a_tenant_gets_as_many_as_it_may(
    bus: Bus, two_gateways: list[httpx.AsyncClient]
) -> None:
    responses = await asyncio.gather(
        *(two_gateways[n % 2].post(f"{INGEST}/user/repo{n}", headers={"x-tenant": "acme"}) for n in range(50))
    )
    assert sorted(response.status_code for response in responses) == [200] * 3 + [429] * 47
    for response in responses:
        if response.status_code == 429:
            assert response.json() == {
                "detail": "Your queue is full (3 pending tasks). Please try again later.",
                "code": "tenant_queue_full",
                "queue_size": 3,
                "max_queue_size": 3,
            }
            assert 5 <= int(response.headers["Retry-After"]) <= 300
    info = await bus.api("STREAM.INFO.Q", {"subjects_filter": "cmd.ingest.acme.>"})
    assert len(info["state"]["subjects"]) == 3
    other = await two_gateways[0].post(f"{INGEST}/user/repo1", headers={"x-tenant": "default"})
    assert other.status_code == 200


async def test_a_full_tenant_finds_its_pending_jobs_and_has_room_again_when_one_starts(
    bus: Bus, two_gateways: list[httpx.AsyncClient]
) -> None:
    http = two_gateways[0]
    first = (await http.post(f"{INGEST}/user/repo1")).json()
    for n in (2, 3):
        await http.post(f"{INGEST}/user/repo{n}", headers={"Idempotency-Key": f"k{n}"})
    again = (await two_gateways[1].post(f"{INGEST}/user/repo1")).json()
    assert (again["id"], again["deduplicated"]) == (first["id"], True)
    key = {"Idempotency-Key": "k4"}
    assert (await http.post(f"{INGEST}/user/repo4", headers=key)).status_code == 429
    await purge(bus, 2)
    fourth = await http.post(f"{INGEST}/user/repo4", headers=key)
    assert fourth.status_code == 200
    assert (await http.post(f"{INGEST}/user/repo4", headers=key)).json() == fourth.json()
    active = Bucket(bus, KV_ACTIVE, ActiveJob)
    command = await command_of(bus, fourth.json()["id"])
    entry = await active.get(subjects.active_key("default", command.key))
    assert entry is not None
    await active.delete(entry.key, entry.revision)  # the queue itself knows of the same work too
    found = (await two_gateways[1].post(f"{INGEST}/user/repo4")).json()
    assert (found["id"], found["deduplicated"]) == (fourth.json()["id"], True)


async def test_a_tenant_whose_queue_is_drained_while_it_submits_is_never_refused_for_it(
    bus: Bus, two_gateways: list[httpx.AsyncClient]
) -> None:
    """The scheduler takes commands away between the count and the publish; only the number counts."""

    async def drain() -> None:
        while True:
            stored = await bus.first("Q", "cmd.ingest.>")
            if stored is not None:
                await purge(bus, stored.sequence)
            await asyncio.sleep(0.001)

    draining = asyncio.create_task(drain())
    try:
        for n in range(60):
            while True:
                response = await two_gateways[n % 2].post(f"{INGEST}/user/repo{n}")
                if response.status_code != 429:
                    break
            assert response.status_code == 200, response.text
    finally:
        await end(draining)
