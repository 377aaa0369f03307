"""Which generation of a dataset's index is live, version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.message import Message


class IndexStage(StrEnum):
    """What a live generation answers: words and structure only, or meaning too."""

    LEXICAL = "lexical"
    FULL = "full"


class Dataset(Message, frozen=True, kw_only=True, tag="datasets.view.v1.dataset"):
    """A dataset's live generation. Publishing is one compare-and-set of this record.

    ``repository`` is ``host/owner/name`` and ``clone_url`` where git finds it; both are empty for documents.
    """

    tenant: str
    project: str
    dataset: str
    scope: Scope
    repository: str
    clone_url: str
    branch: str | None
    commit: str
    generation: int
    stage: IndexStage
    job_id: str
    files: int
    chunks: int
    encoder: str
    chunker: str
    published_at: datetime


class WriteLock(Message, frozen=True, kw_only=True, tag="datasets.view.v1.write_lock"):
    """The bucket ``locks``, by dataset: ``holder`` writes to it, until this expires."""

    holder: str
