"""The rules of generations, written once over the few operations that a vector engine offers."""

from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar

import msgspec
import numpy as np

from pharos_embedder.bm25 import EMPTY_LEXICON, Lexicon, SparseVector
from pharos_embedder.ports import Check
from pharos_embedder.stored_graph import (
    GraphPiecesMissing,
    GraphTooLarge,
    StoredGraph,
    from_pieces,
    to_pieces,
)
from pharos_embedder.vectors import (
    ALIVE,
    HITS_MAX,
    STRUCTURE_DIMENSIONS,
    AllOf,
    Condition,
    DatasetKey,
    Dropped,
    Floats,
    Forget,
    Generation,
    Hit,
    Ids,
    Kind,
    Lacks,
    Match,
    Payload,
    Point,
    Range,
    Selection,
    StoreError,
    VectorName,
    of_dataset,
    point_id,
    selected,
    visible,
)

WRITE_BATCH: Final = (
    256  # points a write: about 25 ms in the embedded engine, which holds the interpreter meanwhile
)
PAGE: Final = 1_000  # ids a scroll or delete
LEXICON_SHARD_TERMS: Final = 50_000  # 8 bytes a term, 530 kB of base64 a point
LEXICON_SHARDS_MAX: Final = 64
GRAPH_PIECES_MAX: Final = 256  # above what GRAPH_BYTES_MAX can come to

T = TypeVar("T")


class Engine(Protocol):
    """What an adapter offers. Calls block, are thread-safe, and are small whatever the dataset."""

    def open(self) -> None: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def optimize(self) -> bool: ...

    def put(self, points: Sequence[Point]) -> None:
        """Insert the points; one whose id exists is replaced if it is retired and left alone if it lives."""

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        """Set the `text` vector of points that exist."""

    def set_until(self, ids: Sequence[str], generation: int) -> None: ...
    def delete(self, ids: Sequence[str]) -> None: ...
    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """A page of ids and where the next one starts; None after the last."""

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]: ...
    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        """The `structure` vectors of the points, those that have one."""

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        """The `text` vectors of the points whose payload says that their `vector` is one of *names*."""

    def count(self, condition: Condition) -> int: ...
    def counts(self, field: str, condition: Condition) -> dict[str | int, int]:
        """How many of the points there are by each value of *field*."""

    def nearest(
        self, name: VectorName, vector: Floats | SparseVector, condition: Condition, limit: int
    ) -> list[Hit]: ...


