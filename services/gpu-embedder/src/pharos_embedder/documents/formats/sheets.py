"""Excel by openpyxl: each sheet is a heading and a table, its cells what Excel last showed.

A formula is read as the value that was computed when the file was saved; a file that was never computed has
none, and such cells are empty.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import Any

import openpyxl

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, one_line


def read(data: bytes, assembly: Assembly) -> None:
    limits = assembly.limits
    workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    properties = workbook.properties
    assembly.facts.title = one_line(properties.title or "", TITLE_CHARACTERS_MAX)
    when = properties.modified or properties.created
    assembly.facts.date = when.date().isoformat() if when is not None else ""
    assembly.facts.language = (properties.language or "")[:2].lower()
    sheets = workbook.worksheets
    if len(sheets) > limits.sheets_max:
        assembly.warn(f"Only the first {limits.sheets_max} of its {len(sheets)} sheets were read.")
    for sheet in sheets[: limits.sheets_max]:
        rows = _rows(sheet, assembly)
        first = next((row for row in rows if any(row)), None)
        if first is not None:  # an empty sheet is no heading
            assembly.heading(1, sheet.title)
            assembly.table(_with(first, rows))


def _rows(sheet: Any, assembly: Assembly) -> Iterator[list[str]]:
    most = 10 * assembly.limits.rows_max  # empty ones count here
    sheet.reset_dimensions()  # what the file says of them may be far too much
    for number, row in enumerate(sheet.iter_rows(values_only=True)):
        if number == most:
            assembly.warn(f"Of long sheets only the first {most} rows were looked at.")
            break
        # One more than is read, so that what is left out is noticed.
        yield [_shown(value) for value in row[: assembly.limits.columns_max + 1]]


def _with(first: list[str], rows: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rows


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case _:
            return str(value)
