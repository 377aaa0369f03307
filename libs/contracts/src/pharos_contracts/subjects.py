"""Every subject, built and parsed in one place."""

from __future__ import annotations

import msgspec

from pharos_contracts.identity import token
from pharos_contracts.jobs.v1 import ItemEvent, JobEvent, Priority, Progress, SubmitJob, WorkItem
from pharos_contracts.message import tag_of

POOL_DEFAULT = "default"
ITEM_REPOSITORY = "0"  # a repository job has one item


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


def submit_subject(command: SubmitJob) -> str:
    return ".".join(("cmd", "ingest", token(command.tenant), command.priority, command.key, command.job_id))


def same_work_filter(command: SubmitJob) -> str:
    """Commands of the same tenant for the same thing, whatever their priority and job."""
    return f"cmd.ingest.{token(command.tenant)}.*.{command.key}.*"


def command_filter(job_id: str) -> str:
    """The command of one job, wherever it stands in Q."""
    return f"cmd.ingest.*.*.*.{token(job_id)}"


def parse_timer(subject: str) -> QueuedCommand:
    """The command whose time has passed, from ``ttl.<tenant>.<priority>.<key>.<job>``; MalformedSubject."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != "ttl":
        raise MalformedSubject(subject)
    try:
        return QueuedCommand(parts[1], Priority(parts[2]), parts[3], parts[4])
    except ValueError as error:
        raise MalformedSubject(subject) from error


def work_subject(item: WorkItem, pool: str = POOL_DEFAULT) -> str:
    return f"work.{token(pool)}.{item.job.job_id}.{token(item.item_id)}"


def work_message_id(item: WorkItem) -> str:
    """What makes one handing-out of one try unique within WORK's duplicate window."""
    return f"{item.job.job_id}.{item.item_id}:{item.attempt}:{item.dispatch}"


def _event_name(event: JobEvent | ItemEvent) -> str:
    return tag_of(event).rpartition(".")[2]


def job_event_subject(event: JobEvent) -> str:
    return f"events.job.{token(event.job.tenant)}.{event.job.job_id}.{_event_name(event)}"


def job_events(tenant: str, job_id: str) -> str:
    """All events of one job: the scope of its compare-and-set."""
    return f"events.job.{token(tenant)}.{token(job_id)}.*"


def item_event_subject(event: ItemEvent) -> str:
    return f"events.item.{token(event.tenant)}.{event.job_id}.{token(event.item_id)}.{_event_name(event)}"


def item_events(tenant: str, job_id: str, item_id: str) -> str:
    """All events of one item: the scope of its compare-and-set."""
    return f"events.item.{token(tenant)}.{token(job_id)}.{token(item_id)}.*"


def tenant_job_events(tenant: str | None) -> tuple[str, ...]:
    """What a client of *tenant* may see on JOBS; None is every tenant."""
    name = "*" if tenant is None else token(tenant)
    return (f"events.job.{name}.>", f"events.item.{name}.*.*.lexical_ready")


def progress_subject(progress: Progress) -> str:
    return f"progress.{token(progress.tenant)}.{progress.job_id}.{token(progress.item_id)}"


def ledger_job(tenant: str, job_id: str) -> str:
    return f"ledger.job.{token(tenant)}.{token(job_id)}"


def active_key(tenant: str, key: str) -> str:
    """The key of a pending or running job in the bucket ``active``."""
    return f"{token(tenant)}.{key}"
