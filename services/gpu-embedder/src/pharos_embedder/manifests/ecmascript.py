"""package.json, tsconfig.json, pnpm-workspace.yaml and lerna.json."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
import yaml

from pharos_embedder.manifests.paths import joined

_COMMENT_OR_STRING: Final = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_COMMA_OR_STRING: Final = re.compile(r'("(?:[^"\\\n]|\\.)*")|,(?=\s{0,200}[}\]])')
_EXTENDS_MAX: Final = 8
_REFERENCES_MAX: Final = 32
_ROOTS_MAX: Final = 64
_PATTERNS_MAX: Final = 2_000  # of one config
_ALL_PATTERNS_MAX: Final = 200_000  # some 300 bytes each
_PATTERN_TARGETS_MAX: Final = 16
_GLOBS_MAX: Final = 200
_GLOB_CHARS_MAX: Final = 200
_GLOB_STARS_MAX: Final = 2  # in a name: each is looked for in every folder
_YAML_CHARS_MAX: Final = 16 * 1024
_CONFIG_FOLDER: Final = "${configDir}"
_LINKS: Final = ("file:", "link:", "portal:")
_DEPENDENCIES: Final = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")


Patterns = tuple[tuple[str, tuple[str, ...]], ...]


class TsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`compilerOptions` of one tsconfig with all that it extends, every path relative to the repository.

    `base` is the folder of `baseUrl` (None: not set); `paths` are patterns with their targets, the most exact
    first; `outputs` the folders that it writes to, `root` the folder whose tree it writes there. `whole` is
    false where something that it extends is not in the repository.
    """

    base: str | None = None
    paths: Patterns = ()
    root_dirs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    root: str | None = None
    whole: bool = True


class NodePackage(msgspec.Struct, frozen=True, kw_only=True):
    """One package.json: its folder, its name (empty: none), the files that it names as its entry, the values
    of `exports` and `imports` as they stand, and the folders that its dependencies name by a path.
    """

    folder: str
    name: str = ""
    types: tuple[str, ...] = ()
    main: tuple[str, ...] = ()
    exports: Any = None
    imports: Any = None
    linked: Mapping[str, str] = msgspec.field(default_factory=dict)


class Glob(msgspec.Struct, frozen=True):
    """A pattern of folders: `*` is a part of a name, `**` any number of folders. Matched without going back
    over a name, so that no pattern takes long.
    """

    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Glob:
        return cls(tuple(part for part in text.split("/") if part not in {"", "."}))

    def matches(self, parts: Sequence[str]) -> bool:
        """Whether it means the folder of these *parts*."""
        reached = self._passed({0})  # how many parts of the pattern may have been used up so far
        for part in parts:
            reached = self._passed(
                {
                    place if self.parts[place] == "**" else place + 1
                    for place in reached
                    if place < len(self.parts)
                    and (self.parts[place] == "**" or _is_named(part, self.parts[place]))
                }
            )
        return len(self.parts) in reached and (self.parts[-1:] != ("**",) or len(parts) >= len(self.parts))

    def _passed(self, reached: set[int]) -> set[int]:
        """*reached*, and what lies behind each `**` there, which may stand for nothing."""
        made = set(reached)
        for place, part in enumerate(self.parts):
            if part == "**" and place in made:
                made.add(place + 1)
        return made


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """The folder of a workspace's root, and what it says of its members' folders."""

    folder: str
    members: tuple[Glob, ...]
    others: tuple[Glob, ...]

    def holds(self, folder: str) -> bool:
        """Whether the package in *folder* belongs to it."""
        if folder == self.folder:
            return True
        if self.folder and not folder.startswith(f"{self.folder}/"):
            return False
        parts = folder[len(self.folder) :].lstrip("/").split("/")
        return any(one.matches(parts) for one in self.members) and not any(
            one.matches(parts) for one in self.others
        )


