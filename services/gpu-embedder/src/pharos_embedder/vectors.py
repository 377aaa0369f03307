"""The vector store as the rest of the embedder sees it: its values, its filters and its port.

One collection holds every dataset. A point is immutable by content and carries the generations in which it
lives: it is visible in generation g when from <= g < until. A run builds generation g+1 beside the live one,
and whoever keeps the record of live generations publishes it with one compare-and-set; nothing here knows
which generation is live unless it is told.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha1
from typing import Final, Literal, Protocol, Self, runtime_checkable
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt

from pharos_contracts.control.v1 import InspectedDataset
from pharos_embedder.bm25 import Lexicon, LexiconChange, SparseVector
from pharos_embedder.ports import Check
from pharos_embedder.stored_graph import StoredGraph

Floats = npt.NDArray[np.float32]
Kind = Literal["chunk", "file", "lexicon", "graph"]
VectorName = Literal["text", "structure", "code_bm25"]

ALIVE: Final = (
    2**53 - 1
)  # `until` of a point that no run has retired; exact as a double, which range filters use
MILLISECONDS_FROM: Final = 10**11
"""Generations from here on are the clock in milliseconds; those of an earlier release are in seconds."""

STRUCTURE_DIMENSIONS: Final = 64
SELECTION_DATASETS_MAX: Final = 256  # in one query; each adds a clause to its filter
FILTER_VALUES_MAX: Final = 64
DIRECTORY_DEPTH_MAX: Final = 64  # path prefixes of a point; a deeper file is found by its first 64
HITS_MAX: Final = 1_000
VALUES_MAX: Final = 100_000  # of a field that are told apart in one count

_NAMESPACE: Final = UUID("5b0e4c0a-8f0b-5d3e-9a57-6f1d2c7e9b41")
_SEPARATOR: Final = "\x1f"


class StoreError(Exception):
    """Base of everything that a store raises on purpose."""


class StoreLocked(StoreError):
    """Another process has the embedded store open."""


class StoreUnavailable(StoreError):
    """The store's server cannot be reached or refused the request; the same call may succeed later."""


class StoreFull(StoreError):
    """The disk has too little room left for another write."""


class StoreClosed(StoreError):
    """The store was closed, or not opened yet."""


class DimensionMismatch(StoreError):
    """The store takes vectors of another length than the encoder makes."""

    def __init__(self, place: str, stored: int, wanted: int) -> None:
        self.stored, self.wanted = stored, wanted
        super().__init__(
            f"The index at {place} takes vectors of {stored} dimensions, but the encoder makes {wanted}. "
            "Give this process the encoder (PHAROS_ENCODER, or EMBEDDING_PROVIDER and its model) of the one "
            "that has the index open."
        )


