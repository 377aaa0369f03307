"""The comment that documents a definition, as its language writes it. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Final

_LINES_MAX: Final = 100
_MARKS: Final = re.compile(r"^\s*(?:///?!?|/\*\*?!?|\*/|\*)[ \t]?|\s*\*/\s*$")
_HASH_MARKS: Final = re.compile(r"^\s*#+[ \t]?")
_XML_REFERENCE: Final = re.compile(r"<(?:see|seealso|paramref|typeparamref)\s+\w+=\"(?:\w:)?([^\"]*)\"\s*/>")
_XML_TAG: Final = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")

_HASH: Final = frozenset({"ruby", "shell"})
"""Languages whose line comments start with `#`."""

_ATTRIBUTE_BRACKETS: Final[Mapping[str, tuple[str, str, str]]] = {
    "rust": ("#[", "[", "]"),
    "javascript": ("@", "(", ")"),
    "typescript": ("@", "(", ")"),
    "tsx": ("@", "(", ")"),
}
"""How an attribute of several lines begins, opens and ends, where it stands before what it belongs to."""


def comment_above(lines: list[str], start_line: int, language: str) -> str:
    """The comment that ends just before the 1-based *start_line*; attributes and annotations between do not
    count.
    """
    at = start_line - 2
    floor = max(0, at - _LINES_MAX)
    while at >= floor and (first := _first_of_attribute(lines, at, floor, language)) is not None:
        at = first - 1
    last = at
    if language == "ruby" and at >= floor and lines[at].startswith("=end"):
        while at >= floor and not lines[at].startswith("=begin"):
            at -= 1
        return "\n".join(line.rstrip() for line in lines[at + 1 : last]).strip() if at >= floor else ""
    if language not in _HASH and at >= floor and lines[at].rstrip().endswith("*/"):
        while at >= floor and "/*" not in lines[at]:
            at -= 1
        if at < floor or not lines[at].lstrip().startswith("/*"):
            return ""
        first = at
    else:
        first = _first_of_line_comments(lines, last, floor, language)
    marks = _HASH_MARKS if first <= last and lines[first].lstrip().startswith("#") else _MARKS
    cleaned = (marks.sub("", line.rstrip()).rstrip() for line in lines[first : last + 1])
    text = "\n".join(cleaned).strip()
    if language != "csharp":
        return text
    return html.unescape(_XML_TAG.sub("", _XML_REFERENCE.sub(r"\1", text))).strip()


def _first_of_attribute(lines: list[str], at: int, floor: int, language: str) -> int | None:
    """The first line of the attribute or decorator that ends at *at*; None if there is none."""
    if _is_attribute(lines[at].strip(), language):
        return at
    brackets = _ATTRIBUTE_BRACKETS.get(language)
    if brackets is None or not lines[at].rstrip().endswith(brackets[2]):
        return None
    mark, opening, closing = brackets
    depth = 0
    while at >= floor:
        depth += lines[at].count(closing) - lines[at].count(opening)
        if depth <= 0:
            line = lines[at].strip()
            is_first = depth == 0 and line.startswith(mark) and _stays_open(line, opening, closing)
            return at if is_first else None
        at -= 1
    return None


def _stays_open(line: str, opening: str, closing: str) -> bool:
    """Whether the first bracket that *line* opens is open at its end: `@In() x = call(` is no decorator."""
    depth = 0
    for each in line:
        if each == opening:
            depth += 1
        elif each == closing:
            depth -= 1
            if depth == 0:
                return False
    return depth > 0


def _is_attribute(line: str, language: str) -> bool:
    if language == "csharp":
        return line.startswith("[") and line.endswith("]")
    return language not in _HASH and line.startswith(("#[", "@"))


def _first_of_line_comments(lines: list[str], at: int, floor: int, language: str) -> int:
    """The first of the comment lines that end at *at*; one past *at* if there is none."""
    marks: tuple[str, ...] = ("#",) if language in _HASH else ("//", "#") if language == "php" else ("//",)
    while at >= floor and lines[at].lstrip().startswith(marks) and not lines[at].startswith("#!"):
        at -= 1
    return at + 1
