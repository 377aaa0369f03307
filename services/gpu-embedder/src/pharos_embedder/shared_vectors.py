"""Vectors that another machine made, from the store that all share: the second tier behind `vector_cache`.

Every chunk in the store carries the key of its vector, which the tenant is part of. So what a worker encoded
anywhere is found by any other as long as some point of the tenant has it, takes no room of its own, and goes
with the last of those points.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from pharos_embedder.vector_cache import as_stored
from pharos_embedder.vectors import Floats, VectorStore

_NAME_BYTES: Final = 18  # of a key: a vector is mistaken for another of its tenant once in 2^72


def vector_name(key: bytes) -> str:
    """What the point of a chunk carries of *key*, which `vector_key` made: 24 characters."""
    return urlsafe_b64encode(key[:_NAME_BYTES]).decode()


def shared_vectors(store: VectorStore, keys: Sequence[bytes]) -> dict[bytes, Floats]:
    """The vectors of *keys* that *store* has, (D,) each, at the precision of the cache. Raises StoreError."""
    names = {vector_name(key): key for key in keys}
    return {names[name]: as_stored(vector) for name, vector in store.text_vectors(tuple(names)).items()}
