"""The WebSocket of batches, against a real bus and a real history, with a client of another make."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from pharos_contracts.jobs.v1 import Stage
from pharos_contracts.lifecycle import JobState
from pharos_service.bus import Bus
from tests.integration.test_gateway_batches import World, world_of
from tests.integration.test_gateway_sockets import hear, opened, say
from tests.support.gateway import BEARER, TOKEN
from tests.support.keys import issue, with_key
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(bus: Bus, nats_server: NatsServer, tmp_path: Path) -> Any:
    async with world_of(bus, nats_server, tmp_path) as found:
        yield found


async def until(socket: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    """What is told, up to the first ``job_update`` whose job has these *fields*."""
    told: list[dict[str, Any]] = []
    while True:
        told.append(await hear(socket))
        job = told[-1].get("job", {})
        if job and {name: job[name] for name in fields} == fields:
            return told


async def test_the_client_of_the_document_receives_its_messages(world: World) -> None:
    async with opened(world.address, "/batch/ws/admin", **BEARER) as socket:
        hello = await hear(socket)
        assert hello.pop("timestamp").endswith("Z")
        assert hello == {"type": "connection_established", "user_id": "admin", "job_id": None}
        await say(socket, {"type": "ping", "timestamp": "2024-01-15T10:35:00Z"})
        assert (await hear(socket))["type"] == "pong"
        told = await world.started("a.txt", "b.md")
        await until(socket, status="running")
        await told.start(0)
        await told.progress(0, Stage.ENCODE)
        while (shown := await hear(socket)).get("file", {}).get("status") != "embedding":
            assert shown["type"] == "file_progress"
        assert shown.pop("timestamp").endswith("Z")
        size = shown["file"]["file_metadata"].pop("size")
        assert (size, shown["file"]["file_metadata"].pop("name")) == (len("This is a.txt"), "a.txt")
        assert shown == {
            "type": "file_progress",
            "job_id": told.job.job_id,
            "source_type": "local_directory",
            "connection_id": "papers",
            "file": {
                "file_id": "a.txt",
                "status": "embedding",
                "progress": 80,
                "current_step": "Generating embeddings",
                "error": None,
                "retry_count": 0,
                "file_metadata": {"source_type": "local_directory"},
            },
        }
        await told.complete(0)
        last = (await until(socket, completed_files=1))[-1]
        assert last["timestamp"].endswith("Z")
        assert [last["job"][name] for name in ("job_id", "status", "progress_percentage", "total_files")] == [
            told.job.job_id,
            "running",
            50.0,
            2,
        ]
        assert "files" not in last["job"]["source_progress"][0]
        await told.start(1)
        await told.fail(1)
        await told.become(JobState.COMPLETED, ended_at=told.job.submitted_at)
        ended = (await until(socket, status="completed"))[-1]["job"]
        assert (ended["completed_files"], ended["failed_files"]) == (1, 1)


async def test_counters_are_those_of_the_files_that_were_told(world: World) -> None:
    """At every message: never less than before, never more than there are, and what the files say."""
    names = [f"n{number}.txt" for number in range(200)]
    root = Path((await world.http.get("/connections/papers")).json()["config"]["path"])
    for name in names:
        (root / name).write_text(name)
    async with opened(world.address, "/batch/ws/admin", **BEARER) as socket:
        await hear(socket)
        told = await world.started(*names, processing_options={"max_retries": 0})

        async def work() -> None:
            for item in range(200):
                await told.start(item)
                if item % 7 == 3:
                    await told.fail(item)
                elif item % 7 == 5:
                    await told.skip(item)
                else:
                    await told.complete(item)
                if item % 20 == 0:
                    await told.advance()
            await told.become(JobState.COMPLETED, ended_at=told.job.submitted_at)

        working = asyncio.create_task(work())
        ended: dict[str, str] = {}
        before = 0
        while True:
            message = await hear(socket)
            if message["type"] == "file_progress":
                if message["file"]["status"] in ("completed", "failed", "skipped"):
                    ended[message["file"]["file_id"]] = message["file"]["status"]
                continue
            job = message["job"]
            counted = {
                word: sum(status == word for status in ended.values())
                for word in ("completed", "failed", "skipped")
            }
            assert {word: job[f"{word}_files"] for word in counted} == counted
            assert before <= len(ended) <= job["total_files"]
            assert job["progress_percentage"] == (
                100.0 if len(ended) == 200 else pytest.approx(len(ended) / 2, abs=0.1)
            )
            before = len(ended)
            if job["status"] == "completed":
                break
        await working
        assert len(ended) == 200


async def test_who_comes_later_is_told_where_it_is_and_goes_on_from_there(world: World) -> None:
    told = await world.started("a.txt", "b.md", "e.txt")
    await told.start(0)
    await told.complete(0)
    async with opened(world.address, "/batch/ws/admin", **BEARER) as socket:
        await hear(socket)
        first = (await until(socket, status="running"))[-1]["job"]
        assert (first["completed_files"], first["total_files"]) == (1, 3)
        await told.start(1)
        await told.complete(1)
        seen = await until(socket, completed_files=2)
        assert {each["file"]["file_id"] for each in seen if each["type"] == "file_progress"} == {"b.md"}


async def test_counters_begin_again_when_a_batch_is_tried_again(world: World) -> None:
    async with opened(world.address, "/batch/ws/admin", **BEARER) as socket:
        await hear(socket)
        told = await world.started("a.txt", "b.md", processing_options={"max_retries": 0})
        for item in (0, 1):
            await told.start(item)
        await told.complete(0)
        await told.fail(1)
        last = await told.become(JobState.COMPLETED, ended_at=told.job.submitted_at)
        await until(socket, status="completed", completed_files=1, failed_files=1)
        told.forget_failures()
        await told.become(JobState.RETRYING, facts_after=last, attempt=2, ended_at=None)
        await until(socket, status="retrying", completed_files=1, failed_files=0)
        await told.become(JobState.RUNNING)
        await told.start(1, attempt=2)
        await told.complete(1, attempt=2)
        await told.become(JobState.COMPLETED, ended_at=told.job.submitted_at)
        await until(socket, status="completed", completed_files=2, failed_files=0)


async def test_a_socket_shows_what_its_key_may_see_of_what_it_asked_for(world: World) -> None:
    ann = with_key(await issue(world.http, tenant="default", user="ann"))
    one, other = await world.started("a.txt"), await world.started("b.md")
    only = f"/batch/ws/admin?job_id={one.job.job_id}"
    async with (
        opened(world.address, "/batch/ws/ann", **ann) as anns,
        opened(world.address, only, **BEARER) as socket,
        opened(world.address, "/batch/ws/admin") as introduced,
    ):
        await say(introduced, {"type": "auth", "token": TOKEN})
        assert (await hear(introduced))["type"] == "connection_established"
        await hear(anns)
        assert (await hear(socket))["job_id"] == one.job.job_id
        for told in (other, one):
            await told.start(0)
            await told.complete(0)
        seen = await until(socket, completed_files=1)
        assert {each["job"]["job_id"] for each in seen if "job" in each} == {one.job.job_id}
        await until(introduced, job_id=other.job.job_id, completed_files=1)
        await say(anns, {"type": "ping"})
        assert (await hear(anns))["type"] == "pong"  # and nothing before it
        for path, headers, code in (
            ("/batch/ws/admin", ann, 4403),
            (f"/batch/ws/ann?job_id={one.job.job_id}", ann, 4404),
            ("/batch/ws/ann?job_id=x", ann, 4404),
            ("/batch/ws/ann", {"Authorization": "Bearer nothing"}, 4401),
        ):
            async with opened(world.address, path, **headers) as refused:
                assert (await hear(refused))["type"] == "error"
                with pytest.raises(ConnectionClosed) as closed:
                    await hear(refused)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == code


async def test_where_nobody_needs_a_key_one_in_a_message_counts_all_the_same(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with world_of(bus, nats_server, tmp_path, anonymous="default:viewer") as world:
        told = await world.started("a.txt")
        job_id = told.job.job_id
        for path in ("/batch/ws/admin", f"/batch/ws/admin?job_id={job_id}"):
            async with opened(world.address, path) as socket:
                await say(socket, {"type": "auth", "token": TOKEN})
                await until(socket, job_id=job_id)
        for path in ("/batch/ws/ann", f"/batch/ws/ann?job_id={job_id}"):
            async with opened(world.address, path) as socket:
                await say(socket, {"type": "auth", "token": "nothing"})
                heard = []
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        heard.append(await hear(socket))
                assert heard[-1]["type"] == "error"
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4401
        async with opened(world.address, f"/batch/ws/admin?job_id={job_id}") as socket:
            assert (await hear(socket))["code"] == "not_found"


async def test_a_user_may_be_called_as_people_are(world: World) -> None:
    name = "Zoë Müller"
    zoe = with_key(await issue(world.http, tenant="default", user=name))
    async with opened(world.address, f"/batch/ws/{quote(name)}", **zoe) as socket:
        hello = await hear(socket)
        assert (hello["type"], hello["user_id"]) == ("connection_established", name)
    listed = await world.plain.post("/batch/jobs/list", json={"user_id": name}, headers=zoe)
    assert (listed.status_code, listed.json()["total_jobs"]) == (200, 0)
    counted = await world.plain.get("/batch/statistics", params={"user_id": name}, headers=zoe)
    assert counted.status_code == 200
    refused = await world.plain.get("/batch/statistics", params={"user_id": "a\u202eb"}, headers=zoe)
    assert refused.json() == {
        "detail": "Invalid request: 'user_id': it has control characters, or others that nobody sees; "
        "leave them out",
        "code": "invalid_request",
        "field": "user_id",
    }


async def test_what_is_not_understood_is_answered_and_the_socket_goes_on(world: World) -> None:
    async with opened(world.address, "/batch/ws/admin", **BEARER) as socket:
        await hear(socket)
        for text in ("{", "[]", '{"type":"dance"}', '{"type":1}', "{}"):
            await socket.send(text)
            assert (await hear(socket))["code"] == "invalid_request"
        await say(socket, {"type": "ping"})
        assert (await hear(socket))["type"] == "pong"


async def test_nothing_is_followed_when_nobody_watches(world: World) -> None:
    """The consumers of a batch that is followed go with the last of those who watch it."""
    told = await world.started("a.txt")

    async def followers() -> int:
        """Consumers of what happens to the batch."""
        found = (await world.bus.api("CONSUMER.LIST.JOBS"))["consumers"]
        return sum(told.job.job_id in str(each["config"]) for each in found)

    assert await followers() == 0
    for _ in range(2):
        async with (
            opened(world.address, "/batch/ws/admin", **BEARER) as socket,
            opened(world.address, "/batch/ws/admin", **BEARER) as other,
        ):
            await until(socket, status="running")
            await until(other, status="running")
            assert await followers() == 1  # for both
            await other.close()
            assert await followers() == 1
        async with asyncio.timeout(10):
            while await followers():
                await asyncio.sleep(0.05)
