"""The chassis against a real server."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from pharos_contracts.message import Message
from pharos_contracts.streams import BusLimits, declare
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import Bus, BusUnavailable, StreamFull, connect
from pharos_service.bus_admin import apply, diff, status
from pharos_service.ending import end
from pharos_service.journal import Journal, Superseded
from pharos_service.lease import Held, Lease, LeaseLost, lead, term_of
from pharos_service.pull import CaughtUp, durable, tail
from pharos_service.rpc import make_broker
from pharos_service.settings import ServiceSettings
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio


class Note(Message, frozen=True, kw_only=True, tag="test.note.v1.note"):
    text: str


async def test_applying_twice_changes_nothing_the_second_time(bus: Bus) -> None:
    assert await diff(bus, declare(BusLimits()), 1) == []
    assert await apply(bus, declare(BusLimits()), 1) == []


async def test_a_stream_that_was_made_by_an_earlier_version_keeps_how_it_is_written(
    nats_server: NatsServer, bus_settings: ServiceSettings
) -> None:
    """The server refuses to change that later, and an installation must start all the same."""
    wanted = declare(BusLimits())
    earlier = replace(wanted, streams=tuple(replace(each, derived=False) for each in wanted.streams))
    connection = await connect(bus_settings, "test")
    await apply(connection, earlier, 1)
    assert await diff(connection, wanted, 1) == []
    await apply(connection, declare(BusLimits(queue_max=20)), 1)
    assert "persist_mode" not in (await connection.api("STREAM.INFO.LEDGER"))["config"]
    await connection.client.close()


async def test_a_lost_connection_is_told_and_one_that_is_closed_is_not(
    nats_server: NatsServer, bus_settings: ServiceSettings
) -> None:
    with capture_logs() as told:
        connection, broker = await connect(bus_settings, "test"), make_broker(bus_settings, "test")
        await broker.start()
        await connection.client.close()
        await broker.stop()
        await asyncio.sleep(0)
        assert told == []
        connection = await connect(bus_settings, "test")
        await asyncio.to_thread(nats_server.kill)
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.02)
        assert [each["event"] for each in told] == ["bus_disconnected"]
        await connection.client.close()


async def test_a_changed_cap_is_a_difference_and_is_applied(bus: Bus) -> None:
    wanted = declare(BusLimits(queue_max=3))
    assert [(each.name, each.fields["max_msgs"]) for each in await apply(bus, wanted, 1)] == [("Q", (10, 3))]
    assert await diff(bus, wanted, 1) == []
    for job in range(3):
        await bus.publish(f"cmd.ingest.t.normal.k{job}.j{job}", b"{}")
    with pytest.raises(StreamFull):
        await bus.publish("cmd.ingest.t.normal.k9.j9", b"{}")
    assert any(line.startswith("Q ") and "3 of 3" in line for line in await status(bus, wanted))


async def test_of_many_writers_of_one_scope_one_wins(bus: Bus) -> None:
    journal = Journal(bus, "JOBS")

    async def write(writer: int) -> int | None:
        try:
            return await journal.append(
                f"events.job.t.j.w{writer}",
                Note(text=str(writer)),
                message_id=f"m{writer}",
                scope="events.job.t.j.*",
                expect_last=0,
            )
        except Superseded as superseded:
            assert superseded.sequence == 1
            return None

    results = await asyncio.gather(*(write(writer) for writer in range(8)))
    assert [result for result in results if result] == [1]


async def test_an_append_repeated_with_the_same_id_is_stored_once(bus: Bus) -> None:
    journal = Journal(bus, "JOBS")
    for _ in range(2):
        sequence = await journal.append(
            "events.job.t.j.queued", Note(text="a"), message_id="m", scope="events.job.t.j.*", expect_last=0
        )
        assert sequence == 1
    assert (await bus.api("STREAM.INFO.JOBS"))["state"]["messages"] == 1


async def test_a_tail_sees_every_message_once_and_in_order_over_a_crash_of_the_server(
    bus: Bus, nats_server: NatsServer
) -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def read() -> None:
        async with aclosing(tail(bus, "JOBS", ["events.>"], after=0)) as events:
            async for event in events:
                if not isinstance(event, CaughtUp):
                    seen.append(event.data.decode())
                    if event.data == b"59":
                        done.set()
                        return

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        for number in range(60):
            if number in (20, 40):
                await asyncio.to_thread(nats_server.kill)
                await asyncio.to_thread(nats_server.start)
            while True:
                try:
                    await bus.publish("events.job.t.j.x", str(number).encode(), message_id=str(number))
                    break
                except Exception:
                    await asyncio.sleep(0.05)
        await done.wait()
    assert seen == [str(number) for number in range(60)]


async def test_a_durable_consumer_goes_on_after_a_crash_of_the_server(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with asyncio.timeout(30), aclosing(durable(bus, "JOBS", "history")) as messages:
        await bus.publish("events.job.t.j.x", b"1")
        first = await anext(messages)
        await first.ack_sync()
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        while not bus.connected:
            await asyncio.sleep(0.05)
        await bus.publish("events.job.t.j.x", b"2")
        assert first.data == b"1"
        # The server syncs publishes, not acknowledgements: after a crash the first may come again.
        while (again := await anext(messages)).data == b"1":
            await again.ack_sync()
        assert again.data == b"2"


async def test_a_message_published_while_disconnected_is_refused_at_once_and_never_stored(
    bus: Bus, nats_server: NatsServer
) -> None:
    await asyncio.to_thread(nats_server.kill)
    while bus.connected:
        await asyncio.sleep(0.01)
    with pytest.raises(BusUnavailable):
        await bus.publish("events.job.t.j.x", b"ghost")
    await asyncio.to_thread(nats_server.start)
    while not bus.connected:
        await asyncio.sleep(0.05)
    assert (await bus.api("STREAM.INFO.JOBS"))["state"]["messages"] == 0


async def test_a_bucket_creates_once_updates_at_its_revision_and_creates_again_after_a_delete(
    bus: Bus,
) -> None:
    bucket = Bucket(bus, "active", Note)
    revision = await bucket.create("k", Note(text="a"))
    assert revision is not None
    assert await bucket.create("k", Note(text="b")) is None
    following = await bucket.update("k", Note(text="c"), revision)
    assert following is not None
    assert await bucket.update("k", Note(text="d"), revision) is None
    assert not await bucket.delete("k", revision)
    assert await bucket.delete("k", following)
    assert await bucket.get("k") is None
    assert await bucket.create("k", Note(text="e")) is not None
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == Note(text="e")


async def test_a_watch_tells_of_entries_changes_and_expiry(bus: Bus) -> None:
    bucket = Bucket(bus, "workers", Note)
    await bucket.put("w1", Note(text="a"))
    events = []
    async with asyncio.timeout(10), aclosing(bucket.watch()) as watch:
        async for event in watch:
            events.append(event)
            if isinstance(event, CaughtUp):
                await bucket.create("w2", Note(text="b"), ttl_seconds=1)
            if isinstance(event, Gone):
                break
    assert isinstance(events[0], Entry)
    assert isinstance(events[1], CaughtUp)
    assert isinstance(events[2], Entry)
    assert events[3] == Gone("w2")


async def test_one_of_two_leads_and_the_other_takes_over_when_it_stops(bus: Bus) -> None:
    bucket = Bucket(bus, "lease", Lease)
    leading: list[str] = []
    terms: list[int] = []
    overlap = 0
    now: set[str] = set()

    async def contend(name: str) -> None:
        async def work(held: Held) -> None:
            nonlocal overlap
            terms.append(held.term)
            leading.append(name)
            now.add(name)
            overlap = max(overlap, len(now))
            try:
                await asyncio.sleep(60)
            finally:
                now.discard(name)

        await lead(bucket, "scheduler", name, 3, work)

    async with asyncio.timeout(20):
        tasks = {name: asyncio.create_task(contend(name)) for name in ("a", "b")}
        while not leading:
            await asyncio.sleep(0.05)
        first = leading[0]
        tasks[first].cancel()
        while len(leading) < 2:
            await asyncio.sleep(0.05)
        await end(*tasks.values())
    assert set(leading) == {"a", "b"}
    assert terms[0] < terms[1]
    assert overlap == 1


async def test_a_holder_that_was_frozen_knows_before_its_next_effect(bus: Bus) -> None:
    checked: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def work(held: Held) -> None:
        held.check()
        time.sleep(3)
        try:
            held.check()
        except LeaseLost as lost:
            checked.put_nowait(lost)
        await asyncio.sleep(60)

    leading = asyncio.create_task(lead(Bucket(bus, "lease", Lease), "scheduler", "a", 3, work))
    try:
        async with asyncio.timeout(20):
            assert isinstance(await checked.get(), LeaseLost)
    finally:
        leading.cancel()


async def test_what_a_term_adopts_is_written_into_the_lease(bus: Bus) -> None:
    bucket = Bucket(bus, "lease", Lease)

    async def work(held: Held) -> None:
        held.adopt(17)
        await asyncio.sleep(60)

    leading = asyncio.create_task(lead(bucket, "scheduler", "a", 3, work))
    try:
        async with asyncio.timeout(5):
            while (entry := await bucket.get("scheduler")) is None or entry.value.adopted is None:
                await asyncio.sleep(0.02)
        assert entry.value == Lease(holder="a", term=term_of(entry), adopted=17)
        assert term_of(entry) < entry.revision
    finally:
        leading.cancel()
