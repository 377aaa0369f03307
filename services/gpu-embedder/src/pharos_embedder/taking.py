"""What a worker does with an item that was delivered to it. Pure: what was said of the item decides."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    WorkItem,
    is_expired,
)

DEATHS_MAX: Final = 2


class Fact(msgspec.Struct, frozen=True):
    """What was said of an item last, and its sequence on JOBS."""

    event: AnyItemEvent
    sequence: int


class Drop(msgspec.Struct, frozen=True):
    """Settle it and do nothing."""

    why: str


class Finish(msgspec.Struct, frozen=True):
    """Publish what an earlier worker was about to publish."""

    attempt: int
    deaths: int
    result: IndexResult


class Start(msgspec.Struct, frozen=True):
    """Do it; ``again``: this very attempt was begun before."""

    attempt: int
    deaths: int
    again: bool = False


class Expire(msgspec.Struct, frozen=True):
    """Skip it: it waited for too long."""

    attempt: int
    deaths: int = 0


class Poisoned(msgspec.Struct, frozen=True):
    """Fail it: it was there at the death of as many processes as may be."""

    attempt: int
    deaths: int


Take = Drop | Finish | Start | Expire | Poisoned


def past(item: WorkItem, last: Fact | None) -> bool:
    """Whether *last* was said before *item* was handed out, by whom the scheduler listens to no more."""
    return last is None or last.sequence <= item.job.facts_after


def holder(item: WorkItem, last: Fact | None) -> tuple[str, str] | None:
    """(worker, instance) of the process that had this very hand-out before; None where none had."""
    if last is None or past(item, last) or last.event.dispatch != item.dispatch:
        return None
    if not isinstance(last.event, ItemStarted | ItemLexicalReady):
        return None
    return last.event.worker, last.event.instance


def decide(item: WorkItem, last: Fact | None, *, died: bool, now: datetime) -> Take:
    """What to do with *item*; *died*: the process that had it before (``holder``) is gone."""
    if last is None or past(item, last):
        # A pause interrupts an attempt; whatever else is past has ended it.
        if last is not None and isinstance(last.event, ItemPaused):
            return _anew(item, last.event.deaths, now, again=last.event.attempt == item.attempt)
        return _anew(item, 0, now)
    event = last.event
    match event:
        case ItemCancelled() | ItemPaused():
            return Drop("it was taken away")
        case ItemCompleted() | ItemSkipped():
            return Drop("it ended")  # whatever the attempt: only a failure is followed by another
        case ItemFailed() if event.attempt >= item.attempt:
            return Drop("it ended")
        case ItemFailed():
            return _anew(item, 0, now)
        case _ if event.dispatch > item.dispatch:
            return Drop("it was handed out again since")
        case ItemCommitting(result=result):
            return Finish(event.attempt, event.deaths, result)
        case _:
            return _again(item, event, died)


def _anew(item: WorkItem, deaths: int, now: datetime, *, again: bool = False) -> Start | Expire:
    """The time to live ends at the first start: an item that was begun once is finished."""
    return Expire(item.attempt) if is_expired(item.job, now) else Start(item.attempt, deaths, again)


def _again(item: WorkItem, event: AnyItemEvent, died: bool) -> Start | Poisoned:
    """The death of a worker begins another attempt while there are any left; it is no failure of one."""
    attempt = max(item.attempt, event.attempt)
    if not died:
        return Start(attempt, event.deaths, again=True)
    deaths = event.deaths + 1
    if deaths >= DEATHS_MAX:
        return Poisoned(attempt, deaths)
    following = min(attempt + 1, max(attempt, item.job.max_attempts))
    return Start(following, deaths, again=following == attempt)
