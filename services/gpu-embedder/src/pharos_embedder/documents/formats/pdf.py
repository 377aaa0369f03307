"""PDF by PDFium: the text layer of each page, headings from the outline or else from the sizes of letters.

PDFium is not thread-safe and has had its share of holes: this runs in a process of its own (`pool`).
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import pypdfium2 as pdfium
from pypdfium2 import raw

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, Part, one_line
from pharos_embedder.documents.refusals import DocumentRefused

_HYPHENS: Final = dict.fromkeys(map(ord, "\x02\ufffe\xad"))
"""What PDFium gives where a hyphen only breaks a word at the end of a line; it joins the lines itself."""

_BLANKS: Final = re.compile(r"[^\S\n]+")
_DATE: Final = re.compile(r"D?:?(\d{4})(\d{2})?(\d{2})?")
_SCANNED_SHARE_MIN: Final = 0.9
_PAGE_CHARACTERS_MIN: Final = 16  # fewer is a page number or a stamp
_OUTLINE_MAX: Final = 5_000
_LARGER: Final = 1.15  # than the letters of the body: a heading
_HEADING_CHARACTERS_MAX: Final = 150
_HEADING_LEVELS: Final = 3
_OBJECTS_LOOKED_AT_MAX: Final = 2_000
_DRAWN: Final = (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_FORM)


class _Line(NamedTuple):
    text: str
    size: float  # of its first letter, in points, to half a point


def read(data: bytes, assembly: Assembly) -> None:
    """Raises DocumentRefused for a PDF that is encrypted, broken or scanned."""
    try:
        pdf = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        raise _refused(error) from error
    with pdf:
        _read_facts(pdf, assembly)
        count = min(len(pdf), assembly.limits.pages_max)
        if len(pdf) > count:
            assembly.warn(f"Only the first {count} of its {len(pdf)} pages were read.")
        pages: list[list[_Line]] = []
        broken = pictured = 0
        letters = 0
        for number in range(count):
            try:
                page = pdf[number]
            except pdfium.PdfiumError:
                broken += 1
                pages.append([])
                continue
            lines = _lines(page)
            if sum(len(line.text) for line in lines) < _PAGE_CHARACTERS_MIN:
                pictured += _shows_something(page)
            letters += sum(len(line.text) for line in lines)
            page.close()
            pages.append(lines)
            if letters > assembly.limits.characters_max:
                break
        if broken == count:
            raise DocumentRefused("document_damaged", "The PDF is damaged: none of its pages can be read.")
        assembly.facts.pages_pictured = pictured
        if pictured and pictured >= _SCANNED_SHARE_MIN * count:
            raise DocumentRefused(
                "document_scanned",
                f"The PDF is scanned: {pictured} of its {count} pages hold pictures and no text. "
                "Run it through text recognition (OCR) first.",
            )
        if broken:
            assembly.warn(f"{broken} of its {count} pages are damaged and were left out.")
        if pictured:
            assembly.warn(f"{pictured} of its {count} pages are pictures without text and were left out.")
        outline = _outline(pdf)
    levels = {} if outline else _levels(pages)
    for number, lines in enumerate(pages):
        assembly.page = number + 1
        _assemble(lines, outline.get(number, ()), levels, assembly)


def _refused(error: pdfium.PdfiumError) -> DocumentRefused:
    code = getattr(error, "err_code", None)
    if code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
        return DocumentRefused(
            "document_encrypted", "The PDF is encrypted and asks for a password: save it without one."
        )
    return DocumentRefused("document_damaged", "The PDF is damaged and cannot be opened.")


def _read_facts(pdf: pdfium.PdfDocument, assembly: Assembly) -> None:
    facts = assembly.facts
    facts.pages = len(pdf)
    known = pdf.get_metadata_dict()
    facts.title = one_line(known.get("Title", ""), TITLE_CHARACTERS_MAX)
    if (found := _DATE.match(known.get("CreationDate", ""))) is not None:
        facts.date = "-".join(part for part in found.groups() if part)


def _lines(page: pdfium.PdfPage) -> list[_Line]:
    """The lines of a page's text in reading order, without blank ones."""
    textpage = page.get_textpage()
    count = textpage.count_chars()
    if count <= 0:
        textpage.close()
        return []
    text = textpage.get_text_range()
    lines: list[_Line] = []
    at = 0
    for line in text.split("\n"):
        shown = _BLANKS.sub(" ", line.translate(_HYPHENS)).strip()
        if shown:
            first = at + len(line) - len(line.lstrip())
            index = raw.FPDFText_GetCharIndexFromTextIndex(textpage, first)
            size = raw.FPDFText_GetFontSize(textpage, max(index, 0)) * _scale(textpage, max(index, 0))
            lines.append(_Line(shown, round(2 * size) / 2))
        at += len(line) + 1
    textpage.close()
    return lines


