"""What the owner of the embedded store is asked by other processes of the embedder, and answers: msgpack.

One question is one call of an ``Engine``. Vectors travel as little-endian bytes. Both ends are the embedder,
and what they share is its own values, so this is no contract: ``FORMAT`` tells apart two releases that must
not talk.

Every question may be repeated: points are written, changed and deleted by id. ``begin_by`` keeps a question
that waited somewhere from being done behind the back of whoever came next: who asked gives up only after that
moment, and the owner begins nothing after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from pharos_embedder.bm25 import SparseVector
from pharos_embedder.generations import PAGE, WRITE_BATCH
from pharos_embedder.vectors import (
    ALIVE,
    HITS_MAX,
    STRUCTURE_DIMENSIONS,
    AllOf,
    AnyOf,
    Condition,
    Floats,
    Hit,
    Payload,
    Point,
    StoreFacts,
    VectorName,
)

FORMAT: Final = 3
PART_BYTES: Final = (
    256 * 1024
)  # what a question of many points aims at: a few milliseconds of the owner's time
MESSAGE_BYTES_MAX: Final = 768 * 1024  # of one question or answer; a bus takes 1 MiB unless told otherwise
ENVELOPE_BYTES: Final = 1024  # more than what is around a question takes
DIMENSIONS_MAX: Final = 65_536  # of a text vector
CONDITION_DEPTH_MAX: Final = 8  # the engine follows a condition on its stack
CONDITION_PARTS_MAX: Final = 4_096
_ID_BYTES: Final = 40
_ID: Final = Meta(min_length=36, max_length=36)  # a UUID as text

Ids = Annotated[tuple[Annotated[str, _ID], ...], Meta(max_length=PAGE)]
Limit = Annotated[int, Meta(ge=1, le=max(PAGE, HITS_MAX))]


class WireSparse(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A SparseVector: 32-bit terms, 32-bit floats."""

    indices: bytes
    values: bytes


class WirePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A Point, its vectors as 32-bit floats."""

    id: Annotated[str, _ID]
    payload: Payload
    code_bm25: WireSparse | None = None
    text: bytes | None = None
    structure: bytes | None = None


# Questions


class Greet(msgspec.Struct, frozen=True, kw_only=True, tag="greet"):
    """Is there an owner, and does its store hold text vectors of this length?"""

    dimensions: int


class Put(msgspec.Struct, frozen=True, kw_only=True, tag="put"):
    points: Annotated[tuple[WirePoint, ...], Meta(min_length=1, max_length=WRITE_BATCH)]


class SetText(msgspec.Struct, frozen=True, kw_only=True, tag="set_text"):
    ids: Ids
    vectors: bytes  # (N, D), row by row


class SetUntil(msgspec.Struct, frozen=True, kw_only=True, tag="set_until"):
    ids: Ids
    condition: Condition
    generation: Annotated[int, Meta(ge=1, le=ALIVE)]


class Delete(msgspec.Struct, frozen=True, kw_only=True, tag="delete"):
    ids: Ids
    condition: Condition


class Flush(msgspec.Struct, frozen=True, kw_only=True, tag="flush"):
    pass


class ListIds(msgspec.Struct, frozen=True, kw_only=True, tag="ids"):
    condition: Condition
    after: Annotated[str, _ID] | None
    limit: Limit


class ReadPayloads(msgspec.Struct, frozen=True, kw_only=True, tag="payloads"):
    condition: Condition
    limit: Limit


class ReadPoints(msgspec.Struct, frozen=True, kw_only=True, tag="points"):
    condition: Condition
    after: Annotated[str, _ID] | None
    limit: Limit


class ReadFacts(msgspec.Struct, frozen=True, kw_only=True, tag="facts"):
    pass


class ReadStructures(msgspec.Struct, frozen=True, kw_only=True, tag="structures"):
    condition: Condition
    limit: Limit


class ReadTexts(msgspec.Struct, frozen=True, kw_only=True, tag="texts"):
    names: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=WRITE_BATCH)]


class Count(msgspec.Struct, frozen=True, kw_only=True, tag="count"):
    condition: Condition


class CountBy(msgspec.Struct, frozen=True, kw_only=True, tag="counts"):
    field: Annotated[str, Meta(max_length=64)]
    condition: Condition


class FindNearest(msgspec.Struct, frozen=True, kw_only=True, tag="nearest"):
    name: VectorName
    vector: bytes | WireSparse
    condition: Condition
    limit: Limit


Question = (
    Greet
    | Put
    | SetText
    | SetUntil
    | Delete
    | Flush
    | ListIds
    | ReadPayloads
    | ReadPoints
    | ReadFacts
    | ReadStructures
    | ReadTexts
    | Count
    | CountBy
    | FindNearest
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question on its way. ``begin_by``: Unix time after which nobody waits for it any more."""

    format: int
    begin_by: float
    question: msgspec.Raw


