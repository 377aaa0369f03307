"""Each thing that must not be is told of: the judge of random lives, on histories that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pharos_contracts.control.v1 import Action, ControlJob, Controlled
from pharos_contracts.jobs.v1 import ItemCancelled, ItemCompleted, ItemStarted
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import Refused
from pharos_gateway.submitting import QueueUnavailable, Submitted
from tests.stateful.asking import Answer, Asked, Sent
from tests.stateful.judging import (
    HEARD_SECONDS_MAX,
    STOP_SECONDS_MAX,
    Evidence,
    Harm,
    Ordered,
    Told,
    Trouble,
    faults,
)
from tests.stateful.shelf import BEGAN, PUBLISHED, WROTE, Deed, Row
from tests.support.job_events import RESULT, START, make_event, make_item_event, make_job

JOB = "job-000001"
NOON = START.timestamp()
REPLY = "_INBOX.1"


def evidence(events: Sequence[Any] = (), **more: Any) -> Evidence:
    """Of *events*, one a second from NOON on, and nothing else but *more*."""
    values: dict[str, Any] = {
        "told": [Told(event, number, NOON + number) for number, event in enumerate(events, 1)],
        "ordered": [],
        "sent": [],
        "asked": [],
        "deeds": [],
        "rows": [],
        "slots": 1,
        "harms": [],
        "troubles": [],
        "doubled": frozenset(),
    }
    return Evidence(**(values | more))


def life(*states: JobState, **more: Any) -> list[Any]:
    """The events by which job 1 came from one state to the next; *more* is true of the last."""
    return [make_event(1, state) for state in states[:-1]] + [make_event(1, states[-1], **more)]


def deed(what: str, at: float, run: str = "run-1", by: str = "w.1", job_id: str = JOB) -> Deed:
    return Deed(NOON + at, what, job_id, 1, run, by)


def cancel(answer: Controlled | Refused, at: float) -> dict[str, Any]:
    """Command 7, which cancels job 1, and its answer *at* so many seconds."""
    command = ControlJob(tenant="acme", by="ann", at=START, reply_to=REPLY, job_id=JOB, action=Action.CANCEL)
    asked = Asked(job_id=JOB, action=Action.CANCEL, reply_to=REPLY, at=NOON, sequence=7)
    asked.answers.append(Answer(NOON + at, answer))
    return {"ordered": [Ordered(command, 7)], "asked": [asked]}


CANCELLED = Controlled(job=make_job(1, JobState.CANCELLED, attempt=1, control=7))
CANCELLED_LIFE = life(JobState.QUEUED, JobState.CANCELLED, attempt=1, control=7)
COMPLETED_LIFE = [
    make_event(1),
    make_item_event(ItemStarted, 1),
    make_event(1, JobState.RUNNING, attempt=1),
    make_event(1, JobState.COMPLETED, attempt=1, result=RESULT),
]


def accepted(job_id: str = JOB, key: str | None = None) -> Sent:
    told = Submitted(
        status="dispatched",
        job_id=1,
        queue_position=1,
        target="any",
        queue_size=1,
        max_queue_size=8,
        id=job_id,
        deduplicated=False,
    )
    return Sent(job_id=job_id, key=key, told=told)


def only(found: list[str]) -> str:
    (sentence,) = found
    return sentence


def test_a_life_that_goes_well_is_not_complained_of() -> None:
    deeds = [deed(BEGAN, 2), deed(WROTE, 2), deed(PUBLISHED, 3, RESULT.commit)]

    assert not faults(evidence(COMPLETED_LIFE, sent=[accepted()], deeds=deeds))


@pytest.mark.parametrize(
    ("events", "sentence"),
    [([], "there is no event of it"), (life(JobState.QUEUED), "never ended: it is queued")],
)
def test_a_job_that_was_accepted_and_vanished_or_never_ended(events: list[Any], sentence: str) -> None:
    assert sentence in only(faults(evidence(events, sent=[accepted()])))


def test_a_job_that_was_refused_and_exists() -> None:
    refused = Sent(job_id=JOB, key=None, told=QueueUnavailable("The bus is away"))

    assert "was refused" in only(faults(evidence(CANCELLED_LIFE, sent=[refused], **cancel(CANCELLED, 4))))


def test_a_key_that_stands_for_two_jobs() -> None:
    events = [*life(JobState.QUEUED, JobState.SKIPPED), make_event(2, JobState.SKIPPED)]
    sent = [accepted(key="a"), accepted("job-000002", key="a")]

    assert "stands for several jobs" in only(faults(evidence(events, sent=sent)))


@pytest.mark.parametrize(("ttl_seconds", "told"), [(60, True), (1, False)])
def test_two_jobs_that_are_open_and_do_the_same_unless_one_was_over_before(
    ttl_seconds: int, told: bool
) -> None:
    late = make_event(2, ttl_seconds=ttl_seconds)
    events = [make_event(1), late, make_event(2, JobState.SKIPPED), make_event(1, JobState.SKIPPED)]

    assert any("does the same work" in each for each in faults(evidence(events))) is told


@pytest.mark.parametrize(
    ("events", "answer", "sentence"),
    [
        (life(JobState.QUEUED), CANCELLED, "and by no event"),
        (CANCELLED_LIFE, Refused(code="x", detail="No", status=409), "acted all the same"),
        (life(JobState.QUEUED), Refused(code="not_found", detail="No", status=404), "the job exists"),
        (
            life(JobState.QUEUED),
            Refused(code="invalid_transition", detail="Cannot cancel a completed job", status=409),
            "in no such state then",
        ),
        (
            life(JobState.QUEUED, JobState.PAUSED, control=7),
            Controlled(job=make_job(1, JobState.PAUSED)),
            "made the job paused",
        ),
    ],
)
def test_a_command_whose_answer_is_not_what_became_of_it(
    events: list[Any], answer: Controlled | Refused, sentence: str
) -> None:
    assert any(sentence in each for each in faults(evidence(events, **cancel(answer, 4))))


def test_a_job_that_is_cancelled_and_nobody_asked_for_it() -> None:
    assert "nobody asked" in only(faults(evidence(life(JobState.QUEUED, JobState.CANCELLED))))


@pytest.mark.parametrize(("attempt", "facts_after", "told"), [(1, 0, False), (2, 0, True), (1, 1, True)])
def test_a_job_that_runs_by_what_was_said_of_another_attempt_or_before_it_was_taken_away(
    attempt: int, facts_after: int, told: bool
) -> None:
    started = make_event(1, JobState.RUNNING, attempt=attempt, facts_after=facts_after)
    events = [make_item_event(ItemStarted, 1), started, make_event(1, JobState.SKIPPED)]

    assert any("by no worker's word of it" in each for each in faults(evidence(events))) is told


@pytest.mark.parametrize(
    ("events", "runs", "sentence"),
    [
        (COMPLETED_LIFE, [], "which was not published"),
        (COMPLETED_LIFE, ["another", RESULT.commit], "was published 2 times"),
        (life(JobState.QUEUED, JobState.FAILED), ["one"], "is failed, and was published"),
    ],
)
def test_a_result_that_is_not_published_once(events: list[Any], runs: list[str], sentence: str) -> None:
    deeds = [deed(PUBLISHED, 3, run) for run in runs]

    assert sentence in only(faults(evidence(events, deeds=deeds)))


def test_a_point_of_a_job_that_has_no_result() -> None:
    row = Row(("acme", "default", "d"), 1, JOB, 1, "run-1")

    assert "1 points of it are left" in only(
        faults(evidence(life(JobState.QUEUED, JobState.FAILED), rows=[row]))
    )


HEARD = HEARD_SECONDS_MAX + 0.1
STOPPED = STOP_SECONDS_MAX + 0.1


@pytest.mark.parametrize(
    ("late", "around", "told"),
    [
        (HEARD, {}, True),
        (HEARD, {"harms": [Harm("w.1", NOON + 3, NOON + 3.5)]}, False),
        (HEARD, {"harms": [Harm("w.2", NOON + 3, NOON + 3.5)]}, True),
        (HEARD, {"troubles": [Trouble(NOON + 3, NOON + 3.5, crashed=False)]}, False),
        (STOPPED, {"harms": [Harm("w.1", NOON + 3)]}, True),
    ],
)
def test_a_worker_that_writes_on_after_its_job_was_cancelled_for_longer_than_it_may(
    late: float, around: dict[str, Any], told: bool
) -> None:
    deeds = [deed(BEGAN, 2), deed(WROTE, 2), deed(WROTE, 4 + late)]

    found = faults(evidence(CANCELLED_LIFE, deeds=deeds, **cancel(CANCELLED, 4), **around))

    assert any("after its owner was told" in each for each in found) is told


def test_a_run_that_began_after_its_job_was_stopped_is_another_matter() -> None:
    events = [*CANCELLED_LIFE, make_event(1, JobState.FAILED, attempt=2, control=7)]
    deeds = [deed(BEGAN, 5), deed(WROTE, 6)]

    assert not faults(evidence(events, deeds=deeds, **cancel(CANCELLED, 4)))


@pytest.mark.parametrize("doubled", [False, True])
def test_a_run_that_writes_on_beside_a_later_one(doubled: bool) -> None:
    deeds = [deed(WROTE, 2, "run-1"), deed(WROTE, 3, "run-2"), deed(WROTE, 4, "run-1")]
    jobs = frozenset({JOB} if doubled else ())

    found = faults(evidence(life(JobState.QUEUED, JobState.SKIPPED), deeds=deeds, doubled=jobs))

    assert any("while a later run" in each for each in found) is not doubled


@pytest.mark.parametrize("ended", [None, ItemCompleted, ItemCancelled])
def test_more_jobs_with_workers_than_workers_have_slots(ended: type[Any] | None) -> None:
    result = {"result": RESULT} if ended is ItemCompleted else {}
    between = [make_item_event(ended, 1, **result)] if ended is not None else []
    events = [make_item_event(ItemStarted, 1), *between, make_item_event(ItemStarted, 2)]

    assert any("with 1 workers" in each for each in faults(evidence(events))) is (ended is None)


@pytest.mark.parametrize(("died", "told"), [(("w.1",), True), (("w.1", "w.2"), False)])
def test_a_job_that_is_taken_for_poison_although_its_workers_lived(died: tuple[str, ...], told: bool) -> None:
    starts = [make_item_event(ItemStarted, 1, instance=each) for each in ("w.1", "w.2")]
    events = [*starts, *life(JobState.QUEUED, JobState.FAILED, code="poison")]

    found = faults(evidence(events, harms=[Harm(each, NOON) for each in died]))

    assert any("taken for poison" in each for each in found) is told
