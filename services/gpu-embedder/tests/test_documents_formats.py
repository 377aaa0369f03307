"""What is read of each kind of document: its text, headings, pages, title, language and date."""

from __future__ import annotations

import datetime
import io
import json
import subprocess
import sys
from collections.abc import Callable

import docx
import openpyxl
import pptx
import pytest
from docx.document import Document as WordDocument
from fpdf import FPDF
from PIL import Image
from pptx.util import Inches

from pharos_embedder.documents.blocks import Document
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.documents.splitting import split_document

STORY = "The lighthouse stands on a rock in the sea and warns the ships that pass at night. "


def parts(document: Document) -> list[tuple[str, tuple[str, ...], str]]:
    return [
        (block.kind, block.headings, document.text[block.start : block.end].strip())
        for block in document.blocks
    ]


def refusal(
    data: bytes, name: str, declared_type: str = "", limits: DocumentLimits | None = None
) -> tuple[str, str]:
    with pytest.raises(DocumentRefused) as refused:
        read_document(data, name, declared_type, limits)
    assert refused.value.sentence.endswith(".")
    return refused.value.code, refused.value.sentence


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


# ---- text


def test_plain_text_is_paragraphs() -> None:
    document = read_document(b"One\nstill one.\r\n\r\n \nTwo.\n", "a.txt")
    assert document.text == "One\nstill one.\n\n \nTwo.\n"
    assert [text for _, _, text in parts(document)] == ["One\nstill one.", "Two."]


def test_markdown_has_headings_code_tables_and_front_matter() -> None:
    text = (
        "---\ntitle: 'My notes'\ndate: 2024-05-06T10:00\nlang: en-GB\n---\nBefore.\n\n"
        "# Head *one* of [two](x)\n\n"
        "Text.\n\n```python\n# no heading\n```\n\n"
        "## Sub\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nSetext\n======\n\nEnd.\n"
    )
    document = read_document(text.encode(), "notes.md")
    assert document.text == text
    assert (document.title, document.date, document.language) == ("My notes", "2024-05-06", "en")
    head, sub, setext = ("Head one of two",), ("Head one of two", "Sub"), ("Setext",)
    assert [(kind, headings) for kind, headings, _ in parts(document)] == [
        ("code", ()), ("prose", ()), ("heading", head), ("prose", head), ("code", head),
        ("heading", sub), ("table", sub), ("heading", setext), ("prose", setext),
    ]  # fmt: skip
    assert next(block.header for block in document.blocks if block.kind == "table") == "| a | b |"


def test_the_first_heading_of_markdown_is_its_title() -> None:
    assert read_document(b"text\n\n# The title\n", "a.md").title == "The title"


PAGE = """<!doctype html><html lang="de-AT"><head><meta charset="{charset}"><title>Ein Titel - Zeitung</title>
<meta property="article:published_time" content="2024-03-05T10:00:00Z"></head><body>
<nav><a href="/">Startseite</a><a href="/sport">Sport</a></nav><article><h1>Ein Titel</h1>
<p>Erster Absatz mit genügend vielen Wörtern, damit er erkannt wird. Noch ein Satz steht hier.</p>
<h2>Zweiter Teil</h2><p>Zweiter Absatz mit <b>fetter</b> Schrift und noch mehr Text als vorher.</p>
<ul><li>eins</li><li>zwei <ul><li>innen</li></ul></li></ul><pre><code>def f():
    return 1
</code></pre><table><tr><th>Name</th><th>Alter</th></tr><tr><td>Anna</td><td>3</td></tr></table></article>
<footer>Impressum und Datenschutz</footer><script>alert("x")</script></body></html>"""


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_a_web_page_is_its_main_text(charset: str) -> None:
    document = read_document(PAGE.format(charset=charset).encode(charset), "", "text/html")
    assert (document.kind, document.title, document.language, document.date) == (
        "html", "Ein Titel", "de", "2024-03-05",
    )  # fmt: skip
    two = ("Ein Titel", "Zweiter Teil")
    assert parts(document)[2:] == [
        ("heading", two, "Zweiter Teil"),
        ("prose", two, "Zweiter Absatz mit fetter Schrift und noch mehr Text als vorher."),
        ("prose", two, "- eins\n- zwei\n  - innen"),
        ("code", two, "def f():\n    return 1"),
        ("table", two, "Name | Alter\nAnna | 3"),
    ]
    assert "Wörtern" in document.text
    assert not any(word in document.text for word in ("Startseite", "Impressum", "alert"))


