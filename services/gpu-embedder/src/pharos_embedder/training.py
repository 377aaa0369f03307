"""A structural embedding of every file: Node2Vec (Grover and Leskovec, KDD 2016) over the graph of files.

Random walks over the graph are read as sentences, and skip-gram with negative sampling moves files that are
met together near each other. Walks are vectorised torch: torch-geometric's own need an extension that is
not on the package index. Training runs on the CPU: the graph of a repository is small beside its text.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch_geometric.utils import to_undirected

from pharos_embedder.ports import Check, unchecked

WALKS_MAX: Final = 5_000_000
"""Walks of one training, about four minutes on two cores. A larger graph gets fewer epochs, then fewer
walks.
"""

NODES_MAX: Final = 3_000_000_000
"""An edge is looked up by source × nodes + target in 64 bits."""

REJECTIONS_MAX: Final = 32
"""Proposals of one biased step; then the last one is taken. It comes to that where nearly every neighbour
is an unlikely one, and there the bias matters least.
"""

WEAK_EDGES: Final = 3  # for each file that nothing refers to
WEAK_WEIGHT: Final = 0.1  # of the mean edge: others rarely walk there
_NEIGHBOURHOOD: Final = 8  # places to either side, in the order of paths, where they are looked for


class Node2VecConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are those of the paper where it has them; lengths and walks are for graphs of files."""

    dimensions: int = 64
    walk_length: int = 20  # nodes of a walk
    context_size: int = 10  # nodes of a window: pairs are up to context_size − 1 steps apart
    walks_per_node: int = 10  # of an epoch
    epochs: int = 10
    p: float = 1.0  # below 1: walks go back more often
    q: float = 1.0  # below 1: walks go outward, above 1 they stay close
    negatives: int = 5  # for each positive pair, in expectation
    learning_rate: float = 0.01
    batch_walks: int | None = None  # None: by the size of the graph, see `batch_size`
    seed: int = 0

    def __post_init__(self) -> None:
        batch = 1 if self.batch_walks is None else self.batch_walks
        counts = (self.dimensions, self.walks_per_node, self.epochs, self.negatives, batch)
        if min(counts) < 1 or self.walk_length < 2 or self.context_size < 2:
            raise ValueError("counts are at least 1, walk_length and context_size at least 2")
        if not (self.p > 0 and self.q > 0 and self.learning_rate > 0):
            raise ValueError("p, q and learning_rate are greater than 0")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What came out of it."""

    vectors: NDArray[np.float32]  # (N, dimensions), unit length, finite
    losses: tuple[float, ...]  # mean loss of a pair, by epoch; empty for a graph without edges
    seconds: float
    note: str = ""  # why it was less than configured, "" when it was not


BATCH_WALKS_MAX: Final = 512

_BETAS: Final = (0.9, 0.999)

SHARED_NEGATIVES: Final = 64
"""Negative nodes of a batch, shared by its pairs: one matrix product in place of a gather for every pair."""


def train(
    edges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
    nodes: int,
    config: Node2VecConfig | None = None,
    *,
    directories: Sequence[str] | None = None,
    on_epoch: Callable[[int, int, float], None] | None = None,
    check: Check = unchecked,
) -> Training:
    """One vector for each of *nodes* nodes, from *edges* (source, target, weight), each (E,), taken as
    undirected.

    *directories* holds the folder of each file ("src/api", "" for the root): a file without edges is tied
    weakly to its neighbours there. Without it, such a file gets a direction of its own, near nothing. The
    same arguments give the same vectors. `on_epoch(epoch, epochs, loss)` counts from 1. Raises ValueError
    for edges outside of the nodes. *check* is called before each batch; what it raises ends the training.
    """
    config = config or Node2VecConfig()
    began = time.perf_counter()
    source, target, weight = _cleaned(edges, nodes)
    if directories is not None:
        if len(directories) != nodes:
            raise ValueError(f"{nodes} nodes need as many directories, not {len(directories)}")
        alone = np.setdiff1d(np.arange(nodes), np.concatenate([source, target]))
        more = weak_edges(alone, directories)
        typical = float(weight.mean()) if len(weight) else 1.0
        source = np.concatenate([source, more[0]])
        target = np.concatenate([target, more[1]])
        weight = np.concatenate([weight, np.full(len(more[0]), WEAK_WEIGHT * typical)])
    vectors = _own_directions(nodes, config)
    if not len(source):
        return Training(vectors=vectors, losses=(), seconds=time.perf_counter() - began)

    generator = torch.Generator().manual_seed(config.seed)
    graph = WalkGraph(source, target, weight, nodes)
    starts = graph.connected
    walks_per_node, epochs, note = plan(config, len(starts))
    size = config.batch_walks or batch_size(len(starts) * walks_per_node)
    table = torch.nn.Parameter(torch.from_numpy(vectors.copy()))  # (N, D), one for both sides of a pair
    mean, square, steps = torch.zeros_like(table.detach()), torch.zeros_like(table.detach()), 0
    places = torch.arange(config.walk_length)
    window = (places[:, None] - places[None, :]).abs() < config.context_size  # (T, T)

    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        # From a high rate to a low one, as word2vec: early steps spread the nodes, late ones settle them.
        rate = config.learning_rate * (1.0 - 0.9 * (epoch - 1) / epochs)
        order = starts.repeat(walks_per_node)
        order = order[torch.randperm(len(order), generator=generator)]
        total, pairs = 0.0, 0
        for start in range(0, len(order), size):
            check()
            batch = order[start : start + size]
            walks = graph.walk(batch, config, generator)  # (W, T)
            negatives = graph.negatives(SHARED_NEGATIVES, generator)  # (K,)
            loss, count = _loss(table, walks, negatives, window, config.negatives)
            (slope,) = torch.autograd.grad(loss / max(1, count), table)
            steps += 1
            # Adam, written out: torch.optim loads the compiler with it, a second and 100 MB for these lines.
            mean.lerp_(slope, 1.0 - _BETAS[0])
            square.lerp_(slope * slope, 1.0 - _BETAS[1])
            spread = (square / (1.0 - _BETAS[1] ** steps)).sqrt_().add_(1e-8)
            with torch.no_grad():
                table.addcdiv_(mean, spread, value=-rate / (1.0 - _BETAS[0] ** steps))
            total, pairs = total + float(loss.detach()), pairs + count
        losses.append(total / max(1, pairs))
        if on_epoch is not None:
            on_epoch(epoch, epochs, losses[-1])

    trained = functional.normalize(table.detach()[starts], dim=1).numpy()
    vectors[starts.numpy()] = trained
    return Training(vectors=vectors, losses=tuple(losses), seconds=time.perf_counter() - began, note=note)


def _loss(
    table: torch.Tensor, walks: torch.Tensor, negatives: torch.Tensor, window: torch.Tensor, per_pair: int
) -> tuple[torch.Tensor, int]:
    """Skip-gram with negative sampling, summed over the pairs of a batch, and how many pairs there are.

    All pairs of a walk come from one product of its rows with themselves, so that each row is fetched once
    and not once for every pair. The negatives are shared by the batch and weighted to *per_pair* for each
    pair.
    """
    rows = functional.embedding(walks, table)  # (W, T, D)
    scores = rows @ rows.transpose(1, 2)  # (W, T, T)
    met = window & (walks[:, :, None] != walks[:, None, :])  # (W, T, T): a node is no company to itself
    count = met.sum(dim=2)  # (W, T)
    pull = (functional.softplus(-scores) * met).sum()
    far = rows @ functional.embedding(negatives, table).T  # (W, T, K)
    far = functional.softplus(far.masked_fill(walks[:, :, None] == negatives, float("-inf")))
    push = (far.mean(dim=2) * count).sum() * per_pair
    return pull + push, int(count.sum())


def plan(config: Node2VecConfig, nodes: int) -> tuple[int, int, str]:
    """Walks per node, epochs and a note: as configured, or as much of it as WALKS_MAX allows."""
    walks, epochs = config.walks_per_node, config.epochs
    if nodes * walks * epochs <= WALKS_MAX:
        return walks, epochs, ""
    epochs = max(1, min(epochs, WALKS_MAX // (nodes * walks)))
    walks = max(1, min(walks, WALKS_MAX // (nodes * epochs)))
    return (
        walks,
        epochs,
        f"{nodes} connected files: {epochs} of {config.epochs} epochs and {walks} of {config.walks_per_node}"
        f" walks a file, to stay within {WALKS_MAX} walks",
    )


def batch_size(walks: int) -> int:
    """Walks of a step, for an epoch of *walks*: twenty steps at least, so that a small graph settles as
    well, and a bounded batch for a large one, within the caches.
    """
    return min(BATCH_WALKS_MAX, max(8, walks // 20))


def weak_edges(
    alone: NDArray[np.int64], directories: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(source, target) of up to WEAK_EDGES edges for each file *alone*: to those that share most of its
    folder.

    In the order of their folders the nearest relatives stand next to each other, so a few places to either
    side are enough and the cost stays linear.
    """
    folders = [tuple(part for part in directory.split("/") if part) for directory in directories]
    order = sorted(range(len(folders)), key=lambda node: (folders[node], node))
    place = {node: position for position, node in enumerate(order)}
    source: list[int] = []
    target: list[int] = []
    for node in alone.tolist():
        here = place[node]
        around = range(max(0, here - _NEIGHBOURHOOD), min(len(order), here + _NEIGHBOURHOOD + 1))
        nearest = sorted(
            (position for position in around if position != here),
            key=lambda position: (
                -_shared_depth(folders[node], folders[order[position]]),
                abs(position - here),
                position,
            ),
        )
        for position in nearest[:WEAK_EDGES]:
            source.append(node)
            target.append(order[position])
    return np.array(source, dtype=np.int64), np.array(target, dtype=np.int64)


