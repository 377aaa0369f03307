"""A gateway on a bus of its own, with services behind it that answer as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from faststream.nats import NatsBroker

from pharos_contracts import rpc
from pharos_contracts.history.v1 import FindJob, ListJobs
from pharos_contracts.search.v1 import Search, SearchBatch
from pharos_gateway.app import serving
from pharos_service.bus import Bus
from pharos_service.rpc import answer
from tests.support.answering_services import Answers
from tests.support.gateway import client, settings, until_ready
from tests.support.nats_server import NatsServer


@pytest.fixture
async def answers(bus: Bus, nats_server: NatsServer) -> AsyncIterator[Answers]:
    broker = NatsBroker(nats_server.url)
    found = Answers()
    answer(broker, rpc.HISTORY, ListJobs | FindJob, found.history)
    answer(broker, rpc.SEARCH, Search | SearchBatch, found.search)
    async with broker:
        await broker.start()
        yield found


@pytest.fixture
async def http(bus: Bus, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    chosen = settings(
        nats_server.url, git_allowed_hosts="http://git.test:9418", cors_origins=("https://ui.example",)
    )
    async with serving(chosen) as running, client(running.address) as connected:
        await until_ready(connected)
        yield connected
