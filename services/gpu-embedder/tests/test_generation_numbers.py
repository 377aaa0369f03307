"""Numbers of generations are never used again for other content of a dataset."""

from __future__ import annotations

from pharos_embedder.vectors import MILLISECONDS_FROM, generation_after


def test_two_jobs_within_a_second_have_different_numbers() -> None:
    first = generation_after(0)
    while (second := generation_after(0)) == first:
        pass
    assert MILLISECONDS_FROM < first < second < first + 1_000


def test_a_number_is_above_the_one_that_it_follows_whatever_the_clock_says() -> None:
    ahead = generation_after(0) + 10**9
    assert generation_after(ahead) == ahead + 1
