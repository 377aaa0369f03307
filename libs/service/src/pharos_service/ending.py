"""Tasks that have ended once they were told to."""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN_SECONDS: Final = 2.0
"""Well above what a task takes to tidy up, which a second cancellation would interrupt."""


async def end(*tasks: asyncio.Task[Any], again_seconds: float = AGAIN_SECONDS) -> list[Any]:
    """Cancel *tasks*, and return when the last of them has ended: what each returned or raised.

    Once may not be enough: ``asyncio.wait_for`` of Python 3.11 forgets a cancellation that comes together
    with what it waits for, and the client of the bus waits with it. Such a task would go on for ever. There
    is no limit to the wait; who needs one sets it around this.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_seconds)
    return await asyncio.gather(*tasks, return_exceptions=True)
