"""Callbacks, from the submit to the receiver, against a real bus and real servers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from pharos_contracts import subjects
from pharos_contracts.jobs.v1 import SubmitJob, job_of
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.streams import CALLBACK_DELIVERIES_MAX, CALLBACKS, JOBS
from pharos_gateway.app import serving
from pharos_gateway.callback_url import parse_callback_url
from pharos_gateway.callbacks import AT_ONCE_PER_HOST_MAX, Callbacks
from pharos_gateway.posting import Poster, PostFailed
from pharos_gateway.settings import Settings
from pharos_gateway.signing import SigningSecrets
from pharos_service.bus import Bus, connect
from pharos_service.ending import end
from pharos_service.settings import Secret, ServiceSettings
from pharos_sources.hosts import AllowedHosts
from tests.support.gateway import (
    BEARER,
    Call,
    History,
    Receiver,
    client,
    events,
    job,
    now,
    result,
    settings,
    status,
    until_ready,
)
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"
KEY = "a-secret-key-of-more-than-32-characters"
HIDDEN = "token=hidden-in-the-query"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as found:
        yield found


def gateway_settings(nats_server: NatsServer, receiver: Receiver, **others: Any) -> Settings:
    chosen = {
        "git_allowed_hosts": "http://git.test:9418",
        "callback_allowed_hosts": f"*,{receiver.url}",
        "secret_key": Secret(KEY),
        **others,
    }
    return settings(nats_server.url, **chosen)


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer, receiver: Receiver) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(gateway_settings(nats_server, receiver)) as running,
        client(running.address, **BEARER) as connected,
    ):
        await until_ready(connected)
        yield connected


@asynccontextmanager
async def sending(bus: Bus, *, delay_seconds: float = 0.01) -> AsyncIterator[None]:
    """Callbacks are sent while the block runs, with short waits between the tries."""
    callbacks = Callbacks(
        bus,
        Poster(seconds_max=5.0),
        SigningSecrets(KEY),
        address_of=partial(parse_callback_url, allowed_hosts=ANYWHERE),
        now=now,
        delay_after=lambda tries: delay_seconds,
    )
    running = asyncio.create_task(callbacks.run())
    try:
        yield
    finally:
        await end(running)


class _Anywhere(AllowedHosts):
    """Loopback too, at whatever port."""

    def admit(self, scheme: str | None, host: str, port: int | None) -> Any:
        return AllowedHosts.parse(f"http://{host}:{port}").admit(scheme, host, port)


ANYWHERE = _Anywhere()


async def settled(bus: Bus) -> None:
    """Return when the bus has nothing left to be told."""
    async with asyncio.timeout(20):
        while True:
            info = await bus.api(f"CONSUMER.INFO.{JOBS}.{CALLBACKS}")
            if not info["num_pending"] and not info["num_ack_pending"]:
                return
            await asyncio.sleep(0.02)


def verified(call: Call, secret: str) -> bool:
    """As the documentation tells a receiver to do it."""
    signed = call.headers["x-pharos-timestamp"].encode() + b"." + call.body
    expected = "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, call.headers["x-pharos-signature"])


async def test_the_end_of_a_job_is_told_signed_and_to_the_letter(
    bus: Bus, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    url = f"{receiver.url}/hook/a%20b?{HIDDEN}"
    submitted = (await http.post(f"{INGEST}/user/repo1", params={"callback_url": url})).json()
    stored = await bus.first("Q", subjects.command_filter(submitted["id"]))
    assert stored is not None
    command: SubmitJob = decode(stored.data, SubmitJob)
    assert command.callback_url == url
    history = History(bus)
    ended = job_of(command, 1)
    await history.tell(ended, JobState.RUNNING, attempt=1)
    await history.tell(ended, JobState.COMPLETED, attempt=1, result=result(), ended_at=now())
    (call,) = await receiver.until(1)
    assert call.path == f"/hook/a%20b?{HIDDEN}"
    assert call.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert call.headers["content-type"] == "application/json"
    assert set(call.json) == {"event", "delivery_id", "at", "job"}
    assert call.json["event"] == "job.completed"
    assert call.json["delivery_id"] == call.headers["x-pharos-delivery"]
    shown = (await http.get(f"/api/v1/jobs/{submitted['id']}")).json()
    assert call.json["job"] == shown
    secret = (await http.get("/api/v1/callbacks/secret")).json()
    assert secret["tenant"] == "default"
    assert verified(call, secret["secret"])
    assert abs(int(call.headers["x-pharos-timestamp"]) - now().timestamp()) < 30
    other = (await http.get("/api/v1/callbacks/secret", headers={"x-tenant": "acme"})).json()
    assert not verified(call, other["secret"])
    assert (await http.get("/api/v1/callbacks/secret", headers={"x-role": "viewer"})).status_code == 403
    await settled(bus)
    assert len(receiver.calls) == 1


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED])
async def test_however_a_job_ends_it_is_told_although_no_worker_lives(
    bus: Bus, receiver: Receiver, http: httpx.AsyncClient, state: JobState
) -> None:
    history = History(bus)
    told = job(1, callback_url=f"{receiver.url}/hook")
    await history.tell(job(2), state)  # nobody asked to be told of this one
    for before in (JobState.QUEUED, JobState.PAUSED, JobState.QUEUED):
        await history.tell(told, before, attempt=len(before))
    await history.tell(told, state, reason="Task exceeded TTL")
    (call,) = await receiver.until(1)
    assert (call.json["event"], call.json["job"]["number"]) == (f"job.{state}", 1)
    await settled(bus)
    assert len(receiver.calls) == 1


async def test_the_url_of_a_callback_is_shown_nowhere(
    bus: Bus, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answers["/hook"] = [status(500)]
    url = f"{receiver.url}/hook?{HIDDEN}"
    texts: list[str] = []
    with capture_logs() as lines:
        submitted = await http.post(f"{INGEST}/user/repo1", params={"callback_url": url})
        texts.append(submitted.text)
        for wrong in (
            f"https://u:p@x.example/?{HIDDEN}",
            f"https://10.0.0.1/?{HIDDEN}",
            f"ftp://x/?{HIDDEN}",
        ):
            refused = await http.post(f"{INGEST}/user/repo2", params={"callback_url": wrong})
            assert refused.status_code == 400
            texts.append(refused.text)
        told = job(1, callback_url=url)
        async with asyncio.timeout(20), aclosing(events(http, "/api/v1/events")) as stream:
            await anext(stream)
            await History(bus).tell(told, JobState.QUEUED)
            await History(bus).tell(told, JobState.FAILED, error="x")
            texts += [str((await anext(stream)).data) for _ in range(2)]
        await receiver.until(1)
        async with asyncio.timeout(10):
            while not any(line["event"] == "callback_failed" for line in lines):
                await asyncio.sleep(0.02)
        for path in (
            f"/api/v1/jobs/{submitted.json()['id']}",
            f"/api/v1/jobs/{told.job_id}",
            f"/api/v1/jobs/{told.job_id}/events",
            "/api/v1/ingestion/jobs/history",
            "/ops/queue",
        ):
            texts.append((await http.get(path)).text)
    everything = "\n".join([*texts, json.dumps(lines, default=repr)])
    assert "callback_failed" in everything
    assert "hidden-in-the-query" not in everything
    assert "/hook" not in everything


async def test_a_receiver_that_fails_is_told_again_the_same_with_a_fresh_signature(
    bus: Bus, receiver: Receiver
) -> None:
    redirect = status(302, f"Location: {receiver.url}/elsewhere")
    receiver.answers["/hook"] = [status(500), redirect, b"this is not HTTP\r\n\r\n", b"", status(204)]
    async with sending(bus):
        await History(bus).tell(job(1, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        calls = await receiver.until(5)
        await settled(bus)
    assert {call.path for call in calls} == {"/hook"}
    assert len({call.body for call in calls}) == 1
    assert len({call.headers["x-pharos-delivery"] for call in calls}) == 1
    assert all(verified(call, SigningSecrets(KEY).of("default")) for call in calls)
    assert len(receiver.calls) == 5


async def test_a_receiver_that_is_gone_for_good_is_told_no_more(bus: Bus, receiver: Receiver) -> None:
    receiver.answers["/hook"] = [status(410)]
    async with sending(bus):
        await History(bus).tell(job(1, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        await receiver.until(1)
        await settled(bus)
    assert len(receiver.calls) == 1


async def test_tries_have_a_limit_and_giving_up_is_logged(bus: Bus, receiver: Receiver) -> None:
    receiver.answers["/hook"] = [status(503)]
    with capture_logs() as lines:
        async with sending(bus):
            await History(bus).tell(job(1, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
            await receiver.until(CALLBACK_DELIVERIES_MAX)
            await settled(bus)
    assert len(receiver.calls) == CALLBACK_DELIVERIES_MAX
    (given_up,) = [line for line in lines if line["event"] == "callback_given_up"]
    assert (given_up["job_id"], given_up["tries"]) == (job(1).job_id, CALLBACK_DELIVERIES_MAX)


async def test_a_slow_receiver_holds_up_no_other_and_takes_two_at_once(bus: Bus, receiver: Receiver) -> None:
    receiver.gate.clear()
    async with Receiver("127.0.0.2") as quick, sending(bus):
        history = History(bus)
        for number in range(1, 41):
            await history.tell(job(number, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        await receiver.until(AT_ONCE_PER_HOST_MAX)
        for number in range(41, 61):
            await history.tell(job(number, callback_url=f"{quick.url}/hook"), JobState.FAILED)
        await quick.until(20)
        assert len(receiver.calls) == AT_ONCE_PER_HOST_MAX
        receiver.gate.set()
        await receiver.until(40)
        await settled(bus)
    assert receiver.open_most == AT_ONCE_PER_HOST_MAX
    assert len(receiver.calls) == 40


async def test_two_gateways_share_the_callbacks_and_each_is_sent_once(
    bus: Bus, nats_server: NatsServer, receiver: Receiver
) -> None:
    other = await connect(ServiceSettings(nats_url=nats_server.url), "other")
    async with sending(bus), sending(other):
        history = History(bus)
        for number in range(1, 41):
            await history.tell(job(number, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        await receiver.until(40)
        await settled(bus)
    await other.client.close()
    assert len({call.json["delivery_id"] for call in receiver.calls}) == len(receiver.calls) == 40


async def test_a_gateway_that_stops_in_the_middle_leaves_its_callbacks_to_the_next(
    bus: Bus, receiver: Receiver
) -> None:
    receiver.gate.clear()
    async with Receiver("127.0.0.2") as other, sending(bus):
        for number in (1, 2, 3):
            await History(bus).tell(job(number, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        await History(bus).tell(job(4, callback_url=f"{other.url}/hook"), JobState.FAILED)
        await receiver.until(2)
        await other.until(1)  # so the third is in hand too, and waits for its turn
    receiver.gate.set()
    receiver.calls.clear()
    async with sending(bus):
        await receiver.until(3)
        await settled(bus)
    assert {call.json["job"]["number"] for call in receiver.calls} == {1, 2, 3}


async def test_callbacks_are_sent_after_a_crash_of_the_bus(
    bus: Bus, nats_server: NatsServer, receiver: Receiver
) -> None:
    async with sending(bus):
        await History(bus).tell(job(1, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        await receiver.until(1)
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        await History(bus).tell(job(2, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        async with asyncio.timeout(20):
            while {call.json["job"]["number"] for call in receiver.calls} != {1, 2}:
                await asyncio.sleep(0.02)


async def test_an_answer_without_end_is_left_after_its_beginning(receiver: Receiver) -> None:
    receiver.answers["/hook"] = [
        b"HTTP/1.1 200 x\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 200_000,
    ]
    address = parse_callback_url(f"{receiver.url}/hook", allowed_hosts=ANYWHERE)
    async with asyncio.timeout(4):
        assert await Poster().post(address, {"Content-Length": "0"}, b"") == 200


async def test_a_receiver_that_does_not_answer_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.gate.clear()
    address = parse_callback_url(f"{receiver.url}/hook", allowed_hosts=ANYWHERE)
    with pytest.raises(PostFailed, match="no answer in time"):
        await Poster(seconds_max=0.2).post(address, {"Content-Length": "0"}, b"")


async def test_a_name_that_leads_to_a_private_address_by_now_is_not_connected_to(receiver: Receiver) -> None:
    looked_up: list[str] = []

    async def rebound(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    url = f"http://hooks.example:{receiver.port}/hook"
    admitted = AllowedHosts.parse(f"http://hooks.example:{receiver.port}")
    trusted = parse_callback_url(url, allowed_hosts=admitted)
    assert await Poster(rebound).post(trusted, {"Content-Length": "0"}, b"") == 204
    public = parse_callback_url(f"https://hooks.example:{receiver.port}/", allowed_hosts=AllowedHosts())
    with pytest.raises(PostFailed, match="does not have a public address"):
        await Poster(rebound).post(public, {"Content-Length": "0"}, b"")
    assert looked_up == ["hooks.example"] * 2
    assert len(receiver.calls) == 1


async def test_a_certificate_is_that_of_the_name_although_the_connection_goes_to_an_address() -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    looked_up: list[str] = []

    async def here(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    async with Receiver(tls=theirs) as receiver:

        async def post(host: str, tls: ssl.SSLContext | None) -> int:
            url = f"https://{host}:{receiver.port}/hook"
            admitted = AllowedHosts.parse(f"http://{host}:{receiver.port}")
            address = parse_callback_url(url, allowed_hosts=admitted)
            return await Poster(here, tls=tls).post(address, {"Content-Length": "0"}, b"")

        assert await post("hooks.example", ours) == 204
        for host, tls in (("other.example", ours), ("hooks.example", None)):
            with pytest.raises(PostFailed, match="the connection failed"):
                await post(host, tls)
    assert len(receiver.calls) == 1
    assert receiver.calls[0].headers["host"] == f"hooks.example:{receiver.port}"


async def test_a_callback_that_may_not_be_sent_is_refused_at_the_submit_with_a_reason(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    for url, reason in (
        ("http://hooks.example/x", "only https URLs are accepted"),
        ("https://127.0.0.1/x", "the host is not public"),
        ("https://no-such-name.invalid/x", "the host could not be found"),
        ("https://u:p@hooks.example/x", "credentials in a URL are not accepted"),
        ("https://hooks.example/x#y", "a fragment is not accepted"),
    ):
        refused = await http.post(f"{INGEST}/user/repo1", params={"callback_url": url})
        assert refused.status_code == 400
        assert refused.json() == {
            "detail": "Invalid callback URL",
            "code": "invalid_callback_url",
            "reason": reason,
        }
    assert (await bus.api("STREAM.INFO.Q"))["state"]["messages"] == 0


@pytest.mark.parametrize(
    ("route", "body", "stream"),
    [
        ("/resources/ingest-repo", {"git_url": "http://git.test:9418/user/repo1"}, "Q"),
        ("/ingest", {"repo_url": "http://git.test:9418/user/repo1"}, "Q"),
        ("/resources", {"title": "T", "content": "Words.", "url": "https://e.example/1"}, "DOCS"),
        (
            "/api/v1/jobs",
            {"kind": "resource", "title": "T", "content": "Words.", "url": "https://e.example/1"},
            "DOCS",
        ),
    ],
)
async def test_older_clients_and_resources_may_name_a_callback_too(
    bus: Bus, http: httpx.AsyncClient, receiver: Receiver, route: str, body: dict[str, Any], stream: str
) -> None:
    refused = await http.post(route, json={**body, "callback_url": "https://127.0.0.1/x"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_callback_url")
    assert (await bus.api(f"STREAM.INFO.{stream}"))["state"]["messages"] == 0
    url = f"{receiver.url}/hook"
    assert (await http.post(route, json={**body, "callback_url": url})).is_success
    stored = await bus.first(stream, "cmd.>")
    assert stored is not None
    command: SubmitJob = decode(stored.data, SubmitJob)
    assert command.callback_url == url


async def test_every_submit_takes_a_callback(http: httpx.AsyncClient) -> None:
    document = (await http.get("/schema/openapi.json")).json()
    schemas = document["components"]["schemas"]
    lacking = []
    for path, operations in document["paths"].items():
        submit = operations.get("post", {})
        parameters = {each["name"] for each in submit.get("parameters", ())}
        if "Idempotency-Key" not in parameters:  # which every submit takes
            continue
        named = json.dumps(submit.get("requestBody", {}))
        bodies = [schema for name, schema in schemas.items() if f'/{name}"' in named]
        if "callback_url" not in parameters | {field for body in bodies for field in body["properties"]}:
            lacking.append(path)
    assert lacking == []


async def test_without_a_secret_key_callbacks_are_refused_and_left_to_a_gateway_that_has_one(
    bus: Bus, nats_server: NatsServer, receiver: Receiver
) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            serving(gateway_settings(nats_server, receiver, secret_key=Secret("")))
        )
        http = await stack.enter_async_context(client(running.address, **BEARER))
        await until_ready(http)
        for refused in (
            await http.post(f"{INGEST}/user/repo1", params={"callback_url": f"{receiver.url}/hook"}),
            await http.get("/api/v1/callbacks/secret"),
        ):
            assert (refused.status_code, refused.json()["code"]) == (400, "callbacks_disabled")
            assert "PHAROS_SECRET_KEY" in refused.json()["detail"]
        await History(bus).tell(job(1, callback_url=f"{receiver.url}/hook"), JobState.FAILED)
        await History(bus).tell(job(2), JobState.FAILED)
    assert receiver.calls == []
    async with sending(bus):
        await receiver.until(1)
        await settled(bus)
    assert [call.json["job"]["number"] for call in receiver.calls] == [1]
