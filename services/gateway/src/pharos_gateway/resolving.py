"""Whether a host may be asked: a look-up at submit, repeated by whoever connects to it later."""

from __future__ import annotations

from typing import Final, Protocol

from pharos_sources.guard import AddressRefused, HostNotFound, Resolver, resolve_public, system_resolver

RESOLVE_SECONDS: Final = 2.0


class Address(Protocol):
    """What is asked about a host: that of a repository, or of a callback."""

    @property
    def host(self) -> str: ...
    @property
    def connect_port(self) -> int: ...
    @property
    def private_allowed(self) -> bool: ...
    @property
    def is_ip_literal(self) -> bool: ...


class HostRefused(Exception):
    """The host has no address, or one that is not public; ``reason`` is a clause that says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Resolving:
    """Looks hosts up. A host that the operator admitted as private is not looked up at all."""

    def __init__(self, resolver: Resolver = system_resolver) -> None:
        self._resolver = resolver

    async def check(self, address: Address) -> None:
        """Raises HostRefused."""
        if address.private_allowed or address.is_ip_literal:
            return  # judged by the list of allowed hosts, or by the address itself, when it was parsed
        try:
            await resolve_public(
                address.host,
                address.connect_port,
                resolver=self._resolver,
                timeout_seconds=RESOLVE_SECONDS,
            )
        except HostNotFound as error:
            raise HostRefused("the host could not be found") from error
        except AddressRefused as error:
            raise HostRefused("the host does not have a public address") from error
