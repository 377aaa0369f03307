"""What of a dataset may go, by its record and the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_contracts.jobs.v1 import Scope
from pharos_embedder.sweeping import READ_SECONDS, SETTLED_SECONDS, Rubbish, rubbish

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LIVE = int(NOW.timestamp()) - 100_000
OLD = int(NOW.timestamp() - SETTLED_SECONDS) - 1
YOUNG = int(NOW.timestamp() - SETTLED_SECONDS) + 1
DATASET = Dataset(
    tenant="acme", project="default", dataset="atlas", scope=Scope.PROJECT, repository="", clone_url="",
    branch=None, commit="", generation=LIVE, stage=IndexStage.FULL, job_id="1", files=1, chunks=1,
    encoder="e", chunker="c", published_at=NOW - timedelta(days=1),
)  # fmt: skip
DELETED = DeletedDataset(tenant="acme", project="default", dataset="atlas", generation=LIVE, deleted_at=NOW)


@pytest.mark.parametrize(
    ("record", "born", "found"),
    [
        pytest.param(DATASET, [], Rubbish(retired=LIVE), id="what the live generation retired"),
        pytest.param(
            msgspec.structs.replace(DATASET, published_at=NOW - timedelta(seconds=READ_SECONDS - 1)),
            [LIVE],
            Rubbish(),
            id="nothing that somebody may still read",
        ),
        pytest.param(
            DATASET,
            [LIVE - 5, LIVE, YOUNG, OLD],
            Rubbish(retired=LIVE, unpublished=(OLD,)),
            id="what was begun long ago and is not live",
        ),
        pytest.param(
            DATASET,
            [1_000 * OLD, 1_000 * YOUNG],
            Rubbish(retired=LIVE, unpublished=(1_000 * OLD,)),
            id="numbers in milliseconds",
        ),
        pytest.param(
            DELETED, [LIVE - 1, OLD, YOUNG], Rubbish(dropped=LIVE, unpublished=(OLD,)), id="a deletion"
        ),
        pytest.param(None, [YOUNG, OLD, LIVE], Rubbish(unpublished=(LIVE, OLD)), id="no record"),
    ],
)
def test_what_may_go(record: DatasetRecord | None, born: list[int], found: Rubbish) -> None:
    assert rubbish(record, born, NOW) == found
