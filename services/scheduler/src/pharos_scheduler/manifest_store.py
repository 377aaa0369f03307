"""The manifests of batches, in the object store."""

from __future__ import annotations

import structlog

from pharos_contracts.batches.v1 import Manifest
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import OBJ_MANIFESTS
from pharos_service.bus import Bus
from pharos_service.objects import ObjectDamaged, ObjectGone, read

log = structlog.get_logger()

# 10,000 files with long names; a manifest is made by a gateway, which refuses more.
BYTES_MAX = 64 * 1024 * 1024


class BusManifests:
    """The adapter of ``ports.Manifests``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def load(self, job: Job) -> Manifest | None:
        assert job.batch is not None, "only batches have a manifest"
        try:
            manifest: Manifest = decode(
                await read(self._bus, OBJ_MANIFESTS, job.batch.manifest, bytes_max=BYTES_MAX), Manifest
            )
        except ObjectGone:
            return None
        except (ObjectDamaged, UnreadableMessage) as error:
            log.error("manifest_unreadable", job_id=job.job_id, error=repr(error))
            return None
        if not manifest.fits(job.batch):
            log.error("manifest_differs", job_id=job.job_id, files=len(manifest.files))
            return None
        return manifest
