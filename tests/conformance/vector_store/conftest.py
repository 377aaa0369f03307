"""Stores of each kind: embedded, the same asked over the bus, local mode, a server if one is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pharos_embedder.vectors import VectorStore
from tests.support.vector_stores import ATLAS, BORA, FOREIGN, PLACES, Place, drop, made


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from made(request.param, tmp_path)


@pytest.fixture(scope="module", params=PLACES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    """One store of each kind: making one waits for the disk a dozen times."""
    for place in made(request.param, tmp_path_factory.mktemp("shared")):
        store = place.store(passing=True)
        store.open()
        yield store
        store.close()


@pytest.fixture
def store(shared: VectorStore) -> Iterator[VectorStore]:
    """A store without points."""
    yield shared
    for dataset in (ATLAS, BORA, FOREIGN):
        drop(shared, dataset)
