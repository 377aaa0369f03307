"""Files of a batch into their dataset: each is made ready by itself, and several are written at once.

A file that is ready is in memory and in the cache of vectors, and nowhere else. Writing takes all that are
ready: a generation costs a lock, a flush and a publishing, however many files are in it. All of this blocks
and runs in a thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pharos_contracts.jobs.v1 import Job, Stage
from pharos_embedder.bm25 import LexiconChange, document_vector
from pharos_embedder.costing import Candidate, costed
from pharos_embedder.document_points import Passage, key_of, terms_of
from pharos_embedder.encoders import Priority, TextEncoder
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check, Report
from pharos_embedder.shared_vectors import known_vectors
from pharos_embedder.stages import IndexIncomplete, Live, StageTimedOut
from pharos_embedder.text_vectors import ENCODE_WINDOW
from pharos_embedder.vector_cache import VectorCache, as_stored
from pharos_embedder.vectors import DatasetKey, DocumentFacts, Floats, Point, VectorStore

Halves = NDArray[np.float16]
"""Vectors at the precision of the cache, at which nothing is lost of what it holds: see ``as_stored``."""


class FileTimedOut(StageTimedOut):
    """A file took longer than its batch gives one."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(stage, seconds)
        self.args = (
            f"The file took longer than the {seconds:g} seconds that its batch gives one; it was at the "
            f"stage {stage.value!r}",
        )


