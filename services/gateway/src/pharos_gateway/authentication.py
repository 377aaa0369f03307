"""Who calls: credentials, roles and tenants, from the headers of a request. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
from litestar.connection import ASGIConnection

from pharos_contracts.identity import TENANT_DEFAULT, InvalidName, token
from pharos_contracts.keys.v1 import Key, Role
from pharos_gateway import keys
from pharos_gateway.sight import Sight
from pharos_gateway.tickets import Ticket

__all__ = ["Role"]  # most of the gateway knows it from here

CREDENTIAL_HEADERS: Final = ("x-api-key", "x-admin-key")
ANY_ORIGIN: Final = "*"
ADMIN: Final = "admin"  # the user, and the name of the key, of the bootstrap admin
_CALLER: Final = "caller"

_RANK: Final[Mapping[Role, int]] = {role: rank for rank, role in enumerate(Role)}


def lower(one: Role, other: Role) -> Role:
    """The lesser of two roles."""
    return min(one, other, key=_RANK.__getitem__)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf a request is made. ``credential`` names it for limits and never contains it.

    ``every_tenant`` is true of an admin who named no tenant. ``projects`` None is every project of the
    tenant. ``key`` is the id of the key, None without one.
    """

    tenant: str
    role: Role
    user: str
    credential: str
    every_tenant: bool = False
    public: bool = False
    projects: frozenset[str] | None = None
    key: str | None = None

    @property
    def sees(self) -> str | None:
        """The tenant whose things are shown; None is every tenant's."""
        return None if self.every_tenant else self.tenant

    @property
    def sight(self) -> Sight:
        """What of that tenant is shown."""
        return Sight(
            tenant=self.sees,
            projects=self.projects,
            user=None if self.may(Role.ADMIN) else self.user,
        )

    @property
    def sight_in_tenant(self) -> Sight:
        """What is shown of the one tenant that the caller acts in, however many they see."""
        return msgspec.structs.replace(self.sight, tenant=self.tenant)

    def may(self, role: Role) -> bool:
        return _RANK[self.role] >= _RANK[role]


class Unauthenticated(Exception):
    """No credential where one is needed, or one that is not valid."""


class UnknownKey(Unauthenticated):
    """A credential of the form of a key that nothing is known of: it may have been issued all the same."""


class Forbidden(Exception):
    """The role is too low for this."""

    def __init__(self, needed: Role) -> None:
        super().__init__(f"This needs the role {needed}")
        self.needed = needed


class OtherProject(Exception):
    """The key is for other projects than the one that this would be done in; None is all of them."""

    def __init__(self, project: str | None) -> None:
        super().__init__(
            "This concerns all projects of the tenant, and this key is restricted to some"
            if project is None
            else f"This key is not for project {project!r}"
        )


class OtherUser(Exception):
    """Something is asked for in the name of another user, and the key is no admin's."""

    def __init__(self) -> None:
        super().__init__("The user_id must be the key's own user; only an admin may name another one")


class InvalidIdentity(Exception):
    """``x-tenant`` or ``x-role`` cannot be understood."""


class Anonymous(Protocol):
    """As whom a request without a credential acts."""

    @property
    def tenant(self) -> str: ...
    @property
    def role(self) -> Role: ...


class Keys(Protocol):
    """Where issued keys are found."""

    def find(self, key_id: str) -> Key | None: ...


