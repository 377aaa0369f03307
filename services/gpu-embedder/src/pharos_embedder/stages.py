"""The stages as the pipeline calls them: values in, values out, with reports of how far each one is.

All of them block and run in a thread. What a stage does is in the module of its name; here is what joins
them: which points are new, which are retired, which vectors are known by their content.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
import structlog

from pharos_contracts.jobs.v1 import IndexResult, Notice, Stage
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.discovery import Discovery, DiscoveryLimits, read_configs
from pharos_embedder.encoding import EncoderService
from pharos_embedder.linking import FileGraph, link
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.points import Origin, chunk_id, chunk_points, file_points, terms_of
from pharos_embedder.repository_configs import RepositoryConfigs
from pharos_embedder.syntax import Chunk, ParsedFile, ParseFailure, ParseOptions
from pharos_embedder.training import Training, train
from pharos_embedder.vector_cache import VectorCache, as_stored, vector_key
from pharos_embedder.vectors import Floats, VectorStore
from pharos_sources.git import Checkout, FetchLimits

log = structlog.get_logger()

ENCODE_WINDOW: Final = 512  # chunks between two checkpoints: what a crash costs at most
NOTICES_MAX: Final = 20


class Report(Protocol):
    """Tells how far a stage is; callable from any thread."""

    def __call__(
        self,
        stage: Stage,
        done: int,
        total: int,
        *,
        current_file: str | None = None,
        detail: str | None = None,
    ) -> None: ...


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one job may take."""

    fetch: FetchLimits
    discovery: DiscoveryLimits
    parsing: ParseOptions
    batch_tokens: int | None

    @property
    def chunker(self) -> str:
        """What decides how a file is cut: another one makes other chunks of the same commit."""
        return f"{CHUNKER_VERSION}:{self.parsing.size_chars}:{self.parsing.overlap_chars}"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has at hand for every job."""

    store: VectorStore
    encoder: EncoderService
    cache: VectorCache
    parse_pool: ParsePool


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What readers of the dataset see now; generation 0 is nothing. ``full`` says that vectors are in."""

    generation: int = 0
    full: bool = False
    commit: str = ""
    encoder: str = ""
    chunker: str = ""


def parse_stage(
    root: Path, found: Discovery, tools: Tools, limits: Limits, report: Report
) -> tuple[list[ParsedFile], list[ParseFailure]]:
    total = len(found.files)
    report(Stage.PARSE, 0, total)
    files: list[ParsedFile] = []
    failures: list[ParseFailure] = []
    outcomes = tools.parse_pool.parse_files(root, found.files, limits.parsing)
    for done, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, ParsedFile):
            files.append(outcome)
        else:
            failures.append(outcome)
        report(Stage.PARSE, done, total, current_file=outcome.path)
    return files, failures


def link_stage(root: Path, found: Discovery, files: Sequence[ParsedFile]) -> FileGraph:
    return link(files, RepositoryConfigs.read(read_configs(root, found.files)))


def train_stage(graph: FileGraph, report: Report, stop: threading.Event) -> Training:
    edges = (
        np.array([edge.source for edge in graph.edges], dtype=np.int64),
        np.array([edge.target for edge in graph.edges], dtype=np.int64),
        np.array([edge.weight for edge in graph.edges], dtype=np.float32),
    )
    trained = train(
        edges,
        len(graph.paths),
        directories=[path.rpartition("/")[0] for path in graph.paths],
        on_epoch=lambda epoch, epochs, loss: report(Stage.TRAIN, epoch, epochs, detail=f"loss {loss:.4f}"),
        should_stop=stop.is_set,
    )
    log.info(
        "graph_trained",
        files=len(graph.paths),
        edges=len(graph.edges),
        seconds=round(trained.seconds, 2),
        losses=[round(loss, 4) for loss in trained.losses],
        note=trained.note,
    )
    return trained


