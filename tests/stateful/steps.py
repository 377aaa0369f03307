"""What may happen, one thing after the other: the steps of a history, and how histories are drawn.

A step that names a job means one of those that were accepted so far, counted in a circle: so a history can be
cut anywhere and still makes sense. What is printed of a failed history is what ``play`` takes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar

import msgspec
from hypothesis import strategies as st

from pharos_contracts.control.v1 import Action
from pharos_contracts.jobs.v1 import Priority
from tests.stateful.labour import Day

T = TypeVar("T")


class Who(StrEnum):
    """A process: the scheduler that leads at the moment or the one that stands by, a worker, the gateway."""

    LEADER = "leader"
    STANDBY = "standby"
    WORKER_1 = "worker-1"
    WORKER_2 = "worker-2"
    WORKER_3 = "worker-3"
    HISTORY = "history"
    GATEWAY = "gateway"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Base of them all."""


class Submit(Step, frozen=True, kw_only=True):
    """Somebody asks for a job. *days* is how its runs go, one after the other; after them each is quick."""

    tenant: int = 0
    repository: int = 0
    branch: bool = False
    priority: Priority = Priority.NORMAL
    ttl_seconds: int = 60
    key: int | None = None
    days: tuple[Day, ...] = ()


class Again(Step, frozen=True, kw_only=True):
    """Somebody asks for the same that a job does or did."""

    job: int = 0


class Ask(Step, frozen=True, kw_only=True):
    """Its owner asks something of a job, whatever state it is in."""

    action: Action
    job: int = 0


class Letter(Step, frozen=True, kw_only=True):
    """An operator replays or purges the dead letter of a job, whether there is one or not."""

    replay: bool
    job: int = 0


class Kill(Step, frozen=True, kw_only=True):
    """kill -9; the supervisor starts it again after a while."""

    who: Who
    back_seconds: float = 0.2


class Drain(Step, frozen=True, kw_only=True):
    """SIGTERM to a worker, which is started again when it has left."""

    who: Who
    patience_seconds: float = 0.2


class Freeze(Step, frozen=True, kw_only=True):
    """SIGSTOP, and SIGCONT later."""

    who: Who
    seconds: float


class Cut(Step, frozen=True, kw_only=True):
    """Its connection to the bus is reset, and no other is made for a while."""

    who: Who
    seconds: float


class Hold(Step, frozen=True, kw_only=True):
    """Its connection stands, and nothing passes for a while; then all of it."""

    who: Who
    seconds: float


class RestartBus(Step, frozen=True, kw_only=True):
    """kill -9 of the server, and a start on the same store."""

    down_seconds: float = 0.0


class FreezeBus(Step, frozen=True, kw_only=True):
    """The server stands still for a while."""

    seconds: float


class Jump(Step, frozen=True, kw_only=True):
    """Its time of day is so much ahead of the true one from now on."""

    who: Who
    ahead_seconds: float


class Redeliver(Step, frozen=True, kw_only=True):
    """The server delivers again what a worker has had, or has: one of the last few deliveries."""

    nth: int = 0


class Republish(Step, frozen=True, kw_only=True):
    """One of the last few items that were handed out is in WORK once more."""

    nth: int = 0


class Wait(Step, frozen=True, kw_only=True):
    """Nothing, for a while."""

    seconds: float


