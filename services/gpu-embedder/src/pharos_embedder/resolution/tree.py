"""The paths of a repository, asked by name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator


class Tree:
    """Files and folders that there are; folders are relative to the root, which is ""."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.files = frozenset(paths)
        self.by_folder: dict[str, list[str]] = {}
        folders = {""}
        for path in sorted(self.files):
            folder = posixpath.dirname(path)
            self.by_folder.setdefault(folder, []).append(path)
            while folder and folder not in folders:
                folders.add(folder)
                folder = posixpath.dirname(folder)
        self.folders = frozenset(folders)

    def first(self, *candidates: str) -> str | None:
        """The first of *candidates* that is a file."""
        return next((path for path in candidates if path in self.files), None)


def above(folder: str) -> Iterator[str]:
    """*folder*, the one above it, and so on to the root."""
    while folder:
        yield folder
        folder = posixpath.dirname(folder)
    yield ""


def below(folder: str, name: str) -> str:
    """The path of *name* in *folder*."""
    return f"{folder}/{name}" if folder else name
