"""Parsed files by the bytes that they came from, so that an unchanged file is never parsed twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import zstandard

from pharos_embedder.bounded_cache import BoundedCache, Warn, key_of
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.syntax import ParseOptions

_PARSING: Final = (
    "bm25.py",
    "chunking.py",
    "cpp_macros.py",
    "declarators.py",
    "doc_comments.py",
    "headers.py",
    "import_statements.py",
    "languages.py",
    "packed_files.py",
    "parse_worker.py",
    "parsing.py",
    "partition.py",
    "syntax.py",
    "text_encoding.py",
    "queries/*.scm",
)
"""The code that decides what is made of a file, beside the grammars."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(PackedFile)
_JOB_SHARE: Final = 4
"""A job stores at most limit / this: more would drive out its own first files before they are asked for
again, and those of all other repositories.
"""
_LEVEL: Final = 3  # of compression: to two fifths, at 250 MB/s, where zlib needs three times as long


@cache
def code_version(*patterns: str) -> str:
    """A digest of the files of this package that are meant by *patterns*."""
    folder = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def parsing_version() -> str:
    """A digest of the code and of the grammars: nobody has to remember to raise it."""
    digest = hashlib.blake2b(code_version(*_PARSING).encode(), digest_size=16)
    grammars = {
        f"{each.name}=={each.version}" for each in distributions() if each.name.startswith("tree-sitter")
    }
    digest.update("\0".join(sorted(grammars)).encode())
    return digest.hexdigest()


class ParseCache(BoundedCache):
    """A `BoundedCache` of packed files, as they are parsed with *options*."""

    name: ClassVar[str] = "parse cache"
    without: ClassVar[str] = "every file is parsed"

    def __init__(self, path: Path, *, limit_bytes: int, warn: Warn, options: ParseOptions) -> None:
        super().__init__(path, limit_bytes=limit_bytes, warn=warn)
        self.job_bytes_max = limit_bytes // _JOB_SHARE
        self._made_by = f"{parsing_version()} {options!r}"

    def key_of(self, *, tenant: str, path: str, language: str, content_hash: str) -> bytes:
        """The key of a file. Its path is part of what is encoded of it.

        The tenant is part of the key: nobody learns from a fast answer that somebody else has the same file.
        """
        return key_of(tenant, path, language, content_hash, self._made_by)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, PackedFile]:
        """The files that are there, by key."""
        found = {}
        decompress = zstandard.ZstdDecompressor().decompress  # one for each call: it is for one thread
        for key, body in self.read(keys).items():
            try:
                found[key] = _DECODER.decode(decompress(body))
            except (zstandard.ZstdError, msgspec.DecodeError):
                continue  # it is parsed and written again
        return found

    def put_many(self, files: Mapping[bytes, PackedFile], *, job: str = "") -> int:
        """Stores *files* by key; *job* as for `write`. How many bytes they take, about."""
        compress = zstandard.ZstdCompressor(_LEVEL).compress
        values = {key: compress(_ENCODER.encode(file)) for key, file in files.items()}
        self.write(values, job=job)
        return sum(map(len, values.values()))
