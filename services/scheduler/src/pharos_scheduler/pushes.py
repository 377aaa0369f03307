"""Pushes to branches that are watched: when they rest, the newest becomes a job.

The pushes to a branch stand in a message that the bus holds until nobody has pushed for a while, or for as
long as a branch may keep everybody waiting. Another push replaces the message by one that holds both, and no
two can replace the same one. So no push is in the memory of any process. Each step here may be repeated, by a
second delivery or by another leader: the gateway gave the job of each push its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol, assert_never

import msgspec
import structlog
from msgspec.structs import replace

from pharos_contracts.control.v1 import Push
from pharos_contracts.jobs.v1 import SubmitJob
from pharos_contracts.message import Message
from pharos_contracts.subjects import Due, push_due
from pharos_scheduler.ports import Clock
from pharos_scheduler.schedules import REWRITES_MAX, TRY_AGAIN_SECONDS, Later, Merged, Submissions, Submitted
from pharos_service.bus import BusError

log = structlog.get_logger()

# A branch that never rests is indexed after this many times the rest that is waited for.
RESTS_MAX: Final = 12
# Enough to find the newest of those that overtook each other on their way.
PUSHES_KEPT_MAX: Final = 32


class HeldPushes(Message, frozen=True, kw_only=True, tag="pushes.command.v1.held"):
    """Please submit the newest of ``pushes``, of which the first was held at ``since``."""

    pushes: tuple[Push, ...]
    since: datetime


class Held(msgspec.Struct, frozen=True):
    """What the bus holds for a branch, and the sequence to name when replacing it.

    ``pushes`` is None where what is held cannot be read.
    """

    pushes: HeldPushes | None
    sequence: int


class PushStore(Protocol):
    """Messages that arrive later, at most one for each branch."""

    async def now(self) -> datetime:
        """What the clock shows that they arrive by."""
        ...

    async def held(self, due: Due) -> Held | None: ...

    async def hold(self, due: Due, pushes: HeldPushes, at: datetime, after: int) -> bool:
        """Whether *pushes* will arrive at *at*, or now if that has passed, instead of those at *after*.

        Not if others took the place of *after* (0: of none) meanwhile.
        """
        ...


def joined(before: Sequence[Push], arrived: Sequence[Push]) -> tuple[Push, ...]:
    """Both, in the order of their arrival, each once; of too many, the newest and those that came last."""
    known = {push.job.job_id for push in before}
    both = (*before, *(push for push in arrived if push.job.job_id not in known))
    if len(both) <= PUSHES_KEPT_MAX:
        return both
    first = newest(both)
    others = [push for push in both if push is not first]
    return (first, *others[1 - PUSHES_KEPT_MAX :])


def newest(pushes: Sequence[Push]) -> Push:
    """The push that left the branch as it is, in whatever order they arrived.

    It is one that no other went on from; if there are several, or none because somebody pushed back and
    forth, the latest by the clock of the sender, and of the same second the one that arrived last.
    """
    left = {push.before for push in pushes}
    candidates = [push for push in pushes if _commit(push) not in left] or list(pushes)
    return max(enumerate(candidates), key=lambda each: (each[1].pushed_at, each[0]))[1]


def _commit(push: Push) -> str | None:
    """What was pushed."""
    assert push.job.source is not None, "a push is one to a repository"
    return push.job.source.sha


def rests_at(since: datetime, now: datetime, rest_seconds: float) -> datetime:
    """When pushes that were first held at *since* are over, if none comes after *now*."""
    rest = timedelta(seconds=rest_seconds)
    return min(now + rest, since + RESTS_MAX * rest)


def command_of(push: Push, now: datetime) -> SubmitJob | None:
    """The command to submit; its time to live is what the wait has left of it. None where that is nothing."""
    job = push.job
    left = job.ttl_seconds - int((now - job.submitted_at).total_seconds())
    return replace(job, submitted_at=now, ttl_seconds=min(left, job.ttl_seconds)) if left >= 1 else None


class Pushes:
    """The use cases."""

    def __init__(
        self, store: PushStore, submissions: Submissions, *, now: Clock, rest_seconds: float
    ) -> None:
        self._store = store
        self._submissions = submissions
        self._now = now
        self._rest_seconds = rest_seconds

    async def arrive(self, push: Push) -> None:
        """Somebody pushed."""
        await self._hold(push_due(push), (push,))
        log.info("push_held", tenant=push.job.tenant, watch_id=push.watch_id, job_id=push.job.job_id)

    async def due(self, due: Due, arrived: HeldPushes) -> None:
        """The pushes to a branch rest: in time, late, or again."""
        held = await self._store.held(due)
        if held is not None and held.pushes is not None:
            # Somebody pushed meanwhile: what rests joins what does not.
            await self._hold(due, arrived.pushes, arrived.since)
            return
        push = newest(arrived.pushes)
        command = command_of(push, self._now())
        if command is None:
            log.warning("push_given_up", tenant=due.tenant, watch_id=push.watch_id)
            return
        match await self._submissions.submit(command):
            case Submitted():
                outcome, job_id = "submitted", command.job_id
            case Merged(job_id=other, state=state):
                outcome, job_id = f"already {state}", other
            case Later(reason=reason):
                log.info("push_waits", tenant=due.tenant, watch_id=push.watch_id, reason=reason)
                await self._hold(due, arrived.pushes, arrived.since, again_seconds=TRY_AGAIN_SECONDS)
                return
            case never:
                assert_never(never)
        log.info("push_submitted", tenant=due.tenant, watch_id=push.watch_id, outcome=outcome, job_id=job_id)

    async def _hold(
        self,
        due: Due,
        pushes: Sequence[Push],
        since: datetime | None = None,
        *,
        again_seconds: float | None = None,
    ) -> None:
        """Let the bus hold *pushes*, and those that it holds; for *again_seconds*, if no other one comes."""
        for _ in range(REWRITES_MAX):
            held = await self._store.held(due)
            before = held.pushes if held is not None else None
            now = await self._store.now()
            first = min(since or now, before.since if before is not None else now)
            if again_seconds is not None and before is None:
                at = now + timedelta(seconds=again_seconds)
            else:
                at = rests_at(first, now, self._rest_seconds)
            both = joined(before.pushes, pushes) if before is not None else tuple(pushes)
            wanted = HeldPushes(pushes=both, since=first)
            if wanted == before:
                return
            if await self._store.hold(due, wanted, at, held.sequence if held is not None else 0):
                return
        raise BusError(f"the pushes of {due.id} changed {REWRITES_MAX} times")
