"""What is worth putting before a chunk when it is encoded: retrieval with and without each part of it.

python -m bench.bench_context --repository click=/path/to/click --repository gin=/path/to/gin ...
    [--variants "text,overlap,signature + overlap"]

Each repository is a local clone with its history. The questions are those of `retrieval_tasks`; the encoder
is the packaged one. Each variant of the encoded text ranks files by meaning alone, and fused with words as a
search does. Words know path and symbol in every variant. Differences to the text alone are paired by
question, with 95 % intervals from 2,000 bootstrap samples drawn within each task.

Encoding takes long: vectors are kept in the folder `--cache` by the hash of their text, and after `--seconds`
the run ends and says how much is left, to be started again. Prints a table and writes
bench/results/context.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.machine import machine
from bench.retrieval_tasks import Passage, Question, Task, commit_task, docstring_task
from pharos_embedder.bm25 import Lexicon, document_terms, document_vector, query_vector
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.devices import choose_device
from pharos_embedder.encoding import encode
from pharos_embedder.fusion import RRF_K, Channel, fuse
from pharos_embedder.model import PACKAGED_MODEL, load_encoder
from pharos_embedder.vectors import DatasetKey, Hit, Payload

RESULT: Final = Path(__file__).parent / "results" / "context.json"
K: Final = 10
CANDIDATES: Final = 100  # chunks a channel, as a search for ten results takes
SAMPLES: Final = 2_000
PART: Final = 256  # texts between two looks at the clock
REFERENCE: Final = "text"

Floats = NDArray[np.float32]
Variant = Callable[[Passage], Sequence[str]]


def _path(passage: Passage) -> str:
    path = passage.chunk.path
    return path if len(path) <= 80 else "…" + path[1 - 80 :]


def _name(passage: Passage) -> str:
    return passage.chunk.path.rpartition("/")[2][-80:]


def _joined(head: str, signature: str) -> str:
    return f"{head}: {signature}" if signature else head


VARIANTS: Final[Mapping[str, Variant]] = {
    REFERENCE: lambda one: (),
    "path: signature + overlap": lambda one: (_joined(_path(one), one.signature), one.overlap),
    "signature + overlap": lambda one: (one.signature, one.overlap),
    "path": lambda one: (_path(one),),
    "overlap": lambda one: (one.overlap,),
    "signature": lambda one: (one.signature,),
    "name": lambda one: (_name(one),),
    "symbol": lambda one: (one.chunk.symbol,),
}
"""The lines that are put before the text; empty ones are left out."""

PATH_WEIGHTS: Final = (0.1, 0.2, 0.25, 0.3, 0.4)
"""Of the path's own vector, where it is added to those of a file's chunks after they were encoded."""

PATH_ADDED_TO: Final = (REFERENCE, "overlap", "signature + overlap")


def encoded(variant: str, passage: Passage) -> str:
    return "\n".join([part for part in VARIANTS[variant](passage) if part] + [passage.chunk.text])


class Vectors:
    """Vectors by the hash of their text, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Floats] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as part:
                self._known.update(
                    zip(part["keys"].tolist(), part["vectors"].astype(np.float32), strict=True)
                )

    def add(self, texts: Sequence[str], seconds: float) -> int:
        """Encodes what is not known of *texts* for at most about *seconds*; how many are left."""
        missing = [text for text in dict.fromkeys(texts) if _key(text) not in self._known]
        if not missing:
            return 0
        encoder = load_encoder(PACKAGED_MODEL, choose_device())
        ends = time.monotonic() + seconds
        begun = time.time_ns()
        done = 0
        while done < len(missing) and time.monotonic() < ends:
            part = missing[done : done + PART]
            vectors = encode(part, encoder).astype(np.float16)
            keys = [_key(text) for text in part]
            np.savez(self._folder / f"{begun}-{done:06}.npz", keys=np.array(keys), vectors=vectors)
            self._known.update(zip(keys, vectors.astype(np.float32), strict=True))
            done += len(part)
        return len(missing) - done

    def of(self, texts: Sequence[str]) -> Floats:
        return np.stack([self._known[_key(text)] for text in texts])


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Pool:
    """The chunks of one task, and how they are ranked."""

    def __init__(self, task: Task) -> None:
        self.task = task
        dataset = DatasetKey("bench", "bench", "bench")
        chunks = [passage.chunk for passage in task.passages]
        self.hits = [
            Hit(
                id=f"{number:06}",
                score=0.0,
                payload=Payload(dataset=dataset, kind="chunk", generation=1, path=chunk.path),
            )
            for number, chunk in enumerate(chunks)
        ]
        terms = [document_terms(chunk.text, path=chunk.path, symbol=chunk.symbol) for chunk in chunks]
        self.lexicon = Lexicon.of(terms)
        self.postings: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for number, counts in enumerate(terms):
            vector = document_vector(counts)
            for term, weight in zip(vector.indices, vector.values, strict=True):
                self.postings[term].append((number, weight))
        self.by_words = [self._words(question) for question in task.questions]

    def _words(self, question: Question) -> list[tuple[int, float]]:
        scores = np.zeros(len(self.hits))
        vector = query_vector(question.text, [self.lexicon])
        for term, weight in zip(vector.indices, vector.values, strict=True):
            for number, other in self.postings.get(term, ()):
                scores[number] += weight * other
        return _best(scores)

    def ranks(self, vectors: Floats | None, questions: Floats) -> dict[str, list[tuple[float, float]]]:
        """(recall at 10, reciprocal rank) of each question, by meaning alone and fused with words.

        With no *vectors*, by words alone.
        """
        ranks: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for question, asked, words in zip(self.task.questions, questions, self.by_words, strict=True):
            if vectors is None:
                ranks["words"].append(self._judge(question, {"sparse": words}))
                continue
            meaning = _best(vectors @ asked)
            ranks["dense"].append(self._judge(question, {"dense": meaning}))
            ranks["fused"].append(self._judge(question, {"dense": meaning, "sparse": words}))
        return ranks

    def _judge(
        self, question: Question, channels: Mapping[Channel, Sequence[tuple[int, float]]]
    ) -> tuple[float, float]:
        if question.passage >= 0:
            fused: dict[int, float] = defaultdict(float)
            for found in channels.values():
                for rank, (number, _) in enumerate(found, 1):
                    fused[number] += 1 / (RRF_K + rank)
            order: list[Any] = sorted(fused, key=lambda number: (-fused[number], number))
            wanted: frozenset[Any] = frozenset({question.passage})
        else:
            hits = {
                channel: [_scored(self.hits[number], score) for number, score in found]
                for channel, found in channels.items()
            }
            order = [file.path for file in fuse(hits)]
            wanted = question.answers
        first = next((rank for rank, each in enumerate(order, 1) if each in wanted), 0)
        return len(wanted.intersection(order[:K])) / len(wanted), 1 / first if first else 0.0


