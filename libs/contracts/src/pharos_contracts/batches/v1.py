"""Batches: many files of several connections as one job, version 1.

A batch is a job whose items are its files. The files stand in a manifest in the object store ``manifests``,
in the order in which they were chosen; an item is named by its place there. The scheduler hands items out
while the batch runs, and counts what becomes of them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.message import Message

FILES_MAX: Final = 10_000
WORKERS_MAX: Final = 32
RETRIES_MAX: Final = 10


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the files of a batch are treated.

    Sizes are characters, times seconds. ``quality_threshold`` is from 0 to 1, and a file whose text has less
    than that is skipped: see ``pharos_embedder.documents.quality``. ``max_workers`` bounds how many of its
    files are worked on at once, and without ``parallel_processing`` it is one after the other. A file is
    tried again ``max_retries`` times where trying again may help, unless ``retry_failed_files`` is off.
    ``source_specific_options`` are by source type. The chunk sizes are None where the installation's hold.
    """

    use_llm_parsing: bool = False
    embedding_model_preference: str | None = None
    chunk_size: int | None = None
    chunk_overlap: int | None = None
    quality_threshold: float = 0.0
    retry_failed_files: bool = True
    max_retries: int = 3
    skip_existing: bool = True
    preserve_structure: bool = True
    extract_math: bool = True
    parallel_processing: bool = True
    max_workers: int = 4
    timeout_seconds: float = 300
    source_specific_options: dict[str, dict[str, str | int | float | bool | None]] = msgspec.field(
        default_factory=dict
    )

    @property
    def files_at_once(self) -> int:
        """How many files of the batch may be with workers at any time."""
        return self.max_workers if self.parallel_processing else 1

    @property
    def tries(self) -> int:
        """How often a file is tried before it has failed."""
        return 1 + (self.max_retries if self.retry_failed_files else 0)


class BatchPart(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a batch takes from one connection: how many, of which kind of source.

    ``user`` is whose connection it was when the batch was made: one that somebody else makes later under the
    same id is another one. None in batches of before this was noted.
    """

    connection_id: str
    source_type: SourceType
    files: int
    user: str | None = None


class BatchSource(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch is about. ``manifest`` names the object that holds a ``Manifest``; parts are in its order.

    ``warnings`` say what this installation cannot honour, and what it does instead.
    """

    name: str
    description: str = ""
    manifest: str
    parts: tuple[BatchPart, ...]
    options: BatchOptions = BatchOptions()
    warnings: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts)


class BatchFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a batch. ``part`` is its place among the parts; ``name`` is for people and parsers.

    ``version`` changes when the content does, as the source says; None where it says nothing of the kind.
    """

    part: int
    file_id: str
    name: str
    size: int | None = None
    media_type: str = ""
    version: str | None = None


class Manifest(Message, frozen=True, kw_only=True, tag="batches.view.v1.manifest"):
    """The files of one batch, in the order in which they are handed out. Item ``n`` is ``files[n]``."""

    job_id: str
    tenant: str
    files: tuple[BatchFile, ...]

    def fits(self, batch: BatchSource) -> bool:
        """Whether these are the files of *batch*: as many of each part, and in the order of the parts.

        Two requests that make one batch at once may store another list than the one that is counted on.
        """
        parts = (part for part, each in enumerate(batch.parts) for _ in range(each.files))
        return len(self.files) == batch.files and all(
            file.part == part for file, part in zip(self.files, parts, strict=True)
        )


class PartTally(msgspec.Struct, frozen=True, kw_only=True):
    """How many files of one part have ended, and how."""

    completed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.skipped


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of the files of a batch, by part.

    What was said of its items up to ``since``, a sequence on JOBS, counts no more: all of them are tried
    again. Of what was said up to the job's ``facts_after`` only files that succeeded count.
    """

    parts: tuple[PartTally, ...]
    since: int = 0

    @property
    def completed(self) -> int:
        return sum(part.completed for part in self.parts)

    @property
    def failed(self) -> int:
        return sum(part.failed for part in self.parts)

    @property
    def skipped(self) -> int:
        return sum(part.skipped for part in self.parts)

    @property
    def ended(self) -> int:
        return sum(part.ended for part in self.parts)


def is_past(tally: Tally | None, facts_after: int, *, sequence: int, succeeded: bool) -> bool:
    """Whether the last fact of a file, at *sequence* on JOBS, counts no more: the file waits to be tried.

    *tally* and *facts_after* are those of its batch; *succeeded*: the fact says that it completed or was
    skipped.
    """
    since = 0 if tally is None else tally.since
    return sequence <= since or (sequence <= facts_after and not succeeded)


def connection_dataset(connection_id: str) -> str:
    """The dataset of the files that come from a connection: batches alone write there."""
    return f"connections/{connection_id}"
