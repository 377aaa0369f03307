"""The examples of the HTTP contract, sent to the letter. A new example is a new row.

An answer may have further fields, never fewer or other ones. The other services are played: what is looked at
here is what clients read.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from faststream.nats import NatsBroker
from msgspec.structs import replace

from pharos_contracts import rpc
from pharos_contracts.batches.v1 import BatchPart, BatchSource, PartTally, Tally
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.control.v1 import AnyCommand, PutSchedule, Scheduled
from pharos_contracts.datasets.v1 import Dataset, DeleteDataset, FindDatasets, IndexStage
from pharos_contracts.graphs.v1 import (
    EdgeKind,
    FindRelated,
    GraphEdge,
    GraphFile,
    GraphPage,
    Indexed,
    MapPage,
    MappedFile,
    ReadGraph,
    ReadMap,
    RelatedFile,
    RelatedFiles,
)
from pharos_contracts.history.v1 import (
    BatchPage,
    BatchSummary,
    FindJob,
    ItemPage,
    JobLog,
    JobPage,
    JobView,
    ListBatches,
    ListItems,
    ListJobs,
    LogEntry,
    MeasureSources,
    ReadLog,
    SourceRates,
    SourceSummary,
    SummarizeBatches,
)
from pharos_contracts.identity import dataset_key, repository_id
from pharos_contracts.jobs.v1 import DocumentSource, Job, JobKind, Progress, RepositorySource, Scope, Stage
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message
from pharos_contracts.resources.v1 import Resource
from pharos_contracts.search.v1 import (
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
    SearchResult,
)
from pharos_contracts.streams import KV_DATASETS, KV_RESOURCES
from pharos_contracts.subjects import progress_subject
from pharos_gateway.app import serving
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from pharos_service.settings import Secret
from tests.support import drive_server
from tests.support.drive_server import DriveServer
from tests.support.gateway import (
    BEARER,
    TOKEN,
    History,
    Shelf,
    client,
    document_job,
    job,
    leading,
    now,
    result,
    settings,
    until_ready,
)
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

SHA = "9fceb02d0ae598e95dc970b74767f19372d61af8"
MORNING = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)
SLUG = "Zykairotis/claude-context-core"


class Like:
    """Equal to whatever *fits*; every value of one *name* must be the same."""

    def __init__(self, said: str, fits: Callable[[Any], bool], name: str | None = None) -> None:
        self.said = said
        self.fits = fits
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.said}>"


def _is_uuid(value: Any) -> bool:
    try:
        return str(UUID(value)) == value
    except (ValueError, TypeError, AttributeError):
        return False


def uuid(name: str | None = None) -> Like:
    return Like("a UUID" if name is None else f"the UUID of {name}", _is_uuid, name)


TIME = Like("a time in UTC", lambda value: isinstance(value, str) and value.endswith("Z"))
NUMBER = Like("a number", lambda value: isinstance(value, int | float))
COUNT = Like("a whole number above 0", lambda value: isinstance(value, int) and value > 0)
SENTENCE = Like("a sentence", lambda value: isinstance(value, str) and bool(value))


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and what must come. ``among``: the answer is a list that has it."""

    send: str
    body: Any = None
    form: Any = None
    headers: Mapping[str, str] = {}
    status: int
    answer: Any
    among: bool = False


def ingest(**changes: Any) -> dict[str, Any]:
    body = {
        "repo": "github.com/o/r",
        "dataset": "atlas-core",
        "branch": "main",
        "sha": None,
        "scope": "project",
        "force": False,
    }
    return {**body, **changes}


def queued(**changes: Any) -> dict[str, Any]:
    body = {
        "jobId": uuid(),
        "status": "queued",
        "message": "GitHub ingest job queued",
        "project": "default",
        "dataset": "atlas-core",
        "repository": "o/r",
        "branch": "main",
        "scope": "project",
    }
    return {**body, **changes}


SUBMITTED = {
    "status": "dispatched",
    "job_id": COUNT,
    "queue_position": COUNT,
    "target": "any",
    "queue_size": COUNT,
    "max_queue_size": 10,
}
SOURCE = RepositorySource(
    identity=f"github.com/{SLUG}", clone_url=f"https://github.com/{SLUG}", branch="main"
)
DRIVE = {
    "id": "gdrive_conn_1",
    "source_type": "google_drive",
    "secrets": ["client_secret", "refresh_token"],
    "created_by": "anonymous",
    "created_at": TIME,
}
RUNNING = job(501, source=SOURCE, dataset="running", started_at=MORNING, attempt=1)
ENDED = job(
    502,
    source=SOURCE,
    dataset="ended",
    started_at=MORNING,
    ended_at=MORNING.replace(minute=32, second=7),
    result=result(dataset="ended", commit=SHA, branch="main"),
    attempt=1,
)
FAILED = job(503, source=SOURCE, dataset="failed", error="Failed to clone repository", attempt=1)
OPEN_ROW = {
    "id": RUNNING.job_id,
    "source": "github",
    "project": "default",
    "dataset": "running",
    "scope": "project",
    "status": "running",
    "startedAt": "10:30 AM",
    "duration": "⏳ running",
    "summary": f"{SLUG} (main)",
    "progress": 75,
    "error": None,
    "startedAtIso": "2024-01-20T10:30:00Z",
    "durationSeconds": None,
    "phase": "Indexing repository...",
    "currentFile": "src/context.ts",
}
ENDED_ROW = {
    **OPEN_ROW,
    "id": ENDED.job_id,
    "dataset": "ended",
    "status": "completed",
    "duration": "2m 7s",
    "durationSeconds": 127.0,
    "progress": 100,
    "phase": None,
    "currentFile": None,
}


