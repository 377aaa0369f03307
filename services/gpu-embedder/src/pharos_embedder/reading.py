"""Reading a file of a stranger's tree: through no link, no device or pipe, no more than asked."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_BLOCK_BYTES: Final = 64 * 1024


def read_regular(path: Path, bytes_max: int) -> bytes | None:
    """The first *bytes_max* bytes of a regular file that is no link; None for anything else or unreadable."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(opened)
        return _read(opened, status.st_size, bytes_max) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None
    finally:
        os.close(opened)


def _read(opened: int, size: int, bytes_max: int) -> bytes:
    """*size* is a guess, since a file may grow; room for *bytes_max* would be 100 MB for each file."""
    parts: list[bytes] = []
    left = bytes_max
    while left > 0 and (part := os.read(opened, min(left, size + 1))):
        parts.append(part)
        left -= len(part)
        size = max(size, _BLOCK_BYTES)
    return parts[0] if len(parts) == 1 else b"".join(parts)
