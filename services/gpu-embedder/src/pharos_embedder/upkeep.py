"""What whoever owns the store does for it now and then: sweep it, and optimize it when that pays.

Beside the work and the queries: the store says by itself when it is worth the while, and what either of them
cannot do now, because the bus or the disk are away, is done the next time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import anyio
import anyio.to_thread
import structlog

from pharos_embedder.sweeping import Sweeping
from pharos_embedder.vectors import StoreError, VectorStore
from pharos_service.bus import BusError

log = structlog.get_logger()

SWEEP_SECONDS: Final = 1_800.0
OPTIMIZE_SECONDS: Final = 30.0


async def keep_swept(
    sweeping: Sweeping, now: Callable[[], datetime], *, every_seconds: float = SWEEP_SECONDS
) -> None:
    """Sweep at once and then every so often, until cancelled."""
    while True:
        try:
            await sweeping.sweep(now())
        except (StoreError, BusError) as error:
            log.warning("store_not_swept", reason=str(error))
        await anyio.sleep(every_seconds)


async def keep_optimized(store: VectorStore, *, every_seconds: float = OPTIMIZE_SECONDS) -> None:
    """Optimize *store* whenever it says that this pays, until cancelled; closing it ends what is going on."""
    while True:
        await anyio.sleep(every_seconds)
        try:
            if await anyio.to_thread.run_sync(store.optimize, abandon_on_cancel=True):
                log.info("store_optimized")
        except (StoreError, OSError) as error:
            log.warning("store_not_optimized", reason=str(error))
