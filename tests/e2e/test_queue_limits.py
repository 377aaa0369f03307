"""The cap and the time to live, with nobody to do the work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.support.git_server import GitServer
from tests.support.stack import Stack, eventually, until_ended


def test_fifty_submits_without_a_worker_ten_fit_and_all_ten_expire(git: GitServer) -> None:
    with (
        Stack(
            allowed_hosts=git.allowed_hosts,
            PHAROS_QUEUE_MAX="10",
            PHAROS_TASK_TTL_SECONDS="3",
            PHAROS_WORKER_SLOTS="0",
        ) as stack,
        stack.client() as client,
    ):
        assert client.get("/api/v1/ingestion/worker/status").json()["status"] == "Offline"

        def post(number: int) -> httpx.Response:
            return client.post(f"/api/v1/ingestion/ingest/{git.url(f'queue/r{number}')}")

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(post, range(50)))
        accepted = [answer.json() for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(accepted), len(refused)) == (10, 40)
        assert sorted(each["queue_position"] for each in accepted) == list(range(1, 11))
        assert {each["target"] for each in accepted} == {"any"}
        for answer in refused:
            assert int(answer.headers["retry-after"]) >= 1
            body = answer.json()
            assert body["detail"] == "Queue is full (10 pending tasks). Please try again later."
            assert (body["queue_size"], body["max_queue_size"]) == (10, 10)
        for each in accepted:
            job = until_ended(client, each["id"], seconds=30)
            assert (job["state"], job["reason"]) == ("skipped", "Task exceeded TTL")
        home = stack.home

        def told() -> list[dict[str, Any]] | None:
            jobs = client.get("/api/v1/ingestion/jobs/history?limit=100").json()["jobs"]
            skipped = [each for each in jobs if each["status"] == "skipped"]
            return skipped if len(skipped) == 10 else None

        for each in eventually(told):
            assert each["age_seconds"] >= 3
            assert each["reason"] == "Task exceeded TTL"
        stack.stop()
        with Stack(allowed_hosts=git.allowed_hosts, home=home) as later, later.client() as worker_side:
            jobs = worker_side.get("/api/v1/ingestion/jobs/history?limit=100").json()["jobs"]
            assert [each["status"] for each in jobs] == ["skipped"] * 10  # none ran, now or ever
            names = {each["job_id"] for each in jobs}
            assert names == {each["job_id"] for each in accepted}
