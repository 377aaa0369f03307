"""Every stream, consumer and bucket, declared once.

``pharos-bus apply`` makes the server agree with this; services bind and never create (NATS ADR-37 explains
why consuming should not provision). Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from pharos_contracts.subjects import POOL_DEFAULT, POOL_DOCUMENTS

MiB: Final = 1024 * 1024
GiB: Final = 1024 * MiB
DAY_SECONDS: Final = 86_400.0

Q: Final = "Q"
TIMERS: Final = "TIMERS"
DOCS: Final = "DOCS"
CONTROL: Final = "CONTROL"
WORK: Final = "WORK"
JOBS: Final = "JOBS"
LEDGER: Final = "LEDGER"
PROGRESS: Final = "PROGRESS"
SCHED: Final = "SCHED"
ADVISORIES: Final = "ADVISORIES"
AUDIT: Final = "AUDIT"
DEAD: Final = "DEAD"

SCHEDULER_QUEUE: Final = "scheduler-queue"
SCHEDULER_DOCUMENTS: Final = "scheduler-documents"
SCHEDULER_EXPIRY: Final = "scheduler-expiry"
SCHEDULER_ITEMS: Final = "scheduler-items"
SCHEDULER_ADVISORIES: Final = "scheduler-advisories"
SCHEDULER_CONTROL: Final = "scheduler-control"
SCHEDULER_DUE: Final = "scheduler-due"
CALLBACKS: Final = "callbacks"
WORKERS: Final = "workers-default"
WORKERS_DOCUMENTS: Final = "workers-documents"
HISTORY: Final = "history"

KV_WORKERS: Final = "workers"
KV_LEASE: Final = "lease"
KV_ACTIVE: Final = "active"
KV_CONTROL: Final = "control"
KV_KEYS: Final = "keys"
KV_CONNECTIONS: Final = "connections"
KV_DATASETS: Final = "datasets"
KV_IDEMPOTENCY: Final = "idempotency"
KV_LIMITS: Final = "limits"
KV_SCHEDULES: Final = "schedules"
KV_WATCHES: Final = "watches"
KV_RESOURCES: Final = "resources"
OBJ_UPLOADS: Final = "uploads"
OBJ_ARCHIVES: Final = "archives"
OBJ_MANIFESTS: Final = "manifests"
KV_LOCKS: Final = "dataset_locks"

WORKER_TTL_SECONDS: Final = 15.0
LEASE_TTL_SECONDS: Final = 3.0
LOCK_TTL_SECONDS: Final = 10.0
# Of a job: what it takes until an item whose worker died is with another worker. Who is cut off from the bus
# loses the item before the lock, and so no attempt.
JOB_LOCK_TTL_SECONDS: Final = 30.0
# A batch may be started for a week, and tried again for as long as JOBS keeps what became of its files.
MANIFEST_DAYS: Final = 37
# What a leader had in hand when it froze, the next one gets after this long. What waits in Q it reads itself.
LEADER_ACK_WAIT_SECONDS: Final = 4.0
QUEUE_ACK_WAIT_SECONDS: Final = 30.0
WORK_ACK_WAIT_SECONDS: Final = 15.0
CALLBACK_ACK_WAIT_SECONDS: Final = 60.0
CALLBACK_DELIVERIES_MAX: Final = 12
# The worker gives up on an item before the server does, so that its end is told by an event.
WORK_DELIVERIES_MAX: Final = 10


class Retention(StrEnum):
    LIMITS = "limits"
    WORK_QUEUE = "workqueue"


class Discard(StrEnum):
    OLD = "old"
    NEW = "new"


class Storage(StrEnum):
    FILE = "file"
    MEMORY = "memory"


class SubjectTransform(msgspec.Struct, frozen=True):
    source: str
    destination: str


class Source(msgspec.Struct, frozen=True):
    """Another stream that this one copies from."""

    stream: str
    transforms: tuple[SubjectTransform, ...]


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream; 0 and None mean "no limit of this kind". ``writers`` and ``readers`` are for people.

    ``derived``: the server makes all of it again from another stream, so that not every message need be on
    the disk before the next.
    """

    name: str
    about: str
    writers: str
    readers: str
    subjects: tuple[str, ...] = ()
    source: Source | None = None
    retention: Retention = Retention.LIMITS
    discard: Discard = Discard.OLD
    storage: Storage = Storage.FILE
    max_bytes: int
    max_messages: int = 0
    max_messages_per_subject: int = 0
    max_message_bytes: int = 0
    max_age_seconds: float = 0
    duplicate_window_seconds: float = 120
    message_ttl: bool = False
    marker_ttl_seconds: float = 0
    schedules: bool = False
    direct: bool = True
    rollup: bool = False
    deny_delete: bool = False
    republish: SubjectTransform | None = None
    derived: bool = False


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A durable pull consumer with explicit acknowledgements; ``max_deliver`` -1 is without end."""

    stream: str
    name: str
    about: str
    filters: tuple[str, ...] = ()
    ack_wait_seconds: float
    max_deliver: int = -1
    max_ack_pending: int = 1000


class Bus(msgspec.Struct, frozen=True):
    """The whole declaration."""

    streams: tuple[Stream, ...]
    consumers: tuple[Consumer, ...]


class BusLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation may set: see the settings of the same names."""

    queue_max: int = 10
    documents_queue_max: int = 1000


