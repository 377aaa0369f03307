"""The composition root: the only file that names concrete classes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from pharos_contracts.rpc import HISTORY
from pharos_history.database import Database, DatabaseUnavailable
from pharos_history.projector import Projector, RebuildInterrupted
from pharos_history.questions import Question, Questions
from pharos_history.settings import HistorySettings, parse_database_url
from pharos_history.subscribers import Subscription
from pharos_history.view_store import PositionMoved, ViewStore
from pharos_service import rpc
from pharos_service.bus import Bus, BusError, connect
from pharos_service.health import probes

log = structlog.get_logger()

NAME: Final = "pharos-history"
STOP_SECONDS: Final = 10
CONNECT_SECONDS: Final = 15


class Readiness:
    """Why this process cannot do its work at the moment, as ``/readyz`` says it."""

    def __init__(self) -> None:
        self.bus: Bus | None = None
        self.projector: Projector | None = None
        self.subscription: Subscription | None = None

    def problem(self) -> str | None:
        """None when it can."""
        if self.bus is None or self.projector is None or self.subscription is None or not self.bus.connected:
            return "Not connected to the bus"
        return self.projector.problem or self.subscription.problem


async def serve(settings: HistorySettings) -> None:
    """Project and answer until cancelled."""
    database = Database(parse_database_url(settings.database_url, Path(settings.home)))
    store = ViewStore(database, utc_now)
    readiness = Readiness()
    broker = rpc.make_broker(settings, NAME)
    rpc.answer(broker, HISTORY, Question, Questions(store).answer)
    async with probes(settings.health_host, settings.health_port, readiness.problem):
        try:
            readiness.bus = bus = Bus(await broker.connect())
            readiness.projector = projector = Projector(bus, store, utc_now)
            readiness.subscription = subscription = Subscription(broker, bus, projector)
            await projector.migrate(database.migrate)
            await broker.start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(subscription.keep)
                tasks.start_soon(projector.watch)
                tasks.start_soon(projector.prune, timedelta(days=settings.history_retention_days))
        finally:
            with anyio.move_on_after(STOP_SECONDS, shield=True):
                if readiness.subscription is not None:
                    await readiness.subscription.stop()
                await broker.stop()
            database.close()


async def rebuild(settings: HistorySettings) -> None:
    """Make the views again from what JOBS holds, then end. RebuildFailed where that did not happen."""
    database = Database(parse_database_url(settings.database_url, Path(settings.home)))
    bus: Bus | None = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await connect(settings, f"{NAME}-rebuild")
        await anyio.to_thread.run_sync(database.migrate)
        projector = Projector(bus, ViewStore(database, utc_now), utc_now)
        count = await projector.rebuild()
        await projector.prune_once(timedelta(days=settings.history_retention_days))
    except TimeoutError:
        raise RebuildFailed(f"No NATS server answers at {settings.nats_url}") from None
    except (RebuildInterrupted, PositionMoved, DatabaseUnavailable, BusError) as error:
        raise RebuildFailed(str(error)) from error
    finally:
        if bus is not None:
            await bus.client.close()
        database.close()
    log.info("rebuilt", events=count)


class RebuildFailed(Exception):
    """The rebuild did not happen, and everything is as it was; the message says why."""


def utc_now() -> datetime:
    return datetime.now(UTC)
