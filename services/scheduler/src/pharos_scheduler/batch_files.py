"""What has become of the files of one batch, and which of them are handed out next. Pure.

A file waits, is with the workers, is begun, is being published, and ends. All of that is told by the last
fact of its item on JOBS, but for what was handed out and not begun, which is known from WORK; so whoever
leads next makes the same of the same facts. Facts come at least once and not always in order: one that is
not newer than the last is past.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, assert_never

import msgspec

from pharos_contracts.batches.v1 import BatchFile, BatchSource, Manifest, PartTally, Tally
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
)
from pharos_scheduler.deciding import backoff_seconds
from pharos_scheduler.ports import Fact

CLOCK_SHIFT_MAX: Final = timedelta(hours=1)


class FileState(IntEnum):
    WAITING = 0
    HANDED = 1
    BEGUN = 2
    PUBLISHING = 3
    COMPLETED = 4
    FAILED = 5
    SKIPPED = 6


IN_FLIGHT: Final = frozenset({FileState.HANDED, FileState.BEGUN, FileState.PUBLISHING})
ENDED: Final = frozenset({FileState.COMPLETED, FileState.FAILED, FileState.SKIPPED})


class Place(msgspec.Struct, kw_only=True):
    """One file as the leader knows it.

    ``sequence`` is that of the last fact, ``past`` that of the last one after which the file was to be tried
    anew. ``attempt`` is the last that was begun or handed out; ``resuming``: the next hand-out goes on with
    the same one.
    """

    state: FileState = FileState.WAITING
    attempt: int = 0
    dispatch: int = 0
    sequence: int = 0
    past: int = 0
    resuming: bool = False
    error: str = ""


class HandOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file to hand out, and how: see ``jobs.v1.WorkItem``."""

    item: int
    file: BatchFile
    attempt: int
    attempts_max: int
    dispatch: int
    past: int


