"""The two clients: ``Pharos`` blocks, ``AsyncPharos`` awaits. They send the same calls.

What a call takes, sends and answers is said once, in ``requests``.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import anyio
import httpx
import msgspec

from pharos_client import errors, requests
from pharos_client.errors import PharosError
from pharos_client.models import Event
from pharos_client.requests import Call
from pharos_client.resuming import Resumption
from pharos_client.sse import EventTooLarge, Parser, ServerSentEvent

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])

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


def _blocking(build: Callable[P, Call[T]]) -> Callable[Concatenate[Pharos, P], T]:
    """A method of the blocking client that sends the call which *build* makes."""

    def method(self: Pharos, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(build(*args, **kwargs))

    return _described(method, build)


def _awaiting(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncPharos, P], Coroutine[Any, Any, T]]:
    """The same for the one that awaits."""

    async def method(self: AsyncPharos, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(build(*args, **kwargs))

    return _described(method, build)


def _described(method: M, build: Callable[..., Call[Any]]) -> M:
    """*method* as help shows it: with name, documentation and, behind ``self``, parameters of *build*."""
    parameters = inspect.signature(build).parameters.values()
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__name__ = method.__qualname__ = build.__name__
    method.__doc__ = build.__doc__
    vars(method)["__signature__"] = inspect.Signature([itself, *parameters])
    return method


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

    submit_repository = _blocking(requests.submit_repository)
    job = _blocking(requests.job)
    jobs = _blocking(requests.jobs)
    pause = _blocking(requests.pause)
    resume = _blocking(requests.resume)
    cancel = _blocking(requests.cancel)
    retry = _blocking(requests.retry)
    history = _blocking(requests.history)
    worker_status = _blocking(requests.worker_status)
    workers = _blocking(requests.workers)
    datasets = _blocking(requests.datasets)
    search = _blocking(requests.search)
    queue = _blocking(requests.queue)
    dead_letters = _blocking(requests.dead_letters)
    dead_letter = _blocking(requests.dead_letter)
    replay_dead_letter = _blocking(requests.replay_dead_letter)
    purge_dead_letter = _blocking(requests.purge_dead_letter)
    purge_dead_letters = _blocking(requests.purge_dead_letters)
    schedules = _blocking(requests.schedules)
    schedule = _blocking(requests.schedule)
    add_schedule = _blocking(requests.add_schedule)
    remove_schedule = _blocking(requests.remove_schedule)
    keys = _blocking(requests.keys)
    create_key = _blocking(requests.create_key)
    rotate_key = _blocking(requests.rotate_key)
    disable_key = _blocking(requests.disable_key)
    delete_key = _blocking(requests.delete_key)
    callback_secret = _blocking(requests.callback_secret)
    health = _blocking(requests.health)

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

    submit_repository = _awaiting(requests.submit_repository)
    job = _awaiting(requests.job)
    jobs = _awaiting(requests.jobs)
    pause = _awaiting(requests.pause)
    resume = _awaiting(requests.resume)
    cancel = _awaiting(requests.cancel)
    retry = _awaiting(requests.retry)
    history = _awaiting(requests.history)
    worker_status = _awaiting(requests.worker_status)
    workers = _awaiting(requests.workers)
    datasets = _awaiting(requests.datasets)
    search = _awaiting(requests.search)
    queue = _awaiting(requests.queue)
    dead_letters = _awaiting(requests.dead_letters)
    dead_letter = _awaiting(requests.dead_letter)
    replay_dead_letter = _awaiting(requests.replay_dead_letter)
    purge_dead_letter = _awaiting(requests.purge_dead_letter)
    purge_dead_letters = _awaiting(requests.purge_dead_letters)
    schedules = _awaiting(requests.schedules)
    schedule = _awaiting(requests.schedule)
    add_schedule = _awaiting(requests.add_schedule)
    remove_schedule = _awaiting(requests.remove_schedule)
    keys = _awaiting(requests.keys)
    create_key = _awaiting(requests.create_key)
    rotate_key = _awaiting(requests.rotate_key)
    disable_key = _awaiting(requests.disable_key)
    delete_key = _awaiting(requests.delete_key)
    callback_secret = _awaiting(requests.callback_secret)
    health = _awaiting(requests.health)

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
