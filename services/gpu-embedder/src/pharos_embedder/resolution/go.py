"""Go: an import is a folder below the module path of some go.mod; a package is all files of its folder."""

from __future__ import annotations

import posixpath
from collections import ChainMap, Counter
from collections.abc import Iterable, Sequence

from pharos_embedder.manifests.go import GoModule
from pharos_embedder.manifests.paths import above
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.tree import NEIGHBOURS_MAX, Tree, below
from pharos_embedder.syntax import Import, ParsedFile


class GoResolver:
    """Knows the modules of the repository, which of them a module means by a path, and the files of
    packages.
    """

    def __init__(self, tree: Tree, files: Iterable[ParsedFile], configs: RepositoryConfigs) -> None:
        self._tree = tree
        self._modules = {module.folder: module for module in configs.go_modules}
        self._folders = {module.path: module.folder for module in reversed(configs.go_modules)}
        self._works = configs.go_works
        self._work_of: dict[str, int] = {}
        for place, work in enumerate(configs.go_works):
            for folder in work.used:
                self._work_of.setdefault(folder, place)
        self._of_works: dict[int, dict[str, str]] = {}
        self._seen: dict[str, ChainMap[str, str]] = {}
        named: dict[str, dict[str, list[str]]] = {}
        for file in files:
            if file.language == "go" and not file.path.endswith("_test.go"):
                folder = posixpath.dirname(file.path)
                named.setdefault(folder, {}).setdefault(file.package, []).append(file.path)
        self._packages = {folder: tuple(sorted(_importable(found))) for folder, found in named.items()}
        self._names = {
            path: name for found in named.values() for name, paths in found.items() for path in paths
        }

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The other files of the package; a test file serves no other file."""
        folder = self._tree.by_folder.get(posixpath.dirname(file.path), ())
        if len(folder) ** 2 > NEIGHBOURS_MAX:
            return ()
        package = file.package.removesuffix("_test") if file.path.endswith("_test.go") else file.package
        return [path for path in folder if self._names.get(path) == package and path != file.path]

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The files of the package that is imported, without its tests and the programs that lie beside
        it.
        """
        modules = self._modules_for(posixpath.dirname(file.path))
        path = one.module
        while path:  # the longest module path that it begins with
            if (top := modules.get(path)) is not None:
                folder = below(top, one.module[len(path) + 1 :]) if path != one.module else top
                is_own = self._module_of(folder) in {top, None}
                return self._packages.get(folder, ()) if is_own else ()
            path = path.rpartition("/")[0]
        return None

    def _module_of(self, folder: str) -> str | None:
        return next((one for one in above(folder) if one in self._modules), None)

    def _modules_for(self, folder: str) -> ChainMap[str, str]:
        """Module path → folder, as the module around *folder* sees it: itself first, then what it replaces,
        then its workspace with what its modules replace, then any other of the repository.
        """
        own = self._module_of(folder)
        key = own if own is not None else ""
        if key not in self._seen:
            module = self._modules.get(key)
            work = self._work_of.get(key)
            around = _replaced([module] if module is not None else []) if work is None else self._inside(work)
            # Each module sees nearly the same: what they share is there once.
            made = ChainMap({}, around, self._folders)
            if module is not None:
                made[module.path] = module.folder
            self._seen[key] = made
        return self._seen[key]

    def _inside(self, work: int) -> dict[str, str]:
        """Module path → folder, as the workspace *work* says."""
        if work not in self._of_works:
            used = self._works[work].used
            members = [self._modules[one] for one in used if one in self._modules]
            made = _replaced(members)
            made.update((one.path, one.folder) for one in members)
            made.update(self._works[work].replaced)
            self._of_works[work] = made
        return self._of_works[work]


def _replaced(modules: Iterable[GoModule]) -> dict[str, str]:
    return {path: folder for module in modules for path, folder in module.replaced}


def _importable(named: dict[str, list[str]]) -> list[str]:
    """The files of the package of a folder: what lies there of another name is a program that is left out of
    it, or broken.
    """
    counts = Counter({name: len(paths) for name, paths in named.items()})
    counts["main"] = min(counts["main"], 0) if len(named) > 1 else counts["main"]
    ((name, _),) = counts.most_common(1)
    return named[name]
