"""PowerPoint by python-pptx: a slide is a page, its title a heading; text, tables and notes follow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import pptx
from pptx.enum.shapes import MSO_SHAPE_TYPE

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, one_line
from pharos_embedder.documents.refusals import DocumentRefused

_SHAPES_MAX: Final = 2_000  # of one slide
_GROUP_DEPTH_MAX: Final = 8


def read(data: bytes, assembly: Assembly) -> None:
    """Raises DocumentRefused where the slides are pictures."""
    presentation = pptx.Presentation(io.BytesIO(data))
    properties = presentation.core_properties
    assembly.facts.title = one_line(properties.title or "", TITLE_CHARACTERS_MAX)
    when = properties.modified or properties.created
    assembly.facts.date = when.date().isoformat() if when is not None else ""
    assembly.facts.language = (properties.language or "")[:2].lower()
    count = len(presentation.slides)
    assembly.facts.pages = count
    for number, slide in enumerate(presentation.slides, 1):
        if number > assembly.limits.pages_max:
            assembly.warn(f"Only the first {assembly.limits.pages_max} of its {count} slides were read.")
            break
        assembly.page = number
        before = assembly.length
        pictured = _read_slide(slide, assembly)
        if assembly.length == before:
            assembly.facts.pages_pictured += pictured
    pictures = assembly.facts.pages_pictured
    if pictures and not assembly.blocks:
        raise DocumentRefused("document_scanned", f"All of its {count} slides are pictures without text.")
    if pictures:
        assembly.warn(f"{pictures} of its {count} slides are pictures without text and were left out.")


def _read_slide(slide: Any, assembly: Assembly) -> bool:
    """Reads *slide*; whether there is a picture on it."""
    pictured = False
    title = slide.shapes.title
    assembly.close_headings()
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        assembly.heading(1, title.text_frame.text)
        if not assembly.facts.title:
            assembly.facts.title = one_line(title.text_frame.text, TITLE_CHARACTERS_MAX)
    for number, shape in enumerate(_shapes(slide.shapes, 0)):
        if number >= _SHAPES_MAX:
            assembly.warn(f"Of crowded slides only the first {_SHAPES_MAX} shapes were read.")
            break
        if title is not None and shape.shape_id == title.shape_id:
            continue
        pictured = pictured or shape.shape_type == MSO_SHAPE_TYPE.PICTURE
        if shape.has_text_frame:
            assembly.prose("\n".join(filter(None, map(_paragraph, shape.text_frame.paragraphs))))
        elif getattr(shape, "has_table", False) and shape.has_table:
            assembly.table([cell.text for cell in row.cells] for row in shape.table.rows)
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        assembly.prose(notes.text)
    return pictured


def _shapes(shapes: Any, depth: int) -> Iterator[Any]:
    for shape in shapes:
        if shape.shape_type == MSO_SHAPE_TYPE.GROUP:
            if depth < _GROUP_DEPTH_MAX:
                yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _paragraph(paragraph: Any) -> str:
    text = " ".join(paragraph.text.split())
    return f"{'  ' * paragraph.level}- {text}" if text and paragraph.level else text
