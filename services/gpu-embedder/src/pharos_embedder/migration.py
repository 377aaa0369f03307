"""From one store to another, such as from the embedded one to a Qdrant server: the records stay as they are.

Points go as they are, with the generation that they came with, so what is live there is what is live here. It
can be repeated: what is there already is not sent again, and what is no longer here goes.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from pharos_contracts.datasets.v1 import Dataset
from pharos_embedder.snapshots import CannotCopy, key_of
from pharos_embedder.vectors import ALIVE, Floats, Kind, Point, VectorStore

KINDS: Final[tuple[Kind, ...]] = ("chunk", "file", "lexicon", "graph")
COSINE_MIN: Final = 0.9999


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """How many points a dataset has there now, and how many of them were sent this time."""

    points: int
    sent: int


def migrate(record: Dataset, source: VectorStore, target: VectorStore) -> Migrated:
    """Bring the live generation of a dataset to *target*, with vectors of whatever length.

    Raises StoreError, and CannotCopy if it differs.
    """
    key, generation = key_of(record), record.generation
    target.discard_unpublished(key, generation)
    total = sent = 0
    for kind in KINDS:
        there = target.live_ids(key, generation, kind)
        here: set[str] = set()
        for page in source.points(key, generation, kind):
            here.update(point.id for point in page)
            missing = [_alive(point) for point in page if point.id not in there]
            sent += target.copy(missing)
        target.retire(key, there - here, generation)
        if target.live_ids(key, generation, kind) != here or source.live_ids(key, generation, kind) != here:
            raise CannotCopy(f"The dataset {key.dataset} changed meanwhile; run this again when it rests")
        _compare(kind, record, source, target)
        total += len(here)
    target.collect(key, generation)
    target.flush()
    return Migrated(points=total, sent=sent)


def _alive(point: Point) -> Point:
    """A run that is under way may have retired it for later; that is undone there."""
    return msgspec.structs.replace(point, payload=msgspec.structs.replace(point.payload, until=ALIVE))


def _compare(kind: Kind, record: Dataset, source: VectorStore, target: VectorStore) -> None:
    """Compare the first page of points, with their vectors."""
    pages = [
        next(iter(store.points(key_of(record), record.generation, kind)), []) for store in (source, target)
    ]
    ours, theirs = ({point.id: point for point in page} for page in pages)
    for identifier in ours.keys() & theirs.keys():
        if not _same(ours[identifier], theirs[identifier]):
            raise CannotCopy(f"A point of {record.dataset} is not there what it is here: {identifier}")


def _same(one: Point, other: Point) -> bool:
    return (
        _alive(one).payload == other.payload
        and (one.code_bm25 is None) == (other.code_bm25 is None)
        and (
            one.code_bm25 is None
            or other.code_bm25 is None
            or one.code_bm25.indices == other.code_bm25.indices
        )
        and _near(one.text_vector, other.text_vector)
        and _near(one.structure, other.structure)
    )


def _near(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None:
        return one is other
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return length == 0 or float(one @ other) / length >= COSINE_MIN
