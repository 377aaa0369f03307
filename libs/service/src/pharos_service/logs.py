"""Logging: constant event names with facts as keys; a console on a terminal, JSON elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(*, service: str, level: str = "info", format: str = "auto") -> None:
    """Set up structlog and the standard library's logging for this process. Lines go to standard error."""
    pretty = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        # The default one shows local variables, and so the credentials of a request that failed.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if pretty
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    exceptions: list[Any] = [] if pretty else [structlog.processors.format_exc_info]
    threshold = LEVELS.get(level, logging.INFO)
    structlog.configure(
        processors=[*shared, *exceptions, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries speak through the standard library: only what they warn of is ours to show.
    logging.basicConfig(
        stream=sys.stderr, level=max(threshold, logging.WARNING), force=True, format="%(message)s"
    )
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def _json(value: Any, **_: Any) -> str:
    import msgspec

    return msgspec.json.encode(value, enc_hook=repr).decode()
