"""A git server for each module of tests that fetch, and a repository for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git_server import GitServer


@pytest.fixture(scope="module")
def running() -> Iterator[GitServer]:
    with GitServer() as server:
        yield server


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A repository name of this test alone."""
    return f"owner/{tmp_path.name}"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where a fetch may make its folder."""
    return tmp_path / "work" / "job"
