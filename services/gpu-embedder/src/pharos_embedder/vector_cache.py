"""Vectors by the content that they came from, so that an unchanged chunk is never encoded twice."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pharos_embedder.bounded_cache import BoundedCache, key_of

_NAME_BYTES: Final = 18


def vector_key(*, tenant: str, content: str, chunker: str, encoder: str) -> bytes:
    """The key of a vector: *content* is the hash of the chunk's text, the others are versions.

    The tenant is part of it: nobody learns from a fast answer that somebody else has the same file.
    """
    return key_of(tenant, content, chunker, encoder)


def vector_name(key: bytes) -> str:
    """What the point of a chunk carries of *key*, so that others find its vector: 24 characters.

    A vector is mistaken for another of its tenant once in 2^72.
    """
    return urlsafe_b64encode(key[:_NAME_BYTES]).decode()


def as_stored(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """*vectors* at the precision of the cache (float16), as float32.

    Fresh vectors go through this before they are stored anywhere, so that a cached vector and a fresh one
    are the same to the last bit and give the same search results. The rounding moves a unit vector by less
    than 0.0003, a tenth of what bf16 does.
    """
    return vectors.astype(np.float16).astype(np.float32)


class VectorCache(BoundedCache):
    """A `BoundedCache` of vectors, at float16."""

    name: ClassVar[str] = "vector cache"
    without: ClassVar[str] = "every chunk is encoded"

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there, by key: (D,) float32 each, as `as_stored` gave them."""
        return {
            key: np.frombuffer(body, dtype="<f2").astype(np.float32)
            for key, body in self.read(keys).items()
            if len(body) % 2 == 0
        }

    def put_many(self, vectors: Mapping[bytes, NDArray[np.float32]], *, job: str = "") -> None:
        """Stores (D,) vectors by key; *job* as for `write`."""
        self.write({key: vector.astype("<f2").tobytes() for key, vector in vectors.items()}, job=job)
