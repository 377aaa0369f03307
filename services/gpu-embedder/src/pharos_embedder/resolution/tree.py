"""The paths of a repository, asked by name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from itertools import takewhile


class Tree:
    """Files and folders that there are, and what lies right in a folder; folders are relative to the root,
    which is "".
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.files = frozenset(paths)
        self.by_folder: dict[str, list[str]] = {}
        self.inner: dict[str, list[str]] = {}
        folders = {""}
        for path in sorted(self.files):
            folder = posixpath.dirname(path)
            self.by_folder.setdefault(folder, []).append(path)
            while folder and folder not in folders:
                folders.add(folder)
                self.inner.setdefault(posixpath.dirname(folder), []).append(folder)
                folder = posixpath.dirname(folder)
        self.folders = frozenset(folders)

    def first(self, *candidates: str) -> str | None:
        """The first of *candidates* that is a file."""
        return next((path for path in candidates if path in self.files), None)


def below(folder: str, name: str) -> str:
    """The path of *name* in *folder*."""
    return f"{folder}/{name}" if folder else name


def shared_folders(one: str, other: str) -> int:
    """How many folders two paths share from the root."""
    return sum(
        1
        for _ in takewhile(
            lambda pair: pair[0] == pair[1], zip(one.split("/"), other.split("/"), strict=False)
        )
    )
