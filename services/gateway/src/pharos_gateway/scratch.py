"""A folder for files that end with the process: archives that are looked into, repositories listed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from anyio import to_thread

from pharos_sources.removal import remove_tree

PREFIX: Final = "process-"


class Scratch:
    """A folder below *parent* for this process alone, made when it is first asked for.

    Several gateways may have one home. A process holds a lock on its folder: one without was left behind by
    a process that was killed, and the next that makes one removes it.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._making = asyncio.Lock()
        self._made: tuple[Path, int] | None = None

    async def folder(self) -> Path:
        """The folder. OSError."""
        async with self._making:
            if self._made is None:
                self._made = await to_thread.run_sync(_make, self._parent)
        return self._made[0]

    async def close(self) -> None:
        """Nobody uses it any more."""
        if self._made is not None:
            folder, lock = self._made
            self._made = None
            await to_thread.run_sync(_remove, folder)
            os.close(lock)


def _make(parent: Path) -> tuple[Path, int]:
    """A new folder below *parent*, and what holds the lock on it."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # One process after the other, so that none removes a folder whose owner has not locked it yet.
    one_at_a_time = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for folder in parent.glob(f"{PREFIX}*"):
            lock = _lock(folder)
            if lock is not None:
                _remove(folder)
                os.close(lock)
        made = Path(mkdtemp(prefix=PREFIX, dir=parent))
        lock = _lock(made)
        assert lock is not None, "nobody else knows it"
        return made, lock
    finally:
        os.close(one_at_a_time)


def _lock(folder: Path) -> int | None:
    """The lock on *folder*; None where a living process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path) -> None:
    with suppress(OSError):  # what stays, the next process tries again
        remove_tree(folder)
