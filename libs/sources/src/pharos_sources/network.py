"""Connections that only the guard opens: to addresses that were looked up and judged, never to a name.

Every HTTP connection to somebody else's server is made here: callbacks, documents, objects. No HTTP client
but httpcore is imported, so that a light process can use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import httpcore

from pharos_sources.guard import Resolver, resolve, resolve_public, system_resolver

ADDRESSES_TRIED_MAX: Final = 3


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the guard returns, never to a name.

    The look-up is made anew for each connection and the connection goes to an address that it returned, so
    that a name which changed its address since it was accepted is refused. `private_allowed` is for hosts
    that the operator admitted by name. Raises `HostNotFound`, `AddressRefused` and the errors of httpcore;
    sockets of the file system are not supported.
    """

    def __init__(self, resolver: Resolver = system_resolver, *, private_allowed: bool = False) -> None:
        self._resolver = resolver
        self._look_up = resolve if private_allowed else resolve_public
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._look_up(host, port, resolver=self._resolver)
        *earlier, last = addresses[:ADDRESSES_TRIED_MAX]
        for address in earlier:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(last, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)
