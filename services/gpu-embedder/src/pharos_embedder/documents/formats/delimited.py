"""CSV and its relatives: one table, the separator found out."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath
from typing import Final

from pharos_embedder.documents.blocks import Assembly, clean
from pharos_embedder.documents.formats import plain

_SAMPLE_CHARACTERS: Final = 16 * 1024
_SEPARATORS: Final = ",;\t|"
_CELL_CHARACTERS_MAX: Final = 10_000_000


def read(text: str, assembly: Assembly, *, name: str = "") -> None:
    text = clean(text)
    csv.field_size_limit(_CELL_CHARACTERS_MAX)  # a quotation mark that is never closed makes one of the rest
    try:
        assembly.table(csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, name)))
    except csv.Error:
        assembly.warn("It is not valid CSV and was read as lines of text.")
        plain.read(text, assembly)


def _separator(text: str, name: str) -> str:
    if PurePosixPath(name).suffix.lower() in {".tsv", ".tab"}:
        return "\t"
    sample = text[:_SAMPLE_CHARACTERS]
    sample = sample[: sample.rfind("\n") + 1] or sample
    lines = sample.splitlines()[:50]
    # The one that most lines have as often as the first: csv.Sniffer also takes letters.
    return max(_SEPARATORS, key=lambda one: sum(line.count(one) == lines[0].count(one) > 0 for line in lines))
