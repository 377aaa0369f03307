"""Two real scheduler processes: whatever becomes of the one that leads, the other goes on within seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import ItemCompleted, ItemStarted, SubmitJob
from pharos_contracts.lifecycle import JobState
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.lease import Lease, term_of
from tests.support.nats_server import NatsServer, free_port
from tests.support.scheduling import (
    RESULT,
    announce,
    command,
    ended,
    events_of,
    job_when,
    messages_in,
    say,
    submit,
    take,
)

pytestmark = pytest.mark.anyio

TAKEOVER_SECONDS_MAX = 10.0


@contextmanager
def scheduler(nats_url: str) -> Iterator[subprocess.Popen[bytes]]:
    environ = {
        **os.environ,
        "PHAROS_NATS_URL": nats_url,
        "PHAROS_HEALTH_PORT": str(free_port()),
        "PHAROS_LOG_FORMAT": "json",
    }
    process = subprocess.Popen([sys.executable, "-m", "pharos_scheduler"], env=environ)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture
def processes(nats_server: NatsServer, bus: Bus) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """By process id."""
    with scheduler(nats_server.url) as one, scheduler(nats_server.url) as other:
        yield {process.pid: process for process in (one, other)}


@pytest.fixture
async def living(bus: Bus) -> AsyncIterator[None]:
    """A worker with one slot that goes on saying that it lives."""

    async def beat() -> None:
        while True:
            await announce(bus)
            await asyncio.sleep(1)

    beating = asyncio.create_task(beat())
    yield
    beating.cancel()


async def leader(bus: Bus) -> tuple[int, int]:
    """(process id, term) of whoever leads."""
    async with asyncio.timeout(20):
        while (entry := await Bucket(bus, streams.KV_LEASE, Lease).get("scheduler")) is None:
            await asyncio.sleep(0.02)
    return int(entry.value.holder.rpartition("-")[2]), term_of(entry)


async def hands_over(bus: Bus, first: SubmitJob, second: SubmitJob) -> float:
    """The worker ends its job and waits for the next one; the seconds that that took."""
    began = time.monotonic()
    item, message = await take(bus, seconds=20)
    assert item.job.job_id == first.job_id
    await say(bus, item, ItemStarted)
    await say(bus, item, ItemCompleted, result=RESULT)
    await message.ack()
    item, message = await take(bus, seconds=20)
    waited = time.monotonic() - began
    assert item.job.job_id == second.job_id
    await say(bus, item, ItemStarted)
    await say(bus, item, ItemCompleted, result=RESULT)
    await message.ack()
    for each in (first, second):
        await job_when(bus, each, ended)
    return waited


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_the_standby_goes_on_within_ten_seconds_and_a_leader_that_wakes_up_changes_nothing(
    bus: Bus, processes: dict[int, subprocess.Popen[bytes]], living: None, fault: str
) -> None:
    first, second, third = command(1), command(2), command(3)
    old, old_term = await leader(bus)
    for each in (first, second):
        await submit(bus, each)
    async with asyncio.timeout(10):
        while not await messages_in(bus, streams.WORK):
            await asyncio.sleep(0.02)
    processes[old].send_signal(signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    # What is said now is delivered to the leader that no longer hears it.
    assert await hands_over(bus, first, second) < TAKEOVER_SECONDS_MAX
    new, new_term = await leader(bus)
    assert (new != old, new_term > old_term) == (True, True)
    await submit(bus, third)
    await job_when(bus, third, lambda job: job.state is JobState.QUEUED)
    if fault == "freeze":
        processes[old].send_signal(signal.SIGCONT)
        await asyncio.sleep(streams.LEASE_TTL_SECONDS)  # time enough for it to do what it was about to do
    assert await leader(bus) == (new, new_term)
    for each in (first, second):
        states = [event.job.state for event in await events_of(bus, each)]
        assert states == [JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED]
    item, _ = await take(bus)
    assert (item.job.job_id, item.term) == (third.job_id, new_term)
    assert await messages_in(bus, streams.WORK, subjects.work_item(third.job_id, "0")) == 1
    assert len(await events_of(bus, third)) == 1


async def test_a_leader_that_stops_in_good_order_hands_over_at_once(
    bus: Bus, processes: dict[int, subprocess.Popen[bytes]], living: None
) -> None:
    first, second = command(1), command(2)
    old, _ = await leader(bus)
    for each in (first, second):
        await submit(bus, each)
    async with asyncio.timeout(10):
        while not await messages_in(bus, streams.WORK):
            await asyncio.sleep(0.02)
    processes[old].terminate()
    assert await hands_over(bus, first, second) < streams.LEASE_TTL_SECONDS
    assert processes[old].wait(5) == 0
