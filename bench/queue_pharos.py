"""What is measured of the queue: submitting, starting, draining a backlog, and a steady flow."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final

from bench.queue_clients import Client, submit_all
from bench.queue_stack import Memory, QueueStack
from bench.queue_timing import rate, summary
from bench.queue_writes import flushes, per_job, stored
from pharos_contracts import streams
from pharos_service.bus import Bus
from pharos_service.pull import CaughtUp, tail

SLOTS: Final = 16
FLOW_CLIENTS: Final = 16
OPEN_MAX: Final = 256
PAUSE_SECONDS: Final = (0.02, 0.08)  # between jobs on an idle stack, so that each finds it at rest
STALL_SECONDS: Final = 30.0
STARTED: Final = "events.item.*.*.*.started"
ENDED: Final = tuple(f"events.job.*.*.{name}" for name in ("completed", "failed", "skipped", "cancelled"))


class Facts:
    """What JOBS tells a subscriber while the block lasts; times are those of arrival, ``perf_counter``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed = asyncio.Condition()
        self.started: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.ends: Counter[str] = Counter()
        self.twice = 0

    async def __aenter__(self) -> Facts:
        following = asyncio.Event()
        self._following = asyncio.create_task(self._follow(following))
        await following.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self, following: asyncio.Event) -> None:
        async with aclosing(tail(self._bus, streams.JOBS, [STARTED, *ENDED])) as events:
            async for event in events:
                if isinstance(event, CaughtUp):
                    following.set()
                    continue
                at = time.perf_counter()
                _, kind, _, job_id, *_, name = event.subject.split(".")
                if kind == "item":
                    self.started.setdefault(job_id, at)
                else:
                    self.ends[name] += 1
                    self.twice += job_id in self.ended
                    self.ended.setdefault(job_id, at)
                async with self._changed:
                    self._changed.notify_all()

    async def until_ended(self, job_id: str) -> None:
        async with self._changed:
            await asyncio.wait_for(
                self._changed.wait_for(lambda: job_id in self.ended and job_id in self.started), STALL_SECONDS
            )

    async def until_ended_count(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.ended) >= count)

    async def until_all_ended(self, count: int) -> None:
        """Returns when *count* jobs have ended, or when for a long time none has."""
        while len(self.ended) < count:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self.until_ended_count(len(self.ended) + 1)
            except TimeoutError:
                return

    def verdict(self, count: int) -> dict[str, Any]:
        """How the jobs ended, and what must be zero."""
        return {"ends": dict(self.ends), "lost": count - len(self.ended), "twice": self.twice}


async def starting(stack: QueueStack, addresses: Iterator[str], *, jobs: int) -> dict[str, Any]:
    """One job at a time on an idle stack with one slot; all from the moment that the request is sent."""
    answered, started, ended = [], [], []
    pauses = random.Random(0)
    async with stack.bus() as bus, Facts(bus) as facts, Client(stack.port, stack.token) as client:
        for _ in range(jobs):
            await asyncio.sleep(pauses.uniform(*PAUSE_SECONDS))
            began = time.perf_counter()
            job_id = await client.submit(next(addresses))
            answered.append(time.perf_counter() - began)
            await facts.until_ended(job_id)
            started.append(facts.started[job_id] - began)
            ended.append(facts.ended[job_id] - began)
        return {
            "answered": summary(answered),
            "started": summary(started),
            "ended": summary(ended),
            **facts.verdict(jobs),
        }


async def submitting(
    stack: QueueStack, addresses: Iterator[str], *, clients: int, jobs: int
) -> dict[str, float]:
    """*jobs* that no worker takes, so that nothing but their acceptance is measured."""
    seconds, elapsed = await submit_all(stack.port, stack.token, addresses, clients=clients, jobs=jobs)
    return {"per_second": rate(jobs, elapsed), **summary(seconds)}


async def draining(stack: QueueStack, *, jobs: int) -> dict[str, Any]:
    """A backlog of *jobs*, from the first start to the last end."""
    async with stack.bus() as bus, Facts(bus) as facts:
        await stack.start_worker(SLOTS)
        measured = Measured(stack, bus)
        async with measured:
            await facts.until_all_ended(jobs)
        elapsed = max(facts.ended.values()) - min(facts.started.values())
        return {
            "jobs_per_second": rate(len(facts.ended), elapsed),
            **facts.verdict(jobs),
            **measured.report(len(facts.ended)),
        }


async def flowing(stack: QueueStack, addresses: Iterator[str], *, jobs: int) -> dict[str, Any]:
    """Whole lives: submits go on while the worker works, with so many jobs open at once and no more."""
    async with stack.bus() as bus, Facts(bus) as facts:
        measured = Measured(stack, bus)
        submitted = 0

        async def client() -> None:
            nonlocal submitted
            async with Client(stack.port, stack.token) as connection:
                while submitted < jobs:
                    submitted += 1
                    await facts.until_ended_count(submitted - OPEN_MAX)
                    await connection.submit(next(addresses))

        async with measured:
            began = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(FLOW_CLIENTS)))
            await facts.until_all_ended(jobs)
        return {
            "jobs_per_second": rate(len(facts.ended), max(facts.ended.values()) - began),
            **facts.verdict(jobs),
            **measured.report(len(facts.ended)),
        }


class Measured:
    """What the stack uses while the block lasts."""

    def __init__(self, stack: QueueStack, bus: Bus) -> None:
        self._stack = stack
        self._bus = bus

    async def __aenter__(self) -> Measured:
        self._stored = await stored(self._bus)
        self._flushes = flushes(self._stack.home)
        self._cpu = self._stack.cpu_seconds()
        self._memory = Memory(self._stack.processes())
        await self._memory.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._memory.__aexit__(*error)
        after, at_disk = await stored(self._bus), flushes(self._stack.home)
        self._stored = {name: after[name] - self._stored[name] for name in after}
        self._flushed = None if at_disk is None or self._flushes is None else at_disk - self._flushes
        cpu = self._stack.cpu_seconds()
        self._cpu = {name: cpu[name] - self._cpu[name] for name in cpu if name in self._cpu}

    def report(self, jobs: int) -> dict[str, Any]:
        return {
            "cpu_ms_per_job": {name: round(each / jobs * 1000, 2) for name, each in self._cpu.items()},
            "memory": self._memory.report(),
            "messages_stored_per_job": per_job(self._stored, jobs),
            "device_flushes_per_job": None if self._flushed is None else round(self._flushed / jobs, 2),
        }
