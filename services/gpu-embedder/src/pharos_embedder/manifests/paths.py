"""Paths as manifests write them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator


def joined(folder: str, path: str) -> str | None:
    """*path* from *folder*, normalised; None if it leads out of the repository."""
    made = posixpath.normpath(posixpath.join(folder, path))
    if made == ".":
        return ""
    return None if made == ".." or made.startswith(("../", "/")) else made


def above(folder: str) -> Iterator[str]:
    """*folder*, the one above it, and so on to the root."""
    while folder:
        yield folder
        folder = posixpath.dirname(folder)
    yield ""
