"""What the events of JOBS tell of each job, folded one after the other, and what in their order must not be.

Pure, and of bounded memory: a few words for each job and item, whatever its events carried.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

import msgspec

from pharos_contracts import subjects
from pharos_contracts.jobs.v1 import (
    AnyEvent,
    AnyItemEvent,
    AnyJobEvent,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemEvent,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    JobAdvanced,
    JobEvent,
)
from pharos_contracts.lifecycle import BATCH_ONLY, TERMINAL, TRANSITIONS, JobState
from pharos_contracts.message import tag_of
from pharos_contracts.violations import (
    AttemptWentBack,
    EventAfterEnd,
    FactAfterEnd,
    FactOutOfPlace,
    IllegalStep,
    LaneShared,
    SecondEnd,
    TwoHolders,
    Violation,
)

Lane = tuple[str, str, str]

ERROR_CHARACTERS_MAX: Final = 200

_STARTED: Final = "started"
_LEXICAL_READY: Final = "lexical_ready"
_COMMITTING: Final = "committing"
_FAILED: Final = "failed"
_ENDED: Final = frozenset({"completed", "failed", "skipped", "cancelled", "paused"})
# Whoever takes an item may find that it must not be begun once more, and says so instead of starting.
_REFUSED_BY_TAKER: Final = frozenset({"poison", "worker_lost"})
_WORKING: Final = frozenset({JobState.RUNNING, JobState.COMMITTING})


class JobTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A job as of its last event, in a few words.

    ``sequence`` is that event's on JOBS; 0 where only the ledger still has it. ``at`` is when the server
    stored it, ``digest`` names its bytes. ``repository`` is what it indexes,
    ``pool`` whose slots it takes, ``published`` the dataset and generation of its result;
    ``facts_after`` is as the job has it: what was said of its items before is past. Of a batch each item
    has a past of its own, and no lane is taken but that of its connections.
    """

    job_id: str
    tenant: str
    key: str
    number: int
    project: str
    repository: str
    dataset: str | None
    pool: str
    state: JobState
    attempt: int
    next_attempt_at: datetime | None
    error: str | None
    published: tuple[str, int] | None
    facts_after: int
    is_batch: bool = False
    sequence: int
    at: datetime
    digest: str

    @property
    def is_open(self) -> bool:
        return self.state not in TERMINAL

    @property
    def lane(self) -> Lane:
        """What only one running job may write at a time: a dataset, or a repository that names its own."""
        return self.tenant, self.project, self.dataset or self.repository

    @property
    def subject(self) -> str:
        """Where the ledger has it."""
        return subjects.ledger_job(self.tenant, self.job_id)


class ItemTrace(msgspec.Struct, frozen=True, kw_only=True):
    """An item as of its last fact, likewise. ``said`` is what was said, as subjects name it."""

    said: str
    tenant: str
    job_id: str
    item_id: str
    worker: str
    instance: str
    attempt: int
    dispatch: int
    sequence: int
    at: datetime
    digest: str

    @property
    def subject(self) -> str:
        """Where the ledger has it."""
        return f"ledger.item.{self.tenant}.{self.job_id}.{self.item_id}"


def trace_job(job: Job, *, sequence: int, at: datetime, digest: str) -> JobTrace:
    """*job* in a few words."""
    return JobTrace(
        job_id=job.job_id,
        tenant=job.tenant,
        key=job.key,
        number=job.number,
        project=job.project,
        repository=job.identity,
        dataset=job.dataset,
        pool=subjects.pool_of(job.kind),
        state=job.state,
        attempt=job.attempt,
        next_attempt_at=job.next_attempt_at,
        error=cut(job.error),
        published=None if job.result is None else (job.result.dataset, job.result.generation),
        facts_after=job.facts_after,
        is_batch=job.batch is not None,
        sequence=sequence,
        at=at,
        digest=digest,
    )


def cut(error: str | None) -> str | None:
    """As much of an error as two tellings of it are compared by."""
    return None if error is None else error[:ERROR_CHARACTERS_MAX]


