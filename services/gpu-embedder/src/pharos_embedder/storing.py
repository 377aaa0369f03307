"""A repository's index beside the live one, but for its dense vectors: what is new is written, what is gone
is retired.

All of it goes by windows of the spool: neither texts nor words of all chunks are ever in memory at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from pharos_contracts.jobs.v1 import Notice, Stage
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.encodables import Ids, SpooledChunks, packed_ids, unpacked_ids
from pharos_embedder.linking import FileGraph
from pharos_embedder.points import FileToStore, Origin, chunk_ids, chunk_points, file_points
from pharos_embedder.ports import Check, Report
from pharos_embedder.spool import Spool
from pharos_embedder.stored_graph import GraphTooLarge, StoredGraph, symbols_of
from pharos_embedder.vectors import Floats, Kind, VectorStore

log = structlog.get_logger()

STORE_WINDOW: Final = 512  # chunks in memory at once, with their words
_COUNTED_MAX: Final = 4_000_000  # words of windows between two sums: 32 MB

T = TypeVar("T")


class Stored(NamedTuple):
    """The chunks of the new generation, and what of the rest could not be stored whole."""

    chunks: SpooledChunks
    notices: tuple[Notice, ...]


def store_stage(
    spool: Spool,
    graph: FileGraph,
    structure: Floats,
    live: int,
    origin: Origin,
    store: VectorStore,
    report: Report,
    check: Check,
) -> Stored:
    """Write everything but the dense vectors, beside generation *live*."""
    store = store.guarded(check)
    store.discard_unpublished(origin.dataset, live)
    chunks = SpooledChunks(spool, _ids(spool, origin, check))
    lexicon = lexicon_of(spool, chunks, check)
    alive, gone = _compared(chunks, live, origin, store)
    _store_chunks(spool, chunks, ~alive, origin, store, report)
    gone_files = _store_files(spool, graph, structure, live, origin, store)
    # Before anything is retired: who retired it is told by the lexicon, where there is no other new point.
    store.put_lexicon(origin.dataset, origin.generation, lexicon, job=origin.job, attempt=origin.attempt)
    notices = _store_graph(spool, graph, structure, origin, store)
    for ids in (gone, gone_files):
        store.retire(origin.dataset, _unpacked(ids), origin.generation)
    store.flush()
    return Stored(chunks, notices)


def store_words(spool: Spool, origin: Origin, store: VectorStore, check: Check) -> SpooledChunks:
    """Write what a search by words asks for beside chunks, which `StoringAhead` has stored; the chunks."""
    store = store.guarded(check)
    chunks = SpooledChunks(spool, _ids(spool, origin, check))
    lexicon = lexicon_of(spool, chunks, check)
    store.put_lexicon(origin.dataset, origin.generation, lexicon, job=origin.job, attempt=origin.attempt)
    store.flush()
    return chunks


def store_structure(
    spool: Spool, graph: FileGraph, structure: Floats, origin: Origin, store: VectorStore, check: Check
) -> tuple[Notice, ...]:
    """Write what a first index has beside `store_words`, but for the dense vectors; as ``Stored.notices``."""
    store = store.guarded(check)
    _store_files(spool, graph, structure, 0, origin, store)
    notices = _store_graph(spool, graph, structure, origin, store)
    store.flush()
    return notices


def _ids(spool: Spool, origin: Origin, check: Check) -> Ids:
    """(C,) the ids of all chunks."""
    packed = bytearray()
    for start in range(0, len(spool.heads), STORE_WINDOW):
        check()
        heads = spool.heads[start : start + STORE_WINDOW]
        files = spool.files_of_chunks[start : start + STORE_WINDOW].tolist()
        columns = (heads[name].tolist() for name in ("ordinal", "start_line", "end_line"))
        identities = (each.hex() for each in heads["identity"].tolist())
        places = zip((spool.paths[file] for file in files), *columns, identities, strict=True)
        packed += b"".join(chunk_ids(places, origin))
    return np.frombuffer(bytes(packed), dtype="S16")


def lexicon_of(spool: Spool, chunks: SpooledChunks, check: Check) -> Lexicon:
    """In how many of *chunks* each word is."""
    is_counted = np.zeros(len(spool.heads), dtype=np.bool_)
    is_counted[chunks.places] = True
    terms, counts = np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int64)
    waiting: list[NDArray[np.uint32]] = []
    held = 0
    for files in spool.windows(STORE_WINDOW):
        check()
        words = spool.terms_of(files)
        wanted = is_counted[spool.first_chunks[files.start] : spool.first_chunks[files.stop]]
        kept = np.repeat(wanted, np.diff(words.rows))
        waiting.append(words.terms[kept])
        held += len(waiting[-1])
        if held > _COUNTED_MAX:
            terms, counts = _summed(terms, counts, waiting)
            waiting, held = [], 0
    terms, counts = _summed(terms, counts, waiting)
    return Lexicon.from_columns(len(chunks), array("I", terms.tolist()), array("I", counts.tolist()))


def _summed(
    terms: NDArray[np.uint32], counts: NDArray[np.int64], more: list[NDArray[np.uint32]]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """(M,) terms, ascending, and (M,) how often each is in *more*, a chunk's words once, or was before."""
    if not more:
        return terms, counts
    new, times = np.unique(np.concatenate(more), return_counts=True)
    known, inverse = np.unique(np.concatenate([terms, new]), return_inverse=True)
    summed = np.bincount(inverse, weights=np.concatenate([counts, times]), minlength=len(known))
    return known, summed.astype(np.int64)