def store_stage(
    files: Sequence[ParsedFile],
    graph: FileGraph,
    structure: Floats,
    live: Live,
    origin: Origin,
    store: VectorStore,
    report: Report,
) -> dict[str, Chunk]:
    """Write everything but the dense vectors, beside the live generation; the chunks of the new one by id."""
    store.discard_unpublished(origin.dataset, live.generation)
    chunks = {chunk_id(chunk, origin): chunk for file in files for chunk in file.chunks}
    terms = {identifier: terms_of(chunk) for identifier, chunk in chunks.items()}
    lexicon = Lexicon.of(terms.values())
    alive = store.live_ids(origin.dataset, live.generation, "chunk") if live.generation else set()
    missing = [identifier for identifier in chunks if identifier not in alive]
    report(Stage.STORE, 0, len(missing))
    for start in range(0, len(missing), ENCODE_WINDOW):
        window = missing[start : start + ENCODE_WINDOW]
        store.upsert(chunk_points(((each, chunks[each], terms[each]) for each in window), lexicon, origin))
        report(Stage.STORE, start + len(window), len(missing))

    points = {point.id: point for point in file_points(files, graph, structure, origin)}
    alive_files = store.live_ids(origin.dataset, live.generation, "file") if live.generation else set()
    store.upsert(point for identifier, point in points.items() if identifier not in alive_files)
    store.retire(origin.dataset, (alive - chunks.keys()) | (alive_files - points.keys()), origin.generation)
    store.put_lexicon(origin.dataset, origin.generation, lexicon)
    store.flush()
    return chunks


def encode_stage(
    chunks: dict[str, Chunk],
    origin: Origin,
    tenant: str,
    tools: Tools,
    limits: Limits,
    report: Report,
    stop: threading.Event,
) -> tuple[int, int]:
    """Give every chunk its dense vector; how many were encoded, and how many were known by their content."""
    waiting = tools.store.ids_without_text(origin.dataset, origin.generation) & chunks.keys()
    # Long ones together: a batch is padded to its longest. Windows are of all chunks, known or not, so that a
    # run that goes on after a crash makes the same batches, and so the same bits, as one without.
    ordered = sorted(chunks, key=lambda each: (-len(chunks[each].encoded_text), each))
    total, done, encoded = len(chunks), len(chunks) - len(waiting), 0
    report(Stage.ENCODE, done, total)
    for start in range(0, len(ordered), ENCODE_WINDOW):
        window = [each for each in ordered[start : start + ENCODE_WINDOW] if each in waiting]
        if not window:
            continue
        keys = {
            each: vector_key(
                tenant=tenant,
                content=chunks[each].content_hash,
                chunker=CHUNKER_VERSION,
                encoder=origin.encoder,
            )
            for each in window
        }
        known = tools.cache.get_many(list(keys.values()))
        new = list(dict.fromkeys(each for each in window if keys[each] not in known))
        if new:
            base = done + len(window) - len(new)
            fresh = as_stored(
                tools.encoder.encode_documents(
                    [chunks[each].encoded_text for each in new],
                    token_budget=limits.batch_tokens,
                    on_progress=partial(_report_encoded, report, base, total, chunks[new[0]].path),
                    should_stop=stop.is_set,
                )
            )
            made = {keys[each]: vector for each, vector in zip(new, fresh, strict=True)}
            tools.cache.put_many(made)
            known = {**known, **made}
            encoded += len(new)
        tools.store.add_text_vectors(window, np.stack([known[keys[each]] for each in window]))
        done += len(window)
        report(Stage.ENCODE, done, total)
    return encoded, len(chunks) - encoded


def _report_encoded(report: Report, base: int, total: int, path: str, done: int, _window: int) -> None:
    report(Stage.ENCODE, base + done, total, current_file=path)


def result_of(
    name: str,
    origin: Origin,
    live: Live,
    checkout: Checkout,
    found: Discovery,
    files: Sequence[ParsedFile],
    failures: Sequence[ParseFailure],
    graph: FileGraph,
    training: Training,
    chunks: int,
) -> IndexResult:
    left_out = dict(found.left_out)
    for reason, number in (("symlink", checkout.symlinks), ("submodule", checkout.submodules)):
        if number:
            left_out[reason] = max(number, left_out.get(reason, 0))
    notices = [Notice(message=file.warning, path=file.path) for file in files if file.warning]
    notices += [Notice(message=failure.reason, path=failure.path) for failure in failures]
    if training.note:
        notices.append(Notice(message=training.note))
    return IndexResult(
        dataset=name,
        generation=origin.generation,
        built_on=live.generation,
        commit=checkout.commit,
        branch=checkout.branch,
        files_processed=len(files),
        embeddings_generated=len(training.vectors),
        chunks=chunks,
        edges=len(graph.edges),
        left_out=left_out,
        left_out_examples={reason: tuple(paths) for reason, paths in found.examples.items()},
        languages=dict(Counter(file.language for file in files).most_common()),
        losses=tuple(round(loss, 5) for loss in training.losses),
        warnings=tuple(notices[:NOTICES_MAX]),
        warnings_total=len(notices),
        summary=summary(len(files), chunks, left_out, len(notices)),
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
