"""JavaScript and TypeScript: relative paths, index files, guessed extensions, tsconfig, packages of the
workspace with their `exports` and `imports`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pharos_embedder.manifests.ecmascript import NodePackage, TsConfig, Workspace
from pharos_embedder.manifests.paths import above, joined
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.tree import Tree, below, shared_folders
from pharos_embedder.syntax import Import, ParsedFile

_TYPED: Final = (
    ".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mts", ".cts", ".mjs", ".cjs", ".json", ".vue", ".svelte",
)  # fmt: skip
_UNTYPED: Final = (
    ".js", ".jsx", ".mjs", ".cjs", ".json", ".ts", ".tsx", ".mts", ".cts", ".d.ts", ".vue", ".svelte",
)  # fmt: skip
_WRITTEN: Final = {
    ".js": (".ts", ".tsx", ".d.ts"),
    ".jsx": (".tsx", ".ts", ".d.ts"),
    ".mjs": (".mts", ".d.mts", ".ts"),
    ".cjs": (".cts", ".d.cts", ".ts"),
}
"""A TypeScript file is imported by the name of its output."""
_OUTPUT: Final = re.compile(r"(^|/)(?:dist|build|lib|out|esm|cjs|es)/(?:(?:esm|cjs|types|src)/)*")
_DECLARED: Final = re.compile(r"\.d\.([mc]?)ts$")
_SOURCE_FOLDERS: Final = ("src", "source")
_TARGETS_MAX: Final = 64
_NESTING_MAX: Final = 8


class EcmaScriptResolver:
    """Asks the file system first, then the nearest tsconfig, then the packages of the workspace."""

    def __init__(self, tree: Tree, configs: RepositoryConfigs) -> None:
        self._tree = tree
        self._configs = configs
        self._by_name: dict[str, list[NodePackage]] = {}
        for package in configs.node_packages.values():
            if package.name:
                self._by_name.setdefault(package.name, []).append(package)
        self._linked = {name for package in configs.node_packages.values() for name in package.linked}
        self._seen: dict[tuple[str, str], NodePackage | None] = {}
        self._held: dict[tuple[int, str], bool] = {}

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """None: modules have no implicit names."""
        return ()

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """One file at most."""
        # Bundlers take loaders before an exclamation mark, and options after a question mark.
        module = one.module.rpartition("!")[2].partition("?")[0]
        folder = posixpath.dirname(file.path)
        asked = _Asked(typed=file.language in {"typescript", "tsx"}, required=one.kind == "require")
        if module.startswith((".", "/")):
            found = self._first(self._places(folder, module), asked, only_folder=_names_folder(module))
            return () if found is None else (found,)
        if module.startswith("#"):
            return self._private(folder, module, asked)
        mapped, is_mapped = self._mapped(folder, module)
        if (found := self._first(mapped, asked)) is not None:
            return (found,)
        if (name := self._package_name(module)) is not None:
            package = self._visible(folder, name)
            if package is not None:
                found = self._in_package(package, module[len(name) + 1 :], asked)
                return () if found is None else (found,)
        if (found := self._first(self._conventional(folder, module), asked)) is not None:
            return (found,)
        return () if is_mapped else None

    def _first(self, targets: Iterator[str], asked: _Asked, *, only_folder: bool = False) -> str | None:
        return next(
            (one for each in targets if (one := self._file(each, asked, only_folder=only_folder))), None
        )

    def _file(self, target: str, asked: _Asked, *, only_folder: bool = False) -> str | None:
        """The file that *target* means; a folder means its package.json or its index."""
        extensions = _TYPED if asked.typed else _UNTYPED
        if target and not only_folder:
            stem, extension = posixpath.splitext(target)
            written = [stem + other for other in _WRITTEN.get(extension, ())]
            exact = [*written, target] if asked.typed else [target, *written]
            found = self._tree.first(*exact, *(target + each for each in extensions))
            if found is not None:
                return found
        if target not in self._tree.folders:
            return None
        package = self._configs.node_packages.get(target)
        if package is not None:
            for entry in self._entries(package, asked):
                if entry != target and (found := self._source(package, entry, asked)) is not None:
                    return found
        return self._tree.first(*(below(target, f"index{each}") for each in extensions))

    def _places(self, folder: str, module: str) -> Iterator[str]:
        """Where a relative path leads: from the file's folder, and from the others of `rootDirs`."""
        if module.startswith("/"):  # what a server has at its root
            tops = [*(one for one in above(folder) if one in self._configs.node_packages), ""]
            yield from (one for top in tops if (one := joined(top, module.lstrip("/"))) is not None)
            return
        target = joined(folder, module)
        if target is None:
            return
        yield target
        for config in self._ts_configs(folder):
            for root in config.root_dirs:
                if target.startswith(f"{root}/"):
                    rest = target[len(root) + 1 :]
                    yield from (below(other, rest) for other in config.root_dirs if other != root)

    def _ts_configs(self, folder: str) -> Sequence[TsConfig]:
        """Those of the nearest tsconfig, and of ones above it as long as not all of what it extends is
        known.
        """
        made: list[TsConfig] = []
        for one in above(folder):
            made.extend(self._configs.ts_configs.get(one, ()))
            if made and all(config.whole for config in made):
                break
        return made

    def _mapped(self, folder: str, module: str) -> tuple[Iterator[str], bool]:
        """Where tsconfigs say that *module* lies, and whether one names it by a pattern of its own."""
        targets: list[str] = []
        is_mapped = False
        for config in self._ts_configs(folder):
            found = _matched(config, module)
            if found is not None:
                pattern, filled = found
                targets.extend(filled)
                is_mapped = is_mapped or not pattern.startswith("*")
            elif config.base is not None:
                targets.append(below(config.base, module))
        return iter(targets), is_mapped

    def _conventional(self, folder: str, module: str) -> Iterator[str]:
        """What bundlers' templates agree on where nothing is configured."""
        if module.startswith(("@/", "~/")):
            for one in above(folder):
                yield below(one, f"src/{module[2:]}")
                yield below(one, module[2:])

    def _private(self, folder: str, module: str, asked: _Asked) -> tuple[str, ...] | None:
        """By the `imports` of the nearest package.json."""
        package = next((p for one in above(folder) if (p := self._configs.node_packages.get(one))), None)
        if package is None or not isinstance(package.imports, dict):
            return ()
        for target in _asked_targets(package.imports, module, asked):
            if target.startswith("."):
                place = joined(package.folder, target)
                found = None if place is None else self._source(package, place, asked)
                if found is not None:
                    return (found,)
            elif (name := self._package_name(target)) is None or (
                other := self._visible(folder, name)
            ) is None:
                return None
            elif (found := self._in_package(other, target[len(name) + 1 :], asked)) is not None:
                return (found,)
        return ()

    def _package_name(self, module: str) -> str | None:
        parts = module.split("/")
        name = "/".join(parts[: 2 if module.startswith("@") else 1])
        return name if name in self._by_name or name in self._linked else None

    def _visible(self, folder: str, name: str) -> NodePackage | None:
        key = folder, name
        if key not in self._seen:
            self._seen[key] = self._looked_up(folder, name)
        return self._seen[key]

    def _looked_up(self, folder: str, name: str) -> NodePackage | None:
        """The package that a file in *folder* means by *name*: its own, one that its package.json links, one
        of the workspace, or the nearest of that name where nobody declares a workspace.
        """
        for one in above(folder):
            package = self._configs.node_packages.get(one)
            if package is None:
                continue
            if package.name == name and package.exports is not None:
                return package
            if (linked := package.linked.get(name)) is not None:
                return self._configs.node_packages.get(linked)
        named = self._by_name.get(name, [])
        around = [one for one in self._configs.workspaces if _is_below(folder, one.folder)]
        if around:
            named = [package for package in named if any(self._holds(one, package.folder) for one in around)]
        return min(named, key=lambda one: (-shared_folders(folder, one.folder), one.folder), default=None)

    def _holds(self, workspace: Workspace, folder: str) -> bool:
        """As the workspace says, asked once: each folder that imports the package asks again."""
        key = id(workspace), folder  # a folder may be the root of several
        if key not in self._held:
            self._held[key] = workspace.holds(folder)
        return self._held[key]

    def _in_package(self, package: NodePackage, rest: str, asked: _Asked) -> str | None:
        """The file that a package gives under the path *rest*: by its `exports` alone where it has some."""
        if package.exports is not None:
            key = f"./{rest}" if rest else "."
            for target in _asked_targets(package.exports, key, asked):
                place = joined(package.folder, target)
                if place is not None and (found := self._source(package, place, asked)) is not None:
                    return found
            return None if rest else self._conventional_entry(package, asked)
        if rest:
            return self._source(package, below(package.folder, rest), asked) or self._first(
                (below(package.folder, f"{one}/{rest}") for one in _SOURCE_FOLDERS), asked
            )
        for entry in self._entries(package, asked):
            if (found := self._source(package, entry, asked)) is not None:
                return found
        return self._conventional_entry(package, asked)

    def _conventional_entry(self, package: NodePackage, asked: _Asked) -> str | None:
        places = [*(below(package.folder, one) for one in _SOURCE_FOLDERS), package.folder]
        extensions = _TYPED if asked.typed else _UNTYPED
        return self._tree.first(*(below(place, f"index{each}") for place in places for each in extensions))

    def _entries(self, package: NodePackage, asked: _Asked) -> tuple[str, ...]:
        return (*package.types, *package.main) if asked.typed else (*package.main, *package.types)

    def _source(self, package: NodePackage, target: str, asked: _Asked) -> str | None:
        """The file *target* of a package, or where that is an output the source that it is made from:
        outputs are not in a repository.
        """
        if (found := self._file(target, asked)) is not None:
            return found
        places: list[str] = []
        for config in self._configs.ts_configs.get(package.folder, ()):
            roots = [below(package.folder, one) for one in _SOURCE_FOLDERS]
            if config.root is not None:
                roots = [config.root]
            for output in config.outputs:
                if target.startswith(f"{output}/"):
                    places.extend(below(root, target[len(output) + 1 :]) for root in roots)
        inside = target[len(package.folder) :].lstrip("/")
        for folder in ("src/", "source/", ""):
            guessed, count = _OUTPUT.subn(rf"\g<1>{folder}", inside, count=1)
            if count:
                places.append(below(package.folder, guessed))
        for place in places:
            found = self._file(_DECLARED.sub(r".\1js", place), asked)
            if found is not None:
                return found
        return None


