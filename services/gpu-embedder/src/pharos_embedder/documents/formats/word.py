"""Word by python-docx: paragraphs, headings by their style, lists and tables, in the order of the body.

Headers, footers, footnotes and text boxes are left out; formulas become LaTeX. Pages are those that Word
counted when it saved the file last; files that were never laid out have none.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Final

import docx
from docx.oxml.ns import qn
from docx.table import Table
from docx.text.hyperlink import Hyperlink
from docx.text.paragraph import Paragraph
from docx.text.run import Run

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, one_line
from pharos_embedder.documents.formulas import office_latex

_HEADING: Final = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|rubrik)\s*([1-9])", re.IGNORECASE
)
_LIST: Final = re.compile(r"list|aufzählung|liste", re.IGNORECASE)
_PAGE_BREAK: Final = qn("w:lastRenderedPageBreak")
_OUTLINE_LEVEL: Final = qn("w:outlineLvl")
_NUMBERED: Final = qn("w:numPr")
_VALUE: Final = qn("w:val")
_RUN: Final = qn("w:r")
_LINK: Final = qn("w:hyperlink")
_FORMULA: Final = qn("m:oMath")
_FORMULAS: Final = qn("m:oMathPara")


def read(data: bytes, assembly: Assembly) -> None:
    document = docx.Document(io.BytesIO(data))
    properties = document.core_properties
    assembly.facts.title = one_line(properties.title or "", TITLE_CHARACTERS_MAX)
    when = properties.modified or properties.created
    assembly.facts.date = when.date().isoformat() if when is not None else ""
    assembly.facts.language = (properties.language or "")[:2].lower()
    laid_out = any(True for _ in document.element.body.iter(_PAGE_BREAK))
    page = 1
    items: list[str] = []
    for block in document.iter_inner_content():
        assembly.page = page if laid_out else None
        if isinstance(block, Paragraph):
            _read_paragraph(block, items, assembly)
        else:
            _flush(items, assembly)
            assembly.table(_rows(block, assembly))
        page += sum(1 for _ in block._element.iter(_PAGE_BREAK)) if laid_out else 0
    _flush(items, assembly)
    assembly.facts.pages = page if laid_out else 0


def _read_paragraph(paragraph: Paragraph, items: list[str], assembly: Assembly) -> None:
    text = _text_of(paragraph, assembly)
    if not text.strip():
        return
    style = _style_name(paragraph)
    level = _level(paragraph, style)
    if level is None and (_LIST.search(style) or _has(paragraph, _NUMBERED)):
        items.append(f"- {' '.join(text.split())}")
        return
    _flush(items, assembly)
    if level is None:
        assembly.prose(text)
    else:
        assembly.heading(level, text)
        if level == 1 and not assembly.facts.title:
            assembly.facts.title = one_line(text, TITLE_CHARACTERS_MAX)


def _flush(items: list[str], assembly: Assembly) -> None:
    """The items of a list are one paragraph."""
    if items:
        text = "\n".join(items)
        items.clear()
        assembly.prose(text)


def _style_name(paragraph: Paragraph) -> str:
    style = paragraph.style
    return (style.name or "") if style is not None else ""


def _level(paragraph: Paragraph, style: str) -> int | None:
    """The level of a heading, by its style or its own outline level; None for other paragraphs."""
    if style.lower() == "title":
        return 1
    if (named := _HEADING.match(style)) is not None:
        return int(named[1])
    properties = paragraph._p.pPr
    outline = properties.find(_OUTLINE_LEVEL) if properties is not None else None
    value = outline.get(_VALUE, "9") if outline is not None else "9"
    return int(value) + 1 if value in "012345678" else None


def _has(paragraph: Paragraph, tag: str) -> bool:
    properties = paragraph._p.pPr
    return properties is not None and properties.find(tag) is not None


def _text_of(paragraph: Paragraph, assembly: Assembly) -> str:
    """The text of *paragraph*, its formulas in their places if they are to be kept."""
    if not assembly.math or not any(True for _ in paragraph._p.iter(_FORMULA)):
        return paragraph.text
    words = []
    for child in paragraph._p:
        match child.tag:
            case tag if tag == _RUN:
                words.append(Run(child, paragraph).text)
            case tag if tag == _LINK:
                words.append(Hyperlink(child, paragraph).text)
            case tag if tag in (_FORMULA, _FORMULAS):
                words.append(office_latex(child))
    return "".join(words)


def _rows(table: Table, assembly: Assembly) -> Iterator[list[str]]:
    """The texts of a table; a cell that is merged over several columns counts once."""
    for row in table.rows:
        cells: list[str] = []
        last: Any = None
        for cell in row.cells:
            if cell._tc is not last:
                cells.append("\n".join(_text_of(each, assembly) for each in cell.paragraphs))
            last = cell._tc
        yield cells
