from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
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
    JobEvent,
    JobKind,
    JobResumed,
    RepositorySource,
)
from pharos_contracts.lifecycle import JobState
from pharos_history.facts import EPOCH_MAX, SEQUENCE_MAX, Fact, Unreadable, place_of, read, sequence_of
from pharos_history.projection import (
    TEXT_CHARACTERS_MAX,
    Item,
    View,
    microseconds,
    moment,
    project,
    project_item,
    sentence,
)
from pharos_service.bus import Stored

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
RESULT = IndexResult(
    dataset="d",
    generation=1,
    commit="c",
    files_processed=1,
    embeddings_generated=1,
    chunks=1,
    summary="1 file",
)


def job_event(state: JobState, kind: type[JobEvent] | None = None, **more: object) -> JobEvent:
    job = Job(
        job_id="j",
        number=1,
        tenant="t",
        key="k",
        kind=JobKind.REPOSITORY,
        state=state,
        source=RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
        project="p",
        submitted_at=AT,
        submitted_by="u",
        ttl_seconds=1,
        **more,  # type: ignore[arg-type]
    )
    return (kind or EVENT_OF_STATE[state])(event_id=str(state), at=AT, job=job)


def item_event(kind: type[ItemEvent], minute: int = 0, **more: object) -> ItemEvent:
    return kind(
        event_id="e",
        at=AT + timedelta(minutes=minute),
        tenant="t",
        job_id="j",
        item_id="0",
        attempt=1,
        dispatch=2,
        worker="w",
        **more,
    )


ITEM_EVENTS = [
    item_event(ItemStarted, 0),
    item_event(ItemLexicalReady, 1, dataset="d", files=3, chunks=7),
    item_event(ItemCommitting, 2, result=RESULT),
    item_event(ItemCompleted, 3, result=RESULT),
    item_event(ItemFailed, 4, error="no", code="x"),
    item_event(ItemSkipped, 5, reason="same"),
    item_event(ItemCancelled, 6),
    item_event(ItemPaused, 7),
]


@pytest.mark.parametrize("state", EVENT_OF_STATE)
def test_a_job_is_what_its_last_event_says(state: JobState) -> None:
    first = project(None, 5, job_event(JobState.QUEUED))
    assert first == View(job=first.job, first=5, last=5, changed_us=microseconds(AT))
    event = job_event(state)
    assert project(first, 9, event) == View(job=event.job, first=5, last=9, changed_us=microseconds(AT))


@pytest.mark.parametrize("place", range(6))
def test_a_place_that_was_seen_changes_nothing(place: int) -> None:
    view = project(None, 5, job_event(JobState.COMPLETED))
    assert project(view, place, job_event(JobState.QUEUED)) is view
    item = project_item(None, 5, ITEM_EVENTS[0])
    assert project_item(item, place, ITEM_EVENTS[3]) is item


def test_an_item_goes_through_all_its_states() -> None:
    item: Item | None = None
    states = []
    for place, event in enumerate(ITEM_EVENTS, start=1):
        item = project_item(item, place, event)
        states.append(item.view.state)
    assert states == [
        "running", "running", "committing", "completed", "failed", "skipped", "cancelled", "paused",
    ]  # fmt: skip
    assert item is not None
    assert item.view.started_at == AT


def test_an_item_says_why_it_ended_only_while_that_is_so() -> None:
    failed = project_item(None, 1, ITEM_EVENTS[4])
    assert (failed.view.error, failed.view.code, failed.view.reason) == ("no", "x", None)
    skipped = project_item(failed, 2, ITEM_EVENTS[5])
    assert (skipped.view.error, skipped.view.code, skipped.view.reason) == (None, None, "same")


