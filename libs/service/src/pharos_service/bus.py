"""One connection to the bus, and what can go wrong with it as four exceptions.

Publishing never waits in a buffer: a message buffered while disconnected would be stored after the
reconnect, although its sender had been told that it failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import PubAck

from pharos_contracts.message import encode
from pharos_service.settings import ServiceSettings

log = structlog.get_logger()

T = TypeVar("T")

REQUEST_TIMEOUT_SECONDS: Final = 1.5
API_TIMEOUT_SECONDS: Final = 2.5  # some of them look at everything that a stream holds
RECONNECT_WAIT_SECONDS: Final = 0.25

ERR_STREAM_FULL: Final = 10077
ERR_WRONG_LAST: Final = frozenset({10071, 10164})
MESSAGE_ID: Final = "Nats-Msg-Id"
MESSAGE_TTL: Final = "Nats-TTL"
MARKER: Final = "Nats-Marker-Reason"  # of what the server leaves where something expired


class BusError(Exception):
    """Base of what the bus may answer instead of doing what it was asked."""


class BusUnavailable(BusError):
    """There is no connection, or nobody there who answers for JetStream. Nothing was stored."""


class FateUnknown(BusError):
    """The connection stands but no answer came: the message may or may not be stored."""


class StreamFull(BusError):
    """The stream holds as many messages as it may."""


class WrongLastSequence(BusError):
    """A compare-and-set lost: something was written since it was read."""


class BusRefused(BusError):
    """The server refused for a reason that another try will not change."""


class NotFound(BusRefused):
    """The stream, consumer or message does not exist."""


class Stored(msgspec.Struct, frozen=True):
    """A message of a stream. ``headers`` are as stored; a tombstone or a marker says so there."""

    subject: str
    data: bytes
    sequence: int
    headers: dict[str, str]


# Whatever a call over a connection may raise when that connection, or the server behind it, has trouble.
TROUBLE: Final = (BusError, nats.errors.Error, TimeoutError, OSError)


CANCELLED_AGAIN_WITHIN: Final = 3  # turns of the loop


async def heeding(answer: Awaitable[T]) -> T:
    """What *answer* is; CancelledError also where the wait for it was cancelled and did not say so.

    ``asyncio.wait_for`` of Python 3.11, in which the client waits, swallows a cancellation that comes along
    with an answer: a loop of questions that was told to end would go on for ever.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        found = await answer
    except Exception:
        if task is not None and task.cancelling() > before:
            await _end()
        raise
    if task is not None and task.cancelling() > before:
        await _end()
    return found


async def _end() -> None:
    """Raise the CancelledError that was swallowed.

    A scope of anyio knows its own by what they say, and cancels whoever still waits once more; from anybody
    else there is only the one that is gone.
    """
    for _ in range(CANCELLED_AGAIN_WITHIN):
        await asyncio.sleep(0)
    raise asyncio.CancelledError


def connection_options(settings: ServiceSettings, name: str) -> dict[str, Any]:
    """How every service connects. Reconnecting never gives up: a service without its bus waits."""

    async def on_error(error: Exception) -> None:
        if not isinstance(error, OSError | nats.errors.Error | asyncio.TimeoutError):
            log.warning("bus_error", error=repr(error))

    closed = False

    async def on_disconnected() -> None:
        # A connection that we close ourselves tells of this first, and at once afterwards that it is closed.
        asyncio.get_running_loop().call_soon(lambda: closed or log.warning("bus_disconnected"))

    async def on_closed() -> None:
        nonlocal closed
        closed = True

    async def on_reconnected() -> None:
        log.info("bus_reconnected")

    options: dict[str, Any] = {
        "name": name,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_SECONDS,
        "connect_timeout": 2,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "pending_size": 0,
        "error_cb": on_error,
        "disconnected_cb": on_disconnected,
        "closed_cb": on_closed,
        "reconnected_cb": on_reconnected,
    }
    if settings.nats_user:
        options["user"] = settings.nats_user
        options["password"] = settings.nats_password.reveal()
    return options


