"""The encoder on a GPU: against the model's bare forward loop and sentence-transformers, on the same card.

python -m bench.bench_gpu [--chunks 8192] [--rounds 3] [--device cuda:0]

Chunks are those of bench_encode. The bare loop is what the card can do at most with this model in this
precision: batches that were tokenized, padded and uploaded before the clock starts, and no result that is
read. sentence-transformers runs at its default batch size, and at one that suits a GPU better. Contenders
take turns round by round, and the best round of each counts. Prints a table and writes
bench/results/gpu.json, with the name of the card; without a GPU it does neither.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from bench.machine import machine
from pharos_embedder.devices import DeviceChoice, DeviceUnavailable, choose_device, probe
from pharos_embedder.encoding import batches, encode

if TYPE_CHECKING:
    from pharos_embedder.model import TransformerEncoder

RESULT = Path(__file__).parent / "results" / "gpu.json"
ST_BATCH = 256  # sentences; its default is 32
SAMPLE_MS = 100

Run = Callable[[], object]


class Utilisation:
    """What nvidia-smi says of a card, ten times a second, while the `with` block lasts."""

    def __init__(self, uuid: str) -> None:
        self._command = [
            "nvidia-smi",
            f"--id={uuid}",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            f"--loop-ms={SAMPLE_MS}",
        ]
        self._percents: list[float] = []

    def __enter__(self) -> Utilisation:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                if line.strip().isdigit():
                    self._percents.append(float(line))

    @property
    def mean_percent(self) -> float | None:
        return round(sum(self._percents) / len(self._percents), 1) if self._percents else None


def bare_forward(encoder: TransformerEncoder, texts: Sequence[str]) -> Run:
    """The model alone, over batches that lie on the device; waits for the last of them."""
    ids = sorted(encoder.tokenize(texts), key=len, reverse=True)
    lying = [
        encoder._upload([ids[index] for index in batch])
        for batch in batches([len(each) for each in ids], encoder.token_budget)
    ]

    def run() -> None:
        with torch.inference_mode():
            for tokens, present, full in lying:
                attention = None if full else present.long()
                hidden: Any = encoder._model(input_ids=tokens, attention_mask=attention).last_hidden_state
        hidden[0, 0, 0].item()

    return run


def sentence_transformers(choice: DeviceChoice, dtype: str, batch: int, texts: list[str], tokens: int) -> Run:
    from sentence_transformers import SentenceTransformer

    from pharos_embedder.model import PACKAGED_MODEL, model_folder

    model = SentenceTransformer(
        str(model_folder(PACKAGED_MODEL)),
        device=choice.device,
        model_kwargs={"dtype": getattr(torch, dtype)},
    )
    model.max_seq_length = tokens  # the same lengths as ours
    return lambda: model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


def seconds_by_turns(contenders: dict[str, Run], rounds: int) -> dict[str, float]:
    """The best round of each."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - began)
            print(f"round {number + 1}: {name}: {taken[name][-1]:.3f} s", flush=True)
    return {name: min(each) for name, each in taken.items()}


def table(seconds: dict[str, float], chunks: int, tokens: int) -> dict[str, dict[str, float]]:
    """Of each contender, and how much faster than it the first one is."""
    first = next(iter(seconds.values()))
    return {
        name: {
            "chunks_per_second": round(chunks / each, 1),
            "tokens_per_second": round(tokens / each),
            "ours_is_times_as_fast": round(each / first, 3),
        }
        for name, each in seconds.items()
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--chunks", type=int, default=8192)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--device", default="cuda")
    options = arguments.parse_args()
    try:
        choice = choose_device(options.device)
    except DeviceUnavailable as error:
        sys.exit(f"There is nothing to measure on: {error}. No result was written.")
    if not choice.device.startswith("cuda"):
        sys.exit(f"There is nothing to measure on: {choice.device} is no GPU. No result was written.")

    from bench.bench_encode import chunks
    from pharos_embedder.model import PACKAGED_MODEL, load_encoder

    texts = chunks(options.chunks)
    encoder = load_encoder(PACKAGED_MODEL, choice)
    choice = encoder.choice
    lengths = [len(ids) for ids in encoder.tokenize(texts)]
    ours = f"pharos {choice.dtype}"
    contenders: dict[str, Run] = {
        ours: lambda: encode(texts, encoder),
        f"bare forward loop {choice.dtype}": bare_forward(encoder, texts),
    }
    for dtype, batch in ((choice.dtype, 32), (choice.dtype, ST_BATCH), ("float32", 32)):
        name = f"sentence-transformers {dtype}, {batch} at once"
        contenders[name] = sentence_transformers(choice, dtype, batch, texts, encoder.max_tokens)
    for run in contenders.values():
        run()  # the first pass allocates and chooses kernels
    seconds = seconds_by_turns(contenders, options.rounds)
    index = int(choice.device.partition(":")[2])
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    utilisation: dict[str, float | None] = {}
    if shutil.which("nvidia-smi") is None:
        print("There is no nvidia-smi here: how busy the card is, is not measured.")
    for name in (ours, f"bare forward loop {choice.dtype}") if shutil.which("nvidia-smi") else ():
        with Utilisation(uuid) as sampled:
            until = time.perf_counter() + 3
            while time.perf_counter() < until:
                contenders[name]()
        utilisation[name] = sampled.mean_percent
    rows = table(seconds, len(texts), sum(lengths))
    for name, row in rows.items():
        print(
            f"{name:45} {row['chunks_per_second']:9.1f} chunks/s {row['tokens_per_second']:11,.0f} tokens/s  "
            f"ours is {row['ours_is_times_as_fast']:.2f} ×"
        )
    print("utilisation: " + ", ".join(f"{name} {percent} %" for name, percent in utilisation.items()))
    result = {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "gpu": probe().gpus[index].name,
        "machine": {**machine(), "device": choice.device, "dtype": choice.dtype, "why": choice.why},
        "token_budget": encoder.token_budget,
        "chunks": len(texts),
        "tokens": sum(lengths),
        "rounds": options.rounds,
        "results": rows,
        "utilisation_percent": utilisation,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
