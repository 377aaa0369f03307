"""Python: absolute and relative imports, packages with and without `__init__.py`, `src` layouts, scripts."""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from pharos_embedder.resolution.tree import Tree, above, below
from pharos_embedder.syntax import Import, ParsedFile

_PROJECT_FILES: Final = ("pyproject.toml", "setup.py", "setup.cfg")
_CONVENTIONAL_ROOTS: Final[tuple[str, ...]] = ("", "src", "lib", "python")


class PythonResolver:
    """Knows the folders that are import roots: conventional ones, those of each project file and its `src`,
    and the folder above each outermost package that has an `__init__.py`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        roots: set[str] = {folder for folder in _CONVENTIONAL_ROOTS if folder in tree.folders}
        for path in tree.files:
            folder, name = posixpath.split(path)
            if name in _PROJECT_FILES:
                roots.update(one for one in (folder, below(folder, "src")) if one in tree.folders)
            elif name == "__init__.py":
                while folder and below(posixpath.dirname(folder), "__init__.py") in tree.files:
                    folder = posixpath.dirname(folder)
                roots.add(posixpath.dirname(folder))
        self._roots = sorted(roots)

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """None: Python has no implicit names."""
        return ()

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The module itself, and for `from m import n` each `m/n.py` there is."""
        if one.level:
            return self._relative(file, one)
        parts = one.module.split(".")
        if len(parts) == 1 and parts[0] in sys.stdlib_module_names:
            return None
        for root in self._roots_for(file):
            found = self._targets(below(root, "/".join(parts)), one)
            found = tuple(path for path in found if path != file.path)
            if found:
                return found
        known = any(below(root, parts[0]) in self._tree.folders for root in self._roots)
        return () if known and parts[0] not in sys.stdlib_module_names else None

    def _relative(self, file: ParsedFile, one: Import) -> tuple[str, ...]:
        folder = posixpath.dirname(file.path)
        for _ in range(one.level - 1):
            if not folder:
                return ()
            folder = posixpath.dirname(folder)
        target = below(folder, one.module.replace(".", "/")) if one.module else folder
        return self._targets(target, one)

    def _targets(self, target: str, one: Import) -> tuple[str, ...]:
        names = [name.name for name in one.names if name.name != "*"]
        submodules = [self._module(below(target, name)) for name in names]
        found = [path for path in submodules if path is not None]
        if not names or len(found) < len(names) or len(one.names) > len(names):
            module = self._module(target)
            found.extend([module] if module is not None else [])
        return tuple(dict.fromkeys(found))

    def _module(self, target: str) -> str | None:
        if not target:
            return self._tree.first("__init__.py")
        return self._tree.first(
            f"{target}.py", f"{target}/__init__.py", f"{target}.pyi", f"{target}/__init__.pyi"
        )

    def _roots_for(self, file: ParsedFile) -> Iterator[str]:
        """The roots, those nearest above *file* first; its own folder last, as for a script."""
        folder = posixpath.dirname(file.path)
        chain = {one: depth for depth, one in enumerate(above(folder))}
        known = sorted(self._roots, key=lambda root: (chain.get(root, len(chain)), root))
        yield from known
        if folder not in known and below(folder, "__init__.py") not in self._tree.files:
            yield folder
