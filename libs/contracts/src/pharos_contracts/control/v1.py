"""Commands over jobs, schedules and dead letters, and their answers; pushes. Version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from pharos_contracts.jobs.v1 import Job, SubmitJob
from pharos_contracts.message import Message
from pharos_contracts.schedules.v1 import Schedule

INSPECTED_MAX: Final = 8
"""Datasets in one question: each may have a lexicon and a graph of many megabytes, which are read."""


class Action(StrEnum):
    """What an owner may ask of a job. Only batches are started: any other job starts by itself."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


class Command(Message, frozen=True, kw_only=True):
    """Base of what is asked on CONTROL. The answer goes to ``reply_to``, once it is decided.

    ``tenant`` None is an operator's: the thing is found whoever owns it.
    """

    tenant: str | None
    by: str
    at: datetime
    reply_to: str


class ControlJob(Command, frozen=True, kw_only=True, tag="control.command.v1.job"):
    """Please start, pause, resume, cancel or retry this job.

    ``failed_only``: of a batch that is tried again, only what did not succeed.
    """

    job_id: str
    action: Action
    failed_only: bool = True


class CreateBatch(Command, frozen=True, kw_only=True, tag="control.command.v1.create_batch"):
    """Please keep this batch; it waits for its owner to start it."""

    job: SubmitJob


class ReplayDeadLetter(Command, frozen=True, kw_only=True, tag="control.command.v1.replay"):
    """Please try what this dead letter holds once more, and forget the letter."""

    letter_id: str


class PurgeDeadLetter(Command, frozen=True, kw_only=True, tag="control.command.v1.purge"):
    """Please forget this dead letter."""

    letter_id: str


class PutSchedule(Command, frozen=True, kw_only=True, tag="control.command.v1.put_schedule"):
    """Please index a repository again and again, as this says; one of the same id is replaced."""

    schedule: Schedule


class DeleteSchedule(Command, frozen=True, kw_only=True, tag="control.command.v1.delete_schedule"):
    """Please stop doing that. A job that it started already goes on."""

    schedule_id: str


class Push(Command, frozen=True, kw_only=True, tag="control.command.v1.push"):
    """Somebody pushed to a branch that is watched: please submit ``job`` when the pushes to it rest.

    Of several pushes only the newest is. ``before`` is the commit that the branch was at, ``pushed_at`` when
    it left that by the clock of the sender. Nobody is told of the outcome.
    """

    watch_id: str
    branch: str
    before: str
    pushed_at: datetime
    job: SubmitJob


AnyCommand = (
    ControlJob | CreateBatch | ReplayDeadLetter | PurgeDeadLetter | PutSchedule | DeleteSchedule | Push
)


class Controlled(Message, frozen=True, kw_only=True, tag="control.view.v1.job"):
    """The job as the command left it."""

    job: Job


class Purged(Message, frozen=True, kw_only=True, tag="control.view.v1.purged"):
    """It is gone."""

    id: str


class Scheduled(Message, frozen=True, kw_only=True, tag="control.view.v1.scheduled"):
    """The schedule as it stands."""

    schedule: Schedule


class StopItem(Message, frozen=True, kw_only=True, tag="control.view.v1.stop"):
    """The bucket ``control``, by item: whoever works on it stops, at once or at the next checkpoint.

    ``fact`` is the sequence on JOBS of the fact that took the item away: a run that began behind it, after a
    resume or a retry, is not meant.
    """

    job_id: str
    item_id: str
    action: Action
    fact: int
    at: datetime


class DeadLetterKind(StrEnum):
    JOB = "job"
    MESSAGE = "message"


class DeadLetter(Message, frozen=True, kw_only=True, tag="control.view.v1.dead_letter"):
    """Something that will not be tried again by itself, with what is known of it.

    A ``job`` that killed its workers, with the job as it ended; or a ``message`` that could not be read, with
    its stream, subject and bytes. ``letter_id`` is the job's id, or stream and sequence.
    """

    letter_id: str
    kind: DeadLetterKind
    tenant: str
    at: datetime
    reason: str
    code: str
    job: Job | None = None
    deaths: int = 0
    workers: tuple[str, ...] = ()
    stream: str | None = None
    subject: str | None = None
    payload: bytes = b""


class AskPlace(Message, frozen=True, kw_only=True, tag="scheduler.query.v1.place"):
    """Where does this job stand? It may be too new for the scheduler to have seen it."""

    job: Job


class Place(Message, frozen=True, kw_only=True, tag="scheduler.view.v1.place"):
    """Where a waiting job stands: how many run before it, plus one; 0 where it does not wait.

    ``estimated_start_at`` is None while no worker is alive, or no job has ended yet to judge by.
    """

    position: int
    waiting: int
    estimated_start_at: datetime | None = None


class StoredGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """What came with one generation of one dataset.

    ``points`` are its chunks and files that were not retired; ``others`` all else: what was retired, and the
    pieces of lexicon and graph.
    """

    tenant: str
    project: str
    dataset: str
    generation: int
    points: int
    others: int = 0


class DescribeStore(Message, frozen=True, kw_only=True, tag="store.query.v1.describe"):
    """Which generations of which datasets have points? For the checker of invariants."""


class StoreContents(Message, frozen=True, kw_only=True, tag="store.view.v1.contents"):
    """Everything that the store holds, by dataset and generation."""

    generations: tuple[StoredGeneration, ...]


class LiveGeneration(msgspec.Struct, frozen=True):
    """Which generation of a dataset its record says is live."""

    tenant: str
    project: str
    dataset: str
    generation: int


class InspectDatasets(Message, frozen=True, kw_only=True, tag="store.query.v1.inspect"):
    """What do readers of these generations see? For the checker of invariants."""

    datasets: Annotated[tuple[LiveGeneration, ...], Meta(max_length=INSPECTED_MAX)]


class GraphState(StrEnum):
    """How the file graph of a generation is stored."""

    WHOLE = "whole"
    NONE = "none"
    LEFT_OUT = "left_out"
    """It was too large to be kept."""
    BROKEN = "broken"


class InspectedDataset(msgspec.Struct, frozen=True, kw_only=True):
    """What the store has of a dataset, and what readers of ``live`` see of it.

    ``without_vector`` are chunks. ``documents`` is of how many chunks the lexicon was made, None where a part
    of it is missing; ``lexicon_unused`` are pieces that it is not made of. ``graph_files`` is 0 where there
    is no whole graph. ``retired`` are points that no reader sees any more, ``later`` those that came with a
    generation above.
    """

    live: LiveGeneration
    chunks: int
    files: int
    without_vector: int
    documents: int | None
    lexicon_unused: int
    graph: GraphState
    graph_files: int
    retired: int
    later: int


class InspectedDatasets(Message, frozen=True, kw_only=True, tag="store.view.v1.inspected"):
    """One for each that was asked for, in that order."""

    datasets: tuple[InspectedDataset, ...]
