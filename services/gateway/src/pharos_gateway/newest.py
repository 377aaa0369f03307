"""Reading a stream from its end, page by page: the server reads forwards only."""

from __future__ import annotations

from typing import Final

from pharos_service.bus import Bus, Stored

SPAN_MIN: Final = 64
SPAN_MAX: Final = 16_384
READS_MAX: Final = 512


async def newest(bus: Bus, stream: str, subject: str, count: int, before: int | None) -> list[Stored]:
    """The last *count* messages under *subject* before that sequence, newest first. Errors of the bus.

    It is read in spans from its end: each of twice the size of the last one while they hold little, and less
    where one turns out to hold much.
    """
    state = (await bus.api(f"STREAM.INFO.{stream}"))["state"]
    first, end = int(state["first_seq"]), int(state["last_seq"]) + 1
    end = end if before is None else min(before, end)
    found: list[Stored] = []
    span = SPAN_MIN
    while end > first and len(found) < count:
        start = max(first, end - span)
        within = await _within(bus, stream, subject, start, end)
        if within is None:
            span = max(SPAN_MIN, span // 8)
            continue
        found.extend(reversed(within))
        end, span = start, min(span * 2, SPAN_MAX)
    return found[:count]


async def _within(bus: Bus, stream: str, subject: str, start: int, end: int) -> list[Stored] | None:
    """The messages from *start* to before *end*; None where there are too many of them."""
    within: list[Stored] = []
    stored = await bus.first(stream, subject, start)
    while stored is not None and stored.sequence < end:
        if len(within) >= READS_MAX:
            return None
        within.append(stored)
        stored = await bus.first(stream, subject, stored.sequence + 1)
    return within