def _archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("paper1.pdf", "paper2.pdf", "paper3.pdf"):
            archive.writestr(name, b"%PDF-1.7")
    return content.getvalue()


PAPERS = _archive()
DRIVE_FILES = ("1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms", "1mGVIS7_2Dpkqf-9njVHoecgWQjiGHy7dnpgZg0jgHDU")


def selection(connection: str, *files: str, source_type: str = "local_zip") -> dict[str, Any]:
    return {"connection_id": connection, "source_type": source_type, "file_ids": list(files)}


BATCH = {
    "user_id": "user123",
    "name": "Research Papers Batch",
    "description": "Batch ingestion of ML research papers from multiple sources",
    "priority": "normal",
    "file_selections": [
        selection("gdrive_conn_1", *DRIVE_FILES, source_type="google_drive"),
        selection("local_zip_conn_1", "paper1.pdf", "paper2.pdf", "paper3.pdf"),
    ],
    "processing_options": {
        "use_llm_parsing": False,
        "embedding_model_preference": "text-embedding-3-large",
        "chunk_size": 1000,
        "chunk_overlap": 200,
        "quality_threshold": 0.7,
        "retry_failed_files": True,
        "max_retries": 3,
        "skip_existing": True,
        "preserve_structure": True,
        "extract_math": True,
        "parallel_processing": True,
        "max_workers": 4,
        "timeout_seconds": 300,
        "source_specific_options": {},
    },
}
NOTHING_YET = {"completed_files": 0, "failed_files": 0, "skipped_files": 0, "progress_percentage": 0.0}


def waiting(file_id: str, name: str, source_type: str) -> dict[str, Any]:
    return {
        "file_id": file_id,
        "status": "pending",
        "progress": 0,
        "current_step": SENTENCE,
        "error": None,
        "retry_count": 0,
        "file_metadata": {"name": name, "size": COUNT, "source_type": source_type},
    }


CREATED = {
    "job_id": uuid("batch"),
    "user_id": "user123",
    "name": "Research Papers Batch",
    "description": "Batch ingestion of ML research papers from multiple sources",
    "status": "pending",
    "priority": "normal",
    "created_at": TIME,
    "started_at": None,
    "completed_at": None,
    "total_files": 5,
    **NOTHING_YET,
    "estimated_duration_ms": COUNT,
    "warnings": [SENTENCE],
    "source_progress": [
        {
            "source_type": "google_drive",
            "connection_id": "gdrive_conn_1",
            "total_files": 2,
            **NOTHING_YET,
            "files": [
                waiting(file_id, f"paper {place}.pdf", "google_drive")
                for place, file_id in enumerate(DRIVE_FILES)
            ],
        },
        {
            "source_type": "local_zip",
            "connection_id": "local_zip_conn_1",
            "total_files": 3,
            **NOTHING_YET,
            "files": [waiting(f"paper{place}.pdf", f"paper{place}.pdf", "local_zip") for place in (1, 2, 3)],
        },
    ],
}
LISTED = job(
    506,
    kind=JobKind.BATCH,
    source=None,
    batch=BatchSource(
        name="Research Papers Batch",
        manifest="m",
        parts=(BatchPart(connection_id="c", source_type=SourceType.GOOGLE_DRIVE, files=5),),
    ),
    tally=Tally(parts=(PartTally(completed=3),)),
    started_at=MORNING,
)
COUNTED = BatchSummary(
    by_state={"completed": 10, "running": 2, "failed": 2, "cancelled": 1},
    by_priority={"normal": 12, "high": 2, "urgent": 1},
    by_source={
        "google_drive": SourceSummary(completed=70, failed=10),
        "local_zip": SourceSummary(completed=40, skipped=4, failed=1),
        "local_directory": SourceSummary(completed=25),
    },
    seconds_per_file=45.0,
)
HIT = {
    "id": "r1",
    "chunk": "class Context:",
    "file": "src/context.py",
    "lineSpan": {"start": 12, "end": 48},
    "symbol": "Context",
    "language": "python",
    "repository": "github.com/o/r",
    "commit": SHA,
    "url": None,
    "scores": {"dense": 0.5, "sparse": None, "structural": None, "rerank": None, "final": 0.03},
}
FOUND = {"request_id": uuid(), "results": [HIT], "metadata": {"mode": "hybrid"}, "latency_ms": NUMBER}
NO_DATASET = {"detail": "There is no such dataset", "code": "not_found"}
INDEXED_AT = f"/api/v1/repositories/{repository_id('default', 'github.com/o/indexed')}"
INDEXED = {"repository": "github.com/o/indexed", "branch": "main", "commit": SHA}
FRESHNESS = {"indexed_at": TIME, "age_seconds": NUMBER}
REPOSITORY = {
    "id": repository_id("default", "github.com/o/indexed"),
    "host": "github.com",
    "name": "o/indexed",
    "branches": [{"branch": "main", "dataset": "indexed", "commit": SHA, "freshness": FRESHNESS}],
    "freshness": FRESHNESS,
}
NO_JOB = {"detail": "There is no such job", "code": "not_found"}
HERE = "/projects/default"
EDITOR = {"x-api-key": TOKEN, "x-role": "editor"}
ADMIN_KEY = {"x-admin-key": TOKEN}
NOON = datetime(2025, 1, 15, 10, 30, tzinfo=UTC)
TIMES = {"submitted_at": NOON, "started_at": NOON.replace(second=2), "ended_at": NOON.replace(second=15)}
TEXT_SOURCE = DocumentSource(label="docs", identity="docs/text-1", object_name="o")
PAGE_SOURCE = DocumentSource(label="web", identity="https://example.com/x", url="https://example.com/x")
WAITING_TEXT = document_job(504, document=TEXT_SOURCE, submitted_at=NOON)
READ_TEXT = document_job(505, document=TEXT_SOURCE, result=result(chunks=42), **TIMES)
MISSING_PAGE = document_job(
    506, kind=JobKind.URL, document=PAGE_SOURCE, error="HTTPError: 404 Not Found", **TIMES
)


