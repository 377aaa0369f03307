"""The queue, dead letters and schedules over HTTP, against a real bus."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from pharos_contracts.control.v1 import (
    AnyCommand,
    Controlled,
    DeadLetter,
    DeadLetterKind,
    DeleteSchedule,
    Purged,
    PurgeDeadLetter,
    PutSchedule,
    ReplayDeadLetter,
    Scheduled,
)
from pharos_contracts.identity import uuid7
from pharos_contracts.jobs.v1 import JobKind
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.streams import DEAD, KV_SCHEDULES, KV_WORKERS
from pharos_contracts.subjects import dead_letter_subject
from pharos_contracts.workers.v1 import Worker
from pharos_gateway.app import serving
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from tests.support.gateway import (
    BEARER,
    History,
    Scheduler,
    client,
    document_job,
    events,
    job,
    leading,
    now,
    result,
    settings,
    until_ready,
    worker,
)
from tests.support.keys import issue
from tests.support.nats_server import NatsServer
from tests.support.scheduling import document_command, submit

pytestmark = pytest.mark.anyio

INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"
LETTERS = "/ops/dead-letters"
SCHEDULES = "/api/v1/schedules"
VIEWER = {"x-role": "viewer"}
EDITOR = {"x-role": "editor", "x-tenant": "acme"}


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(settings(nats_server.url, git_allowed_hosts="http://git.test:9418")) as running,
        client(running.address, **BEARER) as connected,
    ):
        await until_ready(connected)
        yield connected


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    async with leading(bus) as found:
        yield found


async def bury(bus: Bus, number: int, **others: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "letter_id": job(number).job_id,
        "kind": DeadLetterKind.JOB,
        "tenant": "default",
        "at": now(),
        "reason": "Its worker died twice while it worked on this job",
        "code": "poison",
        "job": job(number, JobState.FAILED, callback_url="https://x.example/hidden"),
        "deaths": 2,
        "workers": ("w1", "w2"),
    }
    letter = DeadLetter(**{**values, **others})
    await bus.publish(dead_letter_subject(letter), letter)
    return letter


def message(**others: Any) -> dict[str, Any]:
    return {
        "letter_id": "Q-17",
        "kind": DeadLetterKind.MESSAGE,
        "job": None,
        "deaths": 0,
        "workers": (),
        "stream": "Q",
        "subject": "cmd.ingest.acme.normal.k.j",
        "payload": b"\xff not a message",
        "tenant": "acme",
        "code": "unreadable_message",
        **others,
    }


async def test_a_dead_letter_tells_what_is_known_of_its_job(bus: Bus, http: httpx.AsyncClient) -> None:
    await bury(bus, 7)
    (listed,) = (await http.get(LETTERS)).json()["dead_letters"]
    shown = (await http.get(f"{LETTERS}/{job(7).job_id}")).json()
    assert shown == listed
    assert shown["job"]["number"] == 7
    assert shown["job"]["state"] == "failed"
    assert (shown["deaths"], shown["workers"], shown["code"]) == (2, ["w1", "w2"], "poison")
    assert "hidden" not in str(shown)
    for unknown in (job(8).job_id, "a.b", "*", ">"):
        missing = await http.get(f"{LETTERS}/{unknown}")
        assert (missing.status_code, missing.json()["detail"]) == (404, "There is no such dead letter")


async def test_an_editor_sees_the_dead_letters_of_its_tenant_and_no_bytes(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    await bury(bus, 7)
    await bury(bus, 8, **message())
    assert [each["id"] for each in (await http.get(LETTERS)).json()["dead_letters"]] == [
        "Q-17",
        job(7).job_id,
    ]
    own = (await http.get(LETTERS, headers=EDITOR)).json()["dead_letters"]
    assert [each["id"] for each in own] == ["Q-17"]
    assert "payload" not in own[0]
    assert own[0]["payload_bytes"] == 15
    assert "payload" not in (await http.get(f"{LETTERS}/Q-17", headers=EDITOR)).json()
    whole = (await http.get(f"{LETTERS}/Q-17")).json()
    assert b64decode(whole["payload"]) == b"\xff not a message"
    for path in (f"{LETTERS}/{job(7).job_id}", f"{LETTERS}/{job(99).job_id}"):
        answers = [
            await http.get(path, headers=EDITOR),
            await http.delete(path, headers=EDITOR),
            await http.post(f"{path}/replay", headers=EDITOR),
        ]
        assert {each.status_code for each in answers} == {404}
        assert len({each.text for each in answers}) == 1
    assert scheduler.commands == []
    for refused in (
        await http.get(LETTERS, headers=VIEWER),
        await http.get("/ops/queue", headers=VIEWER),
        await http.delete(LETTERS, headers=VIEWER),
    ):
        assert refused.status_code == 403


async def test_a_dead_letter_of_somebodys_own_job_is_not_for_the_rest_of_the_tenant(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    ann, bob = [
        {"Authorization": f"Bearer {(await issue(http, tenant='acme', user=user))['key']}"}
        for user in ("ann", "bob")
    ]
    private = document_job(7, JobState.FAILED, kind=JobKind.RESOURCE, tenant="acme", submitted_by="ann")
    await bury(bus, 7, letter_id=private.job_id, tenant="acme", job=private)
    await bury(bus, 8, **message(letter_id="CONTROL-1", tenant="acme", subject="cmd.control.x.pause"))
    await bury(bus, 9, **message(letter_id="DOCS-1", subject="cmd.document.acme.normal.k.j"))

    async def seen(headers: dict[str, str]) -> list[str]:
        page = (await http.get(LETTERS, headers=headers)).json()
        return [each["id"] for each in page["dead_letters"]]

    assert await seen(BEARER) == ["DOCS-1", "CONTROL-1", private.job_id]
    assert await seen(ann) == ["DOCS-1", private.job_id]
    assert await seen(bob) == ["DOCS-1"]
    path = f"{LETTERS}/{private.job_id}"
    for answer in (
        await http.get(path, headers=bob),
        await http.delete(path, headers=bob),
        await http.post(f"{path}/replay", headers=bob),
    ):
        assert answer.status_code == 404
    scheduler.decide = lambda command, _: Purged(id=command.letter_id)  # type: ignore[union-attr]
    await http.delete(LETTERS, headers=bob)
    assert [each.letter_id for each in scheduler.commands if isinstance(each, PurgeDeadLetter)] == ["DOCS-1"]
    assert (await http.get(path, headers=ann)).json()["job"]["job_id"] == private.job_id


async def test_dead_letters_are_paged_newest_first_although_most_of_the_stream_is_gone(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    buried = [str(uuid7(1_700_000_000_000 + number, bytes(10))) for number in range(400)]
    for number, letter_id in enumerate(buried):
        tenant = "acme" if number % 3 else "default"
        await bury(bus, number + 1, letter_id=letter_id, tenant=tenant, job=None)
    kept = [letter_id for number, letter_id in enumerate(buried) if number % 5 == 0 or number < 40]
    for number, letter_id in enumerate(buried):
        if letter_id not in kept:
            tenant = "acme" if number % 3 else "default"
            await bus.api(f"STREAM.PURGE.{DEAD}", {"filter": f"dead.{tenant}.{letter_id}"})

    async def pages(limit: int, **headers: str) -> list[str]:
        found: list[str] = []
        cursor: dict[str, int] = {}
        while True:
            page = (await http.get(LETTERS, params={"limit": limit, **cursor}, headers=headers)).json()
            assert len(page["dead_letters"]) <= limit
            found += [each["id"] for each in page["dead_letters"]]
            if page["cursor"] is None:
                return found
            cursor = {"before": page["cursor"]}

    newest_first = list(reversed(kept))
    assert await pages(7) == newest_first
    assert await pages(100) == newest_first
    of_default = [each for each in newest_first if buried.index(each) % 3 == 0]
    assert await pages(10, **{"x-tenant": "default"}) == of_default
    assert (await http.get(LETTERS, params={"limit": 101})).status_code == 400


async def test_a_replayed_dead_letter_is_answered_with_its_job(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    await bury(bus, 7)
    await bury(bus, 8, **message())

    def decide(command: AnyCommand, sequence: int) -> Message:
        assert isinstance(command, ReplayDeadLetter)
        if command.letter_id == "Q-17":
            return Purged(id=command.letter_id)
        return Controlled(job=job(7, JobState.QUEUED, attempt=2))

    scheduler.decide = decide
    replayed = await http.post(f"{LETTERS}/{job(7).job_id}/replay")
    assert replayed.status_code == 200
    assert (replayed.json()["number"], replayed.json()["state"]) == (7, "queued")
    resent = await http.post(f"{LETTERS}/Q-17/replay")
    assert (resent.status_code, resent.json()) == (202, {"dead_letter": "Q-17", "status": "resent"})
    assert [(each.tenant, each.by) for each in scheduler.commands] == [
        ("default", "admin"),
        ("acme", "admin"),
    ]
    scheduler.decide = lambda command, sequence: Refused(
        code="already_active", detail="Job 9 indexes the same repository already", status=409
    )
    assert (await http.post(f"{LETTERS}/{job(7).job_id}/replay")).status_code == 409


async def test_purging_is_a_command_for_each_letter_that_the_caller_may_see(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    for number in range(1, 41):
        await bury(bus, number)
    await bury(bus, 50, **message())

    def decide(command: AnyCommand, sequence: int) -> Message:
        assert isinstance(command, PurgeDeadLetter)
        if command.letter_id == job(2).job_id:
            return Refused(code="not_found", detail="There is no such dead letter", status=404)
        return Purged(id=command.letter_id)

    scheduler.decide = decide
    assert (await http.delete(f"{LETTERS}/{job(1).job_id}")).status_code == 204
    assert (await http.delete(f"{LETTERS}/{job(2).job_id}")).status_code == 404
    assert (await http.delete(LETTERS, headers=EDITOR)).json() == {"purged": 1}
    scheduler.commands.clear()
    assert (await http.delete(LETTERS)).json() == {"purged": 40}
    assert len(scheduler.commands) == 41


async def test_the_queue_is_reported_by_priority_kind_and_to_an_admin_by_tenant(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    empty = (await http.get("/ops/queue")).json()
    assert empty == {
        "depth": 0,
        "capacity": 10,
        "documents_capacity": 1000,
        "oldest_age_seconds": None,
        "by_priority": {"urgent": 0, "high": 0, "normal": 0, "low": 0},
        "by_kind": {"repository": 0, "document": 0},
        "by_tenant": {},
    }
    started = time.monotonic()
    for n, (tenant, priority) in enumerate((("default", "low"), ("acme", "high"), ("acme", "normal"))):
        await http.post(f"{INGEST}/user/repo{n}?priority={priority}", headers={"x-tenant": tenant})
    await submit(bus, document_command(9))
    report = (await http.get("/ops/queue")).json()
    assert 0 <= report.pop("oldest_age_seconds") <= time.monotonic() - started
    assert report == {
        "depth": 4,
        "capacity": 10,
        "documents_capacity": 1000,
        "by_priority": {"urgent": 0, "high": 1, "normal": 2, "low": 1},
        "by_kind": {"repository": 3, "document": 1},
        "by_tenant": {"acme": 2, "default": 2},
    }
    own = (await http.get("/ops/queue", headers=EDITOR)).json()
    assert (own["depth"], own["by_priority"]["low"]) == (2, 0)
    assert "by_tenant" not in own


class Keeper:
    """Keeps schedules as the scheduler does: in their bucket, which it alone writes."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, KV_SCHEDULES, Schedule)

    async def carry_out(self, command: AnyCommand, sequence: int) -> Message:
        if isinstance(command, PutSchedule):
            if command.schedule.cron != "0 3 * * *":
                detail = f"The hour in {command.schedule.cron!r} is not between 0 and 23"
                return Refused(code="invalid_schedule", detail=detail, status=422)
            schedule = replace(command.schedule, next_run_at=now())
            await self._bucket.put(f"{schedule.tenant}.{schedule.schedule_id}", schedule)
            return Scheduled(schedule=schedule)
        assert isinstance(command, DeleteSchedule)
        entry = await self._bucket.get(f"{command.tenant}.{command.schedule_id}")
        assert entry is not None
        await self._bucket.delete(entry.key, entry.revision)
        return Purged(id=command.schedule_id)


