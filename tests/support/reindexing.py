"""A dataset that is indexed again and again as a worker does it, and what there is to compare of an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
import qdrant_edge as edge

from pharos_contracts.jobs.v1 import IndexResult, Job, RepositorySource, Stage, WorkItem
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN
from pharos_embedder.discovery import DiscoveryLimits
from pharos_embedder.edge_store import EdgeEngine, edge_volumes
from pharos_embedder.encoding import EncoderService
from pharos_embedder.generations import GenerationStore
from pharos_embedder.indexing import Indexing, IndexingConfig
from pharos_embedder.model import Encoder
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.pipeline import Target, index
from pharos_embedder.ports import NothingToDo
from pharos_embedder.publishing import Publisher
from pharos_embedder.stages import Limits, Live, Tools
from pharos_embedder.stored_graph import StoredGraph
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import ALIVE, DatasetKey, Floats, Payload, from_stored
from pharos_embedder.volumes import Volumes
from pharos_service.bus import Bus
from pharos_sources.git import FetchLimits
from pharos_sources.hosts import AllowedHosts
from pharos_sources.kept_checkouts import KeptCheckouts
from pharos_sources.repository_url import parse_repository_url
from tests.support.workers import CountingEncoder, GatedEngine, new_job, now

COSINE_MIN: Final = 0.999
DIFFERENCES_SHOWN: Final = 12

LIMITS: Final = Limits(
    fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None
)


class HeldForTest:
    """An item that nobody takes away."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.attempt = 1
        self.item = WorkItem(job=job, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)

    def report(
        self,
        stage: Stage,
        done: int,
        total: int,
        *,
        current_file: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Nobody looks."""

    def check(self) -> None:
        """Never stopped."""

    def check_midway(self) -> None:
        """Never stopped."""

    async def lexical_ready(self, dataset: str, files: int, chunks: int) -> None:
        """Nobody is told."""


class Bench:
    """A home with a store, a vector cache and an encoder, on which repositories are indexed."""

    def __init__(
        self,
        home: Path,
        pool: ParsePool,
        encoder: Encoder | None = None,
        *,
        store: GenerationStore | None = None,
    ) -> None:
        """*store*: one that is shared with another machine, whose it is."""
        counting = CountingEncoder()
        self.encoder: Encoder = encoder or counting
        self.given = counting.given  # a number for each text that was encoded
        self.dimensions = self.encoder.dimensions
        self.volumes = edge_volumes(home / "index", dimensions=self.dimensions)
        self.engine = GatedEngine(self.volumes)
        own = GenerationStore(self.engine, dimensions=self.dimensions)  # type: ignore[arg-type]
        self.store = store or own
        self._owns_store = store is None
        self.cache = VectorCache(home / "vectors", limit_bytes=LIMIT_BYTES_MIN, warn=_warned)
        self.workspaces = home / "workspaces"
        self.workspaces.mkdir(parents=True, exist_ok=True)
        self.parse_cache = ParseCache(
            home / "parsed", limit_bytes=LIMIT_BYTES_MIN, warn=_warned, options=LIMITS.parsing
        )
        self.tools = Tools(
            store=self.store,
            encoder=EncoderService(self.encoder),
            cache=self.cache,
            parse_cache=self.parse_cache,
            parse_pool=pool,
            checkouts=KeptCheckouts(home / "checkouts", bytes_max=1 << 30, warn=_warned),
        )

    def __enter__(self) -> Bench:
        if self._owns_store:
            self.store.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cache.close()
        self.parse_cache.close()
        if self._owns_store:
            self.store.close()

    async def index(
        self,
        bus: Bus,
        url: str,
        *,
        allowed_hosts: str,
        branch: str | None = None,
        sha: str | None = None,
        **facts: Any,
    ) -> IndexResult | None:
        """Index and publish, as a worker does; None where there was nothing to do. Raises ports.Failed.

        *facts* are those of the job.
        """
        publisher = Publisher(
            bus,
            encoder=self.encoder.version,
            chunker=LIMITS.chunker,
            now=now,
            on_change=lambda _key, _dataset: None,
        )
        work = Indexing(
            self.tools,
            publisher,
            IndexingConfig(
                workspaces=self.workspaces,
                allowed_hosts=AllowedHosts.parse(allowed_hosts),
                github_token=None,
                limits=LIMITS,
            ),
        )
        held = HeldForTest(_job(url, branch, sha, **facts))
        try:
            result = await work.run(held)
        except NothingToDo:
            return None
        result = await work.finish(held.item, result)
        await work.tidy(held.item, result)
        return result

    async def index_anew(
        self, url: str, dataset: DatasetKey, *, allowed_hosts: str, branch: str | None = None
    ) -> IndexResult:
        """Index into a dataset of which nothing is there, without publishing."""

        async def lookup(_name: str) -> Target:
            return Target(dataset=dataset, live=Live())

        async def shown(_result: IndexResult) -> None:
            """Nobody reads it."""

        job = _job(url, branch, None, dataset=dataset.dataset)
        return await index(
            HeldForTest(job),
            parse_repository_url(url, allowed_hosts=AllowedHosts.parse(allowed_hosts)),
            self.workspaces / job.job_id,
            tools=self.tools,
            limits=LIMITS,
            token=None,
            lookup=lookup,
            begin=lookup,
            on_lexical_ready=shown,
        )

    def forget(self, dataset: DatasetKey) -> None:
        """As if nothing had ever been indexed here."""
        while self.store.drop(dataset, ALIVE - 1, most=10_000, forget=lambda _: None).left:
            pass
        for cache in (self.cache, self.parse_cache):
            for job in cache.jobs():
                cache.forget(job)


def _job(url: str, branch: str | None, sha: str | None, **facts: Any) -> Job:
    source = RepositorySource(identity="h.example/o/r", clone_url=url, branch=branch, sha=sha)
    return new_job(url, source=source, **facts)


def _warned(text: str) -> None:
    raise AssertionError(text)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A point as the engine has it."""

    payload: Payload
    text: Floats | None
    structure: Floats | None
    words: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Index:
    """All that readers of one generation can see, and what else lies about of the dataset."""

    points: Mapping[str, Stored]
    graph: StoredGraph | None
    lexicon: Lexicon
    leftovers: Mapping[str, int] = field(default_factory=dict)


def read_index(bench: Bench, dataset: DatasetKey, result: IndexResult) -> Index:
    """What is stored of the generation of *result*."""
    visible: dict[str, Stored] = {}
    leftovers: dict[str, int] = {}
    for identifier, stored in _points(bench.volumes, dataset):
        payload = stored.payload
        if payload.generation <= result.generation < payload.until:
            if payload.kind in ("chunk", "file"):
                visible[identifier] = stored
        elif (
            payload.until != result.generation
        ):  # what was retired last is kept for readers that began before
            leftovers[f"{payload.kind} of {payload.generation} until {payload.until}"] = 1
    return Index(
        points=visible,
        graph=bench.store.graph(dataset, result.generation),
        lexicon=bench.store.lexicon(dataset, result.generation),
        leftovers=leftovers,
    )


def _points(volumes: Volumes, dataset: DatasetKey) -> list[tuple[str, Stored]]:
    """Every point of *dataset* with its vectors, which no method of a store gives."""
    return [point for engine in volumes._all for point in _points_in(cast(EdgeEngine, engine), dataset)]


def _points_in(engine: EdgeEngine, dataset: DatasetKey) -> list[tuple[str, Stored]]:
    found: list[tuple[str, Stored]] = []
    after: str | None = None
    condition = edge.Filter(must=[edge.FieldCondition("key", match=edge.MatchValue(dataset.joined()))])
    while True:
        request = edge.ScrollRequest(
            offset=after, limit=500, filter=condition, with_payload=True, with_vector=True
        )
        with engine._read() as shard:
            records, following = shard.scroll(request)
        for record in records:
            vectors = record.vector or {}
            words = vectors.get("code_bm25")
            stored = Stored(
                payload=from_stored(record.payload),
                text=_floats(vectors.get("text")),
                structure=_floats(vectors.get("structure")),
                words={} if words is None else dict(zip(words.indices, words.values, strict=True)),
            )
            found.append((str(record.id), stored))
        if following is None:
            return found
        after = str(following)


def _floats(vector: Any) -> Floats | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)


