"""The files of a checked-out tree that are worth indexing, and an account of those that are not.

Nothing is followed out of the tree: symbolic links are never opened, and `.git` is never read. The walk is a
loop in path order with limits on depth, entries, files, bytes and time, so the same tree gives the same
answer (time aside) and a hostile one ends; whatever a limit leaves out is counted under its reason.

Large data: files of DATA_LANGUAGES (JSON, CSV, XML, …) have a limit of their own, lower than that for source.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from pharos_embedder.file_rules import folder_reason, head_reason, name_reason
from pharos_embedder.git_patterns import PATTERN_FILE_BYTES_MAX, AttributeRules, IgnoreRules
from pharos_embedder.headers import cpp_headers
from pharos_embedder.languages import DATA_LANGUAGES, TEXT, language_of
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.reading import read_regular
from pharos_embedder.text_encoding import decode

_HEAD_BYTES: Final = 64 * 1024
_PATH_BYTES_MAX: Final = 4_096

_CONFIG_NAMES: Final = frozenset(
    {
        "go.mod", "go.work", "package.json", "pnpm-workspace.yaml", "lerna.json", "jsconfig.json",
        "Cargo.toml", "CMakeLists.txt", "compile_commands.json",
    }
)  # fmt: skip
_MARKER_NAMES: Final = frozenset({"__init__.py", "__init__.pyi"})
_MARKERS_MAX: Final = 50_000
_CONFIG_BYTES_MAX: Final = 256 * 1024
_CONFIGS_MAX: Final = 2_000
_CONFIGS_BYTES_MAX: Final = 16 * 1024 * 1024  # of all; what is made of them takes some ten times that


class DiscoveryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a tree is taken. What is over is left out and counted."""

    file_bytes_max: int = 1024 * 1024
    data_bytes_max: int = 256 * 1024
    files_max: int = 50_000
    total_bytes_max: int = 1024 * 1024 * 1024
    depth_max: int = 64
    entries_max: int = 1_000_000
    seconds_max: float = 300.0
    examples_max: int = 5


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to index: its path from the root with `/`, its size in bytes, its language.

    ``content_hash`` is the blake2b-16 hex digest of its bytes; empty where they were not read.
    """

    path: str
    size: int
    language: str
    content_hash: str = ""


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `left_out` counts files (a submodule is one) by reason, `examples` has a few of each.

    Reasons: binary, minified, lock file, vendored, generated, ignored, too large, symlink, submodule, LFS
    pointer, empty, not a file, unreadable, over the depth limit, over the file limit, over the size limit,
    over the time limit.

    `markers` are the paths of empty files that mean something by being there: those that make a folder a
    Python package (at most 50,000); `markers_over` counts those beyond.
    """

    files: tuple[SourceFile, ...]
    left_out: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    total_bytes: int
    markers: tuple[str, ...] = ()
    markers_over: int = 0


class _Entry(NamedTuple):
    path: str
    name: str
    depth: int
    is_folder: bool
    is_link: bool
    reason: str | None  # inherited from the folder above
    siblings: frozenset[str]


def discover(
    root: Path,
    limits: DiscoveryLimits | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    check: Check = unchecked,
) -> Discovery:
    """Every file under *root* that is to be indexed, sorted by path, and what was left out.

    *check* is called before each entry; what it raises ends the walk. Raises OSError if *root* itself cannot
    be listed; a folder or file further down that cannot is left out.
    """
    return _Walk(root, limits or DiscoveryLimits(), clock, check).run()


def read_configs(root: Path, found: Discovery) -> dict[str, str]:
    """Path → text of what import resolution asks: the manifests (go.mod, tsconfig, package.json, Cargo.toml,
    CMakeLists.txt, …), and the markers, which are empty.

    At most 2,000 manifests of at most 256 KiB, and 16 MiB in all; those nearest to the root first.
    """
    wanted = _configs(found)
    wanted.sort(key=lambda one: (one.path.count("/"), one.path))
    texts = dict.fromkeys(found.markers, "")
    left = _CONFIGS_BYTES_MAX
    for one in wanted[:_CONFIGS_MAX]:
        most = min(left, _CONFIG_BYTES_MAX)
        source = read_regular(root / one.path, most + 1)
        if source is not None and len(source) <= most and (text := decode(source)) is not None:
            texts[one.path] = text
            left -= len(source)
    return texts


