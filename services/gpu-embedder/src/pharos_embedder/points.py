"""What is stored of a repository, as points. Pure: chunks, the graph and its vectors in, points out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from pharos_embedder.bm25 import document_terms, document_vector
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.linking import FileGraph
from pharos_embedder.syntax import Chunk, ParsedFile
from pharos_embedder.vector_cache import vector_key, vector_name
from pharos_embedder.vectors import DatasetKey, Floats, Payload, Point, point_id

LINKS_MAX: Final = 64
DOCSTRING_CHARACTERS_MAX: Final = 500


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What all points of one run share."""

    dataset: DatasetKey
    generation: int
    scope: str
    repository: str
    encoder: str
    chunker: str = CHUNKER_VERSION
    job: str = ""
    attempt: int = 0


def chunk_id(chunk: Chunk, origin: Origin) -> str:
    # All that is shown of it and may change without its text is in the hash: a living point is never written
    # over. What stands around a chunk gives it its context, its symbol and its docstring.
    shown = (
        chunk.content_hash, chunk.symbol, chunk.kind, chunk.language, chunk.docstring, *_told_of(origin),
    )  # fmt: skip
    content = hashlib.blake2b("\0".join(shown).encode(), digest_size=16).hexdigest()
    return point_id(
        origin.dataset,
        kind="chunk",
        path=f"{chunk.path}\0{chunk.ordinal}" if chunk.start_line == chunk.end_line else chunk.path,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        content_hash=content,
        chunker_version=origin.chunker,
        encoder_version=origin.encoder,
    )


def key_of(content_hash: str, origin: Origin) -> bytes:
    """The key of the vector of what has that hash, in ``vector_cache``."""
    return vector_key(
        tenant=origin.dataset.tenant,
        content=content_hash,
        chunker=origin.chunker,
        encoder=origin.encoder,
    )


def _told_of(origin: Origin) -> tuple[str, ...]:
    """What points say of where they come from, which another job on the same dataset may change."""
    return origin.repository, origin.scope


def terms_of(chunk: Chunk) -> Counter[int]:
    return document_terms(chunk.text, path=chunk.path, symbol=chunk.symbol)


def chunk_points(chunks: Iterable[tuple[str, Chunk, Mapping[int, int]]], origin: Origin) -> Iterator[Point]:
    """A point for each (id, chunk, its terms), without its dense vector, which follows when it is encoded."""
    for identifier, chunk, terms in chunks:
        yield Point(
            id=identifier,
            payload=Payload(
                dataset=origin.dataset,
                kind="chunk",
                generation=origin.generation,
                path=chunk.path,
                scope=origin.scope,
                language=chunk.language,
                symbol=chunk.symbol,
                symbol_kind=chunk.kind,
                start_line=chunk.start_line,
                end_line=chunk.end_line,
                text=chunk.text,
                docstring=chunk.docstring[:DOCSTRING_CHARACTERS_MAX],
                repository=origin.repository,
                content_hash=chunk.content_hash,
                encoder=origin.encoder,
                vector=vector_name(key_of(chunk.content_hash, origin)),
                job=origin.job,
                attempt=origin.attempt,
            ),
            code_bm25=document_vector(terms),
        )


def file_points(
    files: Sequence[ParsedFile], graph: FileGraph, structure: Floats, origin: Origin
) -> Iterator[Point]:
    """A point for each file: its vector (64,) from the graph, and where its strongest edges lead.

    *structure* is (N, 64), in the order of ``graph.paths``.
    """
    number = {path: index for index, path in enumerate(graph.paths)}
    strongest: dict[int, list[tuple[float, str]]] = {}
    for edge in graph.edges:
        strongest.setdefault(edge.source, []).append((-edge.weight, graph.paths[edge.target]))
    for file in files:
        index = number[file.path]
        links = tuple(dict.fromkeys(path for _, path in sorted(strongest.get(index, ()))))[:LINKS_MAX]
        vector = structure[index]
        content = hashlib.blake2b(
            "\0".join((file.content_hash, file.language, *_told_of(origin), *links)).encode()
            + np.ascontiguousarray(vector).tobytes(),
            digest_size=16,
        ).hexdigest()
        yield Point(
            id=point_id(
                origin.dataset,
                kind="file",
                path=file.path,
                start_line=1,
                end_line=file.line_count,
                content_hash=content,
                chunker_version=origin.chunker,
                encoder_version=origin.encoder,
            ),
            payload=Payload(
                dataset=origin.dataset,
                kind="file",
                generation=origin.generation,
                path=file.path,
                scope=origin.scope,
                language=file.language,
                start_line=1,
                end_line=file.line_count,
                repository=origin.repository,
                content_hash=file.content_hash,
                links=links,
                job=origin.job,
                attempt=origin.attempt,
            ),
            structure=vector,
        )