class GenerationStore:
    """A VectorStore over an Engine. See the port for what each method promises."""

    def __init__(self, engine: Engine, *, dimensions: int) -> None:
        self._engine = engine
        self._dimensions = dimensions

    def open(self) -> None:
        self._engine.open()

    def close(self) -> None:
        self._engine.close()

    def flush(self) -> None:
        self._engine.flush()

    def optimize(self) -> bool:
        return self._engine.optimize()

    def guarded(self, check: Check) -> "GenerationStore":
        return GenerationStore(GuardedEngine(self._engine, check), dimensions=self._dimensions)

    # Writing

    def upsert(self, points: Iterable[Point]) -> int:
        given = 0
        for batch in _batches(points, WRITE_BATCH):
            for point in batch:
                self._check(point)
            self._engine.put(batch)
            given += len(batch)
        return given

    def add_text_vectors(self, ids: Sequence[str], vectors: Floats) -> None:
        if vectors.shape != (len(ids), self._dimensions):
            raise ValueError(f"expected vectors of shape {(len(ids), self._dimensions)}, got {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector holds NaN or infinity")
        for start in range(0, len(ids), WRITE_BATCH):
            self._engine.set_text(ids[start : start + WRITE_BATCH], vectors[start : start + WRITE_BATCH])

    def retire(self, dataset: DatasetKey, ids: Iterable[str], generation: int) -> None:
        if not 0 < generation < ALIVE:
            raise ValueError(f"generation {generation} is out of range")
        for batch in _batches(ids, PAGE):
            own = AllOf((of_dataset(dataset), Range(field="until", above=generation), Ids(tuple(batch))))
            found, _ = self._engine.ids(own, after=None, limit=PAGE)
            self._set_until(found, generation)

    def discard_unpublished(self, dataset: DatasetKey, live: int) -> None:
        self._delete(AllOf((of_dataset(dataset), Range(field="from", above=live))))
        self._let_live(AllOf((of_dataset(dataset), Range(field="until", above=live, at_most=ALIVE - 1))))

    def undo(self, dataset: DatasetKey, job: str, attempts: int, live: int) -> int:
        # In this order a repeat, after a crash in between, finds again which generations these were.
        for generation in self._engine.counts("from", _written(job, attempts, of_dataset(dataset))):
            if int(generation) > live:
                at = Range(field="until", above=int(generation) - 1, at_most=int(generation))
                self._let_live(AllOf((of_dataset(dataset), at)))
        return self._delete(_written(job, attempts, of_dataset(dataset), Range(field="from", above=live)))

    def collect(self, dataset: DatasetKey, oldest_kept: int) -> int:
        return self._delete(AllOf((of_dataset(dataset), Range(field="until", at_most=oldest_kept))))

    def drop(self, dataset: DatasetKey, generation: int, *, most: int, forget: Forget) -> Dropped:
        born = AllOf((of_dataset(dataset), Range(field="from", at_most=generation)))
        some = AllOf((*born.conditions, Match("kind", ("chunk",))))
        chunks = 0
        while chunks < most and (page := self._engine.ids(some, after=None, limit=WRITE_BATCH)[0]):
            forget(self._engine.payloads(AllOf((of_dataset(dataset), Ids(tuple(page)))), limit=WRITE_BATCH))
            self._engine.delete(page)
            chunks += len(page)
        others = 0
        files = AllOf((*born.conditions, Match("kind", ("file",))))
        while chunks + others < most and (page := self._engine.ids(files, after=None, limit=WRITE_BATCH)[0]):
            forget(self._engine.payloads(AllOf((of_dataset(dataset), Ids(tuple(page)))), limit=WRITE_BATCH))
            self._engine.delete(page)
            others += len(page)
        while chunks + others < most and (page := self._engine.ids(born, after=None, limit=WRITE_BATCH)[0]):
            self._engine.delete(page)
            others += len(page)
        return Dropped(chunks, left=bool(self._engine.ids(born, after=None, limit=1)[0]))

    def put_lexicon(
        self, dataset: DatasetKey, generation: int, lexicon: Lexicon, *, job: str = "", attempt: int = 0
    ) -> None:
        self._replace(dataset, generation, "lexicon", _lexicon_texts(lexicon), job, attempt)

    def put_graph(
        self, dataset: DatasetKey, generation: int, graph: StoredGraph, *, job: str = "", attempt: int = 0
    ) -> None:
        try:
            pieces = to_pieces(graph)
        except GraphTooLarge:
            self._replace(dataset, generation, "graph", (), job, attempt)
            raise
        self._replace(dataset, generation, "graph", pieces, job, attempt)

    def _replace(
        self,
        dataset: DatasetKey,
        generation: int,
        kind: Kind,
        texts: Iterable[str],
        job: str,
        attempt: int,
    ) -> None:
        """Store *texts*, a point each, as what *generation* has of *kind*; retire what it had before."""
        own = (of_dataset(dataset), Match("kind", (kind,)))
        # Points of this very generation are from an earlier try of the same run: the new ones win.
        self._delete(AllOf((*own, Range(field="from", above=generation - 1, at_most=generation))))
        for number, text in enumerate(texts):
            self._engine.put([_part(dataset, generation, kind, number, text, job, attempt)])
        earlier = (Range(field="from", at_most=generation - 1), Range(field="until", above=generation))
        found, _ = self._engine.ids(AllOf((*own, *earlier)), after=None, limit=PAGE)
        self._set_until(found, generation)

    # Reading

    def live_ids(
        self, dataset: DatasetKey, generation: int, kind: Kind, *, path: str | None = None
    ) -> set[str]:
        conditions = (*visible(dataset, generation).conditions, Match("kind", (kind,)))
        if path is not None:
            conditions = (*conditions, Match("path", (path,)))
        return set(self._ids(AllOf(conditions)))

    def iterate_ids(
        self, dataset: DatasetKey, generation: int, kind: Kind, *, without_text: bool = False
    ) -> Iterator[str]:
        conditions = (*visible(dataset, generation).conditions, Match("kind", (kind,)))
        return self._ids(AllOf((*conditions, Lacks("text")) if without_text else conditions))

    def payloads(self, dataset: DatasetKey, ids: Iterable[str]) -> list[Payload]:
        found: list[Payload] = []
        for batch in _batches(ids, WRITE_BATCH):
            found += self._engine.payloads(AllOf((of_dataset(dataset), Ids(tuple(batch)))), limit=WRITE_BATCH)
        return found

    def text_vectors(self, names: Iterable[str]) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for batch in _batches(names, WRITE_BATCH):
            found |= self._engine.texts(batch)
        return found

    def ids_without_text(self, dataset: DatasetKey, generation: int) -> set[str]:
        return set(self.iterate_ids(dataset, generation, "chunk", without_text=True))

    def count(self, dataset: DatasetKey, generation: int, kind: Kind) -> int:
        return self._engine.count(AllOf((*visible(dataset, generation).conditions, Match("kind", (kind,)))))

    def size(self, dataset: DatasetKey) -> int:
        return self._engine.count(of_dataset(dataset))

    def of_repository(self, repository: str) -> set[DatasetKey]:
        found = self._engine.counts("key", Match("repository", (repository,)))
        return {DatasetKey.of(str(key)) for key in found}

    def left_by(self, job: str, attempts: int) -> dict[DatasetKey, frozenset[int]]:
        return {
            DatasetKey.of(str(key)): frozenset(
                int(number)
                for number in self._engine.counts(
                    "from", _written(job, attempts, of_dataset(DatasetKey.of(str(key))))
                )
            )
            for key in self._engine.counts("key", _written(job, attempts))
        }

    def contents(self) -> list[Generation]:
        told = (Match("kind", ("chunk", "file")), Range(field="until", above=ALIVE - 1))
        found = []
        for key in self._engine.counts("key", AllOf(told)):
            dataset = DatasetKey.of(str(key))
            numbers = self._engine.counts("from", AllOf((of_dataset(dataset), *told)))
            found += [Generation(dataset, int(number), points) for number, points in numbers.items()]
        return sorted(found)

    def lexicon(self, dataset: DatasetKey, generation: int) -> Lexicon:
        return _lexicon_of(self._parts(dataset, generation, "lexicon", LEXICON_SHARDS_MAX))

    def graph(self, dataset: DatasetKey, generation: int) -> StoredGraph | None:
        pieces = self._parts(dataset, generation, "graph", GRAPH_PIECES_MAX)
        if not pieces:
            return None
        try:
            return from_pieces(pieces)
        except GraphPiecesMissing as error:
            raise StoreError(f"The graph of generation {generation} is being taken away") from error

    def _parts(self, dataset: DatasetKey, generation: int, kind: Kind, limit: int) -> list[str]:
        """The texts of *kind* that *generation* has, in order."""
        condition = AllOf((*visible(dataset, generation).conditions, Match("kind", (kind,))))
        found = self._engine.payloads(condition, limit=limit)
        return [payload.text for payload in sorted(found, key=lambda payload: payload.path)]

    def dense(self, vector: Floats, selection: Selection, limit: int) -> list[Hit]:
        self._check_vector("text", vector, self._dimensions)
        return self._nearest("text", vector, selection, "chunk", limit)

    def sparse(self, vector: SparseVector, selection: Selection, limit: int) -> list[Hit]:
        if not vector.indices:
            return []
        return self._nearest("code_bm25", vector, selection, "chunk", limit)

    def structure(self, vector: Floats, selection: Selection, limit: int) -> list[Hit]:
        self._check_vector("structure", vector, STRUCTURE_DIMENSIONS)
        return self._nearest("structure", vector, selection, "file", limit)

    def file_vector(self, dataset: DatasetKey, generation: int, path: str) -> Floats | None:
        file = (Match("kind", ("file",)), Match("path", (path,)))
        found = self._engine.structures(AllOf((*visible(dataset, generation).conditions, *file)), limit=1)
        return found[0] if found else None

    # The steps that the methods above share

    def _nearest(
        self, name: VectorName, vector: Floats | SparseVector, selection: Selection, kind: Kind, limit: int
    ) -> list[Hit]:
        if not selection.datasets:
            return []
        condition = selected(selection, kind)
        if name == "text" and selection.encoder:
            condition = AllOf((*condition.conditions, Match("encoder", (selection.encoder,))))
        hits = self._engine.nearest(name, vector, condition, max(1, min(limit, HITS_MAX)))
        # Engines order equal scores as their segments lie; ours must not depend on that.
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def _ids(self, condition: Condition) -> Iterator[str]:
        after = None
        while True:
            page, after = self._engine.ids(condition, after=after, limit=PAGE)
            yield from page
            if after is None:
                return

    def _delete(self, condition: Condition) -> int:
        """Delete page by page: one huge delete would hold the engine, and with it every query."""
        deleted = 0
        while page := self._engine.ids(condition, after=None, limit=PAGE)[0]:
            self._engine.delete(page)
            deleted += len(page)
        return deleted

    def _let_live(self, retired: Condition) -> None:
        # A page whose points live again no longer meets the condition: the first page is always the next.
        while page := self._engine.ids(retired, after=None, limit=PAGE)[0]:
            self._set_until(page, ALIVE)

    def _set_until(self, ids: Sequence[str], generation: int) -> None:
        if ids:
            self._engine.set_until(ids, generation)

    def _check(self, point: Point) -> None:
        if not 0 < point.payload.generation < ALIVE:
            raise ValueError(f"generation {point.payload.generation} is out of range")
        if point.text_vector is not None:
            self._check_vector("text", point.text_vector, self._dimensions)
        if point.structure is not None:
            self._check_vector("structure", point.structure, STRUCTURE_DIMENSIONS)

    @staticmethod
    def _check_vector(name: VectorName, vector: Floats, dimensions: int) -> None:
        if vector.shape != (dimensions,):
            raise ValueError(f"a {name} vector has the shape {(dimensions,)}, not {vector.shape}")
        if not np.isfinite(vector).all():
            raise ValueError(f"a {name} vector holds NaN or infinity")


