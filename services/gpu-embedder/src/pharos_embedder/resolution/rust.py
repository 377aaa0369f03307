"""Rust: `mod x;`, paths from `crate`, `self` and `super`, sibling modules, and the other crates of the
workspace.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

from pharos_embedder.repository_configs import Crate, RepositoryConfigs
from pharos_embedder.resolution.tree import Tree, above, below
from pharos_embedder.syntax import Import, ParsedFile

_ROOT_NAMES: Final = frozenset({"lib.rs", "main.rs", "mod.rs", "build.rs"})
_ROOT_FOLDERS: Final = frozenset({"bin", "tests", "examples", "benches"})
_STANDARD: Final = frozenset({"std", "core", "alloc", "proc_macro"})


class RustResolver:
    """Walks module paths down the folders, as the compiler does where no `#[path]` says otherwise."""

    def __init__(self, tree: Tree, configs: RepositoryConfigs) -> None:
        self._tree = tree
        self._crates = configs.crates
        self._by_name = {crate.name: crate for crate in configs.crates.values()}

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """None: every name of another module is imported, or used by its path."""
        return ()

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The file of the deepest module on the path; the rest of it are items in that file."""
        parts = [part for part in one.module.split("::") if part]
        around = [
            definition.name
            for definition in file.definitions
            if definition.kind == "module" and definition.start_line <= one.line <= definition.end_line
        ]
        if one.kind == "module":
            return self._mod(file, around, parts)
        return self._path(file, len(around), parts)

    def _mod(self, file: ParsedFile, around: Sequence[str], parts: Sequence[str]) -> tuple[str, ...]:
        folder = self._module_folder(file.path)
        found = self._descend(below(folder, "/".join(around)) if around else folder, parts)
        return (found,) if found is not None else ()

    def _path(self, file: ParsedFile, inline: int, parts: list[str]) -> tuple[str, ...] | None:
        if not parts or parts[0] in _STANDARD:
            return None
        folder = self._module_folder(file.path)
        match parts[0]:
            case "crate":
                return self._in_crate(file, parts[1:])
            case "self":
                return self._found(self._descend(folder, parts[1:]), file.path)
            case "super":
                climbs = 0
                while climbs < len(parts) and parts[climbs] == "super":
                    climbs += 1
                rest = parts[climbs:]
                climbs -= inline
                if climbs <= 0:  # a module inside this file
                    return self._found(self._descend(folder, rest), file.path)
                for _ in range(climbs):
                    folder = posixpath.dirname(folder)
                return self._found(self._descend(folder, rest), self._module_file(folder))
        found = self._descend(folder, parts)
        if found is not None:
            return (found,)
        if (crate := self._by_name.get(parts[0])) is not None:  # another of the workspace, or its own library
            return self._found(self._descend(posixpath.dirname(crate.library), parts[1:]), crate.library)
        return None

    def _in_crate(self, file: ParsedFile, rest: Sequence[str]) -> tuple[str, ...]:
        root = self._crate_root(file.path)
        if root is None:
            return ()
        return self._found(self._descend(posixpath.dirname(root), rest), root)

    def _found(self, *candidates: str | None) -> tuple[str, ...]:
        path = next((one for one in candidates if one is not None and one in self._tree.files), None)
        return (path,) if path is not None else ()

    def _descend(self, folder: str, parts: Sequence[str]) -> str | None:
        """The file of the deepest module that *parts* lead to from the modules in *folder*."""
        found: str | None = None
        for part in parts:
            file = self._tree.first(below(folder, f"{part}.rs"), below(folder, f"{part}/mod.rs"))
            if file is None:
                break
            found, folder = file, below(folder, part)
        return found

    def _module_folder(self, path: str) -> str:
        """The folder in which the child modules of the file *path* lie."""
        folder, name = posixpath.split(path)
        if name in _ROOT_NAMES or posixpath.basename(folder) in _ROOT_FOLDERS or self._is_named_root(path):
            return folder
        return below(folder, name.removesuffix(".rs"))

    def _is_named_root(self, path: str) -> bool:
        crate = self._crate_of(path)
        return crate is not None and (path == crate.library or path in crate.binaries)

    def _module_file(self, folder: str) -> str | None:
        """The file of the module whose children lie in *folder*."""
        return self._tree.first(
            *(below(folder, name) for name in ("mod.rs", "lib.rs", "main.rs")), f"{folder}.rs"
        )

    def _crate_of(self, path: str) -> Crate | None:
        return next(
            (self._crates[one] for one in above(posixpath.dirname(path)) if one in self._crates), None
        )

    def _crate_root(self, path: str) -> str | None:
        """The file that `crate` means in *path*: the nearest root above it, its crate's library otherwise."""
        if self._module_folder(path) == posixpath.dirname(path) and posixpath.basename(path) != "mod.rs":
            return path
        for folder in above(posixpath.dirname(path)):
            root = self._tree.first(below(folder, "lib.rs"), below(folder, "main.rs"))
            if root is not None:
                return root
            if folder in self._crates:
                break
        crate = self._crate_of(path)
        return crate.library if crate is not None else None