def differences(found: Index, wanted: Index) -> list[str]:
    """What *found* has otherwise than *wanted*, a sentence each, the first few; none where they are equal."""
    told = [f"left over: {each}" for each in found.leftovers]
    told += [f"only in this one: {_name(found.points[each])}" for each in found.points.keys() - wanted.points]
    told += [f"missing: {_name(wanted.points[each])}" for each in wanted.points.keys() - found.points]
    for identifier in found.points.keys() & wanted.points.keys():
        told += _point_differences(found.points[identifier], wanted.points[identifier])
    told += _graph_differences(found.graph, wanted.graph)
    if found.lexicon != wanted.lexicon:
        told.append("the lexicons differ")
    return sorted(told)[:DIFFERENCES_SHOWN]


def _point_differences(found: Stored, wanted: Stored) -> list[str]:
    name = _name(found)
    told = [
        f"{name}: its {key} is {getattr(found.payload, key)!r}, not {getattr(wanted.payload, key)!r}"
        for key in Payload.__struct_fields__
        if key not in ("generation", "until", "job", "attempt")
        and getattr(found.payload, key) != getattr(wanted.payload, key)
    ]
    if found.words != wanted.words:
        told.append(f"{name}: its words weigh something else")
    told += [
        f"{name}: its {what} vector differs"
        for what, one, other, least in (
            ("text", found.text, wanted.text, COSINE_MIN),
            ("structure", found.structure, wanted.structure, 1 - 1e-6),
        )
        if not _same(one, other, least)
    ]
    return told


def _same(one: Floats | None, other: Floats | None, least: float) -> bool:
    if one is None or other is None:
        return one is other
    cosine = float(one @ other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12)
    return cosine >= least


def _graph_differences(found: StoredGraph | None, wanted: StoredGraph | None) -> list[str]:
    if found is None or wanted is None:
        return [] if found is wanted else ["one has a graph and the other has not"]
    return [
        f"their graphs differ in {name}"
        for name in StoredGraph.__struct_fields__
        if not np.array_equal(np.asarray(getattr(found, name)), np.asarray(getattr(wanted, name)))
    ]


def _name(stored: Stored) -> str:
    payload = stored.payload
    return f"{payload.kind} {payload.path}:{payload.start_line}-{payload.end_line}"
