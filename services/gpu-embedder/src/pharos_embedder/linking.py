"""From parsed files to a graph of files: who imports whom, and who uses what another defines. Pure.

An import edge weighs 1, shared by the files it means (a Go package, `import p.*`). A reference edge needs a
name that the file imports or has from its package, or one that is defined once in the repository; a name that
the file imports from outside of the repository is never one of those here. It weighs the logarithm of its
uses, divided by the number of files that may be meant, and by how common the name is. At the end an edge into
a hub is damped by the logarithm of the hub's in-degree, and of each file only the strongest edges of a kind
are kept.

Everything is counted in arrays of numbers, names by their hashes, so that a file costs a few hundred bytes
whatever is in it; the sums are taken in the order of the files and of what they use, so that the same files
give the same weights to the last bit.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from pharos_embedder.packed_files import facts_of, name_hash, pack_names
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution import Resolver, resolvers
from pharos_embedder.syntax import Import, ParsedFile

EdgeKind = Literal["imports", "references"]
EDGE_KINDS: Final[tuple[EdgeKind, ...]] = ("imports", "references")

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Doubles = NDArray[np.float64]

EDGES_PER_FILE_MAX: Final = 64
"""Edges of one kind out of one file: the strongest are kept."""

_UNIQUE_WEIGHT: Final = 0.5
_UNIQUE_NAME_CHARS_MIN: Final = 4
_UNIQUE_USERS_MAX: Final = 20
_UNIQUE_USERS_SHARE_MAX: Final = 0.05
_TARGETS_MAX: Final = 200

_GATHERED_FILES: Final = 256  # whose names are looked up at once
_EXPORT: Final = "export"
_PAIRS_MAX: Final = 2_000_000  # of a use and a file that may be meant, looked at at once: 50 MB

_REEXPORTERS: Final = ("/__init__.py", "/__init__.pyi", "/mod.rs", "/lib.rs")
_INDEX_FILES: Final = ("index.ts", "index.tsx", "index.js", "index.jsx", "index.mjs", "index.d.ts")

_FAMILIES: Final[Mapping[str, str]] = {
    "javascript": "ecmascript",
    "typescript": "ecmascript",
    "tsx": "ecmascript",
    "c": "c",
    "cpp": "c",
    "java": "jvm",
    "kotlin": "jvm",
    "scala": "jvm",
}


class FileEdge(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A directed edge between two files, by their places in `FileGraph.paths`."""

    source: int
    target: int
    kind: EdgeKind
    weight: float


class LinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """How the imports fared: to a file here, to somewhere else, or to something that should be here and is
    not.
    """

    imports_resolved: int
    imports_external: int
    imports_missing: int


