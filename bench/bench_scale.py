"""A very large repository: how fast it is read and linked, and in how much memory.

The Linux source (of Debian's package ``linux-source-6.1``) goes through discover → parse → chunk → link as in
a job, with the limits of a job, in a process of its own: the peak is the resident memory of it and its parse
workers together, polled. The parse workers count the words of the chunks as well, as in a job.

Then 10,000 of its files go through the whole stack, until words can be searched and to the end. So that the
encoder, which is measured elsewhere, does not take hours, it reads the first 16 tokens of each chunk only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil

from bench.bench_index import indexed, seconds_between
from bench.corpora import folder
from bench.machine import machine
from pharos_embedder.model import model_folder
from tests.support.git_server import GitServer
from tests.support.stack import Stack

PACKAGE: Final = "linux-source-6.1"
ARCHIVE: Final = Path(f"/usr/src/{PACKAGE}.tar.xz")
RESULT: Final = Path(__file__).parent / "results" / "scale.json"
POLL_SECONDS: Final = 0.05
PARSE_WORKERS: Final = 2

FILES: Final = 10_000
FILE_BYTES_MAX: Final = 6_000
TOKENS: Final = 16

LINUX_MB_MAX: Final = 2_048
LINUX_SECONDS: Final = 120
LEXICAL_SECONDS_MAX: Final = 60
LEXICAL_MB_MAX: Final = 4_096


class Memory:
    """The most that a process and its children have had resident together, in MB."""

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._ended = threading.Event()
        self.peak_mb = 0.0

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            total = 0
            try:
                for each in (self._process, *self._process.children(recursive=True)):
                    try:
                        total += each.memory_info().rss
                    except psutil.NoSuchProcess:
                        continue
            except psutil.NoSuchProcess:
                return
            self.peak_mb = max(self.peak_mb, total / 1e6)


def linux() -> Path:
    """The tree, unpacked once. Ends the program with what to do where the package is missing."""
    root = folder() / PACKAGE
    if not root.is_dir():
        if not ARCHIVE.exists():
            raise SystemExit(f"{ARCHIVE} is missing. Install it: apt-get install {PACKAGE}")
        partial = folder() / f"{PACKAGE}.partial"
        partial.mkdir(exist_ok=True)
        subprocess.run(["tar", "-xJf", str(ARCHIVE), "-C", str(partial), "--strip-components=1"], check=True)
        partial.rename(root)
    return root


def measure(root: Path) -> dict[str, Any]:
    """Discover, parse and link *root* here, as a job does."""
    from pharos_embedder.discovery import DiscoveryLimits, discover
    from pharos_embedder.parse_cache import ParseCache
    from pharos_embedder.parse_pool import ParsePool
    from pharos_embedder.ports import unchecked
    from pharos_embedder.spool import Spool
    from pharos_embedder.stages import Limits, Tools, link_stage, parse_stage
    from pharos_embedder.syntax import ParseOptions
    from pharos_sources.git import FetchLimits

    def silent(*_: object, **__: object) -> None:
        """Nobody asked."""

    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[stage], began = round(now - began, 2), now

    limits = Limits(
        fetch=FetchLimits(),
        discovery=DiscoveryLimits(files_max=200_000, total_bytes_max=2 << 30),
        parsing=ParseOptions(),
        batch_tokens=None,
    )
    nothing: Any = None
    with (
        TemporaryDirectory(dir=folder()) as work,
        ParsePool(PARSE_WORKERS) as pool,
        ParseCache(
            Path(work) / "cache",
            limit_bytes=1 << 30,
            warn=lambda text: sys.stderr.write(f"{text}\n"),
            options=limits.parsing,
        ) as cache,
        Spool(Path(work) / "spool") as spool,
    ):
        found = discover(root, limits.discovery)
        lap("discover")
        tools = Tools(
            store=nothing,
            encoder=nothing,
            cache=nothing,
            parse_cache=cache,
            parse_pool=pool,
            checkouts=nothing,
        )
        account = parse_stage(root, found, spool, tools, limits, "t", "j", silent, unchecked)
        lap("parse")
        graph = link_stage(root, found, spool, unchecked)
        lap("link")
        return {
            "files": len(spool.paths),
            "bytes": found.total_bytes,
            "left_out": dict(found.left_out),
            "chunks": len(spool.heads),
            "edges": len(graph.sources),
            "imports": {
                "resolved": graph.stats.imports_resolved,
                "external": graph.stats.imports_external,
                "missing": graph.stats.imports_missing,
            },
            "warnings": account.notices_total,
            "spool_mb": round(spool.bytes / 1e6),
            "stage_seconds": seconds,
        }


def of_linux(root: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.bench_scale", "--measure", str(root)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
        Memory(child.pid).watched() as memory,
    ):
        output, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"the measurement failed ({child.returncode})")
    found: dict[str, Any] = json.loads(output)
    total = sum(found["stage_seconds"].values())
    return {
        **found,
        "seconds": round(total, 1),
        "files_per_second": round(found["files"] / total),
        "megabytes_per_second": round(found["bytes"] / 1e6 / total, 1),
        "peak_resident_mb": round(memory.peak_mb),
    }


def small_files(root: Path) -> dict[str, str]:
    """The first 10,000 files of C that are small."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.[ch]")):
        if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size <= FILE_BYTES_MAX:
            try:
                found[path.relative_to(root).as_posix()] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
        if len(found) == FILES:
            break
    return found