def json_object(text: str) -> dict[str, Any]:
    """The object in *text*, comments and trailing commas allowed; empty where there is none."""
    plain = _COMMENT_OR_STRING.sub(lambda found: found[1] or "", text)
    plain = _COMMA_OR_STRING.sub(lambda found: found[1] or "", plain)
    try:
        return msgspec.json.decode(plain, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def node_package(folder: str, text: str) -> NodePackage | None:
    """What the package.json in *folder* says; None if it is no JSON object."""
    content = json_object(text)
    if not content:
        return None
    name = content.get("name")
    linked = {
        dependency: target
        for section in _DEPENDENCIES
        for dependency, version in _section(content, section).items()
        if isinstance(version, str) and version.startswith(_LINKS)
        if (target := joined(folder, version.partition(":")[2])) is not None
    }
    return NodePackage(
        folder=folder,
        name=name if isinstance(name, str) else "",
        types=_targets(folder, content, ("types", "typings")),
        main=_targets(folder, content, ("source", "module", "main")),
        exports=content.get("exports"),
        imports=content.get("imports"),
        linked=linked,
    )


def workspace(path: str, text: str) -> Workspace | None:
    """What the package.json, lerna.json or pnpm-workspace.yaml at *path* says of a workspace, if it says
    so.
    """
    folder, name = posixpath.split(path)
    if name == "pnpm-workspace.yaml":
        content = _yaml_object(text)
        patterns = content.get("packages")
    else:
        content = json_object(text)
        patterns = content.get("packages" if name == "lerna.json" else "workspaces")
        if isinstance(patterns, dict):
            patterns = patterns.get("packages")
    if not isinstance(patterns, list):
        return None
    globs = [one for one in patterns if isinstance(one, str) and _is_glob(one)][:_GLOBS_MAX]
    return Workspace(
        folder=folder,
        members=tuple(Glob.of(one) for one in globs if not one.startswith("!")),
        others=tuple(Glob.of(one[1:]) for one in globs if one.startswith("!")),
    )


class TsConfigs:
    """The tsconfigs of a repository. Each text is read once, and what it says of paths is one value however
    many extend it: a thousand packages may extend one config that names them all.
    """

    def __init__(self, texts: Mapping[str, str], packages: Mapping[str, str]) -> None:
        """*texts* by path; *packages* is name → folder."""
        self._texts = texts
        self._packages = packages
        self._objects: dict[str, dict[str, Any]] = {}
        self._shared: dict[tuple[str, str], Patterns] = {}  # by path, and the folder that targets start from
        self._patterns_left = _ALL_PATTERNS_MAX

    def at(self, path: str) -> tuple[TsConfig, ...]:
        """What the tsconfig at *path* says, then those beside it that it refers to."""
        folder = posixpath.dirname(path)
        references = self._object(path).get("references")
        named = [path]
        for one in (references if isinstance(references, list) else [])[:_REFERENCES_MAX]:
            target = one.get("path") if isinstance(one, dict) else None
            beside = joined(folder, target) if isinstance(target, str) else None
            if beside is not None and beside in self._texts and posixpath.dirname(beside) == folder:
                named.append(beside)
        return tuple(self._config(one) for one in dict.fromkeys(named))

    def _object(self, path: str) -> dict[str, Any]:
        if path not in self._objects:
            self._objects[path] = json_object(self._texts[path])
        return self._objects[path]

    def _config(self, path: str) -> TsConfig:
        chain, whole = self._extended(path)
        own_folder = posixpath.dirname(path)
        made = TsConfig(whole=whole)
        for one in chain:  # what is extended first, so that what extends it overrides
            folder, options = posixpath.dirname(one), _section(self._object(one), "compilerOptions")
            changed: dict[str, Any] = {}

            def placed(value: Any, folder: str = folder) -> str | None:
                if not isinstance(value, str):
                    return None
                if value.startswith(_CONFIG_FOLDER):
                    return joined(own_folder, "." + value.removeprefix(_CONFIG_FOLDER))
                return joined(folder, value)

            base = placed(options.get("baseUrl"))
            if base is not None:
                changed["base"] = base
            if isinstance(options.get("paths"), dict):
                anchor = base if base is not None else made.base
                changed["paths"] = self._patterns(one, folder if anchor is None else anchor, own_folder)
            if isinstance(options.get("rootDirs"), list):
                found = [placed(each) for each in options["rootDirs"][:_ROOTS_MAX]]
                changed["root_dirs"] = tuple(each for each in found if each is not None)
            outputs = [placed(options.get(name)) for name in ("outDir", "declarationDir")]
            if any(outputs):
                changed["outputs"] = tuple(each for each in outputs if each)
            if (root := placed(options.get("rootDir"))) is not None:
                changed["root"] = root
            made = msgspec.structs.replace(made, **changed)
        return made

    def _extended(self, path: str) -> tuple[list[str], bool]:
        """The config at *path* and what it extends, the most basic first; and whether all of it was found."""
        chain: list[str] = []
        whole = True
        stack = [path]
        seen: set[str] = set()
        while stack and len(seen) < _EXTENDS_MAX:
            one = stack.pop()
            if one in seen:
                continue
            seen.add(one)
            chain.append(one)
            extended = self._object(one).get("extends")
            for name in extended[:_EXTENDS_MAX] if isinstance(extended, list) else [extended]:
                if not isinstance(name, str):
                    continue
                places = _candidates(posixpath.dirname(one), name, self._packages)
                found = next((each for each in places if each in self._texts), None)
                if found is None:
                    whole = False
                else:
                    stack.append(found)
        return chain[::-1], whole

    def _patterns(self, path: str, anchor: str, own_folder: str) -> Patterns:
        """The `paths` of the config at *path*, for one in *own_folder*; the most exact first."""
        if (shared := self._shared.get((path, anchor))) is not None:
            return shared
        said = _section(_section(self._object(path), "compilerOptions"), "paths")
        paths = {
            pattern: [each for each in targets[:_PATTERN_TARGETS_MAX] if isinstance(each, str)]
            for pattern, targets in islice(said.items(), min(_PATTERNS_MAX, self._patterns_left))
            if isinstance(targets, list) and pattern.count("*") <= 1
        }
        self._patterns_left -= len(paths)
        made = _placed(paths, anchor, own_folder)
        if not any(each.startswith(_CONFIG_FOLDER) for targets in paths.values() for each in targets):
            self._shared[path, anchor] = made
        return made


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def _targets(folder: str, content: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    made = [joined(folder, value) for name in names if isinstance(value := content.get(name), str) and value]
    return tuple(dict.fromkeys(one for one in made if one is not None))


def _yaml_object(text: str) -> dict[str, Any]:
    if len(text) > _YAML_CHARS_MAX:
        return {}
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_glob(text: str) -> bool:
    """Whether *text* is like what people write, and cheap to compare."""
    return len(text) <= _GLOB_CHARS_MAX and all(
        part.count("*") <= _GLOB_STARS_MAX for part in text.split("/")
    )


def _is_named(name: str, pattern: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return name == first
    last = rest.pop()
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in rest:
        at = name.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _candidates(folder: str, name: str, packages: Mapping[str, str]) -> Iterator[str]:
    """Where the config *name* that one in *folder* extends may lie."""
    target: str | None
    if name.startswith((".", "/")):
        target = joined(folder, name)
    else:
        parts = name.split("/")
        count = 2 if name.startswith("@") else 1
        package = packages.get("/".join(parts[:count]))
        target = None if package is None else joined(package, "/".join(parts[count:]))
    if target is not None:
        yield from (target, f"{target}.json", f"{target}/tsconfig.json" if target else "tsconfig.json")


def _placed(paths: Mapping[str, Sequence[str]], folder: str, own_folder: str) -> Patterns:
    made: list[tuple[str, tuple[str, ...]]] = []
    for pattern, targets in paths.items():
        inside = [
            joined(own_folder, "." + target.removeprefix(_CONFIG_FOLDER))
            if target.startswith(_CONFIG_FOLDER)
            else joined(folder, target)
            for target in targets
        ]
        made.append((pattern, tuple(target for target in inside if target is not None)))
    # TypeScript takes the pattern with the longest part before the star.
    made.sort(key=lambda item: ("*" in item[0], -len(item[0].partition("*")[0])))
    return tuple(made)
