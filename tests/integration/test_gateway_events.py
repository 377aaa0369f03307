"""Server-sent events over HTTP: every state event once and in order, whatever is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import pytest

from pharos_contracts.jobs.v1 import ItemLexicalReady, Progress, Stage
from pharos_contracts.lifecycle import JobState
from pharos_contracts.streams import KV_WORKERS, BusLimits, declare
from pharos_contracts.subjects import item_event_subject, progress_subject, tenant_job_events
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway.app import serving
from pharos_gateway.following import Wanted, follow
from pharos_gateway.live import Live
from pharos_gateway.sight import Sight
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.bus_admin import apply
from tests.support.gateway import (
    BEARER,
    TOKEN,
    History,
    Received,
    client,
    document_job,
    events,
    job,
    now,
    result,
    settings,
    until_ready,
    worker,
)
from tests.support.nats_server import NatsServer, free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings(nats_server.url)) as running, client(running.address, **BEARER) as connected:
        await until_ready(connected)
        yield connected


def progress(number: int, percent: float) -> Progress:
    return Progress(
        tenant="default",
        job_id=job(number).job_id,
        item_id="0",
        attempt=1,
        at=now(),
        stage=Stage.ENCODE,
        done=int(percent),
        total=100,
        percent=percent,
        current_file="secret/path.py",
        worker="w1",
    )


async def test_a_life_is_told_event_by_event_with_the_sequences_of_the_stream(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    first = job(1)
    seen: list[Received] = []
    async with asyncio.timeout(20), aclosing(events(http, "/api/v1/events")) as stream:
        assert (await anext(stream)).comment == "connected"
        await history.tell(first, JobState.QUEUED)
        await history.tell(first, JobState.RUNNING, attempt=1, worker="w1")
        await history.tell(first, JobState.COMMITTING, attempt=1)
        await history.tell(first, JobState.COMPLETED, attempt=1, result=result())
        async for event in stream:
            seen.append(event)
            if event.name == "job.completed":
                break
    assert [(event.id, event.name) for event in seen] == [
        (1, "job.queued"),
        (2, "job.started"),
        (3, "job.committing"),
        (4, "job.completed"),
    ]
    assert seen[1].data["job_id"] == first.job_id
    assert seen[1].data["number"] == 1
    assert seen[1].data["repository"] == "github.com/user/repo1"
    assert seen[3].data["result"]["files_processed"] == 342


async def test_what_happens_while_the_greeting_is_on_its_way_is_told(bus: Bus) -> None:
    live = Live(bus, Bucket(bus, KV_WORKERS, Worker))
    wanted = Wanted(sight=Sight(tenant="default"), subjects=tenant_job_events("default"))

    async def snapshot() -> dict[str, object]:
        return {}

    tails = asyncio.create_task(live.run())
    try:
        async with asyncio.timeout(20), aclosing(follow(bus, live, wanted, snapshot)) as blocks:
            assert b"connected" in await anext(blocks)
            sequence = await History(bus).tell(job(1), JobState.QUEUED)
            while live.sequence < sequence:
                await asyncio.sleep(0.01)
            assert b"event: job.queued" in await anext(blocks)
    finally:
        tails.cancel()


async def test_one_jobs_events_are_replayed_from_the_first_and_the_stream_ends_after_the_last(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    await history.tell(job(1), JobState.QUEUED)
    await history.tell(job(2), JobState.QUEUED)
    await history.tell(job(1), JobState.RUNNING, attempt=1)
    names: list[str] = []
    async with asyncio.timeout(20):
        async for event in events(http, f"/api/v1/jobs/{job(1).job_id}/events"):
            names.append(event.name or event.comment)
            if event.name == "job.started":
                await history.tell(job(1), JobState.FAILED, attempt=1, error="Failed to clone repository")
    assert names == ["connected", "job.queued", "job.started", "job.failed", "the job has ended"]
    again = await http.get(f"/api/v1/jobs/{job(1).job_id}/events", headers={"Last-Event-ID": "4"})
    assert again.status_code == 204
    unknown = await http.get(f"/api/v1/jobs/{job(2).job_id}/events", headers={"x-tenant": "acme"})
    assert unknown.status_code in (404, 503)  # 503: only history could still know it, and there is none


async def test_a_client_that_is_cut_twice_and_resumes_sees_every_event_once_and_in_order(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    writing = asyncio.create_task(_write(history, 60))
    seen: list[int] = []
    async with asyncio.timeout(20):
        for cut_after in (20, 40, 60):
            last = seen[-1] if seen else 0
            async with aclosing(events(http, "/api/v1/events", last_event_id=last)) as stream:
                async for event in stream:
                    if event.id is not None:
                        seen.append(event.id)
                    if len(seen) == cut_after:
                        break
        await writing
    assert seen == list(range(1, 61))


async def _write(history: History, count: int) -> None:
    for number in range(1, count + 1):
        await history.tell(job(number), JobState.QUEUED)
        await asyncio.sleep(0.005)


async def test_a_query_parameter_resumes_as_well(bus: Bus, http: httpx.AsyncClient) -> None:
    await _write(History(bus), 3)
    async with asyncio.timeout(10), aclosing(events(http, "/api/v1/events?last_event_id=1")) as stream:
        seen = [await anext(stream) for _ in range(3)]
    assert [event.id for event in seen] == [None, 2, 3]


async def test_every_event_arrives_once_and_in_order_over_a_crash_of_the_bus(
    bus: Bus, http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    history = History(bus)
    seen: list[int] = []
    connected = asyncio.Event()

    async def read() -> None:
        async with aclosing(events(http, "/api/v1/events")) as stream:
            async for event in stream:
                connected.set()
                if event.id is not None:
                    seen.append(event.data["number"])
                if len(seen) == 45:
                    return

    async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        await connected.wait()
        for number in range(1, 46):
            if number in (15, 30):
                await asyncio.to_thread(nats_server.kill)
                await asyncio.to_thread(nats_server.start)
            await history.tell(job(number), JobState.QUEUED)
        await reading
    assert seen == list(range(1, 46))


async def test_a_client_resumes_after_a_restart_of_the_gateway_process(
    bus: Bus, nats_server: NatsServer
) -> None:
    history = History(bus)
    port = free_port()
    environ = {
        **os.environ,
        "PHAROS_NATS_URL": nats_server.url,
        "PHAROS_PORT": str(port),
        "PHAROS_ADMIN_TOKEN": TOKEN,
        "PHAROS_LOG_FORMAT": "json",
    }
    seen: list[int] = []
    written = 0
    async with asyncio.timeout(60):
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGTERM):
            process = subprocess.Popen(
                [sys.executable, "-m", "pharos_gateway"], env=environ, stderr=subprocess.PIPE
            )
            try:
                async with client(f"http://127.0.0.1:{port}", **BEARER) as http:
                    await _until_ready(http)
                    for _ in range(5):  # what is written before the client comes back is what it missed
                        written += 1
                        await history.tell(job(written), JobState.QUEUED)
                    async with aclosing(
                        events(http, "/api/v1/events", last_event_id=seen[-1] if seen else 0)
                    ) as stream:
                        async for event in stream:
                            if event.id is not None:
                                seen.append(event.id)
                            if event.id is not None and event.data["number"] == written:
                                break
                        asked = time.monotonic()
                        process.send_signal(how)  # with the stream open
                        await asyncio.to_thread(process.wait, 8)
                        assert time.monotonic() - asked < 5
                        if how is signal.SIGTERM:
                            assert process.returncode == 0
                            assert "Last-Event-ID" in (await anext(stream)).comment
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                assert process.stderr is not None
                log = process.stderr.read().decode()
                process.stderr.close()
                assert TOKEN not in log
                assert "Traceback" not in log, log
    assert seen == list(range(1, 16))


async def _until_ready(http: httpx.AsyncClient) -> None:
    while True:
        try:
            if (await http.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)


async def test_past_retention_one_reset_tells_what_is_open_and_then_events_go_on(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    await _write(history, 5)
    await history.tell(job(5), JobState.COMPLETED, result=result())
    async with asyncio.timeout(10), aclosing(events(http, "/api/v1/events", last_event_id=0)) as stream:
        while (await anext(stream)).id != 6:
            pass
    await bus.api("STREAM.PURGE.JOBS", {"seq": 5})
    for last_event_id in (2, 999):
        async with (
            asyncio.timeout(10),
            aclosing(events(http, "/api/v1/events", last_event_id=last_event_id)) as stream,
        ):
            await anext(stream)
            reset = await anext(stream)
            assert (reset.name, reset.id) == ("reset", await _last(bus))
            assert [row["number"] for row in reset.data["jobs"]][-4:] == [4, 3, 2, 1]
            assert 5 not in [row["number"] for row in reset.data["jobs"]]
            assert reset.data["status"] == "Offline"
            sequence = await history.tell(job(last_event_id), JobState.PAUSED)
            assert (await anext(stream)).id == sequence
    async with asyncio.timeout(10), aclosing(events(http, "/api/v1/events", last_event_id=4)) as stream:
        await anext(stream)
        assert (await anext(stream)).id == 5


async def test_a_store_that_was_made_anew_sends_readers_away_and_resets_them(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    await _write(history, 3)
    async with asyncio.timeout(20):
        async with aclosing(events(http, "/api/v1/events", last_event_id=0)) as stream:
            while (await anext(stream)).id != 3:
                pass
            await bus.api("STREAM.DELETE.JOBS")
            await apply(bus, declare(BusLimits()), 1)
            await history.tell(job(4), JobState.QUEUED)
            assert [event.comment async for event in stream] == ["closing: come back with Last-Event-ID"]
        async with aclosing(events(http, "/api/v1/events", last_event_id=3)) as stream:
            await anext(stream)
            reset = await anext(stream)
            assert (reset.name, reset.id) == ("reset", 1)
            assert 4 in [row["number"] for row in reset.data["jobs"]]


async def _last(bus: Bus) -> int:
    return int((await bus.api("STREAM.INFO.JOBS"))["state"]["last_seq"])


async def test_progress_comes_live_without_an_id_at_most_four_times_a_second_and_only_the_latest(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    await history.tell(job(1), JobState.RUNNING, attempt=1)
    seen: list[Received] = []
    async with asyncio.timeout(20), aclosing(events(http, "/api/v1/events")) as stream:
        await anext(stream)
        started = time.monotonic()
        for percent in range(1, 101):
            await bus.publish(progress_subject(progress(1, percent)), progress(1, percent))
        while not seen or seen[-1].data["percent"] < 100:
            seen.append(await anext(stream))
        assert len(seen) <= 1 + 4 * (time.monotonic() - started) + 1
        assert {event.name for event in seen} == {"job.progress"}
        assert {event.id for event in seen} == {None}
        percents = [event.data["percent"] for event in seen]
        assert percents == sorted(percents)
        await history.tell(job(1), JobState.COMPLETED, result=result())
        await bus.publish(progress_subject(progress(1, 50)), progress(1, 50))
        assert (await anext(stream)).name == "job.completed"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):  # progress that outlives its job is not told
                await anext(stream)


async def test_the_public_summary_shows_the_default_tenant_in_the_words_of_ingestion(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    workers = Bucket(bus, KV_WORKERS, Worker)
    async with (
        asyncio.timeout(20),
        client(str(http.base_url)) as anonymous,
        aclosing(events(anonymous, "/api/v1/ingestion/events")) as stream,
    ):
        await anext(stream)
        await history.tell(job(1, tenant="acme"), JobState.QUEUED)
        await history.tell(job(2), JobState.RUNNING, attempt=1)
        started = await anext(stream)
        assert (started.name, started.data["job_id"], started.data["status"]) == ("job.started", 2, "running")
        assert started.data["repo_url"] == "github.com/user/repo2"
        await bus.publish(progress_subject(progress(2, 40)), progress(2, 40))
        told = await anext(stream)
        assert (told.name, told.data["job_id"], told.data["percent"]) == ("job.progress", 2, 40)
        assert "secret" not in str(told.data)
        busy = worker(state=WorkerState.BUSY, tenant="acme", repository="github.com/acme/x", job_ids=("j",))
        await workers.put(busy.name, busy)
        status = await anext(stream)
        assert (status.name, status.id) == ("worker.status", None)
        assert status.data["status"] == "Training Graph on a private repository"
        await workers.put(busy.name, busy)  # a heartbeat is no news
        await history.tell(job(3), JobState.QUEUED)
        assert (await anext(stream)).name == "job.queued"


async def test_the_public_summary_passes_documents_by_live_and_late(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history, last = History(bus), "/api/v1/ingestion/events?last_event_id="
    async with asyncio.timeout(20):
        before = await history.tell(job(1), JobState.QUEUED)
        await history.tell(document_job(2), JobState.QUEUED)
        await history.tell(job(3), JobState.QUEUED)
        async with aclosing(events(http, f"{last}{before}")) as stream:
            await anext(stream)
            assert (await anext(stream)).data["job_id"] == 3
            await history.tell(document_job(2), JobState.RUNNING, attempt=1)
            await bus.publish(progress_subject(progress(2, 40)), progress(2, 40))
            await history.tell(document_job(2), JobState.COMPLETED, attempt=1, result=result())
            await history.tell(job(3), JobState.RUNNING, attempt=1)
            told = await anext(stream)
            assert (told.name, told.data["job_id"]) == ("job.started", 3)


async def test_lexical_ready_names_the_repository_live_and_when_it_is_told_late(
    bus: Bus, nats_server: NatsServer, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    fact = ItemLexicalReady(
        event_id="e",
        at=now(),
        tenant="default",
        job_id=job(1).job_id,
        item_id="0",
        attempt=1,
        dispatch=1,
        worker="w1",
        dataset="github.com/user/repo1@main",
        files=3,
        chunks=7,
    )
    expected = {
        "job_id": 1,
        "id": job(1).job_id,
        "repo_url": "github.com/user/repo1",
        "status": "running",
        "attempt": 1,
        "files": 3,
        "chunks": 7,
    }

    async def told(http: httpx.AsyncClient, path: str, after: int) -> dict[str, object]:
        async with aclosing(events(http, path, last_event_id=after)) as stream:
            async for event in stream:
                if event.name == "job.lexical_ready":
                    return {key: value for key, value in event.data.items() if key != "at"}
        raise AssertionError("the stream has ended")

    public = "/api/v1/ingestion/events"
    async with asyncio.timeout(20):
        async with aclosing(events(http, public)) as stream:
            await anext(stream)
            await history.tell(job(1), JobState.RUNNING, attempt=1)
            await bus.publish(item_event_subject(fact), fact)
            await anext(stream)
            live = await anext(stream)
            assert {key: value for key, value in live.data.items() if key != "at"} == expected
        await history.tell(job(1), JobState.COMPLETED, attempt=1, result=result())
        assert await told(http, public, after=1) == expected
        native = await told(http, "/api/v1/events", after=1)
        assert (native["number"], native["repository"]) == (1, "github.com/user/repo1")
        # A gateway that has not seen the job: its last events are too many since.
        await asyncio.gather(*(history.tell(job(number), JobState.QUEUED) for number in range(2, 1_103)))
        async with serving(settings(nats_server.url)) as other, client(other.address, **BEARER) as late:
            await until_ready(late)
            assert await told(late, public, after=1) == expected


async def test_too_many_streams_of_one_key_are_refused_and_places_are_given_back(
    bus: Bus, nats_server: NatsServer
) -> None:
    limits = settings(nats_server.url, streams_per_key_max=2, streams_max=3)
    async with (
        asyncio.timeout(20),
        serving(limits) as running,
        client(running.address, **BEARER) as http,
        client(running.address) as anonymous,
    ):
        await _until_ready(http)
        streams = [events(http, "/api/v1/events") for _ in range(2)]
        for stream in streams:
            await anext(stream)
        assert (await http.get("/api/v1/events")).status_code == 429
        third = events(anonymous, "/api/v1/ingestion/events")
        await anext(third)
        assert (await anonymous.get("/api/v1/ingestion/events")).status_code == 503
        for stream in (*streams, third):
            await stream.aclose()  # type: ignore[attr-defined]

        while True:  # until the gateway has noticed that they left
            with contextlib.suppress(httpx.HTTPStatusError):
                async with aclosing(events(http, "/api/v1/events")) as stream:
                    assert (await anext(stream)).comment == "connected"
                    break
            await asyncio.sleep(0.02)


async def test_a_reader_that_takes_nothing_is_sent_away_and_loses_nothing_when_it_resumes(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    history = History(bus)
    big = "x" * 20_000
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((http.base_url.host, http.base_url.port))
        slow.sendall(
            b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        assert await asyncio.to_thread(slow.recv, 1, socket.MSG_PEEK)
        # More than the kernel's buffers and a thousand waiting events can hold.
        for start in range(1, 1501, 50):
            await asyncio.gather(
                *(
                    history.tell(job(number), JobState.FAILED, error=big)
                    for number in range(start, start + 50)
                )
            )
        await asyncio.sleep(0.5)
        text = await asyncio.to_thread(_drain, slow)
    assert ": too slow: come back with Last-Event-ID" in text
    ids = [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) < 1500
    async with asyncio.timeout(20), aclosing(events(http, "/api/v1/events", last_event_id=ids[-1])) as stream:
        async for event in stream:
            if event.id is not None:
                ids.append(event.id)
            if event.id == 1500:
                break
    assert ids == list(range(1, 1501))


def _drain(connection: socket.socket) -> str:
    connection.settimeout(10)
    received = bytearray()
    while chunk := connection.recv(1 << 20):
        received += chunk
    return received.decode()


async def test_a_job_is_found_by_its_events_while_their_copy_lags(bus: Bus, http: httpx.AsyncClient) -> None:
    await History(bus).tell(job(1), JobState.QUEUED)
    async with asyncio.timeout(10):
        while (await bus.api("STREAM.INFO.LEDGER"))["state"]["messages"] == 0:
            await asyncio.sleep(0.02)
    await bus.api("STREAM.PURGE.LEDGER")
    found = await http.get(f"/api/v1/jobs/{job(1).job_id}")
    assert (found.status_code, found.json()["state"]) == (200, "queued")
