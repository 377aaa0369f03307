"""A git server with a repository that takes a while, a machine of a worker, and a job for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pharos_contracts.jobs.v1 import Job
from tests.support.git_server import GitServer
from tests.support.long_jobs import REPOSITORY
from tests.support.workers import Machine, new_job


@pytest.fixture(scope="module")
def git() -> Iterator[GitServer]:
    with GitServer() as server:
        server.add_repository("o/r", REPOSITORY)
        noise = np.random.default_rng(1).bytes(2_000_000)
        server.add_repository("o/slow", {"a.bin": noise})
        server.throttle("o/slow", 20_000)
        server.add_repository("o/silent", {"a.py": "x = 1\n"})
        server.delay("o/silent", 30)
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "home") as found:
        yield found


@pytest.fixture
def job(git: GitServer) -> Job:
    return new_job(git.url("o/r"))
