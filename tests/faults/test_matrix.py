"""A fault in one part costs seconds, and no job: none is lost, none is done twice, search finds the same.

Here are the most telling ones; `make faults` tries every cell, and writes `docs/reliability.md`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import page
from tests.faults.matrix import ALL, CELLS, LEFT_OUT, TELLING, Cell
from tests.faults.running import Runs


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as started:
        yield started


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", TELLING, ids=lambda cell: cell.name)
def test_nothing_is_lost_and_nothing_twice(cell: Cell, runs: Runs) -> None:
    row = runs.run(cell)
    assert row.is_right, (cell.name, row)


def test_every_cell_is_tried_or_has_a_reason_not_to_be() -> None:
    assert len(ALL) == 180
    assert {(cell.part, cell.fault) for cell in ALL} == {(cell.part, cell.fault) for cell in CELLS} | set(
        LEFT_OUT
    )
    assert set(TELLING) <= set(CELLS)


def test_the_page_is_the_one_of_the_latest_results() -> None:
    results = page.read()
    assert set(results.rows) == {cell.name for cell in CELLS}
    assert page.PAGE.read_text(encoding="utf-8") == page.render(results)
