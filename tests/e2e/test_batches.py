"""A batch of a thousand files from three sources, over the whole stack; a worker dies on the way."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect

from tests.support.s3_server import S3Server
from tests.support.stack import Stack, eventually, search

USER: Final = "user123"
BESIDE: Final = "worker-2"
SHARES: Final = {"directory": 400, "zip": 300, "bucket": 300}
MANY: Final = 10_000
GROWTH_BYTES_MAX: Final = 64 * 1024 * 1024
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
ANIMALS: Final = ("otter", "heron", "badger", "lynx", "marten")


def text(share: str, number: int) -> str:
    """A note of its own, so that each is found by its number."""
    return f"Note {share}-{number}: the {ANIMALS[number % len(ANIMALS)]} was seen at post {number}.\n"


@pytest.fixture(scope="module", autouse=True)
def notes(bucket: S3Server) -> None:
    bucket.bucket("notes", {f"bucket-{number}.txt": text("bucket", number).encode() for number in range(300)})


@pytest.fixture(scope="module")
def directory(root: Path) -> Path:
    return _directory(root / "notes", "directory", SHARES["directory"])


@pytest.fixture(scope="module")
def many(root: Path) -> Path:
    return _directory(root / "many", "many", MANY)


def _directory(folder: Path, share: str, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{share}-{number}.txt").write_text(text(share, number))
    return folder


@pytest.fixture
def stack(pair: Stack) -> Stack:
    with pair.client() as client:
        eventually(lambda: BESIDE in _workers(client) or None)
    return pair


def _workers(client: httpx.Client) -> set[str]:
    return {each["name"] for each in client.get("/api/v1/workers").json()["workers"]}


def connections(client: httpx.Client, directory: Path, bucket: S3Server) -> dict[str, tuple[str, str]]:
    """(connection, source type) of each share."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for number in range(SHARES["zip"]):
            packed.writestr(f"zip-{number}.txt", text("zip", number))
    made = {
        "directory": client.post(
            "/connections", json={"source_type": "local_directory", "config": {"path": str(directory)}}
        ),
        "zip": client.post("/connections/upload", files={"file": ("notes.zip", archive.getvalue())}),
        "bucket": client.post(
            "/connections",
            json={
                "source_type": "s3",
                "config": {
                    "bucket": "notes",
                    "endpoint": bucket.url,
                    "access_key_id": bucket.access_key,
                    "secret_access_key": bucket.secret_key,
                },
            },
        ),
    }
    for answer in made.values():
        assert answer.status_code == 201, answer.text
    return {share: (answer.json()["id"], answer.json()["source_type"]) for share, answer in made.items()}


def total(job: dict[str, Any]) -> int:
    return int(job["completed_files"] + job["failed_files"] + job["skipped_files"])


