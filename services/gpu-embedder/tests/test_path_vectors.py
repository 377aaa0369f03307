"""A chunk's vector is drawn towards that of its file's path; what is known by content has no path in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN, label_of
from pharos_embedder.kept import forget_chunks
from pharos_embedder.path_vectors import PATH_CHARACTERS_MAX, PATH_WEIGHT, PathVectors, path_key, placed
from pharos_embedder.points import Origin
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import DatasetKey, Floats, Payload

ORIGIN = Origin(
    dataset=DatasetKey("acme", "default", "d"),
    generation=5,
    scope="project",
    repository="h/o/r",
    encoder="fake@1",
    job="job-1",
    attempt=1,
)


class Asked:
    """Encodes a text by its letters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Floats:
        self.texts += texts
        made = np.array([[len(text), text.count("a"), text.count("/"), 1] for text in texts], np.float32)
        unit: Floats = made / np.linalg.norm(made, axis=1, keepdims=True)
        return unit


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VectorCache]:
    with VectorCache(tmp_path / "vectors", limit_bytes=LIMIT_BYTES_MIN, warn=pytest.fail) as found:
        yield found


def test_a_placed_vector_has_unit_length_and_lies_between_its_two_nearer_to_the_content() -> None:
    drawn = np.random.default_rng(0).normal(size=(2, 500, 6)).astype(np.float32)
    contents, paths = drawn / np.linalg.norm(drawn, axis=2, keepdims=True)
    found = placed(contents, paths)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    to_content, to_path = (found * contents).sum(axis=1), (found * paths).sum(axis=1)
    assert (to_content > to_path).all()
    assert (to_path > (contents * paths).sum(axis=1)).all()
    assert np.allclose(placed(contents, -contents), contents, atol=1e-6)
    assert 0 < PATH_WEIGHT < 0.5


def test_a_path_is_encoded_once_for_all_chunks_of_its_file_and_in_later_runs_not_at_all(
    cache: VectorCache,
) -> None:
    asked = Asked()
    first = PathVectors(asked, cache, ORIGIN).of(["src/a.py", "b.py", "src/a.py"])
    assert asked.texts == ["src/a.py", "b.py"]
    assert first.shape == (3, 4) and (first[0] == first[2]).all() and (first[0] != first[1]).any()
    again = PathVectors(asked, cache, ORIGIN).of(["b.py", "src/a.py"])
    assert asked.texts == ["src/a.py", "b.py"]
    assert (again == first[1::-1]).all()


def test_of_a_very_long_path_the_end_is_encoded(cache: VectorCache) -> None:
    asked = Asked()
    PathVectors(asked, cache, ORIGIN).of(["folder/" * 500 + "name.py"])
    (text,) = asked.texts
    assert len(text) == PATH_CHARACTERS_MAX and text.endswith("/name.py")


def test_what_a_job_that_is_cancelled_encoded_of_paths_is_forgotten_with_the_rest(cache: VectorCache) -> None:
    PathVectors(Asked(), cache, ORIGIN).of(["src/a.py"])
    assert cache.jobs() == [label_of("job-1", "acme")]
    assert cache.forget(label_of("job-1", "acme")) == 1


@pytest.mark.parametrize(("encoder", "now"), [("", "fake@1"), ("fake@1", "another")])
def test_deleting_chunks_forgets_their_paths(cache: VectorCache, encoder: str, now: str) -> None:
    PathVectors(Asked(), cache, ORIGIN).of(["src/a.py", "b.py"])
    payload = Payload(
        dataset=ORIGIN.dataset, kind="chunk", generation=5, path="src/a.py", content_hash="1", encoder=encoder
    )
    forget_chunks(cache, now, [payload])
    keys = {path: path_key(path, tenant="acme", encoder="fake@1") for path in ("src/a.py", "b.py")}
    assert set(cache.get_many(list(keys.values()))) == {keys["b.py"]}


def test_deleting_chunks_forgets_their_paths_as_the_encoder_before_had_them(cache: VectorCache) -> None:
    PathVectors(Asked(), cache, ORIGIN).of(["a.py"])
    payload = Payload(
        dataset=ORIGIN.dataset, kind="chunk", generation=5, path="a.py", content_hash="1", encoder="fake@1"
    )
    forget_chunks(cache, "another@2", [payload])
    assert not cache.get_many([path_key("a.py", tenant="acme", encoder="fake@1")])


def test_tenants_and_encoders_have_their_own() -> None:
    keys = {path_key("a", tenant=tenant, encoder=encoder) for tenant in "xy" for encoder in "pq"}
    assert len(keys) == 4
