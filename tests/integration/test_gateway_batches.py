"""Batches over HTTP, on a real bus with a real history; the scheduler and the workers are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pharos_contracts.batches.v1 import Manifest
from pharos_contracts.control.v1 import ControlJob, CreateBatch
from pharos_contracts.jobs.v1 import NO_NUMBER, Stage, job_of
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.streams import OBJ_MANIFESTS
from pharos_gateway.app import serving
from pharos_service.bus import Bus
from pharos_service.objects import read
from pharos_service.settings import Secret
from tests.support.batch_facts import Told, history
from tests.support.gateway import BEARER, Scheduler, client, leading, settings, until_ready
from tests.support.keys import issue, with_key
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

FILES = ("a.txt", "b.md", "sub/c.txt", "sub/d.txt", "e.txt")


class World:
    """A gateway with two connections. ``http`` is the admin's client, ``plain`` has no key."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        plain: httpx.AsyncClient,
        bus: Bus,
        scheduler: Scheduler,
        address: str,
    ) -> None:
        self.http = http
        self.plain = plain
        self.bus = bus
        self.scheduler = scheduler
        self.address = address

    async def create(self, *files: str, **more: Any) -> dict[str, Any]:
        answer = await self.http.post("/batch/jobs", json=request(*files, **more))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def started(self, *files: str, **more: Any) -> Told:
        """A batch that runs."""
        created = await self.create(*files, **more)
        [command] = [
            each.job
            for each in self.scheduler.commands
            if isinstance(each, CreateBatch) and each.job.job_id == created["job_id"]
        ]
        told = Told(self.bus, job_of(command, NO_NUMBER))
        await told.become(JobState.QUEUED)
        await told.become(JobState.RUNNING, attempt=1, started_at=command.submitted_at)
        return told

    async def get(self, job_id: str, **params: str) -> dict[str, Any]:
        answer = await self.http.get(f"/batch/jobs/{job_id}", params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def request(*files: str, **more: Any) -> dict[str, Any]:
    selection = {
        "connection_id": "papers",
        "source_type": "local_directory",
        "file_ids": list(files or FILES),
    }
    return {"name": "Test Batch Job", "file_selections": [selection], **more}


@asynccontextmanager
async def world_of(bus: Bus, server: NatsServer, home: Path, **chosen: Any) -> AsyncIterator[World]:
    root = home / "root"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"This is {name}")
    async with (
        history(bus, server.url, home),
        serving(settings(server.url, home=str(home), local_roots=(str(root),), **chosen)) as running,
        client(running.address, **BEARER) as http,
        client(running.address) as plain,
        leading(bus) as scheduler,
    ):
        await until_ready(http)
        for name in ("papers", "more"):
            body = {"id": name, "source_type": "local_directory", "config": {"path": str(root)}}
            answer = await http.post("/connections", json=body)
            assert answer.status_code == 201, answer.text
        yield World(http, plain, bus, scheduler, running.address)


