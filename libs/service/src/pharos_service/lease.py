"""Leading by a lease: one holder at a time, and whoever lost it stops.

The lease is an entry that expires; renewing and taking it are compare-and-sets. A holder that was frozen
finds out before its next effect: ``Held.check`` looks at the clock. What was on its way already is fenced by
the compare-and-sets of what it writes, and by its ``term``, which whoever receives it compares (M. Kleppmann,
"How to do distributed locking", 2016, calls it a fencing token).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import structlog

from pharos_contracts.message import Message
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import BusError

log = structlog.get_logger()


# Of the time to live: the clocks of this machine and of the server need not run alike.
FRESH_SHARE: Final = 0.9
RETRY_SECONDS: Final = 0.1


class Lease(Message, frozen=True, kw_only=True, tag="lease.view.v1.lease"):
    """Who leads.

    ``term`` is the revision of the entry that the holder took it with, and grows with each holder; 0 in that
    very entry, which cannot know it. ``adopted`` is the last sequence, in the stream that the holder writes
    to, of what earlier holders wrote while they led; None until the holder has looked.
    """

    holder: str
    term: int = 0
    adopted: int | None = None


def term_of(entry: Entry[Lease]) -> int:
    return entry.value.term or entry.revision


class LeaseLost(Exception):
    """The time of the lease may have run out: somebody else may lead."""


class Held:
    """The lease, as its holder sees it."""

    def __init__(self, term: int, ttl_seconds: float, taken_at: float) -> None:
        self.term = term
        self.adopted: int | None = None
        self.revision = term
        self.renewed_at = taken_at
        self.renew_now = asyncio.Event()
        self._fresh_seconds = ttl_seconds * FRESH_SHARE

    def check(self) -> None:
        """LeaseLost where this process was frozen, or the bus away, for as long as a lease lives."""
        if asyncio.get_running_loop().time() - self.renewed_at > self._fresh_seconds:
            raise LeaseLost

    def adopt(self, sequence: int) -> None:
        """What stands up to *sequence* was written while it was right to write it."""
        self.adopted = sequence
        self.renew_now.set()


async def lead(
    bucket: Bucket[Lease],
    key: str,
    holder: str,
    ttl_seconds: float,
    work: Callable[[Held], Awaitable[None]],
) -> None:
    """Run *work* whenever *holder* has the lease, and cancel it when the lease is lost; for ever."""
    while True:
        held = await _try_to_take(bucket, key, holder, ttl_seconds)
        if held is not None:
            log.info("lease_taken", holder=holder, term=held.term)
            await _work_while_held(bucket, key, holder, held, ttl_seconds, work)
        await asyncio.sleep(ttl_seconds / 6)


async def _try_to_take(bucket: Bucket[Lease], key: str, holder: str, ttl_seconds: float) -> Held | None:
    asked_at = asyncio.get_running_loop().time()
    try:
        revision = await bucket.create(key, Lease(holder=holder))
    except BusError:
        return None
    return None if revision is None else Held(revision, ttl_seconds, asked_at)


async def _work_while_held(
    bucket: Bucket[Lease],
    key: str,
    holder: str,
    held: Held,
    ttl_seconds: float,
    work: Callable[[Held], Awaitable[None]],
) -> None:
    try:
        async with anyio.create_task_group() as tasks:

            async def renew() -> None:
                loop = asyncio.get_running_loop()
                while loop.time() - held.renewed_at < ttl_seconds:
                    with anyio.move_on_after(ttl_seconds / 4):
                        await held.renew_now.wait()
                    held.renew_now.clear()
                    asked_at = loop.time()
                    value = Lease(holder=holder, term=held.term, adopted=held.adopted)
                    try:
                        following = await bucket.update(key, value, held.revision)
                        if following is None:
                            following = await _renewed_unheard(bucket, key, held.term)
                    except BusError:
                        await asyncio.sleep(RETRY_SECONDS)
                        continue  # the bus may be back before the lease runs out
                    if following is None:
                        break
                    held.revision, held.renewed_at = following, asked_at
                log.warning("lease_lost", holder=holder, term=held.term)
                tasks.cancel_scope.cancel()

            tasks.start_soon(renew)
            await work(held)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            await _give_back(bucket, key, held.revision)


async def _renewed_unheard(bucket: Bucket[Lease], key: str, term: int) -> int | None:
    """The revision of a renewal that was stored although its answer did not arrive."""
    entry = await bucket.get(key)
    return entry.revision if entry is not None and term_of(entry) == term else None


async def _give_back(bucket: Bucket[Lease], key: str, revision: int) -> None:
    """So that the next holder need not wait for the lease to run out."""
    try:
        await bucket.delete(key, revision)
    except BusError as error:
        log.debug("lease_not_given_back", reason=str(error))
