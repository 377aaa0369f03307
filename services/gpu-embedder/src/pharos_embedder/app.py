"""Composition root: the only file that names concrete classes."""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import anyio
import anyio.to_thread
import msgspec
import structlog

from pharos_contracts.identity import as_token
from pharos_contracts.message import Message
from pharos_contracts.rpc import SEARCH, STORE
from pharos_contracts.search.v1 import Search, SearchBatch
from pharos_contracts.streams import OBJ_ARCHIVES, WORKERS_DOCUMENTS
from pharos_contracts.subjects import POOL_DEFAULT
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.answering import Answers, StoreQuestion, answer_store
from pharos_embedder.asked_store import asked_store
from pharos_embedder.batch_work import BatchConfig, BatchTools, BatchWork
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.connecting import Connecting
from pharos_embedder.control import Control
from pharos_embedder.dataset_locks import DatasetLocks
from pharos_embedder.deleting import Deleting
from pharos_embedder.devices import DeviceUnavailable, choose_device, memory_of, probe
from pharos_embedder.discovery import DiscoveryLimits
from pharos_embedder.document_slot import DocumentSlot
from pharos_embedder.document_work import DocumentConfig, DocumentTools, DocumentWork
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.pool import DocumentPool
from pharos_embedder.draining import Drain, drain_when_asked
from pharos_embedder.encoders import TextEncoder
from pharos_embedder.generations import GenerationStore
from pharos_embedder.group_commit import GroupCommit
from pharos_embedder.indexing import Indexing, IndexingConfig, forget_cancelled
from pharos_embedder.kept import Kept
from pharos_embedder.open_connections import OpenConnections
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.parse_pool import ParsePool, workers_for
from pharos_embedder.presence import Memory, Presence
from pharos_embedder.provider.encoder import Provider
from pharos_embedder.provider.errors import ProviderRefused, ProviderUnavailable
from pharos_embedder.publishing import Publisher
from pharos_embedder.qdrant_address import key_in_the_clear
from pharos_embedder.search import SearchEngine
from pharos_embedder.settings import Settings
from pharos_embedder.stages import Limits, Tools
from pharos_embedder.store_owner import StoreOwner
from pharos_embedder.structure_answers import Question, StructureAnswers
from pharos_embedder.sweeping import Sweeping
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.upkeep import keep_optimized, keep_swept
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import StoreError, StoreUnavailable, VectorStore
from pharos_embedder.walk_graph import warm as warm_training
from pharos_embedder.worker import Worker
from pharos_embedder.workspaces import WorkspacesInUse, own_workspaces
from pharos_service.bus import Bus
from pharos_service.health import probes
from pharos_service.local_copies import LocalCopies
from pharos_service.rpc import answer, make_broker
from pharos_service.running import EXIT_SETTINGS, run
from pharos_sources.connections import Installation
from pharos_sources.fetching import DocumentFetcher
from pharos_sources.fetching import DocumentLimits as FetchingLimits
from pharos_sources.git import FetchLimits
from pharos_sources.hosts import AllowedHosts, InvalidAllowedHost
from pharos_sources.kept_checkouts import KeptCheckouts
from pharos_sources.sealing import Sealer
from pharos_sources.secret import Secret

log = structlog.get_logger()

MiB: Final = 1024 * 1024
ROLES: Final = ("all", "worker", "search")
ARCHIVES_BYTES_MAX: Final = 4 * 1024 * MiB  # as many as the store of archives holds
FETCHED_PER_INDEXED: Final = 5  # files of a commit for each that may be indexed: most others are left out
READY_POLL_SECONDS: Final = 0.5
PROVIDER_POLL_SECONDS: Final = 2.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class CannotStart(Exception):
    """The process cannot do its work as it is set up; the text says what to change."""


async def serve(settings: Settings, role: str) -> None:
    """Load the encoder, open the store, then work and answer until cancelled."""
    waiting_for = ["the encoder"]
    async with probes(
        settings.health_host,
        settings.health_port,
        lambda: f"waiting for {waiting_for[-1]}" if waiting_for else None,
    ):
        with ExitStack() as opened:
            await _serve(settings, role, opened, waiting_for)


