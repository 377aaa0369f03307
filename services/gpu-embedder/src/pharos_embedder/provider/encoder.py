"""The server as an encoder: for threads that block, with a loop of its own that asks.

`Provider` is the connection, opened once a process; `ProviderEncoder` is what indexing and search see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Final

import anyio
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal
from numpy.typing import NDArray

from pharos_embedder.costs import Tariff, tokens_of
from pharos_embedder.encoders import OnBatch, Priority, Progress
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.provider.client import Client, Embedded, Patience
from pharos_embedder.provider.endpoint import Endpoint
from pharos_embedder.provider.errors import ProviderUnavailable, RequestStopped
from pharos_embedder.provider.pacing import POLL_SECONDS, Stop

WINDOW_REQUESTS: Final = 8
"""Requests one after the other between two checkpoints: at their end the places at the server are idle."""

QUERY_SECONDS: Final = 5.0
"""The longest that a search waits for the vector of its query, repeats included: it goes by words then."""


class Provider:
    """The connection to a server that encodes. Use it as a context manager: it has a thread."""

    def __init__(self, endpoint: Endpoint, tariff: Tariff, *, patience: Patience | None = None) -> None:
        self._endpoint = endpoint
        self._tariff = tariff
        self._patience = patience
        self._opened = ExitStack()

    def __enter__(self) -> Provider:
        with ExitStack() as opened:
            self._portal = opened.enter_context(start_blocking_portal())
            opened.callback(self._portal.call, self._portal.stop, True)  # whoever still waits for an answer
            self._client = self._portal.call(self._open)
            opened.callback(self._portal.call, self._client.__aexit__, None, None, None)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    async def _open(self) -> Client:
        return await Client(self._endpoint, patience=self._patience).__aenter__()

    def encoder(self) -> ProviderEncoder:
        """What the server encodes with, found out by asking for one vector. Blocks; raises ProviderError."""
        dimensions = self._portal.call(self._client.probe)
        return ProviderEncoder(self._portal, self._client, dimensions, self._tariff)


class ProviderEncoder:
    """Vectors from a server; a `TextEncoder`. Several threads may use it."""

    def __init__(
        self,
        portal: BlockingPortal,
        client: Client,
        dimensions: int,
        tariff: Tariff,
        *,
        query_seconds: float = QUERY_SECONDS,
    ) -> None:
        endpoint = client.endpoint
        self.version: Final = endpoint.version(dimensions)
        self.dimensions: Final = dimensions
        self.token_budget: Final = endpoint.request_tokens
        self.window_texts: Final = WINDOW_REQUESTS * endpoint.requests_at_once * endpoint.inputs_max
        self.tariff: Final = tariff
        self._input_tokens_max = endpoint.input_tokens_max
        self._at_once = endpoint.requests_at_once
        self._portal = portal
        self._client = client
        self._query_seconds = query_seconds

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
        """See `TextEncoder`. *token_budget* bounds a request; the budget of a server does not shrink.

        After what *check* raises, what was sent is still waited for, since it is paid for; after what
        *midway* raises it is not. Raises ProviderError as well.
        """
        cut = [shortened(text, self._input_tokens_max) for text in texts]
        tokens = [tokens_of(text) for text in cut]
        budget = self.token_budget if token_budget is None else token_budget
        vectors = np.empty((len(cut), self.dimensions), dtype=np.float32)
        waiting = iter(_requests(tokens, lambda: self._client.inputs_max, budget))
        running: dict[Future[Embedded], list[int]] = {}
        stop, ended, done = Stop(), False, 0
        failure: BaseException | None = None
        try:
            while True:
                midway()
                if failure is None:
                    try:
                        check()
                    except BaseException as error:
                        failure = error
                        stop.asked = True
                while failure is None and not ended and len(running) < self._at_once:
                    places = next(waiting, None)
                    if places is None:
                        ended = True
                        break
                    batch = [cut[place] for place in places]
                    asked = self._portal.start_task_soon(self._client.embed, batch, priority, stop)
                    running[asked] = places
                if not running:
                    break
                for future in wait(running, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done:
                    places = running.pop(future)
                    try:
                        vectors[places] = future.result().vectors
                    except RequestStopped:
                        continue
                    except Exception as error:
                        failure = failure or error
                        stop.asked = True
                        continue
                    done += len(places)
                    if on_batch is not None:
                        on_batch(places, vectors[places])
                    if on_progress is not None:
                        on_progress(done, len(cut))
        finally:
            _cancel(running)
        if failure is not None:
            raise failure
        return vectors

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `TextEncoder`. Before all documents. Raises ProviderError."""
        cut = [shortened(text, self._input_tokens_max) for text in texts]
        tokens = [tokens_of(text) for text in cut]
        vectors = np.empty((len(cut), self.dimensions), dtype=np.float32)
        found = self._portal.call(self._ask_queries, cut, tokens)
        for places, answer in found:
            vectors[places] = answer.vectors
        return vectors

    async def _ask_queries(
        self, texts: Sequence[str], tokens: Sequence[int]
    ) -> list[tuple[list[int], Embedded]]:
        found = []
        with anyio.move_on_after(self._query_seconds) as limit:
            for places in _requests(tokens, lambda: self._client.inputs_max, self.token_budget):
                batch = [texts[place] for place in places]
                found.append((places, await self._client.embed(batch, Priority.QUERY, Stop())))
        if limit.cancelled_caught:
            raise ProviderUnavailable(
                self._client.endpoint.host, f"no answer within {self._query_seconds:g} s"
            )
        return found


def shortened(text: str, tokens_max: int) -> str:
    """The longest beginning of *text* that is estimated to be at most *tokens_max* tokens."""
    if len(text) <= tokens_max or tokens_of(text) <= tokens_max:
        return text
    low, high = tokens_max, len(text)  # no character counts more than one token
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokens_of(text[:middle]) <= tokens_max else (low, middle)
    return text[:low]


def _requests(tokens: Sequence[int], inputs_max: Callable[[], int], tokens_max: int) -> Iterable[list[int]]:
    """Indexes of *tokens* in order, so many together as one request may have; *inputs_max* may shrink."""
    current: list[int] = []
    total = 0
    for place, size in enumerate(tokens):
        if current and (len(current) >= inputs_max() or total + size > tokens_max):
            yield current
            current, total = [], 0
        current.append(place)
        total += size
    if current:
        yield current


def _cancel(running: Iterable[Future[Embedded]]) -> None:
    """End what is under way, and wait for that: whoever stops leaves nothing behind."""
    futures = list(running)
    for future in futures:
        future.cancel()
    wait(futures)
