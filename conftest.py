"""What holds for every test here: where it writes, how what it logs is rendered, and the event loop.

It writes into a folder of this run alone, in memory where there is room for it. What is synced is synced
there as well, so a crash of a process leaves what it would leave on a disk; the disk's own speed, which is
most of the waiting for several hundred buses, is what no test is about.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import psutil
import pytest
import structlog

from pharos_sources.removal import remove_tree

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
_ROOM_BYTES: Final = 8 << 30  # several times what the tests hold at once
_scratch = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    # As the services do, before anything loads torch: its threads spin at barriers, and others work as well.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # As the services do: what structlog does by itself renders the local variables of every frame, which
    # takes seconds for those of an index, in the thread of an event loop that others wait for.
    *before, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*before, plain])
    if hasattr(config, "workerinput"):
        return  # it inherits what was chosen
    tempfile.tempdir = None  # what was found before
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = str(_IN_MEMORY)
    scratch = Path(tempfile.mkdtemp(prefix="pharos-tests-"))
    os.environ["TMPDIR"] = str(scratch)
    tempfile.tempdir = str(scratch)
    config.stash[_scratch] = scratch


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes that cannot be read give a test no name: those of an archive differ with the second they are
    made in, and processes that share out tests have to find the same ones."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


def _has_room() -> bool:
    """Whether there is a file system in memory, with room in it and in the memory itself."""
    if not _IN_MEMORY.is_dir():
        return False
    return min(shutil.disk_usage(_IN_MEMORY).free, psutil.virtual_memory().available) > _ROOM_BYTES


def pytest_unconfigure(config: pytest.Config) -> None:
    if (scratch := config.stash.get(_scratch, None)) is not None:
        with contextlib.suppress(OSError):
            remove_tree(scratch)  # tests make trees of a depth that ends shutil's own


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests run on the loop that the services run on."""
    return "asyncio"
