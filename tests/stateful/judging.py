"""What must be true of a history that is over: what was stored, what people were told, what workers did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action, AnyCommand, ControlJob, Controlled, ReplayDeadLetter
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    IndexResult,
    ItemEvent,
    ItemStarted,
    Job,
    JobEvent,
    JobQueued,
    JobStarted,
    is_expired,
)
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import decode
from pharos_contracts.rpc import Refused
from pharos_gateway.submitting import QueueFull, QueueUnavailable, Submitted
from pharos_service.bus import Bus
from tests.stateful.asking import Asked, Sent
from tests.stateful.shelf import BEGAN, PUBLISHED, WROTE, Deed, Row
from tests.stateful.short_times import WORKER

# A worker that hears of a cancel stops at once; one that the bus cannot reach, when its hold has lapsed.
HEARD_SECONDS_MAX: Final = 0.6
STOP_SECONDS_MAX: Final = WORKER.lapse + 1.0
RECOVERY_SECONDS: Final = 3.0
# That a command was carried out, the server writes down a moment later: killed in between, it asks again.
FORGETFUL_SECONDS: Final = 1.0
OUTCOME: Final[Mapping[Action, JobState]] = {
    Action.PAUSE: JobState.PAUSED,
    Action.RESUME: JobState.QUEUED,
    Action.CANCEL: JobState.CANCELLED,
    Action.RETRY: JobState.RETRYING,
}
_STOPPED: Final = frozenset({JobState.PAUSED, JobState.CANCELLED})
_WITHOUT_RESULT: Final = frozenset({JobState.CANCELLED, JobState.FAILED, JobState.SKIPPED})


class Told(msgspec.Struct, frozen=True):
    """An event of JOBS; ``at`` is when the server stored it, in seconds."""

    event: Any
    sequence: int
    at: float


class Ordered(msgspec.Struct, frozen=True):
    """A command that CONTROL still holds."""

    command: Any
    sequence: int


class Trouble(msgspec.Struct, frozen=True):
    """When the server was away, killed or only frozen; in seconds."""

    began: float
    ended: float
    crashed: bool


class Harm(msgspec.Struct):
    """When a process was dead, frozen or kept from the bus; in seconds. ``ended``: and well again."""

    instance: str
    began: float
    ended: float = float("inf")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of a history."""

    told: Sequence[Told]
    ordered: Sequence[Ordered]
    sent: Sequence[Sent]
    asked: Sequence[Asked]
    deeds: Sequence[Deed]
    rows: Sequence[Row]
    slots: int
    harms: Sequence[Harm]
    troubles: Sequence[Trouble]
    doubled: frozenset[str]

    @property
    def harmed(self) -> frozenset[str]:
        """The instances that ever may have looked dead."""
        return frozenset(harm.instance for harm in self.harms)

    def events(self) -> dict[str, list[Told]]:
        """The events of each job, in order."""
        found: dict[str, list[Told]] = defaultdict(list)
        for each in self.told:
            if isinstance(each.event, JobEvent):
                found[each.event.job.job_id].append(each)
        return found

    def last(self) -> dict[str, Job]:
        """Each job as it is now."""
        return {job_id: events[-1].event.job for job_id, events in self.events().items()}


async def read_jobs(bus: Bus) -> list[Told]:
    return [
        Told(decode(stored.data, AnyEvent), stored.sequence, _seconds(stored.headers["Nats-Time-Stamp"]))
        for stored in await _all(bus, streams.JOBS)
    ]


async def read_commands(bus: Bus) -> list[Ordered]:
    return [
        Ordered(decode(stored.data, AnyCommand), stored.sequence)
        for stored in await _all(bus, streams.CONTROL)
    ]


async def _all(bus: Bus, stream: str) -> list[Any]:
    found = []
    sequence = 1
    while (stored := await bus.first(stream, ">", sequence)) is not None:
        found.append(stored)
        sequence = stored.sequence + 1
    return found


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def faults(evidence: Evidence) -> list[str]:
    """A sentence for each thing that must not be."""
    return [
        *_submits(evidence),
        *_same_work(evidence),
        *_commands(evidence),
        *_uncalled(evidence),
        *_started(evidence),
        *_published(evidence),
        *_left_over(evidence),
        *_late_writes(evidence),
        *_two_hands(evidence),
        *_capacity(evidence),
        *_poison(evidence),
    ]


def _submits(evidence: Evidence) -> Iterator[str]:
    """What the caller of a submit was told is so."""
    jobs = evidence.last()
    answers: dict[str, set[str]] = defaultdict(set)
    for sent in evidence.sent:
        match sent.told:
            case Submitted(id=job_id):
                if job_id not in jobs:
                    yield f"Job {job_id} was accepted, and there is no event of it."
                elif jobs[job_id].state not in TERMINAL:
                    yield f"Job {job_id} was accepted and never ended: it is {jobs[job_id].state}."
                if sent.key is not None:
                    answers[sent.key].add(job_id)
            case QueueFull() | QueueUnavailable(job_id=None) if sent.key is None and sent.job_id in jobs:
                yield f"Job {sent.job_id} was refused ({sent.told}), and exists."
    for key, ids in answers.items():
        if len(ids) > 1:
            yield f"Idempotency-Key {key} stands for several jobs: {', '.join(sorted(ids))}."


