"""Items that their owners stopped, as the bucket ``control`` tells of them: whoever holds one lets go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import structlog

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action, StopItem
from pharos_contracts.jobs.v1 import WorkItem
from pharos_contracts.subjects import held_name
from pharos_embedder.holding import Ending, Hold
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus

log = structlog.get_logger()


class Watched:
    """One item that is held. ``began`` is told once it is known which fact its try began with."""

    def __init__(self, item: WorkItem, hold: Hold) -> None:
        self._item = item
        self._hold = hold
        self._began: int | None = None
        self._stop: StopItem | None = None

    def began(self, fact: int) -> None:
        self._began = fact
        self._judge()

    def heard(self, stop: StopItem) -> None:
        if stop.item_id == self._item.item_id:
            self._stop = stop
            self._judge()

    def _judge(self) -> None:
        """A try that began behind the fact that took the item away is not meant: it was resumed since."""
        if self._stop is None or self._began is None or self._stop.fact <= self._began:
            return
        log.info("item_stopped", action=self._stop.action)
        self._hold.end(Ending.CANCELLED if self._stop.action is Action.CANCEL else Ending.PAUSED)


class Control:
    """The bucket, for all slots of one worker."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, streams.KV_CONTROL, StopItem)
        self._watched: dict[str, list[Watched]] = {}

    @contextmanager
    def watching(self, item: WorkItem, hold: Hold) -> Iterator[Watched]:
        """While the block lasts, *hold* ends when *item* is stopped."""
        watched, name = Watched(item, hold), held_name(item.job, item.item_id)
        self._watched.setdefault(name, []).append(watched)
        try:
            yield watched
        finally:
            self._watched[name].remove(watched)
            if not self._watched[name]:
                del self._watched[name]

    async def follow(self) -> None:
        """Keep up with the bucket until cancelled."""
        async with aclosing(self._bucket.watch()) as changes:
            async for change in changes:
                if isinstance(change, Entry):
                    for watched in self._watched.get(change.key, ()):
                        watched.heard(change.value)
