"""Vectors that another machine made, from the store of all: the second tier behind `vector_cache`.

Every chunk in the store carries the name of its vector, which the tenant is part of. So what one worker has
encoded any other finds, as long as some point of the tenant has it; it takes no room of its own, and goes
with the last of those points.
"""

from __future__ import annotations

from collections.abc import Sequence

from pharos_embedder.vector_cache import VectorCache, as_stored, vector_name
from pharos_embedder.vectors import Floats, VectorStore


def shared_vectors(keys: Sequence[bytes], store: VectorStore) -> dict[bytes, Floats]:
    """Of *keys*, the vectors (D,) that points in *store* have, as they have them. Raises StoreError."""
    names = {vector_name(key): key for key in keys}
    return {names[name]: each for name, each in store.text_vectors(names).items()}


def known_vectors(
    keys: Sequence[bytes], cache: VectorCache, store: VectorStore, *, job: str
) -> dict[bytes, Floats]:
    """The vectors of *keys* that are known, (D,) each, at the precision of the cache. Raises StoreError.

    For what is stored as it was encoded. What the store alone had is in the cache afterwards, for *job*.
    """
    known = cache.get_many(keys)
    # An engine makes them unit vectors again, to more digits: they are rounded as fresh ones are.
    unknown = [key for key in keys if key not in known]
    found = {key: as_stored(each) for key, each in shared_vectors(unknown, store).items()}
    cache.put_many(found, job=job)
    return known | found
