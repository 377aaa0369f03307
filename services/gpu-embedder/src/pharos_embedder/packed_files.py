"""A parsed file as it goes through pipes, caches and the spool: bytes, of which each reader decodes its part.

Linking needs names and imports, the store words and texts, the encoder texts alone. So each is a field of
its own, and who passes a file on decodes none of them. A name is 64 bits of a hash: among five million names
two are taken for one with a probability of one in a million, and then a wrong edge is the cost.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from functools import lru_cache
from typing import Final

import msgspec

from pharos_embedder.bm25 import document_terms
from pharos_embedder.syntax import DECLARATION, Chunk, Definition, ParsedFile

TERM_COUNT_MAX: Final = 65_535  # in two bytes; BM25 has long stopped rising there
NAME_LENGTH_MAX: Final = 255

HEAD: Final = struct.Struct("<6I16s16s")
"""Of a chunk: ordinal, first line, last line, characters of its encoded text, distinct terms, bytes of its
record; its content hash and its identity.
"""

_ENCODER: Final = msgspec.msgpack.Encoder()
_FACTS: Final = msgspec.msgpack.Decoder(ParsedFile)
_CHUNKS: Final = msgspec.msgpack.Decoder(Chunk)


class PackedFile(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A parsed file in parts. Numbers are little-endian.

    ``defined`` are the distinct names that it defines, (D,) u8, ``declared`` those of which it has no more
    than a prototype, (P,) u8; ``used`` those that it uses, (R,) u8, with how often, (R,) u4, and their
    lengths, (R,) u1. ``heads`` has a HEAD for each chunk, and ``records`` the
    chunks themselves, one after the other. Of the words of all chunks ``terms`` are the hashes, (T,) u4, and
    ``term_counts`` how often each occurs in its chunk, (T,) u2.
    """

    path: str
    language: str
    size: int
    line_count: int
    content_hash: str
    warning: str | None
    facts: bytes
    defined: bytes
    declared: bytes
    used: bytes
    uses: bytes
    used_lengths: bytes
    heads: bytes
    records: bytes
    terms: bytes
    term_counts: bytes
    is_settled: bool = True  # whether another try would give the same

    @property
    def bytes_total(self) -> int:
        """What it takes, about."""
        return len(self.facts) + len(self.records) + 3 * len(self.term_counts)

    def parsed(self) -> ParsedFile:
        """The file without its chunks and references: see ``facts_of``."""
        return decode_facts(self.facts)

    def chunks(self) -> list[Chunk]:
        """Its chunks, in order."""
        found, at = [], 0
        for head in HEAD.iter_unpack(self.heads):
            found.append(decode_chunk(self.records[at : at + head[5]]))
            at += head[5]
        return found


def pack(file: ParsedFile) -> PackedFile:
    """*file* as it is passed on. Costs about as much as parsing it: its words are counted here."""
    heads: list[bytes] = []
    records: list[bytes] = []
    terms: list[int] = []
    counts: list[int] = []
    for chunk in file.chunks:
        record = _ENCODER.encode(chunk)
        found = document_terms(chunk.text, path=chunk.path, symbol=chunk.symbol)
        ordered = sorted(found)
        terms += ordered
        counts += map(found.__getitem__, ordered)
        records.append(record)
        heads.append(
            HEAD.pack(
                chunk.ordinal,
                chunk.start_line,
                chunk.end_line,
                len(chunk.encoded_text),
                len(ordered),
                len(record),
                bytes.fromhex(chunk.content_hash),
                bytes.fromhex(chunk.identity),
            )
        )
    if max(counts, default=0) > TERM_COUNT_MAX:
        counts = [min(count, TERM_COUNT_MAX) for count in counts]
    defined, declared, used, uses, lengths = pack_names(file)
    return PackedFile(
        path=file.path,
        language=file.language,
        size=file.size,
        line_count=file.line_count,
        content_hash=file.content_hash,
        warning=file.warning,
        facts=_ENCODER.encode(facts_of(file)),
        defined=defined,
        declared=declared,
        used=used,
        uses=uses,
        used_lengths=lengths,
        heads=b"".join(heads),
        records=b"".join(records),
        terms=_little(array("I", terms)),
        term_counts=_little(array("H", counts)),
    )


def pack_names(file: ParsedFile) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """``defined``, ``declared``, ``used``, ``uses`` and ``used_lengths`` of *file*."""
    declared = {name_hash(one.name) for one in file.definitions if one.kind == DECLARATION}
    defined = {name_hash(one.name) for one in file.definitions if one.kind != DECLARATION}
    return (
        _little(array("Q", sorted(defined))),
        _little(array("Q", sorted(declared))),
        _little(array("Q", [name_hash(one.name) for one in file.references])),
        _little(array("I", [one.count for one in file.references])),
        bytes(min(len(one.name), NAME_LENGTH_MAX) for one in file.references),
    )


def facts_of(file: ParsedFile) -> ParsedFile:
    """What import resolution and the stored graph ask of *file*: no chunks, no references, no prose."""
    bare = tuple(
        Definition(
            name=one.name,
            symbol=one.symbol,
            kind=one.kind,
            start_line=one.start_line,
            end_line=one.end_line,
            start_byte=one.start_byte,
            end_byte=one.end_byte,
        )
        for one in file.definitions
    )
    return msgspec.structs.replace(file, chunks=(), references=(), definitions=bare)


def decode_facts(data: bytes) -> ParsedFile:
    """The inverse of encoding ``facts_of``. Raises msgspec.DecodeError."""
    return _FACTS.decode(data)


def decode_chunk(record: bytes) -> Chunk:
    """A chunk from its part of ``records``. Raises msgspec.DecodeError."""
    return _CHUNKS.decode(record)


@lru_cache(maxsize=65_536)
def name_hash(name: str) -> int:
    """64 bits of *name*, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
