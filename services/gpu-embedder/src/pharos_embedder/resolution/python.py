"""Python: absolute and relative imports, packages with and without `__init__.py`, `src` layouts, scripts."""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pharos_embedder.manifests.paths import above
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.tree import Tree, below
from pharos_embedder.syntax import Import, ParsedFile

_PROJECT_FILES: Final = ("pyproject.toml", "setup.py", "setup.cfg")
_SOURCE_FOLDERS: Final = ("src", "lib", "python")
_MODULE_ENDINGS: Final = (".py", "/__init__.py", ".pyi", "/__init__.pyi", ".pyx")
_PACKAGE_FILES: Final = ("__init__.py", "__init__.pyi")
_ROOTS_MAX: Final = 200
"""Roots that are looked into for one import, the nearest first: a name like `tests` is in every project."""
_SCOPES: Final = frozenset({"function", "method", "class"})


class PythonResolver:
    """Knows the folders that are import roots: the root, those of each project file and their `src`, and the
    folder above each outermost package that has an `__init__.py`; and what such a file binds besides modules.
    """

    def __init__(self, tree: Tree, files: Iterable[ParsedFile], configs: RepositoryConfigs) -> None:
        self._tree = tree
        packages = {
            posixpath.dirname(path)
            for path in (*tree.files, *configs.python_markers)
            if posixpath.basename(path) in _PACKAGE_FILES
        }
        self._packages = frozenset(packages)
        projects = {
            posixpath.dirname(path) for path in tree.files if path.rpartition("/")[2] in _PROJECT_FILES
        }
        sources = {below(one, name) for one in projects | {""} for name in _SOURCE_FOLDERS}
        self._source_roots = frozenset((sources & tree.folders) - self._packages)
        self._tops = frozenset({""} | projects | self._source_roots) - self._packages
        outermost = {one for one in packages if posixpath.dirname(one) not in packages or not one}
        self._roots = frozenset(
            {""} | projects | self._source_roots | {posixpath.dirname(one) for one in outermost}
        )
        self._holding = self._tops_of_roots(tree)
        self._asked_last: tuple[str, dict[str, tuple[str, ...]]] = ("", {})
        self._bound = {
            file.path: names
            for file in files
            if file.language == "python"
            and posixpath.basename(file.path) in _PACKAGE_FILES
            and (names := _bound_names(file))
        }

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """None: Python has no implicit names."""
        return ()

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The module itself; for `from m import n` the module `m.n`, unless `m` binds `n` to something
        else.
        """
        folder = posixpath.dirname(file.path)
        if one.level:
            return self._relative(folder, one)
        top = one.module.partition(".")[0]
        if top in sys.stdlib_module_names:
            # A script's own folder comes before the standard library, which comes before what is installed.
            own = self._targets(below(folder, one.module), one) if self._is_script_folder(folder) else ()
            return own if own and own != (file.path,) and top not in sys.builtin_module_names else None
        target = one.module.replace(".", "/")
        found: dict[str, None] = {}
        for root in self._searched(folder, top):
            for path in self._targets(below(root, target), one):
                found[path] = None
            package = below(root, target)
            if found and (self._module(package) is not None or package in self._packages):
                break  # else a namespace package, of which other roots may have other parts
        if found:
            return tuple(path for path in found if path != file.path) or None
        return () if top in self._holding else None

    def _relative(self, folder: str, one: Import) -> tuple[str, ...]:
        for _ in range(one.level - 1):
            folder = posixpath.dirname(folder)
            if folder in self._tops:
                return ()  # beyond the outermost package
        target = below(folder, one.module.replace(".", "/")) if one.module else folder
        return self._targets(target, one)

    def _targets(self, target: str, one: Import) -> tuple[str, ...]:
        module = self._module(target)
        if not one.names:
            return (module,) if module is not None else ()
        bound = self._bound.get(module, frozenset()) if module is not None else frozenset()
        found: dict[str, None] = {}
        for name in one.names:
            inner = self._module(below(target, name.name)) if name.name not in bound else None
            path = inner if inner is not None else module
            if path is not None:
                found[path] = None
        return tuple(found)

    def _module(self, target: str) -> str | None:
        if not target:
            return self._tree.first(*_PACKAGE_FILES)
        files = self._tree.files
        for ending in _MODULE_ENDINGS:
            if (path := target + ending) in files:
                return path
        return None

    def _is_script_folder(self, folder: str) -> bool:
        """Whether files of *folder* are run as they are: it is no package, nor part of one without
        `__init__.py` below a source root.
        """
        if folder in self._packages:
            return False
        return folder in self._roots or not any(one in self._source_roots for one in above(folder))

    def _searched(self, folder: str, top: str) -> tuple[str, ...]:
        """As `_roots_for`. Those of one folder are remembered: its files come one after the other."""
        if self._asked_last[0] != folder:
            self._asked_last = folder, {}
        known = self._asked_last[1]
        if top not in known:
            known[top] = tuple(self._roots_for(folder, top))
        return known[top]

    def _roots_for(self, folder: str, top: str) -> Iterator[str]:
        """Where to look for the package *top*: a script's own folder, the roots, those nearest above first,
        and then whatever lies above without being a package.
        """
        chain = list(above(folder))
        if self._is_script_folder(folder):
            yield folder
        holding = self._holding.get(top, {})
        near = [one for one in chain if one in holding]
        yield from near
        yield from islice((one for one in holding if one not in near), max(0, _ROOTS_MAX - len(near)))
        yield from (one for one in chain if one not in self._packages)

    def _tops_of_roots(self, tree: Tree) -> dict[str, dict[str, None]]:
        """Name → the roots that hold a module or folder of modules of that name, in the order of their
        paths.
        """
        found: dict[str, set[str]] = {}
        folders: set[str] = set()
        for path in tree.files:
            ending = next((one for one in (".py", ".pyi", ".pyx") if path.endswith(one)), None)
            if ending is None:
                continue
            root, name = posixpath.split(path.removesuffix(ending))
            if root in self._roots:
                found.setdefault(name, set()).add(root)
            while root and root not in folders:
                folders.add(root)
                root, name = posixpath.split(root)
                if root in self._roots:
                    found.setdefault(name, set()).add(root)
        return {name: dict.fromkeys(sorted(roots)) for name, roots in found.items()}


def _bound_names(file: ParsedFile) -> frozenset[str]:
    """The names that a package binds to something that is not its module of that name: what it defines, and
    what it imports from within another module.
    """
    scopes = [(one.start_line, one.end_line) for one in file.definitions if one.kind in _SCOPES]
    names = {one.name for one in file.definitions if one.symbol == one.name}
    for one in file.imports:
        if any(start < one.line <= end for start, end in scopes):
            continue
        package = posixpath.basename(posixpath.dirname(file.path))
        of_itself = not one.module if one.level == 1 else one.module.rpartition(".")[2] == package
        if one.names and not of_itself:
            names.update(name.alias or name.name for name in one.names)
    return frozenset(names)