def knowledge(**changes: Any) -> dict[str, Any]:
    return {"ok": True, "job_id": uuid(), "queued": True, "tenant": "default", **changes}


README = {
    "title": "pharos README",
    "content": "...",
    "url": "https://github.com/ram-tewari/pharos/blob/main/README.md",
    "resource_type": "PRACTICE",
}
RESOURCE = {
    "id": uuid("resource"),
    "title": README["title"],
    "url": README["url"],
    "resource_type": "PRACTICE",
    "status": "queued",
    "job_id": uuid("read"),
    "created_at": TIME,
}
KEPT = Resource(
    resource_id="0199a3c4-6c00-7abc-8def-0123456789ab",
    tenant="default",
    project="default",
    user="admin",
    title="A paper",
    url="https://h.example/paper",
    resource_type="PAPER",
    job_id=ENDED.job_id,
    created_at=MORNING,
    updated_at=MORNING,
)

CASES = (
    # Resources
    Case(
        send="POST /resources/ingest-repo",
        body={"git_url": "https://github.com/ram-tewari/pharos"},
        headers=BEARER,
        status=202,
        answer=SUBMITTED,
    ),
    Case(
        send="POST /ingest",
        body={
            "repo_url": "https://github.com/ram-tewari/other",
            "user_id": "1c3c6cb0-4c10-46ba-b9ad-8ca82fc008fa",
        },
        headers=BEARER,
        status=202,
        answer=SUBMITTED,
    ),
    Case(
        send="POST /ingest",
        body={"repo_url": "https://github.com/o/r", "user_id": "1c3c6cb0-4c10-46ba-b9ad-8ca82fc008fa"},
        status=403,
        answer={"detail": SENTENCE, "code": "other_user"},
    ),
    Case(
        send="POST /resources/ingest-repo",
        body={"git_url": "https://github.com/o"},
        headers=BEARER,
        status=400,
        answer={"detail": "Invalid repository URL", "code": "invalid_repository_url", "reason": SENTENCE},
    ),
    Case(send="POST /resources", body=README, headers=BEARER, status=201, answer=RESOURCE),
    Case(
        send="POST /resources",
        body={**README, "content": "Another text."},
        headers=BEARER,
        status=201,
        answer={**RESOURCE, "job_id": uuid()},
    ),
    Case(
        send="GET /resources?limit=10&offset=0&type=PRACTICE",
        headers=BEARER,
        status=200,
        answer={"resources": [{**RESOURCE, "job_id": uuid()}], "total": 1, "has_more": False},
    ),
    Case(
        send=f"GET /resources/{KEPT.resource_id}",
        headers=BEARER,
        status=200,
        answer={"id": KEPT.resource_id, "status": "completed", "job_id": ENDED.job_id},
    ),
    Case(
        send="GET /resources/0",
        headers=BEARER,
        status=404,
        answer={"detail": "There is no such resource", "code": "not_found"},
    ),
    Case(
        send="POST /resources",
        body={**README, "url": "README.md"},
        headers=BEARER,
        status=400,
        answer={"detail": SENTENCE, "code": "invalid_request", "field": "url"},
    ),
    Case(
        send=f"DELETE /resources/{KEPT.resource_id}",
        headers=BEARER,
        status=503,  # no worker lives here
        answer={"detail": SENTENCE, "code": "unavailable"},
    ),
    # Submitting into a project
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": f"github.com/{SLUG}", "dataset": "atlas-core", "branch": "main", "scope": "project"},
        status=202,
        answer=queued(jobId=uuid("one"), repository=SLUG),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": f"https://github.com/{SLUG}.git", "dataset": "atlas-core", "branch": "main"},
        status=200,
        answer=queued(jobId=uuid("one"), repository=SLUG, message="GitHub ingest job already queued"),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": SLUG, "dataset": "atlas-core", "branch": "main"},
        status=200,
        answer=queued(jobId=uuid("one"), repository=SLUG, message="GitHub ingest job already queued"),
    ),
    Case(send=f"POST {HERE}/ingest/github", body=ingest(), status=202, answer=queued()),
    Case(
        send="POST /projects/atlas/ingest/github",
        body=ingest(dataset=None, scope="global"),
        status=202,
        answer=queued(project="atlas", dataset="github.com/o/r@main", scope="global"),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": "github.com/o/no-branch"},
        status=202,
        answer=queued(dataset=None, branch=None, repository="o/no-branch"),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body=ingest(repo="github.com/o/indexed", dataset="indexed", sha=SHA),
        status=200,
        answer=queued(
            jobId=ENDED.job_id,
            status="skipped",
            message="This commit is indexed already",
            dataset="indexed",
            repository="o/indexed",
        ),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": "github.com/o/indexed", "sha": SHA.upper()},
        status=200,
        answer=queued(
            jobId=ENDED.job_id,
            status="skipped",
            message="This commit is indexed already",
            dataset="indexed",
            repository="o/indexed",
        ),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body=ingest(repo="github.com/o/indexed", dataset="indexed", sha=SHA, force=True),
        status=202,
        answer=queued(dataset="indexed", repository="o/indexed", sha=SHA),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body=ingest(repo="github.com/o/indexed", dataset="indexed", sha=SHA, scope="global"),
        status=200,  # the same work as the one before, which waits
        answer=queued(
            dataset="indexed", repository="o/indexed", message="GitHub ingest job already queued", sha=SHA
        ),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": "github.com/o/once", "branch": "main"},
        headers={"Idempotency-Key": "once"},
        status=202,
        answer=queued(jobId=uuid("once"), repository="o/once", dataset="github.com/o/once@main"),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body={"repo": "github.com/o/once", "branch": "main"},
        headers={"Idempotency-Key": "once"},
        status=202,
        answer=queued(jobId=uuid("once"), repository="o/once", dataset="github.com/o/once@main"),
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body=ingest(),
        headers={"Idempotency-Key": "x" * 256},
        status=400,
        answer={"detail": SENTENCE, "code": "invalid_request"},
    ),
    Case(
        send="POST /projects/all/ingest/github",
        body=ingest(),
        status=400,
        answer={"detail": SENTENCE, "code": "invalid_request", "field": "project"},
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body=ingest(sha="9fceb02"),
        status=400,
        answer={"detail": "Invalid branch or commit", "code": "invalid_ref", "reason": SENTENCE},
    ),
    Case(
        send=f"POST {HERE}/ingest/github",
        body=ingest(scope="everybody"),
        status=400,
        answer={"detail": SENTENCE, "code": "invalid_request"},
    ),
    # Reading and controlling
    Case(
        send="GET /projects/default/stats",
        status=200,
        answer={
            "project": "default",
            "datasets": 1,
            "repositories": 1,
            "files": 342,
            "chunks": 2210,
            "lastIndexedAt": TIME,
            "jobs": {"queued": COUNT, "running": 1},
        },
    ),
    Case(send=f"GET {HERE}/ingest/history", status=200, answer=OPEN_ROW, among=True),
    Case(send=f"GET {HERE}/ingest/history", status=200, answer=ENDED_ROW, among=True),
    Case(send="GET /projects/all/ingest/history?limit=100", status=200, answer=ENDED_ROW, among=True),
    Case(send="GET /projects/nobody/ingest/history", status=200, answer=[]),
    Case(send=f"GET {HERE}/ingest/jobs/{RUNNING.job_id}", status=200, answer=OPEN_ROW),
    Case(send=f"GET {HERE}/ingest/jobs/{ENDED.job_id}", status=200, answer=ENDED_ROW),
    Case(
        send=f"GET {HERE}/ingest/jobs/{FAILED.job_id}",
        status=200,
        answer={"status": "failed", "error": "Failed to clone repository"},
    ),
    Case(send=f"GET /projects/atlas/ingest/jobs/{RUNNING.job_id}", status=404, answer=NO_JOB),
    Case(
        send=f"GET /api/v1/jobs/{RUNNING.job_id}/log",
        status=200,
        answer={
            "job_id": RUNNING.job_id,
            "lines": [{"at": TIME, "level": "info", "text": "Queued"}],
            "cursor": None,
        },
    ),
    Case(send="GET /api/v1/jobs/018d2f5e-0000-7c41-9f60-000000000000/log", status=404, answer=NO_JOB),
    Case(
        send=f"GET {HERE}/ingest/jobs/{RUNNING.job_id}/logs",
        status=200,
        answer={
            "jobId": RUNNING.job_id,
            "logs": [{"timestamp": TIME, "level": "info", "message": "Queued"}],
            "cursor": None,
        },
    ),
    Case(send=f"GET /projects/atlas/ingest/jobs/{RUNNING.job_id}/logs", status=404, answer=NO_JOB),
    Case(send=f"POST /projects/atlas/ingest/jobs/{RUNNING.job_id}/pause", status=404, answer=NO_JOB),
    Case(
        send=f"POST {HERE}/ingest/jobs/{RUNNING.job_id}/pause",
        status=200,
        answer={"id": RUNNING.job_id, "status": "queued", "state": "paused"},
    ),
    Case(
        send=f"POST {HERE}/ingest/jobs/{RUNNING.job_id}/resume",
        status=200,
        answer={"id": RUNNING.job_id, "status": "queued", "state": "queued"},
    ),
    Case(
        send=f"POST {HERE}/ingest/jobs/{RUNNING.job_id}/cancel",
        status=200,
        answer={"id": RUNNING.job_id, "status": "cancelled"},
    ),
    Case(
        send=f"POST {HERE}/ingest/jobs/{ENDED.job_id}/pause",
        status=409,
        answer={
            "detail": "Cannot pause a completed job",
            "code": "invalid_transition",
            "status": "completed",
        },
    ),
    Case(
        send=f"POST {HERE}/ingest/jobs/{FAILED.job_id}/retry",
        status=200,
        answer={"id": FAILED.job_id, "status": "queued"},
    ),
    Case(
        send=f"POST {HERE}/ingest/jobs/{ENDED.job_id}/stop",
        status=400,
        answer={"detail": SENTENCE, "code": "unknown_action"},
    ),
    # Searching
    Case(
        send=f"POST {HERE}/query",
        body={"query": "How does the Context class work?", "k": 5},
        status=200,
        answer=FOUND,
    ),
    Case(
        send=f"POST {HERE}/query",
        body={
            "query": "How does the Context class work?",
            "topK": 5,
            "dataset": "atlas-*",
            "repo": "github.com/o/r",
            "lang": "python",
            "pathPrefix": "src/",
            "threshold": 0.1,
            "includeGlobal": False,
            "mode": "hybrid",
        },
        status=200,
        answer=FOUND,
    ),
    Case(
        send="POST /projects/all/query",
        body={"query": "x", "dataset": ["a", "b"]},
        status=200,
        answer=FOUND,
    ),
    # Deleting
    Case(
        send=f"DELETE {HERE}/ingest/github",
        body={"dataset": "indexed"},
        status=200,
        answer={
            "project": "default",
            "dataset": "indexed",
            "projectId": SENTENCE,
            "datasetId": SENTENCE,
            "deletedVectors": 2210,
            "status": "deleted",
            "message": SENTENCE,
            "cancelledJobs": [],
        },
    ),
    Case(send=f"DELETE {HERE}/ingest/github", body={"dataset": "indexed"}, status=404, answer=NO_DATASET),
    Case(
        send=f"DELETE {HERE}/ingest/github",
        body={"repo": f"github.com/{SLUG}"},
        status=200,
        answer={"dataset": "atlas-core", "deletedVectors": 12, "status": "deleted"},
    ),
    Case(
        send="DELETE /projects/atlas/ingest/github",
        body={"repo": f"github.com/{SLUG}"},
        status=404,
        answer=NO_DATASET,
    ),
    Case(
        send=f"DELETE {HERE}/ingest/github",
        body={},
        status=400,
        answer={"detail": SENTENCE, "code": "invalid_request", "field": "dataset"},
    ),
    Case(
        send=f"DELETE {HERE}/ingest/github",
        body={"repo": f"github.com/{SLUG}/tree/main"},
        status=400,
        answer={"detail": SENTENCE, "code": "invalid_request", "field": "repo"},
    ),
    # Documents
    Case(
        send="POST /knowledge/ingest-text-async",
        body={"text": "Large document content...", "source": "docs"},
        headers={**EDITOR, "Idempotency-Key": "content"},
        status=200,
        answer=knowledge(job_id=uuid("text"), type="text", source="docs"),
    ),
    Case(
        send="POST /knowledge/ingest-text-async",
        body={"text": "Large document content...", "source": "docs"},
        headers={**EDITOR, "Idempotency-Key": "content"},
        status=200,
        answer=knowledge(job_id=uuid("text"), type="text", source="docs"),
    ),
    Case(
        send="POST /knowledge/ingest-url-async",
        body={"url": "https://example.com/docs", "source": "web"},
        headers=EDITOR,
        status=200,
        answer=knowledge(type="url", source="web", url="https://example.com/docs"),
    ),
    Case(
        send="POST /knowledge/ingest-url-async",
        body={"url": "https://example.com", "source": "web"},
        headers=EDITOR,
        status=200,
        answer=knowledge(type="url", source="web", url="https://example.com"),
    ),
    Case(
        send="POST /knowledge/ingest-file-async",
        form={"file": ("document.pdf", b"%PDF-1.7 "), "source": (None, "uploads")},
        headers=EDITOR,
        status=200,
        answer=knowledge(type="file", source="uploads", filename="document.pdf"),
    ),
    Case(
        send="POST /knowledge/ingest-file-async?source=query",
        form={"file": ("document.pdf", b"%PDF-1.7 ")},
        headers=EDITOR,
        status=200,
        answer=knowledge(type="file", source="query", filename="document.pdf"),
    ),
    Case(
        send="POST /knowledge/ingest-text-async",
        body={"text": "x", "source": "docs"},
        headers={**BEARER, "x-role": "viewer"},
        status=403,
        answer={"detail": SENTENCE, "code": "forbidden", "needed": "editor"},
    ),
    Case(
        send="POST /knowledge/ingest-text-async",
        body={"text": " ", "source": "docs"},
        status=400,
        answer={"detail": "The text is empty", "code": "document_empty"},
    ),
    Case(
        send="POST /knowledge/ingest-url-async",
        body={"url": "http://169.254.169.254/", "source": "web"},
        status=400,
        answer={"detail": "Invalid URL", "code": "invalid_url", "reason": SENTENCE},
    ),
    Case(
        send="POST /knowledge/ingest-file-async",
        form={"file": ("cat.png", b"\x89PNG\r\n", "image/png")},
        status=400,
        answer={"detail": SENTENCE, "code": "document_unsupported"},
    ),
    Case(
        send=f"GET /ops/jobs/{WAITING_TEXT.job_id}",
        headers=ADMIN_KEY,
        status=200,
        answer={
            "id": WAITING_TEXT.job_id,
            "status": "queued",
            "enqueued_at": "2025-01-15 10:30:00",
            "started_at": None,
            "ended_at": None,
        },
    ),
    Case(
        send=f"GET /ops/jobs/{READ_TEXT.job_id}",
        headers=ADMIN_KEY,
        status=200,
        answer={
            "id": READ_TEXT.job_id,
            "status": "finished",
            "enqueued_at": "2025-01-15 10:30:00",
            "started_at": "2025-01-15 10:30:02",
            "ended_at": "2025-01-15 10:30:15",
            "result": {
                "ok": True,
                "ingested_chunks": 42,
                "tenant": "default",
                "source": "docs",
                "latency_ms": 13000.0,
            },
        },
    ),
    Case(
        send=f"GET /ops/jobs/{MISSING_PAGE.job_id}",
        headers=ADMIN_KEY,
        status=200,
        answer={
            "id": MISSING_PAGE.job_id,
            "status": "failed",
            "enqueued_at": "2025-01-15 10:30:00",
            "started_at": "2025-01-15 10:30:02",
            "ended_at": "2025-01-15 10:30:15",
            "error": "HTTPError: 404 Not Found",
        },
    ),
    Case(send="GET /ops/jobs/abc-123-def", headers=ADMIN_KEY, status=404, answer=NO_JOB),
    # Several searches at once, and repositories
    Case(
        send="POST /api/v1/search/batch",
        body={"queries": [{"query": "How does the Context class work?"}, {"query": " "}], "k": 5},
        status=200,
        answer={
            "request_id": uuid(),
            "answers": [
                {"results": [HIT], "metadata": {"mode": "hybrid"}, "error": None},
                {"results": [], "error": {"detail": SENTENCE, "code": "invalid_request", "field": "query"}},
            ],
            "latency_ms": NUMBER,
        },
    ),
    Case(
        send="GET /api/v1/repositories",
        status=200,
        answer={"repositories": [REPOSITORY], "truncated": False},
    ),
    Case(send=f"GET {INDEXED_AT}", status=200, answer=REPOSITORY),
    Case(
        send=f"GET {INDEXED_AT}/graph?branch=main",
        status=200,
        answer={
            **INDEXED,
            "files": [{"path": "src/a.py"}, {"path": "src/b.py"}],
            "edges": [{"source": "src/a.py", "target": "src/b.py", "kind": "imports", "weight": 0.5}],
            "cursor": None,
        },
    ),
    Case(
        send=f"GET {INDEXED_AT}/related?path=src/b.py&symbol=",
        status=200,
        answer={**INDEXED, "related": [{"path": "src/a.py", "reasons": [SENTENCE], "score": 1.0}]},
    ),
    Case(
        send=f"GET {INDEXED_AT}/map",
        status=200,
        answer={**INDEXED, "files": [{"path": "src/a.py", "x": -1.0, "y": 0.25}]},
    ),
    Case(
        send="GET /api/v1/repositories/never",
        status=404,
        answer={"detail": "There is no such repository", "code": "not_found"},
    ),
    Case(
        send="POST /api/v1/jobs",
        body={"kind": "text", "text": "Large document content...", "source": "native"},
        status=202,
        answer={"job_id": uuid(), "kind": "text", "state": "queued", "dataset": "documents/native"},
    ),
    Case(
        send="POST /api/v1/jobs",
        body={"kind": "file"},
        status=400,
        answer={"detail": SENTENCE, "code": "wrong_route"},
    ),
    # Numbers and schedules
    Case(
        send="GET /projects/nobody/stats",
        status=200,
        answer={"datasets": 0, "files": 0, "chunks": 0, "lastIndexedAt": None},
    ),
    Case(
        send="POST /projects/default/schedules",
        body={"repo": "github.com/o/r", "dataset": "atlas-core", "branch": "main", "cron": "0 3 * * *"},
        status=201,
        answer={
            "id": uuid(),
            "project": "default",
            "repository": "github.com/o/r",
            "branch": "main",
            "dataset": "atlas-core",
            "scope": "project",
            "cron": "0 3 * * *",
            "timezone": "UTC",
        },
    ),
    # Connections
    Case(
        send="POST /connections",
        body={
            "id": "gdrive_conn_1",
            "source_type": "google_drive",
            "config": {
                "client_id": drive_server.CLIENT_ID,
                "client_secret": drive_server.CLIENT_SECRET,
                "refresh_token": drive_server.REFRESH_TOKEN,
                "endpoint": "{drive}",
                "token_endpoint": "{drive}/token",
            },
        },
        status=201,
        answer=DRIVE,
    ),
    Case(send="GET /connections", status=200, answer={"connections": [DRIVE]}),
    Case(
        send="POST /connections/upload?id=local_zip_conn_1",
        form={"file": ("papers.zip", PAPERS, "application/zip")},
        status=201,
        answer={"id": "local_zip_conn_1", "source_type": "local_zip"},
    ),
    Case(send="GET /api/v1/connections/gdrive_conn_1", status=200, answer=DRIVE),
    Case(
        send="GET /connections/never/files",
        status=404,
        answer={"detail": "There is no such connection", "code": "not_found"},
    ),
    # Batches
    Case(send="POST /batch/jobs", body=BATCH, status=200, answer=CREATED),
    Case(
        send="POST /batch/jobs",
        body={
            "user_id": "user123",
            "name": "Test Batch Job",
            "file_selections": [
                {
                    "connection_id": "local_zip_conn_1",
                    "source_type": "local_zip",
                    "file_ids": ["paper1.pdf", "paper2.pdf"],
                }
            ],
        },
        status=200,
        answer={"name": "Test Batch Job", "status": "pending", "total_files": 2, "priority": "normal"},
    ),
    Case(send="GET /batch/jobs/{batch}?user_id=user123", status=200, answer=CREATED),
    Case(send="GET /batch/jobs/{batch}?user_id=user124", status=404, answer=NO_JOB),
    Case(
        send="POST /batch/jobs/{batch}/control",
        body={"user_id": "user123", "action": "start", "retry_failed_only": True},
        status=200,
        answer={"success": True, "message": "Job start successful"},
    ),
    Case(
        send="POST /batch/jobs/{batch}/control",
        body={"user_id": "user123", "action": "cancel"},
        status=200,
        answer={"success": True, "message": "Job cancel successful"},
    ),
    Case(
        send="POST /batch/jobs/{batch}/control",
        body={"user_id": "user123", "action": "pause"},
        status=409,
        answer={
            "detail": "Cannot pause a cancelled job",
            "code": "invalid_transition",
            "status": "cancelled",
        },
    ),
    Case(
        send="POST /batch/jobs/{batch}/control",
        body={"user_id": "user123", "action": "dance"},
        status=400,
        answer={"detail": SENTENCE, "code": "unknown_action"},
    ),
    Case(
        send="POST /batch/jobs/list",
        body={"user_id": "user123", "status_filter": ["running", "completed"], "limit": 10, "offset": 0},
        status=200,
        answer={
            "jobs": [
                {
                    "job_id": uuid(),
                    "name": "Research Papers Batch",
                    "status": "running",
                    "progress_percentage": 60.0,
                    "created_at": TIME,
                    "total_files": 5,
                    "completed_files": 3,
                }
            ],
            "total_jobs": 1,
            "has_more": False,
        },
    ),
    Case(
        send="GET /batch/statistics?user_id=user123",
        status=200,
        answer={
            "total_jobs": 15,
            "active_jobs": 2,
            "completed_jobs": 10,
            "failed_jobs": 2,
            "cancelled_jobs": 1,
            "total_files_processed": 150,
            "average_processing_time_ms": 45000,
            "success_rate": 92.7,
            "by_source_type": {"google_drive": 80, "local_zip": 45, "local_directory": 25},
            "by_priority": {"normal": 12, "high": 2, "urgent": 1},
            "by_status": {"completed": 10, "running": 2, "failed": 2, "cancelled": 1},
        },
    ),
    *(
        Case(
            send="POST /batch/jobs",
            body={**BATCH, **changes},
            status=400,
            answer={"detail": SENTENCE, "code": code},
        )
        for changes, code in (
            ({"file_selections": []}, "invalid_request"),
            ({"processing_options": {"unknown": 1}}, "invalid_request"),
            ({"processing_options": {"quality_threshold": 1.7}}, "invalid_request"),
            ({"file_selections": [selection("local_zip_conn_1", "paper9.pdf")]}, "unknown_file"),
            ({"file_selections": [selection("nowhere", "paper1.pdf")]}, "unknown_connection"),
            (
                {"file_selections": [selection("gdrive_conn_1", "paper1.pdf")]},
                "wrong_source_type",
            ),
        )
    ),
)


