"""Rust: `mod x;`, paths from `crate`, `self`, `super` and names in scope, and the other crates of the
repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pharos_embedder.manifests.cargo import Crate
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.rust_modules import Module, ModuleTree
from pharos_embedder.resolution.tree import Tree
from pharos_embedder.syntax import Import, ParsedFile

_STANDARD: Final = frozenset({"std", "core", "alloc", "proc_macro", "test"})
_FOLLOWED_MAX: Final = 8
"""Names that pass a name on, one after the other."""


class RustResolver:
    """Walks paths down the modules as they are declared. Modules that are passed on by `use` are followed;
    items are not: they are of the file in whose name they are asked for.
    """

    def __init__(self, tree: Tree, files: Iterable[ParsedFile], configs: RepositoryConfigs) -> None:
        self._crates = configs.crates
        self._by_package = {crate.name: crate for crate in reversed(list(configs.crates.values()))}
        self._modules = ModuleTree(tree, files, configs.crates)
        self._passed: dict[tuple[int, str], list[Module] | None] = {}

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """None: every name of another module is imported, or used by its path."""
        return ()

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The files of the last module on the path; there are several where `cfg` chooses one."""
        inline = self._modules.inline(file.path, one.line)
        modules = self._modules.of(file.path, inline)
        if one.kind == "module":
            found = [made for module in modules for made in module.declared(one.module, one.alias)]
            return tuple(dict.fromkeys(made.file for made in found))
        answers = [
            self._meant(module, one.module.split("::"), is_use=one.kind != "path") for module in modules
        ]
        paths = [path for answer in answers if answer for path in answer]
        if paths:
            return tuple(dict.fromkeys(paths))
        return () if any(answer is not None for answer in answers) else None

    def _meant(self, module: Module, parts: Sequence[str], *, is_use: bool) -> list[str] | None:
        found = self._find(module, parts, 0, is_use=is_use)
        if found is None:
            return None
        modules, rest = found
        if not modules or (rest and any(rest[0] in one.absent for one in modules)):
            return []
        return [one.file for one in modules]

    def _find(
        self, module: Module, parts: Sequence[str], depth: int, *, is_use: bool = True
    ) -> tuple[list[Module], Sequence[str]] | None:
        """The last modules on the path *parts* as *module* sees it, and what of the path is left; None for
        what is not of this repository.
        """
        if depth > _FOLLOWED_MAX or not parts:
            return None
        first, rest = parts[0], parts[1:]
        match first:
            case "crate" | "$crate":
                return self._descend([module.root], rest, depth)
            case "self":
                return self._descend([module], rest, depth)
            case "super":
                while parts and parts[0] == "super":
                    if module.parent is None:
                        return [], ()
                    module, parts = module.parent, parts[1:]
                return self._descend([module], parts, depth)
            case "":  # ::name is a crate
                found = self._crate_named(module, rest[0]) if rest else None
                return None if found is None else self._descend(found, rest[1:], depth)
        if first in _STANDARD and first not in module.children:
            return None
        scope = self._inside(module, first, depth)
        if not scope and is_use and module.crate is not None and module.crate.is_first_edition:
            scope = self._inside(module.root, first, depth)
        if not scope:
            scope = self._crate_named(module, first) or []
        if scope:
            return self._descend(scope, rest, depth)
        if first in module.absent:
            return [], ()
        return ([module], parts) if module.has_item(first) else None

    def _descend(
        self, modules: list[Module], parts: Sequence[str], depth: int
    ) -> tuple[list[Module], Sequence[str]]:
        while parts:
            inner = {id(one): one for module in modules for one in self._inside(module, parts[0], depth)}
            if not inner:
                break
            modules, parts = list(inner.values()), parts[1:]
        return modules, parts

    def _inside(self, module: Module, name: str, depth: int) -> list[Module]:
        """The modules that *name* means in *module*: its own, or ones that it passes on."""
        own = module.children.get(name)
        if own:
            return own
        key = id(module), name
        if key not in self._passed:
            self._passed[key] = None  # what is asked for again while it is looked for is not there
            self._passed[key] = self._passed_on(module, name, depth + 1)
        return self._passed[key] or []

    def _passed_on(self, module: Module, name: str, depth: int) -> list[Module]:
        for parts in module.uses.get(name, ()):
            found = self._find(module, parts, depth)
            if found is not None and not found[1]:
                return found[0]
        for parts in module.globs:
            found = self._find(module, parts, depth)
            if found is None or found[1]:
                continue
            inner = [one for other in found[0] if other is not module for one in other.children.get(name, ())]
            if inner:
                return inner
        return []

    def _crate_named(self, module: Module, name: str) -> list[Module] | None:
        """The root of the library that *module* calls *name*."""
        crate = module.crate
        if crate is None:
            return None
        if name == crate.library_name and module.root.file != crate.library:
            return self._library(crate)
        for parts in module.root.uses.get(name, ()):  # extern crate x as name;
            if len(parts) == 1 and parts[0] != name:
                return self._crate_named(module, parts[0])
        dependency = crate.dependencies.get(name)
        if dependency is None:
            return None
        other = self._crates.get(dependency.folder) if dependency.folder is not None else None
        other = other or self._by_package.get(dependency.package)
        return None if other is None else self._library(other)

    def _library(self, crate: Crate) -> list[Module] | None:
        return self._modules.of(crate.library, ()) or None