class PointsMissing(StoreError):
    """Vectors were given for points that are not there, perhaps because their dataset was dropped."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"{number} of the points that should get a vector are not in the index")


class DatasetKey(msgspec.Struct, frozen=True, order=True):
    """Whose dataset: the unit of publishing, deleting and access."""

    tenant: str
    project: str
    dataset: str

    def __post_init__(self) -> None:
        for name in (self.tenant, self.project, self.dataset):
            if not name or _SEPARATOR in name:
                raise ValueError("tenant, project and dataset must not be empty or hold the character U+001F")

    def joined(self) -> str:
        """One string for one dataset, unambiguous whatever slashes the names hold."""
        return _SEPARATOR.join((self.tenant, self.project, self.dataset))

    @classmethod
    def of(cls, joined: str) -> Self:
        """The inverse of `joined`."""
        return cls(*joined.split(_SEPARATOR))


class DocumentFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where in a document a chunk is, and what is known of the document: see ``documents.blocks``.

    ``ordinal`` counts the document's chunks from 0. ``url`` is where a page was fetched. ``kind`` is the
    format, such as ``pdf``; ``natural_language`` is ISO 639-1 and ``date`` ISO 8601, empty where unknown.
    Of a file of a source, ``version`` is what the source called it, and ``made_by`` what decided beside its
    bytes, whose hexadecimal ``sha256`` is there, what is stored of it.
    """

    ordinal: int
    kind: str
    title: str = ""
    headings: tuple[str, ...] = ()
    page: int | None = None
    page_end: int | None = None
    natural_language: str = ""
    date: str = ""
    url: str = ""
    filename: str = ""
    version: str = ""
    sha256: str = ""
    made_by: str = ""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a point says about itself besides its vectors. Lines count from 1 and are inclusive."""

    dataset: DatasetKey
    kind: Kind
    generation: int  # `from`: the first generation that has the point
    until: int = ALIVE  # the first generation that does not
    path: str = ""
    scope: str = "project"
    language: str = ""
    symbol: str = ""
    symbol_kind: str = ""
    start_line: int = 0
    end_line: int = 0
    text: str = ""
    docstring: str = ""
    repository: str = ""
    content_hash: str = ""
    encoder: str = ""  # of a chunk: the version of what its `text` vector is, or will be, of
    vector: str = ""  # of a chunk: what that vector is known by in `shared_vectors`
    links: tuple[str, ...] = ()  # of a file: the files that it imports or uses names of, strongest first
    job: str = ""  # who wrote it, and in which attempt
    attempt: int = 0
    document: DocumentFacts | None = None  # of a chunk of a document, whose identity is the path


class Point(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A payload with its vectors; `id` as `point_id` makes it. `text_vector` may follow later."""

    id: str
    payload: Payload
    code_bm25: SparseVector | None = None
    text_vector: Floats | None = None  # (D,)
    structure: Floats | None = None  # (64,), on points of kind "file"