def _scored(hit: Hit, score: float) -> Hit:
    return Hit(id=hit.id, score=score, payload=hit.payload)


def _best(scores: NDArray[Any]) -> list[tuple[int, float]]:
    order = np.argsort(-scores, kind="stable")[:CANDIDATES]
    return [(int(number), float(scores[number])) for number in order if scores[number] > 0]


def measured(
    pools: Sequence[Pool], vectors: Vectors, variants: Sequence[str]
) -> dict[str, dict[str, dict[str, NDArray[Any]]]]:
    """variant → ranking → task → (questions, 2): recall and reciprocal rank."""
    found: dict[str, dict[str, dict[str, NDArray[Any]]]] = defaultdict(lambda: defaultdict(dict))
    for pool in pools:
        passages, name = pool.task.passages, pool.task.name
        asked = vectors.of([question.text for question in pool.task.questions])
        tables: dict[str, Floats | None] = {"words alone": None}
        for variant in variants:
            tables[variant] = vectors.of([encoded(variant, one) for one in passages])
        paths = vectors.of([one.chunk.path for one in passages])
        for weight in PATH_WEIGHTS:
            for base in [each for each in PATH_ADDED_TO if each in variants]:
                table = tables[base]
                assert table is not None
                mixed = (1 - weight) * table + weight * paths
                tables[f"{base}, path added ({weight})"] = mixed / np.linalg.norm(
                    mixed, axis=1, keepdims=True
                )
        for variant, table in tables.items():
            for ranking, ranks in pool.ranks(table, asked).items():
                found[variant][ranking][name] = np.array(ranks)
    return found


