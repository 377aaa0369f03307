"""Subjects are built and parsed in one place, and no name can break out of its token."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pharos_contracts import subjects
from pharos_contracts.audit.v1 import Audited
from pharos_contracts.control.v1 import Push
from pharos_contracts.identity import (
    InvalidName,
    as_token,
    dataset_key,
    fingerprint,
    token,
    uuid7,
    work_key,
)
from pharos_contracts.jobs.v1 import ItemEvent, JobEvent, Priority, Progress, WorkItem, job_of
from pharos_contracts.streams import BusLimits, Retention, declare
from pharos_contracts.subjects import MalformedSubject, QueuedCommand, parse_timer
from tests.support.messages import AT, COMMAND, DOCUMENT_COMMAND, JOB_ID, KEY, examples, job


def test_a_command_says_whose_it_is_how_urgent_and_what_it_is_for() -> None:
    assert subjects.submit_subject(COMMAND) == f"cmd.ingest.default.normal.{KEY}.{JOB_ID}"


def test_a_document_waits_apart_from_repositories_and_takes_slots_of_its_own() -> None:
    assert subjects.submit_subject(DOCUMENT_COMMAND) == f"cmd.document.default.normal.{KEY}.{JOB_ID}"
    assert subjects.same_work_filter(DOCUMENT_COMMAND) == f"cmd.document.default.*.{KEY}.*"
    item = WorkItem(job=job_of(DOCUMENT_COMMAND, 0), item_id="0", attempt=1, dispatch=1)
    assert subjects.work_subject(item) == f"work.documents.{JOB_ID}.0"


def test_a_timer_says_which_command_expired() -> None:
    expired = parse_timer(f"ttl.default.low.{KEY}.{JOB_ID}")
    assert expired == QueuedCommand("default", Priority.LOW, KEY, JOB_ID)


@pytest.mark.parametrize("subject", ["ttl.a.b", "cmd.default.low.k.j", "ttl.default.soon.k.j", ""])
def test_what_is_not_a_timer_is_refused(subject: str) -> None:
    with pytest.raises(MalformedSubject):
        parse_timer(subject)


def test_every_subject_belongs_to_exactly_one_stream() -> None:
    built = [subjects.submit_subject(COMMAND), subjects.submit_subject(DOCUMENT_COMMAND)]
    for example in examples():
        if isinstance(example, JobEvent):
            built.append(subjects.job_event_subject(example))
        elif isinstance(example, ItemEvent):
            built.append(subjects.item_event_subject(example))
        elif isinstance(example, Audited):
            built.append(subjects.audit_subject(example))
        elif isinstance(example, Progress):
            built.append(subjects.progress_subject(example))
        elif isinstance(example, WorkItem):
            built.append(subjects.work_subject(example))
    streams = declare(BusLimits()).streams
    for subject in built:
        homes = [
            stream.name for stream in streams if any(_matches(subject, each) for each in stream.subjects)
        ]
        assert len(homes) == 1, subject


def _matches(subject: str, pattern: str) -> bool:
    pattern = re.sub(r"\.>$", ".*", pattern)
    return fnmatchcase(subject, pattern) and (
        pattern.endswith("*") or subject.count(".") == pattern.count(".")
    )


def test_events_fall_under_the_scope_of_their_compare_and_set() -> None:
    for example in examples():
        if isinstance(example, JobEvent):
            scope = subjects.job_events(example.job.tenant, example.job.job_id)
            assert fnmatchcase(subjects.job_event_subject(example), scope)
        elif isinstance(example, ItemEvent):
            scope = subjects.item_events(example.tenant, example.job_id, example.item_id)
            assert fnmatchcase(subjects.item_event_subject(example), scope)


def test_a_hand_out_has_an_id_of_its_own() -> None:
    first = WorkItem(job=job(), item_id="0", attempt=1, dispatch=1)
    second = WorkItem(job=job(), item_id="0", attempt=1, dispatch=2)
    assert subjects.work_message_id(first) != subjects.work_message_id(second)
    assert subjects.work_message_id(first) == subjects.work_message_id(first)


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "-a", "_a", "a" * 65, "ä", "a\n", "a/b"])
def test_a_name_that_is_not_one_token_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(InvalidName, match="letters, digits"):
        token(name)


@given(st.text(max_size=200))
def test_any_text_can_be_made_a_token(text: str) -> None:
    made = as_token(text)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", made)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_job_id_is_a_uuid_of_version_seven_that_begins_with_its_time(unix_ms: int, noise: bytes) -> None:
    made = uuid7(unix_ms, noise)
    assert isinstance(made, UUID)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == unix_ms


def test_parts_of_a_fingerprint_do_not_run_into_each_other() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert work_key(project="p", dataset=None, repository="r", ref=None) != work_key(
        project="p", dataset=None, repository="r", ref="main"
    )
    assert dataset_key("t", "p", "any text / at all@main").count(".") == 2


def test_pushes_to_one_branch_of_one_watch_share_a_message_and_no_others_do() -> None:
    push = next(each for each in examples() if isinstance(each, Push))
    due = subjects.push_due(push)
    assert subjects.parse_due(subjects.due_subject(due)) == due
    assert subjects.control_subject(push) == "cmd.control.w1.push"
    assert subjects.push_due(replace(push, before="c" * 40)) == due
    for other in ({"branch": "main2"}, {"watch_id": "w2"}):
        assert subjects.push_due(replace(push, **other)) != due


def test_every_stream_has_a_size_limit_and_every_consumer_a_stream() -> None:
    bus = declare(BusLimits(queue_max=7))
    names = {stream.name for stream in bus.streams}
    assert len(names) == len(bus.streams)
    assert all(stream.max_bytes > 0 for stream in bus.streams)
    assert all(consumer.stream in names for consumer in bus.consumers)
    assert next(stream for stream in bus.streams if stream.name == "Q").max_messages == 7


def test_the_capped_queue_makes_no_delete_markers() -> None:
    queue = next(stream for stream in declare(BusLimits()).streams if stream.name == "Q")
    assert queue.retention is Retention.WORK_QUEUE
    assert queue.marker_ttl_seconds == 0


def test_times_on_the_bus_are_utc() -> None:
    assert AT.utcoffset() is not None
