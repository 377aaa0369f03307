"""The client of each family, as somebody would run it."""

from __future__ import annotations

import subprocess
import sys

from tests.support.git_server import GitServer
from tests.support.polyglot import ANSWERS
from tests.support.stack import Stack


def test_the_client_of_projects_indexes_watches_and_searches(git: GitServer) -> None:
    question = next(iter(sorted(ANSWERS)))
    with Stack(allowed_hosts=git.allowed_hosts, PHAROS_ANONYMOUS="default:editor") as stack:
        done = subprocess.run(
            [sys.executable, "-m", "examples.projects", stack.url, git.url("harbour/polyglot"), question],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Progress: completed 100" in done.stdout
    assert "History: harbour/polyglot (main) completed" in done.stdout
    assert ANSWERS[question][0] in done.stdout
    assert "Deleted: atlas-core " in done.stdout


def test_the_client_of_resources_submits_keeps_and_deletes(git: GitServer, stack: Stack) -> None:
    repository = git.url("harbour/polyglot")
    done = subprocess.run(
        ["sh", "examples/resources.sh", stack.url, stack.token, repository],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"dispatched"' in done.stdout
    assert '"title":"pharos README"' in done.stdout
    assert done.stdout.endswith("Deleted.\n")