# Answers


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It was done. A write is in the store's log."""


class FoundIds(msgspec.Struct, frozen=True, kw_only=True, tag="ids"):
    ids: list[str]
    after: str | None


class FoundPayloads(msgspec.Struct, frozen=True, kw_only=True, tag="payloads"):
    payloads: list[Payload]


class FoundPoints(msgspec.Struct, frozen=True, kw_only=True, tag="points"):
    points: list[WirePoint]
    after: str | None


class FoundFacts(msgspec.Struct, frozen=True, kw_only=True, tag="facts"):
    facts: StoreFacts


class FoundStructures(msgspec.Struct, frozen=True, kw_only=True, tag="structures"):
    vectors: list[bytes]


class FoundTexts(msgspec.Struct, frozen=True, kw_only=True, tag="texts"):
    vectors: dict[str, bytes]


class Counted(msgspec.Struct, frozen=True, kw_only=True, tag="count"):
    number: int


class CountedBy(msgspec.Struct, frozen=True, kw_only=True, tag="counts"):
    numbers: dict[str | int, int]


class FoundHits(msgspec.Struct, frozen=True, kw_only=True, tag="hits"):
    hits: list[Hit]


class TooLarge(msgspec.Struct, frozen=True, kw_only=True, tag="too_large"):
    """The answer would have ``size`` bytes, more than MESSAGE_BYTES_MAX: ask for less at once."""

    size: int


class Late(msgspec.Struct, frozen=True, kw_only=True, tag="late"):
    """It came after its ``begin_by``; nothing was done."""

    seconds: float


class Missing(msgspec.Struct, frozen=True, kw_only=True, tag="missing"):
    """As PointsMissing."""

    number: int


class OtherLength(msgspec.Struct, frozen=True, kw_only=True, tag="other_length"):
    """As DimensionMismatch: the store's text vectors have another length."""

    dimensions: int


