"""Empty, broken, encrypted, mislabelled and malicious files end in a sentence."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import docx
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pharos_embedder.documents.kinds import named_kind
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.refusals import DocumentRefused

WORD_MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
WORDS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def refusal(
    data: bytes, name: str, declared_type: str = "", limits: DocumentLimits | None = None
) -> tuple[str, str]:
    with pytest.raises(DocumentRefused) as refused:
        read_document(data, name, declared_type, limits)
    assert refused.value.sentence[0].isupper() and refused.value.sentence.endswith(".")
    assert "\n" not in refused.value.sentence
    return refused.value.code, refused.value.sentence


def word_file() -> bytes:
    made = docx.Document()
    made.add_paragraph("Some text.")
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def repacked(data: bytes, changes: Mapping[str, bytes]) -> bytes:
    """The zip archive *data* with some of its members replaced or added."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as before,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            after.writestr(name, changes.get(name, before.read(name)))
        for name in changes.keys() - set(before.namelist()):
            after.writestr(name, changes[name])
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n ", b"\xef\xbb\xbf", b"\xef\xbb\xbf  \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.html", "a.py", "a.json", "a.ipynb", ""])
def test_what_is_empty_is_refused(data: bytes, name: str) -> None:
    code, _ = refusal(data, name)
    assert code == "document_empty" or (name == "a.ipynb" and code == "document_damaged")


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.pptx", "a.xlsx"])
def test_an_empty_file_is_empty_whatever_it_is_called(name: str) -> None:
    assert refusal(b"", name) == ("document_empty", "The document is empty.")


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.pptx", "a.xlsx"])
def test_text_under_the_name_of_a_binary_format_is_refused(name: str) -> None:
    code, sentence = refusal(b"<html><body>404 Not Found</body></html>", name)
    assert code == "document_damaged"
    assert "does not start as such a file does" in sentence


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x89PNG\r\n\x1a\n", "a.txt"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a.pdf"),
        (b"GIF89a\0", "a"),
        (b"\x1f\x8b\x08\0", "a.md"),
        (b"MZ\x90\0\x03\0", "a.csv"),
        (b"\x7fELF\2\1", ""),
        (b"{\\rtf1 text}", "a.txt"),
        (b"ID3\x04\0", "a.txt"),
        (b"text", "a.odt"),
        (b"text", "a.doc"),
        (b"text", "a.docm"),
        (b"text", "a.eml"),
        (b"\0\1\2\3" * 50, "a.txt"),
        (bytes(range(256)) * 8, "a.csv"),
    ],
)
def test_what_is_not_read_here_is_refused_by_what_it_is(data: bytes, name: str) -> None:
    code, sentence = refusal(data, name)
    assert code == "document_unsupported"
    assert "PDF" in sentence


@pytest.mark.parametrize(
    "text", [b"MZ is how it starts", b"ID3 tags are for sound", b"BM is a mark", b"GIF89a? No."]
)
def test_text_that_starts_like_something_else_is_text(text: bytes) -> None:
    assert read_document(text, "a.txt").text == text.decode()


@pytest.mark.parametrize(
    ("name", "declared_type", "kind"),
    [
        ("a.PDF", "", "pdf"),
        ("a", "application/pdf; x=y", "pdf"),
        ("a.py", "text/html", "source"),
        ("Dockerfile", "", "source"),
        ("notes", "text/x-anything", "text"),
        ("a.unknown", "application/octet-stream", None),
        ("", "", None),
    ],
)
def test_a_name_promises_a_kind_before_a_byte_is_read(
    name: str, declared_type: str, kind: str | None
) -> None:
    assert named_kind(name, declared_type) == kind


@pytest.mark.parametrize(
    ("name", "declared_type"),
    [("a.zip", ""), ("a.png", "text/plain"), ("a.EXE", ""), ("a", "image/png"), ("a", "video/mp4")],
)
def test_a_name_that_is_not_read_is_refused_before_a_byte_is_read(name: str, declared_type: str) -> None:
    with pytest.raises(DocumentRefused) as refused:
        named_kind(name, declared_type)
    assert refused.value.code == "document_unsupported"


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7\n", b"%PDF-1.7\ngarbage" * 99, b"\n\n%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%%EOF"]
)
def test_a_broken_pdf_is_refused(data: bytes) -> None:
    assert refusal(data, "a.pdf")[0] == "document_damaged"


