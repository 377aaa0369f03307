"""Every chunk gets its text vector, a window of chunks at a time.

While the encoder has one window, the next is looked up and the one before is written, in a thread beside it:
nearly all of the time is the encoder's, and it waits for neither disk nor store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pharos_contracts.jobs.v1 import Stage
from pharos_embedder.bounded_cache import label_of
from pharos_embedder.costing import Candidate, costed
from pharos_embedder.encodables import Encodables, Places
from pharos_embedder.encoders import Priority, TextEncoder
from pharos_embedder.path_vectors import PathVectors, placed
from pharos_embedder.points import Origin, key_of, placed_key
from pharos_embedder.ports import Check, Report
from pharos_embedder.shared_vectors import known_vectors, shared_vectors
from pharos_embedder.vector_cache import VectorCache, as_stored
from pharos_embedder.vectors import Floats, VectorStore

ENCODE_WINDOW: Final = 512  # chunks between two checkpoints, where no encoder says how many


class EncodingTools(Protocol):
    """What encoding needs of the tools of whoever works."""

    @property
    def store(self) -> VectorStore: ...

    @property
    def encoder(self) -> TextEncoder: ...

    @property
    def cache(self) -> VectorCache: ...


def encode_stage(
    chunks: Encodables,
    origin: Origin,
    tools: EncodingTools,
    batch_tokens: int,
    report: Report,
    midway: Check,
    check: Check,
    priority: Priority = Priority.REPOSITORY,
    *,
    by_path: bool = False,
) -> tuple[int, int]:
    """Give every chunk its dense vector; how many were encoded, and how many were known by their content.

    *by_path*: the path is a part of what is stored, though not of what is known by content.
    However it ends, the vectors of the batches that were finished are in the cache.
    """
    store = tools.store.guarded(check)
    encode = partial(tools.encoder.encode_documents, priority=priority, check=check, midway=midway)
    paths = PathVectors(partial(encode, token_budget=batch_tokens), tools.cache, origin)
    is_waiting = _without_text(chunks, origin, store)
    # Long ones together: a batch is padded to its longest. Windows are of all chunks, known or not, so that a
    # run that goes on after a crash makes the same batches, and so the same bits, as one without.
    ordered = chunks.longest_first()
    total, done, encoded = len(chunks), len(chunks) - int(is_waiting.sum()), 0
    if tools.encoder.tariff is not None:
        report = costed(
            _candidates(chunks, ordered[is_waiting[ordered]], origin, by_path=by_path),
            total,
            tools.encoder.tariff,
            tools.cache,
            store,
            report,
            check,
            paths,
        )
    report(Stage.ENCODE, done, total)
    windows = _Windows(chunks, origin, tools.cache, store, paths if by_path else None, check)
    budget = _Budget(batch_tokens)
    last: dict[bytes, Floats] = {}
    written: Future[None] | None = None
    with ThreadPoolExecutor(1, "windows") as beside:
        context = copy_context()  # of which the log knows the job

        def look_up(places: Places) -> Future[_Window]:
            return beside.submit(context.run, windows.look_up, places)

        for window in _one_ahead(look_up, _waiting(ordered, is_waiting, tools.encoder.window_texts)):
            check()
            # What is on both sides of a border was not known yet when the second side was looked up.
            new = {key: text for key, text in window.new.items() if key not in last}
            made: dict[bytes, Floats] = {}
            base = done + len(window.places) - len(new)
            try:
                if new:
                    encode(
                        list(new.values()),
                        token_budget=budget.tokens,
                        on_progress=partial(_report_encoded, report, base, total, window.path),
                        on_batch=partial(_gather, made, list(new)),
                        on_budget=budget.shrink,
                    )
            except BaseException:
                windows.keep(made)
                raise
            earlier, written = written, beside.submit(context.run, windows.write, window, made, last)
            if earlier is not None:
                earlier.result()
            last = made
            encoded += len(new)
            done += len(window.places)
            report(Stage.ENCODE, done, total)
        if written is not None:
            written.result()
    return encoded, total - encoded


class _Window(NamedTuple):
    """Chunks that are encoded together, as far as they are not known: N of them."""

    places: Places  # (N,)
    keys: list[bytes]  # N, of what they say
    known: dict[bytes, Floats]  # (D,) by key
    ready: dict[int, Floats]  # (D,) by place, of those that are stored under the same path
    new: dict[bytes, str]  # the texts of all others, by key
    path: str  # of the first


class _Windows:
    """Looks up and writes the windows of one run. The thread beside the encoder's is in here."""

    def __init__(
        self,
        chunks: Encodables,
        origin: Origin,
        cache: VectorCache,
        store: VectorStore,
        paths: PathVectors | None,
        check: Check,
    ) -> None:
        self._chunks = chunks
        self._origin = origin
        self._cache = cache
        self._store = store
        self._paths = paths
        self._check = check
        self._label = label_of(origin.job, origin.dataset.tenant)

    def look_up(self, places: Places) -> _Window:
        self._check()
        chunks, ready = self._chunks, dict[int, Floats]()
        keys = [key_of(each, self._origin) for each in chunks.content_hashes(places)]
        if self._paths is None:
            known = known_vectors(keys, self._cache, self._store, job=self._label)
        else:
            known = self._cache.get_many(keys)
            unknown = np.array([key not in known for key in keys], dtype=np.bool_)
            ready = _placed_before(chunks, places[unknown], self._origin, self._store)
        new = {
            key: place
            for key, place in zip(keys, places.tolist(), strict=True)
            if key not in known and place not in ready
        }
        texts = chunks.texts(np.array(list(new.values()), dtype=np.int64))
        return _Window(
            places, keys, known, ready, dict(zip(new, texts, strict=True)), chunks.path_of(places[0])
        )

    def write(self, window: _Window, made: dict[bytes, Floats], last: dict[bytes, Floats]) -> None:
        """Store the vectors of *window*: *made* are those of it, *last* those of the window before."""
        self.keep(made)
        known = window.known | last | made
        ready = dict(window.ready)
        here = [
            each for each in zip(window.keys, window.places.tolist(), strict=True) if each[1] not in ready
        ]
        if here:
            vectors = np.stack([known[key] for key, _ in here])
            if self._paths is not None:
                vectors = placed(vectors, self._paths.of([self._chunks.path_of(place) for _, place in here]))
            ready |= {place: vector for (_, place), vector in zip(here, vectors, strict=True)}
        self._store.add_text_vectors(
            self._chunks.ids_of(window.places), np.stack([ready[place] for place in window.places.tolist()])
        )

    def keep(self, made: dict[bytes, Floats]) -> None:
        """Put what was encoded where the next attempt finds it."""
        self._cache.put_many(made, job=self._label)


