"""A client of the projects family: a repository goes in, its progress is watched, it is searched and deleted.

    python -m examples.projects http://127.0.0.1:8000 github.com/o/r "How does the Context class work?"

It sends no credential, as the family's clients do: the installation sets ``PHAROS_ANONYMOUS=default:editor``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

import httpx
from websockets.asyncio.client import connect

PROJECT: Final = "default"
ENDED: Final = frozenset({"completed", "failed", "cancelled", "skipped"})
WAIT_SECONDS: Final = 300


async def main(base: str, repo: str, question: str) -> int:
    """The exit code: 0 where the repository was indexed and the question found something."""
    here = f"/projects/{PROJECT}"
    url = base.replace("http", "ws", 1) + "/ws"
    async with httpx.AsyncClient(base_url=base, timeout=30) as http, connect(url) as socket:
        topics = {"action": "subscribe", "project": PROJECT, "topics": ["github:progress"]}
        await socket.send(json.dumps(topics))
        assert json.loads(await socket.recv())["type"] == "subscribed"
        body = {"repo": repo, "dataset": "atlas-core", "branch": "main", "scope": "project"}
        answer = await http.post(f"{here}/ingest/github", json=body)
        answer.raise_for_status()
        queued = answer.json()
        print("Queued:", queued["jobId"], queued["repository"])

        async with asyncio.timeout(WAIT_SECONDS):
            last = await _watch(socket, queued["jobId"])
        for job in (await http.get(f"{here}/ingest/history")).json():
            print("History:", job["summary"], job["status"], job["startedAt"], job["duration"])
        if last["status"] not in ("completed", "skipped"):
            print("Not indexed:", last["error"])
            return 1

        found = await http.post(f"{here}/query", json={"query": question, "k": 5})
        found.raise_for_status()
        for result in found.json()["results"]:
            span = result["lineSpan"]
            print("Found:", result["file"], f"{span['start']}-{span['end']}", result["scores"]["final"])

        gone = await http.request("DELETE", f"{here}/ingest/github", json={"dataset": "atlas-core"})
        gone.raise_for_status()
        print("Deleted:", gone.json()["dataset"], gone.json()["deletedVectors"])
        return 0 if found.json()["results"] else 1


async def _watch(socket: Any, job_id: str) -> dict[str, Any]:
    """The last message of the job, when it has ended."""
    while True:
        message = json.loads(await socket.recv())
        data: dict[str, Any] = message.get("data", {})
        if message["type"] == "github:progress" and data["jobId"] == job_id:
            print("Progress:", data["status"], data["progress"], data["phase"], data["currentFile"] or "")
            if data["status"] in ENDED:
                return data


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:4])))
