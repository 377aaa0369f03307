"""Batching, order, memory and stopping, with a fake encoder; sharing, with threads that meet at events."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pharos_embedder import encoding
from pharos_embedder.devices import is_out_of_memory
from pharos_embedder.encoders import EncoderBusy, Priority
from pharos_embedder.encoding import (
    TURNS_BEFORE_YIELD,
    EncoderService,
    EncodingOutOfMemory,
    Turnstile,
    batches,
    encode,
)
from pharos_embedder.model import Pending
from pharos_embedder.ports import Check, Stopped, unchecked

DEADLINE_SECONDS = 10.0


class FakeEncoder:
    """One token a character; the vector of a text is its length, so order shows."""

    version = "fake@1"
    dimensions = 2
    max_tokens = 100
    token_budget = 40
    window_texts = 512
    query_prompt = ""
    document_prompt = ""

    def __init__(self, *, memory: int | None = None, error: Callable[[], Exception] | None = None) -> None:
        self.memory = memory
        self.error = error or (lambda: torch.OutOfMemoryError("CUDA out of memory"))
        self.shapes: list[tuple[int, int]] = []

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1] * max(1, len(text[: self.max_tokens])) for text in texts]

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        width = max(len(ids) for ids in batch)
        self.shapes.append((len(batch), width))
        if self.memory is not None and width * len(batch) > self.memory:
            raise self.error()
        vectors = np.array([[len(ids), 1] for ids in batch], dtype=np.float32)
        return lambda: vectors


def lengths_of(vectors: NDArray[np.float32]) -> list[int]:
    return [int(value) for value in vectors[:, 0]]


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200))
def test_batches_hold_every_text_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    made = batches(lengths, budget)
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    widths = [lengths[index] for batch in made for index in batch]
    assert widths == sorted(widths, reverse=True)


def test_vectors_come_in_the_order_of_the_texts() -> None:
    texts = ["a" * n for n in (3, 30, 1, 9, 30, 2, 17)]
    assert lengths_of(encode(texts, FakeEncoder())) == [3, 30, 1, 9, 30, 2, 17]


def test_no_texts_give_no_vectors() -> None:
    assert encode([], FakeEncoder()).shape == (0, 2)


def test_the_document_prompt_comes_before_each_text() -> None:
    encoder = FakeEncoder()
    encoder.document_prompt = "12345"
    assert lengths_of(encode(["a", "aa"], encoder)) == [6, 7]


def test_a_window_bounds_what_is_tokenized_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WINDOW_TEXTS", 3)
    seen: list[tuple[int, int]] = []
    texts = ["a" * n for n in range(1, 11)]
    vectors = encode(texts, FakeEncoder(), on_progress=lambda done, total: seen.append((done, total)))
    assert lengths_of(vectors) == list(range(1, 11))
    assert seen[-1] == (10, 10)


def test_progress_only_grows_and_ends_at_the_total() -> None:
    seen: list[tuple[int, int]] = []
    encode(["a" * 10] * 11, FakeEncoder(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 11), (8, 11), (11, 11)]


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        lambda: RuntimeError("MPS backend out of memory"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError,
    ],
)
def test_out_of_memory_halves_the_budget_and_goes_on(error: Callable[[], Exception]) -> None:
    encoder = FakeEncoder(memory=10, error=error)
    seen: list[int] = []
    texts = ["a" * n for n in (5, 4, 3, 2, 1, 5, 4, 3)]
    vectors = encode(texts, encoder, on_progress=lambda done, _: seen.append(done))
    assert lengths_of(vectors) == [5, 4, 3, 2, 1, 5, 4, 3]
    assert seen == sorted(seen)
    assert seen[-1] == 8
    assert [width * count for count, width in encoder.shapes if width * count > 10] == [40, 20]


def test_a_text_that_does_not_fit_alone_is_said_so() -> None:
    with pytest.raises(EncodingOutOfMemory, match="one text of 20 tokens"):
        encode(["a" * 20, "b"], FakeEncoder(memory=10))


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    encoder = FakeEncoder(memory=0, error=lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        encode(["a"], encoder)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_stop_ends_before_the_next_batch() -> None:
    encoder = FakeEncoder()
    finished: list[int] = []

    def check() -> None:
        if len(encoder.shapes) >= 2:
            raise Stopped

    with pytest.raises(Stopped):
        encode(
            ["a" * 10] * 40, encoder, check=check, on_batch=lambda places, _vectors: finished.extend(places)
        )
    assert len(encoder.shapes) == 2
    assert finished == list(range(8))


def test_each_batch_is_told_with_the_places_of_its_texts() -> None:
    texts = ["a" * n for n in (3, 30, 1, 9, 30, 2, 17)]
    told: dict[int, int] = {}
    encode(
        texts,
        FakeEncoder(),
        on_batch=lambda places, vectors: told.update(zip(places, lengths_of(vectors), strict=True)),
    )
    assert told == {place: len(text) for place, text in enumerate(texts)}


def test_a_smaller_budget_is_told_so_that_the_next_call_begins_with_it() -> None:
    encoder = FakeEncoder(memory=10)
    budgets: list[int] = []
    encode(["a" * 5] * 8, encoder, on_budget=budgets.append)
    assert budgets == [20, 10]


class SlowDevice(FakeEncoder):
    """Computes when it is waited for, as a GPU does; *capacity* padded tokens fit it at once, in all."""

    def __init__(self, *, capacity: int = 1_000_000, fails_late: bool = False) -> None:
        super().__init__()
        self.capacity = capacity
        self.fails_late = fails_late
        self.told: list[str] = []
        self.held = 0

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        size = max(len(ids) for ids in batch) * len(batch)
        self.told.append(f"launch {size}")
        if not self.fails_late and self.held + size > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.held += size
        compute = super().launch(batch)

        def wait() -> NDArray[np.float32]:
            self.told.append(f"wait {size}")
            self.held -= size
            if size > self.capacity:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return compute()

        return wait


def test_a_batch_is_launched_while_the_one_before_is_computed_and_no_more_than_that() -> None:
    encoder = SlowDevice()
    assert lengths_of(encode(["a" * 20] * 7, encoder)) == [20] * 7
    assert encoder.told == [
        "launch 40", "launch 40", "wait 40", "launch 40", "wait 40", "launch 20", "wait 40", "wait 20",
    ]  # fmt: skip


def test_a_batch_that_fits_alone_is_tried_alone_before_any_is_halved() -> None:
    encoder = SlowDevice(capacity=40)
    budgets: list[int] = []
    assert lengths_of(encode(["a" * 20] * 6, encoder, on_budget=budgets.append)) == [20] * 6
    assert budgets == []


@pytest.mark.parametrize("fails_late", [False, True])
def test_memory_that_runs_out_with_two_batches_under_way_loses_no_text(fails_late: bool) -> None:
    encoder = SlowDevice(capacity=15, fails_late=fails_late)
    told: list[int] = []
    texts = ["a" * n for n in (10, 9, 8, 7, 6, 5, 10, 9, 8, 7, 6, 5, 4, 3)]
    vectors = encode(texts, encoder, on_batch=lambda places, _: told.extend(places))
    assert lengths_of(vectors) == [len(text) for text in texts]
    assert sorted(told) == list(range(len(texts)))
    with pytest.raises(EncodingOutOfMemory, match="one text of 16 tokens"):
        encode(["a" * 16, "a" * 16], SlowDevice(capacity=15, fails_late=fails_late))


def test_a_stop_keeps_what_is_under_way() -> None:
    encoder = SlowDevice()
    finished: list[int] = []

    def check() -> None:
        if len(encoder.shapes) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        encode(["a" * 20] * 20, encoder, check=check, on_batch=lambda places, _: finished.extend(places))
    assert finished == [0, 1, 2, 3]
    assert encoder.held == 0


def test_the_next_window_is_tokenized_while_one_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WINDOW_TEXTS", 2)
    tokenized: list[int] = []
    ahead = threading.Event()

    class Watched(FakeEncoder):
        def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
            tokenized.append(len(tokenized))
            if len(tokenized) == 2:
                ahead.set()
            return super().tokenize(texts)

        def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
            assert ahead.wait(DEADLINE_SECONDS)
            if not self.shapes:
                assert len(tokenized) == 2  # the next, and none beyond it
            return super().launch(batch)

    assert lengths_of(encode(["a" * n for n in range(1, 8)], Watched())) == list(range(1, 8))
    with pytest.raises(ZeroDivisionError):
        encode(["a"] * 7, FakeEncoder(memory=0, error=ZeroDivisionError))


class HeldEncoder(FakeEncoder):
    """Each pass announces itself and waits to be let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.overlapping = 0
        self._inside = threading.Lock()

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        if not self._inside.acquire(blocking=False):
            self.overlapping += 1
            raise AssertionError("two passes at once")
        try:
            result = super().launch(batch)
            self.began.release()
            assert self.go.acquire(timeout=DEADLINE_SECONDS)
            return result
        finally:
            self._inside.release()

    def let_go(self, passes: int) -> None:
        for _ in range(passes):
            assert self.began.acquire(timeout=DEADLINE_SECONDS)
            self.go.release()


