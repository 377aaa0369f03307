"""Asking the server: how often, how patiently, and what becomes of inputs that it finds too many or too long.

What one request may not hold is halved, and then remembered; an input that is too long by itself is cut. The
same texts in the same order make the same requests.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

import anyio
import httpx
import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from pharos_embedder.costs import tokens_of
from pharos_embedder.encoders import Priority
from pharos_embedder.provider import protocol
from pharos_embedder.provider.endpoint import DIMENSIONS_MAX, Endpoint
from pharos_embedder.provider.errors import ProviderRefused, ProviderUnavailable
from pharos_embedder.provider.pacing import POLL_SECONDS, QUERIES_AT_ONCE, Line, Pace, Stop
from pharos_sources.asking import retry_after
from pharos_sources.transport import TransportLimits, guarded_client, read_bounded
from pharos_sources.web_errors import WebError, WebHostUnreachable

log = structlog.get_logger()

CUTS_MAX: Final = 6  # an input is halved so often, then it is refused
INVALID_ANSWERS_MAX: Final = 3  # of one request, before its server is given up
ERROR_BYTES_MAX: Final = 65_536
TOO_MUCH: Final = frozenset({400, 413, 422})
PATIENCE: Final = frozenset({408, 409, 425, 429})
QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_PROBE: Final = "Pharos"


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How often one request is sent, and how long all its waits may take.

    The n-th wait is a random part of ``first_seconds`` doubled n times; a server that says how long is
    believed up to ``wait_seconds_max``.
    """

    tries_max: int = 8
    first_seconds: float = 0.5
    wait_seconds_max: float = 120.0
    seconds_max: float = 300.0


class Embedded(msgspec.Struct, frozen=True):
    """(N, D) unit vectors, the tokens that the server counted, and how many inputs it got only in part."""

    vectors: NDArray[np.float32]
    tokens: int
    cut: int = 0


