"""Real repositories through the whole stack, stage by stage, against what no pipeline can beat.

python -m bench.bench_index [--only NAME ...] [--sample 400] [--no-large]

Each repository of ``bench.corpora`` is served by git over HTTP on loopback and indexed by a warm worker, one
after the other, in one run. Peers, in a process of their own on the same chunks, before and after turns: the
encoder alone on all of them; the model's bare forward loop on the same token lengths; sentence-transformers'
``encode`` in our precision and in its default; bare tree-sitter on one thread; and of fetching, plain
``git clone --depth 1`` from the same server. The large repository tells how soon 2,000 files can be searched
by words, and what one changed file of them costs.

Prints a table and writes bench/results/index.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import psutil

from bench.corpora import CORPORA, LARGE, Corpus, texts_of, write
from bench.machine import machine
from tests.support.git_server import GitServer
from tests.support.stack import ENDED, Stack, eventually, job, submit

RESULT: Final = Path(__file__).parent / "results" / "index.json"
ENCODER_STAGES: Final = ("encode", "train")
LEXICAL_READY: Final = "searchable by words"  # in the log of a job
HOUR: Final = 3600.0

TARGETS: Final = {
    "files_per_second_without_encode_and_train": (">=", 1_000),
    "train_share_of_encode": ("<=", 0.10),
    "total_over_encode_alone": ("<=", 1.15),
    "encode_over_sentence_transformers_same_dtype": (">=", 1.15),
    "encode_over_sentence_transformers_default": (">=", 2.5),
    "lexical_ready_seconds": ("<=", 4.0),
    "one_changed_file_seconds": ("<=", 1.5),
}


def peers_of(texts: dict[str, str], sample: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        write(texts, Path(folder))
        done = subprocess.run(
            [sys.executable, "-m", "bench.index_peers", folder, str(sample)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def indexed(client: httpx.Client, address: str) -> dict[str, Any]:
    """The ended job. History may be a moment behind: the job is read until its times are there."""
    identifier = submit(client, address)["id"]

    def told() -> dict[str, Any] | None:
        found = job(client, identifier)
        is_told = found and found["state"] in ENDED and found.get("ended_at") and found.get("started_at")
        return found if is_told else None

    # Each question takes milliseconds of the processor that is measured; the times are the job's own.
    ended = eventually(told, seconds=HOUR, poll_seconds=1.0)
    assert ended["state"] == "completed", ended
    return {**ended, "id": identifier}


def plain_clone_seconds(address: str) -> float:
    """What git alone takes for the files of the newest commit."""
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", address, f"{folder}/clone"], check=True)
        return time.perf_counter() - began


def seconds_between(told: dict[str, Any], first: str, last: str) -> float:
    return (datetime.fromisoformat(told[last]) - datetime.fromisoformat(told[first])).total_seconds()


def row(corpus: Corpus, told: dict[str, Any], peers: dict[str, Any], clone_seconds: float) -> dict[str, Any]:
    result = told["result"]
    stages: dict[str, float] = result["stage_seconds"]
    total = seconds_between(told, "started_at", "ended_at")
    rest = sum(seconds for name, seconds in stages.items() if name not in ENCODER_STAGES)
    engine = rest - stages["fetch"]
    others = peers["sentence_transformers"]
    bare = peers["tree_sitter"]
    return {
        "repository": f"{corpus.project} ({corpus.archive})",
        "languages": corpus.languages,
        "files": result["files_processed"],
        "chunks": result["chunks"],
        "tokens": peers["tokens"],
        "seconds": round(total, 2),
        "stage_seconds": stages,
        "stage_share": {name: round(seconds / total, 3) for name, seconds in stages.items()},
        "files_per_second": round(result["files_processed"] / total, 1),
        "chunks_per_second": round(result["chunks"] / total, 1),
        "tokens_per_second": round(peers["tokens"] / total),
        "files_per_second_without_encode_and_train": round(result["files_processed"] / rest, 1),
        "files_per_second_without_encode_train_and_fetch": round(result["files_processed"] / engine, 1),
        "fetch_over_git_clone": round(stages["fetch"] / clone_seconds, 2),
        "train_share_of_encode": round(stages["train"] / stages["encode"], 3),
        "total_over_encode_alone": round(total / peers["encode_alone_seconds"], 3),
        "encode_alone_chunks_per_second": round(peers["chunks"] / peers["encode_alone_seconds"], 1),
        "encode_over_forward_loop": round(
            peers["sample_forward_seconds"] / peers["sample_encode_seconds"], 3
        ),
        "encode_over_sentence_transformers_same_dtype": round(
            others["same_dtype"]["seconds"] / peers["sample_encode_seconds"], 2
        ),
        "encode_over_sentence_transformers_default": round(
            others["default"]["seconds"] / peers["sample_encode_seconds"], 2
        ),
        "parse_over_bare_tree_sitter_one_thread": round(
            (peers["files"] / peers["parse_pool_seconds"]) / (bare["files"] / bare["seconds"]), 3
        ),
        "bare_tree_sitter_files_per_second": round(bare["files"] / bare["seconds"]),
    }


def until_lexical_ready(client: httpx.Client, told: dict[str, Any]) -> float:
    """From the start until words can be searched, as the job's log has it."""
    lines = client.get(f"/api/v1/jobs/{told['id']}/log").raise_for_status().json()["lines"]
    ready = next(line["at"] for line in lines if LEXICAL_READY in line["text"])
    return seconds_between({"start": told["started_at"], "ready": ready}, "start", "ready")