def _scale(textpage: pdfium.PdfTextPage, index: int) -> float:
    """How much the page enlarges the letter: some producers set all in size 1 and scale it."""
    matrix = raw.FS_MATRIX()
    if not raw.FPDFText_GetMatrix(textpage, index, ctypes.byref(matrix)):
        return 1.0
    return float(abs(matrix.d) or abs(matrix.b) or 1.0)


def _shows_something(page: pdfium.PdfPage) -> bool:
    """Whether a page without text is a picture, and not blank."""
    return any(
        number < _OBJECTS_LOOKED_AT_MAX and item.type in _DRAWN
        for number, item in enumerate(page.get_objects(max_depth=3))
    )


def _outline(pdf: pdfium.PdfDocument) -> Mapping[int, Sequence[tuple[int, str]]]:
    """The entries of the outline by page: levels from 1, and titles."""
    found: dict[int, list[tuple[int, str]]] = {}
    for number, entry in enumerate(pdf.get_toc(max_depth=6)):
        if number >= _OUTLINE_MAX:
            break
        destination = entry.get_dest()
        page = destination.get_index() if destination is not None else None
        title = one_line(entry.get_title())
        if page is not None and title:
            found.setdefault(page, []).append((entry.level + 1, title))
    return found


def _levels(pages: Sequence[Sequence[_Line]]) -> Mapping[float, int]:
    """The sizes of letters that headings have, and their levels: those larger than the body's."""
    sizes: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            sizes[line.size] += len(line.text)
    if not sizes:
        return {}
    body = sizes.most_common(1)[0][0]
    larger = sorted((size for size in sizes if size >= _LARGER * body), reverse=True)
    if sum(sizes[size] for size in larger) > 0.3 * sizes.total():
        return {}  # no body to stand out from
    return {size: min(rank, _HEADING_LEVELS) for rank, size in enumerate(larger, 1)}


def _assemble(
    lines: Sequence[_Line],
    entries: Sequence[tuple[int, str]],
    levels: Mapping[float, int],
    assembly: Assembly,
) -> None:
    """One page. An entry of the outline is the heading at the line that reads like it."""
    places: dict[int, tuple[int, str]] = {}
    squeezed = [_squeezed(line.text) for line in lines] if entries else []
    after = 0
    for level, title in entries:
        wanted = _squeezed(title)
        place = next((at for at in range(after, len(lines)) if wanted and wanted in squeezed[at]), None)
        if place is None or place in places:
            continue
        places[place] = level, title
        after = place + 1
    for at, line in enumerate(lines):
        if line.size in levels and len(line.text) <= _HEADING_CHARACTERS_MAX:
            places[at] = levels[line.size], line.text
    parts: list[Part] = []
    start = 0
    for at, line in enumerate(lines):
        end = start + len(line.text)
        if at in places:
            level, title = places[at]
            parts.append(Part("heading", start, end, level, title))
        elif parts and parts[-1].kind == "prose":
            parts[-1] = parts[-1]._replace(end=end)
        else:
            parts.append(Part("prose", start, end))
        start = end + 1
    if parts:
        assembly.verbatim("\n".join(line.text for line in lines), parts)


def _squeezed(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
