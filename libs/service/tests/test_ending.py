"""A task that forgets a cancellation ends all the same."""

from __future__ import annotations

import asyncio

import pytest

from pharos_service.ending import end

pytestmark = pytest.mark.anyio


async def forgetful(times: int) -> str:
    """Cancelled, it goes on, so many times."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()
    return "never"


async def at_once() -> str:
    return "done"


async def failing() -> None:
    raise ValueError("a bug")


async def test_a_task_that_forgets_a_cancellation_is_cancelled_again() -> None:
    tasks = [asyncio.create_task(each) for each in (forgetful(2), at_once(), failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        forgot, returned, raised = await end(*tasks, again_seconds=0.01)
    assert all(task.done() for task in tasks)
    assert (
        isinstance(forgot, asyncio.CancelledError) and returned == "done" and isinstance(raised, ValueError)
    )


async def test_nothing_to_end_is_no_wait() -> None:
    assert await end() == []
