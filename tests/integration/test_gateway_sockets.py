"""The WebSocket of projects, against a real bus and with a client of another make."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from pharos_contracts.history.v1 import JobPage, JobView
from pharos_contracts.jobs.v1 import Job, Progress, Stage
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_contracts.rpc import HISTORY
from pharos_contracts.subjects import progress_subject
from pharos_gateway.app import serving
from pharos_service.bus import Bus
from tests.support.gateway import BEARER, TOKEN, History, client, job, now, settings, until_ready
from tests.support.keys import issue, with_key
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

SUBSCRIBE = {"action": "subscribe", "project": "default", "topics": ["github:progress"]}
STARTED = datetime(2024, 1, 20, 10, 30, tzinfo=UTC)
RUNNING = job(1, JobState.RUNNING, started_at=STARTED, attempt=1)


@asynccontextmanager
async def opened(address: str, path: str = "/ws", **headers: str) -> AsyncIterator[ClientConnection]:
    url = address.replace("http://", "ws://") + path
    async with connect(url, additional_headers=headers, proxy=None, max_queue=1) as socket:
        yield socket


async def say(socket: ClientConnection, message: dict[str, Any]) -> None:
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        message: dict[str, Any] = json.loads(await socket.recv())
    return message


async def until(socket: ClientConnection, status: str) -> list[dict[str, Any]]:
    """What is told of jobs, up to the first message of that *status*."""
    told = []
    while not told or told[-1]["data"]["status"] != status:
        told.append(await hear(socket))
    return told


async def tell_progress(bus: Bus, of: Job, percent: float) -> None:
    progress = Progress(
        tenant=of.tenant,
        job_id=of.job_id,
        item_id="i",
        attempt=1,
        at=now(),
        stage=Stage.ENCODE,
        done=1,
        total=2,
        percent=percent,
        current_file="src/context.ts",
    )
    await bus.publish(progress_subject(progress), progress)


@asynccontextmanager
async def gateway(nats_url: str, **chosen: Any) -> AsyncIterator[str]:
    async with serving(settings(nats_url, **chosen)) as running, client(running.address) as http:
        await until_ready(http)
        yield running.address


async def test_a_page_from_elsewhere_does_not_act_as_whoever_sends_nothing(
    bus: Bus, nats_server: NatsServer
) -> None:
    opened_to = {"anonymous": "default:viewer", "cors_origins": ("https://ui.example",)}
    async with gateway(nats_server.url, **opened_to) as address:
        for origin, heard in (
            ("https://evil.example", "error"),
            ("null", "error"),
            ("https://ui.example", "subscribed"),
            (address, "subscribed"),
        ):
            async with opened(address, Origin=origin) as socket:
                await say(socket, SUBSCRIBE)
                assert (await hear(socket))["type"] == heard, origin
        async with opened(address, Origin="https://evil.example") as socket:
            await say(socket, {"type": "auth", "token": TOKEN})
            assert (await hear(socket))["type"] == "authenticated"


async def test_the_client_of_the_document_receives_its_messages(bus: Bus, nats_server: NatsServer) -> None:
    async with (
        gateway(nats_server.url, anonymous="default:viewer") as address,
        opened(address) as socket,
    ):
        await say(socket, {"action": "ping"})
        assert (await hear(socket))["type"] == "pong"
        await say(socket, SUBSCRIBE)
        assert (await hear(socket))["type"] == "subscribed"
        history = History(bus)
        await history.tell(RUNNING, JobState.RUNNING)
        first = await hear(socket)
        assert (first["data"]["status"], first["data"]["progress"]) == ("in_progress", 0)
        await tell_progress(bus, RUNNING, 75)
        shown = await hear(socket)
        assert shown["timestamp"].endswith("Z")
        assert {**shown, "timestamp": None} == {
            "type": "github:progress",
            "project": "default",
            "timestamp": None,
            "data": {
                "jobId": RUNNING.job_id,
                "status": "in_progress",
                "progress": 75,
                "phase": "Indexing repository...",
                "currentFile": "src/context.ts",
                "error": None,
            },
        }
        await history.tell(RUNNING, JobState.FAILED, error="Failed to clone repository", ended_at=now())
        last = (await until(socket, "failed"))[-1]["data"]
        assert (last["error"], last["progress"]) == ("Failed to clone repository", 75)
        await say(socket, {"action": "unsubscribe", "project": "default"})
        assert (await hear(socket))["type"] == "unsubscribed"


async def test_a_client_says_who_it_is_by_header_ticket_or_first_message(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server.url) as address, client(address, **BEARER) as http:
        ticket = (await http.post("/api/v1/events/ticket")).json()["ticket"]
        for path, headers in (("/ws", BEARER), (f"/ws?ticket={ticket}", {})):
            async with opened(address, path, **headers) as socket:
                await say(socket, SUBSCRIBE)
                assert (await hear(socket))["type"] == "subscribed"
        async with opened(address) as socket:
            await say(socket, {"type": "auth", "token": TOKEN})
            assert (await hear(socket))["type"] == "authenticated"
            await say(socket, SUBSCRIBE)
            assert (await hear(socket))["type"] == "subscribed"
        for headers, message in (
            ({"Authorization": "Bearer nothing"}, None),
            ({}, {"type": "auth", "token": "nothing"}),
            ({}, SUBSCRIBE),
        ):
            async with opened(address, **headers) as socket:
                if message is not None:
                    await say(socket, message)
                answer = await hear(socket)
                assert (answer["type"], answer["code"]) == ("error", "unauthenticated")
                with pytest.raises(ConnectionClosed) as closed:
                    await hear(socket)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4401


async def test_a_socket_shows_what_its_key_may_see_and_ends_with_it(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server.url) as address, client(address) as http:
        narrow = await issue(http, projects=["atlas"])
        async with opened(address, **with_key(narrow)) as socket:
            for project in ("default", "all"):
                await say(socket, {**SUBSCRIBE, "project": project})
                await hear(socket)
            history = History(bus)
            await history.tell(job(1, tenant="acme"), JobState.RUNNING)
            await history.tell(job(2, tenant="other", project="atlas"), JobState.RUNNING)
            await history.tell(job(3, tenant="acme", project="atlas"), JobState.RUNNING)
            message = await hear(socket)
            assert (message["project"], message["data"]["jobId"]) == ("atlas", job(3).job_id)
            await http.post(f"/api/v1/keys/{narrow['id']}/disable", headers=BEARER)
            assert (await hear(socket))["code"] == "unauthenticated"


async def test_what_is_not_understood_is_answered_and_the_socket_goes_on(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server.url) as address, opened(address, **BEARER) as socket:
        for text in (
            "{",
            "[]",
            '{"action":"dance"}',
            '{"action":"subscribe","project":"a.b"}',
            '{"action":"subscribe","topics":["x"]}',
            '{"action":1}',
        ):
            await socket.send(text)
            answer = await hear(socket)
            assert (answer["type"], answer["code"]) == ("error", "invalid_request"), text
        await say(socket, {"action": "ping"})
        assert (await hear(socket))["type"] == "pong"
        with pytest.raises(ConnectionClosed):
            await socket.send("x" * 20_000)
            await hear(socket)


async def test_sockets_of_one_key_are_counted_with_its_streams(bus: Bus, nats_server: NatsServer) -> None:
    async with (
        gateway(nats_server.url, streams_per_key_max=1) as address,
        opened(address, **BEARER) as first,
    ):
        await say(first, SUBSCRIBE)
        await hear(first)
        async with opened(address, **BEARER) as second:
            assert (await hear(second))["code"] == "too_many_streams"


async def test_who_stops_reading_gets_the_latest_and_progress_never_falls(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server.url) as address, opened(address, **BEARER) as socket:
        await say(socket, SUBSCRIBE)
        await hear(socket)
        history = History(bus)
        await history.tell(RUNNING, JobState.RUNNING)
        for percent in (10, 60, 40, 80):
            await tell_progress(bus, RUNNING, percent)
        done = replace(RUNNING, ended_at=now())
        await history.tell(done, JobState.COMPLETED)
        told = [message["data"]["progress"] for message in await until(socket, "completed")]
        assert told == sorted(told)
        assert told[-1] == 100


async def test_a_gateway_that_stops_sends_its_sockets_away(bus: Bus, nats_server: NatsServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with gateway(nats_server.url) as address:
            socket = await stack.enter_async_context(opened(address, **BEARER))
            await say(socket, SUBSCRIBE)
            await hear(socket)
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1001, 1012)


async def test_history_knows_what_the_socket_has_told(bus: Bus, nats_server: NatsServer) -> None:
    async def behind(message: Msg) -> None:
        view = JobView(job=RUNNING, sequence=1, changed_at=now())
        await message.respond(encode(JobPage(jobs=(view,))))

    await bus.client.subscribe(HISTORY, cb=behind)
    async with (
        gateway(nats_server.url) as address,
        client(address, **BEARER) as http,
        opened(address, **BEARER) as socket,
    ):
        await say(socket, SUBSCRIBE)
        await hear(socket)
        await History(bus).tell(replace(RUNNING, ended_at=now()), JobState.COMPLETED)
        await until(socket, "completed")
        (row,) = (await http.get("/projects/default/ingest/history")).json()
        assert (row["status"], row["progress"]) == ("completed", 100)
