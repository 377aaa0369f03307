"""A structural embedding of every file: Node2Vec (Grover and Leskovec, KDD 2016) over the graph of files.

Random walks over the graph are read as sentences, and skip-gram with negative sampling moves files that are
met together near each other. It starts from random vectors that were averaged over the graph a few times
(FastRP: Chen, Sultan, Tian, Chen and Skiena, CIKM 2019), so that a tenth of the usual walks is enough
(docs/experiments.md). Training runs on the CPU: the graph of a repository is small beside its text.

Whatever the size, a step is a batch of walks that are sampled for it, in parts of PART_WALKS, and there are
as many steps for a large graph as for a small one. So memory is four tables of (N, dimensions), the graph,
and one part; and the time grows with the walks, of which there are WALKS_MAX at most.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from pharos_embedder.ports import Check, unchecked
from pharos_embedder.walk_graph import NODES_MAX, Floats, Ints, WalkGraph, weak_edges

TRAINING_VERSION: Final = "2"
"""Changes whenever the same arguments may give other vectors."""

WALKS_MAX: Final = 1_000_000
"""Walks of one training: about half a minute of one core. More than 125,000 files get fewer epochs."""

WEAK_WEIGHT: Final = 0.1  # of the mean edge: others rarely walk there

START_POWERS: Final = 5
"""How often the first vectors are averaged over the neighbours: fewer blur less, more reach further."""

SHARED_NEGATIVES: Final = 32
"""Negative nodes of a part, shared by its pairs: one matrix product in place of a gather for every pair."""

PART_WALKS: Final = 256
"""Walks whose pairs are in memory at a time: about 10 MB."""

STEP_WALKS_MIN: Final = 8
"""Walks of a step at the least: fewer say nothing but noise."""

_BETAS: Final = (0.9, 0.999)

_SCORE_MAX: Final = 30.0
"""Beyond it a pair is decided, and the exponential would overflow in the end."""

Edges = tuple[Ints, Ints, Floats]
"""Source, target and weight, each (E,)."""


class Node2VecConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths, negatives and the window are those of the paper; the walks are what graphs of files need."""

    dimensions: int = 64
    walk_length: int = 20  # nodes of a walk
    context_size: int = 10  # nodes of a window: pairs are up to context_size − 1 steps apart
    walks_per_node: int = 1  # of an epoch
    epochs: int = 8
    steps: int = 40  # updates of all vectors, in the epochs together; fewer for a tiny graph
    p: float = 1.0  # below 1: walks go back more often
    q: float = 1.0  # below 1: walks go outward, above 1 they stay close
    negatives: int = 5  # for each positive pair, in expectation
    learning_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.dimensions, self.walks_per_node, self.epochs, self.steps, self.negatives)
        if min(counts) < 1 or self.walk_length < 2 or self.context_size < 2:
            raise ValueError("counts are at least 1, walk_length and context_size at least 2")
        if not (self.p > 0 and self.q > 0 and self.learning_rate > 0):
            raise ValueError("p, q and learning_rate are greater than 0")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What came out of it."""

    vectors: Floats  # (N, dimensions), unit length, finite
    losses: tuple[float, ...]  # mean loss of a pair, by epoch; empty for a graph without edges
    seconds: float
    note: str = ""  # why it was less than configured, "" when it was not


def training_digest(
    edges: Edges,
    nodes: int,
    config: Node2VecConfig | None = None,
    *,
    directories: Sequence[str] | None = None,
) -> str:
    """32 hex digits over everything that decides the vectors of `train` with the same arguments.

    Where it is that of an earlier training, its vectors serve again, row by row in the order of the nodes.
    The order of the edges counts: give them sorted.
    """
    head = (TRAINING_VERSION, config or Node2VecConfig(), nodes, directories and list(directories))
    digest = hashlib.blake2b(msgspec.json.encode(head), digest_size=16)
    source, target, weight = edges
    for array in (source.astype("<i8"), target.astype("<i8"), weight.astype("<f4")):
        digest.update(array.size.to_bytes(8, "little"))
        digest.update(array.tobytes())
    return digest.hexdigest()


def train(
    edges: Edges,
    nodes: int,
    config: Node2VecConfig | None = None,
    *,
    directories: Sequence[str] | None = None,
    on_epoch: Callable[[int, int, float], None] | None = None,
    check: Check = unchecked,
) -> Training:
    """One vector for each of *nodes* nodes, from *edges*, taken as undirected.

    *directories* holds the folder of each file ("src/api", "" for the root): a file without edges is tied
    weakly to its neighbours there. Without it, such a file gets a direction of its own, near nothing. The
    same arguments give the same vectors. `on_epoch(epoch, epochs, loss)` counts from 1. Raises ValueError
    for edges outside of the nodes. *check* is called before each part of a step; what it raises ends the
    training.
    """
    config = config or Node2VecConfig()
    began = time.perf_counter()
    source, target, weight = _cleaned(edges, nodes)
    if directories is not None:
        if len(directories) != nodes:
            raise ValueError(f"{nodes} nodes need as many directories, not {len(directories)}")
        check()
        alone = np.setdiff1d(np.arange(nodes), np.concatenate([source, target]))
        more = weak_edges(alone, directories)
        typical = float(weight.mean()) if len(weight) else 1.0
        source = np.concatenate([source, more[0]])
        target = np.concatenate([target, more[1]])
        weight = np.concatenate([weight, np.full(len(more[0]), WEAK_WEIGHT * typical)])
    vectors = _own_directions(nodes, config)
    if not len(source):
        return Training(vectors=vectors, losses=(), seconds=time.perf_counter() - began)
    check()
    graph = WalkGraph(source, target, weight, nodes)
    losses, note = _walk_and_learn(vectors, graph, config, on_epoch, check)
    return Training(vectors=vectors, losses=losses, seconds=time.perf_counter() - began, note=note)


def _walk_and_learn(
    vectors: Floats,
    graph: WalkGraph,
    config: Node2VecConfig,
    on_epoch: Callable[[int, int, float], None] | None,
    check: Check,
) -> tuple[tuple[float, ...], str]:
    """Give each connected node its row of *vectors* (N, D); the losses, and the note of the plan."""
    random = np.random.default_rng(config.seed)
    starts = graph.connected
    epochs, walks_per_node, note = plan(config, len(starts))
    size = step_walks(config.steps, epochs, len(starts) * walks_per_node)
    steps = epochs * math.ceil(len(starts) * walks_per_node / size)
    table = _spread(vectors, graph, check)  # (N, D), one for both sides of a pair
    optimizer = _Adam(table)

    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        order = random.permutation(np.tile(starts, walks_per_node))
        total, pairs = 0.0, 0
        for batch in _parts(order, size):
            slope = np.zeros_like(table)
            loss, count = 0.0, 0
            walks = graph.walk(batch, config.walk_length, random, p=config.p, q=config.q)  # (W, T)
            for part in _parts(walks, PART_WALKS):
                check()
                negatives = graph.negatives(SHARED_NEGATIVES, random)  # (K,)
                more_loss, more_count = add_slope(slope, table, part, negatives, config)
                loss, count = loss + more_loss, count + more_count
            # Of one pair a node: as steep in a large graph as in a small one.
            slope *= len(starts) / max(1, count)
            # From a high rate to a low one, as word2vec: early steps spread the nodes, late ones settle them.
            optimizer.step(slope, config.learning_rate * (1.0 - 0.9 * optimizer.steps / steps))
            total, pairs = total + loss, pairs + count
        losses.append(total / max(1, pairs))
        if on_epoch is not None:
            on_epoch(epoch, epochs, losses[-1])

    vectors[starts] = _unit(table[starts])
    return tuple(losses), note


def _spread(own: Floats, graph: WalkGraph, check: Check) -> Floats:
    """(N, D) the sum of what one to START_POWERS steps over the graph make of *own*, at unit length."""
    reached, total = own, np.zeros_like(own)
    for _ in range(START_POWERS):
        check()
        reached = _unit(graph.around(reached))
        total += reached
    return _unit(total)


def add_slope(
    slope: Floats, table: Floats, walks: Ints, negatives: Ints, config: Node2VecConfig
) -> tuple[float, int]:
    """Skip-gram with negative sampling: the loss summed over the pairs of *walks* (W, T), and how many pairs
    there are. Its derivative is added to *slope*, (N, D) as the *table*.

    All pairs of a walk come from one product of its rows with themselves, so that each row is fetched once
    and not once for every pair. The *negatives* (K,) are shared by all and weighted to `config.negatives`
    for each pair.
    """
    rows, far_rows = table[walks], table[negatives]  # (W, T, D), (K, D)
    places = np.arange(walks.shape[1])
    window = np.abs(places[:, None] - places) < config.context_size  # (T, T)
    # A node is no company to itself.
    met = (window & (walks[:, :, None] != walks[:, None, :])).astype(np.float32)  # (W, T, T)
    count = met.sum(axis=2, keepdims=True)  # (W, T, 1)
    weight = count * np.float32(config.negatives / len(negatives)) * (walks[:, :, None] != negatives)
    # Products of one walk each: so small that no library takes a second thread for them, whose waiting costs
    # more than it gains. And so a sum is the same whatever the number of threads.
    near = _sigmoid(rows @ rows.transpose(0, 2, 1))  # (W, T, T)
    apart = _sigmoid(-(rows @ far_rows.T))  # (W, T, K)
    loss = -float((np.log(near) * met).sum() + (np.log(apart) * weight).sum())
    pull, push = (1.0 - near) * met, (1.0 - apart) * weight
    of_rows = push @ far_rows - 2.0 * (pull @ rows)  # (W, T, D); a pair pulls from either side
    dimensions = np.arange(table.shape[1])
    cells = walks.reshape(-1, 1) * table.shape[1] + dimensions  # (W·T, D)
    np.add.at(slope.reshape(-1), cells.reshape(-1), of_rows.reshape(-1))
    np.add.at(slope, negatives, (push.transpose(0, 2, 1) @ rows).sum(axis=0))
    return loss, int(count.sum())


def _sigmoid(scores: Floats) -> Floats:
    bounded: Floats = np.clip(scores, -_SCORE_MAX, _SCORE_MAX, dtype=np.float32)
    return np.reciprocal(np.exp(-bounded) + 1.0)


def _unit(rows: Floats) -> Floats:
    """The rows at unit length; zero stays zero."""
    made: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return made


def _parts(rows: Ints, size: int) -> Iterator[Ints]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class _Adam:
    """Adam (Kingma and Ba, ICLR 2015) for one table, which it changes in place."""

    def __init__(self, table: Floats) -> None:
        self.steps = 0
        self._table = table
        self._mean, self._square = np.zeros_like(table), np.zeros_like(table)

    def step(self, slope: Floats, rate: float) -> None:
        """Move the table against *slope*, which is used up."""
        self.steps += 1
        slope *= 1.0 - _BETAS[0]
        self._mean *= _BETAS[0]
        self._mean += slope
        np.square(slope, out=slope)
        slope *= (1.0 - _BETAS[1]) / (1.0 - _BETAS[0]) ** 2
        self._square *= _BETAS[1]
        self._square += slope
        np.divide(self._square, 1.0 - _BETAS[1] ** self.steps, out=slope)
        np.sqrt(slope, out=slope)
        slope += 1e-8
        np.divide(self._mean, slope, out=slope)
        slope *= rate / (1.0 - _BETAS[0] ** self.steps)
        self._table -= slope


def plan(config: Node2VecConfig, nodes: int) -> tuple[int, int, str]:
    """Epochs, walks per node and a note: as configured, or as much of it as WALKS_MAX allows."""
    epochs, walks = config.epochs, config.walks_per_node
    if nodes * walks * epochs <= WALKS_MAX:
        return epochs, walks, ""
    epochs = max(1, min(epochs, WALKS_MAX // (nodes * walks)))
    walks = max(1, min(walks, WALKS_MAX // (nodes * epochs)))
    return (
        epochs,
        walks,
        f"{nodes} connected files: {epochs} of {config.epochs} epochs and {walks} of {config.walks_per_node}"
        f" walks a file, to stay within {WALKS_MAX} walks",
    )


def step_walks(steps: int, epochs: int, walks: int) -> int:
    """Walks of a step, for *steps* of them in *epochs* of *walks* each."""
    return max(STEP_WALKS_MIN, math.ceil(walks / math.ceil(steps / epochs)))


def _cleaned(edges: Edges, nodes: int) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """The edges that a walk can take: without loops and without weights that are not above zero."""
    source = np.asarray(edges[0], dtype=np.int64)
    target = np.asarray(edges[1], dtype=np.int64)
    weight = np.asarray(edges[2], dtype=np.float64)
    if not source.shape == target.shape == weight.shape or source.ndim != 1:
        raise ValueError("sources, targets and weights are three arrays of one length")
    if not 0 <= nodes <= NODES_MAX:
        raise ValueError(f"between 0 and {NODES_MAX} nodes, not {nodes}")
    if len(source) and not (min(source.min(), target.min()) >= 0 and max(source.max(), target.max()) < nodes):
        raise ValueError(f"an edge leads outside of the {nodes} nodes")
    kept = (source != target) & np.isfinite(weight) & (weight > 0)
    return source[kept], target[kept], weight[kept]


def _own_directions(nodes: int, config: Node2VecConfig) -> Floats:
    """(N, D) random unit vectors: where training starts, and where a file stays that is tied to nothing."""
    drawn = np.random.default_rng(config.seed).standard_normal((nodes, config.dimensions))
    length = np.linalg.norm(drawn, axis=1, keepdims=True)
    made: Floats = (drawn / np.maximum(length, math.ulp(1.0))).astype(np.float32)
    return made
