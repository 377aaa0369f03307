"""Where a chunk lies, as a part of its vector.

What a chunk says is known by its content alone, so a file that is moved keeps those vectors. Where it lies is
the vector of its file's path, some ten tokens that are encoded once for all chunks of the file. What is
searched is their weighted sum, of unit length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from pharos_embedder.bounded_cache import label_of
from pharos_embedder.points import Origin
from pharos_embedder.vector_cache import VectorCache, as_stored, vector_key
from pharos_embedder.vectors import Floats

PATHS_VERSION: Final = "path-1"
"""Stands in the key of a path's vector where that of a chunk has the version of the chunker."""

PATH_WEIGHT: Final = 0.25
"""Measured: anything from 0.2 to 0.4 does as well, and 0.1 does half as much (docs/experiments.md).

Whoever changes it raises CHUNKER_VERSION, since what is stored of a chunk is then another vector.
"""

PATH_CHARACTERS_MAX: Final = 200  # its end


def path_key(path: str, *, tenant: str, encoder: str) -> bytes:
    """Where the cache has the vector of *path*."""
    content = hashlib.blake2b(_text(path).encode("utf-8"), digest_size=16).hexdigest()
    return vector_key(tenant=tenant, content=content, chunker=PATHS_VERSION, encoder=encoder)


def placed(contents: Floats, paths: Floats) -> Floats:
    """(N, D) unit vectors of chunks, from those of their contents and of their paths, (N, D) each."""
    mixed = (1 - PATH_WEIGHT) * contents + PATH_WEIGHT * paths  # at least half as long as one of them
    unit: Floats = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


class PathVectors:
    """The vectors of paths, for the chunks of one run; what is not in *cache* is encoded and put there."""

    def __init__(self, encode: Callable[[Sequence[str]], Floats], cache: VectorCache, origin: Origin) -> None:
        """*encode* gives the vectors (N, D) of texts; what it raises, `of` raises."""
        self._encode = encode
        self._cache = cache
        self._origin = origin

    def keyed(self, paths: Iterable[str]) -> Iterator[tuple[bytes, str]]:
        """Each of *paths* by its key in the cache, with what is encoded of it."""
        tenant, encoder = self._origin.dataset.tenant, self._origin.encoder
        for path in paths:
            yield path_key(path, tenant=tenant, encoder=encoder), _text(path)

    def of(self, paths: Sequence[str]) -> Floats:
        """(N, D) in the order of *paths*, each of which is encoded once."""
        tenant, encoder = self._origin.dataset.tenant, self._origin.encoder
        keys = {path: path_key(path, tenant=tenant, encoder=encoder) for path in paths}
        known = self._cache.get_many(list(keys.values()))
        new = [path for path, key in keys.items() if key not in known]
        if new:
            vectors = as_stored(self._encode([_text(path) for path in new]))
            made = {keys[path]: vector for path, vector in zip(new, vectors, strict=True)}
            self._cache.put_many(made, job=label_of(self._origin.job, tenant))
            known = {**known, **made}
        return np.stack([known[keys[path]] for path in paths])


def _text(path: str) -> str:
    return path[-PATH_CHARACTERS_MAX:]