def _shared_depth(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    depth = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        depth += 1
    return depth


class WalkGraph:
    """An undirected weighted graph in compressed rows, made for many walks at a time."""

    def __init__(
        self,
        source: NDArray[np.int64],
        target: NDArray[np.int64],
        weight: NDArray[np.float64],
        nodes: int,
    ) -> None:
        pairs = torch.from_numpy(np.stack([source, target]))
        # Sorted by source, then target; parallel edges and both directions of one become one, weights added.
        both, summed = to_undirected(pairs, torch.from_numpy(weight), num_nodes=nodes, reduce="add")
        self._nodes = nodes
        self._edges: torch.Tensor = both[0] * nodes + both[1]  # (E,), sorted
        self._targets: torch.Tensor = both[1]  # (E,)
        rows, sums = both[0].numpy(), summed.numpy()
        ends = np.searchsorted(rows, np.arange(nodes + 1))
        self._rows = torch.from_numpy(ends)  # (N + 1,)
        cumulative = np.concatenate([[0.0], np.cumsum(sums)])
        self._cumulative = torch.from_numpy(cumulative)  # (E + 1,)
        self.connected = torch.from_numpy(np.flatnonzero(np.diff(ends)))  # nodes with an edge
        # Negatives by degree to the power of 3/4, as word2vec and Node2Vec draw them.
        degree = cumulative[ends[1:]] - cumulative[ends[:-1]]
        self._negative_cumulative = torch.from_numpy(np.cumsum(np.maximum(degree, 0.0) ** 0.75))

    def step(self, at: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(W,) a neighbour of each of *at*, drawn by weight."""
        first, end = self._rows[at], self._rows[at + 1]
        low, high = self._cumulative[first], self._cumulative[end]
        drawn = low + torch.rand(len(at), generator=generator, dtype=torch.float64) * (high - low)
        edge = torch.searchsorted(self._cumulative, drawn, right=True) - 1
        return self._targets[edge.clamp(min=first, max=end - 1)]  # rounding may step over an end

    def walk(self, starts: torch.Tensor, config: Node2VecConfig, generator: torch.Generator) -> torch.Tensor:
        """(W, walk_length) nodes, the start first. Every start has an edge, so no walk ends early."""
        nodes = [starts, self.step(starts, generator)]
        biased = config.p != 1.0 or config.q != 1.0
        while len(nodes) < config.walk_length:
            if biased:
                nodes.append(self._biased_step(nodes[-2], nodes[-1], config, generator))
            else:
                nodes.append(self.step(nodes[-1], generator))
        return torch.stack(nodes, dim=1)

    def _biased_step(
        self, before: torch.Tensor, at: torch.Tensor, config: Node2VecConfig, generator: torch.Generator
    ) -> torch.Tensor:
        """The second-order step of Node2Vec, by rejection: propose by weight, accept by p and q."""
        highest = max(1.0, 1.0 / config.p, 1.0 / config.q)
        back, near, out = 1.0 / config.p / highest, 1.0 / highest, 1.0 / config.q / highest
        chosen = self.step(at, generator)
        open_ = torch.arange(len(at))
        for _ in range(REJECTIONS_MAX):
            proposed = chosen[open_]
            chance = torch.where(self._has_edge(before[open_], proposed), near, out)
            chance = torch.where(proposed == before[open_], back, chance)
            open_ = open_[torch.rand(len(open_), generator=generator) >= chance]
            if not len(open_):
                break
            chosen[open_] = self.step(at[open_], generator)
        return chosen

    def _has_edge(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wanted = source * self._nodes + target
        place = torch.searchsorted(self._edges, wanted).clamp(max=len(self._edges) - 1)
        return self._edges[place] == wanted

    def negatives(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count,) nodes by degree^0.75; only nodes with an edge."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) * self._negative_cumulative[-1]
        return torch.searchsorted(self._negative_cumulative, drawn, right=True).clamp(max=self._nodes - 1)


def _cleaned(
    edges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
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


def _own_directions(nodes: int, config: Node2VecConfig) -> NDArray[np.float32]:
    """(N, D) random unit vectors: where training starts, and where a file stays that is tied to nothing."""
    drawn = np.random.default_rng(config.seed).standard_normal((nodes, config.dimensions))
    length = np.linalg.norm(drawn, axis=1, keepdims=True)
    made: NDArray[np.float32] = (drawn / np.maximum(length, math.ulp(1.0))).astype(np.float32)
    return made
