"""What the options of a batch do to a file: each of them has an effect that is seen in its chunks."""

from __future__ import annotations

import io

import docx
import pytest
from docx.oxml import parse_xml

from pharos_contracts.batches.v1 import BatchOptions
from pharos_embedder.batch_work import BatchConfig, cutting, why_nothing
from pharos_embedder.documents.formulas import with_formulas_as_text, without_formulas
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.pool import DocumentPool
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.splitting import flat, split_document
from pharos_embedder.vectors import DocumentFacts

MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
STORY = "The lighthouse stands on a rock in the sea and warns the ships that pass at night. "


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("the sum $a+b$ holds", "the sum   holds"),
        (r"inline \(a^2\) and shown \[b^2\] end", "inline   and shown   end"),
        ("shown $$E = mc^2$$ end", "shown   end"),
        ("\\begin{align*}\na &= b \\\\\nc &= d\n\\end{align*}!", " !"),
        ("it costs $5 and then $6 a piece", "it costs $5 and then $6 a piece"),
        ("from $5 to 6$", "from  "),  # as Pandoc has it: nothing tells it from a formula
        (r"it costs \$5 or \$6", r"it costs \$5 or \$6"),
        ("$HOME and $PATH", "$HOME and $PATH"),
        ("an open $ or \\( or $$ alone", "an open $ or \\( or $$ alone"),
        ("two\nlines $a\nb$ apart", "two\nlines $a\nb$ apart"),
    ],
)
def test_formulas_are_what_stands_between_the_marks_of_latex(text: str, left: str) -> None:
    assert without_formulas(text) == left


@pytest.mark.parametrize("text", ["$" * 100_000, "\\(" * 50_000, "$a" * 50_000, "\\begin{align}" * 10_000])
def test_marks_without_end_are_no_formulas_and_take_no_time(text: str) -> None:
    assert without_formulas(text).count("align") == text.count("align")


def test_formulas_of_markdown_are_kept_or_left_out_and_code_stays() -> None:
    page = b"# Energy\n\nEinstein found $E = mc^2$ in 1905.\n\n```sh\necho $A $B and $a+b$\n```\n"
    kept = read_document(page, "a.md").text
    left = read_document(page, "a.md", math=False).text
    assert "$E = mc^2$" in kept and "mc^2" not in left
    assert "Einstein found" in left and "echo $A $B and $a+b$" in left


def test_formulas_of_plain_text_and_notebooks_are_kept_or_left_out() -> None:
    note = b'{"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "So $a=b$ it is."}]}'
    for data, name in ((b"So $a=b$ it is.", "a.txt"), (note, "a.ipynb")):
        assert "$a=b$" in read_document(data, name).text
        left = read_document(data, name, math=False).text
        assert "a=b" not in left and "it is" in left


MATHML = (
    '<math alttext="E=mc^2"><semantics><mrow><mi>E</mi><mo>=</mo><mi>m</mi></mrow>'
    '<annotation encoding="application/x-tex">E=mc^{2}</annotation></semantics></math>'
)


@pytest.mark.parametrize(
    ("element", "latex"),
    [
        (MATHML, "E=mc^{2}"),
        ('<math alttext="a&lt;b"><mi>a</mi></math>', "a&lt;b"),
        ("<MATH><mi>x</mi><mo>+</mo><mi>y</mi></MATH>", "x + y"),
        ('<script type="math/tex; mode=display">a < b</script>', "a &lt; b"),
    ],
)
def test_a_formula_of_a_page_is_the_latex_that_it_names(element: str, latex: str) -> None:
    assert with_formulas_as_text(f"<p>so {element} holds</p>", keep=True) == f"<p>so  {latex}  holds</p>"
    assert with_formulas_as_text(f"<p>so {element} holds</p>", keep=False) == "<p>so   holds</p>"


def test_a_formula_without_an_end_is_left_as_it_is() -> None:
    page = "<math>" * 10_000 + "<script type='math/tex'>" * 1000
    assert with_formulas_as_text(page, keep=True) == page


def test_formulas_of_a_page_are_kept_or_left_out() -> None:
    page = f"<html><body><h1>Energy</h1><p>{STORY}{MATHML} {STORY}</p><p>{STORY} \\(a^2\\)</p></body></html>"
    kept = read_document(page.encode(), "a.html").text
    left = read_document(page.encode(), "a.html", math=False).text
    assert "E=mc^{2}" in kept and "\\(a^2\\)" in kept
    assert "mc" not in left and "a^2" not in left and "lighthouse" in left


def word_with_a_formula() -> bytes:
    document = docx.Document()
    paragraph = document.add_paragraph("The mean is ")
    paragraph._p.append(
        parse_xml(
            f'<m:oMath xmlns:m="{MATH}"><m:f><m:num><m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>'
            "<m:sub><m:r><m:t>i</m:t></m:r></m:sub><m:sup/><m:e><m:sSub><m:e><m:r><m:t>x</m:t></m:r></m:e>"
            "<m:sub><m:r><m:t>i</m:t></m:r></m:sub></m:sSub></m:e></m:nary></m:num>"
            "<m:den><m:rad><m:deg/><m:e><m:sSup><m:e><m:r><m:t>n</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t>"
            "</m:r></m:sup></m:sSup></m:e></m:rad></m:den></m:f></m:oMath>"
        )
    )
    paragraph.add_run(" of all.")
    saved = io.BytesIO()
    document.save(saved)
    return saved.getvalue()


