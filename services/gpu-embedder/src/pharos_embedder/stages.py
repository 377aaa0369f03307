"""The stages as the pipeline calls them: values in, values out, with reports of how far each one is.

All of them block and run in a thread, and call the check that they are given at each of their steps. What a
stage does is in the module of its name; here is what joins them: which points are new, which are retired,
which vectors are known by their content.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
import structlog

from pharos_contracts.jobs.v1 import IndexResult, Notice, Scope, Stage
from pharos_embedder.bounded_cache import BoundedCache, label_of
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.discovery import Discovery, DiscoveryLimits, SourceFile, read_configs, unread
from pharos_embedder.encoders import TextEncoder
from pharos_embedder.linking import FileGraph, link_files
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.parse_cache import ParseCache, code_version, parsing_version
from pharos_embedder.parse_pool import Outcome, ParsePool
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check, Report
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.spool import Spool
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.trained_graphs import TrainedGraphs
from pharos_embedder.training import Training, train, training_digest
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import DatasetKey, VectorStore
from pharos_sources.git import Checkout, FetchLimits
from pharos_sources.kept_checkouts import KeptCheckouts

log = structlog.get_logger()

PARSE_WINDOW: Final = 256  # files that are looked up at once
PARSE_WINDOW_BYTES: Final = 16 << 20  # of their source; what is known of it takes twice or thrice as much
PARSED_BYTES_MAX: Final = 16 << 20  # of parsed files that are written to the cache at once: a sync each
NOTICES_MAX: Final = 20
EXAMPLES_MAX: Final = 5
OVER_CHUNKS: Final = "over the chunk limit"

_INDEXING: Final = (
    "discovery.py",
    "file_rules.py",
    "git_patterns.py",
    "linking.py",
    "manifests/*.py",
    "points.py",
    "repository_configs.py",
    "resolution/*.py",
    "stored_graph.py",
    "training.py",
    "walk_graph.py",
)
"""The code that decides what an index holds, beside that which parses: see ``Limits.chunker``."""


STAGE_SECONDS: Final[Mapping[Stage, float]] = {
    Stage.FETCH: 900,
    Stage.DISCOVER: 600,
    Stage.PARSE: 1800,
    Stage.LINK: 600,
    Stage.TRAIN: 900,
    Stage.STORE: 1200,
    Stage.ENCODE: 6 * 3600,
    Stage.PUBLISH: 300,
}
"""What each stage may take in all, far above what it takes: longer is a stage that does not end. What is
stored while files are parsed counts for storing as soon as parsing waits for it. The whole job has a limit of
its own.
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one job may take."""

    fetch: FetchLimits
    discovery: DiscoveryLimits
    parsing: ParseOptions
    batch_tokens: int | None
    chunks_max: int = 2_000_000
    job_seconds: float = 3600
    stage_seconds: Mapping[Stage, float] = msgspec.field(default_factory=lambda: STAGE_SECONDS)

    @property
    def chunker(self) -> str:
        """What decides, beside commit and encoder, what an index holds: another one makes another."""
        made_by = (parsing_version(), code_version(*_INDEXING))
        facts = (*made_by, self.discovery, self.parsing, self.chunks_max)
        digest = hashlib.blake2b(msgspec.json.encode(facts), digest_size=8).hexdigest()
        return f"{CHUNKER_VERSION}:{self.parsing.size_chars}:{self.parsing.overlap_chars}:{digest}"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has at hand for every job."""

    store: VectorStore
    encoder: TextEncoder
    cache: VectorCache
    parse_cache: ParseCache
    parse_pool: ParsePool
    checkouts: KeptCheckouts


