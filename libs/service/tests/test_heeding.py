"""A question to the bus does not swallow a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from pharos_service.bus import heeding

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("comes", [answered, refused])
async def test_a_scope_that_is_left_just_when_an_answer_comes_is_left_without_an_error(
    comes: Callable[[asyncio.Future[int]], None],
) -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asked = 0
    async with anyio.create_task_group() as tasks:

        async def ask_for_ever() -> None:
            nonlocal asked
            while asked < 100:
                asked += 1
                try:
                    await heeding(asyncio.wait_for(asyncio.shield(answer), 5))
                except OSError:
                    await asyncio.sleep(0)

        tasks.start_soon(ask_for_ever)
        while not asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        comes(answer)
        tasks.cancel_scope.cancel()
    assert asked == 1


async def test_the_task_of_a_scope_that_is_left_just_when_an_answer_comes_ends_without_an_error() -> None:
    """The scope is the task's own, as that of a whole process is: nobody else catches what passes it."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asked = 0

    async def process() -> None:
        nonlocal asked
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                while not asked:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                answer.set_result(1)
                tasks.cancel_scope.cancel()

            tasks.start_soon(stop)
            while asked < 100:
                asked += 1
                await heeding(asyncio.wait_for(asyncio.shield(answer), 5))

    await process()
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