class GuardedEngine:
    """An engine whose every use is preceded by a check. Who opened it closes it."""

    def __init__(self, engine: Engine, check: Check) -> None:
        self._engine = engine
        self._check = check

    def open(self) -> None:
        raise NotImplementedError("a guarded store belongs to who opened it")

    def close(self) -> None:
        raise NotImplementedError("a guarded store belongs to who opened it")

    def flush(self) -> None:
        self._check()
        self._engine.flush()

    def optimize(self) -> bool:
        self._check()
        return self._engine.optimize()

    def put(self, points: Sequence[Point]) -> None:
        self._check()
        self._engine.put(points)

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        self._check()
        self._engine.set_text(ids, vectors)

    def set_until(self, ids: Sequence[str], generation: int) -> None:
        self._check()
        self._engine.set_until(ids, generation)

    def delete(self, ids: Sequence[str]) -> None:
        self._check()
        self._engine.delete(ids)

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        self._check()
        return self._engine.ids(condition, after=after, limit=limit)

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        self._check()
        return self._engine.payloads(condition, limit=limit)

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        self._check()
        return self._engine.structures(condition, limit=limit)

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        self._check()
        return self._engine.texts(names)

    def count(self, condition: Condition) -> int:
        self._check()
        return self._engine.count(condition)

    def counts(self, field: str, condition: Condition) -> dict[str | int, int]:
        self._check()
        return self._engine.counts(field, condition)

    def nearest(
        self, name: VectorName, vector: Floats | SparseVector, condition: Condition, limit: int
    ) -> list[Hit]:
        self._check()
        return self._engine.nearest(name, vector, condition, limit)


