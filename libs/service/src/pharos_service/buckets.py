"""Key-value buckets (NATS ADR-8) holding one message type each, with every write a compare-and-set."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import UnionType
from typing import Generic, TypeVar

import msgspec
import structlog

from pharos_contracts.message import UnreadableMessage, decode
from pharos_service.bus import MARKER, Bus, WrongLastSequence
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

V = TypeVar("V", bound=msgspec.Struct)

_OPERATION = "KV-Operation"


class Entry(msgspec.Struct, Generic[V], frozen=True):
    """A value and the revision to name when replacing it."""

    key: str
    value: V
    revision: int


class Gone(msgspec.Struct, frozen=True):
    """A key that was deleted or has expired."""

    key: str


class Bucket(Generic[V]):
    """One bucket. Errors of the bus pass through: see ``pharos_service.bus``."""

    def __init__(self, bus: Bus, name: str, value_type: type[V] | UnionType) -> None:
        """A bucket of several types names them: ``Bucket[A | B](bus, name, A | B)``."""
        self._bus = bus
        self._type = value_type
        self._prefix = f"$KV.{name}."
        self._stream = f"KV_{name}"

    async def get(self, key: str) -> Entry[V] | None:
        """The entry; None where there is none."""
        found = await self._bus.last(self._stream, self._prefix + key)
        if found is None or _is_gone(found.headers):
            return None
        return Entry(key, decode(found.data, self._type), found.sequence)

    async def create(self, key: str, value: V, *, ttl_seconds: int | None = None) -> int | None:
        """The revision of a new entry; None where one exists already."""
        try:
            return await self._put(key, value, 0, ttl_seconds)
        except WrongLastSequence:
            found = await self._bus.last(self._stream, self._prefix + key)
            if found is not None and not _is_gone(found.headers):
                return None
            try:
                return await self._put(key, value, found.sequence if found else 0, ttl_seconds)
            except WrongLastSequence:
                return None

    async def update(
        self, key: str, value: V, revision: int, *, ttl_seconds: int | None = None
    ) -> int | None:
        """The new revision; None where the entry is no longer at *revision*."""
        try:
            return await self._put(key, value, revision, ttl_seconds)
        except WrongLastSequence:
            return None

    async def put(self, key: str, value: V) -> int:
        """The new revision, whatever was there before: for entries with one writer."""
        return (await self._bus.publish(self._prefix + key, value)).seq

    async def delete(self, key: str, revision: int, *, tombstone_seconds: int | None = None) -> bool:
        """Whether the entry was still at *revision*, and is deleted now."""
        try:
            await self._bus.publish(
                self._prefix + key,
                b"",
                expect_last=revision,
                headers={_OPERATION: "DEL"},
                ttl_seconds=tombstone_seconds,
            )
        except WrongLastSequence:
            return False
        return True

    async def _put(self, key: str, value: V, revision: int, ttl_seconds: int | None) -> int:
        ack = await self._bus.publish(
            self._prefix + key, value, expect_last=revision, ttl_seconds=ttl_seconds
        )
        return ack.seq

    async def watch(self, keys: str = ">") -> AsyncGenerator[Entry[V] | Gone | CaughtUp, None]:
        """Every entry under *keys*, then every change, for ever; unreadable ones are logged and left out."""
        changes = tail(self._bus, self._stream, [f"{self._prefix}{keys}"], last_per_subject=True)
        async with aclosing(changes):
            async for event in changes:
                if isinstance(event, CaughtUp):
                    yield event
                    continue
                key = event.subject.removeprefix(self._prefix)
                if _is_gone(event.headers):
                    yield Gone(key)
                    continue
                try:
                    yield Entry(key, decode(event.data, self._type), event.sequence)
                except UnreadableMessage as error:
                    log.warning("bucket_entry_unreadable", bucket=self._stream, key=key, error=error.reason)


def _is_gone(headers: dict[str, str]) -> bool:
    return headers.get(_OPERATION) in ("DEL", "PURGE") or MARKER in headers
