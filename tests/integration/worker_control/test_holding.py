"""Who may hold an item: its leader, its worker, one process at a time; and how a hold ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from pharos_contracts import streams
from pharos_contracts.control.v1 import DeadLetter, DeadLetterKind
from pharos_contracts.jobs.v1 import ItemCompleted, ItemFailed, ItemSkipped, ItemStarted, Job, WorkItem
from pharos_contracts.message import decode
from pharos_contracts.subjects import ITEM_REPOSITORY, dead_letters
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.items import ItemLog
from pharos_embedder.worker import WorkerConfig
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, connect
from pharos_service.lease import Lease
from pharos_service.settings import ServiceSettings
from tests.support.git_server import GitServer
from tests.support.long_jobs import git_processes, until_busy
from tests.support.nats_server import NatsServer
from tests.support.workers import (
    Machine,
    declared,
    hand_out,
    names,
    new_job,
    now,
    said,
    until,
    until_said,
    until_settled,
    worker_entry,
    working,
)

pytestmark = pytest.mark.anyio


# Who may hand out, and what cannot be read


async def lease(bus: Bus, *, term: int, adopted: int | None) -> None:
    await Bucket(bus, streams.KV_LEASE, Lease).put("scheduler", Lease(holder="s", term=term, adopted=adopted))


async def test_what_a_leader_handed_out_after_it_lost_its_lease_is_dropped(
    bus: Bus, machine: Machine
) -> None:
    early, late, current = (new_job("http://127.0.0.1:9/o/r") for _ in range(3))
    adopted = await hand_out(bus, early, term=3)
    await hand_out(bus, late, term=3)
    await hand_out(bus, current, term=5)
    await lease(bus, term=5, adopted=adopted)
    async with working(bus, machine):
        await until_settled(bus)
    assert await said(bus, late) == []
    assert names(await said(bus, early)) == names(await said(bus, current)) == ["Started", "Failed"]


async def test_an_item_of_an_old_term_waits_until_the_new_leader_has_looked(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await lease(bus, term=5, adopted=None)
    sequence = await hand_out(bus, wanted, term=3)
    async with working(bus, machine):
        await asyncio.sleep(0.5)
        assert await said(bus, wanted) == []
        await lease(bus, term=5, adopted=sequence)
        await until_said(bus, wanted, ItemFailed)


async def test_an_item_whose_new_leader_takes_long_is_put_off_and_not_lost(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await lease(bus, term=5, adopted=None)
    sequence = await hand_out(bus, wanted, term=3)
    async with working(bus, machine, config=WorkerConfig(adoption=0.2)):
        await asyncio.sleep(0.6)
        await lease(bus, term=5, adopted=sequence)
        await until_said(bus, wanted, ItemFailed)


async def test_an_item_that_another_worker_has_just_begun_is_not_kept_from_its_end(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await lease(bus, term=5, adopted=None)
    sequence = await hand_out(bus, wanted, term=3)
    lease_reads = await bus.client.subscribe(f"$JS.API.DIRECT.GET.KV_{streams.KV_LEASE}")
    async with working(bus, machine):
        for _ in range(2):  # it looks for the new leader again: that nobody had the item it has read
            await lease_reads.next_msg(timeout=10)
        other = ItemLog(
            bus,
            WorkItem(job=wanted, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1),
            None,
            attempt=1,
            deaths=0,
            worker="w1",
            instance=str(uuid4()),
            now=now,
        )
        await other.say(ItemStarted)
        await other.say(ItemSkipped, reason="nothing to do")
        await lease(bus, term=5, adopted=sequence)
        async with asyncio.timeout(streams.WORK_ACK_WAIT_SECONDS / 2):
            while (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"]:
                await asyncio.sleep(0.05)
    assert names(await said(bus, wanted)) == ["Started", "Skipped"]


async def test_without_a_leader_an_item_is_done(bus: Bus, machine: Machine) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await hand_out(bus, wanted, term=3)
    async with working(bus, machine):
        await until_said(bus, wanted, ItemFailed)


@pytest.mark.parametrize(
    ("payload", "tenant"),
    [
        (b"{nothing", "default"),
        (b'{"job": {"tenant": "acme"}}', "acme"),
        (b'{"job": {"tenant": "a.b"}}', "default"),
    ],
)
async def test_a_message_that_nobody_can_read_is_kept_as_a_dead_letter(
    payload: bytes, tenant: str, bus: Bus, machine: Machine
) -> None:
    ack = await bus.publish("work.default.j.0", payload)
    async with working(bus, machine):
        await until_settled(bus)
    stored = await bus.last(streams.DEAD, dead_letters(tenant, f"WORK-{ack.seq}"))
    assert stored is not None
    letter: DeadLetter = decode(stored.data, DeadLetter)
    assert (letter.kind, letter.stream, letter.subject) == (
        DeadLetterKind.MESSAGE,
        "WORK",
        "work.default.j.0",
    )
    assert letter.payload == payload


async def test_an_item_of_which_a_newer_release_spoke_is_left_to_its_workers(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    subject = f"events.item.default.{wanted.job_id}.0.started"
    await bus.publish(subject, b'{"type": "items.event.v9.started"}')
    await hand_out(bus, wanted)
    async with working(bus, machine) as running:
        async with asyncio.timeout(20):
            consumer = f"CONSUMER.INFO.{streams.WORK}.{streams.WORKERS}"
            while (await bus.api(consumer))["delivered"]["consumer_seq"] < 2:
                await asyncio.sleep(0.05)
        assert not running.serving.done()


# Holding


@pytest.fixture
async def brief_bus(bus_settings: ServiceSettings) -> AsyncIterator[Bus]:
    """A bus that gives the item of a silent worker to another after two seconds."""
    connection = await connect(bus_settings, "test")
    await declared(connection, work_ack_wait_seconds=2)
    yield connection
    await connection.client.close()


async def test_a_worker_that_the_bus_does_not_answer_stops_and_its_attempt_goes_on_later(
    brief_bus: Bus, nats_server: NatsServer, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    config = WorkerConfig(hold=0.3, lapse=1.5)
    async with working(brief_bus, machine, allowed_hosts=git.allowed_hosts, config=config) as running:
        await hand_out(brief_bus, wanted)
        await until_busy(brief_bus, wanted)
        nats_server.freeze()
        try:
            await until(lambda: not running.presence.working, seconds=10)
            assert git_processes() == []
        finally:
            nats_server.thaw()
        async with asyncio.timeout(20):
            while len(await said(brief_bus, wanted)) < 2:
                await asyncio.sleep(0.1)
        again = (await said(brief_bus, wanted))[-1]
        assert isinstance(again, ItemStarted)
        assert (again.attempt, again.deaths) == (1, 0)  # nobody died


async def test_a_worker_that_is_cancelled_hands_back_unless_its_owner_took_the_item(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, wanted)
        await until_busy(bus, wanted)
        await bus.api(f"STREAM.PURGE.{streams.WORK}", {})  # and no other word of it yet
    assert (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"] == 0


async def test_a_worker_that_drains_says_so_at_once_takes_nothing_new_and_finishes(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=3)
    other = new_job(git.url("o/r"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts) as running:
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        await hand_out(bus, other)
        running.presence.draining()
        running.drain.begin()
        async with asyncio.timeout(1):
            while (found := await worker_entry(bus, "w2")) is None or found.state is not WorkerState.DRAINING:
                await asyncio.sleep(0.02)
        machine.encoder.gate.open()
        async with asyncio.timeout(20):
            await running.serving
        assert names(await said(bus, job))[-1] == "Completed"
        assert await said(bus, other) == []
        drained = await worker_entry(bus, "w2")
        assert drained is not None and drained.state is WorkerState.DRAINING


async def test_a_worker_that_is_hurried_hands_its_job_back_and_the_next_encodes_nothing_twice(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=5)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, name="w1") as running:
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        running.drain.hurry()
        machine.encoder.gate.open()
        async with asyncio.timeout(10):
            await running.serving
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        async with asyncio.timeout(10):  # nobody waits for it to be missed
            while (await said(bus, job))[-1].dispatch != 2:
                await asyncio.sleep(0.05)
        done = await until_said(bus, job, ItemCompleted)
        await until_settled(bus)
    assert (done.attempt, done.dispatch, done.deaths) == (1, 2, 0)
    given = machine.encoder.given
    assert len(given) == len(set(given)) == done.result.chunks + done.result.files_processed


# Processes


class Process:
    """A worker in a process of its own, which writes lines until it is told that it is done."""

    def __init__(self, nats: NatsServer, folder: Path, name: str, **options: float) -> None:
        self.lines, self.done = folder / "lines", folder / "done"
        arguments = {"nats": nats.url, "name": name, "lines": self.lines, "done": self.done, **options}
        command = [sys.executable, "-m", "tests.support.worker_process"]
        command += [part for key, value in arguments.items() for part in (f"--{key}", str(value))]
        self._process = subprocess.Popen(command)
        self.name = name

    def written(self) -> int:
        try:
            return self.lines.read_text().splitlines().count(self.name)
        except FileNotFoundError:
            return 0

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    async def ended(self, *, seconds: float = 20) -> int:
        await until(lambda: self._process.poll() is not None, seconds=seconds)
        return int(self._process.returncode)


async def test_a_worker_that_was_frozen_writes_nothing_once_another_has_its_item(
    brief_bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    with Process(nats_server, tmp_path, "w1", lapse=1.5) as frozen:
        await hand_out(brief_bus, wanted)
        await until(lambda: frozen.written() > 0)
        frozen.signal(signal.SIGSTOP)
        before = frozen.written()
        with Process(nats_server, tmp_path, "w2", lapse=1.5) as other:
            await until(lambda: other.written() > 0)
            frozen.signal(signal.SIGCONT)
            more = other.written() + 50
            await until(lambda: other.written() > more)
            assert frozen.written() <= before + 1  # the line that was under way
            other.done.touch()
            await until_said(brief_bus, wanted, ItemCompleted)
            await until_settled(brief_bus)
    events = await said(brief_bus, wanted)
    assert [event.worker for event in events] == ["w1", "w2", "w2", "w2"]


async def test_an_item_that_killed_two_workers_is_not_given_to_a_third(
    brief_bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await hand_out(brief_bus, wanted)
    for number in (1, 2):
        # A supervisor starts the next one under the same name.
        with Process(nats_server, tmp_path, "w") as process:
            async with asyncio.timeout(30):
                while len(await said(brief_bus, wanted)) < number:
                    await asyncio.sleep(0.05)
            process.signal(signal.SIGKILL)
            await process.ended()
    with Process(nats_server, tmp_path, "w") as third:
        failed = await until_said(brief_bus, wanted, ItemFailed, seconds=30)
        await until_settled(brief_bus)
        assert (failed.code, failed.transient, failed.deaths) == ("poison", False, 2)
        lines = third.lines.read_text().splitlines()
    events = await said(brief_bus, wanted)
    assert names(events) == ["Started", "Started", "Failed"]
    assert [(event.attempt, event.deaths) for event in events] == [(1, 0), (2, 1), (2, 2)]
    assert len({event.instance for event in events}) == 3
    assert lines[-1] == "cleared"


async def test_a_worker_that_is_asked_to_stop_finishes_its_job_within_its_time(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    with Process(nats_server, tmp_path, "w1", drain=20) as process:
        await hand_out(bus, wanted)
        await until(lambda: process.written() > 0)
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(2):
            while (found := await worker_entry(bus, "w1")) is None or found.state is not WorkerState.DRAINING:
                await asyncio.sleep(0.02)
        process.done.touch()
        assert await process.ended() == 0
    assert names(await said(bus, wanted)) == ["Started", "Committing", "Completed"]
    assert await worker_entry(bus, "w1") is None


@pytest.mark.parametrize(("drain", "signals"), [(0.5, 1), (60, 2)])
async def test_a_worker_whose_time_is_over_or_that_is_asked_twice_hands_its_job_back(
    drain: float, signals: int, bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    with Process(nats_server, tmp_path, "w1", drain=drain) as process:
        await hand_out(bus, wanted)
        await until(lambda: process.written() > 0)
        for _ in range(signals):
            process.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        assert await process.ended(seconds=8) == 0
    with Process(nats_server, tmp_path, "w2") as following:
        await until(lambda: following.written() > 0)
        following.done.touch()
        done = await until_said(bus, wanted, ItemCompleted)
    assert (done.attempt, done.dispatch, done.deaths) == (1, 2, 0)
