"""A hold ends once and lapses by itself; a thread that is cancelled has ended when the call returns."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import anyio
import pytest

from pharos_contracts.control.v1 import Action, StopItem
from pharos_contracts.jobs.v1 import Job, JobKind, RepositorySource, WorkItem
from pharos_contracts.lifecycle import JobState
from pharos_embedder import holding
from pharos_embedder.control import Watched
from pharos_embedder.holding import Ending, Hold
from pharos_embedder.ports import Check, Stopped, unchecked
from pharos_embedder.threads import in_thread

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 15, tzinfo=UTC)
ITEM = WorkItem(
    job=Job(
        job_id="j",
        number=1,
        tenant="default",
        key="k",
        kind=JobKind.REPOSITORY,
        state=JobState.QUEUED,
        source=RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
        project="default",
        submitted_at=NOW,
        submitted_by="u",
        ttl_seconds=60,
    ),
    item_id="0",
    attempt=1,
    dispatch=1,
)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time on the clock of holds, to be moved."""
    found = [100.0]
    monkeypatch.setattr(holding, "clock", lambda: found[0])
    return found


def stop(action: Action = Action.CANCEL, *, fact: int = 9, item_id: str = "0") -> StopItem:
    return StopItem(job_id="j", item_id=item_id, action=action, fact=fact, at=NOW)


async def test_a_hold_that_nobody_confirms_lapses(now: list[float]) -> None:
    hold = Hold(30)
    now[0] += 29
    hold.check()
    hold.confirm(now[0])
    now[0] += 29.9
    hold.check()
    now[0] += 0.1
    with pytest.raises(Stopped):
        hold.check()


async def test_an_old_confirmation_does_not_shorten_a_hold(now: list[float]) -> None:
    hold = Hold(30)
    hold.confirm(now[0] - 20)
    now[0] += 29
    hold.check()


async def test_the_first_reason_to_end_a_hold_counts() -> None:
    hold = Hold(30)
    hold.end(Ending.PAUSED)
    hold.end(Ending.CANCELLED)
    assert hold.ending is Ending.PAUSED
    assert hold.scope.cancel_called
    with pytest.raises(Stopped):
        hold.check()


@pytest.mark.parametrize("ending", Ending)
async def test_only_a_pause_waits_for_what_is_under_way(ending: Ending) -> None:
    hold = Hold(30)
    hold.check_midway()
    hold.end(ending)
    if ending is Ending.PAUSED:
        hold.check_midway()
    else:
        with pytest.raises(Stopped):
            hold.check_midway()


@pytest.mark.parametrize(
    ("action", "ending"), [(Action.CANCEL, Ending.CANCELLED), (Action.PAUSE, Ending.PAUSED)]
)
async def test_a_stop_behind_the_start_ends_the_hold(action: Action, ending: Ending) -> None:
    hold = Hold(30)
    watched = Watched(ITEM, hold)
    watched.began(8)
    watched.heard(stop(action))
    assert hold.ending is ending


async def test_a_stop_that_is_heard_before_the_start_is_known_is_not_forgotten() -> None:
    hold = Hold(30)
    watched = Watched(ITEM, hold)
    watched.heard(stop(fact=9))
    assert hold.ending is None
    watched.began(8)
    assert hold.ending is Ending.CANCELLED


@pytest.mark.parametrize("heard", [stop(fact=7), stop(fact=8), stop(item_id="clear")])
async def test_a_stop_of_an_earlier_try_or_of_another_item_is_not_meant(heard: StopItem) -> None:
    hold = Hold(30)
    watched = Watched(ITEM, hold)
    watched.began(8)
    watched.heard(heard)
    assert hold.ending is None


def working(check: Check) -> str:
    for _ in range(2000):
        check()
        time.sleep(0.005)
    return "done"


async def test_a_thread_gives_what_it_returns_and_raises_what_it_raises() -> None:
    assert await in_thread(lambda check: check() or 7, unchecked) == 7

    def broken(check: Check) -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await in_thread(broken, unchecked)


async def test_a_thread_that_is_cancelled_has_ended_when_the_call_returns() -> None:
    running = threading.Event()
    ended = threading.Event()

    def work(check: Check) -> str:
        running.set()
        try:
            return working(check)
        finally:
            ended.set()

    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            try:
                await in_thread(work, unchecked)
            finally:
                assert ended.is_set()

        tasks.start_soon(call)
        while not running.is_set():
            await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert ended.is_set()


async def test_a_deadline_is_told_as_such_and_not_as_a_stop() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.05):
        await in_thread(working, unchecked)


async def test_a_check_that_raises_ends_the_thread_with_what_it_raises() -> None:
    calls = iter(range(3))

    def check() -> None:
        if next(calls, None) is None:
            raise Stopped("it lapsed")

    with pytest.raises(Stopped, match="it lapsed"):
        await in_thread(working, check)
