"""Node2Vec: what walks do, what is learnt from planted communities, and the odd graphs."""

from itertools import pairwise

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray

from pharos_embedder import training
from pharos_embedder.ports import Stopped
from pharos_embedder.training import (
    WALKS_MAX,
    Edges,
    Node2VecConfig,
    add_slope,
    plan,
    step_walks,
    train,
    training_digest,
)
from pharos_embedder.walk_graph import Floats, Ints, WalkGraph, weak_edges

QUICK = Node2VecConfig(dimensions=32)


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
    result = train(graph, 200, Node2VecConfig(p=p, q=q))
    assert_sound(result.vectors, 200, 64)
    assert purity(result.vectors, label, 5) > 0.75  # by chance: 0.12
    assert result.losses[-1] < result.losses[0]


def test_the_loss_falls_and_every_epoch_is_told() -> None:
    told: list[tuple[int, int, float]] = []
    result = train(
        two_cliques(10), 20, QUICK, on_epoch=lambda epoch, epochs, loss: told.append((epoch, epochs, loss))
    )
    assert [(epoch, epochs) for epoch, epochs, _ in told] == [(n, 8) for n in range(1, 9)]
    assert tuple(loss for _, _, loss in told) == result.losses
    assert result.losses[-1] < result.losses[0]
    assert result.note == ""
    assert result.seconds > 0


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    graph, _ = communities(100, 4, 0.8, seed=1)
    first, again = train(graph, 100, QUICK), train(graph, 100, QUICK)
    assert np.array_equal(first.vectors, again.vectors)
    assert first.losses == again.losses
    other = train(graph, 100, Node2VecConfig(dimensions=32, seed=7))
    assert not np.array_equal(first.vectors, other.vectors)


def test_the_number_of_threads_changes_no_bit() -> None:
    graph, _ = communities(600, 12, 0.8, seed=4)
    made = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(train(graph, 600, QUICK).vectors)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


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
    [{"p": 0.0}, {"q": -1.0}, {"epochs": 0}, {"walk_length": 1}, {"steps": 0}, {"learning_rate": 0.0}],
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
        (500, (5, 2)),
        (100_000, (5, 2)),
        (200_000, (2, 2)),
        (600_000, (1, 1)),
        (20_000_000, (1, 1)),
    ],
)
def test_a_huge_graph_is_trained_less_and_says_so(nodes: int, expected: tuple[int, int]) -> None:
    epochs, walks, note = plan(Node2VecConfig(epochs=5, walks_per_node=2), nodes)
    assert (epochs, walks) == expected
    assert (note == "") == (expected == (5, 2))
    assert walks * epochs * nodes <= max(WALKS_MAX, nodes)


def test_the_note_is_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WALKS_MAX", 50)
    result = train(two_cliques(12), 24)
    assert len(result.losses) == 2
    assert "24 connected files: 2 of 8 epochs and 1 of 1 walks a file" in result.note


def test_a_large_graph_takes_as_many_steps_as_a_small_one() -> None:
    assert [step_walks(40, 5, walks) for walks in (1, 64, 240, 2_000, 75_000)] == [8, 8, 30, 250, 9_375]
    assert step_walks(3, 5, 100) == 100  # one for each epoch at the least


def graph_of(made: Edges, nodes: int) -> WalkGraph:
    return WalkGraph(made[0], made[1], made[2].astype(np.float64), nodes)


def test_every_step_of_a_walk_is_an_edge() -> None:
    graph, _ = communities(60, 3, 0.5, seed=2)
    source, target, _ = graph
    known = set(zip(source.tolist(), target.tolist(), strict=True))
    known |= {(right, left) for left, right in known}
    made = graph_of(graph, 60)
    for p, q in ((1.0, 1.0), (0.25, 4.0)):
        walks = made.walk(made.connected, 20, np.random.default_rng(0), p=p, q=q).tolist()
        assert all(len(walk) == 20 for walk in walks)
        assert all(step in known for walk in walks for step in pairwise(walk))


def test_steps_follow_the_weights() -> None:
    made = graph_of(edges([(0, 1), (0, 2), (2, 0)], [1.0, 1.0, 2.0]), 3)
    steps = made.step(np.zeros(20_000, dtype=np.int64), np.random.default_rng(0))
    assert (steps == 2).mean() == pytest.approx(0.75, abs=0.02)


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
        np.zeros(count, dtype=np.int64),
        np.ones(count, dtype=np.int64),
        np.random.default_rng(0),
        p,
        q,
    )
    shares = [float((steps == node).mean()) for node in (0, 2, 3)]
    assert shares == pytest.approx(expected, abs=0.02)


def test_negatives_are_drawn_by_damped_degree_and_never_from_the_isolated() -> None:
    made = graph_of(edges([(0, 1), (0, 2), (0, 3), (0, 4)]), 7)
    drawn = made.negatives(20_000, np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 1, 2, 3, 4}
    assert (drawn == 0).mean() == pytest.approx(4**0.75 / (4**0.75 + 4), abs=0.02)


def test_the_neighbours_are_summed_by_weight() -> None:
    made = graph_of(edges([(0, 1), (0, 2), (2, 0)], [1.0, 2.0, 0.5]), 4)
    rows = np.eye(4, dtype=np.float32)
    assert made.around(rows).tolist() == [[0, 1, 2.5, 0], [1, 0, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 0]]


