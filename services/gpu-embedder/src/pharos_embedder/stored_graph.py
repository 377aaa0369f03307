"""The file graph as it is stored with a generation and read by whoever asks of the structure.

Beside files and edges it holds what each file defines, and a place for each file on a map: its structural
vector in the two directions in which the vectors of the repository differ most (principal components). All
of it is packed, compressed and cut into pieces of a size that every store takes.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, Self

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from pharos_embedder.linking import EDGE_KINDS, EdgeKind, FileGraph
from pharos_embedder.syntax import ParsedFile

log = structlog.get_logger()

EDGES_MAX: Final = 1_000_000  # the strongest are kept
GRAPH_BYTES_MAX: Final = (
    64 << 20
)  # unpacked: some 100 bytes for each edge and 600 for each file at their most
PIECE_BYTES: Final = 384 << 10  # 512 KiB as text
SYMBOLS_PER_FILE_MAX: Final = 1_000
SYMBOL_CHARACTERS_MAX: Final = 32 << 20  # of all files; beyond, the files with the most of them have fewer
PLACE_DIGITS: Final = 4

_FORMAT: Final = 1

Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class GraphTooLarge(Exception):
    """The graph would need more than GRAPH_BYTES_MAX."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The graph takes {size >> 20} MiB, and at most {GRAPH_BYTES_MAX >> 20} are kept")


class GraphPiecesMissing(Exception):
    """Not all pieces of a graph are there: it is being stored, as of a first index, or taken away."""


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge as seen from one file: to, or from, the file ``other``, by its place in ``paths``."""

    other: int
    kind: EdgeKind
    weight: float


class StoredGraph(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """N files in the order of their paths, and E edges by source, target and kind.

    ``places`` (N, 2) are in [-1, 1]. ``symbols`` are what each file defines, a line each. ``edges_dropped``
    are the weakest edges, beyond EDGES_MAX; ``symbols_dropped`` those of files that define the most, beyond
    SYMBOL_CHARACTERS_MAX of all files.
    """

    paths: tuple[str, ...]
    languages: tuple[str, ...]
    symbols: tuple[str, ...]
    lines: Ints  # (N,)
    places: Floats  # (N, 2)
    sources: Ints  # (E,)
    targets: Ints  # (E,)
    kinds: Bytes  # (E,), places in EDGE_KINDS
    weights: Floats  # (E,)
    edges_dropped: int = 0
    symbols_dropped: int = 0

    @classmethod
    def of(
        cls,
        graph: FileGraph,
        structure: Floats,
        *,
        languages: Sequence[str],
        lines: Ints,
        symbols: Iterable[str],
    ) -> Self:
        """*graph* with what its files tell, and *structure* (N, 64), in the order of its paths.

        *symbols* are as of `symbols_of`, and read one after the other.
        """
        fewer, symbols_dropped = _bounded(symbols)
        weights = graph.weights.astype(np.float32)
        kept = _strongest(weights, EDGES_MAX)
        return cls(
            paths=graph.paths,
            languages=tuple(languages),
            symbols=fewer,
            lines=lines,
            places=places(structure),
            sources=graph.sources[kept],
            targets=graph.targets[kept],
            kinds=graph.kinds[kept],
            weights=weights[kept],
            edges_dropped=len(weights) - len(kept),
            symbols_dropped=symbols_dropped,
        )

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        text = sum(len(path) + len(symbols) for path, symbols in zip(self.paths, self.symbols, strict=True))
        return text + 200 * len(self.paths) + 13 * len(self.sources)

    def number(self, path: str) -> int | None:
        """The place of *path*; None where it is no file here."""
        place = bisect_left(self.paths, path)
        return place if place < len(self.paths) and self.paths[place] == path else None

    def under(self, prefix: str) -> range:
        """The places of the files in the directory *prefix*, or of that one file; empty: of all."""
        wanted = prefix.removeprefix("./").strip("/")
        if not wanted:
            return range(len(self.paths))
        file = self.number(wanted)
        if file is not None:
            return range(file, file + 1)
        # Paths are in the order of their characters, and "0" is the one after "/".
        return range(bisect_left(self.paths, f"{wanted}/"), bisect_left(self.paths, f"{wanted}0"))

    def after(self, within: range, path: str | None) -> range:
        """What of *within* comes after *path*; all of it where that is None."""
        start = within.start if path is None else max(within.start, bisect_right(self.paths, path))
        return range(min(start, within.stop), within.stop)

    def edges_within(self, within: range, kind: str | None) -> Ints:
        """(M,) the edges of that *kind*, or of any, between files *within*, in their order."""
        first, end = np.searchsorted(self.sources, (within.start, within.stop))
        targets = self.targets[first:end]
        wanted = (targets >= within.start) & (targets < within.stop)
        if kind is not None:
            wanted &= self.kinds[first:end] == EDGE_KINDS.index(kind)
        found: Ints = (np.flatnonzero(wanted) + first).astype(np.int32)
        return found

    def degrees(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(N,) how many edges lead into each file, and (N,) how many out of it."""
        files = len(self.paths)
        return np.bincount(self.targets, minlength=files), np.bincount(self.sources, minlength=files)

    def edge(self, number: int, *, seen_from_target: bool = False) -> Edge:
        """Edge *number* as its source sees it."""
        other = self.sources if seen_from_target else self.targets
        return Edge(
            other=int(other[number]),
            kind=EDGE_KINDS[self.kinds[number]],
            weight=round(float(self.weights[number]), 6),
        )

    def edges_out_of(self, file: int) -> list[Edge]:
        first, end = np.searchsorted(self.sources, (file, file + 1))
        return [self.edge(number) for number in range(int(first), int(end))]

    def edges_into(self, file: int) -> list[Edge]:
        found = np.flatnonzero(self.targets == file)
        return [self.edge(int(number), seen_from_target=True) for number in found]

    def defining(self, symbol: str) -> list[int]:
        """The files that define *symbol*: by its path of names, or by the last of them."""
        wanted = (f"\n{symbol}\n", f".{symbol}\n")
        return [
            number
            for number, symbols in enumerate(self.symbols)
            if any(each in f"\n{symbols}\n" for each in wanted)
        ]


