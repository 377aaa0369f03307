"""``docs/reliability.md``, made from the rows of a run, which are kept in ``results.json`` beside this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from bench.machine import machine
from tests.faults.matrix import (
    ALL,
    CELLS,
    FAULT_MEANING,
    FAULT_WORDS,
    LEFT_OUT,
    MOMENT_MEANING,
    Cell,
    Fault,
    Moment,
    Part,
)
from tests.faults.running import Row

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path(__file__).with_name("results.json")
PAGE: Final = ROOT / "docs" / "reliability.md"
COMMAND: Final = "make faults"


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The latest row of each cell, by its name, and what they were made on. ``measured_at``: the last one."""

    machine: dict[str, str | int | None] = msgspec.field(default_factory=dict)
    measured_at: str = ""
    rows: dict[str, Row] = msgspec.field(default_factory=dict)


def read(path: Path = RESULTS) -> Results:
    if not path.exists():
        return Results()
    return msgspec.json.decode(path.read_bytes(), type=Results)


def keep(row: Row, path: Path = RESULTS) -> None:
    """Put *row* in the place of the one that its cell had."""
    rows = {**read(path).rows, name_of(row): row}
    known = {cell.name: number for number, cell in enumerate(CELLS)}
    kept = {name: rows[name] for name in sorted(rows.keys() & known.keys(), key=known.__getitem__)}
    _store(msgspec.structs.replace(read(path), rows=kept), path)


def write() -> None:
    """Make the page of the rows that are kept, as measured on this machine until now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    results = msgspec.structs.replace(read(), machine=machine(), measured_at=now)
    _store(results, RESULTS)
    PAGE.write_text(render(results), encoding="utf-8")


def _store(results: Results, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def name_of(row: Row) -> str:
    return Cell(Part(row.part), Fault(row.fault), Moment(row.moment)).name


def render(results: Results) -> str:
    """The whole page."""
    rows = results.rows
    right = [row for row in rows.values() if row.is_right]
    lost, twice = (sum(getattr(row, name) for row in rows.values()) for name in ("lost", "twice"))
    on = results.machine
    parts = [
        "# What faults cost\n",
        f"Made by `{COMMAND}`, which tries every cell against the real processes and fails where one of them "
        "is not right again: not written by hand.\n",
        f"{len(ALL)} cells: {len(rows)} tried, {len(right)} of them right; {len(ALL) - len(CELLS)} have "
        f"nothing to try (see the end). Jobs lost: **{lost}**. Jobs done twice: **{twice}**.\n",
        f"Measured at {results.measured_at} on {on.get('cpu')}, {on.get('cores')} cores, Python "
        f"{on.get('python')}, torch {on.get('torch')} ({on.get('device')} {on.get('dtype')}).\n",
        "## How a cell is tried\n",
        "A gateway, two schedulers, a worker with two slots and the embedded store, history on SQLite, and a "
        "nats-server that syncs every write, each process with a proxy of its own before the bus and a disk "
        "of its own. A tenant that nobody else is submits a repository; its job is brought to the moment, "
        "and the fault is put upon the part. While it lasts, one more job is submitted, again and again with "
        "the same `Idempotency-Key` until it is taken. Then it is looked, ten times a second, whether all is "
        "right:\n",
        "- every job that was accepted has ended, once, in the state that it should have, and no other job "
        "came of it;\n"
        "- its item was completed once; `Q`, `WORK` and `active` hold nothing of it;\n"
        "- history tells the same;\n"
        "- search finds what it found for another tenant who indexed the same in peace; of a cancelled job, "
        "nothing;\n"
        "- no workspace is left on the worker's disk, and `pharos-bus check` finds nothing wrong.\n",
        "Seconds count until all of that is true and stays so: from the beginning of the fault, and from its "
        "end, which is when what was frozen, full, cut or slow was put right (a kill and a repeat last no "
        "time; 0.0: all was right while the fault still lasted). They include what was left of the work "
        "itself, a few seconds in an undisturbed run.\n",
        *_glossary("fault", FAULT_WORDS, FAULT_MEANING),
        *_glossary("moment", {each: each.value for each in Moment}, MOMENT_MEANING),
        "## Right again after its end, in seconds\n",
        *(_grid(fault, rows) for fault in Fault),
        "## What happened\n",
        *(_account(part, rows) for part in Part),
        "## Cells with nothing to try\n",
        "| part | fault | why |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| {part} | {FAULT_WORDS[fault]} | {reason} |" for (part, fault), reason in LEFT_OUT.items()
        )
        + "\n",
    ]
    return "\n".join(parts)


def _glossary(
    kind: str, words: Mapping[Fault, str] | Mapping[Moment, str], meaning: Mapping
) -> Iterable[str]:
    yield f"| {kind} | what it is |\n| --- | --- |"
    yield "\n".join(f"| {words[each]} | {sentence} |" for each, sentence in meaning.items()) + "\n"


def _grid(fault: Fault, rows: Mapping[str, Row]) -> str:
    """One line per part, one column per moment."""
    lines = [
        f"| {FAULT_WORDS[fault]} | {' | '.join(Moment)} |",
        "| --- |" + " --- |" * len(Moment),
    ]
    for part in Part:
        if (part, fault) not in LEFT_OUT:
            cells = [_seconds(rows.get(Cell(part, fault, moment).name)) for moment in Moment]
            lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seconds(row: Row | None) -> str:
    if row is None:
        return "not tried"
    if row.right_after_end_seconds is None or not row.is_right:
        return "**wrong**"
    return f"{row.right_after_end_seconds:.1f}"


def _from_begin(row: Row) -> str:
    return "never" if row.right_after_seconds is None else f"{row.right_after_seconds:.1f}"


def _account(part: Part, rows: Mapping[str, Row]) -> str:
    lines = [
        f"### {part}\n",
        "| fault | moment | what happened | right after its beginning | after its end | lost | twice |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in CELLS:
        row = rows.get(cell.name)
        if cell.part is part and row is not None:
            what = "; ".join([row.what, *row.problems]).replace("|", "\\|")
            lines.append(
                f"| {FAULT_WORDS[cell.fault]} | {cell.moment} | {what} | {_from_begin(row)} "
                f"| {_seconds(row)} | {row.lost} | {row.twice} |"
            )
    return "\n".join(lines) + "\n"
