"""Formulas in documents: kept as LaTeX, or left out.

In text, Markdown and the Markdown of notebooks they are what stands between the marks of LaTeX and MathJax:
`$…$` by the rules of Pandoc, `$$…$$`, `\\(…\\)`, `\\[…\\]` and environments for equations; they are kept as
they are. In web pages they are also MathML and MathJax's scripts, which become the LaTeX that they name, or
the symbols that they show. In Word files they are Office MathML, which becomes LaTeX.

Other formats do not say what is a formula: of PDF files, slides and sheets nothing is left out, and formulas
that are pictures are in none. Nor is anything left out of source code, in a page or a file.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any, Final

_FORMULA_CHARACTERS_MAX: Final = 5_000
_INLINE_CHARACTERS_MAX: Final = 500
_ENVIRONMENTS: Final = "equation|align|gather|multline|eqnarray|displaymath|math|alignat|flalign"
_LATEX: Final = re.compile(
    rf"\$\$[^$]{{1,{_FORMULA_CHARACTERS_MAX}}}\$\$"
    rf"|\\\[.{{1,{_FORMULA_CHARACTERS_MAX}}}?\\\]"
    rf"|\\\(.{{1,{_FORMULA_CHARACTERS_MAX}}}?\\\)"
    rf"|\\begin\{{({_ENVIRONMENTS})(\*?)\}}.{{0,{_FORMULA_CHARACTERS_MAX}}}?\\end\{{\1\2\}}"
    rf"|(?<![\\$\w])\$(?=[^\s$])[^$\n]{{1,{_INLINE_CHARACTERS_MAX}}}(?<=[^\s\\])\$(?![\d$])",
    re.DOTALL,
)
_ELEMENT: Final = re.compile(r"<math\b|<script\b[^<>]{0,200}?\bmath/(?:tex|asciimath)\b", re.IGNORECASE)
_ANNOTATION: Final = re.compile(
    r"<annotation\b[^<>]{0,200}?tex[^<>]{0,200}>([^<]*)</annotation", re.IGNORECASE
)
_ALTERNATIVE: Final = re.compile(
    r"""\A<math\b[^<>]{0,500}?\balttext\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE
)
_TAG: Final = re.compile(r"<[^<>]*>")
_SCRIPT: Final = re.compile(r"\A<script\b[^<>]*>", re.IGNORECASE)

_OFFICE: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_INTEGRAL: Final = "∫"
_DEPTH_MAX: Final = 50


def without_formulas(text: str) -> str:
    """*text* without what stands between the marks of LaTeX."""
    return _LATEX.sub(" ", text)


def with_formulas_as_text(page: str, *, keep: bool) -> str:
    """The HTML *page* with the LaTeX of each MathML element and MathJax script in its place, or nothing."""
    pieces: list[str] = []
    at = 0
    while (found := _ELEMENT.search(page, at)) is not None:
        end_tag = "</math>" if page[found.start() + 1] in "mM" else "</script>"
        end = _find(page, end_tag, found.end())
        if end < 0:
            break
        pieces.append(page[at : found.start()])
        if keep:
            pieces.append(f" {_latex_of(page[found.start() : end])} ")
        else:
            pieces.append(" ")
        at = end + len(end_tag)
    pieces.append(page[at:])
    return "".join(pieces)


def _find(page: str, tag: str, start: int) -> int:
    found = re.compile(re.escape(tag), re.IGNORECASE).search(page, start)
    return -1 if found is None else found.start()


def _latex_of(element: str) -> str:
    """What a formula's *element* says, as text of HTML; its end tag is cut off."""
    if (script := _SCRIPT.match(element)) is not None:
        return html.escape(element[script.end() :], quote=False)
    if (annotation := _ANNOTATION.search(element)) is not None:
        return annotation[1].strip()
    if (alternative := _ALTERNATIVE.match(element)) is not None:
        return html.escape(html.unescape(alternative[1] or alternative[2] or ""), quote=False)
    return " ".join(_TAG.sub(" ", element).split())


def office_latex(element: Any) -> str:
    """Office MathML (ISO 29500-1 §22.1) as LaTeX: fractions, scripts, roots, sums, brackets, matrices."""
    return " ".join(_office(element, 0).split())


def _office(element: Any, depth: int) -> str:
    if depth > _DEPTH_MAX or not isinstance(element.tag, str):
        return ""

    def inside(name: str) -> str:
        found = element.find(f"{_OFFICE}{name}")
        return "" if found is None else "".join(_parts(found, depth))

    match element.tag.removeprefix(_OFFICE):
        case "t":
            return element.text or ""
        case "f":
            return rf"\frac{{{inside('num')}}}{{{inside('den')}}}"
        case "sSup":
            return f"{inside('e')}^{{{inside('sup')}}}"
        case "sSub":
            return f"{inside('e')}_{{{inside('sub')}}}"
        case "sSubSup":
            return f"{inside('e')}_{{{inside('sub')}}}^{{{inside('sup')}}}"
        case "rad":
            degree = inside("deg")
            return rf"\sqrt{f'[{degree}]' if degree else ''}{{{inside('e')}}}"
        case "nary":
            sign = element.find(f"{_OFFICE}naryPr/{_OFFICE}chr")
            shown = _INTEGRAL if sign is None else sign.get(f"{_OFFICE}val", _INTEGRAL)
            lower, upper = inside("sub"), inside("sup")
            limits = (f"_{{{lower}}}" if lower else "") + (f"^{{{upper}}}" if upper else "")
            return f"{shown}{limits} {inside('e')}"
        case "d":
            return f"({', '.join(''.join(_parts(each, depth)) for each in element.findall(f'{_OFFICE}e'))})"
        case "mr" | "eqArr":
            separator = " & " if element.tag.endswith("mr") else "; "
            return separator.join("".join(_parts(each, depth)) for each in element.findall(f"{_OFFICE}e"))
        case "m":
            return "; ".join(_office(row, depth + 1) for row in element.findall(f"{_OFFICE}mr"))
        case _:
            return "".join(_parts(element, depth))


def _parts(element: Any, depth: int) -> Iterator[str]:
    for child in element:
        yield _office(child, depth + 1)
