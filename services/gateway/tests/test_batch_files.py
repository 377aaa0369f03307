from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

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
from pharos_contracts.history.v1 import ItemView
from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    JobKind,
    Progress,
    Stage,
)
from pharos_contracts.lifecycle import JobState
from pharos_gateway.batch_files import STEPS, Counts, Files

AT = datetime(2026, 1, 2, tzinfo=UTC)
RESULT = IndexResult(
    dataset="d", generation=1, commit="", files_processed=1, embeddings_generated=1, chunks=1
)
PARTS = (
    BatchPart(connection_id="a", source_type=SourceType.S3, files=2),
    BatchPart(connection_id="b", source_type=SourceType.GIT, files=1),
)


def batch(state: JobState = JobState.RUNNING, *, tries: int = 3, **more: Any) -> Job:
    values: dict[str, Any] = {
        "job_id": "j",
        "number": 0,
        "tenant": "t",
        "key": "k",
        "kind": JobKind.BATCH,
        "state": state,
        "batch": BatchSource(
            name="b", manifest="j", parts=PARTS, options=BatchOptions(max_retries=tries - 1)
        ),
        "project": "default",
        "submitted_at": AT,
        "submitted_by": "ann",
        "ttl_seconds": 60,
    }
    return Job(**values | more)


def files(job: Job | None = None) -> Files:
    names = tuple(
        BatchFile(part=part, file_id=name, name=name) for part, name in ((0, "x"), (0, "y"), (1, "z"))
    )
    return Files(job or batch(), Manifest(job_id="j", tenant="t", files=names))


def event(kind: type[Any], item: str = "0", attempt: int = 1, **more: Any) -> Any:
    return kind(
        event_id="e",
        at=AT,
        tenant="t",
        job_id="j",
        item_id=item,
        attempt=attempt,
        dispatch=1,
        worker="w",
        **more,
    )


def failed(attempt: int = 1, *, transient: bool = False, item: str = "0") -> Any:
    return event(ItemFailed, item, attempt, error="why", code="c", transient=transient)


def progress(stage: Stage, attempt: int = 1, item: str = "0") -> Progress:
    return Progress(
        tenant="t",
        job_id="j",
        item_id=item,
        attempt=attempt,
        at=AT,
        stage=stage,
        done=0,
        total=1,
        percent=0,
    )


