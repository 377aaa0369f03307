"""A repository in, a generation of its dataset's index out, ready to be published.

    fetch → discover → parse and chunk → link → train → store → encode

Each stage is a module of its own that takes values and returns values; ``stages`` joins them, and this one
only tells their order. The chunks of a first index are stored while others are parsed. Everything is written
beside the live index, and nobody sees it until it is published.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from pharos_contracts.jobs.v1 import IndexResult, Job, Stage
from pharos_embedder import stages
from pharos_embedder.discovery import discover
from pharos_embedder.encodables import SpooledChunks
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check, Held
from pharos_embedder.spool import Spool
from pharos_embedder.stage_clock import StageClock
from pharos_embedder.stages import Limits, Live, Tools
from pharos_embedder.storing import store_stage, store_structure, store_words
from pharos_embedder.storing_ahead import StoringAhead
from pharos_embedder.text_vectors import encode_stage
from pharos_embedder.threads import in_thread
from pharos_embedder.vectors import DatasetKey
from pharos_sources.git import fetch
from pharos_sources.repository_url import RepositoryAddress
from pharos_sources.secret import Secret

OUT_OF_MEMORY: Final = "out_of_memory"
BATCH_TOKENS_MIN: Final = 64
CHECKOUT: Final = "checkout"  # in the workspace
SPOOL: Final = "parsed"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the result goes."""

    dataset: DatasetKey
    live: Live


Lookup = Callable[[str], Awaitable[Target]]
"""The target of a dataset's name."""

OnLexicalReady = Callable[[IndexResult], Awaitable[None]]
"""Publishes the first index of a dataset by words, before its structure and its vectors are in."""


class Unchanged(Exception):
    """The dataset's live generation is of this very commit, made by this encoder and chunker, and is shown
    to those whom the job names.
    """

    def __init__(self, commit: str) -> None:
        super().__init__(f"Commit {commit[:12]} is indexed already; force=true indexes it again")