def _compared(
    chunks: SpooledChunks, live: int, origin: Origin, store: VectorStore
) -> tuple[NDArray[np.bool_], Ids]:
    """(N,) which of *chunks* are in generation *live* already; and the ids of what else is there."""
    alive = np.zeros(len(chunks), dtype=np.bool_)
    gone = bytearray()
    for page in _pages(store, live, origin, "chunk"):
        is_here, places = chunks.find(page)
        alive[places] = True
        gone += page[~is_here].tobytes()
    return alive, np.frombuffer(bytes(gone), dtype="S16")


def _pages(store: VectorStore, live: int, origin: Origin, kind: Kind) -> Iterator[Ids]:
    if live:
        found = store.iterate_ids(origin.dataset, live, kind)
        while page := list(islice(found, STORE_WINDOW)):
            yield packed_ids(page)


def _store_chunks(
    spool: Spool,
    chunks: SpooledChunks,
    is_new: NDArray[np.bool_],
    origin: Origin,
    store: VectorStore,
    report: Report,
) -> None:
    places = np.full(len(spool.heads), -1, dtype=np.int64)  # of what is new, in *chunks*
    places[chunks.places[is_new]] = np.flatnonzero(is_new)
    done, total = 0, int(is_new.sum())
    report(Stage.STORE, 0, total)
    for files in spool.windows(STORE_WINDOW):
        first = int(spool.first_chunks[files.start])
        wanted = np.flatnonzero(places[first : spool.first_chunks[files.stop]] >= 0)
        if not len(wanted):
            continue
        words = spool.terms_of(files)
        for start in range(0, len(wanted), STORE_WINDOW):
            window = wanted[start : start + STORE_WINDOW]
            store.upsert(
                chunk_points(
                    zip(
                        chunks.ids_of(places[first + window]),
                        spool.read_chunks((first + window).tolist()),
                        words.vectors(window.tolist()),
                        strict=True,
                    ),
                    origin,
                )
            )
            done += len(window)
            report(Stage.STORE, done, total)


def _store_files(
    spool: Spool, graph: FileGraph, structure: Floats, live: int, origin: Origin, store: VectorStore
) -> Ids:
    """Write the points of files that are new; the ids of those that are gone."""
    alive: dict[bytes, bool] = {}  # whether it is there now, too
    for page in _pages(store, live, origin, "file"):
        alive |= dict.fromkeys(_bytes(page), False)
    files = (
        FileToStore(path=path, language=language, lines=lines, content_hash=content_hash)
        for path, language, lines, content_hash in zip(
            spool.paths, spool.languages, spool.lines.tolist(), spool.content_hashes, strict=True
        )
    )
    points = file_points(files, graph, structure, origin)
    while window := list(islice(points, STORE_WINDOW)):
        keys = _bytes(packed_ids(point.id for point in window))
        store.upsert(point for point, key in zip(window, keys, strict=True) if key not in alive)
        alive |= {key: True for key in keys if key in alive}
    gone = b"".join(key for key, is_there in alive.items() if not is_there)
    return np.frombuffer(gone, dtype="S16")


def _bytes(ids: Ids) -> list[bytes]:
    data = ids.tobytes()
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def _unpacked(ids: Ids) -> Iterator[str]:
    for start in range(0, len(ids), STORE_WINDOW):
        yield from unpacked_ids(ids[start : start + STORE_WINDOW])


def _store_graph(
    spool: Spool, graph: FileGraph, structure: Floats, origin: Origin, store: VectorStore
) -> tuple[Notice, ...]:
    """Store the graph for whoever asks of the structure; what is left out of it is told."""
    kept = StoredGraph.of(
        graph,
        structure,
        languages=spool.languages,
        lines=spool.lines,
        symbols=(symbols_of(spool.facts(number)) for number in range(len(spool.paths))),
    )
    told = []
    if kept.edges_dropped:
        told.append(
            f"Of the graph the {len(kept.sources):,} strongest edges are kept: {kept.edges_dropped:,} are not"
        )
    if kept.symbols_dropped:
        told.append(
            f"The graph leaves out {kept.symbols_dropped:,} symbols of the files that define the most: what "
            "is related to one of them is found by the path of its file"
        )
    try:
        store.put_graph(origin.dataset, origin.generation, kept, job=origin.job, attempt=origin.attempt)
    except GraphTooLarge as error:
        told = [f"{error}: this index has no graph, map or related files; searches are as ever"]
        log.warning("graph_not_stored", dataset=origin.dataset.dataset, reason=str(error))
    return tuple(Notice(message=each) for each in told)
