"""Go: an import is a folder below the module path of some go.mod; a package is all files of its folder."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.tree import Tree, below
from pharos_embedder.syntax import Import, ParsedFile


class GoResolver:
    """Knows the modules of the repository."""

    def __init__(self, tree: Tree, configs: RepositoryConfigs) -> None:
        self._tree = tree
        self._modules = configs.go_modules

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The other files of the package; a test file serves no other file."""
        folder = self._tree.by_folder.get(posixpath.dirname(file.path), ())
        return [path for path in folder if _is_source(path) and path != file.path]

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The files of the package that is imported, without its tests."""
        for module, folder in self._modules:
            if one.module == module or one.module.startswith(f"{module}/"):
                rest = one.module[len(module) + 1 :]
                package = below(folder, rest) if rest else folder
                return tuple(path for path in self._tree.by_folder.get(package, ()) if _is_source(path))
        return None


def _is_source(path: str) -> bool:
    return path.endswith(".go") and not path.endswith("_test.go")