class Closing(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """The owner is going; another will be there."""


class Full(msgspec.Struct, frozen=True, kw_only=True, tag="full"):
    """As StoreFull."""

    sentence: str


class Declined(msgspec.Struct, frozen=True, kw_only=True, tag="declined"):
    """It was not done, and another try will not change that; but an owner of the same release may do it."""

    sentence: str
    other_release: bool = False


Answer = (
    Done
    | FoundIds
    | FoundPayloads
    | FoundPoints
    | FoundFacts
    | FoundStructures
    | FoundTexts
    | Counted
    | CountedBy
    | FoundHits
    | TooLarge
    | Late
    | Missing
    | OtherLength
    | Closing
    | Full
    | Declined
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_ASKED: Final = msgspec.msgpack.Decoder(Asked)
_QUESTIONS: Final[msgspec.msgpack.Decoder[Question]] = msgspec.msgpack.Decoder(Question)
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


class Unreadable(Exception):
    """The bytes are no question, or no answer, of this release."""


def encode_question(question: Question) -> bytes:
    return _ENCODER.encode(question)


def enveloped(question: bytes, begin_by: float) -> bytes:
    """An encoded *question*, to be sent."""
    return _ENCODER.encode(Asked(format=FORMAT, begin_by=begin_by, question=msgspec.Raw(question)))


def open_envelope(payload: bytes) -> Asked:
    """What was sent. Raises Unreadable."""
    try:
        return _ASKED.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def decode_question(question: msgspec.Raw) -> Question:
    """The question, its sizes within their limits. Raises Unreadable."""
    try:
        found = _QUESTIONS.decode(question)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    match found:
        case (
            SetUntil()
            | Delete()
            | ListIds()
            | ReadPayloads()
            | ReadPoints()
            | ReadStructures()
            | Count()
            | CountBy()
            | FindNearest()
        ):
            if _parts(found.condition, CONDITION_DEPTH_MAX) > CONDITION_PARTS_MAX:
                raise Unreadable(f"a condition has at most {CONDITION_PARTS_MAX} parts")
        case _:
            pass
    return found


def encode_answer(answer: Answer) -> bytes:
    return _ENCODER.encode(answer)


def decode_answer(payload: bytes) -> Answer:
    """Raises Unreadable."""
    try:
        return _ANSWERS.decode(payload)
    except msgspec.DecodeError as error:
        raise Unreadable(str(error)) from error


class _EncodedPut(msgspec.Struct, frozen=True, kw_only=True, tag="put"):
    """A Put whose points are encoded already, so that each is encoded once and its size known."""

    points: list[msgspec.Raw]


def puts(points: Sequence[Point]) -> Iterator[bytes]:
    """*points* as encoded questions of about PART_BYTES; a point that is larger has one for itself."""
    part: list[msgspec.Raw] = []
    size = 0
    for point in points:
        encoded = _ENCODER.encode(to_wire(point))
        if part and (size + len(encoded) > PART_BYTES or len(part) == WRITE_BATCH):
            yield _ENCODER.encode(_EncodedPut(points=part))
            part, size = [], 0
        part.append(msgspec.Raw(encoded))
        size += len(encoded)
    if part:
        yield _ENCODER.encode(_EncodedPut(points=part))


def set_texts(ids: Sequence[str], vectors: Floats) -> Iterator[bytes]:
    """The (N, D) *vectors* of *ids* as encoded questions of about PART_BYTES."""
    size = max(1, min(PAGE, PART_BYTES // (_ID_BYTES + 4 * vectors.shape[1])))
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        yield _ENCODER.encode(SetText(ids=tuple(ids[part]), vectors=to_bytes(vectors[part])))


def points_of(points: Iterable[WirePoint]) -> list[Point]:
    """The points, whose text vectors may have any length up to DIMENSIONS_MAX. Raises Unreadable."""
    return [
        Point(
            id=point.id,
            payload=point.payload,
            code_bm25=None if point.code_bm25 is None else sparse_of(point.code_bm25),
            text_vector=None if point.text is None else _text_of(point.text),
            structure=None
            if point.structure is None
            else floats_of(point.structure, 1, STRUCTURE_DIMENSIONS)[0],
        )
        for point in points
    ]


def _text_of(data: bytes) -> Floats:
    length = len(data) // 4
    if not 0 < length <= DIMENSIONS_MAX:
        raise Unreadable(f"a text vector has from 1 to {DIMENSIONS_MAX} numbers")
    vector: Floats = floats_of(data, 1, length)[0]
    return vector


def to_bytes(vectors: Floats) -> bytes:
    return np.ascontiguousarray(vectors, dtype="<f4").tobytes()


def floats_of(data: bytes, rows: int, dimensions: int) -> Floats:
    """*data* as (rows, dimensions) finite numbers. Raises Unreadable."""
    if len(data) != 4 * rows * dimensions:
        raise Unreadable(f"{rows} vectors of {dimensions} numbers take another number of bytes")
    vectors = np.frombuffer(data, dtype="<f4").reshape(rows, dimensions).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise Unreadable("a vector holds NaN or infinity")
    return vectors


def to_wire_sparse(vector: SparseVector) -> WireSparse:
    return WireSparse(
        indices=np.asarray(vector.indices, dtype="<u4").tobytes(),
        values=np.asarray(vector.values, dtype="<f4").tobytes(),
    )


def sparse_of(vector: WireSparse) -> SparseVector:
    """Raises Unreadable where terms and weights are not as many, or no numbers."""
    if len(vector.indices) != len(vector.values) or len(vector.values) % 4:
        raise Unreadable("a sparse vector has a weight of 4 bytes for each term of 4 bytes")
    values = np.frombuffer(vector.values, dtype="<f4")
    if not np.isfinite(values).all():
        raise Unreadable("a sparse vector holds NaN or infinity")
    indices = np.frombuffer(vector.indices, dtype="<u4")
    return SparseVector(indices=tuple(indices.tolist()), values=tuple(values.tolist()))


def to_wire(point: Point) -> WirePoint:
    return WirePoint(
        id=point.id,
        payload=point.payload,
        code_bm25=None if point.code_bm25 is None else to_wire_sparse(point.code_bm25),
        text=None if point.text_vector is None else to_bytes(point.text_vector),
        structure=None if point.structure is None else to_bytes(point.structure),
    )


def _parts(condition: Condition, depth_left: int) -> int:
    """Of how many parts a condition is made. Raises Unreadable where they are nested too deeply."""
    if depth_left == 0:
        raise Unreadable(f"a condition is nested at most {CONDITION_DEPTH_MAX} deep")
    parts: Iterable[Any] = condition.conditions if isinstance(condition, AllOf | AnyOf) else ()
    return 1 + sum(_parts(part, depth_left - 1) for part in parts)