def word(found: Files, item: int = 0) -> tuple[str, int]:
    status = found.status(item)
    return status.word, status.progress


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (event(ItemStarted), ("accessing", 10)),
        (event(ItemCommitting, result=RESULT), ("storing", 90)),
        (event(ItemCompleted, result=RESULT), ("completed", 100)),
        (event(ItemSkipped, reason="known"), ("skipped", 100)),
        (failed(), ("failed", 0)),
        (failed(1, transient=True), ("pending", 0)),
        (failed(3, transient=True), ("failed", 0)),
        (event(ItemPaused), ("pending", 0)),
        (event(ItemCancelled), ("pending", 0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_fact_is_a_status(said: Any, expected: tuple[str, int]) -> None:
    found = files()
    assert word(found) == ("pending", 0)
    assert found.take(5, said) == 0
    assert word(found) == expected
    assert found.take(5, said) is None  # it was seen
    assert found.all_counts().ended == (expected[0] in ("completed", "skipped", "failed"))


@pytest.mark.parametrize("stage", Stage)
def test_every_step_of_a_worker_has_a_word_and_a_percentage(stage: Stage) -> None:
    found = files()
    found.take(1, event(ItemStarted))
    found.progressed(progress(stage))
    assert word(found) == STEPS[stage][:2]


def test_steps_never_go_back_within_an_attempt() -> None:
    found = files()
    assert found.progressed(progress(Stage.PARSE)) == 0  # it overtook the fact that it began
    found.take(1, event(ItemStarted))
    assert word(found) == ("parsing", 40)
    assert found.progressed(progress(Stage.STORE)) == 0
    assert found.progressed(progress(Stage.ENCODE)) is None
    assert found.progressed(progress(Stage.STORE)) is None  # no news
    assert word(found) == ("storing", 90)
    found.take(2, failed(1, transient=True))
    assert word(found) == ("pending", 0)
    found.take(3, event(ItemStarted, attempt=2))
    assert word(found) == ("accessing", 10)
    assert found.progressed(progress(Stage.PARSE, attempt=1)) is None  # of an attempt that is past
    found.take(4, event(ItemCompleted, attempt=2, result=RESULT))
    assert found.progressed(progress(Stage.STORE, attempt=2)) is None
    assert word(found) == ("completed", 100)


def test_counts_are_by_connection_and_together() -> None:
    found = files()
    found.take(1, event(ItemCompleted, "0", result=RESULT))
    found.take(2, failed(item="1"))
    found.take(3, event(ItemSkipped, "2", reason="r"))
    for item in ("3", "clear", "-1", "١", "9" * 30):  # no files of this batch
        assert found.take(4, failed(item=item)) is None
    assert found.counts() == [Counts(1, 1, 0), Counts(0, 0, 1)]
    assert found.all_counts() == Counts(1, 1, 1)


def test_another_try_of_what_failed_lets_the_rest_stand() -> None:
    found = files(batch(tries=1))
    found.take(1, event(ItemCompleted, "0", result=RESULT))
    found.take(2, failed(item="1"))
    tally = Tally(parts=(PartTally(completed=1), PartTally()))
    again = batch(JobState.RETRYING, tries=1, facts_after=2, tally=tally, attempt=2)
    assert found.become(again) == [1]
    assert [word(found, item)[0] for item in range(3)] == ["completed", "pending", "pending"]
    assert found.all_counts() == Counts(1, 0, 0)
    found.become(replace(again, state=JobState.RUNNING))
    found.take(3, event(ItemStarted, "1", attempt=2))
    found.take(4, failed(2, transient=True, item="1"))  # the one try that there is of it
    assert word(found, 1) == ("failed", 0)
    assert found.status(1).retries == 0


def test_another_try_of_everything_lets_nothing_stand() -> None:
    found = files()
    found.take(1, event(ItemCompleted, "0", result=RESULT))
    found.take(2, failed(item="1"))
    tally = Tally(parts=(PartTally(), PartTally()), since=2)
    found.become(batch(JobState.RETRYING, facts_after=2, tally=tally))
    assert found.all_counts() == Counts()


def test_each_time_that_it_is_asked_for_has_its_own_tries() -> None:
    """From the number of an attempt alone it is known how many are left, also where history told of it."""
    found = files(batch(facts_after=10, attempt=2))
    view = ItemView(
        item_id="0",
        state=JobState.FAILED,
        attempt=3,
        dispatch=3,
        worker="w",
        changed_at=AT,
        error="why",
        transient=True,
        sequence=9,
    )
    found.recall(view)
    assert word(found) == ("pending", 0)
    found.take(11, event(ItemStarted, attempt=4))
    found.take(12, failed(4, transient=True))
    assert word(found) == ("pending", 0)
    assert found.status(0).step == "Waiting for another try"
    known = files(batch(facts_after=10, attempt=2))
    known.recall(replace(view, attempt=6, sequence=15))
    assert word(known) == ("failed", 0)
    assert known.status(0).retries == 2


def test_what_was_in_hand_when_a_batch_was_cancelled_is_not_begun() -> None:
    found = files()
    found.take(1, event(ItemStarted))
    assert found.become(batch(JobState.CANCELLED)) == [0]
    assert found.status(0).step == "Not begun"
    ended = files(batch(JobState.COMPLETED))
    ended.take(1, failed(1, transient=True))  # no other try came of it
    assert word(ended) == ("failed", 0)
