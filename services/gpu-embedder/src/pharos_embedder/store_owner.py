"""The owner of the embedded store: does for other processes what they ask of it over the bus.

One question at a time, in the order in which they arrive. That is no slower, since every call of the engine
excludes the others anyway, and it is what makes a repeat safe: a question that was asked again after no
answer came is behind the first one, and before whatever is asked next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, assert_never

import anyio
import anyio.to_thread
import structlog
from nats.aio.msg import Msg

from pharos_contracts.rpc import POINTS
from pharos_embedder import store_protocol as protocol
from pharos_embedder.bm25 import SparseVector
from pharos_embedder.generations import Engine
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
    Put,
    Question,
    ReadFacts,
    ReadPayloads,
    ReadPoints,
    ReadStructures,
    ReadTexts,
    SetText,
    SetUntil,
    TooLarge,
    Unreadable,
)
from pharos_embedder.vectors import (
    STRUCTURE_DIMENSIONS,
    Floats,
    PointsMissing,
    StoreClosed,
    StoreError,
    StoreFull,
)
from pharos_service.bus import TROUBLE, Bus

log = structlog.get_logger()

WAITING_MAX: Final = 256  # questions in memory; one beyond is not heard, and asked again by who waits for it
WAITING_BYTES_MAX: Final = 64 << 20


class StoreOwner:
    """Answers for *engine*, which holds text vectors of *dimensions* and is open for as long."""

    def __init__(self, engine: Engine, *, dimensions: int, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._dimensions = dimensions
        self._now = now

    async def serve(self, bus: Bus) -> None:
        """Answer until cancelled; what is under way then is finished first."""
        subscription = await bus.client.subscribe(
            POINTS, pending_msgs_limit=WAITING_MAX, pending_bytes_limit=WAITING_BYTES_MAX
        )
        try:
            async for message in subscription.messages:
                answer = await anyio.to_thread.run_sync(self.answer, message.data)
                await _reply(bus, message, answer)
        finally:
            with anyio.CancelScope(shield=True), suppress(*TROUBLE):
                await subscription.unsubscribe()  # from now on nobody is there, which is known at once

    def answer(self, payload: bytes) -> bytes:
        """The encoded answer to an encoded question, whatever comes. Blocks."""
        answer = protocol.encode_answer(self._answer(payload))
        if len(answer) > protocol.MESSAGE_BYTES_MAX:
            return protocol.encode_answer(TooLarge(size=len(answer)))
        return answer

    def _answer(self, payload: bytes) -> Answer:
        try:
            asked = protocol.open_envelope(payload)
            if asked.format != protocol.FORMAT:
                return Declined(
                    sentence="The process that owns the store is of another release; run the same everywhere",
                    other_release=True,
                )
            if (seconds := self._now() - asked.begin_by) > 0:
                return Late(seconds=seconds)
            return self._do(protocol.decode_question(asked.question))
        except Unreadable as error:
            log.warning("store_question_unreadable", reason=str(error))
            return Declined(sentence=f"The owner of the store could not read the question: {error}")
        except PointsMissing as error:
            return Missing(number=error.number)
        except StoreFull as error:
            return Full(sentence=str(error))
        except StoreClosed:
            return Closing()
        except StoreError as error:
            return Declined(sentence=str(error))
        except Exception as error:
            log.exception("store_question_failed")
            return Declined(
                sentence=f"The owner of the store failed ({type(error).__name__}); its log says why"
            )

    def _do(self, question: Question) -> Answer:
        engine = self._engine
        match question:
            case Greet(dimensions=wanted):
                return Done() if wanted == self._dimensions else OtherLength(dimensions=self._dimensions)
            case Put():
                engine.put(protocol.points_of(question.points))
            case SetText(ids=ids, vectors=vectors):
                engine.set_text(ids, protocol.floats_of(vectors, len(ids), self._dimensions))
            case SetUntil(ids=ids, generation=generation, condition=condition):
                engine.set_until(ids, generation, condition)
            case Delete(ids=ids, condition=condition):
                engine.delete(ids, condition)
            case Flush():
                engine.flush()
            case ListIds(condition=condition, after=after, limit=limit):
                found, following = engine.ids(condition, after=after, limit=limit)
                return FoundIds(ids=found, after=following)
            case ReadPayloads(condition=condition, limit=limit):
                return FoundPayloads(payloads=engine.payloads(condition, limit=limit))
            case ReadPoints(condition=condition, after=after, limit=limit):
                points, following = engine.points(condition, after=after, limit=limit)
                return FoundPoints(points=[protocol.to_wire(each) for each in points], after=following)
            case ReadFacts():
                return FoundFacts(facts=engine.facts())
            case ReadStructures(condition=condition, limit=limit):
                structures = engine.structures(condition, limit=limit)
                return FoundStructures(vectors=[protocol.to_bytes(each) for each in structures])
            case ReadTexts(names=names):
                texts = engine.texts(names)
                return FoundTexts(vectors={name: protocol.to_bytes(each) for name, each in texts.items()})
            case Count(condition=condition):
                return Counted(number=engine.count(condition))
            case CountBy(field=field, condition=condition):
                return CountedBy(numbers=engine.counts(field, condition))
            case FindNearest(name=name, condition=condition, limit=limit):
                return FoundHits(hits=engine.nearest(name, self._vector(question), condition, limit))
            case _:
                assert_never(question)
        return Done()

    def _vector(self, question: FindNearest) -> Floats | SparseVector:
        if (question.name == "code_bm25") != isinstance(question.vector, protocol.WireSparse):
            raise Unreadable("words are asked for by a sparse vector, and nothing else is")
        if isinstance(question.vector, protocol.WireSparse):
            return protocol.sparse_of(question.vector)
        length = STRUCTURE_DIMENSIONS if question.name == "structure" else self._dimensions
        return protocol.floats_of(question.vector, 1, length).reshape(length)


async def _reply(bus: Bus, message: Msg, answer: bytes) -> None:
    if not message.reply:
        return
    try:
        await bus.client.publish(message.reply, answer)
    except TROUBLE as error:
        log.debug("store_answer_not_sent", reason=repr(error))  # whoever waits for it asks again
