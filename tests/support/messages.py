"""One example of every message. Run as a script it writes the golden file of each type that has none yet.

A golden file is never rewritten: it stands for what is stored on somebody's bus already.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from pharos_contracts.audit.v1 import Audited
from pharos_contracts.batches.v1 import BatchFile, BatchPart, BatchSource, Manifest, PartTally, Tally
from pharos_contracts.connections.v1 import Connection, SourceType
from pharos_contracts.control.v1 import (
    Action,
    AskPlace,
    ControlJob,
    Controlled,
    CreateBatch,
    DeadLetter,
    DeadLetterKind,
    DeleteSchedule,
    DescribeStore,
    GraphState,
    InspectDatasets,
    InspectedDataset,
    InspectedDatasets,
    LiveGeneration,
    Place,
    Purged,
    PurgeDeadLetter,
    Push,
    PutSchedule,
    ReplayDeadLetter,
    Scheduled,
    StopItem,
    StoreContents,
    StoredGeneration,
)
from pharos_contracts.datasets.v1 import (
    Dataset,
    DatasetDeleted,
    DeleteDataset,
    DeletedDataset,
    FindDatasets,
    FoundDatasets,
    IndexStage,
    WriteLock,
)
from pharos_contracts.graphs.v1 import (
    Direction,
    EdgeKind,
    FindRelated,
    GraphEdge,
    GraphFile,
    GraphPage,
    Indexed,
    MapPage,
    MappedFile,
    ReadGraph,
    ReadMap,
    RelatedFile,
    RelatedFiles,
    Tie,
)
from pharos_contracts.history.v1 import (
    BatchPage,
    BatchSummary,
    FindJob,
    ItemPage,
    ItemView,
    JobLog,
    JobPage,
    JobView,
    ListBatches,
    ListItems,
    ListJobs,
    LogEntry,
    MeasureSources,
    ReadLog,
    SourceRates,
    SourceSummary,
    SummarizeBatches,
)
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    NO_NUMBER,
    ActiveJob,
    DocumentSource,
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemPaused,
    ItemSkipped,
    ItemStarted,
    Job,
    JobAdvanced,
    JobKind,
    JobResumed,
    Notice,
    Progress,
    RepositorySource,
    Scope,
    Stage,
    SubmitJob,
    WorkItem,
    job_of,
)
from pharos_contracts.keys.v1 import Key, Role
from pharos_contracts.lifecycle import JobState
from pharos_contracts.limits.v1 import Allowance
from pharos_contracts.message import Message, encode, tag_of
from pharos_contracts.resources.v1 import Resource
from pharos_contracts.rpc import Refused
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.search.v1 import (
    LineSpan,
    Scores,
    Search,
    SearchAnswer,
    SearchBatch,
    SearchBatchAnswer,
    SearchResult,
)
from pharos_contracts.watches.v1 import Watch
from pharos_contracts.workers.v1 import Worker, WorkerState

AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
JOB_ID = "0199a3c4-6c00-7abc-8def-0123456789ab"
KEY = "3f2a9c0d4e5b6a7f8091a2b3c4d5e6f7"
SOURCE = RepositorySource(identity="github.com/user/repo1", clone_url="https://github.com/user/repo1")
GOLDEN = Path(__file__).parents[2] / "libs" / "contracts" / "tests" / "golden"

DOCUMENT = DocumentSource(
    label="docs",
    identity="docs/guide.pdf",
    filename="guide.pdf",
    media_type="application/pdf",
    object_name="0199a3c4-6c00-7abc-8def-0123456789ab",
    size=52_013,
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)
COMMAND = SubmitJob(
    job_id=JOB_ID,
    tenant="default",
    key=KEY,
    source=SOURCE,
    project="default",
    submitted_at=AT,
    submitted_by="admin",
    ttl_seconds=86400,
)
DOCUMENT_COMMAND = SubmitJob(
    job_id=JOB_ID,
    tenant="default",
    key=KEY,
    kind=JobKind.FILE,
    document=DOCUMENT,
    project="default",
    dataset="documents/docs",
    submitted_at=AT,
    submitted_by="admin",
    ttl_seconds=86400,
)
BATCH = BatchSource(
    name="Research Papers Batch",
    manifest=JOB_ID,
    parts=(BatchPart(connection_id="gdrive_conn_1", source_type=SourceType.GOOGLE_DRIVE, files=2),),
)
BATCH_COMMAND = SubmitJob(
    job_id=JOB_ID,
    tenant="default",
    key=KEY,
    kind=JobKind.BATCH,
    batch=BATCH,
    project="default",
    submitted_at=AT,
    submitted_by="user123",
    ttl_seconds=604_800,
)
FILE = BatchFile(
    part=0, file_id="1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms", name="paper.pdf", size=2_048_576
)
RESULT = IndexResult(
    dataset="github.com/user/repo1@main",
    generation=1768473000,
    commit="0123456789abcdef0123456789abcdef01234567",
    branch="main",
    files_processed=342,
    embeddings_generated=342,
    chunks=2210,
    chunks_encoded=2200,
    chunks_reused=10,
    edges=811,
    left_out={"binary": 4},
    languages={"python": 340, "markdown": 2},
    losses=(3.1, 2.7),
    stage_seconds={"fetch": 1.5, "encode": 120.0},
    warnings=(Notice(message="Its syntax is broken near line 3", path="a.py"),),
    warnings_total=1,
    summary="342 files in 2210 chunks; left out: 4 binary.",
)

LIVE = LiveGeneration("default", "default", RESULT.dataset, RESULT.generation)


def job(state: JobState = JobState.QUEUED) -> Job:
    return Job(
        job_id=JOB_ID,
        number=3,
        tenant="default",
        key=KEY,
        kind=JobKind.REPOSITORY,
        state=state,
        source=SOURCE,
        project="default",
        submitted_at=AT,
        submitted_by="admin",
        ttl_seconds=86400,
        result=RESULT if state is JobState.COMPLETED else None,
    )


def batch(state: JobState = JobState.RUNNING) -> Job:
    tally = Tally(parts=(PartTally(completed=1),))
    return replace(job_of(BATCH_COMMAND, NO_NUMBER), state=state, tally=tally)


def _of_item(kind: type[Message], **facts: object) -> Message:
    common = {
        "event_id": "e-1",
        "at": AT,
        "tenant": "default",
        "job_id": JOB_ID,
        "item_id": "0",
        "attempt": 1,
        "dispatch": 1,
        "worker": "RTX-4070-Node",
    }
    return kind(**common, **facts)


def examples() -> list[Message]:
    """One of each type."""
    result = SearchResult(
        id="b7c9e2d0-0000-5000-8000-000000000001",
        chunk="def f() -> None: ...",
        file="src/a.py",
        line_span=LineSpan(start=1, end=1),
        symbol="f",
        kind="function",
        language="python",
        project="default",
        dataset=RESULT.dataset,
        repository=SOURCE.identity,
        commit=RESULT.commit,
        url="https://github.com/user/repo1/blob/0123/src/a.py#L1",
        scores=Scores(dense=0.7, sparse=4.2, final=0.9),
        reasons=("#1 by meaning (its best chunk)",),
        highlights=("f",),
    )
    indexed = Indexed(
        tenant="default",
        project="default",
        dataset=RESULT.dataset,
        repository=SOURCE.identity,
        branch="main",
        commit=RESULT.commit,
        generation=RESULT.generation,
    )
    edge = GraphEdge(target="src/b.py", kind=EdgeKind.IMPORTS, weight=0.5)
    view = JobView(job=job(), sequence=7, changed_at=AT)
    schedule = Schedule(
        schedule_id="nightly",
        tenant="default",
        source=SOURCE,
        project="default",
        cron="0 3 * * *",
        timezone="Europe/Berlin",
        jitter_seconds=600,
        ttl_seconds=86400,
        created_at=AT,
        created_by="admin",
    )
    asked = {"tenant": "default", "by": "admin", "at": AT, "reply_to": "_INBOX.abc.1"}
    return [
        COMMAND,
        ActiveJob(command=COMMAND, created_at=AT, number=3),
        WorkItem(job=job(), item_id="0", attempt=1, dispatch=1),
        *(kind(event_id="e-1", at=AT, job=job(state)) for state, kind in EVENT_OF_STATE.items()),
        JobResumed(event_id="e-1", at=AT, job=job()),
        JobAdvanced(event_id="e-1", at=AT, job=batch()),
        _of_item(ItemStarted),
        _of_item(ItemLexicalReady, dataset=RESULT.dataset, files=342, chunks=2210),
        _of_item(ItemCommitting, result=RESULT),
        _of_item(ItemCompleted, result=RESULT),
        _of_item(ItemFailed, error="Repository not found", code="repository_not_found"),
        _of_item(ItemSkipped, reason="Task exceeded TTL"),
        _of_item(ItemCancelled),
        _of_item(ItemPaused),
        Progress(
            tenant="default",
            job_id=JOB_ID,
            item_id="0",
            attempt=1,
            at=AT,
            stage=Stage.ENCODE,
            done=100,
            total=2210,
            percent=27.4,
            current_file="src/a.py",
            eta_seconds=33.0,
            worker="RTX-4070-Node",
        ),
        Worker(
            name="RTX-4070-Node",
            instance="5b0e4c0a-8f0b-4d3e-9a57-6f1d2c7e9b41",
            pool="default",
            state=WorkerState.IDLE,
            device="cuda:0 bfloat16",
            slots=1,
            since=AT,
            seen_at=AT,
            versions={"pharos": "0.1.0"},
        ),
        Dataset(
            tenant="default",
            project="default",
            dataset=RESULT.dataset,
            scope=Scope.PROJECT,
            repository=SOURCE.identity,
            clone_url=SOURCE.clone_url,
            branch="main",
            commit=RESULT.commit,
            generation=RESULT.generation,
            stage=IndexStage.FULL,
            job_id=JOB_ID,
            files=342,
            chunks=2210,
            encoder="all-MiniLM-L6-v2:1234",
            chunker="1",
            published_at=AT,
        ),
        DeletedDataset(
            tenant="default",
            project="default",
            dataset=RESULT.dataset,
            generation=RESULT.generation + 1,
            deleted_at=AT,
        ),
        FindDatasets(tenant="default", project="default", repository=SOURCE.identity),
        FoundDatasets(datasets=(RESULT.dataset,)),
        DeleteDataset(tenant="default", project="default", dataset=RESULT.dataset),
        DatasetDeleted(generation=RESULT.generation + 1, vectors=2210, left=False),
        WriteLock(holder="instance-1:0"),
        Search(tenant="default", query="How does the Context class work?", project="default", k=5),
        SearchAnswer(results=(result,), metadata={"datasets_searched": 1}, latency_ms=12.5),
        SearchBatch(queries=(Search(tenant="default", query="sign"), Search(tenant="default", query="?"))),
        SearchBatchAnswer(
            answers=(
                SearchAnswer(results=(), metadata={"datasets_searched": 1}, latency_ms=4.5),
                Refused(code="invalid_query", detail="the query is empty", status=400),
            ),
            latency_ms=20.5,
        ),
        ReadGraph(repository_id="0" * 32, tenant="default", path_prefix="src", kind=EdgeKind.IMPORTS),
        GraphPage(
            indexed=indexed,
            files=(
                GraphFile(
                    path="src/a.py", language="python", lines=12, edges_in=0, edges_out=2, edges=(edge,)
                ),
            ),
            files_total=2,
            edges_total=1,
            edges_dropped=0,
            after="src/a.py",
        ),
        ReadMap(repository_id="0" * 32, tenant=None, branch="main", after="src/a.py"),
        MapPage(
            indexed=indexed,
            files=(MappedFile(path="src/b.py", language="python", lines=3, x=-1.0, y=0.25),),
            files_total=2,
            after=None,
        ),
        FindRelated(repository_id="0" * 32, tenant="default", projects=("p",), path="src/a.py", symbol="f"),
        RelatedFiles(
            indexed=indexed,
            path="src/a.py",
            symbol="f",
            files=(
                RelatedFile(
                    path="src/b.py",
                    language="python",
                    lines=3,
                    score=1.0,
                    structural=0.8,
                    mentions=4.2,
                    ties=(Tie(kind=EdgeKind.IMPORTS, direction=Direction.OUT, weight=0.5),),
                    reasons=("is imported by src/a.py", "mentions f"),
                ),
            ),
        ),
        ListJobs(tenant="default"),
        FindJob(tenant="default", number=3),
        ReadLog(tenant="default", job_id=JOB_ID),
        ListBatches(tenant="default", owner="user123", states=("running", "completed")),
        BatchPage(
            jobs=(JobView(job=job_of(BATCH_COMMAND, NO_NUMBER), sequence=7, changed_at=AT),),
            total=1,
            sequence=7,
        ),
        ListItems(tenant="default", job_id=JOB_ID, first=100),
        ItemPage(
            items=(
                ItemView(
                    item_id="100",
                    state=JobState.COMPLETED,
                    attempt=2,
                    dispatch=2,
                    worker="w1",
                    changed_at=AT,
                    started_at=AT,
                    chunks=12,
                    seconds=1.5,
                    sequence=7,
                ),
            ),
            next=101,
            sequence=7,
        ),
        SummarizeBatches(tenant="default", owner="user123", projects=("default",)),
        BatchSummary(
            by_state={"completed": 10},
            by_priority={"normal": 9, "urgent": 1},
            by_source={"local_zip": SourceSummary(completed=43, failed=2)},
            seconds_per_file=45.0,
        ),
        MeasureSources(tenant="default"),
        SourceRates(seconds_per_file={"local_zip": 1.25}),
        JobLog(entries=(LogEntry(sequence=7, event="jobs.event.v1.queued", at=AT, text="queued"),), cursor=7),
        JobPage(jobs=(view,), cursor=3, sequence=7),
        ControlJob(**asked, job_id=JOB_ID, action=Action.CANCEL),
        CreateBatch(**asked, job=BATCH_COMMAND),
        Manifest(job_id=JOB_ID, tenant="default", files=(FILE,)),
        ReplayDeadLetter(**asked, letter_id=JOB_ID),
        PurgeDeadLetter(**asked, letter_id="WORK-17"),
        PutSchedule(**asked, schedule=schedule),
        DeleteSchedule(**asked, schedule_id="nightly"),
        Push(**asked, watch_id="w1", branch="main", before="b" * 40, pushed_at=AT, job=COMMAND),
        Controlled(job=job(JobState.CANCELLED)),
        Purged(id=JOB_ID),
        Scheduled(schedule=schedule),
        schedule,
        Watch(
            watch_id="w1",
            tenant="default",
            source=SOURCE,
            repository_key=SOURCE.identity,
            branches=("main", "release/*"),
            project="default",
            sealed="gAAAAA",
            quota="default/ada",
            created_at=AT,
            created_by="ada",
        ),
        StopItem(job_id=JOB_ID, item_id="0", action=Action.CANCEL, fact=12, at=AT),
        DeadLetter(
            letter_id=JOB_ID,
            kind=DeadLetterKind.JOB,
            tenant="default",
            at=AT,
            reason="Its worker died twice while it worked on this job",
            code="poison",
            job=job(JobState.FAILED),
            deaths=2,
            workers=("RTX-4070-Node",),
        ),
        AskPlace(job=job()),
        Place(position=2, waiting=4, estimated_start_at=AT),
        DescribeStore(),
        StoreContents(
            generations=(
                StoredGeneration(
                    tenant="default",
                    project="default",
                    dataset=RESULT.dataset,
                    generation=RESULT.generation,
                    points=2552,
                ),
            )
        ),
        InspectDatasets(datasets=(LIVE,)),
        InspectedDatasets(
            datasets=(
                InspectedDataset(
                    live=LIVE,
                    chunks=2301,
                    files=251,
                    without_vector=0,
                    documents=2301,
                    lexicon_unused=0,
                    graph=GraphState.WHOLE,
                    graph_files=251,
                    retired=12,
                    later=0,
                ),
            )
        ),
        Resource(
            resource_id="4b5f0c1e-9d2a-7c63-8e14-6a0f2b7d9c35",
            tenant="default",
            project="default",
            user="ada",
            title="pharos README",
            url="https://github.com/ram-tewari/pharos/blob/main/README.md",
            resource_type="PRACTICE",
            job_id=JOB_ID,
            created_at=AT,
            updated_at=AT,
        ),
        Key(
            key_id="k7m2p9q4r8t1",
            tenant="default",
            user="ada",
            role=Role.EDITOR,
            hash="0" * 64,
            name="laptop",
            projects=("default",),
            created_at=AT,
            created_by="admin",
        ),
        Audited(
            event_id="e-1",
            at=AT,
            tenant="default",
            user="ada",
            role="editor",
            credential="key:k7m2p9q4r8t1",
            client="203.0.113.7",
            action="control_job",
            target=JOB_ID,
            status=200,
        ),
        Connection(
            connection_id="gdrive_conn_1",
            tenant="default",
            user="ada",
            source_type=SourceType.GOOGLE_DRIVE,
            name="Papers",
            config={"root": "0ABC"},
            sealed="gAAAAA",
            secrets=("service_account",),
            project="atlas",
            created_at=AT,
        ),
        Allowance(tokens=41.5, at=AT),
        Refused(code="invalid_query", detail="the query is empty", status=400),
    ]


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for example in examples():
        path = GOLDEN / f"{tag_of(example)}.json"
        if not path.exists():
            path.write_bytes(encode(example) + b"\n")
            sys.stdout.write(f"wrote {path.name}\n")
