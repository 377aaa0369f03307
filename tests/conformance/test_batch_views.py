"""What history knows of batches, over both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import event, text

from pharos_contracts.batches.v1 import BatchOptions, BatchPart, BatchSource, PartTally, Tally
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.history.v1 import (
    FindJob,
    ItemView,
    ListBatches,
    ListItems,
    ListJobs,
    MeasureSources,
    SourceSummary,
    SummarizeBatches,
)
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    IndexResult,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemSkipped,
    ItemStarted,
    JobAdvanced,
    JobKind,
    Priority,
)
from pharos_contracts.lifecycle import JobState
from pharos_history.database import Database
from pharos_history.facts import read
from pharos_history.view_store import PAGE_BYTES_MAX, StreamState, ViewStore
from tests.support.job_events import START, make_event, make_item_event, make_job, stored

STREAM = StreamState(created="first", first_sequence=1, last_sequence=1_000_000)
RESULT = IndexResult(
    dataset="d", generation=1, commit="", files_processed=1, embeddings_generated=4, chunks=4
)


def batch(*files: int, **more: Any) -> dict[str, Any]:
    """The fields of a batch of two connections."""
    types = (SourceType.LOCAL_ZIP, SourceType.S3)
    parts = tuple(
        BatchPart(connection_id=f"c{place}", source_type=types[place], files=count)
        for place, count in enumerate(files)
    )
    source = BatchSource(name="b", manifest="m", parts=parts, options=BatchOptions())
    return {"kind": JobKind.BATCH, "source": None, "batch": source, "number": 0, **more}


def tally(*parts: tuple[int, int, int], since: int = 0) -> Tally:
    return Tally(parts=tuple(PartTally(completed=c, failed=f, skipped=s) for c, f, s in parts), since=since)


def item(kind: type[Any], number: int, item_id: int, seconds: float = 0.0, **more: Any) -> Any:
    at = START + timedelta(minutes=1, seconds=seconds)
    return make_item_event(
        kind, number, str(item_id), at=at, event_id=f"{number}:{item_id}:{kind}:{seconds}", **more
    )


def fold(store: ViewStore, *events: AnyEvent) -> None:
    """Fold *events* as the next ones of the stream."""
    position = store.open(STREAM)
    first = position.sequence + 1
    store.fold(position, [read(stored(first + index, event)) for index, event in enumerate(events)])


def items(store: ViewStore, number: int) -> dict[int, ItemView]:
    found = store.list_items(ListItems(tenant="acme", job_id=f"job-{number:06}"))
    assert found.next is None
    return {int(each.item_id): each for each in found.items}


def test_items_are_listed_by_their_number_with_what_became_of_them(store: ViewStore) -> None:
    fold(
        store,
        make_event(1, JobState.PENDING, **batch(12, 3)),
        make_event(1, JobState.RUNNING, **batch(12, 3)),
    )
    fold(
        store,
        *(item(ItemStarted, 1, each) for each in (10, 9, 2, 11)),
        item(ItemCommitting, 1, 10, 1, result=RESULT),
        item(ItemCompleted, 1, 10, 2.5, result=RESULT),
        item(ItemSkipped, 1, 2, 1, reason="known"),
        item(ItemFailed, 1, 9, 1, error="It is gone", code="not_found"),
        item(ItemFailed, 1, 11, 1, error="It is slow", code="timeout", transient=True),
        make_item_event(ItemStarted, 1, "clear"),
    )
    found = items(store, 1)
    assert list(found) == [2, 9, 10, 11]
    assert (found[10].state, found[10].chunks, found[10].seconds) == (JobState.COMPLETED, 4, 2.5)
    assert (found[2].state, found[2].reason) == (JobState.SKIPPED, "known")
    assert (found[9].error, found[9].transient, found[11].transient) == ("It is gone", False, True)
    assert [each.sequence for each in found.values()] == [9, 10, 8, 11]
    page = store.list_items(ListItems(tenant="acme", job_id="job-000001", first=3, limit=1))
    assert ([each.item_id for each in page.items], page.next, page.sequence) == (["9"], 10, 12)
    assert store.list_items(ListItems(tenant="other", job_id="job-000001")).items == ()
    [view] = store.find_job(FindJob(tenant="acme", job_id="job-000001")).jobs
    assert view.items == ()


def test_a_page_of_items_fits_into_a_message_and_goes_on(store: ViewStore) -> None:
    fold(store, make_event(1, JobState.RUNNING, **batch(400, 0)))
    fold(store, *(item(ItemFailed, 1, each, error="x" * 5_000, code="c") for each in range(400)))
    seen: list[str] = []
    following: int | None = 0
    pages = 0
    while following is not None:
        page = store.list_items(ListItems(tenant="acme", job_id="job-000001", first=following))
        assert sum(len(each.error or "") for each in page.items) < PAGE_BYTES_MAX
        seen += [each.item_id for each in page.items]
        following, pages = page.next, pages + 1
    assert seen == [str(each) for each in range(400)]
    assert pages == 3


def test_batches_are_listed_by_user_state_and_project_and_counted(store: ViewStore) -> None:
    for number in range(1, 8):
        owner = "ann" if number < 7 else "bob"
        state = JobState.COMPLETED if number % 2 else JobState.RUNNING
        project = "atlas" if number == 2 else "default"
        fold(store, make_event(number, state, **batch(1, 1, submitted_by=owner, project=project)))
    fold(store, make_event(8, JobState.COMPLETED))  # a repository

    def listed(**more: Any) -> tuple[list[str], int]:
        page = store.list_batches(ListBatches(**{"tenant": "acme", "owner": "ann", **more}))
        return [view.job.job_id[-1] for view in page.jobs], page.total

    assert listed() == (["6", "5", "4", "3", "2", "1"], 6)
    assert listed(limit=2, offset=3) == (["3", "2"], 6)
    assert listed(offset=9) == ([], 6)
    assert listed(states=("running",)) == (["6", "4", "2"], 3)
    assert listed(states=("running", "completed"), limit=1) == (["6"], 6)
    assert listed(projects=("atlas",)) == (["2"], 1)
    assert listed(projects=()) == ([], 0)
    assert listed(owner="bob") == (["7"], 1)
    assert listed(tenant="other") == ([], 0)
    assert len(store.list_jobs(ListJobs(tenant="acme")).jobs) == 8


def test_statistics_count_batches_and_files_once(store: ViewStore) -> None:
    first = batch(4, 2, priority=Priority.HIGH)
    for each in (
        tally((1, 0, 0), (0, 1, 0)),
        tally((2, 1, 1), (1, 1, 0)),
    ):
        job = make_job(1, JobState.RUNNING, **{**first, "tally": each})
        fold(store, JobAdvanced(event_id=f"{each}", at=START, job=job))
    fold(store, make_event(1, JobState.COMPLETED, **first, tally=tally((2, 1, 1), (1, 1, 0))))
    fold(store, make_event(2, JobState.RUNNING, **batch(9, 0, tally=tally((3, 0, 0), (0, 0, 0)))))
    fold(store, make_event(3, JobState.RUNNING, **batch(9, 0, submitted_by="bob")))
    fold(store, item(ItemStarted, 2, 0), item(ItemCompleted, 2, 0, 3, result=RESULT))
    fold(store, item(ItemStarted, 2, 1), item(ItemCompleted, 2, 1, 5, result=RESULT))
    found = store.summarize_batches(SummarizeBatches(tenant="acme", owner="ann"))
    assert found.by_state == {"completed": 1, "running": 1}
    assert found.by_priority == {"high": 1, "normal": 1}
    assert found.by_source == {
        "local_zip": SourceSummary(completed=5, failed=1, skipped=1),
        "s3": SourceSummary(completed=1, failed=1),
    }
    assert found.seconds_per_file == 4.0
    nothing = store.summarize_batches(SummarizeBatches(tenant="acme", owner="ann", projects=("atlas",)))
    assert (nothing.by_state, nothing.by_source) == ({}, {})


def test_the_last_files_of_a_type_say_how_long_one_takes(store: ViewStore) -> None:
    fold(store, make_event(1, JobState.RUNNING, **batch(300, 1)))
    for each in range(250):  # the first fifty took longer, and are forgotten
        seconds = 90.0 if each < 50 else 2.0
        began = each * 100.0
        fold(
            store,
            item(ItemStarted, 1, each, began),
            item(ItemCompleted, 1, each, began + seconds, result=RESULT),
        )
    assert store.measure_sources(MeasureSources(tenant="acme")).seconds_per_file == {"local_zip": 2.0}
    assert store.measure_sources(MeasureSources(tenant="other")).seconds_per_file == {}


def test_a_rebuild_makes_the_same_of_the_same_facts(store: ViewStore) -> None:
    running = batch(2, 1, tally=tally((1, 1, 0), (0, 0, 0)))
    facts = [
        read(stored(index, event))
        for index, event in enumerate(
            [
                make_event(1, JobState.RUNNING, **running),
                item(ItemStarted, 1, 0),
                item(ItemFailed, 1, 0, 1, error="e", code="c", attempt=4),
                item(ItemStarted, 1, 1),
                item(ItemCompleted, 1, 1, 4, result=RESULT),
                make_event(1, JobState.RETRYING, **{**running, "facts_after": 5}),
                item(ItemStarted, 1, 0, 6, attempt=5),
            ],
            1,
        )
    ]
    store.fold(store.open(STREAM), facts)

    def told() -> tuple[Any, ...]:
        asked = SummarizeBatches(tenant="acme", owner="ann")
        return (
            items(store, 1),
            store.list_batches(ListBatches(tenant="acme", owner="ann")),
            store.summarize_batches(asked),
            store.measure_sources(MeasureSources(tenant="acme")),
        )

    before = told()
    with store.rebuild(STREAM) as rebuild:
        rebuild.fold(facts)
    assert told() == before


def test_a_batch_that_ended_long_ago_is_forgotten_whole(store: ViewStore, database: Database) -> None:
    fold(store, make_event(1, JobState.COMPLETED, **batch(1, 1)), item(ItemCompleted, 1, 0, result=RESULT))
    assert store.prune(START + timedelta(days=1), 10) > 0
    with database.reading() as connection:
        for table in ("jobs", "items", "events", "batches", "batch_sources"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0, table


def test_no_question_reads_a_whole_table(store: ViewStore, database: Database) -> None:
    """The plan of every statement that a question sends."""
    fold(store, make_event(1, JobState.RUNNING, **batch(1, 1)))
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    engine = database._engine
    event.listen(engine, "before_cursor_execute", note)
    mine = {"tenant": "acme", "owner": "ann", "projects": ("default",)}
    store.list_batches(ListBatches(**mine, states=("running", "failed"), offset=3))
    store.list_batches(ListBatches(tenant="acme", owner="ann"))
    store.list_items(ListItems(tenant="acme", job_id="job-000001", first=5))
    store.summarize_batches(SummarizeBatches(**mine))
    store.measure_sources(MeasureSources(tenant="acme"))
    event.remove(engine, "before_cursor_execute", note)
    asked = [each for each in asked if " FROM position" not in each[0]]  # it has one row
    assert len(asked) >= 10
    with database.reading() as connection:
        for statement, parameters in asked:
            if database.is_sqlite:
                found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                steps = [str(row[3]) for row in found]
                assert not [
                    step
                    for step in steps
                    if step.startswith("SCAN") and " page" not in step and " newest" not in step
                ], (statement, steps)
            else:
                # A table with a row or none is always read whole.
                connection.execute(text("SET LOCAL enable_seqscan = off"))
                found = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                steps = [str(row[0]) for row in found]
                assert any("Index" in step for step in steps), (statement, steps)
                assert not any("Seq Scan" in step for step in steps), (statement, steps)
