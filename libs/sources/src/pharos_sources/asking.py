"""Asking a storage service over HTTP: how often, how patiently, and what its failures are called."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import anyio

from pharos_sources.source import EntryRefused, SourceError, SourceRefused, SourceUnavailable
from pharos_sources.web_errors import AnswerTooLarge, AnswerUnreadable, WebError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a question is asked again, and for how long.

    The n-th wait is a random part of `first_seconds` doubled n times, at most `wait_seconds_max`; a service
    that asks for a longer one is taken at its word, and not waited for. `seconds_max` bounds all waits of one
    question together.
    """

    tries_max: int = 6
    first_seconds: float = 1.0
    wait_seconds_max: float = 32.0
    seconds_max: float = 90.0


async def patiently(
    ask: Callable[[], Awaitable[T]],
    patience: Patience,
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    chance: Callable[[], float] = random.random,
) -> T:
    """What *ask* returns, asked again after every `SourceUnavailable` until *patience* is at its end.

    The waits are "full jitter" with exponential growth, so that many workers do not come back together.
    """
    waited = 0.0
    for tries in range(1, patience.tries_max + 1):
        try:
            return await ask()
        except SourceUnavailable as unavailable:
            asked = unavailable.retry_after_seconds or 0.0
            growing = min(patience.wait_seconds_max, patience.first_seconds * 2.0 ** (tries - 1))
            wait = max(asked, growing * chance())
            too_long = asked > patience.wait_seconds_max or waited + wait > patience.seconds_max
            if tries == patience.tries_max or too_long:
                raise
            await sleep(wait)
            waited += wait
    raise AssertionError("a question is asked at least once")


def retry_after(header: str | None, *, now: datetime | None = None) -> float | None:
    """The seconds that a `Retry-After` header asks for: a number or a date; None where it says neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (OverflowError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def from_web(error: WebError, file_id: str | None = None) -> SourceError:
    """*error* of the guarded transport, as a source tells it; of one file where it is about its bytes."""
    sentence = str(error)
    clause = sentence[:1].lower() + sentence[1:]
    if error.transient:
        return SourceUnavailable(clause)
    if file_id is not None and isinstance(error, AnswerTooLarge | AnswerUnreadable):
        return EntryRefused(file_id, clause)
    return SourceRefused(clause)


async def body_of(answer: httpx.Response, file_id: str) -> AsyncIterator[bytes]:
    """The bytes of a streamed *answer*. Raises `SourceError`."""
    try:
        async for piece in answer.aiter_bytes():
            yield piece
    except WebError as error:
        raise from_web(error, file_id) from None
