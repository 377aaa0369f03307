"""The client of each family, as somebody would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_the_clients_of_batches_index_a_directory(tmp_path: Path) -> None:
    names = ("harbour.md", "tides.txt")
    for name in names:
        (tmp_path / name).write_text(f"# {name}\n\nShips wait for the tide in the old harbour.\n")
    with Stack(PHAROS_ANONYMOUS="default:editor", PHAROS_LOCAL_ROOTS=str(tmp_path)) as stack:
        for client in ([sys.executable, "-m", "examples.batches"], ["node", "examples/batches.mjs"]):
            done = subprocess.run(
                [*client, stack.url, str(tmp_path), *names],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Job progress: completed 100" in done.stdout
            for name in names:
                assert f"File: {name} completed" in done.stdout, done.stdout
