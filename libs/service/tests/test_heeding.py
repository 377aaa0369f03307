"""A question to the bus does not swallow a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pharos_service.bus import heeding

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def answered(future: asyncio.Future[int]) -> None:
    future.set_result(1)


def refused(future: asyncio.Future[int]) -> None:
    future.set_exception(OSError("refused"))


@pytest.mark.parametrize("comes", [answered, refused])
async def test_a_loop_that_is_told_to_end_just_when_an_answer_comes_ends(
    comes: Callable[[asyncio.Future[int]], None],
) -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asked = 0

    async def ask_for_ever() -> None:
        nonlocal asked
        while asked < 100:
            asked += 1
            try:
                await heeding(asyncio.wait_for(asyncio.shield(answer), 5))
            except OSError:
                await asyncio.sleep(0)

    task = asyncio.create_task(ask_for_ever())
    while not asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    comes(answer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked == 1


async def test_who_was_cancelled_before_it_asked_may_still_say_farewell() -> None:
    said: list[int] = []

    async def leave() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            said.append(await heeding(asyncio.sleep(0, 7)))
            raise

    task = asyncio.create_task(leave())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == [7]