class Generation(msgspec.Struct, frozen=True, order=True):
    """A generation of a dataset that came with points.

    ``points`` are its chunks and files that no run has retired, ``others`` what else came with it.
    """

    dataset: DatasetKey
    number: int
    points: int
    others: int = 0


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A point that a query found. `score` is a cosine for dense vectors and the BM25 sum for words."""

    id: str
    score: float
    payload: Payload


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset of a selection, at the generation that is live for this query."""

    dataset: DatasetKey
    generation: int
    has_dense: bool


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Narrowing by facts of a point; an empty one admits everything, several must all hold.

    `path_prefix` is a directory or one whole file, relative to the repository: `src/core` admits
    `src/core/a.py` and not `src/core2.py`.
    """

    languages: tuple[str, ...] = ()
    path_prefix: str = ""
    repositories: tuple[str, ...] = ()
    symbol_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for values in (self.languages, self.repositories, self.symbol_kinds):
            if len(values) > FILTER_VALUES_MAX:
                raise ValueError(f"a filter takes at most {FILTER_VALUES_MAX} values, not {len(values)}")


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Where a query looks. No datasets: nothing is found, never everything.

    ``encoder`` is the version of what made the query's dense vector: those of others say nothing to it, so
    that their points are not found by meaning. Empty: all vectors are of one encoder.
    """

    datasets: tuple[Searched, ...]
    filters: Filters = Filters()
    encoder: str = ""

    def __post_init__(self) -> None:
        if len(self.datasets) > SELECTION_DATASETS_MAX:
            raise ValueError(
                f"a query spans at most {SELECTION_DATASETS_MAX} datasets, not {len(self.datasets)}"
            )

    def with_dense(self) -> Self:
        """The part of the selection that can be searched by meaning."""
        return msgspec.structs.replace(self, datasets=tuple(d for d in self.datasets if d.has_dense))


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants to know of a store as a whole; None where it is a server's to know.

    ``written`` are the points that were written, changed or deleted since it was optimized, at
    ``optimized_at`` (Unix time; None also where it never was).
    """

    points: int
    bytes_on_disk: int | None = None
    written: int | None = None
    optimized_at: float | None = None


class Dropped(msgspec.Struct, frozen=True):
    """How many chunks one step of deleting a dataset deleted, and whether anything of it is left."""

    chunks: int
    left: bool


Forget = Callable[[Sequence[Payload]], None]
"""Hears of chunks and files that are about to be deleted."""


class VectorReader(Protocol):
    """What search asks of a store. Methods block and may be called from any thread."""

    def lexicon(self, dataset: DatasetKey, generation: int) -> Lexicon:
        """The word frequencies of *generation*; empty where there are none, or not all of them any more."""

    def dense(self, vector: Floats, selection: Selection, limit: int) -> list[Hit]:
        """The chunks nearest to *vector* (D,), nearest first."""

    def sparse(self, vector: SparseVector, selection: Selection, limit: int) -> list[Hit]:
        """The chunks that share words with *vector*, best first."""

    def structure(self, vector: Floats, selection: Selection, limit: int) -> list[Hit]:
        """The files nearest to *vector* (64,), nearest first."""

    def graph(self, dataset: DatasetKey, generation: int) -> StoredGraph | None:
        """The file graph of *generation*; None where none was stored.

        StoreError while it is being taken away.
        """

    def file_vector(self, dataset: DatasetKey, generation: int, path: str) -> Floats | None:
        """The structural vector (64,) of a file; None where it has none or is unknown."""


@runtime_checkable
class VectorStore(VectorReader, Protocol):
    """Everything that the pipeline and search ask of a store.

    A write has reached the store's log when its method returns. Every method raises StoreClosed, the embedded
    store StoreFull and StoreError for what its engine reports, the server's StoreUnavailable.
    """

    def open(self) -> None:
        """Open or create. Raises StoreLocked, DimensionMismatch or StoreUnavailable."""

    def close(self) -> None:
        """Flush and close; closing twice is harmless."""

    def flush(self) -> None:
        """Make acknowledged writes survive a power loss, not only kill -9. Call before publishing."""

    def optimize(self) -> bool:
        """Reclaim the space of deleted points and index large stores; whether anything changed.

        Takes seconds to minutes; reads and writes go on. For now and then: it says by itself when it pays.
        """

    def discard_unpublished(self, dataset: DatasetKey, live: int) -> None:
        """Undo what an unfinished run left: points born after *live* go, points retired after it live on.

        *live* is 0 for a dataset that was never published. Idempotent; call it before every run.
        """

    def live_ids(
        self, dataset: DatasetKey, generation: int, kind: Kind, *, path: str | None = None
    ) -> set[str]:
        """The points of *generation*; with *path*, of that file or document alone."""

    def iterate_ids(
        self, dataset: DatasetKey, generation: int, kind: Kind, *, without_text: bool = False
    ) -> Iterator[str]:
        """The points of *generation*, page by page; *without_text*: those that cannot be found by meaning
        yet. None of them may be written to meanwhile.
        """

    def payloads(self, dataset: DatasetKey, ids: Iterable[str]) -> list[Payload]:
        """What those points say about themselves, in any order. Ids of other datasets are ignored."""

    def text_vectors(self, names: Iterable[str]) -> dict[str, Floats]:
        """Of the points, of whatever dataset, whose ``vector`` is one of *names*: their dense vectors (D,).

        A name that no point has, or none that has its vector yet, is left out.
        """

    def points(self, dataset: DatasetKey, generation: int, kind: Kind) -> Iterator[list[Point]]:
        """The points of *generation* with their vectors, in the order of their ids, a page at a time."""

    def ids_without_text(self, dataset: DatasetKey, generation: int) -> set[str]:
        """The chunks of *generation* that cannot be found by meaning yet."""

    def upsert(self, points: Iterable[Point]) -> int:
        """Store points, in batches; how many were given.

        A living point of the same id stays as it is, vectors included: so a repeat is harmless, and no run
        can take a point away from the readers of the live generation. A retired one is replaced.
        """

    def copy(self, points: Iterable[Point]) -> int:
        """As `upsert`, of points of another store: their dense vectors may have any length.

        StoreError where the store has vectors of too many lengths by then.
        """

    def add_text_vectors(self, ids: Sequence[str], vectors: Floats) -> None:
        """Give existing points their dense vector, (N, D) in the order of *ids*. Raises PointsMissing."""

    def retire(self, dataset: DatasetKey, ids: Iterable[str], generation: int) -> None:
        """From *generation* on these points are not visible. Ids of other datasets are ignored."""

    def discard(self, dataset: DatasetKey, generation: int) -> None:
        """Undo *generation*, which was never published and never will be: see `discard_unpublished`."""

    def collect(self, dataset: DatasetKey, oldest_kept: int) -> int:
        """Delete the points that no generation from *oldest_kept* on can see; how many there were."""

    def drop(self, dataset: DatasetKey, generation: int, *, most: int, forget: Forget) -> Dropped:
        """Delete what came with *generation* or an earlier one, whether it was retired or not.

        About *most* points at once: it is called until nothing is left. *forget* hears of chunks and files
        before they go, so that a crash in between leaves them to the next call.
        """

    def size(self, dataset: DatasetKey) -> int:
        """How many points there are, of whatever generation and kind."""

    def facts(self) -> StoreFacts: ...

    def datasets(self) -> set[DatasetKey]:
        """The datasets that have points, of whatever generation and kind."""

    def generations(self, dataset: DatasetKey) -> dict[int, int]:
        """How many points came with each generation, retired or not."""

    def writers(self, dataset: DatasetKey, generation: int) -> set[str]:
        """The jobs that wrote the points which came with *generation*."""

    def of_repository(self, repository: str) -> set[DatasetKey]:
        """The datasets that have points of *repository*, of whatever generation."""

    def count(self, dataset: DatasetKey, generation: int, kind: Kind) -> int: ...

    def put_lexicon(
        self, dataset: DatasetKey, generation: int, lexicon: Lexicon, *, job: str = "", attempt: int = 0
    ) -> None:
        """Store the dataset's word frequencies for *generation* and retire those of the ones before."""

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
        """Store that the word frequencies of *generation* are those of generation *on*, changed.

        *on* is 0 where there are none yet. It costs about what the change costs, not what they do. Beyond
        LEXICON_TERMS_MAX the rarest terms are forgotten now and then. StoreError where those of *on* are
        being taken away.
        """

    def put_graph(
        self,
        dataset: DatasetKey,
        generation: int,
        graph: StoredGraph | None,
        *,
        job: str = "",
        attempt: int = 0,
    ) -> None:
        """Store the dataset's file graph for *generation* and retire those of the ones before.

        None stores that it is left out. Raises GraphTooLarge, and has then stored that as well.
        """

    def left_by(self, job: str, attempts: int) -> dict[DatasetKey, frozenset[int]]:
        """Where points are that the first *attempts* attempts at *job* wrote: the generations by dataset."""

    def undo(self, dataset: DatasetKey, job: str, attempts: int, live: int) -> int:
        """Delete what those attempts wrote above generation *live*, and let live on what they retired.

        *live* is 0 where nothing is. How many points there were. Repeatable; points of others stay.
        """

    def contents(self) -> list[Generation]:
        """Every generation of every dataset that came with points which are still there."""

    def inspect(self, dataset: DatasetKey, generation: int) -> InspectedDataset:
        """What there is of *dataset*, and what readers of *generation* see; lexicon and graph are read."""

    def guarded(self, check: Check) -> "VectorStore":
        """This store, with *check* called before each of the small steps that its methods consist of.

        What *check* raises ends the method there: so a run that must stop writes no more.
        """


