"""What owners ask of their jobs, over the whole stack: it is done, at once, and nothing is left of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_kills import repository
from tests.support.git_server import GitServer
from tests.support.stack import QUEUE_MAX, Stack, eventually, search, submit, until_ended
from tests.support.stack import job as read_job

CANCEL_SECONDS_MAX = 2.0
# A batch of the encoder is finished first: a third of a second on two cores that do nothing else.
STOP_SECONDS_MAX = 10.0


def long_repository(seed: int, parts: int = 7) -> dict[str, str]:
    """Some ten seconds of encoding on two cores, or a seventh of them for each part."""
    return {
        f"part{part}/{path}": text
        for part in range(parts)
        for path, text in repository(seed * 10 + part).items()
    }


def ask(client: httpx.Client, job_id: object, action: str) -> httpx.Response:
    return client.post(f"/api/v1/jobs/{job_id}/{action}")


def until_stage(client: httpx.Client, job_id: object, stage: str) -> dict[str, Any]:
    def read() -> dict[str, Any] | None:
        found = read_job(client, job_id)
        assert found is None or found["state"] in ("queued", "running"), found
        return found if found and found["progress"] and found["progress"]["stage"] == stage else None

    return eventually(read, poll_seconds=0.02)


def until_idle(client: httpx.Client, seconds: float) -> None:
    def read() -> bool:
        workers = client.get("/api/v1/workers").json()["workers"]
        return bool(workers) and not workers[0]["job_ids"]

    eventually(read, seconds=seconds, poll_seconds=0.02)


def invariants(stack: Stack) -> None:
    """``pharos-bus check`` finds nothing."""
    port = int((stack.home / "nats.conf").read_text().partition("127.0.0.1:")[2].partition('"')[0])
    environ = {
        **os.environ,
        "PHAROS_NATS_URL": f"nats://127.0.0.1:{port}",
        "PHAROS_NATS_USER": "pharos",
        "PHAROS_NATS_PASSWORD_FILE": str(stack.home / "nats-password"),
        "PHAROS_QUEUE_MAX": str(QUEUE_MAX),
    }
    pharos_bus = Path(sys.executable).with_name("pharos-bus")
    found = subprocess.run(
        [str(pharos_bus), "check", "--settle-seconds", "2"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@contextmanager
def slow_clone(git: GitServer, name: str, seconds: float) -> Iterator[None]:
    git.delay(name, seconds)
    yield
    git.delay(name, 0)


@pytest.mark.parametrize("stage", ["fetch", "encode"])
def test_a_running_job_is_cancelled_at_once_and_nothing_of_it_stays(
    git: GitServer, stack: Stack, client: httpx.Client, stage: str
) -> None:
    name = f"control/cancel-{stage}"
    git.add_repository(name, long_repository(1 if stage == "fetch" else 2))
    with slow_clone(git, name, 30 if stage == "fetch" else 0):
        job_id = submit(client, git.url(name))["id"]
        until_stage(client, job_id, stage)
        began = time.monotonic()
        answer = ask(client, job_id, "cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert time.monotonic() - began < CANCEL_SECONDS_MAX
        until_idle(client, STOP_SECONDS_MAX)
    again = ask(client, job_id, "cancel")
    assert (again.status_code, again.json()["status"]) == (409, "cancelled")
    assert again.json()["detail"] == "Cannot cancel a cancelled job"
    invariants(stack)
    assert not stack.fetched()
    datasets = client.get("/api/v1/datasets").json()["datasets"]
    assert not [each for each in datasets if name in each["dataset"]]
    assert search(client, "count the penguins", repo=name) == []


def test_a_paused_job_goes_on_where_it_stopped_and_encodes_nothing_twice(
    git: GitServer, stack: Stack, client: httpx.Client
) -> None:
    name = "control/pause"
    git.add_repository(name, long_repository(3, parts=3))
    job_id = submit(client, git.url(name))["id"]

    def some_encoded() -> int | None:
        found = until_stage(client, job_id, "encode")
        done: int = found["progress"]["done"]
        return done if done > 40 else None

    before = eventually(some_encoded, poll_seconds=0.02)
    assert ask(client, job_id, "pause").json()["state"] == "paused"
    until_idle(client, 15)
    assert ask(client, job_id, "pause").status_code == 409
    assert ask(client, job_id, "resume").json()["state"] in ("queued", "running")
    ended = until_ended(client, job_id)
    assert (ended["state"], ended["attempt"]) == ("completed", 1)
    result = ended["result"]
    assert result["chunks_reused"] >= before
    assert result["chunks_encoded"] + result["chunks_reused"] == result["chunks"]
    invariants(stack)


def test_an_urgent_job_goes_before_those_that_wait(git: GitServer, client: httpx.Client) -> None:
    for name in ("busy", "low", "normal", "urgent"):
        git.add_repository(
            f"control/{name}", long_repository(4) if name == "busy" else {"a.py": f"# {name}\n"}
        )
    busy = submit(client, git.url("control/busy"))["id"]
    until_stage(client, busy, "encode")
    low = submit(client, git.url("control/low"), priority="low")
    normal = submit(client, git.url("control/normal"))
    urgent = submit(client, git.url("control/urgent"), priority="urgent")
    assert [each["queue_position"] for each in (low, normal, urgent)] == [1, 1, 1]
    places = {each["id"]: (read_job(client, each["id"]) or {})["queue_position"] for each in (low, normal)}
    assert places == {low["id"]: 3, normal["id"]: 2}
    assert ask(client, busy, "cancel").status_code == 200
    jobs = [until_ended(client, each["id"]) for each in (urgent, normal, low)]
    starts = [each["started_at"] for each in jobs]
    assert starts == sorted(starts)


def test_a_job_that_failed_is_tried_again_when_its_owner_says_so(
    git: GitServer, client: httpx.Client
) -> None:
    job_id = submit(client, git.url("control/later"))["id"]
    failed = until_ended(client, job_id)
    assert (failed["state"], failed["code"]) == ("failed", "repository_not_found")
    assert ask(client, job_id, "resume").status_code == 409
    git.add_repository("control/later", {"a.py": "def late(): ...\n"})
    answer = ask(client, job_id, "retry")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    ended = until_ended(client, job_id)
    assert (ended["state"], ended["attempt"], ended["error"]) == ("completed", 2, None)


def test_a_callback_is_signed_and_comes_once(
    git: GitServer, client: httpx.Client, receiver: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    address, received = receiver
    git.add_repository("control/callback", {"a.py": "def call(): ...\n"})
    url = f"{address}/done?key=hush-hush"
    job = submit(client, git.url("control/callback"), callback_url=url)
    until_ended(client, job["id"])
    headers, body = eventually(lambda: received[0] if received else None)
    told = json.loads(body)
    assert (told["event"], told["job"]["job_id"]) == ("job.completed", job["id"])
    secret = client.get("/api/v1/callbacks/secret").json()["secret"]
    signed = f"{headers['x-pharos-timestamp']}.".encode() + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["x-pharos-signature"] == f"v1={expected}"
    shown = client.get(f"/api/v1/jobs/{job['id']}").text + client.get("/api/v1/jobs").text + body.decode()
    assert "hush-hush" not in shown


def test_what_cannot_be_is_refused_with_a_sentence(git: GitServer, client: httpx.Client) -> None:
    unknown = "0199a3c4-6c00-7abc-8def-0123456789ab"
    assert ask(client, unknown, "cancel").status_code == 404
    assert ask(client, unknown, "explode").json()["code"] == "unknown_action"
    refused = client.post(
        f"/api/v1/ingestion/ingest/{git.url('harbour/polyglot')}",
        params={"callback_url": "http://169.254.169.254/latest"},
    )
    assert refused.status_code == 400
