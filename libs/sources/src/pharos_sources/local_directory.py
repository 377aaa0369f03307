"""Files of a directory of this machine, below a root that the operator admitted, and never outside of it.

Paths are not resolved and then checked: each part is opened in the folder before it, and a symbolic link is
refused by the system call that meets it. Whoever swaps a folder for a link at any moment gains nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from anyio import to_thread

from pharos_sources import content_types, cursors
from pharos_sources.source import (
    ID_LENGTH_MAX,
    Entry,
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    Page,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUnreadable,
    clamped,
    shown,
)
from pharos_sources.streaming import bounded, read_in_thread

Parts = tuple[str, ...]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryRefused(ValueError):
    """The directory may not be a source; `reason` is a clause."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLimits:
    """`folders_per_page` and `names_max` bound what one call may do; deeper folders are left out."""

    depth_max: int = 32
    names_max: int = 100_000
    folders_per_page: int = 2_000

    def __post_init__(self) -> None:
        assert self.folders_per_page > self.depth_max, "a page could end before it got anywhere"


def below_root(path: str, roots: Sequence[Path]) -> tuple[Path, Parts]:
    """The root of *roots* that the absolute *path* is in or is, and the rest of it. Pure.

    Raises `DirectoryRefused`. A root itself may be a symbolic link: the operator chose it.
    """
    if not path.startswith("/") or "\0" in path:
        raise DirectoryRefused("it must be an absolute path")
    wanted = PurePosixPath(path)
    if ".." in wanted.parts:
        raise DirectoryRefused("'..' is not accepted")
    for root in roots:
        if wanted.is_relative_to(root):
            return root, wanted.relative_to(root).parts
    raise DirectoryRefused("it is not in a directory that the operator admitted")


class LocalDirectory:
    """The files below a folder. Ids are their paths below it.

    Only regular files count. Symbolic links, other kinds of files, names that are not UTF-8 and, unless
    *hidden*, names that begin with a dot are left out of listings and refused by id.
    """

    def __init__(
        self, root: Path, parts: Parts = (), *, hidden: bool = False, limits: DirectoryLimits | None = None
    ) -> None:
        self._root = root
        self._base = parts
        self._hidden = hidden
        self._limits = limits or DirectoryLimits()

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        start = () if under is None else self._parts(under)
        after = () if cursor is None else tuple(cursors.decode(cursor, list[str]))
        return await to_thread.run_sync(self._page, start, after, clamped(limit))

    async def stat(self, file_id: str) -> Entry:
        return await to_thread.run_sync(self._stat, file_id)

    @asynccontextmanager
    async def open(self, file_id: str, *, bytes_max: int) -> AsyncIterator[AsyncIterator[bytes]]:
        descriptor, found = await to_thread.run_sync(self._opened, file_id)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if found.st_size > bytes_max:
                raise EntryTooLarge(file_id, bytes_max)
            yield bounded(read_in_thread(file.read), file_id, bytes_max)

    async def check(self) -> None:
        await to_thread.run_sync(self._check)

    def _check(self) -> None:
        with self._folder(()) as descriptor, os.scandir(descriptor) as names:
            next(names, None)

    def _parts(self, file_id: str) -> Parts:
        """*file_id* as names, none of which leads anywhere but down."""
        parts = tuple(file_id.split("/"))
        if (
            len(file_id) > ID_LENGTH_MAX
            or "\0" in file_id
            or not _is_text(file_id)
            or any(part in {"", ".", ".."} for part in parts)
        ):
            raise EntryNotFound(file_id)
        if not self._hidden and any(part.startswith(".") for part in parts):
            raise EntryRefused(file_id, "names that begin with a dot are not read by this connection")
        if len(parts) > self._limits.depth_max:
            raise EntryRefused(file_id, f"it is more than {self._limits.depth_max} folders deep")
        return parts

    @contextmanager
    def _folder(self, parts: Parts) -> Iterator[int]:
        """A descriptor of the folder *parts*, reached without following any link below the root."""
        descriptor = self._top()
        with _explained("/".join(parts)):
            for part in parts:
                descriptor = _step(descriptor, part)
        try:
            with _explained("/".join(parts)):
                yield descriptor
        finally:
            os.close(descriptor)

    def _top(self) -> int:
        try:
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in self._base:
                descriptor = _step(descriptor, part)
        except (FileNotFoundError, NotADirectoryError):
            raise SourceRefused("the directory does not exist, or a part of its path is a link") from None
        except PermissionError:
            raise SourceRefused("Pharos may not read the directory on this machine") from None
        except OSError:
            raise SourceUnavailable("the directory could not be opened") from None
        return descriptor

    def _opened(self, file_id: str) -> tuple[int, os.stat_result]:
        """A descriptor of a regular file, and what is known of it."""
        *folders, name = self._parts(file_id)
        with self._folder(tuple(folders)) as folder, _explained(file_id):
            descriptor = os.open(name, _FILE, dir_fd=folder)
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                os.close(descriptor)
                raise EntryRefused(file_id, "it is a folder, or no ordinary file")
            return descriptor, found

    def _stat(self, file_id: str) -> Entry:
        *folders, name = self._parts(file_id)
        with self._folder(tuple(folders)) as folder, _explained(file_id):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return Entry(id=file_id, name=file_id, folder=True)
        if not stat.S_ISREG(found.st_mode):
            raise EntryRefused(file_id, "it is a symbolic link, or no ordinary file")
        return _entry(file_id, file_id, found)

    def _page(self, start: Parts, after: Parts, limit: int) -> Page:
        walk = _Walk(limits=self._limits, hidden=self._hidden, wanted=limit, prefix=start)
        with self._folder(start) as descriptor:
            walk.folder(descriptor, (), after)
        return Page(
            entries=tuple(walk.entries),
            cursor=None if walk.stopped_at is None else cursors.encode(walk.stopped_at),
            left_out=dict(walk.left_out),
        )


