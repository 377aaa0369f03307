"""Who may publish what, as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_contracts.jobs.v1 import IndexResult, Job, JobKind, RepositorySource, Scope
from pharos_contracts.lifecycle import JobState
from pharos_embedder.pipeline import is_current
from pharos_embedder.publishing import is_published, may_follow
from pharos_embedder.stages import Live

AT = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Job(
    job_id="mine",
    number=1,
    tenant="t",
    key="k",
    kind=JobKind.REPOSITORY,
    state=JobState.RUNNING,
    source=RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
    project="p",
    submitted_at=AT,
    submitted_by="u",
    ttl_seconds=60,
)
RESULT = IndexResult(
    dataset="d",
    generation=20,
    built_on=10,
    commit="c",
    files_processed=1,
    embeddings_generated=1,
    chunks=1,
)
LEXICAL, FULL = IndexStage.LEXICAL, IndexStage.FULL


def record(generation: int, stage: IndexStage, job_id: str = "mine") -> Dataset:
    return Dataset(
        tenant="t",
        project="p",
        dataset="d",
        scope=Scope.PROJECT,
        repository="h/o/r",
        clone_url="https://h/o/r",
        branch="main",
        commit="c",
        generation=generation,
        stage=stage,
        job_id=job_id,
        files=1,
        chunks=1,
        encoder="e",
        chunker="1",
        published_at=AT,
    )


def deleted(generation: int) -> DeletedDataset:
    return DeletedDataset(tenant="t", project="p", dataset="d", generation=generation, deleted_at=AT)


@pytest.mark.parametrize(
    ("live", "facts", "published", "may"),
    [
        (None, {"built_on": 0}, False, True),
        (None, {"built_on": 10}, False, False),  # what it was built on was deleted meanwhile
        (record(10, FULL, "earlier"), {}, False, True),
        (record(15, FULL, "other"), {}, False, False),  # another job published first
        (record(20, LEXICAL), {}, False, True),  # our own words, now with vectors
        (record(20, LEXICAL, "other"), {}, False, False),
        (record(20, FULL), {}, True, False),  # a worker died between publishing and saying so
        (record(10, LEXICAL), {}, False, True),  # our own earlier attempt showed its words
        (deleted(10), {}, False, True),  # begun after the deletion
        (deleted(15), {}, False, False),  # begun before it
        (deleted(15), {"built_on": 0}, False, False),  # a first index that was begun before it
    ],
)
def test_a_full_result_is_published_once_and_only_on_what_it_was_built_on(
    live: DatasetRecord | None, facts: dict[str, Any], published: bool, may: bool
) -> None:
    result = replace(RESULT, **facts)
    assert is_published(live, JOB, result, FULL) is published
    assert may_follow(live, JOB, result) is may


def test_words_are_not_shown_again_over_vectors() -> None:
    assert is_published(record(20, FULL), JOB, RESULT, LEXICAL)


def test_what_is_live_is_current_only_for_the_same_of_everything() -> None:
    assert JOB.source is not None
    same = Live(
        generation=9, full=True, repository="h/o/r", scope=JOB.scope, commit="c", encoder="e", chunker="1"
    )
    assert is_current(same, JOB, "c", "e", "1")
    others = ({"full": False}, {"repository": "h/o/fork"}, {"scope": Scope.LOCAL})
    assert not any(is_current(replace(same, **other), JOB, "c", "e", "1") for other in others)
    assert not any(is_current(same, JOB, *facts) for facts in ("Ce1", "cE1", "ce2"))
