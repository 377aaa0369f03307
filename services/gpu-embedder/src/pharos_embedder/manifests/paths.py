"""Paths as manifests write them."""

from __future__ import annotations

import posixpath


def joined(folder: str, path: str) -> str | None:
    """*path* from *folder*, normalised; None if it leads out of the repository."""
    made = posixpath.normpath(posixpath.join(folder, path))
    if made == ".":
        return ""
    return None if made == ".." or made.startswith(("../", "/")) else made
