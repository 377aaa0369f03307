"""Whether a worker still has the item that it works on, as the worker and its threads know it."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Final

import anyio

from pharos_embedder.ports import Stopped

# Goes on while the machine sleeps, where the system has such a clock: a lease may have passed in a sleep.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds since some moment; never set back."""
    return time.clock_gettime(_CLOCK)


class Ending(StrEnum):
    """Why work on an item ended before it was done; ``beaten``: another worker began first."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    HANDED_BACK = "handed_back"
    TAKEN = "taken"
    BEATEN = "beaten"
    LAPSED = "lapsed"


class Hold:
    """One item in hand. It ends once, for one reason; it lapses by itself where nobody confirms it.

    ``scope`` is around the work: ending the hold cancels it.
    """

    def __init__(self, lapse_seconds: float) -> None:
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.ending: Ending | None = None
        self._lapse_seconds = lapse_seconds
        self._confirmed_at = clock()

    def confirm(self, asked_at: float) -> None:
        """The server has heard, after *asked_at* on ``clock``, that the item is being worked on."""
        self._confirmed_at = max(self._confirmed_at, asked_at)

    @property
    def lapsed(self) -> bool:
        """Whether the server may have given the item to another worker."""
        return clock() - self._confirmed_at >= self._lapse_seconds

    def end(self, why: Ending) -> None:
        """Stop the work; the first reason counts."""
        if self.ending is None:
            self.ending = why
            self.ended.set()
            self.scope.cancel()

    def check_midway(self) -> None:
        """Stopped where what is under way is not worth its end; safe to call from any thread."""
        if self.ending not in (None, Ending.PAUSED) or self.lapsed:
            raise Stopped(self.ending or Ending.LAPSED)

    def check(self) -> None:
        """Stopped where the hold has ended or lapsed; safe to call from any thread."""
        if self.ending is not None or self.lapsed:
            raise Stopped(self.ending or Ending.LAPSED)
