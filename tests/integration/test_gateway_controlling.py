"""Pausing, resuming, cancelling and retrying over HTTP, and where a job stands; against a real bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from faststream.nats import NatsBroker

from pharos_contracts import rpc
from pharos_contracts.control.v1 import Action, AnyCommand, ControlJob, Controlled, Place
from pharos_contracts.history.v1 import FindJob, JobPage, JobView, ListJobs
from pharos_contracts.jobs.v1 import Priority, Trigger
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_contracts.streams import CONTROL, SCHEDULER_CONTROL
from pharos_gateway.app import serving
from pharos_gateway.commanding import Commands, SchedulerSilent
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from tests.support.gateway import (
    BEARER,
    History,
    Scheduler,
    client,
    job,
    leading,
    now,
    settings,
    until_ready,
)
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

HOSTS = "http://git.test:9418"
INGEST = "/api/v1/ingestion/ingest/http://git.test:9418"
START_AT = datetime(2026, 1, 20, 10, 31, tzinfo=UTC)
NOT_FOUND = {"detail": "There is no such job", "code": "not_found"}


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(settings(nats_server.url, git_allowed_hosts=HOSTS)) as running,
        client(running.address, **BEARER) as connected,
    ):
        await until_ready(connected)
        yield connected


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    async with leading(bus) as found:
        yield found


@pytest.fixture
async def empty_history(nats_server: NatsServer) -> AsyncIterator[None]:
    """A history that knows nothing."""

    async def nothing(question: ListJobs | FindJob) -> Message:
        return JobPage(jobs=())

    broker = NatsBroker(nats_server.url)
    answer(broker, rpc.HISTORY, ListJobs | FindJob, nothing)
    async with broker:
        await broker.start()
        yield


def path(number: int, action: str) -> str:
    return f"/api/v1/jobs/{job(number).job_id}/{action}"


async def test_each_action_is_answered_with_the_job_as_it_left_it(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    history = History(bus)
    await history.tell(job(7), JobState.QUEUED)
    paused = await http.post(path(7, "pause"))
    assert paused.status_code == 200
    assert paused.json()["state"] == "paused"
    assert paused.json()["controlled_by"] == "admin"
    assert paused.json()["paused_at"] is not None
    assert paused.json() == (await http.get(f"/api/v1/jobs/{job(7).job_id}")).json()
    resumed = (await http.post(path(7, "resume"))).json()
    assert (resumed["state"], resumed["paused_at"]) == ("queued", None)
    assert (await http.post("/api/v1/jobs/7/cancel")).json()["state"] == "cancelled"
    assert (await http.post(path(7, "retry"))).json()["state"] == "retrying"
    assert [(each.job_id, each.action, each.tenant, each.by) for each in _jobs(scheduler.commands)] == [
        (job(7).job_id, action, "default", "admin")
        for action in (Action.PAUSE, Action.RESUME, Action.CANCEL, Action.RETRY)
    ]


def _jobs(commands: list[AnyCommand]) -> list[ControlJob]:
    return [command for command in commands if isinstance(command, ControlJob)]


async def test_an_action_that_does_not_apply_is_refused_to_the_letter(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    await History(bus).tell(job(7), JobState.COMPLETED)
    refused = await http.post(path(7, "pause"))
    assert refused.status_code == 409
    assert refused.json() == {
        "detail": "Cannot pause a completed job",
        "code": "invalid_transition",
        "status": "completed",
    }
    scheduler.decide = lambda command, sequence: Refused(
        code="already_active", detail="Job 9 indexes the same repository already", status=409
    )
    other = await http.post(path(7, "retry"))
    assert (other.status_code, other.json()["code"]) == (409, "already_active")
    scheduler.decide = lambda command, sequence: Refused(
        code="not_found", detail="There is no such job", status=404
    )
    gone = await http.post(path(7, "retry"))
    assert (gone.status_code, gone.json()) == (404, NOT_FOUND)


async def test_a_refusal_names_the_state_that_was_refused_although_the_job_has_moved_on(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    await History(bus).tell(job(7), JobState.COMPLETED)
    scheduler.decide = lambda command, sequence: Refused(
        code="invalid_transition", detail="Cannot cancel a committing job", status=409
    )
    assert (await http.post(path(7, "cancel"))).json()["status"] == "committing"


async def test_another_tenants_job_cannot_be_controlled_and_is_as_unknown_as_any(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler, empty_history: None
) -> None:
    await History(bus).tell(job(7), JobState.QUEUED)
    other = {"x-tenant": "acme", "x-role": "editor"}
    for identifier in (job(7).job_id, "7", job(99).job_id, "99", "no-such-thing", "0"):
        response = await http.post(f"/api/v1/jobs/{identifier}/cancel", headers=other)
        assert (response.status_code, response.json()) == (404, NOT_FOUND), identifier
    assert scheduler.commands == []
    assert (await http.post(path(7, "cancel"), headers={"x-role": "editor"})).status_code == 200


async def test_a_viewer_may_not_control_and_an_unknown_action_names_those_there_are(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    await History(bus).tell(job(7), JobState.QUEUED)
    assert (await http.post(path(7, "pause"), headers={"x-role": "viewer"})).status_code == 403
    refused = await http.post(path(7, "stop"))
    assert refused.status_code == 400
    assert refused.json() == {
        "detail": "Unknown action 'stop'; the actions are start, pause, resume, cancel, retry",
        "code": "unknown_action",
    }
    assert scheduler.commands == []


async def test_a_job_that_only_the_queue_knows_can_be_controlled(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    submitted = (await http.post(f"{INGEST}/user/repo1")).json()
    scheduler.decide = lambda command, sequence: Controlled(job=job(1, JobState.CANCELLED))
    answered = await http.post(f"/api/v1/jobs/{submitted['id']}/cancel")
    assert (answered.status_code, answered.json()["state"]) == (200, "cancelled")
    assert [each.job_id for each in _jobs(scheduler.commands)] == [submitted["id"]]


async def test_many_who_ask_at_once_each_hear_their_own_answer_at_one_inbox(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    history = History(bus)
    for number in range(1, 21):
        await history.tell(job(number), JobState.QUEUED)
    answers = await asyncio.gather(*(http.post(path(number, "cancel")) for number in range(1, 21)))
    assert [each.json()["number"] for each in answers] == list(range(1, 21))
    assert len({command.reply_to for command in scheduler.commands}) == 20
    assert len({command.reply_to.rpartition(".")[0] for command in scheduler.commands}) == 1


async def test_without_a_bus_a_command_is_refused_within_two_seconds(
    bus: Bus, http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    await History(bus).tell(job(7), JobState.QUEUED)
    nats_server.freeze()
    try:
        started = time.monotonic()
        frozen = await http.post(path(7, "pause"))
        assert (frozen.status_code, time.monotonic() - started < 2) == (503, True)
    finally:
        nats_server.thaw()
    await asyncio.to_thread(nats_server.kill)
    started = time.monotonic()
    gone = await http.post(path(7, "pause"))
    assert (gone.status_code, time.monotonic() - started < 2) == (503, True)
    assert set(gone.json()) == {"detail", "code"}


async def test_answers_are_heard_after_the_bus_was_restarted(
    bus: Bus, http: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    async with leading(bus):
        await History(bus).tell(job(7), JobState.QUEUED)
        assert (await http.post(path(7, "pause"))).status_code == 200
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    await until_ready(http)
    async with asyncio.timeout(10):
        while not bus.connected:
            await asyncio.sleep(0.02)
    async with leading(bus), asyncio.timeout(20):
        # The crash may have forgotten an acknowledgement: what it acknowledged comes once more.
        while (await bus.api(f"CONSUMER.INFO.{CONTROL}.{SCHEDULER_CONTROL}"))["num_ack_pending"]:
            await asyncio.sleep(0.02)
        started = time.monotonic()
        assert (await http.post(path(7, "resume"))).json()["state"] == "queued"
        # Sooner than the first look at the job itself: the answer was heard.
        assert time.monotonic() - started < 0.9


async def test_a_command_without_a_scheduler_is_stored_and_carried_out_later(
    bus: Bus, http: httpx.AsyncClient
) -> None:
    await History(bus).tell(job(7), JobState.QUEUED)
    started = time.monotonic()
    silent = await http.post(path(7, "cancel"))
    assert 7.5 < time.monotonic() - started < 9
    assert silent.status_code == 503
    assert silent.json() == {
        "detail": "No scheduler has answered yet; the command is stored and will be carried out",
        "code": "scheduler_silent",
    }
    async with leading(bus), asyncio.timeout(10):
        while (await http.get(f"/api/v1/jobs/{job(7).job_id}")).json()["state"] != "cancelled":
            await asyncio.sleep(0.02)


async def test_an_answer_that_got_lost_is_seen_in_the_job(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    await History(bus).tell(job(7), JobState.QUEUED)
    scheduler.deaf = True
    started = time.monotonic()
    answered = await http.post(path(7, "pause"))
    assert (answered.status_code, answered.json()["state"]) == (200, "paused")
    assert time.monotonic() - started < 3


async def test_an_answer_that_cannot_be_read_is_none(bus: Bus) -> None:
    def command_to(reply_to: str) -> ControlJob:
        return ControlJob(
            tenant=None, by="admin", at=now(), reply_to=reply_to, job_id=job(7).job_id, action=Action.PAUSE
        )

    async with leading(bus, lambda command, sequence: Place(position=1, waiting=1)):
        with pytest.raises(SchedulerSilent):
            await Commands(bus, answer_seconds=0.3).send(command_to)


async def test_a_queued_job_says_where_it_stands_by_the_word_of_the_scheduler(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    scheduler.place = Place(position=3, waiting=5, estimated_start_at=START_AT)
    waiting = job(7, priority=Priority.LOW, trigger=Trigger.SCHEDULED)
    await History(bus).tell(waiting, JobState.QUEUED)
    shown = (await http.get(f"/api/v1/jobs/{waiting.job_id}")).json()
    assert (shown["queue_position"], shown["estimated_start_at"]) == (3, "2026-01-20T10:31:00Z")
    assert shown["trigger"] == "scheduled"
    assert [each.job_id for each in scheduler.asked] == [waiting.job_id]
    scheduler.asked.clear()
    await History(bus).tell(waiting, JobState.RUNNING, attempt=1)
    shown = (await http.get(f"/api/v1/jobs/{waiting.job_id}")).json()
    assert (shown["queue_position"], shown["estimated_start_at"]) == (None, None)
    assert scheduler.asked == []


async def test_the_list_of_jobs_asks_for_no_place(
    bus: Bus, http: httpx.AsyncClient, scheduler: Scheduler, nats_server: NatsServer
) -> None:
    async def queued(question: ListJobs | FindJob) -> Message:
        views = (JobView(job=job(number), sequence=1, changed_at=now()) for number in range(1, 21))
        return JobPage(jobs=tuple(views))

    broker = NatsBroker(nats_server.url)
    answer(broker, rpc.HISTORY, ListJobs | FindJob, queued)
    async with broker:
        await broker.start()
        jobs = (await http.get("/api/v1/jobs")).json()["jobs"]
    assert len(jobs) == 20
    assert {each["queue_position"] for each in jobs} == {None}
    assert scheduler.asked == []


async def test_without_a_scheduler_nobody_knows_where_a_job_stands(bus: Bus, http: httpx.AsyncClient) -> None:
    await History(bus).tell(job(7), JobState.QUEUED)
    shown = (await http.get(f"/api/v1/jobs/{job(7).job_id}")).json()
    assert (shown["queue_position"], shown["estimated_start_at"]) == (None, None)
    submitted = (await http.post(f"{INGEST}/user/repo1")).json()
    assert submitted["queue_position"] == 1


async def test_a_submit_is_told_its_place_by_the_scheduler_and_falls_back_to_the_queue(
    http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    scheduler.place = Place(position=4, waiting=4)  # three that were resumed wait outside the queue
    first = (await http.post(f"{INGEST}/user/repo1?priority=low")).json()
    assert (first["queue_position"], first["queue_size"]) == (4, 1)
    assert scheduler.asked[-1].job_id == first["id"]
    assert scheduler.asked[-1].priority is Priority.LOW
    again = (await http.post(f"{INGEST}/user/repo1")).json()
    assert (again["deduplicated"], again["queue_position"]) == (True, 4)
    scheduler.place = Place(position=0, waiting=0)  # handed out already
    assert (await http.post(f"{INGEST}/user/repo2")).json()["queue_position"] == 1
    scheduler.place = None
    third = (await http.post(f"{INGEST}/user/repo3")).json()
    assert (third["queue_position"], third["queue_size"]) == (3, 3)


async def test_a_frozen_scheduler_does_not_slow_submits_down(
    http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    scheduler.place = None
    await http.post(f"{INGEST}/user/repo0")  # waits for the scheduler, once
    asked = len(scheduler.asked)
    for n in range(1, 6):
        assert (await http.post(f"{INGEST}/user/repo{n}")).status_code == 200
    assert len(scheduler.asked) <= asked + 1
