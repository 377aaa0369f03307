"""All of Pharos with an encoder that is a server, from the first request to a search."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.embeddings_server import KEY, MODEL, EmbeddingsServer, gated, refusing
from tests.support.git_server import GitServer
from tests.support.polyglot import FILES
from tests.support.stack import Stack, eventually, job, search, submit, until_ended

DIMENSIONS = 64
JOB_TOKENS_MAX = 20_000
LARGE = {
    f"src/part_{number}.py": "".join(
        f"def step_{number}_{each}(value):\n    return value * {each} + {number}\n\n\n" for each in range(40)
    )
    for number in range(40)
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer(dimensions=DIMENSIONS) as found:
        found.script(*[refusing(503)] * 3)  # still starting
        yield found


def asking(server: EmbeddingsServer, **settings: str) -> dict[str, str]:
    return {
        "EMBEDDING_PROVIDER": "openai",
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_KEY": KEY,
        "OPENAI_EMBEDDING_MODEL": MODEL,
        **settings,
    }


@pytest.fixture(scope="module")
def stack(git: GitServer, server: EmbeddingsServer) -> Iterator[Stack]:
    settings = asking(
        server,
        PHAROS_EMBEDDING_PRICE_PER_MILLION="0.5",
        PHAROS_EMBEDDING_JOB_TOKENS_MAX=str(JOB_TOKENS_MAX),
        PHAROS_EMBEDDING_REQUEST_INPUTS_MAX="3",
    )
    with Stack(allowed_hosts=git.allowed_hosts, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def url(git: GitServer) -> str:
    """A repository of few tokens."""
    git.add_repository("priced/polyglot", FILES)
    return git.url("priced/polyglot")


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as found:
        yield found


def documents(server: EmbeddingsServer) -> list[str]:
    return [text for each in server.requests for text in each.inputs]


def test_the_cost_is_told_before_the_first_answer_and_the_vectors_are_found_again(
    url: str, client: httpx.Client, stack: Stack, server: EmbeddingsServer
) -> None:
    assert stack.said("provider_awaited")
    server.state.always = gated
    started = submit(client, url)["id"]

    def detail() -> str | None:
        found = job(client, started) or {}
        told: str = (found.get("progress") or {}).get("detail") or ""
        return told if "tokens" in told else None

    told = eventually(detail)
    assert "chunks to encode: about " in told
    assert told.endswith("at 0.5 a million")
    server.state.always = None
    server.state.gate.set()
    ended = until_ended(client, started)
    assert ended["state"] == "completed", ended
    assert ended["result"]["chunks_encoded"] == ended["result"]["chunks"]
    first = search(client, "tide high water period", k=3, mode="dense", repo="priced/polyglot")
    assert first[0]["file"] == "python/harbour/tides.py"


def test_what_is_known_is_not_paid_for_again(
    url: str, client: httpx.Client, server: EmbeddingsServer
) -> None:
    until_ended(client, submit(client, url)["id"])
    asked = len(documents(server))
    ended = until_ended(client, submit(client, url, force="true")["id"])
    assert ended["state"] == "completed", ended
    assert len(documents(server)) == asked


def test_a_job_above_the_limit_fails_before_it_costs_anything(
    git: GitServer, client: httpx.Client, server: EmbeddingsServer
) -> None:
    git.add_repository("priced/large", LARGE)
    asked = len(documents(server))
    ended = until_ended(client, submit(client, git.url("priced/large"))["id"])
    assert ended["state"] == "failed"
    assert f"PHAROS_EMBEDDING_JOB_TOKENS_MAX allows {JOB_TOKENS_MAX:,}" in str(ended)
    assert len(documents(server)) == asked


def test_a_server_that_refuses_ends_the_job_with_a_sentence_and_searches_go_by_words(
    git: GitServer, url: str, client: httpx.Client, server: EmbeddingsServer
) -> None:
    until_ended(client, submit(client, url)["id"])
    git.add_repository("priced/refused", {"a.py": "def refused():\n    return 1\n"})
    server.state.always = refusing(401)
    ended = until_ended(client, submit(client, git.url("priced/refused"))["id"])
    answer = client.post("/api/v1/search", json={"query": "tide"})
    server.state.always = None
    assert ended["state"] == "failed"
    assert "check OPENAI_API_KEY" in str(ended)
    assert answer.status_code == 200
    assert answer.json()["results"]
    assert "check OPENAI_API_KEY" in answer.json()["metadata"]["encoder_unavailable"]


def test_no_model_is_loaded_and_the_key_is_shown_nowhere(client: httpx.Client, stack: Stack) -> None:
    assert not stack.said("device_chosen")  # what is said when a model is loaded
    assert KEY not in Path(f"/proc/{stack.pid('embedder')}/cmdline").read_text()
    for other in ("gateway", "scheduler", "history", "nats"):
        assert KEY not in Path(f"/proc/{stack.pid(other)}/environ").read_text()
    (worker,) = client.get("/api/v1/workers").json()["workers"]
    assert worker["versions"]["encoder"].endswith(f"/{MODEL}@{DIMENSIONS}:8191")
    assert not stack.said(KEY)
    for path in stack.home.rglob("*"):
        if path.is_file() and path.stat().st_size < 64 * 1024 * 1024:
            assert KEY.encode() not in path.read_bytes(), path


def refused_to_start(home: Path, settings: dict[str, str]) -> str:
    """What an embedder says that does not start."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")}
    ended: Any = subprocess.run(
        [sys.executable, "-m", "pharos_embedder"],
        env={**environ, "PHAROS_HOME": str(home), **settings},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 78, ended.stderr
    assert KEY not in ended.stderr
    said: str = ended.stderr
    return said


def test_a_key_that_is_refused_is_a_mistake_at_the_start(tmp_path: Path, server: EmbeddingsServer) -> None:
    said = refused_to_start(tmp_path, asking(server, OPENAI_API_KEY="sk-wrong-0123456789"))
    assert "check OPENAI_API_KEY" in said
    assert "sk-wrong" not in said