class Bus:
    """JetStream over one connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=REQUEST_TIMEOUT_SECONDS)

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    async def publish(
        self,
        subject: str,
        message: msgspec.Struct | bytes,
        *,
        message_id: str | None = None,
        ttl_seconds: int | None = None,
        expect_last: int | None = None,
        expect_scope: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT_SECONDS,
    ) -> PubAck:
        """Store *message*; its acknowledgement when it is on disk.

        ``expect_last`` is the sequence of the last message that ``expect_scope`` (a subject, wildcards
        allowed; *subject* itself when None) may have; 0 is none. Raises one of the errors above.
        """
        if not self.connected:
            raise BusUnavailable("Not connected to the bus")
        found = dict(headers or {})
        if message_id is not None:
            found[MESSAGE_ID] = message_id
        if ttl_seconds is not None:
            found[MESSAGE_TTL] = str(ttl_seconds)
        if expect_last is not None:
            found["Nats-Expected-Last-Subject-Sequence"] = str(expect_last)
            if expect_scope is not None:
                found["Nats-Expected-Last-Subject-Sequence-Subject"] = expect_scope
        payload = message if isinstance(message, bytes) else encode(message)
        try:
            return await heeding(
                self.jetstream.publish(subject, payload, timeout=timeout, headers=found or None)
            )
        except nats.js.errors.APIError as error:
            raise _refusal(error.code, error.err_code, error.description) from error
        except nats.js.errors.NoStreamResponseError as error:
            raise BusUnavailable(
                "No stream takes this message: JetStream is starting or not set up"
            ) from error
        except (nats.errors.TimeoutError, TimeoutError) as error:
            raise FateUnknown("Connection timeout") from error
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError) as error:
            raise BusUnavailable("Not connected to the bus") from error
        except (nats.errors.Error, OSError) as error:
            raise FateUnknown(f"Connection lost ({type(error).__name__})") from error

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message under *subject* (wildcards allowed); None where there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def first(self, stream: str, subject: str, sequence: int = 1) -> Stored | None:
        """The first message under *subject* from *sequence* on; None where there is none."""
        return await self._get(stream, {"next_by_subj": subject, "seq": sequence})

    async def _get(self, stream: str, request: dict[str, Any]) -> Stored | None:
        """A direct get (NATS ADR-31), which leaves the sequence of JetStream's API out."""
        if not self.connected:
            raise BusUnavailable("Not connected to the bus")
        try:
            reply = await heeding(
                self.client.request(
                    f"$JS.API.DIRECT.GET.{stream}",
                    json.dumps(request).encode(),
                    timeout=REQUEST_TIMEOUT_SECONDS,
                )
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BusUnavailable("The bus does not answer") from error
        headers = dict(reply.headers or {})
        status = headers.get("Status")
        if status == "404":
            return None
        if status is not None:
            raise BusRefused(headers.get("Description", f"status {status}"))
        return Stored(headers["Nats-Subject"], reply.data, int(headers["Nats-Sequence"]), headers)

    async def api(self, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """A call of JetStream's API, ``$JS.API.`` left out. BusUnavailable, BusRefused or NotFound below."""
        if not self.connected:
            raise BusUnavailable("Not connected to the bus")
        try:
            reply = await heeding(
                self.client.request(
                    f"$JS.API.{subject}", json.dumps(request or {}).encode(), timeout=API_TIMEOUT_SECONDS
                )
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BusUnavailable("JetStream does not answer") from error
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            problem = answer["error"]
            raise _refusal(problem.get("code"), problem.get("err_code"), problem.get("description"))
        return answer

    async def request(self, subject: str, payload: bytes, timeout: float) -> Msg:
        """Ask another service; BusUnavailable when nobody is there, FateUnknown when none answers."""
        if not self.connected:
            raise BusUnavailable("Not connected to the bus")
        try:
            return await heeding(self.client.request(subject, payload, timeout=timeout))
        except nats.errors.NoRespondersError as error:
            raise BusUnavailable("Nobody answers this question at the moment") from error
        except (nats.errors.TimeoutError, TimeoutError) as error:
            raise FateUnknown("No answer in time") from error
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable("Not connected to the bus") from error


def _refusal(code: int | None, number: int | None, description: object) -> BusError:
    """The error that an answer stands for, by its number: nats-py's classes follow the status."""
    description = str(description)
    if number == ERR_STREAM_FULL:
        return StreamFull(description)
    if number in ERR_WRONG_LAST:
        return WrongLastSequence(description)
    if code == 404:
        return NotFound(description)
    if code == 503:
        # No quorum: the write may yet be applied by a later leader.
        return FateUnknown(description)
    return BusRefused(description)


async def connect(settings: ServiceSettings, name: str) -> Bus:
    """A bus on a connection of its own; waits for a server for as long as there is none."""
    client = Client()
    await client.connect(settings.nats_url, **connection_options(settings, name))
    return Bus(client)


def dormant(settings: ServiceSettings, name: str) -> tuple[Bus, asyncio.Task[None]]:
    """A bus that is not connected yet, and the task that connects it."""
    client = Client()
    task = asyncio.create_task(
        client.connect(settings.nats_url, **connection_options(settings, name)), name="bus-connect"
    )
    return Bus(client), task
