"""The composition root: the only file that names every part."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog
import uvicorn
from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.types import ASGIApp

from pharos_contracts.connections.v1 import Connection
from pharos_contracts.datasets.v1 import DatasetRecord
from pharos_contracts.identity import uuid7
from pharos_contracts.jobs.v1 import ActiveJob
from pharos_contracts.keys.v1 import Key
from pharos_contracts.limits.v1 import Allowance
from pharos_contracts.resources.v1 import Resource
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.streams import (
    DOCS,
    KV_ACTIVE,
    KV_CONNECTIONS,
    KV_DATASETS,
    KV_IDEMPOTENCY,
    KV_KEYS,
    KV_LIMITS,
    KV_RESOURCES,
    KV_SCHEDULES,
    KV_WATCHES,
    KV_WORKERS,
    OBJ_ARCHIVES,
)
from pharos_contracts.watches.v1 import Watch
from pharos_contracts.workers.v1 import Worker
from pharos_gateway import openapi
from pharos_gateway.access import Access, RequestLimits
from pharos_gateway.allowances import Allowances
from pharos_gateway.archives import Archives
from pharos_gateway.audit import Trail, audited
from pharos_gateway.authentication import Authenticator, credential_of, is_good
from pharos_gateway.batching import Batching, RememberedBatch
from pharos_gateway.boards import Boards
from pharos_gateway.bodies import JsonRequest
from pharos_gateway.callback_url import CallbackAddress, parse_callback_url
from pharos_gateway.callbacks import Callbacks, delay_seconds
from pharos_gateway.commanding import Commands
from pharos_gateway.connections import Connections
from pharos_gateway.controlling import Controlling
from pharos_gateway.datasets import Datasets
from pharos_gateway.dead_letters import DeadLetters
from pharos_gateway.deleting import Deleting
from pharos_gateway.disk import Disk
from pharos_gateway.document_ingest import DocumentIngest
from pharos_gateway.finding import Finder
from pharos_gateway.guesses import Guesses
from pharos_gateway.headers import with_headers
from pharos_gateway.issuing import Issuing
from pharos_gateway.job_requests import JobRequests
from pharos_gateway.key_store import KeyStore
from pharos_gateway.live import Live
from pharos_gateway.manifests import Manifests
from pharos_gateway.options import with_options
from pharos_gateway.placing import Places
from pharos_gateway.posting import Poster
from pharos_gateway.problems import HANDLERS, callbacks_disabled
from pharos_gateway.project_ingest import ProjectIngest
from pharos_gateway.pushing import Pushing, TakenPush
from pharos_gateway.queueing import Queue
from pharos_gateway.quotas import JobQuota
from pharos_gateway.resolving import Resolving
from pharos_gateway.resource_keeping import ResourceKeeping
from pharos_gateway.resource_store import ResourceStore
from pharos_gateway.routes import (
    audit,
    batch_sockets,
    batches,
    callbacks,
    connections,
    documents,
    events,
    health,
    ingestion,
    jobs,
    keys,
    operations,
    projects,
    repositories,
    resources,
    schedules,
    search,
    sockets,
    webhooks,
)
from pharos_gateway.routes import tickets as tickets_routes
from pharos_gateway.routes.conversing import Conversing
from pharos_gateway.scheduling import Scheduling
from pharos_gateway.scratch import Scratch
from pharos_gateway.selecting import Selecting
from pharos_gateway.settings import Settings
from pharos_gateway.showing import Showing
from pharos_gateway.signing import SigningSecrets
from pharos_gateway.snapshots import Snapshots
from pharos_gateway.sources import Sources
from pharos_gateway.streams import Streams
from pharos_gateway.submitting import Remembered, Submitting
from pharos_gateway.tickets import Tickets
from pharos_gateway.uploads import Uploads
from pharos_gateway.watch_store import WatchStore
from pharos_gateway.watching import Watching
from pharos_gateway.wire import HttpConnection, SocketConnection
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, dormant
from pharos_service.ending import end
from pharos_sources.connections import Installation
from pharos_sources.sealing import Sealer

log = structlog.get_logger()

SERVICE: Final = "gateway"
BODY_BYTES_MAX: Final = 1024 * 1024
SOCKET_MESSAGE_BYTES_MAX: Final = 16 * 1024
MiB: Final = 1024 * 1024
ARCHIVE_COPIES_BYTES_MAX: Final = 512 * MiB  # or one archive, if that may be larger
STOP_SECONDS: Final = 2
FLUSH_SECONDS: Final = 2


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """A UUIDv7 of now."""
    return str(uuid7(time.time_ns() // 1_000_000, os.urandom(10)))


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What runs beside the HTTP application."""

    bus: Bus
    live: Live
    issued: KeyStore
    watches: WatchStore
    resources: ResourceStore
    trail: Trail
    allowances: Allowances
    streams: Streams
    scratch: Scratch
    archives: Archives

    @classmethod
    def on(cls, bus: Bus, settings: Settings) -> Parts:
        """All of them on one bus."""
        issued = KeyStore(bus, Bucket(bus, KV_KEYS, Key), now=utc_now)
        streams = Streams(
            total_max=settings.streams_max,
            per_credential_max=settings.streams_per_key_max,
            is_good=lambda credential: is_good(credential, issued.is_good),
        )
        scratch = Scratch(Path(settings.home) / "tmp")
        issued.on_change(lambda key_id: streams.end(credential_of(key_id)))
        return cls(
            bus=bus,
            live=Live(bus, Bucket(bus, KV_WORKERS, Worker)),
            issued=issued,
            watches=WatchStore(Bucket(bus, KV_WATCHES, Watch)),
            resources=ResourceStore(Bucket(bus, KV_RESOURCES, Resource)),
            trail=Trail(bus),
            allowances=Allowances(Bucket(bus, KV_LIMITS, Allowance)),
            streams=streams,
            scratch=scratch,
            archives=Archives(
                bus,
                Bucket(bus, KV_CONNECTIONS, Connection),
                scratch,
                copies_bytes_max=max(ARCHIVE_COPIES_BYTES_MAX, settings.upload_max_bytes),
                now=utc_now,
            ),
        )


