"""Structural embeddings: seconds and quality of this project's Node2Vec, against more of it and against
gensim's Word2Vec on walks of the same graph.

python -m bench.bench_train [--seeds 3]

Quality is the share of ten nearest neighbours that are of one's own planted community, and of this repository
the recall of a commit's other files among the ten nearest of one of them. Seconds are of the processor: the
training uses one core. Prints a table and writes bench/results/train.json.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import numpy as np
import psutil
from gensim.models import Word2Vec

from bench.machine import machine
from pharos_embedder.discovery import discover
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.ports import unchecked
from pharos_embedder.spool import Spool
from pharos_embedder.stages import ParseAccount, link_stage
from pharos_embedder.training import Edges, Node2VecConfig, _own_directions, _spread, _unit, train
from pharos_embedder.walk_graph import Floats, Ints, WalkGraph

ROOT: Final = Path(__file__).parents[1]
RESULT: Final = Path(__file__).parent / "results" / "train.json"
NEAREST: Final = 10
CHUNKS_MAX: Final = 1_000_000
ASKED_MAX: Final = 1_000
COMMIT_FILES: Final = range(2, 11)

HUNDRED_WALKS: Final = Node2VecConfig(walks_per_node=10, epochs=10, steps=400)


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A graph with what is known of it: a *community* of each node, or the files that *commits* changed."""

    name: str
    nodes: int
    edges: Edges
    directories: Sequence[str] | None = None
    community: Ints | None = None
    commits: Sequence[Sequence[int]] = ()
    chance: float


def planted(nodes: int, size: int, inside: float, seed: int = 0) -> Graph:
    """Communities of *size*; five edges a node, a share of them *inside* its own."""
    random = np.random.default_rng(seed)
    count = nodes // size
    community = np.arange(nodes) % count
    source = random.integers(0, nodes, nodes * 5)
    own = random.integers(0, size, nodes * 5) * count + community[source]
    target = np.where(random.random(nodes * 5) < inside, own, random.integers(0, nodes, nodes * 5))
    return Graph(
        name=f"{nodes} files in communities of {size}",
        nodes=nodes,
        edges=(source, target, np.ones(len(source), dtype=np.float32)),
        community=community,
        chance=1 / count,
    )


def this_repository() -> Graph:
    """The files of this checkout, their graph, and which of them its commits changed together."""
    found = discover(ROOT)
    with TemporaryDirectory() as folder, Spool(Path(folder) / "files") as spool:
        with ParsePool(2) as pool:
            for outcome in pool.parse_files(ROOT, found.files):
                if isinstance(outcome, PackedFile):
                    spool.add(outcome)
        spool.finish(CHUNKS_MAX)
        graph = link_stage(ROOT, found, spool, ParseAccount(), unchecked)
    numbers = {path: number for number, path in enumerate(graph.paths)}
    log = ["git", "-C", str(ROOT), "log", "--no-merges", "--format=%x00", "--name-only"]
    text = subprocess.run(log, capture_output=True, check=True, text=True).stdout
    changed = [
        sorted({numbers[line] for line in one.split("\n") if line in numbers}) for one in text.split("\0")
    ]
    return Graph(
        name="this repository and its commits",
        nodes=len(graph.paths),
        edges=(
            graph.sources.astype(np.int64),
            graph.targets.astype(np.int64),
            graph.weights.astype(np.float32),
        ),
        directories=[path.rpartition("/")[0] for path in graph.paths],
        commits=[one for one in changed if len(one) in COMMIT_FILES],
        chance=NEAREST / len(graph.paths),
    )


def quality(graph: Graph, vectors: Floats) -> float:
    if graph.community is not None:
        asked = np.random.default_rng(0).permutation(graph.nodes)[:ASKED_MAX]
        found = nearest(vectors, asked)
        return float((graph.community[found] == graph.community[asked][:, None]).mean())
    recalls = []
    for commit in graph.commits:
        hits = np.isin(nearest(vectors, np.array(commit)), commit).sum(axis=1)
        recalls += (hits / (len(commit) - 1)).tolist()
    return float(np.mean(recalls))


def nearest(vectors: Floats, asked: Ints) -> Ints:
    """(A, NEAREST) the nodes with the highest cosine to each of *asked*, itself left out."""
    similar = vectors[asked] @ vectors.T
    similar[np.arange(len(asked)), asked] = -np.inf
    return np.argpartition(-similar, NEAREST, axis=1)[:, :NEAREST]


Trainer = Callable[[Graph, int], Floats]


def ours(config: Node2VecConfig) -> Trainer:
    def run(graph: Graph, seed: int) -> Floats:
        seeded = msgspec.structs.replace(config, seed=seed)
        return train(graph.edges, graph.nodes, seeded, directories=graph.directories).vectors

    return run


