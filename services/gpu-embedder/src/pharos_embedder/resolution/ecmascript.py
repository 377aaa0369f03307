"""JavaScript and TypeScript: relative paths, index files, guessed extensions, tsconfig `paths`,
workspaces.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Final

from pharos_embedder.repository_configs import RepositoryConfigs, joined
from pharos_embedder.resolution.tree import Tree, above, below
from pharos_embedder.syntax import Import, ParsedFile

_EXTENSIONS: Final = (
    ".ts", ".tsx", ".mts", ".cts", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".json", ".vue", ".svelte",
)  # fmt: skip
_WRITTEN: Final = {".js": (".ts", ".tsx"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}
"""A TypeScript file is imported by the name of its output."""
_OUTPUT: Final = re.compile(r"(^|/)(?:dist|build|lib|out|esm|cjs)/(?:(?:esm|cjs|types)/)?")


class EcmaScriptResolver:
    """Asks the file system first, then the nearest tsconfig, then the packages of the workspace."""

    def __init__(self, tree: Tree, configs: RepositoryConfigs) -> None:
        self._tree = tree
        self._configs = configs

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """None: modules have no implicit names."""
        return ()

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """One file at most."""
        module = one.module.partition("?")[0]  # bundlers take options after a question mark
        folder = posixpath.dirname(file.path)
        if module.startswith((".", "/")):
            target = joined(folder, module) if module.startswith(".") else joined("", module.lstrip("/"))
            found = self._file(target) if target is not None else None
            return (found,) if found is not None else ()
        for target in self._mapped(folder, module):
            if (found := self._file(target)) is not None:
                return (found,)
        if (package := self._package_of(module)) is not None:
            name, rest = package
            found = self._in_package(name, rest)
            return (found,) if found is not None else ()
        return None

    def _file(self, target: str) -> str | None:
        """The file that *target* means, by the rules of bundlers; a folder means its package.json or its
        index.
        """
        if target in self._tree.files:
            return target
        stem, extension = posixpath.splitext(target)
        written = [stem + other for other in _WRITTEN.get(extension, ())]
        guessed = [target + extension for extension in _EXTENSIONS] if target else []
        index = [below(target, f"index{extension}") for extension in _EXTENSIONS]
        return self._tree.first(*written, *guessed, *index)

    def _mapped(self, folder: str, module: str) -> Iterator[str]:
        for one in above(folder):
            mapping = self._configs.path_mappings.get(one)
            if mapping is None:
                continue
            for pattern, targets in mapping.paths:
                before, star, after = pattern.partition("*")
                if module == pattern:
                    yield from targets
                elif star and module.startswith(before) and module.endswith(after):
                    filled = module[len(before) : len(module) - len(after)]
                    if len(module) >= len(before) + len(after):
                        yield from (target.replace("*", filled) for target in targets)
            if mapping.base is not None:
                yield below(mapping.base, module)
            break
        if module.startswith(("@/", "~/")):  # what bundlers' templates agree on where nothing is configured
            for one in above(folder):
                yield below(one, f"src/{module[2:]}")
                yield below(one, module[2:])

    def _package_of(self, module: str) -> tuple[str, str] | None:
        """The workspace package that *module* names, and the path below it."""
        parts = module.split("/")
        for count in (2, 1) if module.startswith("@") else (1,):
            name = "/".join(parts[:count])
            if name in self._configs.node_packages:
                return name, "/".join(parts[count:])
        return None

    def _in_package(self, name: str, rest: str) -> str | None:
        package = self._configs.node_packages[name]
        if rest:
            found = self._file(below(package.folder, rest))
            return found if found is not None else self._file(below(package.folder, f"src/{rest}"))
        for entry in package.entries:
            for candidate in (
                entry,
                _OUTPUT.sub(r"\1src/", entry, count=1),
            ):  # outputs are not in a repository
                stem = candidate.removesuffix(".d.ts")
                if (found := self._file(candidate) or self._file(posixpath.splitext(stem)[0])) is not None:
                    return found
        return self._file(below(package.folder, "src")) or self._file(package.folder)
