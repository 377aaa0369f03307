"""Whether the bus can be reached at this moment: a connection that stands says little of a frozen server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

import msgspec

from pharos_contracts import rpc
from pharos_contracts.message import UnreadableMessage
from pharos_contracts.streams import KV_ACTIVE, KV_LEASE, Q
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError, NotFound
from pharos_service.lease import Lease

REACH_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 0.5
FRESH_SECONDS: Final = 1.0
LEADER: Final = "scheduler"  # the key of its lease


class Unreachable(Exception):
    """The bus cannot be reached, or not yet; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def reach(bus: Bus, known: asyncio.Event | None = None) -> None:
    """Return when the server answers and, within a second, *known* is set; Unreachable otherwise."""
    if not bus.connected:
        raise Unreachable("Not connected to the bus")
    try:
        async with asyncio.timeout(REACH_SECONDS):
            # Not the client's flush: one that is given up leaves a future behind which ends nats-py's read
            # loop when its pong arrives after all, and the connection is deaf from then on.
            await bus.api("INFO")
            if known is not None:
                await known.wait()
    except (BusError, TimeoutError) as error:
        raise Unreachable("The bus does not answer") from error


async def submits_would_succeed(bus: Bus) -> str | None:
    """None, or a sentence that says why a submit would fail now."""
    if not bus.connected:
        return "Not connected to the bus"
    try:
        async with asyncio.timeout(REACH_SECONDS):
            for stream in (Q, f"KV_{KV_ACTIVE}"):
                await bus.api(f"STREAM.INFO.{stream}")
    except NotFound:
        return "The bus has no queue yet: `pharos-bus apply` makes it"
    except (BusError, TimeoutError):
        return "The bus does not answer"
    return None


async def answers(bus: Bus, subject: str) -> bool:
    """Whether some process answers questions under *subject*: one that cannot be read is refused at once."""
    try:
        await bus.request(subject, b"{}", ANSWER_SECONDS)
    except BusError:
        return False
    return True


async def _leads(bus: Bus) -> bool:
    """Whether some scheduler leads: a lease that is not renewed is gone within seconds."""
    try:
        return await Bucket(bus, KV_LEASE, Lease).get(LEADER) is not None
    except (BusError, UnreadableMessage):
        return False


class Condition(msgspec.Struct, frozen=True):
    """``reason``: why something would fail now, None where all is well; and how each dependency is."""

    reason: str | None
    dependencies: dict[str, str]


class Dependencies:
    """How the parts are that the gateway depends on: looked at once a second at most, however often asked."""

    def __init__(self, bus: Bus, *, clock: Callable[[], float] = monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._looking = asyncio.Lock()
        self._found = Condition(None, {})
        self._found_at = -FRESH_SECONDS

    async def condition(self) -> Condition:
        if not self._bus.connected:
            return _without_bus("Not connected to the bus")
        async with self._looking:
            if self._clock() - self._found_at >= FRESH_SECONDS:
                self._found = await self._look()
                self._found_at = self._clock()
            return self._found

    async def _look(self) -> Condition:
        reason = await submits_would_succeed(self._bus)
        if reason is not None:
            return _without_bus(reason)
        leads, searches, remembers = await asyncio.gather(
            _leads(self._bus), answers(self._bus, rpc.SEARCH), answers(self._bus, rpc.HISTORY)
        )
        missing = [
            sentence
            for well, sentence in (
                (leads, "no scheduler leads: jobs wait"),
                (searches, "search does not answer"),
                (remembers, "history does not answer: ended jobs cannot be read"),
            )
            if not well
        ]
        parts = {"scheduler": leads, "search": searches, "history": remembers}
        return Condition(
            "; ".join(missing) or None,
            {"bus": "ok", **{name: "ok" if well else "unavailable" for name, well in parts.items()}},
        )


def _without_bus(reason: str) -> Condition:
    return Condition(
        reason, {"bus": reason, "scheduler": "unknown", "search": "unknown", "history": "unknown"}
    )
