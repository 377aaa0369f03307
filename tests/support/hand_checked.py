"""The projects whose edges were written down by hand, and how well the linker finds them."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from pharos_embedder.discovery import discover, read_configs
from pharos_embedder.linking import FileGraph, link
from pharos_embedder.parsing import parse
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.resolution import resolvers
from pharos_embedder.syntax import Import, ParsedFile

PROJECTS = Path(__file__).parents[2] / "services/gpu-embedder/tests/projects"
LANGUAGES: Mapping[str, str] = {
    "python": "Python",
    "javascript": "JavaScript",
    "typescript": "TypeScript",
    "tsx": "TSX",
    "go": "Go",
    "java": "Java",
    "rust": "Rust",
    "c": "C",
    "cpp": "C++",
}
"""The languages whose imports are resolved, by the names of their projects."""

Pairs = frozenset[tuple[str, str]]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wrote down: pairs of (file, file it imports), and of (file, statement) for those that
    lead out of the project and for those whose file is missing. References are a sample: some that must be,
    and some that must not.
    """

    imports: Pairs
    external: Pairs
    missing: Pairs
    references: Pairs
    not_references: Pairs


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the linker made of a project; the statements as in Checked."""

    graph: FileGraph
    external: Pairs
    missing: Pairs

    def edges(self, kind: str) -> Pairs:
        return frozenset((source, target) for source, target, of, _ in self.graph.named_edges() if of == kind)


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How what was found compares with what should be."""

    expected: int
    found: int
    right: int

    @classmethod
    def of(cls, expected: Pairs, found: Pairs) -> Score:
        return cls(expected=len(expected), found=len(found), right=len(expected & found))

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.expected if self.expected else 1.0


@functools.cache
def checked(language: str) -> Checked:
    """The list of the project in *language*."""
    table = tomllib.loads((PROJECTS / f"{language}.toml").read_text(encoding="utf-8"))
    return msgspec.convert(
        {
            name: [(one, other) for one, others in rows.items() for other in others]
            for name, rows in table.items()
        },
        Checked,
    )


@functools.cache
def found(language: str) -> Found:
    """The project in *language*, discovered, parsed and linked as a repository is."""
    root = PROJECTS / language
    discovery = discover(root)
    parsed = [parse(one.path, one.language, (root / one.path).read_bytes()) for one in discovery.files]
    configs = RepositoryConfigs.read(read_configs(root, discovery))
    statements: dict[str, set[tuple[str, str]]] = {"external": set(), "missing": set()}
    by_language = resolvers(
        [file.path for file in parsed],
        lambda wanted: (file for file in parsed if file.language == wanted),
        configs,
    )
    for file, one in _statements(parsed):
        targets = by_language[file.language].resolve(file, one)
        if not targets:
            statements["external" if targets is None else "missing"].add(
                (file.path, written(file.language, one))
            )
    return Found(
        graph=link(parsed, configs),
        external=frozenset(statements["external"]),
        missing=frozenset(statements["missing"]),
    )


def files(language: str) -> int:
    """How many files the project in *language* has."""
    return sum(1 for path in (PROJECTS / language).rglob("*") if path.is_file())


def _statements(parsed: list[ParsedFile]) -> Iterator[tuple[ParsedFile, Import]]:
    return ((file, one) for file in parsed for one in file.imports if one.kind != "path")


def written(language: str, one: Import) -> str:
    """The import *one* as the lists write it: its module, and in Java what is taken of it."""
    if language == "java":
        return f"{one.module}.{one.names[0].name}"
    return "." * one.level + one.module
