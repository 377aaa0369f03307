"""A whole Pharos around a real nats-server, but for HTTP and the work itself; and what is done to it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

from nats.aio.msg import Msg

from pharos_contracts import rpc, streams
from pharos_contracts.control.v1 import (
    Action,
    ControlJob,
    DescribeStore,
    InspectDatasets,
    InspectedDatasets,
    PurgeDeadLetter,
    ReplayDeadLetter,
    StoreContents,
)
from pharos_contracts.invariants import Snapshot
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode, encode
from pharos_scheduler.app import LEASE_KEY
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, connect
from pharos_service.bus_admin import apply
from pharos_service.bus_check import Unanswered, take_snapshot
from pharos_service.ending import end
from pharos_service.lease import Lease
from pharos_service.settings import ServiceSettings
from tests.stateful.asking import Owners
from tests.stateful.judging import Harm, Trouble
from tests.stateful.labour import Day
from tests.stateful.logbook import Logbook
from tests.stateful.members import Member, deliveries, history, scheduler, worker
from tests.stateful.processes import now_here
from tests.stateful.shelf import Shelf
from tests.stateful.short_times import short_bus
from tests.stateful.steps import (
    Again,
    Ask,
    Cut,
    Drain,
    Freeze,
    FreezeBus,
    Hold,
    Jump,
    Kill,
    Letter,
    Redeliver,
    Republish,
    RestartBus,
    Step,
    Submit,
    Wait,
    Who,
)
from tests.support.nats_server import NatsServer
from tests.support.proxy import Network, Proxy

HISTORY: Final = "history"
QUEUE_MAX: Final = 8
SCHEDULERS: Final = ("scheduler-1", "scheduler-2")
LINES_MAX: Final = 20
PACE_SECONDS: Final = 0.005
REMEMBERED: Final = 4
END_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1


class NeverEnds(Exception):
    """What is still open although nothing has been wrong with anything for a long time."""


class World:
    """One installation. Enter ``running`` once.

    ``troubles`` are those of the server; ``doubled`` the jobs whose items were delivered twice although their
    holder lives, which a server that runs never does by itself.
    """

    def __init__(self, server: NatsServer, network: Network, logbook: Logbook, workers: int) -> None:
        self.logbook = logbook
        self.shelf = Shelf()
        self.slots = workers
        self._server = server
        self._gateway = _line(network, server.port)
        self.members: dict[str, Member] = {
            name: scheduler(name, _line(network, server.port), logbook) for name in SCHEDULERS
        }
        for number in range(1, workers + 1):
            name = f"worker-{number}"
            self.members[name] = worker(name, _line(network, server.port), logbook, self.shelf, self._day)
        home = server.directory / "history"
        home.mkdir()
        self.members[HISTORY] = history(HISTORY, _line(network, server.port), logbook, home)
        self.items: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED)
        self.troubles: list[Trouble] = []
        self.doubled: set[str] = set()
        self._deliveries: deque[Msg] = deque()
        self._bus_lock = asyncio.Lock()
        self._doing: set[asyncio.Task[None]] = set()
        self._healed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything is up; at the end it is all killed."""
        url = f"nats://127.0.0.1:{self._server.port}"
        self.bus = await connect(ServiceSettings(nats_url=url), "test")
        gateway = await connect(ServiceSettings(nats_url=f"nats://127.0.0.1:{self._gateway.port}"), "gateway")
        await apply(self.bus, short_bus(QUEUE_MAX), 1)
        self.owners = Owners(gateway, self.bus, self.logbook)
        await self.owners.listen()
        await self.bus.client.subscribe("work.>", cb=self._note_item)
        await self.bus.client.subscribe(rpc.STORE, cb=self._describe_store)
        with deliveries(REMEMBERED) as self._deliveries:
            keepers = [asyncio.create_task(member.keep()) for member in self.members.values()]
            try:
                yield
            finally:
                await end(*self._doing, *keepers)
                await gateway.client.close()
                await self.bus.client.close()

    def _day(self, job_id: str, run: int) -> Day:
        """Once everything is healed, work goes well too."""
        days = self.owners.days.get(job_id, ())
        return days[run] if run < len(days) and not self._healed else Day.QUICK

    async def _note_item(self, message: Msg) -> None:
        self.items.append((message.subject, message.data))

    async def _describe_store(self, message: Msg) -> None:
        question: DescribeStore | InspectDatasets = decode(message.data, DescribeStore | InspectDatasets)
        answer: StoreContents | InspectedDatasets = StoreContents(generations=self.shelf.contents())
        if isinstance(question, InspectDatasets):
            answer = InspectedDatasets(datasets=tuple(map(self.shelf.inspect, question.datasets)))
        await self.bus.client.publish(message.reply, encode(answer))

    # What is done to it

    async def take(self, step: Step) -> None:
        """Begin *step*; what lasts goes on beside the steps that follow."""
        self.logbook.write("step", repr(step))
        match step:
            case Submit():
                self._do(self.owners.submit(step))
            case Again():
                self._do(self.owners.submit_again(step.job))
            case Ask():
                self._do(self._ask(step.action, self.owners.accepted_one(step.job)))
            case Letter():
                self._do(self._letter(step.replay, self.owners.accepted_one(step.job)))
            case Kill():
                (await self._member(step.who)).kill(step.back_seconds)
            case Drain():
                self._do(self._drain(await self._member(step.who), step.patience_seconds))
            case Freeze():
                self._do(self._freeze(await self._member(step.who), step.seconds))
            case Cut() | Hold():
                self._do(self._disconnect(step.who, step.seconds, cut=isinstance(step, Cut)))
            case RestartBus():
                self._do(self._restart_bus(step.down_seconds))
            case FreezeBus():
                self._do(self._freeze_bus(step.seconds))
            case Jump():
                (await self._member(step.who)).clock.ahead_seconds = step.ahead_seconds
            case Redeliver():
                self._do(self._redeliver(step.nth))
            case Republish():
                self._do(self._republish(step.nth))
            case Wait():
                await asyncio.sleep(step.seconds)
            case _:
                raise AssertionError(step)
        await asyncio.sleep(PACE_SECONDS)

    def _do(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(act)
        self._doing.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._doing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.logbook.write("test", "a step failed", error=repr(task.exception()))

    async def _member(self, who: Who) -> Member:
        if who not in (Who.LEADER, Who.STANDBY):
            return self.members[who]
        leader = SCHEDULERS[0]
        try:
            entry = await Bucket(self.bus, streams.KV_LEASE, Lease).get(LEASE_KEY)
            if entry is not None:
                leader = entry.value.holder.partition(".")[0]
        except TROUBLE:
            pass  # nobody leads without a bus
        (other,) = set(SCHEDULERS) - {leader}
        return self.members[leader if who is Who.LEADER else other]

    async def _ask(self, action: Action, job_id: str | None) -> None:
        if job_id is not None:
            await self.owners.ask(
                ControlJob(
                    tenant=self.owners.tenant_of[job_id],
                    by="owner",
                    at=now_here(),
                    reply_to=self.owners.reply_to(),
                    job_id=job_id,
                    action=action,
                ),
                job_id,
                action,
            )

    async def _letter(self, replay: bool, job_id: str | None) -> None:
        if job_id is not None:
            kind = ReplayDeadLetter if replay else PurgeDeadLetter
            command = kind(
                tenant=None, by="operator", at=now_here(), reply_to=self.owners.reply_to(), letter_id=job_id
            )
            await self.owners.ask(command, job_id, None)

    async def _drain(self, member: Member, patience_seconds: float) -> None:
        drain = member.drain
        member.tell(drain.begin)
        await asyncio.sleep(patience_seconds)
        member.tell(drain.hurry)

    async def _freeze(self, member: Member, seconds: float) -> None:
        process = member.process
        harm = member.freeze()
        await asyncio.sleep(seconds)
        if process is not None:
            process.thaw()
        harm.ended = time.time()

    async def _disconnect(self, who: Who, seconds: float, *, cut: bool) -> None:
        harm: Harm | None = None
        if who is Who.GATEWAY:
            proxy = self._gateway
        else:
            member = await self._member(who)
            harm = member.harm()
            proxy = member.proxy
        if cut:
            proxy.cut()
        else:
            proxy.hold()
        await asyncio.sleep(seconds)
        proxy.heal()
        if harm is not None:
            harm.ended = time.time()

    async def _restart_bus(self, down_seconds: float) -> None:
        async with self._bus_lock:
            began = time.time()
            await asyncio.to_thread(self._server.kill)
            await asyncio.sleep(down_seconds)
            await asyncio.to_thread(self._server.start)
            self.troubles.append(Trouble(began, time.time(), crashed=True))

    async def _freeze_bus(self, seconds: float) -> None:
        async with self._bus_lock:
            began = time.time()
            self._server.freeze()
            await asyncio.sleep(seconds)
            self._server.thaw()
            self.troubles.append(Trouble(began, time.time(), crashed=False))

    async def _redeliver(self, nth: int) -> None:
        if self._deliveries:
            message = self._deliveries[nth % len(self._deliveries)]
            self.doubled.add(_job_of(message.subject))
            await self.bus.client.publish(message.reply, b"-NAK")

    async def _republish(self, nth: int) -> None:
        if self.items:
            subject, item = self.items[nth % len(self.items)]
            self.doubled.add(_job_of(subject))
            await self.bus.publish(subject, item, message_id=f"again-{uuid4()}")

    # Until all is well again

    async def heal(self) -> None:
        """What lasts comes to its end, and nothing is wrong with anything any more."""
        self.logbook.write("step", "everything is healed")
        self._healed = True
        if self._doing:
            await asyncio.wait(self._doing)
        for member in self.members.values():
            member.clock.ahead_seconds = 0.0

    async def settle(self) -> Snapshot:
        """Until every job has ended and nothing waits; its owners resume or cancel what they paused.

        NeverEnds where that takes too long.
        """
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        freed: dict[str, int] = {}
        while True:
            try:
                snapshot = await take_snapshot(self.bus, history=False, index=False)
            except (Unanswered, *TROUBLE):
                snapshot = None
            if snapshot is not None:
                left = _left(snapshot, self.owners.accepted)
                if not left:
                    return snapshot
                if asyncio.get_running_loop().time() > deadline:
                    raise NeverEnds("\n".join(left))
                for number, job in enumerate(snapshot.jobs.values()):
                    if job.state is JobState.PAUSED and freed.get(job.job_id) != job.sequence:
                        freed[job.job_id] = job.sequence
                        await self._ask(Action.CANCEL if number % 2 else Action.RESUME, job.job_id)
            await asyncio.sleep(POLL_SECONDS)


def _line(network: Network, port: int) -> Proxy:
    """A way to *port*; another test may take the port that was free a moment ago."""
    for _ in range(LINES_MAX):
        try:
            return network.proxy(port)
        except OSError:
            continue
    raise RuntimeError("no free port was found")


def _job_of(subject: str) -> str:
    """The id of the job, from ``work.<pool>.<job>.<item>``."""
    return subject.split(".")[2]


def _left(snapshot: Snapshot, accepted: list[str]) -> list[str]:
    """What is still to come, a line for each."""
    lines = [f"Job {job.job_id} is {job.state}." for job in snapshot.jobs.values() if job.is_open]
    lines += [f"Job {job_id} has no event." for job_id in accepted if job_id not in snapshot.jobs]
    lines += [f"Q holds the command of job {entry.job_id}." for entry in snapshot.queue]
    lines += [f"WORK holds item {item.item_id} of job {item.job_id}." for item in snapshot.work]
    lines += [f"Command {command.sequence} ({command.subject}) waits." for command in snapshot.commands]
    return lines
