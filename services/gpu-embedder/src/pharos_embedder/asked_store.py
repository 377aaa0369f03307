"""The embedded store of another process: asks its owner over the bus.

The embedded engine is opened by one process, the one with the search role. A worker in a process of its own
gets this store instead. A write has returned when the owner has it in its log, so it survives kill -9 of
either. An owner that restarts is waited for; one that stays away is StoreUnavailable, and the job is tried
again later.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from pharos_contracts.rpc import POINTS
from pharos_embedder import store_protocol as protocol
from pharos_embedder.bm25 import SparseVector
from pharos_embedder.generations import PAGE, GenerationStore
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.store_protocol import (
    Answer,
    Closing,
    Count,
    CountBy,
    Counted,
    CountedBy,
    Declined,
    Delete,
    Done,
    FindNearest,
    Flush,
    FoundFacts,
    FoundHits,
    FoundIds,
    FoundPayloads,
    FoundPoints,
    FoundStructures,
    FoundTexts,
    Full,
    Greet,
    Late,
    ListIds,
    Missing,
    OtherLength,
    Question,
    ReadFacts,
    ReadPayloads,
    ReadPoints,
    ReadStructures,
    ReadTexts,
    SetUntil,
    TooLarge,
    Unreadable,
)
from pharos_embedder.vectors import (
    Condition,
    DimensionMismatch,
    Floats,
    Hit,
    Ids,
    Payload,
    Point,
    PointsMissing,
    StoreClosed,
    StoreError,
    StoreFacts,
    StoreFull,
    StoreUnavailable,
    VectorName,
)
from pharos_service.bus import Bus, BusError

A = TypeVar("A")


class AskingTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds.

    ``answer``: for one try of a question. So long after the last check of a hold a write may begin, which is
    to be less than from the moment that the hold lapses to that in which its item is another's. ``away``: for
    all tries. ``pause``: between two.
    """

    answer: float = 4.0
    away: float = 30.0
    pause: float = 0.25


