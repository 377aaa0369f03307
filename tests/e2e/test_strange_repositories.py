"""Repositories that are not as one would like them: each ends as its owner expects, with a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.support.git_server import Content, GitServer, Submodule, Symlink
from tests.support.stack import Stack, eventually, search, submit, until_ended

REPOSITORIES: Mapping[str, tuple[Mapping[str, Content], dict[str, Any]]] = {
    "no-source": (
        {"logo.png": b"\x89PNG\r\n\x1a\n\0\0\0", "data.bin": bytes(range(256))},
        {"files": 0, "left_out": {"binary": 2}, "says": "nothing to index"},
    ),
    "broken-syntax": (
        {"broken.py": "def f(:\n    return ((1\n\nclass\n", "fine.py": "def pelican():\n    return 1\n"},
        {"files": 2, "warns": "broken.py", "finds": ("pelican", "fine.py")},
    ),
    "one-long-line": (
        {"blob.js": "var a=[" + "1234567890," * 480_000 + "0];", "small.js": "export const heron = 1;\n"},
        {"files": 1, "left_out_any": True, "finds": ("heron", "small.js")},
    ),
    "symlink-out-of-the-tree": (
        {"passwd": Symlink("/etc/passwd"), "up": Symlink("../../.."), "a.py": "stork = 1\n"},
        {"files": 1, "left_out": {"symlink": 2}, "finds": ("stork", "a.py")},
    ),
    "unicode-and-spaces": (
        {"größe und maß/naïve café.py": "def ibis():\n    return 'ß'\n", "日本語.py": "crane = 1\n"},
        {"files": 2, "finds": ("ibis", "größe und maß/naïve café.py")},
    ),
    "zero-bytes": (
        {"empty.py": "", "full.py": "def egret():\n    return 0\n"},
        {"files": 1, "left_out": {"empty": 1}, "finds": ("egret", "full.py")},
    ),
    "submodule": (
        {"vendored-lib": Submodule("1" * 40), "main.py": "def bittern():\n    return 0\n"},
        {"files": 1, "left_out": {"submodule": 1}, "finds": ("bittern", "main.py")},
    ),
    "deep-tree": (
        {"d/" * 1_100 + "f.py": "x = 1\n", "ok.py": "def avocet():\n    return 1\n"},
        {"files": 1, "left_out": {"over the depth limit": 1}, "finds": ("avocet", "ok.py")},
    ),
    "crlf": (
        {"windows.py": "import os\r\n\r\n\r\ndef spoonbill():\r\n    return os.sep\r\n"},
        {"files": 1, "finds": ("spoonbill", "windows.py"), "line": 4},
    ),
}


@pytest.fixture(scope="module")
def jobs(git: GitServer, stack: Any) -> dict[str, dict[str, Any]]:
    """All of them at once, as a user would submit them."""
    with stack.client() as client:
        submitted = {}
        for name, (files, _) in REPOSITORIES.items():
            git.add_repository(f"strange/{name}", files)
            submitted[name] = submit(client, git.url(f"strange/{name}"))["id"]
        return {name: until_ended(client, job_id) for name, job_id in submitted.items()}


@pytest.mark.parametrize("name", sorted(REPOSITORIES))
def test_it_ends_as_its_owner_expects(name: str, jobs: dict[str, Any], client: httpx.Client) -> None:
    expected = REPOSITORIES[name][1]
    job = jobs[name]
    assert job["state"] == "completed", job
    result = job["result"]
    assert result["files_processed"] == expected["files"]
    assert result["summary"].endswith(".")
    for reason, number in expected.get("left_out", {}).items():
        assert result["left_out"][reason] == number
        assert f"{number} {reason}" in result["summary"]
    if expected.get("left_out_any"):
        assert sum(result["left_out"].values()) == 1
    if "says" in expected:
        assert expected["says"] in result["summary"]
    if "warns" in expected:
        assert any(each["path"] == expected["warns"] for each in result["warnings"])
    if "finds" in expected:
        word, file = expected["finds"]
        hit = search(client, word, repo=f"strange/{name}")[0]
        assert hit["file"] == file
        assert word in hit["chunk"]
        if "line" in expected:
            lines = hit["chunk"].splitlines()
            at = next(number for number, line in enumerate(lines) if word in line)
            assert hit["lineSpan"]["start"] + at == expected["line"]


def test_a_path_that_is_too_long_fails_with_a_sentence(git: GitServer, client: httpx.Client) -> None:
    git.add_repository("strange/long-path", {"dd/" * 1_500 + "g.py": "x = 1\n"})
    job = until_ended(client, submit(client, git.url("strange/long-path"))["id"])
    assert job["state"] == "failed"
    assert "path that is too long" in job["error"]


def test_nothing_is_left_of_what_was_fetched(jobs: dict[str, Any], stack: Stack) -> None:
    eventually(lambda: not stack.fetched())


def test_an_empty_repository_fails_with_a_sentence(git: GitServer, client: httpx.Client) -> None:
    git.add_empty_repository("strange/empty")
    job = until_ended(client, submit(client, git.url("strange/empty"))["id"])
    assert job["state"] == "failed"
    assert "empty" in job["error"]


def test_a_missing_repository_fails_with_a_sentence_and_at_once(git: GitServer, client: httpx.Client) -> None:
    job = until_ended(client, submit(client, git.url("strange/missing"))["id"])
    assert job["state"] == "failed"
    assert "not found" in job["error"]
    assert job["attempt"] == 1
    assert client.get("/api/v1/ingestion/worker/status").json()["status"].startswith(("Error: ", "Training"))


def test_a_missing_branch_fails_with_a_sentence(git: GitServer, client: httpx.Client) -> None:
    job = until_ended(client, submit(client, git.url("harbour/polyglot"), branch="no-such")["id"])
    assert job["state"] == "failed"
    assert "no-such" in job["error"]
