"""``pharos doctor``: checks, each with what was found and, where it is wrong, what to do."""

from __future__ import annotations

import importlib.metadata
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from rich.console import Console

from pharos_client.clients import Pharos
from pharos_client.discovery import TOKEN_FILE, InvalidTarget, Target, discover, home_directory
from pharos_client.errors import PharosError
from pharos_client.rendering import line

Level = Literal["fine", "note", "wrong"]

PYTHON_MIN: Final = (3, 11)
GIT_MIN: Final = (2, 25)
GIT_SECONDS: Final = 5
_MARK: Final = {"fine": ("✓", "green"), "note": ("·", "yellow"), "wrong": ("✗", "red")}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``advice`` says what to do and is never empty where it is wrong."""

    name: str
    level: Level
    found: str
    advice: str = ""


def examine(environ: Mapping[str, str], *, url: str | None, token: str | None) -> tuple[Check, ...]:
    """Every check: of this machine, of the installation where there is one, of the gateway."""
    return (python_version(sys.version_info[:3]), git(), *_local(environ), *_gateway(environ, url, token))


def _local(environ: Mapping[str, str]) -> tuple[Check, ...]:
    """What only the packages of the stack can tell."""
    try:
        from pharos_local.checks import checks
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("pharos_"):
            return (
                Check(
                    name="packages",
                    level="wrong",
                    found=f"{error.name} is missing",
                    advice="Run `make setup`.",
                ),
            )
        version = importlib.metadata.version("pharos-client")
        return (Check(name="packages", level="fine", found=f"client {version} alone, no local stack"),)
    return checks(environ)


def python_version(version: tuple[int, ...]) -> Check:
    text = ".".join(map(str, version))
    if version[:2] >= PYTHON_MIN:
        return Check(name="python", level="fine", found=text)
    return Check(
        name="python",
        level="wrong",
        found=text,
        advice="Pharos needs Python 3.11 or later: install it, remove .venv, run `make setup`.",
    )


def git() -> Check:
    executable = shutil.which("git")
    advice = "Install git 2.25 or later: apt install git, dnf install git, or brew install git."
    if executable is None:
        return Check(name="git", level="wrong", found="not found", advice=advice)
    try:
        finished = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="git", level="wrong", found=f"does not run: {error}", advice=advice)
    return git_version(finished.stdout)


def git_version(said: str) -> Check:
    """*said* is what ``git --version`` printed."""
    words = said.split()
    text = words[2] if len(words) > 2 else "unknown"
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isascii() and part.isdigit())
    if len(numbers) == 2 and numbers >= GIT_MIN:
        return Check(name="git", level="fine", found=text)
    return Check(name="git", level="wrong", found=text, advice="Pharos needs git 2.25 or later: update it.")


def _gateway(environ: Mapping[str, str], url: str | None, token: str | None) -> tuple[Check, ...]:
    try:
        target = discover(environ, url=url, token=token)
    except InvalidTarget as error:
        return (Check(name="gateway", level="wrong", found=str(error), advice="Correct that setting."),)
    with Pharos(target.url, target.token, timeout=5.0) as client:
        return (_token(environ, target), *_answers(client, target))


def _token(environ: Mapping[str, str], target: Target) -> Check:
    if target.token is None:
        return Check(
            name="token",
            level="wrong",
            found=f"none found ({target.token_from})",
            advice="Start the stack once with `make run`, or set PHAROS_ADMIN_TOKEN_FILE or PHAROS_HOME.",
        )
    path = home_directory(environ) / TOKEN_FILE
    if target.token_from == str(path) and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Check(
            name="token",
            level="wrong",
            found=f"{path} can be read by others",
            advice=f"Run: chmod 600 {path}",
        )
    return Check(name="token", level="fine", found=f"from {target.token_from}")


def _answers(client: Pharos, target: Target) -> tuple[Check, ...]:
    try:
        health = client.health()
    except PharosError as error:
        advice = "Start it with `make run`." if error.unreachable else "Is this the address of Pharos?"
        return (Check(name="gateway", level="wrong", found=error.detail, advice=advice),)
    found = [Check(name="gateway", level="fine", found=f"{health.status} at {target.url}")]
    for name, state in sorted(health.dependencies.items()):
        healthy = _is_healthy(state)
        found.append(
            Check(
                name=name,
                level="fine" if healthy else "wrong",
                found=line(str(state.get("detail") or state) if isinstance(state, dict) else str(state)),
                advice="" if healthy else "Look at its log in PHAROS_HOME/logs, then restart `make run`.",
            )
        )
    not_ready = client.not_ready()
    if not_ready is not None:
        found.append(
            Check(
                name="ready",
                level="wrong",
                found=line(not_ready),
                advice="Wait a moment if it has just started; else look at the logs in PHAROS_HOME/logs.",
            )
        )
    return (*found, _authorised(client), _workers(client))


def _is_healthy(state: object) -> bool:
    if isinstance(state, dict):
        return state.get("status") in {"healthy", "ok", "up"} or state.get("healthy") is True
    return state in {"healthy", "ok", "up", True}


def _authorised(client: Pharos) -> Check:
    try:
        client.jobs(limit=1)
    except PharosError as error:
        advice = (
            "The token is another stack's: point PHAROS_HOME at the one that runs."
            if error.status == 401
            else "Look at the log of the gateway and of history."
        )
        return Check(name="access", level="wrong", found=line(error.detail), advice=advice)
    return Check(name="access", level="fine", found="the token is accepted")


def _workers(client: Pharos) -> Check:
    try:
        status = client.worker_status()
    except PharosError as error:
        return Check(
            name="workers",
            level="wrong",
            found=line(error.detail),
            advice="The bus does not answer; look at its log in PHAROS_HOME/logs.",
        )
    if status.offline:
        return Check(
            name="workers",
            level="wrong",
            found="Offline",
            advice="Jobs will wait. Unless PHAROS_WORKER_SLOTS=0 is wanted, look at the log of the embedder.",
        )
    names = ", ".join(f"{line(worker.name)} ({line(worker.device or '?')})" for worker in status.workers)
    return Check(name="workers", level="fine", found=f"{line(status.status)} {names}".strip())


def show(checks: tuple[Check, ...], console: Console) -> None:
    """A line for each check, and what to do under each that needs it."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, style = _MARK[check.level]
        console.print(f"[{style}]{mark}[/] {check.name:<{width}}  ", end="")
        console.print(line(check.found), markup=False)
        if check.advice:
            console.print(f"  {'':<{width}}  -> {check.advice}", markup=False)
    wrong = sum(check.level == "wrong" for check in checks)
    console.print(
        "Nothing is wrong." if not wrong else f"{wrong} of {len(checks)} checks found something wrong."
    )
