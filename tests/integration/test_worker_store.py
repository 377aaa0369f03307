"""``rpc.store`` tells what the store of a worker holds."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

import pytest

from pharos_contracts.control.v1 import DescribeStore, StoreContents, StoredGeneration
from pharos_contracts.rpc import STORE
from pharos_embedder.answering import StoreQuestion, answer_store
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.deleting import Deleting
from pharos_embedder.qdrant_store import local_mode_store
from pharos_embedder.vectors import DatasetKey, Payload, Point
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus
from pharos_service.rpc import answer, make_broker
from pharos_service.settings import ServiceSettings
from tests.support.workers import now

pytestmark = pytest.mark.anyio


async def until_answered(bus: Bus) -> StoreContents:
    """That somebody answers may be on its way to the server still."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await ask(bus, STORE, DescribeStore(), StoreContents, timeout=5)
            except NobodyAnswers:
                await asyncio.sleep(0.02)


async def test_the_store_tells_which_generations_of_which_datasets_it_holds(
    bus: Bus, bus_settings: ServiceSettings
) -> None:
    store = local_mode_store(None, dimensions=4)
    store.open()
    key = DatasetKey("acme", "default", "h.example/o/r@main")
    store.upsert(
        Point(id=str(uuid4()), payload=Payload(dataset=key, kind=kind, generation=7, path="a.py"))
        for kind in ("chunk", "chunk", "file")
    )
    broker = make_broker(bus_settings, "store")
    deleting = Deleting(bus, store, Catalogue(bus), None, encoder="e", now=now)
    answer(broker, STORE, StoreQuestion, partial(answer_store, store, deleting), workers=1)
    await broker.start()
    try:
        told = await until_answered(bus)
        assert told.generations == (
            StoredGeneration(
                tenant="acme", project="default", dataset="h.example/o/r@main", generation=7, points=3
            ),
        )
        store.close()
        with pytest.raises(QuestionRefused) as refused:
            await ask(bus, STORE, DescribeStore(), StoreContents, timeout=5)
        assert refused.value.refusal.code == "store_unavailable"
    finally:
        await broker.stop()
