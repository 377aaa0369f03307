"""Which programs make the stack, with which environment. Pure: nothing is started here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from pharos_local import nats_server
from pharos_local.home import Home
from pharos_local.settings import LocalSettings

BUS: Final = "nats"
GATEWAY: Final = "gateway"
SCHEDULER: Final = "scheduler"
EMBEDDER: Final = "embedder"
HISTORY: Final = "history"

# The embedder first: it takes longest to load.
START_ORDER: Final = (EMBEDDER, HISTORY, SCHEDULER, GATEWAY)
STOP_ORDER: Final = (GATEWAY, SCHEDULER, EMBEDDER, HISTORY, BUS)  # workers beside the embedder with it

# Together below 15 s: what `make run` promises for its own end.
STOP_SECONDS: Final[Mapping[str, float]] = {
    GATEWAY: 3.0,
    SCHEDULER: 2.0,
    EMBEDDER: 5.0,
    HISTORY: 1.5,
    BUS: 2.0,
}

# Given to a service by a file, never by a value that `ps e` or a crash report would show.
_SECRETS: Final = ("PHAROS_ADMIN_TOKEN", "PHAROS_NATS_PASSWORD", "PHAROS_SECRET_KEY")

# What the embedder alone is to know, as whoever started the stack told it.
_OF_THE_EMBEDDER: Final = ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE")

# Within its time to stop, an embedder that works has this long to finish before it hands its job back.
DRAIN_SECONDS: Final = 2


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A process that is kept running. ``stop_seconds``: from SIGTERM to SIGKILL."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str]
    stop_seconds: float


def bus_program(home: Home, environ: Mapping[str, str]) -> Program:
    return Program(
        name=BUS,
        command=(str(nats_server.executable()), "-c", str(home.bus_configuration)),
        environ=_without_secrets(environ),
        stop_seconds=STOP_SECONDS[BUS],
    )


def service_programs(
    settings: LocalSettings,
    home: Home,
    environ: Mapping[str, str],
    *,
    bus_environ: Mapping[str, str],
    token_file: Path,
    secret_key_file: Path,
    color: bool,
) -> tuple[Program, ...]:
    """The four services and the workers beside them, in the order in which they start."""
    common = {
        **_without_secrets(environ),
        "PHAROS_HOME": str(home.path),
        "PHAROS_HOST": settings.host,
        "PHAROS_PORT": str(settings.port),
        "PHAROS_GIT_ALLOWED_HOSTS": settings.hosts_admitted,
        "PYTHONUNBUFFERED": "1",
        **bus_environ,
    }
    if color and settings.log_format == "auto":
        common["PHAROS_LOG_FORMAT"] = "console"
    own: dict[str, dict[str, str]] = {
        GATEWAY: {
            "PHAROS_ADMIN_TOKEN_FILE": str(token_file),
            "PHAROS_SECRET_KEY_FILE": str(secret_key_file),
        },
        EMBEDDER: {
            "PHAROS_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "PHAROS_SECRET_KEY_FILE": str(secret_key_file),
            **{name: environ[name] for name in _OF_THE_EMBEDDER if name in environ},
        },
    }
    arguments: dict[str, tuple[str, ...]] = {EMBEDDER: ("--role", "all")}
    services = tuple(
        Program(
            name=name,
            command=(sys.executable, "-m", f"pharos_{name}", *arguments.get(name, ())),
            environ={**common, **own.get(name, {})},
            stop_seconds=STOP_SECONDS[name],
        )
        for name in START_ORDER
    )
    workers = tuple(
        Program(
            name=name,
            command=(sys.executable, "-m", f"pharos_{EMBEDDER}", "--role", "worker"),
            environ={
                **common,
                **own[EMBEDDER],
                "PHAROS_WORKER_NAME": name,
                "PHAROS_WORKER_INDEX": str(index),
            },
            stop_seconds=STOP_SECONDS[EMBEDDER],
        )
        for index, name in enumerate(workers_beside(settings), 1)
    )
    return (*services, *workers)


def workers_beside(settings: LocalSettings) -> tuple[str, ...]:
    """The names of the workers that have a process for themselves."""
    return tuple(f"worker-{number}" for number in range(2, settings.workers + 1))


def stop_steps(settings: LocalSettings) -> tuple[tuple[str, ...], ...]:
    """Which programs are stopped one after the other, and which at once."""
    return tuple((name, *workers_beside(settings)) if name == EMBEDDER else (name,) for name in STOP_ORDER)


def own_bus_environ(home: Home, port: int) -> dict[str, str]:
    """How a service reaches the stack's own bus."""
    return {
        "PHAROS_NATS_URL": f"nats://127.0.0.1:{port}",
        "PHAROS_NATS_USER": nats_server.USER,
        "PHAROS_NATS_PASSWORD_FILE": str(home.bus_password_file),
    }


def other_bus_environ(environ: Mapping[str, str], home: Home) -> dict[str, str]:
    """How a service reaches a bus that somebody else runs: as the stack was told, the password by file."""
    names = ("PHAROS_NATS_URL", "PHAROS_NATS_USER", "PHAROS_NATS_PASSWORD_FILE")
    found = {name: environ[name] for name in names if name in environ}
    if "PHAROS_NATS_PASSWORD" in environ:
        found["PHAROS_NATS_PASSWORD_FILE"] = str(home.bus_password_file)
    return found


def _without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    hidden = {*_SECRETS, *(f"{name}_FILE" for name in _SECRETS), *_OF_THE_EMBEDDER}
    return {name: value for name, value in environ.items() if name not in hidden}
