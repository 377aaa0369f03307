"""A store for text vectors of several lengths: an engine made of engines, one for each length.

An engine holds text vectors of one length, and another encoder may make others. Then the store gets another
volume: new points go to the current one, whose vectors are as long as those of the encoder in use, and what
is in the others is found by words and structure, retired and deleted as before. So a dataset is indexed again
beside its live generation, wherever that is, and nothing is lost by trying another encoder. What is copied
from another store goes to the volume of its length, which is made where there is none.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from pharos_embedder.bm25 import SparseVector
from pharos_embedder.generations import Engine
from pharos_embedder.vectors import (
    Condition,
    Floats,
    Hit,
    Ids,
    Payload,
    Point,
    StoreClosed,
    StoreError,
    StoreFacts,
    VectorName,
)

VOLUMES_MAX: Final = 8
"""Each takes half a megabyte and a part of every query."""


class TooManyVolumes(StoreError):
    """The store has held vectors of more lengths than are kept beside each other."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"The index at {place} has {VOLUMES_MAX} volumes, one for each length of text vectors. Go back "
            "to an encoder that was used before, or delete the datasets that are not needed any more"
        )


class Volume(Engine, Protocol):
    """An engine whose text vectors have ``dimensions``."""

    @property
    def dimensions(self) -> int: ...


Find = Callable[[], tuple[Volume, Sequence[Volume]]]
"""The current volume, and the others. None is open."""

Make = Callable[[int], Volume]
"""A volume for vectors of another length than those that were found; not open."""


class Volumes:
    """An ``Engine`` over those that *find* finds when it is opened; they have no point in common.

    Ids are in one order in all engines: a page of all is made of a page of each.
    """

    def __init__(self, find: Find, make: Make, *, place: str) -> None:
        self._find = find
        self._make = make
        self._place = place
        self._opened: tuple[Volume, ...] = ()
        self._making = threading.Lock()

    def open(self) -> None:
        if self._opened:
            raise StoreError("The index is already open in this process")
        current, others = self._find()
        opened: list[Volume] = []
        try:
            for engine in (current, *others):
                engine.open()
                opened.append(engine)
        except BaseException:
            for engine in opened:
                engine.close()
            raise
        self._opened = tuple(opened)

    def close(self) -> None:
        opened, self._opened = self._opened, ()
        for engine in opened:
            engine.close()

    @property
    def _all(self) -> tuple[Volume, ...]:
        if not self._opened:
            raise StoreClosed("the index is not open")
        return self._opened

    @property
    def _current(self) -> Volume:
        return self._all[0]

    def flush(self) -> None:
        for engine in self._all:
            engine.flush()

    def optimize(self) -> bool:
        optimized = [engine.optimize() for engine in self._all]
        return any(optimized)

    # Writing

    def put(self, points: Sequence[Point]) -> None:
        """Each goes to the volume of its length; one without a text vector stays where it is, if it is."""
        for engine, own in self._by_volume(points):
            engine.put(own)

    def _by_volume(self, points: Sequence[Point]) -> Iterator[tuple[Engine, list[Point]]]:
        lengths: dict[int, list[Point]] = {}
        rest: dict[str, Point] = {}
        for point in points:
            if point.text_vector is None:
                rest[point.id] = point
            else:
                lengths.setdefault(len(point.text_vector), []).append(point)
        for length, own in lengths.items():
            yield self._of_length(length), own
        for engine in self._all[1:] if rest else ():
            found, _ = engine.ids(Ids(tuple(rest)), after=None, limit=len(rest))
            if found:
                yield engine, [rest.pop(each) for each in found]
            if not rest:
                return
        if rest:
            yield self._current, list(rest.values())

    def _of_length(self, length: int) -> Volume:
        """Raises TooManyVolumes."""
        with self._making:
            for engine in self._all:
                if engine.dimensions == length:
                    return engine
            if len(self._all) >= VOLUMES_MAX:
                raise TooManyVolumes(self._place)
            made = self._make(length)
            made.open()
            self._opened = (*self._opened, made)
            return made

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        self._current.set_text(ids, vectors)

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        for engine in self._all:
            engine.set_until(ids, generation, condition)

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        for engine in self._all:
            engine.delete(ids, condition)

    # Reading

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        found: list[str] = []
        following: list[str] = []
        for engine in self._all:
            page, then = engine.ids(condition, after=after, limit=limit)
            found += page
            if then is not None:
                following.append(then)
        ordered = sorted(found)
        following += ordered[limit:]
        return ordered[:limit], min(following, default=None)

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        found: list[Payload] = []
        for engine in self._all:
            if len(found) < limit:
                found += engine.payloads(condition, limit=limit - len(found))
        return found

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        found: list[Floats] = []
        for engine in self._all:
            if len(found) < limit:
                found += engine.structures(condition, limit=limit - len(found))
        return found

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        return self._current.texts(names)

    def points(
        self, condition: Condition, *, after: str | None, limit: int
    ) -> tuple[list[Point], str | None]:
        found: list[Point] = []
        following: list[str] = []
        for engine in self._all:
            page, then = engine.points(condition, after=after, limit=limit)
            found += page
            if then is not None:
                following.append(then)
        ordered = sorted(found, key=lambda point: point.id)
        following += [point.id for point in ordered[limit:]]
        return ordered[:limit], min(following, default=None)

    def facts(self) -> StoreFacts:
        told = [engine.facts() for engine in self._all]
        return msgspec.structs.replace(
            told[0],
            points=sum(each.points for each in told),
            bytes_on_disk=_sum([each.bytes_on_disk for each in told]),
            written=_sum([each.written for each in told]),
        )

    def count(self, condition: Condition) -> int:
        return sum(engine.count(condition) for engine in self._all)

    def counts(self, field: str, condition: Condition) -> dict[str | int, int]:
        total: Counter[str | int] = Counter()
        for engine in self._all:
            total.update(engine.counts(field, condition))
        return dict(total)

    def nearest(
        self, name: VectorName, vector: Floats | SparseVector, condition: Condition, limit: int
    ) -> list[Hit]:
        if name == "text":
            return self._current.nearest(name, vector, condition, limit)
        found = [hit for engine in self._all for hit in engine.nearest(name, vector, condition, limit)]
        return sorted(found, key=lambda hit: (-hit.score, hit.id))[:limit]


def _sum(numbers: Sequence[int | None]) -> int | None:
    """None where one of them is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
