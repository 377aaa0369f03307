"""What is stored of a repository, as points. Pure: chunks, the graph and its vectors in, points out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np

from pharos_embedder.bm25 import SparseVector
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.linking import FileGraph
from pharos_embedder.syntax import Chunk
from pharos_embedder.vector_cache import vector_key, vector_name
from pharos_embedder.vectors import DatasetKey, Floats, Payload, Point, packed_point_id, point_id

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


def chunk_ids(places: Iterable[tuple[str, int, int, int, str]], origin: Origin) -> Iterator[bytes]:
    """The ids (16 bytes, see ``point_id``) of chunks by their places and ``Chunk.identity``: each is (path,
    ordinal, first line, last line, identity).
    """
    before = f"{origin.dataset.joined()}\0chunk\0"
    after = "\0".join(("", *_told_of(origin), origin.chunker, origin.encoder))
    for path, ordinal, start, end, identity in places:
        # Of several chunks of one line, such as of a minified file, the ordinal tells which it is.
        where = f"{path}\0{ordinal}" if start == end else path
        yield packed_point_id(f"{before}{where}\0{start}\0{end}\0{identity}{after}")


def key_of(content_hash: str, origin: Origin) -> bytes:
    """The key of the vector of what has that hash, in ``vector_cache``."""
    return vector_key(
        tenant=origin.dataset.tenant,
        content=content_hash,
        chunker=origin.chunker,
        encoder=origin.encoder,
    )


def placed_key(content_hash: str, path: str, origin: Origin) -> bytes:
    """The key of what is stored of it, which its *path* is a part of: see ``path_vectors``."""
    return key_of(f"{content_hash}\0{path}", origin)


def _told_of(origin: Origin) -> tuple[str, ...]:
    """What points say of where they come from, which another job on the same dataset may change."""
    return origin.repository, origin.scope


class FileToStore(msgspec.Struct, frozen=True, kw_only=True):
    """A file, as far as its point is concerned."""

    path: str
    language: str
    lines: int
    content_hash: str


def chunk_points(chunks: Iterable[tuple[str, Chunk, SparseVector]], origin: Origin) -> Iterator[Point]:
    """A point for each (id, chunk, its words), without its dense vector, which follows when it is encoded."""
    for identifier, chunk, words in chunks:
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
                vector=vector_name(placed_key(chunk.content_hash, chunk.path, origin)),
                job=origin.job,
                attempt=origin.attempt,
            ),
            code_bm25=words,
        )


def file_points(
    files: Iterable[FileToStore], graph: FileGraph, structure: Floats, origin: Origin
) -> Iterator[Point]:
    """A point for each file: its vector (64,) from the graph, and where its strongest edges lead.

    *files* and *structure*, (N, 64), are in the order of ``graph.paths``.
    """
    rows = np.searchsorted(graph.sources, np.arange(len(graph.paths) + 1)).tolist()
    for index, file in enumerate(files):
        own = slice(rows[index], rows[index + 1])
        targets = [graph.paths[target] for target in graph.targets[own].tolist()]
        strongest = sorted(zip((-graph.weights[own]).tolist(), targets, strict=True))
        links = tuple(dict.fromkeys(path for _, path in strongest))[:LINKS_MAX]
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
                end_line=file.lines,
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
                end_line=file.lines,
                repository=origin.repository,
                content_hash=file.content_hash,
                links=links,
                job=origin.job,
                attempt=origin.attempt,
            ),
            structure=vector,
        )
