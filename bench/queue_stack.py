"""The bus and the services as processes of their own, without a model: what a job passes through."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import httpx
import psutil

from bench.queue_worker import NAME as WORKER_NAME
from pharos_contracts import streams
from pharos_contracts.workers.v1 import Worker
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, connect
from pharos_service.bus_admin import apply
from pharos_service.lease import Lease
from pharos_service.settings import ServiceSettings
from tests.support.nats_server import NatsServer, free_port

READY_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1
SAMPLE_SECONDS: Final = 0.5
STOP_SECONDS: Final = 10.0
BUS: Final = "nats-server"
SERVICES: Final = ("gateway", "scheduler", "history")
WORKER: Final = "worker"
LEASE_KEY: Final = "scheduler"
# A private address that is admitted by name: no look-up, and nothing is ever fetched from it.
SOURCE: Final = "http://127.0.0.1:9"


class NotReady(Exception):
    """A part of the stack did not start; the text ends with what it logged."""


class QueueStack:
    """Start it with ``with``; the worker is started and stopped apart."""

    def __init__(self, *, queue_max: int) -> None:
        self._queue_max = queue_max
        self._opened = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        self.token = secrets.token_urlsafe(32)

    def __enter__(self) -> QueueStack:
        with ExitStack() as opened:
            self.home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="pharos-bench-")))
            self.server = opened.enter_context(NatsServer())
            opened.callback(self._stop_all)
            self._environ = {
                **{name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")},
                "PHAROS_HOME": str(self.home),
                "PHAROS_NATS_URL": self.server.url,
                "PHAROS_PORT": str(self.port),
                "PHAROS_ADMIN_TOKEN": self.token,
                "PHAROS_GIT_ALLOWED_HOSTS": SOURCE,
                "PHAROS_RATE_LIMIT_KEY_PER_MINUTE": "0",  # one key submits as fast as it can
                "PHAROS_LOG_FORMAT": "json",
                "PHAROS_LOG_LEVEL": "warning",
            }
            asyncio.run(self._declare())
            for name in SERVICES:
                self._start(name, f"pharos_{name}")
            asyncio.run(self._until_ready())
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    async def _declare(self) -> None:
        async with self.bus() as bus:
            await apply(bus, streams.declare(streams.BusLimits(queue_max=self._queue_max)), 1)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """A connection of the bench's own."""
        bus = await connect(ServiceSettings(nats_url=self.server.url), "bench")
        try:
            yield bus
        finally:
            await bus.client.close()

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with self._log(name).open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    async def start_worker(self, slots: int) -> None:
        """Returns when the scheduler can know of the worker."""
        self._start(WORKER, "bench.queue_worker", "--slots", str(slots))
        async with self.bus() as bus:
            workers = Bucket(bus, streams.KV_WORKERS, Worker)

            async def announced() -> bool:
                return await workers.get(WORKER_NAME) is not None

            await self._until(announced, WORKER)

    def stop_worker(self) -> None:
        self._stop(WORKER)

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _stop_all(self) -> None:
        for name in reversed(tuple(self._processes)):
            self._stop(name)

    async def _until_ready(self) -> None:
        async with (
            self.bus() as bus,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as http,
        ):

            async def answers() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            async def led() -> bool:
                return await Bucket(bus, streams.KV_LEASE, Lease).get(LEASE_KEY) is not None

            async def history_reads() -> bool:
                info = await bus.api(f"CONSUMER.INFO.{streams.JOBS}.{streams.HISTORY}")
                return bool(info["num_waiting"])

            await self._until(answers, "gateway")
            await self._until(led, "scheduler")
            await self._until(history_reads, "history")

    async def _until(self, holds: Callable[[], Awaitable[bool]], name: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await holds():
            if time.monotonic() > deadline or self._processes[name].poll() is not None:
                raise NotReady(f"{name} did not start:\n{self._log(name).read_text()[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)

    def processes(self) -> dict[str, psutil.Process]:
        """Every process of the stack, by name."""
        bus = next(child for child in psutil.Process().children() if child.name() == BUS)
        return {BUS: bus, **{name: psutil.Process(each.pid) for name, each in self._processes.items()}}

    def cpu_seconds(self) -> dict[str, float]:
        """What each process has computed since it was started, the clients' included."""
        measured = {**self.processes(), "clients": psutil.Process()}
        times = {name: process.cpu_times() for name, process in measured.items()}
        return {name: each.user + each.system for name, each in times.items()}


class Memory:
    """Resident memory of processes while the block lasts."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self._processes = processes
        self._samples: dict[str, list[int]] = {name: [] for name in processes}

    async def __aenter__(self) -> Memory:
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sampling.cancel()

    async def _sample(self) -> None:
        while True:
            for name, process in self._processes.items():
                self._samples[name].append(process.memory_info().rss)
            await asyncio.sleep(SAMPLE_SECONDS)

    def report(self) -> dict[str, dict[str, float]]:
        """Megabytes: means of the first and the last quarter of the time, and the most there ever was."""
        return {
            name: {
                "first_quarter_mb": _megabytes(statistics.fmean(samples[: max(1, len(samples) // 4)])),
                "last_quarter_mb": _megabytes(statistics.fmean(samples[-max(1, len(samples) // 4) :])),
                "most_mb": _megabytes(max(samples)),
            }
            for name, samples in self._samples.items()
        }


def _megabytes(size: float) -> float:
    return round(size / 1e6, 1)
