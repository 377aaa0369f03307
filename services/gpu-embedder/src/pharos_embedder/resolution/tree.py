"""The paths of a repository, asked by name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from pharos_embedder.manifests.paths import above

_FEW: Final = 16  # files that are gone through one by one
NEIGHBOURS_MAX: Final = 10_000_000
"""Of the files of one package, taken together: in a package where they would be more (3,000 files and above)
a file has none, and its names are linked where they are defined once in the repository.
"""


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


class SameNamed:
    """Files that go by one name, of which the one nearest to another file is asked for: the one that shares
    the most folders with it, and of those the first by its path. A question takes as long as a path is deep.
    """

    __slots__ = ("_firsts", "_paths")

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}
        self._firsts: dict[str, tuple[str, ...]] = {}  # folder → the first two of the files below it

    def add(self, path: str) -> None:
        """Before the first question."""
        self._paths[path] = None

    def nearest(self, path: str) -> str:
        """The one nearest to *path*: that file itself, if it is one of them."""
        if path in self._paths:
            return path
        found = self.nearest_other(path)
        assert found is not None, "it was made because there is one"
        return found

    def nearest_other(self, path: str) -> str | None:
        """The nearest but *path* itself; None where there is no other."""
        if len(self._paths) <= _FEW:
            others = [one for one in self._paths if one != path]
            return min(others, key=lambda one: (-shared_folders(one, path), one), default=None)
        if not self._firsts:
            for one in sorted(self._paths):
                for folder in above(posixpath.dirname(one)):
                    known = self._firsts.get(folder, ())
                    if len(known) < 2:
                        self._firsts[folder] = (*known, one)
        for folder in above(posixpath.dirname(path)):
            for one in self._firsts.get(folder, ()):
                if one != path:
                    return one
        return None


def shared_folders(one: str, other: str) -> int:
    """How many folders two paths share from the root."""
    return sum(
        1
        for _ in takewhile(
            lambda pair: pair[0] == pair[1], zip(one.split("/"), other.split("/"), strict=False)
        )
    )
