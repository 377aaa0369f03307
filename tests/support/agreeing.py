"""Whether a store has of a dataset what the record of that says, as ``pharos-bus check`` finds out."""

from __future__ import annotations

from pharos_contracts import invariants
from pharos_contracts.datasets.v1 import Dataset
from pharos_embedder.vectors import DatasetKey, VectorStore


def disagreements(store: VectorStore, record: Dataset | None) -> list[str]:
    assert record is not None
    key = DatasetKey(record.tenant, record.project, record.dataset)
    return list(invariants.differences(record, store.inspect(key, record.generation)))