async def watched(stack: Stack, job_id: str, kill_after: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Every update of the job, and how often each file was said to be done; a worker dies on the way."""
    updates: list[dict[str, Any]] = []
    done: Counter[str] = Counter()
    killed = False
    address = stack.url.replace("http", "ws", 1) + f"/batch/ws/{USER}?job_id={job_id}"
    async with connect(address, max_queue=None) as socket, httpx.AsyncClient(base_url=stack.url) as http:
        assert json.loads(await socket.recv())["type"] == "connection_established"
        started = await http.post(f"/batch/jobs/{job_id}/control", json={"user_id": USER, "action": "start"})
        assert started.json() == {"success": True, "message": "Job start successful"}
        async with asyncio.timeout(240):
            while not updates or updates[-1]["status"] not in ENDED:
                message = json.loads(await socket.recv())
                if message["type"] == "job_update":
                    updates.append(message["job"])
                elif message["type"] == "file_progress" and message["file"]["status"] == "completed":
                    done[message["file"]["file_id"]] += 1
                if not killed and updates and total(updates[-1]) >= kill_after:
                    killed = True
                    stack.kill(BESIDE)
    assert killed
    return updates, done


@pytest.mark.timeout(300)
def test_a_thousand_files_of_three_sources_are_each_indexed_once_though_a_worker_dies(
    stack: Stack, directory: Path, bucket: S3Server
) -> None:
    with httpx.Client(base_url=stack.url, timeout=120, trust_env=False) as client:
        made = connections(client, directory, bucket)
        created = client.post(
            "/batch/jobs",
            json={
                "user_id": USER,
                "name": "A thousand notes",
                "file_selections": [
                    {
                        "connection_id": connection,
                        "source_type": kind,
                        "file_ids": [f"{share}-{number}.txt" for number in range(SHARES[share])],
                    }
                    for share, (connection, kind) in made.items()
                ],
                "processing_options": {"max_workers": 8},
            },
        )
        assert created.status_code == 200, created.text
        job_id = created.json()["job_id"]
        assert (created.json()["status"], created.json()["total_files"]) == ("pending", 1_000)

        updates, done = asyncio.run(watched(stack, job_id, kill_after=200))
        assert updates[-1]["status"] == "completed", updates[-1]
        for name in ("completed_files", "failed_files", "skipped_files"):
            counts = [update[name] for update in updates]
            assert counts == sorted(counts)
        assert all(total(update) <= update["total_files"] == 1_000 for update in updates)
        assert total(updates[-1]) == 1_000 and max(done.values()) == 1

        job = client.get(f"/batch/jobs/{job_id}", params={"user_id": USER}).json()
        assert (job["completed_files"], job["failed_files"], job["skipped_files"]) == (1_000, 0, 0)
        files = [file for source in job["source_progress"] for file in source["files"]]
        assert Counter(file["status"] for file in files) == {"completed": 1_000}
        assert {source["connection_id"]: source["completed_files"] for source in job["source_progress"]} == {
            connection: SHARES[share] for share, (connection, _) in made.items()
        }
        datasets = {
            each["dataset"]: each["files"]
            for each in client.get("/api/v1/datasets").json()["datasets"]
            if each["dataset"].startswith("connections/")
        }
        assert datasets == {f"connections/{made[share][0]}": files for share, files in SHARES.items()}
        numbers = client.get("/batch/statistics", params={"user_id": USER}).json()
        assert (numbers["completed_jobs"], numbers["total_files_processed"]) == (1, 1_000)
    with stack.client() as owner:
        for share, number in (("directory", 399), ("zip", 17), ("bucket", 299)):
            found = search(owner, f"note {share}-{number} post {number}", k=5)
            assert any(hit["file"] == f"{share}-{number}.txt" for hit in found), found


@pytest.mark.chaos
@pytest.mark.timeout(3_000)
def test_ten_thousand_files_make_no_process_grow(stack: Stack, many: Path) -> None:
    with httpx.Client(base_url=stack.url, timeout=120, trust_env=False) as client:
        made = client.post(
            "/connections", json={"source_type": "local_directory", "config": {"path": str(many)}}
        ).json()
        created = client.post(
            "/batch/jobs",
            json={
                "user_id": USER,
                "name": "Ten thousand notes",
                "file_selections": [
                    {
                        "connection_id": made["id"],
                        "source_type": "local_directory",
                        "file_ids": [f"many-{number}.txt" for number in range(MANY)],
                    }
                ],
                "processing_options": {"max_workers": 16},
            },
        )
        assert created.status_code == 200, created.text
        job_id = created.json()["job_id"]
        asked = {"params": {"user_id": USER}}
        assert client.get(f"/batch/jobs/{job_id}", **asked).json()["total_files"] == MANY
        before = _resident(stack)
        client.post(f"/batch/jobs/{job_id}/control", json={"user_id": USER, "action": "start"})
        largest = dict(before)

        def ended() -> dict[str, Any] | None:
            for program, size in _resident(stack).items():
                largest[program] = max(largest[program], size)
            job: dict[str, Any] = client.get(f"/batch/jobs/{job_id}", **asked).json()
            return job if job["status"] in ENDED else None

        job = eventually(ended, seconds=2_400, poll_seconds=2)
        assert (job["status"], job["completed_files"]) == ("completed", MANY), job["status"]
        grown = {program: largest[program] - before[program] for program in before}
        assert max(grown.values()) < GROWTH_BYTES_MAX, grown


def _resident(stack: Stack) -> dict[str, int]:
    """Bytes, by program."""
    return {
        program: psutil.Process(stack.pid(program)).memory_info().rss
        for program in ("gateway", "scheduler", "history")
    }
