"""A fault in one part costs seconds, and no job: none is lost, none is done twice, search finds the same.

`make faults` tries the whole matrix and writes `docs/reliability.md`; here every cell is a test, and the most
telling ones are in `make test`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import page
from tests.faults.matrix import ALL, CELLS, LEFT_OUT, TELLING, Cell, Fault
from tests.faults.running import Runs


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as started:
        yield started


def survive(runs: Runs, cell: Cell) -> None:
    if cell.fault is Fault.FULL and not runs.can_fill_disks:
        pytest.skip("only root can fill a disk of its own")
    row = runs.run(cell)
    assert row.is_right, (cell.name, row)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", TELLING, ids=lambda cell: cell.name)
def test_nothing_is_lost_and_nothing_twice(cell: Cell, runs: Runs) -> None:
    survive(runs, cell)


@pytest.mark.chaos
@pytest.mark.timeout(480)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_nothing_is_lost_and_nothing_twice_in_any_cell(cell: Cell, runs: Runs) -> None:
    survive(runs, cell)


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