def _waiting(ordered: Places, is_waiting: NDArray[np.bool_], at_once: int) -> Iterator[Places]:
    """*ordered* in windows of *at_once*; of each those that wait, if there are any."""
    for start in range(0, len(ordered), at_once):
        window = ordered[start : start + at_once]
        window = window[is_waiting[window]]
        if len(window):
            yield window


def _one_ahead(look_up: Callable[[Places], Future[_Window]], windows: Iterable[Places]) -> Iterator[_Window]:
    """Each of *windows*, looked up while whoever asks works on the one before."""
    coming: Future[_Window] | None = None
    for places in windows:
        current, coming = coming, look_up(places)
        if current is not None:
            yield current.result()
    if coming is not None:
        yield coming.result()


def _placed_before(
    chunks: Encodables, places: NDArray[np.int64], origin: Origin, store: VectorStore
) -> dict[int, Floats]:
    """The vectors of those of the chunks at *places* that *store* has under the same path, by place."""
    keys = {
        place: placed_key(content_hash, chunks.path_of(place), origin)
        for place, content_hash in zip(places.tolist(), chunks.content_hashes(places), strict=True)
    }
    found = shared_vectors(list(keys.values()), store)
    return {place: found[key] for place, key in keys.items() if key in found}


def _without_text(chunks: Encodables, origin: Origin, store: VectorStore) -> NDArray[np.bool_]:
    """(N,) which of *chunks* have no dense vector yet."""
    waiting = np.zeros(len(chunks), dtype=np.bool_)
    found = store.iterate_ids(origin.dataset, origin.generation, "chunk", without_text=True)
    while page := list(islice(found, ENCODE_WINDOW)):
        waiting[chunks.places_of(page)] = True
    return waiting


def _candidates(
    chunks: Encodables, places: NDArray[np.int64], origin: Origin, *, by_path: bool
) -> Iterator[Candidate]:
    """The chunks at *places*; a few are in memory at a time."""
    for start in range(0, len(places), ENCODE_WINDOW):
        window = places[start : start + ENCODE_WINDOW]
        hashes, texts = chunks.content_hashes(window), chunks.texts(window)
        for place, content_hash, text in zip(window.tolist(), hashes, texts, strict=True):
            key, path = key_of(content_hash, origin), chunks.path_of(place) if by_path else ""
            yield Candidate(key, placed_key(content_hash, path, origin) if by_path else key, text, path)


class _Budget:
    """Padded tokens of a batch, for one run: once the memory did not suffice, it stays smaller."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def shrink(self, tokens: int) -> None:
        self.tokens = tokens


def _gather(made: dict[bytes, Floats], keys: Sequence[bytes], places: Sequence[int], vectors: Floats) -> None:
    for place, vector in zip(places, as_stored(vectors), strict=True):
        made[keys[place]] = vector


def _report_encoded(report: Report, base: int, total: int, path: str, done: int, _window: int) -> None:
    report(Stage.ENCODE, base + done, total, current_file=path)
