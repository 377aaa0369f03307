"""Pharos from Python: ``Pharos`` and ``AsyncPharos``, and what they answer."""

from pharos_client.clients import AsyncPharos, Pharos
from pharos_client.errors import PharosError
from pharos_client.models import (
    Dataset,
    Event,
    Health,
    History,
    HistoryEntry,
    IndexResult,
    Job,
    JobPage,
    LineSpan,
    Progress,
    SearchAnswer,
    SearchResult,
    Submitted,
    Worker,
    WorkerStatus,
)

__all__ = [
    "AsyncPharos",
    "Dataset",
    "Event",
    "Health",
    "History",
    "HistoryEntry",
    "IndexResult",
    "Job",
    "JobPage",
    "LineSpan",
    "Pharos",
    "PharosError",
    "Progress",
    "SearchAnswer",
    "SearchResult",
    "Submitted",
    "Worker",
    "WorkerStatus",
]
