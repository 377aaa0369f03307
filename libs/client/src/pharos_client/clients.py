"""The two clients: ``Pharos`` blocks, ``AsyncPharos`` awaits. They send the same calls."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

import anyio
import httpx
import msgspec

from pharos_client import errors, requests
from pharos_client.errors import PharosError
from pharos_client.models import (
    Dataset,
    Event,
    Health,
    History,
    Job,
    JobPage,
    SearchAnswer,
    Submitted,
    Worker,
    WorkerStatus,
)
from pharos_client.requests import Call
from pharos_client.resuming import Resumption
from pharos_client.sse import EventTooLarge, Parser, ServerSentEvent

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 30.0
EVENTS_SILENCE_SECONDS: Final = 45.0  # the gateway sends a comment every 15 s
READY_SECONDS: Final = 3.0

CONNECTION_OPEN: Final = "connection.open"
CONNECTION_LOST: Final = "connection.lost"
OPEN: Final = ServerSentEvent(event=CONNECTION_OPEN, data="")
NO_MORE: Final = ServerSentEvent(event="connection.no_more", data="")


def _headers(token: str | None) -> dict[str, str]:
    common = {"User-Agent": "pharos-client", "Accept": "application/json"}
    return common if token is None else {**common, "Authorization": f"Bearer {token}"}


def _arguments(call: Call[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"headers": call.headers}
    if call.query:
        found["params"] = call.query
    if call.body is not None:
        found["content"] = msgspec.json.encode(call.body)
        found["headers"] = {**call.headers, "Content-Type": "application/json"}
    return found


def _event(received: ServerSentEvent) -> Event:
    try:
        decoded = msgspec.json.decode(received.data)
    except msgspec.DecodeError:
        decoded = received.data
    data = decoded if isinstance(decoded, dict) else {"value": decoded}
    return Event(name=received.event, data=data, id=received.id)


def _stream_timeout() -> httpx.Timeout:
    return httpx.Timeout(TIMEOUT_SECONDS, read=EVENTS_SILENCE_SECONDS)


class Pharos:
    """A blocking client. Use it in a ``with`` block, or call ``close``.

    Every method raises PharosError, with the gateway's sentence, where it refuses or does not answer.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, headers=_headers(token), timeout=timeout, transport=transport, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Pharos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        try:
            response = self._http.request(call.method, call.path, **_arguments(call))
        except httpx.HTTPError as error:
            raise errors.unreachable(self.url, error) from error
        return call.read(response)

    def submit_repository(
        self,
        repository: str,
        *,
        branch: str | None = None,
        ref: str | None = None,
        force: bool = False,
        priority: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Ask for *repository* (a URL, or ``host/owner/name``) to be indexed."""
        return self._send(
            requests.submit_repository(
                repository,
                branch=branch,
                ref=ref,
                force=force,
                priority=priority,
                idempotency_key=idempotency_key,
            )
        )

    def job(self, job_id: str | int) -> Job:
        """A job by its UUID or its number."""
        return self._send(requests.job(job_id))

    def jobs(
        self, *, limit: int = 20, cursor: str | int | None = None, states: Sequence[str] = ()
    ) -> JobPage:
        """The newest jobs that the key may see."""
        return self._send(requests.jobs(limit=limit, cursor=cursor, states=states))

    def history(self, limit: int = 10) -> History:
        """The public history of ingestion; *limit* is 1 to 100."""
        return self._send(requests.history(limit))

    def worker_status(self) -> WorkerStatus:
        """What the workers do; needs no token."""
        return self._send(requests.worker_status())

    def workers(self) -> tuple[Worker, ...]:
        """Every live worker."""
        return self._send(requests.workers())

    def datasets(self) -> tuple[Dataset, ...]:
        """What can be searched."""
        return self._send(requests.datasets())

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        project: str | None = None,
        datasets: Sequence[str] = (),
        repository: str | None = None,
        languages: Sequence[str] = (),
        path_prefix: str | None = None,
        mode: str | None = None,
        threshold: float | None = None,
    ) -> SearchAnswer:
        """The *k* files that answer *query* best; *mode* is ``hybrid``, ``dense`` or ``lexical``."""
        return self._send(
            requests.search(
                query,
                k=k,
                project=project,
                datasets=datasets,
                repository=repository,
                languages=languages,
                path_prefix=path_prefix,
                mode=mode,
                threshold=threshold,
            )
        )

    def health(self) -> Health:
        """How the gateway fares, also when that is badly."""
        return self._send(requests.health())

    def not_ready(self) -> str | None:
        """None when a submit would succeed, else why it would not."""
        try:
            response = self._http.get("/readyz", timeout=READY_SECONDS)
        except httpx.HTTPError as error:
            return errors.unreachable(self.url, error).detail
        return _reason(response)

    def events(
        self,
        job_id: str | int | None = None,
        *,
        last_event_id: str | None = None,
        connection_events: bool = False,
    ) -> Iterator[Event]:
        """What happens, as it happens, across restarts of the gateway: each state event once, in order.

        Of one job, until it ends; otherwise for ever. With *connection_events*, ``connection.open`` and
        ``connection.lost`` are told too, so that a reader can look anew at what it missed. PharosError when
        the gateway refuses, or stays away for two minutes.
        """
        resumption = Resumption(last_event_id)
        while True:
            lost: PharosError | None = None
            try:
                for received in self._connection(job_id, resumption):
                    if received is NO_MORE:
                        return
                    if received is OPEN:
                        if connection_events:
                            yield Event(name=CONNECTION_OPEN, data={})
                        continue
                    if not resumption.is_new(received):
                        continue
                    event = _event(received)
                    yield event
                    if job_id is not None and event.ends_job:
                        return
            except (httpx.HTTPError, EventTooLarge) as error:
                lost = errors.unreachable(self.url, error)
            except PharosError as error:
                lost = error
            if connection_events:
                yield Event(name=CONNECTION_LOST, data={})
            time.sleep(resumption.wait_seconds(time.monotonic(), lost))

    def _connection(
        self,
        job_id: str | int | None,
        resumption: Resumption,
    ) -> Iterator[ServerSentEvent]:
        headers = {**resumption.headers(), "Accept": "text/event-stream"}
        with self._http.stream(
            "GET", requests.events_path(job_id), headers=headers, timeout=_stream_timeout()
        ) as response:
            if response.status_code >= 400:
                raise errors.from_response(response.status_code, response.read(), response.headers)
            if response.status_code == 204:  # the standard's word for: do not come back
                yield NO_MORE
                return
            yield OPEN
            parser = Parser()
            for chunk in response.iter_bytes():
                resumption.connected()
                yield from parser.feed(chunk)


class AsyncPharos:
    """The same client for ``async`` code. Use it in an ``async with`` block, or call ``aclose``."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=_headers(token), timeout=timeout, transport=transport, trust_env=False
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncPharos:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: Call[T]) -> T:
        try:
            response = await self._http.request(call.method, call.path, **_arguments(call))
        except httpx.HTTPError as error:
            raise errors.unreachable(self.url, error) from error
        return call.read(response)

    async def submit_repository(
        self,
        repository: str,
        *,
        branch: str | None = None,
        ref: str | None = None,
        force: bool = False,
        priority: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Ask for *repository* (a URL, or ``host/owner/name``) to be indexed."""
        return await self._send(
            requests.submit_repository(
                repository,
                branch=branch,
                ref=ref,
                force=force,
                priority=priority,
                idempotency_key=idempotency_key,
            )
        )

    async def job(self, job_id: str | int) -> Job:
        """A job by its UUID or its number."""
        return await self._send(requests.job(job_id))

    async def jobs(
        self, *, limit: int = 20, cursor: str | int | None = None, states: Sequence[str] = ()
    ) -> JobPage:
        """The newest jobs that the key may see."""
        return await self._send(requests.jobs(limit=limit, cursor=cursor, states=states))

    async def history(self, limit: int = 10) -> History:
        """The public history of ingestion; *limit* is 1 to 100."""
        return await self._send(requests.history(limit))

    async def worker_status(self) -> WorkerStatus:
        """What the workers do; needs no token."""
        return await self._send(requests.worker_status())

    async def workers(self) -> tuple[Worker, ...]:
        """Every live worker."""
        return await self._send(requests.workers())

    async def datasets(self) -> tuple[Dataset, ...]:
        """What can be searched."""
        return await self._send(requests.datasets())

    async def search(
        self,
        query: str,
        *,
        k: int = 10,
        project: str | None = None,
        datasets: Sequence[str] = (),
        repository: str | None = None,
        languages: Sequence[str] = (),
        path_prefix: str | None = None,
        mode: str | None = None,
        threshold: float | None = None,
    ) -> SearchAnswer:
        """The *k* files that answer *query* best; *mode* is ``hybrid``, ``dense`` or ``lexical``."""
        return await self._send(
            requests.search(
                query,
                k=k,
                project=project,
                datasets=datasets,
                repository=repository,
                languages=languages,
                path_prefix=path_prefix,
                mode=mode,
                threshold=threshold,
            )
        )

    async def health(self) -> Health:
        """How the gateway fares, also when that is badly."""
        return await self._send(requests.health())

    async def not_ready(self) -> str | None:
        """None when a submit would succeed, else why it would not."""
        try:
            response = await self._http.get("/readyz", timeout=READY_SECONDS)
        except httpx.HTTPError as error:
            return errors.unreachable(self.url, error).detail
        return _reason(response)

    async def events(
        self,
        job_id: str | int | None = None,
        *,
        last_event_id: str | None = None,
        connection_events: bool = False,
    ) -> AsyncIterator[Event]:
        """As `Pharos.events`."""
        resumption = Resumption(last_event_id)
        while True:
            lost: PharosError | None = None
            try:
                async for received in self._connection(job_id, resumption):
                    if received is NO_MORE:
                        return
                    if received is OPEN:
                        if connection_events:
                            yield Event(name=CONNECTION_OPEN, data={})
                        continue
                    if not resumption.is_new(received):
                        continue
                    event = _event(received)
                    yield event
                    if job_id is not None and event.ends_job:
                        return
            except (httpx.HTTPError, EventTooLarge) as error:
                lost = errors.unreachable(self.url, error)
            except PharosError as error:
                lost = error
            if connection_events:
                yield Event(name=CONNECTION_LOST, data={})
            await anyio.sleep(resumption.wait_seconds(time.monotonic(), lost))

    async def _connection(
        self,
        job_id: str | int | None,
        resumption: Resumption,
    ) -> AsyncIterator[ServerSentEvent]:
        headers = {**resumption.headers(), "Accept": "text/event-stream"}
        async with self._http.stream(
            "GET", requests.events_path(job_id), headers=headers, timeout=_stream_timeout()
        ) as response:
            if response.status_code >= 400:
                raise errors.from_response(response.status_code, await response.aread(), response.headers)
            if response.status_code == 204:  # the standard's word for: do not come back
                yield NO_MORE
                return
            yield OPEN
            parser = Parser()
            async for chunk in response.aiter_bytes():
                resumption.connected()
                for event in parser.feed(chunk):
                    yield event


def _reason(response: httpx.Response) -> str | None:
    if response.status_code == 200:
        return None
    return errors.from_response(response.status_code, response.content, response.headers).detail