def _same_work(evidence: Evidence) -> Iterator[str]:
    """At no time are two jobs open that do the same."""
    open_jobs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in evidence.told:
        if not isinstance(each.event, JobEvent):
            continue
        job = each.event.job
        doing = open_jobs[job.tenant, job.key]
        if job.state in TERMINAL:
            doing.discard(job.job_id)
            continue
        if _is_told_late(each):
            continue
        if job.job_id not in doing and doing:
            yield f"Job {job.job_id} opens (event {each.sequence}) while {doing} does the same work."
        doing.add(job.job_id)


def _is_told_late(told: Told) -> bool:
    """Whether its time was over when its job's first event was written: it came and went while nobody led."""
    job = told.event.job
    return isinstance(told.event, JobQueued) and is_expired(job, datetime.fromtimestamp(told.at, UTC))


def _commands(evidence: Evidence) -> Iterator[str]:
    """What was answered to a command is what became of it."""
    kept = {each.command.reply_to: each.sequence for each in evidence.ordered}
    events = evidence.events()
    for asked in evidence.asked:
        sequence = asked.sequence or kept.get(asked.reply_to)
        if sequence is None or asked.action is None:
            continue  # the bus never took it; or it is of a dead letter
        history = events.get(asked.job_id, [])
        acted = next((each for each in history if each.event.job.control == sequence), None)
        name = f"Command {sequence} ({asked.action} of job {asked.job_id})"
        if acted is not None and acted.event.job.state is not OUTCOME[asked.action]:
            yield f"{name} made the job {acted.event.job.state} (event {acted.sequence})."
        if not asked.answers:
            continue
        first = asked.answers[0]
        if any(
            trouble.crashed and first.at <= trouble.began < first.at + FORGETFUL_SECONDS
            for trouble in evidence.troubles
        ):
            continue
        match first.said:
            case Controlled(job=job):
                if acted is None:
                    yield f"{name} was carried out by its answer ({job.state}), and by no event."
            case Refused(status=404):
                yield f"{name} was answered with 404, and the job exists."
            case Refused() as refused:
                if acted is not None:
                    yield (
                        f"{name} was refused ({refused.detail}), and acted all the same "
                        f"(event {acted.sequence}: {acted.event.job.state})."
                    )
                elif refused.code == "invalid_transition" and not _was_in(
                    history, refused.detail.split()[-2], asked.at, first.at
                ):
                    yield f"{name} was refused ({refused.detail}), and the job was in no such state then."
            case _:
                yield f"{name} was answered with {first.said}."


def _was_in(history: Sequence[Told], state: str, begin: float, end: float) -> bool:
    """Whether the job was in *state* at some moment between *begin* and *end*."""
    if state == JobState.QUEUED and history and begin <= history[0].at:
        return True  # before its first event it waits in Q
    ends = [*(each.at for each in history[1:]), float("inf")]
    return any(
        each.event.job.state == state and each.at <= end and until >= begin
        for each, until in zip(history, ends, strict=True)
    )


def _uncalled(evidence: Evidence) -> Iterator[str]:
    """What only people may do, somebody asked for."""
    orders = {each.sequence: each.command for each in evidence.ordered}
    for job_id, history in evidence.events().items():
        before = 0
        for each in history:
            job = each.event.job
            if job.control != before:
                command = orders.get(job.control)
                right = (
                    isinstance(command, ControlJob)
                    and command.job_id == job_id
                    and OUTCOME[command.action] is job.state
                ) or (
                    isinstance(command, ReplayDeadLetter)
                    and command.letter_id == job_id
                    and job.state is JobState.RETRYING
                )
                if not right:
                    yield f"Job {job_id} became {job.state} (event {each.sequence}) by {command}."
                if job.control < before:
                    yield f"Job {job_id} obeyed command {job.control} after {before}."
            elif job.state in (JobState.PAUSED, JobState.CANCELLED):
                yield f"Job {job_id} became {job.state} (event {each.sequence}) and nobody asked for it."
            before = job.control


def _started(evidence: Evidence) -> Iterator[str]:
    """A job runs because a worker said so of this attempt, after whatever was taken from workers before."""
    said: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for each in evidence.told:
        if isinstance(each.event, ItemEvent):
            said[each.event.job_id].append((each.event.attempt, each.sequence))
        elif isinstance(each.event, JobStarted):
            job = each.event.job
            if not any(
                attempt == job.attempt and job.facts_after < sequence
                for attempt, sequence in said[job.job_id]
            ):
                yield f"Job {job.job_id} runs (event {each.sequence}) by no worker's word of it."


