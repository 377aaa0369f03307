"""A job's life as one table.

The scheduler is the only writer of job states. Every family of the HTTP API maps these words to its own;
nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    RETRYING = "retrying"
    COMMITTING = "committing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Signal(StrEnum):
    ENQUEUE = "enqueue"
    START = "start"
    COMMIT = "commit"
    COMPLETE = "complete"
    BACK_OFF = "back_off"
    FAIL = "fail"
    SKIP = "skip"
    EXPIRE = "expire"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


MEANING: Final[Mapping[JobState, str]] = {
    JobState.PENDING: "Created, and waiting for its owner to start it; only batches begin here.",
    JobState.QUEUED: "Accepted, and waiting for its turn on a worker.",
    JobState.RUNNING: "A worker has it.",
    JobState.PAUSED: "Its owner stopped it for now; it keeps what it has done and no worker has it.",
    JobState.RETRYING: "An attempt failed for a reason that may pass; the next one waits for its time.",
    JobState.COMMITTING: "Everything is stored and is being published; a crash here is finished, not undone.",
    JobState.COMPLETED: "Done, and what it made can be searched; of a batch some files may have failed.",
    JobState.FAILED: "It ended without a result, and its error says why.",
    JobState.CANCELLED: "Its owner ended it, and nothing of it is left.",
    JobState.SKIPPED: "It never ran, or found nothing to do, and its reason says which.",
}

SIGNAL_MEANING: Final[Mapping[Signal, str]] = {
    Signal.ENQUEUE: "the owner starts a batch",
    Signal.START: "a worker takes it; while it runs: another worker takes over from one that died",
    Signal.COMMIT: "its worker is about to publish",
    Signal.COMPLETE: "its result is published",
    Signal.BACK_OFF: "the attempt failed for a reason that may pass",
    Signal.FAIL: "the attempt failed for good, or was the last one",
    Signal.SKIP: "its worker found nothing to do",
    Signal.EXPIRE: "it waited for longer than its time to live, or its owner never started it",
    Signal.PAUSE: "the owner pauses it",
    Signal.RESUME: "the owner resumes it",
    Signal.CANCEL: "the owner cancels it",
    Signal.RETRY: "the owner asks for another try, or the backoff has passed",
}

TRANSITIONS: Final[Mapping[tuple[JobState, Signal], JobState]] = {
    (JobState.PENDING, Signal.ENQUEUE): JobState.QUEUED,
    (JobState.PENDING, Signal.CANCEL): JobState.CANCELLED,
    (JobState.PENDING, Signal.EXPIRE): JobState.SKIPPED,
    (JobState.QUEUED, Signal.START): JobState.RUNNING,
    (JobState.QUEUED, Signal.PAUSE): JobState.PAUSED,
    (JobState.QUEUED, Signal.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, Signal.EXPIRE): JobState.SKIPPED,
    (JobState.QUEUED, Signal.FAIL): JobState.FAILED,
    (JobState.RUNNING, Signal.START): JobState.RUNNING,
    (JobState.RUNNING, Signal.COMMIT): JobState.COMMITTING,
    (JobState.RUNNING, Signal.COMPLETE): JobState.COMPLETED,
    (JobState.RUNNING, Signal.BACK_OFF): JobState.RETRYING,
    (JobState.RUNNING, Signal.FAIL): JobState.FAILED,
    (JobState.RUNNING, Signal.SKIP): JobState.SKIPPED,
    (JobState.RUNNING, Signal.PAUSE): JobState.PAUSED,
    (JobState.RUNNING, Signal.CANCEL): JobState.CANCELLED,
    (JobState.COMMITTING, Signal.START): JobState.COMMITTING,
    (JobState.COMMITTING, Signal.COMPLETE): JobState.COMPLETED,
    (JobState.COMMITTING, Signal.FAIL): JobState.FAILED,
    (JobState.RETRYING, Signal.RETRY): JobState.QUEUED,
    (JobState.RETRYING, Signal.FAIL): JobState.FAILED,
    (JobState.RETRYING, Signal.CANCEL): JobState.CANCELLED,
    (JobState.PAUSED, Signal.RESUME): JobState.QUEUED,
    (JobState.PAUSED, Signal.CANCEL): JobState.CANCELLED,
    (JobState.COMPLETED, Signal.RETRY): JobState.RETRYING,
    (JobState.FAILED, Signal.RETRY): JobState.RETRYING,
    (JobState.CANCELLED, Signal.RETRY): JobState.RETRYING,
}

BATCH_ONLY: Final = frozenset(
    {
        (JobState.PENDING, Signal.ENQUEUE),
        (JobState.PENDING, Signal.CANCEL),
        (JobState.PENDING, Signal.EXPIRE),
        (JobState.COMPLETED, Signal.RETRY),  # of the files that failed
    }
)
"""Rows for jobs of many items."""

TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED})


class IllegalTransition(Exception):
    """A signal that the table has no row for."""

    def __init__(self, state: JobState, signal: Signal) -> None:
        super().__init__(f"Cannot {signal} a {state} job")
        self.state = state
        self.signal = signal


def advance(state: JobState, signal: Signal, *, batch: bool = False) -> JobState:
    """The state after *signal*; IllegalTransition where the table has no row for such a job."""
    target = TRANSITIONS.get((state, signal))
    if target is None or ((state, signal) in BATCH_ONLY and not batch):
        raise IllegalTransition(state, signal)
    return target


def mermaid() -> str:
    """The table as a Mermaid state diagram, for ARCHITECTURE.md."""
    lines = ["stateDiagram-v2", "    direction LR", "    [*] --> pending", "    [*] --> queued"]
    arrows: dict[tuple[JobState, JobState], list[str]] = {}
    for (source, signal), target in TRANSITIONS.items():
        arrows.setdefault((source, target), []).append(signal.value)
    for (source, target), signals in arrows.items():
        lines.append(f"    {source.value} --> {target.value}: {', '.join(signals)}")
    lines.extend(f"    {state.value} --> [*]" for state in JobState if state in TERMINAL)
    return "\n".join(lines)
