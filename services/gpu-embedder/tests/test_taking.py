"""What a worker does with an item follows from what was said of it last, and from nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemEvent,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    JobKind,
    RepositorySource,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_embedder.taking import (
    DEATHS_MAX,
    Drop,
    Expire,
    Fact,
    Finish,
    Poisoned,
    Start,
    decide,
    holder,
)

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
RESULT = IndexResult(
    dataset="d", generation=2, commit="c", files_processed=1, embeddings_generated=1, chunks=1
)
DETAILS: dict[type[ItemEvent], dict[str, Any]] = {
    ItemStarted: {},
    ItemLexicalReady: {"dataset": "d", "files": 1, "chunks": 1},
    ItemCommitting: {"result": RESULT},
    ItemCompleted: {"result": RESULT},
    ItemFailed: {"error": "e", "code": "c", "transient": True},
    ItemSkipped: {"reason": "r"},
    ItemCancelled: {},
    ItemPaused: {},
}


def job(**facts: Any) -> Job:
    return Job(
        **{
            "job_id": "j",
            "number": 1,
            "tenant": "default",
            "key": "k",
            "kind": JobKind.REPOSITORY,
            "state": JobState.QUEUED,
            "source": RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
            "project": "default",
            "submitted_at": NOW - timedelta(seconds=30),
            "submitted_by": "u",
            "ttl_seconds": 60,
            **facts,
        }
    )


def item(*, attempt: int = 1, dispatch: int = 1, **facts: Any) -> WorkItem:
    return WorkItem(job=job(**facts), item_id="0", attempt=attempt, dispatch=dispatch)


def fact(
    kind: type[ItemEvent], *, attempt: int = 1, dispatch: int = 1, deaths: int = 0, sequence: int = 7
) -> Fact:
    event = kind(
        event_id="e",
        at=NOW,
        tenant="default",
        job_id="j",
        item_id="0",
        attempt=attempt,
        dispatch=dispatch,
        worker="w1",
        instance="i1",
        deaths=deaths,
        **DETAILS[kind],
    )
    return Fact(event, sequence)  # type: ignore[arg-type]


def test_an_item_of_which_nothing_was_said_is_started() -> None:
    assert decide(item(), None, died=False, now=NOW) == Start(1, 0)


@pytest.mark.parametrize("kind", [ItemCancelled, ItemPaused])
def test_what_was_taken_away_is_dropped_even_where_it_had_never_started(kind: type[ItemEvent]) -> None:
    before_any_start = fact(kind, attempt=0, dispatch=0)
    assert isinstance(decide(item(), before_any_start, died=False, now=NOW), Drop)
    assert isinstance(decide(item(), fact(kind), died=True, now=NOW), Drop)


def test_what_was_resumed_goes_on_with_its_attempt_and_its_deaths() -> None:
    resumed = item(attempt=2, dispatch=3, facts_after=7, started_at=NOW)
    last = fact(ItemPaused, attempt=2, dispatch=2, deaths=1)
    assert decide(resumed, last, died=False, now=NOW) == Start(2, 1, again=True)


@pytest.mark.parametrize("kind", [ItemCancelled, ItemFailed, ItemStarted, ItemCommitting])
def test_what_was_retried_begins_anew_whatever_was_said_before(kind: type[ItemEvent]) -> None:
    retried = item(attempt=2, dispatch=2, facts_after=7, started_at=NOW)
    assert decide(retried, fact(kind, deaths=2), died=False, now=NOW) == Start(2, 0)


@pytest.mark.parametrize("kind", [ItemCompleted, ItemFailed, ItemSkipped])
def test_what_ended_is_only_settled(kind: type[ItemEvent]) -> None:
    assert isinstance(decide(item(), fact(kind), died=False, now=NOW), Drop)


@pytest.mark.parametrize("kind", [ItemCompleted, ItemSkipped])
def test_what_is_done_is_not_done_again_by_another_attempt(kind: type[ItemEvent]) -> None:
    """Which a leader may hand out that has not heard of the end yet."""
    after = item(attempt=2, dispatch=2, started_at=NOW)
    assert isinstance(decide(after, fact(kind), died=False, now=NOW), Drop)


def test_the_attempt_after_a_failure_is_started_and_its_deaths_are_forgotten() -> None:
    after = item(attempt=2, dispatch=2, started_at=NOW)
    assert decide(after, fact(ItemFailed, deaths=1), died=False, now=NOW) == Start(2, 0)


def test_what_was_about_to_be_published_is_finished() -> None:
    last = fact(ItemCommitting, attempt=2, deaths=1)
    assert decide(item(), last, died=True, now=NOW) == Finish(2, 1, RESULT)


@pytest.mark.parametrize("kind", [ItemStarted, ItemLexicalReady, ItemCommitting])
def test_a_hand_out_before_the_last_one_is_dropped(kind: type[ItemEvent]) -> None:
    assert isinstance(decide(item(dispatch=1), fact(kind, dispatch=2), died=True, now=NOW), Drop)


@pytest.mark.parametrize("kind", [ItemStarted, ItemLexicalReady])
def test_the_death_of_a_worker_begins_another_attempt(kind: type[ItemEvent]) -> None:
    assert decide(item(), fact(kind), died=True, now=NOW) == Start(2, 1)


def test_the_death_of_a_worker_is_no_failure_so_the_last_attempt_goes_on() -> None:
    last = fact(ItemStarted, attempt=4)
    assert decide(item(attempt=4, max_attempts=4), last, died=True, now=NOW) == Start(4, 1, again=True)


def test_an_item_that_was_there_at_two_deaths_is_not_started_again() -> None:
    last = fact(ItemStarted, attempt=2, deaths=DEATHS_MAX - 1)
    assert decide(item(), last, died=True, now=NOW) == Poisoned(2, DEATHS_MAX)


def test_a_worker_that_lives_has_not_died_however_often_the_item_comes() -> None:
    last = fact(ItemStarted, attempt=2, deaths=1)
    assert decide(item(), last, died=False, now=NOW) == Start(2, 1, again=True)


def test_an_item_that_waited_too_long_never_starts() -> None:
    old = {"submitted_at": NOW - timedelta(seconds=61)}
    assert decide(item(**old), None, died=False, now=NOW) == Expire(1)
    resumed = item(**old, facts_after=7, paused_seconds=10)
    assert decide(resumed, fact(ItemPaused), died=False, now=NOW) == Start(1, 0, again=True)
    begun = decide(item(**old), fact(ItemStarted), died=False, now=NOW)
    assert begun == Start(1, 0, again=True)


def test_only_who_had_this_very_hand_out_may_have_died_with_it() -> None:
    assert holder(item(), None) is None
    assert holder(item(), fact(ItemStarted)) == ("w1", "i1")
    assert holder(item(), fact(ItemLexicalReady)) == ("w1", "i1")
    assert holder(item(dispatch=2), fact(ItemStarted, dispatch=1)) is None  # it was handed back
    assert holder(item(facts_after=7), fact(ItemStarted)) is None
    for kind in set(DETAILS) - {ItemStarted, ItemLexicalReady}:
        assert holder(item(), fact(kind)) is None


@given(
    kind=st.sampled_from(list(DETAILS)),
    attempts=st.tuples(st.integers(1, 6), st.integers(0, 6)),
    dispatches=st.tuples(st.integers(1, 4), st.integers(0, 4)),
    deaths=st.integers(0, 3),
    sequence=st.integers(1, 9),
    facts_after=st.integers(0, 9),
    died=st.booleans(),
    max_attempts=st.integers(1, 6),
)
def test_whatever_was_said_an_attempt_never_goes_back_and_no_third_death_is_risked(
    kind: type[ItemEvent],
    attempts: tuple[int, int],
    dispatches: tuple[int, int],
    deaths: int,
    sequence: int,
    facts_after: int,
    died: bool,
    max_attempts: int,
) -> None:
    given_item = item(
        attempt=attempts[0], dispatch=dispatches[0], facts_after=facts_after, max_attempts=max_attempts
    )
    last = fact(kind, attempt=attempts[1], dispatch=dispatches[1], deaths=deaths, sequence=sequence)
    died = died and holder(given_item, last) is not None
    take = decide(given_item, last, died=died, now=NOW)
    is_past = sequence <= facts_after
    if isinstance(take, Start):
        assert take.attempt >= given_item.attempt
        assert (
            is_past or take.attempt >= last.event.attempt or kind in (ItemFailed, ItemCompleted, ItemSkipped)
        )
        if died:
            assert take.deaths == deaths + 1 < DEATHS_MAX
    if isinstance(take, Poisoned):
        assert died and take.deaths >= DEATHS_MAX
    if not is_past and kind in (ItemCancelled, ItemPaused):
        assert isinstance(take, Drop)
    if isinstance(take, Finish):
        assert kind is ItemCommitting and not is_past
