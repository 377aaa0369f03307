"""What must not be, each with its name, a sentence that says where it was found, and what to do about it."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.lifecycle import JobState

_REPORT = (
    "This is a defect of Pharos: keep the streams as they are and report it with `pharos-bus check --json`."
)
_REBUILD = "Make the views again from the events: `pharos-history rebuild`."
_INDEX_AGAIN = "Index the repository again with `force`."


def _tag(name: str) -> str:
    """``SecondEnd`` -> ``second_end``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Violation(msgspec.Struct, frozen=True, kw_only=True, tag_field="violation", tag=_tag):
    """Base of them all. Two violations are the same one when their identities are."""

    remedy: ClassVar[str] = _REPORT

    def sentence(self) -> str:
        raise NotImplementedError

    def identity(self) -> tuple[object, ...]:
        """What stays as it is while the same thing is wrong: all fields, unless one of them moves."""
        return type(self), *msgspec.structs.astuple(self)


def name_of(violation: Violation) -> str:
    """What kind of violation it is, in one word."""
    return _tag(type(violation).__name__)


# In the order of events


class IllegalStep(Violation, frozen=True, kw_only=True):
    """A state that the one before it does not lead to; ``was`` None is the beginning."""

    job_id: str
    sequence: int
    was: JobState | None
    became: JobState

    def sentence(self) -> str:
        if self.was is None:
            return f"Job {self.job_id} began as {self.became} (event {self.sequence})."
        return f"Job {self.job_id} went from {self.was} to {self.became} (event {self.sequence})."


class SecondEnd(Violation, frozen=True, kw_only=True):
    """A job that ended twice, without a retry in between."""

    job_id: str
    sequence: int
    was: JobState
    became: JobState

    def sentence(self) -> str:
        return (
            f"Job {self.job_id} had ended as {self.was} and ended again as {self.became} "
            f"(event {self.sequence})."
        )


class EventAfterEnd(Violation, frozen=True, kw_only=True):
    """A job that went on after its end although nobody asked for a retry."""

    job_id: str
    sequence: int
    was: JobState
    became: JobState

    def sentence(self) -> str:
        return f"Job {self.job_id} had ended as {self.was} and became {self.became} (event {self.sequence})."


class AttemptWentBack(Violation, frozen=True, kw_only=True):
    """A job whose attempts began to count again."""

    job_id: str
    sequence: int
    was: int
    became: int

    def sentence(self) -> str:
        return (
            f"Job {self.job_id} was at attempt {self.was} and went back to {self.became} "
            f"(event {self.sequence})."
        )


class TwoHolders(Violation, frozen=True, kw_only=True):
    """A fact about an item by somebody who did not hold it."""

    job_id: str
    item_id: str
    sequence: int
    fact: str
    worker: str
    holder: str

    def sentence(self) -> str:
        return (
            f"Of item {self.item_id} of job {self.job_id}, {self.worker} said {self.fact} "
            f"(event {self.sequence}) while {self.holder} held it."
        )


class FactOutOfPlace(Violation, frozen=True, kw_only=True):
    """A fact about an item that cannot follow the one before it; ``after`` None is the beginning."""

    job_id: str
    item_id: str
    sequence: int
    fact: str
    worker: str
    after: str | None

    def sentence(self) -> str:
        behind = "first of all" if self.after is None else f"after {self.after}"
        return (
            f"Of item {self.item_id} of job {self.job_id}, {self.worker} said {self.fact} {behind} "
            f"(event {self.sequence})."
        )


class FactAfterEnd(Violation, frozen=True, kw_only=True):
    """A fact about an item of a job that had ended."""

    job_id: str
    item_id: str
    sequence: int
    fact: str
    worker: str
    state: JobState

    def sentence(self) -> str:
        return (
            f"Of item {self.item_id} of job {self.job_id}, {self.worker} said {self.fact} "
            f"(event {self.sequence}) although the job had ended as {self.state}."
        )


class LaneShared(Violation, frozen=True, kw_only=True):
    """Two jobs that wrote the same dataset at once."""

    job_id: str
    other_job_id: str
    sequence: int
    lane: tuple[str, str, str]

    def sentence(self) -> str:
        tenant, project, name = self.lane
        return (
            f"Job {self.job_id} began (event {self.sequence}) while job {self.other_job_id} worked "
            f"on the same dataset: {name} in project {project} of {tenant}."
        )