@pytest.fixture
async def world(bus: Bus, nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(bus, nats_server, tmp_path) as found:
        yield found


async def until(read: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Wait until *read* reads what is wanted."""
    found = None
    try:
        async with asyncio.timeout(10):
            while (found := await read()) != wanted:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{found} never became {wanted}") from None


async def test_a_batch_is_readable_as_soon_as_it_was_created(world: World) -> None:
    created = await world.create()
    assert (created["status"], created["total_files"], created["progress_percentage"]) == ("pending", 5, 0.0)
    assert created["estimated_duration_ms"] == 25_000 / 4
    [source] = created["source_progress"]
    assert [each["file_id"] for each in source["files"]] == list(FILES)
    assert source["files"][2]["file_metadata"]["size"] == len("This is sub/c.txt")
    assert {(each["status"], each["progress"]) for each in source["files"]} == {("pending", 0)}
    assert await world.get(created["job_id"]) == created
    [command] = [each for each in world.scheduler.commands if isinstance(each, CreateBatch)]
    assert (command.job.submitted_by, command.job.ttl_seconds) == ("admin", 604_800)
    stored = await read(world.bus, OBJ_MANIFESTS, created["job_id"], bytes_max=1_000_000)
    manifest: Manifest = decode(stored, Manifest)
    assert [each.file_id for each in manifest.files] == list(FILES)
    assert all(each.version for each in manifest.files)


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (request(file_selections=[]), "invalid_request", "file_selections"),
        (request(name=""), "invalid_request", "name"),
        (request(priority="huge"), "invalid_request", "priority"),
        (request("a.txt", "a.txt"), "duplicate_file", "a.txt"),
        (request("a.txt", "z.txt"), "unknown_file", "z.txt"),
        (request("sub"), "unknown_file", "sub"),
        (request("../../etc/passwd"), "unknown_file", "passwd"),
        (request(*(str(each) for each in range(10_001))), "invalid_request", "file_ids"),
        (request(processing_options={"speed": 9}), "invalid_request", "speed"),
        (request(processing_options={"max_workers": 0}), "invalid_request", "max_workers"),
        (request(processing_options={"max_workers": 33}), "invalid_request", "max_workers"),
        (request(processing_options={"quality_threshold": 1.5}), "invalid_request", "quality_threshold"),
        (request(processing_options={"timeout_seconds": 0}), "invalid_request", "timeout_seconds"),
        (request(processing_options={"chunk_size": 50}), "invalid_request", "chunk_size"),
        (
            request(processing_options={"chunk_size": 200, "chunk_overlap": 101}),
            "invalid_option",
            "chunk_overlap",
        ),
        (
            request(processing_options={"source_specific_options": {"floppy": {}}}),
            "invalid_option",
            "floppy",
        ),
        (
            request(processing_options={"source_specific_options": {"s3": {"depth": 1}}}),
            "invalid_option",
            "depth",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_mistake_in_a_batch_is_named(world: World, body: Any, code: str, named: str) -> None:
    answer = await world.http.post("/batch/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert named in answer.json()["detail"]
    assert not [each for each in world.scheduler.commands if isinstance(each, CreateBatch)]


async def test_a_connection_that_is_not_there_or_of_another_type_is_named(world: World) -> None:
    for change, code in (
        ({"connection_id": "nowhere"}, "unknown_connection"),
        ({"connection_id": "a.b"}, "unknown_connection"),
        ({"source_type": "s3"}, "wrong_source_type"),
    ):
        body = request("a.txt")
        body["file_selections"][0] |= change
        answer = await world.http.post("/batch/jobs", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert answer.json()["connection_id"] in answer.json()["detail"]


async def test_a_connection_that_is_selected_twice_is_one_source(world: World) -> None:
    body = request("a.txt")
    body["file_selections"] += [
        {**body["file_selections"][0], "connection_id": "more", "file_ids": ["a.txt"]},
        {**body["file_selections"][0], "file_ids": ["b.md"]},
    ]
    created = (await world.http.post("/batch/jobs", json=body)).json()
    assert [
        (each["connection_id"], [file["file_id"] for file in each["files"]])
        for each in created["source_progress"]
    ] == [("papers", ["a.txt", "b.md"]), ("more", ["a.txt"])]


async def test_what_cannot_be_honoured_is_a_warning(world: World) -> None:
    created = await world.create(
        processing_options={
            "use_llm_parsing": True,
            "embedding_model_preference": "text-embedding-3-large",
            "max_workers": 1,
        }
    )
    assert len(created["warnings"]) == 2
    assert created["warnings"][0].startswith("use_llm_parsing")
    assert "text-embedding-3-large" in created["warnings"][1]
    assert created["estimated_duration_ms"] == 25_000


async def test_where_to_tell_of_the_end_is_checked_and_kept(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    chosen = {"secret_key": Secret("k" * 32), "callback_allowed_hosts": "http://127.0.0.1:9"}
    async with world_of(bus, nats_server, tmp_path, **chosen) as world:
        await world.create("a.txt", callback_url="http://127.0.0.1:9/done")
        [command] = [each for each in world.scheduler.commands if isinstance(each, CreateBatch)]
        assert command.job.callback_url == "http://127.0.0.1:9/done"
        refused = await world.http.post("/batch/jobs", json=request("a.txt", callback_url="http://10.0.0.1/"))
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_callback_url")


async def test_the_same_idempotency_key_returns_the_first_answer(world: World) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await world.http.post("/batch/jobs", json=request("a.txt"), headers=headers)
    job_id = first.json()["job_id"]
    await world.http.post(f"/batch/jobs/{job_id}/control", json={"action": "start"})
    again = await world.http.post("/batch/jobs", json=request("a.txt"), headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())
    assert sum(isinstance(each, CreateBatch) for each in world.scheduler.commands) == 1
    other = await world.http.post("/batch/jobs", json=request("a.txt"), headers={"Idempotency-Key": "two"})
    assert other.json()["job_id"] != job_id


async def test_a_batch_that_nobody_answers_for_is_undecided_and_found_later(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with world_of(bus, nats_server, tmp_path) as world:
        world.scheduler.decide = lambda *_: None
        headers = {"Idempotency-Key": "once"}
        silent = await world.http.post("/batch/jobs", json=request("a.txt"), headers=headers, timeout=20)
        assert (silent.status_code, silent.json()["code"]) == (503, "fate_unknown")
        world.scheduler.decide = None
        created = await world.http.post("/batch/jobs", json=request("a.txt"), headers=headers)
        assert (created.status_code, created.json()["job_id"]) == (200, silent.json()["job_id"])


async def test_files_are_told_step_by_step_and_counted(world: World) -> None:
    told = await world.started(processing_options={"max_retries": 1})
    job_id = told.job.job_id

    async def words() -> list[tuple[str, int]]:
        [source] = (await world.get(job_id))["source_progress"]
        return [(each["status"], each["progress"]) for each in source["files"]]

    for item in range(5):
        await told.start(item)
    await told.progress(1, Stage.ENCODE)
    await until(words, [("accessing", 10), ("embedding", 80), *[("accessing", 10)] * 3])
    await told.complete(0)
    await told.fail(1)
    await told.skip(2)
    await told.fail(3, transient=True)
    expected = [("completed", 100), ("failed", 0), ("skipped", 100), ("pending", 0), ("accessing", 10)]
    assert await words() == expected  # at once: history may lag, JOBS does not
    shown = await world.get(job_id)
    counters = ("total_files", "completed_files", "failed_files", "skipped_files", "progress_percentage")
    assert [shown[name] for name in counters] == [5, 1, 1, 1, 60.0]
    assert [shown["source_progress"][0][name] for name in counters] == [5, 1, 1, 1, 60.0]
    files = shown["source_progress"][0]["files"]
    assert (files[1]["error"], files[3]["current_step"]) == ("It cannot be read", "Waiting for another try")
    assert files[2]["current_step"] == "Skipped: This version of the file is already indexed"
    await told.start(3, attempt=2)
    await told.fail(3, attempt=2, transient=True)  # it was the last try
    assert (await world.get(job_id))["failed_files"] == 2
    assert (await world.get(job_id))["source_progress"][0]["files"][3]["retry_count"] == 1
    native = (await world.http.get(f"/api/v1/jobs/{job_id}")).json()
    assert (native["kind"], native["batch"]["name"]) == ("batch", "Test Batch Job")
    assert native["progress"] is None


async def test_a_batch_is_tried_again_from_where_it_counts(world: World) -> None:
    told = await world.started("a.txt", "b.md", processing_options={"max_retries": 0})
    job_id = told.job.job_id
    for item in (0, 1):
        await told.start(item)
    await told.complete(0)
    await told.fail(1)
    last = await told.become(JobState.COMPLETED, ended_at=told.job.submitted_at)
    ended = await world.get(job_id)
    assert (ended["status"], ended["progress_percentage"], ended["failed_files"]) == ("completed", 100.0, 1)
    told.forget_failures()
    await told.become(JobState.RETRYING, facts_after=last, attempt=2, ended_at=None)
    await told.become(JobState.RUNNING)
    again = await world.get(job_id)
    assert [again[name] for name in ("status", "completed_files", "failed_files")] == ["running", 1, 0]
    await told.start(1, attempt=2)
    await told.fail(1, attempt=2, transient=True)
    assert (await world.get(job_id))["failed_files"] == 1


async def test_control_answers_as_the_table_says(world: World) -> None:
    job_id = (await world.create("a.txt"))["job_id"]
    path = f"/batch/jobs/{job_id}/control"
    for action, status in (("start", 200), ("start", 409), ("pause", 200), ("resume", 200), ("cancel", 200)):
        answer = await world.http.post(path, json={"action": action})
        assert answer.status_code == status, (action, answer.text)
        if status == 200:
            assert answer.json() == {"success": True, "message": f"Job {action} successful"}
    refused = await world.http.post(path, json={"action": "pause"})
    assert refused.json() == {
        "detail": "Cannot pause a cancelled job",
        "code": "invalid_transition",
        "status": "cancelled",
    }
    await world.http.post(path, json={"action": "retry", "retry_failed_only": False})
    sent = [each for each in world.scheduler.commands if isinstance(each, ControlJob)]
    assert [each.failed_only for each in sent] == [True] * (len(sent) - 1) + [False]
    assert (await world.http.post(path, json={"action": "dance"})).json()["code"] == "unknown_action"
    for unknown in ("7", "x", "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90"):
        answer = await world.http.post(f"/batch/jobs/{unknown}/control", json={"action": "start"})
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such job")


async def test_batches_are_listed_and_counted(world: World) -> None:
    ended = await world.started("a.txt", "b.md", "e.txt", priority="urgent")
    for item in range(3):
        await ended.start(item)
    await ended.complete(0)
    await ended.skip(1)
    await ended.fail(2)
    await ended.become(JobState.COMPLETED, ended_at=ended.job.submitted_at)
    for _ in range(2):
        await world.create("a.txt")

    async def listed(**body: Any) -> tuple[list[str], int, bool]:
        answer = await world.http.post("/batch/jobs/list", json=body)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        return [each["status"] for each in page["jobs"]], page["total_jobs"], page["has_more"]

    assert await listed() == (["pending", "pending", "completed"], 3, False)
    assert await listed(limit=1) == (["pending"], 3, True)
    assert await listed(limit=2, offset=2) == (["completed"], 3, False)
    assert await listed(status_filter=["completed", "failed"]) == (["completed"], 1, False)
    [row] = (await world.http.post("/batch/jobs/list", json={"status_filter": ["completed"]})).json()["jobs"]
    assert [row[name] for name in ("completed_files", "failed_files", "skipped_files")] == [1, 1, 1]
    assert row["progress_percentage"] == 100.0
    assert "source_progress" not in row
    bad = await world.http.post("/batch/jobs/list", json={"status_filter": ["lost"]})
    assert (bad.status_code, bad.json()["code"]) == (400, "unknown_status")
    numbers = (await world.http.get("/batch/statistics")).json()
    assert numbers.pop("average_processing_time_ms") >= 0
    assert numbers == {
        "total_jobs": 3,
        "active_jobs": 0,
        "completed_jobs": 1,
        "failed_jobs": 0,
        "cancelled_jobs": 0,
        "total_files_processed": 3,
        "success_rate": 66.7,
        "by_source_type": {"local_directory": 3},
        "by_priority": {"normal": 2, "urgent": 1},
        "by_status": {"completed": 1, "pending": 2},
    }
    history = (await world.http.get("/api/v1/ingestion/jobs/history")).json()
    assert history == {"jobs": []}


async def test_what_has_just_ended_is_counted(world: World) -> None:
    names = ("a.txt", "b.md", "e.txt")
    for ended in range(1, 4):
        told = await world.started(*names)
        for item in range(len(names)):
            await told.start(item)
            await told.complete(item)
        await told.become(JobState.COMPLETED, ended_at=told.job.submitted_at)
        numbers = (await world.http.get("/batch/statistics")).json()
        assert (numbers["by_status"], numbers["total_files_processed"]) == ({"completed": ended}, 3 * ended)


async def test_an_estimate_is_by_what_files_took(world: World) -> None:
    told = await world.started("a.txt")
    await told.start(0)
    await asyncio.sleep(0.3)
    await told.complete(0)

    async def estimate() -> bool:
        shown = await world.get(told.job.job_id)
        return bool(300 <= shown["estimated_duration_ms"] < 4_000)

    await until(estimate, True)


async def test_a_batch_is_shown_to_its_user_and_to_admins(world: World) -> None:
    ann, bob, viewer = [
        with_key(await issue(world.http, tenant="default", user=user, role=role))
        for user, role in (("ann", "editor"), ("bob", "editor"), ("ann", "viewer"))
    ]
    http = world.plain
    refused = await http.post("/batch/jobs", json=request("a.txt"), headers=ann)
    assert refused.json()["code"] == "unknown_connection"  # it is the admin's own
    root = (await world.http.get("/connections/papers")).json()["config"]["path"]
    body = {"id": "anns", "source_type": "local_directory", "config": {"path": root}}
    assert (await http.post("/connections", json=body, headers=ann)).status_code == 201
    mine = request("a.txt", user_id="ann")
    mine["file_selections"][0]["connection_id"] = "anns"
    assert (await http.post("/batch/jobs", json=mine, headers=viewer)).status_code == 403
    assert (await http.post("/batch/jobs", json=mine, headers=bob)).json()["code"] == "other_user"
    job_id = (await http.post("/batch/jobs", json=mine, headers=ann)).json()["job_id"]
    path = f"/batch/jobs/{job_id}"
    for headers, params, status in (
        (ann, {}, 200),
        (viewer, {"user_id": "ann"}, 200),
        (bob, {}, 404),
        (bob, {"user_id": "ann"}, 403),
        (BEARER, {}, 200),
        (BEARER, {"user_id": "ann"}, 200),
        (BEARER, {"user_id": "bob"}, 404),
    ):
        answer = await http.get(path, params=params, headers=headers)
        assert answer.status_code == status, (headers, params, answer.text)
    stop = {"action": "cancel"}
    assert (await http.post(f"{path}/control", json=stop, headers=bob)).status_code == 404
    assert (await http.post(f"{path}/control", json=stop, headers=viewer)).status_code == 403

    async def seen(headers: dict[str, str], **body: str) -> int:
        page = (await http.post("/batch/jobs/list", json=body, headers=headers)).json()
        return int(page["total_jobs"])

    assert [await seen(ann), await seen(bob), await seen(BEARER), await seen(BEARER, user_id="ann")] == [
        1,
        0,
        0,
        1,
    ]


async def test_who_sends_no_key_acts_as_whom_they_name(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        world_of(bus, nats_server, tmp_path, anonymous="default:editor") as world,
        client(world.address) as nobody,
    ):
        root = (await world.http.get("/connections/papers")).json()["config"]["path"]
        body = {"id": "conn1", "source_type": "local_directory", "config": {"path": root}}
        assert (await nobody.post("/connections", json=body)).status_code == 201
        mine = request("a.txt", user_id="user123")
        mine["file_selections"][0]["connection_id"] = "conn1"
        created = (await nobody.post("/batch/jobs", json=mine)).json()
        assert created["user_id"] == "user123"
        path = f"/batch/jobs/{created['job_id']}"
        assert (await nobody.get(path, params={"user_id": "user123"})).json() == created
        assert (await nobody.get(path, params={"user_id": "user124"})).status_code == 404
        # A key of that name is somebody else, and nobody without a key sees what is theirs.
        ann = with_key(await issue(world.http, tenant="default", user="user123"))
        assert (await nobody.get(path, headers=ann)).status_code == 404
        mine["file_selections"][0]["connection_id"] = "papers"
        keyed = (await world.http.post("/batch/jobs", json={**mine, "user_id": "user123"})).json()
        found = await nobody.get(f"/batch/jobs/{keyed['job_id']}", params={"user_id": "user123"})
        assert found.status_code == 404
        page = (await nobody.post("/batch/jobs/list", json={"user_id": "user123"})).json()
        assert [each["job_id"] for each in page["jobs"]] == [created["job_id"]]


async def test_a_users_jobs_of_the_day_are_spent_by_batches_that_are_kept(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with world_of(bus, nats_server, tmp_path, rate_limit_jobs_per_day=1) as world:
        ann = with_key(await issue(world.http, tenant="default", user="ann"))
        root = (await world.http.get("/connections/papers")).json()["config"]["path"]
        body = {"id": "anns", "source_type": "local_directory", "config": {"path": root}}
        await world.plain.post("/connections", json=body, headers=ann)
        statuses = []
        for name in ("z.txt", "a.txt", "b.md"):
            mine = request(name)
            mine["file_selections"][0]["connection_id"] = "anns"
            statuses.append((await world.plain.post("/batch/jobs", json=mine, headers=ann)).status_code)
        assert statuses == [400, 200, 429]


async def test_ten_thousand_files_are_one_batch(world: World) -> None:
    root = Path((await world.http.get("/connections/papers")).json()["config"]["path"])
    names = [f"many/{number:05}.txt" for number in range(10_000)]
    (root / "many").mkdir()
    for name in names:
        (root / name).touch()
    answer = await world.http.post("/batch/jobs", json=request(*names), timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total_files"] == 10_000
    assert answer.json()["warnings"] == []
    shown = await world.get(answer.json()["job_id"])
    assert [each["file_id"] for each in shown["source_progress"][0]["files"]] == names