class _TryAgain(Exception):
    """It was not answered, and may be if it is asked again."""

    def __init__(self, reason: str, *, wait_seconds: float = 0.0, everybody: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.everybody = everybody  # whether others are to wait as well
        self.invalid = False


class _InputsRefused(Exception):
    """The server does not take these inputs: too many of them, or one that is too long."""

    def __init__(self, status: int, code: str) -> None:
        self.answer = f"{status} {code}".rstrip()


class Client:
    """The connections to one server; for one event loop. Use it as an async context manager."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.endpoint = endpoint
        self.inputs_max = endpoint.inputs_max
        self._patience = patience or Patience()
        self._clock = clock
        self._chance = chance
        self._dimensions = 0
        self._packed = True
        self._pace = Pace(
            requests_per_minute=endpoint.requests_per_minute, tokens_per_minute=endpoint.tokens_per_minute
        )
        self._line = Line(self._pace, at_once=endpoint.requests_at_once, clock=clock)
        self._http = guarded_client(
            endpoint.allowed,
            limits=TransportLimits(
                idle_seconds=endpoint.request_seconds,
                seconds=endpoint.request_seconds,
                connections_max=endpoint.requests_at_once + QUERIES_AT_ONCE,
                bytes_max=protocol.answer_bytes_max(endpoint.inputs_max, DIMENSIONS_MAX),
            ),
        )

    async def __aenter__(self) -> Client:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def probe(self) -> int:
        """How many dimensions the server's vectors have, by asking for one. Raises ProviderError."""
        stop, few = (
            Stop(),
            msgspec.structs.replace(self._patience, tries_max=min(2, self._patience.tries_max)),
        )
        try:
            found = await self._patiently([_PROBE], Priority.QUERY, stop, few)
        except _InputsRefused:
            # Some servers know no base64, and some refuse what they do not know.
            self._packed = False
            try:
                found = await self._patiently([_PROBE], Priority.QUERY, stop, few)
            except _InputsRefused as refused:
                raise self._refused(
                    f"refuses the first request ({refused.answer})",
                    "check OPENAI_EMBEDDING_MODEL and OPENAI_EMBEDDING_DIMENSIONS",
                ) from None
        dimensions = int(found.vectors.shape[1])
        if self.endpoint.dimensions not in (0, dimensions):
            raise self._refused(
                f"answers with vectors of {dimensions} dimensions, not of {self.endpoint.dimensions}",
                "its model cannot be cut to OPENAI_EMBEDDING_DIMENSIONS; unset that",
            )
        self._dimensions = dimensions
        return dimensions

    async def embed(self, texts: Sequence[str], priority: Priority, stop: Stop) -> Embedded:
        """The vectors of *texts*, which are one request as far as anybody knows.

        Raises ProviderError, and EncoderBusy and RequestStopped before a request is sent.
        """
        try:
            return await self._patiently(texts, priority, stop, self._patience)
        except _InputsRefused as refused:
            if len(texts) == 1:
                return await self._embed_cut(texts[0], priority, stop, refused)
        half = (len(texts) + 1) // 2
        first = await self.embed(texts[:half], priority, stop)
        second = await self.embed(texts[half:], priority, stop)
        if not first.cut and not second.cut and half < self.inputs_max:
            log.warning("provider_takes_fewer_inputs", host=self.endpoint.host, inputs_max=half)
            self.inputs_max = half
        return Embedded(
            np.concatenate([first.vectors, second.vectors]),
            first.tokens + second.tokens,
            first.cut + second.cut,
        )

    async def _embed_cut(
        self, text: str, priority: Priority, stop: Stop, refused: _InputsRefused
    ) -> Embedded:
        """One text that was refused, cut in half until it is not."""
        for _ in range(CUTS_MAX):
            text = text[: len(text) // 2]
            if not text:
                break
            try:
                found = await self._patiently([text], priority, stop, self._patience)
            except _InputsRefused as again:
                refused = again
                continue
            log.warning("provider_input_cut", host=self.endpoint.host, characters=len(text))
            return Embedded(found.vectors, found.tokens, cut=1)
        raise self._refused(
            f"refuses an input however short it is cut ({refused.answer})",
            "check OPENAI_EMBEDDING_MODEL and what the server says of it",
        )

    async def _patiently(
        self, texts: Sequence[str], priority: Priority, stop: Stop, patience: Patience
    ) -> Embedded:
        tokens = sum(tokens_of(text) for text in texts)
        waited, invalid = 0.0, 0
        for tries in range(1, patience.tries_max + 1):
            async with self._line.turn(priority, tokens, stop):
                try:
                    return await self._ask(texts)
                except _TryAgain as failed:
                    again = failed
            invalid += again.invalid
            if invalid == INVALID_ANSWERS_MAX:
                raise self._refused(
                    f"gives an answer that cannot be used, {again}", "look at the server and its model"
                )
            growing = min(patience.wait_seconds_max, patience.first_seconds * 2.0 ** (tries - 1))
            wait = max(again.wait_seconds, growing * self._chance())
            too_long = wait > patience.wait_seconds_max or waited + wait > patience.seconds_max
            if tries == patience.tries_max or too_long:
                raise ProviderUnavailable(self.endpoint.host, str(again), tries=tries)
            log.debug("provider_asked_again", host=self.endpoint.host, reason=str(again), wait=round(wait, 2))
            if again.everybody:
                self._pace.hold(self._clock(), wait)
            waited += wait
            await self._wait(wait, stop)
        raise AssertionError("a request is sent at least once")

    async def _wait(self, seconds: float, stop: Stop) -> None:
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            stop.look()
            await anyio.sleep(min(left, POLL_SECONDS))
        stop.look()

    async def _ask(self, texts: Sequence[str]) -> Embedded:
        """One request. Raises _TryAgain, _InputsRefused and ProviderRefused."""
        content = protocol.request_body(
            self.endpoint.model, texts, dimensions=self.endpoint.dimensions, packed=self._packed
        )
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key.reveal()}"
        began = self._clock()
        try:
            async with self._http.stream(
                "POST", self.endpoint.url, content=content, headers=headers
            ) as response:
                self._pace.heard(self._clock(), protocol.allowance_of(response.headers))
                if response.status_code != httpx.codes.OK:
                    raise await self._problem(response)
                size = protocol.answer_bytes_max(len(texts), self._dimensions)
                body = await read_bounded(response, size)
        except WebError as error:
            if error.transient or isinstance(error, WebHostUnreachable):
                raise _TryAgain(_clause(error)) from None
            raise self._refused("cannot be asked", f"{_clause(error)}; check OPENAI_BASE_URL") from None
        try:
            answer = protocol.read_answer(body, len(texts), self._dimensions)
        except protocol.AnswerInvalid as error:
            failed = _TryAgain(str(error))
            failed.invalid = True
            raise failed from None
        log.debug(
            "provider_answered",
            host=self.endpoint.host,
            inputs=len(texts),
            tokens=answer.tokens,
            seconds=round(self._clock() - began, 3),
        )
        return Embedded(answer.vectors, answer.tokens)

    async def _problem(self, response: httpx.Response) -> Exception:
        """What an answer that is not 200 means."""
        status = response.status_code
        try:
            code = protocol.error_code(await read_bounded(response, ERROR_BYTES_MAX))
        except WebError:
            code = ""
        if self.endpoint.key and self.endpoint.key.reveal().lower() in code.lower():
            code = ""  # some servers repeat the key that they refuse
        told = f"{status} {code}".rstrip()
        if code in QUOTA_CODES or status == httpx.codes.PAYMENT_REQUIRED:
            return self._refused(f"says that its quota is used up ({told})", "look at the account of the key")
        if status in PATIENCE or status >= 500:
            wait = retry_after(response.headers.get("retry-after")) or 0.0
            everybody = status == httpx.codes.TOO_MANY_REQUESTS
            reason = "it has had too many requests" if everybody else f"it answered {told}"
            return _TryAgain(reason, wait_seconds=wait, everybody=everybody)
        if status in TOO_MUCH:
            return _InputsRefused(status, code)
        if status in (401, 403):
            return self._refused(f"refuses the key ({told})", "check OPENAI_API_KEY")
        if status == httpx.codes.NOT_FOUND:
            return self._refused(
                f"has no model {self.endpoint.model!r}, or no embeddings at this address ({told})",
                "check OPENAI_EMBEDDING_MODEL and OPENAI_BASE_URL",
            )
        if 300 <= status < 400:
            return self._refused(f"leads elsewhere ({told})", "set OPENAI_BASE_URL to where it leads")
        return self._refused(
            f"refuses the request ({told})", "check OPENAI_BASE_URL and OPENAI_EMBEDDING_MODEL"
        )

    def _refused(self, reason: str, advice: str) -> ProviderRefused:
        return ProviderRefused(self.endpoint.host, reason, advice)


def _clause(error: Exception) -> str:
    sentence = str(error)
    return sentence[:1].lower() + sentence[1:]
