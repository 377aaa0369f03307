"""A worker for files of batches in a process of its own, which kills itself at a given moment.

``python -m tests.support.batch_process <options>``. ``--die encode:2`` is before the second batch of texts is
encoded, ``write:1`` before the first points are stored, ``published:1`` after a dataset was published.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio

from pharos_embedder.documents.pool import DocumentPool
from pharos_embedder.worker import WorkerConfig
from pharos_service.bus import connect
from pharos_service.settings import ServiceSettings
from pharos_sources.connections import Installation
from tests.support.batch_machine import doing
from tests.support.workers import Machine

ACK_WAIT_SECONDS = 2.0
LOCK_SECONDS = 3.0
CONFIG = WorkerConfig(hold=0.3, lapse=10.0)


def dying_at(number: int) -> Callable[..., None]:
    """What kills this process when it is called for the *number*-th time."""
    left = number

    def called(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    return called


async def serve(options: argparse.Namespace) -> None:
    bus = await connect(ServiceSettings(nats_url=options.nats), "dying")
    moment, _, number = options.die.partition(":")
    die = dying_at(int(number))
    with Machine(options.home) as machine, DocumentPool(2) as pool:
        if moment == "encode":
            machine.encoder.gate.passing = die
        if moment == "write":
            machine.engine.gate.passing = die
        on_change = die if moment == "published" else (lambda *_: None)
        installation = Installation(roots=(options.root,))
        async with doing(
            bus,
            machine,
            pool,
            installation,
            config=CONFIG,
            lock_ttl_seconds=LOCK_SECONDS,
            on_change=on_change,
        ):
            print("ready", flush=True)
            await anyio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nats", required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--die", required=True)
    asyncio.run(serve(parser.parse_args()))
