"""JSON by its top level: a heading for each member of an object, a block for each item of a list.

What is shown is the JSON itself, laid out in lines, its numbers as they were written. What is no valid JSON
(comments, a missing end) is read as lines of text.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_embedder.documents.blocks import Assembly, clean
from pharos_embedder.documents.formats.plain import read_source

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ITEMS_JOINED_CHARACTERS: Final = 2_000


def read(text: str, assembly: Assembly) -> None:
    data = text.encode("utf-8", "replace")
    try:
        # The whole, first: what is wrong inside a member is not seen when it is taken raw.
        msgspec.json.format(data)
        if data.lstrip()[:1] == b"{":
            members = _MEMBERS.decode(data)
        elif data.lstrip()[:1] == b"[":
            _read_items(_ITEMS.decode(data), assembly)
            return
        else:
            assembly.code(text, "json")
            return
    except (msgspec.DecodeError, RecursionError):
        assembly.warn("It is not valid JSON and was read as lines of text.")
        read_source(text, assembly, language="json")
        return
    for name, value in members.items():
        assembly.heading(1, name)
        assembly.code(_laid_out(value), "json")


def read_lines(text: str, assembly: Assembly) -> None:
    """JSON lines: a record each, as they are."""
    records = [line for line in clean(text).split("\n") if line.strip()]
    for start, end in _runs([len(record) for record in records]):
        assembly.code("\n".join(records[start:end]), "json")


def _read_items(items: list[msgspec.Raw], assembly: Assembly) -> None:
    shown = [_laid_out(item) for item in items]
    for start, end in _runs([len(item) for item in shown]):
        assembly.code(",\n".join(shown[start:end]), "json")


def _laid_out(value: msgspec.Raw) -> str:
    return msgspec.json.format(bytes(value), indent=2).decode("utf-8")


def _runs(lengths: list[int]) -> list[tuple[int, int]]:
    """Neighbours that are small enough to share a block: (first, one past the last)."""
    runs: list[tuple[int, int]] = []
    taken = 0
    for at, length in enumerate(lengths):
        if runs and taken + length <= _ITEMS_JOINED_CHARACTERS:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
            taken = 0
        taken += length
    return runs
