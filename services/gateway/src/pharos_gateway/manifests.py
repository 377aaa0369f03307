"""The manifests of batches: put into the object store once, and kept here while they are read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from pharos_contracts.batches.v1 import Manifest
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.message import UnreadableMessage, decode, encode
from pharos_contracts.streams import OBJ_MANIFESTS
from pharos_service.bus import Bus
from pharos_service.objects import ObjectDamaged, ObjectGone, read, upload

MiB: Final = 1024 * 1024
BYTES_MAX: Final = 64 * MiB
KEPT_BYTES_MAX: Final = 16 * MiB  # as JSON; in memory it is about twice that


class ManifestGone(Exception):
    """The list of a batch's files is not kept any more, or cannot be read."""

    def __init__(self) -> None:
        super().__init__("The list of the files of this batch is not kept any more")


class Manifests:
    """Reads and writes them; what was used last is kept."""

    def __init__(self, bus: Bus, *, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bus = bus
        self._kept_bytes_max = kept_bytes_max
        self._kept: OrderedDict[str, tuple[Manifest, int]] = OrderedDict()
        self._kept_bytes = 0

    async def put(self, manifest: Manifest) -> None:
        """Store *manifest* under the id of its job; errors of the bus pass through."""
        content = encode(manifest)

        async def once() -> AsyncIterator[bytes]:
            yield content

        await upload(self._bus, OBJ_MANIFESTS, manifest.job_id, once(), bytes_max=BYTES_MAX)
        self._forget(manifest.job_id)  # of an earlier try to create the same batch
        self._keep(manifest, len(content))

    async def of(self, job: Job) -> Manifest:
        """That of *job*. ManifestGone, and errors of the bus."""
        assert job.batch is not None, "only batches have a manifest"
        manifest = await self._found(job.batch.manifest)
        if not manifest.fits(job.batch) or manifest.tenant != job.tenant:
            raise ManifestGone
        return manifest

    async def _found(self, name: str) -> Manifest:
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
            return kept[0]
        try:
            content = await read(self._bus, OBJ_MANIFESTS, name, bytes_max=BYTES_MAX)
            manifest: Manifest = decode(content, Manifest)
        except (ObjectGone, ObjectDamaged, UnreadableMessage) as error:
            raise ManifestGone from error
        self._keep(manifest, len(content))
        return manifest

    def _forget(self, job_id: str) -> None:
        _, freed = self._kept.pop(job_id, (None, 0))
        self._kept_bytes -= freed

    def _keep(self, manifest: Manifest, size: int) -> None:
        if manifest.job_id in self._kept or size > self._kept_bytes_max:
            return
        self._kept[manifest.job_id] = (manifest, size)
        self._kept_bytes += size
        while self._kept_bytes > self._kept_bytes_max:
            _, (_, freed) = self._kept.popitem(last=False)
            self._kept_bytes -= freed
