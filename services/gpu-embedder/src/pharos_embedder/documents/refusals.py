"""Why a document cannot be read, in a sentence for its owner."""

from __future__ import annotations

from typing import Literal

RefusalCode = Literal[
    "document_unsupported",  # of a type that is not read here
    "document_empty",  # nothing in it that could be searched
    "document_encrypted",
    "document_scanned",  # pictures of text
    "document_damaged",  # cut off, or not what it says it is
    "document_too_large",  # beyond a limit of size, memory or packing
    "document_too_slow",
]


class DocumentRefused(Exception):
    """The document cannot be read, now or later. The text is a sentence without the file's name."""

    def __init__(self, code: RefusalCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