def test_a_page_is_told_by_its_start_where_nothing_names_it() -> None:
    assert read_document(b"  <!DOCTYPE html><html><body><p>Hello there.</p></body></html>", "").kind == "html"


def test_an_xhtml_page_with_a_declaration_is_read() -> None:
    page = b"<?xml version='1.0' encoding='utf-8'?><html><head/><body><p>Words.</p></body></html>"
    assert read_document(page, "a.xhtml").text == "Words."


def test_a_page_that_a_script_makes_has_no_text() -> None:
    page = b"<html><body><div id=root></div><script>render()</script></body></html>"
    assert refusal(page, "a.html") == (
        "document_empty", "The page has no text of its own; perhaps it is made by a script in the browser.",
    )  # fmt: skip


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_is_a_table_whatever_its_separator(separator: str) -> None:
    rows = f'name{separator}"what\nit is"\nlamp{separator}"a{separator}b"\n'
    document = read_document(rows.encode(), "a.csv")
    shown = "a b" if separator == "\t" else f"a{separator}b"
    assert document.text == f"name | what it is\nlamp | {shown}"
    assert document.blocks[0].header == "name | what it is"


def test_a_table_of_numbers_has_no_names_of_columns() -> None:
    (block,) = read_document(b"1,2\n3,4\n", "a.csv").blocks
    assert block.header == ""


def test_json_is_cut_by_its_top_level_and_numbers_stay_as_written() -> None:
    document = read_document(b'{"name":"x","deps":{"a":1.10,"b":[123456789012345678901234567890]}}', "a.json")
    assert parts(document) == [
        ("heading", ("name",), "name"),
        ("code", ("name",), '"x"'),
        ("heading", ("deps",), "deps"),
        ("code", ("deps",), '{\n  "a": 1.10,\n  "b": [\n    123456789012345678901234567890\n  ]\n}'),
    ]


def test_a_list_of_records_is_cut_between_records() -> None:
    records = [{"id": number, "text": STORY * 3} for number in range(50)]
    for data, name in (
        (json.dumps(records).encode(), "a.json"),
        ("\n".join(map(json.dumps, records)).encode(), "a.jsonl"),
    ):
        chunks = split_document(read_document(data, name), 1000, 0)
        assert len(chunks) >= 15
        assert all(chunk.text.startswith("{") for chunk in chunks)


@pytest.mark.parametrize("data", [b'{"a": 1, // why\n}', b'{"a": [1, 2', b"[" * 100_000, b'{"a": "\\ud800"}'])
def test_what_is_no_json_is_read_as_lines(data: bytes) -> None:
    document = read_document(data, "a.json")
    assert document.text == data.decode()
    assert document.warnings == ("It is not valid JSON and was read as lines of text.",)


def notebook(cells: list[dict[str, object]]) -> bytes:
    return json.dumps(
        {"nbformat": 4, "metadata": {"kernelspec": {"language": "julia"}}, "cells": cells}
    ).encode()


def test_a_notebook_is_its_cells_without_what_they_printed() -> None:
    data = notebook(
        [
            {"cell_type": "markdown", "source": ["# Lamps\n", "Some text."]},
            {"cell_type": "code", "source": "x = 1\nshow(x)", "outputs": [{"text": "PRINTED"}]},
            {"cell_type": "raw", "source": "raw"},
        ]
    )
    for name in ("a.ipynb", ""):
        document = read_document(data, name)
        assert (document.kind, document.title) == ("notebook", "Lamps")
        lamps = ("Lamps",)
        assert parts(document) == [
            ("heading", lamps, "# Lamps"),
            ("prose", lamps, "Some text."),
            ("code", lamps, "x = 1\nshow(x)"),
            ("prose", lamps, "raw"),
        ]
        assert {block.language for block in document.blocks} == {"", "julia"}


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"cells": 3}', b"[" * 50_000])
def test_what_is_no_notebook_is_refused(data: bytes) -> None:
    assert refusal(data, "a.ipynb")[0] == "document_damaged"


