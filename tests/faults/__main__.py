"""``python -m tests.faults``: run the matrix, or part of it, and write ``docs/reliability.md``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.faults import page
from tests.faults.matrix import CELLS, Cell, Fault
from tests.faults.running import Row, Runs


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="run only the cells whose name has one of these in it")
    parser.add_argument("--keep-logs", type=Path, help="a folder for the logs of cells that went wrong")
    given = parser.parse_args()
    cells = [cell for cell in CELLS if not given.words or any(word in cell.name for word in given.words)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # every process and mount goes with this one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wrong = 0
    with Runs(given.keep_logs) as runs:
        for number, cell in enumerate(cells, 1):
            if cell.fault is Fault.FULL and not runs.can_fill_disks:
                say(f"{number}/{len(cells)} {cell.name}: left out, only root can fill a disk of its own")
                continue
            row = attempt(runs, cell)
            wrong += not row.is_right
            page.keep(row)
            say(f"{number}/{len(cells)} {cell.name}: {told(row)}")
    page.write()
    say(f"{len(cells) - wrong} of {len(cells)} are right; {page.PAGE.name} is written")
    return 1 if wrong else 0


def attempt(runs: Runs, cell: Cell) -> Row:
    """The row of *cell*; where the trial itself broke, one that says so."""
    began = time.monotonic()
    try:
        return runs.run(cell)
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}".splitlines()[0]
        return Row(
            part=cell.part.value,
            fault=cell.fault.value,
            moment=cell.moment.value,
            what=f"the trial broke after {time.monotonic() - began:.0f} s",
            right_after_seconds=None,
            held_seconds=0.0,
            lost=0,
            twice=0,
            problems=(sentence,),
        )


def told(row: Row) -> str:
    if row.is_right:
        return (
            f"right {row.right_after_seconds:.1f} s after its beginning, {row.right_after_end_seconds:.1f} s "
            f"after its end; {row.what}; last: {row.last}"
        )
    return f"WRONG; {row.what}; {'; '.join(row.problems)}"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
