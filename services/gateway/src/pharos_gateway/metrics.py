"""What ``/metrics`` tells a Prometheus: requests, streams, jobs, workers, queues and the process.

Requests, streams and the process are this gateway's own. Jobs, workers and queues are the installation's, and
every gateway tells them alike: of several, read one. No tenant, user or address is in any of it, and labels
come from lists that the code has, so that no client can make them many.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Final

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily

from pharos_contracts.jobs.v1 import Job, Progress
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway.queueing import QueueState

MEDIA_TYPE: Final = "text/plain; version=0.0.4"  # Litestar says its character set
NO_ROUTE: Final = "none"
OTHER_METHOD: Final = "other"
_METHODS: Final = frozenset(method.value for method in HttpMethod)
_ANSWER_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOB_SECONDS: Final = (1, 2.5, 5, 10, 30, 60, 180, 600, 1_800, 3_600, 14_400)


class Metrics:
    """Counts what happens, and reads what is when it is asked. It listens to the live tails of jobs."""

    def __init__(
        self,
        *,
        connected: Callable[[], bool],
        streams: Callable[[], int],
        workers: Callable[[], Sequence[Worker]],
    ) -> None:
        self._connected = connected
        self._streams = streams
        self._workers = workers
        self._queues: Mapping[str, QueueState] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "pharos_http_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._answers = Histogram(
            "pharos_http_answer_seconds",
            "From a request to the head of its answer.",
            ("route",),
            buckets=_ANSWER_SECONDS,
            registry=self._registry,
        )
        self._jobs_ended = Counter(
            "pharos_jobs_ended",
            "Jobs that ended since this gateway started.",
            ("kind", "state"),
            registry=self._registry,
        )
        self._job_seconds = Histogram(
            "pharos_job_seconds",
            "From the start of a job to its end, of those that completed.",
            ("kind",),
            buckets=_JOB_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def text(self, queues: Mapping[str, QueueState]) -> bytes:
        """All of it; *queues* by their names, those that could not be read left out."""
        self._queues = queues
        return generate_latest(self._registry)

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request of *route* (None: there is none) got the head of its answer after so long."""
        name = route or NO_ROUTE
        verb = method if method in _METHODS else OTHER_METHOD
        self._requests.labels(verb, name, str(status)).inc()
        self._answers.labels(name).observe(seconds)

    # What the live tails tell

    def happened(self, job: Job) -> None:
        """*job* is in another state."""
        if job.state not in TERMINAL:
            return
        self._jobs_ended.labels(job.kind.value, job.state.value).inc()
        if job.state is JobState.COMPLETED and job.started_at and job.ended_at:
            seconds = (job.ended_at - job.started_at).total_seconds()
            self._job_seconds.labels(job.kind.value).observe(max(0.0, seconds))

    def progressed(self, progress: Progress, job: Job | None) -> None:
        """How far a job is says nothing of how it ends."""

    def close(self) -> None:
        """There is nobody to send away."""

    # What the registry asks for

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is, at this moment."""
        yield GaugeMetricFamily(
            "pharos_bus_connected", "1 while the bus is connected.", value=float(self._connected())
        )
        yield GaugeMetricFamily(
            "pharos_streams_open", "Event streams and WebSockets that are open.", value=self._streams()
        )
        workers = GaugeMetricFamily("pharos_workers", "Live workers.", labels=("state",))
        states = Tally(worker.state for worker in self._workers())
        for state in WorkerState:
            workers.add_metric((state.value,), states[state])
        yield workers
        depth = GaugeMetricFamily("pharos_queue_depth", "Jobs that wait.", labels=("queue",))
        capacity = GaugeMetricFamily("pharos_queue_capacity", "Jobs that may wait.", labels=("queue",))
        for name, queue in self._queues.items():
            depth.add_metric((name,), queue.size)
            capacity.add_metric((name,), queue.capacity)
        yield depth
        yield capacity


def counted(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """*app*, each of its answers counted by *metrics*."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        began = perf_counter()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("path_template") or None
                metrics.answered(scope["method"], route, message["status"], perf_counter() - began)
            await send(message)

        await app(scope, receive, send_and_count)

    return wrapped
