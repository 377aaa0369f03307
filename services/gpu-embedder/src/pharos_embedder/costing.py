"""What a run is going to encode, found out before it does: what neither cache nor store know by content.

Of two million chunks that is 24 MB of numbers and one window of texts, whatever they say.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from pharos_embedder.costs import Tariff, cost_of, tokens_of
from pharos_embedder.path_vectors import PathVectors
from pharos_embedder.ports import Check, Report
from pharos_embedder.shared_vectors import shared_vectors
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import VectorStore

log = structlog.get_logger()

WINDOW: Final = 512  # texts that are looked up at once
_TOLD_APART_BYTES: Final = 8  # of a key: of two million, two are mistaken for one once in ten million runs


class Candidate(NamedTuple):
    """A text that may have to be encoded.

    The cache knows it by ``key``, the store by ``stored``. Where it is encoded or was, the vector of ``path``
    is needed as well, unless that is empty.
    """

    key: bytes
    stored: bytes
    text: str
    path: str = ""


def costed(
    candidates: Iterable[Candidate],
    chunks: int,
    tariff: Tariff,
    cache: VectorCache,
    store: VectorStore,
    report: Report,
    check: Check,
    paths: PathVectors | None = None,
) -> Report:
    """*report*, which from now on says what it costs to encode *candidates*, of a run's *chunks*.

    Their paths are no chunks, and cost too. Raises JobTooCostly and StoreError, before anything is encoded.
    """
    new, needed = _Tokens(), set[str]()
    remaining = iter(candidates)
    while window := list(islice(remaining, WINDOW)):
        check()
        known = cache.get_many([each.key for each in window])
        unknown = [each for each in window if each.key not in known]
        stored = shared_vectors([each.stored for each in unknown], store)
        for each in window:
            if each.key not in known and each.stored in stored:
                continue
            if each.path:
                needed.add(each.path)
            if each.key not in known:
                new.add(each.key, each.text)
    beside = _Tokens()
    keyed = iter(paths.keyed(needed) if paths is not None else ())
    while some := dict(islice(keyed, WINDOW)):
        check()
        known = cache.get_many(list(some))
        for key, text in some.items():
            if key not in known:
                beside.add(key, text)
    cost = cost_of(new.distinct(), chunks, tariff, beside=int(beside.distinct().sum()))
    log.info("encoding_planned", chunks=cost.chunks, known=cost.known, tokens=cost.tokens, price=cost.price)
    return partial(report, detail=cost.sentence)


class _Tokens:
    """How many tokens texts have, each counted once however often it comes."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._tokens = array("I")

    def add(self, key: bytes, text: str) -> None:
        self._keys.append(int.from_bytes(key[:_TOLD_APART_BYTES]))
        self._tokens.append(tokens_of(text))

    def distinct(self) -> NDArray[np.int64]:
        """(N,) of each text."""
        _, first = np.unique(np.array(self._keys, dtype=np.uint64), return_index=True)
        return np.array(self._tokens, dtype=np.int64)[first]
