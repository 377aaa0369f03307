"""A client of the ingestion family: a repository goes in, and the history says how it ended.

    PHAROS_TOKEN=… python -m examples.ingestion http://127.0.0.1:8000 github.com/user/repo

The token is that of an editor or of an admin.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import httpx

PATH: Final = "/api/v1/ingestion"
ENDED: Final = frozenset({"complete", "failed", "skipped", "cancelled"})
POLL_SECONDS: Final = 2
WAIT_SECONDS: Final = 300


def main(base: str, repo_url: str) -> int:
    """The exit code: 0 where the repository was indexed."""
    bearer = {"Authorization": f"Bearer {os.environ['PHAROS_TOKEN']}"}
    with httpx.Client(base_url=base, timeout=30) as http:
        answer = http.post(f"{PATH}/ingest/{repo_url}", headers=bearer)
        if answer.status_code == 429:
            print("Queue is full:", answer.json()["detail"])
            return 1
        answer.raise_for_status()
        queued = answer.json()
        print("Job queued:", queued["job_id"], "at", queued["queue_position"], "for", queued["target"])

        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            print("Worker:", http.get(f"{PATH}/worker/status").json()["status"])
            jobs = http.get(f"{PATH}/jobs/history", params={"limit": 10}).json()["jobs"]
            job = next((each for each in jobs if each["job_id"] == queued["job_id"]), None)
            if job is not None and job["status"] in ENDED:
                why = job.get("error") or job.get("reason") or f"{job.get('files_processed')} files"
                print("History:", job["repo_url"], job["status"], why)
                return 0 if job["status"] == "complete" else 1
            time.sleep(POLL_SECONDS)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