Question = ListJobs | FindJob | ReadLog | ListBatches | ListItems | SummarizeBatches | MeasureSources


class World:
    """The other services, as far as the gateway can tell."""

    def __init__(self) -> None:
        self.ended = [ENDED, FAILED]
        self.searched: list[Search] = []
        self.shelf = Shelf()
        self.shelf.put("indexed", 2210, repository="github.com/o/indexed")
        self.shelf.put("atlas-core", 12, repository=f"github.com/{SLUG}")

    async def history(self, question: Question) -> Message:
        match question:
            case MeasureSources():
                return SourceRates(seconds_per_file={"google_drive": 30.0})
            case SummarizeBatches():
                return COUNTED
            case ListBatches():
                listed = JobView(job=replace(LISTED, state=JobState.RUNNING), sequence=1, changed_at=now())
                return BatchPage(jobs=(listed,), total=1, sequence=10**6)
            case ListItems():
                return ItemPage(items=())
        if isinstance(question, ReadLog):
            line = LogEntry(sequence=1, event="jobs.event.v1.queued", at=now(), text="Queued")
            return JobLog(entries=(line,))
        shown: list[Job] = []
        if isinstance(question, ListJobs) and question.project in (None, "default"):
            shown = [replace(RUNNING, state=JobState.RUNNING), replace(ENDED, state=JobState.COMPLETED)]
            shown = [each for each in shown if not question.states or each.state in question.states]
        return JobPage(jobs=tuple(JobView(job=each, sequence=1, changed_at=now()) for each in shown))

    async def ask(self, question: Search | SearchBatch | ReadGraph | ReadMap | FindRelated) -> Message:
        if isinstance(question, SearchBatch):
            answers = tuple([self.search(each) for each in question.queries])
            return SearchBatchAnswer(answers=answers, latency_ms=1.5)
        return self.search(question) if isinstance(question, Search) else structure(question)

    def search(self, question: Search) -> SearchAnswer:
        self.searched.append(question)
        hit = SearchResult(
            id="r1",
            chunk="class Context:",
            file="src/context.py",
            line_span=LineSpan(start=12, end=48),
            symbol="Context",
            kind="class",
            language="python",
            project="default",
            dataset="atlas-core",
            repository="github.com/o/r",
            commit=SHA,
            url=None,
            scores=Scores(dense=0.5, final=0.03),
        )
        return SearchAnswer(results=(hit,), metadata={"mode": question.mode.value}, latency_ms=1.5)