class FactWithoutJob(Violation, frozen=True, kw_only=True):
    """An item that belongs to no job."""

    job_id: str
    item_id: str
    sequence: int

    def sentence(self) -> str:
        return f"Item {self.item_id} (event {self.sequence}) is of job {self.job_id}, which has no event."


class Unreadable(Violation, frozen=True, kw_only=True):
    """A message that this version cannot read."""

    remedy: ClassVar[str] = (
        "A newer release may have written it: check with that release. Otherwise somebody wrote it by hand."
    )

    stream: str
    sequence: int
    subject: str

    def sentence(self) -> str:
        return f"Message {self.sequence} of {self.stream} ({self.subject}) cannot be read."


# Of jobs as they stand now


class Ownerless(Violation, frozen=True, kw_only=True):
    """A job that has not ended, and that nobody is going to end."""

    remedy: ClassVar[str] = (
        "Restart the scheduler, which takes up every open job when it begins to lead; "
        "if the job stays as it is, cancel it and submit it again."
    )

    job_id: str
    state: JobState
    sequence: int

    def sentence(self) -> str:
        match self.state:
            case JobState.QUEUED:
                why = "but it is neither in Q nor in the ledger nor with the workers"
            case JobState.RETRYING:
                why = "but its time has passed, and nothing in SCHED brings it back"
            case _:
                why = "but no live worker has it, and WORK holds no item of it"
        return f"Job {self.job_id} is {self.state}, {why}."


class NotHandedOut(Violation, frozen=True, kw_only=True):
    """A job that waits although a worker is idle and nothing is in its way."""

    remedy: ClassVar[str] = (
        "See that a scheduler runs and leads (`/readyz`, bucket `lease`); restart it if so."
    )

    job_id: str
    sequence: int

    def sentence(self) -> str:
        return f"Job {self.job_id} waits although a worker is idle and nothing else uses what it writes."


class HeldTwice(Violation, frozen=True, kw_only=True):
    """Several live workers say that they have the same job."""

    job_id: str
    workers: tuple[str, ...]

    def sentence(self) -> str:
        return f"Job {self.job_id} is with {' and '.join(self.workers)} at once."


class HeldForNothing(Violation, frozen=True, kw_only=True):
    """A worker that has a job which nobody is to work on."""

    remedy: ClassVar[str] = "Restart the worker: what it does there is of no use, and takes a slot."

    job_id: str
    worker: str
    state: JobState

    def sentence(self) -> str:
        return f"Worker {self.worker} says that it has job {self.job_id}, which is {self.state}."


class CommandIgnored(Violation, frozen=True, kw_only=True):
    """A command on CONTROL that was not carried out."""

    remedy: ClassVar[str] = "See that a scheduler runs and leads; its log says what it makes of the command."

    sequence: int
    subject: str

    def sentence(self) -> str:
        return f"Command {self.sequence} of CONTROL ({self.subject}) has not been carried out."


class NoNextRun(Violation, frozen=True, kw_only=True):
    """A schedule that nothing will start again."""

    remedy: ClassVar[str] = "Put the schedule again, or restart the scheduler."

    schedule_id: str

    def sentence(self) -> str:
        return f"Schedule {self.schedule_id} was due, and nothing in SCHED starts it."


# Of queues and claims


class QueueOverCap(Violation, frozen=True, kw_only=True):
    """More pending commands than the queue may hold."""

    remedy: ClassVar[str] = "See what `pharos-bus diff` says of Q; `pharos-bus apply` makes it as declared."

    pending: int
    cap: int

    def sentence(self) -> str:
        return f"Q holds {self.pending} commands, and may hold {self.cap}."

    def identity(self) -> tuple[object, ...]:
        return type(self), self.cap


class EntryWithoutLedger(Violation, frozen=True, kw_only=True):
    """A message in Q, DOCS or WORK whose job has no event."""

    remedy: ClassVar[str] = (
        "In Q or DOCS: see that a scheduler runs and leads, since nobody has taken the command. In WORK: "
        + _REPORT
    )

    stream: str
    sequence: int
    job_id: str

    def sentence(self) -> str:
        return f"Message {self.sequence} of {self.stream} is of job {self.job_id}, which no ledger knows."


