"""The command, against a gateway of ours, without a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pharos_client.command import call
from tests.support import fake_gateway as fake
from tests.support.fake_gateway import FakeGateway

INGEST = "/api/v1/ingestion/ingest/"
URL = "https://github.com/o/r"
INGEST_URL = INGEST + "https%3A%2F%2Fgithub.com%2Fo%2Fr"
FAILED = {**fake.COMPLETED, "state": "failed", "error": "Failed to clone repository", "result": None}


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A gateway, and a home whose files point at it."""
    with FakeGateway(
        {
            INGEST_URL: fake.SUBMITTED,
            "/api/v1/search": fake.ANSWER,
            "/api/v1/jobs": {"jobs": [fake.COMPLETED, fake.JOB]},
            "/api/v1/jobs/3": fake.COMPLETED,
            "/api/v1/ingestion/worker/status": {
                "status": "Idle",
                "workers": [{"name": "box", "status": "Idle"}],
            },
            "/api/v1/ingestion/jobs/history": {"jobs": [{"job_id": 1, "repo_url": "x", "status": "queued"}]},
            "/health": {"status": "healthy", "service": "gateway"},
            "/ops/dead-letters": {"dead_letters": [fake.DEAD_LETTER], "cursor": None},
            "/api/v1/schedules": {"schedules": [fake.SCHEDULE], "truncated": False},
            "/api/v1/keys": {"keys": [fake.KEY]},
            "/readyz": {"status": "ready"},
        }
    ) as running:
        (tmp_path / "endpoint").write_text(running.url)
        (tmp_path / "admin-token").write_text(fake.TOKEN)
        (tmp_path / "admin-token").chmod(0o600)
        for name in [name for name in os.environ if name.startswith("PHAROS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PHAROS_HOME", str(tmp_path))
        yield running


def test_ingest_says_the_job_and_how_to_follow_it(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["ingest", URL, "--branch", "main", "--force"]) == 0
    assert "Job 3 is queued, place 1" in capsys.readouterr().out
    ((method, path, authorization),) = gateway.requests
    assert (method, authorization) == ("POST", f"Bearer {fake.TOKEN}")
    assert path == INGEST_URL + "?branch=main&force=true"


def test_ingest_passes_priority_and_callback_on(gateway: FakeGateway) -> None:
    assert call(["ingest", URL, "--priority", "high", "--callback-url", "https://hooks.example/x?a=b"]) == 0
    ((_, path, _),) = gateway.requests
    assert path == INGEST_URL + "?priority=high&callback_url=https%3A%2F%2Fhooks.example%2Fx%3Fa%3Db"


@pytest.mark.parametrize(
    ("action", "state"),
    [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")],
)
def test_a_job_is_controlled_and_shown_as_that_left_it(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], action: str, state: str
) -> None:
    left = {**fake.JOB, "state": state, "controlled_by": "ann", "queue_position": 2}
    gateway.routes[f"POST /api/v1/jobs/3/{action}"] = left
    assert call(["job", action, "3"]) == 0
    said = capsys.readouterr().out
    assert f"job 3 {state}: github.com/o/r" in said
    assert ("place 2 in the queue" in said) == (state == "queued")
    assert ("by ann" in said) == (state in ("paused", "cancelled"))
    assert [(method, path) for method, path, _ in gateway.requests] == [("POST", f"/api/v1/jobs/3/{action}")]
    assert call(["job", action, "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == state


def test_a_refused_action_says_why_and_exits_1(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"detail": "Cannot pause a completed job", "code": "invalid_transition", "status": "completed"}
    gateway.routes["POST /api/v1/jobs/3/pause"] = (409, refusal)
    assert call(["job", "pause", "3"]) == 1
    assert "Cannot pause a completed job" in capsys.readouterr().err


def test_dead_letters_are_listed_replayed_and_purged(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    letters, letter = "/ops/dead-letters", f"/ops/dead-letters/{fake.DEAD_LETTER['id']}"
    gateway.routes[letters] = {"dead_letters": [], "cursor": None}
    assert call(["dead-letters", "list"]) == 0
    assert "There are no dead letters." in capsys.readouterr().out
    gateway.routes[letters] = {"dead_letters": [fake.DEAD_LETTER], "cursor": 17}
    assert call(["dead-letters", "list", "--limit", "1"]) == 0
    said = capsys.readouterr().out
    for expected in (fake.DEAD_LETTER["id"], "github.com/o/r", "died twice", "--before 17"):
        assert expected in said
    gateway.routes[f"POST {letter}/replay"] = fake.JOB
    assert call(["dead-letters", "replay", fake.DEAD_LETTER["id"]]) == 0
    assert "job 3 queued" in capsys.readouterr().out
    gateway.routes[f"POST {letter}/replay"] = (202, {"dead_letter": "Q-17", "status": "resent"})
    assert call(["dead-letters", "replay", fake.DEAD_LETTER["id"]]) == 0
    assert "sent again" in capsys.readouterr().out
    gateway.routes[f"DELETE {letter}"] = (204, None)
    assert call(["dead-letters", "purge", fake.DEAD_LETTER["id"]]) == 0
    assert "1 dead letter forgotten." in capsys.readouterr().out
    gateway.routes[f"DELETE {letters}"] = {"purged": 3}
    assert call(["dead-letters", "purge", "--all"]) == 0
    assert "3 dead letters forgotten." in capsys.readouterr().out


def test_schedules_are_listed_added_and_removed(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    schedules = "/api/v1/schedules"
    gateway.routes[schedules] = {"schedules": [], "truncated": False}
    assert call(["schedules", "list"]) == 0
    assert "No schedules yet." in capsys.readouterr().out
    gateway.routes[f"POST {schedules}"] = (201, fake.SCHEDULE)
    added = ["schedules", "add", URL, "0 3 * * *", "--id", "nightly", "--timezone", "Europe/Berlin"]
    assert call([*added, "--jitter-seconds", "600", "--branch", "main", "--always"]) == 0
    assert "2026-01-21 02:04Z" in capsys.readouterr().out
    assert json.loads(gateway.bodies[-1]) == {
        "repo_url": URL,
        "cron": "0 3 * * *",
        "branch": "main",
        "timezone": "Europe/Berlin",
        "jitter_seconds": 600,
        "skip_unchanged": False,
        "id": "nightly",
    }
    gateway.routes[schedules] = {"schedules": [fake.SCHEDULE], "truncated": False}
    assert call(["schedules", "list"]) == 0
    said = capsys.readouterr().out
    for expected in ("nightly", "github.com/o/r@main", "0 3 * * *", "completed"):
        assert expected in said
    gateway.routes[f"DELETE {schedules}/nightly"] = (204, None)
    assert call(["schedules", "remove", "nightly"]) == 0
    assert "Schedule nightly is removed." in capsys.readouterr().out
    refusal = {"detail": "The hour in '0 25 * * *' is not between 0 and 23", "code": "invalid_schedule"}
    gateway.routes[f"POST {schedules}"] = (400, refusal)
    assert call(["schedules", "add", URL, "0 25 * * *"]) == 1
    assert "is not between 0 and 23" in capsys.readouterr().err


def test_keys_are_issued_listed_rotated_and_disabled_and_their_text_is_shown_once(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = "/api/v1/keys"
    gateway.routes[keys] = {"keys": []}
    assert call(["keys", "list"]) == 0
    assert "No keys yet." in capsys.readouterr().out
    text = f"pharos_{fake.KEY['id']}_secret"
    gateway.routes[f"POST {keys}"] = (201, {**fake.KEY, "key": text})
    wanted = ["--role", "editor", "--tenant", "acme", "--project", "atlas", "--name", "laptop"]
    assert call(["keys", "create", "ada", *wanted, "--days", "30"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == text
    sent = json.loads(gateway.bodies[-1])
    assert sent.pop("expires_at")
    assert sent == {
        "user": "ada",
        "role": "editor",
        "tenant": "acme",
        "projects": ["atlas"],
        "name": "laptop",
    }
    gateway.routes[f"POST {keys}/k1/rotate"] = {**fake.KEY, "key": text}
    assert call(["keys", "rotate", "k1", "--grace-seconds", "60", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == text
    assert json.loads(gateway.bodies[-1]) == {"grace_seconds": 60}
    gateway.routes[f"POST {keys}/k1/disable"] = {**fake.KEY, "state": "disabled"}
    assert call(["keys", "disable", "k1"]) == 0
    assert "opens nothing any more" in capsys.readouterr().out
    gateway.routes[keys] = {"keys": [fake.KEY]}
    assert call(["keys", "list"]) == 0
    said = capsys.readouterr().out
    for expected in ("ada", "editor", "atlas", "active", "laptop"):
        assert expected in said
    gateway.routes[f"DELETE {keys}/k1"] = (204, None)
    assert call(["keys", "delete", "k1"]) == 0


def test_watch_shows_stages_and_ends_with_a_summary(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.routes["/api/v1/jobs/3"] = {**fake.JOB, "state": "running", "attempt": 1}
    gateway.routes[f"/api/v1/jobs/{fake.JOB['job_id']}"] = gateway.routes["/api/v1/jobs/3"]

    def complete() -> None:
        gateway.routes[f"/api/v1/jobs/{fake.JOB['job_id']}"] = fake.COMPLETED

    def progress(percent: float, stage: str) -> bytes:
        return fake.sse("job.progress", {"stage": stage, "percent": percent, "done": 1, "total": 2})

    gateway.streams = [
        [progress(12, "parse"), progress(55, "encode")],  # and the gateway is gone for a moment
        [progress(70, "encode"), complete, fake.sse("job.completed", {"job_id": "x"}, 9)],
    ]
    assert call(["ingest", URL, "--watch"]) == 0
    said = capsys.readouterr().out
    for expected in (
        "12%  parse, 1/2",
        "55%  encode, 1/2",
        "connection lost, trying again; the job goes on",
        "job 3 completed: github.com/o/r",
        "27 files, 181 chunks, 64 edges in 12.5 s",
        "commit 1a2b3c4d5e6f of main",
        "150 chunks encoded, 31 reused",
        "left out: 3 binary, 2 generated\n    binary: a.bin, b.bin, c.bin\n    generated: pb.go and 1 more\n",
        "1 warning:",
        "src/bad.py: cannot be parsed",
        'search "where are errors handled?" --dataset "github.com/o/r@main"',
    ):
        assert expected in said


def test_a_job_that_ended_before_it_was_watched_is_told_at_once(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["job", "3", "--watch"]) == 0
    assert "job 3 completed" in capsys.readouterr().out


def test_a_failed_job_says_its_sentence_and_exits_1(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.routes["/api/v1/jobs/3"] = FAILED
    assert call(["ingest", URL, "--watch"]) == 1
    out = capsys.readouterr().out
    assert "error: Failed to clone repository" in out
    assert "Once that is put right: " in out and "job retry 3" in out


def test_ctrl_c_leaves_the_job_running_and_says_so(gateway: FakeGateway) -> None:
    gateway.routes["/api/v1/jobs/3"] = {**fake.JOB, "state": "running"}
    gateway.routes[f"/api/v1/jobs/{fake.JOB['job_id']}"] = gateway.routes["/api/v1/jobs/3"]
    gateway.streams = [[fake.sse("job.progress", {"stage": "parse", "percent": 12})]]
    command = [sys.executable, "-u", "-m", "pharos_client", "ingest", URL, "--watch"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs these tests in the background ignores Ctrl-C, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - nothing else runs
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "12%" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Job 3 goes on" in said
    assert "Traceback" not in said


def test_a_refused_address_of_ones_own_network_explains_the_setting(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {
        "detail": "Invalid repository URL",
        "code": "invalid_repository_url",
        "reason": "the address is not public",
    }
    gateway.routes[INGEST + "http%3A%2F%2F127.0.0.1%3A9999%2Fa%2Fb"] = (400, refusal)
    assert call(["ingest", "http://127.0.0.1:9999/a/b"]) == 1
    said = capsys.readouterr().err
    assert "Invalid repository URL: the address is not public" in said
    assert 'PHAROS_GIT_ALLOWED_HOSTS="*,http://127.0.0.1:9999"' in said


def test_a_submit_of_unknown_fate_is_asked_again_with_the_same_key(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.routes[INGEST_URL] = (503, {"detail": "Queue unavailable: Connection timeout", "job_id": 3})
    assert call(["ingest", URL]) == 1
    assert [path for _, path, _ in gateway.requests] == [INGEST_URL] * 2
    gateway.requests.clear()
    gateway.routes[INGEST_URL] = (503, {"detail": "Queue unavailable: Not connected to the bus"})
    assert call(["ingest", URL]) == 1
    assert len(gateway.requests) == 1
    assert "Queue unavailable" in capsys.readouterr().err


def test_search_ends_with_what_is_to_be_known_of_its_answer(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "What another encoder has indexed is searched by words alone until it is indexed again"
    gateway.routes["/api/v1/search"] = {**fake.ANSWER, "metadata": {"mode": "hybrid", "note": note}}
    assert call(["search", "sign"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f" ms. {note}.")


def test_search_shows_place_reason_link_and_numbered_code(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["search", "sign", "-k", "3", "--lang", "python", "--mode", "hybrid"]) == 0
    said = capsys.readouterr().out
    for expected in (
        "src/signer.py:12-13",
        "sign",
        "github.com/o/r",
        "https://github.com/o/r/blob/1a2b3c4d5e6f/src/signer.py#L12-L13",
        "found by meaning (0.71) and words (12.30)",
        "12 | def sign(value):",
        "13 |     return value",
    ):
        assert expected in said
    assert "\x1b" not in said


def test_code_cannot_steer_the_terminal(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = json.loads(json.dumps(fake.ANSWER))
    hostile["results"][0] |= {
        "chunk": "a\x1b]0;owned\x07b\x9b2J",
        "file": "x\x1b[2Jy",
        "symbol": "[red]s[/red]",
    }
    gateway.routes["/api/v1/search"] = hostile
    assert call(["search", "x"]) == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
    assert "[red]s[/red]" in said


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["search", "x", "--json"], "results"),
        (["jobs", "--json"], "jobs"),
        (["job", "3", "--json"], "job_id"),
        (["dead-letters", "list", "--json"], "dead_letters"),
        (["schedules", "list", "--json"], "schedules"),
        (["keys", "list", "--json"], "keys"),
        (["status", "--json"], "worker"),
        (["ingest", URL, "--json"], "job_id"),
        (["ingest", URL, "--watch", "--json"], "result"),
    ],
)
def test_json_is_all_of_standard_output(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], arguments: list[str], field: str
) -> None:
    assert call(arguments) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert field in answer


def test_jobs_are_a_table_with_what_went_wrong(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = {**fake.JOB, "state": "skipped", "reason": "Task exceeded TTL"}
    gateway.routes["/api/v1/jobs"] = {"jobs": [fake.COMPLETED, fake.JOB, FAILED, skipped]}
    assert call(["jobs", "--limit", "4"]) == 0
    said = capsys.readouterr().out
    assert "Failed to clone repository" in said and "Task exceeded TTL" in said
    assert "completed" in said and "queued" in said and "github.com/o/r" in said


def test_status_exits_1_when_a_submit_would_fail(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["status"]) == 0
    assert "1 waiting, 0 running" in capsys.readouterr().out
    gateway.routes["/readyz"] = (503, {"detail": "the bus is away"})
    assert call(["status"]) == 1
    assert "not ready: the bus is away" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["serch", "x"],
        ["search"],
        ["search", " "],
        ["search", "x", "-k", "0"],
        ["search", "x", "--mode", "best"],
        ["jobs", "--limit", "1000"],
        ["jobs", "--limit", "many"],
        ["status", "--url", "nonsense"],
        ["ingest"],
        ["ingest", URL, "--priority", "soon"],
        ["job"],
        ["job", "pause"],
        ["dead-letters", "purge"],
        ["dead-letters", "purge", "x", "--all"],
        ["dead-letters", "list", "--limit", "0"],
        ["schedules", "add", URL],
        ["keys", "create"],
        ["keys", "create", "ada", "--role", "king"],
        ["keys", "create", "ada", "--days", "0"],
    ],
)
def test_a_wrong_use_exits_2(gateway: FakeGateway, arguments: list[str]) -> None:
    assert call(arguments) == 2
    assert gateway.requests == []


def test_no_gateway_exits_3_and_says_what_to_do(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["jobs", "--url", "http://127.0.0.1:9"]) == 3
    said = capsys.readouterr().err
    assert "No gateway answers at http://127.0.0.1:9" in said
    assert "make run" in said


def test_a_wrong_token_names_its_source_and_is_never_shown(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.routes["/api/v1/jobs"] = (401, {"detail": "Invalid or missing authentication token"})
    assert call(["jobs"]) == 1
    captured = capsys.readouterr()
    assert "admin-token" in captured.err
    assert fake.TOKEN not in captured.out + captured.err


def test_doctor_says_what_is_wrong_and_what_to_do(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gateway.routes["/health"] = {"status": "degraded", "dependencies": {"bus": "ok", "search": "unavailable"}}
    gateway.routes["/api/v1/ingestion/worker/status"] = {"status": "Offline", "workers": []}
    (tmp_path / "admin-token").chmod(0o644)
    assert call(["doctor", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["bus"]["level"] == "fine"
    assert checks["search"]["level"] == checks["workers"]["level"] == "wrong"
    assert checks["token"]["level"] == "wrong"
    assert "chmod 600" in checks["token"]["advice"]
    assert all(check["advice"] for check in checks.values() if check["level"] == "wrong")
    assert call(["doctor"]) == 1
    said = capsys.readouterr()
    assert "checks found something wrong" in said.out
    assert fake.TOKEN not in said.out + said.err
