"""Hits of two channels become files in one order."""

from itertools import permutations

import pytest

from pharos_embedder.fusion import RRF_K, Reason, fuse
from pharos_embedder.vectors import DatasetKey, Hit, Payload

ATLAS = DatasetKey("acme", "default", "atlas")
BORA = DatasetKey("acme", "default", "bora")


def hit(path: str, score: float, *, line: int = 1, dataset: DatasetKey = ATLAS) -> Hit:
    payload = Payload(
        dataset=dataset, kind="chunk", generation=1, path=path, start_line=line, end_line=line + 9
    )
    return Hit(id=f"{dataset.dataset}:{path}:{line}", score=score, payload=payload)


def order(*channels: list[Hit]) -> list[str]:
    return [file.path for file in fuse(dict(zip(("dense", "sparse"), channels, strict=False)))]


def test_a_file_that_both_channels_find_comes_before_those_that_one_finds() -> None:
    dense = [hit("meaning.py", 0.9), hit("both.py", 0.8)]
    sparse = [hit("words.py", 20.0), hit("both.py", 11.0)]
    assert order(dense, sparse)[0] == "both.py"


def test_a_file_first_in_every_ranking_scores_one() -> None:
    files = fuse({"dense": [hit("a.py", 0.9), hit("b.py", 0.1)], "sparse": [hit("a.py", 9.0)]})
    assert files[0].score == pytest.approx(1.0)
    assert 0 < files[1].score < 1
    (only,) = fuse({"dense": [], "sparse": [hit("a.py", 9.0)]})
    assert only.score == pytest.approx(1.0)


def test_the_best_chunk_and_the_mean_of_three_are_both_ranked() -> None:
    sparse = [
        hit("peak.py", 10.0), hit("peak.py", 1.0, line=20), hit("peak.py", 1.0, line=40),
        hit("even.py", 8.0), hit("even.py", 8.0, line=20), hit("even.py", 8.0, line=40),
        hit("even.py", 0.1, line=60),
    ]  # fmt: skip
    reasons = {file.path: file.reasons for file in fuse({"sparse": sparse})}
    assert reasons["peak.py"] == (
        Reason(channel="sparse", by="best", rank=1, score=10.0),
        Reason(channel="sparse", by="mean", rank=2, score=4.0),
    )
    assert reasons["even.py"] == (
        Reason(channel="sparse", by="best", rank=2, score=8.0),
        Reason(channel="sparse", by="mean", rank=1, score=8.0),
    )


def test_a_short_file_is_not_punished_for_having_one_chunk() -> None:
    hits = [hit("long.py", 0.9), hit("long.py", 0.5, line=20), hit("short.py", 0.8)]
    means = {file.path: file.reasons[1].score for file in fuse({"dense": hits})}
    assert means == {"long.py": pytest.approx(0.7), "short.py": 0.8}


def test_the_score_is_the_reciprocal_rank_sum_over_the_best_possible() -> None:
    files = fuse({"dense": [hit("a.py", 0.9), hit("b.py", 0.8)], "sparse": [hit("b.py", 5.0)]})
    scores = {file.path: file.score for file in files}
    best = 4 / (RRF_K + 1)
    assert scores["a.py"] == pytest.approx(2 / (RRF_K + 1) / best)
    assert scores["b.py"] == pytest.approx((2 / (RRF_K + 2) + 2 / (RRF_K + 1)) / best)


def test_the_order_of_hits_and_ties_does_not_matter() -> None:
    hits = [hit("b.py", 1.0), hit("a.py", 1.0), hit("a.py", 1.0, dataset=BORA), hit("c.py", 1.0)]
    answers = {
        tuple((file.dataset, file.path) for file in fuse({"dense": list(p)})) for p in permutations(hits)
    }
    assert answers == {((ATLAS, "a.py"), (ATLAS, "b.py"), (ATLAS, "c.py"), (BORA, "a.py"))}


def test_files_of_one_path_in_two_datasets_stay_apart() -> None:
    files = fuse({"dense": [hit("a.py", 0.9), hit("a.py", 0.8, dataset=BORA)]})
    assert [(file.dataset, len(file.chunks)) for file in files] == [(ATLAS, 1), (BORA, 1)]


def test_the_chunk_that_both_channels_like_is_shown_first_with_both_scores() -> None:
    dense = [hit("a.py", 0.9), hit("a.py", 0.8, line=20)]
    sparse = [hit("a.py", 7.0, line=20), hit("a.py", 6.0, line=40)]
    (file,) = fuse({"dense": dense, "sparse": sparse})
    assert [chunk.hit.payload.start_line for chunk in file.chunks] == [20, 1, 40]
    assert file.chunks[0].scores == {"dense": 0.8, "sparse": 7.0}
    assert file.chunks[1].scores == {"dense": 0.9}


def test_no_hits_are_no_files() -> None:
    assert fuse({}) == fuse({"dense": [], "sparse": []}) == []
