"""Health, and the document of the bus's messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import HttpMethod, Response, Router, get, route

from pharos_gateway import examples, openapi
from pharos_gateway.problems import Problem
from pharos_gateway.reachability import Dependencies, submits_would_succeed
from pharos_service.bus import Bus

SERVICE: Final = "pharos-gateway"
PROBED: Final = (HttpMethod.GET, HttpMethod.HEAD)  # some load balancers ask for the head alone


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``healthy``, or ``degraded`` and why. Whether jobs are taken all the same is for ``/readyz`` to say."""

    status: str
    service: str
    timestamp: datetime
    dependencies: dict[str, str]
    detail: str | None = None


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The process turns."""

    status: str = "alive"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A submit would succeed."""

    status: str = "ready"


def routes(bus: Bus, now: Callable[[], datetime]) -> Router:
    """The routes of this family. Nobody needs a key for them."""
    messages = msgspec.json.encode(openapi.message_schemas())

    dependencies = Dependencies(bus)

    @route(
        "/health",
        http_method=PROBED,
        summary="How it is",
        responses={
            200: openapi.success(Health, examples.HEALTHY, "All is well"),
            503: openapi.success(Health, examples.DEGRADED, "Something is missing, and `detail` says what"),
        },
    )
    async def health() -> Response[Health]:
        found = await dependencies.condition()
        return Response(
            Health(
                status="healthy" if found.reason is None else "degraded",
                service=SERVICE,
                timestamp=now(),
                dependencies=found.dependencies,
                detail=found.reason,
            ),
            status_code=200 if found.reason is None else 503,
        )

    @route("/livez", http_method=PROBED, summary="Whether the process turns")
    async def livez() -> Alive:
        return Alive()

    @route(
        "/readyz",
        http_method=PROBED,
        summary="Whether a submit would succeed",
        responses=openapi.errors(503),
    )
    async def readyz() -> Ready:
        reason = await submits_would_succeed(bus)
        if reason is not None:
            raise Problem(503, "not_ready", reason, headers={"Retry-After": "1"})
        return Ready()

    @get(
        "/schema/messages",
        summary="JSON Schema of the messages of the bus",
        media_type="application/schema+json",
    )
    async def schema_messages() -> Response[Any]:
        return Response(messages, media_type="application/schema+json")

    return Router("/", route_handlers=[health, livez, readyz, schema_messages], tags=["operation"])
