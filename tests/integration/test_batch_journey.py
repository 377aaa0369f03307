"""A batch from its request to its end: real gateway, scheduler and history, and workers that are played."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from pharos_contracts.jobs.v1 import WorkItem
from pharos_gateway.app import serving
from pharos_service.bus import Bus
from tests.integration.test_gateway_sockets import hear, opened
from tests.support.batch_facts import history
from tests.support.batches import hands
from tests.support.gateway import BEARER, client, settings, until_ready
from tests.support.nats_server import NatsServer
from tests.support.scheduling import announce, leading

pytestmark = pytest.mark.anyio

NAMES = [f"n{number}.txt" for number in range(60)]
BROKEN = {"n3.txt", "n40.txt"}
FLAKY = {"n50.txt", "n51.txt"}


async def act(http: httpx.AsyncClient, job_id: str, action: str) -> None:
    answer = await http.post(f"/batch/jobs/{job_id}/control", json={"action": action})
    assert answer.json() == {"success": True, "message": f"Job {action} successful"}


async def test_a_batch_is_created_started_paused_resumed_and_tried_again(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    """What is read over HTTP and over the WebSocket agrees with what the scheduler counts."""
    mended = False

    def do(item: WorkItem) -> str | None:
        assert item.file is not None
        if item.file.name in BROKEN and not mended:
            return "It is broken"
        if item.file.name in FLAKY and item.attempt == 1:
            return "again: it is slow"
        return None

    root = tmp_path / "root"
    root.mkdir()
    for name in NAMES:
        (root / name).write_text(name)
    chosen = settings(nats_server.url, home=str(tmp_path), local_roots=(str(root),))
    async with (
        history(bus, nats_server.url, tmp_path),
        serving(chosen) as running,
        leading(bus),
        client(running.address, **BEARER) as http,
        hands(bus, 3, do, hold=lambda: asyncio.sleep(0.02)) as workers,
    ):
        await until_ready(http)
        await announce(bus, document_slots=3)
        connection = {"id": "papers", "source_type": "local_directory", "config": {"path": str(root)}}
        assert (await http.post("/connections", json=connection)).status_code == 201
        selected = {"connection_id": "papers", "source_type": "local_directory", "file_ids": NAMES}
        async with opened(running.address, "/batch/ws/admin", **BEARER) as socket:
            await hear(socket)
            created = await http.post("/batch/jobs", json={"name": "b", "file_selections": [selected]})
            assert created.status_code == 200, created.text
            job_id = created.json()["job_id"]
            await act(http, job_id, "start")

            ended: dict[str, str] = {}

            async def until(status: str, **counters: int) -> dict[str, Any]:
                """The last that was told of the batch; what it says of files is what was told of them."""
                while True:
                    message = await hear(socket)
                    if message["type"] == "file_progress":
                        word, name = message["file"]["status"], message["file"]["file_id"]
                        if word in ("completed", "failed", "skipped"):
                            ended[name] = word
                        continue
                    job: dict[str, Any] = message["job"]
                    if job["status"] == "retrying":
                        for name in [name for name, word in ended.items() if word == "failed"]:
                            del ended[name]
                    counted = [
                        sum(each == word for each in ended.values())
                        for word in ("completed", "failed", "skipped")
                    ]
                    told = [job["completed_files"], job["failed_files"], job["skipped_files"]]
                    assert told == counted
                    assert sum(told) <= job["total_files"] == 60
                    if job["status"] == status and all(job[name] == n for name, n in counters.items()):
                        return job

            await until("running", completed_files=5)
            await act(http, job_id, "pause")
            await until("paused")
            await act(http, job_id, "resume")
            last = await until("completed")
            assert (last["completed_files"], last["failed_files"]) == (58, 2)
            shown = (await http.get(f"/batch/jobs/{job_id}")).json()
            files = {each["file_id"]: each for each in shown["source_progress"][0]["files"]}
            assert {name for name, each in files.items() if each["status"] == "failed"} == BROKEN
            assert {files[name]["retry_count"] for name in FLAKY} == {1}
            assert (shown["completed_files"], shown["failed_files"]) == (58, 2)

            mended = True
            await act(http, job_id, "retry")
            last = await until("completed", failed_files=0)
            assert last["completed_files"] == 60
            shown = (await http.get(f"/batch/jobs/{job_id}")).json()
            assert (shown["status"], shown["completed_files"], shown["progress_percentage"]) == (
                "completed",
                60,
                100.0,
            )
            refused = await http.post(f"/batch/jobs/{job_id}/control", json={"action": "retry"})
            assert refused.json()["detail"] == "Cannot retry a completed job"
        assert set(workers.done.values()) == {1}
        assert len(workers.done) == 60
        listed = (await http.post("/batch/jobs/list", json={"status_filter": ["completed"]})).json()
        assert [(each["job_id"], each["completed_files"]) for each in listed["jobs"]] == [(job_id, 60)]
        numbers = (await http.get("/batch/statistics")).json()
        assert (numbers["total_files_processed"], numbers["success_rate"]) == (60, 100.0)
