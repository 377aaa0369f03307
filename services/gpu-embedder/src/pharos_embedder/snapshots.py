"""Taking a snapshot of datasets while the service runs, and restoring one into a store that may have others.

What is live of a dataset never changes: a snapshot has the points that readers of one generation see, and it
is whole if none of them was collected meanwhile. What is restored is a new generation beside what is live,
and published last, as by any run.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np

from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_embedder import store_protocol
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.generations import GRAPH_PIECES_MAX
from pharos_embedder.ports import Check
from pharos_embedder.snapshot_file import (
    FORMAT,
    BadSnapshot,
    DatasetAbandoned,
    DatasetClosing,
    DatasetOpening,
    Frame,
    GraphPiece,
    Opening,
    Points,
    SnapshotWriter,
    Words,
    read_frames,
)
from pharos_embedder.stored_graph import GraphPiecesMissing, from_pieces, to_pieces
from pharos_embedder.vectors import (
    ALIVE,
    STRUCTURE_DIMENSIONS,
    DatasetKey,
    Kind,
    VectorStore,
    generation_after,
)
from pharos_service.buckets import Entry

KINDS: Final[tuple[Kind, ...]] = ("chunk", "file")
TRIES_MAX: Final = 3


class CannotCopy(Exception):
    """A snapshot cannot be taken or restored; the text says why and what to do."""


class Records(Protocol):
    """The bucket ``datasets``, for who may block."""

    def get(self, key: DatasetKey) -> Entry[DatasetRecord] | None: ...

    def set(self, key: DatasetKey, record: DatasetRecord, after: Entry[DatasetRecord] | None) -> bool:
        """Whether *record* was written, since nobody had written after *after*."""


Hold = Callable[[DatasetKey], AbstractContextManager[Check]]
"""Keeps others from writing to a dataset, and its points from being swept, while the check says nothing."""


def key_of(record: Dataset) -> DatasetKey:
    return DatasetKey(record.tenant, record.project, record.dataset)


def take(
    path: Path, names: Sequence[DatasetKey], store: VectorStore, records: Records, *, dimensions: int
) -> dict[DatasetKey, DatasetClosing]:
    """Write the datasets *names* to *path*; what there is of each. Raises CannotCopy, StoreError, OSError."""
    taken = {}
    with SnapshotWriter(path) as writer:
        writer.write(
            Opening(
                format=FORMAT,
                text_dimensions=dimensions,
                structure_dimensions=STRUCTURE_DIMENSIONS,
                datasets=tuple((key.tenant, key.project, key.dataset) for key in names),
            )
        )
        for key in names:
            for _ in range(TRIES_MAX):
                entry = records.get(key)
                if entry is None or not isinstance(entry.value, Dataset):
                    raise CannotCopy(f"There is no dataset {key.dataset} (any more)")
                if (closing := _take_one(writer, entry.value, store, records)) is not None:
                    taken[key] = closing
                    break
                writer.write(DatasetAbandoned())
            else:
                raise CannotCopy(f"The dataset {key.dataset} changes faster than it is read; try again later")
    return taken


def _take_one(
    writer: SnapshotWriter, record: Dataset, store: VectorStore, records: Records
) -> DatasetClosing | None:
    """What there is of it; None where it was replaced, and is collected already."""
    key, generation = key_of(record), record.generation
    wanted = {kind: store.count(key, generation, kind) for kind in KINDS}
    lexicon = store.lexicon(key, generation)
    graph = store.graph(key, generation)
    entry = records.get(key)
    if entry is None or entry.value != record:
        return None  # what was counted may be what was left of it
    writer.write(DatasetOpening(record=record))
    found = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        for page in store.points(key, generation, kind):
            writer.write(Points(points=[store_protocol.to_wire(point) for point in page]))
            found[kind] += len(page)
    writer.write(
        Words(
            documents=lexicon.documents,
            terms=np.asarray(lexicon.terms, dtype="<u4").tobytes(),
            counts=np.asarray(lexicon.counts, dtype="<u4").tobytes(),
        )
    )
    for piece in () if graph is None else to_pieces(graph):
        writer.write(GraphPiece(text=piece))
    if found != wanted or lexicon.documents != wanted["chunk"]:
        return None
    closing = DatasetClosing(chunks=found["chunk"], files=found["file"])
    writer.write(closing)
    return closing


def restore(
    path: Path,
    store: VectorStore,
    records: Records,
    *,
    hold: Hold,
    now: Callable[[], datetime],
    replace: bool = False,
) -> dict[DatasetKey, DatasetClosing]:
    """Restore the datasets of the snapshot at *path*, with vectors of whatever length; what there is of each.

    *replace*: also those that are live. Raises CannotCopy, BadSnapshot, StoreError and OSError; the datasets
    that were restored till then are whole, and of the others there is nothing.
    """
    frames = read_frames(path)
    opening = _opening(path, frames)
    _check(opening, path, records, replace)
    told = {DatasetKey(*names) for names in opening.datasets}  # what was looked at above
    restored: dict[DatasetKey, DatasetClosing] = {}
    for frame in frames:
        if isinstance(frame, DatasetOpening):
            if key_of(frame.record) not in told:
                raise BadSnapshot(f"{path} holds the dataset {frame.record.dataset}, and does not say so")
            with hold(key_of(frame.record)) as check:
                closing = _restore_one(frame.record, frames, store.guarded(check), records, check, now)
            if closing is not None:
                restored[key_of(frame.record)] = closing
    return restored


def opening_of(path: Path) -> Opening:
    """What is in the snapshot at *path*. Raises BadSnapshot and OSError."""
    return _opening(path, read_frames(path))


def _opening(path: Path, frames: Iterator[Frame]) -> Opening:
    opening = next(frames)
    if not isinstance(opening, Opening) or not 0 < opening.text_dimensions <= store_protocol.DIMENSIONS_MAX:
        raise BadSnapshot(f"{path} does not begin as a snapshot does")
    return opening


def _check(opening: Opening, path: Path, records: Records, replace: bool) -> None:
    if opening.format != FORMAT:
        raise BadSnapshot(f"{path} has format {opening.format}; this release reads {FORMAT}")
    if opening.structure_dimensions != STRUCTURE_DIMENSIONS:
        raise BadSnapshot(f"{path} was written by another release")
    for names in opening.datasets:
        entry = records.get(DatasetKey(*names))
        if entry is None or not isinstance(entry.value, Dataset):
            continue
        if not replace:
            raise CannotCopy(
                f"The dataset {names[2]} ({names[0]}, project {names[1]}) is live here; "
                "delete it first, or say --replace"
            )
        _check_whole(entry.value)


def _check_whole(record: Dataset) -> None:
    """Its points of the same ids stay as they are: without vectors, where they have none yet."""
    if record.stage is not IndexStage.FULL:
        raise CannotCopy(
            f"The first index of {record.dataset} ({record.tenant}, project {record.project}) has no vectors "
            "yet: let its job end, or delete the dataset, and restore it then"
        )


def _restore_one(
    record: Dataset,
    frames: Iterator[Frame],
    store: VectorStore,
    records: Records,
    check: Check,
    now: Callable[[], datetime],
) -> DatasetClosing | None:
    """None where the snapshot has it once more, further on."""
    key = key_of(record)
    entry = records.get(key)
    before = entry.value if entry is not None else None
    if isinstance(before, Dataset):
        _check_whole(before)
    live = before.generation if isinstance(before, Dataset) else 0
    follows = before.generation if isinstance(before, Dataset | DeletedDataset) else 0
    generation = generation_after(follows)
    store.discard_unpublished(key, live)
    try:
        closing = _store(record, generation, live, frames, store)
        if closing is None:
            store.discard(key, generation)
            return None
        check()
    except BaseException:
        store.discard(key, generation)  # after a crash here the next index or sweep does it
        raise
    published = msgspec.structs.replace(record, generation=generation, job_id="", published_at=now())
    # What this raises leaves it open whether it is live: then nothing is discarded, as after a crash.
    if not records.set(key, published, entry):
        store.discard(key, generation)
        raise CannotCopy(f"The dataset {key.dataset} was changed meanwhile; restore it again")
    return closing


def _store(
    record: Dataset,
    generation: int,
    live: int,
    frames: Iterator[Frame],
    store: VectorStore,
) -> DatasetClosing | None:
    key = key_of(record)
    pieces: list[str] = []
    kept: set[str] = set()  # of what is live; nothing where nothing is
    alive = {each for kind in KINDS for each in store.live_ids(key, live, kind)} if live else set()
    for frame in frames:
        match frame:
            case Points():
                with _readable(key):
                    points = store_protocol.points_of(frame.points)
                if any(each.payload.dataset != key or each.payload.kind not in KINDS for each in points):
                    raise BadSnapshot(f"a point among those of {key.dataset} is of something else")
                kept |= alive.intersection(point.id for point in points)
                store.copy(
                    msgspec.structs.replace(
                        point,
                        payload=msgspec.structs.replace(
                            point.payload, generation=generation, until=ALIVE, job="", attempt=0
                        ),
                    )
                    for point in points
                )
            case Words():
                with _readable(key):
                    lexicon = _lexicon(frame)
                store.put_lexicon(key, generation, lexicon)
            case GraphPiece(text=text):
                pieces.append(text)
                if len(pieces) > GRAPH_PIECES_MAX:
                    raise BadSnapshot(f"the graph of {key.dataset} is larger than any that was written")
            case DatasetAbandoned():
                return None
            case DatasetClosing():
                if pieces:
                    with _readable(key):
                        graph = from_pieces(pieces)
                    store.put_graph(key, generation, graph)
                elif record.repository:
                    store.put_graph(key, generation, None)  # and not that of what is replaced
                store.retire(key, alive - kept, generation)
                store.flush()
                found = tuple(store.count(key, generation, kind) for kind in KINDS)
                if found != (frame.chunks, frame.files):
                    raise CannotCopy(f"The dataset {key.dataset} was written to meanwhile; restore it again")
                return frame
            case _:
                raise BadSnapshot("the snapshot is not in order")
    raise BadSnapshot("the snapshot ends within a dataset")


@contextmanager
def _readable(key: DatasetKey) -> Iterator[None]:
    """A file that is whole may still say what nobody wrote."""
    try:
        yield
    except (
        store_protocol.Unreadable,
        GraphPiecesMissing,
        msgspec.DecodeError,
        ValueError,
        IndexError,
    ) as error:
        raise BadSnapshot(f"what the snapshot has of {key.dataset} cannot be used: {error}") from error


def _lexicon(words: Words) -> Lexicon:
    terms, counts = array("I"), array("I")
    terms.frombytes(np.frombuffer(words.terms, dtype="<u4").astype(np.uint32).tobytes())
    counts.frombytes(np.frombuffer(words.counts, dtype="<u4").astype(np.uint32).tobytes())
    return Lexicon(documents=words.documents, terms=terms, counts=counts)
