"""A job that is cancelled or paused, or takes too long, stops wherever it is, and leaves what it should."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action
from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import (
    ItemCancelled,
    ItemCompleted,
    ItemFailed,
    ItemSkipped,
    Job,
    Progress,
    Stage,
)
from pharos_contracts.message import decode
from pharos_embedder import stages
from pharos_embedder.ports import Check
from pharos_embedder.worker import WorkerConfig
from pharos_service.bus import Bus
from pharos_service.pull import tail
from tests.support.git_server import GitServer
from tests.support.long_jobs import REPOSITORY, dataset_of, git_processes, record_of, source, until_busy
from tests.support.workers import (
    Machine,
    hand_out,
    names,
    new_job,
    now,
    said,
    stop,
    take_away,
    until,
    until_said,
    until_settled,
    worker_entry,
    working,
)

pytestmark = pytest.mark.anyio

STOP_SECONDS = 2.0
NEVER = (sys.executable, "-c", "import time; time.sleep(60)")


def endless(*arguments: Any, check: Check | None = None, **_: Any) -> Any:
    """A stage that does not end by itself. Its check comes by name, or last."""
    asked = check or arguments[-1]
    while True:
        asked()
        time.sleep(0.01)


async def until_idle(bus: Bus, *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while (found := await worker_entry(bus, "w2")) is None or found.job_ids:
            await asyncio.sleep(0.02)


OF_REPOSITORIES = [stage for stage in Stage if stage not in (Stage.ACCESS, Stage.CHUNK)]


async def until_at(bus: Bus, stage: Stage) -> None:
    async with asyncio.timeout(20):
        while (found := await worker_entry(bus, "w2")) is None or found.stage != stage:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("where", ["connecting", *OF_REPOSITORIES][:-1])
async def test_a_cancelled_job_stops_within_two_seconds_wherever_it_is_and_leaves_nothing(
    where: str, bus: Bus, git: GitServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = {"connecting": "o/silent", Stage.FETCH: "o/slow"}.get(where, "o/r")
    wanted = new_job(git.url(repository))
    already = len(git.requests)
    reached: Callable[[], bool] | None = None
    match where:
        case "connecting":
            reached = lambda: len(git.requests) > already  # noqa: E731
        case Stage.FETCH:
            reached = lambda: len(git.requests) > already + 2  # noqa: E731
        case Stage.DISCOVER:
            monkeypatch.setattr("pharos_embedder.pipeline.discover", endless)
        case Stage.LINK:
            monkeypatch.setattr(stages, "link_files", endless)
        case Stage.TRAIN:
            monkeypatch.setattr(stages, "train", endless)
        case Stage.STORE:
            machine.engine.gate.shut()
            reached = machine.engine.gate.reached.is_set
        case Stage.ENCODE:
            machine.encoder.gate.shut(after=3)
            reached = machine.encoder.gate.reached.is_set
    parse_command = NEVER if where == Stage.PARSE else ()
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, parse_command=parse_command) as running:
        await hand_out(bus, wanted)
        if reached is None:
            await until_at(bus, Stage(where))
        else:
            await until(reached)
        await until_busy(bus, wanted)
        written = machine.engine.writes
        began = time.monotonic()
        await stop(bus, wanted, Action.CANCEL)
        if where in (Stage.STORE, Stage.ENCODE):
            await asyncio.sleep(0.3)  # so that what was under way ends after the stop
            machine.engine.gate.open()
            machine.encoder.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        assert time.monotonic() - began < STOP_SECONDS
        assert git_processes() == []
        assert machine.holds_nothing_of(wanted)
        assert machine.store.contents() == []
        assert machine.cache.count() == 0
        assert await record_of(bus, dataset_of(wanted, git)) is None
        assert isinstance((await said(bus, wanted))[-1], ItemCancelled)
        if where == Stage.STORE:
            assert machine.engine.writes <= written + 1 + 1  # the write under way, and its removal
        assert not running.died

        # The slot is free for the next one.
        late = new_job(git.url("o/r"), submitted_at=now() - timedelta(hours=1))
        await hand_out(bus, late)
        await until_said(bus, late, ItemSkipped)


async def test_a_cancelled_first_index_is_withdrawn_although_it_answered_already(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=3)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        shown = await record_of(bus, dataset_of(job, git))
        assert shown is not None and shown.stage is IndexStage.LEXICAL
        assert machine.store.contents() != []
        await stop(bus, job, Action.CANCEL)
        machine.encoder.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        assert await record_of(bus, dataset_of(job, git)) is None
        assert machine.holds_nothing_of(job)
        assert machine.cache.count() == 0
    assert names(await said(bus, job)) == ["Started", "LexicalReady", "Cancelled"]


async def test_a_cancelled_index_leaves_the_live_one_as_it_was(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    git.add_repository("o/changing", REPOSITORY)
    job = new_job(git.url("o/changing"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until_said(bus, job, ItemCompleted)
        await until_settled(bus)
        before = await record_of(bus, dataset_of(job, git))
        assert before is not None
        held = machine.store.contents()

        changed = {"src/module_0.py": source(100), "src/module_1.py": None}
        git.add_commits("o/changing", [changed])
        again = new_job(job.source.clone_url)
        machine.engine.gate.shut(after=4)  # what is new is stored, what is gone is retired
        await hand_out(bus, again)
        await until(machine.engine.gate.reached.is_set)
        await stop(bus, again, Action.CANCEL)
        machine.engine.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        assert await record_of(bus, dataset_of(job, git)) == before
        assert machine.store.contents() == held
        assert machine.holds_nothing_of(again)


async def test_a_paused_job_goes_on_where_it_stopped_and_nothing_is_encoded_twice(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=5)
    told: list[float] = []

    async def follow() -> None:
        async for each in tail(bus, streams.PROGRESS, ["progress.>"], last_per_subject=True):
            if hasattr(each, "data"):
                progress: Progress = decode(each.data, Progress)
                told.append(progress.percent)

    following = asyncio.create_task(follow())
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        paused = await stop(bus, job, Action.PAUSE)
        await asyncio.sleep(0.3)
        machine.encoder.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        first = list(machine.encoder.given)
        assert len(first) == 12  # six batches of two
        assert machine.cache.count() == len(first)

        resumed = replace(job, facts_after=paused, resuming=True, started_at=now(), attempt=1, dispatch=1)
        await hand_out(bus, resumed, attempt=1, dispatch=2)
        done = await until_said(bus, job, ItemCompleted)
        await until_settled(bus)
    following.cancel()
    given = machine.encoder.given
    assert len(given) == len(set(given))
    assert done.attempt == 1
    encoded = len(given) - done.result.files_processed  # the path of each file is encoded, too
    assert done.result.chunks == encoded
    assert done.result.chunks_encoded == encoded - len(first)
    assert names(await said(bus, job)) == [
        "Started",
        "LexicalReady",
        "Paused",
        "Started",
        "LexicalReady",
        "Committing",
        "Completed",
    ]
    assert told == sorted(told)
    assert machine.cache.jobs() == []


async def test_an_item_that_was_taken_away_before_it_started_is_dropped(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    for action in (Action.CANCEL, Action.PAUSE):
        wanted = new_job(job.source.clone_url)
        await take_away(bus, wanted, action)
        await hand_out(bus, wanted)
        async with working(bus, machine, allowed_hosts=git.allowed_hosts):
            await until_settled(bus)
        assert len(await said(bus, wanted)) == 1


async def test_a_stop_that_the_bucket_does_not_tell_is_found_out_at_the_next_look(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    config = WorkerConfig(hold=0.2)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, config=config):
        await hand_out(bus, wanted)
        await until_busy(bus, wanted)
        await take_away(bus, wanted, Action.CANCEL)
        await until_idle(bus, seconds=STOP_SECONDS)
        await until_settled(bus)


async def test_work_that_does_not_stop_ends_the_process(
    bus: Bus, git: GitServer, machine: Machine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = threading.Event()

    def never_asks(*_arguments: Any, **_: Any) -> Any:
        assert deaf.wait(20)
        raise AssertionError("nobody wants this")

    monkeypatch.setattr(stages, "link_files", never_asks)
    config = WorkerConfig(stop=0.3)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, config=config) as running:
        await hand_out(bus, job)
        await until_at(bus, Stage.LINK)
        other = new_job(git.url("o/r"), submitted_at=now() - timedelta(hours=1))
        await hand_out(bus, other)
        await stop(bus, job, Action.CANCEL)
        await until(lambda: running.died)
        assert await said(bus, other) == []  # the slot is not free: the thread is still there
        deaf.set()
        await until_said(bus, other, ItemSkipped)


# Time limits


@pytest.mark.parametrize(
    ("repository", "stage", "transient"),
    [("o/silent", Stage.FETCH, True), ("o/r", Stage.TRAIN, False), ("o/r", None, False)],
)
async def test_a_stage_that_does_not_end_is_ended_and_its_owner_told_which(
    repository: str,
    stage: Stage | None,
    transient: bool,
    bus: Bus,
    git: GitServer,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "train", endless)
    wanted = new_job(git.url(repository))

    def limited(limits: stages.Limits) -> stages.Limits:
        if stage is None:
            return replace(limits, job_seconds=5)
        return replace(limits, stage_seconds={**limits.stage_seconds, stage: 0.5})

    async with working(bus, machine, allowed_hosts=git.allowed_hosts, limits=limited) as running:
        await hand_out(bus, wanted)
        failed = await until_said(bus, wanted, ItemFailed)
        assert (failed.code, failed.transient) == ("timed_out", transient)
        assert ("It" if stage is None else f"Its stage '{stage}'") in failed.error
        await until_settled(bus)
        assert not running.died
        assert list(machine.workspaces.iterdir()) == []


async def test_what_is_stored_while_files_are_parsed_is_within_the_limit_of_storing(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    def limited(limits: stages.Limits) -> stages.Limits:
        return replace(limits, stage_seconds={**limits.stage_seconds, Stage.STORE: 0.5})

    wanted = new_job(git.url("o/r"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, limits=limited):
        machine.engine.gate.shut()
        await hand_out(bus, wanted)
        await until(machine.engine.gate.reached.is_set)
        await asyncio.sleep(0.6)
        machine.engine.gate.open()
        failed = await until_said(bus, wanted, ItemFailed)
    assert "Its stage 'store' took longer" in failed.error


def test_every_stage_of_a_repository_has_a_limit() -> None:
    assert set(stages.STAGE_SECONDS) == set(OF_REPOSITORIES)
