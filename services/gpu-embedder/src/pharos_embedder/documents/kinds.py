"""Which kind of document a file is: by its first bytes where they say, else by its name, else by its type."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, Literal

from pharos_embedder.documents.refusals import DocumentRefused
from pharos_sources import document_kinds
from pharos_sources.document_kinds import NAMES, Kind, UnsupportedDocument, extension_kind

Container = Literal["pdf", "zip", "ole"]

HEAD_BYTES: Final = 4096

_BINARY: Final[Mapping[Kind, Container]] = {"pdf": "pdf", "docx": "zip", "pptx": "zip", "xlsx": "zip"}
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


def named_kind(name: str, declared_type: str = "") -> Kind | None:
    """``document_kinds.named_kind``, by the languages that are known here. Raises DocumentRefused."""
    from pharos_embedder.languages import TEXT, language_of

    try:
        return document_kinds.named_kind(
            name, declared_type, is_source=lambda each: language_of(each) != TEXT
        )
    except UnsupportedDocument as unsupported:
        raise DocumentRefused("document_unsupported", str(unsupported)) from None


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
        if (promised := extension_kind(name)) is None or promised in _BINARY:
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
    return DocumentRefused("document_unsupported", str(UnsupportedDocument(what)))
