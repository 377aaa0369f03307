"""From a push at GitHub to one job for the newest commit, against a real bus."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import Push
from pharos_contracts.jobs.v1 import Priority, SubmitJob, Trigger
from pharos_contracts.message import decode
from pharos_contracts.subjects import push_due
from pharos_contracts.watches.v1 import Watch
from pharos_gateway import pushing
from pharos_gateway.app import serving
from pharos_gateway.rotate_secrets import rotate
from pharos_scheduler.job_store import BusJobStore
from pharos_scheduler.push_store import BusPushes
from pharos_scheduler.pushes import HeldPushes, Pushes, newest
from pharos_scheduler.schedule_store import BusSubmissions
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError
from pharos_service.lease import LeaseLost
from pharos_service.settings import Secret
from pharos_sources.sealing import Sealer
from tests.support.gateway import BEARER, client, now, settings, until_ready
from tests.support.keys import issue, with_key
from tests.support.nats_server import NatsServer
from tests.support.scheduling import command, leading, messages_in, submit

pytestmark = pytest.mark.anyio

KEY = "k" * 32
WEBHOOKS = "/api/v1/webhooks"
GITHUB = "/webhooks/github"
REPOSITORY = "http://git.test:9418/o/r"
UNKNOWN = {
    "detail": "Nobody here watches this repository with a secret that makes this signature",
    "code": "unknown_signature",
}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy with other tests a push may take longer than what GitHub is kept waiting."""
    monkeypatch.setattr(pushing, "RECEIVE_SECONDS", 20.0)


def sha(number: int) -> str:
    return f"{number:040x}"


def body(number: int = 1, **facts: Any) -> bytes:
    """The push that brings the branch from commit *number* - 1 to *number*."""
    repository = {"clone_url": f"{REPOSITORY}.git", "default_branch": "main", "pushed_at": now().isoformat()}
    return json.dumps(
        {
            "ref": "refs/heads/main",
            "before": sha(number - 1),
            "after": sha(number),
            "repository": repository,
            **facts,
        }
    ).encode()


async def deliver(
    http: httpx.AsyncClient, secret: str, content: bytes, *, event: str = "push", **headers: str
) -> httpx.Response:
    signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    return await http.post(
        GITHUB,
        content=content,
        headers={
            "content-type": "application/json",
            "x-github-event": event,
            "x-github-delivery": "d1",
            "x-hub-signature-256": f"sha256={signature}",
            **headers,
        },
    )