def interval(
    of: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]], kind: str
) -> dict[str, list[float]]:
    """Means over all questions of one kind, and what they gain on *reference*: [mean, gain, low, high]."""
    names = [name for name in of if name.startswith(kind)]
    drawn = np.random.default_rng(0)
    total = sum(len(of[name]) for name in names)
    gains = np.zeros((SAMPLES, 2))
    for name in names:
        gain = of[name] - reference[name]
        gains += gain[drawn.integers(0, len(gain), (SAMPLES, len(gain)))].sum(axis=1)
    gains /= total
    low, high = np.quantile(gains, [0.025, 0.975], axis=0)
    mean = sum(of[name].sum(axis=0) for name in names) / total
    mean_reference = sum(reference[name].sum(axis=0) for name in names) / total
    return {
        measure: [round(float(value[each]), 4) for value in (mean, mean - mean_reference, low, high)]
        for each, measure in enumerate(("recall_at_10", "mrr"))
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--repository", action="append", required=True, metavar="NAME=PATH")
    arguments.add_argument("--questions", type=int, default=100, help="a task at most")
    arguments.add_argument(
        "--chunks", type=int, default=300, help="a task of commits; a third for one of docstrings"
    )
    arguments.add_argument("--variants", default=",".join(VARIANTS), help="which, by name (all)")
    arguments.add_argument("--cache", type=Path, default=Path("build/bench-context"))
    arguments.add_argument("--seconds", type=float, default=150.0)
    options = arguments.parse_args()
    variants = list(dict.fromkeys([REFERENCE, *options.variants.split(",")]))
    if unknown := set(variants) - VARIANTS.keys():
        arguments.error(f"no such variants: {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")

    tasks: list[Task] = []
    for each in options.repository:
        name, _, path = each.partition("=")
        for make, chunks in ((commit_task, options.chunks), (docstring_task, options.chunks // 3)):
            tasks.append(
                make(
                    name,
                    Path(path),
                    questions_max=options.questions,
                    passages_max=chunks,
                    draw=random.Random(f"{make.__name__} {name}"),
                )
            )
            print(f"{tasks[-1].name}: {len(tasks[-1].questions)} questions, {len(tasks[-1].passages)} chunks")
    tasks = [task for task in tasks if task.questions]
    texts = [question.text for task in tasks for question in task.questions]
    texts += [one.chunk.path for task in tasks for one in task.passages]
    for variant in variants:
        texts += sorted((encoded(variant, one) for task in tasks for one in task.passages), key=len)
    vectors = Vectors(options.cache)
    if left := vectors.add(texts, options.seconds):
        sys.exit(f"{left} texts are left to encode: run this again")

    found = measured([Pool(task) for task in tasks], vectors, variants)
    kinds = sorted({task.name.partition(":")[0] for task in tasks})
    rows: dict[str, Any] = {}
    for variant, rankings in found.items():
        rows[variant] = {
            f"{kind}, {ranking}": interval(
                by_task, found[REFERENCE]["fused" if ranking == "words" else ranking], kind
            )
            for kind in kinds
            for ranking, by_task in rankings.items()
        }
    for column in sorted({column for row in rows.values() for column in row}):
        print(f"\n{column:42}  recall@10   gain [95 %]                 MRR      gain [95 %]")
        for variant, row in rows.items():
            if column in row:
                recall, mrr = row[column]["recall_at_10"], row[column]["mrr"]
                print(
                    f"{variant:42}  {recall[0]:.3f}  {recall[1]:+.3f} [{recall[2]:+.3f}, {recall[3]:+.3f}]"
                    f"   {mrr[0]:.3f}  {mrr[1]:+.3f} [{mrr[2]:+.3f}, {mrr[3]:+.3f}]"
                )
    result = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "chunker": CHUNKER_VERSION,
        "tasks": {
            task.name: {"questions": len(task.questions), "chunks": len(task.passages)} for task in tasks
        },
        "reference": REFERENCE,
        "columns": ["mean", "gain", "low", "high"],
        "results": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