async def _serve(settings: Settings, role: str, opened: ExitStack, waiting_for: list[str]) -> None:
    allowed_hosts = _allowed_hosts("PHAROS_GIT_ALLOWED_HOSTS", settings.git_allowed_hosts)
    if settings.store not in ("", "edge", "qdrant"):
        raise CannotStart(f"PHAROS_STORE is {settings.store!r}; it can be `edge` or `qdrant`.")
    encoding = await _encoding(settings, opened)
    encoder = encoding.encoder
    broker = make_broker(settings, "pharos-embedder")
    owner: StoreOwner | None = None
    store: VectorStore
    if role == "worker" and not settings.uses_server:
        waiting_for.append("the bus")
        bus = Bus(await broker.connect())
        waiting_for.append("the owner of the store")
        store = asked_store(bus, dimensions=encoder.dimensions)
        await _reach(store)
    else:
        store, owner = _store(settings, encoder.dimensions)
        waiting_for.append("the store")
        await anyio.to_thread.run_sync(_open, store)
        opened.callback(store.close)
        waiting_for.append("the bus")
        bus = Bus(await broker.connect())
    catalogue = Catalogue(bus)
    takes_items = role in ("all", "worker") and settings.worker_slots > 0
    kept = _kept(settings, opened) if takes_items else None
    if owner is not None or settings.uses_server:
        deleting = Deleting(bus, store, catalogue, kept, encoder=encoder.version, now=utc_now)
        answer(broker, STORE, StoreQuestion, partial(answer_store, store, deleting), workers=2)
    if role in ("all", "search"):
        engine = SearchEngine(store, encoder.encode_queries, encoder=encoder.version)
        searches = Answers(engine, catalogue, allowed_hosts, encoder=encoder.version)
        structure = StructureAnswers(engine, catalogue)

        async def respond(question: Search | SearchBatch | Question) -> Message:
            if isinstance(question, Search | SearchBatch):
                return await searches.answer(question)
            return await structure.answer(question)

        answer(broker, SEARCH, Search | SearchBatch | Question, respond, workers=4)

    async def watch_readiness() -> None:
        while True:
            waiting_for[:] = [] if bus.connected else ["the bus"]
            await anyio.sleep(READY_POLL_SECONDS)

    try:
        await broker.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(catalogue.follow)
            tasks.start_soon(watch_readiness)
            if owner is not None:
                tasks.start_soon(owner.serve, bus)
                tasks.start_soon(keep_optimized, store)  # a server does that by itself
            if role != "worker":
                sweeping = Sweeping(bus, store, kept, alone=owner is not None, encoder=encoder.version)
                tasks.start_soon(keep_swept, sweeping, utc_now)
            if kept is not None:
                tasks.start_soon(partial(anyio.to_thread.run_sync, warm_training, abandon_on_cancel=True))
                publisher = Publisher(
                    bus,
                    encoder=encoder.version,
                    chunker=_limits(settings).chunker,
                    now=utc_now,
                    on_change=catalogue.note,
                )
                view = _view(settings, encoding)
                presence = Presence(bus, view, utc_now, lambda: Memory(*memory_of(encoding.device)))
                workspaces = _workspaces(settings, role, view.name, opened)
                works = _works(settings, workspaces, publisher, store, encoder, kept, opened)
                documents = _document_config(settings, workspaces)
                document_publisher = Publisher(
                    bus,
                    encoder=encoder.version,
                    chunker=documents.chunker,
                    now=utc_now,
                    on_change=catalogue.note,
                )
                async with DocumentFetcher(
                    documents.allowed_hosts, limits=FetchingLimits(bytes_max=documents.limits.bytes_max)
                ) as fetcher:
                    pool = opened.enter_context(DocumentPool(settings.max_concurrent_processing))
                    tasks.start_soon(partial(anyio.to_thread.run_sync, pool.warm, abandon_on_cancel=True))
                    document_tools = DocumentTools(
                        bus=bus,
                        fetcher=fetcher,
                        pool=pool,
                        store=store,
                        encoder=encoder,
                        cache=kept.vectors,
                    )
                    async with (
                        OpenConnections(bus, _connecting(bus, settings, workspaces)) as connections,
                        GroupCommit(
                            store,
                            document_publisher,
                            DatasetLocks(bus, presence.instance),
                            encoder=encoder.version,
                        ) as commits,
                    ):
                        batch_tools = BatchTools(
                            connections=connections,
                            commits=commits,
                            pool=document_tools.pool,
                            store=store,
                            encoder=encoder,
                            cache=kept.vectors,
                        )
                        document_works = [
                            DocumentSlot(
                                DocumentWork(document_tools, document_publisher, documents),
                                BatchWork(batch_tools, document_publisher, _batch_config(documents)),
                            )
                            for _ in range(settings.max_concurrent_processing)
                        ]
                        await _work(bus, settings, presence, kept, works, document_works)
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(3):
            await broker.stop()


