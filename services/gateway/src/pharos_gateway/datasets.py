"""Datasets and their live generations, as the bucket has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, IndexStage
from pharos_contracts.identity import dataset_key, token
from pharos_contracts.jobs.v1 import Scope
from pharos_contracts.streams import KV_DATASETS
from pharos_gateway.entries import entries
from pharos_gateway.sight import Sight
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus


class DatasetView(msgspec.Struct, frozen=True, kw_only=True):
    """A searchable dataset: one branch of one repository, unless it was named."""

    tenant: str
    project: str
    dataset: str
    scope: Scope
    repository: str
    branch: str | None
    commit: str
    generation: int
    stage: IndexStage
    files: int
    chunks: int
    encoder: str
    chunker: str
    job_id: str
    published_at: datetime


class DatasetList(msgspec.Struct, frozen=True, kw_only=True):
    """By project and name; ``truncated`` where there are more than 1,000."""

    datasets: tuple[DatasetView, ...]
    truncated: bool


class Datasets:
    """Reads of the bucket. Errors of the bus pass through."""

    def __init__(self, bus: Bus, bucket: Bucket[DatasetRecord]) -> None:
        self._bus = bus
        self._bucket = bucket

    async def list(self, sight: Sight, project: str | None) -> DatasetList:
        """Those that *sight* shows, of one *project* or of all."""
        middle = "*" if sight.tenant is None else token(sight.tenant)
        last = "*" if project is None else token(project)
        records, truncated = await entries(self._bus, KV_DATASETS, self._bucket, f"{middle}.{last}.>")
        found = [record for record in records if isinstance(record, Dataset)]  # the rest was deleted
        found.sort(key=lambda dataset: (dataset.tenant, dataset.project, dataset.dataset))
        shown = (dataset for dataset in found if sight.dataset(dataset.project, dataset.scope))
        return DatasetList(datasets=tuple(_view(dataset) for dataset in shown), truncated=truncated)

    async def one(self, tenant: str, project: str, name: str) -> DatasetView | None:
        """The one of that *name*."""
        entry = await self._bucket.get(dataset_key(tenant, project, name))
        return _view(entry.value) if entry is not None and isinstance(entry.value, Dataset) else None

    async def of_project(self, tenant: str, project: str) -> Sequence[DatasetView]:
        """All of one project, at most 1,000."""
        return (await self.list(Sight(tenant=tenant), project)).datasets


def _view(dataset: Dataset) -> DatasetView:
    return msgspec.convert(dataset, DatasetView, from_attributes=True)
