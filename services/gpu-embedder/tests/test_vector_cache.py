"""The cache: what it keeps, what it forgets, and what it survives."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN, label_of, owner_of, parse_label
from pharos_embedder.vector_cache import VectorCache, as_stored, vector_key

LIMIT_BYTES = LIMIT_BYTES_MIN
DIMENSIONS = 384


def key(number: int) -> bytes:
    return vector_key(tenant="acme", content=f"{number:064x}", chunker="c1", encoder="m@1")


def vector(number: int) -> NDArray[np.float32]:
    made = np.random.default_rng(number).standard_normal(DIMENSIONS).astype(np.float32)
    return made / np.float32(np.linalg.norm(made))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors"


@pytest.fixture
def cache(path: Path, warnings: list[str]) -> Iterator[VectorCache]:
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as opened:
        yield opened
    assert warnings == []


def test_a_cached_vector_is_the_fresh_one_to_the_last_bit(cache: VectorCache) -> None:
    cache.put_many({key(n): vector(n) for n in range(20)})
    found = cache.get_many([key(n) for n in range(25)])
    assert set(found) == {key(n) for n in range(20)}
    for n in range(20):
        assert found[key(n)].dtype == np.float32
        assert np.array_equal(found[key(n)], as_stored(vector(n)))


def test_a_vector_that_went_through_the_cache_twice_does_not_move(cache: VectorCache) -> None:
    once = as_stored(vector(1))
    cache.put_many({key(1): once})
    assert np.array_equal(cache.get_many([key(1)])[key(1)], once)
    assert np.array_equal(as_stored(once), once)


def test_rounding_moves_a_unit_vector_by_almost_nothing() -> None:
    vectors = np.stack([vector(n) for n in range(100)])
    assert np.linalg.norm(as_stored(vectors) - vectors, axis=1).max() < 3e-4


def test_nothing_in_nothing_out(cache: VectorCache) -> None:
    cache.put_many({})
    assert cache.get_many([]) == {}
    assert cache.get_many([key(1)]) == {}


def test_every_part_of_the_key_tells_vectors_apart() -> None:
    parts = {"tenant": "a", "content": "b", "chunker": "c", "encoder": "d"}
    keys = [vector_key(**parts)]
    keys += [vector_key(**{**parts, name: value + "x"}) for name, value in parts.items()]
    keys.append(vector_key(tenant="ab", content="", chunker="c", encoder="d"))
    assert all(left != right for left, right in combinations(keys, 2))


def test_vectors_of_several_encoders_live_side_by_side(cache: VectorCache) -> None:
    cache.put_many({key(1): vector(1), key(2): np.ones(64, dtype=np.float32)})
    assert [len(found) for found in cache.get_many([key(1), key(2)]).values()] == [DIMENSIONS, 64]


def test_a_cache_that_was_closed_is_there_when_it_is_opened_again(path: Path, warnings: list[str]) -> None:
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        cache.put_many({key(1): vector(1)})
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        assert key(1) in cache.get_many([key(1)])
    assert warnings == []


def test_nobody_else_of_the_machine_reads_a_cache(path: Path, warnings: list[str]) -> None:
    path.mkdir(mode=0o755)  # as an earlier release left it
    before = os.umask(0o022)
    try:
        with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append):
            modes = {each.name: each.stat().st_mode & 0o777 for each in (path, path / "data.mdb")}
    finally:
        os.umask(before)
    assert modes == {path.name: 0o700, "data.mdb": 0o600}


def test_a_closed_cache_misses_and_stores_nothing(path: Path, warnings: list[str]) -> None:
    cache = VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append)
    cache.close()
    cache.put_many({key(1): vector(1)})
    assert cache.get_many([key(1)]) == {}
    assert cache.count() == 0


def test_the_file_never_exceeds_its_limit_and_the_newest_stay(cache: VectorCache, path: Path) -> None:
    total = 5 * LIMIT_BYTES // (2 * DIMENSIONS)
    step = 300
    for start in range(0, total, step):
        cache.put_many({key(n): vector(n) for n in range(start, start + step)})
        assert (path / "data.mdb").stat().st_size <= LIMIT_BYTES
    last = list(range(total, total + step))
    cache.put_many({key(n): vector(n) for n in last})
    assert len(cache.get_many([key(n) for n in last])) == step
    assert cache.get_many([key(n) for n in range(step)]) == {}
    assert LIMIT_BYTES / (2 * DIMENSIONS) / 6 < cache.count() < LIMIT_BYTES / (2 * DIMENSIONS)


def test_one_put_of_more_than_the_limit_keeps_to_the_limit(cache: VectorCache, path: Path) -> None:
    total = 2 * LIMIT_BYTES // (2 * DIMENSIONS)
    shared = vector(0)
    cache.put_many({key(n): shared for n in range(total)})
    assert (path / "data.mdb").stat().st_size <= LIMIT_BYTES
    assert cache.count() > 0


def test_what_is_asked_for_survives_what_is_not(cache: VectorCache) -> None:
    favourites = [key(n) for n in range(50)]
    cache.put_many({name: vector(n) for n, name in enumerate(favourites)})
    total = 4 * LIMIT_BYTES // (2 * DIMENSIONS)
    for start in range(1_000, 1_000 + total, 250):
        cache.put_many({key(n): vector(0) for n in range(start, start + 250)})
        assert len(cache.get_many(favourites)) == 50
    assert cache.get_many([key(1_000)]) == {}


@pytest.mark.parametrize(
    ("damage", "survivors"),
    [
        (lambda file: file.write_bytes(os.urandom(file.stat().st_size)), 0),
        (lambda file: file.write_bytes(b""), 0),
        (lambda file: file.write_bytes(b"not a database"), 0),
        (lambda file: os.truncate(file, file.stat().st_size // 2), 0),
        (lambda file: os.truncate(file, 8_192), 0),
    ],
)
def test_a_corrupt_database_is_moved_aside_and_begun_anew(
    path: Path, warnings: list[str], damage: object, survivors: int
) -> None:
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        cache.put_many({key(n): vector(n) for n in range(500)})
    assert callable(damage)
    damage(path / "data.mdb")
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        assert len(cache.get_many([key(n) for n in range(500)])) == survivors
        cache.put_many({key(1): vector(1)})
        assert key(1) in cache.get_many([key(1)])
    emptied = not warnings  # an empty file is a new database to LMDB, and loses nothing but what was lost
    assert emptied or (len(warnings) == 1 and "begun anew" in warnings[0])
    assert emptied or path.with_name("vectors.broken").is_dir()


def test_a_vector_whose_bytes_changed_is_a_miss_and_can_be_written_again(
    path: Path, warnings: list[str]
) -> None:
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        cache.put_many({key(n): vector(n) for n in range(5)})
    file = path / "data.mdb"
    content = file.read_bytes()
    body = vector(3).astype("<f2").tobytes()
    assert body in content
    file.write_bytes(content.replace(body, bytes(len(body))))
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        names = [key(n) for n in range(5)]
        assert set(cache.get_many(names)) == set(names) - {key(3)}
        cache.put_many({key(3): vector(3)})
        assert set(cache.get_many(names)) == set(names)


def test_a_lowered_limit_begins_anew(path: Path, warnings: list[str]) -> None:
    with VectorCache(path, limit_bytes=4 * LIMIT_BYTES, warn=warnings.append) as cache:
        for start in range(0, 6_000, 1_000):
            cache.put_many({key(n): vector(0) for n in range(start, start + 1_000)})
    assert (path / "data.mdb").stat().st_size > LIMIT_BYTES
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        cache.put_many({key(1): vector(1)})
    assert (path / "data.mdb").stat().st_size <= LIMIT_BYTES
    assert len(warnings) == 1


def test_a_place_that_cannot_be_written_is_a_warning_and_every_chunk_is_a_miss(
    tmp_path: Path, warnings: list[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with VectorCache(tmp_path / "file" / "vectors", limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
        cache.put_many({key(1): vector(1)})
        assert cache.get_many([key(1)]) == {}
    assert len(warnings) == 1
    assert "cannot be used" in warnings[0]


def test_a_limit_that_holds_nothing_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="at least"):
        VectorCache(path, limit_bytes=1_000, warn=print)


WRITER = """
import sys, numpy as np
from pathlib import Path
from pharos_embedder.vector_cache import VectorCache, vector_key

