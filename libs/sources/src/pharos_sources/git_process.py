"""Running the git binary with nothing of this machine in reach, and ending it whole. Never a shell."""

from __future__ import annotations

import os
import signal
import subprocess
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process

from pharos_sources.git_errors import GitMissing
from pharos_sources.git_output import StderrLines
from pharos_sources.repository_url import RepositoryAddress
from pharos_sources.secret import Secret

_DRAIN_SECONDS: Final = 2.0
_READ_BYTES: Final = 65_536

# Passed by GIT_CONFIG_COUNT in the environment of git alone: no file is read or written, and `ps` shows
# none of it.
_CONFIG: Final = (
    ("protocol.allow", "never"),
    ("protocol.version", "2"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "false"),
    ("core.protectNTFS", "true"),
    ("core.protectHFS", "true"),
    ("core.autocrlf", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.bigFileThreshold", "16m"),  # larger blobs are streamed, not held in memory
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.unpackLimit", "1"),  # one pack: never thousands of loose files
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("credential.helper", ""),
    ("filter.lfs.process", ""),
    ("filter.lfs.smudge", ""),
    ("filter.lfs.required", "false"),
    # A redirect could lead to a host that nobody checked, and would take the token along: see `redirects`.
    ("http.followRedirects", "false"),
    ("http.proxy", ""),
    ("http.sslVerify", "true"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
)
_TOKEN_USERS: Final = {"gitlab.com": "oauth2", "bitbucket.org": "x-token-auth"}


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended, and the last lines of its stderr."""

    status: int
    lines: Sequence[str]


def authorization(address: RepositoryAddress, token: Secret) -> str:
    """The value of the Authorization header: Basic, with the user name that the host wants beside a token."""
    user = _TOKEN_USERS.get(address.host, "x-access-token")
    return "Basic " + b64encode(f"{user}:{token.reveal()}".encode()).decode("ascii")


def pin(address: RepositoryAddress, addresses: Sequence[str]) -> str | None:
    """The `http.curloptResolve` entry that ties the host to *addresses*; None for a literal: no look-up."""
    if address.is_ip_literal:
        return None
    literals = ",".join(f"[{entry}]" if ":" in entry else entry for entry in addresses)
    return f"{address.host}:{address.connect_port}:{literals}"


def isolated_environment(
    *,
    address: RepositoryAddress,
    url: str,
    pinned: str | None,
    token: Secret | None,
    git_dir: Path | None,
    work_tree: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The whole environment of a git process: only PATH and the CA bundle come from *environ*.

    Without *git_dir* git is told that there is no repository, so that it never discovers one around it.
    """
    config = [*_CONFIG, (f"protocol.{address.scheme}.allow", "always")]
    if pinned is not None:
        config.append(("http.curloptResolve", pinned))
    if token:
        config.append((f"http.{url}.extraHeader", f"Authorization: {authorization(address, token)}"))
    environment = {
        "PATH": environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": os.devnull,  # not a folder, so there is no ~/.netrc and no ~/.config either
        "XDG_CONFIG_HOME": os.devnull,
        "GIT_DIR": os.devnull if git_dir is None else str(git_dir),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "GIT_ALLOW_PROTOCOL": address.scheme,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (key, value) in enumerate(config):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    if work_tree is not None:
        environment["GIT_WORK_TREE"] = str(work_tree)
    if environ.get("SSL_CERT_FILE"):
        environment["GIT_SSL_CAINFO"] = environ["SSL_CERT_FILE"]
    return environment


async def run_git(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    on_stdout: Callable[[bytes], None],
    on_line: Callable[[str], None] | None = None,
    watch: Callable[[], Awaitable[None]] | None = None,
) -> Finished:
    """Run git to its end in a process group of its own.

    *watch* runs beside it and ends it by raising; so do the callbacks, and so does cancellation. However
    this ends, no process of the group is left when it returns. Raises `GitMissing` when there is no git.
    """
    lines = StderrLines()
    failure: list[Exception] = []
    with anyio.CancelScope(shield=True):  # a process that was started is always one that can be ended
        process = await _start(arguments, environment, directory)
    assert process.stdout is not None and process.stderr is not None
    stdout, stderr = process.stdout, process.stderr

    async def read_stdout() -> None:
        async for data in stdout:
            on_stdout(data)

    async def read_stderr() -> None:
        async for data in stderr:
            for line in lines.feed(data):
                if on_line is not None:
                    on_line(line)

    async def ending_all(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            failure.append(error)
            everything.cancel_scope.cancel()

    finished = False
    try:
        async with anyio.create_task_group() as everything:
            async with anyio.create_task_group() as readers:
                if watch is not None:
                    everything.start_soon(ending_all, watch)
                readers.start_soon(ending_all, read_stdout)
                readers.start_soon(ending_all, read_stderr)
            await process.wait()
            finished = not failure
            everything.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            if not finished:
                await _end(process)
            await process.aclose()
    if failure:
        raise failure[0]
    assert process.returncode is not None
    return Finished(process.returncode, lines.finish())


async def _start(arguments: Sequence[str], environment: Mapping[str, str], directory: Path) -> Process:
    try:
        return await anyio.open_process(
            ["git", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise GitMissing from None


async def _end(process: Process) -> None:
    """Kill the whole group, and wait until nobody holds its stderr: only then can its folder be removed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    assert process.stderr is not None
    with anyio.move_on_after(_DRAIN_SECONDS), suppress(anyio.EndOfStream, anyio.ClosedResourceError):
        while True:
            await process.stderr.receive(_READ_BYTES)