class StaleQueueEntry(Violation, frozen=True, kw_only=True):
    """A command in Q or DOCS whose job waits no longer: it takes a place for nothing."""

    remedy: ClassVar[str] = "Restart the scheduler, which acknowledges such commands when it begins to lead."

    stream: str
    sequence: int
    job_id: str
    state: JobState

    def sentence(self) -> str:
        return f"The command of job {self.job_id}, which is {self.state}, is still in {self.stream}."


class StaleWorkItem(Violation, frozen=True, kw_only=True):
    """An item in WORK that nobody is to do."""

    remedy: ClassVar[str] = "Restart the scheduler; a worker that takes the item drops it."

    sequence: int
    job_id: str
    item_id: str
    state: JobState

    def sentence(self) -> str:
        return f"WORK still holds item {self.item_id} of job {self.job_id}, which is {self.state}."


class ClearedWhileRunning(Violation, frozen=True, kw_only=True):
    """An item in WORK that removes what a job left, while the job is being done again."""

    sequence: int
    job_id: str

    def sentence(self) -> str:
        return (
            f"WORK holds an item that clears away what job {self.job_id} left, while a worker does the job."
        )


class ClaimLeft(Violation, frozen=True, kw_only=True):
    """An entry of the bucket ``active`` whose job has ended."""

    remedy: ClassVar[str] = (
        "Submit the same repository again, which takes the entry over, or restart the scheduler."
    )

    key: str
    job_id: str
    state: JobState

    def sentence(self) -> str:
        return f"The bucket active keeps {self.key} for job {self.job_id}, which has ended as {self.state}."


class ClaimWithoutJob(Violation, frozen=True, kw_only=True):
    """An entry of the bucket ``active`` whose job was never accepted."""

    remedy: ClassVar[str] = "Submit the same repository again, which takes the entry over."

    key: str
    job_id: str

    def sentence(self) -> str:
        return (
            f"The bucket active keeps {self.key} for job {self.job_id}, which is not in Q and has no event."
        )


class OpenWithoutClaim(Violation, frozen=True, kw_only=True):
    """A job that has not ended, and that a second submit would not find; ``holder`` has its entry."""

    remedy: ClassVar[str] = "Do not submit the same repository until the job has ended. " + _REPORT

    job_id: str
    key: str
    holder: str | None

    def sentence(self) -> str:
        instead = "nothing" if self.holder is None else f"job {self.holder}"
        return f"Job {self.job_id} has not ended, but the bucket active has {instead} under {self.key}."


# Of what is told of jobs elsewhere


class LedgerDiffers(Violation, frozen=True, kw_only=True):
    """The ledger's last event of a job or an item is not the last one of JOBS."""

    remedy: ClassVar[str] = (
        "Wait until LEDGER has copied what JOBS holds. If it stays so while no job is older than JOBS holds "
        "events for, delete the stream LEDGER and run `pharos-bus apply`, which copies it anew."
    )

    subject: str
    job_id: str
    sequence: int
    missing: bool

    def sentence(self) -> str:
        has = "nothing" if self.missing else "another event"
        return (
            f"Of job {self.job_id}, LEDGER has {has} under {self.subject}; "
            f"the last one on JOBS is event {self.sequence}."
        )


class HistoryBehind(Violation, frozen=True, kw_only=True):
    """History has stopped reading events."""

    remedy: ClassVar[str] = "See that history runs; its `/readyz` and its log say what keeps it."

    sequence: int
    last: int

    def sentence(self) -> str:
        return f"History has read JOBS up to event {self.sequence}, and JOBS stands at {self.last}."

    def identity(self) -> tuple[object, ...]:
        return type(self), self.sequence


class HistoryDiffers(Violation, frozen=True, kw_only=True):
    """History tells something else of a job than its last event; ``fields`` are those that differ."""

    remedy: ClassVar[str] = _REBUILD

    job_id: str
    sequence: int
    fields: tuple[str, ...]

    def sentence(self) -> str:
        return (
            f"Of job {self.job_id}, history and event {self.sequence} differ in {', '.join(self.fields)}."
            if self.sequence
            else f"Of job {self.job_id}, history and the ledger differ in {', '.join(self.fields)}."
        )


