"""Markdown as it is written: CommonMark with tables, and the front matter of site generators."""

from __future__ import annotations

import re
from typing import Final

from markdown_it import MarkdownIt

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, BlockKind, Part, clean, one_line
from pharos_embedder.documents.formulas import without_formulas

_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.{0,20000}?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD: Final = re.compile(r"^(title|date|lang|language)[ \t]*:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_LANGUAGE: Final = re.compile(r"[a-z]{2}\b")
_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_MARKS: Final = re.compile(r"[*_`~]+(?=\S)|(?<=\S)[*_`~]+")

_KINDS: Final[dict[str, BlockKind]] = {"fence": "code", "code_block": "code", "table_open": "table"}
"""What is not prose: paragraphs, lists, quotations and HTML are."""


def read(text: str, assembly: Assembly) -> None:
    """*text* as it is; title, date and language from its front matter, else the title from a heading."""
    text = clean(text)
    if not assembly.math:
        text = without_math(text)
    parts: list[Part] = []
    front = _FRONT_MATTER.match(text)
    if front is not None:
        fields = {name: value.strip("'\"") for name, value in _FIELD.findall(front[1])}
        assembly.facts.title = one_line(fields.get("title", ""), TITLE_CHARACTERS_MAX)
        if date := _DATE.match(fields.get("date", "")):
            assembly.facts.date = date[0]
        if language := _LANGUAGE.match(fields.get("lang", fields.get("language", "")).lower()):
            assembly.facts.language = language[0]
        parts.append(Part("code", 0, front.end(), language="yaml"))
    parts += parts_of(text, front.end() if front is not None else 0)
    if not assembly.facts.title:
        assembly.facts.title = next(
            (part.heading for part in parts if part.kind == "heading" and part.level == 1), ""
        )
    assembly.verbatim(text, parts)


def without_math(text: str) -> str:
    """The Markdown *text*, whose line ends are "\\n", without formulas; code stays as it is."""
    pieces: list[str] = []
    at = 0
    for part in parts_of(text):
        if part.kind == "code":
            pieces += [without_formulas(text[at : part.start]), text[part.start : part.end]]
            at = part.end
    return "".join([*pieces, without_formulas(text[at:])])


def parts_of(text: str, begin: int = 0) -> list[Part]:
    """The blocks of the Markdown *text* from the character *begin* on, whose line ends are "\\n"."""
    # Blocks are all that is asked for: what is inside a paragraph is not parsed, and so costs nothing.
    parser = MarkdownIt("commonmark").enable("table").disable(["inline", "reference"])
    starts = _line_starts(text, begin)
    parts: list[Part] = []
    tokens = parser.parse(text[begin:])
    for number, token in enumerate(tokens):
        if token.level != 0 or token.map is None or token.nesting < 0:
            continue
        start, end = starts[token.map[0]], starts[min(token.map[1], len(starts) - 1)]
        if token.type == "heading_open":
            heading = _words(tokens[number + 1].content)
            parts.append(Part("heading", start, end, level=int(token.tag[1:]), heading=heading))
        else:
            kind = _KINDS.get(token.type, "prose")
            header = text[start:end].partition("\n")[0] if kind == "table" else ""
            words = token.info.split() if kind == "code" else []
            parts.append(
                Part(kind, start, end, language=words[0][:40] if words else "", header=one_line(header, 500))
            )
    return _tiled(text, begin, parts)


def _line_starts(text: str, begin: int) -> list[int]:
    starts = [begin]
    while (found := text.find("\n", starts[-1])) >= 0:
        starts.append(found + 1)
    return [*starts, len(text)]


def _tiled(text: str, begin: int, parts: list[Part]) -> list[Part]:
    """*parts* and what the parser passes over, such as the definitions of links."""
    tiled: list[Part] = []
    at = begin
    for part in parts:
        if text[at : part.start].strip():
            tiled.append(Part("prose", at, part.start))
        tiled.append(part)
        at = max(at, part.end)
    if text[at:].strip():
        tiled.append(Part("prose", at, len(text)))
    return tiled


def _words(inline: str) -> str:
    """A heading without the marks of links, emphasis and code."""
    return one_line(_MARKS.sub("", _LINK.sub(r"\1", inline[:2_000])))
