"""What a repository's manifests say of its modules: go.mod, tsconfig, package.json, Cargo.toml. Pure.

The texts are a stranger's: one that cannot be read is as good as absent.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

_COMMENT_OR_STRING: Final = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_COMMA_OR_STRING: Final = re.compile(r'("(?:[^"\\\n]|\\.)*")|,(?=\s{0,200}[}\]])')
_GO_MODULE: Final = re.compile(r'^[ \t]*module[ \t]+"?([^\s"]+)', re.MULTILINE)
_EXTENDS_MAX: Final = 8
_ENTRIES_MAX: Final = 32


class PathMapping(msgspec.Struct, frozen=True, kw_only=True):
    """`compilerOptions` of one tsconfig: `base` is the folder of `baseUrl` (None: not set), `paths` its
    patterns with their targets, already relative to the repository."""

    base: str | None = None
    paths: tuple[tuple[str, tuple[str, ...]], ...] = ()


class NodePackage(msgspec.Struct, frozen=True, kw_only=True):
    """One package.json: its folder, and the files that it names as its entry."""

    folder: str
    entries: tuple[str, ...] = ()


class Crate(msgspec.Struct, frozen=True, kw_only=True):
    """One Cargo package: its folder, and the paths that it names for its library and its binaries."""

    folder: str
    name: str
    library: str = "src/lib.rs"
    binaries: tuple[str, ...] = ()


class RepositoryConfigs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything read, keyed for the resolvers. Folders are relative to the root, which is ""."""

    go_modules: tuple[tuple[str, str], ...] = ()
    """(module path, folder), the longest path first."""
    path_mappings: Mapping[str, PathMapping] = msgspec.field(default_factory=dict)
    """Folder → what its tsconfig.json or jsconfig.json says."""
    node_packages: Mapping[str, NodePackage] = msgspec.field(default_factory=dict)
    """Name → package."""
    crates: Mapping[str, Crate] = msgspec.field(default_factory=dict)
    """Folder → crate."""

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> Self:
        """From path → text of the manifests; other files in *texts* are passed over."""
        go: list[tuple[str, str]] = []
        mappings: dict[str, PathMapping] = {}
        packages: dict[str, NodePackage] = {}
        crates: dict[str, Crate] = {}
        for path, text in sorted(texts.items()):
            folder, name = posixpath.split(path)
            if name == "go.mod":
                if (module := _GO_MODULE.search(text)) is not None:
                    go.append((module[1], folder))
            elif name in {"tsconfig.json", "jsconfig.json"}:
                mapping = _path_mapping(path, texts)
                if mapping is not None and (name == "tsconfig.json" or folder not in mappings):
                    mappings[folder] = mapping
            elif name == "package.json":
                found = _node_package(folder, text)
                if found is not None:
                    packages.setdefault(*found)
            elif name == "Cargo.toml" and (crate := _crate(folder, text)) is not None:
                crates[folder] = crate
        go.sort(key=lambda item: (-len(item[0]), item[1]))
        return cls(go_modules=tuple(go), path_mappings=mappings, node_packages=packages, crates=crates)


def joined(folder: str, path: str) -> str | None:
    """*path* from *folder*, normalised; None if it leads out of the repository."""
    made = posixpath.normpath(posixpath.join(folder, path))
    if made == ".":
        return ""
    return None if made == ".." or made.startswith(("../", "/")) else made


def _json_object(text: str) -> dict[str, Any]:
    plain = _COMMENT_OR_STRING.sub(lambda found: found[1] or "", text)
    plain = _COMMA_OR_STRING.sub(lambda found: found[1] or "", plain)
    try:
        return msgspec.json.decode(plain, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def _path_mapping(path: str, texts: Mapping[str, str]) -> PathMapping | None:
    """The mapping of the tsconfig at *path*, with what it extends by a relative path."""
    base: str | None = None
    patterns: tuple[tuple[str, tuple[str, ...]], ...] | None = None
    seen: set[str] = set()
    while path in texts and path not in seen and len(seen) < _EXTENDS_MAX:
        seen.add(path)
        folder = posixpath.dirname(path)
        content = _json_object(texts[path])
        options = _section(content, "compilerOptions")
        url = options.get("baseUrl")
        own = joined(folder, url) if isinstance(url, str) else None
        base = own if base is None else base
        if patterns is None and isinstance(options.get("paths"), dict):
            patterns = tuple(_patterns(options["paths"], folder if own is None else own))
        extended = content.get("extends")
        if not isinstance(extended, str) or not extended.startswith("."):
            break
        target = joined(folder, extended) or ""
        path = target if target in texts else f"{target}.json"
    return PathMapping(base=base, paths=patterns or ()) if base is not None or patterns else None


def _patterns(paths: Mapping[str, Any], folder: str) -> list[tuple[str, tuple[str, ...]]]:
    made: list[tuple[str, tuple[str, ...]]] = []
    for pattern, targets in paths.items():
        if isinstance(targets, list) and pattern.count("*") <= 1:
            inside = [joined(folder, target) for target in targets if isinstance(target, str)]
            made.append((pattern, tuple(target for target in inside if target is not None)))
    # TypeScript takes the pattern with the longest part before the star.
    made.sort(key=lambda item: ("*" in item[0], -len(item[0].partition("*")[0])))
    return made


def _node_package(folder: str, text: str) -> tuple[str, NodePackage] | None:
    content = _json_object(text)
    name = content.get("name")
    if not isinstance(name, str) or not name:
        return None
    named: list[str] = []
    stack: list[Any] = [
        content.get("types"),
        content.get("main"),
        content.get("module"),
        content.get("exports"),
        content.get("source"),
    ]
    while stack and len(named) < _ENTRIES_MAX:
        value = stack.pop()
        if isinstance(value, str):
            target = joined(folder, value)
            if target is not None:
                named.append(target)
        elif isinstance(value, dict):
            inner = value.get(".", value)
            stack.extend(reversed(list(inner.values())) if isinstance(inner, dict) else [inner])
    return name, NodePackage(folder=folder, entries=tuple(dict.fromkeys(named)))


def _crate(folder: str, text: str) -> Crate | None:
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    name = _section(content, "package").get("name")
    if not isinstance(name, str):
        return None
    library = _section(content, "lib")
    path = library.get("path")
    binaries = content.get("bin")
    named = library.get("name")
    return Crate(
        folder=folder,
        name=(named if isinstance(named, str) else name).replace("-", "_"),
        library=joined(folder, path if isinstance(path, str) else "src/lib.rs") or "",
        binaries=tuple(
            joined(folder, one["path"]) or ""
            for one in (binaries if isinstance(binaries, list) else [])
            if isinstance(one, dict) and isinstance(one.get("path"), str)
        ),
    )