def build(settings: Settings, parts: Parts) -> ASGIApp:
    """The HTTP application on *parts*, which somebody else runs."""
    app = with_options(application(settings, parts))
    return with_headers(audited(app, parts.trail, now=utc_now, new_id=new_id))


def application(settings: Settings, parts: Parts) -> Litestar:
    """Every route, wired."""
    bus, live, issued, allowances, streams = (
        parts.bus,
        parts.live,
        parts.issued,
        parts.allowances,
        parts.streams,
    )
    admin_token = settings.admin_token.reveal()
    tickets = Tickets(admin_token)
    access = Access(
        Authenticator(admin_token, settings.anonymous_caller, issued, now=utc_now),
        issued,
        tickets,
        Guesses(settings.rate_limit_guesses_per_minute),
        RequestLimits(
            allowances,
            per_key=settings.rate_limit_key_per_minute,
            per_address=settings.rate_limit_address_per_minute,
        ),
        now=utc_now,
        public_status=settings.public_status,
    )
    queue, documents_queue = Queue(bus), Queue(bus, DOCS)
    finder = Finder(bus, queue, documents_queue, live)
    snapshots = Snapshots(finder, live)
    places = Places(bus)
    showing = Showing(live, places)
    commands = Commands(bus)
    check_host = Resolving().check
    secrets = _secrets(settings)
    jobs_of_the_day = JobQuota(allowances, settings.rate_limit_jobs_per_day)
    submitting = Submitting(
        bus,
        queue,
        documents_queue,
        finder,
        live,
        places,
        active=Bucket(bus, KV_ACTIVE, ActiveJob),
        remembered=Bucket(bus, KV_IDEMPOTENCY, Remembered),
        check_host=check_host,
        ttl_seconds=settings.task_ttl_seconds,
        tenant_queue_max=settings.tenant_queue_max,
        now=utc_now,
        new_job_id=new_id,
        jobs_of_the_day=jobs_of_the_day,
    )
    disk = Disk(Path(settings.home), settings.disk_free_min_mb)
    issuing = Issuing(Bucket(bus, KV_KEYS, Key), issued, now=utc_now, random=os.urandom)
    scheduling = Scheduling(
        bus,
        Bucket(bus, KV_SCHEDULES, Schedule),
        commands,
        allowed_hosts=settings.allowed_hosts,
        check_host=check_host,
        ttl_seconds=settings.task_ttl_seconds,
        now=utc_now,
        new_id=new_id,
    )
    sealer = Sealer(settings.secret_keys) if settings.secret_keys else None
    watching = Watching(
        bus,
        Bucket(bus, KV_WATCHES, Watch),
        parts.watches,
        sealer,
        allowed_hosts=settings.allowed_hosts,
        check_host=check_host,
        now=utc_now,
        new_id=new_id,
        random=os.urandom,
    )
    pushing = Pushing(
        bus,
        Bucket(bus, KV_WATCHES, Watch),
        parts.watches,
        sealer,
        Bucket(bus, KV_IDEMPOTENCY, TakenPush),
        allowed_hosts=settings.allowed_hosts,
        jobs_of_the_day=jobs_of_the_day,
        check_disk=disk.check,
        ttl_seconds=settings.task_ttl_seconds,
        now=utc_now,
    )
    installation = Installation(
        roots=settings.roots,
        allowed_hosts=settings.web_hosts,
        git_allowed_hosts=settings.allowed_hosts,
    )
    kept_connections = Connections(
        bus,
        Bucket(bus, KV_CONNECTIONS, Connection),
        sealer,
        installation,
        archives_bytes_max=settings.tenant_archives_max_mb * MiB,
        now=utc_now,
        new_id=new_id,
    )
    archives = parts.archives
    archive_uploads = Uploads(bus, bytes_max=settings.upload_max_bytes, new_name=new_id, store=OBJ_ARCHIVES)
    sources = Sources(archives, parts.scratch, sealer, installation, look_seconds=settings.source_seconds_max)
    manifests = Manifests(bus)
    batching = Batching(
        bus,
        commands,
        finder,
        live,
        manifests,
        Selecting(kept_connections, sources),
        Bucket(bus, KV_IDEMPOTENCY, RememberedBatch),
        jobs_of_the_day,
        callback_of=_callback_of(settings),
        check_host=check_host,
        now=utc_now,
        new_id=new_id,
    )
    conversing = Conversing(access, streams, utc_now)
    boards = Boards(bus, live, batching, manifests, now=utc_now)
    controlling = Controlling(commands, finder, now=utc_now)
    letters = DeadLetters(bus, commands, now=utc_now)
    datasets = Datasets(bus, Bucket[DatasetRecord](bus, KV_DATASETS, DatasetRecord))
    deleting = Deleting(bus, Bucket(bus, KV_ACTIVE, ActiveJob), controlling, live)
    project_ingest = ProjectIngest(
        submitting,
        datasets,
        finder,
        allowed_hosts=settings.allowed_hosts,
        callback_of=_callback_of(settings),
    )
    uploads = Uploads(bus, bytes_max=settings.upload_max_bytes, new_name=new_id)
    document_ingest = DocumentIngest(
        submitting, uploads, allowed_hosts=settings.web_hosts, callback_of=_callback_of(settings)
    )
    keeping = ResourceKeeping(
        Bucket(bus, KV_RESOURCES, Resource),
        parts.resources,
        submitting,
        uploads,
        controlling,
        finder,
        live,
        callback_of=_callback_of(settings),
        now=utc_now,
    )
    job_requests = JobRequests(
        submitting,
        document_ingest,
        keeping,
        allowed_hosts=settings.allowed_hosts,
        callback_of=_callback_of(settings),
    )
    cors = None
    if settings.cors_origins:
        cors = CORSConfig(
            allow_origins=list(settings.cors_origins),
            expose_headers=["Retry-After", "WWW-Authenticate", "RateLimit", "RateLimit-Policy"],
        )
    return Litestar(
        route_handlers=[
            ingestion.routes(
                access,
                disk,
                submitting,
                settings.allowed_hosts,
                _callback_of(settings),
                bus,
                live,
                finder,
                snapshots,
            ),
            jobs.routes(
                access,
                disk,
                bus,
                live,
                finder,
                showing,
                controlling,
                snapshots,
                datasets,
                deleting,
                job_requests,
            ),
            schedules.routes(access, bus, scheduling),
            webhooks.routes(access, bus, watching, pushing),
            connections.routes(
                access, disk, bus, kept_connections, archives, archive_uploads, sources, new_id
            ),
            callbacks.routes(access, secrets),
            events.routes(access, bus, live, finder, snapshots, streams),
            sockets.routes(conversing, bus, live, streams, utc_now),
            batches.routes(access, disk, bus, batching, controlling),
            batch_sockets.routes(conversing, bus, live, streams, batching, boards),
            tickets_routes.routes(access, tickets, utc_now),
            keys.routes(access, bus, issuing, issued, utc_now),
            audit.routes(access, bus),
            projects.routes(
                access, disk, bus, live, finder, project_ingest, controlling, datasets, scheduling, deleting
            ),
            resources.routes(
                access, disk, bus, submitting, keeping, settings.allowed_hosts, _callback_of(settings)
            ),
            documents.routes(access, disk, bus, finder, document_ingest, uploads),
            search.routes(access, bus, new_id),
            operations.routes(access, bus, queue, documents_queue, letters, showing, utc_now),
            repositories.routes(access, bus, datasets, utc_now),
            health.routes(bus, utc_now),
        ],
        exception_handlers=HANDLERS,
        request_class=JsonRequest,
        openapi_config=openapi.config(),
        request_max_body_size=BODY_BYTES_MAX,
        cors_config=cors,
        logging_config=None,  # problems.py logs what went wrong, once
        debug=False,
    )


