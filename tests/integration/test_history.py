"""The history service as a process, against a real bus: what it is told is what it answers, whatever dies."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from pharos_contracts.history.v1 import FindJob, JobLog, JobPage, ListJobs, ReadLog
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    ItemCancelled,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemStarted,
    JobResumed,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import HISTORY
from pharos_contracts.streams import BusLimits, declare
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus, BusUnavailable, FateUnknown
from pharos_service.bus_admin import apply, diff
from tests.support.history import History
from tests.support.job_events import life, make_event, make_item_event, subject_of
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 25.0


@pytest.fixture
def history(tmp_path: Path, nats_server: NatsServer) -> Iterator[History]:
    history = History(tmp_path, nats_server.url)
    yield history
    if history.process is not None and history.process.poll() is None:
        history.kill()


async def eventually(found: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await found():
        assert time.monotonic() < deadline, f"not in {DEADLINE_SECONDS} s: {what}"
        await asyncio.sleep(0.05)


async def pages(bus: Bus, query: ListJobs) -> list[JobPage]:
    """All pages of *query*; none while nobody answers."""
    found: list[JobPage] = []
    while True:
        try:
            page = await ask(bus, HISTORY, query, JobPage, timeout=2)
        except (NobodyAnswers, QuestionRefused, BusUnavailable):
            return []
        found.append(page)
        if page.cursor is None:
            return found
        query = ListJobs(tenant=query.tenant, limit=query.limit, before=page.cursor)


async def read_through(bus: Bus, sequence: int) -> None:
    async def reached() -> bool:
        found = await pages(bus, ListJobs(tenant="acme", limit=1000))
        return bool(found) and found[-1].sequence >= sequence

    await eventually(reached, f"history has read through {sequence}")


async def connected(bus: Bus) -> bool:
    return bus.connected


async def publish(bus: Bus, events: Sequence[AnyEvent]) -> None:
    for event in events:
        while True:
            try:
                await bus.publish(subject_of(event), event)
                break
            except (BusUnavailable, FateUnknown):
                await asyncio.sleep(0.05)  # a try whose fate is unknown may store it twice


def interleaved(jobs: int) -> list[AnyEvent]:
    """The lives of *jobs* jobs, ten events each, as they would mix on the stream."""
    return [event for lives in zip(*(life(number) for number in range(jobs)), strict=True) for event in lives]


async def assert_whole(bus: Bus, history: History, jobs: int) -> None:
    """Every job once, completed, with one line in its log for each of its ten events."""
    found = await pages(bus, ListJobs(tenant="acme", limit=20))
    views = [view for page in found for view in page.jobs]
    assert [view.job.number for view in views] == list(range(jobs - 1, -1, -1))
    assert {view.job.state for view in views} == {JobState.COMPLETED}
    assert all(view.lexical_ready_at is not None for view in views)
    lines = [(row[1], row[3]) for row in history.tables()["events"]]
    assert len(lines) == jobs * 10
    assert sum(event == "jobs.event.v1.completed" for _, event in lines) == jobs


async def test_what_is_published_is_listed_found_and_logged(bus: Bus, history: History) -> None:
    history.start()
    await publish(bus, [*life(1), make_event(2)])
    await read_through(bus, 11)
    page = await ask(bus, HISTORY, ListJobs(tenant="acme"), JobPage, timeout=2)
    assert [view.job.number for view in page.jobs] == [2, 1]
    found = await ask(bus, HISTORY, FindJob(tenant="acme", number=1), JobPage, timeout=2)
    assert [item.state for item in found.jobs[0].items] == [JobState.COMPLETED]
    log = await ask(bus, HISTORY, ReadLog(tenant="acme", job_id="job-000001"), JobLog, timeout=2)
    assert len(log.entries) == 10
    with pytest.raises(QuestionRefused, match="limit must be"):
        await ask(bus, HISTORY, ListJobs(tenant="acme", limit=0), JobPage, timeout=2)

    async def ready() -> bool:
        return history.ready() == (200, "ready\n")

    await eventually(ready, "the service is ready")
    assert await diff(bus, declare(BusLimits()), 1) == []  # it binds to the consumer, and changes nothing
    assert history.stop() == 0


async def test_a_new_event_is_listed_within_a_second(bus: Bus, history: History) -> None:
    history.start()
    await publish(bus, [make_event(1)])
    await read_through(bus, 1)
    seconds = []
    for number in range(2, 7):
        await publish(bus, [make_event(number)])
        began = time.monotonic()
        await read_through(bus, number)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 1


async def test_a_kill_in_the_middle_of_five_hundred_events_loses_and_doubles_nothing(
    bus: Bus, history: History
) -> None:
    history.start()
    events = interleaved(50)
    await publish(bus, events[:50])
    await read_through(bus, 1)
    publishing = asyncio.create_task(publish(bus, events[50:]))
    for after in (150, 300):
        await read_through(bus, after)
        history.kill()
        history.start()
    await publishing
    await read_through(bus, 500)
    await assert_whole(bus, history, 50)


async def test_two_processes_share_one_database_and_one_of_them_may_die(
    bus: Bus, history: History, nats_server: NatsServer
) -> None:
    other = History(history.home, nats_server.url)
    history.start()
    other.start()
    try:
        events = interleaved(30)
        publishing = asyncio.create_task(publish(bus, events))
        await read_through(bus, 100)
        other.kill()
        await publishing
        await read_through(bus, 300)
        await assert_whole(bus, history, 30)
    finally:
        other.kill()


async def test_messages_that_died_with_a_process_are_read_at_once_and_not_after_their_ack_wait(
    bus: Bus, history: History
) -> None:
    """A consumer that has handed out everything, to somebody who will never acknowledge it."""
    await publish(bus, interleaved(5))
    subscription = await bus.jetstream.pull_subscribe_bind("history", stream="JOBS")
    assert len(await subscription.fetch(50, timeout=5)) == 50
    history.start()
    began = time.monotonic()
    await read_through(bus, 50)
    assert time.monotonic() - began < DEADLINE_SECONDS < 30
    await assert_whole(bus, history, 5)


async def test_a_bus_that_is_killed_twice_loses_and_doubles_nothing(
    bus: Bus, history: History, nats_server: NatsServer
) -> None:
    history.start()
    events = interleaved(30)
    await publish(bus, events[:100])
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    publishing = asyncio.create_task(publish(bus, events[100:]))
    await read_through(bus, 150)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    await publishing
    await eventually(lambda: connected(bus), "the test itself is connected again")
    last = int((await bus.api("STREAM.INFO.JOBS"))["state"]["last_seq"])
    await read_through(bus, last)
    await assert_whole(bus, history, 30)


async def test_an_outage_of_the_bus_is_waited_out_quietly(
    bus: Bus, history: History, nats_server: NatsServer
) -> None:
    history.start()
    await publish(bus, [make_event(1)])
    await read_through(bus, 1)
    assert history.process is not None
    await asyncio.to_thread(nats_server.kill)

    async def unready() -> bool:
        return history.ready() == (503, "Not connected to the bus\n")

    await eventually(unready, "the service says that it is not ready")
    before = psutil.Process(history.process.pid).cpu_times()
    await asyncio.sleep(2)
    after = psutil.Process(history.process.pid).cpu_times()
    assert after.user + after.system - before.user - before.system < 0.7
    await asyncio.to_thread(nats_server.start)
    await publish(bus, [make_event(2)])
    await read_through(bus, 2)


async def test_everything_published_twice_changes_nothing(bus: Bus, history: History) -> None:
    history.start()
    events = interleaved(5)
    await publish(bus, events)
    await read_through(bus, 50)
    jobs = history.tables()["jobs"]
    await publish(bus, events)
    await publish(bus, events[:20])
    await read_through(bus, 120)
    assert history.tables()["jobs"] == jobs
    await assert_whole(bus, history, 5)


async def test_what_cannot_be_read_is_kept_aside_and_blocks_nothing(bus: Bus, history: History) -> None:
    history.start()
    await bus.publish("events.job.acme.x.queued", b"\xff not json")
    await bus.publish("events.job.acme.x.queued", b"")
    await publish(bus, [make_event(1)])
    await read_through(bus, 3)

    async def settled() -> bool:
        info = await bus.api("CONSUMER.INFO.JOBS.history")
        return info["num_pending"] == 0 and info["num_ack_pending"] == 0

    await eventually(settled, "everything is acknowledged")
    assert [row[0] for row in history.tables()["unreadable"]] == [1, 2]
    assert "event_unreadable" in history.log


async def test_a_rebuild_makes_the_same_tables_with_and_without_the_service(
    bus: Bus, history: History
) -> None:
    history.start()
    await publish(bus, [*interleaved(20), *life(3)])
    await bus.publish("events.odd", b"?")
    await read_through(bus, 211)
    before = history.tables()
    await asyncio.to_thread(history.rebuild)
    assert without_time(history.tables()) == without_time(before)
    history.stop()
    with closing(sqlite3.connect(history.home / "history.sqlite3")) as connection:
        connection.executescript("DELETE FROM jobs; DELETE FROM items; DELETE FROM events")
    await asyncio.to_thread(history.rebuild)
    assert without_time(history.tables()) == without_time(before)


async def test_a_job_that_goes_back_from_its_end_is_told_as_it_is_also_after_a_rebuild(
    bus: Bus, history: History
) -> None:
    history.start()
    read = 0

    async def told(*events: AnyEvent) -> tuple[JobState, JobState, bool]:
        """The state of the job and of its item, and whether its words can be searched, after *events*."""
        nonlocal read
        await publish(bus, events)
        read += len(events)
        await read_through(bus, read)
        [view] = (await ask(bus, HISTORY, FindJob(tenant="acme", number=1), JobPage, timeout=2)).jobs
        assert view.sequence == read
        for state in JobState:
            found = await pages(bus, ListJobs(tenant="acme", states=(state.value,)))
            assert [each.job.number for page in found for each in page.jobs] == [1] * (
                state is view.job.state
            )
        return view.job.state, view.items[0].state, view.lexical_ready_at is not None

    begun = make_event(1, JobState.RUNNING, attempt=1, worker="w1")
    resumed = JobResumed(event_id="resumed", at=begun.at, job=make_event(1, attempt=1).job)
    ready = make_item_event(ItemLexicalReady, 1, dataset="d", files=3, chunks=7)
    failure = make_item_event(ItemFailed, 1, error="no", code="not_found")
    assert await told(make_event(1), make_item_event(ItemStarted, 1), ready, begun) == (
        JobState.RUNNING,
        JobState.RUNNING,
        True,
    )
    paused = (make_item_event(ItemPaused, 1), make_event(1, JobState.PAUSED, attempt=1))
    assert await told(*paused) == (JobState.PAUSED, JobState.PAUSED, True)
    assert await told(resumed) == (JobState.QUEUED, JobState.PAUSED, True)
    again = make_event(1, JobState.RUNNING, attempt=1, dispatch=2)
    assert await told(make_item_event(ItemStarted, 1, dispatch=2), again) == (
        JobState.RUNNING,
        JobState.RUNNING,
        True,
    )
    failed = make_event(1, JobState.FAILED, attempt=1, error="no")
    assert await told(failure, failed) == (JobState.FAILED, JobState.FAILED, False)
    retried = (
        make_event(1, JobState.RETRYING, attempt=1, error="no"),
        make_event(1, attempt=1, max_attempts=5),
    )
    assert await told(*retried) == (JobState.QUEUED, JobState.FAILED, False)
    taken = make_item_event(ItemCancelled, 1, attempt=2)
    cancelled = make_event(1, JobState.CANCELLED, attempt=2)
    assert await told(taken, cancelled) == (JobState.CANCELLED, JobState.CANCELLED, False)
    last = make_event(1, JobState.RETRYING, attempt=2)
    assert await told(last) == (JobState.RETRYING, JobState.CANCELLED, False)

    before = history.tables()
    await asyncio.to_thread(history.rebuild)
    assert without_time(history.tables()) == without_time(before)
    with closing(sqlite3.connect(history.home / "history.sqlite3")) as connection:
        connection.executescript("UPDATE jobs SET state = 'failed'; DELETE FROM items; DELETE FROM events")
    await asyncio.to_thread(history.rebuild)
    assert without_time(history.tables()) == without_time(before)
    assert await told() == (JobState.RETRYING, JobState.CANCELLED, False)
    assert history.stop() == 0


async def test_a_rebuild_while_events_arrive_ends_with_all_of_them(bus: Bus, history: History) -> None:
    history.start()
    events = interleaved(40)
    await publish(bus, events[:200])
    publishing = asyncio.create_task(publish(bus, events[200:]))
    await asyncio.to_thread(history.rebuild)
    await publishing
    await read_through(bus, 400)
    await assert_whole(bus, history, 40)


async def test_jobs_that_ended_long_ago_are_forgotten_at_the_next_start(bus: Bus, history: History) -> None:
    history.start()
    await publish(bus, [*life(1), make_event(2)])
    await read_through(bus, 11)
    history.stop()
    history.environment["PHAROS_HISTORY_RETENTION_DAYS"] = "1"
    history.start()

    async def forgotten() -> bool:
        found = await pages(bus, ListJobs(tenant="acme"))
        return [view.job.number for page in found for view in page.jobs] == [2]

    await eventually(forgotten, "only the open job is left")
    assert len(history.tables()["events"]) == 1


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
async def test_a_stream_that_is_made_anew_is_noticed_and_old_jobs_stay(
    bus: Bus, history: History, running: bool
) -> None:
    history.start()
    await publish(bus, interleaved(3))
    await read_through(bus, 30)
    if not running:
        history.stop()
    await bus.api("STREAM.DELETE.JOBS")
    await apply(bus, declare(BusLimits()), 1)
    await publish(bus, [make_event(7), make_event(7, JobState.RUNNING)])
    if not running:
        history.start()

    async def noticed() -> bool:
        found = await pages(bus, ListJobs(tenant="acme"))
        return [(view.job.number, view.job.state) for page in found for view in page.jobs] == [
            (7, JobState.RUNNING),
            (2, JobState.COMPLETED),
            (1, JobState.COMPLETED),
            (0, JobState.COMPLETED),
        ]

    await eventually(noticed, "the new job above the old ones")


async def test_it_starts_before_the_bus_is_set_up_and_says_what_is_missing(
    nats_server: NatsServer, bus: Bus, history: History
) -> None:
    await bus.api("STREAM.DELETE.JOBS")
    history.start()

    async def says_so() -> bool:
        status, reason = history.ready()
        return status == 503 and "pharos-bus apply" in reason

    await eventually(says_so, "readyz names the missing consumer")
    await apply(bus, declare(BusLimits()), 1)
    await publish(bus, [make_event(1)])
    await read_through(bus, 1)
    assert await diff(bus, declare(BusLimits()), 1) == []


def without_time(tables: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """All but when something was kept aside."""
    return tables | {"unreadable": [(row[0], *row[2:]) for row in tables["unreadable"]]}
