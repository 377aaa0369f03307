"""Texts in, unit vectors out: length-sorted batches by token budget, and one encoder shared by all who need
it.

`encode` is the loop. `EncoderService` runs it for several callers at once on one encoder, between whose
batches queries go first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pharos_embedder.devices import is_out_of_memory, release_memory
from pharos_embedder.encoders import EncoderBusy, OnBatch, Priority, Progress
from pharos_embedder.ports import Check, unchecked

if TYPE_CHECKING:
    from pharos_embedder.model import Encoder, Pending

_UnderWay = tuple[list[int], "Pending"]

UNDER_WAY_MAX: Final = 2
"""Batches at once: a GPU computes one while the next is padded, uploaded and launched."""

WINDOW_TEXTS: Final = 4_096
"""Texts tokenized and sorted at a time: enough for full batches of equal length, about 30 MB of token ids."""


class EncodingOutOfMemory(Exception):
    """One text alone does not fit the memory of the device."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        super().__init__(f"the device has no memory for one text of {tokens} tokens")


def encode(
    texts: Sequence[str],
    encoder: Encoder,
    *,
    token_budget: int | None = None,
    on_progress: Progress | None = None,
    on_batch: OnBatch | None = None,
    on_budget: Callable[[int], None] | None = None,
    check: Check = unchecked,
    midway: Check = unchecked,
    at_once: int = UNDER_WAY_MAX,
) -> NDArray[np.float32]:
    """(N, D) float32 unit vectors, in the order of *texts*. Up to *at_once* batches are under way.

    *token_budget* bounds the padded tokens of a batch (the encoder's own by default). When the device runs
    out of memory the budget is halved for the rest of the call, and *on_budget* hears of it. *check* is
    called before each batch, *midway* also within one; what they raise ends the call. Raises
    EncodingOutOfMemory when a single text does not fit.
    """
    budget = max(1, encoder.token_budget if token_budget is None else token_budget)
    run = _Run(encoder, budget, at_once, len(texts), on_progress, on_batch, on_budget)
    with closing(_windows(texts, encoder)) as windows:
        for start, ids in windows:
            run.window(start, ids, check, midway)
    return run.vectors


def _windows(texts: Sequence[str], encoder: Encoder) -> Generator[tuple[int, list[list[int]]], None, None]:
    """(first index, token ids of each text) of each window; one is tokenized ahead, in a thread."""

    def tokenize(start: int) -> tuple[int, list[list[int]]]:
        window = texts[start : start + WINDOW_TEXTS]
        prompt = encoder.document_prompt
        return start, encoder.tokenize([prompt + text for text in window] if prompt else window)

    starts = range(0, len(texts), WINDOW_TEXTS)
    if len(starts) < 2:
        yield from map(tokenize, starts)
        return
    with ThreadPoolExecutor(1, "tokenizer") as ahead:
        coming = ahead.submit(tokenize, 0)
        for following in [*starts[1:], None]:
            window = coming.result()
            if following is not None:
                coming = ahead.submit(tokenize, following)
            yield window


