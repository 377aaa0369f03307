"""Pushes that GitHub tells of: believed if they are signed, taken once, and handed to the scheduler.

A push is stored on CONTROL before GitHub is answered, and nobody is waited for. Whatever ends between that
and the answer leaves a push that GitHub believes lost: sent again, it asks for the same job.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec
import structlog

from pharos_contracts.control.v1 import Push
from pharos_contracts.identity import fingerprint, uuid7, work_key
from pharos_contracts.jobs.v1 import SubmitJob, Trigger
from pharos_contracts.message import Message
from pharos_contracts.subjects import control_subject
from pharos_contracts.watches.v1 import Watch
from pharos_gateway import github
from pharos_gateway.authentication import Unauthenticated
from pharos_gateway.github import Ignored, Pushed, UnreadableDelivery
from pharos_gateway.reachability import Unreachable
from pharos_gateway.watch_store import WatchStore
from pharos_gateway.watching import key_of
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import InvalidRepositoryUrl, parse_repository_url
from pharos_sources.sealing import Sealer, Unopenable

log = structlog.get_logger()

RECEIVE_SECONDS: Final = 0.9
WINDOW: Final = timedelta(days=1)  # for as long the bucket remembers what was taken

REPEATED: Final = "this push was taken already"


class UnknownSignature(Unauthenticated):
    """Nobody here watches this repository with a secret that makes this signature."""


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of something that GitHub sent: ``accepted``, ``ignored`` or, of a ping, ``pong``.

    ``job_id`` is that of the job which follows, unless somebody pushes to the branch again before it starts.
    """

    status: str
    detail: str
    branch: str | None = None
    sha: str | None = None
    job_id: str | None = None


class TakenPush(Message, frozen=True, kw_only=True, tag="idempotency.view.v1.push"):
    """A push that was taken, and the job that it is for."""

    job_id: str


class Quota(Protocol):
    """How many jobs somebody may start: see ``quotas.JobQuota``."""

    async def spend(self, user: str) -> None: ...

    def give_back(self, user: str) -> None: ...


