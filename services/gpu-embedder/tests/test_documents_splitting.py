"""Chunks of a document: nothing is lost or there twice, places are exact, and an edit stays local."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pharos_embedder
from pharos_embedder.documents.blocks import Document
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.documents.splitting import DocumentChunk, hash_of, split_document

ROOT = Path(pharos_embedder.__file__).parent
WORDS = [
    "storm",
    "lamp",
    "sea",
    "keeper",
    "rock",
    "night",
    "ship",
    "signal",
    "wind",
    "coast",
    "harbour",
    "fog",
]


def check(document: Document, chunks: Sequence[DocumentChunk], size: int, overlap: int) -> None:
    """Everything that must hold of the chunks of *document*."""
    text, at = document.text, 0
    line_starts = [0, *(place + 1 for place, character in enumerate(text) if character == "\n")]
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert 0 < len(chunk.text) <= size
        assert chunk.text.strip()
        assert text[chunk.start : chunk.end] == chunk.text, "the place is exact"
        assert chunk.start >= at, "nothing is there twice"
        assert not text[at : chunk.start].strip(), "nothing but white space is left out"
        assert line_starts[chunk.start_line - 1] <= chunk.start
        assert chunk.start_line == len(line_starts) or chunk.start < line_starts[chunk.start_line]
        assert chunk.end_line == chunk.start_line + chunk.text.removesuffix("\n").count("\n")
        assert len(chunk.context) <= overlap + 80 + 2 + 120 + 1 + 200 + 1
        assert chunk.content_hash == hash_of(chunk.encoded_text)
        at = chunk.end
    assert not text[at:].strip()
    for block in document.blocks:
        assert text[block.start : block.end].strip()
    if document.kind != "source":
        for chunk in chunks:
            of = [block for block in document.blocks if block.start < chunk.end and chunk.start < block.end]
            assert (chunk.page, chunk.page_end) == (of[0].page, of[-1].page)
            assert chunk.headings in [block.headings for block in of]


def check_bytes(data: bytes, name: str, size: int, overlap: int) -> None:
    try:
        document = read_document(data, name)
    except DocumentRefused:
        return
    check(document, split_document(document, size, overlap), size, overlap)


MARKUP = st.lists(
    st.sampled_from(
        [
            "# Head\n",  "## Sub\n",
            "Setext\n===\n", "\n", "\n\n", "A sentence. ", "word ", "x" * 130,
            "- item\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "```python\nx = 1\n", "```\n",
            "> quote\n", "    code\n", "<div>\n",
            "[a]: http://b\n", "---\n", "title: T\n", "\t", "。文字。", "𝄞é\u2028", "\r\n", "\r", "\0",
            '{"a": [1, 2]}',
            "a,b\n1,2\n", "<p>text</p>", "\f", "   ",
        ]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=MARKUP | st.text(max_size=600),
    name=st.sampled_from(["a.md", "a.txt", "a.csv", "a.json", "a.jsonl", "a.py", "a.rs", "a", "a.yaml"]),
    size=st.sampled_from([100, 137, 400, 1000]),
    share=st.sampled_from([0, 0.1, 0.5]),
)
def test_chunks_of_any_text_hold_all_of_it_once(text: str, name: str, size: int, share: float) -> None:
    check_bytes(text.encode("utf-8", "replace"), name, size, int(size * share))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=MARKUP, size=st.sampled_from([100, 1000]))
def test_chunks_of_any_page_hold_all_of_it_once(text: str, size: int) -> None:
    check_bytes(f"<html><body><article>{text}</article></body></html>".encode(), "a.html", size, 50)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py"))[::6], ids=lambda path: path.name)
def test_chunks_of_real_source_hold_all_of_it_once(path: Path) -> None:
    check_bytes(path.read_bytes(), path.name, 1000, 100)


@pytest.mark.parametrize("path", sorted(ROOT.parents[3].glob("*.md")), ids=lambda path: path.name)
@pytest.mark.parametrize("size", [100, 1000])
def test_chunks_of_real_pages_hold_all_of_them_once(path: Path, size: int) -> None:
    check_bytes(path.read_bytes(), path.name, size, size // 5)


@pytest.mark.parametrize(
    "data", [b"x" * 1_000_000, b"word " * 200_000, b"a,b;" * 250_000], ids=["one", "words", "list"]
)
def test_one_endless_line_is_cut_to_size(data: bytes) -> None:
    document = read_document(data, "a.txt")
    chunks = split_document(document, 1000, 100)
    check(document, chunks, 1000, 100)
    assert len(chunks) < 1.4 * len(data) / 1000


def prose(seed: int, sentences: int) -> str:
    picked = random.Random(seed)
    return " ".join(
        " ".join(picked.choices(WORDS, k=picked.randint(5, 18))).capitalize() + "." for _ in range(sentences)
    )


def sections(edited: int | None = None) -> str:
    """Forty sections of some size; the text of one may be another."""
    return "\n".join(
        f"## Part {number}\n\n{prose(1000 + number if number == edited else number, 4 + number % 9)}\n"
        for number in range(40)
    )


def hashes(text: str, name: str = "a.md") -> list[str]:
    return [chunk.content_hash for chunk in split_document(read_document(text.encode(), name), 1000, 100)]


@pytest.mark.parametrize("edited", [0, 7, 20, 39])
def test_an_edit_in_a_section_changes_no_chunk_of_another(edited: int) -> None:
    document = read_document(sections().encode(), "a.md")
    elsewhere = [
        chunk.content_hash
        for chunk in split_document(document, 1000, 100)
        if f"Part {edited}" not in chunk.headings
    ]
    assert len(elsewhere) > 30
    assert set(elsewhere) <= set(hashes(sections(edited)))


@pytest.mark.parametrize("seed", range(8))
def test_an_edit_in_running_text_changes_the_few_chunks_around_it(seed: int) -> None:
    paragraphs = [prose(100 * seed + number, 3) for number in range(200)]
    before = hashes("\n\n".join(paragraphs), "a.txt")
    paragraphs[100] = "Something else is said here. " + paragraphs[100]
    after = hashes("\n\n".join(paragraphs), "a.txt")
    assert len(before) > 40
    assert len(set(before) - set(after)) <= 8


def test_a_row_of_a_table_is_found_under_the_names_of_its_columns() -> None:
    rows = "".join(f"Person {number},{number},Town {number}\n" for number in range(100))
    document = read_document(f"name,age,town\n{rows}".encode(), "people.csv")
    first, *others = split_document(document, 400, 50)
    assert first.text.startswith("name | age | town\nPerson 0")
    assert len(others) > 5
    for chunk in others:
        assert chunk.context == "name | age | town"
        assert chunk.text.startswith("Person ")
        assert chunk.kind == "table"


def test_a_heading_stays_with_what_follows_it() -> None:
    text = "\n".join(f"# Title {number}\n\n{prose(number, 12)}\n" for number in range(20))
    for chunk in split_document(read_document(text.encode(), "a.md"), 500, 50):
        assert not chunk.text.splitlines()[-1].startswith("#")
        number = chunk.headings[0].split()[-1]
        assert f"Title {number}" in chunk.encoded_text


def test_the_context_names_the_title_and_the_headings_above() -> None:
    text = f"---\ntitle: Lights\n---\n# Coast\n\n## North\n\n{prose(1, 20)}\n"
    first, *others = split_document(read_document(text.encode(), "a.md"), 600, 60)
    assert first.context == "Lights"
    assert others and all(chunk.context.startswith("Lights: Coast › North\n") for chunk in others)
    assert all(chunk.headings == ("Coast", "North") for chunk in others)


def test_an_overlap_is_the_end_of_the_chunk_before_and_is_not_in_the_text() -> None:
    document = read_document(prose(5, 100).encode(), "a.txt")
    chunks = split_document(document, 500, 120)
    for before, chunk in pairwise(chunks):
        assert chunk.context and before.text.endswith(chunk.context)
        assert len(chunk.context) <= 120
    assert all(chunk.context == "" for chunk in split_document(document, 500, 0))


@pytest.mark.parametrize(("size", "overlap"), [(99, 0), (20_001, 0), (1000, 501), (1000, -1)])
def test_sizes_out_of_range_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=r"must be between"):
        split_document(read_document(b"text", "a.txt"), size, overlap)


def test_the_same_document_makes_the_same_chunks() -> None:
    data = sections().encode()
    assert split_document(read_document(data, "a.md")) == split_document(read_document(data, "a.md"))