@asynccontextmanager
async def gateway(nats_server: NatsServer, **others: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = settings(
        nats_server.url,
        **{"git_allowed_hosts": "http://git.test:9418", "secret_key": Secret(KEY), **others},
    )
    async with serving(chosen) as running, client(running.address) as http:
        await until_ready(http)
        yield http


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(nats_server) as found:
        yield found


async def watch(http: httpx.AsyncClient, headers: dict[str, str] = BEARER, **wanted: Any) -> dict[str, Any]:
    answer = await http.post(WEBHOOKS, json={"repo_url": REPOSITORY, **wanted}, headers=headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def queued(bus: Bus) -> list[SubmitJob]:
    found: list[SubmitJob] = []
    sequence = 1
    while (stored := await bus.first(streams.Q, "cmd.>", sequence)) is not None:
        found.append(decode(stored.data, SubmitJob))
        sequence = stored.sequence + 1
    return found


async def pushes_at_rest(bus: Bus, jobs: int = 1) -> list[SubmitJob]:
    """What is queued, as soon as it is *jobs* or more and nothing is on its way any more."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(BusError):  # a test may have ended it
                found = await queued(bus)
                held = await messages_in(bus, streams.SCHED)
                info = await bus.api(f"CONSUMER.INFO.{streams.CONTROL}.{streams.SCHEDULER_CONTROL}")
                taken = info["num_pending"] == 0 and info["num_ack_pending"] == 0
                if len(found) >= jobs and held == 0 and taken:
                    return found
            await asyncio.sleep(0.05)


async def test_ten_pushes_in_a_second_are_one_job_for_the_newest_commit(
    http: httpx.AsyncClient, bus: Bus, nats_server: NatsServer
) -> None:
    made = await watch(http, dataset="atlas-core", priority="high")
    async with gateway(nats_server) as other, leading(bus, webhook_debounce_seconds=1):
        order = [3, 1, 10, 2, 5, 4, 7, 6, 9, 8]  # they overtake each other on their way
        answers = [await deliver((http, other)[number % 2], made["secret"], body(number)) for number in order]
        (job,) = await pushes_at_rest(bus)
    assert {answer.status_code for answer in answers} == {202}
    assert (job.source.sha, job.source.branch) == (sha(10), "main")
    assert job.job_id == answers[2].json()["job_id"]
    assert (job.trigger, job.dataset, job.priority) == (Trigger.WEBHOOK, "atlas-core", Priority.HIGH)
    assert job.submitted_by == f"webhook:{made['id']}"


async def test_pushes_to_two_branches_are_two_jobs(http: httpx.AsyncClient, bus: Bus) -> None:
    made = await watch(http, branches=["main", "release/*"])
    async with leading(bus, webhook_debounce_seconds=0.2):
        for number, branch in enumerate(("main", "release/1", "other"), 1):
            answer = await deliver(http, made["secret"], body(number, ref=f"refs/heads/{branch}"))
            assert answer.json()["status"] == ("ignored" if branch == "other" else "accepted")
        jobs = await pushes_at_rest(bus, 2)
    assert {job.source.branch for job in jobs} == {"main", "release/1"}


async def test_a_push_that_is_sent_again_is_taken_once_under_whatever_headers(
    http: httpx.AsyncClient, bus: Bus
) -> None:
    made = await watch(http)
    content = body()
    async with leading(bus, webhook_debounce_seconds=0):
        first = await deliver(http, made["secret"], content)
        await pushes_at_rest(bus)
        again = await deliver(http, made["secret"], content, **{"x-github-delivery": "d2"})
        assert again.status_code == 202
        assert again.json()["status"] == "ignored"
        assert again.json()["job_id"] == first.json()["job_id"]
        # Beyond the bucket, the stream and the id of the job know it too.
        await bus.api(f"STREAM.PURGE.KV_{streams.KV_IDEMPOTENCY}")
        await deliver(http, made["secret"], content)
        assert len(await pushes_at_rest(bus)) == 1
    assert await messages_in(bus, streams.CONTROL) == 1
    old = body(2, repository={**json.loads(content)["repository"], "pushed_at": "2020-01-01T00:00:00Z"})
    assert "too old" in (await deliver(http, made["secret"], old)).json()["detail"]


async def test_a_push_outlives_the_scheduler_that_held_it(http: httpx.AsyncClient, bus: Bus) -> None:
    made = await watch(http)
    async with leading(bus, webhook_debounce_seconds=1.5):
        await deliver(http, made["secret"], body())
        async with asyncio.timeout(10):
            while await messages_in(bus, streams.SCHED, "sched.push.>") == 0:
                await asyncio.sleep(0.02)
    assert await queued(bus) == []
    async with leading(bus, term=2, webhook_debounce_seconds=1.5):
        (job,) = await pushes_at_rest(bus)
    assert job.source.sha == sha(1)


async def test_github_is_answered_at_once_although_no_scheduler_lives_and_nothing_is_lost(
    http: httpx.AsyncClient, bus: Bus, nats_server: NatsServer
) -> None:
    made = await watch(http)
    begun = asyncio.get_running_loop().time()
    for number in (1, 2):
        assert (await deliver(http, made["secret"], body(number))).status_code == 202
    assert asyncio.get_running_loop().time() - begun < 1
    nats_server.kill()
    nats_server.start()
    async with leading(bus, webhook_debounce_seconds=0.3):
        (job,) = await pushes_at_rest(bus)
    assert job.source.sha == sha(2)


async def test_what_is_not_signed_is_refused_without_a_word_about_what_is_watched(
    http: httpx.AsyncClient, bus: Bus
) -> None:
    made = await watch(http)
    removed = await watch(http)
    assert (await http.delete(f"{WEBHOOKS}/{removed['id']}", headers=BEARER)).status_code == 204
    elsewhere = {"clone_url": "http://git.test:9418/o/nowhere", "default_branch": "main"}
    hidden = {"clone_url": "http://127.0.0.1/o/r"}
    refused = [
        await deliver(http, "wrong", body()),
        await deliver(http, "wrong", body(), event="ping"),
        await deliver(http, removed["secret"], body()),
        await deliver(http, made["secret"], body(repository=elsewhere)),
        await deliver(http, made["secret"], body(repository=hidden)),
        await deliver(http, made["secret"], b"?"),
        await deliver(http, made["secret"], body(), **{"x-hub-signature-256": ""}),
        await http.post(GITHUB),
        await http.post(GITHUB, content=body(), headers=BEARER),
    ]
    assert {answer.status_code for answer in refused} == {401}
    assert all(answer.json() == UNKNOWN for answer in refused)
    assert await messages_in(bus, streams.CONTROL) == 0


async def test_guessing_is_slowed_and_what_is_signed_is_taken_all_the_same(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server, rate_limit_guesses_per_minute=3) as http:
        made = await watch(http)
        statuses = [(await deliver(http, "wrong", body())).status_code for _ in range(6)]
        assert statuses == [401, 401, 401, 429, 429, 429]
        assert (await deliver(http, made["secret"], body())).status_code == 202


async def test_a_ping_is_welcome_and_other_events_are_ignored(http: httpx.AsyncClient, bus: Bus) -> None:
    made = await watch(http)
    repository = {"clone_url": REPOSITORY}
    ping = json.dumps({"zen": "Keep it logically awesome.", "repository": repository}).encode()
    assert (await deliver(http, made["secret"], ping, event="ping")).json()["status"] == "pong"
    answers = [
        await deliver(http, made["secret"], ping, event="issues"),
        await deliver(http, made["secret"], body(ref="refs/tags/v1")),
        await deliver(http, made["secret"], body(deleted=True, after="0" * 40)),
    ]
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(202, "ignored")}
    assert (await deliver(http, made["secret"], ping)).status_code == 400  # a push without a commit
    assert await messages_in(bus, streams.CONTROL) == 0


async def test_a_body_beyond_a_mebibyte_is_refused(http: httpx.AsyncClient) -> None:
    made = await watch(http)
    answer = await deliver(http, made["secret"], body(commits=["x" * 1024] * 1024))
    assert answer.status_code == 413


async def test_without_the_bus_github_is_told_to_send_again(bus: Bus, nats_server: NatsServer) -> None:
    async with gateway(nats_server) as http:
        made = await watch(http)
        nats_server.kill()
        begun = asyncio.get_running_loop().time()
        assert (await deliver(http, made["secret"], body())).status_code == 503
        assert asyncio.get_running_loop().time() - begun < 2
        nats_server.start()
        await until_ready(http)
        assert (await deliver(http, made["secret"], body())).json()["status"] == "accepted"


async def test_pushes_count_as_jobs_of_the_day_of_whoever_watches(bus: Bus, nats_server: NatsServer) -> None:
    async with gateway(nats_server, rate_limit_jobs_per_day=2) as http:
        made = await watch(http, headers=with_key(await issue(http)))
        content = body(1)
        for each in (content, content, body(2)):  # one that is sent again is not counted again
            assert (await deliver(http, made["secret"], each)).status_code == 202
        refused = await deliver(http, made["secret"], body(3))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert int(refused.headers["Retry-After"]) > 0


async def test_a_full_disk_takes_no_push(bus: Bus, nats_server: NatsServer) -> None:
    async with gateway(nats_server, disk_free_min_mb=100_000_000) as http:
        made = await watch(http)
        assert (await deliver(http, made["secret"], body())).status_code == 507


async def test_a_secret_is_shown_once_and_kept_sealed(http: httpx.AsyncClient, bus: Bus) -> None:
    with capture_logs() as logs:
        made = await watch(http, branches=["main", "main"])
        content = body(head_commit={"message": "a-canary-in-the-body"})
        await deliver(http, made["secret"], content)
        await deliver(http, "wrong", content)
    assert made["branches"] == ["main"]
    assert made["path"] == GITHUB
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert (await http.get(WEBHOOKS, headers=BEARER)).json() == {"webhooks": [shown], "truncated": False}
    assert (await http.get(f"{WEBHOOKS}/{made['id']}", headers=BEARER)).json() == shown
    for stream in (f"KV_{streams.KV_WATCHES}", streams.CONTROL, f"KV_{streams.KV_IDEMPOTENCY}"):
        info = await bus.api(f"STREAM.INFO.{stream}")
        for sequence in range(1, info["state"]["last_seq"] + 1):
            stored = await bus.first(stream, ">", sequence)
            assert stored is not None
            assert made["secret"].encode() not in stored.data
            assert b"canary" not in stored.data
    assert made["secret"] not in str(logs)
    assert "canary" not in str(logs)


async def test_a_webhook_goes_on_when_the_secrets_are_sealed_anew(bus: Bus, nats_server: NatsServer) -> None:
    new = "n" * 32
    async with gateway(nats_server) as http:
        made = await watch(http)
    assert (await rotate(bus, Sealer((new, KEY)))).anew == 1
    async with gateway(nats_server, secret_key=Secret(new)) as http:
        assert (await deliver(http, made["secret"], body())).status_code == 202
    async with gateway(nats_server, secret_key=Secret("x" * 32)) as http:
        assert (await deliver(http, made["secret"], body(2))).status_code == 401


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"repo_url": "http://127.0.0.1/o/r"}, "invalid_repository_url"),
        ({"repo_url": f"{REPOSITORY}/tree/main"}, "invalid_request"),
        ({"repo_url": REPOSITORY, "branches": ["a", "b"], "dataset": "d"}, "invalid_request"),
        ({"repo_url": REPOSITORY, "branches": ["a*"], "dataset": "d"}, "invalid_request"),
        ({"repo_url": REPOSITORY, "branches": [""]}, "invalid_request"),
        ({"repo_url": REPOSITORY, "branches": ["a\n"]}, "invalid_request"),
        ({"repo_url": REPOSITORY, "dataset": "d\n"}, "invalid_request"),
        ({"repo_url": REPOSITORY, "branches": ["a"] * 21}, "invalid_request"),
        ({"repo_url": REPOSITORY, "project": "a.b"}, "invalid_request"),
        ({"repo_url": REPOSITORY, "secret": "mine"}, "invalid_request"),
    ],
)
async def test_a_webhook_that_makes_no_sense_is_refused(
    http: httpx.AsyncClient, wanted: dict[str, Any], code: str
) -> None:
    answer = await http.post(WEBHOOKS, json=wanted, headers=BEARER)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_repository_has_so_many_webhooks_of_one_tenant(http: httpx.AsyncClient) -> None:
    for _ in range(10):
        await watch(http)
    refused = await http.post(WEBHOOKS, json={"repo_url": REPOSITORY}, headers=BEARER)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_webhooks")
    await watch(http, headers=with_key(await issue(http)))  # of another tenant


async def test_without_a_key_to_seal_with_there_are_no_webhooks(bus: Bus, nats_server: NatsServer) -> None:
    async with gateway(nats_server, secret_key=Secret("")) as http:
        refused = await http.post(WEBHOOKS, json={"repo_url": REPOSITORY}, headers=BEARER)
        assert (refused.status_code, refused.json()["code"]) == (400, "webhooks_disabled")
        assert (await deliver(http, "wrong", body())).status_code == 401


# --- waiting outside the queue -----------------------------------------------------------------------------


def may_write() -> None:
    """The check of a leader that leads."""


async def a_push(http: httpx.AsyncClient, bus: Bus) -> Push:
    made = await watch(http)
    await deliver(http, made["secret"], body())
    stored = await bus.last(streams.CONTROL, "cmd.control.*.push")
    assert stored is not None
    return decode(stored.data, Push)


def leader(bus: Bus, **facts: Any) -> tuple[Pushes, BusPushes]:
    store = BusPushes(bus, may_write)
    wiring: dict[str, Any] = {"now": now, "rest_seconds": 5, **facts}
    submissions = BusSubmissions(
        bus, BusJobStore(bus, now, may_write), now=now, check=may_write, tenant_queue_max=None
    )
    return Pushes(store, submissions, **wiring), store


async def test_a_push_waits_outside_a_queue_without_room_and_enters_when_there_is(
    http: httpx.AsyncClient, bus: Bus
) -> None:
    push = await a_push(http, bus)
    pushes, store = leader(bus)
    for number in range(9):
        await submit(bus, command(number))
    await pushes.arrive(push)
    await pushes.arrive(push)
    due = push_due(push)
    held = await store.held(due)
    assert held is not None and held.pushes is not None
    assert held.pushes.pushes == (push,)
    await bus.api(f"STREAM.PURGE.{streams.SCHED}")  # as the server takes it away when it sends it
    await pushes.due(due, held.pushes)
    assert len(await queued(bus)) == 9
    waits = await store.held(due)
    assert waits is not None and waits.pushes == held.pushes
    await bus.api(f"STREAM.PURGE.{streams.Q}")
    await bus.api(f"STREAM.PURGE.{streams.SCHED}")
    await pushes.due(due, held.pushes)
    await pushes.due(due, held.pushes)
    assert [each.job_id for each in await queued(bus)] == [push.job.job_id]
    assert await store.held(due) is None


async def test_a_push_that_has_waited_for_too_long_is_given_up(http: httpx.AsyncClient, bus: Bus) -> None:
    push = await a_push(http, bus)
    pushes, store = leader(bus, now=lambda: now() + timedelta(days=2))
    await pushes.arrive(push)
    held = await store.held(push_due(push))
    assert held is not None and held.pushes is not None
    await bus.api(f"STREAM.PURGE.{streams.SCHED}")
    await pushes.due(push_due(push), held.pushes)
    assert await queued(bus) == []
    assert await store.held(push_due(push)) is None


async def test_pushes_that_rest_join_one_that_came_meanwhile(http: httpx.AsyncClient, bus: Bus) -> None:
    first = await a_push(http, bus)
    then = replace(
        first,
        before=sha(1),
        job=replace(first.job, job_id="then", source=replace(first.job.source, sha=sha(2))),
    )
    pushes, store = leader(bus)
    due = push_due(first)
    await pushes.arrive(first)
    rested = await store.held(due)
    assert rested is not None and rested.pushes is not None
    await bus.api(f"STREAM.PURGE.{streams.SCHED}")
    await pushes.arrive(then)
    await pushes.due(due, rested.pushes)
    assert await queued(bus) == []
    held = await store.held(due)
    assert held is not None and held.pushes is not None
    assert set(held.pushes.pushes) == {first, then}
    assert held.pushes.since == rested.pushes.since
    assert newest(held.pushes.pushes) == then


async def test_of_two_leaders_that_hold_a_push_one_wins_and_a_late_one_changes_nothing(
    http: httpx.AsyncClient, bus: Bus
) -> None:
    def lost() -> None:
        raise LeaseLost

    push = await a_push(http, bus)
    due, pushes = push_due(push), HeldPushes(pushes=(push,), since=now())
    later = now() + timedelta(days=1)
    assert await BusPushes(bus, may_write).hold(due, pushes, later, 0)
    assert not await BusPushes(bus, may_write).hold(due, pushes, later, 0)
    with pytest.raises(LeaseLost):
        await BusPushes(bus, lost).hold(due, pushes, later, 1)
    assert await messages_in(bus, streams.SCHED) == 1


async def test_what_is_held_and_cannot_be_read_is_replaced(http: httpx.AsyncClient, bus: Bus) -> None:
    push = await a_push(http, bus)
    pushes, store = leader(bus)
    due = push_due(push)
    later = (now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await bus.publish(
        subjects.later_subject(due),
        b"?",
        headers={"Nats-Schedule": f"@at {later}", "Nats-Schedule-Target": subjects.due_subject(due)},
    )
    await pushes.arrive(push)
    held = await store.held(due)
    assert held is not None and held.pushes is not None
    assert held.pushes.pushes == (push,)


async def test_a_watch_of_another_gateway_is_known_within_a_moment(
    http: httpx.AsyncClient, bus: Bus, nats_server: NatsServer
) -> None:
    async with gateway(nats_server) as other:
        made = await watch(http)
        async with asyncio.timeout(5):
            while (await deliver(other, made["secret"], body(), event="ping")).status_code != 202:
                await asyncio.sleep(0.02)
        await http.delete(f"{WEBHOOKS}/{made['id']}", headers=BEARER)
        # What follows from a push is decided by the bucket itself, not by what was heard of it.
        assert (await deliver(other, made["secret"], body())).status_code == 401
    assert await Bucket(bus, streams.KV_WATCHES, Watch).get(f"default.{made['id']}") is None
    tombstone = await bus.last(f"KV_{streams.KV_WATCHES}", f"$KV.{streams.KV_WATCHES}.>")
    assert tombstone is not None
    assert tombstone.headers["Nats-TTL"] == "86400"  # else the bucket would fill with what is gone