def point_id(
    dataset: DatasetKey,
    *,
    kind: Kind,
    path: str,
    start_line: int,
    end_line: int,
    content_hash: str,
    chunker_version: str,
    encoder_version: str,
) -> str:
    """The id of a point, the same for the same content at the same place.

    Everything that may change in a point must be in *content_hash*, since a living point is never
    overwritten: for a chunk its text and symbol, for a file also the structural vector, which moves with
    every training.
    """
    facts = (
        dataset.joined(), kind, path, str(start_line), str(end_line),
        content_hash, chunker_version, encoder_version,
    )  # fmt: skip
    return str(UUID(bytes=packed_point_id("\x00".join(facts))))


def packed_point_id(facts: str) -> bytes:
    """The 16 bytes of `point_id`, of its arguments joined by NUL: ``uuid5``, without an object for each."""
    digest = bytearray(sha1(_NAMESPACE.bytes + facts.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def directories(path: str) -> list[str]:
    """The parents of *path*, outermost first: `a` and `a/b` for `a/b/c.py`."""
    names = path.split("/")[:-1][:DIRECTORY_DEPTH_MAX]
    return ["/".join(names[: depth + 1]) for depth in range(len(names))]


_PLAIN: Final = tuple(
    name for name in Payload.__struct_fields__ if name not in ("dataset", "generation", "until", "document")
)


def to_stored(payload: Payload) -> dict[str, object]:
    """The payload as the engines keep it: flat, with `from` and `until` for the range filters.

    What is empty is left out: each field costs three microseconds in the embedded engine, with the
    interpreter held, which is most of what a point costs.
    """
    stored: dict[str, object] = {
        "key": payload.dataset.joined(),
        "from": payload.generation,
        "until": payload.until,
    }
    for name in _PLAIN:
        if (value := getattr(payload, name)) not in ("", ()):
            stored[name] = value
    if payload.document is not None:
        stored["document"] = msgspec.to_builtins(payload.document)
    if folders := directories(payload.path):
        stored["directories"] = folders
    return stored


def from_stored(stored: dict[str, object]) -> Payload:
    """The inverse of `to_stored`; fields that a later release added are ignored."""
    dataset = DatasetKey.of(str(stored["key"]))
    return msgspec.convert(
        stored | {"dataset": msgspec.to_builtins(dataset), "generation": stored["from"]}, Payload
    )


# Filters, in the few forms that all engines share. Each adapter translates them in one function; the tags are
# for the one that hands them on.


class Match(msgspec.Struct, frozen=True, tag=True):
    """The field has one of the values."""

    field: str
    values: tuple[str, ...]


class Range(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The integer field is above, at most, or both."""

    field: str
    above: int | None = None
    at_most: int | None = None


class Ids(msgspec.Struct, frozen=True, tag=True):
    """The point is one of these."""

    ids: tuple[str, ...]


class Lacks(msgspec.Struct, frozen=True, tag=True):
    """The point has no vector of that name."""

    vector: VectorName


class AllOf(msgspec.Struct, frozen=True, tag=True):
    conditions: tuple["Condition", ...]


class AnyOf(msgspec.Struct, frozen=True, tag=True):
    conditions: tuple["Condition", ...]


Condition = Match | Range | Ids | Lacks | AllOf | AnyOf


def generation_after(follows: int) -> int:
    """The number of a generation that is begun now, above *follows*.

    The clock in milliseconds: of one dataset two are never begun in the same one, since whoever begins has it
    to itself. So a number is never used again for other content, also after an index was withdrawn.
    """
    return max(follows + 1, time.time_ns() // 1_000_000)


def of_dataset(dataset: DatasetKey) -> Match:
    return Match("key", (dataset.joined(),))


def visible(dataset: DatasetKey, generation: int) -> AllOf:
    """The points of *dataset* that readers of *generation* see."""
    return AllOf(
        (
            of_dataset(dataset),
            Range(field="from", at_most=generation),
            Range(field="until", above=generation),
        )
    )


def selected(selection: Selection, kind: Kind) -> AllOf:
    """The condition of a query. The selection must name a dataset: an empty `AnyOf` would not narrow."""
    assert selection.datasets, "a query without datasets has no condition"
    filters = selection.filters
    conditions: list[Condition] = [
        Match("kind", (kind,)),
        AnyOf(tuple(visible(searched.dataset, searched.generation) for searched in selection.datasets)),
    ]
    for field, values in (
        ("language", filters.languages),
        ("repository", filters.repositories),
        ("symbol_kind", filters.symbol_kinds),
    ):
        if values:
            conditions.append(Match(field, values))
    prefix = filters.path_prefix.removeprefix("./").strip("/")
    if prefix:
        conditions.append(AnyOf((Match("directories", (prefix,)), Match("path", (prefix,)))))
    return AllOf(tuple(conditions))
