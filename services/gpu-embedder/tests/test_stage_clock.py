"""A stage ends when it took longer than it may, and is charged with nobody else's time."""

from __future__ import annotations

import threading

import anyio
import pytest

from pharos_contracts.jobs.v1 import Stage
from pharos_embedder.ports import unchecked
from pharos_embedder.stage_clock import StageClock
from pharos_embedder.stages import STAGE_SECONDS, StageTimedOut
from pharos_embedder.threads import in_thread

pytestmark = pytest.mark.anyio

LONG = 0.6


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def clock_of(**limits: float) -> StageClock:
    return StageClock({**STAGE_SECONDS, **{Stage(name): seconds for name, seconds in limits.items()}})


async def test_what_waits_for_another_stage_is_that_stages_time() -> None:
    clock = clock_of(parse=LONG, store=60)

    def parse(_check: object) -> None:
        for _ in range(2):
            with clock.elsewhere(Stage.STORE):
                threading.Event().wait(LONG)  # twice: more than parsing may take

    with clock(Stage.PARSE):
        await in_thread(parse, unchecked)
    assert clock.seconds["store"] >= 2 * LONG


async def test_the_stage_that_took_too_long_is_the_one_that_is_named() -> None:
    clock = clock_of(parse=60, store=LONG / 3)
    stopped = threading.Event()

    def parse(check: object) -> None:
        assert callable(check)
        with clock.elsewhere(Stage.STORE):
            while True:
                try:
                    check()
                except Exception:
                    stopped.set()
                    raise
                threading.Event().wait(0.01)

    told = f"'store' took longer than the {LONG / 3:g} seconds"
    with pytest.raises(StageTimedOut, match=told), clock(Stage.PARSE):
        await in_thread(parse, unchecked)
    assert stopped.is_set()


async def test_a_limit_is_of_all_the_times_that_a_stage_is_entered() -> None:
    clock = clock_of(store=LONG)
    with pytest.raises(StageTimedOut, match="'store'"):
        for _ in range(20):
            with clock(Stage.STORE):
                await anyio.sleep(LONG / 5)
            with clock(Stage.LINK):
                await anyio.sleep(0)
    assert clock.seconds["store"] > LONG * 0.9


async def test_who_is_cancelled_from_outside_did_not_take_too_long() -> None:
    clock = clock_of()
    with anyio.CancelScope() as scope, clock(Stage.LINK):
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught and "link" in clock.seconds
