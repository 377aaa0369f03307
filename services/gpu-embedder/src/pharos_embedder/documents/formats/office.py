"""The files of Office are zip archives of XML: what is looked at before any library reads them."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath
from typing import Final

from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_sources.document_kinds import SUPPORTED, Kind

_CONTENT_TYPES: Final = "[Content_Types].xml"
_CONTENT_TYPES_BYTES_MAX: Final = 4 * 1024 * 1024
_MAIN: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"wordprocessingml.document.main+xml", "docx"),
    (b"presentationml.presentation.main+xml", "pptx"),
    (b"spreadsheetml.sheet.main+xml", "xlsx"),
    (b"ms-excel.sheet.macroEnabled.main+xml", "xlsx"),
    (b"ms-powerpoint.presentation.macroEnabled.main+xml", "pptx"),
)
_RATIO_MATTERS_BYTES: Final = 10 * 1024 * 1024
_PROLOGUE_BYTES: Final = 4096
_ENCRYPTED_OLE: Final = "EncryptedPackage".encode("utf-16-le")
_DOCTYPES: Final = tuple("<!DOCTYPE".encode(charset) for charset in ("ascii", "utf-16-le", "utf-16-be"))
_OLE_MAGIC: Final = b"\xd0\xcf\x11\xe0"


def office_kind(data: bytes, limits: DocumentLimits) -> Kind:
    """Which of the three *data* is. Raises DocumentRefused for what is none of them, encrypted, or a bomb."""
    if data.startswith(_OLE_MAGIC):
        if _ENCRYPTED_OLE in data:
            raise DocumentRefused(
                "document_encrypted",
                "The document is encrypted and asks for a password: save it without one.",
            )
        raise DocumentRefused(
            "document_unsupported",
            "It is in the old binary format of Office: save it as .docx, .pptx or .xlsx.",
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, limits)
            return _main_kind(archive)
    except DocumentRefused:
        raise
    except Exception as error:  # zipfile passes on whatever a decompressor says
        raise DocumentRefused(
            "document_damaged", "The file is damaged: it starts as a zip archive and cannot be unpacked."
        ) from error


def _check_members(archive: zipfile.ZipFile, limits: DocumentLimits) -> None:
    members = archive.infolist()
    if len(members) > limits.members_max:
        raise _bomb(f"it holds {len(members)} files, and may hold {limits.members_max}")
    # What a member says of its size is all that can be unpacked of it: zipfile reads no further.
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if unpacked > limits.unpacked_bytes_max:
        raise _bomb(f"it unpacks to {unpacked} bytes, and may to {limits.unpacked_bytes_max}")
    if unpacked > _RATIO_MATTERS_BYTES and unpacked > limits.ratio_max * max(packed, 1):
        raise _bomb(f"it unpacks to more than {limits.ratio_max} times its size")
    if any(member.flag_bits & 0x1 for member in members):
        raise DocumentRefused(
            "document_encrypted", "The archive is encrypted and asks for a password: save it without one."
        )
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise DocumentRefused("document_damaged", "The file is damaged: two of its parts have the same name.")
    for member in members:
        if PurePosixPath(member.filename).suffix.lower() in {".xml", ".rels", ".vml"}:
            with archive.open(member) as part:
                prologue = part.read(_PROLOGUE_BYTES)
            if any(doctype in prologue for doctype in _DOCTYPES):
                raise DocumentRefused(
                    "document_damaged",
                    f"The part {member.filename[:100]} declares a document type, which no Office file does.",
                )


def _main_kind(archive: zipfile.ZipFile) -> Kind:
    names = set(archive.namelist())
    if _CONTENT_TYPES in names:
        with archive.open(_CONTENT_TYPES) as part:
            types = part.read(_CONTENT_TYPES_BYTES_MAX)
        for mark, kind in _MAIN:
            if mark in types:
                return kind
        raise DocumentRefused(
            "document_unsupported",
            "It is an Office file of another type (a template or one with macros): "
            "save it as .docx, .pptx or .xlsx.",
        )
    if "mimetype" in names:
        raise DocumentRefused(
            "document_unsupported",
            f"It is an OpenDocument file or an e-book; what is read here is {SUPPORTED}.",
        )
    raise DocumentRefused(
        "document_unsupported",
        "It is a zip archive: to read what is in it, add it as a connection of the type local_zip.",
    )


def _bomb(what: str) -> DocumentRefused:
    return DocumentRefused("document_too_large", f"The file is packed like a bomb: {what}.")
