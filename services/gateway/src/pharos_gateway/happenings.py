"""What happened, as clients read it: names and flat JSON bodies of server-sent events. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import msgspec

from pharos_contracts.jobs.v1 import AnyEvent, AnyJobEvent, ItemLexicalReady, Job, JobEvent, Progress
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import decode, tag_of
from pharos_gateway import history
from pharos_gateway.job_view import tally_of

PROGRESS: Final = "job.progress"
WORKER_STATUS: Final = "worker.status"
RESET: Final = "reset"


class Happening:
    """A state event of JOBS. Its renderings are made once, whoever reads them.

    ``of`` is the job that an item's fact belongs to, where that is known: the fact only has its id.
    """

    def __init__(self, sequence: int, event: AnyJobEvent | ItemLexicalReady, of: Job | None = None) -> None:
        self.sequence = sequence
        self.event = event
        self.of = of

    @property
    def name(self) -> str:
        """``job.queued`` and so on: the last word of the message's tag."""
        return f"job.{tag_of(self.event).rpartition('.')[2]}"

    @property
    def tenant(self) -> str:
        return self.event.job.tenant if isinstance(self.event, JobEvent) else self.event.tenant

    @property
    def job_id(self) -> str:
        return self.event.job.job_id if isinstance(self.event, JobEvent) else self.event.job_id

    @property
    def job(self) -> Job | None:
        return self.event.job if isinstance(self.event, JobEvent) else None

    @property
    def about(self) -> Job | None:
        """The job that it is a fact of, where that is known."""
        return self.job or self.of

    @property
    def lacks_job(self) -> bool:
        """Whether this is an item's fact whose job is not known yet."""
        return not isinstance(self.event, JobEvent) and self.of is None

    @property
    def is_last(self) -> bool:
        """Whether the job has ended with this."""
        return isinstance(self.event, JobEvent) and self.event.job.state in TERMINAL

    @cached_property
    def native(self) -> bytes:
        body = (
            _native(self.event.job, self.event.at)
            if isinstance(self.event, JobEvent)
            else _native_lexical(self.event, self.of)
        )
        return block(self.name, body, self.sequence)

    @cached_property
    def public(self) -> bytes:
        body = (
            _public(self.event.job, self.event.at)
            if isinstance(self.event, JobEvent)
            else _public_lexical(self.event, self.of)
        )
        return block(self.name, body, self.sequence)


def read(sequence: int, payload: bytes, known: Callable[[str], Job | None]) -> Happening | None:
    """The happening in a message of JOBS; None for item facts that are not told. UnreadableMessage.

    *known* finds a job by its id, if it has been seen.
    """
    event: Any = decode(payload, AnyEvent)
    if isinstance(event, ItemLexicalReady):
        return Happening(sequence, event, known(event.job_id))
    if isinstance(event, JobEvent):
        return Happening(sequence, event)  # type: ignore[arg-type]
    return None


def progress_block(progress: Progress, number: int | None, *, public: bool) -> bytes:
    """Progress carries no id: it is not replayed."""
    body: dict[str, Any] = {
        "job_id": number if public else progress.job_id,
        "number": number,
        "attempt": progress.attempt,
        "at": progress.at,
        "stage": progress.stage,
        "percent": round(progress.percent, 2),
        "done": progress.done,
        "total": progress.total,
        "eta_seconds": progress.eta_seconds,
    }
    if not public:
        body |= {"current_file": progress.current_file, "detail": progress.detail, "worker": progress.worker}
    return block(PROGRESS, body)


def worker_block(name: str, status: str, device: str | None, at: datetime) -> bytes:
    return block(WORKER_STATUS, {"name": name, "status": status, "device": device, "at": at})


def reset_block(sequence: int, reason: str, snapshot: Mapping[str, Any]) -> bytes:
    """The snapshot stands for whatever was missed; what follows is newer than *sequence*."""
    return block(RESET, {"reason": reason, **snapshot}, sequence)


def comment(text: str) -> bytes:
    assert "\n" not in text, "a comment is one line"
    return f": {text}\n\n".encode()


def block(name: str, body: Mapping[str, Any], sequence: int | None = None) -> bytes:
    """One event (WHATWG HTML, 9.2). JSON has no raw line breaks, so the data is one line."""
    identity = b"" if sequence is None else f"id: {sequence}\n".encode()
    return b"".join(
        (identity, b"event: ", name.encode(), b"\ndata: ", msgspec.json.encode(dict(body)), b"\n\n")
    )


def _native(job: Job, at: datetime) -> dict[str, Any]:
    body = {
        "job_id": job.job_id,
        "number": job.number,
        "status": job.state,
        "at": at,
        "tenant": job.tenant,
        "repository": job.identity,
        "branch": job.source.branch if job.source else None,
        "sha": job.source.sha if job.source else None,
        "project": job.project,
        "dataset": job.result.dataset if job.result else job.dataset,
        "priority": job.priority,
        "trigger": job.trigger,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "worker": job.worker,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "paused_at": job.paused_at,
        "controlled_by": job.controlled_by,
        "next_attempt_at": job.next_attempt_at,
        "error": job.error,
        "code": job.code,
        "reason": job.reason,
        "age_seconds": job.age_seconds,
        "result": job.result,
        "tally": tally_of(job),
    }
    return {key: value for key, value in body.items() if value is not None}


def _native_lexical(event: ItemLexicalReady, job: Job | None) -> dict[str, Any]:
    body = {
        "job_id": event.job_id,
        "at": event.at,
        "dataset": event.dataset,
        "files": event.files,
        "chunks": event.chunks,
        "attempt": event.attempt,
        "worker": event.worker,
    }
    if job is not None:
        body |= {"number": job.number, "tenant": job.tenant, "repository": job.identity}
    return body


def _public(job: Job, at: datetime) -> dict[str, Any]:
    """The row that the public history would show."""
    shown: dict[str, Any] = msgspec.to_builtins(history.row(job))
    # The row's percentage is of a moment that has passed: a state event carries none, or it would fall.
    shown.pop("progress", None)
    return {**shown, "at": at}


def _public_lexical(event: ItemLexicalReady, job: Job | None) -> dict[str, Any]:
    body: dict[str, Any] = {"id": event.job_id}
    if job is not None:
        body |= {"job_id": job.number, "repo_url": job.identity}
    # The job may have ended since, where this is told late; it ran then.
    return body | {
        "status": history.STATUS[JobState.RUNNING],
        "at": event.at,
        "attempt": event.attempt,
        "files": event.files,
        "chunks": event.chunks,
    }
