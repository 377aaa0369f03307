"""A worker in a process of its own, with work that only writes lines to a file: it can be killed and frozen.

``python -m tests.support.worker_process <options>``. Each line is written by a thread, after the check that
work makes before each of its writes, and says who wrote it. The work ends when the file ``--done`` is there.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import anyio

from pharos_contracts.jobs.v1 import IndexResult, WorkItem
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.control import Control
from pharos_embedder.draining import Drain, drain_when_asked
from pharos_embedder.ports import Check, Held
from pharos_embedder.presence import Presence
from pharos_embedder.threads import in_thread
from pharos_embedder.worker import Worker, WorkerConfig
from pharos_service.bus import connect
from pharos_service.settings import ServiceSettings

LINE_SECONDS = 0.01


def utc_now() -> datetime:
    return datetime.now(UTC)


class Lines:
    """The work."""

    def __init__(self, name: str, lines: Path, done: Path) -> None:
        self._name = name
        self._lines = lines
        self._done = done

    async def run(self, held: Held) -> IndexResult:
        await in_thread(self._write, held.check)
        return IndexResult(
            dataset="d", generation=1, commit="c", files_processed=0, embeddings_generated=0, chunks=0
        )

    def _write(self, check: Check) -> None:
        with self._lines.open("a") as lines:
            while not self._done.exists():
                check()
                lines.write(f"{self._name}\n")
                lines.flush()
                time.sleep(LINE_SECONDS)

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        """Nothing is published."""
        return result

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        """Nothing is left."""

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        with self._lines.open("a") as lines:
            lines.write("cleared\n")


async def serve(options: argparse.Namespace) -> None:
    bus = await connect(ServiceSettings(nats_url=options.nats), options.name)
    started = utc_now()
    view = WorkerView(
        name=options.name,
        instance=str(uuid4()),
        pool="default",
        state=WorkerState.IDLE,
        device="none",
        slots=1,
        since=started,
        seen_at=started,
    )
    presence, control, drain = Presence(bus, view, utc_now), Control(bus), Drain()
    worker = Worker(
        bus,
        Lines(options.name, options.lines, options.done),
        presence,
        control,
        drain,
        now=utc_now,
        config=WorkerConfig(hold=options.hold, lapse=options.lapse, stop=10),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(presence.beat)
        tasks.start_soon(control.follow)
        tasks.start_soon(drain_when_asked, drain, presence, options.drain)
        await worker.serve()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nats", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--done", type=Path, required=True)
    parser.add_argument("--hold", type=float, default=0.5)
    parser.add_argument("--lapse", type=float, default=30)
    parser.add_argument("--drain", type=float, default=25)
    asyncio.run(serve(parser.parse_args()))
