"""Node2Vec: what walks do, what is learnt from planted communities, and the odd graphs."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pharos_embedder import training
from pharos_embedder.ports import Stopped
from pharos_embedder.training import (
    WALKS_MAX,
    Node2VecConfig,
    WalkGraph,
    batch_size,
    plan,
    train,
    weak_edges,
)

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Graphs of this size gain nothing from a second one, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


QUICK = Node2VecConfig(dimensions=32, epochs=5)


def edges(pairs: list[tuple[int, int]], weights: list[float] | None = None) -> Edges:
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    weight = np.ones(len(array)) if weights is None else np.array(weights)
    return array[:, 0], array[:, 1], weight.astype(np.float32)


def two_cliques(size: int) -> Edges:
    """Two cliques joined by one bridge."""
    pairs = [(start + i, start + j) for start in (0, size) for i in range(size) for j in range(i + 1, size)]
    return edges([*pairs, (size - 1, size)])


def communities(nodes: int, count: int, inside: float, seed: int) -> tuple[Edges, NDArray[np.int64]]:
    """A sparse stochastic block model: five edges a node, a share of them inside its own community."""
    random = np.random.default_rng(seed)
    label = np.arange(nodes) % count
    source = random.integers(0, nodes, nodes * 5)
    anywhere = random.integers(0, nodes, nodes * 5)
    own = random.integers(0, nodes // count, nodes * 5) * count + label[source]
    target = np.where(random.random(nodes * 5) < inside, own, anywhere)
    return (source, target, np.ones(len(source), dtype=np.float32)), label


def purity(vectors: NDArray[np.float32], label: NDArray[np.int64], nearest: int) -> float:
    """The share of nearest neighbours that are of one's own community."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    found = np.argsort(-similar, axis=1)[:, :nearest]
    return float((label[found] == label[:, None]).mean())


def assert_sound(vectors: NDArray[np.float32], nodes: int, dimensions: int) -> None:
    assert vectors.shape == (nodes, dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_two_cliques_fall_apart_at_their_bridge() -> None:
    result = train(two_cliques(12), 24, QUICK)
    assert_sound(result.vectors, 24, 32)
    assert purity(result.vectors, np.arange(24) // 12, 8) > 0.95


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.5, 2.0), (4.0, 0.25)])
def test_neighbours_are_of_the_same_planted_community(p: float, q: float) -> None:
    graph, label = communities(200, 8, 0.75, seed=3)
    result = train(graph, 200, Node2VecConfig(epochs=5, p=p, q=q))
    assert_sound(result.vectors, 200, 64)
    assert purity(result.vectors, label, 5) > 0.75  # by chance: 0.12
    assert result.losses[-1] < result.losses[0]


def test_the_loss_falls_and_every_epoch_is_told() -> None:
    told: list[tuple[int, int, float]] = []
    result = train(
        two_cliques(10), 20, QUICK, on_epoch=lambda epoch, epochs, loss: told.append((epoch, epochs, loss))
    )
    assert [(epoch, epochs) for epoch, epochs, _ in told] == [(n, 5) for n in range(1, 6)]
    assert tuple(loss for _, _, loss in told) == result.losses
    assert result.losses[-1] < result.losses[0]
    assert result.note == ""
    assert result.seconds > 0


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    graph, _ = communities(100, 4, 0.8, seed=1)
    first, again = train(graph, 100, QUICK), train(graph, 100, QUICK)
    assert np.array_equal(first.vectors, again.vectors)
    assert first.losses == again.losses
    other = train(graph, 100, Node2VecConfig(dimensions=32, epochs=5, seed=7))
    assert not np.array_equal(first.vectors, other.vectors)


@pytest.mark.parametrize("nodes", [0, 1, 2, 5])
def test_a_graph_without_edges_gives_a_direction_for_each_node(nodes: int) -> None:
    result = train(edges([]), nodes)
    assert_sound(result.vectors, nodes, 64)
    assert result.losses == ()


@pytest.mark.parametrize(
    ("pairs", "nodes"),
    [([(0, 1)], 2), ([(0, 0)], 1), ([(0, 1), (1, 0), (0, 1)], 2), ([(0, 1)], 3), ([(1, 1), (0, 2)], 3)],
)
def test_tiny_graphs_give_sound_vectors(pairs: list[tuple[int, int]], nodes: int) -> None:
    result = train(edges(pairs), nodes, QUICK)
    assert_sound(result.vectors, nodes, 32)
    assert all(np.isfinite(result.losses))


def test_a_file_alone_is_near_the_files_of_its_folder() -> None:
    graph = two_cliques(12)
    folders = ["src/api"] * 12 + ["src/store"] * 12 + ["src/store"]
    result = train(graph, 25, QUICK, directories=folders)
    assert_sound(result.vectors, 25, 32)
    similar = result.vectors[:24] @ result.vectors[24]
    assert similar[12:].mean() > similar[:12].mean() + 0.2


def test_a_repository_without_references_is_grouped_by_its_folders() -> None:
    folders = [f"part{n % 4}/inner" for n in range(40)]
    result = train(edges([]), 40, QUICK, directories=folders)
    assert_sound(result.vectors, 40, 32)
    assert purity(result.vectors, np.arange(40) % 4, 3) > 0.9


def test_weak_edges_lead_to_the_nearest_folder() -> None:
    folders = ["a/b", "a/b/c", "a/x", "z", "a/b", "", "a/b/c"]
    source, target = weak_edges(np.array([0, 3, 6]), folders)
    tied = {node: target[source == node].tolist() for node in (0, 3, 6)}
    assert set(tied[0]) == {4, 1, 6}
    assert tied[6][0] == 1
    assert len(tied[3]) == 3
    assert all(node not in others for node, others in tied.items())


