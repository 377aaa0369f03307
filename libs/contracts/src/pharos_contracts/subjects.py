"""Every subject, built and parsed in one place."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

import msgspec

from pharos_contracts.audit.v1 import Audited
from pharos_contracts.control.v1 import (
    AnyCommand,
    ControlJob,
    CreateBatch,
    DeadLetter,
    DeleteSchedule,
    PurgeDeadLetter,
    Push,
    PutSchedule,
    ReplayDeadLetter,
)
from pharos_contracts.identity import fingerprint, token
from pharos_contracts.jobs.v1 import (
    DOCUMENT_KINDS,
    ItemEvent,
    Job,
    JobEvent,
    JobKind,
    Priority,
    Progress,
    SubmitJob,
    WorkItem,
)
from pharos_contracts.message import tag_of

POOL_DEFAULT = "default"
POOL_DOCUMENTS = "documents"
POOLS = (POOL_DEFAULT, POOL_DOCUMENTS)
ITEM_REPOSITORY = "0"  # a repository job has one item, and so has that of a document
ITEM_CLEAR = "clear"  # what removes the rest of a cancelled job


class MalformedSubject(ValueError):
    """A subject that is not of the expected shape."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"unexpected subject {subject!r}")


class QueuedCommand(msgspec.Struct, frozen=True):
    """What the subject of a command or of its timer says by itself: a marker has no payload."""

    tenant: str
    priority: Priority
    key: str
    job_id: str


def _submits(kind: JobKind) -> str:
    """What the subjects of commands of that kind begin with; it tells Q from DOCS."""
    return "cmd.document" if kind in DOCUMENT_KINDS else "cmd.ingest"


def submit_subject(command: SubmitJob) -> str:
    return ".".join(
        (_submits(command.kind), token(command.tenant), command.priority, command.key, command.job_id)
    )


def same_work_filter(command: SubmitJob) -> str:
    """Commands of the same tenant for the same thing, whatever their priority and job."""
    return f"{_submits(command.kind)}.{token(command.tenant)}.*.{command.key}.*"


def command_filter(job_id: str) -> str:
    """The command of one job, wherever it stands in Q."""
    return f"cmd.ingest.*.*.*.{token(job_id)}"


def document_command_filter(job_id: str) -> str:
    """The command of one job, wherever it stands in DOCS."""
    return f"cmd.document.*.*.*.{token(job_id)}"


def timer_filter(job_id: str) -> str:
    """The timer of one job's command, or the marker that it has left."""
    return f"ttl.*.*.*.{token(job_id)}"


def parse_timer(subject: str) -> QueuedCommand:
    """The command whose time has passed, from ``ttl.<tenant>.<priority>.<key>.<job>``; MalformedSubject."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != "ttl":
        raise MalformedSubject(subject)
    try:
        return QueuedCommand(parts[1], Priority(parts[2]), parts[3], parts[4])
    except ValueError as error:
        raise MalformedSubject(subject) from error


def pool_of(kind: JobKind) -> str:
    """Whose slots a job of that kind takes: documents have some of their own, behind no repository."""
    return POOL_DOCUMENTS if kind in DOCUMENT_KINDS or kind is JobKind.BATCH else POOL_DEFAULT


def work_subject(item: WorkItem) -> str:
    return f"work.{pool_of(item.job.kind)}.{item.job.job_id}.{token(item.item_id)}"


def held_name(job: Job, item_id: str) -> str:
    """What an item is called by whoever holds or stops it: its job's id, and of a batch which file besides.

    The part before the first dot is the job's id.
    """
    return f"{job.job_id}.{token(item_id)}" if job.kind is JobKind.BATCH else job.job_id


def work_item(job_id: str, item_id: str) -> str:
    """One item of one job, in whatever pool."""
    return f"work.*.{token(job_id)}.{token(item_id)}"


def work_message_id(item: WorkItem) -> str:
    """What makes one handing-out of one try by one leader unique within WORK's duplicate window."""
    return (
        f"{item.job.job_id}.{item.item_id}:{item.attempt}:{item.dispatch}:{item.term}:{item.job.facts_after}"
    )