def unread(found: Discovery, configs: Mapping[str, str]) -> dict[str, str]:
    """What `read_configs` made *configs* of and has left out, in sentences, each by an example of it."""
    told: dict[str, str] = {}
    missing = [one.path for one in _configs(found) if one.path not in configs]
    if missing:
        told[missing[0]] = (
            f"{len(missing)} of the manifests of this repository were not read, since there are more than "
            f"{_CONFIGS_MAX} or they are too large: imports by what they say may lead nowhere."
        )
    if found.markers_over:
        told[found.markers[-1]] = (
            f"{found.markers_over} empty __init__.py files more than {_MARKERS_MAX} were passed over: "
            "imports from their folders may lead nowhere."
        )
    return told


def _configs(found: Discovery) -> list[SourceFile]:
    return [one for one in found.files if _is_config(one.path)]


def _is_config(path: str) -> bool:
    # What tsconfigs extend may have any name, but lies in a package that is named for it.
    is_extended = path.endswith(".json") and ("tsconfig" in path or "typescript-config" in path)
    return path.rpartition("/")[2] in _CONFIG_NAMES or is_extended


class _Verdict(NamedTuple):
    """What became of a file; *reason* is why it is left out."""

    reason: str | None
    size: int = 0
    language: str = TEXT
    content_hash: str = ""