def test_source_code_is_cut_by_its_grammar() -> None:
    source = "".join(f"def function_{number}():\n    return '{STORY * 3}'\n\n\n" for number in range(8))
    document = read_document(source.encode(), "lamps.py")
    assert document.kind == "source"
    chunks = split_document(document, 600, 60)
    assert [chunk.symbol for chunk in chunks] == [f"function_{number}" for number in range(8)]
    assert {chunk.language for chunk in chunks} == {"python"}


# ---- PDF


def pdf(fill: Callable[[FPDF], None]) -> bytes:
    made = FPDF()
    made.set_font("helvetica", size=11)
    fill(made)
    return bytes(made.output())


def line(made: FPDF, text: str, size: int = 11) -> None:
    made.set_font_size(size)
    made.multi_cell(0, size / 2, text, new_x="LMARGIN", new_y="NEXT")


def picture(made: FPDF) -> None:
    made.add_page()
    made.image(Image.new("RGB", (40, 40), (9, 99, 9)), x=10, y=10, w=100)


def test_a_pdf_has_pages_a_title_and_headings_by_the_size_of_letters() -> None:
    def fill(made: FPDF) -> None:
        made.set_title("On lighthouses")
        made.set_creation_date(datetime.datetime(2021, 3, 4, tzinfo=datetime.UTC))
        for number in (1, 2):
            made.add_page()
            line(made, f"Chapter {number}", 20)
            line(made, STORY * 10)
            line(made, f"Part {number}.1", 15)
            line(made, STORY * 10)

    document = read_document(pdf(fill), "a.pdf")
    assert (document.title, document.date, document.language) == ("On lighthouses", "2021-03-04", "en")
    assert document.pages == 2
    assert [(block.page, block.headings) for block in document.blocks if block.kind == "prose"] == [
        (1, ("Chapter 1",)),
        (1, ("Chapter 1", "Part 1.1")),
        (2, ("Chapter 2",)),
        (2, ("Chapter 2", "Part 2.1")),
    ]
    chunks = split_document(document, 400, 40)
    assert {chunk.page for chunk in chunks} == {1, 2}


def test_a_pdf_takes_its_headings_from_its_outline() -> None:
    def fill(made: FPDF) -> None:
        made.add_page()
        made.start_section("One")
        line(made, "Before it.")
        line(made, "One")
        line(made, STORY)
        made.start_section("Not on the page", level=1)
        made.add_page()
        line(made, STORY)

    assert [(block.page, block.headings) for block in read_document(pdf(fill), "a.pdf").blocks] == [
        (1, ()), (1, ("One",)), (1, ("One",)), (2, ("One",)),
    ]  # fmt: skip


def test_a_word_that_a_pdf_breaks_is_whole_again() -> None:
    def fill(made: FPDF) -> None:
        made.add_page()
        line(made, "The light of the tall light-")
        line(made, "house is seen from afar, well-known.")

    text = read_document(pdf(fill), "a.pdf").text
    assert "tall lighthouse is seen from afar, well-known." in " ".join(text.split())


def test_an_encrypted_pdf_is_refused_and_one_that_opens_without_a_password_is_read() -> None:
    def locked(made: FPDF) -> None:
        made.set_encryption(owner_password="a", user_password="b")
        made.add_page()
        line(made, STORY)

    def open_to_read(made: FPDF) -> None:
        made.set_encryption(owner_password="a")
        made.add_page()
        line(made, STORY)

    code, sentence = refusal(pdf(locked), "a.pdf")
    assert code == "document_encrypted" and sentence.startswith("The PDF is encrypted")
    assert "lighthouse" in read_document(pdf(open_to_read), "a.pdf").text


def test_a_scanned_pdf_says_so() -> None:
    code, sentence = refusal(pdf(lambda made: [picture(made) for _ in range(3)] and None), "a.pdf")
    assert code == "document_scanned"
    assert sentence.startswith("The PDF is scanned: 3 of its 3 pages hold pictures and no text.")