class History(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers there are, and what happens."""

    workers: int
    steps: tuple[Step, ...]

    def sentence(self) -> str:
        """As it is written in a test."""
        lines = "".join(f"        {_written(step)},\n" for step in self.steps)
        return f"History(\n    workers={self.workers},\n    steps=(\n{lines}    ),\n)"


def _written(step: Step) -> str:
    facts = ", ".join(
        f"{name}={_value(getattr(step, name))}"
        for name, default in zip(step.__struct_fields__, _defaults(step), strict=True)
        if getattr(step, name) != default
    )
    return f"{type(step).__name__}({facts})"


def _defaults(step: Step) -> list[object]:
    return [
        field.default if field.default is not msgspec.NODEFAULT else msgspec.NODEFAULT
        for field in msgspec.structs.fields(step)
    ]


def _value(value: object) -> str:
    if isinstance(value, StrEnum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple):
        return f"({''.join(f'{_value(each)}, ' for each in value)})"
    return repr(value)


# How they are drawn

STEPS: Final = 30
LAST: Final = -1
SHORT: Final = (0.05, 0.2, 0.5)
LONG: Final = (0.3, 0.9, 1.6, 2.6)
JUMPS: Final = (-7200.0, -40.0, -3.0, 3.0, 40.0, 7200.0)
LEADERS: Final = (Who.LEADER, Who.LEADER, Who.STANDBY)

Steps = tuple[Step, ...]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Histories of thirty steps, many of them in short rows that get something into a corner."""
    workers = draw(st.integers(1, 3))
    row = _some_of(_rows(workers))
    steps = [step for each in draw(st.lists(row, min_size=STEPS, max_size=STEPS)) for step in each]
    return History(workers=workers, steps=tuple(steps[:STEPS]))


def _some_of(kinds: list[st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of them, each as often as it is listed: ``one_of`` takes each kind once."""
    return st.sampled_from(kinds).flatmap(lambda kind: kind)


def _rows(workers: int) -> list[st.SearchStrategy[Steps]]:
    faults = _faults(workers)
    submit, ask = _submits(), st.builds(Ask, action=st.sampled_from(Action), job=st.integers(0, 9))
    wait = st.builds(Wait, seconds=st.sampled_from(SHORT))
    again = st.builds(Again, job=st.integers(0, 9))
    letter = st.builds(Letter, replay=st.booleans(), job=st.integers(0, 9))
    alone: list[st.SearchStrategy[Step]] = [
        *[submit] * 5,
        *[ask] * 5,
        *[wait] * 5,
        *[_some_of(faults)] * 10,
        again,
        letter,
    ]
    return [
        *[_some_of(alone).map(lambda step: (step,))] * 8,
        _interrupted(faults, submit, Action.PAUSE, Action.RESUME),
        _interrupted(faults, submit, Action.CANCEL, Action.RETRY),
        _stopped(),
        _replaced(),
        _rivals(),
    ]


def _submits() -> st.SearchStrategy[Step]:
    some = st.sampled_from
    return st.builds(
        Submit,
        tenant=st.integers(0, 1),
        repository=st.integers(0, 2),
        branch=st.booleans(),
        priority=some(Priority),
        ttl_seconds=some((60, 60, 60, 1)),
        key=some((None, None, 0, 1)),
        days=st.lists(some((*Day, Day.LONG, Day.LONG, Day.LONG)), max_size=3).map(tuple),
    )


def _faults(workers: int) -> list[st.SearchStrategy[Step]]:
    some = st.sampled_from
    those = (Who.WORKER_1, Who.WORKER_2, Who.WORKER_3)[:workers]
    worker = some(those)
    service = some((*LEADERS, *those))
    any_of_them = some((*LEADERS, *those, Who.GATEWAY, Who.HISTORY))
    return [
        st.builds(Kill, who=some(LEADERS), back_seconds=some(SHORT)),
        st.builds(Kill, who=some((*those, Who.HISTORY)), back_seconds=some(SHORT)),
        st.builds(Drain, who=worker, patience_seconds=some(SHORT)),
        st.builds(Freeze, who=service, seconds=some(LONG)),
        st.builds(Cut, who=any_of_them, seconds=some(LONG)),
        st.builds(Hold, who=any_of_them, seconds=some(LONG)),
        st.builds(RestartBus, down_seconds=some((0.0, 0.3, 1.2))),
        st.builds(FreezeBus, seconds=some((0.2, 0.8))),
        st.builds(Jump, who=service, ahead_seconds=some(JUMPS)),
        st.builds(Redeliver, nth=st.integers(0, 3)),
        st.builds(Republish, nth=st.integers(0, 3)),
    ]


@st.composite
def _interrupted(
    draw: st.DrawFn,
    faults: list[st.SearchStrategy[Step]],
    submit: st.SearchStrategy[Step],
    stop: Action,
    go: Action,
) -> Steps:
    """A job is stopped while something goes wrong, and goes on."""
    fault, wait = _some_of(faults), st.builds(Wait, seconds=st.sampled_from(SHORT))
    begun = (draw(submit), draw(wait)) if draw(st.booleans()) else ()
    job = LAST if begun else draw(st.integers(0, 9))
    between = draw(st.lists(_some_of([fault, wait]), max_size=2))
    return (*begun, draw(fault), Ask(action=stop, job=job), *between, Ask(action=go, job=job))


@st.composite
def _stopped(draw: st.DrawFn) -> Steps:
    """A job is stopped soon after its start, between two looks of its worker at the queue, or near its end.

    Nothing else need be wrong with anything.
    """
    long = draw(st.booleans())
    submit = Submit(
        tenant=2,  # nobody is in its way
        repository=draw(st.integers(0, 2)),
        priority=Priority.URGENT,
        days=(Day.LONG,) if long else (),
    )
    moment = Wait(seconds=draw(st.sampled_from((0.1, 0.87, 0.87) if long else (0.1, 0.12, 0.14, 0.16))))
    action = draw(st.sampled_from((Action.PAUSE, Action.CANCEL)))
    return submit, moment, Ask(action=action, job=LAST), Wait(seconds=0.5)


@st.composite
def _replaced(draw: st.DrawFn) -> Steps:
    """What a job did is asked for again after its end, and then the job is to be tried again, too."""
    job = draw(st.integers(0, 9))
    wait = st.builds(Wait, seconds=st.sampled_from((0.05, 0.2)))
    return (Ask(action=Action.CANCEL, job=job), draw(wait), Again(job=job), Ask(action=Action.RETRY, job=job))


@st.composite
def _rivals(draw: st.DrawFn) -> Steps:
    """Two jobs that write the same, one of which only the last leader knows: it is kept from saying so."""
    tenant, repository = draw(st.integers(0, 1)), draw(st.integers(0, 2))
    kept = draw(st.sampled_from((Hold, Freeze)))(who=Who.LEADER, seconds=1.6)
    known = Submit(tenant=tenant, repository=repository, priority=Priority.LOW, days=(Day.LONG,))
    other = Submit(
        tenant=tenant, repository=repository, branch=True, priority=Priority.URGENT, days=(Day.LONG,)
    )
    moment = Wait(seconds=draw(st.sampled_from((0.0, 0.003, 0.006))))
    return known, moment, kept, other, Wait(seconds=0.5)
