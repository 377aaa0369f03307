"""Repositories, told from their datasets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import Scope
from pharos_gateway import projects
from pharos_gateway.datasets import DatasetList, DatasetView
from pharos_gateway.repositories import listed

NOW = datetime(2024, 1, 20, 12, 0, tzinfo=UTC)


def dataset(name: str, repository: str, minutes: int, **others: Any) -> DatasetView:
    """One that was indexed so many *minutes* ago."""
    values: dict[str, Any] = {
        "tenant": "acme",
        "project": "default",
        "dataset": name,
        "scope": Scope.PROJECT,
        "repository": repository,
        "branch": "main",
        "commit": "c" * 40,
        "generation": 1,
        "stage": IndexStage.FULL,
        "files": 3,
        "chunks": 7,
        "encoder": "e",
        "chunker": "c",
        "job_id": "j",
        "published_at": NOW - timedelta(minutes=minutes),
    }
    return DatasetView(**{**values, **others})


def test_datasets_of_one_repository_are_its_branches_and_the_newest_says_how_fresh_it_is() -> None:
    found = DatasetList(
        datasets=(
            dataset("old", "github.com/o/r", 90, branch="old"),
            dataset("new", "github.com/o/r", 10),
            dataset("documents/wiki", "", 1),
            dataset("z", "github.com/a/z", 5, branch=None),
            dataset("later", "github.com/o/r", -5, tenant="other"),
        ),
        truncated=True,
    )
    told = listed(found, NOW)
    assert told.truncated
    assert [(each.host, each.name, each.tenant) for each in told.repositories] == [
        ("github.com", "a/z", "acme"),
        ("github.com", "o/r", "acme"),
        ("github.com", "o/r", "other"),
    ]
    ours, theirs = told.repositories[1:]
    assert [(each.branch, each.dataset) for each in ours.branches] == [("main", "new"), ("old", "old")]
    assert ours.freshness == ours.branches[0].freshness
    assert (ours.freshness.age_seconds, ours.branches[1].freshness.age_seconds) == (600, 5400)
    assert theirs.freshness.age_seconds == 0
    assert len({each.id for each in told.repositories}) == 3
    again = listed(DatasetList(datasets=(dataset("x", "github.com/o/r", 1),), truncated=False), NOW)
    assert again.repositories[0].id == ours.id


def test_documents_alone_are_no_repository() -> None:
    found = DatasetList(datasets=(dataset("documents/wiki", "", 1),), truncated=False)
    assert listed(found, NOW).repositories == ()


def test_documents_are_no_repository_where_a_project_is_counted() -> None:
    held = [dataset("main", "h/o/r", 1), dataset("next", "h/o/r", 2), dataset("documents/notes", "", 3)]
    counted = projects.stats("default", held, [], truncated=False, more_jobs=False)
    assert (counted.datasets, counted.repositories) == (3, 1)