class Fold:
    """Takes the events of JOBS in their order. ``found`` is what must not be among them."""

    def __init__(self, *, whole: bool) -> None:
        """*whole*: the first event is the first there ever was; else a job may be met in the middle."""
        self.jobs: dict[str, JobTrace] = {}
        self.items: dict[tuple[str, str], ItemTrace] = {}
        self.found: list[Violation] = []
        self.events = 0
        self._whole = whole
        self._lanes: dict[Lane, dict[str, set[str]]] = {}  # lane -> job -> its items that somebody works on

    def take(self, event: AnyEvent, *, sequence: int, at: datetime, digest: str) -> None:
        """The next event."""
        self.events += 1
        if isinstance(event, JobEvent):
            self._take_job(event, sequence, at, digest)
        else:
            self._take_item(event, sequence, at, digest)

    def _take_job(self, event: AnyJobEvent, sequence: int, at: datetime, digest: str) -> None:
        before = self.jobs.get(event.job.job_id)
        if before is not None or self._whole:
            advanced = isinstance(event, JobAdvanced)
            self._note(wrong_step(before, event.job, sequence, advanced=advanced))
        now = trace_job(event.job, sequence=sequence, at=at, digest=digest)
        self.jobs[now.job_id] = now
        if now.state not in _WORKING:
            self._lanes.get(now.lane, {}).pop(now.job_id, None)

    def _take_item(self, event: AnyItemEvent, sequence: int, at: datetime, digest: str) -> None:
        key = (event.job_id, event.item_id)
        last, job = self.items.get(key), self.jobs.get(event.job_id)
        self.items[key] = ItemTrace(
            said=tag_of(event).rpartition(".")[2],
            tenant=event.tenant,
            job_id=event.job_id,
            item_id=event.item_id,
            worker=event.worker,
            instance=event.instance,
            attempt=event.attempt,
            dispatch=event.dispatch,
            sequence=sequence,
            at=at,
            digest=digest,
        )
        if event.item_id == subjects.ITEM_CLEAR:
            return  # it comes behind a job's end, and changes nothing that readers see
        if job is not None and not job.is_open and not _was_publishing(job, last):
            self._note(_after_end(job, event, sequence))
        elif last is not None or self._whole:
            self._note(wrong_fact(None if _is_past(last, job) else last, event, sequence))
        if job is not None and not job.is_batch:
            self._occupy(job, event, sequence)

    def _occupy(self, job: JobTrace, event: AnyItemEvent, sequence: int) -> None:
        """Keep account of who works in which lane. A worker that died has its item until another takes it."""
        lane = self._lanes.setdefault(job.lane, {})
        if isinstance(event, ItemStarted):
            other = next((each for each in lane if each != job.job_id), None)
            if other is not None:
                self._note(
                    LaneShared(job_id=job.job_id, other_job_id=other, sequence=sequence, lane=job.lane)
                )
            lane.setdefault(job.job_id, set()).add(event.item_id)
        elif not isinstance(event, ItemLexicalReady | ItemCommitting) and job.job_id in lane:
            lane[job.job_id].discard(event.item_id)
            if not lane[job.job_id]:
                del lane[job.job_id]

    def _note(self, violation: Violation | None) -> None:
        if violation is not None:
            self.found.append(violation)


def wrong_step(
    before: JobTrace | None, job: Job, sequence: int, *, advanced: bool = False
) -> Violation | None:
    """What is wrong with *job* as it became behind *before*; None where nothing is.

    *advanced*: its event tells of the files of a batch, and leaves its state as it was.
    """
    became = job.state
    if before is None:
        if became is (JobState.PENDING if job.batch is not None else JobState.QUEUED):
            return None
        return IllegalStep(job_id=job.job_id, sequence=sequence, was=None, became=became)
    was = before.state
    steps = _STEPS_OF_BATCHES if before.is_batch else _STEPS
    right = was is became and before.is_open if advanced else (was, became) in steps
    if not right:
        kind: type[IllegalStep | SecondEnd | EventAfterEnd] = IllegalStep
        if was in TERMINAL:
            kind = SecondEnd if became in TERMINAL else EventAfterEnd
        return kind(job_id=job.job_id, sequence=sequence, was=was, became=became)
    if job.attempt < before.attempt:
        return AttemptWentBack(job_id=job.job_id, sequence=sequence, was=before.attempt, became=job.attempt)
    return None


