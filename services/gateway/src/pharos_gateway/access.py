"""Guards for routes: who is let in, how fast, and how guessing is slowed.

They leave the caller in the connection's state, where ``caller_of`` finds it. Nothing here waits for the bus,
but for the first reading of the keys at the start of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from pharos_gateway import rates
from pharos_gateway.allowances import Allowances
from pharos_gateway.authentication import (
    Authenticator,
    Caller,
    Forbidden,
    OtherProject,
    Role,
    Unauthenticated,
    UnknownKey,
    address_of,
    let_pass,
    public_caller,
)
from pharos_gateway.guesses import Guesses
from pharos_gateway.key_store import KeyStore
from pharos_gateway.rates import Limit, Spent
from pharos_gateway.tickets import PARAMETER, Tickets

log = structlog.get_logger()

SPENT: Final = "rate"  # where the headers of an answer find what was spent

Connection = ASGIConnection[Any, Any, Any, Any]


class KeysUnknown(Exception):
    """The keys could not be read yet, so that nobody can say whether this one is good."""


class TooManyGuesses(Exception):
    """The address presented too many credentials that are not valid."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__("Too many attempts with a credential that is not valid. Please try again later.")
        self.retry_seconds = retry_seconds


class RateExceeded(Exception):
    """More requests than are allowed in the time."""

    def __init__(self, spent: Spent) -> None:
        limit = spent.limit
        super().__init__(
            f"More than {limit.tokens} requests in {round(limit.seconds)} seconds. Please try again later."
        )
        self.retry_seconds = spent.retry_seconds


class RequestLimits:
    """How many requests a minute a key may make, and an address without one; 0 is without limit."""

    def __init__(self, allowances: Allowances, *, per_key: int, per_address: int) -> None:
        self._allowances = allowances
        self._key = Limit("key", per_key, rates.MINUTE_SECONDS) if per_key else None
        self._address = Limit("address", per_address, rates.MINUTE_SECONDS) if per_address else None

    async def spend(self, caller: Caller | None, address: str, requests: int = 1) -> Spent | None:
        """What became of the last of *requests*, of which all are spent or none; None where nothing limits
        them.
        """
        if caller is not None and caller.key is not None:
            limit, subject = self._key, caller.key
        else:
            limit, subject = self._address, rates.neighbourhood(address)
        if limit is None:
            return None
        spent = None
        for before in range(requests):
            spent = await self._allowances.spend(limit, subject)
            if not spent.allowed:
                for _ in range(before):
                    self._allowances.give_back(limit, subject)
                break
        return spent