class _Run:
    """One call of `encode`: what is done of it, and how large its batches may be."""

    def __init__(
        self,
        encoder: Encoder,
        budget: int,
        at_once: int,
        total: int,
        on_progress: Progress | None,
        on_batch: OnBatch | None,
        on_budget: Callable[[int], None] | None,
    ) -> None:
        self.vectors = np.empty((total, encoder.dimensions), dtype=np.float32)
        self._encoder = encoder
        self._budget = budget
        self._at_once = at_once
        self._done = 0
        self._on_progress = on_progress
        self._on_batch = on_batch
        self._on_budget = on_budget

    def window(self, start: int, ids: Sequence[Sequence[int]], check: Check, midway: Check) -> None:
        """Encode *ids*, those of the texts from *start* on. A few batches are under way at once."""
        under_way: deque[_UnderWay] = deque()
        try:
            self._window(start, ids, under_way, check, midway)
        except BaseException:
            self._save(start, under_way)
            raise

    def _window(
        self,
        start: int,
        ids: Sequence[Sequence[int]],
        under_way: deque[_UnderWay],
        check: Check,
        midway: Check,
    ) -> None:
        lengths = [len(one) for one in ids]
        waiting = deque(batches(lengths, self._budget))
        while waiting or under_way:
            launching = bool(waiting) and len(under_way) < self._at_once
            try:
                if launching:
                    check()
                    pending = self._encoder.launch([ids[index] for index in waiting[0]], midway)
                    under_way.append((waiting.popleft(), pending))
                else:
                    self._keep(start, *under_way[0])
                    under_way.popleft()
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = error
            # Outside the handler: the traceback held the tensors of the failed pass.
            if not launching:
                waiting.appendleft(under_way.popleft()[0])
                if under_way:
                    self._at_once = 1  # or the same ones would meet again
            alone = not under_way
            batch = waiting[0]
            waiting.extendleft(self._settle(start, under_way))
            if not alone:
                del failed
                release_memory()
                continue  # it may fit when nothing else is there
            widest = lengths[batch[0]]
            if len(batch) == 1:
                raise EncodingOutOfMemory(widest) from failed
            del failed
            release_memory()
            self._shrink(widest * len(batch))
            left = [index for each in waiting for index in each]
            waiting = deque(
                [left[i] for i in part] for part in batches([lengths[i] for i in left], self._budget)
            )

    def _settle(self, start: int, under_way: deque[_UnderWay]) -> list[list[int]]:
        """Wait for all that is under way; the batches that the device could not finish."""
        lost = []
        while under_way:
            batch, pending = under_way.popleft()
            try:
                self._keep(start, batch, pending)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                lost.append(batch)
        return lost

    def _save(self, start: int, under_way: deque[_UnderWay]) -> None:
        """The call ends: wait for all that is under way, and keep what was computed of it."""
        for batch, pending in under_way:
            with suppress(Exception):  # what ended the call is told already
                self._keep(start, batch, pending)

    def _keep(self, start: int, batch: Sequence[int], pending: Pending) -> None:
        """Wait for the vectors of *batch*, and tell who wants to know."""
        places = [start + index for index in batch]
        self.vectors[places] = pending()
        self._done += len(batch)
        if self._on_batch is not None:
            self._on_batch(places, self.vectors[places])
        if self._on_progress is not None:
            self._on_progress(self._done, len(self.vectors))

    def _shrink(self, tokens: int) -> None:
        """A batch of *tokens* did not fit."""
        self._budget = max(1, min(self._budget, tokens) // 2)
        if self._on_budget is not None:
            self._on_budget(self._budget)


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indexes of *lengths* in batches, longest first, each of at most *budget* padded tokens or of one text.

    Longest first: a batch that does not fit the device fails at the start, not after an hour.
    """
    result: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if current and lengths[current[0]] * (len(current) + 1) > budget:
            result.append(current)
            current = []
        current.append(index)
    if current:
        result.append(current)
    return result


WAITING_MAX: Final = {Priority.QUERY: 256, Priority.NOTE: 64, Priority.REPOSITORY: 64}
"""Callers of each kind that may wait at a time; the next one is refused with EncoderBusy."""

TURNS_BEFORE_YIELD: Final = 8
"""Passes in a row that may go before someone of lower priority who waits; then that one has a pass."""


class Turnstile:
    """So many at a time, by priority and then by arrival; the lower ones are slowed, never starved."""

    def __init__(self, places: int = 1) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Priority, deque[object]] = {priority: deque() for priority in Priority}
        self._free = places
        self._passed_over = dict.fromkeys(Priority, 0)

    @contextmanager
    def turn(self, priority: Priority, timeout_seconds: float | None = None) -> Iterator[None]:
        """Holds a place for one pass. Raises EncoderBusy when the line is full or the wait too long."""
        self.enter(priority, timeout_seconds)
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Give back the place that `enter` gave, from any thread."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def waiting(self, priority: Priority) -> int:
        """How many of *priority* wait now."""
        with self._changed:
            return len(self._waiting[priority])

    def enter(self, priority: Priority, timeout_seconds: float | None = None) -> None:
        """Wait for a place, which is held until `leave`. Raises EncoderBusy as `turn` does."""
        ticket = object()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._changed:
            line = self._waiting[priority]
            if len(line) >= WAITING_MAX[priority]:
                raise EncoderBusy(f"{len(line)} callers wait already")
            line.append(ticket)
            try:
                while not self._free or self._next() is not ticket:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise EncoderBusy(f"no turn within {timeout_seconds:g} s")
                    self._changed.wait(left)
            except BaseException:
                line.remove(ticket)
                self._changed.notify_all()  # whoever comes next may be able to go now
                raise
            line.popleft()
            self._free -= 1
            if self._free:
                self._changed.notify_all()  # whoever comes next has a place as well
            self._passed_over[priority] = 0
            for lower in Priority:
                if lower > priority:
                    self._passed_over[lower] += 1 if self._waiting[lower] else -self._passed_over[lower]

    def _next(self) -> object | None:
        """The ticket whose turn it is; the caller holds the condition."""
        lines = [priority for priority in Priority if self._waiting[priority]]
        for priority in reversed(lines):
            if self._passed_over[priority] >= TURNS_BEFORE_YIELD:
                return self._waiting[priority][0]
        return self._waiting[lines[0]][0] if lines else None


class EncoderService:
    """One model for everyone in this process, a `TextEncoder`; safe to call from several threads.

    A query waits for the first of the batches under way and for the queries before it; once in
    TURNS_BEFORE_YIELD passes also for a batch of documents, so that a stream of queries does not stop the
    indexing. Two encoders on the same cores would be no faster together than one: share this one.
    """

    def __init__(
        self, encoder: Encoder, *, lanes: int = 1, lane_threads: int = 1, query_wait_seconds: float = 10.0
    ) -> None:
        """*lanes* passes go side by side, each on *lane_threads* threads; only on a CPU are there several."""
        self._passes = _Passes(encoder, lanes, lane_threads)
        self._at_once = lanes + 1  # so that none waits for the slowest of them
        self._encoder = encoder
        self._query_wait_seconds = query_wait_seconds
        self.version: Final = encoder.version
        self.dimensions: Final = encoder.dimensions
        self.token_budget: Final = encoder.token_budget
        self.window_texts: Final = encoder.window_texts
        self.tariff: Final = None

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        priority: Priority = Priority.REPOSITORY,
        token_budget: int | None = None,
        on_progress: Progress | None = None,
        on_batch: OnBatch | None = None,
        on_budget: Callable[[int], None] | None = None,
        check: Check = unchecked,
        midway: Check = unchecked,
    ) -> NDArray[np.float32]:
        """As `encode`, giving way to whoever goes first before each batch. Blocks; raises EncoderBusy as
        well.
        """
        shared = _SharedEncoder(self._encoder, self._passes, priority)
        return encode(
            texts,
            shared,
            token_budget=token_budget,
            on_progress=on_progress,
            on_batch=on_batch,
            on_budget=on_budget,
            check=check,
            midway=midway,
            at_once=self._at_once,
        )

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) unit vectors of search queries, in their order. Raises EncoderBusy when no turn comes in
        time. Each batch takes a turn.
        """
        ids = self._encoder.tokenize([self._encoder.query_prompt + text for text in texts])
        vectors = np.empty((len(ids), self.dimensions), dtype=np.float32)
        for batch in batches([len(one) for one in ids], self.token_budget):
            tokens = [ids[index] for index in batch]
            vectors[batch] = self._passes.launch(tokens, Priority.QUERY, self._query_wait_seconds)()
        return vectors

    def waiting(self, priority: Priority) -> int:
        """How many callers of *priority* wait now, for health and metrics."""
        return self._passes.turnstile.waiting(priority)


class _Passes:
    """All passes of one encoder, in turns.

    With one lane a pass is launched by whoever wants it, and its turn ends when the device has it. Of several
    each is a thread, and the turn ends with the pass.
    """

    def __init__(self, encoder: Encoder, lanes: int, lane_threads: int) -> None:
        self.turnstile = Turnstile(lanes)
        self._encoder = encoder
        self._lanes = None
        if lanes > 1:  # torch's number of threads is one of each thread, and what later threads begin with
            self._lanes = ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (lane_threads,))

    def launch(
        self,
        batch: Sequence[Sequence[int]],
        priority: Priority,
        timeout_seconds: float | None = None,
        midway: Check = unchecked,
    ) -> Pending:
        """As the encoder's own, when it is the turn of *priority*. Raises EncoderBusy as well."""
        if self._lanes is None:
            with self.turnstile.turn(priority, timeout_seconds):
                return self._encoder.launch(batch, midway)
        self.turnstile.enter(priority, timeout_seconds)
        try:
            under_way = self._lanes.submit(self._pass, batch, midway)
        except BaseException:
            self.turnstile.leave()
            raise
        return under_way.result

    def _pass(self, batch: Sequence[Sequence[int]], midway: Check) -> NDArray[np.float32]:
        try:
            return self._encoder.launch(batch, midway)()
        finally:
            self.turnstile.leave()


class _SharedEncoder:
    """The encoder as one caller of the service sees it: every pass takes a turn."""

    def __init__(self, encoder: Encoder, passes: _Passes, priority: Priority) -> None:
        self._encoder = encoder
        self._passes = passes
        self._priority = priority
        self.version = encoder.version
        self.dimensions = encoder.dimensions
        self.max_tokens = encoder.max_tokens
        self.token_budget = encoder.token_budget
        self.window_texts = encoder.window_texts
        self.query_prompt = encoder.query_prompt
        self.document_prompt = encoder.document_prompt

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoder.tokenize(texts)  # the tokenizer is safe to share and needs no turn

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        return self._passes.launch(batch, self._priority, midway=midway)
