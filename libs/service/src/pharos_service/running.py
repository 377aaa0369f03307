"""Starting and stopping a service process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import structlog

from pharos_service import logs
from pharos_service.settings import InvalidSettings, ServiceSettings, load

log = structlog.get_logger()

S = TypeVar("S", bound=ServiceSettings)

EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h: a supervisor need not try again


def run(service: str, settings_type: type[S], main: Callable[[S], Awaitable[None]]) -> None:
    """Read the settings, then run *main* until it ends or the process is asked to stop (SIGTERM, SIGINT)."""
    try:
        settings = load(settings_type, os.environ)
    except InvalidSettings as error:
        for mistake in error.mistakes:
            print(f"{service}: {mistake}", file=sys.stderr)
        raise SystemExit(EXIT_SETTINGS) from None
    logs.configure(service=service, level=settings.log_level, format=settings.log_format)

    async def until_asked_to_stop() -> None:
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async for received in signals:
                        log.info("stop_requested", signal=signal.Signals(received).name)
                        tasks.cancel_scope.cancel()
                        return

            tasks.start_soon(listen)
            await main(settings)
            tasks.cancel_scope.cancel()

    log.info("service_started", pid=os.getpid())
    # A third less of what Python computes for a job than with asyncio's own loop: docs/experiments.md.
    anyio.run(until_asked_to_stop, backend_options={"use_uvloop": True})
    log.info("service_stopped")
