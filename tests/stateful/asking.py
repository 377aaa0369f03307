"""What owners ask, as a gateway sends it, and what they were told: the side of the truth that people see."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from nats.aio.msg import Msg

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import Action, AnyCommand, Controlled, Purged, Scheduled
from pharos_contracts.identity import uuid7
from pharos_contracts.jobs.v1 import ActiveJob
from pharos_contracts.message import decode
from pharos_contracts.rpc import Refused
from pharos_gateway.finding import Finder
from pharos_gateway.placing import Places
from pharos_gateway.queueing import Queue
from pharos_gateway.submitting import (
    Order,
    QueueFull,
    QueueUnavailable,
    Remembered,
    Submitted,
    Submitting,
)
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus, FateUnknown
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url
from tests.stateful.labour import Day
from tests.stateful.logbook import Logbook
from tests.stateful.processes import now_here
from tests.stateful.short_times import SUBMIT_SECONDS
from tests.stateful.steps import Submit

TENANTS: Final = ("ada", "bob", "eve")
ANYWHERE: Final = AllowedHosts()


class Answer(msgspec.Struct, frozen=True):
    """What the scheduler said, and when it was heard."""

    at: float
    said: Controlled | Purged | Scheduled | Refused


class Asked(msgspec.Struct, kw_only=True):
    """A command. ``sequence`` is its number on CONTROL; None while that is not known."""

    job_id: str
    action: Action | None  # None: of a dead letter
    reply_to: str
    at: float
    sequence: int | None = None
    answers: list[Answer] = msgspec.field(default_factory=list)


class Sent(msgspec.Struct, kw_only=True):
    """A submit. ``job_id`` is the one that it would start; ``told`` what the caller heard, None: nothing."""

    job_id: str
    key: str | None
    told: Submitted | QueueFull | QueueUnavailable | None = None


class Owners:
    """Everybody who asks. ``accepted`` are the jobs that somebody was told of, in the order of telling."""

    def __init__(self, gateway: Bus, listener: Bus, logbook: Logbook) -> None:
        self.sent: list[Sent] = []
        self.asked: list[Asked] = []
        self.accepted: list[str] = []
        self.tenant_of: dict[str, str] = {}
        self.days: dict[str, tuple[Day, ...]] = {}
        self._steps: dict[str, Submit] = {}
        self._gateway = gateway
        self._listener = listener
        self._logbook = logbook
        self._by_reply: dict[str, Asked] = {}
        self._inbox = listener.client.new_inbox()
        self._number = 0

    async def listen(self) -> None:
        await self._listener.client.subscribe(f"{self._inbox}.*", cb=self._hear)

    async def submit_again(self, number: int) -> None:
        job_id = self.accepted_one(number)
        if job_id is not None:
            await self.submit(replace(self._steps[job_id], key=None))

    async def submit(self, step: Submit) -> None:
        self._number += 1
        at = int(time.time() * 1000)
        job_id = str(uuid7(at, self._number.to_bytes(10, "big")))
        tenant = TENANTS[step.tenant]
        self._logbook.call(job_id, f"job-{self._number}")
        self.days[job_id] = step.days
        self._steps[job_id] = step
        self.tenant_of[job_id] = tenant
        key = None if step.key is None else f"{step.repository}-{step.branch}-{step.key}"
        sent = Sent(job_id=job_id, key=None if key is None else f"{tenant}-{key}")
        self.sent.append(sent)
        order = Order(
            tenant=tenant,
            user="u",
            address=parse_repository_url(f"https://github.com/o/r{step.repository}", allowed_hosts=ANYWHERE),
            branch="dev" if step.branch else None,
            priority=step.priority,
            idempotency_key=key,
        )
        try:
            sent.told = await self._submitting(job_id, step.ttl_seconds).submit(order)
        except (QueueFull, QueueUnavailable) as refusal:
            sent.told = refusal
        self._logbook.write("owner", f"submits {job_id}", told=repr(sent.told))
        if isinstance(sent.told, Submitted) and sent.told.id not in self.accepted:
            self.accepted.append(sent.told.id)

    def _submitting(self, job_id: str, ttl_seconds: int) -> Submitting:
        bus = self._gateway
        queue, documents = Queue(bus), Queue(bus, streams.DOCS)
        nobody: Any = _Nobody()
        return Submitting(
            bus,
            queue,
            documents,
            Finder(bus, queue, documents, nobody),
            nobody,
            Places(bus),
            active=Bucket(bus, streams.KV_ACTIVE, ActiveJob),
            remembered=Bucket(bus, streams.KV_IDEMPOTENCY, Remembered),
            check_host=_any_host,
            ttl_seconds=ttl_seconds,
            tenant_queue_max=0,
            now=now_here,
            new_job_id=lambda: job_id,
            jobs_of_the_day=nobody,
            deadline_seconds=SUBMIT_SECONDS,
        )

    def accepted_one(self, number: int) -> str | None:
        """One of the jobs that were accepted, counted in a circle; None while there are none."""
        return self.accepted[number % len(self.accepted)] if self.accepted else None

    def reply_to(self) -> str:
        self._number += 1
        return f"{self._inbox}.{self._number}"

    async def ask(self, command: AnyCommand, job_id: str, action: Action | None) -> None:
        """Put *command* on CONTROL. Answers are noted whenever they come, however many."""
        asked = Asked(job_id=job_id, action=action, reply_to=command.reply_to, at=time.time())
        self.asked.append(asked)
        self._by_reply[command.reply_to] = asked
        try:
            asked.sequence = (await self._listener.publish(subjects.control_subject(command), command)).seq
        except TROUBLE as error:
            if not isinstance(error, FateUnknown):
                self.asked.remove(asked)
            self._logbook.write("owner", f"cannot ask {action} of {job_id}", error=repr(error))
            return
        self._logbook.write("owner", f"asks {action} of {job_id}", command=asked.sequence)

    async def _hear(self, message: Msg) -> None:
        asked = self._by_reply[message.subject]
        union: Any = Controlled | Purged | Scheduled | Refused
        said = decode(message.data, union)
        asked.answers.append(Answer(time.time(), said))
        short = said.job.state if isinstance(said, Controlled) else said
        self._logbook.write("owner", f"hears of {asked.action} of {asked.job_id}", said=repr(short))


class _Nobody:
    """No worker is known, and no job was seen lately: what is told of them is not looked at here."""

    def workers(self) -> tuple[()]:
        return ()

    def recent_durations_seconds(self, pool: str) -> tuple[()]:
        return ()


async def _any_host(_address: object) -> None:
    """Nothing is looked up: nobody clones."""
