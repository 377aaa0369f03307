"""What has become of the files of one batch, by what was said of them. Pure.

History tells of each file as of some moment, JOBS of what happened since, and PROGRESS of what is being done
right now. The scheduler counts by the same rules (see ``Tally``): a failure that may pass is none until it
was the last try, and what was said before the owner asked for another try counts only if it was a success.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from pharos_contracts.batches.v1 import BatchFile, Manifest, is_past
from pharos_contracts.history.v1 import ItemView
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemFailed,
    ItemLexicalReady,
    ItemSkipped,
    ItemStarted,
    Job,
    Progress,
    Stage,
    item_state,
)
from pharos_contracts.lifecycle import TERMINAL, JobState

# By what a worker does: the status, how far that is in percent, and the step in words.
STEPS: Final[Mapping[Stage, tuple[str, int, str]]] = {
    Stage.ACCESS: ("accessing", 10, "Accessing the file"),
    Stage.FETCH: ("downloading", 20, "Downloading"),
    Stage.DISCOVER: ("downloading", 20, "Downloading"),
    Stage.PARSE: ("parsing", 40, "Parsing content"),
    Stage.CHUNK: ("chunking", 60, "Creating semantic chunks"),
    Stage.LINK: ("chunking", 60, "Creating semantic chunks"),
    Stage.TRAIN: ("embedding", 80, "Generating embeddings"),
    Stage.ENCODE: ("embedding", 80, "Generating embeddings"),
    Stage.STORE: ("storing", 90, "Storing"),
    Stage.PUBLISH: ("storing", 90, "Storing"),
}
PENDING: Final = "pending"
ENDED: Final = ("completed", "failed", "skipped")


class Counts(msgspec.Struct, frozen=True):
    """How many files have ended, and how."""

    completed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.skipped


class FileStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One file as clients read it. ``progress`` is in whole percents."""

    file: BatchFile
    word: str
    progress: int
    step: str
    error: str | None = None
    retries: int = 0

    @property
    def ended(self) -> bool:
        return self.word in ENDED


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """The last that was said of a file; ``state`` None: nothing that counts."""

    state: JobState | None = None
    attempt: int = 0
    sequence: int = 0
    transient: bool = False
    text: str | None = None
    progress: Progress | None = None


NOTHING: Final = _Known()