def structure(question: ReadGraph | ReadMap | FindRelated) -> Message:
    """What the search service knows of the structure of the one repository."""
    indexed = Indexed(**INDEXED, tenant="default", project="default", dataset="indexed", generation=1)
    if isinstance(question, ReadGraph):
        edge = GraphEdge(target="src/b.py", kind=EdgeKind.IMPORTS, weight=0.5)
        files = tuple(
            GraphFile(path=path, language="python", lines=3, edges_in=0, edges_out=len(edges), edges=edges)
            for path, edges in (("src/a.py", (edge,)), ("src/b.py", ()))
        )
        return GraphPage(
            indexed=indexed, files=files, files_total=2, edges_total=1, edges_dropped=0, after=None
        )
    if isinstance(question, ReadMap):
        place = MappedFile(path="src/a.py", language="python", lines=3, x=-1.0, y=0.25)
        return MapPage(indexed=indexed, files=(place,), files_total=1, after=None)
    related = RelatedFile(
        path="src/a.py",
        language="python",
        lines=3,
        score=1.0,
        structural=0.8,
        mentions=None,
        ties=(),
        reasons=("imports src/b.py",),
    )
    assert question.path is not None
    return RelatedFiles(indexed=indexed, path=question.path, symbol=question.symbol, files=(related,))


