"""RQ, for ``bench.queue_peer``; its workers import this module for the jobs."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from redis import Redis
from rq import Queue
from rq.registry import FinishedJobRegistry

NOTED: Final = "bench:noted"


def connection() -> Redis:
    return Redis.from_url(os.environ["REDIS_URL"])


def nothing() -> None:
    """The trivial job."""


def note(sent: float) -> None:
    delay = time.monotonic() - sent
    connection().rpush(NOTED, delay)


class Rq:
    """One queue; results are kept as RQ keeps them by itself."""

    def __init__(self, *, simple: bool) -> None:
        self._worker_class = "rq.worker.SimpleWorker" if simple else "rq.worker.Worker"
        self._redis = connection()
        self._queue = Queue(connection=self._redis)
        self._finished = FinishedJobRegistry(queue=self._queue)

    def worker_command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "rq.cli", "worker", "--url", os.environ["REDIS_URL"]),
            *("--worker-class", self._worker_class, "--logging_level", "ERROR"),
        ]

    def worker_count(self, cores: int) -> int:
        return cores

    def enqueue(self) -> None:
        self._queue.enqueue(nothing)

    def enqueue_noting(self, sent: float) -> None:
        self._queue.enqueue(note, sent)

    def noted(self) -> list[float]:
        return [float(each) for each in self._redis.lrange(NOTED, 0, -1)]

    def ended(self) -> int:
        return int(self._finished.get_job_count(cleanup=False))

    def forget(self) -> None:
        self._redis.flushdb()
