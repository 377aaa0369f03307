"""Random lives of a whole installation: whatever happens, what was accepted ends, once, as people were told.

A failure prints the history as ``play`` takes it, what was wrong, and what every process logged.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from pharos_contracts.violations import ClaimWithoutJob, Violation, name_of
from pharos_gateway.submitting import QueueUnavailable
from pharos_service.bus_check import Unanswered, check
from tests.stateful.judging import Evidence, Harm, faults, read_commands, read_jobs
from tests.stateful.logbook import Logbook
from tests.stateful.shelf import DIED
from tests.stateful.short_times import short_times
from tests.stateful.steps import History, histories
from tests.stateful.world import NeverEnds, World
from tests.support.nats_server import NatsServer
from tests.support.proxy import Network

# Who was killed closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

TRUE_WITHIN_SECONDS: Final = 6.0


class Wrong(AssertionError):
    """A history that did not end well, with all that is known of it."""


def play(history: History) -> None:
    """Live through *history*; Wrong where something came out that must not be."""
    logbook = Logbook()
    with short_times(), logbook.open(), Network() as network, NatsServer() as server:
        found = asyncio.run(_live(history, World(server, network, logbook, history.workers)))
    if found:
        told = "\n".join(f"- {sentence}" for sentence in found)
        raise Wrong(
            logbook.short(f"{told}\n\nplay(\n{history.sentence()}\n)\n\nWhat was logged:\n{logbook.text()}")
        )


async def _live(history: History, world: World) -> list[str]:
    async with world.running():
        for step in history.steps:
            await world.take(step)
        await world.heal()
        try:
            await world.settle()
        except NeverEnds as never:
            return [*str(never).splitlines(), *_crashes(world)]
        return [*await _violations(world), *faults(await _evidence(world)), *_crashes(world)]


async def _violations(world: World) -> list[str]:
    """What ``pharos-bus check`` says, once what is on its way has arrived."""
    deadline = asyncio.get_running_loop().time() + TRUE_WITHIN_SECONDS
    while True:
        try:
            findings = await check(world.bus, settle_seconds=0, grace_seconds=0)
            found = [
                f"{name_of(each)}: {each.sentence()}"
                for each in findings.violations
                if not _is_known(each, world)
            ]
        except Unanswered as unanswered:
            found = [str(unanswered)]
        if not found or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(0.2)


def _is_known(violation: Violation, world: World) -> bool:
    """A submit that failed, as its caller was told, leaves a claim that the next one takes over."""
    return isinstance(violation, ClaimWithoutJob) and any(
        sent.job_id == violation.job_id and isinstance(sent.told, QueueUnavailable)
        for sent in world.owners.sent
    )


async def _evidence(world: World) -> Evidence:
    return Evidence(
        told=await read_jobs(world.bus),
        ordered=await read_commands(world.bus),
        sent=world.owners.sent,
        asked=world.owners.asked,
        deeds=world.shelf.deeds,
        rows=list(world.shelf.rows()),
        slots=world.slots,
        harms=[harm for member in world.members.values() for harm in member.harms]
        + [Harm(deed.by, deed.at) for deed in world.shelf.done(DIED)],
        troubles=world.troubles,
        doubled=frozenset(world.doubled),
    )


def _crashes(world: World) -> list[str]:
    """A process ends when it is killed or asked to leave, and for no other reason."""
    return [
        f"{member.name} ended by {error!r}." for member in world.members.values() for error in member.errors
    ]


def _lives(count: int, number: int | None) -> None:
    """Play *count* histories: the same ones for the same *number*, others each time without.

    The first that hypothesis draws is always the simplest one, which nothing happens in: it is left out. One
    that failed is asked for again, to see it fail: it is not played then, for what was seen is what counts.
    """
    seen: dict[History, Exception] = {}
    drawn: list[History] = []

    @settings(
        max_examples=count + 1,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(history=histories())
    def lives(history: History) -> None:
        if history in seen:
            raise seen[history]
        drawn.append(history)
        if len(drawn) > 1:
            try:
                play(history)
            except Exception as error:
                seen[history] = error
                raise

    try:
        (lives if number is None else seed(number)(lives))()
    finally:
        gc.collect()  # before warnings count again
    assert len(drawn) == count + 1


@pytest.mark.parametrize("number", range(100, 104))
def test_whatever_happens_what_was_accepted_ends_once_as_its_owner_was_told(number: int) -> None:
    _lives(5, number)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(8))
def test_two_hundred_lives_that_nobody_has_lived_before(part: int) -> None:
    _lives(25, None)
