"""RQ and Celery on Redis, measured in the same run on the same machine, each in two kinds of durability.

They are installed into a virtual environment of their own, which is thrown away; the server is the machine's
``redis-server`` (``apt-get install redis-server``). What cannot be had is said in the result, not hidden.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.queue_writes import flushes
from tests.support.nats_server import free_port

PACKAGES: Final = ("rq==3.0.0", "celery[redis]==5.7.0")
ROOT: Final = Path(__file__).parents[1]
START_SECONDS: Final = 10.0
RUN_SECONDS: Final = 900.0

QUEUES: Final = {
    "rq": "RQ, its default worker: a process forked for each job",
    "rq_simple": "RQ, SimpleWorker: jobs in the worker's own process; a crash takes the worker along",
    "celery": "Celery, prefork, acks_late: a job is delivered again when its worker dies",
}
# What of a job that was accepted outlives kill -9 of the server, and the loss of power.
DURABILITY: Final = {
    "snapshots": (
        (),
        "Redis as it comes: snapshots every minute to hour; what was accepted since the last one is lost",
    ),
    "append_only_always": (
        ("--appendonly", "yes", "--appendfsync", "always"),
        "Redis with appendonly yes, appendfsync always: synced before the answer, one sync for all clients "
        "of a turn of its loop",
    ),
}
PHAROS: Final = (
    "every message of Q, WORK, JOBS and the buckets is synced before it is acknowledged; a submit is an HTTP "
    "request with authentication, a guard against duplicates and a history, an enqueue is a library call"
)


def measure(jobs: int, probes: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Every queue in every kind of durability; or why there is nothing to compare with."""
    if shutil.which("redis-server") is None:
        return {"missing": "redis-server is not installed: apt-get install redis-server"}
    with tempfile.TemporaryDirectory(prefix="pharos-bench-peers-") as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        try:
            for command in (
                [sys.executable, "-m", "venv", str(python.parents[1])],
                [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
            ):
                subprocess.run(command, capture_output=True, text=True, check=True)
        except subprocess.CalledProcessError as error:
            return {"missing": f"{', '.join(PACKAGES)} could not be installed: {error.stderr[-500:]}"}
        found: dict[str, Any] = {"packages": list(PACKAGES), "redis_server": _redis_version()}
        for durability, (options, about) in DURABILITY.items():
            of_kind: dict[str, Any] = {"about": about}
            for queue, description in QUEUES.items():
                with _redis(Path(folder), options) as url:
                    measured = _run(python, queue, url, jobs, probes, Path(folder))
                of_kind[queue] = {"about": description, **measured}
                say(f"{queue}, {durability}: started {measured['started']}, drain {measured['drain']}")
            found[durability] = of_kind
        return found


def _redis_version() -> str:
    told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return next((word.removeprefix("v=") for word in told.split() if word.startswith("v=")), "")


@contextmanager
def _redis(folder: Path, options: tuple[str, ...]) -> Iterator[str]:
    """A server of its own on an empty directory; its address."""
    port = free_port()
    directory = tempfile.mkdtemp(prefix="redis-", dir=folder)
    process = subprocess.Popen(
        ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", directory, *options],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError("redis-server did not start") from None
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _run(python: Path, queue: str, url: str, jobs: int, probes: int, folder: Path) -> dict[str, Any]:
    """One queue on one server, in the other environment."""
    before = flushes(folder)
    done = subprocess.run(
        [str(python), "-m", "bench.queue_peer", queue, "--jobs", str(jobs), "--probes", str(probes)],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": url, "PYTHONWARNINGS": "ignore"},  # Celery warns of root
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=RUN_SECONDS,
    )
    after = flushes(folder)
    result: dict[str, Any] = json.loads(done.stdout)
    if before is not None and after is not None:
        result["device_flushes_per_job"] = round((after - before) / result.pop("jobs_in_all"), 2)
    return result


def ratios(limits: dict[str, Any], pharos: dict[str, Any], peers: dict[str, Any]) -> dict[str, Any]:
    """How Pharos compares with a bare client of its bus and with each peer: above 1 is better for Pharos."""
    bare = limits["publish_consume_ack"]
    found: dict[str, Any] = {
        "pharos": PHAROS,
        "bare_bus": _ratios(pharos, limits["publish"], bare["delivered_after"]["p50_ms"], bare["per_second"]),
    }
    for durability in DURABILITY:
        for queue in QUEUES:
            peer = peers.get(durability, {}).get(queue)
            if peer is not None:
                found[f"{queue}, {durability}"] = _ratios(
                    pharos, peer["enqueue"], peer["started"]["p50_ms"], peer["drain"]["jobs_per_second"]
                )
    return found


def _ratios(
    pharos: dict[str, Any], submits: dict[str, Any], started_p50_ms: float, drained_per_second: float
) -> dict[str, float]:
    return {
        **{
            f"submits_per_second_{clients}_clients": _ratio(
                pharos["submit"][clients]["per_second"], each["per_second"]
            )
            for clients, each in submits.items()
        },
        "started_p50": _ratio(started_p50_ms, pharos["idle"]["started"]["p50_ms"]),
        "drain": _ratio(pharos["drain"]["jobs_per_second"], drained_per_second),
    }


def _ratio(above: float, below: float) -> float:
    return round(above / below, 3)
