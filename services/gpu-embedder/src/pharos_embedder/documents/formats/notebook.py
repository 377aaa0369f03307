"""Jupyter notebooks: the cells of Markdown and of code in their order. What the code printed is left out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, clean, one_line
from pharos_embedder.documents.formats.markdown import parts_of, without_math
from pharos_embedder.documents.refusals import DocumentRefused

_CELLS_MAX: Final = 50_000


class _Cell(msgspec.Struct):
    cell_type: str
    source: str | list[str] = ""
    input: str | list[str] = ""  # of code, in the format before 4

    @property
    def text(self) -> str:
        text = self.source or self.input
        return text if isinstance(text, str) else "".join(text)


class _Worksheet(msgspec.Struct):
    cells: list[_Cell] = []


class _Notebook(msgspec.Struct):
    cells: list[_Cell] = []
    worksheets: list[_Worksheet] = []  # before format 4
    metadata: dict[str, Any] = {}


def read(text: str, assembly: Assembly) -> None:
    """Raises DocumentRefused for what is no notebook."""
    try:
        notebook = msgspec.json.decode(text.encode("utf-8", "replace"), type=_Notebook)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DocumentRefused("document_damaged", "It is named as a Jupyter notebook and is none.") from error
    cells = notebook.cells or [cell for sheet in notebook.worksheets for cell in sheet.cells]
    if len(cells) > _CELLS_MAX:
        assembly.warn(f"Only the first {_CELLS_MAX} of its {len(cells)} cells were read.")
    language = _language(notebook.metadata)
    for cell in cells[:_CELLS_MAX]:
        source = clean(cell.text)
        if not source.strip():
            continue
        if cell.cell_type == "code":
            assembly.code(source, language)
        elif cell.cell_type == "markdown":
            if not assembly.math:
                source = without_math(source)
            parts = parts_of(source)
            if not assembly.facts.title:
                headings = (part.heading for part in parts if part.kind == "heading")
                assembly.facts.title = one_line(next(headings, ""), TITLE_CHARACTERS_MAX)
            assembly.verbatim(source, parts)
        else:
            assembly.prose(source)


def _language(metadata: dict[str, Any]) -> str:
    for group, field in (("language_info", "name"), ("kernelspec", "language")):
        known = metadata.get(group)
        if isinstance(known, dict) and isinstance(known.get(field), str):
            return str(known[field])[:40].lower()
    return "python"