@asynccontextmanager
async def furnished(bus: Bus, nats_url: str) -> AsyncIterator[World]:
    """The other services, the jobs and the dataset that the cases are about."""
    world = World()
    broker = NatsBroker(nats_url)
    answer(broker, rpc.HISTORY, Question, world.history)
    answer(broker, rpc.STORE, FindDatasets | DeleteDataset, world.shelf.answer)
    answer(broker, rpc.SEARCH, Search | SearchBatch | ReadGraph | ReadMap | FindRelated, world.ask)
    told = History(bus)
    await told.tell(RUNNING, JobState.RUNNING)
    await told.tell(ENDED, JobState.COMPLETED)
    await told.tell(FAILED, JobState.FAILED)
    await told.tell(WAITING_TEXT, JobState.QUEUED)
    await told.tell(READ_TEXT, JobState.COMPLETED)
    await told.tell(MISSING_PAGE, JobState.FAILED)
    progress = Progress(
        tenant="default",
        job_id=RUNNING.job_id,
        item_id="i",
        attempt=1,
        at=now(),
        stage=Stage.ENCODE,
        done=3,
        total=4,
        percent=75.9,
        current_file="src/context.ts",
    )
    await bus.publish(progress_subject(progress), progress)
    indexed = Dataset(
        tenant="default",
        project="default",
        dataset="indexed",
        scope=Scope.PROJECT,
        repository="github.com/o/indexed",
        clone_url="https://github.com/o/indexed",
        branch="main",
        commit=SHA,
        generation=1,
        stage=IndexStage.FULL,
        job_id=ENDED.job_id,
        files=342,
        chunks=2210,
        encoder="e",
        chunker="c",
        published_at=now(),
    )
    await Bucket(bus, KV_DATASETS, Dataset).put(dataset_key("default", "default", "indexed"), indexed)
    await Bucket(bus, KV_RESOURCES, Resource).put(f"default.{KEPT.resource_id}", KEPT)
    async with broker:
        await broker.start()
        yield world


