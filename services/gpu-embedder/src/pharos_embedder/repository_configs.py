"""What a repository's manifests say of its modules: go.mod, tsconfig, package.json, Cargo.toml,
CMakeLists.txt, compile_commands.json. Pure.

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
_CMAKE_COMMENT: Final = re.compile(r"#[^\n]*")
_CMAKE_INCLUDES: Final = re.compile(r"\b(?:target_)?include_directories\s*\(([^()]{0,4000})\)", re.IGNORECASE)
_CMAKE_PROJECT: Final = re.compile(r"^[ \t]*project\s*\(", re.IGNORECASE | re.MULTILINE)
_CMAKE_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_CMAKE_BUILD_INTERFACE: Final = re.compile(r"\$<BUILD_INTERFACE:([^<>]*)>")
_CMAKE_WORDS: Final = frozenset({"AFTER", "BEFORE", "SYSTEM", "INTERFACE", "PUBLIC", "PRIVATE"})
_INCLUDE_FLAG: Final = re.compile(r"(?<!\S)-(?:I|isystem|iquote)\s*(?:\"([^\"]+)\"|(\S+))")
_INCLUDE_FOLDERS_MAX: Final = 200
"""Include folders that one file may name."""
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
    include_folders: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Folder → where the C and C++ files below it look for headers; an absolute path is one of the machine
    that made a compile_commands.json."""

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> Self:
        """From path → text of the manifests; other files in *texts* are passed over."""
        go: list[tuple[str, str]] = []
        mappings: dict[str, PathMapping] = {}
        packages: dict[str, NodePackage] = {}
        crates: dict[str, Crate] = {}
        includes: dict[str, tuple[str, ...]] = {}
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
            elif name == "CMakeLists.txt":
                includes[folder] = (*includes.get(folder, ()), *_cmake_folders(path, texts))
            elif name == "compile_commands.json":
                includes[folder] = (*includes.get(folder, ()), *_command_folders(folder, text))
            elif name == "Cargo.toml" and (crate := _crate(folder, text)) is not None:
                crates[folder] = crate
        go.sort(key=lambda item: (-len(item[0]), item[1]))
        return cls(
            go_modules=tuple(go),
            path_mappings=mappings,
            node_packages=packages,
            crates=crates,
            include_folders={folder: named for folder, named in includes.items() if named},
        )


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


def _cmake_folders(path: str, texts: Mapping[str, str]) -> list[str]:
    """The include folders that the CMakeLists.txt at *path* names, as far as they are literal or start at a
    folder that CMake has a variable for.
    """
    folder = posixpath.dirname(path)
    plain = _CMAKE_COMMENT.sub("", texts[path])
    commands = list(_CMAKE_INCLUDES.finditer(plain))
    if not commands:
        return []
    above = [""] + [folder[:at] for at in range(1, len(folder) + 1) if folder[at : at + 1] in {"", "/"}]
    listed = [one for one in above if posixpath.join(one, "CMakeLists.txt") in texts]
    projects = [one for one in listed if _CMAKE_PROJECT.search(texts[posixpath.join(one, "CMakeLists.txt")])]
    variables = {
        "CMAKE_CURRENT_SOURCE_DIR": folder,
        "CMAKE_CURRENT_LIST_DIR": folder,
        "CMAKE_SOURCE_DIR": listed[0],
        "PROJECT_SOURCE_DIR": projects[-1] if projects else listed[0],
    }
    made: dict[str, None] = {}
    for command in commands:
        words = command[1].split()
        targeted = command[0].lower().startswith("target")
        for word in words[1:] if targeted else words:
            if word in _CMAKE_WORDS:
                continue
            named = _cmake_path(word.strip('"'), folder, variables)
            if named is not None and len(made) < _INCLUDE_FOLDERS_MAX:
                made[named] = None
    return list(made)


def _cmake_path(word: str, folder: str, variables: Mapping[str, str]) -> str | None:
    """The folder that *word* names, relative to the repository; None for what only CMake can say."""
    word = _CMAKE_BUILD_INTERFACE.sub(r"\1", word)
    start = _CMAKE_VARIABLE.match(word)
    if start is not None:
        base = variables.get(start[1])
        # ${Name_SOURCE_DIR} is the folder in which project(Name) stands.
        if base is None and start[1].endswith("_SOURCE_DIR"):
            base = variables["PROJECT_SOURCE_DIR"]
        if base is None:
            return None
        folder, word = base, word[start.end() :].lstrip("/")
    return None if "$" in word else joined(folder, word or ".")


class _CompileCommand(msgspec.Struct, frozen=True, kw_only=True):
    directory: str = ""
    command: str = ""
    arguments: tuple[str, ...] = ()


def _command_folders(folder: str, text: str) -> list[str]:
    """The `-I` folders of a compile_commands.json in *folder*."""
    try:
        commands = msgspec.json.decode(text, type=list[_CompileCommand])
    except (msgspec.DecodeError, RecursionError):
        return []
    made: dict[str, None] = {}
    for one in commands:
        flags = " ".join((one.command, *one.arguments))
        for found in _INCLUDE_FLAG.finditer(flags):
            if len(made) >= _INCLUDE_FOLDERS_MAX:
                return list(made)
            base = one.directory if one.directory.startswith("/") else posixpath.join(folder, one.directory)
            path = posixpath.normpath(posixpath.join(base, found[1] or found[2]))
            if path.startswith("/"):
                made[path] = None
            elif (inside := joined("", path)) is not None:
                made[inside] = None
    return list(made)
