"""Texts in, unit vectors out: length-sorted batches by token budget, and one encoder shared by all who need
it.

`encode` is the loop. `EncoderService` runs it for several callers at once on one encoder, between whose
batches queries go first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pharos_embedder.encoders import EncoderBusy, OnBatch, Priority, Progress
from pharos_embedder.ports import Check, unchecked

if TYPE_CHECKING:
    from pharos_embedder.model import Encoder

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
) -> NDArray[np.float32]:
    """(N, D) float32 unit vectors, in the order of *texts*.

    *token_budget* bounds the padded tokens of a batch (the encoder's own by default). When the device runs
    out of memory the budget is halved for the rest of the call, and *on_budget* hears of it. *check* is
    called before each batch, *midway* also within one; what they raise ends the call. Raises
    EncodingOutOfMemory when a single text does not fit.
    """
    total = len(texts)
    vectors = np.empty((total, encoder.dimensions), dtype=np.float32)
    budget = max(1, encoder.token_budget if token_budget is None else token_budget)
    done = 0
    for start in range(0, total, WINDOW_TEXTS):
        check()
        window = texts[start : start + WINDOW_TEXTS]
        prompt = encoder.document_prompt
        ids = encoder.tokenize([prompt + text for text in window] if prompt else window)
        lengths = [len(one) for one in ids]
        waiting = deque(batches(lengths, budget))
        while waiting:
            check()
            batch = waiting.popleft()
            places = [start + index for index in batch]
            try:
                vectors[places] = encoder.forward([ids[index] for index in batch], midway)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = error
            else:
                done += len(batch)
                if on_batch is not None:
                    on_batch(places, vectors[places])
                if on_progress is not None:
                    on_progress(done, total)
                continue
            # Outside the handler: the traceback held the tensors of the failed pass.
            widest = lengths[batch[0]]
            if len(batch) == 1:
                raise EncodingOutOfMemory(widest) from failed
            del failed
            _release_memory()
            budget = max(1, min(budget, widest * len(batch)) // 2)
            if on_budget is not None:
                on_budget(budget)
            left = batch + [index for later in waiting for index in later]
            waiting = deque([left[i] for i in part] for part in batches([lengths[i] for i in left], budget))
    return vectors


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* is a device's or the system's way of saying that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)  # the CPU's and Apple's allocators raise a bare RuntimeError
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _release_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


WAITING_MAX: Final = {Priority.QUERY: 256, Priority.NOTE: 64, Priority.REPOSITORY: 64}
"""Callers of each kind that may wait at a time; the next one is refused with EncoderBusy."""

TURNS_BEFORE_YIELD: Final = 8
"""Passes in a row that may go before someone of lower priority who waits; then that one has a pass."""


class Turnstile:
    """One at a time, by priority and then in order of arrival; the lower ones are slowed, never starved."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Priority, deque[object]] = {priority: deque() for priority in Priority}
        self._busy = False
        self._passed_over = dict.fromkeys(Priority, 0)

    @contextmanager
    def turn(self, priority: Priority, timeout_seconds: float | None = None) -> Iterator[None]:
        """Holds the encoder for one pass. Raises EncoderBusy when the line is full or the wait too long."""
        self._enter(priority, timeout_seconds)
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def waiting(self, priority: Priority) -> int:
        """How many of *priority* wait now."""
        with self._changed:
            return len(self._waiting[priority])

    def _enter(self, priority: Priority, timeout_seconds: float | None) -> None:
        ticket = object()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._changed:
            line = self._waiting[priority]
            if len(line) >= WAITING_MAX[priority]:
                raise EncoderBusy(f"{len(line)} callers wait already")
            line.append(ticket)
            try:
                while self._busy or self._next() is not ticket:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise EncoderBusy(f"no turn within {timeout_seconds:g} s")
                    self._changed.wait(left)
            except BaseException:
                line.remove(ticket)
                self._changed.notify_all()  # whoever comes next may be able to go now
                raise
            line.popleft()
            self._busy = True
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

    A query waits for the batch under way and for the queries before it; once in TURNS_BEFORE_YIELD passes
    also for a batch of documents, so that a stream of queries does not stop the indexing. Two encoders on
    the same cores would be no faster together than one: share this one.
    """

    def __init__(self, encoder: Encoder, *, query_wait_seconds: float = 10.0) -> None:
        self._encoder = encoder
        self._turnstile = Turnstile()
        self._query_wait_seconds = query_wait_seconds
        self.version: Final = encoder.version
        self.dimensions: Final = encoder.dimensions
        self.token_budget: Final = encoder.token_budget
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
        shared = _SharedEncoder(self._encoder, self._turnstile, priority)
        return encode(
            texts,
            shared,
            token_budget=token_budget,
            on_progress=on_progress,
            on_batch=on_batch,
            on_budget=on_budget,
            check=check,
            midway=midway,
        )

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) unit vectors of search queries, in their order. Raises EncoderBusy when no turn comes in
        time. Each batch takes a turn.
        """
        ids = self._encoder.tokenize([self._encoder.query_prompt + text for text in texts])
        vectors = np.empty((len(ids), self.dimensions), dtype=np.float32)
        for batch in batches([len(one) for one in ids], self.token_budget):
            with self._turnstile.turn(Priority.QUERY, self._query_wait_seconds):
                vectors[batch] = self._encoder.forward([ids[index] for index in batch])
        return vectors

    def waiting(self, priority: Priority) -> int:
        """How many callers of *priority* wait now, for health and metrics."""
        return self._turnstile.waiting(priority)


class _SharedEncoder:
    """The encoder as one caller of the service sees it: every pass takes a turn."""

    def __init__(self, encoder: Encoder, turnstile: Turnstile, priority: Priority) -> None:
        self._encoder = encoder
        self._turnstile = turnstile
        self._priority = priority
        self.version = encoder.version
        self.dimensions = encoder.dimensions
        self.max_tokens = encoder.max_tokens
        self.token_budget = encoder.token_budget
        self.query_prompt = encoder.query_prompt
        self.document_prompt = encoder.document_prompt

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoder.tokenize(texts)  # the tokenizer is safe to share and needs no turn

    def forward(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> NDArray[np.float32]:
        with self._turnstile.turn(self._priority):
            return self._encoder.forward(batch, midway)
