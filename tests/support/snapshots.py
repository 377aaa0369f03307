"""A snapshot in which everything agrees, what it is made of, and ways to make it wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from msgspec.structs import replace

from pharos_contracts.control.v1 import GraphState, InspectedDataset, StoredGeneration
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.invariants import (
    SWEPT_AFTER,
    Claim,
    HandedOut,
    History,
    Record,
    Snapshot,
    Told,
    Waiting,
    live_of,
)
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    AnyEvent,
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemStarted,
    Job,
    JobEvent,
    JobKind,
    JobResumed,
    RepositorySource,
    Scope,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.subjects import ITEM_REPOSITORY, Due, DueKind, active_key
from pharos_contracts.tracing import Fold
from pharos_contracts.violations import Violation, name_of
from pharos_contracts.workers.v1 import Worker, WorkerState

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
NOW = BEGAN + timedelta(hours=1)
DAYS_AGO = BEGAN - timedelta(days=9)

QUEUED, RUNNING, PAUSED, RETRYING, COMMITTING, COMPLETED, FAILED, CANCELLED, SKIPPED = (
    JobState.QUEUED,
    JobState.RUNNING,
    JobState.PAUSED,
    JobState.RETRYING,
    JobState.COMMITTING,
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.SKIPPED,
)


def result_of(name: str, generation: int = 10) -> IndexResult:
    return IndexResult(
        dataset=f"host/o/{name}@main",
        generation=generation,
        commit="c" * 40,
        files_processed=2,
        embeddings_generated=2,
        chunks=5,
    )


def job(name: str, state: JobState = QUEUED, **more: Any) -> Job:
    values: dict[str, Any] = {
        "job_id": name,
        "number": 1 + sum(name.encode()),
        "tenant": "acme",
        "key": f"key-{name}",
        "kind": JobKind.REPOSITORY,
        "state": state,
        "source": RepositorySource(identity=f"host/o/{name}", clone_url=f"https://host/o/{name}"),
        "project": "default",
        "submitted_at": BEGAN,
        "submitted_by": "ann",
        "ttl_seconds": 86_400,
    }
    return Job(**(values | more))


def became(name: str, state: JobState, **more: Any) -> AnyEvent:
    event: Any = EVENT_OF_STATE[state](event_id=f"{name}:{state}", at=BEGAN, job=job(name, state, **more))
    return event


def resumed(name: str, **more: Any) -> AnyEvent:
    return JobResumed(event_id=f"{name}:resumed", at=BEGAN, job=job(name, QUEUED, **more))


def said(
    kind: type[Any], name: str, worker: str = "w1", attempt: int = 1, dispatch: int = 1, **more: Any
) -> Any:
    values: dict[str, Any] = {
        "event_id": f"{name}:{kind.__name__}",
        "at": BEGAN,
        "tenant": "acme",
        "job_id": name,
        "item_id": ITEM_REPOSITORY,
        "worker": worker,
        "attempt": attempt,
        "dispatch": dispatch,
        "instance": f"{worker}-i1",
    }
    return kind(**(values | more))


def lexical_ready(name: str, **more: Any) -> ItemLexicalReady:
    event: ItemLexicalReady = said(
        ItemLexicalReady, name, dataset=f"host/o/{name}@main", files=2, chunks=5, **more
    )
    return event


def begun(name: str, **more: Any) -> list[AnyEvent]:
    return [
        became(name, QUEUED, **more),
        said(ItemStarted, name),
        became(name, RUNNING, attempt=1, dispatch=1, worker="w1", **more),
    ]


def done(name: str, generation: int = 10) -> list[AnyEvent]:
    result = result_of(name, generation)
    return [
        *begun(name),
        lexical_ready(name),
        said(ItemCommitting, name, result=result),
        became(name, COMMITTING, attempt=1, result=result),
        said(ItemCompleted, name, result=result),
        became(name, COMPLETED, attempt=1, result=result),
    ]


def cancelled(name: str) -> list[AnyEvent]:
    return [
        *begun(name),
        said(ItemCancelled, name, worker="scheduler"),
        became(name, CANCELLED, attempt=1, facts_after=LAST_FACT),
    ]


def paused(name: str) -> list[AnyEvent]:
    return [
        *begun(name),
        said(ItemPaused, name, worker="scheduler"),
        became(name, PAUSED, attempt=1, facts_after=LAST_FACT),
    ]


def retried(name: str, events: Sequence[AnyEvent]) -> list[AnyEvent]:
    """*events*, which end *name*, and what follows when its owner asks for another try."""
    return [
        *events,
        became(name, RETRYING, attempt=1, facts_after=LAST_FACT),
        became(name, QUEUED, attempt=1, facts_after=LAST_FACT),
    ]


def failed(name: str) -> list[AnyEvent]:
    return [
        *begun(name),
        said(ItemFailed, name, error="no such repository", code="not_found"),
        became(name, FAILED, attempt=1, error="no such repository", code="not_found"),
    ]


LAST_FACT = -1  # as ``facts_after`` of a job: what was said of its item last


def fold(events: Iterable[AnyEvent], *, whole: bool = True) -> Fold:
    folded = Fold(whole=whole)
    for sequence, drafted in enumerate(events, start=1):
        event = drafted
        if isinstance(drafted, JobEvent) and drafted.job.facts_after == LAST_FACT:
            last = folded.items[drafted.job.job_id, ITEM_REPOSITORY].sequence
            event = replace(drafted, job=replace(drafted.job, facts_after=last))
        digest = blake2b(encode(event), digest_size=16).hexdigest()
        folded.take(event, sequence=sequence, at=BEGAN + timedelta(seconds=sequence), digest=digest)
    return folded


LIVES: Sequence[AnyEvent] = (
    became("queued", QUEUED),
    *begun("running"),
    *begun("committing"),
    said(ItemCommitting, "committing", result=result_of("committing")),
    became("committing", COMMITTING, attempt=1, result=result_of("committing")),
    *paused("paused"),
    *paused("resumed"),
    resumed("resumed", attempt=1, facts_after=LAST_FACT),
    *begun("retrying"),
    said(ItemFailed, "retrying", error="away", code="network", transient=True),
    became("retrying", RETRYING, attempt=1, error="away", next_attempt_at=BEGAN),
    *done("completed"),
    *failed("failed"),
    *cancelled("cancelled"),
    became("skipped", QUEUED),
    became("skipped", SKIPPED, reason="Task exceeded TTL"),
    *retried("retried", cancelled("retried")),
    said(ItemStarted, "retried", worker="w2", attempt=2, dispatch=2),
    became("retried", RUNNING, attempt=2, dispatch=2, worker="w2", facts_after=LAST_FACT),
)


def worker(name: str, *job_ids: str, **more: Any) -> Worker:
    values: dict[str, Any] = {
        "name": name,
        "instance": f"{name}-i1",
        "pool": "default",
        "state": WorkerState.BUSY if job_ids else WorkerState.IDLE,
        "device": "cpu",
        "slots": 2,
        "job_ids": job_ids,
        "since": BEGAN,
        "seen_at": NOW,
    }
    return Worker(**(values | more))


def record(name: str, generation: int = 10, **more: Any) -> Record:
    values: dict[str, Any] = {
        "tenant": "acme",
        "project": "default",
        "dataset": f"host/o/{name}@main",
        "scope": Scope.PROJECT,
        "repository": f"host/o/{name}",
        "clone_url": f"https://host/o/{name}",
        "branch": "main",
        "commit": "c" * 40,
        "generation": generation,
        "stage": IndexStage.FULL,
        "job_id": name,
        "files": 2,
        "chunks": 5,
        "encoder": "e",
        "chunker": "c",
        "published_at": BEGAN,
    }
    return Record(Dataset(**(values | more)), BEGAN)


def points(name: str, generation: int = 10, count: int = 7) -> StoredGeneration:
    return StoredGeneration(
        tenant="acme", project="default", dataset=f"host/o/{name}@main", generation=generation, points=count
    )


def inspected(of: Record, indexed: Iterable[StoredGeneration], **more: Any) -> InspectedDataset:
    """What readers of *of* see: what it says, if there is anything."""
    live = of.dataset
    there = any(each.dataset == live.dataset and each.generation <= live.generation for each in indexed)
    values: dict[str, Any] = {
        "live": live_of(of),
        "chunks": live.chunks if there else 0,
        "files": live.files if there else 0,
        "without_vector": 0,
        "documents": live.chunks if there else 0,
        "lexicon_unused": 0,
        "graph": GraphState.WHOLE,
        "graph_files": live.files if there else 0,
        "retired": 0,
        "later": 0,
    }
    return InspectedDataset(**(values | more))


def snapshot_of(folded: Fold, **more: Any) -> Snapshot:
    """What there is beside the events, as it follows from them."""
    jobs = folded.jobs
    traces = [*jobs.values(), *folded.items.values()]
    values: dict[str, Any] = {
        "taken_at": NOW,
        "jobs_created_at": BEGAN,
        "last_sequence": folded.events,
        "events": folded.events,
        "jobs": jobs,
        "items": folded.items,
        "found": tuple(folded.found),
        "ledger": {trace.subject: trace.digest for trace in traces},
        "queue_max": 10,
        "claims": tuple(
            Claim(active_key(each.tenant, each.key), each.job_id, BEGAN)
            for each in jobs.values()
            if each.is_open
        ),
        "history": History(
            sequence=folded.events,
            jobs={
                each.job_id: Told(
                    state=each.state,
                    attempt=each.attempt,
                    number=each.number,
                    error=each.error,
                    has_result=each.published is not None,
                    sequence=each.sequence,
                    changed_at=BEGAN,
                )
                for each in jobs.values()
            },
        ),
    }
    return Snapshot(**(values | more))


CLEAN = snapshot_of(
    fold(LIVES),
    queue=(Waiting("queued", 3, BEGAN),),
    work=tuple(
        HandedOut(name, ITEM_REPOSITORY, number, BEGAN)
        for number, name in enumerate(("running", "committing", "retried"))
    ),
    later=frozenset({Due(DueKind.RETRY, "acme", "retrying"), Due(DueKind.CRON, "acme", "nightly")}),
    workers=(worker("w1", "running", "committing"), worker("w2", "retried")),
    schedules=(
        Schedule(
            schedule_id="nightly",
            tenant="acme",
            source=job("completed").source,
            project="default",
            cron="0 3 * * *",
            ttl_seconds=60,
            created_at=BEGAN,
            created_by="ann",
            next_run_at=BEGAN,
        ),
    ),
    records=(
        record("completed"),
        record("running", stage=IndexStage.LEXICAL, generation=12),
        record("empty", files=0, chunks=0, job_id="of another time"),
    ),
    index=(
        points("completed"),
        points("completed", generation=9),
        points("running", generation=12),
        points("committing", generation=13),
        points("paused", generation=14),
    ),
)
assert CLEAN.index is not None
CLEAN = replace(CLEAN, inspected=tuple(inspected(each, CLEAN.index) for each in CLEAN.records))


def names(found: Iterable[Violation]) -> list[str]:
    return [name_of(each) for each in found]


Change = Callable[[Snapshot], Snapshot]


def both(*changes: Change) -> Change:
    def change(snapshot: Snapshot) -> Snapshot:
        for each in changes:
            snapshot = each(snapshot)
        return snapshot

    return change


def has(**values: Any) -> Change:
    return lambda snapshot: replace(snapshot, **values)


def more(name: str, *added: Any) -> Change:
    return lambda snapshot: replace(snapshot, **{name: (*getattr(snapshot, name), *added)})


def less(name: str, job_id: str) -> Change:
    """The snapshot without what *name* holds of a job."""
    return lambda snapshot: replace(
        snapshot, **{name: tuple(each for each in getattr(snapshot, name) if each.job_id != job_id)}
    )


def ledger(subject: str, digest: str | None) -> Change:
    """The snapshot whose ledger has this instead, or nothing."""

    def change(snapshot: Snapshot) -> Snapshot:
        kept = {key: value for key, value in snapshot.ledger.items() if key != subject}
        return replace(snapshot, ledger=kept if digest is None else kept | {subject: digest})

    return change


def history(job_id: str, **changed: Any) -> Change:
    """The snapshot whose history tells something else of a job; of one that it does not know, something."""

    def change(snapshot: Snapshot) -> Snapshot:
        assert snapshot.history is not None
        told = dict(snapshot.history.jobs)
        told[job_id] = replace(told.get(job_id, told["completed"]), **changed)
        return replace(snapshot, history=replace(snapshot.history, jobs=told))

    return change


def history_without(job_id: str) -> Change:
    def change(snapshot: Snapshot) -> Snapshot:
        assert snapshot.history is not None
        told = {key: value for key, value in snapshot.history.jobs.items() if key != job_id}
        return replace(snapshot, history=replace(snapshot.history, jobs=told))

    return change


def shows(name: str, *indexed: StoredGeneration, **changed: Any) -> Change:
    """The snapshot with this record of a dataset, and these points."""

    def change(snapshot: Snapshot) -> Snapshot:
        shown = record(name, **changed)
        assert snapshot.index is not None
        others = tuple(each for each in snapshot.records if each.dataset.dataset != shown.dataset.dataset)
        kept = tuple(each for each in snapshot.index if each.dataset != shown.dataset.dataset)
        seen = tuple(each for each in snapshot.inspected if each.live.dataset != shown.dataset.dataset)
        return replace(
            snapshot,
            records=(*others, shown),
            index=(*kept, *indexed),
            inspected=(*seen, inspected(shown, indexed)),
        )

    return change


def holds(name: str, **changed: Any) -> Change:
    """The snapshot whose index has something else of a dataset than its record says."""
    return lambda snapshot: replace(
        snapshot,
        inspected=tuple(
            replace(each, **changed) if each.live.dataset == f"host/o/{name}@main" else each
            for each in snapshot.inspected
        ),
    )


LONG_AGO = NOW - SWEPT_AFTER