class Authenticator:
    """Recognises the bootstrap admin and issued keys; who has neither acts as anonymous requests do.

    Each method raises Unauthenticated and InvalidIdentity.
    """

    def __init__(
        self,
        admin_token: str,
        anonymous: Anonymous | None,
        issued: Keys,
        *,
        now: Callable[[], datetime],
        origins: Collection[str] = (),
    ) -> None:
        self._admin = _digest(admin_token)
        self._anonymous = anonymous
        self._origins = origins
        self._issued = issued
        self._now = now

    def identify(self, headers: Mapping[str, str], address: str) -> Caller | None:
        """The caller; None without a credential."""
        credential = _credential(headers)
        if credential is None:
            return self._without_credential(headers, address)
        # Digests are compared, so that neither content nor length of the token shows in the time taken.
        if hmac.compare_digest(_digest(credential), self._admin):
            return _caller(_BOOTSTRAP, headers)
        presented = keys.parse(credential)
        if presented is None:
            raise Unauthenticated
        key = self._issued.find(presented.key_id)
        if key is None:
            keys.proves(None, presented.secret, self._now())  # so that it takes as long
            raise UnknownKey
        if not keys.proves(key, presented.secret, self._now()):
            raise Unauthenticated
        return _caller(key, headers)

    def redeem(self, ticket: Ticket, address: str) -> Caller:
        """Whoever was given *ticket*, by what their key may do now."""
        if ticket.key is None:
            caller = self._without_credential({}, address)
            if caller is None:
                raise Unauthenticated
            return msgspec.structs.replace(caller, role=lower(caller.role, ticket.role))
        key = _BOOTSTRAP if ticket.key == ADMIN else self._issued.find(ticket.key)
        if key is None or not keys.is_live(key, self._now()):
            raise Unauthenticated
        headers = {"x-role": ticket.role.value}
        if not ticket.every_tenant and key.role is Role.ADMIN:
            headers["x-tenant"] = ticket.tenant
        return _caller(key, headers)

    def _without_credential(self, headers: Mapping[str, str], address: str) -> Caller | None:
        # A browser lets any page open a WebSocket to anywhere and send a form: a page that its reader did not
        # mean to act here must not act as whoever sends nothing.
        if self._anonymous is None or is_foreign(headers, self._origins):
            return None
        return Caller(
            tenant=self._anonymous.tenant,
            role=_lowered(self._anonymous.role, headers),
            user=keys.ANONYMOUS,
            credential=f"address:{address}",
        )


# The bootstrap admin, as a key that nothing hashes to: its token is in the settings.
_BOOTSTRAP: Final = Key(
    key_id=ADMIN,
    tenant=TENANT_DEFAULT,
    user=ADMIN,
    role=Role.ADMIN,
    hash="",
    created_at=datetime.min,
    created_by=ADMIN,
)


def _caller(key: Key, headers: Mapping[str, str]) -> Caller:
    """Whoever holds *key*. ``x-tenant`` is for admins; of everybody else it is not read."""
    role = _lowered(key.role, headers)
    named = None
    tenant = headers.get("x-tenant")
    if tenant is not None and key.role is Role.ADMIN:
        try:
            named = token(tenant)
        except InvalidName as error:
            raise InvalidIdentity(f"x-tenant: {error}") from error
    return Caller(
        tenant=named or key.tenant,
        role=role,
        user=key.user,
        credential=credential_of(key.key_id),
        every_tenant=named is None and role is Role.ADMIN,
        projects=None if key.projects is None else frozenset(key.projects),
        key=key.key_id,
    )


def is_foreign(headers: Mapping[str, str], origins: Collection[str]) -> bool:
    """Whether a page sent this that is neither from here nor from one of *origins*, of which ``*`` is any."""
    origin = headers.get("origin")
    if origin is None or ANY_ORIGIN in origins or origin in origins:
        return False
    return origin.partition("://")[2] != headers.get("host", "")


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


def credential_of(key_id: str) -> str:
    """What a key is called where its holder is counted and told of."""
    return f"key:{key_id}"


def is_good(credential: str, issued: Callable[[str], bool]) -> bool:
    """Whether what is called *credential* is still good, where *issued* says so of the id of a key."""
    kind, _, name = credential.partition(":")
    return kind != "key" or name == ADMIN or issued(name)


def public_caller(address: str) -> Caller:
    """Somebody without a key, where that is allowed: sees what tenant ``default`` publishes."""
    return Caller(
        tenant=TENANT_DEFAULT,
        role=Role.VIEWER,
        user="public",
        credential=f"address:{address}",
        public=True,
    )


def let_pass(connection: ASGIConnection[Any, Any, Any, Any], caller: Caller) -> None:
    """Leave *caller* where ``caller_of`` finds it."""
    connection.state[_CALLER] = caller


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """The caller that a guard let pass."""
    caller = connection.state[_CALLER]
    assert isinstance(caller, Caller), "the route has no guard"
    return caller


def caller_if_any(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller | None:
    """The caller, where a guard has let one pass."""
    found = connection.state.get(_CALLER)
    return found if isinstance(found, Caller) else None


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The client's address, as the server knows it: proxies are believed by the server's own setting."""
    return connection.client.host if connection.client is not None else "unknown"
