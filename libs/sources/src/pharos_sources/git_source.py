"""The files of one commit of a repository, as a source: fetched once, when they are first asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio import to_thread

from pharos_sources.git import FetchLimits, fetch, remote_head
from pharos_sources.git_errors import FetchError
from pharos_sources.guard import Resolver, system_resolver
from pharos_sources.local_directory import LocalDirectory
from pharos_sources.repository_url import RepositoryAddress
from pharos_sources.secret import Secret
from pharos_sources.source import Entry, Page, SourceError, SourceRefused, SourceUnavailable

_BLOCK_BYTES: Final = 256 * 1024


class GitSource:
    """The files that branch or tag *ref* (else that of the URL, else HEAD) has when they are first asked for.

    Ids are paths in the repository, and identities those of git's blobs (SHA-1, whatever the repository
    uses). The checkout is made below *work*, which belongs to the source and which its owner removes.
    """

    def __init__(
        self,
        address: RepositoryAddress,
        work: Path,
        *,
        ref: str | None = None,
        token: Secret | None = None,
        limits: FetchLimits | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._address = address
        self._work = work
        self._ref = ref
        self._token = token
        self._limits = limits
        self._resolver = resolver
        self._fetching = anyio.Lock()
        self._fetched: tuple[Path, LocalDirectory] | None = None

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        root, directory = await self._files()
        page = await directory.list(under=under, cursor=cursor, limit=limit)
        identified = await to_thread.run_sync(_identified, root, page.entries)
        return msgspec.structs.replace(page, entries=identified)

    async def stat(self, file_id: str) -> Entry:
        root, directory = await self._files()
        entry = await directory.stat(file_id)
        if entry.folder:
            return entry
        (identified,) = await to_thread.run_sync(_identified, root, (entry,))
        return identified

    @asynccontextmanager
    async def open(self, file_id: str, *, bytes_max: int) -> AsyncIterator[AsyncIterator[bytes]]:
        _, directory = await self._files()
        async with directory.open(file_id, bytes_max=bytes_max) as pieces:
            yield pieces

    async def check(self) -> None:
        """Whether the repository answers and has the reference; nothing is fetched."""
        try:
            await remote_head(self._address, self._ref, token=self._token, resolver=self._resolver)
        except FetchError as error:
            raise _explained(error) from None

    async def _files(self) -> tuple[Path, LocalDirectory]:
        async with self._fetching:
            if self._fetched is None:
                try:
                    checkout = await fetch(
                        self._address,
                        self._work / "checkout",
                        ref=self._ref,
                        token=self._token,
                        limits=self._limits,
                        resolver=self._resolver,
                    )
                except FetchError as error:
                    raise _explained(error) from None
                self._fetched = checkout.root, LocalDirectory(checkout.root, hidden=True)
            return self._fetched


def _identified(root: Path, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """*entries* with the ids of their blobs; the times of a checkout say nothing of its files."""
    return tuple(
        msgspec.structs.replace(entry, identity=f"git:{_blob_id(root / entry.id)}", modified=None)
        for entry in entries
    )


def _blob_id(path: Path) -> str:
    """What `git hash-object` says."""
    digest = sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _explained(error: FetchError) -> SourceError:
    sentence = str(error)
    clause = sentence[:1].lower() + sentence[1:]
    return SourceUnavailable(clause) if error.transient else SourceRefused(clause)
