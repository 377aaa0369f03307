"""Blocking work in a thread that is waited for: when a cancelled call returns, its thread has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from pharos_embedder.ports import Check, Stopped

T = TypeVar("T")


async def in_thread(work: Callable[[Check], T], check: Check) -> T:
    """What *work* returns. It is given a check to call at each of its steps: *check*, and that of a cancel.

    A cancelled call waits for the thread, which ends at its next step. Nothing is ever left behind.
    """
    stop = threading.Event()
    results: list[T] = []
    errors: list[Exception] = []

    def checked() -> None:
        if stop.is_set():
            raise Stopped("it was cancelled")
        check()

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_when_cancelled)
        try:
            results.append(await anyio.to_thread.run_sync(work, checked))
        except Exception as error:
            errors.append(error)
        tasks.cancel_scope.cancel()
    if errors:
        await anyio.lowlevel.checkpoint_if_cancelled()  # where it was cancelled, that is what is told
        raise errors[0]
    return results[0]
