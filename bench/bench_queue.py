"""The way of a job through the queue, against what the disk, the bus and two other queues can do in one run.

python -m bench.bench_queue [--jobs 10000] [--probes 500] [--peer-jobs 2000] [--no-peers]

Gateway, scheduler, history and the bus are the real processes; the worker is the real worker with work that
does nothing. Prints a summary and writes bench/results/queue.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from bench import queue_limits, queue_peers
from bench.machine import machine
from bench.queue_clients import repositories
from bench.queue_pharos import SLOTS, draining, flowing, starting, submitting
from bench.queue_stack import BUS, QueueStack
from bench.queue_writes import Syncs, per_job
from pharos_service import logs

RESULT: Final = Path(__file__).parent / "results" / "queue.json"
LIMIT_WRITES: Final = 3000
COUNTED_JOBS: Final = 300
SINGLE_CLIENT_JOBS: Final = 500
QUEUE_MAX: Final = 10_000  # the most that PHAROS_QUEUE_MAX may be
STARTED_P50_MS_MAX: Final = 10.0
SHARE_MIN: Final = 0.5


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measure_limits() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(
        prefix="pharos-bench-"
    ) as folder:  # where the bus keeps its streams, too
        on_disk = queue_limits.disk(Path(folder), LIMIT_WRITES)
    return {"disk": on_disk, **asyncio.run(queue_limits.bare_bus(LIMIT_WRITES))}


def measure_pharos(jobs: int, probes: int) -> dict[str, Any]:
    """Every measure on one stack, so that each finds what those before it left."""
    addresses = repositories()
    with QueueStack(queue_max=QUEUE_MAX) as stack:

        async def all_measures() -> dict[str, Any]:
            await stack.start_worker(1)
            idle = await starting(stack, addresses, jobs=probes)
            say(f"idle stack: started {idle['started']}")
            stack.stop_worker()
            single = min(SINGLE_CLIENT_JOBS, jobs // 4)
            half = (jobs - single) // 2
            submits = {}
            for clients, count in ((1, single), (16, half), (64, jobs - single - half)):
                submits[str(clients)] = await submitting(stack, addresses, clients=clients, jobs=count)
                say(f"submit with {clients} clients: {submits[str(clients)]}")
            drain = await draining(stack, jobs=jobs)
            say(f"drain: {drain['jobs_per_second']} jobs/s")
            flow = await flowing(stack, addresses, jobs=jobs)
            say(f"flow: {flow['jobs_per_second']} jobs/s")
            with Syncs(stack.processes()[BUS].pid) as syncs:
                await flowing(stack, addresses, jobs=COUNTED_JOBS)
            counted = None if syncs.counts is None else per_job(syncs.counts, COUNTED_JOBS)
            return {
                "idle": idle,
                "submit": submits,
                "drain": drain,
                "flow": flow,
                "synced_writes_per_job": counted,
            }

        return {"worker_slots": SLOTS, **asyncio.run(all_measures())}


def best_publish(limits: dict[str, Any]) -> float:
    """Messages a second by the number of publishers that does best."""
    return max(float(each["per_second"]) for each in limits["publish"].values())


def targets(limits: dict[str, Any], pharos: dict[str, Any]) -> dict[str, Any]:
    """What was promised, and what came of it.

    A job's synced writes are those that the server was seen to make, or else what its streams stored; the
    limit is told by both rates, of the disk alone and of the best that a bare client gets out of the bus.
    """
    counted = pharos["synced_writes_per_job"] or pharos["flow"]["messages_stored_per_job"]
    writes = counted["sum"]
    rates = {
        "disk": fmean(each["disk"]["per_second"] for each in limits.values()),
        "bare_bus": fmean(best_publish(each) for each in limits.values()),
    }
    flow = pharos["flow"]["jobs_per_second"]
    phases = (pharos["idle"], pharos["drain"], pharos["flow"])
    return {
        "lost_or_twice": {"at_most": 0, "measured": sum(each["lost"] + each["twice"] for each in phases)},
        "started_p50_ms": {"at_most": STARTED_P50_MS_MAX, "measured": pharos["idle"]["started"]["p50_ms"]},
        "share_of_limit": {
            "at_least": SHARE_MIN,
            "jobs_per_second": flow,
            "synced_writes_per_job": writes,
            **{f"of_{name}": share(flow, writes, per_second) for name, per_second in rates.items()},
        },
    }


def share(jobs_per_second: float, writes: float, writes_per_second: float) -> dict[str, float]:
    """What part that is of the jobs that could be lived if nothing but synced writes took time."""
    limit = writes_per_second / writes
    return {
        "synced_writes_per_second": round(writes_per_second, 1),
        "limit_jobs_per_second": round(limit, 1),
        "share": round(jobs_per_second / limit, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of the drain, and of the flow")
    parser.add_argument("--probes", type=int, default=500, help="jobs on the idle stack")
    parser.add_argument("--peer-jobs", type=int, default=2_000, help="jobs for each of the other queues")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    if not 100 <= options.jobs <= QUEUE_MAX:
        parser.error(f"--jobs is {options.jobs}; it can be 100 to {QUEUE_MAX}")

    logs.configure(service="bench", level="error", format="console")
    before = measure_limits()
    say(
        f"limits: disk {before['disk']['per_second']} synced writes/s, bus {best_publish(before)} publishes/s"
    )
    pharos = measure_pharos(options.jobs, options.probes)
    # Machines drift: limits that differ much between the two say that the run was disturbed.
    limits = {"before": before, "after": measure_limits()}
    peers = queue_peers.measure(options.peer_jobs, options.probes, say=say) if options.peers else {}
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "jobs": options.jobs,
        "probes": options.probes,
        "limits": limits,
        "pharos": pharos,
        "targets": targets(limits, pharos),
        "peers": peers,
        "ratios": queue_peers.ratios(limits["before"], pharos, peers),
    }
    options.result.parent.mkdir(exist_ok=True)
    options.result.write_text(json.dumps(result, indent=2) + "\n")
    say(json.dumps({"targets": result["targets"], "ratios": result["ratios"]}, indent=2))


if __name__ == "__main__":
    main()
