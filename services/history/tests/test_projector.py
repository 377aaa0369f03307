"""The projector with a store that is sometimes away; no bus is asked while batches join on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from pharos_history import projector as module
from pharos_history.database import DatabaseUnavailable
from pharos_history.facts import Fact, Position, Unreadable
from pharos_history.projector import Projector
from pharos_service.bus import Stored

pytestmark = pytest.mark.anyio


class Bus:
    """Nobody may ask it."""

    async def api(self, subject: str) -> dict[str, Any]:
        raise AssertionError(f"asked for {subject}")


class Store:
    """Fails as often as *errors* say, then remembers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.folded: list[int] = []

    def position(self) -> Position | None:
        return Position(0, self.folded[-1] if self.folded else 0)

    def fold(self, after: Position, facts: Sequence[Fact | Unreadable]) -> Position:
        if self.errors:
            raise self.errors.pop(0)
        self.folded += [fact.sequence for fact in facts]
        return Position(0, self.folded[-1])


def batch(*sequences: int) -> list[Stored]:
    return [Stored("events.x", b"?", sequence, {}) for sequence in sequences]


def make(store: Any, bus: Any = None) -> Projector:
    return Projector(bus or Bus(), store, lambda: datetime.now(UTC))


async def test_a_batch_waits_for_the_database_and_is_lost_to_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS_MIN", 0.001)
    store = Store(DatabaseUnavailable("locked"), RuntimeError("a bug"), DatabaseUnavailable("full"))
    projector = make(store)
    await projector.take(batch(1, 2, 3))
    assert store.folded == [1, 2, 3]
    assert projector.problem is None


async def test_a_batch_out_of_order_is_folded_in_order() -> None:
    store = Store()
    await make(store).take(batch(2, 3, 1))
    assert store.folded == [1, 2, 3]


async def test_an_empty_batch_is_nothing() -> None:
    store = Store()
    await make(store).take([])
    assert store.folded == []
