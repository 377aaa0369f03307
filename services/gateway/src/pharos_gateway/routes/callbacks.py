"""``/api/v1/callbacks``: how a receiver knows that a callback is from here."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Router, get

from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.authentication import caller_of
from pharos_gateway.problems import callbacks_disabled
from pharos_gateway.signing import SigningSecrets


class CallbackSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The key of the HMAC-SHA256 in ``X-Pharos-Signature``: the bytes of this text as it stands here."""

    tenant: str
    secret: str


def routes(access: Access, secrets: SigningSecrets | None) -> Router:
    """The routes of this family."""

    @get(
        "/api/v1/callbacks/secret",
        guards=[access.tenant_editor],
        summary="The secret that signs callbacks",
        description=examples.CALLBACK,
        security=list(openapi.SECURITY),
        responses={
            200: openapi.success(CallbackSecret, examples.CALLBACK_SECRET, "That of the caller's tenant"),
            **openapi.errors(400, 401, 403, invalid=examples.CALLBACKS_DISABLED),
        },
    )
    async def callback_secret(request: Request[Any, Any, Any]) -> CallbackSecret:
        if secrets is None:
            raise callbacks_disabled()
        tenant = caller_of(request).tenant
        return CallbackSecret(tenant=tenant, secret=secrets.of(tenant))

    return Router("/", route_handlers=[callback_secret], tags=["callbacks"])