class HistoryLacks(Violation, frozen=True, kw_only=True):
    """History does not know a job."""

    remedy: ClassVar[str] = _REBUILD

    job_id: str
    sequence: int

    def sentence(self) -> str:
        return f"History does not know job {self.job_id}."


class HistoryInvents(Violation, frozen=True, kw_only=True):
    """History knows a job that no event tells of."""

    remedy: ClassVar[str] = "See that no two installations share one database. " + _REPORT

    job_id: str

    def sentence(self) -> str:
        return f"History knows job {self.job_id}, of which there is no event."


# Of the index


class PointsLeft(Violation, frozen=True, kw_only=True):
    """Points that no published generation has, and that no open job is going to publish.

    ``job_id`` is the job of that dataset which ended last, where one is known.
    """

    remedy: ClassVar[str] = (
        "It is swept an hour after it was begun; indexing the repository again removes it at once."
    )

    tenant: str
    project: str
    dataset: str
    generation: int
    points: int
    job_id: str | None = None
    state: JobState | None = None

    def sentence(self) -> str:
        whose = "" if self.job_id is None else f"; job {self.job_id} was the last there, and is {self.state}"
        return (
            f"Dataset {self.dataset} ({self.tenant}, project {self.project}) has {self.points} points of "
            f"generation {self.generation}, which was never published{whose}."
        )

    def identity(self) -> tuple[object, ...]:
        return type(self), self.tenant, self.project, self.dataset, self.generation


class ShownByEndedJob(Violation, frozen=True, kw_only=True):
    """A dataset that shows what a job made which did not complete."""

    remedy: ClassVar[str] = _INDEX_AGAIN

    tenant: str
    project: str
    dataset: str
    stage: IndexStage
    job_id: str
    state: JobState

    def sentence(self) -> str:
        return (
            f"Dataset {self.dataset} ({self.tenant}, project {self.project}) shows a {self.stage} index "
            f"of job {self.job_id}, which is {self.state}."
        )


class RecordWithoutPoints(Violation, frozen=True, kw_only=True):
    """A dataset whose live generation has no points although it has files."""

    remedy: ClassVar[str] = _INDEX_AGAIN

    tenant: str
    project: str
    dataset: str
    generation: int
    files: int

    def sentence(self) -> str:
        return (
            f"Dataset {self.dataset} ({self.tenant}, project {self.project}) has {self.files} files in "
            f"generation {self.generation}, and the index has no point of it."
        )


class DatasetDiffers(Violation, frozen=True, kw_only=True):
    """A dataset whose live generation is not what its record says; ``differences`` are short sentences."""

    remedy: ClassVar[str] = (
        "Index the repository again with `force`; a dataset of documents is deleted, and they are sent again."
    )

    tenant: str
    project: str
    dataset: str
    generation: int
    differences: tuple[str, ...]

    def sentence(self) -> str:
        return (
            f"Dataset {self.dataset} ({self.tenant}, project {self.project}) is not in the index what its "
            f"record says of generation {self.generation}: {'; '.join(self.differences)}."
        )

    def identity(self) -> tuple[object, ...]:
        return type(self), self.tenant, self.project, self.dataset, self.generation


class PointsNotSwept(Violation, frozen=True, kw_only=True):
    """Points of a dataset that no reader has seen for longer than the sweeping of the store takes."""

    remedy: ClassVar[str] = (
        "See that a process which owns the store runs (`--role all` or `search`), and what its log says of "
        "`store_not_swept`."
    )

    tenant: str
    project: str
    dataset: str
    generation: int
    points: int

    def sentence(self) -> str:
        return (
            f"Dataset {self.dataset} ({self.tenant}, project {self.project}) still has {self.points} points "
            f"that generation {self.generation} retired long ago."
        )

    def identity(self) -> tuple[object, ...]:
        return type(self), self.tenant, self.project, self.dataset, self.generation


class GenerationWentBack(Violation, frozen=True, kw_only=True):
    """A dataset whose live generation is older than one that a completed job has published."""

    remedy: ClassVar[str] = _INDEX_AGAIN

    tenant: str
    project: str
    dataset: str
    generation: int
    published: int

    def sentence(self) -> str:
        return (
            f"Dataset {self.dataset} ({self.tenant}, project {self.project}) shows generation "
            f"{self.generation}, although {self.published} was published."
        )
