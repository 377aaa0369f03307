"""Which files have to do with a file, and why. Pure.

Up to three rankings are joined by Reciprocal Rank Fusion, as those of a search are: how near the files are in
the graph as a whole (the cosine of their structural vectors), how strong the edges between them are, and, of
a symbol, how much its name says in them (BM25).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from pharos_embedder.fusion import RRF_K
from pharos_embedder.linking import EdgeKind
from pharos_embedder.stored_graph import StoredGraph

Direction = Literal["out", "in"]

_SAID: Final[Mapping[tuple[EdgeKind, Direction], str]] = {
    ("imports", "out"): "is imported by {}",
    ("imports", "in"): "imports {}",
    ("references", "out"): "defines names that {} uses",
    ("references", "in"): "uses names that {} defines",
}


class Tie(msgspec.Struct, frozen=True, kw_only=True):
    """An edge between the file that was asked about and a related one: ``out`` of the first, or ``in``."""

    kind: EdgeKind
    direction: Direction
    weight: float


class RelatedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that has to do with another one. ``score`` is in (0, 1]: 1 for one that leads every ranking.

    ``structural`` is a cosine, None beyond the nearest; ``mentions`` a BM25 sum.
    """

    path: str
    score: float
    structural: float | None
    mentions: float | None
    ties: tuple[Tie, ...]
    reasons: tuple[str, ...]


def relate(
    graph: StoredGraph,
    file: int,
    *,
    near: Mapping[str, float],
    mentions: Mapping[str, float],
    symbol: str,
    k: int,
) -> tuple[RelatedFile, ...]:
    """The *k* files that have most to do with *file*, best first; itself is not among them.

    *near* are cosines and *mentions* of *symbol* BM25 sums, by path.
    """
    asked = graph.paths[file]
    ties = _ties(graph, file)
    rankings = [
        _ranked({path: score for path, score in scores.items() if path != asked})
        for scores in (near, {path: sum(tie.weight for tie in own) for path, own in ties.items()}, mentions)
    ]
    by_structure, _, by_name = rankings
    most = sum(1 for ranking in rankings if ranking) / (RRF_K + 1)
    totals: dict[str, float] = defaultdict(float)
    for ranking in rankings:
        for path, rank in ranking.items():
            totals[path] += 1 / (RRF_K + rank) / most
    return tuple(
        RelatedFile(
            path=path,
            score=round(totals[path], 6),
            structural=near.get(path),
            mentions=mentions.get(path),
            ties=tuple(ties.get(path, ())),
            reasons=(
                *(_SAID[tie.kind, tie.direction].format(asked) for tie in ties.get(path, ())),
                *([f"mentions {symbol}"] if path in by_name else []),
                *([f"#{by_structure[path]} of the nearest in the graph"] if path in by_structure else []),
            ),
        )
        for path in list(_ranked(totals))[:k]
    )


def _ties(graph: StoredGraph, file: int) -> dict[str, list[Tie]]:
    """The edges between *file* and each other one, by its path."""
    found: dict[str, list[Tie]] = defaultdict(list)
    directions: Sequence[Direction] = ("out", "in")
    for direction, edges in zip(directions, (graph.edges_out_of(file), graph.edges_into(file)), strict=True):
        for edge in edges:
            tie = Tie(kind=edge.kind, direction=direction, weight=edge.weight)
            found[graph.paths[edge.other]].append(tie)
    return dict(found)


def _ranked(scores: Mapping[str, float]) -> dict[str, int]:
    """Path → rank from 1, best first; equal ones by path."""
    ordered = sorted(scores, key=lambda path: (-scores[path], path))
    return {path: rank for rank, path in enumerate(ordered, start=1)}
