"""Which kind of document a file is: by its first bytes where they say, else by its name, else by its type."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, Literal

from pharos_embedder.documents.refusals import DocumentRefused

Kind = Literal[
    "text", "markdown", "html", "pdf", "docx", "pptx", "xlsx", "csv", "json", "jsonl", "notebook", "source"
]
Container = Literal["pdf", "zip", "ole"]

HEAD_BYTES: Final = 4096

_EXTENSIONS: Final[Mapping[Kind, str]] = {
    "text": "txt text log rst adoc asciidoc org srt vtt",
    "markdown": "md markdown mdx mkd",
    "html": "html htm xhtml",
    "pdf": "pdf",
    "docx": "docx",
    "pptx": "pptx pptm",
    "xlsx": "xlsx xlsm",
    "csv": "csv tsv tab",
    "json": "json geojson",
    "jsonl": "jsonl ndjson",
    "notebook": "ipynb",
}
_BY_EXTENSION: Final[Mapping[str, Kind]] = {
    extension: kind for kind, extensions in _EXTENSIONS.items() for extension in extensions.split()
}

_BY_TYPE: Final[Mapping[str, Kind]] = {
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/json": "json",
    "application/ld+json": "json",
    "application/geo+json": "json",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/x-ipynb+json": "notebook",
}

_BINARY: Final[Mapping[Kind, Container]] = {"pdf": "pdf", "docx": "zip", "pptx": "zip", "xlsx": "zip"}
NAMES: Final[Mapping[Kind, str]] = {
    "text": "text",
    "markdown": "Markdown",
    "html": "HTML",
    "pdf": "PDF",
    "docx": "Word (.docx)",
    "pptx": "PowerPoint (.pptx)",
    "xlsx": "Excel (.xlsx)",
    "csv": "CSV",
    "json": "JSON",
    "jsonl": "JSON lines",
    "notebook": "Jupyter notebook",
    "source": "source code",
}
SUPPORTED: Final = (
    "text, Markdown, HTML, PDF, Word (.docx), PowerPoint (.pptx), Excel (.xlsx), CSV, JSON, "
    "Jupyter notebooks and source code"
)

_OTHERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"II*\0", "a picture"),
    (b"MM\0*", "a picture"),
    (b"\x1f\x8b", "a packed file"),
    (b"BZh", "a packed file"),
    (b"\xfd7zXZ\0", "a packed file"),
    (b"\x28\xb5\x2f\xfd", "a packed file"),
    (b"7z\xbc\xaf\x27\x1c", "an archive"),
    (b"Rar!", "an archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"{\\rtf", "an RTF file"),
    (b"%!PS", "a PostScript file"),
    (b"ID3", "a sound"),
    (b"OggS", "a sound"),
    (b"fLaC", "a sound"),
    (b"\0\0\0\x18ftyp", "a film"),
    (b"\0\0\0\x1cftyp", "a film"),
    (b"\0\0\0\x20ftyp", "a film"),
    (b"SQLite format 3\0", "a database"),
)
_UNREAD_EXTENSIONS: Final[Mapping[str, str]] = {
    extension: what
    for what, extensions in {
        "an OpenDocument file": "odt ods odp",
        "an e-book": "epub mobi azw3",
        "an RTF file": "rtf",
        "an archive": "zip tar tgz gz bz2 xz 7z rar jar",
        "a picture": "png jpg jpeg gif webp tif tiff bmp heic",
        "a film": "mp4 mov avi mkv webm",
        "a sound": "mp3 wav ogg flac m4a",
        "an e-mail": "eml msg mbox",
        "an old Office file": "doc xls ppt",
        "a template or a file with macros": "docm dotx dotm ppsx potx xltx",
    }.items()
    for extension in extensions.split()
}


def named_kind(name: str, declared_type: str = "") -> Kind | None:
    """The kind that a name (or else a media type) promises; None where neither says anything.

    Raises DocumentRefused for one that is known and not read here. Without a byte of the content, so that a
    request can be refused before its body is taken.
    """
    from pharos_embedder.languages import TEXT, language_of

    extension = PurePosixPath(name).suffix.lower().lstrip(".")
    if (kind := _BY_EXTENSION.get(extension)) is not None:
        return kind
    if extension in _UNREAD_EXTENSIONS:
        raise _unsupported(_UNREAD_EXTENSIONS[extension])
    if language_of(name) != TEXT:
        return "source"
    media_type = declared_type.partition(";")[0].strip().lower()
    if (kind := _BY_TYPE.get(media_type)) is not None:
        return kind
    major = media_type.partition("/")[0]
    if major in {"image", "audio", "video", "font"}:
        raise _unsupported(f"of the type {media_type[:100]}")
    return "text" if major == "text" else None


def kind_of(name: str, declared_type: str, head: bytes) -> Kind | Literal["office"] | None:
    """The kind of a document that starts with *head* (HEAD_BYTES of it); "office" is one of the three, which
    its members tell, and None is text of some kind. Raises DocumentRefused.
    """
    container = _container(head)
    if container == "pdf":
        return "pdf"
    if container == "ole":
        return "office"
    what = _other(head)
    if container is None and what is not None:
        raise _unsupported(what)
    if container == "zip":
        extension = PurePosixPath(name).suffix.lower().lstrip(".")
        if (promised := _BY_EXTENSION.get(extension)) is None or promised in _BINARY:
            return "office"
        raise DocumentRefused(
            "document_damaged", f"It is named as {NAMES[promised]}, but it is a zip archive."
        )
    promised = named_kind(name, declared_type)
    if promised is not None and promised in _BINARY:
        raise DocumentRefused(
            "document_damaged",
            f"It is named as {NAMES[promised]}, but it does not start as such a file does: it is damaged, or "
            "something else was saved under its name.",
        )
    return promised


def _container(head: bytes) -> Container | None:
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return "ole"
    return None


def _other(head: bytes) -> str | None:
    if head.startswith(b"RIFF") and len(head) >= 12:
        return {b"WEBP": "a picture", b"WAVE": "a sound", b"AVI ": "a film"}.get(head[8:12])
    if head.startswith(b"BM") and len(head) >= 14 and struct.unpack("<I", head[6:10])[0] == 0:
        return "a picture"
    return next((what for magic, what in _OTHERS if head.startswith(magic) and _is_magic(magic, head)), None)


def _is_magic(magic: bytes, head: bytes) -> bool:
    """Letters alone may also begin a text; then it is no text if something in it is none."""
    return not magic.isalnum() or b"\0" in head


def _unsupported(what: str) -> DocumentRefused:
    return DocumentRefused("document_unsupported", f"It is {what}; what is read here is {SUPPORTED}.")