def test_the_first_time_of_being_searchable_counts() -> None:
    item = project_item(None, 1, ITEM_EVENTS[1])
    again = project_item(item, 2, item_event(ItemLexicalReady, 9, dataset="d", files=1, chunks=1))
    assert again.view.lexical_ready_at == AT + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("event", "stays"),
    [
        (item_event(ItemPaused, 5), True),
        (item_event(ItemFailed, 5, error="away", code="network", transient=True), True),
        (item_event(ItemStarted, 5), True),
        (item_event(ItemFailed, 5, error="no", code="x"), False),
        (item_event(ItemCancelled, 5), False),
    ],
)
def test_a_dataset_is_searchable_until_what_it_showed_is_taken_back(event: ItemEvent, stays: bool) -> None:
    ready = project_item(project_item(None, 1, ITEM_EVENTS[0]), 2, ITEM_EVENTS[1])
    then = project_item(ready, 3, event)
    assert then.view.lexical_ready_at == (AT + timedelta(minutes=1) if stays else None)
    again = project_item(then, 4, item_event(ItemLexicalReady, 9, dataset="d", files=1, chunks=1))
    assert again.view.lexical_ready_at == AT + timedelta(minutes=1 if stays else 9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_whatever_is_delivered_again_the_fold_ends_as_if_it_had_come_once(order: list[int]) -> None:
    """Deliveries at least once: each place first comes in order, and any earlier one may come again."""
    events = [job_event(state) for state in itertools.islice(JobState, 1, 7)]
    view: View | None = None
    reached = -1
    for wanted in order:
        place = min(wanted, reached + 1)
        view = project(view, place + 1, events[place])
        reached = max(reached, place)
    once: View | None = None
    for place in range(reached + 1):
        once = project(once, place + 1, events[place])
    assert view == once


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (job_event(JobState.QUEUED), "Queued"),
        (job_event(JobState.RUNNING, attempt=2, worker="w"), "Started on w, attempt 2"),
        (job_event(JobState.RUNNING), "Started on a worker, attempt 0"),
        (job_event(JobState.QUEUED, attempt=1), "Queued again"),
        (job_event(JobState.PAUSED), "Paused"),
        (job_event(JobState.PAUSED, controlled_by="ann"), "Paused by ann"),
        (job_event(JobState.QUEUED, JobResumed), "Resumed"),
        (job_event(JobState.QUEUED, JobResumed, attempt=1, controlled_by="ann"), "Resumed by ann"),
        (job_event(JobState.RETRYING, error="e"), "Will be tried again: e"),
        (job_event(JobState.RETRYING), "Will be tried again"),
        (
            job_event(JobState.RETRYING, error="e", next_attempt_at=AT + timedelta(seconds=2)),
            "Will be tried again at 03:04:07 UTC: e",
        ),
        (
            job_event(JobState.RETRYING, error="e", next_attempt_at=AT, controlled_by="ann"),
            "Another try was asked for by ann",
        ),
        (job_event(JobState.COMMITTING), "Publishing"),
        (job_event(JobState.COMPLETED), "Completed"),
        (job_event(JobState.COMPLETED, result=RESULT), "1 file"),
        (job_event(JobState.FAILED, error="a\0b"), "Failed: ab"),
        (job_event(JobState.CANCELLED), "Cancelled"),
        (job_event(JobState.CANCELLED, controlled_by="ann"), "Cancelled by ann"),
        (job_event(JobState.SKIPPED, reason="old"), "Skipped: old"),
        (ITEM_EVENTS[0], "Item 0: taken by w, attempt 1"),
        (ITEM_EVENTS[1], "Item 0: searchable by words: 7 chunks of 3 files"),
        (ITEM_EVENTS[2], "Item 0: publishing"),
        (ITEM_EVENTS[3], "Item 0: published"),
        (ITEM_EVENTS[4], "Item 0: failed: no"),
        (ITEM_EVENTS[5], "Item 0: skipped: same"),
        (ITEM_EVENTS[6], "Item 0: cancelled"),
        (ITEM_EVENTS[7], "Item 0: paused"),
        (
            item_event(ItemStarted, deaths=1),
            "Item 0: taken by w, attempt 1, since the worker before died",
        ),
    ],
)
def test_every_event_has_a_sentence(event: JobEvent | ItemEvent, text: str) -> None:
    assert sentence(event) == text


def test_a_sentence_is_short_whatever_the_error() -> None:
    text = sentence(job_event(JobState.FAILED, error="x" * 10_000))
    assert len(text) == TEXT_CHARACTERS_MAX
    assert text.endswith("…")


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1900, 1, 1)))
def test_times_lose_nothing(at: datetime) -> None:
    assert moment(microseconds(at)) == at


@given(
    st.tuples(st.integers(0, EPOCH_MAX), st.integers(0, SEQUENCE_MAX)),
    st.tuples(st.integers(0, EPOCH_MAX), st.integers(0, SEQUENCE_MAX)),
)
def test_places_are_in_the_order_of_epoch_and_sequence(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (place_of(*a) < place_of(*b)) == (a < b)
    assert sequence_of(place_of(*a)) == a[1]
    assert place_of(*a) < 2**53


def test_bytes_are_read_or_kept_with_a_reason() -> None:
    for payload in (b"", b"{}", b"\xff", b'{"type":"jobs.event.v9.new"}', b"[" * 100_000):
        kept = read(Stored("events.job.t.j.x", payload, 7, {}))
        assert isinstance(kept, Unreadable)
        assert kept.sequence == 7
        assert 0 < len(kept.reason) <= 500


def test_the_same_bytes_have_the_same_digest_and_others_another() -> None:
    from pharos_contracts.message import encode

    one, two = (encode(job_event(state)) for state in (JobState.QUEUED, JobState.FAILED))
    facts = [read(Stored("s", data, sequence, {})) for sequence, data in enumerate((one, one, two))]
    digests = [fact.digest for fact in facts if isinstance(fact, Fact)]
    assert digests[0] == digests[1] != digests[2]
