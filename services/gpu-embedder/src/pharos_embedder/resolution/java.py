"""Java: packages are what the files say they are; a class is found by its package and name, nested ones
too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import Final

from pharos_embedder.resolution.tree import NEIGHBOURS_MAX, SameNamed
from pharos_embedder.syntax import Import, ParsedFile

_TYPE_KINDS: Final = frozenset({"class", "interface", "enum"})


class JavaResolver:
    """Knows every class by its full name, and the files of every package; of several classes of one name the
    one whose file lies nearest is meant.
    """

    def __init__(self, files: Iterable[ParsedFile]) -> None:
        self._classes: dict[str, SameNamed] = {}
        self._packages: dict[str, dict[str, SameNamed]] = {}  # package → name of a file → files
        self._files: dict[str, list[str]] = {}  # package → files
        for file in files:
            if file.language != "java":
                continue
            self._files.setdefault(file.package, []).append(file.path)
            package = self._packages.setdefault(_package_of(file), {})
            package.setdefault(posixpath.basename(file.path), SameNamed()).add(file.path)
            for one in file.definitions:
                if one.kind in _TYPE_KINDS:
                    name = f"{file.package}.{one.symbol}" if file.package else one.symbol
                    self._classes.setdefault(name, SameNamed()).add(file.path)

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The other files of the package; of those of one name the nearest."""
        by_name = self._packages.get(_package_of(file), {})
        asking = self._files.get(file.package, ()) if file.package else by_name
        if len(by_name) * len(asking) > NEIGHBOURS_MAX:
            return ()
        others = (same.nearest_other(file.path) for same in by_name.values())
        return [path for path in others if path is not None]

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
            return () if one.module in self._files or self._is_ours(one.module) else None
        if (owner := self._class(one.module, file)) is not None:
            return (owner,)
        package = self._files.get(one.module)
        if package is None:
            return () if self._is_ours(one.module) else None
        used = (self._class(f"{one.module}.{each.name}", file) for each in one.names[1:])
        taken = dict.fromkeys(path for path in used if path is not None)
        return tuple(taken) or tuple(path for path in package if path != file.path)

    def _class(self, name: str, file: ParsedFile) -> str | None:
        same = self._classes.get(name)
        return same.nearest(file.path) if same is not None else None

    def _is_ours(self, package: str) -> bool:
        """Whether *package*, of which there is no file, lies in one of which there are some."""
        above = package.rpartition(".")[0]
        while above.count(".") > 0:
            if above in self._files:
                return True
            above = above.rpartition(".")[0]
        return False


def _package_of(file: ParsedFile) -> str:
    """What its package is called here: a file without one is read with those beside it."""
    return file.package or f"/{posixpath.dirname(file.path)}"
