"""A gateway for somebody who tries everything: what is behind it is real, but for the embedder."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from faststream.nats import NatsBroker

from pharos_contracts import rpc
from pharos_contracts.graphs.v1 import (
    FindRelated,
    GraphPage,
    Indexed,
    MapPage,
    ReadGraph,
    ReadMap,
    RelatedFiles,
)
from pharos_contracts.message import Message
from pharos_contracts.search.v1 import Search, SearchAnswer, SearchBatch, SearchBatchAnswer
from pharos_contracts.streams import KV_WORKERS
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway.app import serving
from pharos_history.app import serve as serve_history
from pharos_history.settings import HistorySettings
from pharos_scheduler.app import serve as serve_scheduler
from pharos_scheduler.settings import Settings as SchedulerSettings
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from pharos_service.settings import Secret
from tests.support.gateway import client, settings, shelving, worker

GIT: Final = "http://git.test:9418"  # nobody is looked up, and nobody is there
HAPPENS_SECONDS: Final = 0.02


@asynccontextmanager
async def checked(bus: Bus, nats_url: str, home: Path, **others: Any) -> AsyncIterator[str]:
    """The address of a gateway without limits on how often it is asked, which is healthy.

    Something happens all the time, so that an event stream soon has something to say.
    """
    broker = NatsBroker(nats_url)
    answer(broker, rpc.SEARCH, Search | SearchBatch | ReadGraph | ReadMap | FindRelated, _search)
    chosen = settings(
        nats_url,
        home=str(home),
        git_allowed_hosts=GIT,
        callback_allowed_hosts="http://calls.test",
        secret_key=Secret("s" * 40),
        rate_limit_key_per_minute=0,
        rate_limit_address_per_minute=0,
        rate_limit_guesses_per_minute=0,
        **others,
    )
    behind = (
        serve_history(HistorySettings(nats_url=nats_url, home=str(home))),
        serve_scheduler(SchedulerSettings(nats_url=nats_url)),
        _happen(bus),
    )
    tasks = [asyncio.create_task(each) for each in behind]
    try:
        await broker.start()
        async with shelving(bus), serving(chosen) as running, client(running.address) as http:
            async with asyncio.timeout(20):
                while (await http.get("/health")).status_code != 200:
                    await asyncio.sleep(0.05)
            yield running.address
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await broker.stop()


async def _search(question: Search | SearchBatch | ReadGraph | ReadMap | FindRelated) -> Message:
    """Nothing is found; every repository is known and empty."""
    indexed = Indexed(
        tenant="default",
        project="default",
        dataset="d",
        repository="git.test/o/r",
        branch="main",
        commit="c" * 40,
        generation=1,
    )
    match question:
        case Search():
            return SearchAnswer(results=(), metadata={"mode": question.mode}, latency_ms=1.0)
        case SearchBatch():
            nothing = SearchAnswer(results=(), metadata={}, latency_ms=1.0)
            return SearchBatchAnswer(answers=(nothing,) * len(question.queries), latency_ms=1.0)
        case ReadGraph():
            return GraphPage(
                indexed=indexed, files=(), files_total=0, edges_total=0, edges_dropped=0, after=None
            )
        case ReadMap():
            return MapPage(indexed=indexed, files=(), files_total=0, after=None)
        case FindRelated():
            return RelatedFiles(
                indexed=indexed, path=question.path or "a.py", symbol=question.symbol, files=()
            )


async def _happen(bus: Bus) -> None:
    """A worker that takes nothing comes back again and again."""
    workers = Bucket(bus, KV_WORKERS, Worker)
    for number in itertools.count():
        await workers.put("w1", worker("w1", WorkerState.DRAINING, instance=str(number)))
        await asyncio.sleep(HAPPENS_SECONDS)
