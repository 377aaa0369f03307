"""Plain text: paragraphs between blank lines."""

from __future__ import annotations

import re
from typing import Final

from pharos_embedder.documents.blocks import Assembly, Part, clean
from pharos_embedder.documents.formulas import without_formulas

_BLANK: Final = re.compile(r"\n[^\S\n]*\n\s*")


def read(text: str, assembly: Assembly) -> None:
    """*text* as it is, a block for each paragraph."""
    text = clean(text if assembly.math else without_formulas(text))
    parts: list[Part] = []
    start = 0
    for blank in _BLANK.finditer(text):
        parts.append(Part("prose", start, blank.start()))
        start = blank.end()
    assembly.verbatim(text, [*parts, Part("prose", start, len(text))])


def read_source(text: str, assembly: Assembly, *, language: str) -> None:
    """Source code is one block: how it is cut is for its grammar to say (`splitting`)."""
    text = clean(text)
    assembly.verbatim(text, [Part("code", 0, len(text), language=language)])