@pytest.fixture
def keeper(bus: Bus, scheduler: Scheduler) -> Keeper:
    found = Keeper(bus)
    scheduler.carry_out = found.carry_out  # type: ignore[method-assign]
    return found


WANTED = {
    "repo_url": "http://git.test:9418/user/repo1.git",
    "branch": "main",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "jitter_seconds": 600,
    "priority": "low",
    "dataset": "nightly build",
    "project": "atlas",
    "skip_unchanged": False,
    "id": "nightly",
}


async def test_a_schedule_is_put_listed_read_and_removed(
    http: httpx.AsyncClient, scheduler: Scheduler, keeper: Keeper
) -> None:
    put = await http.post(SCHEDULES, json={**WANTED, "cron": " 0 3  * * *\n"}, headers=EDITOR)
    assert put.status_code == 201
    shown = put.json()
    assert shown | {"created_at": None, "next_run_at": None} == {
        "id": "nightly",
        "tenant": "acme",
        "repository": "git.test:9418/user/repo1",
        "branch": "main",
        "project": "atlas",
        "dataset": "nightly build",
        "scope": "project",
        "priority": "low",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "jitter_seconds": 600,
        "skip_unchanged": False,
        "created_at": None,
        "created_by": "admin",
        "next_run_at": None,
        "last_run_at": None,
        "last_job_id": None,
        "last_outcome": None,
    }
    assert shown["next_run_at"] is not None
    (command,) = scheduler.commands
    assert isinstance(command, PutSchedule)
    assert command.schedule.ttl_seconds == 86_400
    plain = await http.post(SCHEDULES, json={"repo_url": "git.test:9418/user/repo2", "cron": "0 3 * * *"})
    assert plain.status_code == 201
    assert (plain.json()["tenant"], plain.json()["timezone"]) == ("default", "UTC")
    assert (await http.get(f"{SCHEDULES}/nightly", headers=EDITOR)).json() == shown
    assert (await http.get(SCHEDULES, headers=EDITOR)).json() == {"schedules": [shown], "truncated": False}
    everyones = (await http.get(SCHEDULES)).json()["schedules"]
    assert [each["tenant"] for each in everyones] == ["acme", "default"]
    other = {"x-tenant": "other"}
    assert (await http.get(SCHEDULES, headers=other)).json()["schedules"] == []
    for response in (
        await http.get(f"{SCHEDULES}/nightly", headers=other),
        await http.delete(f"{SCHEDULES}/nightly", headers=other),
        await http.get(f"{SCHEDULES}/a.b"),
    ):
        assert (response.status_code, response.json()["detail"]) == (404, "There is no such schedule")
    assert (await http.delete(f"{SCHEDULES}/nightly", headers=EDITOR)).status_code == 204
    assert (await http.get(f"{SCHEDULES}/nightly", headers=EDITOR)).status_code == 404
    assert (await http.get(SCHEDULES, headers=EDITOR)).json()["schedules"] == []


