"""The parsed files of one job on disk, so that its memory does not grow with what is in them.

They are written as they come, in any order, each whole; then they are read by whoever needs which part of
them: linking by file, the store and the encoder by windows of chunks. In memory stay a path and some hundred
bytes for each file, and 64 for each chunk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pharos_embedder.bm25 import K1, LENGTH_TYPICAL, B, SparseVector
from pharos_embedder.linking import FileNames, names_of
from pharos_embedder.packed_files import HEAD, PackedFile, decode_chunk, decode_facts
from pharos_embedder.syntax import Chunk, ParsedFile

HEADS: Final = np.dtype(
    [
        ("ordinal", "<u4"),
        ("start_line", "<u4"),
        ("end_line", "<u4"),
        ("characters", "<u4"),
        ("terms", "<u4"),
        ("bytes", "<u4"),
        ("content", "V16"),
        ("identity", "V16"),
    ]
)
assert HEADS.itemsize == HEAD.size

_BUFFER_BYTES: Final = 1 << 20
_NAMES: Final = ("defined", "declared", "used", "uses", "used_lengths")
_SECTIONS: Final = ("facts", *_NAMES, "terms", "term_counts", "records")

Numbers = NDArray[np.int64]


class Terms(NamedTuple):
    """The words of C chunks: of chunk i those from ``rows[i]`` to ``rows[i + 1]``."""

    rows: Numbers  # (C + 1,)
    terms: NDArray[np.uint32]  # (T,), ascending within a chunk
    counts: NDArray[np.uint16]  # (T,)

    def vectors(self, chunks: Sequence[int]) -> Iterator[SparseVector]:
        """`document_vector` of each of *chunks*, the same bits."""
        for chunk in chunks:
            own = slice(self.rows[chunk], self.rows[chunk + 1])
            counts = self.counts[own].astype(np.float64)
            norm = K1 * (1 - B + B * float(counts.sum()) / LENGTH_TYPICAL)
            yield SparseVector(
                indices=tuple(self.terms[own].tolist()),
                values=tuple((counts * (K1 + 1) / (counts + norm)).tolist()),
            )


class Spool:
    """A file at *path*, which is made, and removed by whoever owns its folder. A context manager.

    First `add`, then `finish`, then all the rest, where files are numbered in the order of their paths and
    chunks in that of the files. Raises OSError where the disk fails or is full.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=_BUFFER_BYTES)
        self.paths: list[str] = []
        self.languages: list[str] = []
        self.content_hashes: list[str] = []
        self.chunks = 0
        self.bytes = 0
        self._lines: list[int] = []
        self._rows: list[tuple[int, ...]] = []  # of each file: where it begins, and the bytes of its sections
        self._heads: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def add(self, file: PackedFile) -> None:
        """Write *file*, whose path was not there yet."""
        sections = [getattr(file, name) for name in _SECTIONS]
        sizes = [len(section) for section in sections]
        for section in sections:
            self._file.write(section)
        self._rows.append((self.bytes, *sizes))
        self._heads.append(file.heads)
        self.paths.append(file.path)
        self.languages.append(file.language)
        self.content_hashes.append(file.content_hash)
        self._lines.append(file.line_count)
        self.bytes += sum(sizes)

    def finish(self, chunks_max: int) -> tuple[str, ...]:
        """All files are there. In the order of their paths they are taken as long as their chunks fit into
        *chunks_max*; the paths of the others.
        """
        self._file.flush()
        order, left_out = [], []
        self.chunks = 0
        for each in sorted(range(len(self.paths)), key=self.paths.__getitem__):
            more = len(self._heads[each]) // HEAD.size
            if self.chunks + more > chunks_max:
                left_out.append(self.paths[each])
                continue
            order.append(each)
            self.chunks += more
        self.paths = [self.paths[each] for each in order]
        self.languages = [self.languages[each] for each in order]
        self.content_hashes = [self.content_hashes[each] for each in order]
        self.lines = np.array([self._lines[each] for each in order], dtype=np.int32)  # (N,)
        rows = np.array([self._rows[each] for each in order], dtype=np.int64).reshape(-1, 1 + len(_SECTIONS))
        heads = [self._heads[each] for each in order]
        self._heads, self._rows, self._lines = [], [], []
        # (N, sections + 1): where each section of a file begins, and where the last one ends.
        self._offsets = np.cumsum(rows, axis=1)
        counts = np.array([len(each) // HEAD.size for each in heads], dtype=np.int64)
        self.first_chunks = np.concatenate([[0], np.cumsum(counts)])  # (N + 1,)
        self.heads = np.frombuffer(b"".join(heads), dtype=HEADS)  # (C,)
        self.files_of_chunks = np.repeat(np.arange(len(order), dtype=np.int32), counts)  # (C,)
        self._records = self._starts("records", self.heads["bytes"])  # (C,)
        return tuple(left_out)

    def _starts(self, section: str, sizes: NDArray[np.uint32]) -> Numbers:
        """(C,) where in the file each chunk's part of *section* begins; *sizes* are bytes."""
        before = np.cumsum(sizes, dtype=np.int64) - sizes  # of all chunks before, of whatever file
        begins = self._offsets[self.files_of_chunks, _SECTIONS.index(section)]
        starts: Numbers = begins + before - before[self.first_chunks[self.files_of_chunks]]
        return starts

    # Files

    def facts(self, number: int) -> ParsedFile:
        """File *number* without its chunks and references."""
        return decode_facts(self._section(number, "facts"))

    def names(self, number: int) -> FileNames:
        first = _SECTIONS.index(_NAMES[0])  # they lie side by side: one read
        bounds = self._offsets[number, first : first + len(_NAMES) + 1].tolist()
        data = self._read(bounds[0], bounds[-1] - bounds[0])
        parts = (data[start - bounds[0] : end - bounds[0]] for start, end in pairwise(bounds))
        return names_of(*parts)

    def _section(self, number: int, name: str) -> bytes:
        place = _SECTIONS.index(name)
        start, end = self._offsets[number, place : place + 2].tolist()
        return self._read(start, end - start)

    def _read(self, start: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), size, start)
        if len(data) != size:
            raise OSError("the file of parsed files is shorter than it was")
        return data

    # Chunks

    def read_chunks(self, places: Sequence[int]) -> list[Chunk]:
        """The chunks of those numbers."""
        sizes = self.heads["bytes"]
        return [decode_chunk(self._read(int(self._records[each]), int(sizes[each]))) for each in places]

    def terms_of(self, files: range) -> Terms:
        """The words of the chunks of *files*, which follow each other."""
        first, end = self.first_chunks[files.start], self.first_chunks[files.stop]
        rows = np.concatenate([[0], np.cumsum(self.heads["terms"][first:end], dtype=np.int64)])
        return Terms(
            rows,
            np.frombuffer(b"".join(self._section(each, "terms") for each in files), dtype="<u4"),
            np.frombuffer(b"".join(self._section(each, "term_counts") for each in files), dtype="<u2"),
        )

    def windows(self, chunks_max: int) -> Iterator[range]:
        """All files, in order, in ranges of at most *chunks_max* chunks, or of one file."""
        start = 0
        while start < len(self.paths):
            most = self.first_chunks[start] + chunks_max
            stop = max(start + 1, int(np.searchsorted(self.first_chunks, most, side="right")) - 1)
            yield range(start, stop)
            start = stop