_STEPS_OF_BATCHES: Final = frozenset((source, target) for (source, _), target in TRANSITIONS.items())
_STEPS: Final = frozenset(
    (source, target) for (source, signal), target in TRANSITIONS.items() if (source, signal) not in BATCH_ONLY
)


def _is_past(last: ItemTrace | None, job: JobTrace | None) -> bool:
    """Whether the owner has resumed or retried the job behind what was said last.

    A file of a batch that has ended may be handed out again whenever its owner says so.
    """
    if job is not None and job.is_batch:
        return last is not None and last.said in _ENDED
    return (
        last is not None
        and job is not None
        and last.sequence <= job.facts_after
        and job.state is not JobState.PAUSED
    )


def _was_publishing(job: JobTrace, last: ItemTrace | None) -> bool:
    """A cancelled batch does not wait for long for a file that is being published: that is finished."""
    cancelled = job.is_batch and job.state is JobState.CANCELLED
    return cancelled and last is not None and last.said == _COMMITTING


def wrong_fact(last: ItemTrace | None, event: AnyItemEvent, sequence: int) -> Violation | None:
    """What is wrong with a fact about an item behind *last*; None where nothing is.

    *last* None is the beginning: the very first one, or the one behind a resume or a retry. A worker may
    speak of what it holds: the item that it started, until somebody else starts it or the scheduler takes it
    away. Three things may be said by whoever takes an item instead of starting it: that it must not be begun
    again, that it waited for too long, and the end of what was about to be published.
    """
    match event:
        case ItemStarted():
            right = last is None or _may_start(last, event)
            holder = None
        case ItemLexicalReady() | ItemCommitting():
            right = _holds(last, event)
            holder = _holder(last)
        case ItemCompleted():
            right = last is not None and last.said == _COMMITTING
            holder = None
        case ItemFailed():
            right = _may_fail(last, event)
            holder = _holder(last)
        case ItemSkipped():
            right = last is None or _holds(last, event)
            holder = _holder(last)
        case ItemCancelled() | ItemPaused():
            right = last is None or last.said not in (_COMMITTING, "completed", "skipped")
            holder = None
        case _:
            assert_never(event)
    if right:
        return None
    fact = tag_of(event).rpartition(".")[2]
    if holder is not None:
        return TwoHolders(
            job_id=event.job_id,
            item_id=event.item_id,
            sequence=sequence,
            fact=fact,
            worker=_by(event),
            holder=holder,
        )
    return FactOutOfPlace(
        job_id=event.job_id,
        item_id=event.item_id,
        sequence=sequence,
        fact=fact,
        worker=_by(event),
        after=None if last is None else last.said,
    )


def _may_start(last: ItemTrace, event: ItemStarted) -> bool:
    match last.said:
        case "started" | "lexical_ready":  # its worker died, or gave it back
            return (event.attempt, event.dispatch) >= (last.attempt, last.dispatch)
        case "failed":
            return event.attempt > last.attempt
        case _:  # published, or taken away
            return False


def _may_fail(last: ItemTrace | None, event: ItemFailed) -> bool:
    if last is None or last.said == _COMMITTING or _holds(last, event):
        return True
    if last.said in (_STARTED, _LEXICAL_READY):
        return event.code in _REFUSED_BY_TAKER
    return last.said == _FAILED and event.attempt > last.attempt


def _holds(last: ItemTrace | None, event: ItemEvent) -> bool:
    return (
        last is not None
        and last.said in (_STARTED, _LEXICAL_READY)
        and (last.worker, last.instance, last.attempt, last.dispatch)
        == (event.worker, event.instance, event.attempt, event.dispatch)
    )


def _holder(last: ItemTrace | None) -> str | None:
    if last is None or last.said not in (_STARTED, _LEXICAL_READY):
        return None
    return _by(last)


def _by(who: ItemTrace | ItemEvent) -> str:
    instance = f"/{who.instance}" if who.instance else ""
    return f"{who.worker}{instance} (attempt {who.attempt}, dispatch {who.dispatch})"


def _after_end(job: JobTrace, event: AnyItemEvent, sequence: int) -> Violation:
    return FactAfterEnd(
        job_id=event.job_id,
        item_id=event.item_id,
        sequence=sequence,
        fact=tag_of(event).rpartition(".")[2],
        worker=_by(event),
        state=job.state,
    )
