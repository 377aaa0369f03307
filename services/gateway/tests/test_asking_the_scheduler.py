"""What is made of a scheduler's answers, and of its silence."""

from __future__ import annotations

from typing import Any

import pytest

from pharos_contracts.control.v1 import Action, Place
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_contracts.rpc import Refused
from pharos_gateway.controlling import UnknownAction, parse_action, state_in
from pharos_gateway.placing import SILENCE_SECONDS, Places
from pharos_service.bus import BusUnavailable, FateUnknown
from tests.support.gateway import job

pytestmark = pytest.mark.anyio

PLACE = Place(position=2, waiting=3)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("state", JobState)
def test_a_refusal_names_its_state(action: Action, state: JobState) -> None:
    assert state_in(f"Cannot {action} a {state} job") is state


def test_a_refusal_that_names_none_has_none() -> None:
    assert state_in("This is not possible now") is None


def test_an_action_is_one_of_five_words() -> None:
    assert [parse_action(action) for action in ("start", "pause", "resume", "cancel", "retry")] == list(
        Action
    )
    for name in ("Pause", "stop", "", "p" * 500):
        with pytest.raises(UnknownAction) as raised:
            parse_action(name)
        assert len(str(raised.value)) < 120


class World:
    """A bus whose scheduler does what ``outcome`` says."""

    connected = True

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.asked = 0

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return type("Reply", (), {"data": encode(self.outcome)})()


@pytest.mark.parametrize(
    ("outcome", "place"),
    [
        (PLACE, PLACE),
        (Refused(code="unreadable_question", detail="x", status=400), None),
        (BusUnavailable("Nobody answers this question at the moment"), None),
        (FateUnknown("No answer in time"), None),
    ],
)
async def test_a_place_is_what_the_scheduler_says_and_nothing_else(outcome: Any, place: Place | None) -> None:
    world: Any = World(outcome)
    assert await Places(world).of(job(1)) == place


async def test_a_scheduler_that_does_not_answer_in_time_is_left_alone_for_a_moment() -> None:
    world: Any = World(FateUnknown("No answer in time"))
    clock = [100.0]
    places = Places(world, clock=lambda: clock[0])
    assert await places.of(job(1)) is None
    world.outcome = PLACE
    assert await places.of(job(1)) is None
    assert world.asked == 1
    clock[0] += SILENCE_SECONDS
    assert await places.of(job(1)) == PLACE


async def test_a_scheduler_that_is_not_there_is_asked_each_time_since_that_costs_nothing() -> None:
    world: Any = World(BusUnavailable("Nobody answers this question at the moment"))
    places = Places(world)
    assert await places.of(job(1)) is None
    world.outcome = PLACE
    assert await places.of(job(1)) == PLACE
