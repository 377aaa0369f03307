"""Encoding throughput on real chunks: this project's encoder against sentence-transformers, in bf16 and
fp32.

python -m bench.bench_encode [--chunks 400] [--rounds 3]

Chunks are the source of the running Python's standard library, cut at lines to about 1,000 characters.
Contenders take turns round by round, and the best round of each counts, so that a busy machine does not
favour one of them. Prints a table and writes bench/results/encode.json.
"""

import argparse
import json
import random
import statistics
import sysconfig
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from bench.machine import machine
from pharos_embedder.devices import DeviceChoice, choose_device
from pharos_embedder.encoding import encode
from pharos_embedder.model import PACKAGED_MODEL, load_encoder, model_folder

CHARACTERS = 1_000
RESULT = Path(__file__).parent / "results" / "encode.json"

Encode = Callable[[list[str]], NDArray[np.float32]]


def chunks(count: int) -> list[str]:
    """*count* chunks drawn from the standard library with a fixed seed."""
    made: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        current = ""
        for line in path.read_text(errors="replace").splitlines(keepends=True):
            if current and len(current) + len(line) > CHARACTERS:
                made.append(current)
                current = ""
            current += line
        if current:
            made.append(current)
    random.Random(0).shuffle(made)
    return made[:count]


def ours(choice: DeviceChoice) -> Encode:
    encoder = load_encoder(PACKAGED_MODEL, choice)
    return lambda texts: encode(texts, encoder)


def ours_with_stock_attention(choice: DeviceChoice) -> Encode:
    """Ours with torch's fused attention, to show what the sliced one is worth."""
    encoder = load_encoder(PACKAGED_MODEL, choice)
    model: Any = encoder._model
    model.set_attn_implementation("sdpa")
    return lambda texts: encode(texts, encoder)


def sentence_transformers(choice: DeviceChoice) -> Encode:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SentenceTransformer(
            str(model_folder(PACKAGED_MODEL)),
            device=choice.device,
            model_kwargs={"dtype": getattr(torch, choice.dtype)},
        )

    def run(texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32)

    return run


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--chunks", type=int, default=400)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, help="CPU threads; what the machine allows if left out")
    options = arguments.parse_args()

    choice = choose_device()
    if options.threads:
        choice = msgspec.structs.replace(choice, threads=options.threads)
    exact = msgspec.structs.replace(choice, dtype="float32")
    fast = choice.dtype
    contenders: dict[str, Encode] = {
        f"pharos {fast}": ours(choice),
        f"pharos {fast}, stock attention": ours_with_stock_attention(choice),
        "pharos float32": ours(exact),
        f"sentence-transformers {fast}": sentence_transformers(choice),
        "sentence-transformers float32": sentence_transformers(exact),
    }
    texts = chunks(options.chunks)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contenders}
    vectors: dict[str, NDArray[np.float32]] = {}
    for run in contenders.values():
        run(texts[:8])  # the first pass allocates
    for number in range(options.rounds):
        for name, run in contenders.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            vectors[name] = run(texts)
            seconds[name].append(time.perf_counter() - began)
            cpu_seconds[name].append(time.process_time() - cpu_began)
            print(f"round {number + 1}: {name}: {len(texts) / seconds[name][-1]:.1f} chunks/s", flush=True)

    reference = vectors["sentence-transformers float32"]
    best = {name: min(taken) for name, taken in seconds.items()}
    rows = {
        name: {
            "chunks_per_second_best": round(len(texts) / best[name], 1),
            "chunks_per_second_median": round(len(texts) / statistics.median(taken), 1),
            "chunks_per_cpu_second_best": round(len(texts) / min(cpu_seconds[name]), 1),
            "cosine_to_reference_min": round(float((vectors[name] * reference).sum(axis=1).min()), 5),
        }
        for name, taken in seconds.items()
    }
    head = f"pharos {fast}"
    ratios = {name: round(best[name] / best[head], 2) for name in contenders if name != head}
    cpu_ratios = {
        name: round(min(cpu_seconds[name]) / min(cpu_seconds[head]), 2) for name in contenders if name != head
    }
    for name, row in rows.items():
        speed, per_cpu = row["chunks_per_second_best"], row["chunks_per_cpu_second_best"]
        cosine = row["cosine_to_reference_min"]
        print(f"{name:40} {speed:6.1f} chunks/s {per_cpu:6.1f} a CPU second  cosine at least {cosine}")
    for name, ratio in ratios.items():
        print(f"{head} is {ratio:.2f} × {name} (by CPU time: {cpu_ratios[name]:.2f} ×)")
    RESULT.parent.mkdir(exist_ok=True)
    result = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "chunks": len(texts),
        "rounds": options.rounds,
        "results": rows,
        "speed_of_ours_over": ratios,
        "speed_of_ours_over_by_cpu_time": cpu_ratios,
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