def _bucket(
    name: str,
    about: str,
    *,
    writers: str,
    readers: str,
    max_bytes: int,
    ttl_seconds: float = 0,
    markers: bool = False,
    message_ttl: bool = False,
    storage: Storage = Storage.FILE,
) -> Stream:
    """A key-value bucket, as the stream that it is (NATS ADR-8)."""
    return Stream(
        name=f"KV_{name}",
        about=about,
        writers=writers,
        readers=readers,
        subjects=(f"$KV.{name}.>",),
        discard=Discard.NEW,
        storage=storage,
        max_bytes=max_bytes,
        max_messages_per_subject=1,
        max_age_seconds=ttl_seconds,
        duplicate_window_seconds=min(120.0, ttl_seconds or 120.0),
        message_ttl=markers or message_ttl,
        marker_ttl_seconds=60 if markers else 0,
        rollup=True,
        deny_delete=True,
    )


def declare(limits: BusLimits) -> Bus:
    """Everything that the server must hold, under *limits*."""
    streams = (
        Stream(
            name=Q,
            about="Repository jobs that wait for a worker. The cap is the number of messages it may hold.",
            writers="gateway",
            readers="scheduler",
            subjects=("cmd.ingest.*.*.*.*",),
            retention=Retention.WORK_QUEUE,
            discard=Discard.NEW,
            max_bytes=64 * MiB,
            max_messages=limits.queue_max,
            max_message_bytes=MiB // 4,
            max_age_seconds=DAY_SECONDS * 31,
            # A delete marker would count against the cap and wedge a full queue, so none are made here.
            message_ttl=True,
            republish=SubjectTransform(
                "cmd.ingest.*.*.*.*", "ttl.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}"
            ),
        ),
        Stream(
            name=TIMERS,
            about="A copy of each queued command, expiring with it; expiry leaves a marker behind.",
            writers="the server, from Q",
            readers="scheduler",
            subjects=("ttl.>",),
            max_bytes=64 * MiB,
            max_messages_per_subject=1,
            message_ttl=True,
            marker_ttl_seconds=DAY_SECONDS * 7,
            rollup=True,  # markers are roll-ups: the server turns it on by itself
        ),
        Stream(
            name=DOCS,
            about="Texts, addresses, files and resources that wait, apart from repositories.",
            writers="gateway",
            readers="scheduler",
            subjects=("cmd.document.*.*.*.*",),
            retention=Retention.WORK_QUEUE,
            discard=Discard.NEW,
            max_bytes=256 * MiB,
            max_messages=limits.documents_queue_max,
            max_message_bytes=MiB // 4,
            # Nothing here expires by itself: no marker would tell, and the scheduler's own clock ends it.
            message_ttl=True,
        ),
        Stream(
            name=CONTROL,
            about="Pause, resume, cancel and retry, pushes, and batches.",
            writers="gateway",
            readers="scheduler",
            subjects=("cmd.control.*.*",),
            max_bytes=64 * MiB,
            max_age_seconds=DAY_SECONDS,
        ),
        Stream(
            name=WORK,
            about="Items handed out to workers. Full only when dispatch outruns every worker.",
            writers="scheduler",
            readers="workers",
            subjects=("work.*.*.*",),
            retention=Retention.WORK_QUEUE,
            discard=Discard.NEW,
            max_bytes=256 * MiB,
            max_messages=20_000,
            max_message_bytes=MiB // 4,
            duplicate_window_seconds=DAY_SECONDS,
        ),
        Stream(
            name=JOBS,
            about="Every fact about every job, in order.",
            writers="scheduler (job states), workers (item facts)",
            readers="scheduler, history, gateway",
            subjects=("events.>",),
            max_bytes=GiB,
            max_message_bytes=MiB,
            max_age_seconds=DAY_SECONDS * 30,
        ),
        Stream(
            name=LEDGER,
            about="The last event of each job and item, of any age: what a starting scheduler reads.",
            writers="the server, from JOBS",
            readers="scheduler, gateway, search",
            source=Source(
                JOBS,
                (
                    SubjectTransform("events.job.*.*.*", "ledger.job.{{wildcard(1)}}.{{wildcard(2)}}"),
                    SubjectTransform(
                        "events.item.*.*.*.*",
                        "ledger.item.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}",
                    ),
                ),
            ),
            max_bytes=GiB // 2,
            max_messages_per_subject=1,
            derived=True,
        ),
        Stream(
            name=PROGRESS,
            about="The latest progress of each item; lost with the server, made again by the next message.",
            writers="workers",
            readers="gateway",
            subjects=("progress.>",),
            storage=Storage.MEMORY,
            max_bytes=32 * MiB,
            max_messages_per_subject=1,
            max_age_seconds=3600,
        ),
        Stream(
            name=SCHED,
            about="Messages to be sent later: the ends of backoffs, cron schedules, and pushes.",
            writers="scheduler",
            readers="scheduler",
            subjects=("sched.>", "due.>"),
            max_bytes=64 * MiB,
            message_ttl=True,
            schedules=True,
            rollup=True,
        ),
        Stream(
            name=ADVISORIES,
            about="What the server says of items that were delivered too often or refused for good.",
            writers="the server",
            readers="scheduler",
            subjects=(
                f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{WORK}.>",
                f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{WORK}.>",
            ),
            max_bytes=32 * MiB,
            max_age_seconds=DAY_SECONDS * 7,
        ),
        Stream(
            name=AUDIT,
            about="Who did what, to what, from where.",
            writers="gateway",
            readers="gateway",
            subjects=("audit.>",),
            max_bytes=256 * MiB,
            max_age_seconds=DAY_SECONDS * 365,
        ),
        Stream(
            name=DEAD,
            about="Dead letters: jobs that killed their workers, and messages that nobody could read.",
            writers="scheduler",
            readers="scheduler, gateway",
            subjects=("dead.*.*",),
            max_bytes=64 * MiB,
            max_messages=10_000,
            max_messages_per_subject=1,
            max_age_seconds=DAY_SECONDS * 90,
        ),
        _bucket(
            KV_WORKERS,
            "Live workers, by name; an entry is gone 15 s after the last heartbeat.",
            writers="workers",
            readers="scheduler, gateway",
            max_bytes=16 * MiB,
            ttl_seconds=WORKER_TTL_SECONDS,
            markers=True,
        ),
        _bucket(
            KV_LEASE,
            "Which scheduler leads.",
            writers="scheduler",
            readers="scheduler",
            max_bytes=MiB,
            ttl_seconds=LEASE_TTL_SECONDS,
        ),
        _bucket(
            KV_ACTIVE,
            "The pending or running job for each tenant, repository and ref.",
            writers="gateway (creates), scheduler (releases)",
            readers="gateway",
            max_bytes=64 * MiB,
            message_ttl=True,
        ),
        _bucket(
            KV_CONTROL,
            "Items that were taken away from whoever works on them.",
            writers="scheduler",
            readers="workers",
            max_bytes=16 * MiB,
            ttl_seconds=DAY_SECONDS,
        ),
        _bucket(
            KV_KEYS,
            "Issued keys, hashed.",
            writers="gateway",
            readers="gateway",
            max_bytes=16 * MiB,
            message_ttl=True,  # of the tombstones of deleted keys
        ),
        _bucket(
            KV_CONNECTIONS,
            "Connections to sources, secrets encrypted.",
            writers="gateway",
            readers="gateway, workers",
            max_bytes=128 * MiB,
            message_ttl=True,  # of the tombstones of deleted connections
        ),
        _bucket(
            KV_DATASETS,
            "The live generation of each dataset.",
            writers="workers, search (deletes)",
            readers="search, workers, gateway",
            max_bytes=64 * MiB,
            message_ttl=True,  # of what stands in the place of deleted datasets
        ),
        _bucket(
            KV_IDEMPOTENCY,
            "Which job an Idempotency-Key started, and which pushes were taken.",
            writers="gateway",
            readers="gateway",
            max_bytes=64 * MiB,
            ttl_seconds=DAY_SECONDS,
        ),
        _bucket(
            KV_LIMITS,
            "Rate budgets that gateways share.",
            writers="gateway",
            readers="gateway",
            max_bytes=16 * MiB,
            ttl_seconds=DAY_SECONDS,  # the longest time in which an allowance is whole again
            message_ttl=True,
            storage=Storage.MEMORY,
        ),
        _bucket(
            KV_SCHEDULES,
            "Repositories that are indexed again and again.",
            writers="scheduler",
            readers="scheduler, gateway",
            max_bytes=16 * MiB,
        ),
        _bucket(
            KV_WATCHES,
            "Repositories whose pushes start jobs, secrets encrypted.",
            writers="gateway",
            readers="gateway",
            max_bytes=16 * MiB,
            message_ttl=True,  # of the tombstones of deleted watches
        ),
        _bucket(
            KV_RESOURCES,
            "Texts with an address, as their users keep them.",
            writers="gateway",
            readers="gateway",
            max_bytes=16 * MiB,
            message_ttl=True,  # of the tombstones of deleted resources
        ),
        _bucket(
            KV_LOCKS,
            "Who writes to a dataset; gone soon after it was last renewed.",
            writers="workers, pharos-store",
            readers="workers, pharos-store, pharos-bus check",
            max_bytes=16 * MiB,
            ttl_seconds=JOB_LOCK_TTL_SECONDS,
            message_ttl=True,
            # On disk: a server that starts again would otherwise let a second one in beside the first.
        ),
        Stream(
            name=f"OBJ_{OBJ_MANIFESTS}",
            about="The files of each batch, for as long as it may be started or tried again.",
            writers="gateway",
            readers="scheduler, gateway",
            subjects=(f"$O.{OBJ_MANIFESTS}.C.>", f"$O.{OBJ_MANIFESTS}.M.>"),
            discard=Discard.NEW,
            max_bytes=2 * GiB,
            max_age_seconds=DAY_SECONDS * MANIFEST_DAYS,
            rollup=True,
        ),
        Stream(
            name=f"OBJ_{OBJ_UPLOADS}",
            about="Uploaded bytes, and whatever is too large for a message.",
            writers="gateway",
            readers="workers",
            subjects=(f"$O.{OBJ_UPLOADS}.C.>", f"$O.{OBJ_UPLOADS}.M.>"),
            discard=Discard.NEW,
            max_bytes=2 * GiB,
            max_age_seconds=DAY_SECONDS * 2,
            rollup=True,
        ),
        Stream(
            name=f"OBJ_{OBJ_ARCHIVES}",
            about="Uploaded archives; each lives as long as its connection.",
            writers="gateway",
            readers="gateway, workers",
            subjects=(f"$O.{OBJ_ARCHIVES}.C.>", f"$O.{OBJ_ARCHIVES}.M.>"),
            discard=Discard.NEW,
            max_bytes=4 * GiB,
            rollup=True,
        ),
    )
    consumers = (
        Consumer(
            stream=Q,
            name=SCHEDULER_QUEUE,
            about="A command is acknowledged when its job is handed out: till then it counts for the cap.",
            ack_wait_seconds=QUEUE_ACK_WAIT_SECONDS,
            max_ack_pending=max(1000, limits.queue_max),
        ),
        Consumer(
            stream=DOCS,
            name=SCHEDULER_DOCUMENTS,
            about="The same for documents.",
            ack_wait_seconds=QUEUE_ACK_WAIT_SECONDS,
            max_ack_pending=max(1000, limits.documents_queue_max),
        ),
        Consumer(
            stream=TIMERS,
            name=SCHEDULER_EXPIRY,
            about="Turns the markers of expired commands into skipped jobs.",
            ack_wait_seconds=LEADER_ACK_WAIT_SECONDS,
        ),
        Consumer(
            stream=JOBS,
            name=SCHEDULER_ITEMS,
            about="Turns what workers say of items into job states.",
            filters=("events.item.>",),
            ack_wait_seconds=LEADER_ACK_WAIT_SECONDS,
        ),
        Consumer(
            stream=ADVISORIES,
            name=SCHEDULER_ADVISORIES,
            about="Ends jobs whose item the server will not deliver again.",
            ack_wait_seconds=LEADER_ACK_WAIT_SECONDS,
        ),
        Consumer(
            stream=CONTROL,
            name=SCHEDULER_CONTROL,
            about="Carries out what owners and operators ask, one after the other.",
            ack_wait_seconds=LEADER_ACK_WAIT_SECONDS,
            max_ack_pending=1,
        ),
        Consumer(
            stream=SCHED,
            name=SCHEDULER_DUE,
            about="Backoffs that are over, schedules whose time has come, and pushes that rest.",
            filters=("due.>",),
            ack_wait_seconds=LEADER_ACK_WAIT_SECONDS,
        ),
        Consumer(
            stream=JOBS,
            name=CALLBACKS,
            about="Tells the callbacks of jobs that ended.",
            filters=tuple(
                f"events.job.*.*.{name}" for name in ("completed", "failed", "cancelled", "skipped")
            ),
            ack_wait_seconds=CALLBACK_ACK_WAIT_SECONDS,
            max_deliver=CALLBACK_DELIVERIES_MAX,
            max_ack_pending=10_000,  # those that wait for another try to a dead receiver hold nobody else up
        ),
        Consumer(
            stream=WORK,
            name=WORKERS,
            about="An item belongs to the worker that it was delivered to while that worker says so.",
            filters=(f"work.{POOL_DEFAULT}.>",),
            ack_wait_seconds=WORK_ACK_WAIT_SECONDS,
            max_deliver=WORK_DELIVERIES_MAX,
        ),
        Consumer(
            stream=WORK,
            name=WORKERS_DOCUMENTS,
            about="The same for the slots that are kept for documents.",
            filters=(f"work.{POOL_DOCUMENTS}.>",),
            ack_wait_seconds=WORK_ACK_WAIT_SECONDS,
            max_deliver=WORK_DELIVERIES_MAX,
        ),
        Consumer(
            stream=JOBS,
            name=HISTORY,
            about="Projects every fact into SQL.",
            filters=("events.>",),
            ack_wait_seconds=30,
            max_ack_pending=2000,
        ),
    )
    return Bus(streams, consumers)