@pytest.mark.parametrize(("nodes", "expected"), [(1, 0), (2, 1), (3, 2), (9, 3)])
def test_a_file_alone_has_as_many_weak_edges_as_there_are_others(nodes: int, expected: int) -> None:
    source, _ = weak_edges(np.array([0]), [""] * nodes)
    assert len(source) == expected


@pytest.mark.parametrize(
    ("graph", "nodes"),
    [
        (edges([(0, 3)]), 3),
        (edges([(-1, 0)]), 3),
        ((np.zeros(2, dtype=np.int64), np.zeros(1, dtype=np.int64), np.ones(2, dtype=np.float32)), 3),
        (edges([]), -1),
    ],
)
def test_arrays_that_make_no_graph_are_refused(graph: Edges, nodes: int) -> None:
    with pytest.raises(ValueError, match=r"edge leads|three arrays|between 0"):
        train(graph, nodes)


def test_as_many_directories_as_nodes_are_needed() -> None:
    with pytest.raises(ValueError, match="as many directories"):
        train(edges([]), 2, directories=["a"])


@pytest.mark.parametrize(
    "change",
    [{"p": 0.0}, {"q": -1.0}, {"epochs": 0}, {"walk_length": 1}, {"batch_walks": 0}, {"learning_rate": 0.0}],
)
def test_a_configuration_that_trains_nothing_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least|greater"):
        Node2VecConfig(**change)  # type: ignore[arg-type]


def test_weights_that_are_not_above_zero_are_no_edges() -> None:
    result = train(edges([(0, 1), (1, 2), (0, 2)], [0.0, -1.0, float("nan")]), 3)
    assert result.losses == ()


def test_a_stop_ends_the_training() -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(two_cliques(12), 24, QUICK, check=check)
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (500, (10, 10)),
        (50_000, (10, 10)),
        (100_000, (10, 5)),
        (400_000, (10, 1)),
        (1_000_000, (5, 1)),
        (20_000_000, (1, 1)),
    ],
)
def test_a_huge_graph_is_trained_less_and_says_so(nodes: int, expected: tuple[int, int]) -> None:
    walks, epochs, note = plan(Node2VecConfig(), nodes)
    assert (walks, epochs) == expected
    assert (note == "") == (expected == (10, 10))
    assert walks * epochs * nodes <= max(WALKS_MAX, nodes)


def test_the_note_is_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WALKS_MAX", 500)
    result = train(two_cliques(12), 24)
    assert len(result.losses) == 2
    assert "24 connected files: 2 of 10 epochs and 10 of 10 walks a file" in result.note


def test_a_batch_grows_with_the_walks_between_its_limits() -> None:
    assert [batch_size(walks) for walks in (1, 240, 5_000, 10_000_000)] == [8, 12, 250, 512]


def graph_of(made: Edges, nodes: int) -> WalkGraph:
    return WalkGraph(made[0], made[1], made[2].astype(np.float64), nodes)


def test_every_step_of_a_walk_is_an_edge() -> None:
    graph, _ = communities(60, 3, 0.5, seed=2)
    source, target, _ = graph
    known = set(zip(source.tolist(), target.tolist(), strict=True))
    known |= {(right, left) for left, right in known}
    made = graph_of(graph, 60)
    for config in (Node2VecConfig(), Node2VecConfig(p=0.25, q=4.0)):
        walks = made.walk(made.connected, config, torch.Generator().manual_seed(0)).tolist()
        assert all(len(walk) == config.walk_length for walk in walks)
        assert all(step in known for walk in walks for step in pairwise(walk))


def test_steps_follow_the_weights() -> None:
    made = graph_of(edges([(0, 1), (0, 2), (2, 0)], [1.0, 1.0, 2.0]), 3)
    steps = made.step(torch.zeros(20_000, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert (steps == 2).float().mean().item() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        # From 0 to 1, where 1 leads to 0 (back), 2 (a neighbour of 0) and 3 (further out).
        (1.0, 1.0, (1 / 3, 1 / 3, 1 / 3)),
        (0.25, 1.0, (4 / 6, 1 / 6, 1 / 6)),
        (1.0, 0.5, (1 / 4, 1 / 4, 2 / 4)),
        (2.0, 4.0, (0.5 / 1.75, 1 / 1.75, 0.25 / 1.75)),
    ],
)
def test_p_and_q_bias_the_second_step(p: float, q: float, expected: tuple[float, float, float]) -> None:
    made = graph_of(edges([(0, 1), (1, 2), (0, 2), (1, 3)]), 4)
    count = 20_000
    steps = made._biased_step(
        torch.zeros(count, dtype=torch.int64),
        torch.ones(count, dtype=torch.int64),
        Node2VecConfig(p=p, q=q),
        torch.Generator().manual_seed(0),
    )
    shares = [(steps == node).float().mean().item() for node in (0, 2, 3)]
    assert shares == pytest.approx(expected, abs=0.02)


def test_negatives_are_drawn_by_damped_degree_and_never_from_the_isolated() -> None:
    made = graph_of(edges([(0, 1), (0, 2), (0, 3), (0, 4)]), 7)
    drawn = made.negatives(20_000, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 1, 2, 3, 4}
    assert (drawn == 0).float().mean().item() == pytest.approx(4**0.75 / (4**0.75 + 4), abs=0.02)
