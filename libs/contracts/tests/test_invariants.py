"""Each rule by itself: a snapshot in which everything agrees, and what is found when one thing is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pharos_contracts import violations as named
from pharos_contracts.control.v1 import GraphState
from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.invariants import Asked, Claim, HandedOut, Snapshot, Waiting, lasting, violations
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    AnyEvent,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
)
from pharos_contracts.lifecycle import BATCH_ONLY, TERMINAL, TRANSITIONS, JobState
from pharos_contracts.subjects import ITEM_CLEAR, Due, DueKind
from pharos_contracts.violations import Violation, name_of
from pharos_contracts.workers.v1 import WorkerState
from tests.support.snapshots import (
    BEGAN,
    CANCELLED,
    CLEAN,
    COMMITTING,
    COMPLETED,
    DAYS_AGO,
    FAILED,
    LAST_FACT,
    LONG_AGO,
    NOW,
    PAUSED,
    QUEUED,
    RETRYING,
    RUNNING,
    Change,
    became,
    begun,
    both,
    cancelled,
    done,
    failed,
    fold,
    has,
    history,
    history_without,
    holds,
    ledger,
    less,
    lexical_ready,
    more,
    names,
    paused,
    points,
    result_of,
    resumed,
    retried,
    said,
    shows,
    snapshot_of,
    worker,
)


def test_where_everything_agrees_nothing_is_found() -> None:
    assert violations(CLEAN) == []
    assert violations(CLEAN, grace_seconds=0) == []


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert violations(snapshot_of(fold([])), grace_seconds=0) == []


def _read_by_history(sequence: int) -> Change:
    def change(snapshot: Snapshot) -> Snapshot:
        assert snapshot.history is not None
        return replace(snapshot, history=replace(snapshot.history, sequence=sequence))

    return change


# What was changed -> how -> everything that is found then.
WRONG: dict[str, tuple[Change, list[str]]] = {
    "a running job with nobody": (
        both(less("work", "running"), has(workers=(worker("w1", "committing"), worker("w2", "retried")))),
        ["ownerless"],
    ),
    "a committing job with nobody": (
        both(less("work", "committing"), has(workers=(worker("w1", "running"), worker("w2", "retried")))),
        ["ownerless"],
    ),
    "a queued job that neither Q nor the ledger has": (
        both(has(queue=()), ledger("ledger.job.acme.queued", None)),
        ["ownerless", "ledger_differs"],
    ),
    "a retrying job that nothing brings back": (
        has(later=CLEAN.later - {Due(DueKind.RETRY, "acme", "retrying")}),
        ["ownerless"],
    ),
    "waiting jobs and an idle worker": (more("workers", worker("w3")), ["not_handed_out", "not_handed_out"]),
    "a job with two workers": (
        has(workers=(worker("w1", "running", "committing"), worker("w2", "retried", "running"))),
        ["held_twice"],
    ),
    "a worker with a job that ended": (more("workers", worker("w3", "completed")), ["held_for_nothing"]),
    "a worker with a job that is paused": (more("workers", worker("w3", "paused")), ["held_for_nothing"]),
    "a command of no job": (more("queue", Waiting("nobody", 9, BEGAN)), ["entry_without_ledger"]),
    "an item of no job": (more("work", HandedOut("nobody", "0", 9, BEGAN)), ["entry_without_ledger"]),
    "a command of a job that runs": (more("queue", Waiting("running", 9, BEGAN)), ["stale_queue_entry"]),
    "a command of a job that ended": (more("queue", Waiting("skipped", 9, BEGAN)), ["stale_queue_entry"]),
    "more commands than the cap": (has(queue_max=0), ["queue_over_cap"]),
    "an item of a job that ended": (more("work", HandedOut("cancelled", "0", 9, BEGAN)), ["stale_work_item"]),
    "an item of a paused job": (more("work", HandedOut("paused", "0", 9, BEGAN)), ["stale_work_item"]),
    "an item of a retrying job": (more("work", HandedOut("retrying", "0", 9, BEGAN)), ["stale_work_item"]),
    "clearing behind a job that runs": (
        more("work", HandedOut("retried", ITEM_CLEAR, 9, BEGAN)),
        ["cleared_while_running"],
    ),
    "a command that nobody carried out": (
        has(commands=(Asked("cmd.control.paused.resume", 4, BEGAN),)),
        ["command_ignored"],
    ),
    "a schedule that nothing starts": (
        has(later=CLEAN.later - {Due(DueKind.CRON, "acme", "nightly")}),
        ["no_next_run"],
    ),
    "a claim of a job that ended": (
        more("claims", Claim("acme.key-completed", "completed", BEGAN)),
        ["claim_left"],
    ),
    "a claim of no job": (more("claims", Claim("acme.k", "nobody", BEGAN)), ["claim_without_job"]),
    "an open job without a claim": (less("claims", "paused"), ["open_without_claim"]),
    "an open job whose claim is another's": (
        both(less("claims", "paused"), more("claims", Claim("acme.key-paused", "running", BEGAN))),
        ["open_without_claim"],
    ),
    "a ledger that has another event of a job": (ledger("ledger.job.acme.failed", "x"), ["ledger_differs"]),
    "a ledger that has no event of a job": (ledger("ledger.job.acme.failed", None), ["ledger_differs"]),
    "a ledger that has another fact of an item": (
        ledger("ledger.item.acme.failed.0", "x"),
        ["ledger_differs"],
    ),
    "a history that stands still": (_read_by_history(5), ["history_behind"]),
    "a history with another state": (history("failed", state=RUNNING), ["history_differs"]),
    "a history with another attempt": (history("retried", attempt=1), ["history_differs"]),
    "a history with another number": (history("queued", number=0), ["history_differs"]),
    "a history with another error": (history("failed", error=None), ["history_differs"]),
    "a history without the result": (history("completed", has_result=False), ["history_differs"]),
    "a history that missed the last event": (history("paused", sequence=1), ["history_differs"]),
    "a history without an open job": (history_without("paused"), ["history_lacks"]),
    "a history without a job that ended": (history_without("failed"), ["history_lacks"]),
    "a history with a job that never was": (
        history("nobody", changed_at=BEGAN + timedelta(seconds=1)),
        ["history_invents"],
    ),
    "points of a cancelled job": (more("index", points("cancelled")), ["points_left"]),
    "points of a failed job above the live generation": (
        more("index", points("completed", 11)),
        ["points_left"],
    ),
    "points of nobody": (more("index", points("unknown")), ["points_left"]),
    "words that a cancelled job shows": (
        shows("cancelled", points("cancelled"), stage=IndexStage.LEXICAL),
        ["shown_by_ended_job"],
    ),
    "an index that a failed job shows": (shows("failed", points("failed")), ["shown_by_ended_job"]),
    "a dataset without points": (shows("completed"), ["record_without_points"]),
    "a dataset whose points are not live yet": (
        shows("completed", points("completed", 11)),
        ["record_without_points", "points_left"],
    ),
    "more chunks than the record says": (holds("completed", chunks=6, documents=6), ["dataset_differs"]),
    "a file that is missing": (holds("completed", files=1), ["dataset_differs"]),
    "a chunk without its vector": (holds("completed", without_vector=1), ["dataset_differs"]),
    "a lexicon of which a part is missing": (holds("completed", documents=None), ["dataset_differs"]),
    "a lexicon of other chunks": (holds("completed", documents=4), ["dataset_differs"]),
    "a piece that belongs to no lexicon": (holds("completed", lexicon_unused=1), ["dataset_differs"]),
    "a graph of which a part is missing": (holds("completed", graph=GraphState.BROKEN), ["dataset_differs"]),
    "a repository without its graph": (holds("completed", graph=GraphState.NONE), ["dataset_differs"]),
    "a graph of other files": (holds("completed", graph_files=3), ["dataset_differs"]),
    "points that were retired long ago": (
        both(
            shows("completed", points("completed"), published_at=LONG_AGO),
            holds("completed", retired=3),
        ),
        ["points_not_swept"],
    ),
    "a piece of a lexicon of a job that failed": (
        more("index", replace(points("completed", 11), points=0, others=1)),
        ["points_left"],
    ),
    "a dataset that went back": (
        shows("completed", points("completed", 9), generation=9),
        ["generation_went_back"],
    ),
}
# These are told apart from what is in motion by other means than its age.
WITHOUT_GRACE = {"queue_over_cap", "held_twice", "history_differs", "history_invents"}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found_and_nothing_else(what: str) -> None:
    change, expected = WRONG[what]
    assert names(violations(change(CLEAN))) == expected


@pytest.mark.parametrize("what", sorted(set(WRONG) - {"points of nobody"}))
def test_what_may_be_in_motion_is_left_alone(what: str) -> None:
    change, expected = WRONG[what]
    found = names(violations(change(CLEAN), grace_seconds=7200))
    assert found == [name for name in expected if name in WITHOUT_GRACE]


RIGHT: dict[str, Change] = {
    "a retrying job whose time has not come": both(
        has(later=CLEAN.later - {Due(DueKind.RETRY, "acme", "retrying")}),
        has(jobs={**CLEAN.jobs, "retrying": replace(CLEAN.jobs["retrying"], next_attempt_at=NOW)}),
    ),
    "a running job whose worker died": has(workers=()),
    "a running job whose item is settled": has(work=()),
    "waiting jobs and a worker that drains": more("workers", worker("w3", state=WorkerState.DRAINING)),
    "waiting jobs and a worker that was busy until now": more("workers", worker("w3", since=NOW)),
    "waiting jobs and no free slot": both(
        more("workers", worker("w3", slots=0)),
        has(work=tuple(HandedOut(name, "0", 1, BEGAN) for name in ("running", "committing", "retried"))),
        lambda s: replace(s, workers=tuple(replace(each, slots=1) for each in s.workers[:2]) + s.workers[2:]),
    ),
    "what a cancelled job left is being removed": both(
        more("work", HandedOut("cancelled", ITEM_CLEAR, 9, BEGAN)),
        shows("cancelled", points("cancelled"), points("cancelled", 11), stage=IndexStage.LEXICAL),
        has(workers=(*CLEAN.workers, worker("w3", "cancelled"))),
    ),
    "a first index that is shown before it is linked": holds(
        "running", files=0, graph=GraphState.NONE, graph_files=0, without_vector=5
    ),
    "a first index whose graph is being stored": holds("running", graph=GraphState.BROKEN, graph_files=0),
    "files that a batch published before it was cancelled": both(
        has(jobs={**CLEAN.jobs, "cancelled": replace(CLEAN.jobs["cancelled"], is_batch=True)}),
        shows("cancelled", points("cancelled")),
    ),
    "a claim whose command was published just now": both(
        more("claims", Claim("acme.k", "nobody", BEGAN)), more("queue", Waiting("nobody", 9, NOW))
    ),
    "a job that history has forgotten": both(
        history_without("failed"),
        has(jobs={**CLEAN.jobs, "failed": replace(CLEAN.jobs["failed"], at=DAYS_AGO)}),
    ),
    "a job that history knew before JOBS began": history("older", changed_at=DAYS_AGO),
    "a job that history knows before it was read here": history(
        "new", sequence=CLEAN.last_sequence + 1, changed_at=NOW
    ),
    "a job that moved on before history was asked": history(
        "running", state=COMPLETED, sequence=CLEAN.last_sequence + 3
    ),
    "points older than all that is known": more("index", points("completed", 3)),
    "points of somebody who writes, and is no job": both(
        more("index", points("unknown")),
        has(locked=frozenset({dataset_key("acme", "default", "host/o/unknown@main")})),
    ),
    "points that were retired just now": holds("completed", retired=3),
    "words whose vectors are not in yet": holds("running", without_vector=3),
    "documents, which are no files": both(
        shows("completed", points("completed"), repository=""),
        holds("completed", files=0, graph=GraphState.NONE, graph_files=0),
    ),
    "a graph that is too large to be kept": holds("completed", graph=GraphState.LEFT_OUT, graph_files=0),
    "no history": has(history=None),
    "no index": has(index=None),
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_only_looks_wrong_is_not_found(what: str) -> None:
    assert violations(RIGHT[what](CLEAN)) == []


def test_of_a_dataset_it_is_said_in_what_it_differs() -> None:
    changed = holds("completed", chunks=6, without_vector=2, documents=None)(CLEAN)
    assert [each.sentence() for each in violations(changed)] == [
        "Dataset host/o/completed@main (acme, project default) is not in the index what its record says of "
        "generation 10: it has 6 chunks, not 5; 2 chunks have no vector; a part of its lexicon is missing."
    ]


def test_a_job_that_only_the_ledger_knows_is_judged_by_it() -> None:
    old = replace(CLEAN.jobs["running"], sequence=0, digest="of the ledger")
    snapshot = replace(CLEAN, jobs={**CLEAN.jobs, "running": old})
    assert violations(snapshot) == []
    assert names(violations(WRONG["a running job with nobody"][0](snapshot))) == ["ownerless"]
    assert names(violations(history("running", state=QUEUED)(snapshot))) == ["history_differs"]


@pytest.mark.parametrize(
    "what", ["a running job with nobody", "a history that stands still", "more commands than the cap"]
)
def test_only_what_is_wrong_both_times_lasts(what: str) -> None:
    wrong = violations(WRONG[what][0](CLEAN))
    later = violations(WRONG[what][0](replace(CLEAN, last_sequence=CLEAN.last_sequence + 9)))
    assert lasting(wrong, later) == later != []
    assert lasting([], later) == lasting(wrong, []) == []


def test_a_job_that_moved_on_in_between_is_not_the_same_one() -> None:
    change = WRONG["a running job with nobody"][0]
    moved = replace(CLEAN, jobs={**CLEAN.jobs, "running": replace(CLEAN.jobs["running"], sequence=99)})
    assert lasting(violations(change(CLEAN)), violations(change(moved))) == []


# What is wrong with the order of events

STARTED_BY_TWO = [*begun("j"), said(ItemStarted, "j", worker="w2", attempt=2, dispatch=1)]

ORDER: dict[str, tuple[list[AnyEvent], list[str]]] = {
    "a job that begins in the middle": ([became("j", RUNNING)], ["illegal_step"]),
    "a job that is queued twice": ([became("j", QUEUED), became("j", QUEUED)], ["illegal_step"]),
    "a completed job that is retried": ([*done("j"), became("j", RETRYING, attempt=1)], ["event_after_end"]),
    "two ends": ([*failed("j"), became("j", CANCELLED, attempt=1)], ["second_end"]),
    "the same end twice": ([*done("j"), became("j", COMPLETED, attempt=1)], ["second_end"]),
    "an end, a retry and another end": (
        [*failed("j"), became("j", RETRYING, attempt=1), became("j", CANCELLED, attempt=1)],
        [],
    ),
    "a job that goes on behind its end": (
        [*failed("j"), became("j", RUNNING, attempt=1)],
        ["event_after_end"],
    ),
    "attempts that begin again": (
        [*failed("j"), became("j", RETRYING, attempt=0), became("j", QUEUED, attempt=0)],
        ["attempt_went_back"],
    ),
    "a worker that takes over from one that died": (
        [*STARTED_BY_TWO, lexical_ready("j", worker="w2", attempt=2)],
        [],
    ),
    "a worker that speaks of what it lost": ([*STARTED_BY_TWO, lexical_ready("j")], ["two_holders"]),
    "an instance that speaks of what the one before it held": (
        [*begun("j"), lexical_ready("j", instance="w1-i2")],
        ["two_holders"],
    ),
    "a worker that publishes what it lost": (
        [*STARTED_BY_TWO, said(ItemCommitting, "j", result=result_of("j"))],
        ["two_holders"],
    ),
    "a worker that fails what it lost": (
        [*STARTED_BY_TWO, said(ItemFailed, "j", error="no", code="network")],
        ["two_holders"],
    ),
    "a worker that skips what it lost": (
        [*STARTED_BY_TWO, said(ItemSkipped, "j", reason="old")],
        ["two_holders"],
    ),
    "a hand-out of the same attempt": ([*begun("j"), said(ItemStarted, "j", worker="w2", dispatch=2)], []),
    "a hand-out that was overtaken": (
        [
            became("j", QUEUED),
            said(ItemStarted, "j", dispatch=2),
            said(ItemStarted, "j", worker="w2", dispatch=1),
        ],
        ["fact_out_of_place"],
    ),
    "an item that killed its workers": (
        [*STARTED_BY_TWO, said(ItemFailed, "j", worker="w3", attempt=3, error="died twice", code="poison")],
        [],
    ),
    "an item that waited for too long": ([became("j", QUEUED), said(ItemSkipped, "j", reason="old")], []),
    "an item that is finished by another worker": (
        [
            *begun("j"),
            said(ItemCommitting, "j", result=result_of("j")),
            said(ItemCompleted, "j", worker="w2", result=result_of("j")),
        ],
        [],
    ),
    "an item that is published unannounced": (
        [*begun("j"), said(ItemCompleted, "j", result=result_of("j"))],
        ["fact_out_of_place"],
    ),
    "an item that is begun again while it is published": (
        [
            *begun("j"),
            said(ItemCommitting, "j", result=result_of("j")),
            said(ItemStarted, "j", worker="w2", attempt=2),
        ],
        ["fact_out_of_place"],
    ),
    "an item that is taken away while it is published": (
        [*begun("j"), said(ItemCommitting, "j", result=result_of("j")), said(ItemCancelled, "j", worker="s")],
        ["fact_out_of_place"],
    ),
    "an item that goes on after it was taken away": (
        [*begun("j"), said(ItemCancelled, "j", worker="s"), lexical_ready("j")],
        ["fact_out_of_place"],
    ),
    "an item that is begun again after it was taken away": (
        [*begun("j"), said(ItemCancelled, "j", worker="s"), said(ItemStarted, "j", worker="w2")],
        ["fact_out_of_place"],
    ),
    "a paused item that an old hand-out begins": (
        [*paused("j"), said(ItemStarted, "j", worker="w2", attempt=2)],
        ["fact_out_of_place"],
    ),
    "a paused item that goes on": (
        [
            *paused("j"),
            resumed("j", attempt=1, facts_after=LAST_FACT),
            said(ItemStarted, "j", worker="w2"),
            lexical_ready("j", worker="w2"),
        ],
        [],
    ),
    "a cancelled item that is tried again": (
        [*retried("j", cancelled("j")), said(ItemStarted, "j", attempt=2)],
        [],
    ),
    "a failed item that is tried again": (
        [*retried("j", failed("j")), said(ItemStarted, "j", attempt=2)],
        [],
    ),
    "a worker that speaks of what it had before a retry": (
        [*retried("j", failed("j")), lexical_ready("j")],
        ["fact_out_of_place"],
    ),
    "a resumed item that waited for too long": (
        [
            became("j", QUEUED),
            said(ItemPaused, "j", worker="scheduler", dispatch=0),
            became("j", PAUSED, facts_after=LAST_FACT),
            resumed("j", facts_after=LAST_FACT),
            said(ItemSkipped, "j", reason="old"),
        ],
        [],
    ),
    "a failed item that is begun again as the same attempt": (
        [
            *begun("j"),
            said(ItemFailed, "j", error="e", code="c", transient=True),
            said(ItemStarted, "j", worker="w2", dispatch=2),
        ],
        ["fact_out_of_place"],
    ),
    "a fact behind the end of its job": (
        [*cancelled("j"), said(ItemStarted, "j", worker="w2", attempt=2)],
        ["fact_after_end"],
    ),
    "clearing behind the end of its job": ([*cancelled("j"), said(ItemStarted, "j", item_id=ITEM_CLEAR)], []),
    "a fact of no job": ([said(ItemStarted, "j")], ["fact_without_job"]),
}


@pytest.mark.parametrize("what", ORDER)
def test_what_is_wrong_in_the_order_of_events_is_found_and_nothing_else(what: str) -> None:
    events, expected = ORDER[what]
    folded = fold(events)
    about_events = violations(replace(snapshot_of(folded), history=None), grace_seconds=0)
    owned = [each for each in about_events if not isinstance(each, named.Ownerless)]
    assert names(owned) == expected


def test_two_jobs_may_not_work_on_one_dataset_at_once() -> None:
    second = [
        became("other", QUEUED, dataset="host/o/j@main"),
        said(ItemStarted, "other", worker="w2"),
    ]

    def found(*events: AnyEvent) -> list[str]:
        return names(fold(events).found)

    first = [became("j", QUEUED, dataset="host/o/j@main"), said(ItemStarted, "j")]
    assert found(*first, *second) == ["lane_shared"]
    assert found(*first, became("j", RUNNING, dataset="host/o/j@main", attempt=1), *second) == ["lane_shared"]
    assert found(*first, said(ItemFailed, "j", error="e", code="c"), *second) == []
    assert found(*first, said(ItemPaused, "j", worker="s"), *second) == []
    ended = became("j", FAILED, dataset="host/o/j@main", attempt=1, error="worker lost")
    assert found(*first, became("j", RUNNING, dataset="host/o/j@main", attempt=1), ended, *second) == []
    elsewhere = [replace(event, job=replace(event.job, tenant="other")) for event in second[:1]]
    assert found(*first, *elsewhere, said(ItemStarted, "other", worker="w2", tenant="other")) == []


def test_of_a_stream_that_was_cut_off_the_beginning_is_not_judged() -> None:
    events = [said(ItemCommitting, "j", result=result_of("j")), became("j", COMMITTING, attempt=1)]
    assert fold(events, whole=False).found == []
    assert names(fold(events).found) == ["fact_out_of_place", "illegal_step"]


def test_memory_does_not_grow_with_the_events_of_a_job() -> None:
    retry = [became("j", RETRYING, attempt=1, error="e" * 10_000), became("j", QUEUED, attempt=1)]
    short = fold([*failed("j"), *retry])
    again = [became("j", FAILED, attempt=1, error="e" * 10_000), *retry]
    long = fold([*failed("j"), *retry, *(again * 50)])
    assert long.found == short.found == []
    assert (
        len(msgspec.json.encode(list(long.jobs.values())))
        < len(msgspec.json.encode(list(short.jobs.values()))) + 20
    )


_STEPS = sorted({(row[0], target) for row, target in TRANSITIONS.items() if row not in BATCH_ONLY})


@given(st.data())
def test_every_history_that_the_table_allows_is_right_and_one_step_beside_it_is_not(
    data: st.DataObject,
) -> None:
    state, events = QUEUED, [became("j", QUEUED)]
    for _ in range(data.draw(st.integers(0, 20))):
        following = [target for source, target in _STEPS if source is state]
        if not following:
            break
        state = data.draw(st.sampled_from(following))
        events.append(became("j", state))
    assert fold(events).found == []
    refused = [target for target in JobState if (state, target) not in _STEPS]
    wrong = data.draw(st.sampled_from(refused))
    if wrong in EVENT_OF_STATE:
        [found] = fold([*events, became("j", wrong)]).found
        expected = named.IllegalStep
        if state in TERMINAL:
            expected = named.SecondEnd if wrong in TERMINAL else named.EventAfterEnd
        assert type(found) is expected


def _kinds() -> list[type[Violation]]:
    return Violation.__subclasses__()


def test_every_kind_is_found_by_a_test_above() -> None:
    found = {name for _, expected in [*WRONG.values(), *ORDER.values()] for name in expected}
    assert {kind.__struct_config__.tag for kind in _kinds()} == found | {"lane_shared", "unreadable"}


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_says_where_and_what_to_do(kind: type[Violation]) -> None:
    examples: dict[Any, Any] = {
        "sequence": 7, "generation": 7, "points": 7, "files": 7, "pending": 7, "cap": 7, "published": 8,
        "last": 9, "was": RUNNING, "became": FAILED, "state": RUNNING, "stage": IndexStage.FULL,
        "workers": ("w1", "w2"), "lane": ("t", "p", "d"), "fields": ("state",), "missing": True,
        "holder": "w2", "after": "started",
    }  # fmt: skip
    if kind is named.AttemptWentBack:
        examples |= {"was": 2, "became": 1}
    fields = [field.name for field in msgspec.structs.fields(kind)]
    violation = kind(**{name: examples.get(name, f"<{name}>") for name in fields})
    sentence = violation.sentence()
    assert sentence[0].isupper() and sentence.endswith(".")
    assert all(f"<{name}>" in sentence for name in fields if name in ("job_id", "dataset", "worker", "key"))
    assert kind.remedy.endswith((".", "`."))
    assert kind.__doc__ and kind.__doc__ != Violation.__doc__
    assert msgspec.json.decode(msgspec.json.encode(violation))["violation"] == name_of(violation)
    assert hash(violation.identity()) == hash(replace(violation).identity())