class ReadyFile(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A file of a batch that can be written. ``vectors`` is (N, D), in the order of its ``passages``."""

    job: Job
    attempt: int
    dataset: DatasetKey
    identity: str
    passages: tuple[Passage, ...]
    vectors: Halves


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What the dataset has with them. ``files`` and ``chunks`` are all of it; ``changed``: any of it is new.

    ``replaced`` are the identities of those that were there before.
    """

    generation: int
    built_on: int
    files: int
    chunks: int
    replaced: frozenset[str]
    changed: bool


def made_by(chunker: str, encoder: str) -> str:
    """What else than its content decides what is stored of a file."""
    return f"{chunker} {encoder}"


def live_facts(dataset: DatasetKey, live: Live, identity: str, store: VectorStore) -> DocumentFacts | None:
    """What readers of the live generation see of the document *identity*; None where that is nothing."""
    if not live.generation:
        return None
    ids = store.live_ids(dataset, live.generation, "chunk", path=identity)
    found = store.payloads(dataset, [min(ids)]) if ids else []
    return found[0].document if found else None


def encode_passages(
    passages: Sequence[Passage],
    origin: Origin,
    encoder: TextEncoder,
    cache: VectorCache,
    store: VectorStore,
    *,
    label: str,
    token_budget: int,
    report: Report,
    check: Check,
    midway: Check,
) -> tuple[Halves, int]:
    """(N, D) vectors of *passages*, and how many of them were not known by their content.

    However it ends, the vectors of the batches that were finished are in the cache, for *label*.
    """
    keys = [key_of(passage.content_hash, origin) for passage in passages]
    vectors = np.zeros((len(passages), encoder.dimensions), dtype=np.float16)
    encoded = 0
    if encoder.tariff is not None:
        candidates = (
            Candidate(key, key, passage.encoded_text) for key, passage in zip(keys, passages, strict=True)
        )
        report = costed(candidates, len(passages), encoder.tariff, cache, store, report, check)
    report(Stage.ENCODE, 0, len(passages))
    for start in range(0, len(passages), ENCODE_WINDOW):
        check()
        window = range(start, min(start + ENCODE_WINDOW, len(passages)))
        known = known_vectors([keys[each] for each in window], cache, store, job=label)
        new = {keys[each]: passages[each].encoded_text for each in window if keys[each] not in known}
        if new:
            made: dict[bytes, Floats] = {}
            try:
                encoder.encode_documents(
                    list(new.values()),
                    priority=Priority.NOTE,
                    token_budget=token_budget,
                    on_progress=_reporting(report, start, len(passages)),
                    on_batch=_gathering(made, list(new)),
                    check=check,
                    midway=midway,
                )
            finally:
                cache.put_many(made, job=label)
            known = {**known, **made}
            encoded += len(new)
        vectors[window.start : window.stop] = [known[keys[each]] for each in window]
        report(Stage.ENCODE, window.stop, len(passages))
    return vectors, encoded


def _reporting(report: Report, base: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _window: report(Stage.ENCODE, base + done, total)


def _gathering(made: dict[bytes, Floats], keys: Sequence[bytes]) -> Callable[[Sequence[int], Floats], None]:
    def gather(places: Sequence[int], vectors: Floats) -> None:
        for place, vector in zip(places, as_stored(vectors), strict=True):
            made[keys[place]] = vector

    return gather


def write_files(
    files: Sequence[ReadyFile], live: Live, origin: Origin, store: VectorStore, check: Check
) -> Written:
    """Write *files* beside the live generation of their dataset, whole. Nobody else writes to it meanwhile.

    Of those with one identity the last counts. Raises IndexIncomplete where somebody else did write.
    """
    store, dataset = store.guarded(check), origin.dataset
    store.discard_unpublished(dataset, live.generation)
    added: dict[str, tuple[ReadyFile, int]] = {}  # by id: a passage of which file, and which of its passages
    gone: set[str] = set()
    replaced: set[str] = set()
    latest = {file.identity: file for file in files}
    for identity, file in latest.items():
        alive: set[str] = set()
        if live.generation:
            alive = store.live_ids(dataset, live.generation, "chunk", path=identity)
        wanted = {passage.id: place for place, passage in enumerate(file.passages)}
        gone |= alive - wanted.keys()
        added |= {key: (file, place) for key, place in wanted.items() if key not in alive}
        if alive:
            replaced.add(identity)
    chunks = store.count(dataset, live.generation, "chunk") if live.generation else 0
    written = Written(
        generation=origin.generation if added or gone else live.generation,
        built_on=live.follows,
        files=live.files + len(latest) - len(replaced),
        chunks=chunks + len(added) - len(gone),
        replaced=frozenset(replaced),
        changed=bool(added or gone),
    )
    if not written.changed:
        return written
    terms = {}
    for key, (file, place) in added.items():
        check()
        terms[key] = terms_of(file.passages[place].payload)
    change = LexiconChange.of(
        added=terms.values(),
        removed=[terms_of(payload) for payload in store.payloads(dataset, sorted(gone))],
    )
    store.upsert(_points(added, terms, origin))
    # Before anything is retired: who retired it is told by the lexicon, where there is no other new point.
    store.change_lexicon(
        dataset,
        origin.generation,
        change,
        on=live.generation,
        job=origin.job,
        attempt=origin.attempt,
    )
    store.retire(dataset, gone, origin.generation)
    store.flush()
    _check_whole(latest, written, origin, store)
    return written


def _points(
    added: Mapping[str, tuple[ReadyFile, int]],
    terms: Mapping[str, Counter[int]],
    origin: Origin,
) -> Iterator[Point]:
    """A point for each, with all of its vectors."""
    for key, (file, place) in added.items():
        yield Point(
            id=key,
            payload=msgspec.structs.replace(file.passages[place].payload, generation=origin.generation),
            code_bm25=document_vector(terms[key]),
            text_vector=file.vectors[place].astype(np.float32),
        )


def _check_whole(
    latest: Mapping[str, ReadyFile], written: Written, origin: Origin, store: VectorStore
) -> None:
    generation = written.generation
    for identity, file in latest.items():
        wanted = {passage.id for passage in file.passages}
        if store.live_ids(origin.dataset, generation, "chunk", path=identity) != wanted:
            raise IndexIncomplete(origin.dataset.dataset)
    if store.count(origin.dataset, generation, "chunk") != written.chunks:
        raise IndexIncomplete(origin.dataset.dataset)
