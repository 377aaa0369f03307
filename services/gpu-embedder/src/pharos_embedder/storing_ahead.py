"""Chunks of a dataset's first index, stored while other files of it are still parsed.

A chunk's point depends on its file alone; only those of files depend on how all are linked. Parsing has the
processors of the parse workers, storing that of this process, so each takes the time that the other leaves.
For a first index alone: nothing is live there, so every chunk is new.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final, Self

import numpy as np

from pharos_embedder.bm25 import SparseVector
from pharos_embedder.encodables import unpacked_ids
from pharos_embedder.packed_files import HEAD, PackedFile
from pharos_embedder.points import Origin, chunk_ids, chunk_points
from pharos_embedder.ports import Check, Stopped
from pharos_embedder.spool import HEADS, Terms
from pharos_embedder.syntax import Chunk
from pharos_embedder.vectors import VectorStore

WINDOW_CHUNKS: Final = 512  # that are handed over at once
WINDOW_FILES: Final = 256
WINDOWS_WAITING_MAX: Final = 4  # then who parses waits: some 2 MB each
_TICK_SECONDS: Final = 0.5

_Window = list[PackedFile]


class StoringAhead:
    """A thread that stores the chunks of the files that are given to `add`. A context manager.

    It ends with the block, where all of them are stored, or the block or the store has failed; then what was
    stored is for whoever discards what an unfinished run left. What *check* raises ends it too. So do more
    chunks than *chunks_max*: some of their files will be left out, and only then is known which. Whoever
    waits for the store does so within *waiting*.
    """

    def __init__(
        self,
        origin: Origin,
        store: VectorStore,
        check: Check,
        *,
        chunks_max: int,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._origin = origin
        self._chunks_left = chunks_max
        self._given_up = threading.Event()
        self._check = check
        self._waits = waiting
        self._store = store.guarded(self._checked)
        self._window: _Window = []
        self._chunks = 0
        self._waiting: queue.Queue[_Window | None] = queue.Queue(WINDOWS_WAITING_MAX)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="storing-ahead")

    def __enter__(self) -> Self:
        with self._waits():
            self._store.discard_unpublished(self._origin.dataset, 0)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._waits():
            try:
                if error is None:
                    self._hand_over(self._window)
                    self._hand_over(None)
            except BaseException:
                self._given_up.set()
                raise
            finally:
                if error is not None:
                    self._given_up.set()
                self._thread.join()
        if error is None and self._failed is not None:
            raise self._failed

    def add(self, file: PackedFile) -> None:
        """Have the chunks of *file* stored; waits where too much waits. Raises what storing raised."""
        more = len(file.heads) // HEAD.size
        self._chunks_left -= more
        if self._chunks_left < 0:
            self._window = []
            return
        self._window.append(file)
        self._chunks += more
        if self._chunks >= WINDOW_CHUNKS or len(self._window) >= WINDOW_FILES:
            with self._waits() if self._waiting.full() else nullcontext():
                self._hand_over(self._window)
            self._window, self._chunks = [], 0

    def _hand_over(self, window: _Window | None) -> None:
        while True:
            if self._failed is not None:
                raise self._failed
            self._check()
            try:
                self._waiting.put(window, timeout=_TICK_SECONDS)
                return
            except queue.Full:
                continue

    # In the thread

    def _run(self) -> None:
        try:
            while (window := self._next()) is not None:
                self._store.upsert(chunk_points(_chunks_of(window, self._origin), self._origin))
        except BaseException as error:
            self._failed = error

    def _next(self) -> _Window | None:
        while True:
            self._checked()
            try:
                return self._waiting.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                continue

    def _checked(self) -> None:
        if self._given_up.is_set():
            raise Stopped("the files are not parsed any more")
        self._check()


def _chunks_of(files: Sequence[PackedFile], origin: Origin) -> Iterator[tuple[str, Chunk, SparseVector]]:
    """(id, chunk, its words) of the chunks of *files*; of one id are only those that are the same."""
    for file in files:
        heads = np.frombuffer(file.heads, dtype=HEADS)
        columns = (heads[name].tolist() for name in ("ordinal", "start_line", "end_line"))
        identities = (each.hex() for each in heads["identity"].tolist())
        places = zip([file.path] * len(heads), *columns, identities, strict=True)
        ids = np.frombuffer(b"".join(chunk_ids(places, origin)), dtype="S16")
        words = Terms(
            np.concatenate([[0], np.cumsum(heads["terms"], dtype=np.int64)]),
            np.frombuffer(file.terms, dtype="<u4"),
            np.frombuffer(file.term_counts, dtype="<u2"),
        )
        yield from zip(unpacked_ids(ids), file.chunks(), words.vectors(range(len(heads))), strict=True)
