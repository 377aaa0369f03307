"""A very large repository: how fast it is read and linked, and in how much memory.

The Linux source (of Debian's package ``linux-source-6.1``) goes through discover → parse → chunk → link as in
a job, with the limits of a job, in a process of its own: the peak is the resident memory of it and its parse
workers together, polled. The parse workers count the words of the chunks as well, as in a job. Beside it
stands what tree-sitter alone takes for the same bytes: on two cores that is most of what was aimed at.

Then 10,000 of its files go through the whole stack, until words can be searched and to the end. So that the
encoder, which is measured elsewhere, does not take hours, it reads the first 16 tokens of each chunk only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import psutil

from bench.bench_index import indexed, seconds_between, until_lexical_ready
from bench.corpora import folder
from bench.machine import Beside, machine
from pharos_embedder.model import model_folder
from tests.support.git_server import GitServer
from tests.support.stack import Stack

PACKAGE: Final = "linux-source-6.1"
ARCHIVE: Final = Path(f"/usr/src/{PACKAGE}.tar.xz")
RESULT: Final = Path(__file__).parent / "results" / "scale.json"
POLL_SECONDS: Final = 0.1
PARSE_WORKERS: Final = 2
BARE_EVERY: Final = 50
FILES_MAX: Final = 200_000  # as in a job, where nothing is set
BYTES_MAX: Final = 2 << 30

FILES: Final = 10_100  # some of them are left out
FILE_BYTES_MAX: Final = 6_000
TOKENS: Final = 16

LINUX_MB_MAX: Final = 2_048
LINUX_SECONDS: Final = 120
LEXICAL_SECONDS_MAX: Final = 60
LEXICAL_MB_MAX: Final = 4_096


class Memory:
    """The most that a process and its children have had resident together, in MB: of all, and stage by stage.

    Pages of files that are mapped (the parse cache) count as well, though the system may take them back; so
    what is a process's own is told beside it. Pages that two processes share are counted twice.
    """

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._ended = threading.Event()
        self.stage = "start"
        self.peaks: dict[str, dict[str, int]] = {}

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    @property
    def peak_mb(self) -> int:
        return max((peak["all"] for peak in self.peaks.values()), default=0)

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                one = self._process.memory_info()
                children = self._process.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            others = []
            for each in children:
                with suppress(psutil.NoSuchProcess):
                    others.append(each.memory_info())
            found = {
                "all": one.rss + sum(other.rss for other in others),
                "process": one.rss,
                "process_without_files": one.rss - one.shared,
                "children": sum(other.rss for other in others),
            }
            known = self.peaks.setdefault(self.stage, dict.fromkeys(found, 0))
            for name, size in found.items():
                known[name] = max(known[name], round(size / 1e6))


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
    # The package has a few lines of its own there, which ignore everything.
    ignoring = root / ".gitignore"
    ignoring.write_text(ignoring.read_text().partition("#\n# Debian packaging")[0])
    return root


def measure(root: Path, every: int) -> None:
    """Discover, parse and link *root* here, as a job does; of its files each *every*-th.

    Prints a line of JSON as each stage begins, and one with what was found.
    """
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

    def warn(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    def tell(facts: dict[str, Any]) -> None:
        sys.stdout.write(f"{json.dumps(facts)}\n")
        sys.stdout.flush()

    seconds: dict[str, float] = {}
    processor: dict[str, dict[str, float]] = {}

    def worked() -> tuple[float, float]:
        """Seconds of the processor: of this process, and of its workers, also of those that have ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        alive = [psutil.Process(one).cpu_times() for one in pool.process_ids()]
        return time.process_time(), ended.ru_utime + ended.ru_stime + sum(t.user + t.system for t in alive)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        tell({"stage": name})
        began, (own, others) = time.perf_counter(), worked()
        yield
        seconds[name] = round(time.perf_counter() - began, 2)
        own_now, others_now = worked()
        processor[name] = {"process": round(own_now - own, 1), "workers": round(others_now - others, 1)}

    limits = Limits(
        fetch=FetchLimits(),
        discovery=DiscoveryLimits(files_max=FILES_MAX, total_bytes_max=BYTES_MAX),
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
            warn=warn,
            options=limits.parsing,
        ) as cache,
        Spool(Path(work) / "spool") as spool,
    ):
        with stage("discover"):
            found = discover(root, limits.discovery)
        if every > 1:
            files = found.files[::every]
            found = msgspec.structs.replace(found, files=files, total_bytes=sum(one.size for one in files))
        tools = Tools(
            store=nothing,
            encoder=nothing,
            cache=nothing,
            parse_cache=cache,
            parse_pool=pool,
            checkouts=nothing,
        )
        with stage("parse"):
            account = parse_stage(root, found, spool, tools, limits, "t", "j", silent, unchecked)
        with stage("link"):
            graph = link_stage(root, found, spool, account, unchecked)
        tell(
            {
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
                "stage_processor_seconds": processor,
            }
        )