def _published(evidence: Evidence) -> Iterator[str]:
    """One run of a job is published where it completed, and none where it did not."""
    published: dict[str, list[str]] = defaultdict(list)
    for deed in evidence.deeds:
        if deed.what == PUBLISHED and deed.run not in published[deed.job_id]:
            published[deed.job_id].append(deed.run)
    for job_id, job in evidence.last().items():
        runs = published.get(job_id, [])
        if len(runs) > 1:
            yield f"Job {job_id} was published {len(runs)} times: {runs}."
        if job.state is JobState.COMPLETED:
            assert isinstance(job.result, IndexResult)
            if job.result.commit not in runs:
                yield f"Job {job_id} completed with {job.result.commit}, which was not published: {runs}."
        elif runs:
            yield f"Job {job_id} is {job.state}, and was published."
        if job.code == "publish_conflict":
            yield f"Job {job_id} found that another one had written its dataset meanwhile."


def _left_over(evidence: Evidence) -> Iterator[str]:
    jobs = evidence.last()
    left: dict[str, int] = defaultdict(int)
    for row in evidence.rows:
        left[row.job_id] += 1
    for job_id, points in left.items():
        if jobs[job_id].state in _WITHOUT_RESULT:
            yield f"Job {job_id} is {jobs[job_id].state}, and {points} points of it are left."


def _late_writes(evidence: Evidence) -> Iterator[str]:
    """Who was told that a job is stopped sees no run write that began before, once a worker has had time."""
    began = {deed.run: deed.at for deed in evidence.deeds if deed.what == BEGAN}
    for asked in evidence.asked:
        for answer in asked.answers[:1]:
            said = answer.said
            if not isinstance(said, Controlled) or said.job.state not in _STOPPED:
                continue
            for deed in evidence.deeds:
                if deed.what != WROTE or deed.job_id != asked.job_id or began[deed.run] > answer.at:
                    continue
                reached = _is_reached(evidence, deed.by, answer.at)
                if deed.at > answer.at + (HEARD_SECONDS_MAX if reached else STOP_SECONDS_MAX):
                    yield (
                        f"{deed.by} wrote for job {deed.job_id}, attempt {deed.attempt}, "
                        f"{deed.at - answer.at:.1f} s after its owner was told that it is {said.job.state}."
                    )
                    break


def _is_reached(evidence: Evidence, instance: str, at: float) -> bool:
    """Whether that worker hears what is said then: all is well around it, and has been for a while."""
    begun = at + HEARD_SECONDS_MAX
    return not any(
        trouble.began < begun and at < trouble.ended + RECOVERY_SECONDS for trouble in evidence.troubles
    ) and not any(
        harm.instance == instance and harm.began < begun and at < harm.ended + RECOVERY_SECONDS
        for harm in evidence.harms
    )


def _two_hands(evidence: Evidence) -> Iterator[str]:
    """Whoever goes on with a job is the only one: an earlier run writes no more."""
    written: dict[str, list[Deed]] = defaultdict(list)
    for deed in evidence.deeds:
        if deed.what == WROTE:
            written[deed.job_id].append(deed)
    for job_id in written.keys() - evidence.doubled:
        deeds = written[job_id]
        runs: list[str] = []
        for deed in deeds:
            if deed.run not in runs:
                runs.append(deed.run)
            elif deed.run != runs[-1]:
                yield f"{deed.by} wrote for job {job_id} while a later run of it wrote too."
                break


def _capacity(evidence: Evidence) -> Iterator[str]:
    """No more jobs are with workers than workers have slots, by what workers say themselves."""
    held: set[str] = set()
    for each in evidence.told:
        if not isinstance(each.event, ItemEvent):
            continue
        if isinstance(each.event, ItemStarted):
            held.add(each.event.job_id)
            if len(held) > evidence.slots:
                yield f"{len(held)} jobs are with {evidence.slots} workers (event {each.sequence})."
                return
        elif type(each.event).__name__ not in ("ItemLexicalReady", "ItemCommitting"):
            held.discard(each.event.job_id)


def _poison(evidence: Evidence) -> Iterator[str]:
    """Only a job whose workers died, or looked as if they had, is taken for poison.

    Who leaves cannot hand back an item that is in the queue twice: for the copy that is a death, too.
    """
    started: dict[str, set[str]] = defaultdict(set)
    for each in evidence.told:
        if isinstance(each.event, ItemStarted):
            started[each.event.job_id].add(each.event.instance)
    for job_id, job in evidence.last().items():
        if job.code != "poison" or job_id in evidence.doubled:
            continue
        if len(started[job_id] & evidence.harmed) < 2:
            yield f"Job {job_id} is taken for poison; of its workers {started[job_id]} not two died."