class ParsingTools(Protocol):
    """What parsing needs of the tools of whoever works."""

    @property
    def parse_cache(self) -> ParseCache: ...

    @property
    def parse_pool(self) -> ParsePool: ...


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What readers of the dataset see now; generation 0 is nothing. ``full`` says that vectors are in.

    ``deleted`` is the number that a deletion left behind, 0 for none: see ``DeletedDataset``.
    """

    generation: int = 0
    deleted: int = 0
    full: bool = False
    files: int = 0
    repository: str = ""
    scope: Scope = Scope.PROJECT
    commit: str = ""
    encoder: str = ""
    chunker: str = ""

    @property
    def follows(self) -> int:
        """What the next generation has to be above, and has to be published on."""
        return self.generation or self.deleted


class StageTimedOut(Exception):
    """A stage took longer than it may; None: the whole job did."""

    def __init__(self, stage: Stage | None, seconds: float) -> None:
        what = "It" if stage is None else f"Its stage {stage.value!r}"
        super().__init__(f"{what} took longer than the {seconds:g} seconds that it may take")
        self.stage = stage


class IndexIncomplete(Exception):
    """What was stored is not what is to be published, since somebody else wrote to the same dataset."""

    def __init__(self, dataset: str) -> None:
        super().__init__(f"The new index of {dataset} was disturbed by another job on the same dataset")


class ParseAccount(msgspec.Struct):
    """How many files were read, and what is told of them beside what they hold."""

    files: int = 0
    reused: int = 0  # of them, those that were known by their content
    left_out: tuple[str, ...] = ()  # their paths, where their chunks were more than may be indexed
    notices: list[Notice] = msgspec.field(default_factory=list)
    notices_total: int = 0

    def take(self, outcome: Outcome) -> None:
        self.files += 1
        told = outcome.warning if isinstance(outcome, PackedFile) else outcome.reason
        if told is not None:
            self.warn(told, outcome.path)

    def warn(self, sentence: str, path: str) -> None:
        self.notices_total += 1
        if len(self.notices) < NOTICES_MAX:
            self.notices.append(Notice(message=sentence, path=path))


def nobody(file: PackedFile) -> None:
    """Who else takes parsed files, where nobody does."""


def parse_stage(
    root: Path,
    found: Discovery,
    spool: Spool,
    tools: ParsingTools,
    limits: Limits,
    tenant: str,
    job: str,
    report: Report,
    check: Check,
    take_also: Callable[[PackedFile], None] = nobody,
) -> ParseAccount:
    """Everything that was *found* into *spool*, what is in the cache of *tenant* without parsing it, and to
    *take_also*.

    However it ends, the files that were parsed are in the cache for *job*, as many as one job may keep.
    """
    total = len(found.files)
    report(Stage.PARSE, 0, total)
    account = ParseAccount()

    def take(outcome: Outcome) -> None:
        if isinstance(outcome, PackedFile):
            spool.add(outcome)
            take_also(outcome)
        account.take(outcome)
        report(Stage.PARSE, account.files, total, current_file=outcome.path)

    def key(file: SourceFile | PackedFile) -> bytes:
        return tools.parse_cache.key_of(
            tenant=tenant, path=file.path, language=file.language, content_hash=file.content_hash
        )

    unknown: list[SourceFile] = []
    for window in _windows(found.files):
        check()
        keys = [key(file) for file in window]
        known = tools.parse_cache.get_many(keys)
        for file, its_key in zip(window, keys, strict=True):
            if its_key in known:
                take(known[its_key])
            else:
                unknown.append(file)
    account.reused = account.files
    made: dict[bytes, PackedFile] = {}
    size = written = 0
    try:
        for outcome in tools.parse_pool.parse_files(root, unknown, limits.parsing, check=check):
            take(outcome)
            is_kept = written < tools.parse_cache.job_bytes_max
            if is_kept and isinstance(outcome, PackedFile) and outcome.is_settled:
                made[key(outcome)] = outcome
                size += outcome.bytes_total
            if size > PARSED_BYTES_MAX:
                written += tools.parse_cache.put_many(made, job=label_of(job, tenant))
                made, size = {}, 0
    finally:
        tools.parse_cache.put_many(made, job=label_of(job, tenant))
    account.left_out = spool.finish(limits.chunks_max)
    return account


def _windows(files: Sequence[SourceFile]) -> Iterator[Sequence[SourceFile]]:
    """*files* by PARSE_WINDOW, or by fewer where they are large."""
    start = size = 0
    for number, file in enumerate(files):
        if number > start and (number - start == PARSE_WINDOW or size + file.size > PARSE_WINDOW_BYTES):
            yield files[start:number]
            start, size = number, 0
        size += file.size
    if start < len(files):
        yield files[start:]


def link_stage(root: Path, found: Discovery, spool: Spool, account: ParseAccount, check: Check) -> FileGraph:
    """The graph of what is in *spool*; manifests that were left out are told to *account*."""
    configs = read_configs(root, found)
    for path, sentence in unread(found, configs).items():
        account.warn(sentence, path)
    return link_files(spool, RepositoryConfigs.read(configs, check), check)


def train_stage(
    graph: FileGraph, dataset: DatasetKey, job: str, cache: BoundedCache, report: Report, check: Check
) -> Training:
    """The structural vectors of *graph*: those of the dataset's last graph, if it was the same."""
    report(Stage.TRAIN, 0, 0)
    edges = (
        graph.sources.astype(np.int64),
        graph.targets.astype(np.int64),
        graph.weights.astype(np.float32),
    )
    directories = [path.rpartition("/")[0] for path in graph.paths]
    graphs = TrainedGraphs(cache)
    digest = training_digest(edges, len(graph.paths), directories=directories)
    known = graphs.get(dataset, digest)
    if known is not None:
        return known
    trained = train(
        edges,
        len(graph.paths),
        directories=directories,
        on_epoch=lambda epoch, epochs, loss: report(Stage.TRAIN, epoch, epochs, detail=f"loss {loss:.4f}"),
        check=check,
    )
    log.info(
        "graph_trained",
        files=len(graph.paths),
        edges=len(graph.sources),
        seconds=round(trained.seconds, 2),
        losses=[round(loss, 4) for loss in trained.losses],
        note=trained.note,
    )
    graphs.put(dataset, digest, trained, job=label_of(job, dataset.tenant))
    return trained


