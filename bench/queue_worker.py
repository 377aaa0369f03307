"""``python -m bench.queue_worker``: the real worker, its slots and all, with work that does nothing.

It loads neither torch nor a store: what is measured is the way of a job, not what is done with it.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import anyio

from pharos_contracts.jobs.v1 import IndexResult, WorkItem
from pharos_contracts.subjects import POOL_DEFAULT
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.control import Control
from pharos_embedder.draining import Drain
from pharos_embedder.ports import Held
from pharos_embedder.presence import Presence
from pharos_embedder.worker import Worker
from pharos_service.bus import connect
from pharos_service.running import run
from pharos_service.settings import ServiceSettings

NAME: Final = "bench"


class Nothing:
    """Work that is done at once and leaves nothing behind."""

    async def run(self, held: Held) -> IndexResult:
        return IndexResult(
            dataset=held.job.source.identity,
            generation=1,
            commit="0" * 40,
            files_processed=0,
            embeddings_generated=0,
            chunks=0,
        )

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        """Nothing is published."""
        return result

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        """Nothing is left."""

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        """Nothing was written."""


def utc_now() -> datetime:
    return datetime.now(UTC)


async def serve(settings: ServiceSettings, slots: int) -> None:
    """Work until cancelled."""
    bus = await connect(settings, "bench-worker")
    started = utc_now()
    view = WorkerView(
        name=NAME,
        instance=str(uuid4()),
        pool=POOL_DEFAULT,
        state=WorkerState.IDLE,
        device="none",
        slots=slots,
        since=started,
        seen_at=started,
    )
    presence = Presence(bus, view, utc_now)
    control, drain = Control(bus), Drain()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(presence.beat)
        tasks.start_soon(control.follow)
        for _ in range(slots):
            tasks.start_soon(Worker(bus, Nothing(), presence, control, drain, now=utc_now).serve)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1)
    slots = parser.parse_args().slots

    async def start(settings: ServiceSettings) -> None:
        await serve(settings, slots)

    run("bench-worker", ServiceSettings, start)


if __name__ == "__main__":
    main()
