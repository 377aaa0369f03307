"""Progress comes from counts, never falls, and estimates only from a pace it has seen."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pharos_contracts.jobs.v1 import Stage
from pharos_embedder.progress import SHARES, Gauge

reports = st.lists(
    st.tuples(st.sampled_from(Stage), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=50
)


@given(reports)
def test_the_percentage_never_falls_and_stays_within_its_bounds(
    reported: list[tuple[Stage, int, int]],
) -> None:
    gauge = Gauge()
    seen = [
        gauge.read(stage, done, total, at=float(n)).percent for n, (stage, done, total) in enumerate(reported)
    ]
    assert all(0 <= percent <= 100 for percent in seen)
    assert all(after >= before for before, after in pairwise(seen))


def test_the_shares_cover_the_whole_without_gap_or_overlap() -> None:
    spans = list(SHARES.values())
    assert set(SHARES) == set(Stage)
    assert spans[0][0] == 0 and spans[-1][1] == 100
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_there_is_no_estimate_before_there_is_a_pace() -> None:
    gauge = Gauge()
    assert gauge.read(Stage.PARSE, 5, 10, at=0).eta_seconds is None
    assert gauge.read(Stage.ENCODE, 0, 100, at=1).eta_seconds is None
    assert gauge.read(Stage.ENCODE, 10, 100, at=1.5).eta_seconds is None


def test_the_estimate_is_the_pace_seen_on_what_remains() -> None:
    gauge = Gauge()
    gauge.read(Stage.ENCODE, 40, 100, at=10)  # 40 were known by their content: they say nothing of the pace
    assert gauge.read(Stage.ENCODE, 60, 100, at=14).eta_seconds == 8.0
    assert gauge.read(Stage.ENCODE, 100, 100, at=22).eta_seconds == 0.0
