"""Which datasets a search looks at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.search.v1 import Search
from pharos_embedder.catalogue import choose

AT = datetime(2026, 1, 1, tzinfo=UTC)


def dataset(
    name: str, tenant: str = "t", project: str = "p", scope: Scope = Scope.PROJECT, age: int = 0
) -> Dataset:
    return Dataset(
        tenant=tenant,
        project=project,
        dataset=name,
        scope=scope,
        repository=f"github.com/o/{name}",
        clone_url=f"https://github.com/o/{name}",
        branch="main",
        commit="c",
        generation=1,
        stage=IndexStage.FULL,
        job_id="j",
        files=1,
        chunks=1,
        encoder="e",
        chunker="1",
        published_at=AT - timedelta(days=age),
    )


ALL = [
    dataset("ours", age=1),
    dataset("Newer", age=0),
    dataset("private", scope=Scope.LOCAL, age=2),
    dataset("elsewhere", project="q", age=3),
    dataset("everyones", project="q", scope=Scope.GLOBAL, age=4),
    dataset("theirs", tenant="u"),
    dataset("theirs-global", tenant="u", scope=Scope.GLOBAL),
]


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"project": "p"}, ["Newer", "ours", "everyones"]),
        ({"project": "p", "include_global": False}, ["Newer", "ours"]),
        ({"project": None}, ["Newer", "ours", "elsewhere", "everyones"]),
        ({"project": "p", "datasets": ("private",)}, ["private"]),
        ({"project": "p", "datasets": ("ou*", "New*")}, ["Newer", "ours"]),
        ({"project": "p", "datasets": ("new*",)}, []),
        ({"project": "p", "datasets": ("theirs*",)}, []),
        ({"project": "q"}, ["elsewhere", "everyones"]),
        ({"project": "nobody"}, ["everyones"]),
        ({"project": "p", "repositories": ("o/ours",)}, ["ours"]),
        ({"project": "p", "repositories": ("https://github.com/O/Ours.git",)}, ["ours"]),
        ({"project": "p", "repositories": ("ours",)}, []),
        ({"projects": ("q",)}, ["elsewhere", "everyones"]),
        ({"project": "p", "projects": ("q",)}, ["everyones"]),
        ({"projects": (), "include_global": False}, []),
        ({"tenant": "nobody"}, []),
    ],
)
def test_a_search_sees_what_it_asks_for_and_nothing_of_another_tenant(
    facts: dict[str, Any], found: list[str]
) -> None:
    question = Search(**{"tenant": "t", "query": "x", **facts})
    assert [each.dataset for each in choose(question, ALL)] == found
