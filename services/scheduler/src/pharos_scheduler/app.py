"""Composition root: the only file that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import anyio
import structlog

from pharos_contracts import streams
from pharos_contracts.message import UnreadableMessage
from pharos_scheduler.backoffs import BusBackoffs
from pharos_scheduler.controlling import Controller
from pharos_scheduler.dead_letters import BusDeadLetters
from pharos_scheduler.dispatcher import BusDispatcher
from pharos_scheduler.items import BusItems
from pharos_scheduler.job_store import BusJobStore
from pharos_scheduler.manifest_store import BusManifests
from pharos_scheduler.push_store import BusPushes
from pharos_scheduler.pushes import Pushes
from pharos_scheduler.schedule_store import BusScheduleStore, BusSubmissions, BusWakeUps
from pharos_scheduler.scheduler import Scheduler
from pharos_scheduler.schedules import Schedules
from pharos_scheduler.settings import Settings
from pharos_scheduler.subscribers import (
    advisories,
    commands,
    control,
    documents,
    due,
    items_said,
    places,
    timers,
    workers,
)
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus, dormant
from pharos_service.health import probes
from pharos_service.lease import Held, Lease, LeaseLost, lead
from pharos_service.running import run

log = structlog.get_logger()

LEASE_KEY: Final = "scheduler"
SWEEP_SECONDS: Final = 1.0
TELL_SECONDS: Final = 0.25
TAKE_OVER_SECONDS: Final = 5.0
ORPHANS_SECONDS: Final = 15.0


def utc_now() -> datetime:
    return datetime.now(UTC)


async def serve(settings: Settings) -> None:
    """Stand by, lead when the lease is free, until cancelled."""
    bus, connecting = dormant(settings, "pharos-scheduler")
    holder = f"{socket.gethostname()}-{os.getpid()}"
    lease = Bucket(bus, streams.KV_LEASE, Lease)

    async def term(held: Held) -> None:
        await lead_term(bus, settings, held)

    try:
        async with probes(
            settings.health_host,
            settings.health_port,
            lambda: None if bus.connected else "not connected to the bus",
        ):
            await connecting
            await lead(lease, LEASE_KEY, holder, streams.LEASE_TTL_SECONDS, term)
    finally:
        connecting.cancel()
        with (
            anyio.CancelScope(shield=True),
            anyio.move_on_after(2),
            contextlib.suppress(*TROUBLE),  # the connection may have been cut just now
        ):
            await bus.client.close()


async def lead_term(bus: Bus, settings: Settings, held: Held) -> None:
    """One term of leadership: it ends with the lease, or with an error that a new term starts over from."""
    while True:
        try:
            await _lead(bus, settings, held)
        except* (*TROUBLE, UnreadableMessage, LeaseLost) as errors:
            # What is in memory is only a cache: forget it, and recover from what is stored.
            log.warning("term_restarted", reason="; ".join(repr(error) for error in errors.exceptions))
        await asyncio.sleep(0.5)


async def _lead(bus: Bus, settings: Settings, held: Held) -> None:
    if held.adopted is None:
        # What stands in WORK now was handed out by leaders; what an earlier one adds from here on was not.
        held.adopt(int((await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["last_seq"]))
    store = BusJobStore(bus, utc_now, held.check)
    items = BusItems(bus, utc_now)
    dispatcher = BusDispatcher(bus, utc_now, held.check)
    letters = BusDeadLetters(bus)
    submissions = BusSubmissions(
        bus,
        store,
        now=utc_now,
        check=held.check,
        tenant_queue_max=settings.tenant_queue_max or None,
    )
    schedules = Schedules(
        BusScheduleStore(bus, held.check), BusWakeUps(bus, held.check), submissions, now=utc_now
    )
    pushes = Pushes(
        BusPushes(bus, held.check),
        submissions,
        now=utc_now,
        rest_seconds=settings.webhook_debounce_seconds,
    )
    scheduler = Scheduler(
        store,
        dispatcher,
        items,
        BusBackoffs(bus),
        letters,
        BusManifests(bus),
        now=utc_now,
        max_attempts=settings.max_attempts,
        ageing_seconds=settings.queue_ageing_seconds,
        batches_max=settings.max_concurrent_jobs,
        term=held.term,
    )
    controller = Controller(
        scheduler,
        store,
        items,
        dispatcher,
        letters,
        schedules,
        pushes,
        now=utc_now,
        max_attempts=settings.max_attempts,
    )
    await scheduler.recover()
    await schedules.recover()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commands, bus, scheduler, letters)
        tasks.start_soon(documents, bus, scheduler, letters)
        tasks.start_soon(timers, bus, scheduler)
        tasks.start_soon(items_said, bus, scheduler)
        tasks.start_soon(control, bus, controller, letters)
        tasks.start_soon(due, bus, scheduler, schedules, pushes)
        tasks.start_soon(advisories, bus, scheduler)
        tasks.start_soon(workers, bus, scheduler)
        tasks.start_soon(places, bus, scheduler)
        tasks.start_soon(_every, SWEEP_SECONDS, scheduler.sweep)
        tasks.start_soon(_every, TELL_SECONDS, scheduler.batches.tell)
        tasks.start_soon(_every, TAKE_OVER_SECONDS, scheduler.take_over_commands)
        tasks.start_soon(_every, ORPHANS_SECONDS, scheduler.release_orphans)
        tasks.start_soon(_hand_out, scheduler)


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await act()


async def _hand_out(scheduler: Scheduler) -> None:
    while True:
        await scheduler.changed.wait()
        scheduler.changed.clear()
        await scheduler.hand_out()


def main() -> None:
    run("scheduler", Settings, serve)
