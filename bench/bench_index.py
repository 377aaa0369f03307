"""A 500-file repository through the whole stack, against its encoder alone on the same chunks, in one run.

The repository is 500 files of Python's standard library, served by git over HTTP on loopback. The peer is
``encode`` of the same encoder on the texts of the same chunks, in a process of its own with nothing else
running: what no pipeline can beat. It is measured before and after the job, since machines drift.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.machine import machine
from tests.support.git_server import GitServer
from tests.support.stack import Stack, search, submit, until_ended

FILES = 500
RESULTS = Path(__file__).parent / "results"

ENCODE_ALONE = """
import json, sys, time
from pathlib import Path
from pharos_embedder.devices import choose_device
from pharos_embedder.discovery import discover
from pharos_embedder.encoding import encode
from pharos_embedder.model import load_encoder
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.syntax import ParsedFile
root = Path(sys.argv[1])
encoder = load_encoder("", choose_device())
with ParsePool(2) as pool:
    files = [each for each in pool.parse_files(root, discover(root).files) if isinstance(each, ParsedFile)]
texts = [chunk.encoded_text for file in files for chunk in file.chunks]
encode(texts[:64], encoder)
began = time.perf_counter()
encode(texts, encoder)
print(json.dumps({"chunks": len(texts), "seconds": time.perf_counter() - began}))
"""


def library(count: int) -> dict[str, str]:
    """The first *count* files of the standard library that are not trivial, by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts or not 400 < path.stat().st_size < 16_000:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        found[path.relative_to(root).as_posix()] = text
        if len(found) == count:
            break
    return found


def encoder_alone(files: dict[str, str]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", ENCODE_ALONE, folder], capture_output=True, text=True, check=True
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    files = library(FILES)
    before = encoder_alone(files)
    with GitServer() as git:
        git.add_repository("python/library", files)
        with Stack(allowed_hosts=git.allowed_hosts) as stack, stack.client() as client:
            job = until_ended(client, submit(client, git.url("python/library"))["id"], seconds=1800)
            assert job["state"] == "completed", job
            memory = psutil.Process(stack.pid("gateway")).memory_info().rss
            latencies = sorted(
                client.post("/api/v1/search", json={"query": query}).json()["latency_ms"]
                for query in ("parse a date", "open a socket", "walk a directory tree") * 10
            )
            assert search(client, "parse a date")
    after = encoder_alone(files)
    alone = (before["seconds"] + after["seconds"]) / 2
    started, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "ended_at"))
    total = (ended - started).total_seconds()
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "files": job["result"]["files_processed"],
        "chunks": job["result"]["chunks"],
        "job_seconds": round(total, 2),
        "encoder_alone_seconds": [round(before["seconds"], 2), round(after["seconds"], 2)],
        "encoder_alone_chunks": after["chunks"],
        "ratio": round(total / alone, 3),
        "stage_seconds": job["result"]["stage_seconds"],
        "gateway_resident_mb": round(memory / 1e6, 1),
        "search_latency_ms_p50": latencies[len(latencies) // 2],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "index.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
