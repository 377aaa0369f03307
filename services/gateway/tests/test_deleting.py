"""Which jobs would bring back what is deleted, as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pharos_contracts.batches.v1 import BatchPart, BatchSource
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.jobs.v1 import DocumentSource, JobKind, RepositorySource, SubmitJob
from pharos_gateway import projects
from pharos_gateway.deleting import Deleted, Wanted, concerns

MAIN = "github.com/o/r@main"


def command(**facts: Any) -> SubmitJob:
    branch = facts.pop("branch", None)
    values: dict[str, Any] = {
        "job_id": "j",
        "tenant": "t",
        "key": "k",
        "source": RepositorySource(
            identity="github.com/o/r", clone_url="https://github.com/o/r", branch=branch
        ),
        "project": "p",
        "submitted_at": datetime(2026, 1, 1, tzinfo=UTC),
        "submitted_by": "u",
        "ttl_seconds": 60,
    }
    return SubmitJob(**{**values, **facts})


NOTE = {
    "kind": JobKind.TEXT,
    "source": None,
    "document": DocumentSource(label="docs", identity="d", url="https://h/d"),
}
BATCH = {
    "kind": JobKind.BATCH,
    "source": None,
    "batch": BatchSource(
        name="b",
        manifest="m",
        parts=tuple(
            BatchPart(connection_id=each, source_type=SourceType.S3, files=1) for each in ("papers", "notes")
        ),
    ),
}


@pytest.mark.parametrize(
    ("facts", "dataset", "repository", "does"),
    [
        ({"dataset": "core"}, "core", None, True),
        ({"dataset": "core"}, MAIN, None, False),
        ({"branch": "main"}, MAIN, None, True),
        ({"branch": "main"}, "github.com/o/r@dev", None, False),
        ({"branch": "main", "dataset": "core"}, MAIN, None, False),
        # Only its worker finds out which branch it is of.
        ({}, MAIN, None, True),
        ({}, "github.com/o/r2@main", None, False),
        ({}, "core", None, False),
        ({}, None, "GitHub.com/O/R", True),
        ({"dataset": "core"}, None, "github.com/o/r", True),
        ({}, None, "github.com/o/other", False),
        (NOTE, "documents/docs", None, True),
        (NOTE, "documents/other", None, False),
        (NOTE, None, "github.com/o/r", False),
        (BATCH, "connections/papers", None, True),
        (BATCH, "connections/notes", None, True),
        (BATCH, "connections/other", None, False),
        (BATCH, "papers", None, False),
        (BATCH, None, "github.com/o/r", False),
        ({"tenant": "other", "dataset": "core"}, "core", None, False),
        ({"project": "other", "dataset": "core"}, "core", None, False),
    ],
)
def test_a_job_is_stopped_where_it_writes_what_is_deleted_or_may(
    facts: dict[str, Any], dataset: str | None, repository: str | None, does: bool
) -> None:
    wanted = Wanted(tenant="t", project="p", dataset=dataset, repository=repository)
    assert concerns(command(**facts), wanted) is does


@pytest.mark.parametrize(
    ("gone", "dataset", "message"),
    [
        (Deleted(datasets=("a",), vectors=1, jobs=()), "a", "Dataset 'a' deleted, with 1 vector"),
        (Deleted(datasets=("a", "b"), vectors=7, jobs=()), "a", "2 datasets deleted, with 7 vectors"),
        (
            Deleted(datasets=(), vectors=0, jobs=("j",)),
            "github.com/o/r",
            "Dataset 'github.com/o/r' deleted, with 0 vectors",
        ),
    ],
)
def test_the_answer_says_what_is_gone(gone: Deleted, dataset: str, message: str) -> None:
    told = projects.deleted(Wanted(tenant="t", project="p", repository="github.com/o/r"), gone)
    assert (told.dataset, told.message, told.status) == (dataset, message, "deleted")
