"""The language of OpenAI's embeddings: a request, an answer that is believed only when it is right. Pure.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from pharos_embedder.provider.endpoint import DIMENSIONS_MAX

BYTES_PER_NUMBER_MAX: Final = 32  # of a float written out in JSON, its comma included
_CODE: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class AnswerInvalid(Exception):
    """An answer that is not what was asked for; the text is a clause."""


class _Item(msgspec.Struct, frozen=True):
    embedding: list[float] | str
    index: int


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Body(msgspec.Struct, frozen=True):
    data: list[_Item]
    usage: _Usage | None = None


class Answer(msgspec.Struct, frozen=True):
    """``vectors``: (N, D) float32 of unit length, in the order of the inputs; ``tokens`` as the server counts
    them, 0 where it does not say.
    """

    vectors: NDArray[np.float32]
    tokens: int


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says is left, and in how many seconds all is there again; None: it does not say."""

    requests_left: int | None = None
    requests_reset_seconds: float | None = None
    tokens_left: int | None = None
    tokens_reset_seconds: float | None = None


def request_body(model: str, texts: Sequence[str], *, dimensions: int = 0, packed: bool = True) -> bytes:
    """*packed*: vectors as base64, a fourth of the bytes of written numbers. *dimensions* 0: the model's."""
    body: dict[str, Any] = {
        "model": model,
        "input": [text or " " for text in texts],  # an empty input is refused by some
        "encoding_format": "base64" if packed else "float",
    }
    if dimensions:
        body["dimensions"] = dimensions
    return msgspec.json.encode(body)


def answer_bytes_max(inputs: int, dimensions: int) -> int:
    """The largest answer that is read, for *dimensions* numbers a vector (0: nobody knows yet)."""
    return 65_536 + inputs * ((dimensions or DIMENSIONS_MAX) * BYTES_PER_NUMBER_MAX + 256)


def read_answer(body: bytes, count: int, dimensions: int) -> Answer:
    """The vectors of *count* inputs, each of *dimensions* numbers (0: all alike). Raises AnswerInvalid."""
    try:
        read = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise AnswerInvalid("it is not an answer to a request for embeddings") from None
    if len(read.data) != count:
        raise AnswerInvalid(f"it has {len(read.data)} vectors for {count} inputs")
    if {item.index for item in read.data} != set(range(count)):
        raise AnswerInvalid("its vectors are not numbered as the inputs are")
    rows: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * count
    for item in read.data:
        rows[item.index] = _numbers(item.embedding)
    width = dimensions or len(rows[0])
    for row in rows:
        if len(row) != width or width == 0:
            raise AnswerInvalid(f"it has a vector of {len(row)} numbers, not of {width}")
    vectors = np.stack(rows).astype(np.float64)  # the squares of large numbers are finite there
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise AnswerInvalid("it has a number that is none")
    if not norms.all():
        raise AnswerInvalid("it has a vector without a direction")
    usage = read.usage or _Usage()
    return Answer((vectors / norms).astype(np.float32), usage.total_tokens or usage.prompt_tokens)


def _numbers(embedding: list[float] | str) -> NDArray[np.float32]:
    if isinstance(embedding, list):
        with np.errstate(over="ignore"):  # what is too large is found to be infinite
            return np.array(embedding, dtype=np.float32)
    try:
        packed = base64.b64decode(embedding, validate=True)
    except (binascii.Error, ValueError):
        raise AnswerInvalid("it has a vector that is not base64") from None
    if len(packed) % 4:
        raise AnswerInvalid("it has a vector that ends within a number")
    return np.frombuffer(packed, dtype="<f4")


def error_code(body: bytes) -> str:
    """The code of an error, where it looks like one; never its message, which may repeat what was sent."""
    try:
        error = msgspec.json.decode(body)["error"]
        found = [error.get(name) for name in ("code", "type")]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    return next((each for each in found if isinstance(each, str) and _CODE.fullmatch(each)), "")


def allowance_of(headers: Mapping[str, str]) -> Allowance:
    """What the `x-ratelimit-…` headers of an answer say; names in lower case."""
    return Allowance(
        requests_left=_count(headers.get("x-ratelimit-remaining-requests")),
        requests_reset_seconds=duration(headers.get("x-ratelimit-reset-requests")),
        tokens_left=_count(headers.get("x-ratelimit-remaining-tokens")),
        tokens_reset_seconds=duration(headers.get("x-ratelimit-reset-tokens")),
    )


def duration(text: str | None) -> float | None:
    """The seconds of `20ms`, `1s`, `6m0s`, `1h2m3.5s` or a bare number; None for anything else."""
    if text is None or len(text) > 32 or not text.isascii():
        return None
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(f"(?:{_DURATION_PART.pattern})+", text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
