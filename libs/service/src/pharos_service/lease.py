"""Leading by a lease: one holder at a time, and whoever lost it stops.

The lease is an entry that expires; renewing and taking it are compare-and-sets. A holder that was frozen
finds out at its next renewal; until then its writes are fenced by the compare-and-sets of what it writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import structlog

from pharos_contracts.message import Message
from pharos_service.buckets import Bucket
from pharos_service.bus import BusError

log = structlog.get_logger()


class Lease(Message, frozen=True, kw_only=True, tag="lease.view.v1.lease"):
    """Who leads."""

    holder: str


async def lead(
    bucket: Bucket[Lease], key: str, holder: str, ttl_seconds: float, work: Callable[[], Awaitable[None]]
) -> None:
    """Run *work* whenever *holder* has the lease, and cancel it when the lease is lost; for ever."""
    while True:
        revision = await _try_to_take(bucket, key, holder)
        if revision is not None:
            log.info("lease_taken", holder=holder)
            await _work_while_held(bucket, key, holder, revision=revision, ttl_seconds=ttl_seconds, work=work)
        await asyncio.sleep(ttl_seconds / 6)


async def _try_to_take(bucket: Bucket[Lease], key: str, holder: str) -> int | None:
    try:
        return await bucket.create(key, Lease(holder=holder))
    except BusError:
        return None


async def _work_while_held(
    bucket: Bucket[Lease],
    key: str,
    holder: str,
    *,
    revision: int,
    ttl_seconds: float,
    work: Callable[[], Awaitable[None]],
) -> None:
    held = revision
    try:
        async with anyio.create_task_group() as tasks:

            async def renew() -> None:
                nonlocal held
                loop = asyncio.get_running_loop()
                renewed_at = loop.time()
                while loop.time() - renewed_at < ttl_seconds:
                    await asyncio.sleep(ttl_seconds / 4)
                    try:
                        following = await bucket.update(key, Lease(holder=holder), held)
                    except BusError:
                        continue  # the bus may be back before the lease runs out
                    if following is None:
                        break
                    held, renewed_at = following, loop.time()
                log.warning("lease_lost", holder=holder)
                tasks.cancel_scope.cancel()

            tasks.start_soon(renew)
            await work()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            await _give_back(bucket, key, held)


async def _give_back(bucket: Bucket[Lease], key: str, revision: int) -> None:
    """So that the next holder need not wait for the lease to run out."""
    try:
        await bucket.delete(key, revision)
    except BusError as error:
        log.debug("lease_not_given_back", reason=str(error))
