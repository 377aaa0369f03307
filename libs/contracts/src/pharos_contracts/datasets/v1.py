"""Which generation of a dataset's index is live, and how a dataset is deleted. Version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.message import Message


class IndexStage(StrEnum):
    """What a live generation answers: words, and soon structure; or meaning too."""

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


class DeletedDataset(Message, frozen=True, kw_only=True, tag="datasets.view.v1.deleted"):
    """What stands in the place of a dataset's record once it was deleted.

    No generation up to ``generation`` may be published any more: whoever began to index before the deletion
    did not build on this, and whoever begins after it makes a number above.
    """

    tenant: str
    project: str
    dataset: str
    generation: int
    deleted_at: datetime


DatasetRecord = Dataset | DeletedDataset
"""What the bucket ``datasets`` holds."""


class FindDatasets(Message, frozen=True, kw_only=True, tag="store.query.v1.find"):
    """Which datasets of a project can be deleted: the one called ``dataset``, or all of ``repository``.

    Exactly one of the two is given. ``repository`` is ``host/owner/name``.
    """

    tenant: str
    project: str
    dataset: str | None = None
    repository: str | None = None

    def __post_init__(self) -> None:
        if (self.dataset is None) == (self.repository is None):
            raise ValueError("datasets are found by their name or by their repository")


class FoundDatasets(Message, frozen=True, kw_only=True, tag="store.view.v1.found"):
    """The names of those that are live, or of which points were left."""

    datasets: tuple[str, ...]


class DeleteDataset(Message, frozen=True, kw_only=True, tag="store.command.v1.delete"):
    """Please delete a dataset, as much of it as can be done at once.

    ``generation`` 0 begins. Whoever is told that something is left asks again, with the generation that the
    first answer named.
    """

    tenant: str
    project: str
    dataset: str
    generation: int = 0


class DatasetDeleted(Message, frozen=True, kw_only=True, tag="store.view.v1.deleted"):
    """``vectors`` chunks were deleted this time; ``left``: there is more. Nobody finds it any more."""

    generation: int
    vectors: int
    left: bool


class WriteLock(Message, frozen=True, kw_only=True, tag="datasets.view.v1.write_lock"):
    """The bucket ``dataset_locks``, by dataset: ``holder`` writes to it, until this expires."""

    holder: str
