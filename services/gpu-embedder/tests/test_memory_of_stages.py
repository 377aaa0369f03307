"""What the stages hold in memory does not grow with the text of the repository."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pharos_embedder import linking, parse_cache, stages, storing, storing_ahead
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN
from pharos_embedder.discovery import Discovery, DiscoveryLimits, discover
from pharos_embedder.generations import GenerationStore
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.points import Origin
from pharos_embedder.ports import unchecked
from pharos_embedder.spool import Spool
from pharos_embedder.stages import Limits, ParseAccount, link_stage, parse_stage
from pharos_embedder.storing import store_stage
from pharos_embedder.storing_ahead import StoringAhead
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.vectors import DatasetKey, Point
from pharos_sources.git import FetchLimits

LIMITS = Limits(fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None)
FILES = 40
LINES = 120
GROWTH_MAX = 0.5
"""Bytes more for each byte of text more. As objects it was six."""


class Sink:
    """An engine that keeps nothing."""

    points = 0

    def put(self, points: Sequence[Point]) -> None:
        self.points += len(points)

    def ids(self, *_: Any, **__: Any) -> tuple[list[str], None]:
        return [], None

    def flush(self) -> None:
        """Nothing is kept."""


class Tools(NamedTuple):
    parse_cache: ParseCache
    parse_pool: ParsePool


def silent(*_: Any, **__: Any) -> None:
    """Nobody asked."""


def tree(root: Path, files: int) -> int:
    """Files that use each other's names; the bytes of their text."""
    size = 0
    for number in range(files):
        folder = root / f"package{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"from package{(number + 1) % 7}.module{number + 1} import function{number + 1}_0", ""]
        for line in range(LINES // 4):
            lines += [
                f"def function{number}_{line}(first_argument, second_argument):",
                *(f"    # What it does in {line}, told at some length: {part}." for part in range(6)),
                f"    return function{number + 1}_{line}(first_argument) + helper_of_everyone({line})",
                "",
            ]
        text = "\n".join(lines)
        size += len(text)
        (folder / f"module{number}.py").write_text(text)
    return size


def peak(action: Callable[[], Any]) -> tuple[Any, int]:
    """What *action* returns, and the bytes that it had allocated at its height beyond those before."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    made = action()
    return made, tracemalloc.get_traced_memory()[1] - before


def parse(
    root: Path, found: Discovery, spool: Spool, tools: Tools, origin: Origin, engine: Any
) -> ParseAccount:
    """Parse as for a first index, where chunks are stored meanwhile."""
    with StoringAhead(origin, GenerationStore(engine, dimensions=4), unchecked, chunks_max=10_000) as storing:
        return parse_stage(
            root, found, spool, tools, LIMITS, "acme", "j", silent, unchecked, take_also=storing.add
        )


def peaks(root: Path, found: Discovery, work: Path, pool: ParsePool) -> dict[str, int]:
    origin = Origin(
        dataset=DatasetKey("acme", "default", "d"),
        generation=1,
        scope="project",
        repository="h/o/r",
        encoder="fake@1",
    )
    sink = Sink()
    engine: Any = sink
    taken: dict[str, int] = {}
    with (
        ParseCache(
            work / "cache", limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail, options=ParseOptions()
        ) as cache,
        Spool(work / "spool") as spool,
    ):
        tools = Tools(cache, pool)
        tracemalloc.start()
        try:
            account, taken["parse"] = peak(lambda: parse(root, found, spool, tools, origin, engine))
            graph, taken["link"] = peak(lambda: link_stage(root, found, spool, account, unchecked))
            structure = np.ones((len(spool.paths), 64), dtype=np.float32)
            (chunks, _), taken["store"] = peak(
                lambda: store_stage(
                    spool,
                    graph,
                    structure,
                    0,
                    origin,
                    GenerationStore(engine, dimensions=4),
                    silent,
                    unchecked,
                )
            )
        finally:
            tracemalloc.stop()
        assert sink.points > len(chunks) > 4 * len(spool.paths)
        assert len(graph.sources) > len(spool.paths)
    return taken


def test_four_times_the_text_takes_hardly_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows that are small beside this small repository, as the usual ones are beside a large one.
    monkeypatch.setattr(storing, "STORE_WINDOW", 32)
    monkeypatch.setattr(storing_ahead, "WINDOW_CHUNKS", 32)
    monkeypatch.setattr(storing, "_COUNTED_MAX", 4_000)
    monkeypatch.setattr(linking, "_GATHERED_FILES", 16)
    monkeypatch.setattr(linking, "_PAIRS_MAX", 1_000)
    monkeypatch.setattr(stages, "PARSED_BYTES_MAX", 64 << 10)
    parse_cache.parsing_version()
    measured = []
    with ParsePool(1) as pool:
        for times in (1, 4):
            root, work = tmp_path / f"tree{times}", tmp_path / f"work{times}"
            work.mkdir()
            size = tree(root, times * FILES)
            found = discover(root)
            assert len(found.files) == times * FILES
            if times == 1:  # what is made once only is made
                (tmp_path / "warm").mkdir()
                peaks(root, found, tmp_path / "warm", pool)
            measured.append((size, peaks(root, found, work, pool)))
    (small, of_small), (large, of_large) = measured
    growth = {stage: (of_large[stage] - of_small[stage]) / (large - small) for stage in of_small}
    assert max(growth.values()) < GROWTH_MAX, (growth, of_small, of_large, small, large)