async def test_a_schedule_that_cannot_be_is_refused_with_a_sentence(
    http: httpx.AsyncClient, scheduler: Scheduler, keeper: Keeper
) -> None:
    refused = await http.post(SCHEDULES, json={**WANTED, "cron": "0 25 * * *"})
    assert refused.status_code == 400
    assert refused.json() == {
        "detail": "The hour in '0 25 * * *' is not between 0 and 23",
        "code": "invalid_schedule",
    }
    scheduler.commands.clear()
    for change, word in (
        ({"repo_url": "https://u:p@github.com/o/r"}, "credentials"),
        ({"repo_url": "https://github.com/o/r"}, "allowed hosts"),
        ({"branch": "a..b"}, "branch"),
        ({"id": "a.b"}, "'a.b'"),
        ({"project": "x y"}, "'x y'"),
        ({"jitter_seconds": -1}, "jitter_seconds"),
        ({"priority": "soon"}, "priority"),
        ({"crom": "0 3 * * *"}, "crom"),
        ({"cron": 3}, "cron"),
        ({"dataset": "a\x1b[2Jb"}, "dataset"),
        ({"dataset": "a\u202eb"}, "dataset"),
        ({"dataset": "a\u2066b"}, "dataset"),
        ({"dataset": "a\u200bb"}, "dataset"),
        ({"dataset": "a\u2028b"}, "dataset"),
    ):
        refused = await http.post(SCHEDULES, json={**WANTED, **change})
        assert refused.status_code == 400, change
        assert word in refused.text
    assert scheduler.commands == []
    assert (await http.post(SCHEDULES, json=WANTED, headers=VIEWER)).status_code == 403
    assert (await http.get(SCHEDULES, headers=VIEWER)).status_code == 200


