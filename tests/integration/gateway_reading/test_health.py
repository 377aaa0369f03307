"""Health and probes: each part that is missing is named."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from faststream.nats import NatsBroker

from pharos_contracts import rpc
from pharos_contracts.history.v1 import FindJob, ListJobs
from pharos_contracts.search.v1 import Search
from pharos_gateway.reachability import Dependencies
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from tests.support.answering_services import Answers
from tests.support.gateway import leading
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio


async def test_health_is_degraded_and_names_each_part_that_is_missing(
    bus: Bus, nats_server: NatsServer, http: httpx.AsyncClient
) -> None:
    alone = await http.get("/health")
    body = alone.json()
    assert (alone.status_code, body["status"], body["service"]) == (503, "degraded", "pharos-gateway")
    assert body["timestamp"].endswith("Z")
    assert body["dependencies"] == {
        "bus": "ok",
        "scheduler": "unavailable",
        "search": "unavailable",
        "history": "unavailable",
    }
    for part in ("scheduler", "search", "history"):
        assert part in body["detail"]
    assert (await http.get("/readyz")).status_code == 200  # a submit would succeed all the same

    async def until(status: int) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (answered := await http.get("/health")).status_code != status:
                await asyncio.sleep(0.02)
        return dict(answered.json())

    broker = NatsBroker(nats_server.url)
    found = Answers()
    answer(broker, rpc.HISTORY, ListJobs | FindJob, found.history)
    answer(broker, rpc.SEARCH, Search, found.search)
    async with broker:
        await broker.start()
        async with leading(bus):
            assert await until(200) | {"timestamp": None} == {
                "status": "healthy",
                "service": "pharos-gateway",
                "timestamp": None,
                "dependencies": {"bus": "ok", "scheduler": "ok", "search": "ok", "history": "ok"},
                "detail": None,
            }
        assert (await until(503))["detail"] == "no scheduler leads: jobs wait"


async def test_probes_answer_to_a_head_request_with_the_head_of_their_answer(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/livez", "/readyz"):
        head = await http.head(path)
        whole = await http.get(path)
        assert head.status_code == whole.status_code
        assert head.content == b""
        assert int(head.headers["Content-Length"]) > 0


async def test_many_probes_of_health_are_one_look_a_second(bus: Bus) -> None:
    looks: list[str] = []

    class Counted(Bus):
        async def api(self, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
            looks.append(subject)
            return await super().api(subject, request)

    clock = [0.0]
    dependencies = Dependencies(Counted(bus.client), clock=lambda: clock[0])
    await asyncio.gather(*(dependencies.condition() for _ in range(50)))
    assert len(looks) == 2  # the two streams that a submit needs
    clock[0] = 0.9
    await dependencies.condition()
    assert len(looks) == 2
    clock[0] = 1.1
    await dependencies.condition()
    assert len(looks) == 4
