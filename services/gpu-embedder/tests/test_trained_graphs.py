"""An unchanged graph is not trained again, and what is used in its place is what training would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from pharos_embedder import stages, trained_graphs
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN, label_of
from pharos_embedder.linking import FileEdge, FileGraph, LinkStats
from pharos_embedder.ports import unchecked
from pharos_embedder.stages import train_stage
from pharos_embedder.trained_graphs import TrainedGraphs, digest_of, key_of_graph
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import DatasetKey

KEY = DatasetKey("acme", "default", "d")
STATS = LinkStats(imports_resolved=0, imports_external=0, imports_missing=0)
GRAPH = FileGraph.of(
    ("a/one.py", "a/two.py", "b/three.py"),
    [
        FileEdge(source=0, target=1, kind="imports", weight=0.5),
        FileEdge(source=1, target=2, kind="references", weight=0.25),
    ],
    STATS,
)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    with VectorCache(tmp_path / "vectors", limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail) as found:
        yield found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each training had."""
    found: list[int] = []
    train = stages.train

    def counting(edges: Any, nodes: int, **options: Any) -> Any:
        found.append(nodes)
        return train(edges, nodes, **options)

    monkeypatch.setattr(stages, "train", counting)
    return found


def run(graph: FileGraph, cache: VectorCache, dataset: DatasetKey = KEY) -> Any:
    def silent(*_: Any, **__: Any) -> None:
        """Nobody asked."""

    return train_stage(graph, dataset, "j", cache, silent, unchecked)


def test_the_same_graph_is_trained_once_and_gives_the_same_bits(
    cache: VectorCache, trained: list[int]
) -> None:
    first, second = run(GRAPH, cache), run(GRAPH, cache)
    assert trained == [3]
    assert second.vectors.tobytes() == first.vectors.tobytes()
    assert (second.losses, second.note) == (first.losses, first.note)
    assert cache.forget(label_of("j", "acme")) == 1
    assert run(GRAPH, cache).vectors.tobytes() == first.vectors.tobytes()
    assert trained == [3, 3]


def test_whatever_training_sees_of_a_graph_trains_it_again(cache: VectorCache, trained: list[int]) -> None:
    run(GRAPH, cache)
    moved = replace(GRAPH, paths=("a/one.py", "b/two.py", "b/three.py"))
    weighed = replace(GRAPH, weights=GRAPH.weights * np.array([1.0, 1.0 + 1e-12]))
    turned = replace(GRAPH, sources=GRAPH.targets, targets=GRAPH.sources)
    for other in (moved, weighed, turned):
        assert digest_of(other) != digest_of(GRAPH)
    run(moved, cache)
    run(GRAPH, cache, DatasetKey("acme", "default", "other"))
    assert trained == [3, 3, 3]
    renamed = replace(GRAPH, paths=("a/first.py", "a/two.py", "b/three.py"))
    assert digest_of(renamed) == digest_of(GRAPH), "it is told folders, not names"


def test_other_code_trains_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(GRAPH)
    monkeypatch.setattr(trained_graphs, "_TRAINING", ())
    trained_graphs._training_version.cache_clear()
    try:
        assert digest_of(GRAPH) != before
    finally:
        trained_graphs._training_version.cache_clear()


def test_what_cannot_be_read_is_trained_again(cache: VectorCache, trained: list[int]) -> None:
    cache.write({key_of_graph(KEY): b"no such thing"})
    assert TrainedGraphs(cache).get(KEY, digest_of(GRAPH)) is None
    run(GRAPH, cache)
    assert trained == [3]