async def _work(
    bus: Bus,
    settings: Settings,
    presence: Presence,
    kept: Kept,
    works: Sequence[Indexing],
    document_works: Sequence[DocumentSlot],
) -> None:
    """Take and do items, until the process was asked to stop and every slot has drained."""
    control, drain = Control(bus), Drain()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(presence.beat)
        tasks.start_soon(control.follow)
        tasks.start_soon(drain_when_asked, drain, presence, settings.drain_seconds)
        for cache in (kept.vectors, kept.parsed):
            tasks.start_soon(forget_cancelled, bus, cache)
        async with anyio.create_task_group() as slots:
            for work in works:
                slots.start_soon(Worker(bus, work, presence, control, drain, now=utc_now).serve)
            for document_work in document_works:
                worker = Worker(
                    bus,
                    document_work,
                    presence,
                    control,
                    drain,
                    now=utc_now,
                    consumer=WORKERS_DOCUMENTS,
                )
                slots.start_soon(worker.serve)
        tasks.cancel_scope.cancel()


def _kept(settings: Settings, opened: ExitStack) -> Kept:
    vectors = VectorCache(
        settings.home_path / "vectors",
        limit_bytes=settings.vector_cache_max_mb * MiB,
        warn=lambda text: log.warning("vector_cache", detail=text),
    )
    opened.callback(vectors.close)
    parsed = ParseCache(
        settings.home_path / "parsed",
        limit_bytes=settings.parse_cache_max_mb * MiB,
        warn=lambda text: log.warning("parse_cache", detail=text),
        options=_limits(settings).parsing,
    )
    opened.callback(parsed.close)
    checkouts = KeptCheckouts(
        settings.home_path / "checkouts",
        bytes_max=settings.checkouts_max_mb * MiB,
        warn=lambda text: log.warning("kept_checkouts", detail=text),
    )
    return Kept(vectors=vectors, parsed=parsed, checkouts=checkouts)


def _workspaces(settings: Settings, role: str, name: str, opened: ExitStack) -> Path:
    try:
        return opened.enter_context(own_workspaces(settings.home_path, name if role == "worker" else None))
    except WorkspacesInUse as error:
        raise CannotStart(str(error)) from error


def _works(
    settings: Settings,
    workspaces: Path,
    publisher: Publisher,
    store: VectorStore,
    encoder: TextEncoder,
    kept: Kept,
    opened: ExitStack,
) -> list[Indexing]:
    """The work of each slot."""
    config = IndexingConfig(
        workspaces=workspaces,
        allowed_hosts=_allowed_hosts("PHAROS_GIT_ALLOWED_HOSTS", settings.git_allowed_hosts),
        github_token=Secret(settings.github_token.reveal()) if settings.github_token else None,
        limits=_limits(settings),
    )
    found = []
    parse_workers = workers_for(probe().threads, settings.worker_slots)
    for _ in range(settings.worker_slots):
        pool = ParsePool(parse_workers, settings.parse_timeout_seconds)
        opened.callback(pool.close)
        tools = Tools(
            store=store,
            encoder=encoder,
            cache=kept.vectors,
            parse_cache=kept.parsed,
            parse_pool=pool,
            checkouts=kept.checkouts,
        )
        found.append(Indexing(tools, publisher, config))
    return found


class _Encoding(NamedTuple):
    """The encoder, where its vectors are made in words, and whose memory is told of this process."""

    encoder: TextEncoder
    shown: str
    device: str
    gpu: str = ""  # what the GPU calls itself


