"""What an index of a folder is measured against, in a process of its own: prints one JSON object.

python -m bench.index_peers FOLDER SAMPLE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import tree_sitter
from sentence_transformers import SentenceTransformer

from pharos_embedder.devices import choose_device
from pharos_embedder.discovery import SourceFile, discover
from pharos_embedder.encoding import EncoderService, batches
from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of
from pharos_embedder.model import PACKAGED_MODEL, load_encoder, model_folder
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.parse_pool import ParsePool


def seconds_of(act: Callable[[], object], times: int = 1) -> float:
    """The least that *act* took."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return min(taken)


def bare_parse(root: Path, files: list[SourceFile]) -> dict[str, Any]:
    """Tree-sitter alone on the same files: bytes in memory, one thread, no query and no walk."""
    sources: list[tuple[tree_sitter.Parser, bytes]] = [
        (grammar_of(file.language).parser, (root / file.path).read_bytes())
        for file in files
        if file.language in PARSED_LANGUAGES
    ]

    def run() -> None:
        for parser, source in sources:
            parser.parse(source)

    seconds = seconds_of(run, 2)
    return {"files": len(sources), "bytes": sum(len(source) for _, source in sources), "seconds": seconds}


def main() -> None:
    root, sample_size = Path(sys.argv[1]), int(sys.argv[2])
    choice = choose_device()
    files = list(discover(root).files)
    with ParsePool(2) as pool:
        list(pool.parse_files(root, files[:8]))
        began = time.perf_counter()
        parsed = [each for each in pool.parse_files(root, files) if isinstance(each, PackedFile)]
        parse_seconds = time.perf_counter() - began
    texts = [chunk.encoded_text for file in parsed for chunk in file.chunks()]
    encoder = load_encoder("", choice)
    service = EncoderService(encoder, lanes=choice.lanes, lane_threads=choice.lane_threads)
    ids = encoder.tokenize(texts)
    service.encode_documents(texts[:64])
    alone = seconds_of(lambda: service.encode_documents(texts))

    step = max(1, len(texts) // sample_size)
    sample = [texts[index] for index in sorted(range(len(texts)), key=lambda i: len(texts[i]))[::step]]
    tokens = encoder.tokenize(sample)
    cut = batches([len(one) for one in tokens], encoder.token_budget)

    def forward_loop() -> None:
        for batch in cut:
            encoder.forward([tokens[index] for index in batch])

    ours = seconds_of(lambda: service.encode_documents(sample), 2)
    peak = seconds_of(forward_loop, 2)
    peers = {}
    for name, dtype in (("same_dtype", choice.dtype), ("default", "float32")):
        model = SentenceTransformer(
            str(model_folder(PACKAGED_MODEL)),
            device=choice.device,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
        model.max_seq_length = encoder.max_tokens  # the same lengths as ours
        model.encode(sample[:16], show_progress_bar=False)

        def run(model: SentenceTransformer = model) -> None:
            np.asarray(model.encode(sample, normalize_embeddings=True, show_progress_bar=False))

        peers[name] = {"dtype": dtype, "seconds": seconds_of(run)}
        del model
    sys.stdout.write(
        json.dumps(
            {
                "device": msgspec.to_builtins(choice),
                "files": len(parsed),
                "chunks": len(texts),
                "tokens": sum(len(one) for one in ids),
                "encode_alone_seconds": alone,
                "parse_pool_seconds": parse_seconds,
                "sample_chunks": len(sample),
                "sample_tokens": sum(len(one) for one in tokens),
                "sample_encode_seconds": ours,
                "sample_forward_seconds": peak,
                "sentence_transformers": peers,
                "tree_sitter": bare_parse(root, files),
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
