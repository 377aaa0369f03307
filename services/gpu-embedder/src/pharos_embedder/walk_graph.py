"""The graph that walks are taken on: compressed rows, made for many walks at a time.

The walks are ours, since torch-geometric's own need an extension that is not on the package index.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

NODES_MAX: Final = 3_000_000_000
"""An edge is looked up by source × nodes + target in 64 bits."""

REJECTIONS_MAX: Final = 32
"""Proposals of one biased step; then the last one is taken. It comes to that where nearly every neighbour
is an unlikely one, and there the bias matters least.
"""

WEAK_EDGES: Final = 3  # for each file that nothing refers to
_NEIGHBOURHOOD: Final = 8  # places to either side, in the order of paths, where they are looked for


def warm() -> None:
    """Load what a `WalkGraph` is made with, so that the first one does not wait for that. Blocks."""
    import torch_geometric.utils  # noqa: F401 - seconds, for it brings every model that it knows


class WalkGraph:
    """An undirected weighted graph of *nodes* nodes. Where numbers are drawn, *random* decides them all."""

    def __init__(self, source: Ints, target: Ints, weight: NDArray[np.float64], nodes: int) -> None:
        from torch_geometric.utils import to_undirected  # see `warm`

        pairs = torch.from_numpy(np.stack([source, target]))
        # Sorted by source, then target; parallel edges and both directions of one become one, weights added.
        both, summed = to_undirected(pairs, torch.from_numpy(weight), num_nodes=nodes, reduce="add")
        sources, self._targets = both.numpy()  # (E,) each
        weights = summed.numpy()
        self._nodes = nodes
        self._weights = weights.astype(np.float32)
        self._edges = sources * nodes + self._targets  # (E,), sorted
        self._rows = np.searchsorted(sources, np.arange(nodes + 1))  # (N + 1,)
        self._cumulative = np.concatenate([[0.0], np.cumsum(weights)])  # (E + 1,)
        self.connected = np.flatnonzero(np.diff(self._rows))  # nodes with an edge
        # Negatives by degree to the power of 3/4, as word2vec and Node2Vec draw them.
        degree = np.diff(self._cumulative[self._rows])
        self._negative_cumulative = np.cumsum(np.maximum(degree, 0.0) ** 0.75)

    def around(self, rows: Floats) -> Floats:
        """(N, D) the sum of each node's neighbours in *rows* (N, D), by weight; zero without a neighbour."""
        summed: Floats = functional.embedding_bag(
            torch.from_numpy(self._targets),
            torch.from_numpy(rows),
            torch.from_numpy(self._rows[:-1]),
            mode="sum",
            per_sample_weights=torch.from_numpy(self._weights),
        ).numpy()
        return summed

    def step(self, at: Ints, random: np.random.Generator) -> Ints:
        """(W,) a neighbour of each of *at*, drawn by weight."""
        first, end = self._rows[at], self._rows[at + 1]
        low, high = self._cumulative[first], self._cumulative[end]
        drawn = low + random.random(len(at)) * (high - low)
        edge = np.searchsorted(self._cumulative, drawn, side="right") - 1
        found: Ints = self._targets[np.clip(edge, first, end - 1)]  # rounding may step over an end
        return found

    def walk(
        self, starts: Ints, length: int, random: np.random.Generator, *, p: float = 1.0, q: float = 1.0
    ) -> Ints:
        """(W, length) nodes, the start first; *p* and *q* as in Node2Vec. Every start has an edge, so no walk
        ends early.
        """
        nodes = [starts, self.step(starts, random)]
        while len(nodes) < length:
            if p != 1.0 or q != 1.0:
                nodes.append(self._biased_step(nodes[-2], nodes[-1], random, p, q))
            else:
                nodes.append(self.step(nodes[-1], random))
        return np.stack(nodes, axis=1)

    def _biased_step(self, before: Ints, at: Ints, random: np.random.Generator, p: float, q: float) -> Ints:
        """The second-order step of Node2Vec, by rejection: propose by weight, accept by p and q."""
        highest = max(1.0, 1.0 / p, 1.0 / q)
        back, near, out = 1.0 / p / highest, 1.0 / highest, 1.0 / q / highest
        chosen = self.step(at, random)
        open_ = np.arange(len(at))
        for _ in range(REJECTIONS_MAX):
            proposed = chosen[open_]
            chance = np.where(self._has_edge(before[open_], proposed), near, out)
            chance = np.where(proposed == before[open_], back, chance)
            open_ = open_[random.random(len(open_)) >= chance]
            if not len(open_):
                break
            chosen[open_] = self.step(at[open_], random)
        return chosen

    def _has_edge(self, source: Ints, target: Ints) -> NDArray[np.bool_]:
        wanted = source * self._nodes + target
        place = np.minimum(np.searchsorted(self._edges, wanted), len(self._edges) - 1)
        known: NDArray[np.bool_] = self._edges[place] == wanted
        return known

    def negatives(self, count: int, random: np.random.Generator) -> Ints:
        """(count,) nodes by degree^0.75; only nodes with an edge."""
        drawn = random.random(count) * self._negative_cumulative[-1]
        found = np.searchsorted(self._negative_cumulative, drawn, side="right")
        made: Ints = np.minimum(found, self._nodes - 1)
        return made


def weak_edges(alone: Ints, directories: Sequence[str]) -> tuple[Ints, Ints]:
    """(source, target) of up to WEAK_EDGES edges for each file *alone*: to those that share most of its
    folder.

    In the order of their folders the nearest relatives stand next to each other, so a few places to either
    side are enough and the cost stays linear.
    """
    if not len(alone):
        return alone, alone
    nodes = len(directories)
    folders = [tuple(part for part in directory.split("/") if part) for directory in directories]
    order = np.array(sorted(range(nodes), key=lambda node: (folders[node], node)), dtype=np.int64)
    place = np.empty(nodes, dtype=np.int64)
    place[order] = np.arange(nodes)
    # What two files share of their folders is the least that any two neighbours between them share.
    shared = np.fromiter(
        (_shared_depth(folders[one], folders[next_]) for one, next_ in pairwise(order.tolist())),
        dtype=np.int64,
        count=max(0, nodes - 1),
    )
    walls = np.full(_NEIGHBOURHOOD, -1)  # beyond either end there is nobody
    shared = np.concatenate([walls, shared, walls])
    here = place[alone]
    positions: list[Ints] = []
    depths: list[Ints] = []
    left = right = np.full(len(alone), np.iinfo(np.int64).max)
    for distance in range(1, _NEIGHBOURHOOD + 1):
        left = np.minimum(left, shared[here - distance + _NEIGHBOURHOOD])
        right = np.minimum(right, shared[here + distance - 1 + _NEIGHBOURHOOD])
        positions += [here - distance, here + distance]
        depths += [left, right]
    # The nearest first, the earlier of two as near: the sort by depth keeps that order.
    depth, position = np.stack(depths, axis=1), np.stack(positions, axis=1)  # (A, 16)
    best = np.argsort(-depth, axis=1, kind="stable")[:, :WEAK_EDGES]
    found = np.take_along_axis(depth, best, axis=1) >= 0
    target = order[np.take_along_axis(position, best, axis=1)[found]]
    return np.repeat(alone, found.sum(axis=1)).astype(np.int64), target


def _shared_depth(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    depth = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        depth += 1
    return depth
