"""How texts are cut, by examples; what holds of any text is in `test_chunking_properties`."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest

import pharos_embedder
from pharos_embedder.parsing import parse
from pharos_embedder.syntax import ParsedFile, ParseOptions
from tests.support.chunking_texts import places

SAMPLES = sorted(
    [
        *Path(pharos_embedder.__file__).parent.rglob("*.py"),
        *(Path(inspect.getfile(module)) for module in (ast, inspect, json, textwrap)),
    ]
)


def function(name: str, lines: int) -> str:
    body = "".join(f"    {name}_{number} = compute({number}, {number * 7})\n" for number in range(lines))
    return f"def {name}():\n{body}\n\n"


def test_definitions_that_fit_are_kept_whole_and_apart() -> None:
    text = function("first", 10) + function("second", 12) + function("third", 14)
    parsed = parse("m.py", "python", text.encode())
    assert [(one.symbol, one.kind, one.start_line) for one in parsed.chunks] == [
        ("first", "function", 1),
        ("second", "function", 14),
        ("third", "function", 29),
    ]
    assert [one.context for one in parsed.chunks] == [""] * 3


def test_small_neighbours_are_merged() -> None:
    text = "".join(f"def f{number}():\n    return {number}\n\n\n" for number in range(12))
    assert len(parse("m.py", "python", text.encode()).chunks) == 1


def test_a_large_class_is_split_at_its_methods() -> None:
    methods = "".join(textwrap.indent(function(f"m{number}", 14), "    ") for number in range(3))
    text = f'class Big(Base):\n    """What it is."""\n\n{methods}'
    chunks = parse("pkg/m.py", "python", text.encode()).chunks
    assert [(one.symbol, one.kind) for one in chunks] == [
        ("Big", "class"),
        ("Big.m1", "method"),
        ("Big.m2", "method"),
    ]
    assert chunks[0].docstring == "What it is."
    assert [one.context for one in chunks] == ["", "", ""]


def test_a_large_function_is_split_between_statements_with_overlap() -> None:
    text = function("huge", 100)
    chunks = parse("m.py", "python", text.encode()).chunks
    assert {one.symbol for one in chunks} == {"huge"}
    for before, after in pairwise(chunks):
        assert before.text.endswith(after.context + "\n") and 0 < len(after.context) <= 100
        assert after.encoded_text == f"{after.context}\n{after.text}"
    sizes = [len(one.text) for one in chunks]
    assert max(sizes) - min(sizes) < 400, "even parts, not a full one and a rest"


def test_a_comment_goes_with_what_it_explains() -> None:
    text = function("first", 18) + "# Why second.\n# Really.\n" + function("second", 18)
    second = parse("m.py", "python", text.encode()).chunks[1]
    assert second.text.startswith("# Why second.") and second.symbol == "second"


def test_a_comment_beside_something_does_not_tie_it_to_the_next_line() -> None:
    text = function("first", 18) + "LIMIT = 3  # of tries\n" + function("second", 18)
    first, second = parse("m.py", "python", text.encode()).chunks
    assert first.text.endswith("# of tries\n") and second.text.startswith("def second")


def test_an_annotation_is_not_cut_from_a_method_that_does_not_fit() -> None:
    calls = "".join(f"    call({number});\n" for number in range(90))
    methods = [
        f'  @Test(name = "{"n" * 40}")\n  void run{number}() {{\n{calls}  }}\n\n' for number in range(9)
    ]
    chunks = parse("A.java", "java", ("class A {\n" + "".join(methods) + "}\n").encode()).chunks
    assert len(chunks) > 9
    for chunk in chunks:
        assert chunk.text.count("@Test") == chunk.text.count("void run")


def test_a_heading_begins_a_chunk_of_prose() -> None:
    paragraph = "A sentence of some length about the matter.\n" * 8
    text = "".join(f"## Part {number}\n\n{paragraph}\n" for number in range(6))
    for chunk in parse("a.md", "markdown", text.encode()).chunks:
        assert chunk.text.startswith("## Part")


def test_a_very_long_line_is_split_and_nothing_is_lost() -> None:
    text = "head\n" + "word, " * 100_000 + "\ntail\n"
    chunks = parse("a.txt", "text", text.encode()).chunks
    assert places(text, chunks)
    assert "".join(one.text for one in chunks) == text
    assert all(one.text.rstrip("\n").endswith((" ", "head", "tail")) for one in chunks)


def test_a_line_end_of_two_characters_is_never_cut() -> None:
    text = "x" * 999 + "\r\n" + "y\r\n"
    chunks = parse("a.txt", "text", text.encode()).chunks
    assert [one.text[-1] for one in chunks][:1] == ["x"]
    assert "".join(one.text for one in chunks) == text


def test_windows_line_ends_give_the_same_lines_as_unix_ones() -> None:
    text = inspect.getsource(textwrap)
    unix = parse("m.py", "python", text.encode())
    windows = parse("m.py", "python", text.replace("\n", "\r\n").encode())
    assert places(text.replace("\n", "\r\n"), windows.chunks)
    assert [(one.symbol, one.start_line, one.end_line) for one in unix.definitions] == [
        (one.symbol, one.start_line, one.end_line) for one in windows.definitions
    ]
    assert unix.line_count == windows.line_count


def test_blank_files_have_no_chunks() -> None:
    for text in ("", "\n", " \n\t\n"):
        assert parse("m.py", "python", text.encode()).chunks == ()


def hashes(parsed: ParsedFile) -> set[str]:
    return {one.content_hash for one in parsed.chunks}


@pytest.mark.parametrize(("language", "chunks_max"), [("python", 2.5), ("text", 4)])
def test_an_edit_changes_only_the_chunks_around_it(language: str, chunks_max: float) -> None:
    """On the average of real files: prose is cut where it stands, and in a few files that shifts for long."""
    changed: list[int] = []
    for path in SAMPLES:
        if path.stat().st_size < 12_000:
            continue
        lines = path.read_text().split("\n")
        before = hashes(parse(path.name, language, "\n".join(lines).encode()))
        for tenth in range(10):
            at = len(lines) * tenth // 10
            edited = [*lines[:at], "# a new line", "# and another", *lines[at:]]
            changed.append(len(hashes(parse(path.name, language, "\n".join(edited).encode())) - before))
    assert sum(changed) / len(changed) <= chunks_max


def test_the_hash_is_of_what_is_encoded_and_the_path_is_not() -> None:
    text = function("huge", 100).encode()
    assert hashes(parse("a.py", "python", text)) == hashes(parse("b/c.py", "python", text))
    wide = hashes(parse("a.py", "python", text, ParseOptions(overlap_chars=200)))
    assert wide != hashes(parse("a.py", "python", text))


@pytest.mark.parametrize(("size_chars", "overlap_chars"), [(99, 0), (20_001, 0), (1000, 501), (1000, -1)])
def test_options_out_of_range_are_refused(size_chars: int, overlap_chars: int) -> None:
    with pytest.raises(ValueError, match="must be between"):
        ParseOptions(size_chars=size_chars, overlap_chars=overlap_chars)


def test_the_one_definition_among_lines_of_its_class_names_them_with_all_that_is_in_it() -> None:
    notes = "".join(f"    # note {number} of what is kept here\n" for number in range(14))
    inner = "    class Inner:\n        def run(self):\n            return 1\n\n"
    methods = "".join(textwrap.indent(function(f"m{number}", 14), "    ") for number in range(3))
    text = f"class Big(Base):\n{methods}    x = [\n{notes}    ]\n{inner}"
    last = parse("m.py", "python", text.encode()).chunks[-1]
    assert "# note 0" in last.text and "def run" in last.text
    assert last.symbol == "Big.Inner"


def test_the_rest_of_a_function_with_what_follows_it_has_its_name() -> None:
    text = function("huge", 36) + "print(0)\n"
    last = parse("m.py", "python", text.encode()).chunks[-1]
    assert "huge_35" in last.text and "print(0)" in last.text and "def huge" not in last.text
    assert last.symbol == "huge"


HEADS = {
    "python": ("class A:\n", "    # Runs {0}.\n    @test\n    def run{0}(self):\n", ""),
    "java": ("class A {\n", "  /** Runs {0}. */\n  @Test(name = {0})\n  void run{0}() {{\n", "  }\n"),
    "rust": ("impl A {\n", "    /// Runs {0}.\n    #[test]\n    fn run{0}() {{\n", "    }\n"),
    "c": ("", "/* Runs {0}. */\nstatic int\nrun{0}(void)\n{{\n", "}\n"),
    "cpp": (
        "class A {\n",
        "public:\n  /// Runs {0}.\n  template <typename T>\n  int run{0}()\n  {{\n",
        "  }\n",
    ),
    "csharp": (
        "class A\n{\n",
        "    /// Runs {0}.\n    [Test]\n    public void run{0}()\n    {{\n",
        "    }\n",
    ),
    "ruby": ("class A\n", "  # Runs {0}.\n  # At once.\n  def run{0}\n", "  end\n"),
    "php": ("<?php\nclass A {\n", "  /** Runs {0}. */\n  #[Test]\n  function run{0}() {{\n", "  }\n"),
    "kotlin": ("class A {\n", "    /** Runs {0}. */\n    @Test\n    fun run{0}() {{\n", "    }\n"),
    "scala": ("class A {\n", "  /** Runs {0}. */\n  @test\n  def run{0}() = {{\n", "  }\n"),
    "shell": ("", "# Runs {0}.\n# At once.\nrun{0}() {{\n", "}\n"),
}
"""What is around functions, what leads one, and its end."""


@pytest.mark.parametrize("language", HEADS)
@pytest.mark.parametrize("size_chars", [200, 350, 1000])
def test_what_leads_a_function_is_never_cut_from_it(language: str, size_chars: int) -> None:
    outer, head, tail = HEADS[language]
    line = {"ruby": "    call(1)\n", "shell": "  call 1\n"}.get(language, "        call(1);\n")
    functions = [head.format(each) + line * (each % 90) + tail + "\n" for each in range(10, 99, 7)]
    close = {"ruby": "end\n", "python": "", "c": "", "cpp": "};\n", "shell": ""}.get(language, "}\n")
    text = outer + "".join(functions) + close
    parsed = parse("a", language, text.encode(), ParseOptions(size_chars=size_chars, overlap_chars=0))
    assert not parsed.has_errors and len(parsed.chunks) > len(functions) // 2
    for each in range(10, 99, 7):
        leading = head.format(each)
        assert any(leading in chunk.text for chunk in parsed.chunks), leading


def test_a_body_that_broken_syntax_left_empty_is_cut_like_any_other() -> None:
    text = "with context.begin_transaction():\n    context."
    found = parse("a.py", "python", text.encode(), ParseOptions(size_chars=100, overlap_chars=0))
    assert "".join(chunk.text for chunk in found.chunks) == text
