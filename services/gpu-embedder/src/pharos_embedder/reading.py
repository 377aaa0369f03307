"""Reading a file of a stranger's tree: through no link, no device or pipe, no more than asked."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, bytes_max: int) -> bytes | None:
    """The first *bytes_max* bytes of a regular file that is no link; None for anything else or unreadable."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(opened, "rb") as file:
        try:
            return file.read(bytes_max) if stat.S_ISREG(os.fstat(opened).st_mode) else None
        except OSError:
            return None