def bare_parsing(root: Path) -> dict[str, Any]:
    """Tree-sitter alone, on the bytes of a sample of the files that are parsed: what nothing beats."""
    from pharos_embedder.discovery import DiscoveryLimits, discover
    from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of

    limits = DiscoveryLimits(files_max=FILES_MAX, total_bytes_max=BYTES_MAX)
    parsed = [file for file in discover(root, limits).files if file.language in PARSED_LANGUAGES]
    seconds = 0.0
    sample = parsed[::BARE_EVERY]
    for file in sample:
        source = (root / file.path).read_bytes()
        began = time.process_time()
        grammar_of(file.language).parser.parse(source)
        seconds += time.process_time() - began
    size = sum(file.size for file in sample)
    whole = sum(file.size for file in parsed)
    return {
        "sampled_files": len(sample),
        "sampled_bytes": size,
        "parsed_bytes": whole,
        "processor_seconds_of_all": round(seconds * whole / size, 1),
    }


def of_linux(root: Path, every: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.bench_scale", "--measure", str(root), "--every", str(every)]
    beside = Beside()
    found: dict[str, Any] = {}
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
        Memory(child.pid).watched() as memory,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            found = json.loads(line)
            memory.stage = found.get("stage", memory.stage)
    if child.returncode:
        raise SystemExit(f"the measurement failed ({child.returncode})")
    beside_it = beside.told()
    total = sum(found["stage_seconds"].values())
    processor = sum(sum(each.values()) for each in found["stage_processor_seconds"].values())
    bare = bare_parsing(root)
    alone = bare["processor_seconds_of_all"] / every
    return {
        **found,
        "seconds": round(total, 1),
        "processor_seconds": round(processor, 1),
        "files_per_second": round(found["files"] / total),
        "megabytes_per_second": round(found["bytes"] / 1e6 / total, 1),
        "bare_tree_sitter": bare,
        "processor_seconds_over_bare_tree_sitter": round(processor / alone, 2),
        "seconds_over_bare_tree_sitter_on_all_cores": round(total * (os.cpu_count() or 1) / alone, 2),
        "peak_resident_mb": memory.peak_mb,
        "stage_peak_resident_mb": memory.peaks,
        "beside": beside_it,
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
            beside = Beside()
            with Memory(stack.pid("embedder")).watched() as memory:
                told = indexed(client, git.url("bench/files"))
    result = told["result"]
    return {
        "files": result["files_processed"],
        "bytes": sum(len(text.encode()) for text in texts.values()),
        "chunks": result["chunks"],
        "tokens_of_a_chunk_at_most": TOKENS,
        "lexical_ready_seconds": round(until_lexical_ready(told), 2),
        "seconds": round(seconds_between(told, "started_at", "ended_at"), 2),
        "stage_seconds": result["stage_seconds"],
        "embedder_peak_resident_mb": memory.peak_mb,
        "embedder_peak_resident_mb_by_process": memory.peaks["start"],
        "load": beside.told()["load"],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--measure", type=Path, help="a tree to be read and linked here")
    arguments.add_argument("--every", type=int, default=1, help="each n-th file; what is not 1 is not stored")
    arguments.add_argument("--only", choices=("linux", "files"), help="one of the two, which is not stored")
    options = arguments.parse_args()
    if options.measure is not None:
        measure(options.measure, options.every)
        return
    root = linux()
    result: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    if options.only != "files":
        of = result["linux"] = of_linux(root, options.every)
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
    if options.only is None and options.every == 1:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
