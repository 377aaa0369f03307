from __future__ import annotations

from pharos_contracts.batches.v1 import BatchFile, Manifest
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