def seal_stage(chunks: int, files: int, origin: Origin, store: VectorStore, check: Check) -> None:
    """Make what was stored survive a power loss, and look whether it is whole before anybody is shown it.

    Raises IndexIncomplete. Nothing but one job at a time keeps two from writing to one dataset, and a name
    that one job gives to a dataset may be the one that another job finds out for itself.
    """
    store = store.guarded(check)
    store.flush()
    generation = origin.generation
    stored = tuple(store.count(origin.dataset, generation, kind) for kind in ("chunk", "file"))
    unfinished = store.iterate_ids(origin.dataset, generation, "chunk", without_text=True)
    if stored != (chunks, files) or next(unfinished, None) is not None:
        raise IndexIncomplete(origin.dataset.dataset)


def result_of(
    name: str,
    origin: Origin,
    live: Live,
    checkout: Checkout,
    found: Discovery,
    spool: Spool,
    account: ParseAccount,
    chunks: int,
) -> IndexResult:
    """What an index has, but for its structure: see `with_structure`."""
    left_out = dict(found.left_out)
    for reason, number in (("symlink", checkout.symlinks), ("submodule", checkout.submodules)):
        if number:
            left_out[reason] = max(number, left_out.get(reason, 0))
    examples = dict(found.examples)
    if checkout.symlinks:
        examples["symlink"] = checkout.symlink_examples
    if account.left_out:
        left_out[OVER_CHUNKS] = len(account.left_out)
        examples[OVER_CHUNKS] = account.left_out[:EXAMPLES_MAX]
    files = len(spool.paths)
    return IndexResult(
        dataset=name,
        generation=origin.generation,
        built_on=live.follows,
        commit=checkout.commit,
        branch=checkout.branch,
        files_processed=files,
        embeddings_generated=0,
        chunks=chunks,
        left_out=left_out,
        left_out_examples=examples,
        languages=dict(Counter(spool.languages).most_common()),
        warnings=tuple(account.notices),
        warnings_total=account.notices_total,
        summary=summary(files, chunks, left_out, account.notices_total),
    )


def with_structure(
    result: IndexResult, graph: FileGraph, training: Training, told: Sequence[Notice]
) -> IndexResult:
    """*result* with what linking and training say, and what is *told* of storing it."""
    notices = (*([Notice(message=training.note)] if training.note else []), *told)
    notices_total = len(notices) + result.warnings_total
    return msgspec.structs.replace(
        result,
        embeddings_generated=len(training.vectors),
        edges=len(graph.sources),
        losses=tuple(round(loss, 5) for loss in training.losses),
        warnings=(*notices, *result.warnings)[:NOTICES_MAX],
        warnings_total=notices_total,
        summary=summary(result.files_processed, result.chunks, dict(result.left_out), notices_total),
    )


def summary(files: int, chunks: int, left_out: dict[str, int], warnings: int) -> str:
    """What happened, in a sentence or two."""
    omitted = ", ".join(f"{number} {reason}" for reason, number in sorted(left_out.items()))
    if not files:
        return "There is nothing to index in this repository" + (
            f": everything was left out ({omitted})." if omitted else ": it has no files."
        )
    text = f"{files} {'file' if files == 1 else 'files'} in {chunks} {'chunk' if chunks == 1 else 'chunks'}"
    if omitted:
        text += f"; left out: {omitted}"
    if warnings:
        text += f"; {warnings} {'warning' if warnings == 1 else 'warnings'}"
    return text + "."
