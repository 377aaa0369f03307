"""Resources over HTTP: made searchable by a job, replaced by their address, deleted with their vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from nats.js.errors import ObjectNotFoundError

from pharos_contracts.control.v1 import ControlJob
from pharos_contracts.jobs.v1 import JobKind, SubmitJob, job_of
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.streams import DOCS, KV_WORKERS
from pharos_contracts.workers.v1 import Worker
from pharos_gateway import resource_keeping
from pharos_gateway.app import serving
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from tests.support.gateway import BEARER, History, client, leading, settings, until_ready, worker
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

README = {
    "title": "pharos README",
    "content": "The lighthouse of Alexandria.",
    "url": "https://github.com/ram-tewari/pharos/blob/main/README.md",
    "resource_type": "PRACTICE",
}


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(settings(nats_server.url, git_allowed_hosts="http://git.test:9418")) as running,
        client(running.address, **BEARER) as connected,
    ):
        await until_ready(connected)
        yield connected


async def create(http: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await http.post("/resources", json={**README, **changes})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def commands(bus: Bus, kind: JobKind) -> list[SubmitJob]:
    """The jobs of that kind that were asked for, oldest first."""
    found, sequence = [], 1
    while (stored := await bus.first(DOCS, "cmd.document.>", sequence)) is not None:
        command: SubmitJob = decode(stored.data, SubmitJob)
        sequence = stored.sequence + 1
        if command.kind is kind:
            found.append(command)
    return found


async def deletion(bus: Bus) -> SubmitJob:
    """The job that is to delete something, as soon as it was asked for."""
    async with asyncio.timeout(5):
        while not (found := await commands(bus, JobKind.DELETE)):
            await asyncio.sleep(0.02)
    return found[-1]


async def reader_lives(bus: Bus, http: httpx.AsyncClient) -> None:
    """A worker that reads documents is alive, and the gateway knows it."""
    await Bucket(bus, KV_WORKERS, Worker).put("w", worker("w", document_slots=1))
    async with asyncio.timeout(5):
        while not (await http.get("/api/v1/workers")).json()["workers"]:
            await asyncio.sleep(0.02)


async def test_a_resource_is_created_listed_and_read_by_a_job(bus: Bus, http: httpx.AsyncClient) -> None:
    made = await create(http)
    assert {name: made[name] for name in ("title", "url", "resource_type", "status", "error")} == {
        "title": README["title"],
        "url": README["url"],
        "resource_type": "PRACTICE",
        "status": "queued",
        "error": None,
    }
    (command,) = await commands(bus, JobKind.RESOURCE)
    document = command.document
    assert document is not None
    assert (command.job_id, command.dataset) == (made["job_id"], "documents/resources")
    assert (document.identity, document.title) == (f"resources/texts/{made['id']}", README["title"])
    assert (document.link, document.url) == (README["url"], None)
    assert document.object_name is not None
    store = await bus.jetstream.object_store("uploads")
    assert (await store.get(document.object_name)).data == README["content"].encode()

    assert (await http.get(f"/resources/{made['id']}")).json() == made
    assert (await http.get("/resources")).json() == {
        "resources": [made],
        "total": 1,
        "limit": 20,
        "offset": 0,
        "has_more": False,
    }
    await History(bus).tell(job_of(command, 0), JobState.FAILED, error="The document is empty.")
    told = (await http.get(f"/resources/{made['id']}")).json()
    assert (told["status"], told["error"]) == ("failed", "The document is empty.")


async def test_the_same_address_again_replaces_the_text_and_keeps_the_id(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    first = await create(http)
    second = await create(http, content="Its keeper.", title="Another title")
    assert (second["id"], second["created_at"]) == (first["id"], first["created_at"])
    assert second["job_id"] != first["job_id"]
    assert second["updated_at"] > first["updated_at"]
    other = await create(http, url="https://h.example/other")
    assert other["id"] != first["id"]
    identities = {
        command.document.identity for command in await commands(bus, JobKind.RESOURCE) if command.document
    }
    assert identities == {f"resources/texts/{first['id']}", f"resources/texts/{other['id']}"}
    listed = (await http.get("/resources")).json()["resources"]
    assert [each["title"] for each in listed] == ["pharos README", "Another title"]


async def test_an_idempotency_key_brings_the_first_resource_back_and_changes_nothing(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    async def put(key: str, **changes: Any) -> httpx.Response:
        return await http.post("/resources", json={**README, **changes}, headers={"Idempotency-Key": key})

    first = (await put("once")).json()
    for changes in ({"url": "https://h.example/other"}, {"title": "Another", "content": "Another text."}):
        again = await put("once", **changes)
        assert (again.status_code, again.json()) == (201, first)
    assert (await http.get("/resources")).json()["resources"] == [first]
    newer = await create(http, content="Its keeper.", title="Another title")
    assert (await put("once")).json()["job_id"] == first["job_id"]
    (kept,) = (await http.get("/resources")).json()["resources"]
    assert (kept["job_id"], kept["title"]) == (newer["job_id"], "Another title")
    assert len(await commands(bus, JobKind.RESOURCE)) == 2


async def test_two_users_may_use_one_idempotency_key(bus: Bus, http: httpx.AsyncClient) -> None:
    made, texts = [], []
    for user in ("ada", "bob"):
        issued = await http.post("/api/v1/keys", json={"user": user, "role": "editor"})
        headers = {"Authorization": f"Bearer {issued.json()['key']}", "Idempotency-Key": "1"}
        body = {**README, "content": f"The text of {user}."}
        made.append((await http.post("/resources", json=body, headers=headers)).json())
        text = {"text": f"Another text of {user}.", "source": "notes"}
        texts.append((await http.post("/knowledge/ingest-text-async", json=text, headers=headers)).json())
    assert made[0]["job_id"] != made[1]["job_id"]
    assert texts[0]["job_id"] != texts[1]["job_id"]
    identities = {each.document.identity for each in await commands(bus, JobKind.TEXT) if each.document}
    assert len(identities) == 2  # neither replaces the other one's


async def test_a_list_has_pages_and_is_of_a_type(http: httpx.AsyncClient) -> None:
    for number in range(5):
        kind = "PAPER" if number == 2 else "PRACTICE"
        await create(http, url=f"https://h.example/{number}", resource_type=kind)
    page = (await http.get("/resources?limit=2&offset=2")).json()
    assert [each["url"] for each in page["resources"]] == ["https://h.example/2", "https://h.example/1"]
    assert (page["total"], page["has_more"]) == (5, True)
    last = (await http.get("/resources?limit=2&offset=4")).json()
    assert (len(last["resources"]), last["has_more"]) == (1, False)
    papers = (await http.get("/resources?type=PAPER")).json()
    assert ([each["url"] for each in papers["resources"]], papers["total"]) == (["https://h.example/2"], 1)
    assert (await http.get("/resources?limit=101")).status_code == 400


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"url": "javascript:alert(1)"}, "invalid_request", "url"),
        ({"url": "/relative"}, "invalid_request", "url"),
        ({"url": "https://u:p@h.example/"}, "invalid_request", "url"),
        ({"url": "https://h.example/a b"}, "invalid_request", "url"),
        ({"url": "https://[::1/"}, "invalid_request", "url"),
        ({"url": "https://h.example/" + "x" * 2_048}, "invalid_request", "url"),
        ({"content": " \n"}, "document_empty", None),
        ({"title": ""}, "invalid_request", "title"),
        ({"title": "a\nb"}, "invalid_request", "title"),
        ({"resource_type": "a b"}, "invalid_request", "resource_type"),
        ({"more": 1}, "invalid_request", None),
    ],
)
async def test_what_cannot_be_a_resource_is_refused_with_a_sentence(
    changes: dict[str, Any], code: str, field: str | None, bus: Bus, http: httpx.AsyncClient
) -> None:
    answer = await http.post("/resources", json={**README, **changes})
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert answer.json().get("field") == field
    assert await commands(bus, JobKind.RESOURCE) == []


async def test_a_tenant_has_at_most_so_many_resources(
    bus: Bus, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_keeping, "RESOURCES_PER_TENANT_MAX", 1)
    made = await create(http)
    refused = await http.post("/resources", json={**README, "url": "https://h.example/other"})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_resources")
    assert (await create(http, content="Another text."))["id"] == made["id"]  # it is not another one


async def test_a_resource_is_deleted_when_its_vectors_are_gone(bus: Bus, http: httpx.AsyncClient) -> None:
    made = await create(http)
    await reader_lives(bus, http)
    async with leading(bus) as scheduler:
        (command,) = await commands(bus, JobKind.RESOURCE)
        await History(bus).tell(job_of(command, 0), JobState.RUNNING)
        asking = asyncio.create_task(http.delete(f"/resources/{made['id']}"))
        wanted = await deletion(bus)
        assert wanted.document is not None
        assert (wanted.document.identity, wanted.dataset) == (
            f"resources/texts/{made['id']}",
            "documents/resources",
        )
        stopped = [each.job_id for each in scheduler.commands if isinstance(each, ControlJob)]
        assert stopped == [made["job_id"]]
        assert not asking.done()
        assert (await http.get(f"/resources/{made['id']}")).status_code == 200
        await History(bus).tell(job_of(wanted, 0), JobState.COMPLETED)
        answer = await asking
        assert (answer.status_code, answer.content) == (204, b"")
        assert command.document is not None and command.document.object_name is not None
        store = await bus.jetstream.object_store("uploads")
        with pytest.raises(ObjectNotFoundError):
            await store.get(command.document.object_name)
    for path in (f"/resources/{made['id']}", f"/resources/{'0' * 36}"):
        gone = await http.get(path)
        assert (gone.status_code, gone.json()["detail"]) == (404, "There is no such resource")
    assert (await http.delete(f"/resources/{made['id']}")).status_code == 404
    assert (await http.get("/resources")).json()["total"] == 0


@pytest.mark.parametrize("end", [JobState.FAILED, None])
async def test_a_resource_whose_deletion_does_not_end_well_stays_and_can_be_deleted_again(
    end: JobState | None, bus: Bus, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_keeping, "DELETE_SECONDS", 1.0)
    made = await create(http)
    await reader_lives(bus, http)
    async with leading(bus):
        asking = asyncio.create_task(http.delete(f"/resources/{made['id']}"))
        wanted = await deletion(bus)
        if end is not None:
            await History(bus).tell(job_of(wanted, 0), end, error="The worker's disk is full.")
        refused = await asking
        code = "deletion_failed" if end else "deletion_waits"
        assert (refused.status_code, refused.json()["code"]) == (503, code)
        assert (await http.get(f"/resources/{made['id']}")).status_code == 200
        if end is None:  # a worker gets to it, and whoever asks again is told
            assert refused.json()["job_id"] == wanted.job_id
            asking = asyncio.create_task(http.delete(f"/resources/{made['id']}"))
            await History(bus).tell(job_of(wanted, 0), JobState.SKIPPED)
            assert (await asking).status_code == 204


async def test_without_a_worker_that_reads_documents_nothing_is_deleted_and_it_is_told_at_once(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    made = await create(http)
    began = time.monotonic()
    answer = await http.delete(f"/resources/{made['id']}")
    assert time.monotonic() - began < 2.0
    assert (answer.status_code, answer.json()["detail"]) == (
        503,
        "Index unavailable: No worker that reads documents is alive",
    )
    assert await commands(bus, JobKind.DELETE) == []


async def test_a_resource_that_was_given_a_new_text_while_it_was_deleted_stays(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    made = await create(http)
    await reader_lives(bus, http)
    async with leading(bus):
        asking = asyncio.create_task(http.delete(f"/resources/{made['id']}"))
        wanted = await deletion(bus)
        again = await create(http, content="A new text.")
        await History(bus).tell(job_of(wanted, 0), JobState.COMPLETED)
        assert (await asking).status_code == 204
    assert (await http.get(f"/resources/{made['id']}")).json()["job_id"] == again["job_id"]


async def test_nobody_else_replaces_or_deletes_what_is_a_users_own(http: httpx.AsyncClient) -> None:
    made = await create(http)
    issued = await http.post("/api/v1/keys", json={"user": "bob", "role": "editor"})
    bob = {"Authorization": f"Bearer {issued.json()['key']}"}
    repository = "http://git.test:9418/o/r"
    into = {"dataset": "documents/resources"}
    for path, body, field in (
        ("/knowledge/ingest-text-async", {"text": "x", "source": "resources"}, "source"),
        ("/knowledge/ingest-url-async", {"url": "https://h.example/", "source": "resources"}, "source"),
        ("/api/v1/jobs", {"kind": "text", "text": "x", "source": "resources"}, "source"),
        ("/api/v1/jobs", {"kind": "repository", "repo_url": repository, **into}, "dataset"),
        ("/projects/default/ingest/github", {"repo": repository, **into}, "dataset"),
        ("/projects/default/ingest/github", {"repo": repository, "dataset": "connections/c"}, "dataset"),
        ("/api/v1/schedules", {"repo_url": repository, "cron": "0 3 * * *", **into}, "dataset"),
    ):
        refused = await http.post(path, json=body, headers=bob)
        assert (refused.status_code, refused.json().get("field")) == (400, field), refused.text
    file = {"file": (made["id"], b"Another text.", "text/plain")}
    for query, fields in (("?source=resources", {}), ("", {"source": "resources"})):
        answer = await http.post(f"/knowledge/ingest-file-async{query}", files=file, data=fields, headers=bob)
        assert (answer.status_code, answer.json()["field"]) == (400, "source")
    for path in ("/api/v1/datasets", "/projects/default/ingest/github"):
        answer = await http.request("DELETE", path, json=into, headers=bob)
        assert (answer.status_code, answer.json()["needed"]) == (403, "admin")
