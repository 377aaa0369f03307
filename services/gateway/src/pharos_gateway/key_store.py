"""Every key, as of now: the bucket ``keys``, read once and followed.

No request waits for the bus because of its key. A key that was disabled stops working as soon as the change
arrives here, within two seconds; while the bus is away, what is known goes on working.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from typing import Final

import anyio
import structlog

from pharos_contracts.keys.v1 import Key
from pharos_contracts.streams import KV_KEYS
from pharos_gateway.keys import is_live
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import Bus, BusError
from pharos_service.pull import CaughtUp

log = structlog.get_logger()

KNOWN_SECONDS: Final = 1.5
RECONCILE_SECONDS: Final = 30.0
SWEEP_SECONDS: Final = 1.0


class KeyStore:
    """What is known of keys. ``run`` it in a task of its own."""

    def __init__(self, bus: Bus, bucket: Bucket[Key], *, now: Callable[[], datetime]) -> None:
        self._bus = bus
        self._bucket = bucket
        self._now = now
        self._listeners: list[Callable[[str], None]] = []
        self._entries: dict[str, Entry[Key]] = {}
        self._expiring: set[str] = set()
        self._known = asyncio.Event()

    @property
    def is_known(self) -> bool:
        """Whether the bucket was read once."""
        return self._known.is_set()

    async def known(self) -> bool:
        """``is_known``; at the start of a process, waits for that, but not for long."""
        try:
            await asyncio.wait_for(self._known.wait(), KNOWN_SECONDS)
        except TimeoutError:
            return False
        return True

    def find(self, key_id: str) -> Key | None:
        entry = self._entries.get(key_id)
        return None if entry is None else entry.value

    def is_good(self, key_id: str) -> bool:
        """Whether the key opens anything now."""
        key = self.find(key_id)
        return key is not None and is_live(key, self._now())

    def all(self) -> list[Key]:
        """By tenant, then the newest first."""
        keys = [entry.value for entry in self._entries.values()]
        keys.sort(key=lambda key: key.created_at, reverse=True)
        keys.sort(key=lambda key: key.tenant)
        return keys

    def on_change(self, listener: Callable[[str], None]) -> None:
        """*listener* is told the id of each key that is not what it was, or has expired."""
        self._listeners.append(listener)

    def _changed(self, key_id: str) -> None:
        for listener in self._listeners:
            listener(key_id)

    def note(self, entry: Entry[Key]) -> None:
        """What this gateway wrote itself is true here at once."""
        before = self._entries.get(entry.key)
        if before is not None and before.revision >= entry.revision:
            return
        self._entries[entry.key] = entry
        if is_live(entry.value, self._now()) and entry.value.expires_at is not None:
            self._expiring.add(entry.key)
        if before is not None:
            self._changed(entry.key)

    def forget(self, key_id: str) -> None:
        if self._entries.pop(key_id, None) is not None:
            self._changed(key_id)

    async def run(self) -> None:
        """For ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            tasks.start_soon(self._reconcile)
            tasks.start_soon(self._sweep)

    async def _follow(self) -> None:
        async with aclosing(self._bucket.watch()) as events:
            async for event in events:
                match event:
                    case Entry():
                        self.note(event)
                    case Gone():
                        self.forget(event.key)
                    case CaughtUp():
                        self._known.set()

    async def _reconcile(self) -> None:
        """A bucket that was made anew says nothing of what it no longer holds."""
        while True:
            await asyncio.sleep(RECONCILE_SECONDS)
            before = set(self._entries)
            prefix = f"$KV.{KV_KEYS}."
            try:
                info = await self._bus.api(f"STREAM.INFO.KV_{KV_KEYS}", {"subjects_filter": f"{prefix}>"})
            except BusError as error:
                log.debug("keys_unreachable", reason=str(error))
                continue
            held = {subject.removeprefix(prefix) for subject in info["state"].get("subjects") or ()}
            for key_id in before - held:
                log.warning("key_vanished", key=key_id)
                self.forget(key_id)

    async def _sweep(self) -> None:
        """Nothing tells of a time that passes."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._now()
            for key_id in tuple(self._expiring):
                key = self.find(key_id)
                if key is None or not is_live(key, now):
                    self._expiring.discard(key_id)
                    self._changed(key_id)
