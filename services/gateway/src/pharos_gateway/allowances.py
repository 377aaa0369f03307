"""Limits that several gateways keep together, without a question to the bus for each request.

What is left of an allowance stands in the bucket ``limits``, in the memory of the bus. A gateway takes a
lease of it, a twentieth of the limit, spends that by itself and takes the next one in time, while it still
has some. Only a burst that is faster than the bus waits for it. The first lease of somebody new is taken on
credit. So all gateways together may allow as many acts more than the limit as there are gateways times a
lease.

While the bus is away, each gateway keeps the whole limit by itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from time import time
from typing import Final

import structlog

from pharos_contracts.identity import fingerprint
from pharos_contracts.limits.v1 import Allowance
from pharos_contracts.message import UnreadableMessage
from pharos_gateway import rates
from pharos_gateway.rates import Level, Limit, Spent
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import BusError
from pharos_service.ending import end

log = structlog.get_logger()

RENEW_SECONDS: Final = 0.25
RENEWALS_MAX: Final = 256
TRIES_MAX: Final = 5
EMPTY_SECONDS_MIN: Final = 0.25
EMPTY_SECONDS_MAX: Final = 60.0
SUBJECTS_MAX: Final = 10_000


class _Lease:
    """What one gateway holds of one allowance."""

    def __init__(self, limit: Limit, key: str) -> None:
        self.limit = limit
        self.key = key
        self.held = float(limit.lease)
        self.owed = float(limit.lease)
        self.shared: Level | None = None  # as it was last seen
        self.revision = 0
        self.alone: Level | None = None  # counts while the bus is away
        self.empty_until = 0.0
        self.renewing: asyncio.Task[None] | None = None

    def tokens(self, now: float) -> float:
        """What can be spent, here and in the bucket."""
        return min(
            float(self.limit.tokens), self.held - self.owed + rates.tokens_at(self.limit, self.shared, now)
        )


class Allowances:
    """Spends what is allowed. One object serves every request of a process."""

    def __init__(
        self,
        bucket: Bucket[Allowance],
        *,
        now: Callable[[], float] = time,
        subjects_max: int = SUBJECTS_MAX,
    ) -> None:
        self._bucket = bucket
        self._now = now
        self._subjects_max = subjects_max
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._renewals: set[asyncio.Task[None]] = set()

    async def spend(self, limit: Limit, subject: str) -> Spent:
        """One act of *subject*."""
        lease = self._lease(limit, subject)
        now = self._now()
        if lease.held < 1 and now >= lease.empty_until:
            await self._renewed(lease)
            now = self._now()
        allowed = lease.held >= 1
        if allowed:
            lease.held -= 1
            if (lease.owed or lease.held < limit.lease / 2) and now >= lease.empty_until:
                self._renew(lease)
        return rates.spent(limit, lease.tokens(now), allowed=allowed)

    def give_back(self, limit: Limit, subject: str) -> None:
        """An act that was spent did not happen."""
        self._lease(limit, subject).held += 1

    async def close(self) -> None:
        """Leave what is on its way."""
        await end(*self._renewals)

    def _lease(self, limit: Limit, subject: str) -> _Lease:
        key = f"{limit.name}.{fingerprint(subject)}"
        lease = self._leases.get(key)
        if lease is None or lease.limit != limit:
            lease = self._leases[key] = _Lease(limit, key)
            while len(self._leases) > self._subjects_max:
                self._leases.popitem(last=False)
        self._leases.move_to_end(key)
        return lease

    def _renew(self, lease: _Lease) -> asyncio.Task[None] | None:
        """The renewal under way, or a new one; None where too many are."""
        if lease.renewing is None:
            if len(self._renewals) >= RENEWALS_MAX:
                return None
            task = lease.renewing = asyncio.create_task(self._take(lease), name="lease-allowance")
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)
        return lease.renewing

    async def _renewed(self, lease: _Lease) -> None:
        task = self._renew(lease)
        if task is None:
            self._take_alone(lease)
        else:
            await asyncio.wait({task}, timeout=RENEW_SECONDS)

    async def _take(self, lease: _Lease) -> None:
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await self._take_shared(lease)
        except (BusError, UnreadableMessage, TimeoutError) as error:
            log.debug("allowance_not_shared", reason=str(error))
            self._take_alone(lease)
        finally:
            lease.renewing = None

    async def _take_shared(self, lease: _Lease) -> None:
        """What is in the bucket is what it was last seen to be, until the bus says otherwise."""
        limit = lease.limit
        for _ in range(TRIES_MAX):
            now = self._now()
            owed = lease.owed
            granted, left = rates.take(
                limit, lease.shared, owed=owed, wanted=max(0.0, limit.lease - lease.held), now=now
            )
            value = Allowance(tokens=left.tokens, at=datetime.fromtimestamp(now, UTC))
            revision = await self._bucket.update(
                lease.key, value, lease.revision, ttl_seconds=max(1, round(limit.seconds))
            )
            if revision is not None:
                lease.shared, lease.revision, lease.alone = left, revision, left
                lease.owed -= owed
                self._hold(lease, granted, left, now)
                return
            self._see(lease, await self._bucket.get(lease.key))
        raise BusError("Too many gateways renew this at once")

    def _see(self, lease: _Lease, entry: Entry[Allowance] | None) -> None:
        if entry is None:
            lease.shared, lease.revision = None, 0
        else:
            lease.shared = Level(entry.value.tokens, entry.value.at.timestamp())
            lease.revision = entry.revision

    def _take_alone(self, lease: _Lease) -> None:
        """Nothing is owed to a bucket that nobody can reach."""
        now = self._now()
        granted, lease.alone = rates.take(
            lease.limit,
            lease.alone,
            owed=lease.owed,
            wanted=max(0.0, lease.limit.lease - lease.held),
            now=now,
        )
        lease.owed, lease.shared = 0.0, lease.alone
        self._hold(lease, granted, lease.alone, now)

    def _hold(self, lease: _Lease, granted: float, left: Level, now: float) -> None:
        lease.held += granted
        missing = (1 - left.tokens) / lease.limit.per_second
        if lease.held < 1 or missing > 0:
            # Whoever knocks all the time need not make the bus answer all the time.
            lease.empty_until = now + min(max(missing, EMPTY_SECONDS_MIN), EMPTY_SECONDS_MAX)