def control_subject(command: AnyCommand) -> str:
    match command:
        case ControlJob():
            return f"cmd.control.{token(command.job_id)}.{command.action}"
        case CreateBatch():
            return f"cmd.control.{token(command.job.job_id)}.create_batch"
        case ReplayDeadLetter():
            return f"cmd.control.{token(command.letter_id)}.replay"
        case PurgeDeadLetter():
            return f"cmd.control.{token(command.letter_id)}.purge"
        case PutSchedule():
            return f"cmd.control.{token(command.schedule.schedule_id)}.put_schedule"
        case DeleteSchedule():
            return f"cmd.control.{token(command.schedule_id)}.delete_schedule"
        case Push():
            return f"cmd.control.{token(command.watch_id)}.push"
        case _:
            assert_never(command)


class DueKind(StrEnum):
    RETRY = "retry"
    CRON = "cron"
    PUSH = "push"


class Due(msgspec.Struct, frozen=True):
    """What a message that SCHED sent later is about: the ``id`` of a job, a schedule or a branch."""

    kind: DueKind
    tenant: str
    id: str


def push_due(push: Push) -> Due:
    """What pushes to one branch of one watch share."""
    return Due(DueKind.PUSH, push.job.tenant, fingerprint(push.watch_id, push.branch))


def later_subject(due: Due) -> str:
    """Where the message waits; one of the same subject is replaced."""
    return f"sched.{due.kind}.{token(due.tenant)}.{token(due.id)}"


def due_subject(due: Due) -> str:
    """Where it arrives when its time has come."""
    return f"due.{due.kind}.{token(due.tenant)}.{token(due.id)}"


def parse_due(subject: str) -> Due:
    """What is due, from ``due.<kind>.<tenant>.<id>``; MalformedSubject."""
    parts = subject.split(".")
    if len(parts) != 4 or parts[0] != "due":
        raise MalformedSubject(subject)
    try:
        return Due(DueKind(parts[1]), parts[2], parts[3])
    except ValueError as error:
        raise MalformedSubject(subject) from error


def dead_letter_subject(letter: DeadLetter) -> str:
    return f"dead.{token(letter.tenant)}.{token(letter.letter_id)}"


def dead_letters(tenant: str | None, letter_id: str | None = None) -> str:
    """The dead letters of a tenant (None: of all), or one of them."""
    return f"dead.{'*' if tenant is None else token(tenant)}.{'*' if letter_id is None else token(letter_id)}"


def audit_subject(event: Audited) -> str:
    return f"audit.{token(event.tenant)}.{token(event.action)}"


def audit_events(tenant: str | None, action: str | None) -> str:
    """What was done in a tenant (None: in any), by name (None: whatever)."""
    return f"audit.{'*' if tenant is None else token(tenant)}.{'*' if action is None else token(action)}"


def _event_name(event: JobEvent | ItemEvent) -> str:
    return tag_of(event).rpartition(".")[2]


def job_event_subject(event: JobEvent) -> str:
    return f"events.job.{token(event.job.tenant)}.{event.job.job_id}.{_event_name(event)}"


def job_events(tenant: str | None, job_id: str) -> str:
    """All events of one job: the scope of its compare-and-set; of any tenant where that is None."""
    return f"events.job.{'*' if tenant is None else token(tenant)}.{token(job_id)}.*"


def item_event_subject(event: ItemEvent) -> str:
    return f"events.item.{token(event.tenant)}.{event.job_id}.{token(event.item_id)}.{_event_name(event)}"


def item_events(tenant: str, job_id: str, item_id: str) -> str:
    """All events of one item: the scope of its compare-and-set."""
    return f"events.item.{token(tenant)}.{token(job_id)}.{token(item_id)}.*"


def batch_item_events(tenant: str, job_id: str) -> str:
    """All events of all items of one job."""
    return f"events.item.{token(tenant)}.{token(job_id)}.>"


def tenant_job_events(tenant: str | None) -> tuple[str, ...]:
    """What a client of *tenant* may see on JOBS; None is every tenant."""
    name = "*" if tenant is None else token(tenant)
    return (f"events.job.{name}.>", f"events.item.{name}.*.*.lexical_ready")


def progress_subject(progress: Progress) -> str:
    return f"progress.{token(progress.tenant)}.{progress.job_id}.{token(progress.item_id)}"


def ledger_job(tenant: str | None, job_id: str) -> str:
    return f"ledger.job.{'*' if tenant is None else token(tenant)}.{token(job_id)}"


def active_key(tenant: str, key: str) -> str:
    """The key of a pending or running job in the bucket ``active``."""
    return f"{token(tenant)}.{key}"
