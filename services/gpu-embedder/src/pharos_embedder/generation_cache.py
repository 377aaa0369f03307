"""What was read of published generations and is wanted again. It never changes, so nothing goes stale."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from pharos_embedder.vectors import DatasetKey

T = TypeVar("T")


class GenerationCache(Generic[T]):
    """The things used last, so many and of so much size in all; the newest is kept whatever its size.

    *size* 0 is a thing that is not kept: it may be of a dataset that is still being stored.
    """

    def __init__(
        self,
        read: Callable[[DatasetKey, int], T],
        size: Callable[[T], int],
        *,
        number_max: int,
        size_max: int,
    ) -> None:
        self._read = read
        self._size = size
        self._number_max = number_max
        self._size_max = size_max
        self._kept: OrderedDict[tuple[DatasetKey, int], tuple[T, int]] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def of(self, dataset: DatasetKey, generation: int) -> T:
        """The one of *generation*, read where it is not known."""
        key = (dataset, generation)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        found = self._read(dataset, generation)  # unlocked: two threads may read it twice, no harm
        if size := self._size(found):
            self._keep(key, found, size)
        return found

    def _keep(self, key: tuple[DatasetKey, int], found: T, size: int) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = found, size
            self._total += size
            while len(self._kept) > 1 and (
                len(self._kept) > self._number_max or self._total > self._size_max
            ):
                _, (_, oldest) = self._kept.popitem(last=False)
                self._total -= oldest

    def __len__(self) -> int:
        return len(self._kept)
