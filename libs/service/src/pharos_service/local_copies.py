"""Objects of a store as files of this machine: downloaded once, and kept while there is room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio

from pharos_service.bus import Bus
from pharos_service.objects import download, size_of


class NoRoom(Exception):
    """What is in use takes the room that another object would need."""


class LocalCopies:
    """Copies of objects of one *store* in *folder*, which take at most *bytes_max* together.

    The folder is there, and belongs to this object. An object of a name never changes: who has other bytes
    gives them another name.
    """

    def __init__(self, bus: Bus, store: str, folder: Path, *, bytes_max: int) -> None:
        self._bus = bus
        self._store = store
        self._folder = folder
        self._bytes_max = bytes_max
        self._copies: dict[str, _Copy] = {}  # those that were used last at the end

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Path]:
        """A copy of the object *name*, which stays where it is while the block lasts.

        Raises ObjectGone, ObjectDamaged, NoRoom, OSError and the errors of the bus.
        """
        copy = self._copies.pop(name, None) or _Copy(self._folder / uuid4().hex)
        self._copies[name] = copy
        copy.users += 1
        try:
            async with copy.arriving:
                if not copy.complete:
                    await self._download(name, copy)
            yield copy.path
        finally:
            copy.users -= 1
            if not copy.users and (not copy.complete or copy.forgotten):
                self._remove(name, copy)

    def forget(self, name: str) -> None:
        """The object is gone: its copy goes too, as soon as nobody uses it."""
        copy = self._copies.get(name)
        if copy is None:
            return
        copy.forgotten = True
        if not copy.users:
            self._remove(name, copy)

    async def _download(self, name: str, copy: _Copy) -> None:
        size = await size_of(self._bus, self._store, name)
        self._make_room(size)
        copy.size = size  # before its bytes arrive, so that another finds that the room is taken
        try:
            await download(self._bus, self._store, name, copy.path)
        except BaseException:
            copy.size = 0
            copy.path.unlink(missing_ok=True)
            raise
        copy.complete = True

    def _make_room(self, size: int) -> None:
        taken = sum(copy.size for copy in self._copies.values())
        for name, copy in list(self._copies.items()):
            if taken + size <= self._bytes_max:
                return
            if copy.complete and not copy.users:
                taken -= copy.size
                self._remove(name, copy)
        if taken + size > self._bytes_max:
            raise NoRoom

    def _remove(self, name: str, copy: _Copy) -> None:
        copy.path.unlink(missing_ok=True)
        if self._copies.get(name) is copy:
            del self._copies[name]


class _Copy:
    """One copy, or the beginning of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.users = 0
        self.complete = False
        self.forgotten = False
        self.arriving = anyio.Lock()