class Pushing:
    """The use case. Errors of the bus pass through."""

    def __init__(
        self,
        bus: Bus,
        watches: Bucket[Watch],
        store: WatchStore,
        sealer: Sealer | None,
        taken: Bucket[TakenPush],
        *,
        allowed_hosts: AllowedHosts,
        jobs_of_the_day: Quota,
        check_disk: Callable[[], None],
        ttl_seconds: int,
        now: Callable[[], datetime],
    ) -> None:
        self._bus = bus
        self._watches = watches
        self._store = store
        self._sealer = sealer
        self._taken = taken
        self._allowed_hosts = allowed_hosts
        self._jobs_of_the_day = jobs_of_the_day
        self._check_disk = check_disk
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._nobodys = secrets.token_bytes(32)

    async def receive(
        self, body: bytes, *, signature: str | None, event: str | None, content_type: str | None
    ) -> Received:
        """What follows from *body*.

        UnknownSignature, UnreadableDelivery, TooManyJobs, DiskNearlyFull; Unreachable where the bus does not
        answer within a second.
        """
        if not await self._store.known():
            raise Unreachable("The webhooks are not known yet")
        known = self._signer(body, signature, content_type)
        if known is None:
            raise UnknownSignature
        if event == github.PING:
            return Received(status="pong", detail=f"Pushes to {known.source.identity} are welcome")
        if event != github.PUSH:
            return Received(status="ignored", detail="Of GitHub's events only push is taken")
        now = self._now()
        meaning = github.meaning(body, content_type, known.branches, now=now, window=WINDOW)
        if isinstance(meaning, Ignored):
            return Received(status="ignored", detail=f"Nothing is indexed: {meaning.reason}")
        try:
            async with asyncio.timeout(RECEIVE_SECONDS):
                # Of a body GitHub makes one signature, and sends it with whatever headers.
                name = fingerprint(known.watch_id, (signature or "").lower())
                return await self._take(known, meaning, name, now)
        except TimeoutError as error:
            raise Unreachable("The bus does not answer") from error

    def _signer(self, body: bytes, signature: str | None, content_type: str | None) -> Watch | None:
        """The watch whose secret signed *body*; None where no watch of its repository did."""
        try:
            url = github.clone_url_of(body, content_type)
            watches = self._store.of_repository(
                parse_repository_url(url, allowed_hosts=self._allowed_hosts).key
            )
        except (UnreadableDelivery, InvalidRepositoryUrl):
            watches = ()
        signer = None
        for watch in watches:
            if github.is_signed(body, signature, self._secret(watch)):
                signer = watch
        if not watches:
            github.is_signed(body, signature, self._nobodys)  # so that it takes as long
        return signer

    def _secret(self, watch: Watch) -> bytes:
        """What pushes to *watch* are signed with; what nobody knows where that cannot be opened."""
        try:
            if self._sealer is None:
                raise Unopenable
            return self._sealer.open(watch.sealed, tenant=watch.tenant, connection_id=watch.watch_id)
        except Unopenable:
            log.error("watch_unopenable", tenant=watch.tenant, watch_id=watch.watch_id)
            return self._nobodys

    async def _take(self, known: Watch, pushed: Pushed, name: str, now: datetime) -> Received:
        entry = await self._watches.get(key_of(known.tenant, known.watch_id))
        if entry is None:  # it was removed a moment ago
            raise UnknownSignature
        watch = entry.value
        key = f"push.{name}"
        taken = await self._taken.get(key)
        if taken is not None:
            return Received(
                status="ignored",
                detail=f"Nothing is indexed: {REPEATED}",
                branch=pushed.branch,
                sha=pushed.sha,
                job_id=taken.value.job_id,
            )
        self._check_disk()
        if watch.quota is not None:
            await self._jobs_of_the_day.spend(watch.quota)
        push = push_of(watch, pushed, name, now=now, ttl_seconds=self._ttl_seconds)
        try:
            stored = await self._bus.publish(control_subject(push), push, message_id=f"push.{name}")
        except BaseException:
            self._give_back(watch)
            raise
        if stored.duplicate:
            self._give_back(watch)
        job_id = push.job.job_id
        try:
            await self._taken.create(key, TakenPush(job_id=job_id))
        except BusError as error:  # sent again it would be the same command once more
            log.info("push_not_remembered", job_id=job_id, reason=str(error))
        log.info("push_taken", tenant=watch.tenant, watch_id=watch.watch_id, job_id=job_id)
        return Received(
            status="accepted",
            detail=f"{watch.source.identity} is indexed as soon as the pushes to the branch rest",
            branch=pushed.branch,
            sha=pushed.sha,
            job_id=job_id,
        )

    def _give_back(self, watch: Watch) -> None:
        if watch.quota is not None:
            self._jobs_of_the_day.give_back(watch.quota)


def push_of(watch: Watch, pushed: Pushed, name: str, *, now: datetime, ttl_seconds: int) -> Push:
    """The command for a push called *name*. Its job has the same id wherever it is taken."""
    at = pushed.at or now
    unix_ms = max(0, int(at.timestamp() * 1000))
    job = SubmitJob(
        job_id=str(uuid7(unix_ms, bytes.fromhex(fingerprint("push", watch.tenant, name))[:10])),
        tenant=watch.tenant,
        key=work_key(
            project=watch.project,
            dataset=watch.dataset,
            repository=watch.repository_key,
            ref=pushed.sha,
        ),
        source=msgspec.structs.replace(watch.source, branch=pushed.branch, sha=pushed.sha),
        project=watch.project,
        dataset=watch.dataset,
        scope=watch.scope,
        priority=watch.priority,
        submitted_at=now,
        submitted_by=f"webhook:{watch.watch_id}",
        ttl_seconds=ttl_seconds,
        trigger=Trigger.WEBHOOK,
    )
    return Push(
        tenant=watch.tenant,
        by=job.submitted_by,
        at=now,
        reply_to="",
        watch_id=watch.watch_id,
        branch=pushed.branch,
        before=pushed.before,
        pushed_at=at,
        job=job,
    )
