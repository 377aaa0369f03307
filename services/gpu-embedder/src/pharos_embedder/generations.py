"""The rules of generations, written once over the few operations that a vector engine offers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, Literal, Protocol, TypeVar

import numpy as np

from pharos_contracts.control.v1 import GraphState, InspectedDataset, LiveGeneration
from pharos_embedder import stored_lexicon
from pharos_embedder.bm25 import EMPTY_LEXICON, Lexicon, LexiconChange, SparseVector, Totals
from pharos_embedder.ports import Check
from pharos_embedder.stored_graph import (
    GraphPiecesMissing,
    GraphTooLarge,
    StoredGraph,
    from_pieces,
    to_pieces,
)
from pharos_embedder.stored_lexicon import HEAD, LexiconPiecesMissing, Part, PartFacts, Piece
from pharos_embedder.vectors import (
    ALIVE,
    HITS_MAX,
    STRUCTURE_DIMENSIONS,
    AllOf,
    AnyOf,
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
    StoreFacts,
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
GRAPH_PIECES_MAX: Final = 256  # above what GRAPH_BYTES_MAX can come to
LEFT_OUT: Final = "left out"  # what the one point is called that stands for a graph which is too large

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

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        """Of the points, those that meet *condition* in this moment: another may have written them since."""

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        """As `set_until`."""

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """A page of ids and where the next one starts; None after the last."""

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]: ...
    def points(
        self, condition: Condition, *, after: str | None, limit: int
    ) -> tuple[list[Point], str | None]:
        """A page of whole points, in the order of their ids, as `ids`; perhaps fewer than *limit*."""

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        """The `structure` vectors of the points, those that have one."""

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        """The `text` vectors of the points whose payload says that their `vector` is one of *names*."""

    def facts(self) -> StoreFacts: ...
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
        return self._put(points, self._dimensions)

    def copy(self, points: Iterable[Point]) -> int:
        return self._put(points, None)

    def _put(self, points: Iterable[Point], dimensions: int | None) -> int:
        """*dimensions* of the text vectors; None where each may have another length."""
        given = 0
        for batch in _batches(points, WRITE_BATCH):
            for point in batch:
                self._check(point, dimensions)
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
        later = AllOf((of_dataset(dataset), Range(field="until", above=generation)))
        for batch in _batches(ids, PAGE):
            self._engine.set_until(batch, generation, later)

    def discard_unpublished(self, dataset: DatasetKey, live: int) -> None:
        self._delete(AllOf((of_dataset(dataset), Range(field="from", above=live))))
        self._let_live(AllOf((of_dataset(dataset), Range(field="until", above=live, at_most=ALIVE - 1))))

    def discard(self, dataset: DatasetKey, generation: int) -> None:
        # In this order a repeat, after a crash in between, finds again that there is something to undo.
        self._let_live(AllOf((of_dataset(dataset), _exactly("until", generation))))
        self._delete(AllOf((of_dataset(dataset), _exactly("from", generation))))

    def undo(self, dataset: DatasetKey, job: str, attempts: int, live: int) -> int:
        # In this order a repeat, after a crash in between, finds again which generations these were.
        for generation in self._engine.counts("from", _written(job, attempts, of_dataset(dataset))):
            if int(generation) > live:
                self._let_live(AllOf((of_dataset(dataset), _exactly("until", int(generation)))))
        return self._delete(_written(job, attempts, of_dataset(dataset), Range(field="from", above=live)))

    def collect(self, dataset: DatasetKey, oldest_kept: int) -> int:
        return self._delete(AllOf((of_dataset(dataset), Range(field="until", at_most=oldest_kept))))

    def drop(self, dataset: DatasetKey, generation: int, *, most: int, forget: Forget) -> Dropped:
        born = AllOf((of_dataset(dataset), Range(field="from", at_most=generation)))
        some = AllOf((*born.conditions, Match("kind", ("chunk",))))
        chunks = 0
        while chunks < most and (page := self._engine.ids(some, after=None, limit=WRITE_BATCH)[0]):
            forget(self._engine.payloads(AllOf((of_dataset(dataset), Ids(tuple(page)))), limit=WRITE_BATCH))
            self._engine.delete(page, some)
            chunks += len(page)
        others = 0
        files = AllOf((*born.conditions, Match("kind", ("file",))))
        while chunks + others < most and (page := self._engine.ids(files, after=None, limit=WRITE_BATCH)[0]):
            forget(self._engine.payloads(AllOf((of_dataset(dataset), Ids(tuple(page)))), limit=WRITE_BATCH))
            self._engine.delete(page, files)
            others += len(page)
        while chunks + others < most and (page := self._engine.ids(born, after=None, limit=WRITE_BATCH)[0]):
            self._engine.delete(page, born)
            others += len(page)
        return Dropped(chunks, left=bool(self._engine.ids(born, after=None, limit=1)[0]))

    def put_lexicon(
        self, dataset: DatasetKey, generation: int, lexicon: Lexicon, *, job: str = "", attempt: int = 0
    ) -> None:
        part = Part.of_lexicon(lexicon)
        head = stored_lexicon.Head(
            totals=Totals(lexicon.documents),
            parts=(PartFacts(generation, len(part.terms)),),
        )
        self._replace(dataset, generation, "lexicon", _pieces(head, part), job, attempt)

    def change_lexicon(
        self,
        dataset: DatasetKey,
        generation: int,
        change: LexiconChange,
        *,
        on: int,
        job: str = "",
        attempt: int = 0,
    ) -> None:
        head = self._lexicon_head(dataset, on)
        part = Part.of(change.frequencies)
        kept, taken = stored_lexicon.split(head.parts, len(part.terms))
        if taken:
            part = Part.sum([*self._lexicon_parts(dataset, on, taken), part])
        if not kept:
            part = part.whole()
        followed = stored_lexicon.Head(
            totals=head.totals.changed(change), parts=(*kept, PartFacts(generation, len(part.terms)))
        )
        # What was taken in came with the first of it or later, and so did the head; the rest lives on.
        since = taken[0].generation if taken else generation
        superseded = AnyOf((Match("path", (HEAD,)), Range(field="from", above=since - 1)))
        pieces = _pieces(followed, part)
        self._replace(dataset, generation, "lexicon", pieces, job, attempt, superseded)

    def _lexicon_head(self, dataset: DatasetKey, generation: int) -> stored_lexicon.Head:
        found = self._engine.payloads(
            _of_kind(dataset, generation, "lexicon", Match("path", (HEAD,))), limit=1
        )
        if found:
            return stored_lexicon.head_of(found[0].text)
        with _whole("lexicon", generation):
            return stored_lexicon.read(self._lexicon_pieces(dataset, generation))[0]

    def _lexicon_parts(self, dataset: DatasetKey, generation: int, parts: Sequence[PartFacts]) -> list[Part]:
        since = Range(field="from", above=parts[0].generation - 1)
        with _whole("lexicon", generation):
            return stored_lexicon.parts_of(parts, self._lexicon_pieces(dataset, generation, since))

    def _lexicon_pieces(self, dataset: DatasetKey, generation: int, *conditions: Condition) -> list[Piece]:
        found = self._engine.payloads(
            _of_kind(dataset, generation, "lexicon", *conditions), limit=stored_lexicon.POINTS_MAX
        )
        return [Piece(generation=each.generation, name=each.path, text=each.text) for each in found]

    def put_graph(
        self,
        dataset: DatasetKey,
        generation: int,
        graph: StoredGraph | None,
        *,
        job: str = "",
        attempt: int = 0,
    ) -> None:
        try:
            pieces = [(LEFT_OUT, "")] if graph is None else _numbered(to_pieces(graph))
        except GraphTooLarge:
            self.put_graph(dataset, generation, None, job=job, attempt=attempt)
            raise
        self._replace(dataset, generation, "graph", pieces, job, attempt)

    def _replace(
        self,
        dataset: DatasetKey,
        generation: int,
        kind: Kind,
        pieces: Iterable[tuple[str, str]],
        job: str,
        attempt: int,
        *superseded: Condition,
    ) -> None:
        """Store *pieces*, name and text of a point each, as what comes with *generation* of *kind*.

        What earlier ones have of it and meets *superseded* is retired.
        """
        own = (of_dataset(dataset), Match("kind", (kind,)))
        # Points of this very generation are from an earlier try of the same run: the new ones win.
        self._delete(AllOf((*own, _exactly("from", generation))))
        for name, text in pieces:
            self._engine.put([_piece(dataset, generation, kind, name, text, job, attempt)])
        earlier = (Range(field="from", at_most=generation - 1), Range(field="until", above=generation))
        replaced = AllOf((*own, *earlier, *superseded))
        found, _ = self._engine.ids(replaced, after=None, limit=PAGE)
        if found:
            self._engine.set_until(found, generation, replaced)

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

    def points(self, dataset: DatasetKey, generation: int, kind: Kind) -> Iterator[list[Point]]:
        condition, after = _of_kind(dataset, generation, kind), None
        while True:
            page, after = self._engine.points(condition, after=after, limit=WRITE_BATCH)
            yield page
            if after is None:
                return

    def ids_without_text(self, dataset: DatasetKey, generation: int) -> set[str]:
        return set(self.iterate_ids(dataset, generation, "chunk", without_text=True))

    def count(self, dataset: DatasetKey, generation: int, kind: Kind) -> int:
        return self._engine.count(AllOf((*visible(dataset, generation).conditions, Match("kind", (kind,)))))

    def size(self, dataset: DatasetKey) -> int:
        return self._engine.count(of_dataset(dataset))

    def facts(self) -> StoreFacts:
        return self._engine.facts()

    def datasets(self) -> set[DatasetKey]:
        everything = Range(field="from", above=0)
        return {DatasetKey.of(str(key)) for key in self._engine.counts("key", everything)}

    def generations(self, dataset: DatasetKey) -> dict[int, int]:
        return {
            int(number): points for number, points in self._engine.counts("from", of_dataset(dataset)).items()
        }

    def writers(self, dataset: DatasetKey, generation: int) -> set[str]:
        born = AllOf((of_dataset(dataset), _exactly("from", generation)))
        return {str(job) for job in self._engine.counts("job", born)}

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
        for dataset in self.datasets():
            alive = self._engine.counts("from", AllOf((of_dataset(dataset), *told)))
            for number, points in self.generations(dataset).items():
                found.append(Generation(dataset, number, alive.get(number, 0), points - alive.get(number, 0)))
        return sorted(found)

    def inspect(self, dataset: DatasetKey, generation: int) -> InspectedDataset:
        whole, here = of_dataset(dataset), visible(dataset, generation).conditions
        kinds = self._engine.counts("kind", AllOf(here))
        documents, in_use = self._inspect_lexicon(dataset, generation)
        graph, files = self._inspect_graph(dataset, generation)
        return InspectedDataset(
            live=LiveGeneration(dataset.tenant, dataset.project, dataset.dataset, generation),
            chunks=kinds.get("chunk", 0),
            files=kinds.get("file", 0),
            without_vector=self._engine.count(AllOf((*here, Match("kind", ("chunk",)), Lacks("text")))),
            documents=documents,
            lexicon_unused=0 if documents is None else max(0, kinds.get("lexicon", 0) - in_use),
            graph=graph,
            graph_files=files,
            retired=self._engine.count(AllOf((whole, Range(field="until", at_most=generation)))),
            later=self._engine.count(AllOf((whole, Range(field="from", above=generation)))),
        )

    def _inspect_lexicon(self, dataset: DatasetKey, generation: int) -> tuple[int | None, int]:
        """Of how many chunks it was made, None where a part is missing; and of how many points it is."""
        pieces = self._lexicon_pieces(dataset, generation)
        try:
            head, _ = stored_lexicon.read(pieces)
        except LexiconPiecesMissing:
            return None, 0
        has_head = any(each.name == HEAD for each in pieces)  # an earlier release stored none
        return head.totals.documents, stored_lexicon.shards_of(head) + has_head

    def _inspect_graph(self, dataset: DatasetKey, generation: int) -> tuple[GraphState, int]:
        """How it is stored, and of how many files it is."""
        try:
            found = self._graph(dataset, generation)
        except GraphPiecesMissing:
            return GraphState.BROKEN, 0
        if isinstance(found, StoredGraph):
            return GraphState.WHOLE, len(found.paths)
        return found, 0

    def lexicon(self, dataset: DatasetKey, generation: int) -> Lexicon:
        try:
            return stored_lexicon.lexicon_of(self._lexicon_pieces(dataset, generation))
        except LexiconPiecesMissing:
            return EMPTY_LEXICON

    def graph(self, dataset: DatasetKey, generation: int) -> StoredGraph | None:
        with _whole("graph", generation):
            found = self._graph(dataset, generation)
        return found if isinstance(found, StoredGraph) else None

    def _graph(
        self, dataset: DatasetKey, generation: int
    ) -> StoredGraph | Literal[GraphState.NONE, GraphState.LEFT_OUT]:
        """The graph, or why there is none. Raises GraphPiecesMissing."""
        found = self._engine.payloads(_of_kind(dataset, generation, "graph"), limit=GRAPH_PIECES_MAX)
        if not found:
            return GraphState.NONE
        if [each.path for each in found] == [LEFT_OUT]:
            return GraphState.LEFT_OUT
        return from_pieces([each.text for each in sorted(found, key=lambda each: each.path)])

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
            self._engine.delete(page, condition)
            deleted += len(page)
        return deleted

    def _let_live(self, retired: Condition) -> None:
        # A page whose points live again no longer meets the condition: the first page is always the next.
        while page := self._engine.ids(retired, after=None, limit=PAGE)[0]:
            self._engine.set_until(page, ALIVE, retired)

    def _check(self, point: Point, dimensions: int | None) -> None:
        if not 0 < point.payload.generation < ALIVE:
            raise ValueError(f"generation {point.payload.generation} is out of range")
        if point.text_vector is not None:
            length = len(point.text_vector) if dimensions is None else dimensions
            self._check_vector("text", point.text_vector, length)
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

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        self._check()
        self._engine.set_until(ids, generation, condition)

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        self._check()
        self._engine.delete(ids, condition)

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        self._check()
        return self._engine.ids(condition, after=after, limit=limit)

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        self._check()
        return self._engine.payloads(condition, limit=limit)

    def points(
        self, condition: Condition, *, after: str | None, limit: int
    ) -> tuple[list[Point], str | None]:
        self._check()
        return self._engine.points(condition, after=after, limit=limit)

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        self._check()
        return self._engine.structures(condition, limit=limit)

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        self._check()
        return self._engine.texts(names)

    def facts(self) -> StoreFacts:
        self._check()
        return self._engine.facts()

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


def _exactly(field: str, number: int) -> Range:
    return Range(field=field, above=number - 1, at_most=number)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _of_kind(dataset: DatasetKey, generation: int, kind: Kind, *conditions: Condition) -> AllOf:
    """What readers of *generation* see of *kind*."""
    return AllOf((*visible(dataset, generation).conditions, Match("kind", (kind,)), *conditions))


@contextmanager
def _whole(what: str, generation: int) -> Iterator[None]:
    try:
        yield
    except (GraphPiecesMissing, LexiconPiecesMissing) as error:
        raise StoreError(
            f"The {what} of generation {generation} is being stored or taken away: ask again"
        ) from error


def _pieces(head: stored_lexicon.Head, part: Part) -> Iterator[tuple[str, str]]:
    """What comes of a lexicon with a generation; the head last, since it names the rest."""
    yield from stored_lexicon.to_shards(part)
    yield HEAD, stored_lexicon.to_text(head)


def _numbered(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((f"{number:04d}", text) for number, text in enumerate(texts))


def _piece(
    dataset: DatasetKey, generation: int, kind: Kind, path: str, text: str, job: str, attempt: int
) -> Point:
    """A point of something that a generation has one of."""
    name = point_id(
        dataset, kind=kind, path=path, start_line=0, end_line=0, content_hash=str(generation),
        chunker_version="", encoder_version="",
    )  # fmt: skip
    payload = Payload(
        dataset=dataset, kind=kind, generation=generation, path=path, text=text, job=job, attempt=attempt
    )
    return Point(id=name, payload=payload)
