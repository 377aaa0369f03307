from __future__ import annotations

import pytest

from pharos_contracts.batches.v1 import BatchOptions, BatchPart, BatchSource
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.history.v1 import BatchSummary, SourceSummary
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_gateway.acting import acting
from pharos_gateway.authentication import Caller, OtherUser, Role
from pharos_gateway.batch_files import Counts
from pharos_gateway.batches import (
    ACTIVE,
    STATUS,
    InvalidBatch,
    ProcessingOptions,
    estimate_ms,
    options_of,
    percentage,
    shown_user,
    states_of,
    statistics_of,
    warnings_of,
)


def test_every_state_has_a_status_and_every_status_its_states() -> None:
    assert set(STATUS) == set(JobState)
    for status in set(STATUS.values()):
        assert {STATUS[JobState(state)] for state in states_of([status])} == {status}
    assert set(states_of(None)) == set()
    open_words = {STATUS[state] for state in JobState if state not in TERMINAL}
    assert open_words - {"pending"} == set(ACTIVE)


@pytest.mark.parametrize(
    ("ended", "total", "expected"),
    [(0, 5, 0.0), (3, 5, 60.0), (9_999, 10_000, 99.9), (5, 5, 100.0), (1, 3, 33.3), (0, 0, 100.0)],
)
def test_all_of_it_is_only_said_when_all_has_ended(ended: int, total: int, expected: float) -> None:
    assert percentage(Counts(completed=ended), total) == expected


def test_an_estimate_shares_what_was_measured_among_those_at_work() -> None:
    parts = (
        BatchPart(connection_id="a", source_type=SourceType.S3, files=4),
        BatchPart(connection_id="b", source_type=SourceType.GIT, files=2),
    )

    def estimate(**options: int | bool) -> int:
        batch = BatchSource(name="b", manifest="m", parts=parts, options=BatchOptions(**options))  # type: ignore[arg-type]
        return estimate_ms(batch, {"s3": 2.0})

    assert estimate(max_workers=1) == 18_000  # 4 files at 2 s, 2 at the 5 s of what was never measured
    assert estimate(max_workers=2) == 9_000
    assert estimate(max_workers=32) == 3_000
    assert estimate(max_workers=32, parallel_processing=False) == 18_000


@pytest.mark.parametrize(
    ("wanted", "encoders", "warned"),
    [
        ("all-MiniLM-L6-v2", ["all-MiniLM-L6-v2@abc"], False),
        ("sentence-transformers/all-MiniLM-L6-v2", ["sentence-transformers/all-MiniLM-L6-v2"], False),
        ("all-minilm-l6-v2", ["sentence-transformers/all-MiniLM-L6-v2@abc"], False),
        ("text-embedding-3-large", ["api.openai.com/text-embedding-3-large@3072:8191"], False),
        ("BAAI/bge-m3", ["tei:8080/BAAI/bge-m3@1024:8191"], False),
        ("large", ["api.openai.com/text-embedding-3-large@3072:8191"], True),
        ("text-embedding-3-large", ["all-MiniLM-L6-v2@abc"], True),
        ("text-embedding-3-large", [], True),
    ],
)
def test_another_encoder_than_that_of_the_installation_is_a_warning(
    wanted: str, encoders: list[str], warned: bool
) -> None:
    assert bool(warnings_of(BatchOptions(embedding_model_preference=wanted), encoders)) is warned


def test_options_that_are_not_given_are_those_of_the_installation() -> None:
    assert options_of(None) == options_of(ProcessingOptions()) == BatchOptions()
    assert options_of(ProcessingOptions(source_specific_options={"s3": {}})).source_specific_options == {
        "s3": {}
    }
    with pytest.raises(InvalidBatch, match="chunk_overlap is 501"):
        options_of(ProcessingOptions(chunk_size=1_000, chunk_overlap=501))


def test_statistics_of_nothing_divide_by_nothing() -> None:
    empty = statistics_of(BatchSummary(by_state={}, by_priority={}, by_source={}))
    assert (empty.total_jobs, empty.success_rate, empty.average_processing_time_ms) == (0, 0.0, 0)
    some = statistics_of(
        BatchSummary(
            by_state={"skipped": 1, "cancelled": 2, "paused": 3},
            by_priority={"low": 6},
            by_source={"s3": SourceSummary(completed=1, failed=1, skipped=2), "git": SourceSummary()},
            seconds_per_file=1.2345,
        )
    )
    assert some.by_status == {"cancelled": 3, "paused": 3}
    assert (some.active_jobs, some.total_files_processed, some.success_rate) == (3, 4, 75.0)
    assert (some.by_source_type, some.average_processing_time_ms) == ({"s3": 4}, 1234)


def caller(role: Role, key: str | None = "k") -> Caller:
    return Caller(tenant="t", role=role, user="ann", credential="c", key=key)


def test_a_key_acts_as_its_user_an_admin_as_any_and_nobody_as_nobody_elses() -> None:
    for named in (None, "ann"):
        own = acting(caller(Role.EDITOR), named)
        assert (own.owner, own.sight.user) == ("ann", "ann")
    with pytest.raises(OtherUser):
        acting(caller(Role.EDITOR), "bob")
    assert acting(caller(Role.ADMIN), "bob").sight.user == "bob"
    assert acting(caller(Role.ADMIN), None).sight.user is None
    for role in (Role.EDITOR, Role.ADMIN):
        unkeyed = acting(caller(role, None), "bob")
        assert unkeyed.owner == unkeyed.sight.user != "bob"
        assert shown_user(unkeyed.owner) == "bob"
