"""Every watch, as of now: the bucket ``watches``, read once and followed.

Whoever sends something unsigned makes no gateway ask the bus. What is known here may be a moment old: what
was signed is looked up again before anything follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from pharos_contracts.watches.v1 import Watch
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.pull import CaughtUp

KNOWN_SECONDS: Final = 0.5


class WatchStore:
    """What is known of watches. ``run`` it in a task of its own."""

    def __init__(self, bucket: Bucket[Watch]) -> None:
        self._bucket = bucket
        self._entries: dict[str, Entry[Watch]] = {}
        self._of_repository: dict[str, dict[str, Watch]] = {}
        self._known = asyncio.Event()

    async def known(self) -> bool:
        """Whether the bucket was read once; at the start of a process, waits for that, but not for long."""
        try:
            await asyncio.wait_for(self._known.wait(), KNOWN_SECONDS)
        except TimeoutError:
            return False
        return True

    def of_repository(self, repository_key: str) -> Sequence[Watch]:
        """Those that watch a repository, of every tenant."""
        return tuple(self._of_repository.get(repository_key, {}).values())

    def of_tenant(self, tenant: str) -> Sequence[Watch]:
        return tuple(entry.value for entry in self._entries.values() if entry.value.tenant == tenant)

    def note(self, entry: Entry[Watch]) -> None:
        """What this gateway wrote itself is true here at once."""
        before = self._entries.get(entry.key)
        if before is not None and before.revision >= entry.revision:
            return
        self.forget(entry.key)
        self._entries[entry.key] = entry
        self._of_repository.setdefault(entry.value.repository_key, {})[entry.key] = entry.value

    def forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        of_repository = self._of_repository[entry.value.repository_key]
        del of_repository[key]
        if not of_repository:
            del self._of_repository[entry.value.repository_key]

    async def run(self) -> None:
        """For ever."""
        async with aclosing(self._bucket.watch()) as events:
            async for event in events:
                match event:
                    case Entry():
                        self.note(event)
                    case Gone():
                        self.forget(event.key)
                    case CaughtUp():
                        self._known.set()
