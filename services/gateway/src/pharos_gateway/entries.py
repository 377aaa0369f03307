"""Listing what a bucket holds under a pattern of keys."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec

from pharos_service.buckets import Bucket
from pharos_service.bus import Bus

ENTRIES_MAX: Final = 1_000
READS_AT_ONCE: Final = 32

V = TypeVar("V", bound=msgspec.Struct)


async def entries(bus: Bus, name: str, bucket: Bucket[V], pattern: str) -> tuple[list[V], bool]:
    """(what *bucket*, called *name*, holds under *pattern*, at most 1,000 by key; whether there is more).

    Errors of the bus pass through.
    """
    keys, more = await keys_under(bus, name, pattern)
    found: list[V] = []
    for start in range(0, len(keys), READS_AT_ONCE):
        read = await asyncio.gather(*(bucket.get(key) for key in keys[start : start + READS_AT_ONCE]))
        found.extend(entry.value for entry in read if entry is not None)
    return found, more


async def keys_under(
    bus: Bus, name: str, pattern: str, *, keys_max: int = ENTRIES_MAX
) -> tuple[list[str], bool]:
    """(the keys of the bucket called *name* under *pattern*, at most *keys_max*; whether there are more).

    They are in order. Those of deleted entries may be among them. Errors of the bus pass through.
    """
    prefix = f"$KV.{name}."
    info = await bus.api(f"STREAM.INFO.KV_{name}", {"subjects_filter": f"{prefix}{pattern}"})
    keys = sorted(subject.removeprefix(prefix) for subject in (info["state"].get("subjects") or {}))
    return keys[:keys_max], len(keys) > keys_max