class AnswerTooLarge(StoreError):
    """The answer to a question does not go over the bus at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(_too_large("answer"))


class Owner:
    """The way to whichever process owns the store. Never ask on the thread of the bus."""

    def __init__(
        self, bus: Bus, loop: asyncio.AbstractEventLoop, *, dimensions: int, times: AskingTimes
    ) -> None:
        self._bus = bus
        self._loop = loop
        self.dimensions = dimensions
        self._times = times
        self._open = False

    def open(self) -> None:
        """Greet the owner. StoreUnavailable, without waiting, where there is none yet."""
        room = protocol.MESSAGE_BYTES_MAX + protocol.ENVELOPE_BYTES
        if self._bus.connected and self._bus.client.max_payload < room:
            raise StoreError(
                f"The bus takes messages of {self._bus.client.max_payload} bytes, and points need {room}: "
                "set max_payload of the NATS server to 1MB"
            )
        self._ask(Greet(dimensions=self.dimensions), Done, unchecked, away=0)
        self._open = True

    def close(self) -> None:
        """The store belongs to its owner: nothing is closed but this way to it."""
        self._open = False

    def ask(self, question: Question | bytes, expected: type[A], check: Check) -> A:
        """The answer to a question, perhaps an encoded one, of whichever owner is there in time.

        *check* is called before each try.
        """
        if not self._open:
            raise StoreClosed("the index is not open")
        return self._ask(question, expected, check, away=self._times.away)

    def _ask(self, question: Question | bytes, expected: type[A], check: Check, *, away: float) -> A:
        encoded = question if isinstance(question, bytes) else protocol.encode_question(question)
        if len(encoded) > protocol.MESSAGE_BYTES_MAX:
            raise StoreError(_too_large("question or point"))
        until = time.monotonic() + away
        while True:
            check()
            answer = self._try(encoded)
            if isinstance(answer, expected):
                return answer
            if isinstance(answer, TooLarge):
                raise AnswerTooLarge(answer.size)
            if not isinstance(answer, str):
                raise StoreError(f"The owner of the store answered {type(answer).__name__}, unasked")
            if time.monotonic() >= until:
                raise StoreUnavailable(f"The process that owns the store does not answer: {answer}")
            time.sleep(self._times.pause)

    def _try(self, question: bytes) -> Answer | str:
        """The answer; or why there is none yet."""
        seconds = self._times.answer
        payload = protocol.enveloped(question, time.time() + seconds)
        asking = asyncio.run_coroutine_threadsafe(self._bus.request(POINTS, payload, seconds), self._loop)
        try:
            reply = asking.result(seconds + 1)
            answer = protocol.decode_answer(reply.data)
        except BusError as error:
            return str(error)
        except TimeoutError:
            asking.cancel()
            return "this process is too busy to ask"
        except concurrent.futures.CancelledError as error:
            raise StoreClosed("the process is ending") from error
        except Unreadable as error:
            return f"its answer could not be read ({error}); run the same release everywhere"
        match answer:
            case Closing():
                return "it is ending"
            case Late(seconds=late):
                return f"a question came {late:.1f} s after its time; is it overloaded, or its clock wrong?"
            case Declined(other_release=True, sentence=sentence):
                return sentence
            case OtherLength(dimensions=stored):
                raise DimensionMismatch("the store's owner", stored, self.dimensions)
            case Missing(number=number):
                raise PointsMissing(number)
            case Full(sentence=sentence):
                raise StoreFull(sentence)
            case Declined(sentence=sentence):
                raise StoreError(sentence)
            case _:
                return answer


class AskedEngine:
    """An ``Engine`` whose calls are questions to *owner*.

    *check* is called before each try of each, so that whoever lost its item neither writes nor waits.
    """

    def __init__(self, owner: Owner, check: Check = unchecked) -> None:
        self._owner = owner
        self._check = check
        self._points_max = PAGE  # fewer, once so many were too large at once

    def open(self) -> None:
        self._owner.open()

    def close(self) -> None:
        self._owner.close()

    def flush(self) -> None:
        self._ask(Flush(), Done)

    def optimize(self) -> bool:
        """Nothing to do: when to do it is the owner's business."""
        return False

    # Writing

    def put(self, points: Sequence[Point]) -> None:
        for question in protocol.puts(points):
            self._ask(question, Done)

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        for question in protocol.set_texts(ids, vectors):
            self._ask(question, Done)

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        for start in range(0, len(ids), PAGE):
            page = tuple(ids[start : start + PAGE])
            self._ask(SetUntil(ids=page, generation=generation, condition=condition), Done)

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        for start in range(0, len(ids), PAGE):
            self._ask(Delete(ids=tuple(ids[start : start + PAGE]), condition=condition), Done)

    # Reading

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        found = self._ask(ListIds(condition=condition, after=after, limit=limit), FoundIds)
        return found.ids, found.after

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        try:
            return self._ask(ReadPayloads(condition=condition, limit=limit), FoundPayloads).payloads
        except AnswerTooLarge as error:
            if limit == 1:
                raise
            # Half again as many parts as needed, since points differ in size; what is too large is cut again.
            parts = max(2, 3 * error.size // (2 * protocol.MESSAGE_BYTES_MAX))
        which, _ = self.ids(condition, after=None, limit=limit)
        size = max(1, -(-len(which) // parts))
        return [
            payload
            for start in range(0, len(which), size)
            for payload in self.payloads(Ids(tuple(which[start : start + size])), limit=size)
        ]

    def points(
        self, condition: Condition, *, after: str | None, limit: int
    ) -> tuple[list[Point], str | None]:
        while True:
            limit = min(limit, self._points_max)
            try:
                found = self._ask(ReadPoints(condition=condition, after=after, limit=limit), FoundPoints)
            except AnswerTooLarge as error:
                if limit == 1:
                    raise
                self._points_max = max(1, limit * protocol.MESSAGE_BYTES_MAX // (2 * error.size))
            else:
                return protocol.points_of(found.points), found.after

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        # 64 numbers each: as many as may be asked for always fit.
        found = self._ask(ReadStructures(condition=condition, limit=limit), FoundStructures)
        return [np.frombuffer(each, dtype="<f4").astype(np.float32) for each in found.vectors]

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        try:
            found = self._ask(ReadTexts(names=tuple(names)), FoundTexts).vectors
        except AnswerTooLarge:
            if len(names) == 1:
                raise
            half = len(names) // 2
            return self.texts(names[:half]) | self.texts(names[half:])
        return {name: np.frombuffer(each, dtype="<f4").astype(np.float32) for name, each in found.items()}

    def facts(self) -> StoreFacts:
        return self._ask(ReadFacts(), FoundFacts).facts

    def count(self, condition: Condition) -> int:
        return self._ask(Count(condition=condition), Counted).number

    def counts(self, field: str, condition: Condition) -> dict[str | int, int]:
        return self._ask(CountBy(field=field, condition=condition), CountedBy).numbers

    def nearest(
        self, name: VectorName, vector: Floats | SparseVector, condition: Condition, limit: int
    ) -> list[Hit]:
        wire = (
            protocol.to_wire_sparse(vector) if isinstance(vector, SparseVector) else protocol.to_bytes(vector)
        )
        question = FindNearest(name=name, vector=wire, condition=condition, limit=limit)
        return self._ask(question, FoundHits).hits

    def _ask(self, question: Question | bytes, expected: type[A]) -> A:
        return self._owner.ask(question, expected, self._check)


class AskedStore(GenerationStore):
    """A VectorStore over the owner's. A check goes with every try of a question, not only with every call."""

    def __init__(self, owner: Owner, *, dimensions: int, check: Check = unchecked) -> None:
        super().__init__(AskedEngine(owner, check), dimensions=dimensions)
        self._owner = owner
        self._dimensions = dimensions

    def guarded(self, check: Check) -> AskedStore:
        return AskedStore(self._owner, dimensions=self._dimensions, check=check)


def asked_store(bus: Bus, *, dimensions: int, times: AskingTimes | None = None) -> AskedStore:
    """The store of whichever process owns it, for text vectors of *dimensions*; `open` it in a thread.

    Call it on the event loop of *bus*.
    """
    owner = Owner(bus, asyncio.get_running_loop(), dimensions=dimensions, times=times or AskingTimes())
    return AskedStore(owner, dimensions=dimensions)


def _too_large(what: str) -> str:
    return (
        f"A {what} is larger than the {protocol.MESSAGE_BYTES_MAX // 1024} KiB that go over the bus at once"
    )