def large_row(stack: Stack, client: httpx.Client, git: GitServer) -> dict[str, Any]:
    """First index of the large repository, the same again, and with one file changed."""
    texts = texts_of(LARGE)
    name = f"bench/{LARGE.name}"
    git.add_repository(name, texts)
    first = indexed(client, git.url(name))
    path = max(texts, key=lambda each: (6_000 < len(texts[each]) < 8_000, each))
    git.add_commits(name, [{path: texts[path] + "\n\ndef added_for_the_measurement():\n    return 42\n"}])
    second = indexed(client, git.url(name))
    return {
        "repository": f"{LARGE.project} ({LARGE.archive})",
        "files": first["result"]["files_processed"],
        "bytes": sum(len(text.encode()) for text in texts.values()),
        "chunks": first["result"]["chunks"],
        "seconds": round(seconds_between(first, "started_at", "ended_at"), 2),
        "lexical_ready_seconds": round(until_lexical_ready(client, first), 2),
        "stage_seconds": first["result"]["stage_seconds"],
        "one_changed_file_seconds": round(seconds_between(second, "started_at", "ended_at"), 2),
        "one_changed_file_stage_seconds": second["result"]["stage_seconds"],
        "one_changed_file_chunks_encoded": second["result"]["chunks_encoded"],
        "one_changed_file_chunks": second["result"]["chunks"],
        "embedder_peak_resident_mb": round(psutil.Process(stack.pid("embedder")).memory_info().rss / 1e6),
    }


def met(rows: dict[str, dict[str, Any]], large: dict[str, Any] | None) -> dict[str, Any]:
    """Each target with the worst value that was measured for it."""
    found = {}
    for name, (sign, aim) in TARGETS.items():
        values = [row[name] for row in (*rows.values(), large or {}) if name in row]
        if values:
            worst = min(values) if sign == ">=" else max(values)
            reached = worst >= aim if sign == ">=" else worst <= aim
            found[name] = {"aim": f"{sign} {aim}", "worst": worst, "median": _median(values), "met": reached}
    return found


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--only", nargs="*", default=[], help="names of repositories; all if left out")
    arguments.add_argument("--sample", type=int, default=400, help="chunks that peers are measured on")
    arguments.add_argument("--no-large", action="store_true", help="leave the repository of 2,000 files out")
    options = arguments.parse_args()
    chosen = [each for each in CORPORA if not options.only or each.name in options.only]
    load = os.getloadavg()[0]
    rows: dict[str, dict[str, Any]] = {}
    large = None
    with GitServer() as git:
        git.add_repository("bench/warm", {f"warm{n}.py": f"def warm{n}():\n    pass\n" for n in range(20)})
        with Stack(allowed_hosts=git.allowed_hosts) as stack, stack.client() as client:
            indexed(client, git.url("bench/warm"))
            for corpus in chosen:
                texts = texts_of(corpus)
                git.add_repository(f"bench/{corpus.name}", texts)
                address = git.url(f"bench/{corpus.name}")
                told = indexed(client, address)
                peers = peers_of(texts, options.sample)
                rows[corpus.name] = row(corpus, told, peers, plain_clone_seconds(address))
                sys.stdout.write(f"{corpus.name}: {json.dumps(rows[corpus.name], indent=2)}\n")
                sys.stdout.flush()
            if not options.no_large:
                large = large_row(stack, client, git)
                sys.stdout.write(f"{LARGE.name}: {json.dumps(large, indent=2)}\n")
    targets = met(rows, large)
    for name, target in targets.items():
        sys.stdout.write(f"{'met   ' if target['met'] else 'MISSED'} {name}: {target}\n")
    RESULT.parent.mkdir(exist_ok=True)
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "load_before": round(load, 2),
        "targets": targets,
        "left_out": sorted(each.name for each in CORPORA if each not in chosen),
        "repositories": rows,
        "large": large,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
