"""A repository in, a generation of its dataset's index out, ready to be published.

    fetch → discover → parse and chunk → link → train → store → encode

Each stage is a module of its own that takes values and returns values; ``stages`` joins them, and this one
only tells their order. Everything is written beside the live index, and nobody sees it until it is published.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec

from pharos_contracts.jobs.v1 import IndexResult, Job, Stage
from pharos_embedder import stages
from pharos_embedder.discovery import discover
from pharos_embedder.points import Origin
from pharos_embedder.stages import Limits, Live, Report, Tools
from pharos_embedder.vectors import DatasetKey
from pharos_sources.git import fetch
from pharos_sources.repository_url import RepositoryAddress
from pharos_sources.secret import Secret

T = TypeVar("T")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the result goes."""

    dataset: DatasetKey
    live: Live


Lookup = Callable[[str], Awaitable[Target]]
"""The target of a dataset's name."""

OnLexicalReady = Callable[[IndexResult], Awaitable[None]]
"""Publishes the first index of a dataset by words and structure, before its vectors are in."""


class Unchanged(Exception):
    """The dataset's live generation is of this very commit, made by this encoder and chunker."""

    def __init__(self, commit: str) -> None:
        super().__init__(f"Commit {commit[:12]} is indexed already; force=true indexes it again")


async def index(
    job: Job,
    address: RepositoryAddress,
    workspace: Path,
    *,
    tools: Tools,
    limits: Limits,
    token: Secret | None,
    lookup: Lookup,
    report: Report,
    on_lexical_ready: OnLexicalReady,
) -> IndexResult:
    """Everything but the publishing. *workspace* does not exist yet, and is the caller's to remove.

    Raises Unchanged, and the errors of ``pharos_sources.git_errors``, of the store and of the encoder.
    Cancelling it ends the work of its threads at their next step.
    """
    timer = _Timer()
    stop = threading.Event()
    try:
        with timer.of(Stage.FETCH):
            report(Stage.FETCH, 0, 0)
            checkout = await fetch(
                address,
                workspace,
                ref=job.source.branch,
                sha=job.source.sha,
                limits=limits.fetch,
                token=token,
                on_progress=lambda phase, done, total: report(Stage.FETCH, done, total, detail=phase),
            )
        branch = checkout.branch or job.source.branch
        name = job.dataset or address.dataset_name(branch or checkout.commit[:12])
        target = await lookup(name)
        if not job.force and is_current(target.live, checkout.commit, tools.encoder.version, limits.chunker):
            raise Unchanged(checkout.commit)
        with timer.of(Stage.DISCOVER):
            report(Stage.DISCOVER, 0, 0)
            found = await _in_thread(partial(discover, checkout.root, limits.discovery))
        with timer.of(Stage.PARSE):
            files, failures = await _in_thread(
                partial(stages.parse_stage, checkout.root, found, tools, limits, report)
            )
        with timer.of(Stage.LINK):
            report(Stage.LINK, 0, len(files))
            graph = await _in_thread(partial(stages.link_stage, checkout.root, found, files))
        with timer.of(Stage.TRAIN):
            training = await _in_thread(partial(stages.train_stage, graph, report, stop))

        origin = Origin(
            dataset=target.dataset,
            # Seconds, so that a number is never used again for other content after a dataset was deleted.
            generation=max(target.live.generation + 1, int(time.time())),
            scope=job.scope,
            repository=job.source.identity,
            encoder=tools.encoder.version,
        )
        with timer.of(Stage.STORE):
            chunks = await _in_thread(
                partial(
                    stages.store_stage,
                    files,
                    graph,
                    training.vectors,
                    target.live,
                    origin,
                    tools.store,
                    report,
                )
            )
        result = stages.result_of(
            name, origin, target.live, checkout, found, files, failures, graph, training, len(chunks)
        )
        if not target.live.full and chunks:
            await on_lexical_ready(msgspec.structs.replace(result, stage_seconds=dict(timer.seconds)))
        with timer.of(Stage.ENCODE):
            encoded, reused = await _in_thread(
                partial(stages.encode_stage, chunks, origin, job.tenant, tools, limits, report, stop)
            )
        await _in_thread(tools.store.flush)
        return msgspec.structs.replace(
            result, chunks_encoded=encoded, chunks_reused=reused, stage_seconds=dict(timer.seconds)
        )
    finally:
        stop.set()


def is_current(live: Live, commit: str, encoder: str, chunker: str) -> bool:
    """Whether indexing *commit* again would make what is there already."""
    return live.full and (live.commit, live.encoder, live.chunker) == (commit, encoder, chunker)


class _Timer:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, stage: Stage) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.perf_counter() - began + self.seconds.get(stage, 0.0), 3)


async def _in_thread(work: Callable[[], T]) -> T:
    # Abandoned on cancel: the thread sees the stop flag at its next step, and nobody waits for it.
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