def test_formulas_of_a_word_file_are_latex_or_left_out() -> None:
    kept = read_document(word_with_a_formula(), "a.docx").text
    assert kept == r"The mean is \frac{∑_{i} x_{i}}{\sqrt{n^{2}}} of all."
    left = read_document(word_with_a_formula(), "a.docx", math=False).text
    assert left == "The mean is  of all."


SECTIONS = "\n\n".join(f"# Section {each}\n\n{STORY * 6}" for each in "ABC")


def test_structure_is_kept_with_headings_as_context_or_cut_by_size_alone() -> None:
    document = read_document(SECTIONS.encode(), "a.md")
    along = split_document(document, 600, 0)
    plain = split_document(flat(document), 600, 0)
    assert {chunk.headings for chunk in along} == {("Section A",), ("Section B",), ("Section C",)}
    assert all(chunk.text.startswith("# Section") for chunk in along)
    assert all(chunk.headings == () and "Section" not in chunk.context for chunk in plain)
    assert not all(chunk.text.startswith("# Section") for chunk in plain)
    assert len(plain) <= len(along)
    # All of the text is in both.
    assert "".join("".join(chunk.text.split()) for chunk in plain) == "".join(document.text.split())


def test_source_code_is_cut_by_its_definitions_or_by_size_alone() -> None:
    source = "".join(f"def function_{each}(value):\n    return value + {each}\n\n\n" for each in range(40))
    document = read_document(source.encode(), "a.py")
    assert any(chunk.symbol for chunk in split_document(document, 500, 0))
    assert not any(chunk.symbol for chunk in split_document(flat(document), 500, 0))


def test_the_pool_does_what_it_is_told() -> None:
    page = f"# Energy\n\n$E=mc^2$ {STORY * 3}\n\n# Mass\n\n{STORY * 3}".encode()
    with DocumentPool(1) as pool:
        usual = pool.read(page, "a.md", chunk_size=300)
        other = pool.read(page, "a.md", chunk_size=300, structure=False, math=False)
        large = pool.read(page, "a.md", chunk_size=5_000)
    assert any("mc^2" in chunk.text for chunk in usual.chunks)
    assert not any("mc^2" in chunk.text for chunk in other.chunks)
    assert {chunk.headings for chunk in usual.chunks} == {("Energy",), ("Mass",)}
    assert {chunk.headings for chunk in other.chunks} == {()}
    assert max(len(chunk.text) for chunk in usual.chunks) <= 300
    assert len(large.chunks) < len(usual.chunks)


CONFIG = BatchConfig(workspaces=None, limits=DocumentLimits(), chunk_size=1000, overlap=100)  # type: ignore[arg-type]


def test_the_installation_decides_where_a_batch_says_nothing() -> None:
    assert cutting(BatchOptions(), CONFIG).chunker.endswith(":1000:100")
    asked = cutting(BatchOptions(chunk_size=400, chunk_overlap=50), CONFIG)
    assert (asked.chunk_size, asked.overlap) == (400, 50)
    assert cutting(BatchOptions(chunk_size=150), CONFIG).overlap == 75  # the usual one would be too much
    assert cutting(BatchOptions(chunk_overlap=0), CONFIG).overlap == 0
    assert cutting(BatchOptions(chunk_overlap=4_000), CONFIG).overlap == 500  # nobody knew the size


def test_whatever_decides_the_chunks_is_told_by_the_chunker() -> None:
    options = [{}, {"chunk_size": 500}, {"chunk_overlap": 7}, {"preserve_structure": False}]
    options += [{"extract_math": False}, {"extract_math": False, "preserve_structure": False}]
    assert len({cutting(BatchOptions(**each), CONFIG).chunker for each in options}) == len(options)


FACTS = DocumentFacts(ordinal=0, kind="text", version="etag:1", sha256="aa", made_by="c e")


@pytest.mark.parametrize(
    ("facts", "made", "version", "sha256", "skips"),
    [
        (FACTS, "c e", "etag:1", None, True),
        (FACTS, "c e", "etag:2", None, False),
        (FACTS, "c e", None, "aa", True),
        (FACTS, "c e", None, "bb", False),
        (FACTS, "c2 e", "etag:1", "aa", False),
        (None, "c e", "etag:1", "aa", False),
        (FACTS, "c e", None, None, False),
        # A source that says nothing of versions: two unknown ones are not the same.
        (DocumentFacts(ordinal=0, kind="text", sha256="aa", made_by="c e"), "c e", None, None, False),
    ],
)
def test_a_file_is_skipped_where_the_same_is_live(
    facts: DocumentFacts | None, made: str, version: str | None, sha256: str | None, skips: bool
) -> None:
    assert (why_nothing(facts, made, version=version, sha256=sha256) is not None) is skips
