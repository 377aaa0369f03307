"""One client's view of the stream of events: what it missed, then what happens, each once and in order.

Join the shared tail first, then catch up with a tail of one's own from the last event that the client saw,
then go on with the shared one and drop what is not newer. Nothing can fall between the two: whatever the
shared tail had passed when the client joined was stored before the client's own tail began.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
import structlog

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.message import UnreadableMessage
from pharos_contracts.streams import JOBS
from pharos_contracts.subjects import job_events
from pharos_gateway.happenings import Happening, comment, read, reset_block
from pharos_gateway.live import Live
from pharos_gateway.sight import Sight
from pharos_gateway.subscriptions import EVENTS_MAX, Closed
from pharos_service.bus import Bus, BusError, Stored
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

RETRY_SECONDS: Final = 0.25
AFTER_END_SECONDS: Final = 1.0
BEFORE_RETENTION: Final = "what was missed is no longer kept"
UNKNOWN_ID: Final = "the last event id is not one of this installation"

Snapshot = Callable[[], Awaitable[Mapping[str, Any]]]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked to follow. ``after`` is the last id it saw; None begins with what comes.

    ``from_start`` replays what is kept of a job instead, however little. ``ends`` closes the stream a moment
    after the job has ended.
    """

    sight: Sight
    subjects: tuple[str, ...]
    job_id: str | None = None
    public: bool = False
    workers: bool = True
    after: int | None = None
    from_start: bool = False
    ends: bool = False


def gap(after: int, first: int, last: int) -> str | None:
    """Why a client that saw *after* cannot simply go on, where JOBS has *first* to *last*; None if it can."""
    if after > last:
        return UNKNOWN_ID
    if after < first - 1:
        return BEFORE_RETENTION
    return None


async def follow(
    bus: Bus, live: Live, wanted: Wanted, snapshot: Snapshot, *, events_max: int = EVENTS_MAX
) -> AsyncGenerator[bytes, None]:
    """Blocks of the event stream, until the subscription is closed or the job has ended."""
    with live.subscribed(
        sight=wanted.sight,
        job_id=wanted.job_id,
        public=wanted.public,
        workers=wanted.workers,
        events_max=events_max,
    ) as subscription:
        await live.primed()
        position = live.sequence  # whatever is offered from here on is newer
        # Sent at once, so that a proxy passes the head of the answer on.
        yield comment("connected")
        await live.ready.wait()
        after = 0 if wanted.from_start else wanted.after
        ended = False
        if after is not None:
            reason = None if wanted.from_start else await _gap_now(bus, after)
            if reason is not None:
                position = live.sequence
                yield reset_block(position, reason, await snapshot())
            else:
                position = after
                async with aclosing(tail(bus, JOBS, wanted.subjects, after=after)) as missed:
                    async for stored in missed:
                        if isinstance(stored, CaughtUp):
                            break
                        position = stored.sequence
                        happening = _read(stored, live.recent)
                        if happening is not None:
                            if happening.lacks_job:
                                happening.of = await _job_of(bus, happening)
                            if not wanted.sight.maybe_job(happening.about):
                                continue
                            yield happening.public if wanted.public else happening.native
                            ended = happening.is_last
        try:
            while True:
                # A job that ended may be retried by its owner: a moment is left for what follows at once.
                async with asyncio.timeout(AFTER_END_SECONDS if ended and wanted.ends else None):
                    block = await subscription.next()
                if isinstance(block, Happening):
                    if block.sequence <= position:
                        continue
                    position, ended = block.sequence, block.is_last
                    block = block.public if wanted.public else block.native
                yield block
        except TimeoutError:
            yield comment("the job has ended")
        except Closed as closed:
            yield closed.farewell


async def _gap_now(bus: Bus, after: int) -> str | None:
    """``gap``, as soon as the bus can say."""
    while True:
        try:
            state = (await bus.api(f"STREAM.INFO.{JOBS}"))["state"]
            return gap(after, int(state["first_seq"]), int(state["last_seq"]))
        except BusError as error:
            log.debug("jobs_unreachable", reason=str(error))
        await asyncio.sleep(RETRY_SECONDS)


def _read(stored: Stored, known: Callable[[str], Job | None]) -> Happening | None:
    try:
        return read(stored.sequence, stored.data, known)
    except UnreadableMessage as error:
        log.warning("event_unreadable", sequence=stored.sequence, error=error.reason)
        return None


async def _job_of(bus: Bus, happening: Happening) -> Job | None:
    """The job that an old fact belongs to, by its last event."""
    try:
        last = await bus.last(JOBS, job_events(happening.tenant, happening.job_id))
        found = None if last is None else read(last.sequence, last.data, lambda _: None)
    except (BusError, UnreadableMessage) as error:
        log.debug("job_unknown", job_id=happening.job_id, reason=str(error))
        return None
    return None if found is None else found.job
