"""Keys, the audit trail, tickets and limits, over HTTP at one and at two gateways."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from pharos_contracts.audit.v1 import Audited
from pharos_contracts.connections.v1 import Connection, SourceType
from pharos_contracts.streams import AUDIT, KV_CONNECTIONS, KV_KEYS
from pharos_gateway.app import serving
from pharos_gateway.audit import Trail
from pharos_gateway.rotate_secrets import rotate
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_sources.sealing import Sealer
from tests.support.gateway import BEARER, TOKEN, client, now, settings, until_ready
from tests.support.keys import KEYS, issue, secret_of, with_key
from tests.support.messages import examples
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

JOBS = "/api/v1/jobs"
TENANT_READ = "/api/v1/schedules"  # needs no other service
INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"


@asynccontextmanager
async def gateway(server: NatsServer, **others: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = settings(server.url, **{"git_allowed_hosts": "http://git.test:9418", **others})
    async with serving(chosen) as running, client(running.address) as http:
        await until_ready(http)
        yield http


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(nats_server) as found:
        yield found


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(http: httpx.AsyncClient, bus: Bus) -> None:
    issued = await issue(http, name="laptop", projects=["atlas"])
    assert (await http.get(TENANT_READ, headers=with_key(issued))).status_code == 200
    secret = secret_of(issued)
    stored = await bus.last(f"KV_{KV_KEYS}", f"$KV.{KV_KEYS}.{issued['id']}")
    assert stored is not None
    assert secret.encode() not in stored.data
    for path in (KEYS, f"{KEYS}/{issued['id']}"):
        shown = await http.get(path, headers=BEARER)
        assert shown.status_code == 200
        assert "laptop" in shown.text
        assert secret not in shown.text
        assert "hash" not in shown.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": "ada", "role": "king"}, "role"),
        ({"user": "", "role": "viewer"}, "user"),
        ({"user": "ada", "role": "viewer", "tenant": "a.b"}, "tenant"),
        ({"user": "ada", "role": "viewer", "projects": ["*"]}, "projects"),
        ({"user": "ada", "role": "admin", "projects": ["p"]}, "projects"),
        ({"user": "ada", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"user": "ada", "role": "viewer", "color": "red"}, None),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused_with_a_sentence(
    http: httpx.AsyncClient, body: dict[str, Any], field: str | None
) -> None:
    refused = await http.post(KEYS, json=body, headers=BEARER)
    assert refused.status_code == 400
    assert refused.json().get("field") == field
    assert refused.json()["detail"]


async def test_a_key_stops_at_every_gateway_within_two_seconds_and_so_do_its_streams(
    http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    async with gateway(nats_server) as other:
        rotated, disabled, deleted, expiring = [
            await issue(http, **more)
            for more in ({}, {}, {}, {"expires_at": (now() + timedelta(seconds=3)).isoformat()})
        ]
        for key in (rotated, disabled, deleted, expiring):
            await until(lambda key=key: _opens(other, key))  # type: ignore[misc]

        async def until_its_stream_ends(key: dict[str, Any]) -> None:
            async with other.stream("GET", "/api/v1/events", headers=with_key(key)) as stream:
                assert stream.status_code == 200
                open_streams.append(key["id"])
                async for _ in stream.aiter_lines():
                    pass

        open_streams: list[str] = []
        streams = [
            asyncio.create_task(until_its_stream_ends(key)) for key in (rotated, disabled, deleted, expiring)
        ]
        await until(lambda: _is(len(open_streams) == 4))
        new = await http.post(f"{KEYS}/{rotated['id']}/rotate", json={}, headers=BEARER)
        assert (await http.post(f"{KEYS}/{disabled['id']}/disable", headers=BEARER)).status_code == 200
        assert (await http.delete(f"{KEYS}/{deleted['id']}", headers=BEARER)).status_code == 204
        for key in (rotated, disabled, deleted):
            assert not await _opens(http, key)  # where it was done, at once
            await until(lambda key=key: _not(_opens(other, key)), 2)  # type: ignore[misc]
        await until(lambda: _opens(other, new.json()), 2)
        await asyncio.wait_for(asyncio.gather(*streams), 10)
        assert not await _opens(other, expiring)
        states = {key["id"]: key["state"] for key in (await other.get(KEYS, headers=BEARER)).json()["keys"]}
        assert states == {rotated["id"]: "active", disabled["id"]: "disabled", expiring["id"]: "expired"}
        again = await http.post(f"{KEYS}/{disabled['id']}/rotate", json={}, headers=BEARER)
        assert (again.status_code, again.json()["code"]) == (409, "key_not_live")


async def _opens(http: httpx.AsyncClient, key: dict[str, Any]) -> bool:
    return (await http.post("/api/v1/events/ticket", headers=with_key(key))).status_code == 200


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer


async def _is(fact: bool) -> bool:
    return fact


async def test_a_known_key_goes_on_working_while_the_bus_is_away_and_an_unknown_one_is_not_refused(
    http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    issued = await issue(http)
    nats_server.kill()
    assert (await http.get(JOBS, headers=with_key(issued))).status_code == 503
    assert await _opens(http, issued)
    async with (
        serving(settings(nats_server.url)) as running,
        client(running.address) as newly_started,
    ):
        unknown = await newly_started.get(JOBS, headers=with_key(issued))
        assert (unknown.status_code, unknown.json()["detail"]) == (
            503,
            "Keys unavailable: the bus has not told them yet",
        )
        assert (await newly_started.get(JOBS, headers={"x-api-key": "no key"})).status_code == 401
        nats_server.start()
        await until(lambda: _opens(newly_started, issued))


async def test_guessing_is_slowed_for_its_address_and_for_nobody_else(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(
        nats_server, rate_limit_guesses_per_minute=3, trusted_proxies=("127.0.0.0/8",)
    ) as http:
        issued = await issue(http)

        async def status(address: str, **headers: str) -> int:
            answer = await http.get(TENANT_READ, headers={**headers, "X-Forwarded-For": address})
            if answer.status_code == 429:
                assert answer.json()["code"] == "too_many_guesses"
                assert 1 <= int(answer.headers["Retry-After"]) <= 20
            return answer.status_code

        assert await status("203.0.113.1", **with_key(issued)) == 200
        with capture_logs() as lines:
            guessed = [await status("203.0.113.1", **{"x-api-key": f"guess{n}"}) for n in range(5)]
        assert guessed == [401, 401, 401, 429, 429]
        assert [line["client"] for line in lines if line["event"] == "authentication_failed"] == [
            "203.0.113.1"
        ] * 3
        assert "guess" not in str(lines)
        # On other routes too; a key that is right is not told apart, unless it worked from there before.
        admin = {"Authorization": f"Bearer {TOKEN}"}
        assert await status("203.0.113.1", **admin) == 429
        assert await status("203.0.113.1", **with_key(issued)) == 200
        assert await status("203.0.113.2", **admin) == 200
        assert await status("203.0.113.1") == 401  # nothing was presented


async def test_two_gateways_keep_one_limit_and_say_what_is_left_of_it(
    bus: Bus, nats_server: NatsServer
) -> None:
    limit = {"rate_limit_key_per_minute": 40}
    async with gateway(nats_server, **limit) as one, gateway(nats_server, **limit) as other:
        issued = await issue(one)
        await until(lambda: _knows(other, issued))
        path = "/api/v1/events/ticket"
        allowed, refused = 0, None
        async with asyncio.timeout(20):
            while refused is None:
                for http in (one, other):
                    answer = await http.post(path, headers=with_key(issued))
                    if answer.status_code == 429:
                        refused = answer
                    else:
                        allowed += 1
                        left = int(answer.headers["RateLimit-Remaining"])
                        assert answer.headers["RateLimit"].startswith(f'"key";r={left};t=')
                        assert answer.headers["RateLimit-Policy"] == '"key";q=40;w=60'
        assert refused.json()["code"] == "rate_exceeded"
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["RateLimit-Remaining"] == "0"
        # The other may hold a lease of two still; each began with one on credit, and some flowed in.
        assert 40 - 2 <= allowed <= 40 + 2 * 2 + 3
        assert (await other.post(path, headers=with_key(await issue(one, user="bob")))).status_code in (
            200,
            401,
        )


async def test_every_query_of_a_batch_counts_as_a_request_and_too_many_are_refused_together(
    nats_server: NatsServer, bus: Bus
) -> None:
    batch = {"queries": [{"query": " "}] * 15}
    async with gateway(nats_server, rate_limit_key_per_minute=40) as http:
        issued = with_key(await issue(http))
        answers = [await http.post("/api/v1/search/batch", json=batch, headers=issued) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["code"] == "rate_exceeded"
        left = await http.post("/api/v1/events/ticket", headers=issued)  # one of those is spent, not fifteen
        assert left.status_code == 200


async def _knows(http: httpx.AsyncClient, issued: dict[str, Any]) -> bool:
    return (await http.get(f"{KEYS}/{issued['id']}", headers=BEARER)).status_code == 200


async def test_without_the_bus_a_gateway_keeps_the_limit_by_itself(
    http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, rate_limit_address_per_minute=20) as limited:
        nats_server.kill()
        statuses = [(await limited.get(TENANT_READ)).status_code for _ in range(40)]
        assert statuses[:20] == [401] * 20
        assert 429 in statuses[20:24]


async def test_a_user_starts_so_many_jobs_a_day_and_what_started_none_does_not_count(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, rate_limit_jobs_per_day=2) as http:
        ada, ada_too, bob = [await issue(http, user=user) for user in ("ada", "ada", "bob")]

        async def submit(name: str, key: dict[str, str], **headers: str) -> httpx.Response:
            return await http.post(f"{INGEST}/o/{name}", headers={**key, **headers})

        first = await submit("a", with_key(ada), **{"Idempotency-Key": "once"})
        assert first.status_code == 200
        assert (await submit("a", with_key(ada_too))).json()["deduplicated"]
        assert (await submit("b", with_key(ada_too))).status_code == 200
        refused = await submit("c", with_key(ada))
        while refused.status_code == 200:  # a lease of one was taken on credit
            refused = await submit(f"c{refused.json()['job_id']}", with_key(ada))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert int(refused.headers["Retry-After"]) > 3600
        again = await submit("a", with_key(ada), **{"Idempotency-Key": "once"})
        assert again.json() == first.json()
        assert (await submit("d", with_key(bob))).status_code == 200
        assert (await submit("e", BEARER)).status_code == 200


async def test_a_full_disk_refuses_jobs_with_a_sentence_and_nothing_else(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, disk_free_min_mb=100_000_000) as http:
        refused = await http.post(f"{INGEST}/o/r", headers=BEARER)
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_nearly_full")
        assert "MiB are free and 100000000 must be" in refused.json()["detail"]
        assert (await http.get(TENANT_READ, headers=BEARER)).status_code == 200
        assert (await http.post(f"{INGEST}/o/r")).status_code == 401


async def test_a_ticket_opens_a_stream_and_nothing_else(http: httpx.AsyncClient) -> None:
    issued = await issue(http)
    ticket = (await http.post("/api/v1/events/ticket", headers=with_key(issued))).json()
    assert ticket["expires_in_seconds"] == 60
    async with http.stream("GET", "/api/v1/events", params={"ticket": ticket["ticket"]}) as stream:
        assert stream.status_code == 200
        assert "connected" in await anext(stream.aiter_lines())
    for path, text, status in (
        ("/api/v1/events", ticket["ticket"] + "x", 401),
        (TENANT_READ, ticket["ticket"], 401),
    ):
        assert (await http.get(path, params={"ticket": text})).status_code == status


async def audited(http: httpx.AsyncClient, count: int, **headers: str) -> list[dict[str, Any]]:
    """The trail, oldest first, as soon as it has *count* events."""
    found: list[dict[str, Any]] = []

    async def enough() -> bool:
        answer = await http.get("/api/v1/audit?limit=100", headers={**BEARER, **headers})
        assert answer.status_code == 200
        found[:] = reversed(answer.json()["events"])
        return len(found) >= count

    await until(enough)
    return found


async def test_who_did_what_to_what_from_where_is_kept_and_no_secret_with_it(
    http: httpx.AsyncClient,
) -> None:
    ada = await issue(http)
    viewer = await issue(http, user="eve", role="viewer")
    await http.post(f"{INGEST}/o/r", headers=with_key(ada))
    await http.post(f"{INGEST}/o/r", headers=with_key(viewer))
    await http.post("/api/v1/ingestion/ingest/https://user:canary@github.com/o/r", headers=with_key(ada))
    await http.post("/api/v1/jobs/canary/cancel", headers=with_key(ada))
    await http.get(TENANT_READ, headers=with_key(ada))
    await http.post("/api/v1/search", json={"query": "x"}, headers=with_key(ada))
    await http.post(f"{INGEST}/o/r", headers={"x-api-key": "canary"})
    await http.post(f"{KEYS}/{ada['id']}/disable", headers=BEARER)
    events = await audited(http, 7)
    told = [(event["user"], event["action"], event["target"], event["status"]) for event in events]
    assert told == [
        ("admin", "create_key", ada["id"], 201),
        ("admin", "create_key", viewer["id"], 201),
        ("ada", "ingest", "git.test:9418/o/r", 200),
        ("eve", "ingest", None, 403),
        ("ada", "ingest", None, 400),
        ("ada", "control_job", None, 404),
        ("admin", "disable_key", ada["id"], 200),
    ]
    assert {event["client"] for event in events} == {"127.0.0.1"}
    assert events[2]["credential"] == f"key:{ada['id']}"
    assert (events[2]["tenant"], events[2]["role"]) == ("acme", "editor")
    everything = str(events)
    assert "canary" not in everything
    assert secret_of(ada) not in everything
    assert {event["tenant"] for event in await audited(http, 4, **{"x-tenant": "acme"})} == {"acme"}
    page = (await http.get("/api/v1/audit?limit=2&action=ingest", headers=BEARER)).json()
    assert [event["user"] for event in page["events"]] == ["ada", "eve"]
    rest = await http.get(f"/api/v1/audit?action=ingest&before={page['cursor']}", headers=BEARER)
    assert ([event["user"] for event in rest.json()["events"]], rest.json()["cursor"]) == (["ada"], None)


async def test_an_orderly_stop_loses_nothing_of_the_trail(bus: Bus, nats_server: NatsServer) -> None:
    async with gateway(nats_server) as http:
        await asyncio.gather(*(http.post("/api/v1/jobs/1/pause", headers=BEARER) for _ in range(50)))
    info = await bus.api(f"STREAM.INFO.{AUDIT}")
    assert info["state"]["messages"] == 50


async def test_the_trail_waits_for_the_bus_in_order_and_says_what_it_could_not_keep(
    bus: Bus, nats_server: NatsServer
) -> None:
    example = next(each for each in examples() if isinstance(each, Audited))
    trail = Trail(bus, kept_max=5)
    nats_server.kill()
    await until(lambda: _is(not bus.connected))
    running = asyncio.create_task(trail.run())
    for number in range(8):
        trail.note(Audited(**{**_fields(example), "event_id": f"e{number}", "target": str(number)}))
    nats_server.start()

    async def stored() -> bool:
        if not bus.connected:
            return False
        return bool((await bus.api(f"STREAM.INFO.{AUDIT}"))["state"]["messages"] == 5)

    try:
        await until(stored)
    finally:
        running.cancel()
    found = [await bus.first(AUDIT, "audit.>", sequence) for sequence in range(1, 6)]
    assert [
        b'"target":"%d"' % number in each.data
        for number, each in zip(range(3, 8), found, strict=True)
        if each
    ]
    assert found[0] is not None
    assert b'"lost":3' in found[0].data


def _fields(event: Audited) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


async def test_the_secrets_of_all_connections_are_sealed_under_the_newest_key(
    bus: Bus, nats_server: NatsServer
) -> None:
    old, new = "o" * 32, "n" * 32
    bucket = Bucket(bus, KV_CONNECTIONS, Connection)

    async def put(connection_id: str, sealer: Sealer | None) -> None:
        here = {"tenant": "acme", "connection_id": connection_id}
        await bucket.put(
            f"acme.{connection_id}",
            Connection(
                **here,
                user="ada",
                source_type=SourceType.S3,
                sealed=None if sealer is None else sealer.seal(b"canary", **here),
                created_at=now(),
            ),
        )

    await put("a", Sealer((old,)))
    await put("b", Sealer((new,)))
    await put("c", None)
    command = [sys.executable, "-m", "pharos_gateway.rotate_secrets"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")}
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env={**environ, "PHAROS_NATS_URL": nats_server.url, "PHAROS_SECRET_KEY": f"{new},{old}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0
    assert "canary" not in done.stderr
    assert done.stdout == "1 sealed under the newest key, 1 were already.\n"
    for connection_id in ("a", "b"):
        entry = await bucket.get(f"acme.{connection_id}")
        assert entry is not None and entry.value.sealed is not None
        opened = Sealer((new,)).open(entry.value.sealed, tenant="acme", connection_id=connection_id)
        assert opened == b"canary"
    await put("d", Sealer(("x" * 32,)))
    again = await rotate(bus, Sealer((new, old)))
    assert (again.anew, again.already, again.unopenable) == (0, 2, ("acme.d",))
