"""Issuing, rotating, disabling and deleting keys: the use cases behind ``/api/v1/keys``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pharos_contracts.keys.v1 import Key
from pharos_gateway import keys
from pharos_gateway.key_store import KeyStore
from pharos_gateway.keys import RandomBytes, Wanted
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import BusRefused

KEYS_MAX: Final = 10_000
TRIES_MAX: Final = 5
TOMBSTONE_SECONDS: Final = 86_400  # longer than any gateway goes without reading


class TooManyKeys(Exception):
    """The installation has as many keys as it may."""

    def __init__(self) -> None:
        super().__init__(f"There are {KEYS_MAX} keys already: delete those that nobody uses")


class Issuing:
    """*tenant* is the one whose keys may be touched; None is every one. Errors of the bus pass through."""

    def __init__(
        self, bucket: Bucket[Key], store: KeyStore, *, now: Callable[[], datetime], random: RandomBytes
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._now = now
        self._random = random

    def list(self, tenant: str | None) -> Sequence[Key]:
        return tuple(key for key in self._store.all() if tenant in (None, key.tenant))

    def one(self, tenant: str | None, key_id: str) -> Key | None:
        key = self._store.find(key_id)
        return key if key is not None and tenant in (None, key.tenant) else None

    async def issue(self, wanted: Wanted, *, by: str) -> tuple[Key, str]:
        """A new key and its text. InvalidKeyRequest, InvalidName, TooManyKeys."""
        if len(self._store.all()) >= KEYS_MAX:
            raise TooManyKeys
        key, text = keys.issue(wanted, by=by, now=self._now(), random=self._random)
        revision = await self._bucket.create(key.key_id, key)
        assert revision is not None, "80 random bits do not come twice"
        self._store.note(Entry(key.key_id, key, revision))
        return key, text

    async def rotate(
        self, tenant: str | None, key_id: str, *, grace_seconds: int, expires_at: datetime | None
    ) -> tuple[Key, str] | None:
        """The key with another secret, and its new text; None where there is no such key.

        InvalidKeyRequest, KeyNotLive.
        """
        texts: list[str] = []

        def change(key: Key) -> Key:
            changed, text = keys.rotate(
                key,
                grace_seconds=grace_seconds,
                expires_at=expires_at,
                now=self._now(),
                random=self._random,
            )
            texts.append(text)
            return changed

        key = await self._change(tenant, key_id, change)
        return None if key is None else (key, texts[-1])

    async def disable(self, tenant: str | None, key_id: str, *, by: str) -> Key | None:
        """The key, good for nothing from now on; None where there is no such key."""
        return await self._change(tenant, key_id, lambda key: keys.disable(key, by=by, now=self._now()))

    async def delete(self, tenant: str | None, key_id: str) -> bool:
        """Whether it was there, and is forgotten now."""
        for _ in range(TRIES_MAX):
            entry = await self._entry(tenant, key_id)
            if entry is None:
                return False
            if await self._bucket.delete(key_id, entry.revision, tombstone_seconds=TOMBSTONE_SECONDS):
                self._store.forget(key_id)
                return True
        raise BusRefused("The key is being changed by somebody else")

    async def _change(self, tenant: str | None, key_id: str, change: Callable[[Key], Key]) -> Key | None:
        for _ in range(TRIES_MAX):
            entry = await self._entry(tenant, key_id)
            if entry is None:
                return None
            changed = change(entry.value)
            revision = await self._bucket.update(key_id, changed, entry.revision)
            if revision is not None:
                self._store.note(Entry(key_id, changed, revision))
                return changed
        raise BusRefused("The key is being changed by somebody else")

    async def _entry(self, tenant: str | None, key_id: str) -> Entry[Key] | None:
        """The entry itself, not what was last heard of it: it is about to be replaced."""
        if not key_id.isascii() or not key_id.isalnum():
            return None
        entry = await self._bucket.get(key_id)
        return entry if entry is not None and tenant in (None, entry.value.tenant) else None
