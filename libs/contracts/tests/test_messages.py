"""Every message can be read: today's by today's code, and yesterday's too."""

from __future__ import annotations

import importlib
import pkgutil

import msgspec
import pytest

import pharos_contracts
from pharos_contracts.control.v1 import Command
from pharos_contracts.graphs.v1 import AboutRepository
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    AnyItemEvent,
    AnyJobEvent,
    DocumentSource,
    ItemEvent,
    Job,
    JobEvent,
    JobKind,
    SubmitJob,
    command_of,
    job_of,
)
from pharos_contracts.message import Message, UnreadableMessage, decode, encode, tag_of
from tests.support.messages import COMMAND, DOCUMENT, DOCUMENT_COMMAND, GOLDEN, examples

EXAMPLES = {tag_of(example): example for example in examples()}


def _all_types() -> list[type[Message]]:
    for module in pkgutil.walk_packages(pharos_contracts.__path__, "pharos_contracts."):
        importlib.import_module(module.name)
    found: list[type[Message]] = []
    waiting: list[type[Message]] = [Message]
    while waiting:
        kind = waiting.pop()
        waiting.extend(kind.__subclasses__())
        if kind not in (
            Message,
            JobEvent,
            ItemEvent,
            Command,
            AboutRepository,
        ) and kind.__module__.startswith("pharos_contracts"):
            found.append(kind)
    return found


@pytest.mark.parametrize("kind", _all_types(), ids=lambda kind: kind.__name__)
def test_every_message_type_has_an_example_and_a_golden_file(kind: type[Message]) -> None:
    tag = tag_of(kind)
    assert isinstance(EXAMPLES.get(tag), kind)
    assert (GOLDEN / f"{tag}.json").exists(), "run `python -m tests.support.messages`"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_todays_code_reads_yesterdays_message_and_loses_nothing_of_it(path) -> None:
    stored = path.read_bytes()
    kind = type(EXAMPLES[path.stem])
    message = decode(stored, kind)
    assert _contains(msgspec.json.decode(encode(message)), msgspec.json.decode(stored))


def _contains(now: object, then: object) -> bool:
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and _contains(now[key], then[key]) for key in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(_contains, now, then))
    return now == then


@pytest.mark.parametrize("tag", sorted(EXAMPLES))
def test_a_message_is_the_same_after_a_journey(tag: str) -> None:
    example = EXAMPLES[tag]
    assert decode(encode(example), type(example)) == example


@pytest.mark.parametrize("tag", sorted(EXAMPLES))
def test_a_message_says_what_it_is_in_the_form_source_category_version_name(tag: str) -> None:
    source, category, version, name = tag.split(".")
    assert category in ("command", "event", "query", "view")
    assert version == "v1"
    assert source.isidentifier() and name.isidentifier()


def test_an_event_is_read_as_the_type_that_its_tag_names() -> None:
    for example in EXAMPLES.values():
        if isinstance(example, JobEvent | ItemEvent):
            union = AnyJobEvent if isinstance(example, JobEvent) else AnyItemEvent
            assert decode(encode(example), union) == example
            assert decode(encode(example), AnyEvent) == example


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"type":"nothing.we.v1.know"}', b'{"type":1}', b"\xff"]
)
def test_what_is_not_a_message_is_refused_with_a_reason(payload: bytes) -> None:
    with pytest.raises(UnreadableMessage) as refused:
        decode(payload, AnyEvent)
    assert refused.value.reason


def test_a_field_that_a_later_release_added_is_ignored() -> None:
    example = EXAMPLES["jobs.event.v1.queued"]
    stored = msgspec.json.decode(encode(example)) | {"field_of_the_future": 1}
    assert decode(msgspec.json.encode(stored), AnyJobEvent) == example


def test_a_job_of_a_document_is_the_same_after_a_journey_and_becomes_its_command_again() -> None:
    job = job_of(DOCUMENT_COMMAND, 0)
    assert decode(encode(job), Job) == job
    assert command_of(job) == DOCUMENT_COMMAND


@pytest.mark.parametrize(
    ("command", "identity"),
    [(COMMAND, "github.com/user/repo1"), (DOCUMENT_COMMAND, "docs/guide.pdf")],
    ids=["repository", "document"],
)
def test_a_job_is_known_by_what_it_indexes(command: SubmitJob, identity: str) -> None:
    assert (command.identity, job_of(command, 1).identity) == (identity, identity)


@pytest.mark.parametrize(
    "changes",
    [
        {"document": None},
        {"document": None, "kind": JobKind.REPOSITORY},
        {"source": COMMAND.source},
        {"kind": JobKind.REPOSITORY},
        {"document": None, "source": COMMAND.source},
    ],
    ids=["nothing", "no repository", "both", "a document as repository", "a repository as document"],
)
def test_a_job_is_about_a_repository_or_a_document(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a job"):
        msgspec.structs.replace(DOCUMENT_COMMAND, **changes)
    stored = msgspec.to_builtins(DOCUMENT_COMMAND) | msgspec.to_builtins(changes)
    with pytest.raises(UnreadableMessage, match="a job"):
        decode(msgspec.json.encode(stored), SubmitJob)


def test_a_document_is_at_an_address_or_in_the_object_store() -> None:
    nowhere = DocumentSource(label="web", identity="x")
    with pytest.raises(ValueError, match="object store"):
        msgspec.structs.replace(DOCUMENT_COMMAND, document=nowhere)
    deletion = msgspec.structs.replace(DOCUMENT_COMMAND, document=nowhere, kind=JobKind.DELETE)
    with pytest.raises(ValueError, match="object store"):
        msgspec.structs.replace(deletion, document=DOCUMENT)
    with pytest.raises(ValueError, match="object store"):
        msgspec.structs.replace(DOCUMENT, url="https://example.com/guide.pdf")
