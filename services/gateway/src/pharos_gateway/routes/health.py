"""Health, metrics, and the document of the bus's messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import anyio
import msgspec
from litestar import HttpMethod, Response, Router, get, route
from litestar.openapi.datastructures import ResponseSpec

from pharos_gateway import examples, metrics, openapi
from pharos_gateway.access import Access
from pharos_gateway.metrics import Metrics
from pharos_gateway.problems import Problem
from pharos_gateway.queueing import Queue, QueueState
from pharos_gateway.reachability import Dependencies, submits_would_succeed
from pharos_service.bus import Bus, BusError

SERVICE: Final = "pharos-gateway"
QUEUE_SECONDS: Final = 1.0  # for all queues; metrics without them are better than none
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


def routes(
    access: Access,
    bus: Bus,
    repositories: Queue,
    documents: Queue,
    measured: Metrics,
    now: Callable[[], datetime],
) -> Router:
    """The routes of this family. Nobody needs a key for them; for metrics, unless status is not public."""
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
        "/metrics",
        guards=[access.public],
        summary="Numbers for a Prometheus",
        description="Requests, open streams and the process are this gateway's own; jobs, workers and queues "
        "are the installation's. Queues are left out while the bus is away.",
        media_type=metrics.MEDIA_TYPE,
        security=list(openapi.PUBLIC),
        responses={
            200: ResponseSpec(
                data_container=str,
                generate_examples=False,
                media_type=metrics.MEDIA_TYPE,
                description="In the text format of Prometheus",
            ),
            **openapi.errors(401),
        },
    )
    async def numbers() -> Response[bytes]:
        queues: dict[str, QueueState] = {}
        with anyio.move_on_after(QUEUE_SECONDS):
            for name, queue in (("repositories", repositories), ("documents", documents)):
                try:
                    queues[name] = await queue.size()
                except BusError:
                    break
        return Response(measured.text(queues), media_type=metrics.MEDIA_TYPE)

    @get(
        "/schema/messages",
        summary="JSON Schema of the messages of the bus",
        media_type="application/schema+json",
    )
    async def schema_messages() -> Response[Any]:
        return Response(messages, media_type="application/schema+json")

    return Router("/", route_handlers=[health, livez, readyz, numbers, schema_messages], tags=["operation"])
