"""Vector stores of each kind to be tested alike, and points to put into them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from pharos_embedder.bm25 import SparseVector
from pharos_embedder.edge_store import edge_store
from pharos_embedder.generations import PAGE
from pharos_embedder.qdrant_store import local_mode_store, qdrant_store
from pharos_embedder.stored_graph import StoredGraph
from pharos_embedder.vectors import (
    ALIVE,
    DatasetKey,
    Filters,
    Floats,
    Kind,
    Payload,
    Point,
    Searched,
    Selection,
    VectorStore,
    point_id,
)
from tests.support.asked_stores import AskedStores

DIMENSIONS = 4
ATLAS = DatasetKey("acme", "default", "github.com/acme/atlas@main")
BORA = DatasetKey("acme", "default", "bora")
FOREIGN = DatasetKey("other", "default", "github.com/acme/atlas@main")


@dataclass
class Place:
    """Where a store lives, so that a test can open it again."""

    kind: str
    folder: Path
    collection: str
    owner: AskedStores | None = None

    def store(self, dimensions: int = DIMENSIONS, *, passing: bool = False) -> VectorStore:
        """A store to open; *passing* where the test opens it once, so that local mode may stay in memory."""
        if self.kind == "edge":
            return edge_store(self.folder / "index", dimensions=dimensions)
        if self.owner is not None:
            return self.owner.store(dimensions)
        if self.kind == "local mode":
            return local_mode_store(None if passing else self.folder / "index", dimensions=dimensions)
        return qdrant_store(
            os.environ["PHAROS_QDRANT_URL"], dimensions=dimensions, collection=self.collection,
            api_key=os.environ.get("PHAROS_QDRANT_API_KEY"),
        )  # fmt: skip


PLACES = ["edge", "asked", "local mode", *(["server"] if os.environ.get("PHAROS_QDRANT_URL") else [])]


def made(kind: str, folder: Path) -> Iterator[Place]:
    place = Place(kind, folder, f"pharos-test-{uuid4()}")
    if kind == "asked":
        with AskedStores(folder / "index", dimensions=DIMENSIONS) as place.owner:
            yield place
        return
    yield place
    if kind == "server":
        from qdrant_client import QdrantClient

        client = QdrantClient(
            url=os.environ["PHAROS_QDRANT_URL"], api_key=os.environ.get("PHAROS_QDRANT_API_KEY")
        )
        client.delete_collection(place.collection)
        client.close()


def drop(store: VectorStore, dataset: DatasetKey, *, most: int = PAGE) -> int:
    """Delete everything of *dataset*; how many chunks that were."""
    chunks, left = 0, True
    while left:
        dropped = store.drop(dataset, ALIVE - 1, most=most, forget=lambda _: None)
        chunks, left = chunks + dropped.chunks, dropped.left
    return chunks


def chunk(
    path: str,
    *,
    dataset: DatasetKey = ATLAS,
    generation: int = 1,
    line: int = 1,
    words: dict[int, float] | None = None,
    vector: Floats | None = None,
    kind: Kind = "chunk",
    structure: Floats | None = None,
    known_by: str = "",
    **facts: Any,
) -> Point:
    return Point(
        id=point_id(
            dataset, kind=kind, path=path, start_line=line, end_line=line, content_hash="c",
            chunker_version="1", encoder_version="m",
        ),
        payload=Payload(
            dataset=dataset, kind=kind, generation=generation, path=path, start_line=line, end_line=line,
            text=f"text of {path}", content_hash="c", vector=known_by, **facts,
        ),
        code_bm25=SparseVector.of({7: 1.0} if words is None else words),
        text_vector=vector,
        structure=structure,
    )  # fmt: skip


def axis(number: int, *, of: int = DIMENSIONS, lean: float = 0.0) -> Floats:
    """A unit vector along one axis, leaning towards the next."""
    vector = np.zeros(of, dtype=np.float32)
    vector[number], vector[(number + 1) % of] = 1, lean
    return vector / np.linalg.norm(vector)


def at(generation: int, *datasets: DatasetKey, filters: Filters = Filters()) -> Selection:
    return Selection(
        datasets=tuple(
            Searched(dataset=dataset, generation=generation, has_dense=True)
            for dataset in datasets or (ATLAS,)
        ),
        filters=filters,
    )


def paths(store: VectorStore, selection: Selection) -> list[str]:
    return sorted(hit.payload.path for hit in store.sparse(SparseVector.of({7: 1.0}), selection, 50))


def file_graph(*paths: str) -> StoredGraph:
    """A graph of those files, in which each leads to the first."""
    files = np.arange(len(paths), dtype=np.int32)
    return StoredGraph(
        paths=paths,
        languages=("python",) * len(paths),
        symbols=("",) * len(paths),
        lines=files,
        places=np.zeros((len(paths), 2), dtype=np.float32),
        sources=files[1:],
        targets=0 * files[1:],
        kinds=np.zeros(max(0, len(paths) - 1), dtype=np.uint8),
        weights=np.ones(max(0, len(paths) - 1), dtype=np.float32),
    )