async def _encoding(settings: Settings, opened: ExitStack) -> _Encoding:
    if settings.embedding_provider == "openai":
        return await _provider(settings, opened)
    return await anyio.to_thread.run_sync(_model, settings)


def _model(settings: Settings) -> _Encoding:
    # Not needed where texts are encoded elsewhere.
    from pharos_embedder.encoding import EncoderService
    from pharos_embedder.model import EncoderUnavailable, load_encoder

    try:
        choice = choose_device(settings.device, worker=settings.worker_index)
        model = load_encoder(settings.encoder, choice)
    except (DeviceUnavailable, EncoderUnavailable) as error:
        raise CannotStart(str(error)) from error
    choice = model.choice
    log.info("device_chosen", device=choice.device, dtype=choice.dtype, why=choice.why, lanes=choice.lanes)
    shown = f"{choice.device} {choice.dtype}"
    service = EncoderService(model, lanes=choice.lanes, lane_threads=choice.lane_threads)
    return _Encoding(service, shown, choice.device, _gpu_name(choice.device))


async def _provider(settings: Settings, opened: ExitStack) -> _Encoding:
    """The server that encodes. It may still be starting, and is waited for, like the bus."""
    endpoint = settings.endpoint
    if endpoint.key_in_the_clear:
        log.warning("provider_key_in_the_clear", host=endpoint.host, advice="use https in OPENAI_BASE_URL")
    provider = opened.enter_context(Provider(endpoint, settings.tariff))
    told = False
    while True:
        try:
            encoder = await anyio.to_thread.run_sync(provider.encoder, abandon_on_cancel=True)
        except ProviderRefused as error:
            raise CannotStart(str(error)) from error
        except ProviderUnavailable as error:
            if not told:
                log.warning("provider_awaited", reason=str(error))
                told = True
            await anyio.sleep(PROVIDER_POLL_SECONDS)
            continue
        log.info("provider_chosen", encoder=encoder.version, tariff=msgspec.structs.asdict(encoder.tariff))
        return _Encoding(encoder, endpoint.host, "cpu")


def _store(settings: Settings, dimensions: int) -> tuple[VectorStore, StoreOwner | None]:
    """The store that this process opens; and who answers for it, where other processes cannot open it."""
    if settings.uses_server:
        if not settings.qdrant_url:
            raise CannotStart(
                "PHAROS_STORE=qdrant needs PHAROS_QDRANT_URL, the address of the Qdrant server."
            )
        from pharos_embedder.qdrant_store import qdrant_store

        api_key = settings.qdrant_api_key.reveal() if settings.qdrant_api_key else None
        if key_in_the_clear(settings.qdrant_url, api_key):
            log.warning("qdrant_key_in_the_clear", advice="use https in PHAROS_QDRANT_URL")
        server = qdrant_store(settings.qdrant_url, dimensions=dimensions, api_key=api_key)
        return server, None
    from pharos_embedder.edge_store import edge_volumes

    engine = edge_volumes(settings.home_path / "index", dimensions=dimensions)
    return GenerationStore(engine, dimensions=dimensions), StoreOwner(engine, dimensions=dimensions)


def _open(store: VectorStore) -> None:
    try:
        store.open()
    except StoreError as error:
        raise CannotStart(str(error)) from error


async def _reach(store: VectorStore) -> None:
    """Open a store whose owner may still be starting: it is waited for, like the bus."""
    told = False
    while True:
        try:
            await anyio.to_thread.run_sync(store.open)
            return
        except StoreUnavailable as error:
            if not told:
                log.warning("store_owner_awaited", reason=str(error))
                told = True
        except StoreError as error:
            raise CannotStart(str(error)) from error
        await anyio.sleep(READY_POLL_SECONDS)


def _allowed_hosts(variable: str, text: str) -> AllowedHosts:
    try:
        return AllowedHosts.parse(text)
    except InvalidAllowedHost as error:
        raise CannotStart(f"{variable} is not valid: {error}") from error


