"""What one WebSocket of batches still has to be sent.

Of each file only the latest matters, and of the counters of each batch; but each state of a batch is told.
What is told of a batch counts the files that were told before it and no others: while it waits to be sent it
is not changed, and what comes after it waits its turn. A reader that leaves too much unread is sent away.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from pharos_contracts.jobs.v1 import Job, JobKind
from pharos_gateway.feeds import STOPPING, TOO_SLOW, FeedClosed
from pharos_gateway.sight import Sight

UNSENT_MAX: Final = 5_000
UNSENT_BYTES_MAX: Final = 4 * 1024 * 1024


class BatchFeed:
    """The unread messages of one socket, which follows what *sight* shows; of one batch, where it says so."""

    def __init__(
        self,
        sight: Sight,
        job_id: str | None,
        *,
        unsent_max: int = UNSENT_MAX,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
    ) -> None:
        self.sight = sight
        self.job_id = job_id
        self._unsent_max = unsent_max
        self._unsent_bytes_max = unsent_bytes_max
        self._unsent_bytes = 0
        self._unsent: OrderedDict[tuple[str, int | None, int], bytes] = OrderedDict()
        self._later: dict[str, bytes] = {}
        self._states = 0
        self._something = asyncio.Event()
        self._farewell: tuple[int, str] | None = None

    def wants(self, job: Job) -> bool:
        return job.kind is JobKind.BATCH and self.job_id in (None, job.job_id) and self.sight.job(job)

    def tell_file(self, job_id: str, item: int, message: bytes) -> None:
        """Where a file of a batch is now."""
        if self._farewell is not None:
            return
        self._unsent_bytes -= len(self._unsent.pop((job_id, item, 0), b""))
        self._add((job_id, item, 0), message)

    def tell_counters(self, job_id: str, message: bytes) -> None:
        """How many files of a batch have ended."""
        if self._farewell is not None:
            return
        if (job_id, None, 0) in self._unsent:
            self._later[job_id] = message
        else:
            self._add((job_id, None, 0), message)

    def tell_state(self, job_id: str, message: bytes) -> None:
        """A batch is in another state."""
        if self._farewell is not None:
            return
        self._later.pop(job_id, None)  # it is older
        self._states += 1
        self._add((job_id, None, self._states), message)

    def _add(self, key: tuple[str, int | None, int], message: bytes) -> None:
        self._unsent[key] = message
        self._unsent_bytes += len(message)
        if len(self._unsent) > self._unsent_max or self._unsent_bytes > self._unsent_bytes_max:
            self.close(TOO_SLOW)
        self._something.set()

    def close(self, farewell: tuple[int, str] = STOPPING) -> None:
        """Send the reader away, at once."""
        if self._farewell is None:
            self._farewell = farewell
            self._unsent.clear()
            self._unsent_bytes = 0
            self._later.clear()
        self._something.set()

    async def next(self) -> bytes:
        """The next message; FeedClosed when there is none any more."""
        while True:
            if self._unsent:
                key, message = self._unsent.popitem(last=False)
                self._unsent_bytes -= len(message)
                if key == (key[0], None, 0) and key[0] in self._later:
                    self._add(key, self._later.pop(key[0]))
                return message
            if self._farewell is not None:
                raise FeedClosed(*self._farewell)
            self._something.clear()
            await self._something.wait()