def test_a_pdf_with_some_pictured_pages_is_read_and_warns() -> None:
    def fill(made: FPDF) -> None:
        picture(made)
        made.add_page()
        line(made, STORY)

    document = read_document(pdf(fill), "a.pdf")
    assert (document.pages, document.pages_pictured) == (2, 1)
    assert document.warnings == ("1 of its 2 pages are pictures without text and were left out.",)
    assert {block.page for block in document.blocks} == {2}


def test_a_blank_pdf_has_no_text() -> None:
    assert refusal(pdf(lambda made: made.add_page()), "a.pdf") == (
        "document_empty", "The document has no text: its pages are blank.",
    )  # fmt: skip


def test_pages_beyond_the_limit_are_left_out_with_a_warning() -> None:
    def fill(made: FPDF) -> None:
        for number in range(4):
            made.add_page()
            line(made, f"Page {number}. {STORY}")

    document = read_document(pdf(fill), "a.pdf", limits=DocumentLimits(pages_max=2))
    assert document.warnings == ("Only the first 2 of its 4 pages were read.",)
    assert "Page 1" in document.text and "Page 2" not in document.text


# ---- Office


def word() -> WordDocument:
    made = docx.Document()
    made.core_properties.title = "Lamps"
    made.core_properties.modified = datetime.datetime(2022, 1, 2)
    made.core_properties.language = "en-US"
    made.add_heading("Intro", 1)
    made.add_paragraph(STORY)
    for item in ("one", "two"):
        made.add_paragraph(item, style="List Bullet")
    made.add_heading("Sub", 2)
    table = made.add_table(2, 2)
    for cell, text in zip(
        (cell for row in table.rows for cell in row.cells), ("K", "V", "a", "1"), strict=True
    ):
        cell.text = text
    made.add_paragraph("The end.")
    return made


def test_a_word_file_has_headings_lists_and_tables_in_order() -> None:
    document = read_document(saved(word()), "a.docx")
    assert (document.title, document.date, document.language) == ("Lamps", "2022-01-02", "en")
    intro, sub = ("Intro",), ("Intro", "Sub")
    assert parts(document) == [
        ("heading", intro, "Intro"),
        ("prose", intro, STORY.strip()),
        ("prose", intro, "- one\n- two"),
        ("heading", sub, "Sub"),
        ("table", sub, "K | V\na | 1"),
        ("prose", sub, "The end."),
    ]
    assert document.pages == 0


def test_a_word_file_has_the_pages_that_word_counted() -> None:
    made = word()
    run = made.add_paragraph("").add_run()
    run._r.append(
        run._r.makeelement(
            "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}lastRenderedPageBreak"
        )
    )
    made.add_paragraph("On page two.")
    document = read_document(saved(made), "a.docx")
    assert document.pages == 2
    assert document.blocks[-1].page == 2
    assert document.blocks[0].page == 1


