"""Pushes to a branch: which is the newest, and when they rest."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from pharos_contracts.control.v1 import Push
from pharos_contracts.jobs.v1 import RepositorySource, SubmitJob, Trigger
from pharos_scheduler.pushes import PUSHES_KEPT_MAX, RESTS_MAX, command_of, joined, newest, rests_at

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def push(before: str, after: str, seconds: float = 0) -> Push:
    return Push(
        tenant="default",
        by="webhook:w",
        at=NOW,
        reply_to="",
        watch_id="w",
        branch="main",
        before=before,
        pushed_at=NOW + timedelta(seconds=seconds),
        job=SubmitJob(
            job_id=f"{before}-{after}",
            tenant="default",
            key="k",
            source=RepositorySource(
                identity="github.com/o/r", clone_url="https://github.com/o/r", branch="main", sha=after
            ),
            project="default",
            submitted_at=NOW,
            submitted_by="webhook:w",
            ttl_seconds=60,
            trigger=Trigger.WEBHOOK,
        ),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_newest_of_one_second_is_found_in_whatever_order_they_arrive(seed: int) -> None:
    pushes = [push(str(number), str(number + 1)) for number in range(10)]
    random.Random(seed).shuffle(pushes)
    assert newest(pushes).job.source.sha == "10"


@pytest.mark.parametrize(
    ("pushes", "expected"),
    [
        ([push("0", "1")], "1"),
        ([push("0", "1", 1), push("5", "6", 0)], "1"),
        ([push("0", "1", 0), push("5", "6", 1)], "6"),
        ([push("0", "1"), push("5", "6")], "6"),
        ([push("0", "1", 0), push("1", "0", 1)], "0"),
        ([push("1", "0", 1), push("0", "1", 0)], "0"),
    ],
    ids=["one", "the later", "the later last", "the same second", "back and forth", "and out of order"],
)
def test_the_newest_is_what_the_branch_was_left_at(pushes: list[Push], expected: str) -> None:
    assert newest(pushes).job.source.sha == expected


def test_a_push_that_comes_again_is_held_once() -> None:
    first, second = push("0", "1"), push("1", "2")
    assert joined((first, second), (first,)) == (first, second)


def test_of_too_many_pushes_the_newest_is_among_those_that_are_kept() -> None:
    last = push("98", "99", 5)
    others = [push(str(number), str(number + 1)) for number in range(90)]
    kept: tuple[Push, ...] = ()
    for each in (last, *others):
        kept = joined(kept, (each,))
        assert len(kept) <= PUSHES_KEPT_MAX
        assert last in kept
    assert newest(kept) == last
    assert others[-1] in kept


def test_pushes_rest_after_a_while_and_a_branch_that_never_rests_does_too() -> None:
    assert rests_at(NOW, NOW, 5) == NOW + timedelta(seconds=5)
    late = NOW + timedelta(seconds=5 * RESTS_MAX - 1)
    assert rests_at(NOW, late, 5) == NOW + timedelta(seconds=5 * RESTS_MAX)
    assert rests_at(NOW, NOW, 0) == NOW


def test_the_command_has_the_time_that_the_wait_has_left_of_it() -> None:
    told = push("0", "1")
    later = NOW + timedelta(seconds=59)
    assert command_of(told, later) == replace(told.job, submitted_at=later, ttl_seconds=1)
    assert command_of(told, NOW + timedelta(seconds=60)) is None
    early = NOW - timedelta(seconds=30)
    assert command_of(told, early) == replace(told.job, submitted_at=early)
