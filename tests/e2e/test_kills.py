"""kill -9 of any one process at a random moment of a running job.

The job ends once, and search answers as it does in a second stack that indexed the same in peace.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import httpx
import pytest

from tests.support.git_server import GitServer
from tests.support.stack import PROGRAMS, Stack, eventually, search, sse, submit, until_ended
from tests.support.stack import job as read_job

FILES = 24
QUESTIONS = ("count the penguins", "open the valve", "which harbour is closed")
WORDS = ("penguin", "valve", "harbour", "lantern", "glacier", "orchard", "compass", "granite")
TERMINAL = ("job.completed", "job.failed", "job.skipped", "job.cancelled")


def repository(seed: int) -> dict[str, str]:
    """Code that no other seed has, so that nothing of it is known already."""
    chance = random.Random(seed)
    files = {}
    for number in range(FILES):
        first, second = chance.sample(WORDS, 2)
        files[f"src/{first}_{number}.py"] = "".join(
            f"def {verb}_{first}_{number}_{seed}(limit):\n"
            f'    """{verb.capitalize()} the {first} beside the {second}, case {chance.random()}."""\n'
            f"    return [{second} for {second} in range(limit + {chance.randrange(999)} * {seed})]\n\n\n"
            for verb in ("count", "open", "close", "measure")
        )
    return files


@pytest.fixture
def stack(slots: Stack) -> Stack:
    return slots


@pytest.fixture
def peaceful(pair: Stack) -> Stack:
    return pair


def answers(client: httpx.Client, repository: str) -> list[list[tuple[str, int]]]:
    return [
        [(hit["file"], hit["lineSpan"]["start"]) for hit in search(client, question, k=5, repo=repository)]
        for question in QUESTIONS
    ]


def survive(git: GitServer, stack: Stack, peaceful: Stack, program: str, seed: int) -> None:
    name = f"killed/r{seed}"
    git.add_repository(name, repository(seed))
    with peaceful.client() as client:
        began = time.monotonic()
        job = until_ended(client, submit(client, git.url(name))["id"])
        assert job["state"] == "completed", job
        usual_seconds = time.monotonic() - began
        expected = answers(client, name)

    with stack.client() as client:
        job_id = submit(client, git.url(name))["id"]
        time.sleep(random.Random(seed).random() * usual_seconds)
        stack.kill(program)
        job = until_ended(client, job_id, seconds=150)
        assert job["state"] == "completed", (program, job)
        assert job["result"]["files_processed"] == FILES
        assert answers(client, name) == expected
        names = eventually(lambda: _events(client, job_id))
        assert [each for each in names if each in TERMINAL] == ["job.completed"]

        def told() -> list[dict[str, Any]] | None:
            answer = _quietly(client, "/api/v1/ingestion/jobs/history?limit=100")
            rows = [each for each in answer.get("jobs", ()) if each["repo_url"].endswith(name)]
            return rows if rows and rows[0]["status"] == "complete" else None

        assert len(eventually(told)) == 1


def _events(client: httpx.Client, job_id: str) -> list[str] | None:
    try:
        with sse(client, f"/api/v1/jobs/{job_id}/events") as events:
            return [event["event"] for event in events if "id" in event]
    except (httpx.TransportError, AssertionError):
        return None


def _quietly(client: httpx.Client, path: str) -> dict[str, Any]:
    try:
        answer = client.get(path)
        body: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    except httpx.TransportError:
        return {}
    return body


@pytest.mark.timeout(240)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_job_survives_the_death_of(program: str, git: GitServer, stack: Stack, peaceful: Stack) -> None:
    survive(git, stack, peaceful, program, seed=PROGRAMS.index(program))


def test_a_worker_that_is_asked_to_stop_hands_its_job_back_and_loses_no_attempt(
    git: GitServer, stack: Stack
) -> None:
    git.add_repository("killed/politely", repository(77))
    git.delay("killed/politely", 60)  # it cannot end before its worker has to leave
    with stack.client() as client:
        job_id = submit(client, git.url("killed/politely"))["id"]
        eventually(
            lambda: ((found := read_job(client, job_id)) is not None and found["state"] == "running") or None
        )
        os.kill(stack.pid("embedder"), signal.SIGTERM)
        # Nobody waits for it to be missed.
        eventually(lambda: stack.said("item_handed_back", job_id))
        git.delay("killed/politely", 0)
        job = until_ended(client, job_id)
        assert (job["state"], job["attempt"]) == ("completed", 1)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_thirty_kills_at_random_moments(git: GitServer, stack: Stack, peaceful: Stack) -> None:
    for number in range(30):
        survive(git, stack, peaceful, PROGRAMS[number % len(PROGRAMS)], seed=1000 + number)
