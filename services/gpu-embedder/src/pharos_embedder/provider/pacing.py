"""When the next request may go. `Pace` decides, by a clock that is passed in; `Line` has who waits."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec

from pharos_embedder.encoders import EncoderBusy, Priority
from pharos_embedder.provider.errors import RequestStopped
from pharos_embedder.provider.protocol import Allowance

BURST_SECONDS: Final = 10.0
"""What a rate of our own allows at once: as much as this time brings; a minute has at most a sixth more."""

HOLD_SECONDS_MAX: Final = 120.0
"""The longest that a server's word alone keeps everybody waiting; then one asks again."""

AGEING_SECONDS: Final = 15.0
"""Who has waited this long ranks as one of the next priority: the lower ones are slowed, never starved."""

QUERIES_AT_ONCE: Final = 4
"""Beside the requests of documents, so that a search waits for none of them."""

WAITING_MAX: Final = {Priority.QUERY: 256, Priority.NOTE: 256, Priority.REPOSITORY: 256}
POLL_SECONDS: Final = 0.1


class _Bucket:
    """So many units a minute; who asks for more than a burst waits for a full bucket and owes the rest."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._capacity = self._per_second * BURST_SECONDS
        self._level = self._capacity
        self._at: float | None = None

    def wait_seconds(self, now: float, units: float) -> float:
        if not self._per_second:
            return 0.0
        self._fill(now)
        return max(0.0, (min(units, self._capacity) - self._level) / self._per_second)

    def take(self, now: float, units: float) -> None:
        self._fill(now)
        self._level -= units

    def _fill(self, now: float) -> None:
        since = 0.0 if self._at is None else now - self._at
        self._level, self._at = min(self._capacity, self._level + since * self._per_second), now


class Pace:
    """The rates that were set, what the server says is left, and how long it asked everybody to wait."""

    def __init__(self, *, requests_per_minute: int = 0, tokens_per_minute: int = 0) -> None:
        self._requests = _Bucket(requests_per_minute)
        self._tokens = _Bucket(tokens_per_minute)
        self._held_until = 0.0
        self._left: dict[str, tuple[int, float]] = {}  # what is left, until all is there again

    def wait_seconds(self, now: float, tokens: int) -> float:
        """How long a request of *tokens* has to wait at the monotonic time *now*; 0: it may go."""
        waits = [
            self._held_until - now,
            self._requests.wait_seconds(now, 1),
            self._tokens.wait_seconds(now, tokens),
        ]
        for kind, units in (("requests", 1), ("tokens", tokens)):
            left, until = self._left.get(kind, (units, now))
            if units > left:
                waits.append(until - now)
        return max(0.0, *waits)

    def take(self, now: float, tokens: int) -> None:
        """A request of *tokens* goes."""
        self._requests.take(now, 1)
        self._tokens.take(now, tokens)
        for kind, units in (("requests", 1), ("tokens", tokens)):
            if kind in self._left:
                left, until = self._left[kind]
                self._left[kind] = (left - units, until)

    def hold(self, now: float, seconds: float) -> None:
        """The server asked everybody to wait."""
        self._held_until = max(self._held_until, now + min(seconds, HOLD_SECONDS_MAX))

    def heard(self, now: float, allowance: Allowance) -> None:
        """What an answer said of what is left. It counts till all is there again, by the server's word."""
        for kind, left, reset in (
            ("requests", allowance.requests_left, allowance.requests_reset_seconds),
            ("tokens", allowance.tokens_left, allowance.tokens_reset_seconds),
        ):
            if left is not None and reset is not None:
                self._left[kind] = (left, now + min(reset, HOLD_SECONDS_MAX))


class Stop(msgspec.Struct):
    """Shared by the requests of one caller, who sets it from its own thread: none of them begins any more."""

    asked: bool = False

    def look(self) -> None:
        if self.asked:
            raise RequestStopped


class Line:
    """Everybody who wants to ask: by priority and arrival, at a pace, so many at once."""

    def __init__(self, pace: Pace, *, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._clock = clock
        self._room = {Priority.QUERY: QUERIES_AT_ONCE, Priority.REPOSITORY: at_once}  # by lane
        self._waiting: dict[tuple[float, int], Priority] = {}
        self._numbers = itertools.count()
        self._changed = anyio.Event()

    @asynccontextmanager
    async def turn(self, priority: Priority, tokens: int, stop: Stop) -> AsyncIterator[None]:
        """Holds a place for one request of *tokens*. Raises EncoderBusy, RequestStopped."""
        if sum(each is priority for each in self._waiting.values()) >= WAITING_MAX[priority]:
            raise EncoderBusy(f"{WAITING_MAX[priority]} requests wait already")
        lane = _lane(priority)
        ticket = (self._clock() + AGEING_SECONDS * priority, next(self._numbers))
        self._waiting[ticket] = priority
        try:
            while (wait := self._wait_seconds(ticket, tokens)) > 0:
                stop.look()
                with anyio.move_on_after(min(wait, POLL_SECONDS)):
                    await self._changed.wait()
            stop.look()
            self._pace.take(self._clock(), tokens)
            self._room[lane] -= 1
        finally:
            del self._waiting[ticket]
            self._wake()
        try:
            yield
        finally:
            self._room[lane] += 1
            self._wake()

    def _wait_seconds(self, ticket: tuple[float, int], tokens: int) -> float:
        able = [each for each, priority in self._waiting.items() if self._room[_lane(priority)] > 0]
        if not able or min(able) != ticket:
            return POLL_SECONDS
        return self._pace.wait_seconds(self._clock(), tokens)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _lane(priority: Priority) -> Priority:
    return Priority.QUERY if priority is Priority.QUERY else Priority.REPOSITORY
