"""The fold: from events to views. Pure; a place that was seen before changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from pharos_contracts.batches.v1 import BatchSource
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.history.v1 import ItemView, SourceSummary
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    AnyItemEvent,
    AnyJobEvent,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    JobAdvanced,
    JobCancelled,
    JobCommitting,
    JobCompleted,
    JobCreated,
    JobEvent,
    JobFailed,
    JobPaused,
    JobQueued,
    JobResumed,
    JobRetrying,
    JobSkipped,
    JobStarted,
    item_state,
)

TEXT_CHARACTERS_MAX: Final = 300
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its events tell it. ``first`` is the place of its first event seen, ``last`` of its last."""

    job: Job
    first: int
    last: int
    changed_us: int


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item as its events tell it; ``last`` is the place of its last event."""

    view: ItemView
    last: int


def project(view: View | None, place: int, event: AnyJobEvent) -> View:
    """*view* after *event*, which stands at *place*; *view* itself where it has seen that place already."""
    if view is not None and place <= view.last:
        return view
    return View(
        job=replace(event.job, callback_url=None),  # nobody reads it here, and it may carry a secret
        first=place if view is None else view.first,
        last=place,
        changed_us=microseconds(event.at),
    )


def project_item(item: Item | None, place: int, event: AnyItemEvent) -> Item:
    """*item* after *event*, likewise."""
    if item is not None and place <= item.last:
        return item
    earlier = item.view if item is not None else None
    started_at = _started_at(event, earlier)
    view = ItemView(
        item_id=event.item_id,
        state=item_state(event, earlier.state if earlier is not None else None),
        attempt=event.attempt,
        dispatch=event.dispatch,
        worker=event.worker,
        changed_at=event.at,
        started_at=started_at,
        lexical_ready_at=_lexical_ready_at(event, earlier),
        error=event.error if isinstance(event, ItemFailed) else None,
        code=event.code if isinstance(event, ItemFailed) else None,
        reason=event.reason if isinstance(event, ItemSkipped) else None,
        transient=isinstance(event, ItemFailed) and event.transient,
        chunks=event.result.chunks if isinstance(event, ItemCompleted) else 0,
        seconds=_seconds(event, started_at),
    )
    return Item(view=view, last=place)


def source_type_of(batch: BatchSource, ordinal: int) -> SourceType | None:
    """Where the file of that number comes from: the files of a batch stand in the order of its parts."""
    for part in batch.parts:
        if ordinal < part.files:
            return part.source_type
        ordinal -= part.files
    return None


def tally_of(job: Job) -> dict[SourceType, SourceSummary]:
    """How many files of each type of source have ended, and how; nothing of what is no batch."""
    found: dict[SourceType, SourceSummary] = {}
    if job.batch is None:
        return found
    counts = job.tally.parts if job.tally is not None else ()
    for part, count in zip_longest(job.batch.parts, counts[: len(job.batch.parts)], fillvalue=None):
        assert part is not None, "there are no more counts than parts"
        before = found.get(part.source_type, SourceSummary())
        if count is not None:
            before = SourceSummary(
                completed=before.completed + count.completed,
                failed=before.failed + count.failed,
                skipped=before.skipped + count.skipped,
            )
        found[part.source_type] = before
    return found


def microseconds(moment: datetime) -> int:
    """*moment* in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """The reverse, in UTC."""
    return _EPOCH + microseconds * _MICROSECOND


def _started_at(event: AnyItemEvent, earlier: ItemView | None) -> datetime | None:
    """Of the latest attempt."""
    if isinstance(event, ItemStarted):
        return event.at
    return None if earlier is None else earlier.started_at


def _seconds(event: AnyItemEvent, started_at: datetime | None) -> float | None:
    """How long the attempt took that completed the item."""
    if not isinstance(event, ItemCompleted) or started_at is None:
        return None
    return max(0.0, (event.at - started_at).total_seconds())


def _lexical_ready_at(event: AnyItemEvent, earlier: ItemView | None) -> datetime | None:
    """Since when words can be searched; None again where what could be searched was taken back.

    The first time counts: another attempt does not make the dataset less searchable.
    """
    if isinstance(event, ItemCancelled) or (isinstance(event, ItemFailed) and not event.transient):
        return None
    if earlier is not None and earlier.lexical_ready_at is not None:
        return earlier.lexical_ready_at
    return event.at if isinstance(event, ItemLexicalReady) else None


def sentence(event: AnyEvent) -> str:
    """*event* as a line of its job's log."""
    if isinstance(event, JobEvent):
        text = _job_sentence(event)
    else:
        text = f"Item {event.item_id}: {_item_sentence(event)}"
    cut = text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"
    return cut.replace("\0", "")


def _job_sentence(event: AnyJobEvent) -> str:
    job = event.job
    match event:
        case JobQueued():
            return "Queued again" if job.attempt else "Queued"
        case JobCreated():
            return "Created"
        case JobStarted() if job.tally is not None:
            return "Started"
        case JobAdvanced():
            return _tally_sentence(job)
        case JobStarted():
            return f"Started on {job.worker or 'a worker'}, attempt {job.attempt}"
        case JobPaused():
            return f"Paused{_by(job)}"
        case JobResumed():
            return f"Resumed{_by(job)}"
        case JobRetrying():
            return _retrying_sentence(event)
        case JobCommitting():
            return "Publishing"
        case JobCompleted():
            return (job.result.summary if job.result else "") or "Completed"
        case JobFailed():
            return f"Failed: {job.error or 'no reason given'}"
        case JobCancelled():
            return f"Cancelled{_by(job)}"
        case JobSkipped():
            return f"Skipped: {job.reason or 'nothing to do'}"
        case _:
            assert_never(event)


def _tally_sentence(job: Job) -> str:
    if job.tally is None or job.batch is None:
        return "Went on"
    tally = job.tally
    return (
        f"{tally.ended} of {job.batch.files} files: {tally.completed} completed, "
        f"{tally.skipped} skipped, {tally.failed} failed"
    )


def _by(job: Job) -> str:
    return f" by {job.controlled_by}" if job.controlled_by else ""


def _retrying_sentence(event: JobRetrying) -> str:
    """A backoff ends later than the event says; an owner who asks for another try need not wait."""
    job = event.job
    due = job.next_attempt_at
    if due is not None and due <= event.at:
        return f"Another try was asked for{_by(job)}"
    when = f" at {due:%H:%M:%S} UTC" if due is not None else ""
    why = f": {job.error}" if job.error else ""
    return f"Will be tried again{when}{why}"


def _item_sentence(event: AnyItemEvent) -> str:
    match event:
        case ItemStarted():
            again = ", since the worker before died" if event.deaths else ""
            return f"taken by {event.worker}, attempt {event.attempt}{again}"
        case ItemLexicalReady():
            return f"searchable by words: {event.chunks} chunks of {event.files} files"
        case ItemCommitting():
            return "publishing"
        case ItemCompleted():
            return "published"
        case ItemFailed():
            return f"failed: {event.error}"
        case ItemSkipped():
            return f"skipped: {event.reason}"
        case ItemCancelled():
            return "cancelled"
        case ItemPaused():
            return "paused"
        case _:
            assert_never(event)
