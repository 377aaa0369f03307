"""The structural vectors of each dataset's last graph, so that an unchanged graph is not trained again.

They lie in a cache of the machine, under their dataset, with the digest of all that decides them: so what is
taken from there is, to the last bit, what training would give.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from pharos_embedder.bounded_cache import BoundedCache, key_of
from pharos_embedder.training import Training
from pharos_embedder.vectors import STRUCTURE_DIMENSIONS, DatasetKey


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    losses: tuple[float, ...]
    note: str
    vectors: bytes  # (N, 64) f4, little-endian


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Kept)


class TrainedGraphs:
    """Over *cache*, whose limit and whose rules on cancelled jobs hold."""

    def __init__(self, cache: BoundedCache) -> None:
        self._cache = cache

    def get(self, dataset: DatasetKey, digest: str) -> Training | None:
        """What training gave for the last graph of *dataset*, if that had this `training_digest`."""
        for body in self._cache.read([key_of_graph(dataset)]).values():
            try:
                kept = _DECODER.decode(body)
            except msgspec.DecodeError:
                return None
            if kept.digest == digest:
                vectors = np.frombuffer(kept.vectors, dtype="<f4").astype(np.float32)
                return Training(
                    vectors=vectors.reshape(-1, STRUCTURE_DIMENSIONS),
                    losses=kept.losses,
                    seconds=0.0,
                    note=kept.note,
                )
        return None

    def put(self, dataset: DatasetKey, digest: str, training: Training, *, job: str) -> None:
        """Keep *training* for *dataset* in place of that of an earlier graph; *job* as in the cache."""
        kept = _Kept(digest, training.losses, training.note, training.vectors.astype("<f4").tobytes())
        self._cache.write({key_of_graph(dataset): _ENCODER.encode(kept)}, job=job)


def key_of_graph(dataset: DatasetKey) -> bytes:
    """Where in the cache the vectors of the files of *dataset* are."""
    return key_of("graph", dataset.joined())