path, first = Path(sys.argv[1]), int(sys.argv[2])
cache = VectorCache(path, limit_bytes=int(sys.argv[3]), warn=lambda text: print("WARNING", text, flush=True))
for start in range(first, first + 1_000_000, 20):
    keys = [
        vector_key(tenant="acme", content=f"{n:064x}", chunker="c1", encoder="m@1")
        for n in range(start, start + 20)
    ]
    cache.put_many({name: np.full(384, 0.05, dtype=np.float32) for name in keys})
    print(start, flush=True)
"""


def writer(path: Path, first: int, limit_bytes: int = LIMIT_BYTES) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(limit_bytes)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_writer_leaves_a_whole_database_and_what_it_had_stored(
    path: Path, warnings: list[str]
) -> None:
    for round_ in range(3):
        first = round_ * 10_000_000
        with writer(path, first) as process:
            assert process.stdout is not None
            stored = [int(process.stdout.readline()) for _ in range(8 + 5 * round_)]
            process.send_signal(signal.SIGKILL)
            process.wait()
        with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as cache:
            names = [key(n) for start in stored for n in range(start, start + 20)]
            found = cache.get_many(names)
            assert set(found) == set(names)
            assert all(np.array_equal(one, np.full(384, np.float16(0.05))) for one in found.values())
            cache.put_many({key(n): vector(n) for n in range(900_000, 900_050)})  # its lock is free again
            assert len(cache.get_many([key(n) for n in range(900_000, 900_050)])) == 50
    assert warnings == []


def test_two_processes_share_one_cache(path: Path, warnings: list[str]) -> None:
    # Writers that run far ahead of the reader must not have evicted what it is about to read.
    roomy = 64 * LIMIT_BYTES
    with writer(path, 0, roomy) as one, writer(path, 10_000_000, roomy) as other:
        assert one.stdout is not None
        assert other.stdout is not None
        with VectorCache(path, limit_bytes=roomy, warn=warnings.append) as cache:
            for n in range(10):
                left, right = int(one.stdout.readline()), int(other.stdout.readline())
                cache.put_many({key(20_000_000 + n): vector(n)})
                assert len(cache.get_many([key(left), key(right), key(20_000_000 + n)])) == 3
        for process in (one, other):
            process.kill()
    assert warnings == []


def test_what_was_stored_for_a_job_is_forgotten_with_it_and_nothing_else(cache: VectorCache) -> None:
    cache.put_many({key(n): vector(n) for n in range(10)}, job="job-1.acme")
    cache.put_many({key(n): vector(n) for n in range(10, 15)}, job="job-1.acme")
    cache.put_many({key(n): vector(n) for n in range(20, 25)}, job="job-10.acme")
    cache.put_many({key(n): vector(n) for n in range(30, 35)})
    assert cache.jobs() == ["job-1.acme", "job-10.acme"]
    assert cache.forget("job-1.acme") == 15
    assert cache.forget("job-1.acme") == 0
    assert set(cache.get_many([key(n) for n in range(40)])) == {
        key(n) for n in (*range(20, 25), *range(30, 35))
    }
    assert cache.jobs() == ["job-10.acme"]


def test_what_a_job_published_is_kept(cache: VectorCache) -> None:
    cache.put_many({key(n): vector(n) for n in range(10)}, job="job-1.acme")
    cache.keep("job-1.acme")
    assert cache.jobs() == []
    assert cache.forget("job-1.acme") == 0
    assert len(cache.get_many([key(n) for n in range(10)])) == 10


def test_what_jobs_published_is_forgotten_with_their_dataset_and_nothing_else(cache: VectorCache) -> None:
    mine, other = owner_of("acme", "p", "mine"), owner_of("acme", "p", "other")
    for job, owner, numbers in (
        ("1", mine, range(5)),
        ("2", mine, range(10, 14)),
        ("3", other, range(20, 23)),
    ):
        cache.put_many({key(n): vector(n) for n in numbers}, job=f"job-{job}.acme")
        cache.keep(f"job-{job}.acme", owner)
    cache.put_many({key(0): vector(0), key(30): vector(30)}, job="job-4.acme")  # begins like the first one
    cache.keep("job-4.acme", mine)
    cache.put_many({key(40): vector(40)}, job="job-5.acme")
    assert cache.forget_owner(mine) == 10
    assert cache.forget_owner(mine) == 0
    left = {key(n) for n in (20, 21, 22, 40)}
    assert set(cache.get_many([key(n) for n in range(50)])) == left
    assert cache.jobs() == ["job-5.acme"]


def test_what_is_remembered_of_datasets_is_bounded_and_nothing_stays_that_no_deletion_finds(
    cache: VectorCache, path: Path
) -> None:
    datasets = 120
    owners = [owner_of("acme", "p", str(number)) for number in range(datasets)]
    for number, owner in enumerate(owners):
        keys = range(number * 40, number * 40 + 40)
        cache.put_many({key(n): vector(n)[:8] for n in keys}, job=f"job-{number:03}.acme")
        cache.keep(f"job-{number:03}.acme", owner)
    everything = [key(n) for n in range(40 * datasets)]
    there = set(cache.get_many(everything))
    assert 40 < len(there) < len(everything)
    oldest = min(everything.index(each) for each in there) // 40
    assert set(everything[40 * (oldest + 1) :]) <= there  # those of the oldest jobs went first
    forgotten = [cache.forget_owner(owner) for owner in owners]
    assert cache.get_many(everything) == {}
    assert sum(forgotten) == len(there)
    assert (path / "data.mdb").stat().st_size <= LIMIT_BYTES


def test_an_entry_that_was_copied_to_the_young_segment_is_forgotten_in_both(cache: VectorCache) -> None:
    cache.put_many({key(1): vector(1)}, job="job-1.acme")
    before = 0
    for start in range(1000, 9000, 50):  # until the segments change places, and what is asked for is copied
        cache.put_many({key(n): vector(n) for n in range(start, start + 50)})
        held = cache.count()
        assert len(cache.get_many([key(1)])) == 1
        if cache.count() > held:
            break
        assert held > before
        before = held
    else:
        raise AssertionError("nothing was copied")
    assert cache.forget("job-1.acme") == 1
    assert cache.get_many([key(1)]) == {}


def test_a_cache_that_was_closed_still_knows_for_whom_it_holds_what(path: Path, warnings: list[str]) -> None:
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as first:
        first.put_many({key(n): vector(n) for n in range(10)}, job="job-1.acme")
    with VectorCache(path, limit_bytes=LIMIT_BYTES, warn=warnings.append) as second:
        assert second.jobs() == ["job-1.acme"]
        assert second.forget("job-1.acme") == 10
    assert warnings == []


def test_what_is_remembered_of_jobs_is_bounded_and_nothing_stays_that_no_cancelling_finds(
    cache: VectorCache,
) -> None:
    jobs = [f"job-{number:03}.acme" for number in range(120)]
    for number, job in enumerate(jobs):
        cache.put_many({key(n): vector(n)[:8] for n in range(number * 40, number * 40 + 40)}, job=job)
    held = cache.jobs()
    assert 0 < len(held) < len(jobs) and held == jobs[-len(held) :]
    everything = [key(n) for n in range(40 * len(jobs))]
    there = set(cache.get_many(everything))
    whole = set(everything[-40 * (len(held) - 1) :])  # of the oldest that is held some may have gone
    assert whole <= there <= set(everything[-40 * len(held) :])
    assert sum(map(cache.forget, jobs)) == len(there)
    assert cache.get_many(everything) == {}


def test_a_label_says_whose_job_it_is() -> None:
    assert parse_label(label_of("0199a3c4-6c00", "acme")) == ("0199a3c4-6c00", "acme")
