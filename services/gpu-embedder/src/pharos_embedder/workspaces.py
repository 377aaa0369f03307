"""Where a process keeps what its jobs fetch, cleared at its start of what a killed one left there.

One home may have several processes of the embedder: one with the store, and workers beside it. Each has a
folder for itself and holds a lock on it, which the kernel lets go of when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pharos_sources.removal import remove_tree


class WorkspacesInUse(Exception):
    """Another process works in this folder; the text says what to change."""


@contextmanager
def own_workspaces(home: Path, worker: str | None) -> Iterator[Path]:
    """An empty folder of this process alone.

    *worker*: the name of a worker beside the process with the store; None for that process itself. Raises
    WorkspacesInUse; OSError where something that was left cannot be removed.
    """
    folder = home / "workspaces" if worker is None else home / "workers" / worker
    folder.parent.mkdir(parents=True, exist_ok=True)
    # One at a time starts: so no folder is taken while it is looked at whether it is anybody's.
    with (folder.parent / "workspaces.lock").open("ab") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        lock = _take(folder)
        if lock is None:
            raise WorkspacesInUse(
                f"Another process works in {folder}. Give each worker of a home a name of its own "
                "(PHAROS_WORKER_NAME)."
            )
        try:
            if worker is not None:
                _remove_abandoned(folder)
            remove_tree(folder)
            folder.mkdir(mode=0o700)
        except BaseException:
            os.close(lock)
            raise
    try:
        yield folder
    finally:
        os.close(lock)


def _remove_abandoned(own: Path) -> None:
    """Remove what workers left that were killed and did not come back under their name."""
    for folder in own.parent.iterdir():
        if folder == own or not folder.is_dir():
            continue
        lock = _take(folder)
        if lock is not None:
            try:
                remove_tree(folder)
                _lock_of(folder).unlink()
            finally:
                os.close(lock)


def _take(folder: Path) -> int | None:
    """The lock of *folder*; None where another process has it."""
    lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.in-use")