@dataclass(slots=True, kw_only=True)
class _Walk:
    """One page of a walk in the order of names. What is before its cursor is not even looked at."""

    limits: DirectoryLimits
    hidden: bool
    wanted: int
    prefix: Parts
    entries: list[Entry] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    folders: int = 0
    stopped_at: Parts | None = None
    """Where the next page begins: the file there is done, the folder there is not."""

    def folder(self, descriptor: int, parts: Parts, after: Parts) -> None:
        """Add the files below the folder *parts* that come after *after*, a path below it."""
        self.folders += 1
        first, rest = (after[0], after[1:]) if after else ("", ())
        for found in self._sorted(descriptor, first):
            path = (*parts, found.name)
            at_cursor = bool(after) and found.name == first
            if not _is_text(found.name):
                self.left_out["name that is not UTF-8"] += 1
            elif not self.hidden and found.name.startswith("."):
                self.left_out["hidden"] += 1
            elif found.is_dir(follow_symlinks=False):
                if len(self.prefix) + len(path) >= self.limits.depth_max:
                    self.left_out["too deep"] += 1
                    continue
                if self.folders >= self.limits.folders_per_page:
                    self.stopped_at = (*path, *rest) if at_cursor else path
                    return
                self._enter(descriptor, path, rest if at_cursor else ())
                if self.stopped_at is not None:
                    return
            elif not (at_cursor and not rest):
                self._file(found, path)
                if len(self.entries) == self.wanted:
                    self.stopped_at = path
                    return

    def _enter(self, descriptor: int, path: Parts, after: Parts) -> None:
        try:
            child = os.open(path[-1], _FOLDER, dir_fd=descriptor)
        except OSError:  # gone, a link by now, or not for us
            self.left_out["unreadable"] += 1
            return
        try:
            self.folder(child, path, after)
        finally:
            os.close(child)

    def _file(self, found: os.DirEntry[str], path: Parts) -> None:
        try:
            known = found.stat(follow_symlinks=False)
        except OSError:
            self.left_out["unreadable"] += 1
            return
        if not stat.S_ISREG(known.st_mode):
            self.left_out["link" if stat.S_ISLNK(known.st_mode) else "special file"] += 1
            return
        self.entries.append(_entry("/".join((*self.prefix, *path)), "/".join(path), known))

    def _sorted(self, descriptor: int, first: str) -> list[os.DirEntry[str]]:
        """What is in the folder from the name *first* on, in order."""
        kept = []
        with os.scandir(descriptor) as found:
            for count, entry in enumerate(found, 1):
                if count > self.limits.names_max:
                    raise SourceUnreadable(f"a folder has more than {self.limits.names_max} names")
                if entry.name >= first:
                    kept.append(entry)
        return sorted(kept, key=lambda entry: entry.name)


def _step(descriptor: int, part: str) -> int:
    """The folder *part* of the folder *descriptor*, which is closed."""
    try:
        return os.open(part, _FOLDER, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _entry(file_id: str, name: str, found: os.stat_result) -> Entry:
    return Entry(
        id=file_id,
        name=name,
        size=found.st_size,
        modified=datetime.fromtimestamp(found.st_mtime, UTC),
        content_type=content_types.of_name(name),
        identity=f"stat:{found.st_ino}-{found.st_size}-{found.st_mtime_ns}",
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _explained(file_id: str) -> Iterator[None]:
    """What the system says of *file_id*, as a `SourceError` without any path of this machine."""
    try:
        yield
    except SourceError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise EntryNotFound(file_id) from None
    except PermissionError:
        raise EntryRefused(file_id, "Pharos may not read it on this machine") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise EntryRefused(file_id, "it is a symbolic link") from None
        if error.errno == errno.ENXIO:
            raise EntryRefused(file_id, "it is no ordinary file") from None
        if error.errno == errno.ENAMETOOLONG:
            raise EntryNotFound(file_id) from None
        raise SourceUnavailable(f"{shown(file_id)} could not be read from the disk") from None