class Files:
    """The files of the batch that *manifest* lists."""

    def __init__(
        self,
        batch: BatchSource,
        manifest: Manifest,
        facts: Mapping[str, Fact],
        *,
        tally: Tally | None,
        facts_after: int,
        asked: int,
        now: datetime,
    ) -> None:
        """*facts* is the last fact of each item; *tally* and *facts_after* are the job's.

        Its owner has *asked* for the batch that often. Each time has its own attempts at each file, so that
        from the number of an attempt alone it is known how many are left.
        """
        self._job_id = manifest.job_id
        self._batch = batch
        self._files = manifest.files
        self._since = tally.since if tally is not None else 0
        tries = batch.options.tries
        self._tried = (max(1, asked) - 1) * tries
        self._attempts_max = self._tried + tries
        self._places = [Place(attempt=self._tried) for _ in manifest.files]
        self._counts = [[0, 0, 0] for _ in batch.parts]
        self._waiting: deque[int] = deque()
        self._later: dict[int, datetime] = {}
        self._in_flight: set[int] = set()
        for item_id, fact in facts.items():
            place = self._place(item_id)
            if place is not None:
                self._recall(int(item_id), place, fact, facts_after, now)
        self._waiting.extend(
            item
            for item, place in enumerate(self._places)
            if place.state is FileState.WAITING and item not in self._later
        )

    def __getitem__(self, item: int) -> Place:
        return self._places[item]

    def __len__(self) -> int:
        return len(self._places)

    def _place(self, item_id: str) -> Place | None:
        """None for what is no file of this batch, such as what clears it away."""
        return self._places[int(item_id)] if item_id.isdigit() and int(item_id) < len(self._places) else None

    def _recall(self, item: int, place: Place, fact: Fact, facts_after: int, now: datetime) -> None:
        """What was said last, as far as it counts still: see ``Tally``."""
        void = fact.sequence <= self._since
        ended_well = isinstance(fact.event, ItemCompleted | ItemSkipped)
        if void or (fact.sequence <= facts_after and not ended_well):
            place.attempt = max(self._tried, fact.event.attempt)
            place.dispatch = fact.event.dispatch
            place.sequence = place.past = fact.sequence
        else:
            self._note(item, place, fact, now)

    # What happens to files

    def take(self, item_id: str, fact: Fact, now: datetime) -> bool:
        """Something was said of an item; whether it was news."""
        place = self._place(item_id)
        if place is None or fact.sequence <= place.sequence:
            return False
        before = place.state
        self._note(int(item_id), place, fact, now)
        if place.state is FileState.WAITING and int(item_id) not in self._later:
            self._waiting.appendleft(int(item_id))
        return before is not place.state or isinstance(fact.event, ItemFailed)

    def _note(self, item: int, place: Place, fact: Fact, now: datetime) -> None:
        event = fact.event
        place.sequence = fact.sequence
        place.attempt = max(place.attempt, event.attempt)
        place.dispatch = max(place.dispatch, event.dispatch)
        place.resuming = False
        place.error = ""
        self._later.pop(item, None)
        self._move(item, place, self._state_after(item, place, event, now))
        if place.state not in IN_FLIGHT:
            place.past = fact.sequence

    def _state_after(self, item: int, place: Place, event: AnyItemEvent, now: datetime) -> FileState:
        match event:
            case ItemStarted() | ItemLexicalReady():
                return FileState.BEGUN
            case ItemCommitting():
                return FileState.PUBLISHING
            case ItemCompleted():
                return FileState.COMPLETED
            case ItemSkipped():
                return FileState.SKIPPED
            case ItemPaused():
                place.resuming = True
                return FileState.WAITING
            case ItemCancelled():
                return FileState.WAITING
            case ItemFailed():
                place.error = event.error
                if not event.transient or event.attempt >= self._attempts_max:
                    return FileState.FAILED
                seconds = backoff_seconds(event.attempt - self._tried, f"{self._job_id}.{item}")
                self._later[item] = now + timedelta(seconds=seconds)
                return FileState.WAITING
            case _:
                assert_never(event)

    def _move(self, item: int, place: Place, state: FileState) -> None:
        self._count(item, place.state, -1)
        place.state = state
        self._count(item, state, +1)
        if state in IN_FLIGHT:
            self._in_flight.add(item)
        else:
            self._in_flight.discard(item)

    def _count(self, item: int, state: FileState, by: int) -> None:
        if state in ENDED:
            self._counts[self._files[item].part][state - FileState.COMPLETED] += by

    # What is handed out

    def ready(self, limit: int, now: datetime) -> Iterator[HandOut]:
        """Up to *limit* files to hand out now; each is in flight as soon as it was taken from here."""
        for item in [item for item, at in self._later.items() if at <= now or at > now + CLOCK_SHIFT_MAX]:
            del self._later[item]
            self._waiting.appendleft(item)
        while limit > 0 and self._waiting:
            item = self._waiting.popleft()
            place = self._places[item]
            if place.state is not FileState.WAITING or item in self._later:
                continue  # somebody has begun it, from a hand-out that was thought to be lost
            limit -= 1
            self._hand_out(item, place)
            yield HandOut(
                item=item,
                file=self._files[item],
                attempt=place.attempt,
                attempts_max=self._attempts_max,
                dispatch=place.dispatch,
                past=place.past,
            )

    def was_handed(self, item_id: str) -> None:
        """An item is with the workers already: a leader before this one has handed it out."""
        place = self._place(item_id)
        if place is not None and place.state is FileState.WAITING:
            item = int(item_id)
            self._later.pop(item, None)
            self._hand_out(item, place)

    def _hand_out(self, item: int, place: Place) -> None:
        place.attempt = max(self._tried + 1, place.attempt if place.resuming else place.attempt + 1)
        place.resuming = False
        place.dispatch += 1
        self._move(item, place, FileState.HANDED)

    def lost(self, item: int) -> None:
        """An item is with no worker although it was handed out: the same attempt is handed out again."""
        place = self._places[item]
        if place.state in IN_FLIGHT:
            place.resuming = True
            self._move(item, place, FileState.WAITING)
            self._waiting.appendleft(item)

    # What is told

    @property
    def in_flight(self) -> frozenset[int]:
        """What is with workers, begun or not."""
        return frozenset(self._in_flight)

    def in_state(self, states: Iterable[FileState]) -> list[int]:
        """Which of those in flight are in one of *states*."""
        wanted = frozenset(states)
        return sorted(item for item in self._in_flight if self._places[item].state in wanted)

    @property
    def flying(self) -> int:
        """How many are in flight."""
        return len(self._in_flight)

    @property
    def all_ended(self) -> bool:
        return sum(sum(counts) for counts in self._counts) == len(self._places)

    @property
    def last_sequence(self) -> int:
        """That of the newest fact about any of them."""
        return max((place.sequence for place in self._places), default=0)

    def first_error(self) -> str:
        """Of the first file that failed; empty where none did."""
        failed = (place for place in self._places if place.state is FileState.FAILED)
        place = next(failed, None)
        return "" if place is None else place.error

    def tally(self) -> Tally:
        parts = tuple(
            PartTally(completed=completed, failed=failed, skipped=skipped)
            for completed, failed, skipped in self._counts
        )
        return Tally(parts=parts, since=self._since)


def no_tally(batch: BatchSource, since: int = 0) -> Tally:
    """That of a batch of which no file has ended."""
    return Tally(parts=tuple(PartTally() for _ in batch.parts), since=since)


def without_failures(tally: Tally) -> Tally:
    """What still counts when only the files that failed are tried again."""
    parts = tuple(PartTally(completed=part.completed, skipped=part.skipped) for part in tally.parts)
    return Tally(parts=parts, since=tally.since)