def slides() -> pptx.presentation.Presentation:
    made = pptx.Presentation()
    first = made.slides.add_slide(made.slide_layouts[1])
    first.shapes.title.text = "Slide one"
    first.placeholders[1].text = "first\nsecond"
    first.notes_slide.notes_text_frame.text = "Say hello."
    second = made.slides.add_slide(made.slide_layouts[5])
    second.shapes.title.text = "Slide two"
    table = second.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(2)).table
    for at, text in enumerate(("K", "V", "a", "1")):
        table.cell(at // 2, at % 2).text = text
    return made


def test_a_slide_is_a_page_under_its_title_with_tables_and_notes() -> None:
    document = read_document(saved(slides()), "a.pptx")
    one, two = ("Slide one",), ("Slide two",)
    assert parts(document) == [
        ("heading", one, "Slide one"),
        ("prose", one, "first\nsecond"),
        ("prose", one, "Say hello."),
        ("heading", two, "Slide two"),
        ("table", two, "K | V\na | 1"),
    ]
    assert [block.page for block in document.blocks] == [1, 1, 1, 2, 2]
    assert document.pages == 2


def test_slides_of_pictures_say_so() -> None:
    made = pptx.Presentation()
    image = io.BytesIO()
    Image.new("RGB", (9, 9)).save(image, "PNG")
    made.slides.add_slide(made.slide_layouts[6]).shapes.add_picture(image, 0, 0)
    assert refusal(saved(made), "a.pptx") == (
        "document_scanned", "All of its 1 slides are pictures without text.",
    )  # fmt: skip


def workbook() -> openpyxl.Workbook:
    made = openpyxl.Workbook()
    people = made.active
    people.title = "People"
    people.append(["Name", "Age", "Born", "Member"])
    people.append(["Anna", 3.0, datetime.date(2021, 5, 6), True])
    people.append([])
    people.append(["Bert", 2.5, datetime.datetime(2021, 5, 6, 7, 8), None])
    made.create_sheet("Nothing")
    made.create_sheet("Sums").append([1, "=SUM(A1:A1)", 2])
    return made


def test_a_sheet_is_a_heading_over_a_table_of_what_was_shown() -> None:
    document = read_document(saved(workbook()), "a.xlsx")
    assert parts(document) == [
        ("heading", ("People",), "People"),
        (
            "table",
            ("People",),
            "Name | Age | Born | Member\nAnna | 3 | 2021-05-06 | TRUE\nBert | 2.5 | 2021-05-06 07:08:00",
        ),
        ("heading", ("Sums",), "Sums"),
        ("table", ("Sums",), "1 |  | 2"),  # never computed, so there is no value
    ]
    assert document.blocks[1].header == "Name | Age | Born | Member"


def test_rows_columns_and_sheets_beyond_the_limits_are_left_out_with_a_warning() -> None:
    limits = DocumentLimits(rows_max=2, columns_max=3, sheets_max=1)
    document = read_document(saved(workbook()), "a.xlsx", limits=limits)
    assert document.text == "People\n\nName | Age | Born\nAnna | 3 | 2021-05-06"
    assert document.warnings == (
        "Only the first 1 of its 3 sheets were read.",
        "Of wide tables only the first 3 columns were read.",
        "Of long tables only the first 2 rows were read.",
    )


def test_what_a_file_is_called_does_not_hide_what_it_is() -> None:
    for name in ("a.xlsx", "a.pdf", "a.zip", "a.bin", ""):
        assert read_document(saved(word()), name).kind == "docx"


def test_text_beyond_the_limit_is_left_out_with_a_warning() -> None:
    limits = DocumentLimits(characters_max=200)
    for data, name in (
        (STORY.encode() * 10, "a.txt"),
        (saved(word()), "a.docx"),
        (notebook([{"cell_type": "code", "source": STORY * 9}]), "a.ipynb"),
    ):
        document = read_document(data, name, limits=limits)
        assert len(document.text) <= 200
        if name != "a.docx":
            assert document.warnings == ("Only the first 200 characters of its text were read.",)


def test_a_process_loads_a_library_only_for_its_format() -> None:
    command = (
        "import sys, pharos_embedder.documents.process;"
        "from pharos_embedder.documents.reading import read_document as r;"
        "from pharos_embedder.documents.splitting import split_document;"
        "split_document(r(b'# a\\n\\ntext', 'a.md')); r(b'a,b\\n1,2', 'a.csv'); r(b'{\"a\": 1}', 'a.json');"
        "heavy = {'pypdfium2', 'docx', 'pptx', 'openpyxl', 'trafilatura', 'lxml', 'py3langid', 'numpy',"
        " 'torch', 'nats', 'tree_sitter_python', 'charset_normalizer', 'structlog', 'asyncio'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (STORY * 3, "en"),
        ("Der Leuchtturm steht auf einem Felsen im Meer und warnt die Schiffe in der Nacht.", "de"),
        ("灯台は海の岩の上に立ち、夜に通る船に光を送る。灯台守は毎晩ランプに火をともします。", "ja"),
        ("too little", ""),
    ],
)
def test_the_language_of_the_prose_is_found_where_nothing_says_it(text: str, language: str) -> None:
    assert read_document(text.encode(), "a.txt").language == language


def test_a_document_is_read_also_where_the_model_of_languages_cannot_be_unpacked() -> None:
    command = (
        "import os, tempfile; tempfile.tempdir = '/nowhere';"
        "from pharos_embedder.documents.reading import read_document as r;"
        f"d = r({STORY.encode() * 3!r}, 'a.txt'); assert d.language == '' and d.text"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