@pytest.mark.parametrize("cut", [4, 100, 3_000, -1, -30])
def test_an_office_file_that_was_cut_off_is_refused(cut: int) -> None:
    assert refusal(word_file()[:cut], "a.docx")[0] == "document_damaged"


def test_an_office_file_with_broken_xml_is_refused() -> None:
    assert refusal(repacked(word_file(), {"word/document.xml": b"<w:document"}), "a.docx") == (
        "document_damaged", "It cannot be read as Word (.docx): it is damaged (XMLSyntaxError).",
    )  # fmt: skip


def test_an_office_file_without_its_main_part_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "[Content_Types].xml", f'<Types><Override PartName="/x" ContentType="{WORD_MAIN}"/></Types>'
        )
    assert refusal(buffer.getvalue(), "a.docx")[0] == "document_damaged"


@pytest.mark.parametrize("charset", ["utf-8", "utf-16"])
def test_entities_that_multiply_are_refused(charset: str) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "boom"}">' for n in range(10))
    part = (
        f'<?xml version="1.0" encoding="{charset}"?><!DOCTYPE w [{entities}]>'
        f'<w:document xmlns:w="{WORDS}"><w:body><w:p><w:r><w:t>&e9;</w:t></w:r></w:p></w:body></w:document>'
    ).encode(charset)
    code, sentence = refusal(repacked(word_file(), {"word/document.xml": part}), "a.docx")
    assert code == "document_damaged"
    assert "declares a document type" in sentence


def test_a_file_outside_is_not_read_into_an_office_file() -> None:
    part = (
        f'{" " * 5_000}<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        f'<w:document xmlns:w="{WORDS}"><w:body><w:p><w:r><w:t>before &x; after</w:t></w:r></w:p>'
        "</w:body></w:document>"
    ).encode()
    try:
        text = read_document(repacked(word_file(), {"word/document.xml": part}), "a.docx").text
    except DocumentRefused:
        return
    assert "root:" not in text


def test_a_part_that_unpacks_to_far_more_is_refused() -> None:
    bomb = repacked(word_file(), {"word/media/zeros.bin": b"\0" * (30 * 1024 * 1024)})
    assert len(bomb) < 100_000
    code, sentence = refusal(bomb, "a.docx")
    assert code == "document_too_large"
    assert sentence == "The file is packed like a bomb: it unpacks to more than 200 times its size."


def test_too_many_parts_and_too_much_in_all_are_refused() -> None:
    data = repacked(word_file(), {f"x/{number}": b"x" for number in range(50)})
    code, sentence = refusal(data, "a.docx", limits=DocumentLimits(members_max=40))
    assert code == "document_too_large" and "and may hold 40" in sentence
    code, sentence = refusal(data, "a.docx", limits=DocumentLimits(unpacked_bytes_max=1_000))
    assert code == "document_too_large" and "and may to 1000" in sentence


def test_a_part_that_lies_about_its_size_is_not_unpacked_beyond_it() -> None:
    data = repacked(word_file(), {"word/document.xml": b"<x>" + b"a" * 5_000_000 + b"</x>"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo("word/document.xml").file_size
    lying = data.replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != data
    assert refusal(lying, "a.docx")[0] == "document_damaged"


def test_an_encrypted_archive_is_refused() -> None:
    data = bytearray(word_file())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1  # the flag of each entry in the directory
        at += 4
    assert refusal(bytes(data), "a.docx")[0] == "document_encrypted"


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


def test_an_office_file_with_a_password_is_refused_as_encrypted() -> None:
    data = OLE + "EncryptedPackage".encode("utf-16-le") + b"\0" * 600
    for name in ("a.docx", "a.xlsx", "a.pptx", ""):
        assert refusal(data, name)[0] == "document_encrypted"


def test_an_old_office_file_is_told_how_to_be_read() -> None:
    assert refusal(OLE + "WordDocument".encode("utf-16-le"), "a.doc") == (
        "document_unsupported",
        "It is in the old binary format of Office: save it as .docx, .pptx or .xlsx.",
    )


def archive_of(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"a.txt": b"x"}, "local_zip"),
        ({"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": b"<x/>"}, "OpenDocument"),
        ({"[Content_Types].xml": b"<Types template.main+xml/>"}, "template"),
    ],
)
def test_an_archive_that_is_no_office_file_is_refused_by_what_it_is(
    members: dict[str, bytes], word: str
) -> None:
    for name in ("a.zip", "a.docx", ""):
        code, sentence = refusal(archive_of(members), name)
        assert code == "document_unsupported"
        assert word in sentence


