"""A POST to somebody else's server, through the guarded network: no redirect followed, no proxy used."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

import httpcore

from pharos_gateway.callback_url import CallbackAddress
from pharos_sources.guard import AddressRefused, HostNotFound, Resolver, system_resolver
from pharos_sources.network import GuardedNetwork

POST_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 * 1024


class PostFailed(Exception):
    """No answer came; ``reason`` says why, and never where to."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Poster:
    """POSTs, each over a connection of its own."""

    def __init__(
        self,
        resolver: Resolver = system_resolver,
        *,
        tls: ssl.SSLContext | None = None,
        seconds_max: float = POST_SECONDS,
    ) -> None:
        self._resolver = resolver
        self._tls = tls or ssl.create_default_context()
        self._seconds_max = seconds_max

    async def post(self, address: CallbackAddress, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer; PostFailed where none came in time. What it says is read and ignored."""
        url = httpcore.URL(
            scheme=address.scheme, host=address.host, port=address.connect_port, target=address.target
        )
        sent = [("Host", address.authority), ("Connection", "close"), *headers.items()]
        network = GuardedNetwork(self._resolver, private_allowed=address.private_allowed)
        status: int | None = None
        try:
            async with (
                asyncio.timeout(self._seconds_max),
                httpcore.AsyncConnectionPool(ssl_context=self._tls, network_backend=network) as connections,
                connections.stream("POST", url, headers=sent, content=body) as response,
            ):
                status = response.status
                await _drain(response)
        except (
            TimeoutError,
            OSError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            HostNotFound,
            AddressRefused,
        ) as error:
            if status is None:  # else it has answered, however that ended
                raise PostFailed(_reason(error)) from error
        assert status is not None, "an answer has a status"
        return status


def _reason(error: Exception) -> str:
    match error:
        case HostNotFound():
            return "the host could not be found"
        case AddressRefused():
            return "the host does not have a public address"
        case TimeoutError() | httpcore.TimeoutException():
            return "no answer in time"
        case httpcore.ProtocolError():
            return "the answer is not HTTP"
        case _:
            return "the connection failed"


async def _drain(response: httpcore.Response) -> None:
    """Read a little, so that the other side sees its answer taken."""
    read = 0
    async for chunk in response.aiter_stream():
        read += len(chunk)
        if read >= ANSWER_BYTES_MAX:
            return
