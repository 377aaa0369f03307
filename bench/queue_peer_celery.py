"""Celery, for ``bench.queue_peer``; its workers import this module for the jobs."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from celery import Celery
from redis import Redis

NOTED: Final = "bench:noted"
RESULTS: Final = "celery-task-meta-*"

app = Celery("bench", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)


def connection() -> Redis:
    return Redis.from_url(os.environ["REDIS_URL"])


@app.task
def nothing() -> None:
    """The trivial job."""


@app.task
def note(sent: float) -> None:
    delay = time.monotonic() - sent
    connection().rpush(NOTED, delay)


class OnCelery:
    """One queue; results are kept in Redis, so that how a job ended is known, as it is of the others."""

    def __init__(self) -> None:
        self._redis = connection()

    def worker_command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "celery", "--app", __name__, "worker"),
            *("--loglevel", "ERROR", "--pool", "prefork"),
        ]

    def worker_count(self, cores: int) -> int:
        return 1  # its pool has a process for each core

    def enqueue(self) -> None:
        nothing.delay()

    def enqueue_noting(self, sent: float) -> None:
        note.delay(sent)

    def noted(self) -> list[float]:
        return [float(each) for each in self._redis.lrange(NOTED, 0, -1)]

    def ended(self) -> int:
        return sum(1 for _ in self._redis.scan_iter(RESULTS, count=10_000))

    def forget(self) -> None:
        self._redis.flushdb()