def start_alone(graph: Graph, seed: int) -> Floats:
    """What training starts from, to show what it adds."""
    return _spread(_own_directions(graph.nodes, Node2VecConfig(seed=seed)), walk_graph(graph), unchecked)


def gensim(walks_per_node: int, epochs: int) -> Trainer:
    """Skip-gram of gensim, on its own random start, with our dimensions, window and negatives."""

    def run(graph: Graph, seed: int) -> Floats:
        config = Node2VecConfig()
        walks = walk_graph(graph)
        starts = np.tile(walks.connected, walks_per_node)
        sentences = walks.walk(starts, config.walk_length, np.random.default_rng(seed)).astype(str).tolist()
        model = Word2Vec(
            sentences,
            vector_size=config.dimensions,
            window=config.context_size - 1,
            sg=1,
            negative=config.negatives,
            min_count=1,
            sample=0,
            workers=1,
            epochs=epochs,
            seed=seed + 1,
        )
        vectors = np.zeros((graph.nodes, config.dimensions), dtype=np.float32)
        known = walks.connected
        vectors[known] = model.wv[[str(node) for node in known]]
        return _unit(vectors)

    return run


def walk_graph(graph: Graph) -> WalkGraph:
    source, target, weight = graph.edges
    other = source != target
    return WalkGraph(source[other], target[other], weight[other].astype(np.float64), graph.nodes)


CONTENDERS: Final[dict[str, Trainer]] = {
    "pharos": ours(Node2VecConfig()),
    "pharos, a hundred walks a file": ours(HUNDRED_WALKS),
    "the start of pharos alone": start_alone,
    "gensim, eight walks a file": gensim(8, 1),
    "gensim, ten walks a file, ten times": gensim(10, 10),
}
COSTLY: Final = ("pharos, a hundred walks a file", "gensim, ten walks a file, ten times")  # one seed
LARGE_FILES: Final = 5_000  # a larger graph is for ours alone: the others take minutes


def rows(graph: Graph, seeds: int) -> Iterator[dict[str, str | float]]:
    for name, trainer in CONTENDERS.items():
        if graph.nodes > LARGE_FILES and (name in COSTLY or name.startswith("gensim")):
            continue
        found, seconds = [], []
        for seed in range(1 if name in COSTLY else seeds):
            began = time.process_time()
            vectors = trainer(graph, seed)
            seconds.append(time.process_time() - began)
            found.append(quality(graph, vectors))
        yield {
            "name": name,
            "cpu_seconds_best": round(min(seconds), 3),
            "quality_mean": round(float(np.mean(found)), 4),
            "quality_spread": round(float(np.std(found)), 4),
        }


def a_large_one() -> dict[str, float]:
    """75,000 files and a million edges: seconds, and memory beside what was there."""
    nodes, random = 75_000, np.random.default_rng(0)
    source = random.integers(0, nodes, 1_000_000)
    target = (source + random.geometric(0.001, 1_000_000)) % nodes
    process = psutil.Process()
    before = most = process.memory_info().rss
    looked = time.perf_counter()
    longest = 0.0

    def look() -> None:
        nonlocal most, looked, longest
        most = max(most, process.memory_info().rss)
        longest = max(longest, time.perf_counter() - looked)
        looked = time.perf_counter()

    began, cpu_began = time.perf_counter(), time.process_time()
    train((source, target, np.ones(len(source), dtype=np.float32)), nodes, check=look)
    return {
        "files": nodes,
        "edges": len(source),
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu_began, 2),
        "memory_mb": round((most - before) / 1e6, 1),
        "seconds_to_stop_max": round(longest, 3),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--seeds", type=int, default=3)
    options = arguments.parse_args()
    result: dict[str, object] = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "seeds": options.seeds,
    }
    graphs = []
    for graph in (this_repository(), planted(2_000, 50, 0.6), planted(20_000, 50, 0.6)):
        print(f"{graph.name}: {graph.nodes} files, {len(graph.edges[0])} edges; by chance {graph.chance:.4f}")
        made = []
        for row in rows(graph, options.seeds):
            made.append(row)
            score = f"{row['quality_mean']} ± {row['quality_spread']}"
            print(f"  {row['name']:38} {row['cpu_seconds_best']:8} s  {score}", flush=True)
        graphs.append(
            {
                "graph": graph.name,
                "files": graph.nodes,
                "edges": len(graph.edges[0]),
                "chance": round(graph.chance, 4),
                "results": made,
            }
        )
    large = a_large_one()
    print(f"a large graph: {large}")
    result |= {"graphs": graphs, "large": large}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
