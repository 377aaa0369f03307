"""Keeping the views level with JOBS: in order, from whatever delivers, over failures of bus and database.

Facts reach the store only as "everything from here to there". The durable consumer delivers in order as
long as nothing goes wrong; when something did (a crash with messages in flight, a reconnect, another
process of this service that took a share), what is missing is read from the stream itself at once, and
what the consumer delivers again later has been seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import structlog

from pharos_contracts.streams import JOBS
from pharos_history.database import DatabaseUnavailable
from pharos_history.facts import Fact, Position, Unreadable, read
from pharos_history.view_store import PositionMoved, StreamState, ViewStore
from pharos_service.bus import Bus, BusError, Stored
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

EVENTS: Final = "events.>"
BATCH_MAX: Final = 500
LOOK_SECONDS: Final = 2.0
RETRY_SECONDS_MIN: Final = 0.1
RETRY_SECONDS_MAX: Final = 5.0
SILENCE_SECONDS: Final = 30.0
PRUNE_SECONDS: Final = 3600.0
PRUNE_JOBS: Final = 500

T = TypeVar("T")


class RebuildInterrupted(Exception):
    """The stream could not be read to its end; the views are as they were."""


class Projector:
    """One a process. ``problem`` is None, or a sentence that says why the views are not kept up."""

    def __init__(self, bus: Bus, store: ViewStore, clock: Callable[[], datetime]) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._writer = anyio.CapacityLimiter(1)
        self.problem: str | None = "The database has not been reached yet"

    async def migrate(self, migrate: Callable[[], None]) -> None:
        """Bring the tables up to date, however long the database takes to be there."""
        await self._persistently(migrate)

    async def take(self, arrived: Sequence[Stored]) -> None:
        """Fold what the durable consumer delivered; when this returns it is committed.

        Waits for as long as the database refuses: nothing is acknowledged meanwhile, nothing is lost.
        """
        if not arrived:
            return
        batch = sorted(arrived, key=lambda stored: stored.sequence)
        async with self._one_at_a_time:
            position = await self._position(look=batch)
            fresh = [stored for stored in batch if stored.sequence > position.sequence]
            if not fresh:
                return
            if _joins(position, fresh):
                try:
                    await self._fold(position, fresh)
                    return
                except PositionMoved as moved:
                    log.info("position_moved", reason=str(moved))
            await self._catch_up(through=fresh[-1].sequence)

    async def watch(self) -> None:
        """Catch up, then look every two seconds whether the store stands still behind JOBS, for ever.

        A stream that was made anew is noticed here as well.
        """
        before: Position | None = None
        while True:
            try:
                stream = await stream_state(self._bus)
                async with self._one_at_a_time:
                    position = await self._persistently(partial(self._store.open, stream))
                    if before in (None, position) and position.sequence < stream.last_sequence:
                        log.info("catching_up", position=position.sequence, last=stream.last_sequence)
                        await self._catch_up(through=None)
                before = position
            except BusError as error:
                log.debug("stream_unreachable", reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def prune(self, retention: timedelta) -> None:
        """Forget what is older than *retention*, now and every hour, for ever."""
        while True:
            await self.prune_once(retention)
            await asyncio.sleep(PRUNE_SECONDS)

    async def prune_once(self, retention: timedelta) -> None:
        """Forget what is older than *retention*, a few hundred jobs at a time."""
        rows = 0
        before = self._clock() - retention
        while gone := await self._persistently(partial(self._store.prune, before, PRUNE_JOBS)):
            rows += gone
        if rows:
            log.info("pruned", rows=rows, before=before.isoformat())

    async def rebuild(self) -> int:
        """Fold JOBS again from its first event; how many events. RebuildInterrupted, DatabaseUnavailable.

        One transaction: readers see the old views until it ends, other writers wait for it and go on
        behind it, and a crash leaves everything as it was.
        """
        stream = await stream_state(self._bus)
        count = 0
        async with self._one_at_a_time, _rebuilding(self._store, stream, self._writer) as fold:
            batches = self._batches(after=0, through=stream.last_sequence)
            async with aclosing(batches):
                while True:
                    try:
                        async with asyncio.timeout(SILENCE_SECONDS):
                            batch = await anext(batches)
                    except StopAsyncIteration:
                        return count
                    except TimeoutError:
                        raise RebuildInterrupted("JOBS cannot be read; the views are as they were") from None
                    await fold([read(stored) for stored in batch])
                    count += len(batch)

    async def _position(self, look: Sequence[Stored]) -> Position:
        """Where the store is. Asks the server when *look* begins where it should not: was JOBS made anew?"""
        while True:
            position = await self._persistently(self._store.position)
            if position is not None and look[0].sequence > position.sequence:
                return position
            try:
                stream = await stream_state(self._bus)
            except BusError as error:
                log.debug("stream_unreachable", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS_MIN)
                continue
            return await self._persistently(partial(self._store.open, stream))

    async def _catch_up(self, through: int | None) -> None:
        """From the store's position through sequence *through*, or to the end as it is now."""
        while True:
            try:
                stream = await stream_state(self._bus)
                position = await self._persistently(partial(self._store.open, stream))
                end = stream.last_sequence if through is None else min(through, stream.last_sequence)
                if position.sequence >= end:
                    return
                batches = self._batches(after=position.sequence, through=end)
                async with aclosing(batches):
                    async for batch in batches:
                        position = await self._fold(position, batch)
                return
            except PositionMoved as moved:
                log.info("position_moved", reason=str(moved))
            except BusError as error:
                log.debug("stream_unreachable", reason=str(error))
            await asyncio.sleep(RETRY_SECONDS_MIN)

    async def _batches(self, *, after: int, through: int) -> AsyncGenerator[list[Stored], None]:
        """What JOBS holds behind *after*, in order, to *through* or the end; PositionMoved if made anew."""
        batch: list[Stored] = []
        seen = after
        async with aclosing(tail(self._bus, JOBS, [EVENTS], after=after)) as stored:
            async for each in stored:
                if not isinstance(each, CaughtUp):
                    if each.sequence <= seen:
                        raise PositionMoved("JOBS was made anew while it was read")
                    seen = each.sequence
                    batch.append(each)
                done = isinstance(each, CaughtUp) or seen >= through
                if batch and (done or len(batch) >= BATCH_MAX):
                    yield batch
                    batch = []
                if done:
                    return

    async def _fold(self, after: Position, batch: Sequence[Stored]) -> Position:
        facts = [read(stored) for stored in batch]
        for fact in facts:
            if isinstance(fact, Unreadable):
                subject = fact.stored.subject
                log.error("event_unreadable", sequence=fact.sequence, subject=subject, reason=fact.reason)
        return await self._persistently(partial(self._store.fold, after, facts))

    async def _persistently(self, call: Callable[[], T]) -> T:
        """The result of *call*, in a thread; tried again, less and less often, for as long as it fails."""
        wait_seconds = RETRY_SECONDS_MIN
        while True:
            try:
                result = await anyio.to_thread.run_sync(call, limiter=self._writer)
            except PositionMoved:
                raise
            except DatabaseUnavailable as error:
                self.problem = f"The database is not available: {error}"
            except Exception as error:
                # Not one event, which would have been kept aside, but all of them: giving up would lose them.
                self.problem = f"The database refuses everything: {type(error).__name__}"
                log.exception("database_refused")
            else:
                if self.problem is not None:
                    log.info("database_reached")
                self.problem = None
                return result
            log.warning("database_retried", reason=self.problem, wait_seconds=wait_seconds)
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(wait_seconds * 2, RETRY_SECONDS_MAX)


