"""When a submit would succeed and be worth it: every part answers, and a worker is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio

from pharos_client import AsyncPharos, PharosError

POLL_SECONDS: Final = 0.2
SAY_SECONDS: Final = 5.0
ANSWERS: Final = "ok"


async def wait_until_ready(client: AsyncPharos, *, worker_expected: bool, say: Callable[[str], None]) -> None:
    """Return when the stack is ready; until then say what is waited for, every five seconds."""
    said_at = time.monotonic()
    while (reason := await not_ready(client, worker_expected=worker_expected)) is not None:
        if time.monotonic() - said_at >= SAY_SECONDS:
            said_at = time.monotonic()
            say(f"waiting for {reason}")
        await anyio.sleep(POLL_SECONDS)


async def not_ready(client: AsyncPharos, *, worker_expected: bool) -> str | None:
    """What is still missing, in a few words; None when nothing is."""
    reason = await client.not_ready()
    if reason is not None:
        return f"the gateway: {reason}"
    try:
        health = await client.health()
        offline = worker_expected and (await client.worker_status()).offline
    except PharosError as error:
        return f"the gateway: {error.detail}"
    if health.dependencies.get("history", ANSWERS) != ANSWERS:
        return "history"
    # A worker's entry outlives it by seconds: that search answers says that this embedder runs.
    if offline or health.dependencies.get("search", ANSWERS) != ANSWERS:
        return "the embedder, which loads its model"
    return None