def difference(expected: Any, found: Any, names: dict[str, Any], at: str = "") -> str | None:
    """Where *found* is not as *expected*; None where it is. Further fields are no difference."""
    if isinstance(expected, Like):
        fits = expected.fits(found)
        if fits and expected.name is not None:
            fits = names.setdefault(expected.name, found) == found
        return None if fits else f"{at}: {found!r} is not {expected!r}"
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key not in found:
                return f"{at}.{key} is missing"
            wrong = difference(value, found[key], names, f"{at}.{key}")
            if wrong is not None:
                return wrong
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        wrongs = (difference(*each, names, f"{at}[]") for each in zip(expected, found, strict=True))
        return next((wrong for wrong in wrongs if wrong is not None), None)
    return None if expected == found else f"{at}: {found!r} instead of {expected!r}"


def mistake(case: Case, response: httpx.Response, names: dict[str, Any]) -> str | None:
    if response.status_code != case.status:
        return f"{response.status_code} instead of {case.status}: {response.text[:300]}"
    body = response.json()
    if not case.among:
        return difference(case.answer, body, names)
    wrongs = [difference(case.answer, each, names) for each in body]
    return None if None in wrongs else f"not among the answers: {wrongs}"


def filled(sent: Any, names: Mapping[str, Any]) -> Any:
    """*sent*, with what an earlier answer gave a name, or a server its address, in place of ``{name}``."""
    match sent:
        case str():
            for name, value in names.items():
                sent = sent.replace(f"{{{name}}}", str(value))
            return sent
        case dict():
            return {key: filled(value, names) for key, value in sent.items()}
        case _:
            return sent


