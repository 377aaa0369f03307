"""C and C++: `#include` as compilers look it up, as far as that can be known without building; and the source
beside its header.

A quoted path is looked for in the including file's folder. Then, as for one in angle brackets, on each level
from that folder up to the root: in the folders that CMake or a compile_commands.json of the level names, in
`include`, in `src`, and in the folder itself. At last a file whose path ends with what is written is taken;
of several, the one that shares the most folders with the including file, then the one in the fewest folders,
and none where that does not decide (`asm/io.h` of each architecture). A header of the standard libraries or
of POSIX in angle brackets is only looked for in named folders and `include`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Final

from pharos_embedder.manifests.paths import above, joined
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution.tree import Tree, below
from pharos_embedder.syntax import Import, ParsedFile

_HEADERS: Final = frozenset({".h", ".hh", ".hpp", ".hxx", ".h++", ".cuh"})
_SOURCES: Final = frozenset({".c", ".cc", ".cpp", ".cxx", ".c++", ".cu"})
_SAME_NAMED_MAX: Final = 500
"""Files of one name among which the nearest is searched; more are as good as ambiguous."""
_LOOKED_AT_MAX: Final = 2_000
"""Files of one name of which all are looked at; of more only those in the folder itself."""

_STANDARD: Final = frozenset(
    f"{name}.h"
    for names in (
        # C
        "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign "
        "stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string tgmath "
        "threads time uchar wchar wctype",
        # POSIX and what Unix systems add
        "aio alloca byteswap cpio dirent dlfcn elf endian err execinfo fcntl fmtmsg fnmatch ftw getopt glob "
        "grp iconv ifaddrs langinfo libgen malloc memory monetary mqueue ndbm netdb nl_types paths poll "
        "pthread pwd regex sched search semaphore spawn strings stropts sysexits syslog tar termios ulimit "
        "unistd utime utmpx wordexp",
        # compilers and Windows
        "immintrin emmintrin xmmintrin x86intrin intrin arm_neon windows",
    )
    for name in names.split()
)
_STANDARD_FOLDERS: Final = ("sys/", "netinet/", "arpa/", "net/if", "bits/", "gnu/", "experimental/")


class CResolver:
    """Knows the include folders of every level, the files by name, and whose source is whose header's."""

    def __init__(self, tree: Tree, configs: RepositoryConfigs) -> None:
        self._tree = tree
        self._configured = {
            level: [one for one in map(self._folder, folders) if one is not None]
            for level, folders in configs.include_folders.items()
        }
        self._named: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for path in sorted(tree.files):
            name = posixpath.basename(path)
            stem, extension = posixpath.splitext(name)
            self._named.setdefault(name, []).append(path)
            if extension.lower() in _HEADERS or extension.lower() in _SOURCES:
                self._stems.setdefault(stem, []).append(path)
        self._levels: dict[str, tuple[str, ...]] = {}
        self._known: dict[tuple[str, str, bool], tuple[str, ...] | None] = {}
        self._counterparts: dict[str, tuple[str, ...]] = {}

    def resolve(self, file: ParsedFile, one: Import) -> tuple[str, ...] | None:
        """The header that is meant: one file at most. Quotes say that it must be here."""
        key = posixpath.dirname(file.path), one.module, one.kind == "include"
        if key not in self._known:
            self._known[key] = self._find(*key)
        return self._known[key]

    def neighbours(self, file: ParsedFile) -> Sequence[str]:
        """The source or header of the same name, and the sources of the headers that are included."""
        found = dict.fromkeys(self._counterpart(file.path))
        for one in file.imports:
            for header in self.resolve(file, one) or ():
                found.update(dict.fromkeys(self._counterpart(header)))
        found.pop(file.path, None)
        return tuple(found)

    def _find(self, folder: str, written: str, quoted: bool) -> tuple[str, ...] | None:
        module = posixpath.normpath(written.replace("\\", "/")) if written else ""
        if not module or module.startswith("/"):
            return None
        standard = _is_standard(module)
        missing = () if quoted and not standard else None
        if quoted and (path := joined(folder, module)) is not None and path in self._tree.files:
            return (path,)
        if module.startswith("../"):
            return missing
        for level in above(folder):
            for root in self._roots(level, only_for_includes=standard and not quoted):
                if (path := below(root, module)) in self._tree.files:
                    return (path,)
        return missing if standard else self._by_suffix(folder, module, missing)

    def _roots(self, level: str, *, only_for_includes: bool) -> Iterator[str]:
        if level not in self._levels:
            named = [*self._configured.get(level, ()), below(level, "include")]
            self._levels[level] = tuple(dict.fromkeys(one for one in named if one in self._tree.folders))
        yield from self._levels[level]
        if not only_for_includes:
            if (sources := below(level, "src")) in self._tree.folders:
                yield sources
            yield level

    def _by_suffix(self, folder: str, module: str, missing: tuple[str, ...] | None) -> tuple[str, ...] | None:
        ending = f"/{module}"
        named = self._named.get(posixpath.basename(module), ())
        if len(named) > _LOOKED_AT_MAX:
            return ()
        candidates = [path for path in named if path.endswith(ending)]
        if not candidates:
            return missing
        nearest = _nearest(folder, candidates)
        return (nearest,) if nearest is not None else ()

    def _counterpart(self, path: str) -> tuple[str, ...]:
        """The sources of a header, or the headers of a source: in its folder, else the one nearest to it."""
        if path not in self._counterparts:
            folder, name = posixpath.split(path)
            stem, extension = posixpath.splitext(name)
            wanted = _SOURCES if extension.lower() in _HEADERS else _HEADERS
            same = self._stems.get(stem, [])
            if len(same) > _LOOKED_AT_MAX:
                here = self._tree.by_folder.get(folder, [])
                same = [other for other in here if posixpath.splitext(posixpath.basename(other))[0] == stem]
            others = [other for other in same if posixpath.splitext(other)[1].lower() in wanted]
            beside = tuple(other for other in others if posixpath.dirname(other) == folder)
            nearest = None if beside else _nearest(folder, others)
            self._counterparts[path] = beside or ((nearest,) if nearest is not None else ())
        return self._counterparts[path]

    def _folder(self, configured: str) -> str | None:
        """A configured folder; of an absolute one, which was true on some other machine, the longest end that
        is a folder here.
        """
        if not configured.startswith("/"):
            return configured
        parts = configured.strip("/").split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self._tree.folders), None)


def _is_standard(module: str) -> bool:
    # A name without a dot is a header of C++: <vector>.
    return module in _STANDARD or module.startswith(_STANDARD_FOLDERS) or not {".", "/"} & set(module)


def _nearest(folder: str, paths: Sequence[str]) -> str | None:
    """The one of *paths* that shares the most folders with *folder*, and among those lies in the fewest; None
    if that is not one alone.
    """
    if len(paths) > _SAME_NAMED_MAX:
        return None
    parts = folder.split("/") if folder else []
    best: str | None = None
    best_rank = (-1, 0)
    for path in paths:
        others = path.split("/")[:-1]
        shared = 0
        for own, other in zip(parts, others, strict=False):
            if own != other:
                break
            shared += 1
        rank = (shared, -len(others))
        if rank > best_rank:
            best, best_rank = path, rank
        elif rank == best_rank:
            best = None
    return best
