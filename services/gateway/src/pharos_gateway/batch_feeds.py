"""What one WebSocket of batches still has to be sent.

Of each file, and of each batch, only the latest matters. What is told of a batch counts the files that were
told before it and no others: while it waits to be sent it is not changed, and what comes after it waits its
turn. A reader that leaves too much unread is sent away.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from pharos_contracts.jobs.v1 import Job, JobKind
from pharos_gateway.feeds import STOPPING, TOO_SLOW, FeedClosed
from pharos_gateway.sight import Sight

UNSENT_MAX: Final = 5_000


class BatchFeed:
    """The unread messages of one socket, which follows what *sight* shows; of one batch, where it says so."""

    def __init__(self, sight: Sight, job_id: str | None, *, unsent_max: int = UNSENT_MAX) -> None:
        self.sight = sight
        self.job_id = job_id
        self._unsent_max = unsent_max
        self._unsent: OrderedDict[tuple[str, int | None], bytes] = OrderedDict()
        self._later: dict[str, bytes] = {}
        self._something = asyncio.Event()
        self._farewell: tuple[int, str] | None = None

    def wants(self, job: Job) -> bool:
        return job.kind is JobKind.BATCH and self.job_id in (None, job.job_id) and self.sight.job(job)

    def tell_file(self, job_id: str, item: int, message: bytes) -> None:
        """Where a file of a batch is now."""
        if self._farewell is not None:
            return
        self._unsent.pop((job_id, item), None)
        self._unsent[job_id, item] = message
        if len(self._unsent) > self._unsent_max:
            self.close(TOO_SLOW)
        self._something.set()

    def tell_job(self, job_id: str, message: bytes) -> None:
        """Where a batch is now."""
        if self._farewell is not None:
            return
        if (job_id, None) in self._unsent:
            self._later[job_id] = message
        else:
            self._unsent[job_id, None] = message
        self._something.set()

    def close(self, farewell: tuple[int, str] = STOPPING) -> None:
        """Send the reader away, at once."""
        if self._farewell is None:
            self._farewell = farewell
            self._unsent.clear()
            self._later.clear()
        self._something.set()

    async def next(self) -> bytes:
        """The next message; FeedClosed when there is none any more."""
        while True:
            if self._unsent:
                (job_id, item), message = self._unsent.popitem(last=False)
                if item is None and job_id in self._later:
                    self._unsent[job_id, None] = self._later.pop(job_id)
                return message
            if self._farewell is not None:
                raise FeedClosed(*self._farewell)
            self._something.clear()
            await self._something.wait()
