"""What is to be encoded: chunks by their places, of which the texts are read a window at a time.

`Encodables` is what encoding asks of them; chunks of a repository lie in its spool, those of a document in
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pharos_embedder.spool import Spool

Places = NDArray[np.int64]
Ids = NDArray[np.bytes_]
"""(N,) of 16 bytes each, which sort and compare as they are written."""

_ID_BYTES: Final = 16


class Encodable(Protocol):
    """A chunk, as far as its vector is concerned."""

    @property
    def path(self) -> str: ...

    @property
    def encoded_text(self) -> str: ...

    @property
    def content_hash(self) -> str: ...


class Encodables(Protocol):
    """N chunks at the places 0 to N − 1, each with an id of its own."""

    def __len__(self) -> int: ...

    def longest_first(self) -> Places:
        """(N,) their places: by the length of their texts, of equal ones by their ids."""

    def places_of(self, ids: Sequence[str]) -> Places:
        """(M,) the places of those of *ids* that are here."""

    def ids_of(self, places: Places) -> list[str]: ...

    def path_of(self, place: int) -> str: ...

    def content_hashes(self, places: Places) -> list[str]: ...

    def texts(self, places: Places) -> list[str]: ...


class EncodablesInMemory:
    """Chunks by their ids."""

    def __init__(self, chunks: Mapping[str, Encodable]) -> None:
        self._ids = list(chunks)
        self._chunks = list(chunks.values())
        self._places = {each: place for place, each in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def longest_first(self) -> Places:
        lengths = [len(chunk.encoded_text) for chunk in self._chunks]
        order = sorted(range(len(self)), key=lambda place: (-lengths[place], self._ids[place]))
        return np.array(order, dtype=np.int64)

    def places_of(self, ids: Sequence[str]) -> Places:
        return np.array([self._places[each] for each in ids if each in self._places], dtype=np.int64)

    def ids_of(self, places: Places) -> list[str]:
        return [self._ids[place] for place in places]

    def path_of(self, place: int) -> str:
        return self._chunks[place].path

    def content_hashes(self, places: Places) -> list[str]:
        return [self._chunks[place].content_hash for place in places]

    def texts(self, places: Places) -> list[str]:
        return [self._chunks[place].encoded_text for place in places]


class SpooledChunks:
    """The chunks of *spool* that have an id of their own, in its order; *ids* (C,) are those of all."""

    def __init__(self, spool: Spool, ids: Ids) -> None:
        self._spool = spool
        known, first = np.unique(ids, return_index=True)
        self.places = np.sort(first)  # (N,) in the spool
        self.ids = ids[self.places]  # (N,)
        order = np.argsort(self.ids, kind="stable")
        self._sorted, self._order = known, order

    def __len__(self) -> int:
        return len(self.ids)

    def longest_first(self) -> Places:
        lengths = self._spool.heads["characters"][self.places].astype(np.int64)
        rank = np.empty(len(self), dtype=np.int64)
        rank[self._order] = np.arange(len(self))
        order: Places = np.lexsort((rank, -lengths))
        return order

    def places_of(self, ids: Sequence[str]) -> Places:
        return self.find(packed_ids(ids))[1]

    def find(self, ids: Ids) -> tuple[NDArray[np.bool_], Places]:
        """(M,) which of *ids* are here, and the places of those."""
        if not len(self):
            return np.zeros(len(ids), dtype=np.bool_), np.zeros(0, dtype=np.int64)
        found = np.minimum(np.searchsorted(self._sorted, ids), len(self) - 1)
        is_here = self._sorted[found] == ids
        return is_here, self._order[found[is_here]]

    def ids_of(self, places: Places) -> list[str]:
        return unpacked_ids(self.ids[places])

    def path_of(self, place: int) -> str:
        return self._spool.paths[int(self._spool.files_of_chunks[self.places[place]])]

    def content_hashes(self, places: Places) -> list[str]:
        return [each.tobytes().hex() for each in self._spool.heads["content"][self.places[places]]]

    def texts(self, places: Places) -> list[str]:
        return [chunk.encoded_text for chunk in self._spool.read_chunks(self.places[places].tolist())]


def packed_ids(ids: Iterable[str]) -> Ids:
    """(N,) the ids of points, 16 bytes each."""
    data = b"".join(bytes.fromhex(each.replace("-", "")) for each in ids)
    return np.frombuffer(data, dtype=f"S{_ID_BYTES}")


def unpacked_ids(ids: Ids) -> list[str]:
    """The inverse of `packed_ids`."""
    digits = np.ascontiguousarray(ids).tobytes().hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-{digits[at + 12 : at + 16]}"
        f"-{digits[at + 16 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, len(digits), 2 * _ID_BYTES)
    ]
