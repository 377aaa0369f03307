"""Every resource, as of now: the bucket ``resources``, read once and followed.

Lists are made of it, page by page and by type, which a bucket cannot do. Who is about to change one reads it
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from pharos_contracts.resources.v1 import Resource
from pharos_gateway.sight import Sight
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.pull import CaughtUp

KNOWN_SECONDS: Final = 0.5


class ResourceStore:
    """What is known of resources. ``run`` it in a task of its own."""

    def __init__(self, bucket: Bucket[Resource]) -> None:
        self._bucket = bucket
        self._of_tenant: dict[str, dict[str, Entry[Resource]]] = {}
        self._known = asyncio.Event()

    async def known(self) -> bool:
        """Whether the bucket was read once; at the start of a process, waits for that, but not for long."""
        try:
            await asyncio.wait_for(self._known.wait(), KNOWN_SECONDS)
        except TimeoutError:
            return False
        return True

    def count(self, tenant: str) -> int:
        return len(self._of(tenant))

    def has(self, key: str) -> bool:
        return key in self._of(key.partition(".")[0])

    def shown(self, sight: Sight, resource_type: str | None) -> Sequence[Resource]:
        """Those that *sight* shows, newest first."""
        tenants = self._of_tenant.values() if sight.tenant is None else [self._of(sight.tenant)]
        found = [
            entry.value
            for tenant in tenants
            for entry in tenant.values()
            if sight.resource(entry.value) and resource_type in (None, entry.value.resource_type)
        ]
        return sorted(found, key=lambda each: (each.created_at, each.resource_id), reverse=True)

    def note(self, entry: Entry[Resource]) -> None:
        """What this gateway wrote itself is true here at once."""
        tenant = self._of_tenant.setdefault(entry.value.tenant, {})
        before = tenant.get(entry.key)
        if before is None or before.revision < entry.revision:
            tenant[entry.key] = entry

    def forget(self, key: str) -> None:
        self._of(key.partition(".")[0]).pop(key, None)

    def _of(self, tenant: str) -> dict[str, Entry[Resource]]:
        return self._of_tenant.get(tenant, {})

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
