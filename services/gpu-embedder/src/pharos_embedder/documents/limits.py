"""How much of one document is read."""

from __future__ import annotations

import msgspec


class DocumentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Beyond `bytes_max`, `unpacked_bytes_max`, `members_max` and `ratio_max` a document is refused; beyond
    the others the rest is left out, and a warning on the document says so.
    """

    bytes_max: int = 100 * 1024 * 1024
    characters_max: int = 10_000_000  # of extracted text
    pages_max: int = 3_000  # of a PDF, or slides
    sheets_max: int = 100
    rows_max: int = 100_000  # of a sheet or table
    columns_max: int = 200
    cell_characters_max: int = 10_000
    members_max: int = 10_000  # files in an Office file, which is a zip archive
    unpacked_bytes_max: int = 512 * 1024 * 1024
    ratio_max: int = 200  # unpacked to packed bytes, where it unpacks to more than 10 MiB

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
