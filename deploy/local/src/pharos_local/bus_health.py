"""Restarting a bus that lives and stores no more.

A nats-server that could not write once, because its disk was full, refuses every write to that stream until
it is restarted, also when there is room again. It says so where it is asked for its health, and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import msgspec
import nats.errors
from nats.aio.client import Client

from pharos_local.nats_server import OPERATOR

ASK_EVERY_SECONDS: Final = 5.0
ASK_SECONDS: Final = 2
ANSWER_SECONDS: Final = 4.0
ILL_IN_A_ROW: Final = 2  # while it recovers its streams it says that it is unavailable, too
HEALTH: Final = "$SYS.REQ.SERVER.PING.HEALTHZ"

Ask = Callable[[], Awaitable[str | None]]


class _Health(msgspec.Struct):
    """The part that matters of the server's answer."""

    status_code: int = 200
    error: str = ""


class _Answer(msgspec.Struct):
    data: _Health


async def complaint(url: str, operator_password: str) -> str | None:
    """What the server at *url* says is wrong with it; None where nothing is, or it does not answer.

    One that does not answer is busy, starting or gone: none of these is mended by a restart.
    """
    with (
        contextlib.suppress(nats.errors.Error, OSError, TimeoutError, msgspec.DecodeError),
        anyio.fail_after(ANSWER_SECONDS),
    ):
        client = Client()
        try:
            await client.connect(
                url,
                user=OPERATOR,
                password=operator_password,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # without it a first connect that is refused is tried for ever
                reconnect_time_wait=0,
                connect_timeout=ASK_SECONDS,
                error_cb=_ignored,
            )
            reply = await client.request(HEALTH, b"{}", timeout=ASK_SECONDS)
        finally:
            await client.close()
        health = msgspec.json.decode(reply.data, type=_Answer).data
        return None if health.status_code == 200 else health.error or "it says that it is unavailable"
    return None


async def _ignored(error: Exception) -> None:
    """Whatever is wrong is raised to who asked as well."""


async def restart_when_ill(
    ask: Ask,
    restart: Callable[[str], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Ask again and again; *restart* with the complaint when it was made twice in a row. For ever."""
    ill = 0
    while True:
        await sleep(ASK_EVERY_SECONDS)
        found = await ask()
        ill = ill + 1 if found is not None else 0
        if found is not None and ill >= ILL_IN_A_ROW:
            restart(found)
            ill = 0
