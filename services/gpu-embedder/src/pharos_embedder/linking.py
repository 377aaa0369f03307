"""From parsed files to a graph of files: who imports whom, and who uses what another defines. Pure.

An import edge weighs 1, shared by the files it means (a Go package, `import p.*`). A reference edge needs a
name that the file imports or has from its package, or one that is defined once in the repository; it weighs
the logarithm of its uses, divided by the number of files that may be meant, and by how common the name is.
At the end an edge into a hub is damped by the logarithm of the hub's in-degree, and of each file only the
strongest edges of a kind are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from pharos_embedder.ports import Check, unchecked
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution import Resolver, resolvers
from pharos_embedder.syntax import ParsedFile

EdgeKind = Literal["imports", "references"]

EDGES_PER_FILE_MAX: Final = 64
"""Edges of one kind out of one file: the strongest are kept."""

_UNIQUE_WEIGHT: Final = 0.5
_UNIQUE_NAME_CHARS_MIN: Final = 4
_UNIQUE_USERS_MAX: Final = 20
_UNIQUE_USERS_SHARE_MAX: Final = 0.05
_TARGETS_MAX: Final = 200

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


class FileGraph(msgspec.Struct, frozen=True, kw_only=True):
    """Every file is a node, isolated ones too. `paths` is sorted; `edges` by source, target, kind, at most
    one each.
    """

    paths: tuple[str, ...]
    edges: tuple[FileEdge, ...]
    stats: LinkStats

    def named_edges(self) -> tuple[tuple[str, str, EdgeKind, float], ...]:
        """The edges with paths in place of numbers."""
        return tuple(
            (self.paths[one.source], self.paths[one.target], one.kind, one.weight) for one in self.edges
        )


def link(
    files: Sequence[ParsedFile], configs: RepositoryConfigs | None = None, check: Check = unchecked
) -> FileGraph:
    """The file graph of *files*; *configs* are the repository's manifests. The order of *files* does not
    matter. *check* is called before each file; what it raises ends the linking.
    """
    files = sorted(files, key=lambda file: file.path)
    numbers = {file.path: number for number, file in enumerate(files)}
    assert len(numbers) == len(files), "a path is parsed once"
    by_language = resolvers(files, configs or RepositoryConfigs())
    imports, stats = _imports(files, by_language, numbers, check)
    references = _references(files, by_language, numbers, imports, check)
    edges = [*_finished(imports, "imports"), *_finished(references, "references")]
    return FileGraph(paths=tuple(numbers), edges=tuple(sorted(edges)), stats=stats)


Weights = list[dict[int, float]]
"""For each file: target → weight."""


def _imports(
    files: Sequence[ParsedFile],
    by_language: Mapping[str, Resolver],
    numbers: Mapping[str, int],
    check: Check,
) -> tuple[Weights, LinkStats]:
    weights: Weights = [{} for _ in files]
    resolved = external = missing = 0
    for number, file in enumerate(files):
        check()
        resolver = by_language.get(file.language)
        if resolver is None:
            continue
        for one in file.imports:
            targets = resolver.resolve(file, one)
            if targets is None:
                external += 1
                continue
            if not targets:
                missing += one.kind != "path"
                continue
            resolved += 1
            for path in targets[:_TARGETS_MAX]:
                target = numbers[path]
                if target != number:
                    own = weights[number]
                    own[target] = own.get(target, 0.0) + 1.0 / len(targets)
    return weights, LinkStats(imports_resolved=resolved, imports_external=external, imports_missing=missing)


def _references(
    files: Sequence[ParsedFile],
    by_language: Mapping[str, Resolver],
    numbers: Mapping[str, int],
    imports: Weights,
    check: Check,
) -> Weights:
    defined: dict[tuple[str, str], set[int]] = {}
    declared: dict[tuple[str, str], set[int]] = {}
    users: dict[tuple[str, str], int] = {}
    for number, file in enumerate(files):
        check()
        family = _family(file)
        for one in file.definitions:
            known = declared if one.kind == "declaration" else defined
            known.setdefault((family, one.name), set()).add(number)
        for reference in file.references:
            users[family, reference.name] = users.get((family, reference.name), 0) + 1
    for key, declarers in declared.items():  # a prototype stands for what no file here defines
        defined.setdefault(key, declarers)
    users_max = max(_UNIQUE_USERS_MAX, int(_UNIQUE_USERS_SHARE_MAX * len(files)))
    weights: Weights = [{} for _ in files]
    for number, file in enumerate(files):
        check()
        family = _family(file)
        resolver = by_language.get(file.language)
        near = _near(number, files, imports)
        if resolver is not None:
            near.update(numbers[path] for path in resolver.neighbours(file))
        for reference in file.references:
            key = family, reference.name
            candidates = defined.get(key)
            if candidates is None or number in candidates:
                continue  # no one's here, or its own
            meant: Iterable[int] = candidates & near
            strength = math.log2(1 + reference.count) / (1 + math.log2(users[key]))
            if not meant:
                if (
                    len(candidates) > 1
                    or len(reference.name) < _UNIQUE_NAME_CHARS_MIN
                    or users[key] > users_max
                ):
                    continue
                meant = candidates
                strength *= _UNIQUE_WEIGHT
            share = strength / len(candidates & near or candidates)
            for target in meant:
                weights[number][target] = weights[number].get(target, 0.0) + share
    return weights


def _near(number: int, files: Sequence[ParsedFile], imports: Weights) -> set[int]:
    """What the file imports, and what those of them that only pass names on import in turn."""
    near = set(imports[number])
    for target in imports[number]:
        path = f"/{files[target].path}"
        if path.endswith(_REEXPORTERS) or path.rpartition("/")[2] in _INDEX_FILES:
            near.update(imports[target])
    near.discard(number)
    return near


def _family(file: ParsedFile) -> str:
    return _FAMILIES.get(file.language, file.language)


def _finished(weights: Weights, kind: EdgeKind) -> Iterable[FileEdge]:
    """The edges, damped into hubs, and of each file the strongest; equal ones in the order of their
    targets.
    """
    degrees: dict[int, int] = {}
    for own in weights:
        for target in own:
            degrees[target] = degrees.get(target, 0) + 1
    for source, own in enumerate(weights):
        damped = [(weight / (1 + math.log(degrees[target])), target) for target, weight in own.items()]
        damped.sort(key=lambda item: (-item[0], item[1]))
        for weight, target in damped[:EDGES_PER_FILE_MAX]:
            yield FileEdge(source=source, target=target, kind=kind, weight=weight)
