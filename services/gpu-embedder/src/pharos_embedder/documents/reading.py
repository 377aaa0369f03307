"""A document's bytes into its text and blocks. Pure but for the reading of a file.

It can take for ever and all memory on hostile input, so call it through `pool`. Formats are imported when the
first document of their kind comes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pharos_embedder.documents import charset
from pharos_embedder.documents.blocks import Assembly, Document, TextFull
from pharos_embedder.documents.kinds import HEAD_BYTES, kind_of
from pharos_embedder.documents.language import language_of_text
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.reading import read_regular
from pharos_sources.document_kinds import NAMES, SUPPORTED, Kind

_HTML_STARTS: Final = (b"<!doctype html", b"<html", b"<head", b"<body")
_NOTEBOOK_MARK: Final = b'"nbformat"'


def read_document(
    source: bytes | Path,
    name: str,
    declared_type: str = "",
    limits: DocumentLimits | None = None,
    math: bool = True,
) -> Document:
    """The document *source*, whose file is called *name* and was declared as the media type *declared_type*
    (both may be empty). Without *math* its formulas are left out, as far as they can be told apart: see
    `formulas`. Raises DocumentRefused with a sentence, and nothing else but MemoryError.
    """
    limits = limits or DocumentLimits()
    data = _bytes_of(source, limits)
    if not data.strip():
        raise DocumentRefused("document_empty", "The document is empty.")
    kind = kind_of(name, declared_type, data[:HEAD_BYTES])
    if kind == "office":
        from pharos_embedder.documents.formats.office import office_kind

        kind = office_kind(data, limits)
    assembly = Assembly(limits, math=math)
    try:
        kind = _read(data, kind, name, declared_type, assembly)
    except TextFull:
        kind = kind or "text"
    except (DocumentRefused, MemoryError):
        raise
    except Exception as error:  # a library's way to say that it does not understand a stranger's file
        what = NAMES[kind] if kind else "text"
        raise DocumentRefused(
            "document_damaged", f"It cannot be read as {what}: it is damaged ({type(error).__name__})."
        ) from error
    text = assembly.text
    if not assembly.blocks:
        raise DocumentRefused("document_empty", _nothing_in(kind, assembly.facts.pages))
    facts = assembly.facts
    return Document(
        name=name,
        kind=kind,
        size=len(data),
        content_hash=hashlib.blake2b(data, digest_size=16).hexdigest(),
        text=text,
        blocks=assembly.blocks,
        title=facts.title,
        language=_language(facts.language) or language_of_text(text, assembly.blocks),
        date=facts.date,
        charset=facts.charset,
        pages=facts.pages,
        pages_pictured=facts.pages_pictured,
        replaced=facts.replaced,
        warnings=assembly.warnings,
    )


def _bytes_of(source: bytes | Path, limits: DocumentLimits) -> bytes:
    data = source if isinstance(source, bytes) else read_regular(source, limits.bytes_max + 1)
    if data is None:
        raise DocumentRefused("document_damaged", "The file cannot be read.")
    if len(data) > limits.bytes_max:
        raise DocumentRefused(
            "document_too_large",
            f"The document is over {limits.bytes_max} bytes, which is the most that is read.",
        )
    return data


def _read(data: bytes, kind: Kind | None, name: str, declared_type: str, assembly: Assembly) -> Kind:
    """Puts the document into *assembly*; of which kind it turned out to be."""
    match kind:
        case "pdf":
            from pharos_embedder.documents.formats import pdf

            pdf.read(data, assembly)
        case "docx":
            from pharos_embedder.documents.formats import word

            word.read(data, assembly)
        case "pptx":
            from pharos_embedder.documents.formats import slides

            slides.read(data, assembly)
        case "xlsx":
            from pharos_embedder.documents.formats import sheets

            sheets.read(data, assembly)
        case _:
            kind = kind or _kind_of_text(data[:HEAD_BYTES])
            _read_text(_decoded(data, kind, declared_type, assembly), kind, name, assembly)
    return kind


def _kind_of_text(head: bytes) -> Kind:
    """Of text that neither its name nor its type tell the kind of."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_HTML_STARTS):
        return "html"
    return "notebook" if start.startswith(b"{") and _NOTEBOOK_MARK in head else "text"


def _decoded(data: bytes, kind: Kind, declared_type: str, assembly: Assembly) -> str:
    declared = declared_type.lower().partition("charset=")[2].partition(";")[0].strip()
    if kind == "html" and not declared:
        from pharos_embedder.documents.formats.html import charset_of

        declared = charset_of(data)
    decoded = charset.decode(data, declared)
    if decoded is None:
        raise DocumentRefused(
            "document_unsupported", f"It is not text in any character set; what is read here is {SUPPORTED}."
        )
    assembly.facts.charset = decoded.charset
    assembly.facts.replaced = decoded.replaced
    if decoded.replaced:
        assembly.warn(f"{decoded.replaced} of its characters are not valid in {decoded.charset}.")
    return decoded.text


def _read_text(text: str, kind: Kind, name: str, assembly: Assembly) -> None:
    match kind:
        case "markdown":
            from pharos_embedder.documents.formats import markdown

            markdown.read(text, assembly)
        case "html":
            from pharos_embedder.documents.formats import html

            html.read(text, assembly)
        case "csv":
            from pharos_embedder.documents.formats import delimited

            delimited.read(text, assembly, name=name)
        case "json" | "jsonl":
            from pharos_embedder.documents.formats import json_text

            (json_text.read if kind == "json" else json_text.read_lines)(text, assembly)
        case "notebook":
            from pharos_embedder.documents.formats import notebook

            notebook.read(text, assembly)
        case "source":
            from pharos_embedder.documents.formats import plain
            from pharos_embedder.languages import language_of

            plain.read_source(text, assembly, language=language_of(name, text[:200]))
        case _:
            from pharos_embedder.documents.formats import plain

            plain.read(text, assembly)


def _nothing_in(kind: Kind, pages: int) -> str:
    if kind == "html":
        return "The page has no text of its own; perhaps it is made by a script in the browser."
    what: dict[Kind, str] = {"pdf": "pages", "pptx": "slides"}
    if pages and kind in what:
        return f"The document has no text: its {what[kind]} are blank."
    return "The document has no text."


def _language(declared: str) -> str:
    code = declared[:2].lower()
    return code if len(code) == 2 and code.isascii() and code.isalpha() else ""
