"""Reading what git prints: progress, references, trees and errors. Pure.

Lines that begin with `remote:` are the server's own words. They count as progress and never decide what
went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pharos_sources.git_errors import (
    FetchError,
    FetchFailed,
    HostUnreachable,
    RefNotFound,
    RepositoryNotFound,
    RepositoryTooLarge,
)
from pharos_sources.repository_url import InvalidRef, parse_ref

LINE_LENGTH_MAX: Final = 2_000
LINES_KEPT: Final = 40
DIAGNOSTIC_LENGTH_MAX: Final = 2_000
PATH_BYTES_MAX: Final = 16 * 1024
PATH_LENGTH_MAX: Final = 3_500  # systems end at 4,096 bytes, the folder of the checkout included
REFS_BYTES_MAX: Final = 16 * 1024 * 1024

_PROGRESS: Final = re.compile(
    r"(?:remote: )?(?P<what>[A-Z][a-z]+ [a-z]+): +\d+% \((?P<done>\d+)/(?P<total>\d+)\)"
)
_PHASES: Final = {
    "Counting objects": "counting",
    "Compressing objects": "compressing",
    "Receiving objects": "receiving",
    "Unpacking objects": "receiving",
    "Resolving deltas": "resolving",
    "Updating files": "checking out",
}
_VERSION: Final = re.compile(r"git version (\d+)\.(\d+)")
_STATUS: Final = re.compile(r"The requested URL returned error: (?P<status>\d{3})")


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` objects or files of a phase, which is one of the values of `_PHASES`."""

    phase: str
    done: int
    total: int


def parse_progress(line: str) -> Progress | None:
    """The progress that one line of git's stderr tells, if any."""
    match = _PROGRESS.match(line)
    if match is None or match["what"] not in _PHASES:
        return None
    return Progress(_PHASES[match["what"]], int(match["done"]), int(match["total"]))


def parse_version(text: str) -> tuple[int, int] | None:
    """(major, minor) from `git version`."""
    match = _VERSION.match(text)
    return None if match is None else (int(match[1]), int(match[2]))


@dataclass(slots=True)
class StderrLines:
    """Cuts a stream of bytes into lines at CR or LF; keeps the last few, drops what exceeds the limits."""

    kept: list[str] = field(default_factory=list)
    _partial: bytes = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that *data* completes."""
        *whole, rest = re.split(rb"[\r\n]+", self._partial + data)
        self._partial = rest[:LINE_LENGTH_MAX]
        lines = [line[:LINE_LENGTH_MAX].decode("utf-8", "replace") for line in whole if line]
        self.kept = [*self.kept, *(line for line in lines if parse_progress(line) is None)][-LINES_KEPT:]
        return lines

    def finish(self) -> list[str]:
        """Every line that was kept, the last one included."""
        self.feed(b"\n")
        return self.kept


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRefs:
    """References of a remote by full name, and the branch that its HEAD points to."""

    ids: dict[str, str]
    head_branch: str | None


def parse_refs(text: str) -> RemoteRefs:
    """The output of `git ls-remote --symref`."""
    ids: dict[str, str] = {}
    head: str | None = None
    for line in text.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            if name == "HEAD":
                head = _branch_name(value.removeprefix("ref: "))
        elif name:
            ids[name] = value
    return RemoteRefs(ids=ids, head_branch=head)


def _branch_name(target: str) -> str | None:
    """The branch that a remote's HEAD claims to point to; None for a name that no branch can have."""
    try:
        return parse_ref(target.removeprefix("refs/heads/")) if target.startswith("refs/heads/") else None
    except InvalidRef:
        return None


