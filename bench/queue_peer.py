"""``python -m bench.queue_peer rq|rq_simple|celery``: one of the other queues, in an environment of its own.

Needs nothing of Pharos. Redis is at ``REDIS_URL``; the result goes to standard output as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from bench import queue_peer_celery, queue_peer_rq
from bench.queue_timing import rate, summary

CLIENTS: Final = (1, 16, 64)
PAUSE_SECONDS: Final = (0.02, 0.08)
POLL_SECONDS: Final = 0.01
LONG_POLL_SECONDS: Final = 0.05  # where looking costs the server something
WARM_UP_JOBS: Final = 5
DEADLINE_SECONDS: Final = 300.0


class Queue(Protocol):
    """What is asked of a queue. Jobs do nothing but note, where asked, how long they took to start."""

    def worker_command(self) -> list[str]:
        """One worker process."""

    def worker_count(self, cores: int) -> int:
        """How many such processes use *cores*."""

    def enqueue(self) -> None:
        """A job that does nothing."""

    def enqueue_noting(self, sent: float) -> None:
        """A job that notes how long after *sent*, on the monotonic clock of this machine, it was started."""

    def noted(self) -> list[float]:
        """What was noted so far, in seconds."""

    def ended(self) -> int:
        """How many jobs have ended well, of all that were ever enqueued and are not forgotten."""

    def forget(self) -> None:
        """Forget the jobs that ended."""


def until(holds: Callable[[], bool], poll_seconds: float) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the queue stands still")
        time.sleep(poll_seconds)


def has_noted(queue: Queue, count: int) -> bool:
    return len(queue.noted()) >= count


def starting(queue: Queue, jobs: int) -> dict[str, float]:
    """One job at a time; from before its enqueue to its first line in a worker."""
    pauses = random.Random(0)
    for number in range(WARM_UP_JOBS + jobs):
        time.sleep(pauses.uniform(*PAUSE_SECONDS))
        queue.enqueue_noting(time.monotonic())
        until(partial(has_noted, queue, number + 1), POLL_SECONDS)
    return summary(queue.noted()[WARM_UP_JOBS:])


def enqueueing(queue: Queue, clients: int, jobs: int) -> dict[str, float]:
    """*clients* threads, as a web server would have them; no worker lives."""
    seconds: list[float] = []
    each = jobs // clients

    def client() -> None:
        for _ in range(each):
            began = time.perf_counter()
            queue.enqueue()
            seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_second": rate(each * clients, time.perf_counter() - began), **summary(seconds)}


def draining(queue: Queue, start_workers: Callable[[], None], jobs: int) -> dict[str, float]:
    """A backlog, from the first end to the last: how long workers take to come up is not counted."""
    start_workers()
    until(lambda: queue.ended() > 0, POLL_SECONDS)
    first, began = queue.ended(), time.perf_counter()
    until(lambda: queue.ended() >= jobs, LONG_POLL_SECONDS)
    return {"jobs_per_second": rate(jobs - first, time.perf_counter() - began), "count": jobs - first}


def measure(queue: Queue, jobs: int, probes: int) -> dict[str, Any]:
    workers: list[subprocess.Popen[bytes]] = []

    def start(count: int) -> None:
        for _ in range(count):
            workers.append(subprocess.Popen(queue.worker_command(), stdout=subprocess.DEVNULL))

    def stop() -> None:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        workers.clear()

    try:
        start(1)
        started = starting(queue, probes)
        stop()
        queue.forget()
        per_count = jobs // len(CLIENTS) // max(CLIENTS) * max(CLIENTS)
        enqueue = {str(clients): enqueueing(queue, clients, per_count) for clients in CLIENTS}
        backlog = per_count * len(CLIENTS)
        cores = len(os.sched_getaffinity(0))
        drain = draining(queue, lambda: start(queue.worker_count(cores)), backlog)
    finally:
        stop()
    return {
        "started": started,
        "enqueue": enqueue,
        "drain": drain,
        "jobs_in_all": WARM_UP_JOBS + probes + backlog,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queue", choices=("rq", "rq_simple", "celery"))
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--probes", type=int, default=500)
    options = parser.parse_args()
    queues: dict[str, Callable[[], Queue]] = {
        "rq": lambda: queue_peer_rq.Rq(simple=False),
        "rq_simple": lambda: queue_peer_rq.Rq(simple=True),
        "celery": queue_peer_celery.OnCelery,
    }
    json.dump(measure(queues[options.queue](), options.jobs, options.probes), sys.stdout)


if __name__ == "__main__":
    main()
