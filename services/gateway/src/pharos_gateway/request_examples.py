"""What requests have in their bodies, by example: the OpenAPI document shows these, by method and path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_CONNECTION: Final = {
    "id": "papers",
    "source_type": "s3",
    "name": "Papers",
    "config": {"bucket": "example-papers", "prefix": "2024/", "region": "eu-central-1"},
}
_QUERY: Final = {"query": "How does the Context class work?", "k": 5}

BODIES: Final[Mapping[tuple[str, str], Any]] = {
    ("post", "/resources/ingest-repo"): {"git_url": "https://github.com/o/r"},
    ("post", "/ingest"): {
        "repo_url": "https://github.com/o/r",
        "user_id": "1c3c6cb0-4c10-46ba-b9ad-8ca82fc008fa",
    },
    ("post", "/resources"): {
        "title": "pharos README",
        "content": "Pharos turns code repositories into a searchable index.",
        "url": "https://github.com/ram-tewari/pharos/blob/main/README.md",
        "resource_type": "PRACTICE",
    },
    ("post", "/batch/jobs"): {
        "user_id": "user123",
        "name": "Research Papers Batch",
        "description": "Batch ingestion of ML research papers from multiple sources",
        "priority": "normal",
        "file_selections": [
            {
                "connection_id": "gdrive_conn_1",
                "source_type": "google_drive",
                "file_ids": [
                    "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms",
                    "1mGVIS7_2Dpkqf-9njVHoecgWQjiGHy7dnpgZg0jgHDU",
                ],
            },
            {
                "connection_id": "local_zip_conn_1",
                "source_type": "local_zip",
                "file_ids": ["paper1.pdf", "paper2.pdf", "paper3.pdf"],
            },
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
    },
    ("post", "/batch/jobs/{job_id}/control"): {
        "user_id": "user123",
        "action": "start",
        "retry_failed_only": True,
    },
    ("post", "/batch/jobs/list"): {
        "user_id": "user123",
        "status_filter": ["running", "completed"],
        "limit": 10,
        "offset": 0,
    },
    ("post", "/connections"): _CONNECTION,
    ("post", "/api/v1/connections"): _CONNECTION,
    ("post", "/projects/{project}/ingest/github"): {
        "repo": "github.com/o/r",
        "dataset": "atlas-core",
        "branch": "main",
        "sha": None,
        "scope": "project",
        "force": False,
    },
    ("delete", "/projects/{project}/ingest/github"): {"dataset": "atlas-core"},
    ("post", "/projects/{project}/schedules"): {"repo": "github.com/o/r", "cron": "0 3 * * *"},
    ("post", "/projects/{project}/query"): _QUERY,
    ("post", "/knowledge/ingest-text-async"): {"text": "Large document content...", "source": "docs"},
    ("post", "/knowledge/ingest-url-async"): {"url": "https://example.com/docs", "source": "web"},
    ("post", "/api/v1/jobs"): {"kind": "repository", "repo_url": "https://github.com/o/r", "branch": "main"},
    ("post", "/api/v1/search"): {**_QUERY, "project": "default", "lang": "python"},
    ("post", "/api/v1/search/batch"): {
        "queries": [{"query": "sign a value"}, {"query": "retry", "k": 3}],
        "lang": "python",
    },
    ("delete", "/api/v1/datasets"): {"dataset": "github.com/user/repo1@main", "project": "default"},
    ("post", "/api/v1/schedules"): {
        "repo_url": "https://github.com/user/repo1",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
    },
    ("post", "/api/v1/webhooks"): {
        "repo_url": "https://github.com/user/repo1",
        "branches": ["main", "release/*"],
    },
    ("post", "/api/v1/keys"): {
        "tenant": "acme",
        "user": "ada",
        "role": "editor",
        "projects": ["atlas"],
        "name": "laptop",
    },
    ("post", "/api/v1/keys/{key_id}/rotate"): {"grace_seconds": 3600},
}