def test_the_slope_is_the_derivative_of_the_loss() -> None:
    """Against the loss as it is defined, pair by pair, differentiated by torch."""
    random = np.random.default_rng(5)
    config = Node2VecConfig(dimensions=8, walk_length=6, context_size=3)
    table = random.standard_normal((7, 8)).astype(np.float32)
    walks, negatives = random.integers(0, 7, (5, 6)), random.integers(0, 7, 4)

    exact = torch.from_numpy(table.copy()).requires_grad_()
    expected, pairs = torch.zeros(()), 0
    for walk in walks.tolist():
        for place, node in enumerate(walk):
            for other_place, other in enumerate(walk):
                if node == other or abs(place - other_place) >= config.context_size:
                    continue
                pairs += 1
                expected = expected - torch.nn.functional.logsigmoid(exact[node] @ exact[other])
                for far in negatives.tolist():
                    if far != node:
                        part = torch.nn.functional.logsigmoid(-(exact[node] @ exact[far]))
                        expected = expected - part * config.negatives / len(negatives)
    expected.backward()  # type: ignore[no-untyped-call]

    slope = np.ones_like(table)
    loss, count = add_slope(slope, table, walks, negatives, config)
    assert count == pairs
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    assert exact.grad is not None
    assert np.allclose(slope - 1, exact.grad.numpy(), atol=1e-3)


def test_scores_beyond_all_measure_are_still_finite() -> None:
    table = np.full((3, 4), 1e3, dtype=np.float32) * np.array([[1], [1], [-1]], dtype=np.float32)
    slope = np.zeros_like(table)
    loss, _ = add_slope(slope, table, np.array([[0, 1, 2]]), np.array([0, 2]), Node2VecConfig())
    assert np.isfinite(loss)
    assert np.isfinite(slope).all()


def plain_weak_edges(alone: list[int], directories: list[str]) -> list[tuple[int, int]]:
    """The definition, by looking at each of the eight places to either side."""
    folders = [[part for part in directory.split("/") if part] for directory in directories]
    order = sorted(range(len(folders)), key=lambda node: (folders[node], node))

    def shared(left: int, right: int) -> int:
        same = [one == other for one, other in zip(folders[left], folders[right], strict=False)]
        return same.index(False) if False in same else len(same)

    found = []
    for node in alone:
        here = order.index(node)
        near = [place for place in range(here - 8, here + 9) if place != here and 0 <= place < len(order)]
        near.sort(key=lambda place: (-shared(node, order[place]), abs(place - here), place))
        found += [(node, order[place]) for place in near[:3]]
    return found


def test_weak_edges_are_those_of_the_definition() -> None:
    random = np.random.default_rng(6)
    for nodes in (1, 2, 4, 9, 60):
        folders = ["/".join(random.choice(["a", "b", "c"], random.integers(0, 4))) for _ in range(nodes)]
        alone = np.flatnonzero(random.random(nodes) < 0.7)
        source, target = weak_edges(alone, folders)
        assert list(zip(source.tolist(), target.tolist(), strict=True)) == plain_weak_edges(
            alone.tolist(), folders
        )


def test_the_digest_is_of_everything_that_decides_the_vectors() -> None:
    graph = edges([(0, 1), (1, 2)], [1.0, 2.0])
    folders = ["a", "b", "c"]
    usual = training_digest(graph, 3, directories=folders)
    assert usual == training_digest(graph, 3, Node2VecConfig(), directories=list(folders))
    others = [
        training_digest(edges([(0, 1), (0, 2)], [1.0, 2.0]), 3, directories=folders),
        training_digest(edges([(0, 1), (2, 1)], [1.0, 2.0]), 3, directories=folders),
        training_digest(edges([(0, 1), (1, 2)], [1.0, 2.5]), 3, directories=folders),
        training_digest(edges([(0, 1)], [1.0]), 3, directories=folders),
        training_digest(graph, 4, directories=[*folders, "c"]),
        training_digest(graph, 3, Node2VecConfig(seed=1), directories=folders),
        training_digest(graph, 3, directories=["a", "b", "b"]),
        training_digest(graph, 3),
    ]
    assert len({usual, *others}) == 1 + len(others)


def test_another_version_of_the_training_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = training_digest(edges([(0, 1)]), 2)
    monkeypatch.setattr(training, "TRAINING_VERSION", "0")
    assert training_digest(edges([(0, 1)]), 2) != before


def test_what_a_step_holds_does_not_grow_with_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are bounded, and a stop is asked for before each of them."""
    graph, _ = communities(4_000, 40, 0.8, seed=7)
    sizes: list[int] = []
    asked: list[int] = []
    plain = training.add_slope

    def watched(slope: Floats, table: Floats, walks: Ints, negatives: Ints, config: Node2VecConfig) -> object:
        sizes.append(len(walks))
        return plain(slope, table, walks, negatives, config)

    monkeypatch.setattr(training, "add_slope", watched)
    train(
        graph, 4_000, Node2VecConfig(dimensions=8, epochs=2, steps=8), check=lambda: asked.append(len(sizes))
    )
    assert sum(sizes) == 2 * 4_000
    assert max(sizes) == training.PART_WALKS
    assert len(asked) == len(sizes) + training.START_POWERS + 1  # and once for the graph


def test_a_tree_as_large_as_an_operating_system_trains_within_its_memory() -> None:
    """75,000 files and a million edges: 0.5 GB beside what was there, however the machine is."""
    nodes = 75_000
    random = np.random.default_rng(8)
    source = random.integers(0, nodes, 1_000_000)
    target = (source + random.geometric(0.001, 1_000_000)) % nodes
    graph = source, target, np.ones(1_000_000, dtype=np.float32)
    process = psutil.Process()
    before, most = process.memory_info().rss, 0

    def look() -> None:
        nonlocal most
        most = max(most, process.memory_info().rss)

    result = train(graph, nodes, Node2VecConfig(epochs=1, steps=4), check=look)
    assert_sound(result.vectors, nodes, 64)
    assert most - before < 500_000_000
