"""A gateway on a free port, and the other services as far as a test of the gateway needs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from msgspec.structs import replace

from pharos_contracts import subjects
from pharos_contracts.identity import uuid7
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    IndexResult,
    Job,
    JobKind,
    RepositorySource,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway.settings import Settings
from pharos_service.bus import Bus, BusError
from pharos_service.settings import Secret

TOKEN = "an-admin-token-of-more-than-32-characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def settings(nats_url: str, **others: Any) -> Settings:
    return Settings(**{"nats_url": nats_url, "port": 0, "admin_token": Secret(TOKEN), **others})


@asynccontextmanager
async def client(address: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=10, trust_env=False) as http:
        yield http


def now() -> datetime:
    return datetime.now(UTC)


def job(number: int, state: JobState = JobState.QUEUED, **others: Any) -> Job:
    """A job of tenant ``default``, the same one for the same number."""
    values: dict[str, Any] = {
        "job_id": str(uuid7(1_700_000_000_000 + number, bytes(10))),
        "number": number,
        "tenant": "default",
        "key": f"k{number}",
        "kind": JobKind.REPOSITORY,
        "state": state,
        "source": RepositorySource(
            identity=f"github.com/user/repo{number}", clone_url=f"https://github.com/user/repo{number}"
        ),
        "project": "default",
        "submitted_at": datetime(2024, 1, 20, 10, 0, 0, tzinfo=UTC),
        "submitted_by": "admin",
        "ttl_seconds": 86_400,
    }
    return Job(**{**values, **others})


def result(**others: Any) -> IndexResult:
    values: dict[str, Any] = {
        "dataset": "github.com/user/repo@main",
        "generation": 1,
        "commit": "c" * 40,
        "files_processed": 342,
        "embeddings_generated": 342,
        "chunks": 342,
    }
    return IndexResult(**{**values, **others})


class History:
    """Writes what the scheduler would write, in order, trying again while the bus is away."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def tell(self, told: Job, state: JobState, **changes: Any) -> int:
        """The sequence of the event that brings *told* into *state*."""
        changed = replace(told, state=state, **changes)
        event = EVENT_OF_STATE[state](
            event_id=f"{told.job_id}-{state}-{changed.attempt}", at=now(), job=changed
        )
        while True:
            try:
                ack = await self._bus.publish(
                    subjects.job_event_subject(event), event, message_id=event.event_id
                )
                return ack.seq
            except BusError:
                await asyncio.sleep(0.05)


def worker(name: str = "RTX-4070-Node", state: WorkerState = WorkerState.IDLE, **others: Any) -> Worker:
    values: dict[str, Any] = {
        "name": name,
        "instance": "i1",
        "pool": "default",
        "state": state,
        "device": "cuda:0",
        "slots": 1,
        "since": now(),
        "seen_at": now(),
    }
    return Worker(**{**values, **others})


class Received:
    """One server-sent event, and comments as events without a name."""

    def __init__(self, lines: list[str]) -> None:
        fields: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        self.comment = " ".join(fields.get("", []))
        self.name = fields.get("event", [""])[0]
        self.id = int(fields["id"][0]) if "id" in fields else None
        self.data: dict[str, Any] = json.loads("\n".join(fields["data"])) if "data" in fields else {}

    def __repr__(self) -> str:
        return f"<{self.id} {self.name or self.comment} {self.data.get('number')}>"


async def events(
    http: httpx.AsyncClient, path: str, *, last_event_id: int | None = None, **headers: str
) -> AsyncIterator[Received]:
    """Everything that one connection brings, comments too."""
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    async with http.stream("GET", path, headers=headers, timeout=httpx.Timeout(10, read=20)) as response:
        if response.status_code != 200:
            await response.aread()
            response.raise_for_status()
        lines: list[str] = []
        async for line in response.aiter_lines():
            if line:
                lines.append(line)
            elif lines:
                yield Received(lines)
                lines = []


async def until_ready(connected: httpx.AsyncClient) -> None:
    """Wait until the gateway would take a job: it answers before it has reached its bus."""
    async with asyncio.timeout(10):
        while (await connected.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)
