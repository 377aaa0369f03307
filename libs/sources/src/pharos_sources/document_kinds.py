"""Which kind of document a name, or else a media type, promises. Pure: without a byte of the content, so that
an upload can be refused before it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Final, Literal

from pharos_sources.web_content import OF_SUFFIX

Kind = Literal[
    "text", "markdown", "html", "pdf", "docx", "pptx", "xlsx", "csv", "json", "jsonl", "notebook", "source"
]

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
        "a program": "exe dll so dylib msi apk class pyc",
        "a template or a file with macros": "docm dotx dotm ppsx potx xltx",
    }.items()
    for extension in extensions.split()
}


class UnsupportedDocument(ValueError):
    """It is of a kind that is not read here; the text is a sentence that says of which."""

    def __init__(self, what: str) -> None:
        super().__init__(f"It is {what}; what is read here is {SUPPORTED}.")


def is_text_name(name: str) -> bool:
    """Whether *name* is that of a usual file of text, source code among it."""
    return PurePosixPath(name).suffix.lower() in OF_SUFFIX


def extension_kind(name: str) -> Kind | None:
    """The kind that the extension of *name* stands for; None where it is not that of a document."""
    return _BY_EXTENSION.get(_extension(name))


def named_kind(name: str, declared_type: str, *, is_source: Callable[[str], bool]) -> Kind | None:
    """The kind that a *name* (or else a media type) promises; None where neither says anything.

    *is_source* knows the names of source code. Raises UnsupportedDocument for a kind that is known and not
    read here.
    """
    if (kind := extension_kind(name)) is not None:
        return kind
    if (extension := _extension(name)) in _UNREAD_EXTENSIONS:
        raise UnsupportedDocument(_UNREAD_EXTENSIONS[extension])
    if is_source(name):
        return "source"
    media_type = declared_type.partition(";")[0].strip().lower()
    if (kind := _BY_TYPE.get(media_type)) is not None:
        return kind
    major = media_type.partition("/")[0]
    if major in {"image", "audio", "video", "font"}:
        raise UnsupportedDocument(f"of the type {media_type[:100]}")
    return "text" if major == "text" else None


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower().lstrip(".")