class _Asked:
    """Who asks, which decides what is looked for first, and under which conditions of `exports`."""

    def __init__(self, *, typed: bool, required: bool) -> None:
        self.typed = typed
        conditions = {"node", "module-sync", "default", "require" if required else "import"}
        self.conditions = frozenset(conditions | {"types"} if typed else conditions)


def _names_folder(module: str) -> bool:
    return module.endswith("/") or module.rpartition("/")[2] in {".", ".."}


def _is_below(folder: str, top: str) -> bool:
    return not top or folder == top or folder.startswith(f"{top}/")


def _matched(config: TsConfig, module: str) -> tuple[str, list[str]] | None:
    """The best pattern of `paths` for *module*, and its targets."""
    for pattern, targets in config.paths:
        before, star, after = pattern.partition("*")
        if module == pattern:
            return pattern, list(targets)
        fits = len(module) >= len(before) + len(after)
        if star and fits and module.startswith(before) and module.endswith(after):
            filled = module[len(before) : len(module) - len(after)]
            return pattern, [target.replace("*", filled) for target in targets]
    return None


def _asked_targets(table: Any, key: str, asked: _Asked) -> list[str]:
    """The targets of `exports` or `imports` for *key*: those of the conditions that hold in the order in
    which they stand, then any other; none where a package says that there is none.
    """
    if not isinstance(table, dict) or not any(str(each).startswith((".", "#")) for each in table):
        table = {".": table}
    value, star = table.get(key), ""
    if key not in table or "*" in key:
        best = ""
        for pattern in table:
            before, found, after = pattern.partition("*")
            if not found and pattern.endswith("/"):
                before, found = pattern, "/"
            if (
                found
                and key.startswith(before)
                and key.endswith(after)
                and len(key) >= len(before) + len(after)
                and len(before) >= len(best.partition("*")[0])
            ):
                best, value = pattern, table[pattern]
                star = key[len(before) : len(key) - len(after)]
        if not best:
            return []
        if best.endswith("/"):
            return [one + star for one in _leaves(value, asked.conditions)]
    holding = _leaves(value, asked.conditions)
    return [one.replace("*", star) for one in dict.fromkeys([*holding, *_leaves(value, None)])]


def _leaves(value: Any, conditions: frozenset[str] | None) -> list[str]:
    made: list[str] = []
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack and len(made) < _TARGETS_MAX:
        one, depth = stack.pop()
        if isinstance(one, str):
            made.append(one)
        elif isinstance(one, list) and depth < _NESTING_MAX:
            stack.extend((each, depth + 1) for each in reversed(one))
        elif isinstance(one, dict) and depth < _NESTING_MAX:
            stack.extend(
                (each, depth + 1)
                for condition, each in reversed(one.items())
                if conditions is None or condition in conditions
            )
    return made