class _Walk:
    """One discovery: the stack of what is still to be looked at, and the account."""

    def __init__(self, root: Path, limits: DiscoveryLimits, clock: Callable[[], float], check: Check) -> None:
        self._root = root
        self._check = check
        self._limits = limits
        self._clock = clock
        self._ends_at = clock() + limits.seconds_max
        self._ignored = IgnoreRules()
        self._attributes = AttributeRules()
        self._submodules: frozenset[str] = frozenset()
        self._files: list[SourceFile] = []
        self._total = 0
        self._entries = 0
        self._left_out: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._markers: list[str] = []
        self._markers_over = 0

    def run(self) -> Discovery:
        modules = read_regular(self._root / ".gitmodules", PATTERN_FILE_BYTES_MAX)
        self._submodules = frozenset(_submodule_paths((decode(modules) or "") if modules else ""))
        stack = list(self._list("", 0, None))[::-1]
        while stack:
            self._check()
            entry = stack.pop()
            self._entries += 1
            late = self._clock() > self._ends_at
            if late or self._entries > self._limits.entries_max:
                self._leave("over the time limit" if late else "over the file limit", entry.path)
                for rest in stack:
                    self._leave("over the time limit" if late else "over the file limit", rest.path)
                break
            if entry.is_folder:
                stack.extend(reversed(self._enter(entry)))
            else:
                self._take(entry)
        self._files.sort(key=lambda one: one.path)
        headers = cpp_headers({one.path: one.language for one in self._files})
        return Discovery(
            files=tuple(
                msgspec.structs.replace(one, language="cpp") if one.path in headers else one
                for one in self._files
            ),
            left_out=dict(sorted(self._left_out.items())),
            examples={reason: tuple(paths) for reason, paths in sorted(self._examples.items())},
            total_bytes=self._total,
            markers=tuple(self._markers),
            markers_over=self._markers_over,
        )

    def _list(self, folder: str, depth: int, reason: str | None) -> Iterator[_Entry]:
        """The entries of *folder* in the order of their paths, after its pattern files were read."""
        with os.scandir(self._root / folder) as scanned:
            listed = [one for one in scanned if one.name != ".git"]
        names = frozenset(one.name for one in listed)
        if reason is None:
            self._read_patterns(folder, names)
        found = [
            _Entry(
                path=f"{folder}/{one.name}" if folder else one.name,
                name=one.name,
                depth=depth,
                is_folder=one.is_dir(follow_symlinks=False),
                is_link=one.is_symlink(),
                reason=reason,
                siblings=names,
            )
            for one in listed
        ]
        # A folder sorts as its name and "/", which is how the paths of its files sort among those of its
        # siblings.
        found.sort(key=lambda one: one.path + "/" * one.is_folder)
        yield from found

    def _read_patterns(self, folder: str, names: frozenset[str]) -> None:
        for name, rules in ((".gitignore", self._ignored), (".gitattributes", self._attributes)):
            if name in names:
                source = read_regular(self._root / folder / name, PATTERN_FILE_BYTES_MAX)
                rules.add(folder, (decode(source, truncated=True) or "") if source else "")

    def _enter(self, entry: _Entry) -> list[_Entry]:
        if entry.path in self._submodules or (self._root / entry.path / ".git").exists():
            self._leave("submodule", entry.path)
            return []
        if entry.depth >= self._limits.depth_max:
            self._leave("over the depth limit", entry.path)
            return []
        reason = entry.reason
        if reason is None and self._ignored.ignores(entry.path, is_folder=True):
            reason = "ignored"
        if reason is None:
            reason = folder_reason(entry.name, entry.siblings, lambda: self._names(entry.path))
            if reason == "vendored" and self._attributes.overrides_vendored:
                reason = None
        try:
            return list(self._list(entry.path, entry.depth + 1, reason))
        except OSError:
            self._leave("unreadable", entry.path)
            return []

    def _names(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(self._root / folder) as scanned:
                return frozenset(one.name for one in scanned)
        except OSError:
            return frozenset()

    def _take(self, entry: _Entry) -> None:
        """The file *entry* into the files, or into the account."""
        verdict = self._judge(entry)
        reason = verdict.reason
        if reason is None and len(self._files) >= self._limits.files_max:
            reason = "over the file limit"
        if reason is None and self._total + verdict.size > self._limits.total_bytes_max:
            reason = "over the size limit"
        if reason is not None:
            self._leave(reason, entry.path)
            if reason == "empty" and entry.name in _MARKER_NAMES:
                if len(self._markers) < _MARKERS_MAX:
                    self._markers.append(entry.path)
                else:
                    self._markers_over += 1
            return
        self._total += verdict.size
        self._files.append(
            SourceFile(
                path=entry.path,
                size=verdict.size,
                language=verdict.language,
                content_hash=verdict.content_hash,
            )
        )

    def _judge(self, entry: _Entry) -> _Verdict:
        if entry.is_link:
            return _Verdict("symlink")
        if entry.reason is not None:
            return _Verdict(entry.reason)
        try:
            encoded = entry.path.encode("utf-8")
        except UnicodeEncodeError:
            return _Verdict("unreadable")  # a name that is not text cannot be shown, stored or asked for
        if len(encoded) > _PATH_BYTES_MAX:
            return _Verdict("unreadable")
        if self._ignored.ignores(entry.path, is_folder=False):
            return _Verdict("ignored")
        attributes = self._attributes.of(entry.path)
        reason = self._by_attributes(attributes) or self._by_name(entry, attributes)
        if reason is not None:
            return _Verdict(reason)
        return self._by_content(entry, attributes)

    @staticmethod
    def _by_attributes(attributes: Mapping[str, str]) -> str | None:
        if attributes.get("linguist-vendored") == "true":
            return "vendored"
        if attributes.get("linguist-generated") == "true":
            return "generated"
        if attributes.get("binary") == "true" or attributes.get("text") == "false":
            return "binary"
        return None

    def _by_name(self, entry: _Entry, attributes: Mapping[str, str]) -> str | None:
        if self._attributes.overrides_vendored and attributes.get("linguist-vendored") != "false":
            for folder in entry.path.split("/")[:-1]:  # was entered only for the sake of the override
                if folder_reason(folder, frozenset({"package.json"}), frozenset) == "vendored":
                    return "vendored"
        reason = name_reason(entry.name)
        return None if reason == "generated" and attributes.get("linguist-generated") == "false" else reason

    def _by_content(self, entry: _Entry, attributes: Mapping[str, str]) -> _Verdict:
        path = self._root / entry.path
        try:
            status = path.lstat()
        except OSError:
            return _Verdict("unreadable")
        if not stat.S_ISREG(status.st_mode):
            return _Verdict("not a file")
        size = status.st_size
        if size == 0:
            return _Verdict("empty")
        if size > self._limits.file_bytes_max:
            return _Verdict("too large", size)
        source = read_regular(path, _HEAD_BYTES)
        if source is None:
            return _Verdict("unreadable", size)
        whole = len(source) >= size
        head = decode(source, truncated=not whole)
        if head is None:
            return _Verdict("binary", size)
        language = language_of(entry.path, head[:300])
        if language in DATA_LANGUAGES and size > self._limits.data_bytes_max:
            return _Verdict("too large", size, language)
        reason = head_reason(head, language, whole=whole)
        if reason == "generated" and (
            attributes.get("linguist-generated") == "false"
            or _is_config(entry.path)  # cargo writes the manifest of a crate anew when it publishes it
        ):
            reason = None
        if reason is None and not whole:
            source = read_regular(path, self._limits.file_bytes_max)
            if source is None:
                return _Verdict("unreadable", size)
        return _Verdict(reason, size, language, hashlib.blake2b(source, digest_size=16).hexdigest())

    def _leave(self, reason: str, path: str) -> None:
        self._left_out[reason] = self._left_out.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < self._limits.examples_max:
            examples.append(path.encode("utf-8", "replace").decode("utf-8"))


def _submodule_paths(text: str) -> Iterator[str]:
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "path":
            yield value.strip().strip('"').strip("/")