def test_an_archive_under_the_name_of_text_is_refused() -> None:
    assert refusal(archive_of({"a": b"x"}), "a.md") == (
        "document_damaged", "It is named as Markdown, but it is a zip archive.",
    )  # fmt: skip


def test_a_document_over_the_limit_of_bytes_is_refused() -> None:
    code, sentence = refusal(b"x" * 1_001, "a.txt", limits=DocumentLimits(bytes_max=1_000))
    assert code == "document_too_large" and "1000 bytes" in sentence


def test_a_limit_of_nothing_is_no_limit_that_can_be_set() -> None:
    with pytest.raises(ValueError, match="rows_max must be at least 1"):
        DocumentLimits(rows_max=0)


def test_text_with_half_a_surrogate_pair_can_be_passed_on() -> None:
    document = read_document(b'{"cells": [{"cell_type": "code", "source": "a\\u0000b"}]}', "a.ipynb")
    assert document.text == "a\ufffdb"


NAMES = [
    "a.pdf",
    "a.docx",
    "a.xlsx",
    "a.pptx",
    "a.html",
    "a.md",
    "a.csv",
    "a.json",
    "a.ipynb",
    "a.py",
    "a.txt",
    "",
]
STARTS = [b"", b"%PDF-1.4\n", b"PK\x03\x04", OLE[:8], b"<html>", b"{", b"---\n", b"\xff\xfe", b"\xef\xbb\xbf"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=300), name=st.sampled_from(NAMES))
def test_any_bytes_are_a_document_or_a_sentence(start: bytes, rest: bytes, name: str) -> None:
    try:
        document = read_document(start + rest, name)
    except DocumentRefused as refused:
        assert refused.sentence.endswith(".")
    else:
        document.text.encode("utf-8")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, 20_000), byte=st.integers(0, 255))
def test_an_office_file_with_a_wrong_byte_is_a_document_or_a_sentence(at: int, byte: int) -> None:
    data = bytearray(WORD)
    data[at % len(data)] = byte
    try:
        read_document(bytes(data), "a.docx")
    except DocumentRefused as refused:
        assert refused.sentence.endswith(".")


WORD = word_file()


def test_a_quotation_mark_that_is_never_closed_makes_one_long_cell_that_is_cut() -> None:
    document = read_document(b'"' + b"a,b\n" * 20_000, "a.csv")
    assert len(document.text) == 10_000
    assert document.warnings == ("Of long cells only the first 10000 characters were read.",)


def sheet_file(rows: bytes) -> bytes:
    """A workbook whose sheet claims to be as large as sheets can be."""
    buffer = io.BytesIO()
    made = openpyxl.Workbook()
    made.active.append(["a"])
    made.save(buffer)
    sheet = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        b'<dimension ref="A1:XFD1048576"/><sheetData>' + rows + b"</sheetData></worksheet>"
    )
    return repacked(buffer.getvalue(), {"xl/worksheets/sheet1.xml": sheet})


def test_a_sheet_that_claims_to_be_vast_costs_what_is_in_it() -> None:
    one = b'<row r="1"><c r="A1"><v>1</v></c></row>'
    assert read_document(sheet_file(one), "a.xlsx").text == "Sheet\n\n1"
    far = one + b'<row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    document = read_document(sheet_file(far), "a.xlsx", limits=DocumentLimits(rows_max=10))
    assert document.text == "Sheet\n\n1"
    assert document.warnings == ("Of long sheets only the first 100 rows were looked at.",)


@pytest.mark.parametrize(
    "pages",
    [b"/Kids[2 0 R 2 0 R]/Count 1000000", b"/Kids[]/Count 2000000000", b"/Kids " + b"[" * 50_000, b""],
    ids=["cyclic", "a count that lies", "deep", "none"],
)
def test_a_pdf_whose_pages_are_a_trap_is_refused(pages: bytes) -> None:
    data = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages" + pages + b">>endobj\n"
        b"trailer<</Root 1 0 R>>\n%%EOF"
    )
    assert refusal(data, "a.pdf")[0] in {"document_damaged", "document_empty"}
