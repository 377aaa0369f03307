"""Java: packages are what the files say they are; a class is found by its package and name, nested ones
too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import Final

from pharos_embedder.resolution.tree import shared_folders
from pharos_embedder.syntax import Import, ParsedFile

_TYPE_KINDS: Final = frozenset({"class", "interface", "enum"})


class JavaResolver:
    """Knows every class by its full name, and the files of every package; of several classes of one name the
    one whose file lies nearest is meant.
    """

    def __init__(self, files: Iterable[ParsedFile]) -> None:
        self._classes: dict[str, list[str]] = {}
        self._packages: dict[str, list[str]] = {}
        for file in files:
            if file.language != "java":
                continue
            self._packages.setdefault(file.package, []).append(file.path)
            for one in file.definitions:
                if one.kind in _TYPE_KINDS:
                    name = f"{file.package}.{one.symbol}" if file.package else one.symbol
                    self._classes.setdefault(name, []).append(file.path)

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The other files of the package; of those of one name the nearest."""
        by_name: dict[str, list[str]] = {}
        folder = posixpath.dirname(file.path)
        for path in self._packages.get(file.package, ()):
            # A file without a package is read with those beside it.
            if path != file.path and (file.package or posixpath.dirname(path) == folder):
                by_name.setdefault(posixpath.basename(path), []).append(path)
        return [_nearest(paths, file.path) for paths in by_name.values()]

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The class's file; for `import p.*` those of the classes that the file uses, of all where it uses
        none.
        """
        name = one.names[0].name if one.names else ""
        if name != "*":
            full = f"{one.module}.{name}" if one.module else name
            found = self._class(full, file) or self._class(one.module, file)
            if found is not None:
                return (found,)
            return () if one.module in self._packages or self._is_ours(one.module) else None
        if (owner := self._class(one.module, file)) is not None:
            return (owner,)
        package = self._packages.get(one.module)
        if package is None:
            return () if self._is_ours(one.module) else None
        used = (self._class(f"{one.module}.{each.name}", file) for each in one.names[1:])
        taken = dict.fromkeys(path for path in used if path is not None)
        return tuple(taken) or tuple(path for path in package if path != file.path)

    def _class(self, name: str, file: ParsedFile) -> str | None:
        paths = self._classes.get(name)
        return _nearest(paths, file.path) if paths else None

    def _is_ours(self, package: str) -> bool:
        """Whether *package*, of which there is no file, lies in one of which there are some."""
        above = package.rpartition(".")[0]
        while above.count(".") > 0:
            if above in self._packages:
                return True
            above = above.rpartition(".")[0]
        return False


def _nearest(paths: Sequence[str], path: str) -> str:
    return min(paths, key=lambda one: (-shared_folders(one, path), one))