class Access:
    """The guards."""

    def __init__(
        self,
        authenticator: Authenticator,
        store: KeyStore,
        tickets: Tickets,
        guesses: Guesses,
        limits: RequestLimits,
        *,
        now: Callable[[], datetime],
        public_status: bool,
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._tickets = tickets
        self._guesses = guesses
        self._limits = limits
        self._now = now
        self._public_status = public_status

    def __deepcopy__(self, _: dict[int, Any]) -> Access:
        # Litestar copies route handlers, with their guards and all that those hold: each route would have
        # keys, guesses and allowances of its own.
        return self

    async def viewer(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Whoever may read."""
        self._require(connection, await self._caller(connection, connection.headers), Role.VIEWER)

    async def editor(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Whoever may submit and control."""
        self._require(connection, await self._caller(connection, connection.headers), Role.EDITOR)

    async def tenant_editor(self, connection: Connection, _: BaseRouteHandler) -> None:
        """An editor whose key is not restricted to projects: what this opens concerns the whole tenant."""
        caller = await self._caller(connection, connection.headers)
        self._require(connection, caller, Role.EDITOR)
        if caller is not None and caller.projects is not None:
            raise OtherProject(None)

    async def admin(self, connection: Connection, _: BaseRouteHandler) -> None:
        """An admin with a key: nobody becomes one by sending nothing."""
        caller = await self._caller(connection, connection.headers)
        self._require(connection, None if caller is None or caller.key is None else caller, Role.ADMIN)

    async def streaming(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Whoever may read, by a ticket too."""
        text = connection.query_params.get(PARAMETER)
        if text is None:
            return await self.viewer(connection, _)
        self._require(connection, await self._by_ticket(connection, str(text)), Role.VIEWER)
        return None

    async def _by_ticket(self, connection: Connection, text: str) -> Caller:
        address = address_of(connection)
        self._check_guesses(address, None)
        ticket = self._tickets.read(text, self._now())
        if ticket is None:
            self._guesses.failed(address)
            raise Unauthenticated
        if not await self._store.known():
            raise KeysUnknown
        caller = self._authenticator.redeem(ticket, address)
        await self._spend(connection, caller)
        return caller

    async def opening(self, connection: Connection) -> Caller | None:
        """Whoever opens a socket, by header or ticket; None where they have yet to say who they are."""
        if PARAMETER in connection.query_params:
            return await self._by_ticket(connection, str(connection.query_params[PARAMETER]))
        return await self._caller(connection, connection.headers)

    async def introduced(self, connection: Connection, credential: str) -> Caller:
        """Whoever presents *credential* in a message of a socket."""
        caller = await self._caller(connection, {"authorization": f"Bearer {credential}"})
        if caller is None:
            raise Unauthenticated
        return caller

    async def count(self, connection: Connection, caller: Caller, requests: int = 1) -> None:
        """What counts as so many more *requests*: a message of a socket, the queries of a batch.

        RateExceeded where they are not all allowed; then none was spent.
        """
        await self._spend(connection, caller, requests)

    async def public(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Everybody, unless the installation closed its public routes."""
        caller = await self._caller(connection, connection.headers)
        if caller is None:
            if not self._public_status:
                raise Unauthenticated
            caller = public_caller(address_of(connection))
        let_pass(connection, caller)

    async def signed(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Whoever signs what they send: whether they did, the route finds out."""
        await self._spend(connection, None)

    def not_signed(self, connection: Connection) -> None:
        """They did not. TooManyGuesses where that happens too often.

        What is signed is believed even then: nobody guesses 256 random bits, and GitHub sends the pushes of
        everybody from the same few addresses.
        """
        address = address_of(connection)
        self._check_guesses(address, None)
        self._guesses.failed(address)

    def _require(self, connection: Connection, caller: Caller | None, role: Role) -> None:
        if caller is None:
            raise Unauthenticated
        let_pass(connection, caller)  # also of one who may not: what was refused is told as well
        if not caller.may(role):
            raise Forbidden(role)

    async def _caller(self, connection: Connection, headers: Mapping[str, str]) -> Caller | None:
        """Whoever calls, if their credential is good and they do not call too often."""
        address = address_of(connection)
        try:
            caller = await self._identified(headers, address)
        except Unauthenticated:
            self._check_guesses(address, None)
            self._guesses.failed(address)
            raise
        if caller is not None and caller.key is not None:
            self._check_guesses(address, caller.credential)
            self._guesses.succeeded(address, caller.credential)
        await self._spend(connection, caller)
        return caller

    async def _identified(self, headers: Mapping[str, str], address: str) -> Caller | None:
        try:
            return self._authenticator.identify(headers, address)
        except UnknownKey:
            if self._store.is_known:
                raise
        if not await self._store.known():
            raise KeysUnknown
        return self._authenticator.identify(headers, address)

    def _check_guesses(self, address: str, credential: str | None) -> None:
        seconds = self._guesses.wait_seconds(address)
        if seconds and not (credential and self._guesses.is_familiar(address, credential)):
            raise TooManyGuesses(seconds)

    async def _spend(self, connection: Connection, caller: Caller | None, requests: int = 1) -> None:
        spent = await self._limits.spend(caller, address_of(connection), requests)
        if spent is not None:
            connection.state[SPENT] = spent
            if not spent.allowed:
                raise RateExceeded(spent)
