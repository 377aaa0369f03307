"""Whether the disk has room for more work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

MiB: Final = 1024 * 1024
FRESH_SECONDS: Final = 1.0


class DiskNearlyFull(Exception):
    """Less is free than must be; ``free_mb`` and ``min_mb`` are MiB."""

    def __init__(self, free_mb: int, min_mb: int) -> None:
        super().__init__(
            f"The disk is nearly full: {free_mb} MiB are free and {min_mb} must be. "
            "Make room, then try again."
        )
        self.free_mb = free_mb
        self.min_mb = min_mb


def free_bytes(path: Path) -> int:
    """What is free where *path* is, or would be. OSError."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Disk:
    """The disk that *home* is on, looked at once a second at most. ``min_mb`` 0 is enough for anything."""

    def __init__(
        self,
        home: Path,
        min_mb: int,
        *,
        free: Callable[[Path], int] = free_bytes,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._home = home
        self._min_mb = min_mb
        self._free = free
        self._clock = clock
        self._found_mb = 0
        self._looked_at: float | None = None

    def __deepcopy__(self, _: dict[int, Any]) -> Disk:
        return self  # Litestar copies the guards of a route

    def check(self) -> None:
        """DiskNearlyFull."""
        if not self._min_mb:
            return
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= FRESH_SECONDS:
            self._found_mb = self._free(self._home) // MiB
            self._looked_at = now
        if self._found_mb < self._min_mb:
            raise DiskNearlyFull(self._found_mb, self._min_mb)

    async def has_room(self, _: ASGIConnection[Any, Any, Any, Any], __: BaseRouteHandler) -> None:
        """The guard of routes that start a job; it follows the one that lets the caller in."""
        self.check()
