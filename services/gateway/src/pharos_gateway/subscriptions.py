"""What one reader of an event stream still has to be sent, with a limit on each kind.

State events are kept in order up to a limit; beyond it the reader is told to come back, since leaving one
out would break the promise of every event once. Of progress and of workers only the latest matters, so a
slow reader costs one entry for each job or worker, and the oldest entries go first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from pharos_contracts.jobs.v1 import Job
from pharos_gateway.happenings import Happening, comment
from pharos_gateway.sight import Sight

EVENTS_MAX: Final = 1_000
LATEST_MAX: Final = 256
TOO_SLOW: Final = comment("too slow: come back with Last-Event-ID")
STOPPING: Final = comment("closing: come back with Last-Event-ID")


class Closed(Exception):
    """Nothing more will come; ``farewell`` is the comment to leave with."""

    def __init__(self, farewell: bytes) -> None:
        super().__init__("closed")
        self.farewell = farewell


class Subscription:
    """A queue with one reader, who is offered what *sight* shows. ``job_id`` None is any."""

    def __init__(
        self,
        *,
        sight: Sight,
        job_id: str | None = None,
        public: bool = False,
        workers: bool = True,
        events_max: int = EVENTS_MAX,
    ) -> None:
        self.sight = sight
        self.job_id = job_id
        self.public = public
        self.workers = workers
        self._events_max = events_max
        self._events: deque[Happening] = deque()
        self._latest: OrderedDict[str, bytes] = OrderedDict()
        self._something = asyncio.Event()
        self._farewell: bytes | None = None

    def wants(self, tenant: str, job_id: str, job: Job | None) -> bool:
        """Whether something about *job_id* is for this reader; *job* None: nothing else is known of it."""
        return (
            self.sight.tenant in (None, tenant)
            and self.job_id in (None, job_id)
            and (self.job_id is not None or self.sight.maybe_job(job))
        )

    def offer(self, happening: Happening) -> None:
        """A state event; too many unread ones close the subscription."""
        if self._farewell is not None or not self.wants(happening.tenant, happening.job_id, happening.about):
            return
        if len(self._events) >= self._events_max:
            self._events.clear()
            self.close(TOO_SLOW)
            return
        if happening.is_last:
            self._latest.pop(happening.job_id, None)  # progress of an ended job would come after its end
        self._events.append(happening)
        self._something.set()

    def offer_latest(self, key: str, block: bytes) -> None:
        """Something of which only the latest for *key* matters."""
        if self._farewell is not None:
            return
        self._latest.pop(key, None)
        while len(self._latest) >= LATEST_MAX:
            self._latest.popitem(last=False)
        self._latest[key] = block
        self._something.set()

    def close(self, farewell: bytes) -> None:
        """What was offered before is still read, unless it was too much."""
        if self._farewell is None:
            self._farewell = farewell
            self._latest.clear()
        self._something.set()

    async def next(self) -> Happening | bytes:
        """The next thing to send; Closed when there is nothing more."""
        while True:
            if self._events:
                return self._events.popleft()
            if self._latest:
                return self._latest.popitem(last=False)[1]
            if self._farewell is not None:
                raise Closed(self._farewell)
            self._something.clear()
            await self._something.wait()
