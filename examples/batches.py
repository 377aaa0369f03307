"""A client of the batches family: files of a directory go in as one job, which is started and watched.

    python -m examples.batches http://127.0.0.1:8000 /path/below/a/root file1.md file2.md

It sends no credential, as the family's clients do: the installation sets ``PHAROS_ANONYMOUS=default:editor``
and admits the directory with ``PHAROS_LOCAL_ROOTS``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

import httpx
from websockets.asyncio.client import connect

USER: Final = "user123"
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
WAIT_SECONDS: Final = 300


async def main(base: str, directory: str, *files: str) -> int:
    """The exit code: 0 where every file was indexed."""
    socket_url = base.replace("http", "ws", 1) + f"/batch/ws/{USER}"
    async with httpx.AsyncClient(base_url=base, timeout=30) as http, connect(socket_url) as socket:
        print("Connected:", json.loads(await socket.recv())["user_id"])
        connection = {"source_type": "local_directory", "config": {"path": directory}}
        made = await http.post("/connections", json=connection)
        made.raise_for_status()

        job_request = {
            "user_id": USER,
            "name": "Test Batch Job",
            "file_selections": [
                {
                    "connection_id": made.json()["id"],
                    "source_type": "local_directory",
                    "file_ids": list(files),
                }
            ],
        }
        created = await http.post("/batch/jobs", json=job_request)
        created.raise_for_status()
        job_id = created.json()["job_id"]
        print("Created job:", job_id, created.json()["estimated_duration_ms"], "ms")
        control = {"user_id": USER, "action": "start"}
        started = await http.post(f"/batch/jobs/{job_id}/control", json=control)
        started.raise_for_status()
        print("Job started:", started.json()["success"])

        async with asyncio.timeout(WAIT_SECONDS):
            await _watch(socket, job_id)
        job = (await http.get(f"/batch/jobs/{job_id}", params={"user_id": USER})).json()
        for source in job["source_progress"]:
            for file in source["files"]:
                print("File:", file["file_id"], file["status"], file["error"] or file["current_step"])
        numbers = (await http.get("/batch/statistics", params={"user_id": USER})).json()
        print("Statistics:", numbers["total_jobs"], "jobs,", numbers["total_files_processed"], "files")
        return 0 if job["completed_files"] + job["skipped_files"] == job["total_files"] else 1


async def _watch(socket: Any, job_id: str) -> None:
    """Until the job has ended."""
    while True:
        message = json.loads(await socket.recv())
        if message["type"] == "file_progress" and message["job_id"] == job_id:
            print(
                "Progress:",
                message["file"]["file_id"],
                message["file"]["status"],
                message["file"]["progress"],
            )
        if message["type"] == "job_update" and message["job"]["job_id"] == job_id:
            print("Job progress:", message["job"]["status"], f"{message['job']['progress_percentage']}%")
            if message["job"]["status"] in ENDED:
                return


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
