"""Leaving without losing anything: first nothing new is taken, then what is in hand is handed back."""

from __future__ import annotations

import signal

import anyio
import structlog

from pharos_embedder.presence import Presence

log = structlog.get_logger()


class Drain:
    """What all slots of one worker are asked to do. Each step happens once and stays."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.hurried = anyio.Event()

    def begin(self) -> None:
        """Take no more items; finish the one in hand."""
        self.begun.set()

    def hurry(self) -> None:
        """Hand back what is in hand, now."""
        self.begun.set()
        self.hurried.set()


async def drain_when_asked(drain: Drain, presence: Presence, seconds: float) -> None:
    """At SIGTERM or SIGINT begin to drain, and hurry after *seconds* or at a second signal.

    It takes the signals over from the chassis, whose answer to the first one is to cancel everything.
    """
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        received = await anext(signals)
        log.info("drain_began", signal=signal.Signals(received).name, seconds=seconds)
        presence.draining()
        drain.begin()
        with anyio.move_on_after(seconds):
            await anext(signals)
        log.info("drain_hurried")
        drain.hurry()
        await anyio.sleep_forever()  # a third signal changes nothing
