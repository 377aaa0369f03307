from __future__ import annotations

import pytest

from pharos_contracts.batches.v1 import BatchFile, BatchPart, BatchSource, Manifest
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.message import encode
from pharos_gateway.manifests import Manifests


def manifest(number: int) -> Manifest:
    return Manifest(job_id=f"job-{number}", tenant="t", files=(BatchFile(part=0, file_id="x", name="x"),))


def test_no_more_is_kept_than_there_is_room_for_and_the_oldest_goes_first() -> None:
    size = len(encode(manifest(0)))
    manifests = Manifests(None, kept_bytes_max=3 * size)  # type: ignore[arg-type]
    for number in range(5):
        manifests._keep(manifest(number), size)
    assert list(manifests._kept) == ["job-2", "job-3", "job-4"]
    manifests._keep(manifest(9), 4 * size)  # more than there is room for
    manifests._forget("job-3")
    manifests._forget("job-3")
    assert (list(manifests._kept), manifests._kept_bytes) == (["job-2", "job-4"], 2 * size)


@pytest.mark.parametrize(
    ("parts", "fits"),
    [((0, 1), True), ((0, 0), False), ((1, 0), False), ((0, 2), False), ((0,), False), ((0, 1, 1), False)],
)
def test_the_list_of_another_batch_is_not_taken_for_that_of_this_one(
    parts: tuple[int, ...], fits: bool
) -> None:
    """However many files it has: whoever counts by their parts would count on parts that are not there."""
    batch = BatchSource(
        name="b",
        manifest="m",
        parts=tuple(BatchPart(connection_id=each, source_type=SourceType.S3, files=1) for each in "ab"),
    )
    files = tuple(BatchFile(part=part, file_id=str(place), name="x") for place, part in enumerate(parts))
    assert Manifest(job_id="j", tenant="t", files=files).fits(batch) is fits
