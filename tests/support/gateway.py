"""A gateway on a free port, and the other services as far as a test of the gateway needs them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
from msgspec.structs import replace
from nats.aio.msg import Msg

from pharos_contracts import rpc, subjects
from pharos_contracts.control.v1 import (
    Action,
    AnyCommand,
    AskPlace,
    ControlJob,
    Controlled,
    CreateBatch,
    Place,
)
from pharos_contracts.datasets.v1 import DatasetDeleted, DeleteDataset, FindDatasets, FoundDatasets
from pharos_contracts.identity import uuid7
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    NO_NUMBER,
    DocumentSource,
    IndexResult,
    Job,
    JobEvent,
    JobKind,
    RepositorySource,
    job_of,
)
from pharos_contracts.lifecycle import IllegalTransition, JobState, Signal, advance
from pharos_contracts.message import Message, decode, encode
from pharos_contracts.rpc import Refused
from pharos_contracts.streams import CONTROL, JOBS, KV_LEASE, SCHEDULER_CONTROL
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_gateway.happenings import read
from pharos_gateway.settings import Settings
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError
from pharos_service.ending import end
from pharos_service.lease import Lease
from pharos_service.pull import durable
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


def document_job(number: int, state: JobState = JobState.QUEUED, **others: Any) -> Job:
    """A job of a note of tenant ``default``, the same one for the same *number*, which it does not bear."""
    document = DocumentSource(label="notes", identity=f"note-{number}", object_name=f"o-{number}")
    values = {"job_id": job(number).job_id, "key": f"k{number}"}
    return job(
        NO_NUMBER, state, **{**values, "kind": JobKind.TEXT, "source": None, "document": document, **others}
    )


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


Decide = Callable[[AnyCommand, int], Message | None]


class Scheduler:
    """A scheduler that leads, as far as the gateway can tell.

    It answers commands over jobs by the table of the lifecycle and whatever else by ``decide``; None is
    silence. ``place`` None is silence too.
    """

    def __init__(self, bus: Bus, decide: Decide | None = None) -> None:
        self._bus = bus
        self.decide = decide
        self.commands: list[AnyCommand] = []
        self.asked: list[Job] = []
        self.place: Place | None = Place(position=1, waiting=1)
        self.deaf = False  # carries out, but its answers are lost

    async def carry_out(self, command: AnyCommand, sequence: int) -> Message | None:
        if self.decide is not None:
            return self.decide(command, sequence)
        if isinstance(command, CreateBatch):
            created = replace(job_of(command.job, NO_NUMBER), state=JobState.PENDING, control=sequence)
            await History(self._bus).tell(created, JobState.PENDING)
            return Controlled(job=created)
        assert isinstance(command, ControlJob), "say what to answer to this"
        known = await self._bus.last(JOBS, f"events.job.{command.tenant or '*'}.{command.job_id}.*")
        if known is None:
            return Refused(code="not_found", detail="There is no such job", status=404)
        happening = read(known.sequence, known.data, lambda _: None)
        assert happening is not None and isinstance(happening.event, JobEvent)
        found = happening.event.job
        try:
            signal = Signal.ENQUEUE if command.action is Action.START else Signal(command.action)
            state = advance(found.state, signal, batch=found.batch is not None)
        except IllegalTransition as error:
            detail = f"Cannot {command.action} a {error.state} job"
            return Refused(code="invalid_transition", detail=detail, status=409)
        changes = {
            "controlled_by": command.by,
            "control": sequence,
            "paused_at": now() if state is JobState.PAUSED else None,
        }
        await History(self._bus).tell(found, state, **changes)
        return Controlled(job=replace(found, state=state, **changes))

    async def run(self) -> None:
        async def tell_place(message: Msg) -> None:
            self.asked.append(decode(message.data, AskPlace).job)
            if self.place is not None:
                await message.respond(encode(self.place))

        subscription = await self._bus.client.subscribe(rpc.SCHEDULER, cb=tell_place)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._lead)
                tasks.start_soon(self._control)
        finally:
            await subscription.unsubscribe()

    async def _lead(self) -> None:
        lease = Bucket(self._bus, KV_LEASE, Lease)
        while True:
            with contextlib.suppress(BusError):
                await lease.put("scheduler", Lease(holder="fake"))
            await asyncio.sleep(0.5)

    async def _control(self) -> None:
        async with aclosing(durable(self._bus, CONTROL, SCHEDULER_CONTROL, batch=1)) as messages:
            async for message in messages:
                command: AnyCommand = decode(message.data, AnyCommand)
                self.commands.append(command)
                answer = await self.carry_out(command, message.metadata.sequence.stream)
                await message.ack()  # first, so that a test which ends with the answer leaves none in hand
                if answer is not None and not self.deaf:
                    await self._bus.client.publish(command.reply_to, encode(answer))


@asynccontextmanager
async def leading(bus: Bus, decide: Decide | None = None) -> AsyncIterator[Scheduler]:
    """A scheduler that leads while the block runs."""
    scheduler = Scheduler(bus, decide)
    running = asyncio.create_task(scheduler.run())
    try:
        async with asyncio.timeout(10):
            while await Bucket(bus, KV_LEASE, Lease).get("scheduler") is None:
                await asyncio.sleep(0.01)
        yield scheduler
    finally:
        await end(running)


class Shelf:
    """The owner of the store, as far as the gateway can tell: which datasets there are, and their vectors.

    ``step`` is how many vectors it deletes at once.
    """

    def __init__(self, *, step: int = 1_000_000) -> None:
        self.holds: dict[tuple[str, str, str], int] = {}
        self.repositories: dict[tuple[str, str, str], str] = {}
        self.asked: list[FindDatasets | DeleteDataset] = []
        self._step = step

    def put(self, name: str, vectors: int, *, repository: str, project: str = "default") -> None:
        key = ("default", project, name)
        self.holds[key], self.repositories[key] = vectors, repository

    async def answer(self, question: FindDatasets | DeleteDataset) -> Message:
        self.asked.append(question)
        if isinstance(question, FindDatasets):
            place = (question.tenant, question.project)
            return FoundDatasets(
                datasets=tuple(
                    key[2]
                    for key in self.holds
                    if key[:2] == place
                    and question.dataset in (None, key[2])
                    and question.repository in (None, self.repositories[key])
                )
            )
        key = (question.tenant, question.project, question.dataset)
        there = self.holds.pop(key, 0)
        gone = min(there, self._step)
        if there > gone:
            self.holds[key] = there - gone
        return DatasetDeleted(generation=question.generation or 9, vectors=gone, left=there > gone)


@asynccontextmanager
async def shelving(bus: Bus, *, step: int = 1_000_000) -> AsyncIterator[Shelf]:
    """Somebody owns the store while the block runs."""
    shelf = Shelf(step=step)

    async def respond(message: Msg) -> None:
        question = decode(message.data, FindDatasets | DeleteDataset)
        await message.respond(encode(await shelf.answer(question)))

    subscription = await bus.client.subscribe(rpc.STORE, cb=respond)
    try:
        yield shelf
    finally:
        await subscription.unsubscribe()


class Call:
    """One request that a receiver of callbacks took."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Receiver:
    """A server on a free port that takes callbacks, and answers to each path as a test says.

    ``answers`` maps a path to the whole answers, of which the last one is given again and again; 204 else.
    ``gate`` holds every answer back until it is set.
    """

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self._tls = tls
        self.port = 0
        self.calls: list[Call] = []
        self.answers: dict[str, list[bytes]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.open = 0
        self.open_most = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.open_most = max(self.open_most, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            path = head[0].split(" ")[1]
            self.calls.append(Call(path, headers, body))
            await self.gate.wait()
            script = self.answers.get(path.partition("?")[0], [])
            answer = script.pop(0) if len(script) > 1 else (script or [status(204)])[0]
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def until(self, count: int) -> list[Call]:
        """The calls, as soon as there are *count* of them."""
        async with asyncio.timeout(20):
            while len(self.calls) < count:
                await asyncio.sleep(0.01)
        return self.calls

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        self._server.close()
        await self._server.wait_closed()


def status(code: int, *headers: str) -> bytes:
    """A whole answer of that status."""
    lines = [f"HTTP/1.1 {code} x", "Content-Length: 0", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()
