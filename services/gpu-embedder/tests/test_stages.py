"""What joins the stages: what is encoded and what is known, and whether what was stored is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from pharos_contracts.jobs.v1 import Job, JobKind, RepositorySource
from pharos_contracts.lifecycle import JobState
from pharos_embedder import discovery, stages, stored_graph
from pharos_embedder.bm25 import document_vector
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN, label_of
from pharos_embedder.costs import JobTooCostly, Tariff
from pharos_embedder.discovery import Discovery, DiscoveryLimits, discover
from pharos_embedder.encodables import EncodablesInMemory
from pharos_embedder.encoding import EncoderService
from pharos_embedder.linking import FileEdge, FileGraph, LinkStats
from pharos_embedder.model import Pending
from pharos_embedder.packed_files import pack
from pharos_embedder.path_vectors import placed
from pharos_embedder.pipeline import BATCH_TOKENS_MIN, OUT_OF_MEMORY, batch_tokens
from pharos_embedder.points import Origin, chunk_points, key_of
from pharos_embedder.ports import Check, Stopped, unchecked
from pharos_embedder.qdrant_store import local_mode_store
from pharos_embedder.spool import Spool
from pharos_embedder.stages import (
    IndexIncomplete,
    Limits,
    Live,
    ParseAccount,
    Tools,
    link_stage,
    result_of,
    seal_stage,
)
from pharos_embedder.storing import store_stage
from pharos_embedder.syntax import Chunk, ParsedFile, ParseOptions
from pharos_embedder.text_vectors import encode_stage
from pharos_embedder.vector_cache import VectorCache, vector_name
from pharos_embedder.vectors import DatasetKey, Searched, Selection, StoreFull, VectorStore
from pharos_sources.git import Checkout, FetchLimits
from tests.support.chunk_ids import chunk_id
from tests.support.stack import eventually

DIMENSIONS = 4
ORIGIN = Origin(
    dataset=DatasetKey("acme", "default", "d"),
    generation=5,
    scope="project",
    repository="h/o/r",
    encoder="fake@1",
    job="job-1",
    attempt=1,
)


class FakeEncoder:
    """One token a character; remembers its batches; runs out of memory beyond *memory* padded tokens."""

    version = "fake@1"
    dimensions = DIMENSIONS
    max_tokens = 100
    token_budget = 40
    window_texts = 512
    query_prompt = ""
    document_prompt = ""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.memory = 10_000

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(character) for character in text[: self.max_tokens]] for text in texts]

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        if max(len(ids) for ids in batch) * len(batch) > self.memory:
            raise MemoryError
        self.batches.append([len(ids) for ids in batch])
        made = np.array([[sum(ids), len(ids), 1, 1] for ids in batch], dtype=np.float32)
        unit: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
        return lambda: unit


def chunk(text: str, path: str) -> Chunk:
    return Chunk(
        path=path,
        ordinal=0,
        start_line=1,
        end_line=2,
        text=text,
        context="",
        content_hash=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        language="python",
    )


@pytest.fixture
def store() -> Iterator[VectorStore]:
    found = local_mode_store(None, dimensions=DIMENSIONS)
    found.open()
    yield found
    found.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    with VectorCache(tmp_path / "vectors", limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail) as found:
        yield found


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


def stored(store: VectorStore, texts: Sequence[str], folder: str = "") -> dict[str, Chunk]:
    """*texts* as chunks of a file each in the store, without their vectors; by id."""
    chunks = [chunk(text, f"{folder}{number}.py") for number, text in enumerate(texts)]
    found = {chunk_id(each, ORIGIN): each for each in chunks}
    words = document_vector({1: 1})
    store.upsert(chunk_points(((key, each, words) for key, each in found.items()), ORIGIN))
    return found


@contextmanager
def spooled(path: Path, texts: Mapping[str, Sequence[str]]) -> Iterator[Spool]:
    """Files of chunks of those *texts*, by their paths."""
    with Spool(path) as spool:
        for name, own in texts.items():
            chunks = tuple(
                replace(chunk(text, name), ordinal=number, start_line=2 * number + 1, end_line=2 * number + 2)
                for number, text in enumerate(own)
            )
            spool.add(
                pack(
                    ParsedFile(
                        path=name,
                        language="python",
                        size=1,
                        line_count=2 * len(own),
                        content_hash=name,
                        chunks=chunks,
                    )
                )
            )
        spool.finish(10_000)
        yield spool


def encode(
    chunks: dict[str, Chunk],
    store: VectorStore,
    cache: VectorCache,
    encoder: FakeEncoder,
    *,
    budget: int = 40,
    check: Callable[[], None] = unchecked,
    by_path: bool = False,
) -> tuple[int, int]:
    nothing: Any = None
    tools = Tools(
        store=store,
        encoder=EncoderService(encoder),
        cache=cache,
        parse_cache=nothing,
        parse_pool=nothing,
        checkouts=nothing,
    )

    def silent(*_: Any, **__: Any) -> None:
        """Nobody asked."""

    return encode_stage(
        EncodablesInMemory(chunks), ORIGIN, tools, budget, silent, unchecked, check, by_path=by_path
    )


def test_what_is_the_same_in_two_places_is_encoded_once(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder
) -> None:
    chunks = stored(store, ["same", "same", "other"])
    assert encode(chunks, store, cache, encoder) == (2, 1)
    assert store.ids_without_text(ORIGIN.dataset, 5) == set()
    again = stored(store, ["same", "same", "other"])
    assert encode(again, store, cache, encoder) == (0, 3)


def test_what_is_on_both_sides_of_a_border_between_windows_is_encoded_once(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder
) -> None:
    encoder.window_texts = 1
    assert encode(stored(store, ["same", "same", "same", "other"]), store, cache, encoder) == (2, 2)
    assert sorted(encoder.batches) == [[4], [5]]
    assert store.ids_without_text(ORIGIN.dataset, 5) == set()


def test_the_encoder_waits_for_neither_what_comes_next_nor_what_was_encoded_before(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.window_texts = 1
    chunks = stored(store, ["first", "next", "end"])
    first = next(key for key, each in chunks.items() if each.text == "first")
    looked_up: list[bytes] = []
    get_many, launch = cache.get_many, encoder.launch

    def get_and_tell(keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        looked_up.extend(keys)
        return get_many(keys)

    def launch_after(batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        if len(batch[0]) == len("next"):  # it ends when the window before is written and the one after known
            eventually(lambda: len(looked_up) == 3)
            eventually(lambda: first not in store.ids_without_text(ORIGIN.dataset, 5))
        return launch(batch, midway)

    monkeypatch.setattr(cache, "get_many", get_and_tell)
    monkeypatch.setattr(encoder, "launch", launch_after)
    assert encode(chunks, store, cache, encoder) == (3, 0)
    assert store.ids_without_text(ORIGIN.dataset, 5) == set()


def test_vectors_that_could_not_be_stored_are_known_to_the_next_attempt(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.window_texts = 1
    chunks = stored(store, ["first", "next", "end"])

    def refuse(*_: object) -> None:
        raise StoreFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "add_text_vectors", refuse)
        with pytest.raises(StoreFull):
            encode(chunks, store, cache, encoder)
    assert len(encoder.batches) == cache.count() >= 1
    encode(chunks, store, cache, encoder)
    assert len(encoder.batches) == 3
    assert store.ids_without_text(ORIGIN.dataset, 5) == set()


def test_a_file_that_is_moved_keeps_its_vectors_and_lies_elsewhere(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder
) -> None:
    assert encode(stored(store, ["one", "two"]), store, cache, encoder, by_path=True) == (2, 0)
    assert sum(map(len, encoder.batches)) == 4, "two chunks and two paths"
    found = stored(store, ["one", "two"], "elsewhere/")
    assert encode(found, store, cache, encoder, by_path=True) == (0, len(found))
    assert sum(map(len, encoder.batches)) == 6, "two more paths"
    assert store.ids_without_text(ORIGIN.dataset, 5) == set()
    contents, paths = (
        encoder.launch(encoder.tokenize(texts))() for texts in (["one"] * 2, ["0.py", "elsewhere/0.py"])
    )
    here = Selection(datasets=(Searched(dataset=ORIGIN.dataset, generation=5, has_dense=True),))
    for path, vector in zip(("0.py", "elsewhere/0.py"), placed(contents, paths), strict=True):
        hits = {hit.payload.path: hit.score for hit in store.dense(vector, here, 10)}
        assert hits[path] == pytest.approx(1, abs=1e-3) and len(hits) == 4


def test_a_memory_that_did_not_suffice_once_is_not_filled_again_in_the_same_run(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.window_texts = 4
    encoder.memory = 10
    chunks = stored(store, [f"{number:05}" for number in range(12)])
    failures = 0
    launch = encoder.launch

    def counting(batch: Sequence[Sequence[int]], midway: Check) -> Pending:
        nonlocal failures
        failures += max(len(ids) for ids in batch) * len(batch) > encoder.memory
        return launch(batch, midway)

    monkeypatch.setattr(encoder, "launch", counting)
    assert encode(chunks, store, cache, encoder, budget=20) == (12, 0)
    assert failures == 1
    assert encoder.batches == [[5, 5]] * 6


def test_what_a_run_costs_is_told_before_it_and_of_what_is_not_known_yet(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder
) -> None:
    told: list[str | None] = []

    def report(*_: Any, detail: str | None = None, **__: Any) -> None:
        told.append(detail if encoder.batches else f"first: {detail}")

    def run(texts: Sequence[str], tariff: Tariff | None, *, by_path: bool = False) -> tuple[int, int]:
        service: Any = EncoderService(encoder)
        service.tariff = tariff
        nothing: Any = None
        tools = Tools(
            store=store,
            encoder=service,
            cache=cache,
            parse_cache=nothing,
            parse_pool=nothing,
            checkouts=nothing,
        )
        chunks = EncodablesInMemory(stored(store, texts))
        return encode_stage(chunks, ORIGIN, tools, 40, report, unchecked, unchecked, by_path=by_path)

    run(["same", "same", "known"], None)
    assert set(told) == {"first: None", None}
    told.clear()
    encoder.batches.clear()
    assert run(["same", "known", "brand new", "brand new"], Tariff(price_per_million=2)) == (1, 3)
    sentence = "1 of 4 chunks to encode: about 3 tokens, about 0.0000 at 2 a million"
    assert (told[0], set(told[1:])) == (f"first: {sentence}", {sentence})
    encoder.batches.clear()
    with pytest.raises(JobTooCostly):
        run(["something else"], Tariff(job_tokens_max=4))
    assert encoder.batches == []
    assert run(["same", "brand new"], Tariff(job_tokens_max=4)) == (0, 2)
    told.clear()
    run(["known", "same", "same"], Tariff(), by_path=True)
    # 0.py and 2.py, of two tokens each; what is in 1.py has its vector.
    assert told[0] == "first: 0 of 3 chunks to encode: about 4 tokens"


@pytest.mark.parametrize("by_path", [True, False])
def test_what_another_machine_has_encoded_costs_nothing_here(
    by_path: bool, store: VectorStore, encoder: FakeEncoder, tmp_path: Path
) -> None:
    """The store of all has its vectors: a run that is free is not refused for what it would cost."""

    def run(home: str, dataset: str, tariff: Tariff) -> tuple[int, int]:
        service: Any = EncoderService(encoder)
        service.tariff = tariff
        nothing: Any = None
        origin = replace(ORIGIN, dataset=DatasetKey("acme", "default", dataset))
        found = {
            f"{uuid4()}": chunk(text, f"{number}.py") for number, text in enumerate(["one", "two", "two"])
        }
        points = chunk_points(((key, each, document_vector({1: 1})) for key, each in found.items()), origin)
        if not by_path:  # as those of documents, which are stored as they were encoded
            points = (
                replace(
                    point,
                    payload=replace(
                        point.payload, vector=vector_name(key_of(point.payload.content_hash, origin))
                    ),
                )
                for point in points
            )
        store.upsert(points)
        with VectorCache(tmp_path / home, limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail) as cache:
            tools = Tools(
                store=store, encoder=service, cache=cache, parse_cache=nothing, parse_pool=nothing,
                checkouts=nothing,
            )  # fmt: skip
            return encode_stage(
                EncodablesInMemory(found), origin, tools, 40, lambda *_, **__: None, unchecked, unchecked,
                by_path=by_path,
            )  # fmt: skip

    assert run("here", "first", Tariff()) == (2, 1)
    assert run("there", "second", Tariff(job_tokens_max=1)) == (0, 3)


def test_a_stop_keeps_what_was_encoded_and_writes_nothing_more(
    store: VectorStore, cache: VectorCache, encoder: FakeEncoder
) -> None:
    chunks = stored(store, [f"{number:010}" for number in range(20)])

    def check() -> None:
        if len(encoder.batches) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        encode(chunks, store, cache, encoder, check=check)
    assert cache.count() == 8
    assert cache.jobs() == [label_of("job-1", "acme")]
    assert store.ids_without_text(ORIGIN.dataset, 5) == set(chunks)
    assert encode(chunks, store, cache, encoder) == (12, 8)


@pytest.mark.parametrize("kept", [True, False])
def test_the_graph_is_stored_with_the_generation_unless_it_is_too_large(
    kept: bool, store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(stored_graph, "GRAPH_BYTES_MAX", 10)
    paths = ("0.py", "1.py")
    graph = FileGraph.of(
        paths,
        [FileEdge(source=0, target=1, kind="imports", weight=0.5)],
        LinkStats(imports_resolved=1, imports_external=0, imports_missing=0),
    )
    structure = np.eye(2, 64, dtype=np.float32)

    def silent(*_: Any, **__: Any) -> None:
        """Nobody asked."""

    with spooled(tmp_path / "parsed", {path: [path] for path in paths}) as spool:
        chunks, notices = store_stage(spool, graph, structure, 0, ORIGIN, store, silent, unchecked)
    assert [each.message for each in notices] == (
        []
        if kept
        else [
            "The graph takes 0 MiB, and at most 0 are kept: this index has no graph, map or related files; "
            "searches are as ever"
        ]
    )
    ids = chunks.ids_of(np.arange(len(chunks)))
    assert store.live_ids(ORIGIN.dataset, ORIGIN.generation, "chunk") == set(ids)
    found = store.graph(ORIGIN.dataset, ORIGIN.generation)
    assert (found is not None) == kept
    if found is not None:
        assert (found.paths, found.edges_out_of(0)[0].weight) == (paths, 0.5)
        assert store.undo(ORIGIN.dataset, ORIGIN.job, 1, 0) > 0
        assert store.graph(ORIGIN.dataset, ORIGIN.generation) is None


def test_an_index_that_is_whole_may_be_published(store: VectorStore, cache: VectorCache) -> None:
    chunks = stored(store, ["a", "b"])
    encode(chunks, store, cache, FakeEncoder())
    seal_stage(2, 0, ORIGIN, store, unchecked)


@pytest.mark.parametrize("disturbance", ["removed", "retired", "added", "without a vector"])
def test_an_index_that_another_job_disturbed_is_not_published(
    disturbance: str, store: VectorStore, cache: VectorCache
) -> None:
    chunks = stored(store, ["a", "b"])
    if disturbance != "without a vector":
        encode(chunks, store, cache, FakeEncoder())
    match disturbance:
        case "removed":
            store.discard_unpublished(ORIGIN.dataset, 0)
        case "retired":
            store.retire(ORIGIN.dataset, list(chunks)[:1], 5)
        case "added":
            stored(store, ["a", "b", "c"])
    with pytest.raises(IndexIncomplete):
        seal_stage(2, 0, ORIGIN, store, unchecked)


def test_an_attempt_after_one_that_ran_out_of_memory_begins_with_smaller_batches() -> None:
    job = Job(
        job_id="j",
        number=1,
        tenant="acme",
        key="k",
        kind=JobKind.REPOSITORY,
        state=JobState.QUEUED,
        source=RepositorySource(identity="h/o/r", clone_url="https://h/o/r"),
        project="default",
        submitted_at=datetime(2026, 1, 15, tzinfo=UTC),
        submitted_by="u",
        ttl_seconds=60,
    )
    assert batch_tokens(job, 3, 4096) == 4096
    failed = replace(job, code=OUT_OF_MEMORY)
    assert [batch_tokens(failed, attempt, 4096) for attempt in (2, 3, 4)] == [2048, 1024, 512]
    assert batch_tokens(failed, 30, 4096) == BATCH_TOKENS_MIN


def test_whatever_decides_what_an_index_holds_makes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(
        fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None
    )
    others = [
        replace(limits, chunks_max=9),
        replace(limits, discovery=DiscoveryLimits(files_max=9)),
        replace(limits, parsing=ParseOptions(file_bytes_max=9)),
    ]
    assert len({each.chunker for each in (limits, *others)}) == 4
    assert limits.chunker == replace(limits, batch_tokens=9, job_seconds=9).chunker
    before = limits.chunker
    folder = Path(stages.__file__).parent
    for number, pattern in enumerate(stages._INDEXING):
        assert list(folder.glob(pattern)), "all of them are there"
        others_only = stages._INDEXING[:number] + stages._INDEXING[number + 1 :]
        with monkeypatch.context() as patched:
            patched.setattr(stages, "_INDEXING", others_only)
            assert limits.chunker != before


def test_what_is_over_the_limit_on_chunks_is_told_with_what_discovery_left_out(tmp_path: Path) -> None:
    found = Discovery(files=(), left_out={"binary": 1}, examples={"binary": ("a.png",)}, total_bytes=0)
    checkout = Checkout(
        root=tmp_path,
        commit="c",
        branch="main",
        default_branch="main",
        bytes=1,
        files=1,
        symlinks=2,
        submodules=0,
        symlink_examples=("l", "m"),
    )
    account = ParseAccount(left_out=tuple(f"{number}.py" for number in range(7)))
    with Spool(tmp_path / "parsed") as spool:
        spool.finish(0)
        result = result_of("d", ORIGIN, Live(), checkout, found, spool, account, 0)
    assert result.left_out == {"binary": 1, "over the chunk limit": 7, "symlink": 2}
    assert result.left_out_examples["symlink"] == ("l", "m")
    assert result.left_out_examples["over the chunk limit"] == ("0.py", "1.py", "2.py", "3.py", "4.py")
    assert "7 over the chunk limit" in result.summary


def test_manifests_and_packages_that_linking_passes_over_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_CONFIGS_MAX", 2)
    monkeypatch.setattr(discovery, "_MARKERS_MAX", 1)
    for number in range(3):
        folder = tmp_path / "tree" / f"p{number}"
        folder.mkdir(parents=True)
        (folder / "package.json").write_text("{}\n")
        (folder / "__init__.py").touch()
    found = discover(tmp_path / "tree")
    account = ParseAccount()
    with Spool(tmp_path / "parsed") as spool:
        spool.finish(0)
        link_stage(tmp_path / "tree", found, spool, account, unchecked)
    assert account.notices_total == 2
    assert [(notice.path, notice.message.partition(" ")[0]) for notice in account.notices] == [
        ("p2/package.json", "1"),
        ("p0/__init__.py", "2"),
    ]
