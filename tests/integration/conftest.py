"""A real nats-server for each test module; every test finds an empty, declared bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from pharos_contracts.streams import BusLimits, declare
from pharos_service.bus import Bus, connect
from pharos_service.bus_admin import apply
from pharos_service.settings import ServiceSettings
from tests.support.nats_server import NatsServer


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture
def bus_settings(nats_server: NatsServer) -> ServiceSettings:
    return ServiceSettings(nats_url=nats_server.url)


@pytest.fixture
async def bus(bus_settings: ServiceSettings) -> AsyncIterator[Bus]:
    """Connected, and the streams as declared."""
    connection = await connect(bus_settings, "test")
    await apply(connection, declare(BusLimits()), 1)
    yield connection
    await connection.client.close()