def wait_until(condition: Callable[[], bool]) -> None:
    """Polls to a deadline."""
    pause = threading.Event()
    for _ in range(int(DEADLINE_SECONDS / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen in time")


def started(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_a_query_waits_for_one_batch_of_a_repository_at_most() -> None:
    encoder = HeldEncoder()
    service = EncoderService(encoder)
    repository = started(lambda: service.encode_documents(["a" * 40] * 3))
    assert encoder.began.acquire(timeout=DEADLINE_SECONDS)  # the first batch is under way
    answers: list[NDArray[np.float32]] = []
    query = started(lambda: answers.append(service.encode_queries(["abc"])))
    wait_until(lambda: service.waiting(Priority.QUERY) == 1)
    encoder.go.release()
    encoder.let_go(3)
    query.join(DEADLINE_SECONDS)
    repository.join(DEADLINE_SECONDS)
    assert [width for _, width in encoder.shapes] == [40, 3, 40, 40]
    assert lengths_of(answers[0]) == [3]
    assert encoder.overlapping == 0


class SideBySide(FakeEncoder):
    """Each pass waits to be let go, or stopped, by its width, and checks whether to go on until then."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[int] = []
        self.going = 0
        self.let_go: set[int] = set()
        self.ended: set[int] = set()
        self.error: type[Exception] = Stopped
        self._changed = threading.Condition()

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        width = len(batch[0])
        with self._changed:
            self.began.append(width)
            self.going += 1
        try:
            wait_until(lambda: self._may_go(width, midway))
            return super().launch(batch)
        finally:
            with self._changed:
                self.going -= 1

    def _may_go(self, width: int, midway: Check) -> bool:
        midway()
        if width in self.ended:
            raise self.error
        return width in self.let_go


def test_lanes_go_side_by_side_and_a_query_takes_the_first_that_is_free() -> None:
    encoder = SideBySide()
    service = EncoderService(encoder, lanes=2)
    found: list[NDArray[np.float32]] = []
    texts = ["a" * 40, "a" * 39, "a" * 38, "a" * 37]
    repository = started(lambda: found.append(service.encode_documents(texts)))
    wait_until(lambda: encoder.began == [40, 39])
    wait_until(lambda: service.waiting(Priority.REPOSITORY) == 1)  # a third is ready, and there is no lane
    query = started(lambda: found.append(service.encode_queries(["abc"])))
    wait_until(lambda: service.waiting(Priority.QUERY) == 1)
    encoder.let_go |= {39}  # the second ends first
    wait_until(lambda: encoder.began == [40, 39, 3])
    encoder.let_go |= {3, 37, 38}
    query.join(DEADLINE_SECONDS)
    wait_until(lambda: encoder.began == [40, 39, 3, 38] and encoder.going == 1)  # 37 waits until 40 is kept
    encoder.let_go |= {40}
    repository.join(DEADLINE_SECONDS)
    assert [lengths_of(each) for each in found] == [[3], [40, 39, 38, 37]]


@pytest.mark.parametrize("error", [Stopped, RuntimeError])
def test_an_end_midway_waits_for_the_passes_of_all_lanes_and_keeps_what_they_made(
    error: type[Exception],
) -> None:
    encoder = SideBySide()
    encoder.error = error
    encoder.let_go = {40}
    service = EncoderService(encoder, lanes=2)
    checked, kept = threading.Event(), list[int]()
    errors: list[Exception] = []

    def encode_all() -> None:
        texts = ["a" * n for n in (40, 39, 38, 37)]
        try:
            service.encode_documents(texts, midway=checked.set, on_batch=lambda at, _: kept.extend(at))
        except error as ended:
            errors.append(ended)

    thread = started(encode_all)
    wait_until(lambda: encoder.began == [40, 39, 38])
    encoder.ended = {39, 37}
    encoder.let_go |= {38, 3}
    thread.join(DEADLINE_SECONDS)
    assert len(errors) == 1
    assert kept == [0, 2]
    assert checked.is_set()
    assert encoder.going == 0
    assert lengths_of(service.encode_queries(["abc"])) == [3]


def test_two_places_that_become_free_at_once_are_both_taken() -> None:
    turnstile = Turnstile(2)
    turnstile.enter(Priority.REPOSITORY)
    turnstile.enter(Priority.REPOSITORY)
    waiting = []
    for priority in (Priority.REPOSITORY, Priority.QUERY):  # the second goes first, and is woken last
        waiting.append(started(partial(turnstile.enter, priority)))
        wait_until(partial(lambda which: turnstile.waiting(which) == 1, priority))
    with turnstile._changed:
        turnstile.leave()
        turnstile.leave()
    for thread in waiting:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def test_lanes_that_do_not_fit_memory_together_take_turns_before_any_batch_is_halved() -> None:
    class Tight(FakeEncoder):
        """Its first two passes meet, and there is no memory for both."""

        together = threading.Barrier(2)
        met = 0

        def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
            if self.met < 2:
                self.met += 1
                self.together.wait(DEADLINE_SECONDS)
                raise MemoryError
            return super().launch(batch)

    budgets: list[int] = []
    encoder = Tight()
    texts = ["a" * n for n in range(40, 20, -1)]
    vectors = EncoderService(encoder, lanes=2).encode_documents(texts, on_budget=budgets.append)
    assert lengths_of(vectors) == [len(text) for text in texts]
    assert budgets == []


def test_queries_of_one_call_come_back_in_their_order_whatever_batches_they_made() -> None:
    encoder = FakeEncoder()
    encoder.token_budget = 8
    vectors = EncoderService(encoder).encode_queries(["abc", "abcdefgh", "a", "abcd"])
    assert lengths_of(vectors) == [3, 8, 1, 4]
    assert len(encoder.shapes) == 3


def test_a_note_goes_before_a_repository_and_after_a_query() -> None:
    encoder = HeldEncoder()
    service = EncoderService(encoder)
    threads = [started(lambda: service.encode_documents(["a" * 40] * 2))]
    assert encoder.began.acquire(timeout=DEADLINE_SECONDS)
    threads.append(started(lambda: service.encode_documents(["b" * 7], priority=Priority.NOTE)))
    wait_until(lambda: service.waiting(Priority.NOTE) == 1)
    threads.append(started(lambda: service.encode_queries(["abc"])))
    wait_until(lambda: service.waiting(Priority.QUERY) == 1)
    encoder.go.release()
    encoder.let_go(3)
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert [width for _, width in encoder.shapes] == [40, 3, 7, 40]


def test_a_stream_of_queries_does_not_starve_a_repository() -> None:
    encoder = HeldEncoder()
    service = EncoderService(encoder)
    threads = [started(lambda: service.encode_queries(["q"]))]
    assert encoder.began.acquire(timeout=DEADLINE_SECONDS)
    threads.append(started(lambda: service.encode_documents(["a" * 40])))
    wait_until(lambda: service.waiting(Priority.REPOSITORY) == 1)
    threads += [started(lambda: service.encode_queries(["q"])) for _ in range(20)]
    wait_until(lambda: service.waiting(Priority.QUERY) == 20)
    encoder.go.release()
    encoder.let_go(21)
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert [width for _, width in encoder.shapes].index(40) == 1 + TURNS_BEFORE_YIELD


def test_a_query_that_waits_too_long_is_refused_and_leaves_the_line() -> None:
    encoder = HeldEncoder()
    service = EncoderService(encoder, query_wait_seconds=0.02)
    repository = started(lambda: service.encode_documents(["a" * 40]))
    assert encoder.began.acquire(timeout=DEADLINE_SECONDS)
    with pytest.raises(EncoderBusy, match=r"no turn within 0\.02 s"):
        service.encode_queries(["abc"])
    assert service.waiting(Priority.QUERY) == 0
    encoder.go.release()
    repository.join(DEADLINE_SECONDS)
    encoder.go.release()
    assert lengths_of(service.encode_queries(["abcd"])) == [4]


def test_a_full_line_refuses_the_next_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoding.WAITING_MAX, Priority.QUERY, 1)
    turnstile = Turnstile()
    with turnstile.turn(Priority.REPOSITORY):

        def pass_through() -> None:
            with turnstile.turn(Priority.QUERY):
                pass

        waiting = started(pass_through)
        wait_until(lambda: turnstile.waiting(Priority.QUERY) == 1)
        with pytest.raises(EncoderBusy, match="1 callers wait already"), turnstile.turn(Priority.QUERY):
            pass
    waiting.join(DEADLINE_SECONDS)
    assert turnstile.waiting(Priority.QUERY) == 0


def test_an_error_in_a_pass_frees_the_encoder() -> None:
    encoder = FakeEncoder(memory=0, error=lambda: RuntimeError("broken"))
    service = EncoderService(encoder)
    with pytest.raises(RuntimeError, match="broken"):
        service.encode_queries(["a"])
    encoder.memory = None
    assert lengths_of(service.encode_documents(["abc"])) == [3]