def _bounded(symbols: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """*symbols* with as many for each file as all files have room for, and how many are left out."""
    kept: list[str] = []
    most, size, total = SYMBOLS_PER_FILE_MAX, 0, 0
    for each in symbols:
        total += _lines(each)
        kept.append(_first(each, most))
        size += len(kept[-1])
        while size > SYMBOL_CHARACTERS_MAX and most:
            most //= 2
            kept = [_first(one, most) for one in kept]
            size = sum(map(len, kept))
    return tuple(kept), total - sum(map(_lines, kept))


def _first(symbols: str, most: int) -> str:
    return "\n".join(symbols.split("\n", most)[:most])


def _lines(symbols: str) -> int:
    return symbols.count("\n") + 1 if symbols else 0


def places(structure: Floats) -> Floats:
    """(N, 2) in [-1, 1]: the two principal components of *structure* (N, D), to four digits.

    The same vectors give the same places: of each direction the larger side is the positive one. Where they
    differ in fewer than two directions, the rest is 0; and all is where LAPACK finds no directions.
    """
    from scipy import linalg  # who only reads graphs does not wait for it

    nowhere = np.zeros((len(structure), 2), dtype=np.float32)
    if len(structure) < 2:
        return nowhere
    centred = structure.astype(np.float64) - structure.mean(axis=0, dtype=np.float64)
    last = centred.shape[1] - 1
    try:
        # Only those two, and not by divide and conquer, which numpy takes: once in many thousand small graphs
        # OpenBLAS's did not converge, and a job is not to fail for its map.
        variances, directions = linalg.eigh(
            centred.T @ centred, subset_by_index=[last - 1, last], driver="evr"
        )
    except linalg.LinAlgError as error:
        log.warning("map_not_made", files=len(structure), reason=str(error))
        return nowhere
    chosen = directions[:, ::-1]  # they come in ascending order
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), [0, 1]])
    chosen = chosen * (variances[::-1] > 1e-9 * max(float(variances[-1]), 1.0))
    found = centred @ chosen
    found /= max(float(np.abs(found).max()), 1e-12)
    rounded: Floats = np.round(found, PLACE_DIGITS).astype(np.float32) + np.float32(0)  # no negative zero
    return rounded


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is compressed. Numbers are little-endian."""

    format: int
    paths: tuple[str, ...]
    names: tuple[str, ...]  # of languages
    symbols: tuple[str, ...]
    languages: bytes  # (N,) u2, places in names
    lines: bytes  # (N,) i4
    places: bytes  # (N, 2) f4
    sources: bytes  # (E,) i4
    targets: bytes  # (E,) i4
    kinds: bytes  # (E,) u1
    weights: bytes  # (E,) f4
    edges_dropped: int
    symbols_dropped: int = 0  # an earlier release stored none, and left a graph out that was too large


def to_pieces(graph: StoredGraph) -> list[str]:
    """*graph* as text, in pieces of at most 512 KiB, at least one. Raises GraphTooLarge."""
    names = tuple(sorted(set(graph.languages)))
    number = {name: place for place, name in enumerate(names)}
    packed = msgspec.msgpack.encode(
        _Packed(
            format=_FORMAT,
            paths=graph.paths,
            names=names,
            symbols=graph.symbols,
            languages=np.array([number[name] for name in graph.languages], dtype="<u2").tobytes(),
            lines=graph.lines.astype("<i4").tobytes(),
            places=graph.places.astype("<f4").tobytes(),
            sources=graph.sources.astype("<i4").tobytes(),
            targets=graph.targets.astype("<i4").tobytes(),
            kinds=graph.kinds.tobytes(),
            weights=graph.weights.astype("<f4").tobytes(),
            edges_dropped=graph.edges_dropped,
            symbols_dropped=graph.symbols_dropped,
        )
    )
    if len(packed) > GRAPH_BYTES_MAX:
        raise GraphTooLarge(len(packed))
    data = zlib.compress(packed)
    return [
        b64encode(data[start : start + PIECE_BYTES]).decode() for start in range(0, len(data), PIECE_BYTES)
    ]


def from_pieces(pieces: Sequence[str]) -> StoredGraph:
    """The inverse of `to_pieces`. Raises GraphPiecesMissing."""
    data = b"".join(b64decode(piece) for piece in pieces)
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, GRAPH_BYTES_MAX)
    except zlib.error as error:
        raise GraphPiecesMissing from error
    if not stream.eof:
        raise GraphPiecesMissing  # or it is larger than any that was packed
    packed = msgspec.msgpack.decode(unpacked, type=_Packed)
    if packed.format != _FORMAT:
        raise ValueError(f"A graph of format {packed.format}, of which nothing is known here")
    return StoredGraph(
        paths=packed.paths,
        languages=tuple(packed.names[place] for place in np.frombuffer(packed.languages, dtype="<u2")),
        symbols=packed.symbols,
        lines=np.frombuffer(packed.lines, dtype="<i4").astype(np.int32),
        places=np.frombuffer(packed.places, dtype="<f4").astype(np.float32).reshape(-1, 2),
        sources=np.frombuffer(packed.sources, dtype="<i4").astype(np.int32),
        targets=np.frombuffer(packed.targets, dtype="<i4").astype(np.int32),
        kinds=np.frombuffer(packed.kinds, dtype=np.uint8),
        weights=np.frombuffer(packed.weights, dtype="<f4").astype(np.float32),
        edges_dropped=packed.edges_dropped,
        symbols_dropped=packed.symbols_dropped,
    )


def _strongest(weights: Floats, most: int) -> npt.NDArray[np.int64]:
    """(M,) the places of the *most* largest of *weights*, ascending; of equal ones the first."""
    if len(weights) <= most:
        return np.arange(len(weights))
    return np.sort(np.argsort(-weights, kind="stable")[:most])


def symbols_of(file: ParsedFile) -> str:
    """What *file* defines, a line each."""
    return "\n".join(dict.fromkeys(one.symbol for one in file.definitions[:SYMBOLS_PER_FILE_MAX]))