def _joins(position: Position, fresh: Sequence[Stored]) -> bool:
    """Whether *fresh* is all that follows *position* up to its own last, each once."""
    expected = range(position.sequence + 1, position.sequence + 1 + len(fresh))
    return all(stored.sequence == sequence for stored, sequence in zip(fresh, expected, strict=True))


async def stream_state(bus: Bus) -> StreamState:
    """What the server says of JOBS. BusError."""
    info = await bus.api(f"STREAM.INFO.{JOBS}")
    state = info["state"]
    return StreamState(
        created=str(info["created"]),
        first_sequence=int(state["first_seq"]),
        last_sequence=int(state["last_seq"]),
    )


@asynccontextmanager
async def _rebuilding(
    store: ViewStore, stream: StreamState, limiter: anyio.CapacityLimiter
) -> AsyncIterator[Callable[[Sequence[Fact | Unreadable]], Awaitable[None]]]:
    """The store's rebuild from an event loop: each step in a thread, the end of it in any case."""
    rebuild = store.rebuild(stream)

    async def fold(facts: Sequence[Fact | Unreadable]) -> None:
        await anyio.to_thread.run_sync(rebuild.fold, facts, limiter=limiter)

    await anyio.to_thread.run_sync(rebuild.__enter__, limiter=limiter)
    try:
        yield fold
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            undo = partial(rebuild.__exit__, type(error), error, error.__traceback__)
            await anyio.to_thread.run_sync(undo, limiter=limiter)
        raise
    await anyio.to_thread.run_sync(rebuild.__exit__, None, None, None, limiter=limiter)
