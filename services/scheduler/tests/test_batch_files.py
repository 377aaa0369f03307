"""The files of a batch: counted as facts tell, and the same for whoever reads the facts later."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_contracts.batches.v1 import (
    BatchFile,
    BatchOptions,
    BatchPart,
    BatchSource,
    Manifest,
    PartTally,
    Tally,
)
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
)
from pharos_scheduler.batch_files import Files, FileState, HandOut, no_tally, without_failures
from pharos_scheduler.ports import Fact

AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
RESULT = IndexResult(
    dataset="d", generation=1, commit="", files_processed=1, embeddings_generated=1, chunks=1
)
KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "started": (ItemStarted, {}),
    "committing": (ItemCommitting, {"result": RESULT}),
    "completed": (ItemCompleted, {"result": RESULT}),
    "skipped": (ItemSkipped, {"reason": "it is there"}),
    "failed": (ItemFailed, {"error": "It is broken.", "code": "broken"}),
    "again": (ItemFailed, {"error": "It is away.", "code": "away", "transient": True}),
    "paused": (ItemPaused, {}),
    "cancelled": (ItemCancelled, {}),
}


def batch(*parts: int, **options: Any) -> tuple[BatchSource, Manifest]:
    source = BatchSource(
        name="b",
        manifest="m",
        parts=tuple(
            BatchPart(connection_id=f"c{part}", source_type=SourceType.S3, files=files)
            for part, files in enumerate(parts)
        ),
        options=BatchOptions(**options),
    )
    files = tuple(
        BatchFile(part=part, file_id=f"{part}/{each}", name=f"{each}")
        for part, count in enumerate(parts)
        for each in range(count)
    )
    return source, Manifest(job_id="j", tenant="t", files=files)


def files_of(
    described: tuple[BatchSource, Manifest],
    facts: dict[str, Fact] | None = None,
    tally: Tally | None = None,
    facts_after: int = 0,
    asked: int = 1,
) -> Files:
    return Files(*described, facts or {}, tally=tally, facts_after=facts_after, asked=asked, now=AT)


def fact(kind: str, item: int, sequence: int, *, attempt: int = 1, dispatch: int = 1) -> Fact:
    made, more = KINDS[kind]
    event: AnyItemEvent = made(
        event_id="e",
        at=AT,
        tenant="t",
        job_id="j",
        item_id=str(item),
        attempt=attempt,
        dispatch=dispatch,
        worker="w",
        **more,
    )
    return Fact(event, sequence)


def ready(files: Files, limit: int = 100, at: datetime = AT) -> list[HandOut]:
    return list(files.ready(limit, at))


def say(files: Files, kinds: Iterable[str], item: int = 0, *, first: int = 1, attempt: int = 1) -> None:
    for sequence, kind in enumerate(kinds, first):
        files.take(str(item), fact(kind, item, sequence, attempt=attempt), AT)


def test_files_are_handed_out_in_their_order_once() -> None:
    files = files_of(batch(2, 1))
    assert [offer.item for offer in ready(files, 2)] == [0, 1]
    assert [(offer.item, offer.attempt, offer.file.file_id) for offer in ready(files)] == [(2, 1, "1/0")]
    assert ready(files) == []
    assert files.flying == 3


def test_what_ends_is_counted_in_its_part() -> None:
    files = files_of(batch(2, 1))
    ready(files)
    say(files, ["started", "committing", "completed"], 0)
    say(files, ["started", "failed"], 1, first=10)
    assert not files.all_ended
    say(files, ["started", "skipped"], 2, first=20)
    assert files.tally() == Tally(parts=(PartTally(completed=1, failed=1), PartTally(skipped=1)))
    assert files.all_ended and files.first_error() == "It is broken."


def test_a_fact_that_is_not_newer_changes_nothing() -> None:
    files = files_of(batch(1))
    ready(files)
    say(files, ["started", "committing", "completed"])
    assert not files.take("0", fact("started", 0, 1), AT)
    assert not files.take("0", fact("failed", 0, 3), AT)
    assert files[0].state is FileState.COMPLETED


@pytest.mark.parametrize(
    ("options", "tries"), [({}, 4), ({"max_retries": 0}, 1), ({"retry_failed_files": False}, 1)]
)
def test_a_failure_that_may_pass_is_followed_by_as_many_tries_as_were_asked(
    options: dict[str, Any], tries: int
) -> None:
    files, at, sequence = files_of(batch(1, **options)), AT, 0
    for attempt in range(1, tries + 1):
        [offer] = ready(files, at=at)
        assert offer.attempt == attempt
        for kind in ("started", "again"):
            sequence += 1
            files.take("0", fact(kind, 0, sequence, attempt=attempt, dispatch=offer.dispatch), at)
        if attempt < tries:
            assert ready(files, at=at) == []  # not before its backoff is over
        at += timedelta(minutes=10)
    assert ready(files, at=at) == [] and files[0].state is FileState.FAILED


def test_a_paused_file_goes_on_with_its_attempt_and_a_lost_one_too() -> None:
    files = files_of(batch(2))
    first = ready(files)
    files.take("0", fact("paused", 0, 1), AT)
    files.lost(1)
    second = {offer.item: offer for offer in ready(files)}
    assert [second[item].attempt for item in (0, 1)] == [1, 1]
    assert [second[item].dispatch for item in (0, 1)] == [first[0].dispatch + 1, first[1].dispatch + 1]
    assert (second[0].past, second[1].past) == (1, 0)


def test_after_a_retry_only_what_succeeded_counts_and_attempts_go_on() -> None:
    described = batch(3)
    facts = {
        "0": fact("completed", 0, 3),
        "1": fact("failed", 1, 5, attempt=4),
        "2": fact("cancelled", 2, 6, attempt=2),
    }
    before = files_of(described, facts).tally()
    files = files_of(described, facts, without_failures(before), facts_after=6, asked=2)
    assert files.tally() == Tally(parts=(PartTally(completed=1),))
    assert {offer.item: (offer.attempt, offer.attempts_max) for offer in ready(files)} == {
        1: (5, 8),
        2: (5, 8),
    }


def test_after_a_retry_of_everything_nothing_counts_that_was_said_before() -> None:
    described = batch(2)
    facts = {"0": fact("completed", 0, 3), "1": fact("skipped", 1, 5)}
    files = files_of(described, facts, no_tally(described[0], 5), facts_after=5, asked=2)
    assert files.tally() == no_tally(described[0], 5)
    assert [offer.item for offer in ready(files)] == [0, 1]


def test_what_is_no_file_of_the_batch_is_passed_over() -> None:
    files = files_of(batch(1), {"7": fact("completed", 7, 1)})
    assert not files.take("clear", fact("completed", 0, 9), AT)
    files.was_handed("clear")
    assert files.tally().ended == 0 and len(ready(files)) == 1


MOVES = {
    FileState.HANDED: ["started", "paused", "cancelled", "skipped", "failed", "lost"],
    FileState.BEGUN: ["committing", "skipped", "failed", "again", "cancelled", "started", "lost"],
    FileState.PUBLISHING: ["completed", "failed", "lost"],
}


@given(st.data())
def test_whoever_reads_the_facts_later_knows_the_same(data: st.DataObject) -> None:
    described = batch(2, 2, max_retries=1)
    files, facts, at = files_of(described), dict[str, Fact](), AT
    for sequence in range(1, data.draw(st.integers(1, 60))):
        at += timedelta(seconds=data.draw(st.sampled_from([0, 1, 100])))
        if data.draw(st.booleans()):
            ready(files, data.draw(st.integers(1, 3)), at)
        moving = [item for item in range(len(files)) if files[item].state in MOVES]
        if not moving:
            continue
        item = data.draw(st.sampled_from(moving))
        move = data.draw(st.sampled_from(MOVES[files[item].state]))
        if move == "lost":
            files.lost(item)
            continue
        said = fact(move, item, sequence, attempt=files[item].attempt, dispatch=files[item].dispatch)
        files.take(str(item), said, at)
        facts[str(item)] = said
    tally = files.tally()
    assert all(part.ended <= share.files for part, share in zip(tally.parts, described[0].parts, strict=True))
    later = Files(*described, facts, tally=tally, facts_after=0, asked=1, now=at)
    for item in range(len(files)):
        if files[item].state is FileState.HANDED:
            later.was_handed(str(item))
    assert later.tally() == tally
    assert later.all_ended == files.all_ended
    for item in range(len(files)):
        ours, theirs = files[item], later[item]
        lost_since = ours.state is FileState.WAITING and theirs.state in (
            FileState.BEGUN,
            FileState.PUBLISHING,
        )
        assert ours.state is theirs.state or lost_since or ours.state is FileState.HANDED
        if str(item) in facts:
            assert (ours.sequence, ours.error) == (theirs.sequence, theirs.error)
