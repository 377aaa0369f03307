"""An unchanged graph is not trained again, and what is used in its place is what training would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_embedder import stages
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN, label_of
from pharos_embedder.linking import FileEdge, FileGraph, LinkStats
from pharos_embedder.ports import unchecked
from pharos_embedder.stages import train_stage
from pharos_embedder.trained_graphs import TrainedGraphs, key_of_graph
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


def test_another_graph_and_another_dataset_are_trained(cache: VectorCache, trained: list[int]) -> None:
    run(GRAPH, cache)
    run(replace(GRAPH, paths=("a/one.py", "b/two.py", "b/three.py")), cache)
    run(replace(GRAPH, sources=GRAPH.targets, targets=GRAPH.sources), cache)
    run(replace(GRAPH, weights=GRAPH.weights * 2), cache)
    run(GRAPH, cache, DatasetKey("acme", "default", "other"))
    assert trained == [3] * 5


def test_what_cannot_be_read_is_trained_again(cache: VectorCache, trained: list[int]) -> None:
    cache.write({key_of_graph(KEY): b"no such thing"})
    assert TrainedGraphs(cache).get(KEY, "") is None
    run(GRAPH, cache)
    assert trained == [3]
