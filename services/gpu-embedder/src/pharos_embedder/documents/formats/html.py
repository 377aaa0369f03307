"""Web pages: the main text, without menus and footers, by trafilatura."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import trafilatura

from pharos_embedder.documents.blocks import TITLE_CHARACTERS_MAX, Assembly, one_line
from pharos_embedder.documents.formulas import with_formulas_as_text, without_formulas

_DECLARATION: Final = re.compile(r"\A\s*<\?xml[^>]{0,200}\?>")
_LANGUAGE: Final = re.compile(
    r"""<html\b[^>]{0,1000}?\b(?:xml:)?lang\s*=\s*["']?([a-zA-Z]{2})(?![a-zA-Z])""", re.IGNORECASE
)
_CHARSET: Final = re.compile(rb"""<meta\b[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_TITLE: Final = re.compile(r"<title\b[^>]*>([^<]{1,2000})", re.IGNORECASE)
_HEAD_CHARACTERS: Final = 20_000
_LIST_DEPTH_MAX: Final = 8


def charset_of(head: bytes) -> str:
    """The character set that a page says it is in, or nothing."""
    found = _CHARSET.search(head[:4096])
    return found[1].decode("ascii") if found is not None else ""


def read(text: str, assembly: Assembly) -> None:
    """The main text with its headings, lists, tables and code; title, date and language of the page."""
    head = text[:_HEAD_CHARACTERS]
    if (language := _LANGUAGE.search(head)) is not None:
        assembly.facts.language = language[1].lower()
    text = with_formulas_as_text(_DECLARATION.sub("", text), keep=assembly.math)
    page = trafilatura.bare_extraction(text, favor_recall=True, include_comments=False, with_metadata=True)
    if page is None or isinstance(page, dict):
        if (title := _TITLE.search(head)) is not None:
            assembly.facts.title = one_line(title[1], TITLE_CHARACTERS_MAX)
        assembly.prose(_shown(trafilatura.html2txt(text), assembly))
        return
    assembly.facts.title = one_line(page.title or "", TITLE_CHARACTERS_MAX)
    assembly.facts.date = (page.date or "")[:10]
    if page.body is not None:
        _read_element(page.body, assembly)


def _read_element(element: Any, assembly: Assembly) -> None:
    """A page as trafilatura gives it, in the elements of TEI."""
    match element.tag:
        case "head":
            rend = element.get("rend", "")
            level = int(rend[1:]) if re.fullmatch(r"h[1-6]", rend) else 2
            assembly.heading(level, _text_of(element))
        case "list":
            assembly.prose(_shown("\n".join(_items(element, 0)), assembly))
        case "table":
            rows = [
                (
                    [_text_of(cell) for cell in row.iter("cell")],
                    [cell.get("role") for cell in row.iter("cell")],
                )
                for row in element.iter("row")
            ]
            named = bool(rows) and all(role == "head" for role in rows[0][1])
            assembly.table((cells for cells, _ in rows), header=named or None)
        case "code":
            assembly.code("".join(element.itertext()))
        case "body" | "div" | "main" | "article" | "section" | "quote" if len(element):
            assembly.prose(_shown(element.text or "", assembly))
            for child in element:
                _read_element(child, assembly)
                assembly.prose(_shown(child.tail or "", assembly))
        case tag if isinstance(tag, str):
            assembly.prose(_shown(_text_of(element), assembly))


def _shown(text: str, assembly: Assembly) -> str:
    """*text* without the formulas that are in it as LaTeX, where they are to be left out."""
    return text if assembly.math else without_formulas(text)


def _items(element: Any, depth: int) -> Iterator[str]:
    for item in element:
        if not isinstance(item.tag, str):
            continue
        if item.tag == "list" and depth < _LIST_DEPTH_MAX:
            yield from _items(item, depth + 1)
            continue
        nested = item.findall("list") if depth < _LIST_DEPTH_MAX else []
        words = [item.text or ""]
        for child in item:
            words += ["" if child in nested else _text_of(child), child.tail or ""]
        if text := " ".join("".join(words).split()):
            yield f"{'  ' * depth}- {text}"
        for inner in nested:
            yield from _items(inner, depth + 1)


def _text_of(element: Any) -> str:
    """The text inside *element*, in one line; a line break is a space."""
    words = [element.text or ""]
    for inner in element.iterdescendants():
        words += [" " if inner.tag == "lb" else "", inner.text or "" if isinstance(inner.tag, str) else ""]
        words.append(inner.tail or "")
    return " ".join("".join(words).split())
