"""Who calls: credentials, roles and tenants, from the headers of a request. Pure but for the guards."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec
import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from pharos_contracts.identity import TENANT_DEFAULT, InvalidName, token

log = structlog.get_logger()

CREDENTIAL_HEADERS: Final = ("x-api-key", "x-admin-key")
_CALLER: Final = "caller"


class Role(StrEnum):
    """What a caller may do; each role may do what the ones before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"


_RANK: Final[Mapping[Role, int]] = {role: rank for rank, role in enumerate(Role)}


def lower(one: Role, other: Role) -> Role:
    """The lesser of two roles."""
    return min(one, other, key=_RANK.__getitem__)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf a request is made. ``credential`` names it for limits and never contains it.

    ``every_tenant`` is true of an admin who named no tenant.
    """

    tenant: str
    role: Role
    user: str
    credential: str
    every_tenant: bool = False
    public: bool = False

    @property
    def sees(self) -> str | None:
        """The tenant whose things are shown; None is every tenant's."""
        return None if self.every_tenant else self.tenant

    def may(self, role: Role) -> bool:
        return _RANK[self.role] >= _RANK[role]


class Unauthenticated(Exception):
    """No credential where one is needed, or one that is not valid."""


class Forbidden(Exception):
    """The role is too low for this."""

    def __init__(self, needed: Role) -> None:
        super().__init__(f"This needs the role {needed}")
        self.needed = needed


class InvalidIdentity(Exception):
    """``x-tenant`` or ``x-role`` cannot be understood."""


class _Anonymous(Protocol):
    @property
    def tenant(self) -> str: ...
    @property
    def role(self) -> Role: ...


class Authenticator:
    """Recognises the bootstrap admin; without a credential, whoever anonymous requests act as."""

    def __init__(self, admin_token: str, anonymous: _Anonymous | None) -> None:
        self._admin = _digest(admin_token)
        self._anonymous = anonymous

    def identify(self, headers: Mapping[str, str], address: str) -> Caller | None:
        """The caller; None without a credential. Unauthenticated, InvalidIdentity."""
        credential = _credential(headers)
        if credential is None:
            if self._anonymous is None:
                return None
            return Caller(
                tenant=self._anonymous.tenant,
                role=_lowered(self._anonymous.role, headers),
                user="anonymous",
                credential=f"address:{address}",
            )
        # Digests are compared, so that neither content nor length of the token shows in the time taken.
        if not hmac.compare_digest(_digest(credential), self._admin):
            raise Unauthenticated
        tenant = headers.get("x-tenant")
        try:
            named = None if tenant is None else token(tenant)
        except InvalidName as error:
            raise InvalidIdentity(f"x-tenant: {error}") from error
        role = _lowered(Role.ADMIN, headers)
        return Caller(
            tenant=named or TENANT_DEFAULT,
            role=role,
            user="admin",
            credential="key:admin",
            every_tenant=named is None and role is Role.ADMIN,
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _credential(headers: Mapping[str, str]) -> str | None:
    """The first credential that the headers carry, "" for one of an unknown kind."""
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        return value.strip() if scheme.lower() == "bearer" else ""
    for name in CREDENTIAL_HEADERS:
        value_or_none = headers.get(name)
        if value_or_none is not None:
            return value_or_none
    return None


def _lowered(role: Role, headers: Mapping[str, str]) -> Role:
    wanted = headers.get("x-role")
    if wanted is None:
        return role
    try:
        return lower(role, Role(wanted.strip().lower()))
    except ValueError:
        raise InvalidIdentity("x-role must be viewer, editor or admin") from None


def public_caller(address: str) -> Caller:
    """Somebody without a key, where that is allowed: sees what tenant ``default`` publishes."""
    return Caller(
        tenant=TENANT_DEFAULT,
        role=Role.VIEWER,
        user="public",
        credential=f"address:{address}",
        public=True,
    )


class Access:
    """Guards for routes. They leave the caller in the connection's state, where ``caller_of`` finds it."""

    def __init__(self, authenticator: Authenticator, *, public_status: bool) -> None:
        self._authenticator = authenticator
        self._public_status = public_status

    async def viewer(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        self._require(connection, Role.VIEWER)

    async def editor(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        self._require(connection, Role.EDITOR)

    async def public(self, connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """Everybody, unless the installation closed its public routes."""
        caller = self._identify(connection)
        if caller is None:
            if not self._public_status:
                raise Unauthenticated
            caller = public_caller(address_of(connection))
        connection.state[_CALLER] = caller

    def _require(self, connection: ASGIConnection[Any, Any, Any, Any], role: Role) -> None:
        caller = self._identify(connection)
        if caller is None:
            raise Unauthenticated
        if not caller.may(role):
            raise Forbidden(role)
        connection.state[_CALLER] = caller

    def _identify(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Caller | None:
        return self._authenticator.identify(connection.headers, address_of(connection))


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """The caller that a guard let pass."""
    caller = connection.state[_CALLER]
    assert isinstance(caller, Caller), "the route has no guard"
    return caller


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The client's address, as the server knows it: proxies are believed by the server's own setting."""
    return connection.client.host if connection.client is not None else "unknown"
