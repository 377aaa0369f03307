"""Encoding throughput on real chunks: this project's encoder against sentence-transformers, and itself.

python -m bench.bench_encode [--chunks 400] [--rounds 3] [--threads 2] [--openvino]

Chunks are the source of the running Python's standard library, cut at lines to about 1,000 characters.
Contenders take turns round by round, and the best round of each counts, so that a busy machine does not
favour one of them; what else the machine did is told. The bare model is the one that transformers loads,
over the batches that ours makes. `--openvino` needs the package `openvino`, which Pharos does without: the
same batches, as many at once as ours. Prints a table and writes bench/results/encode.json.
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
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from bench.machine import Beside, machine
from pharos_embedder.devices import DeviceChoice, choose_device
from pharos_embedder.encoding import EncoderService, batches, encode
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
    service = EncoderService(encoder, lanes=choice.lanes, lane_threads=choice.lane_threads)
    return service.encode_documents


def ours_one_by_one(choice: DeviceChoice) -> Encode:
    """Ours with all threads on one pass, to show what lanes are worth."""
    encoder = load_encoder(PACKAGED_MODEL, choice)
    return lambda texts: encode(texts, encoder)


class Bare(torch.nn.Module):
    """The model as transformers loads it, with its vectors pooled."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        folder = model_folder(PACKAGED_MODEL)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=tokens, attention_mask=present).last_hidden_state.float()
        return torch.nn.functional.normalize((hidden * present[..., None]).sum(dim=1), dim=1)


def padded(ids: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and which of them are present, (B, T) each."""
    tokens = np.zeros((len(ids), max(len(each) for each in ids)), dtype=np.int64)
    present = np.zeros_like(tokens)
    for row, each in enumerate(ids):
        tokens[row, : len(each)] = each
        present[row, : len(each)] = 1
    return tokens, present


def bare(choice: DeviceChoice) -> Encode:
    encoder, model = load_encoder(PACKAGED_MODEL, choice), Bare(choice.dtype)

    def run(texts: list[str]) -> NDArray[np.float32]:
        ids = encoder.tokenize(texts)
        vectors = np.empty((len(ids), encoder.dimensions), dtype=np.float32)
        with torch.inference_mode():
            for batch in batches([len(each) for each in ids], encoder.token_budget):
                given = (torch.from_numpy(each) for each in padded([ids[index] for index in batch]))
                vectors[batch] = model(*given).numpy()
        return vectors

    return run


def openvino(choice: DeviceChoice) -> Encode:
    import openvino as ov

    encoder = load_encoder(PACKAGED_MODEL, choice)
    two = torch.ones(2, 16, dtype=torch.long)
    with torch.no_grad():
        graph = ov.convert_model(Bare("float32"), example_input={"tokens": two, "present": two})
    precision = "bf16" if choice.dtype == "bfloat16" else "f32"
    asked = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": choice.lanes,
        "INFERENCE_NUM_THREADS": choice.threads,
    }
    compiled = ov.Core().compile_model(graph, "CPU", asked)

    def run(texts: list[str]) -> NDArray[np.float32]:
        ids = encoder.tokenize(texts)
        vectors = np.empty((len(ids), encoder.dimensions), dtype=np.float32)
        queue = ov.AsyncInferQueue(compiled, choice.lanes)

        def keep(request: Any, batch: list[int]) -> None:
            vectors[batch] = request.get_output_tensor(0).data

        queue.set_callback(keep)
        for batch in batches([len(each) for each in ids], encoder.token_budget):
            queue.start_async(dict(enumerate(padded([ids[index] for index in batch]))), batch)
        queue.wait_all()
        return vectors

    return run


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
    arguments.add_argument("--openvino", action="store_true", help="as well, where it is installed")
    options = arguments.parse_args()

    choice = choose_device()
    if options.threads:
        choice = msgspec.structs.replace(choice, threads=options.threads)
    exact = msgspec.structs.replace(choice, dtype="float32")
    fast = choice.dtype
    contenders: dict[str, Encode] = {
        f"pharos {fast}": ours(choice),
        f"pharos {fast}, one pass at a time": ours_one_by_one(choice),
        f"bare model {fast}": bare(choice),
        f"sentence-transformers {fast}": sentence_transformers(choice),
        "pharos float32": ours(exact),
        "bare model float32": bare(exact),
        "sentence-transformers float32": sentence_transformers(exact),
    }
    if options.openvino:
        contenders |= {f"openvino {fast}": openvino(choice), "openvino float32": openvino(exact)}
    texts = chunks(options.chunks)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contenders}
    vectors: dict[str, NDArray[np.float32]] = {}
    for run in contenders.values():
        run(texts[:8])  # the first pass allocates
    beside = Beside()
    for number in range(options.rounds):
        torch.set_num_threads(choice.threads)  # of this thread; lanes have their own
        for name, run in contenders.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            vectors[name] = run(texts)
            seconds[name].append(time.perf_counter() - began)
            cpu_seconds[name].append(time.process_time() - cpu_began)
            print(f"round {number + 1}: {name}: {len(texts) / seconds[name][-1]:.1f} chunks/s", flush=True)

    others = beside.told()
    reference = vectors["bare model float32"]
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
    cpu = {name: min(taken) for name, taken in cpu_seconds.items()}
    against = [(head, name) for name in contenders if name != head]
    against += [("pharos float32", name) for name in contenders if name.endswith(" float32")]
    ratios = {
        f"{one} / {other}": {
            "by_clock": round(best[other] / best[one], 2),
            "by_cpu_time": round(cpu[other] / cpu[one], 2),
        }
        for one, other in against
        if one != other
    }
    for name, row in rows.items():
        speed, per_cpu = row["chunks_per_second_best"], row["chunks_per_cpu_second_best"]
        cosine = row["cosine_to_reference_min"]
        print(f"{name:40} {speed:6.1f} chunks/s {per_cpu:6.1f} a CPU second  cosine at least {cosine}")
    for names, ratio in ratios.items():
        print(f"{names}: {ratio['by_clock']:.2f} × (by CPU time: {ratio['by_cpu_time']:.2f} ×)")
    RESULT.parent.mkdir(exist_ok=True)
    result = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "beside": others,
        "chunks": len(texts),
        "rounds": options.rounds,
        "results": rows,
        "times_as_fast": ratios,
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
