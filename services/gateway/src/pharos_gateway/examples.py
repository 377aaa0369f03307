"""What requests are answered with, by example: the OpenAPI document shows these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pharos_sources.document_kinds import SUPPORTED

INVALID_CONNECTION: Final = {
    "detail": "bucket: it is missing",
    "code": "invalid_connection",
    "field": "bucket",
}
CONNECTION: Final = {
    "id": "gdrive_conn_1",
    "tenant": "default",
    "source_type": "google_drive",
    "name": "Papers",
    "project": "default",
    "config": {"folder_id": "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms", "drive_id": None},
    "secrets": ["service_account"],
    "archive_bytes": 0,
    "created_at": "2024-01-20T10:28:00Z",
    "created_by": "ada",
}
ARCHIVE_CONNECTION: Final = {
    **CONNECTION,
    "id": "local_zip_conn_1",
    "source_type": "local_zip",
    "name": "papers.zip",
    "config": {"upload_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90"},
    "secrets": [],
    "archive_bytes": 1_482_131,
}
CONNECTIONS: Final = {"connections": [CONNECTION], "truncated": False}
FILES: Final = {
    "files": [
        {
            "file_id": "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms",
            "name": "2024/paper1.pdf",
            "size": 148_213,
            "modified": "2024-01-20T10:28:00Z",
            "content_type": "application/pdf",
            "identity": "md5:5d41402abc4b2a76b9719d911017c592",
        }
    ],
    "cursor": None,
    "left_out": {"shortcut": 1},
}
TESTED: Final = {"ok": True, "detail": None, "transient": None, "latency_ms": 182.4}
EMPTY_DOCUMENT: Final = {"detail": "The text is empty", "code": "document_empty"}
UNSAFE_URL: Final = {"detail": "Invalid URL", "code": "invalid_url", "reason": "the host is not public"}
UNSUPPORTED_DOCUMENT: Final = {
    "detail": f"It is a picture; what is read here is {SUPPORTED}.",
    "code": "document_unsupported",
}
TEXT_QUEUED: Final[Mapping[str, Any]] = {
    "ok": True,
    "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "queued": True,
    "type": "text",
    "tenant": "default",
    "source": "docs",
    "deduplicated": False,
}
URL_QUEUED: Final = {**TEXT_QUEUED, "type": "url", "source": "web", "url": "https://example.com/docs"}
FILE_QUEUED: Final = {**TEXT_QUEUED, "type": "file", "source": "uploads", "filename": "document.pdf"}
DOCUMENT_JOB: Final = {
    "id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "status": "finished",
    "enqueued_at": "2025-01-15 10:30:00",
    "started_at": "2025-01-15 10:30:02",
    "ended_at": "2025-01-15 10:30:15",
    "result": {
        "ok": True,
        "ingested_chunks": 42,
        "tenant": "default",
        "source": "docs",
        "latency_ms": 12500.5,
        "lang": "en",
    },
}
INVALID_URL: Final = {
    "detail": "Invalid repository URL",
    "code": "invalid_repository_url",
    "reason": "credentials in a URL are not accepted",
}
SUBMITTED: Final = {
    "status": "dispatched",
    "job_id": 1,
    "queue_position": 1,
    "target": "RTX-4070-Node",
    "queue_size": 1,
    "max_queue_size": 10,
    "id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "deduplicated": False,
}
RESOURCE: Final[Mapping[str, Any]] = {
    "id": "4b5f0c1e-9d2a-7c63-8e14-6a0f2b7d9c35",
    "title": "pharos README",
    "url": "https://github.com/ram-tewari/pharos/blob/main/README.md",
    "resource_type": "PRACTICE",
    "status": "completed",
    "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "created_at": "2024-01-20T10:30:00Z",
    "updated_at": "2024-01-20T10:30:00Z",
    "error": None,
}
CREATED_RESOURCE: Final = {**RESOURCE, "status": "queued"}
RESOURCES: Final = {"resources": [RESOURCE], "total": 1, "limit": 20, "offset": 0, "has_more": False}
INVALID_LINK: Final = {
    "detail": "The url must be an absolute http or https address",
    "code": "invalid_request",
    "field": "url",
}
WORKER_STATUS: Final = {
    "status": "Training Graph on github.com/user/repo1",
    "workers": [
        {
            "name": "RTX-4070-Node",
            "status": "Training Graph on github.com/user/repo1",
            "device": "cuda:0",
            "job_id": 1,
            "since": "2024-01-20T10:28:00Z",
            "last_seen": "2024-01-20T10:30:00Z",
            "memory_used": 3_221_225_472,
            "memory_total": 12_884_901_888,
        }
    ],
}
WORKERS: Final = {
    "workers": [
        {
            "name": "RTX-4070-Node",
            "status": "Training Graph on github.com/user/repo1",
            "state": "busy",
            "device": "cuda:0",
            "pool": "default",
            "slots": 1,
            "job_id": 1,
            "job_ids": ["018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90"],
            "stage": "encode",
            "since": "2024-01-20T10:28:00Z",
            "last_seen": "2024-01-20T10:30:00Z",
            "memory_used": 3_221_225_472,
            "memory_total": 12_884_901_888,
            "versions": {"pharos": "0.1.0"},
        }
    ]
}
JOB: Final[Mapping[str, Any]] = {
    "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "number": 1,
    "state": "queued",
    "kind": "repository",
    "tenant": "default",
    "source": {
        "identity": "github.com/user/repo1",
        "clone_url": "https://github.com/user/repo1",
        "branch": None,
        "sha": None,
    },
    "project": "default",
    "dataset": None,
    "scope": "project",
    "priority": "normal",
    "trigger": "interactive",
    "force": False,
    "submitted_at": "2024-01-20T10:28:00Z",
    "submitted_by": "admin",
    "started_at": None,
    "ended_at": None,
    "paused_at": None,
    "controlled_by": None,
    "next_attempt_at": None,
    "queue_position": 2,
    "estimated_start_at": "2024-01-20T10:31:00Z",
    "attempt": 0,
    "max_attempts": 4,
    "worker": None,
    "error": None,
    "code": None,
    "reason": None,
    "age_seconds": None,
    "result": None,
    "progress": None,
    "waiting_for_worker": False,
}
PAUSED_JOB: Final[Mapping[str, Any]] = {
    **JOB,
    "state": "paused",
    "paused_at": "2024-01-20T10:29:00Z",
    "controlled_by": "admin",
    "queue_position": None,
    "estimated_start_at": None,
}
JOBS: Final = {
    "jobs": [{**JOB, "queue_position": None, "estimated_start_at": None}],
    "cursor": None,
}
DELETED: Final = {
    "datasets": ["github.com/user/repo1@main"],
    "vectors": 2210,
    "jobs": ["018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90"],
}
DATASETS: Final = {
    "datasets": [
        {
            "tenant": "default",
            "project": "default",
            "dataset": "github.com/user/repo1@main",
            "scope": "project",
            "repository": "github.com/user/repo1",
            "branch": "main",
            "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
            "generation": 1_705_746_607,
            "stage": "full",
            "files": 342,
            "chunks": 2_210,
            "encoder": "all-MiniLM-L6-v2",
            "chunker": "1",
            "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
            "published_at": "2024-01-20T10:30:07Z",
        }
    ],
    "truncated": False,
}
UNKNOWN_ACTION: Final = {
    "detail": "Unknown action 'stop'; the actions are pause, resume, cancel, retry",
    "code": "unknown_action",
}
QUEUE: Final = {
    "depth": 3,
    "capacity": 10,
    "documents_capacity": 1000,
    "oldest_age_seconds": 12.5,
    "by_priority": {"urgent": 0, "high": 1, "normal": 2, "low": 0},
    "by_kind": {"repository": 3, "document": 0},
    "by_tenant": {"acme": 1, "default": 2},
}
DEAD_LETTER: Final[Mapping[str, Any]] = {
    "id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "kind": "job",
    "tenant": "default",
    "at": "2024-01-20T10:30:00Z",
    "reason": "Its worker died twice while it worked on this job",
    "code": "poison",
    "job": {
        **JOB,
        "state": "failed",
        "attempt": 2,
        "error": "Its worker died twice while it worked on this job",
        "code": "poison",
        "queue_position": None,
        "estimated_start_at": None,
    },
    "deaths": 2,
    "workers": ["RTX-4070-Node"],
    "stream": None,
    "subject": None,
    "payload_bytes": 0,
}
DEAD_LETTERS: Final = {"dead_letters": [DEAD_LETTER], "cursor": None}
RESENT: Final = {"dead_letter": "CONTROL-17", "status": "resent"}
SCHEDULE: Final[Mapping[str, Any]] = {
    "id": "nightly",
    "tenant": "default",
    "repository": "github.com/user/repo1",
    "branch": "main",
    "project": "default",
    "dataset": None,
    "scope": "project",
    "priority": "normal",
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "jitter_seconds": 600,
    "skip_unchanged": True,
    "created_at": "2024-01-20T10:30:00Z",
    "created_by": "admin",
    "next_run_at": "2024-01-21T02:04:17Z",
    "last_run_at": None,
    "last_job_id": None,
    "last_outcome": None,
}
SCHEDULES: Final = {"schedules": [SCHEDULE], "truncated": False}
INVALID_CRON: Final = {
    "detail": "The hour in '0 25 * * *' is not between 0 and 23",
    "code": "invalid_schedule",
}
CALLBACK: Final = (
    "the end of the job is told by a POST of `{event, delivery_id, at, job}`, with the headers "
    "`X-Pharos-Delivery`, `X-Pharos-Timestamp` (seconds since 1970) and `X-Pharos-Signature: v1=<hex>`, the "
    "HMAC-SHA256 of the timestamp, a full stop and the body under the secret of the tenant "
    "(`/api/v1/callbacks/secret`). Any 2xx within 10 s is taken for received and 410 for unwanted; else it "
    "is sent again, twelve times over some hours. It may arrive twice: `delivery_id` tells."
)
CALLBACK_SECRET: Final = {
    "tenant": "default",
    "secret": "5f1d7a84db00d2fce00b31a7fc73224f9a41d7e1e8a3f4c0b1f8b6f9ad7cbe12",
}
CALLBACKS_DISABLED: Final = {
    "detail": "Callbacks need the setting PHAROS_SECRET_KEY, which this installation does not have",
    "code": "callbacks_disabled",
}
WEBHOOK: Final[Mapping[str, Any]] = {
    "id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a93",
    "tenant": "default",
    "repository": "github.com/user/repo1",
    "branches": ["main", "release/*"],
    "project": "default",
    "dataset": None,
    "scope": "project",
    "priority": "normal",
    "path": "/webhooks/github",
    "created_at": "2024-01-20T10:30:00Z",
    "created_by": "admin",
}
CREATED_WEBHOOK: Final = {**WEBHOOK, "secret": "x" * 43}
WEBHOOKS: Final = {"webhooks": [WEBHOOK], "truncated": False}
PUSHED: Final = {
    "status": "accepted",
    "detail": "github.com/user/repo1 is indexed as soon as the pushes to the branch rest",
    "branch": "main",
    "sha": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
}
UNREADABLE_DELIVERY: Final = {
    "detail": "The body is not what GitHub sends for this event",
    "code": "invalid_request",
}
KEY: Final[Mapping[str, Any]] = {
    "id": "mzxw6ytboi4dcmrt",
    "tenant": "acme",
    "user": "ada",
    "role": "editor",
    "projects": ["atlas"],
    "name": "laptop",
    "state": "active",
    "created_at": "2024-01-20T10:30:00Z",
    "created_by": "admin",
    "expires_at": "2025-01-20T10:30:00Z",
    "rotated_at": None,
    "previous_until": None,
    "disabled_at": None,
    "disabled_by": None,
}
ISSUED_KEY: Final = {
    **KEY,
    "key": "pharos_mzxw6ytboi4dcmrt_" + "x" * 43,
}
DISABLED_KEY: Final = {
    **KEY,
    "state": "disabled",
    "disabled_at": "2024-02-01T08:00:00Z",
    "disabled_by": "admin",
}
KEYS: Final = {"keys": [KEY]}
TICKET: Final = {
    "ticket": "eyJrZXkiOiJtenh3NnkifQ.5f1d7a84",
    "expires_at": "2024-01-20T10:31:00Z",
    "expires_in_seconds": 60,
}
AUDIT: Final = {
    "events": [
        {
            "id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a92",
            "at": "2024-01-20T10:30:00Z",
            "tenant": "acme",
            "user": "ada",
            "role": "editor",
            "credential": "key:mzxw6ytboi4dcmrt",
            "client": "203.0.113.7",
            "action": "control_job",
            "target": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90/cancel",
            "status": 200,
            "lost": 0,
        }
    ],
    "cursor": None,
}
HEALTHY: Final[Mapping[str, Any]] = {
    "status": "healthy",
    "service": "pharos-gateway",
    "timestamp": "2024-01-20T10:30:00Z",
    "dependencies": {"bus": "ok", "scheduler": "ok", "search": "ok", "history": "ok"},
    "detail": None,
}
DEGRADED: Final[Mapping[str, Any]] = {
    **HEALTHY,
    "status": "degraded",
    "dependencies": {"bus": "ok", "scheduler": "unavailable", "search": "ok", "history": "ok"},
    "detail": "no scheduler leads: jobs wait",
}
HISTORY: Final = {
    "jobs": [
        {
            "job_id": 3,
            "repo_url": "github.com/user/repo1",
            "status": "complete",
            "duration_seconds": 127.5,
            "files_processed": 342,
            "embeddings_generated": 342,
            "timestamp": "2024-01-20T10:30:00Z",
        },
        {
            "job_id": 2,
            "repo_url": "github.com/user/repo2",
            "status": "failed",
            "error": "Failed to clone repository",
            "timestamp": "2024-01-20T10:25:00Z",
        },
        {
            "job_id": 1,
            "repo_url": "github.com/user/repo3",
            "status": "skipped",
            "reason": "Task exceeded TTL",
            "age_seconds": 90000,
            "timestamp": "2024-01-20T10:20:00Z",
        },
    ]
}
GITHUB_QUEUED: Final[Mapping[str, Any]] = {
    "jobId": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "status": "queued",
    "message": "GitHub ingest job queued",
    "project": "default",
    "dataset": "atlas-core",
    "repository": "o/r",
    "branch": "main",
    "scope": "project",
    "sha": None,
}
GITHUB_DELETED: Final = {
    "project": "default",
    "dataset": "atlas-core",
    "projectId": "9f2c4a6d1e7b8053a4c9d2e1f0b6a758",
    "datasetId": "1b7d5e3f9a8c60421d4e7f2a3c5b6d90",
    "deletedVectors": 2210,
    "status": "deleted",
    "message": "Dataset 'atlas-core' deleted, with 2210 vectors",
    "datasets": ["atlas-core"],
    "cancelledJobs": [],
}
GITHUB_SKIPPED: Final = {
    **GITHUB_QUEUED,
    "status": "skipped",
    "message": "This commit is indexed already",
    "sha": "9fceb02d0ae598e95dc970b74767f19372d61af8",
}
INGEST_ROW: Final[Mapping[str, Any]] = {
    "id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "source": "github",
    "project": "default",
    "dataset": "atlas-core",
    "scope": "project",
    "status": "running",
    "startedAt": "10:30 AM",
    "duration": "⏳ running",
    "summary": "o/r (main)",
    "progress": 75,
    "error": None,
    "startedAtIso": "2024-01-20T10:30:00Z",
    "durationSeconds": None,
    "state": "running",
    "number": 1,
    "repository": "github.com/o/r",
    "branch": "main",
    "sha": None,
    "commit": None,
    "reason": None,
    "phase": "Indexing repository...",
    "currentFile": "src/context.ts",
    "attempt": 1,
    "filesProcessed": None,
}
PAUSED_ROW: Final = {**INGEST_ROW, "status": "queued", "state": "paused", "phase": None, "currentFile": None}
INGEST_LOG: Final = {
    "jobId": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "logs": [{"timestamp": "2024-01-20T10:28:00Z", "level": "info", "message": "Queued as number 1"}],
    "cursor": None,
}
JOB_LOG: Final = {
    "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "lines": [{"at": "2024-01-20T10:28:00Z", "level": "info", "text": "Queued as number 1"}],
    "cursor": None,
}
PROJECT_STATS: Final = {
    "project": "default",
    "datasets": 1,
    "repositories": 1,
    "files": 342,
    "chunks": 2_210,
    "lastIndexedAt": "2024-01-20T10:30:07Z",
    "jobs": {"queued": 0, "running": 1, "truncated": False},
    "truncated": False,
}
PROJECT_SCHEDULE: Final = {
    "id": "nightly",
    "project": "default",
    "repository": "github.com/o/r",
    "branch": "main",
    "dataset": "atlas-core",
    "scope": "project",
    "cron": "0 3 * * *",
    "timezone": "UTC",
    "jitterSeconds": 0,
    "priority": "normal",
    "skipUnchanged": True,
    "createdAt": "2024-01-20T10:30:00Z",
    "nextRunAt": "2024-01-21T03:00:00Z",
}
SEARCH_ANSWER: Final = {
    "request_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a91",
    "results": [
        {
            "id": "8f14e45f",
            "chunk": "class Context:\n    ...",
            "file": "src/app/context.py",
            "lineSpan": {"start": 12, "end": 48},
            "symbol": "Context",
            "language": "python",
            "repository": "github.com/o/r",
            "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
            "url": "https://github.com/o/r/blob/9fceb02d0ae598e95dc970b74767f19372d61af8/src/app/context.py#L12-L48",
            "scores": {"dense": 0.61, "sparse": 7.2, "structural": None, "rerank": None, "final": 0.032},
        }
    ],
    "metadata": {"mode": "hybrid", "datasets": ["github.com/o/r@main"]},
    "latency_ms": 14.2,
}
REPOSITORY: Final[Mapping[str, Any]] = {
    "id": "3f1c7e0a9b5d4c2e8f6a1b0d7c9e5a42",
    "tenant": "default",
    "host": "github.com",
    "name": "user/repo1",
    "branches": [
        {
            "branch": "main",
            "project": "default",
            "dataset": "github.com/user/repo1@main",
            "scope": "project",
            "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
            "stage": "full",
            "generation": 1_705_746_607,
            "files": 342,
            "chunks": 2_210,
            "freshness": {"indexed_at": "2024-01-20T10:30:07Z", "age_seconds": 3600.0},
        }
    ],
    "freshness": {"indexed_at": "2024-01-20T10:30:07Z", "age_seconds": 3600.0},
}
_INDEXED: Final = {
    "id": REPOSITORY["id"],
    "tenant": "default",
    "repository": "github.com/user/repo1",
    "project": "default",
    "dataset": "github.com/user/repo1@main",
    "branch": "main",
    "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "generation": 1_705_746_607,
}
GRAPH: Final = {
    **_INDEXED,
    "files": [
        {"path": "src/app.py", "language": "python", "lines": 120, "edges_in": 0, "edges_out": 2},
        {"path": "src/context.py", "language": "python", "lines": 48, "edges_in": 1, "edges_out": 0},
    ],
    "edges": [
        {"source": "src/app.py", "target": "src/context.py", "kind": "imports", "weight": 0.59},
        {"source": "src/app.py", "target": "src/context.py", "kind": "references", "weight": 0.42},
    ],
    "files_total": 342,
    "edges_total": 1_204,
    "edges_left_out": 0,
    "cursor": "src/context.py",
}
MAP: Final = {
    **_INDEXED,
    "files": [{"path": "src/app.py", "language": "python", "lines": 120, "x": -0.4183, "y": 0.0721}],
    "files_total": 342,
    "cursor": "src/app.py",
}
RELATED: Final = {
    **_INDEXED,
    "path": "src/context.py",
    "symbol": "Context",
    "related": [
        {
            "path": "src/app.py",
            "language": "python",
            "lines": 120,
            "score": 1.0,
            "structural": 0.83,
            "mentions": 4.2,
            "ties": [{"kind": "imports", "direction": "in", "weight": 0.59}],
            "reasons": ["imports src/context.py", "mentions Context", "#1 of the nearest in the graph"],
        }
    ],
}
NO_GRAPH: Final = {
    "detail": "This index has no graph: an earlier release made it, or the graph is too large to be kept. "
    "Index the repository again, with force",
    "code": "no_graph",
}
REPOSITORIES: Final = {"repositories": [REPOSITORY], "truncated": False}
SEARCH_BATCH_ANSWER: Final = {
    "request_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a92",
    "answers": [
        {"results": SEARCH_ANSWER["results"], "metadata": {"mode": "hybrid"}, "error": None},
        {
            "results": [],
            "metadata": {},
            "error": {"detail": "The query is empty", "code": "invalid_request", "field": "query"},
        },
    ],
    "latency_ms": 21.7,
}

_BATCH_ROW: Final[Mapping[str, Any]] = {
    "job_id": "018d2f5e-3a7b-7c41-9f60-2b1d5c8e4a90",
    "user_id": "user123",
    "name": "Research Papers Batch",
    "description": "Batch ingestion of ML research papers from multiple sources",
    "status": "running",
    "priority": "normal",
    "created_at": "2024-01-15T10:30:00Z",
    "started_at": "2024-01-15T10:31:00Z",
    "completed_at": None,
    "total_files": 1,
    "completed_files": 0,
    "failed_files": 0,
    "skipped_files": 0,
    "progress_percentage": 0.0,
    "error": None,
}
BATCH: Final[Mapping[str, Any]] = {
    **_BATCH_ROW,
    "estimated_duration_ms": 5000,
    "warnings": [],
    "source_progress": [
        {
            "source_type": "google_drive",
            "connection_id": "gdrive_conn_1",
            "total_files": 1,
            "completed_files": 0,
            "failed_files": 0,
            "skipped_files": 0,
            "progress_percentage": 0.0,
            "files": [
                {
                    "file_id": "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms",
                    "status": "embedding",
                    "progress": 80,
                    "current_step": "Generating embeddings",
                    "error": None,
                    "retry_count": 0,
                    "file_metadata": {
                        "name": "research_paper.pdf",
                        "size": 2048576,
                        "source_type": "google_drive",
                    },
                }
            ],
        }
    ],
}
BATCH_CREATED: Final[Mapping[str, Any]] = {
    **BATCH,
    "status": "pending",
    "started_at": None,
    "source_progress": [
        {
            **BATCH["source_progress"][0],
            "files": [
                {
                    **BATCH["source_progress"][0]["files"][0],
                    "status": "pending",
                    "progress": 0,
                    "current_step": "Waiting",
                }
            ],
        }
    ],
    "warnings": [
        "embedding_model_preference: text-embedding-3-large is not the encoder of this installation: "
        "all-MiniLM-L6-v2 is used"
    ],
}
BATCHES: Final = {"jobs": [dict(_BATCH_ROW)], "total_jobs": 1, "has_more": False}
BATCH_CONTROLLED: Final = {"success": True, "message": "Job start successful"}
BATCH_STATISTICS: Final = {
    "total_jobs": 15,
    "active_jobs": 2,
    "completed_jobs": 10,
    "failed_jobs": 2,
    "cancelled_jobs": 1,
    "total_files_processed": 150,
    "average_processing_time_ms": 45000,
    "success_rate": 92.5,
    "by_source_type": {"google_drive": 80, "local_zip": 45, "local_directory": 25},
    "by_priority": {"normal": 12, "high": 2, "urgent": 1},
    "by_status": {"completed": 10, "running": 2, "failed": 2, "cancelled": 1},
}
UNKNOWN_FILE: Final = {
    "detail": "Connection 'local_zip_conn_1': There is no file paper9.pdf in this source, or the connection "
    "may not see it",
    "code": "unknown_file",
    "connection_id": "local_zip_conn_1",
    "file_id": "paper9.pdf",
}