async def test_metrics_tell_of_requests_streams_jobs_workers_and_queues(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    await Bucket(bus, KV_WORKERS, Worker).put("w", worker("w"))
    ended = job(7, JobState.COMPLETED, started_at=now(), ended_at=now(), attempt=1, result=result())
    async with aclosing(events(http, "/api/v1/events")) as stream:
        await anext(stream)
        await http.post(f"{INGEST}/user/repo1")
        await http.get("/api/v1/jobs/%E2%98%83")
        await http.request("GET", "/nowhere/at/all")
        await History(bus).tell(ended, JobState.COMPLETED)
        await numbers_with(http, 'pharos_jobs_ended_total{kind="repository",state="completed"} 1.0')
        await numbers_with(http, "pharos_streams_open 1.0")
        found = await numbers_with(http, 'pharos_workers{state="idle"} 1.0')
    assert {
        'pharos_http_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="404"} 1.0',
        'pharos_http_requests_total{method="GET",route="none",status="404"} 1.0',
        'pharos_http_answer_seconds_count{route="/api/v1/ingestion/ingest/{repo_url}"} 1.0',
        'pharos_job_seconds_count{kind="repository"} 1.0',
        'pharos_queue_depth{queue="repositories"} 1.0',
        'pharos_queue_capacity{queue="repositories"} 10.0',
        'pharos_queue_depth{queue="documents"} 0.0',
        "pharos_bus_connected 1.0",
    } <= set(found)
    assert any(line.startswith("process_resident_memory_bytes ") for line in found)
    await numbers_with(http, "pharos_streams_open 0.0")


async def test_metrics_are_read_like_the_public_status_and_without_a_bus(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with serving(settings(nats_server.url)) as running, client(running.address) as everybody:
        await until_ready(everybody)
        answer = await everybody.get("/metrics")
        assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE_PLAIN_0_0_4)
        assert (await everybody.get("/metrics", headers={"x-api-key": "wrong"})).status_code == 401
    async with (
        serving(settings(nats_server.url, public_status=False)) as running,
        client(running.address) as nobody,
        client(running.address, **BEARER) as admin,
    ):
        await until_ready(admin)
        assert (await nobody.get("/metrics")).status_code == 401
        assert (await admin.get("/metrics", headers=VIEWER)).status_code == 200
        await asyncio.to_thread(nats_server.kill)
        lines = await numbers_with(admin, "pharos_bus_connected 0.0")
    assert not any(line.startswith("pharos_queue_depth{") for line in lines)


async def numbers_with(http: httpx.AsyncClient, line: str) -> list[str]:
    """The metrics, as soon as *line* is among them."""
    async with asyncio.timeout(10):
        while line not in (lines := (await http.get("/metrics")).text.splitlines()):
            await asyncio.sleep(0.02)
    return lines