def short_sighted(into: Path) -> Path:
    """The packaged encoder, which reads TOKENS tokens of a text."""
    for path in model_folder("").rglob("*"):
        target = into / path.relative_to(model_folder(""))
        if path.is_dir():
            target.mkdir()
        else:
            target.symlink_to(path)
    config = into / "sentence_bert_config.json"
    config.unlink(missing_ok=True)
    config.write_text(json.dumps({"max_seq_length": TOKENS, "do_lower_case": False}))
    return into


def of_small_files(root: Path) -> dict[str, Any]:
    texts = small_files(root)
    with TemporaryDirectory() as model, GitServer() as git:
        git.add_repository("bench/warm", {f"warm{n}.py": f"def warm{n}():\n    pass\n" for n in range(20)})
        git.add_repository("bench/files", texts)
        encoder = str(short_sighted(Path(model)))
        with (
            Stack(allowed_hosts=git.allowed_hosts, PHAROS_ENCODER=encoder) as stack,
            stack.client() as client,
        ):
            indexed(client, git.url("bench/warm"))
            with Memory(stack.pid("embedder")).watched() as memory:
                told = indexed(client, git.url("bench/files"))
    result = told["result"]
    return {
        "files": result["files_processed"],
        "bytes": sum(len(text.encode()) for text in texts.values()),
        "chunks": result["chunks"],
        "tokens_of_a_chunk_at_most": TOKENS,
        "lexical_ready_seconds": round(seconds_between(told, "started_at", "lexical_ready_at"), 2),
        "seconds": round(seconds_between(told, "started_at", "ended_at"), 2),
        "stage_seconds": result["stage_seconds"],
        "embedder_peak_resident_mb": round(memory.peak_mb),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--measure", type=Path, help="a tree to be read and linked here")
    arguments.add_argument("--only", choices=("linux", "files"), help="one of the two, which is not stored")
    options = arguments.parse_args()
    if options.measure is not None:
        sys.stdout.write(json.dumps(measure(options.measure)))
        return
    root = linux()
    load = os.getloadavg()[0]
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "load_before": round(load, 2),
    }
    if options.only != "files":
        of = result["linux"] = of_linux(root)
        of["met"] = {
            f"at most {LINUX_MB_MAX} MB": of["peak_resident_mb"] <= LINUX_MB_MAX,
            f"at most {LINUX_SECONDS} s": of["seconds"] <= LINUX_SECONDS,
        }
    if options.only != "linux":
        of = result["files"] = of_small_files(root)
        of["met"] = {
            f"words within {LEXICAL_SECONDS_MAX} s": of["lexical_ready_seconds"] <= LEXICAL_SECONDS_MAX,
            f"at most {LEXICAL_MB_MAX} MB": of["embedder_peak_resident_mb"] <= LEXICAL_MB_MAX,
        }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    if options.only is None:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