class FileGraph(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """N files, isolated ones too, and E edges by source, target and kind, at most one each.

    `paths` is sorted. `kinds` are places in EDGE_KINDS.
    """

    paths: tuple[str, ...]
    sources: Ints  # (E,)
    targets: Ints  # (E,)
    kinds: Bytes  # (E,)
    weights: Doubles  # (E,)
    stats: LinkStats

    @classmethod
    def of(cls, paths: Sequence[str], edges: Iterable[FileEdge], stats: LinkStats) -> Self:
        """The graph of *edges*, in any order."""
        ordered = sorted(edges)
        return cls(
            paths=tuple(paths),
            sources=np.array([edge.source for edge in ordered], dtype=np.int32),
            targets=np.array([edge.target for edge in ordered], dtype=np.int32),
            kinds=np.array([EDGE_KINDS.index(edge.kind) for edge in ordered], dtype=np.uint8),
            weights=np.array([edge.weight for edge in ordered], dtype=np.float64),
            stats=stats,
        )

    @property
    def edges(self) -> tuple[FileEdge, ...]:
        """The edges one by one: for graphs of a few files."""
        columns = (column.tolist() for column in (self.sources, self.targets, self.kinds, self.weights))
        return tuple(
            FileEdge(source=source, target=target, kind=EDGE_KINDS[kind], weight=weight)
            for source, target, kind, weight in zip(*columns, strict=True)
        )

    def named_edges(self) -> tuple[tuple[str, str, EdgeKind, float], ...]:
        """The edges with paths in place of numbers."""
        return tuple(
            (self.paths[one.source], self.paths[one.target], one.kind, one.weight) for one in self.edges
        )


class FileNames(NamedTuple):
    """The names of one file, by their hashes: those that it defines, and those that it uses, in its order."""

    defined: Hashes  # (D,), distinct
    declared: Hashes  # (P,), distinct: by a prototype only
    used: Hashes  # (R,)
    uses: NDArray[np.uint32]  # (R,) how often
    lengths: Bytes  # (R,) characters of the name


class Linkable(Protocol):
    """Files to be linked, in the order of their paths, each path once; what is known of one is asked for."""

    @property
    def paths(self) -> Sequence[str]: ...

    @property
    def languages(self) -> Sequence[str]: ...

    def facts(self, number: int) -> ParsedFile:
        """File *number*; its chunks and references are not asked for."""

    def names(self, number: int) -> FileNames: ...


class ParsedFiles:
    """Files in memory, as they can be linked."""

    def __init__(self, files: Sequence[ParsedFile]) -> None:
        self._files = sorted(files, key=lambda file: file.path)
        self.paths = [file.path for file in self._files]
        self.languages = [file.language for file in self._files]

    def facts(self, number: int) -> ParsedFile:
        return facts_of(self._files[number])

    def names(self, number: int) -> FileNames:
        return names_of(*pack_names(self._files[number]))


def names_of(defined: bytes, declared: bytes, used: bytes, uses: bytes, lengths: bytes) -> FileNames:
    """The names of a `PackedFile`."""
    return FileNames(
        np.frombuffer(defined, dtype="<u8"),
        np.frombuffer(declared, dtype="<u8"),
        np.frombuffer(used, dtype="<u8"),
        np.frombuffer(uses, dtype="<u4"),
        np.frombuffer(lengths, dtype=np.uint8),
    )


def link(
    files: Sequence[ParsedFile], configs: RepositoryConfigs | None = None, check: Check = unchecked
) -> FileGraph:
    """The file graph of *files*; *configs* are the repository's manifests. The order of *files* does not
    matter. *check* is called before each file; what it raises ends the linking.
    """
    return link_files(ParsedFiles(files), configs or RepositoryConfigs(), check)


def link_files(files: Linkable, configs: RepositoryConfigs, check: Check) -> FileGraph:
    """As `link`. What is held in memory are numbers and paths."""
    paths = files.paths
    numbers = {path: number for number, path in enumerate(paths)}
    assert len(numbers) == len(paths), "a path is parsed once"
    by_language = resolvers(paths, _of_language(files), configs)
    imports, stats, taken = _imports(files, by_language, numbers, check)
    references = _references(files, by_language, numbers, imports, taken, check)
    kept = [_finished(weights, len(paths)) for weights in (imports, references)]
    kinds = np.repeat(np.arange(len(kept), dtype=np.uint8), [len(one.source) for one in kept])
    source, target, weight = (np.concatenate(columns) for columns in zip(*kept, strict=True))
    order = np.lexsort((kinds, target, source))
    return FileGraph(
        paths=tuple(paths),
        sources=source[order].astype(np.int32),
        targets=target[order].astype(np.int32),
        kinds=kinds[order],
        weights=weight[order],
        stats=stats,
    )


def _of_language(files: Linkable) -> Callable[[str], Iterator[ParsedFile]]:
    def found(language: str) -> Iterator[ParsedFile]:
        return (files.facts(number) for number, one in enumerate(files.languages) if one == language)

    return found


class _Taken(NamedTuple):
    """What else is known of imports: the names that a file has from elsewhere, by their hashes; and the
    files that say that they pass on what they import.
    """

    file: array[int]  # (K,), ascending
    name: array[int]  # (K,)
    passing_on: set[int]


class _Weights(NamedTuple):
    """How much each file has to do with others, by source; a pair once."""

    source: Longs  # (P,), ascending
    target: Longs  # (P,)
    weight: Doubles  # (P,)

    def rows(self, files: int) -> Longs:
        """(N + 1,) where the pairs of each file begin."""
        rows: Longs = np.searchsorted(self.source, np.arange(files + 1))
        return rows


def _imports(
    files: Linkable,
    by_language: Mapping[str, Resolver],
    numbers: Mapping[str, int],
    check: Check,
) -> tuple[_Weights, LinkStats, _Taken]:
    sources, targets, weights = array("q"), array("q"), array("d")
    taken = _Taken(array("q"), array("Q"), set())
    resolved = external = missing = 0
    for number, language in enumerate(files.languages):
        check()
        resolver = by_language.get(language)
        if resolver is None:
            continue
        file = files.facts(number)
        own: dict[int, float] = {}
        for one in file.imports:
            found = resolver.resolve(file, one)
            if one.kind == _EXPORT:
                taken.passing_on.add(number)
            if found is None:
                external += 1
                own_names = [name_hash(name) for name in bound_names(one)]
                taken.file.extend([number] * len(own_names))
                taken.name.extend(own_names)
                continue
            if not found:
                missing += one.kind != "path"
                continue
            resolved += 1
            for path in found[:_TARGETS_MAX]:
                target = numbers[path]
                if target != number:
                    own[target] = own.get(target, 0.0) + 1.0 / len(found)
        sources.extend([number] * len(own))
        targets.extend(own.keys())
        weights.extend(own.values())
    return (
        _Weights(np.array(sources, dtype=np.int64), np.array(targets, dtype=np.int64), np.array(weights)),
        LinkStats(imports_resolved=resolved, imports_external=external, imports_missing=missing),
        taken,
    )


def bound_names(one: Import) -> list[str]:
    """What the file calls that which *one* imports."""
    if one.names:
        return [] if one.names[0].name == "*" else [name.alias or name.name for name in one.names]
    return [one.alias or one.module.rpartition("::")[2]]


def _references(
    files: Linkable,
    by_language: Mapping[str, Resolver],
    numbers: Mapping[str, int],
    imports: _Weights,
    taken: _Taken,
    check: Check,
) -> _Weights:
    total = len(files.paths)
    names, uses = _gathered(files, taken, check)
    near_of = _Nearness(files, by_language, numbers, imports, taken.passing_on)
    rows = np.searchsorted(uses.file, np.arange(total + 1))
    found: list[_Weights] = []
    pending: list[int] = []
    near: list[Longs] = []
    pairs = 0
    for number in range(total):
        check()
        first, end = int(rows[number]), int(rows[number + 1])
        if first == end:
            continue
        around = near_of(number)
        most = int(np.minimum(names.files_of(uses.name[first:end]), max(1, len(around))).sum())
        most = max(most, len(around))  # which is held as well
        if pending and pairs + most > _PAIRS_MAX:
            found.append(_meant(names, uses, rows, pending, near, total, check))
            pending, near, pairs = [], [], 0
        pending.append(number)
        near.append(around)
        pairs += most
    found.append(_meant(names, uses, rows, pending, near, total, check))
    return _Weights(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


class _Definitions(NamedTuple):
    """Which files define which of M names."""

    keys: Longs  # (D,), ascending: name × files + file
    rows: Longs  # (M + 1,) where the files of each name begin
    files: int

    def files_of(self, names: Longs | Ints) -> Longs:
        """How many files define each of *names*."""
        counts: Longs = self.rows[names + 1] - self.rows[names]
        return counts


class _Uses(NamedTuple):
    """Uses of names that are defined in other files than the one that uses them, by file and in its order."""

    file: Ints  # (R,)
    name: Ints  # (R,)
    times: NDArray[np.uint32]  # (R,) how often
    is_short: NDArray[np.bool_]  # (R,) whether the name is too short to tell anything by itself
    users: Longs  # (M,) how many files use each name

    def strengths(self, which: Longs) -> Doubles:
        """Of the edges that come of those uses."""
        return _of_each(lambda count: math.log2(1 + count), self.times[which]) / _of_each(
            lambda users: 1 + math.log2(users), self.users[self.name[which]]
        )


def _gathered(files: Linkable, taken: _Taken, check: Check) -> tuple[_Definitions, _Uses]:
    total = len(files.paths)
    elsewhere = np.array(taken.name, dtype=np.uint64)
    rows = np.searchsorted(np.array(taken.file, dtype=np.int64), np.arange(total + 1))
    families = [
        np.uint64(name_hash(f"family {_FAMILIES.get(language, language)}")) for language in files.languages
    ]
    nothing = np.zeros(0, dtype=np.uint64)
    defined, declared, sizes = [nothing], [nothing], [(0, 0)]
    for number in range(total):
        check()
        mine = files.names(number)
        defined.append(mine.defined ^ families[number])
        declared.append(mine.declared ^ families[number])
        sizes.append((len(mine.defined), len(mine.declared)))
    by_definition, by_declaration = np.concatenate(defined), np.concatenate(declared)
    defined.clear()
    declared.clear()
    # A prototype stands for what no file here defines.
    is_bodiless = ~np.isin(by_declaration, by_definition)
    definer, declarer = (np.repeat(np.arange(-1, total), column) for column in zip(*sizes, strict=True))
    known, name = np.unique(np.concatenate([by_definition, by_declaration[is_bodiless]]), return_inverse=True)
    keys = np.unique(name * total + np.concatenate([definer, declarer[is_bodiless]]))
    names = _Definitions(keys, np.searchsorted(keys, np.arange(len(known) + 1) * total), total)

    users = np.zeros(len(known), dtype=np.int64)
    parts = [(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint32), np.zeros(0, np.bool_))]
    for start in range(0, total, _GATHERED_FILES):
        check()
        numbers = range(start, min(start + _GATHERED_FILES, total))
        columns = [
            _used_here(files.names(number), elsewhere[rows[number] : rows[number + 1]]) for number in numbers
        ]
        used = np.concatenate(
            [one.used ^ families[number] for number, one in zip(numbers, columns, strict=True)]
        )
        user = np.repeat(np.array(numbers), [len(one.used) for one in columns])
        count = np.concatenate([one.uses for one in columns])
        is_short = np.concatenate([one.lengths for one in columns]) < _UNIQUE_NAME_CHARS_MIN
        place = np.searchsorted(known, used)
        kept = np.flatnonzero(place < len(known))
        kept = kept[known[place[kept]] == used[kept]]
        users += np.bincount(place[kept], minlength=len(known))
        kept = kept[~_contains(keys, place[kept] * total + user[kept])]
        parts.append((user[kept].astype(np.int32), place[kept].astype(np.int32), count[kept], is_short[kept]))
    user_of, name_of, times, is_short_of = (np.concatenate(column) for column in zip(*parts, strict=True))
    return names, _Uses(user_of, name_of, times, is_short_of, users)


def _used_here(names: FileNames, elsewhere: Hashes) -> FileNames:
    """*names* without the uses of those that the file has from *elsewhere*."""
    if not len(elsewhere):
        return names
    is_here = ~np.isin(names.used, elsewhere)
    return names._replace(used=names.used[is_here], uses=names.uses[is_here], lengths=names.lengths[is_here])


class _Nearness:
    """The files whose names a file has: what it imports, what those of them import that only pass names on,
    and those of its package.
    """

    def __init__(
        self,
        files: Linkable,
        by_language: Mapping[str, Resolver],
        numbers: Mapping[str, int],
        imports: _Weights,
        passing_on: set[int],
    ) -> None:
        self._files = files
        self._by_language = by_language
        self._numbers = numbers
        self._imported = imports.target
        self._rows = imports.rows(len(files.paths))
        self._passes_on = [
            number in passing_on or _passes_on(path) for number, path in enumerate(files.paths)
        ]

    def __call__(self, number: int) -> Longs:
        """(K,) their numbers, ascending."""
        imported = self._imports_of(number)
        near = set(imported)
        for target in imported:
            if self._passes_on[target]:
                near.update(self._imports_of(target))
        near.discard(number)
        resolver = self._by_language.get(self._files.languages[number])
        if resolver is not None:
            near.update(self._numbers[path] for path in resolver.neighbours(self._files.facts(number)))
        return np.array(sorted(near), dtype=np.int64)

    def _imports_of(self, number: int) -> list[int]:
        found: list[int] = self._imported[self._rows[number] : self._rows[number + 1]].tolist()
        return found


def _passes_on(path: str) -> bool:
    return f"/{path}".endswith(_REEXPORTERS) or path.rpartition("/")[2] in _INDEX_FILES


def _meant(
    names: _Definitions,
    uses: _Uses,
    rows: Longs,
    users: Sequence[int],
    near: Sequence[Longs],
    total: int,
    check: Check,
) -> _Weights:
    """The weights of what the files *users* use, of each of which *near* are the files near to it."""
    if not users:
        nothing = np.zeros(0, dtype=np.int64)
        return _Weights(nothing, nothing, np.zeros(0))
    which = np.concatenate([np.arange(rows[number], rows[number + 1]) for number in users])
    users_max = max(_UNIQUE_USERS_MAX, int(_UNIQUE_USERS_SHARE_MAX * total))
    near_rows = np.concatenate([[0], np.cumsum([len(one) for one in near])])
    around = np.concatenate(near)
    near_keys = np.repeat(np.asarray(users), np.diff(near_rows)) * total + around
    owner = np.repeat(np.arange(len(users)), rows[np.asarray(users) + 1] - rows[np.asarray(users)])
    size = np.minimum(names.files_of(uses.name[which]), near_rows[owner + 1] - near_rows[owner])
    sums = _Sums(total)
    for part in _parts(np.cumsum(size)):
        check()
        use, its_owner = which[part], owner[part]
        file, name = uses.file[use].astype(np.int64), uses.name[use].astype(np.int64)
        strength = uses.strengths(use)
        first, count = names.rows[name], names.files_of(name)
        near_first, near_count = near_rows[its_owner], near_rows[its_owner + 1] - near_rows[its_owner]
        by_name = count <= near_count
        # Whichever are fewer are gone through: who defines the name, or who is near.
        of_name, place = _spread(first, np.where(by_name, count, 0))
        defining = names.keys[place] - name[of_name] * total
        is_meant = _contains(near_keys, file[of_name] * total + defining)
        of_near, place = _spread(near_first, np.where(by_name, 0, near_count))
        nearby = around[place]
        is_defining = _contains(names.keys, name[of_near] * total + nearby)
        meant = np.concatenate([of_name[is_meant], of_near[is_defining]])
        target = np.concatenate([defining[is_meant], nearby[is_defining]])
        number = np.bincount(meant, minlength=len(use))
        is_telling = (count == 1) & ~uses.is_short[use] & (uses.users[name] <= users_max)
        alone = np.flatnonzero((number == 0) & is_telling)
        share = strength[meant] / number[meant]
        meant = np.concatenate([meant, alone])
        target = np.concatenate([target, names.keys[first[alone]] - name[alone] * total])
        share = np.concatenate([share, strength[alone] * _UNIQUE_WEIGHT])
        order = np.argsort(meant, kind="stable")
        sums.add(file[meant[order]] * total + target[order], share[order])
    return sums.weights()


class _Sums:
    """Weights by pair, added up in the order in which they come."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._keys = np.zeros(0, dtype=np.int64)
        self._weights = np.zeros(0)

    def add(self, keys: Longs, shares: Doubles) -> None:
        both = np.concatenate([self._keys, keys])
        # A sum so far comes before what is added to it, and bincount adds in the order of its input.
        self._keys, inverse = np.unique(both, return_inverse=True)
        shares = np.concatenate([self._weights, shares])
        self._weights = np.bincount(inverse, weights=shares, minlength=len(self._keys)).astype(np.float64)

    def weights(self) -> _Weights:
        return _Weights(self._keys // self._total, self._keys % self._total, self._weights)


def _parts(ends: Longs) -> Iterator[slice]:
    """Slices of uses with at most _PAIRS_MAX pairs each, or of one use; *ends* are the sums of pairs."""
    start, base = 0, 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, base + _PAIRS_MAX, side="right")))
        yield slice(start, stop)
        start, base = stop, int(ends[stop - 1])


def _spread(first: Longs, count: Longs) -> tuple[Longs, Longs]:
    """For each i, *count*[i] times i, and the places *first*[i], *first*[i] + 1, …"""
    owner: Longs = np.repeat(np.arange(len(count)), count)
    ends = np.cumsum(count)
    place: Longs = np.arange(len(owner)) - np.repeat(ends - count, count) + np.repeat(first, count)
    return owner, place


def _contains(ascending: Longs, wanted: Longs) -> NDArray[np.bool_]:
    """Which of *wanted* are in *ascending*."""
    if not len(ascending):
        return np.zeros(len(wanted), dtype=np.bool_)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[place] == wanted
    return found


def _of_each(formula: Callable[[int], float], numbers: NDArray[np.integer]) -> Doubles:
    """*formula* of each of *numbers*, by Python's own arithmetic: the same bits on every machine's numpy."""
    values, inverse = np.unique(numbers, return_inverse=True)
    made: Doubles = np.array([formula(value) for value in values.tolist()], dtype=np.float64)[inverse]
    return made


def _finished(weights: _Weights, total: int) -> _Weights:
    """The edges, damped into hubs, and of each file the strongest; of equal ones those of the first
    targets.
    """
    degrees = np.bincount(weights.target, minlength=total)
    damped = weights.weight / _of_each(lambda degree: 1 + math.log(degree), degrees[weights.target])
    order = np.lexsort((weights.target, -damped, weights.source))
    source = weights.source[order]
    rank = np.arange(len(order)) - np.searchsorted(source, source)
    order = order[rank < EDGES_PER_FILE_MAX]
    return _Weights(weights.source[order], weights.target[order], damped[order])
