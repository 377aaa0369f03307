"""Resolving a host name so that only public addresses come back. Light: no HTTP client is imported here."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final

import anyio

from pharos_sources.addresses import is_public

__all__ = [
    "AddressRefused",
    "HostNotFound",
    "Resolver",
    "is_public",
    "resolve",
    "resolve_public",
    "system_resolver",
]

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""`(host, port) -> addresses as text`; raises `OSError` (`socket.gaierror`) when there are none."""

RESOLVE_SECONDS: Final = 5.0
ADDRESSES_MAX: Final = 32


class HostNotFound(Exception):
    """The name has no address. `transient` says whether asking again may help."""

    def __init__(self, host: str, *, transient: bool) -> None:
        super().__init__(f"The host {host} could not be found")
        self.host = host
        self.transient = transient


class AddressRefused(Exception):
    """The name has an address that is not public. The address itself stays out of the message."""

    transient = False

    def __init__(self, host: str) -> None:
        super().__init__(f"The host {host} does not have a public address")
        self.host = host


async def system_resolver(host: str, port: int) -> list[str]:
    """Addresses of *host* from the operating system, in the order it prefers."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def resolve(
    host: str, port: int, *, resolver: Resolver = system_resolver, timeout_seconds: float = RESOLVE_SECONDS
) -> tuple[str, ...]:
    """Every address of *host*, without repeats, at most 32; for hosts that an operator admitted by name.

    Raises `HostNotFound`; a resolver that does not answer in *timeout_seconds* counts as a transient one.
    """
    try:
        with anyio.fail_after(timeout_seconds):
            found = await resolver(host, port)
    except TimeoutError:
        raise HostNotFound(host, transient=True) from None
    except OSError as error:
        transient = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        raise HostNotFound(host, transient=transient) from None
    if not found:
        raise HostNotFound(host, transient=False)
    addresses = tuple(dict.fromkeys(found))[:ADDRESSES_MAX]
    for address in addresses:
        ip_address(address.partition("%")[0])  # a resolver that returns anything else is a bug
    return addresses


async def resolve_public(
    host: str, port: int, *, resolver: Resolver = system_resolver, timeout_seconds: float = RESOLVE_SECONDS
) -> tuple[str, ...]:
    """Every address of *host*, all of them public.

    One address that is not public refuses the host: whoever mixes them hopes for the wrong connection.
    Connect to what this returns, not to the name: a second look-up may answer something else.
    Raises `HostNotFound` and `AddressRefused`.
    """
    addresses = await resolve(host, port, resolver=resolver, timeout_seconds=timeout_seconds)
    if not all(is_public(address) for address in addresses):
        raise AddressRefused(host)
    return addresses
