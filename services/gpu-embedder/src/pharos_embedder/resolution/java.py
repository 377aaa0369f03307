"""Java: packages are what the files say they are; a class is found by its package and name, nested ones
too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pharos_embedder.syntax import Import, ParsedFile


class JavaResolver:
    """Knows every class by its full name, and the files of every package."""

    def __init__(self, files: Iterable[ParsedFile]) -> None:
        self._classes: dict[str, str] = {}
        self._packages: dict[str, list[str]] = {}
        for file in files:
            self._packages.setdefault(file.package, []).append(file.path)
            for one in file.definitions:
                if one.kind in {"class", "interface", "enum"}:
                    name = f"{file.package}.{one.symbol}" if file.package else one.symbol
                    self._classes.setdefault(name, file.path)

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The other files of the package."""
        return [path for path in self._packages.get(file.package, ()) if path != file.path]

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The class's file, or all files of a package for `import p.*`."""
        name = one.names[0].name if one.names else ""
        if name != "*":
            full = f"{one.module}.{name}" if one.module else name
            found = self._classes.get(full) or self._classes.get(one.module)
            return (found,) if found is not None else self._missing(one.module)
        if (owner := self._classes.get(one.module)) is not None:
            return (owner,)
        if (package := self._packages.get(one.module)) is not None:
            return tuple(path for path in package if path != file.path)
        return None

    def _missing(self, package: str) -> tuple[str, ...] | None:
        return () if package in self._packages else None
