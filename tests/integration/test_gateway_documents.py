"""Documents over HTTP: texts, addresses and files become jobs, and uploads cost no memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import NO_NUMBER, JobKind, Priority, SubmitJob
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.streams import DOCS, OBJ_UPLOADS, BusLimits, declare
from pharos_contracts.subjects import document_command_filter
from pharos_gateway.app import serving
from pharos_service.bus import Bus
from pharos_service.bus_admin import apply
from pharos_service.objects import PIECE_BYTES, download
from tests.support.gateway import (
    BEARER,
    TOKEN,
    History,
    client,
    document_job,
    job,
    result,
    settings,
    until_ready,
)
from tests.support.keys import issue, with_key
from tests.support.nats_server import NatsServer, free_port

pytestmark = pytest.mark.anyio

TEXT, URL, FILE = (f"/knowledge/ingest-{kind}-async" for kind in ("text", "url", "file"))
GIGABYTE = 10**9
MIB = 1024 * 1024


@asynccontextmanager
async def gateway(nats_server: NatsServer, **others: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = settings(nats_server.url, web_allowed_hosts="http://web.test", **others)
    async with serving(chosen) as running, client(running.address, **BEARER) as connected:
        await until_ready(connected)
        yield connected


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(nats_server) as connected:
        yield connected


async def command_of(bus: Bus, job_id: str) -> SubmitJob:
    stored = await bus.first(DOCS, document_command_filter(job_id))
    assert stored is not None
    found: SubmitJob = decode(stored.data, SubmitJob)
    return found


async def holds(bus: Bus, stream: str) -> int:
    return int((await bus.api(f"STREAM.INFO.{stream}"))["state"]["messages"])


async def is_empty(bus: Bus) -> None:
    """Nothing is left in the object store, or will be in a moment."""
    async with asyncio.timeout(5):
        while await holds(bus, f"OBJ_{OBJ_UPLOADS}"):
            await asyncio.sleep(0.02)


def form(content: bytes = b"# Note\n", name: str = "note.md", kind: str = "text/markdown") -> dict[str, Any]:
    return {"file": (name, content, kind)}


async def test_a_text_lies_in_the_object_store_and_its_job_waits_among_documents(
    bus: Bus, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    text = "Ünïcode, " * 1000
    answer = (await http.post(TEXT, json={"text": text, "source": "docs", "priority": "high"})).json()
    wanted = await command_of(bus, answer["job_id"])
    document = wanted.document
    assert document is not None and document.object_name is not None
    assert (wanted.kind, wanted.dataset, wanted.priority) == (JobKind.TEXT, "documents/docs", Priority.HIGH)
    assert (document.size, document.sha256) == (len(text.encode()), sha256(text.encode()).hexdigest())
    await download(bus, OBJ_UPLOADS, document.object_name, tmp_path / "x")
    assert (tmp_path / "x").read_text() == text
    shown = (await http.get(f"/ops/jobs/{answer['job_id']}")).json()
    assert (shown["status"], shown["started_at"]) == ("queued", None)
    assert datetime.strptime(shown["enqueued_at"], "%Y-%m-%d %H:%M:%S")
    assert (await http.get(f"/api/v1/jobs/{answer['job_id']}")).json()["number"] == NO_NUMBER


async def test_the_same_text_twice_is_one_job_and_what_came_twice_is_not_kept(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    first = (await http.post(TEXT, json={"text": "one", "source": "docs"})).json()
    kept = await holds(bus, f"OBJ_{OBJ_UPLOADS}")
    again = (await http.post(TEXT, json={"text": "one", "source": "docs"})).json()
    assert (again["job_id"], again["deduplicated"]) == (first["job_id"], True)
    assert await holds(bus, f"OBJ_{OBJ_UPLOADS}") == kept
    elsewhere = (await http.post(TEXT, json={"text": "one", "source": "web"})).json()
    assert elsewhere["job_id"] != first["job_id"]


async def test_another_version_of_a_file_that_waits_is_another_job_of_the_same_document(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    old, new, same = [
        (await http.post(FILE, files=form(content), data={"source": "notes"})).json()
        for content in (b"old", b"new", b"new")
    ]
    assert old["job_id"] != new["job_id"]
    assert (same["job_id"], same["deduplicated"]) == (new["job_id"], True)
    identities = {(await command_of(bus, each["job_id"])).identity for each in (old, new)}
    assert identities == {"notes/note.md"}


async def test_an_idempotency_key_brings_the_first_answer_back_and_keeps_nothing_of_the_second(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "today"}
    first = (await http.post(TEXT, json={"text": "one"}, headers=key)).json()
    kept = await holds(bus, f"OBJ_{OBJ_UPLOADS}")
    again = (await http.post(TEXT, json={"text": "two", "source": "elsewhere"}, headers=key)).json()
    assert again == first
    assert await holds(bus, f"OBJ_{OBJ_UPLOADS}") == kept
    other = (await http.post(TEXT, json={"text": "three"}, headers={"Idempotency-Key": "tomorrow"})).json()
    assert (await command_of(bus, first["job_id"])).identity != (
        await command_of(bus, other["job_id"])
    ).identity


async def test_the_fields_of_a_form_come_in_any_order_and_win_over_the_query(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    behind = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="../x/a.md"\r\n\r\n'
        b'hello\r\n--b\r\nContent-Disposition: form-data; name="source"\r\n\r\nform\r\n--b--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = (await http.post(f"{FILE}?source=query&priority=low", content=behind, headers=headers)).json()
    assert (answer["source"], answer["filename"]) == ("form", "a.md")
    wanted = await command_of(bus, answer["job_id"])
    assert (wanted.identity, wanted.priority) == ("form/a.md", Priority.LOW)
    answer = (await http.post(f"{FILE}?source=query", files=form())).json()
    assert answer["source"] == "query"


@pytest.mark.parametrize(
    ("path", "sent", "code"),
    [
        (TEXT, {"json": {"text": " \n\t "}}, "document_empty"),
        (TEXT, {"json": {"text": "x", "source": ""}}, "invalid_request"),
        (TEXT, {"json": {"text": "x", "sauce": "docs"}}, "invalid_request"),
        (URL, {"json": {"url": "http://169.254.169.254/latest/meta-data"}}, "invalid_url"),
        (URL, {"json": {"url": "https://localhost/x"}}, "invalid_url"),
        (URL, {"json": {"url": "https://user:secret@example.com/"}}, "invalid_url"),
        (URL, {"json": {"url": "file:///etc/passwd"}}, "invalid_url"),
        (FILE, {"files": form(name="a.png", kind="image/png")}, "document_unsupported"),
        (FILE, {"files": form(name="film", kind="video/mp4")}, "document_unsupported"),
        (FILE, {"files": form(b"")}, "invalid_request"),
        (FILE, {"files": {"document": ("a.md", b"x")}}, "invalid_request"),
        (FILE, {"files": form(), "data": {"sauce": "x"}}, "invalid_request"),
        (FILE, {"files": form(), "data": {"source": "x" * 256}}, "invalid_request"),
        (FILE, {"files": form(), "data": {"source": "x" * 5000}}, "invalid_request"),
        (FILE, {"files": form(), "data": {"source": b"\xff\xfe"}}, "invalid_request"),
        (FILE, {"files": form(), "data": {"callback_url": "https://example.com/"}}, "callbacks_disabled"),
        (FILE, {"files": [("file", ("a.md", b"a")), ("file", ("b.md", b"b"))]}, "invalid_request"),
        (FILE, {"json": {"source": "x"}}, "invalid_request"),
        (FILE, {"files": form(), "headers": {"Content-Encoding": "gzip"}}, "invalid_request"),
        (
            FILE,
            {"content": b"--b\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            "invalid_request",
        ),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_sentence_and_leaves_nothing(
    bus: Bus, http: httpx.AsyncClient, path: str, sent: dict[str, Any], code: str
) -> None:
    answer = await http.post(path, **sent)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert "secret" not in answer.text
    await is_empty(bus)
    assert await holds(bus, DOCS) == 0


async def test_a_viewer_may_not_submit_documents_and_a_key_of_another_project_neither(
    http: httpx.AsyncClient,
) -> None:
    viewer = with_key(await issue(http, tenant="default", role="viewer"))
    elsewhere = with_key(await issue(http, tenant="default", projects=["elsewhere"]))
    submits = (
        (TEXT, {"json": {"text": "x"}}),
        (URL, {"json": {"url": "http://web.test/"}}),
        (FILE, {"files": form()}),
    )
    async with client(str(http.base_url)) as anonymous:
        for (headers, code), (path, sent) in product(
            ((viewer, "forbidden"), (elsewhere, "other_project")), submits
        ):
            answer = await anonymous.post(path, headers=headers, **sent)
            assert (answer.status_code, answer.json()["code"]) == (403, code)


async def test_a_full_queue_of_documents_refuses_with_its_own_cap_and_repositories_go_on(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    await apply(bus, declare(BusLimits(documents_queue_max=2)), 1)
    for text in ("one", "two"):
        assert (await http.post(TEXT, json={"text": text})).status_code == 200
    kept = await holds(bus, f"OBJ_{OBJ_UPLOADS}")
    full = await http.post(TEXT, json={"text": "three"})
    assert (full.status_code, int(full.headers["retry-after"])) == (429, 30)
    assert full.json() == {
        "detail": "Queue is full (2 pending tasks). Please try again later.",
        "code": "queue_full",
        "queue_size": 2,
        "max_queue_size": 2,
    }
    assert await holds(bus, f"OBJ_{OBJ_UPLOADS}") == kept
    again = await http.post(TEXT, json={"text": "two"})
    assert (again.status_code, again.json()["deduplicated"]) == (200, True)


async def test_a_tenants_documents_and_its_repositories_are_counted_apart(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, tenant_queue_max=1, git_allowed_hosts="http://git.test:9418") as http:
        assert (await http.post(TEXT, json={"text": "one"})).status_code == 200
        repository = "/api/v1/ingestion/ingest/http://git.test:9418/o/r"
        assert (await http.post(repository)).status_code == 200
        full = await http.post(TEXT, json={"text": "two"})
        assert (full.status_code, full.json()["code"]) == (429, "tenant_queue_full")
        assert (await http.post(TEXT, json={"text": "one"})).json()["deduplicated"]
        other = await http.post(TEXT, json={"text": "two"}, headers={"x-tenant": "acme"})
        assert other.status_code == 200


async def test_documents_are_among_the_jobs_that_a_user_may_start_a_day(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, rate_limit_jobs_per_day=1) as http:
        user = with_key(await issue(http, tenant="default"))
        async with client(str(http.base_url), **user) as ada:
            assert (await ada.post(TEXT, json={"text": "one"})).status_code == 200
            kept = await holds(bus, f"OBJ_{OBJ_UPLOADS}")
            refused = await ada.post(TEXT, json={"text": "two"})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert await holds(bus, f"OBJ_{OBJ_UPLOADS}") == kept


async def test_a_disk_that_is_nearly_full_takes_no_document(bus: Bus, nats_server: NatsServer) -> None:
    async with gateway(nats_server, disk_free_min_mb=100_000_000) as http:
        for path, sent in ((TEXT, {"json": {"text": "x"}}), (FILE, {"files": form()})):
            answer = await http.post(path, **sent)
            assert (answer.status_code, answer.json()["code"]) == (507, "disk_nearly_full")


async def test_an_object_store_without_room_is_told_as_such(bus: Bus, http: httpx.AsyncClient) -> None:
    stream = (await bus.api(f"STREAM.INFO.OBJ_{OBJ_UPLOADS}"))["config"]
    await bus.api(f"STREAM.UPDATE.OBJ_{OBJ_UPLOADS}", {**stream, "max_bytes": MIB})
    answer = await http.post(FILE, files=form(b"x" * 2 * MIB, name="a.txt"))
    assert (answer.status_code, answer.json()["code"]) == (507, "uploads_full")
    assert (await http.post(TEXT, json={"text": "small"})).status_code == 200  # what was begun is gone


@pytest.mark.parametrize("declared", [True, False])
async def test_a_file_beyond_the_limit_is_refused_however_it_is_sent(
    bus: Bus, nats_server: NatsServer, declared: bool
) -> None:
    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with gateway(nats_server, upload_max_bytes=MIB) as http:
        request = http.build_request("POST", FILE, files=form(b"x" * 2 * MIB))
        body = request.read()
        headers = {"Content-Type": request.headers["content-type"]}
        answer = await http.post(FILE, content=body if declared else pieces(body), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
        assert answer.json()["max_bytes"] == MIB
        await is_empty(bus)
        exactly = await http.post(FILE, files=form(b"x" * MIB))
        assert exactly.status_code == 200


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    head = (
        f"POST {FILE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {8 * MIB}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    )
    writer.write(head.encode() + b"x" * 2 * MIB)
    await writer.drain()
    async with asyncio.timeout(5):
        while not await holds(bus, f"OBJ_{OBJ_UPLOADS}"):
            await asyncio.sleep(0.01)
    writer.transport.abort()
    await is_empty(bus)
    assert await holds(bus, DOCS) == 0
    assert reader is not None


async def test_so_many_uploads_at_once_and_no_more(bus: Bus, http: httpx.AsyncClient) -> None:
    gate = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        yield bytes(PIECE_BYTES)
        await gate.wait()
        yield b"\r\n--b--\r\n"

    async def send() -> httpx.Response:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        return await http.post(FILE, content=slowly(), headers=headers)

    waiting = [asyncio.create_task(send()) for _ in range(4)]
    async with asyncio.timeout(10):
        while await holds(bus, f"OBJ_{OBJ_UPLOADS}") < len(waiting):
            await asyncio.sleep(0.02)
        refused = await http.post(FILE, files=form())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["code"] == "too_many_uploads"
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert (await http.post(FILE, files=form())).status_code == 200


async def test_what_became_of_a_document_reads_as_its_family_says(bus: Bus, http: httpx.AsyncClient) -> None:
    at = datetime(2025, 1, 15, 10, 30, 2, tzinfo=UTC)
    history = History(bus)
    page = replace(
        document_job(2),
        kind=JobKind.URL,
        document=replace(document_job(2).document, url="https://example.com/x", object_name=None),
    )
    told = {
        JobState.COMPLETED: {"started_at": at, "ended_at": at.replace(second=14, microsecond=500_500)},
        JobState.FAILED: {"error": "HTTPError: 404 Not Found", "started_at": at, "ended_at": at},
        JobState.SKIPPED: {"reason": "Task exceeded TTL", "ended_at": at},
        JobState.CANCELLED: {"ended_at": at},
        JobState.RETRYING: {"started_at": at, "error": "for now"},
        JobState.PAUSED: {},
    }
    seen = {}
    for state, changes in told.items():
        made = (
            result(chunks=42, title="Guide", natural_language="en") if state is JobState.COMPLETED else None
        )
        await history.tell(page, state, result=made, **changes)
        seen[state] = (await http.get(f"/ops/jobs/{page.job_id}")).json()
    assert seen[JobState.COMPLETED] == {
        "id": page.job_id,
        "status": "finished",
        "enqueued_at": "2024-01-20 10:00:00",
        "started_at": "2025-01-15 10:30:02",
        "ended_at": "2025-01-15 10:30:14",
        "result": {
            "ok": True,
            "ingested_chunks": 42,
            "tenant": "default",
            "source": "notes",
            "latency_ms": 12500.5,
            "title": "Guide",
            "lang": "en",
            "url": "https://example.com/x",
        },
    }
    words = {state: (found["status"], found.get("error")) for state, found in seen.items()}
    assert words == {
        JobState.COMPLETED: ("finished", None),
        JobState.FAILED: ("failed", "HTTPError: 404 Not Found"),
        JobState.SKIPPED: ("failed", "Task exceeded TTL"),
        JobState.CANCELLED: ("failed", "The job was cancelled"),
        JobState.RETRYING: ("started", None),
        JobState.PAUSED: ("queued", None),
    }
    await history.tell(job(7), JobState.RUNNING, started_at=at)
    repository = (await http.get(f"/ops/jobs/{job(7).job_id}")).json()
    assert (repository["status"], repository["ended_at"]) == ("started", None)


async def start(http: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await http.post("/api/v1/jobs", json=body)


async def test_jobs_of_any_kind_are_started_natively_and_answered_as_they_are(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, git_allowed_hosts="http://git.test:9418") as http:
        repository = {"kind": "repository", "repo_url": "http://git.test:9418/o/r"}
        first = await start(http, **repository, ref="c" * 40, project="atlas", scope="global")
        assert first.status_code == 202, first.text
        made = first.json()
        assert first.headers["location"] == f"/api/v1/jobs/{made['job_id']}"
        assert (made["kind"], made["state"], made["number"]) == ("repository", "queued", 1)
        assert (made["project"], made["scope"], made["source"]["sha"]) == ("atlas", "global", "c" * 40)
        again = await start(http, **repository, ref="c" * 40, project="atlas")
        assert (again.status_code, again.json()["job_id"]) == (200, made["job_id"])
        text = (await start(http, kind="text", text="x", source="docs", project="atlas")).json()
        assert (text["kind"], text["project"], text["dataset"]) == ("text", "atlas", "documents/docs")
        page = (await start(http, kind="url", url="http://web.test/x")).json()
        assert (page["kind"], page["document"]["url"]) == ("url", "http://web.test/x")


async def test_a_resource_that_is_started_natively_is_kept_among_resources(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    resource = {"title": "Guide", "content": "# Old", "url": "http://wiki.local/guide"}
    made = await start(http, kind="resource", **resource)
    assert (made.status_code, made.json()["kind"]) == (202, "resource"), made.text
    (kept,) = (await http.get("/resources")).json()["resources"]
    assert (kept["job_id"], kept["title"]) == (made.json()["job_id"], "Guide")


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"kind": "file", "filename": "a.md"}, "wrong_route", "POST /knowledge/ingest-file-async"),
        ({"kind": "batch", "files": []}, "wrong_route", "POST /batch/jobs"),
        ({"kind": "delete"}, "wrong_route", "DELETE /projects/{project}/ingest/github"),
        ({"kind": "song"}, "invalid_request", "song"),
        ({"text": "x"}, "invalid_request", "kind"),
        ({"kind": "text"}, "invalid_request", "text"),
        ({"kind": "text", "text": "x", "project": "all"}, "invalid_request", "all"),
        ({"kind": "text", "text": "x", "project": "a b"}, "invalid_request", "a b"),
        ({"kind": "repository", "repo_url": "file:///etc"}, "invalid_repository_url", ""),
        ({"kind": "resource", "title": "x", "content": "x"}, "invalid_request", "url"),
        ({"kind": "resource", "title": "x", "content": "x", "url": "javascript:0"}, "invalid_request", ""),
    ],
)
async def test_what_is_no_job_is_refused_with_what_to_do(
    bus: Bus, http: httpx.AsyncClient, body: dict[str, Any], code: str, said: str
) -> None:
    answer = await http.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert said in answer.json()["detail"]
    await is_empty(bus)


async def test_a_gigabyte_passes_the_gateway_in_less_than_fifty_megabytes(
    bus: Bus, nats_server: NatsServer
) -> None:
    port = free_port()
    environ = {
        **os.environ,
        "PHAROS_NATS_URL": nats_server.url,
        "PHAROS_PORT": str(port),
        "PHAROS_ADMIN_TOKEN": TOKEN,
        "PHAROS_UPLOAD_MAX_BYTES": str(GIGABYTE),
    }
    block = b"All work and no play makes Jack a dull boy.\n".ljust(50_000, b"x")

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(GIGABYTE // len(block)):
            yield block
        yield b"\r\n--b--\r\n"

    process = subprocess.Popen(
        [sys.executable, "-m", "pharos_gateway"], env=environ, stderr=subprocess.DEVNULL
    )
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, psutil.Process(process.pid).memory_info().rss)
            await asyncio.sleep(0.02)

    try:
        async with asyncio.timeout(60), client(f"http://127.0.0.1:{port}", **BEARER) as http:
            while True:
                try:
                    await until_ready(http)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            assert (await http.post(FILE, files=form())).status_code == 200
            before = psutil.Process(process.pid).memory_info().rss
            watching = asyncio.create_task(watch())
            began = time.monotonic()
            headers = {"Content-Type": "multipart/form-data; boundary=b"}
            answer = await http.post(FILE, content=body(), headers=headers, timeout=60)
            seconds = time.monotonic() - began
            watching.cancel()
        assert answer.status_code == 200, answer.text
        document = (await command_of(bus, answer.json()["job_id"])).document
        assert document is not None and document.size == GIGABYTE
        assert most - before < 50_000_000, f"{(most - before) / 1e6:.1f} MB more, in {seconds:.1f} s"
        print(f"{(most - before) / 1e6:.1f} MB more, in {seconds:.1f} s")
    finally:
        process.terminate()
        process.wait(10)