class Files:
    """The files of *job*, of which *manifest* has the names. Nothing is known of them at first."""

    def __init__(self, job: Job, manifest: Manifest) -> None:
        assert job.batch is not None, "only batches have files"
        self._job = job
        self._files = manifest.files
        self._tries = job.batch.options.tries
        self._known: list[_Known] = [NOTHING] * len(manifest.files)
        self._words: list[str] = [PENDING] * len(manifest.files)
        self._counts = [[0, 0, 0] for _ in job.batch.parts]

    @property
    def job(self) -> Job:
        return self._job

    def __len__(self) -> int:
        return len(self._files)

    def file(self, item: int) -> BatchFile:
        return self._files[item]

    # What is said

    def recall(self, view: ItemView) -> None:
        """*view* is what history knows of a file."""
        item = self._item(view.item_id)
        if item is not None and view.sequence > self._known[item].sequence:
            self._set(
                item,
                _Known(
                    state=view.state,
                    attempt=view.attempt,
                    sequence=view.sequence,
                    transient=view.transient,
                    text=view.error or view.reason,
                ),
            )

    def take(self, sequence: int, event: AnyItemEvent) -> int | None:
        """Something was said of a file at *sequence*: which one it was, None where that was known."""
        item = self._item(event.item_id)
        if item is None or sequence <= self._known[item].sequence:
            return None
        before = self._known[item]
        # What a worker says of its steps may come before the fact that it has begun.
        begins = isinstance(event, ItemStarted | ItemLexicalReady) and before.state in (
            None,
            JobState.RUNNING,
        )
        progress = before.progress if begins else None
        self._set(
            item,
            _Known(
                state=item_state(event, before.state),
                attempt=event.attempt,
                sequence=sequence,
                transient=isinstance(event, ItemFailed) and event.transient,
                text=_text(event),
                progress=progress if progress is None or progress.attempt == event.attempt else None,
            ),
        )
        return item

    def progressed(self, progress: Progress) -> int | None:
        """A worker says where it is: with which file, None where that is no news."""
        item = self._item(progress.item_id)
        if item is None:
            return None
        known, before = self._known[item], self._status(item)
        if progress.attempt < known.attempt or known.state not in (JobState.RUNNING, None):
            return None
        if known.state is None and self._job.state not in (JobState.RUNNING, JobState.PAUSED):
            return None
        told = known.progress
        if (
            told is not None
            and progress.attempt == told.attempt
            and STEPS[progress.stage][1] < STEPS[told.stage][1]
        ):
            return None  # no step back is told within an attempt
        self._known[item] = replace(known, progress=progress)
        return item if self._status(item) != before else None

    def become(self, job: Job) -> list[int]:
        """The batch is now *job*; the files whose status changed by that."""
        changes = (
            job.facts_after != self._job.facts_after
            or (job.tally and job.tally.since) != (self._job.tally and self._job.tally.since)
            or (job.state in TERMINAL) != (self._job.state in TERMINAL)
        )
        self._job = job
        if not changes:
            return []
        changed = []
        for item, known in enumerate(self._known):
            if known.state is None:
                continue
            before = self._words[item]
            past = _Known(attempt=known.attempt, sequence=known.sequence)
            self._set(item, past if self._is_past(known) else known)
            if self._words[item] != before:
                changed.append(item)
        return changed

    # What is shown

    def at_work(self) -> list[int]:
        """The files that workers have in hand, or may."""
        return [
            item
            for item, word in enumerate(self._words)
            if word not in ENDED and self._known[item].state in (JobState.RUNNING, None)
        ]

    def counts(self) -> list[Counts]:
        """By part."""
        return [Counts(*each) for each in self._counts]

    def all_counts(self) -> Counts:
        return Counts(*(sum(column) for column in zip(*self._counts, strict=True)))

    def status(self, item: int) -> FileStatus:
        return self._status(item)

    def _status(self, item: int) -> FileStatus:
        known = self._known[item]
        word, progress, step = self._said(known)
        failed = known.state is JobState.FAILED and not self._is_past(known)
        return FileStatus(
            file=self._files[item],
            word=word,
            progress=progress,
            step=step,
            error=known.text if failed else None,
            retries=max(0, known.attempt - 1) % self._tries,
        )

    def _said(self, known: _Known) -> tuple[str, int, str]:
        """(status, percent, step)."""
        match known.state:
            case _ if self._is_past(known):
                return PENDING, 0, "Waiting"
            case JobState.COMPLETED:
                return "completed", 100, "Completed"
            case JobState.SKIPPED:
                return "skipped", 100, f"Skipped: {known.text or 'nothing to do'}"
            case JobState.FAILED if self._is_last(known):
                return "failed", 0, "Failed"
            case JobState.FAILED:
                return PENDING, 0, "Waiting for another try"
            case _ if self._job.state in TERMINAL:
                return PENDING, 0, "Not begun"
            case JobState.COMMITTING:
                return STEPS[Stage.PUBLISH]
            case JobState.RUNNING | None if known.progress is not None:
                return STEPS[known.progress.stage]
            case JobState.RUNNING:
                return STEPS[Stage.ACCESS]
            case JobState.PAUSED:
                return PENDING, 0, "Paused"
            case _:
                return PENDING, 0, "Waiting"

    def _is_past(self, known: _Known) -> bool:
        """Whether what was said of a file counts no more."""
        if known.state is None:
            return False
        return is_past(
            self._job.tally,
            self._job.facts_after,
            sequence=known.sequence,
            succeeded=known.state in (JobState.COMPLETED, JobState.SKIPPED),
        )

    def _is_last(self, known: _Known) -> bool:
        """Whether the try that failed was the last one, of those that there are each time it is asked for."""
        if not known.transient or known.attempt >= max(1, self._job.attempt) * self._tries:
            return True
        return self._job.state in (JobState.COMPLETED, JobState.FAILED)

    def _item(self, item_id: str) -> int | None:
        """None for what is no file of this batch, such as what clears it away."""
        if not (item_id.isascii() and item_id.isdigit() and len(item_id) <= 9):
            return None
        return int(item_id) if int(item_id) < len(self._files) else None

    def _set(self, item: int, known: _Known) -> None:
        self._known[item] = known
        self._count(item, -1)
        self._words[item] = self._said(known)[0]
        self._count(item, +1)

    def _count(self, item: int, by: int) -> None:
        word = self._words[item]
        if word in ENDED:
            self._counts[self._files[item].part][ENDED.index(word)] += by


def _text(event: AnyItemEvent) -> str | None:
    if isinstance(event, ItemFailed):
        return event.error
    return event.reason if isinstance(event, ItemSkipped) else None
