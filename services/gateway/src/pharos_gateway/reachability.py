"""Whether the bus can be reached at this moment: a connection that stands says little of a frozen server."""

from __future__ import annotations

import asyncio
from typing import Final

from pharos_contracts import rpc
from pharos_contracts.streams import KV_ACTIVE, Q
from pharos_service.bus import Bus, BusError, NotFound

REACH_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 0.5


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


async def dependencies(bus: Bus) -> tuple[str | None, dict[str, str]]:
    """(why a submit would fail or None, each dependency and how it is)."""
    reason = await submits_would_succeed(bus)
    if reason is not None:
        return reason, {"bus": reason, "history": "unknown", "search": "unknown"}
    found = await asyncio.gather(answers(bus, rpc.HISTORY), answers(bus, rpc.SEARCH))
    history, search = ("ok" if each else "unavailable" for each in found)
    return None, {"bus": "ok", "history": history, "search": search}