@pytest.fixture
def drive() -> Iterator[DriveServer]:
    with DriveServer() as server:
        yield server


async def test_every_example_is_answered_to_the_letter(
    bus: Bus, nats_server: NatsServer, drive: DriveServer
) -> None:
    def decide(command: AnyCommand, _: int) -> Message | None:
        assert isinstance(command, PutSchedule)
        return Scheduled(schedule=command.schedule)

    chosen = settings(
        nats_server.url,
        git_allowed_hosts="http://github.com",
        web_allowed_hosts=f"*,http://example.com,{drive.url}",
        anonymous="default:editor",
        secret_key=Secret("k" * 32),
    )
    names: dict[str, Any] = {"drive": drive.url}
    for place, file_id in enumerate(DRIVE_FILES):
        drive.add(file_id, f"paper {place}.pdf", content=b"%PDF-1.7", mime_type="application/pdf")
    wrong = []
    async with (
        furnished(bus, nats_server.url),
        serving(chosen) as running,
        client(running.address) as http,
        leading(bus) as scheduler,
    ):
        await until_ready(http)
        for case in CASES:
            method, _, path = filled(case.send, names).partition(" ")
            body = filled(case.body, names)
            scheduler.decide = decide if path.endswith("/schedules") else None
            deadline = asyncio.get_running_loop().time() + 3
            while True:
                response = await http.request(
                    method, path, json=body, files=case.form, headers=dict(case.headers)
                )
                found = mistake(case, response, names)
                # What is read may take a moment to be known; what is sent is sent once.
                if found is None or method != "GET" or asyncio.get_running_loop().time() > deadline:
                    break
                await asyncio.sleep(0.05)
            if found is not None:
                wrong.append((case.send, case.body, found))
    assert wrong == []