def _document_config(settings: Settings, workspaces: Path) -> DocumentConfig:
    return DocumentConfig(
        workspaces=workspaces,
        allowed_hosts=_allowed_hosts("PHAROS_WEB_ALLOWED_HOSTS", settings.web_allowed_hosts),
        limits=DocumentLimits(bytes_max=settings.max_file_size_mb * MiB),
        chunk_size=settings.chunk_size,
        overlap=settings.chunk_overlap,
        batch_tokens=_limits(settings).batch_tokens,
    )


def _batch_config(documents: DocumentConfig) -> BatchConfig:
    return BatchConfig(
        workspaces=documents.workspaces,
        limits=documents.limits,
        chunk_size=documents.chunk_size,
        overlap=documents.overlap,
        batch_tokens=documents.batch_tokens,
    )


def _connecting(bus: Bus, settings: Settings, workspaces: Path) -> Connecting:
    """What opens connections, as this machine may; *workspaces* is empty and this process's alone."""
    archives, checkouts = (workspaces / name for name in ("archives", "checkouts"))
    for folder in (archives, checkouts):
        folder.mkdir(mode=0o700)
    return Connecting(
        bus,
        LocalCopies(bus, OBJ_ARCHIVES, archives, bytes_max=ARCHIVES_BYTES_MAX),
        Sealer(settings.secret_keys) if settings.secret_keys else None,
        Installation(
            roots=settings.roots,
            allowed_hosts=_allowed_hosts("PHAROS_WEB_ALLOWED_HOSTS", settings.web_allowed_hosts),
            git_allowed_hosts=_allowed_hosts("PHAROS_GIT_ALLOWED_HOSTS", settings.git_allowed_hosts),
            work=checkouts,
            checkout=FetchLimits(bytes_max=settings.repository_max_mb * MiB),
        ),
    )


def _limits(settings: Settings) -> Limits:
    file_bytes = settings.max_file_size_mb * MiB
    return Limits(
        fetch=FetchLimits(
            seconds=math.inf,  # the stage has a limit of its own
            bytes_max=settings.repository_max_mb * MiB,
            files_max=FETCHED_PER_INDEXED * settings.repository_files_max,
        ),
        discovery=DiscoveryLimits(
            file_bytes_max=min(file_bytes, settings.source_file_max_mb * MiB),
            files_max=settings.repository_files_max,
            total_bytes_max=settings.repository_max_mb * MiB,
        ),
        chunks_max=settings.repository_chunks_max,
        parsing=ParseOptions(
            size_chars=settings.chunk_size,
            overlap_chars=settings.chunk_overlap,
            file_bytes_max=file_bytes,
        ),
        batch_tokens=None
        if settings.embedding_batch_tokens == "auto"
        else int(settings.embedding_batch_tokens),
        job_seconds=settings.job_timeout_seconds,
    )


def _gpu_name(device: str) -> str:
    """What the GPU calls itself; empty for a CPU."""
    kind, _, index = device.partition(":")
    return probe().gpus[int(index or 0)].name if kind == "cuda" else ""


def _view(settings: Settings, encoding: _Encoding) -> WorkerView:
    started = utc_now()
    return WorkerView(
        name=as_token(settings.worker_name or encoding.gpu or socket.gethostname()),
        instance=str(uuid4()),
        pool=POOL_DEFAULT,
        state=WorkerState.IDLE,
        device=encoding.shown,
        slots=settings.worker_slots,
        document_slots=settings.max_concurrent_processing,
        since=started,
        seen_at=started,
        versions={
            "pharos": version("pharos-embedder"),
            "torch": version("torch"),
            "encoder": encoding.encoder.version,
            "chunker": CHUNKER_VERSION,
        },
    )


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions of *group*; those that ended a task group are in a group of their own."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="pharos_embedder", description="Index repositories, answer searches."
    )
    parser.add_argument("--role", choices=ROLES, default="all")
    role = parser.parse_args().role
    # Models come from packages, a local path or the hub's cache; progress bars belong to no log.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    async def start(settings: Settings) -> None:
        await serve(settings, role)

    try:
        run("embedder", Settings, start)
    except* CannotStart as errors:
        for error in _leaves(errors):
            print(f"embedder: {error}", file=sys.stderr)
        raise SystemExit(EXIT_SETTINGS) from None
    # All is closed. Taking torch apart would take seconds of those that a supervisor waits.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
