"""What users of other systems of this kind complain of. Each has a test of its name, here or where it was.

Where a complaint has one already, the table at the end names it.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_control import ask, long_repository, slow_clone, until_stage
from tests.e2e.test_kills import repository
from tests.support.git_server import GitServer
from tests.support.stack import Stack, eventually, sse, submit, until_ended
from tests.support.stack import job as read_job

ROOT = Path(__file__).parents[2]
TINY = {"a.py": "def answer():\n    return 42\n"}


@pytest.fixture
def stack(slots: Stack) -> Stack:
    return slots


def submitted(git: GitServer, client: httpx.Client, name: str, files: dict[str, str], **query: str) -> str:
    git.add_repository(name, files)
    return str(submit(client, git.url(name), **query)["id"])


def test_a_place_in_the_queue_counts_down_to_the_start(git: GitServer, client: httpx.Client) -> None:
    held = []
    for number in range(2):  # both slots
        git.add_repository(f"complaints/hold{number}", TINY)
        git.delay(f"complaints/hold{number}", 60)
        held.append(submit(client, git.url(f"complaints/hold{number}"))["id"])
    for job_id in held:
        until_stage(client, job_id, "fetch")
    waiting = [submitted(git, client, f"complaints/tiny{number}", TINY) for number in range(5)]
    places: dict[str, list[int]] = {job_id: [] for job_id in waiting}
    deadline = time.monotonic() + 60
    ended = 0
    while ended < len(waiting):
        assert time.monotonic() < deadline, places
        if all(places.values()):  # each was seen at its place
            for number in range(2):
                git.delay(f"complaints/hold{number}", 0)
        ended = 0
        for job_id in waiting:
            found = read_job(client, job_id)
            assert found is not None
            ended += found["state"] == "completed"
            if found["queue_position"] is not None:
                places[job_id].append(found["queue_position"])
    for first, seen in enumerate(places.values(), 1):
        assert seen[0] == first
        assert seen == sorted(seen, reverse=True)
    assert places[waiting[-1]][-1] < len(waiting)


def test_a_job_whose_worker_is_gone_is_not_shown_as_if_somebody_worked_on_it(
    git: GitServer, stack: Stack, client: httpx.Client
) -> None:
    git.add_repository("complaints/frozen", TINY)
    with slow_clone(git, "complaints/frozen", 60):
        job_id = submit(client, git.url("complaints/frozen"))["id"]
        running = until_stage(client, job_id, "fetch")
        assert running["waiting_for_worker"] is False
        os.kill(stack.pid("embedder"), signal.SIGSTOP)
        try:
            eventually(
                lambda: ((found := read_job(client, job_id)) and found["waiting_for_worker"]) or None,
                seconds=40,
            )
            status = client.get("/api/v1/ingestion/worker/status").json()
        finally:
            os.kill(stack.pid("embedder"), signal.SIGCONT)
    assert (status["status"], status["workers"]) == ("Offline", [])
    ended = until_ended(client, job_id)
    assert (ended["state"], ended["waiting_for_worker"]) == ("completed", False)


def test_progress_never_goes_backwards(git: GitServer, client: httpx.Client) -> None:
    job_id = submitted(git, client, "complaints/progress", repository(4_711))
    seen: list[float] = []
    paused = False
    with sse(client, f"/api/v1/jobs/{job_id}/events") as events:
        for event in events:
            if event["event"] == "job.progress":
                seen.append(_percent(event))
            if len(seen) == 3 and not paused:
                paused = True
                ask(client, job_id, "pause")
                ask(client, job_id, "resume")
    assert until_ended(client, job_id)["state"] == "completed"
    assert len(seen) > 3
    assert seen == sorted(seen)


def _percent(event: dict[str, Any]) -> float:
    return float(json.loads(event["data"])["percent"])


def test_a_retry_happens_when_it_was_announced(git: GitServer, client: httpx.Client) -> None:
    git.add_repository("complaints/later", TINY)
    git.answer("complaints/later", 503)
    job_id = submit(client, git.url("complaints/later"))["id"]

    def retrying() -> dict[str, Any] | None:
        found = read_job(client, job_id)
        return found if found is not None and found["state"] == "retrying" else None

    announced = eventually(retrying, poll_seconds=0.01)
    assert announced["attempt"] < announced["max_attempts"]
    git.answer("complaints/later", None)
    ended = until_ended(client, job_id)
    assert (ended["state"], ended["attempt"]) == ("completed", announced["attempt"] + 1)
    with sse(client, f"/api/v1/jobs/{job_id}/events?last_event_id=0") as events:
        told = [(event["event"], json.loads(event["data"])) for event in events]
    began = next(body["at"] for name, body in told if name == "job.started" and body["attempt"] == 2)
    late = datetime.fromisoformat(began) - datetime.fromisoformat(announced["next_attempt_at"])
    assert 0 <= late.total_seconds() < 10


def test_a_large_job_does_not_hold_up_a_small_one(git: GitServer, client: httpx.Client) -> None:
    large = submitted(git, client, "complaints/large", long_repository(31))
    until_stage(client, large, "encode")
    small = submitted(git, client, "complaints/small", repository(99))
    assert until_ended(client, small)["state"] == "completed"
    still = read_job(client, large)
    assert still is not None and still["state"] == "running"
    ask(client, large, "cancel")


ELSEWHERE = {
    "a cancel that does not stop": (
        "tests/e2e/test_control.py",
        "test_a_running_job_is_cancelled_at_once_and_nothing_of_it_stays",
    ),
    "a job that runs twice, or vanishes": (
        "tests/e2e/test_kills.py",
        "test_the_job_survives_the_death_of",
    ),
    "a poison job that comes back after each restart": (
        "tests/integration/test_scheduler_leaders.py",
        "test_a_dead_letter_stays_over_restarts_and_is_gone_when_it_is_purged",
    ),
    "a poison job that kills one worker after the other": (
        "tests/integration/worker_control/test_holding.py",
        "test_an_item_that_killed_two_workers_is_not_given_to_a_third",
    ),
}


@pytest.mark.parametrize("complaint", ELSEWHERE)
def test_a_complaint_that_is_tested_elsewhere_still_is(complaint: str) -> None:
    path, name = ELSEWHERE[complaint]
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {
        each.name for each in module.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
