"""``/api/v1/keys``: issuing, rotating, disabling and deleting keys. For admins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from pharos_contracts.identity import InvalidName, token
from pharos_contracts.keys.v1 import Key, Role
from pharos_gateway import examples, openapi
from pharos_gateway.access import Access, KeysUnknown
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import caller_of
from pharos_gateway.issuing import Issuing
from pharos_gateway.key_store import KeyStore
from pharos_gateway.keys import (
    GRACE_SECONDS_MAX,
    NAME_LENGTH_MAX,
    PROJECTS_MAX,
    USER_LENGTH_MAX,
    Wanted,
    is_live,
)
from pharos_gateway.problems import invalid, not_found
from pharos_gateway.reachability import reach
from pharos_service.bus import Bus

PATH: Final = "/api/v1/keys"

_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For whom a key is, and what it may."""

    user: Annotated[str, Meta(min_length=1, max_length=USER_LENGTH_MAX, description="Whose it is.")]
    role: Role
    tenant: Annotated[_Name, Meta(description="Default: the one that the admin acts in.")] | None = None
    projects: (
        Annotated[
            list[_Name],
            Meta(
                min_length=1,
                max_length=PROJECTS_MAX,
                description="It reaches these only. Default: every project of the tenant.",
            ),
        ]
        | None
    ) = None
    name: Annotated[str, Meta(max_length=NAME_LENGTH_MAX, description="To tell it from others.")] = ""
    expires_at: Annotated[datetime, Meta(tz=True, description="Default: never.")] | None = None


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a key is given another secret."""

    grace_seconds: Annotated[
        int, Meta(ge=0, le=GRACE_SECONDS_MAX, description="For how long the old secret is good as well.")
    ] = 0
    expires_at: (
        Annotated[datetime, Meta(tz=True, description="Until when it is good. Default: as before.")] | None
    ) = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without what proves it. ``state`` is ``active``, ``expired`` or ``disabled``."""

    id: str
    tenant: str
    user: str
    role: Role
    projects: tuple[str, ...] | None
    name: str
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    rotated_at: datetime | None
    previous_until: datetime | None
    disabled_at: datetime | None
    disabled_by: str | None


class IssuedKey(KeyView, frozen=True, kw_only=True):
    """A key and its text, which is shown this once."""

    key: str


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """By tenant, then the newest first."""

    keys: tuple[KeyView, ...]


def routes(
    access: Access, bus: Bus, issuing: Issuing, store: KeyStore, now: Callable[[], datetime]
) -> Router:
    """The routes of this family. An admin who names a tenant by ``x-tenant`` sees the keys of that one."""
    common: dict[str, Any] = {"guards": [access.admin], "security": list(openapi.SECURITY)}

    async def known() -> None:
        if not await store.known():
            raise KeysUnknown

    @post(
        "/",
        status_code=201,
        summary="Issue a key",
        description="Its text is shown this once; only a hash of it is kept.",
        responses={
            201: openapi.success(IssuedKey, examples.ISSUED_KEY, "Keep `key`: it is not shown again"),
            **openapi.errors(400, 401, 403, 409, 503),
        },
        **common,
    )
    async def create_key(request: Request[Any, Any, Any], data: JSONBody[KeyRequest]) -> IssuedKey:
        caller = caller_of(request)
        try:
            tenant = caller.tenant if data.tenant is None else token(data.tenant)
        except InvalidName as error:
            raise invalid(str(error), field="tenant") from error
        if caller.sees not in (None, tenant):
            raise invalid("tenant is not the one that x-tenant names", field="tenant")
        await reach(bus)
        await known()
        try:
            key, text = await issuing.issue(
                Wanted(
                    tenant=tenant,
                    user=data.user,
                    role=data.role,
                    name=data.name,
                    projects=None if data.projects is None else tuple(data.projects),
                    expires_at=data.expires_at,
                ),
                by=caller.user,
            )
        except InvalidName as error:
            raise invalid(str(error), field="projects") from error
        note_target(request, key.key_id)
        return _issued(key, text, now())

    @get(
        "/",
        summary="The keys",
        responses={
            200: openapi.success(KeyList, examples.KEYS, "By tenant, then the newest first"),
            **openapi.errors(401, 403, 503),
        },
        **common,
    )
    async def list_keys(request: Request[Any, Any, Any]) -> KeyList:
        await known()
        return KeyList(keys=tuple(_view(key, now()) for key in issuing.list(caller_of(request).sees)))

    @get(
        "/{key_id:str}",
        summary="One key",
        responses={
            200: openapi.success(KeyView, examples.KEY, "What is known of it"),
            **openapi.errors(401, 403, 404, 503),
        },
        **common,
    )
    async def one_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> KeyView:
        await known()
        key = issuing.one(caller_of(request).sees, key_id)
        if key is None:
            raise not_found("key")
        return _view(key, now())

    @post(
        "/{key_id:str}/rotate",
        status_code=200,
        summary="Give a key another secret",
        description="Who it is for and what it may stay as they are. Its open event streams end.",
        responses={
            200: openapi.success(IssuedKey, examples.ISSUED_KEY, "Keep `key`: it is not shown again"),
            **openapi.errors(400, 401, 403, 404, 409, 503),
        },
        **common,
    )
    async def rotate_key(
        request: Request[Any, Any, Any], key_id: FromPath[str], data: JSONBody[Rotation]
    ) -> IssuedKey:
        await reach(bus)
        rotated = await issuing.rotate(
            caller_of(request).sees,
            key_id,
            grace_seconds=data.grace_seconds,
            expires_at=data.expires_at,
        )
        if rotated is None:
            raise not_found("key")
        return _issued(*rotated, now())

    @post(
        "/{key_id:str}/disable",
        status_code=200,
        summary="Make a key good for nothing",
        description="Within two seconds at every gateway. Its open event streams end. It stays in the list.",
        responses={
            200: openapi.success(KeyView, examples.DISABLED_KEY, "It opens nothing any more"),
            **openapi.errors(401, 403, 404, 503),
        },
        **common,
    )
    async def disable_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> KeyView:
        caller = caller_of(request)
        await reach(bus)
        key = await issuing.disable(caller.sees, key_id, by=caller.user)
        if key is None:
            raise not_found("key")
        return _view(key, now())

    @delete(
        "/{key_id:str}",
        summary="Forget a key, which opens nothing any more",
        responses=openapi.errors(401, 403, 404, 503),
        **common,
    )
    async def delete_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> None:
        await reach(bus)
        if not await issuing.delete(caller_of(request).sees, key_id):
            raise not_found("key")

    return Router(
        PATH,
        route_handlers=[create_key, list_keys, one_key, rotate_key, disable_key, delete_key],
        tags=["keys"],
    )


def _view(key: Key, now: datetime) -> KeyView:
    return KeyView(**_shown(key, now))


def _issued(key: Key, text: str, now: datetime) -> IssuedKey:
    return IssuedKey(**_shown(key, now), key=text)


def _shown(key: Key, now: datetime) -> dict[str, Any]:
    state = "disabled" if key.disabled_at is not None else "active" if is_live(key, now) else "expired"
    return {
        "id": key.key_id,
        "tenant": key.tenant,
        "user": key.user,
        "role": key.role,
        "projects": key.projects,
        "name": key.name,
        "state": state,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "rotated_at": key.rotated_at,
        "previous_until": key.previous_until,
        "disabled_at": key.disabled_at,
        "disabled_by": key.disabled_by,
    }