def _written(job: str, attempts: int, *conditions: Condition) -> AllOf:
    return AllOf((Match("job", (job,)), Range(field="attempt", at_most=attempts), *conditions))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class _Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a lexicon, as JSON in the text of a point; the two lists are little-endian 32-bit integers."""

    documents: int
    total_length: int
    terms: str  # base64
    counts: str


def _lexicon_texts(lexicon: Lexicon) -> Iterator[str]:
    for start in range(0, max(1, len(lexicon.terms)), LEXICON_SHARD_TERMS):
        part = slice(start, start + LEXICON_SHARD_TERMS)
        shard = _Shard(
            documents=lexicon.documents,
            total_length=lexicon.total_length,
            terms=_packed(lexicon.terms[part]),
            counts=_packed(lexicon.counts[part]),
        )
        yield msgspec.json.encode(shard).decode()


def _part(
    dataset: DatasetKey, generation: int, kind: Kind, number: int, text: str, job: str, attempt: int
) -> Point:
    """Part *number* of something that a generation has one of."""
    path = f"{number:04d}"
    name = point_id(
        dataset, kind=kind, path=path, start_line=0, end_line=0, content_hash=str(generation),
        chunker_version="", encoder_version="",
    )  # fmt: skip
    payload = Payload(
        dataset=dataset, kind=kind, generation=generation, path=path, text=text, job=job, attempt=attempt
    )
    return Point(id=name, payload=payload)


def _lexicon_of(shards: Iterable[str]) -> Lexicon:
    terms, counts = array("I"), array("I")
    shard = None
    for text in shards:
        shard = msgspec.json.decode(text, type=_Shard)
        terms.extend(_unpacked(shard.terms))
        counts.extend(_unpacked(shard.counts))
    if shard is None:
        return EMPTY_LEXICON
    return Lexicon(documents=shard.documents, total_length=shard.total_length, terms=terms, counts=counts)


def _packed(values: "array[int]") -> str:
    return b64encode(np.asarray(values, dtype="<u4").tobytes()).decode()


def _unpacked(text: str) -> "array[int]":
    return array("I", np.frombuffer(b64decode(text), dtype="<u4").tolist())
