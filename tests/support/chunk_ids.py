"""The id of a chunk, spelt out: indexes that are kept up to date have it, so it may not change unnoticed."""

from __future__ import annotations

from uuid import UUID, uuid5

from pharos_embedder.points import Origin
from pharos_embedder.syntax import Chunk

NAMESPACE = UUID("5b0e4c0a-8f0b-5d3e-9a57-6f1d2c7e9b41")


def chunk_id(chunk: Chunk, origin: Origin) -> str:
    dataset = origin.dataset
    is_one_line = chunk.start_line == chunk.end_line
    facts = (
        f"{dataset.tenant}\x1f{dataset.project}\x1f{dataset.dataset}",
        "chunk",
        f"{chunk.path}\0{chunk.ordinal}" if is_one_line else chunk.path,
        str(chunk.start_line),
        str(chunk.end_line),
        chunk.identity,
        origin.repository,
        origin.scope,
        origin.chunker,
        origin.encoder,
    )
    return str(uuid5(NAMESPACE, "\0".join(facts)))