async def index(
    held: Held,
    address: RepositoryAddress,
    workspace: Path,
    *,
    tools: Tools,
    limits: Limits,
    token: Secret | None,
    lookup: Lookup,
    on_lexical_ready: OnLexicalReady,
) -> IndexResult:
    """Everything but the publishing. *workspace* does not exist yet, and is the caller's to remove. What was
    fetched is kept for the next job of the repository, where this one comes to its end.

    Raises Unchanged, StageTimedOut, Stopped, and the errors of ``pharos_sources.git_errors``, of the store
    and of the encoder. Cancelled, it returns when its threads and processes have ended.
    """
    job, report = held.job, held.report
    assert job.source is not None, "only repositories are indexed here"
    within = StageClock(limits.stage_seconds)
    current = _Current(job, address, tools.encoder.version, limits.chunker, lookup)
    if job.source.sha is not None and address.branch is None:
        await current.refuse(job.source.sha, None)  # it says itself which commit it is: nobody is asked
    with within(Stage.FETCH):
        report(Stage.FETCH, 0, 0)
        checkout = await fetch(
            address,
            workspace / CHECKOUT,
            ref=job.source.branch,
            sha=job.source.sha,
            limits=limits.fetch,
            token=token,
            on_progress=lambda phase, done, total: report(Stage.FETCH, done, total, detail=phase),
            on_located=current.refuse,
            earlier=tools.checkouts.path_of(job.tenant, job.source.identity),
        )
    # Again, since who pushed in between had another commit fetched than the one that was located.
    await current.refuse(checkout.commit, checkout.branch)
    name = current.name(checkout.commit, checkout.branch)
    target = await lookup(name)
    with within(Stage.DISCOVER):
        report(Stage.DISCOVER, 0, 0)
        found = await in_thread(
            lambda check: discover(checkout.root, limits.discovery, check=check), held.check
        )
    origin = Origin(
        dataset=target.dataset,
        # Seconds, so that a number is never used again for other content after an index was withdrawn.
        generation=max(target.live.follows + 1, int(time.time())),
        scope=job.scope,
        repository=job.source.identity,
        encoder=tools.encoder.version,
        job=job.job_id,
        attempt=held.attempt,
    )
    is_first = target.live.generation == 0
    with Spool(workspace / SPOOL) as spool:

        def ahead_of(check: Check) -> AbstractContextManager[StoringAhead | None]:
            if not is_first:
                return nullcontext()
            waiting = partial(within.elsewhere, Stage.STORE)
            return StoringAhead(origin, tools.store, check, chunks_max=limits.chunks_max, waiting=waiting)

        def parse(check: Check) -> stages.ParseAccount:
            with ahead_of(check) as ahead:
                return stages.parse_stage(
                    checkout.root,
                    found,
                    spool,
                    tools,
                    limits,
                    job.tenant,
                    job.job_id,
                    report,
                    check,
                    take_also=ahead.add if ahead is not None else stages.nobody,
                )

        def told(chunks: SpooledChunks) -> IndexResult:
            told = stages.result_of(name, origin, target.live, checkout, found, spool, account, len(chunks))
            return msgspec.structs.replace(told, stage_seconds=within.seconds)

        with within(Stage.PARSE):
            account = await in_thread(parse, held.check)
        # Where chunks did not fit, those that were stored already are too many: then all is stored anew.
        words_first = is_first and not account.left_out and spool.chunks > 0
        if words_first:
            with within(Stage.STORE):
                chunks = await in_thread(partial(store_words, spool, origin, tools.store), held.check)
            await on_lexical_ready(told(chunks))
        with within(Stage.LINK):
            report(Stage.LINK, 0, len(spool.paths))
            graph = await in_thread(
                partial(stages.link_stage, checkout.root, found, spool, account), held.check
            )
        with within(Stage.TRAIN):
            training = await in_thread(
                partial(stages.train_stage, graph, target.dataset, job.job_id, tools.parse_cache, report),
                held.check,
            )
        made = (spool, graph, training.vectors)
        with within(Stage.STORE):
            if words_first:
                report(Stage.STORE, 0, 0)
                notices = await in_thread(partial(store_structure, *made, origin, tools.store), held.check)
            else:
                live = target.live.generation
                chunks, notices = await in_thread(
                    partial(store_stage, *made, live, origin, tools.store, report), held.check
                )
        if not words_first and not target.live.full and chunks:
            await on_lexical_ready(told(chunks))
        with within(Stage.ENCODE):
            encoded, reused = await in_thread(
                partial(
                    encode_stage,
                    chunks,
                    origin,
                    tools,
                    batch_tokens(job, held.attempt, limits.batch_tokens or tools.encoder.token_budget),
                    report,
                    held.check_midway,
                    by_path=True,
                ),
                held.check,
            )
        with within(Stage.PUBLISH):
            await in_thread(
                partial(stages.seal_stage, len(chunks), len(spool.paths), origin, tools.store), held.check
            )
    keep = partial(tools.checkouts.keep, job.tenant, job.source.identity)
    await anyio.to_thread.run_sync(keep, workspace / CHECKOUT, checkout)
    result = stages.with_structure(told(chunks), graph, training, notices)
    return msgspec.structs.replace(result, chunks_encoded=encoded, chunks_reused=reused)


def batch_tokens(job: Job, attempt: int, usual: int) -> int:
    """Padded tokens of the first batch; each attempt begins with half, once one of them ran out of memory."""
    return max(BATCH_TOKENS_MIN, usual >> (attempt - 1)) if job.code == OUT_OF_MEMORY else usual


def is_current(live: Live, job: Job, commit: str, encoder: str, chunker: str) -> bool:
    """Whether indexing *commit* again for *job* would make what is there already."""
    assert job.source is not None
    there = (live.commit, live.encoder, live.chunker, live.scope, live.repository)
    return live.full and there == (commit, encoder, chunker, job.scope, job.source.identity)


class _Current:
    """Ends a job whose commit is indexed already, as soon as the commit is known."""

    def __init__(
        self, job: Job, address: RepositoryAddress, encoder: str, chunker: str, lookup: Lookup
    ) -> None:
        self._job = job
        self._address = address
        self._encoder = encoder
        self._chunker = chunker
        self._lookup = lookup

    def name(self, commit: str, branch: str | None) -> str:
        """The dataset that an index of *commit* belongs to; *branch* is the one that it was found on."""
        assert self._job.source is not None
        where = branch or self._job.source.branch or commit[:12]
        return self._job.dataset or self._address.dataset_name(where)

    async def refuse(self, commit: str, branch: str | None) -> None:
        """Raises Unchanged."""
        if self._job.force:
            return
        target = await self._lookup(self.name(commit, branch))
        if is_current(target.live, self._job, commit, self._encoder, self._chunker):
            raise Unchanged(commit)
