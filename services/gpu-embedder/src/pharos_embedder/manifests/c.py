"""CMakeLists.txt and compile_commands.json."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from pharos_embedder.manifests.paths import joined

_CMAKE_COMMENT: Final = re.compile(r"#[^\n]*")
_CMAKE_INCLUDES: Final = re.compile(r"\b(?:target_)?include_directories\s*\(([^()]{0,4000})\)", re.IGNORECASE)
_CMAKE_PROJECT: Final = re.compile(r"^[ \t]*project\s*\(", re.IGNORECASE | re.MULTILINE)
_CMAKE_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
_CMAKE_BUILD_INTERFACE: Final = re.compile(r"\$<BUILD_INTERFACE:([^<>]*)>")
_CMAKE_WORDS: Final = frozenset({"AFTER", "BEFORE", "SYSTEM", "INTERFACE", "PUBLIC", "PRIVATE"})
_INCLUDE_FLAG: Final = re.compile(r"(?<!\S)-(?:I|isystem|iquote)\s*(?:\"([^\"]+)\"|(\S+))")
_INCLUDE_FOLDERS_MAX: Final = 200
"""Include folders that one file may name."""


def cmake_folders(path: str, texts: Mapping[str, str]) -> list[str]:
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


def command_folders(folder: str, text: str) -> list[str]:
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