@dataclass(slots=True, kw_only=True)
class TreeCount:
    """Adds up `git ls-tree -r -l -z`, fed piece by piece; raises `RepositoryTooLarge` at the first excess.

    The count comes before anything is written: a few kilobytes of packed trees can stand for millions of
    files.
    """

    url: str
    bytes_max: int
    files_max: int
    size_bytes: int = 0
    files: int = 0
    submodules: int = 0
    depth: int = 0
    symlinks: list[bytes] = field(default_factory=list)
    _partial: bytes = b""

    def feed(self, data: bytes) -> None:
        *records, self._partial = (self._partial + data).split(b"\0")
        for record in records:
            self._add(record)
        if len(self._partial) > PATH_BYTES_MAX:
            raise FetchFailed("the repository has a path that is too long")

    def _add(self, record: bytes) -> None:
        facts, _, path = record.partition(b"\t")
        if len(path) > PATH_LENGTH_MAX:
            raise FetchFailed("the repository has a path that is too long")
        self.depth = max(self.depth, path.count(b"/"))
        mode, _, _, size = facts.split()
        if mode == b"160000":
            self.submodules += 1
            return
        self.files += 1
        self.size_bytes += int(size)
        if mode == b"120000":
            self.symlinks.append(path)
        if self.files > self.files_max:
            raise RepositoryTooLarge(self.url, f"{self.files_max} files")
        if self.size_bytes > self.bytes_max:
            raise RepositoryTooLarge(self.url, in_words(self.bytes_max))


def in_words(size: int) -> str:
    """A number of bytes for people, in binary units."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"


class Redirected(FetchError):
    """The server answered with a redirect, which git was told not to follow."""

    def __init__(self) -> None:
        super().__init__("The repository has moved")


_DENIED: Final = (
    "could not read Username",
    "could not read Password",
    "Authentication failed",
    "terminal prompts",
)
_NO_REF: Final = ("couldn't find remote ref", "not our ref", "no such ref", "unadvertised object")
_UNREACHABLE: Final = (
    "Could not resolve host",
    "Failed to connect",
    "Couldn't connect",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "No route to host",
    "Network is unreachable",
    "Empty reply from server",
    "Operation timed out",
    "Recv failure",
    "Send failure",
)
_UNTRUSTED: Final = (
    "SSL certificate problem",
    "server certificate verification failed",
    "SSL: no alternative certificate",
    "certificate subject name",
    "SSL_connect",
)
_BROKEN: Final = (
    "early EOF",
    "RPC failed",
    "hung up unexpectedly",
    "unexpected disconnect",
    "transfer closed",
    "Operation too slow",
    "TLS connection was non-properly terminated",
    "GnuTLS recv error",
    "SSL_read",
    "fetch-pack: invalid index-pack output",
)


def explain(lines: Sequence[str], *, url: str, host: str, ref: str, diagnostic: str = "") -> FetchError:
    """The error that git's last *lines* mean. *ref* is what was asked for, in words."""
    own = [line for line in lines if not line.startswith("remote:")]
    status = next((int(match["status"]) for line in own if (match := _STATUS.search(line))), None)
    if status is not None and 300 <= status < 400:
        return Redirected()
    if status in {401, 403} or _says(own, _DENIED):
        return RepositoryNotFound(url, denied=True, diagnostic=diagnostic)
    if status in {404, 410, 451} or any(re.search(r"repository '.*' not found", line) for line in own):
        return RepositoryNotFound(url, diagnostic=diagnostic)
    if _says(own, ("not valid: is this a git repository?", "does not appear to be a git repository")):
        return RepositoryNotFound(url, diagnostic=diagnostic)
    if _says(own, _NO_REF):
        return RefNotFound(url, ref, diagnostic=diagnostic)
    if status is not None:
        busy = status == 429 or status >= 500
        return FetchFailed(f"the server answered {status}", transient=busy, diagnostic=diagnostic)
    if _says(own, _UNTRUSTED):
        return HostUnreachable(host, transient=False, diagnostic=diagnostic)
    if _says(own, ("No space left on device",)):
        return FetchFailed("the disk is full", transient=True, diagnostic=diagnostic)
    if _says(own, _BROKEN):
        return FetchFailed("the connection was lost", transient=True, diagnostic=diagnostic)
    if _says(own, _UNREACHABLE):
        return HostUnreachable(host, transient=True, diagnostic=diagnostic)
    return FetchFailed("git gave up", diagnostic=diagnostic)


def _says(lines: Iterable[str], phrases: Sequence[str]) -> bool:
    return any(phrase in line for line in lines for phrase in phrases)


def scrubbed(lines: Sequence[str], hidden: Iterable[str]) -> str:
    """*lines* for a log: everything *hidden* (tokens, local paths) replaced, the end kept when it is long."""
    text = "\n".join(lines)
    for secret in sorted((text_ for text_ in hidden if text_), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text[-DIAGNOSTIC_LENGTH_MAX:]