def _secrets(settings: Settings) -> SigningSecrets | None:
    return SigningSecrets(settings.secret_keys[0]) if settings.secret_keys else None


def _callback_of(settings: Settings) -> Callable[[str], CallbackAddress]:
    """Reads a callback URL; the Problem that says why it cannot be taken here."""

    def callback_of(url: str) -> CallbackAddress:
        if not settings.secret_keys:
            raise callbacks_disabled()
        return parse_callback_url(url, allowed_hosts=settings.callback_hosts)

    return callback_of


async def _send_callbacks(settings: Settings, bus: Bus) -> None:
    """For ever. Without a key that would sign them, callbacks are left to gateways that have one."""
    secrets = _secrets(settings)
    if secrets is None:
        await asyncio.Event().wait()
        return
    await Callbacks(
        bus,
        Poster(),
        secrets,
        address_of=partial(parse_callback_url, allowed_hosts=settings.callback_hosts),
        now=utc_now,
        delay_after=lambda tries: delay_seconds(tries, random.random()),  # noqa: S311 (no secret)
    ).run()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """A gateway that listens at ``address``."""

    def __init__(self, address: str, tasks: set[asyncio.Task[None]]) -> None:
        self.address = address
        self._tasks = tasks

    async def until_it_fails(self) -> None:
        """Returns never; raises what ended a part of it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        raise RuntimeError("The gateway ended by itself")


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Running]:
    """The gateway listens while the block runs.

    Stopping, in order: accept no more connections, send event streams away, finish the requests in hand,
    publish the rest of the audit trail, leave the bus.
    """
    bus, connecting = dormant(settings, f"pharos-{SERVICE}")
    parts = Parts.on(bus, settings)
    live = parts.live
    server = _Server(
        uvicorn.Config(
            build(settings, parts),
            host=settings.host,
            port=settings.port,
            http=HttpConnection,
            ws=SocketConnection,
            ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    following = asyncio.create_task(live.run(), name="live")
    sending = asyncio.create_task(_send_callbacks(settings, bus), name="callbacks")
    knowing = asyncio.create_task(parts.issued.run(), name="keys")
    watching = asyncio.create_task(parts.watches.run(), name="watches")
    listing = asyncio.create_task(parts.resources.run(), name="resources")
    auditing = asyncio.create_task(parts.trail.run(), name="audit")
    sweeping = asyncio.create_task(parts.archives.run(), name="archives")
    listening = asyncio.create_task(server.serve(), name="http")
    behind = (following, sending, knowing, watching, listing, auditing, sweeping, connecting)
    try:
        address = await _address(server, listening, following)
        yield Running(address, {*behind, listening})
    finally:
        with anyio.CancelScope(shield=True):
            server.should_exit = True
            live.close()
            with contextlib.suppress(Exception, SystemExit):
                await asyncio.wait_for(listening, STOP_SECONDS + 2)
            await end(*behind)
            await parts.allowances.close()
            await parts.scratch.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(parts.trail.flush(), FLUSH_SECONDS)
            with contextlib.suppress(Exception):  # it may never have been connected
                await asyncio.wait_for(bus.client.close(), 2)


async def _address(
    server: uvicorn.Server, listening: asyncio.Task[None], following: asyncio.Task[None]
) -> str:
    while not server.started:
        if listening.done() or following.done():
            raise RuntimeError("The gateway could not start; the log says why")
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def main(settings: Settings) -> None:
    """Serve until cancelled."""
    async with serving(settings) as running:
        log.info("listening", address=running.address)
        await running.until_it_fails()
