"""One slot does documents and files of batches, each as what it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pharos_contracts.batches.v1 import BatchPart, BatchSource
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.jobs.v1 import DocumentSource, IndexResult, Job, JobKind, Purpose, WorkItem
from pharos_contracts.lifecycle import JobState
from pharos_embedder.document_slot import DocumentSlot

RESULT = IndexResult(
    dataset="d", generation=1, commit="", files_processed=1, embeddings_generated=1, chunks=1
)
DOCUMENT = {"kind": JobKind.TEXT, "document": DocumentSource(label="l", identity="i", object_name="o")}
BATCH = {
    "kind": JobKind.BATCH,
    "batch": BatchSource(
        name="b",
        manifest="m",
        parts=(BatchPart(connection_id="c", source_type=SourceType.S3, files=1),),
    ),
}


class Told:
    """Work that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def asked(*_: object, **__: object) -> IndexResult:
            self.asked.append(name)
            return RESULT

        return asked


class Held:
    def __init__(self, item: WorkItem) -> None:
        self.item = item


@pytest.mark.anyio
@pytest.mark.parametrize("about", [DOCUMENT, BATCH])
@pytest.mark.parametrize("purpose", Purpose)
async def test_all_that_is_done_with_an_item_is_done_by_the_work_for_its_kind(
    about: dict[str, Any], purpose: Purpose
) -> None:
    job = Job(
        job_id="j",
        number=0,
        tenant="t",
        key="k",
        state=JobState.RUNNING,
        project="p",
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        submitted_by="u",
        ttl_seconds=60,
        **about,
    )
    item = WorkItem(job=job, item_id="0", attempt=1, dispatch=1, purpose=purpose)
    documents, files = Told(), Told()
    slot = DocumentSlot(documents, files)  # type: ignore[arg-type]
    await slot.run(Held(item))  # type: ignore[arg-type]
    await slot.finish(item, RESULT)
    await slot.tidy(item, RESULT)
    await slot.clear(item, 1, forget=True)
    meant, other = (files, documents) if about is BATCH else (documents, files)
    assert (meant.asked, other.asked) == (["run", "finish", "tidy", "clear"], [])
