"""The embedded store: Qdrant Edge, in this process, for one machine.

What was measured and shapes this module (qdrant-edge-py 0.9.0, 384 dimensions, 2 cores): every call holds
the interpreter lock, so all calls are kept small, and `optimize`, which takes 7 s for 20,000 points, runs in
another process on a copy, while writes go on and are repeated there. Below some 50,000 points an exact scan
is as fast as the graph index and misses nothing (54,000 points scanned: 19 ms), so only larger stores get
one. Acknowledged writes are in the write-ahead log and survive kill -9; `flush` makes them survive a power
loss.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import qdrant_edge as edge

from pharos_embedder.bm25 import SparseVector, sorted_vector
from pharos_embedder.generations import GenerationStore
from pharos_embedder.vectors import (
    ALIVE,
    STRUCTURE_DIMENSIONS,
    VALUES_MAX,
    AllOf,
    AnyOf,
    Condition,
    DimensionMismatch,
    Floats,
    Hit,
    Ids,
    Lacks,
    Match,
    Payload,
    Point,
    PointsMissing,
    Range,
    StoreClosed,
    StoreError,
    StoreFacts,
    StoreFull,
    StoreLocked,
    VectorName,
    from_stored,
    to_stored,
)
from pharos_embedder.volumes import VOLUMES_MAX, TooManyVolumes, Volumes

FORMAT: Final = 1
MANIFEST: Final = "index.json"
EXACT_POINTS_MAX: Final = 50_000  # above, `optimize` builds the graph index
SEARCH_THREADS: Final = 2
DISK_FREE_BYTES_MIN: Final = 256 << 20
OPTIMIZE_SECONDS_MAX: Final = 1_800.0
OPTIMIZE_WRITES_MIN: Final = 1_000  # fewer changed points since the last time are not worth a copy
REPEATED_POINTS_MAX: Final = 10_000  # written meanwhile and kept in memory, some 50 MB; more end it
SWAP_POINTS_MAX: Final = 256  # that writers wait for at the end
CATCH_UP_ROUNDS_MAX: Final = 8
GIVEN_WAY_MAX: Final = 3  # copies in a row that a writer may stop
COPY_SECONDS_MAX: Final = 10.0  # that a writer waits for one that it may not stop
REST_TIMES: Final = 4  # as long as an optimization took that came to nothing; then the next
_POLL_SECONDS: Final = 0.05

_KEYWORDS: Final = (
    "key", "kind", "path", "directories", "language", "repository", "symbol_kind", "job", "encoder",
    "vector",
)  # fmt: skip
_INTEGERS: Final = ("from", "until")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder holds, written whole or not at all."""

    format: int
    text_dimensions: int
    structure_dimensions: int
    shard: str  # name of the folder with the live shard; any other is left over from an optimization
    written: int | None = None  # points since the last optimization; None while open, or after a crash
    optimized_at: float | None = None  # Unix time


def edge_store(folder: Path, *, dimensions: int) -> GenerationStore:
    """A store in *folder*, and folders beside it, for text vectors of *dimensions*; `open` it before use."""
    return GenerationStore(edge_volumes(folder, dimensions=dimensions), dimensions=dimensions)


def edge_volumes(folder: Path, *, dimensions: int) -> Volumes:
    """Its engine: the first volume is in *folder*, and one for another length *n* in `folder-n` beside it."""

    def find() -> tuple[EdgeEngine, list[EdgeEngine]]:
        lengths = _volumes(folder)
        beside = folder.with_name(f"{folder.name}-{dimensions}") if lengths else folder
        current = EdgeEngine(lengths.pop(dimensions, beside), dimensions=dimensions)
        others = [EdgeEngine(place, dimensions=length) for length, place in sorted(lengths.items())]
        others = [engine for engine in others if not engine.remove_if_empty()]
        if len(others) >= VOLUMES_MAX:
            raise TooManyVolumes(str(folder))
        return current, others

    def make(length: int) -> EdgeEngine:
        return EdgeEngine(folder.with_name(f"{folder.name}-{length}"), dimensions=length)

    return Volumes(find, make, place=str(folder))


def stored_dimensions(folder: Path) -> int | None:
    """The length of the text vectors of the index in *folder*; None where there is none.

    Of several volumes that of the first; the one that is in use is known to whoever has the index open.
    """
    return next(iter(_volumes(folder)), None)


def _volumes(folder: Path) -> dict[int, Path]:
    """The folders of the volumes by the length of their vectors, that in *folder* first.

    A folder beside it whose name does not end in that length is none: somebody put an old index aside.
    """
    found: dict[int, Path] = {}
    if (folder / MANIFEST).exists():
        found[_read_manifest(folder).text_dimensions] = folder
    for place in sorted(folder.parent.glob(f"{folder.name}-*")):
        length = place.name.removeprefix(f"{folder.name}-")
        if not length.isdecimal() or not (place / MANIFEST).exists():
            continue
        if _read_manifest(place).text_dimensions == int(length):
            found.setdefault(int(length), place)
    return found


class EdgeEngine:
    """One shard in one folder, opened by one process at a time.

    Three locks. `_optimizing` is held by an optimization for as long as it takes. `_writing` is held by a
    write, and by an optimization while it copies the shard and while it puts the copy in its place;
    `_shard_lock` by any use of the shard, which is short, and by that swap. So reads go on meanwhile, and
    writes but for these moments.
    """

    def __init__(self, folder: Path, *, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._lock_file: int | None = None
        self._shard: Any = None  # edge.EdgeShard; its stubs are incomplete
        self._manifest: Manifest | None = None
        self._optimizing = threading.Lock()
        self._writing = threading.Lock()
        self._shard_lock = threading.RLock()
        self._writers_waiting = 0
        self._waiting_lock = threading.Lock()
        self._writes = 0
        self._meanwhile: _Meanwhile | None = None  # while a copy is optimized; under `_writing`
        self._given_way = 0
        self._rests_until = 0.0
        self._closing = False

    @property
    def dimensions(self) -> int:
        return self._dimensions

    # Opening and closing

    def open(self) -> None:
        if self._shard is not None:
            raise StoreError(f"The index at {self._folder} is already open in this process")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(self._folder)
        try:
            with self._told():
                self._manifest = self._load_or_create()
                self._shard = edge.EdgeShard.load(str(self._folder / self._manifest.shard))
                _index_payload(self._shard)  # an earlier release knew fewer fields
                written = self._manifest.written
                # After a crash it was written who knows when: optimize may look.
                self._writes = self._shard.info().points_count if written is None else written
                if written is not None:
                    self._tell(msgspec.structs.replace(self._manifest, written=None))
                self._closing = False
        except BaseException:
            self._release()
            raise

    def _load_or_create(self) -> Manifest:
        if (self._folder / MANIFEST).exists():
            manifest = _read_manifest(self._folder)
            if manifest.format != FORMAT:
                raise StoreError(
                    f"The index at {self._folder} has format {manifest.format}; this release reads {FORMAT}. "
                    "Start with an empty folder and index the datasets again."
                )
            for stored, wanted in (
                (manifest.text_dimensions, self._dimensions),
                (manifest.structure_dimensions, STRUCTURE_DIMENSIONS),
            ):
                if stored != wanted:
                    raise DimensionMismatch(str(self._folder), stored, wanted)
            for leftover in self._folder.glob("shard-*"):
                if leftover.name != manifest.shard:
                    shutil.rmtree(leftover, ignore_errors=True)
            return manifest
        # No manifest: nothing was ever acknowledged here, so a half-made shard may go.
        for leftover in self._folder.glob("shard-*"):
            shutil.rmtree(leftover)
        manifest = Manifest(
            format=FORMAT,
            text_dimensions=self._dimensions,
            structure_dimensions=STRUCTURE_DIMENSIONS,
            shard="shard-0",
        )
        shard = edge.EdgeShard.create(str(self._folder / manifest.shard), _config(self._dimensions))
        _index_payload(shard)
        shard.flush()
        shard.close()
        _write_manifest(self._folder, manifest)
        return manifest

    def close(self) -> None:
        self._closing = True  # which ends an optimization
        with self._optimizing, self._write():
            if self._shard is not None:
                self._shard.flush()
                self._shard.close()
                assert self._manifest is not None
                self._tell(msgspec.structs.replace(self._manifest, written=self._writes))
            self._release()

    def remove_if_empty(self) -> bool:
        """Remove the folder, of a closed engine, where there is not one point in it; whether it was."""
        self.open()
        try:
            empty = self.count(Range(field="from", above=0)) == 0
        finally:
            self.close()
        if empty:
            (self._folder / MANIFEST).unlink()  # first: without it, the rest is nothing
            shutil.rmtree(self._folder)
        return empty

    def _tell(self, manifest: Manifest) -> None:
        _write_manifest(self._folder, manifest)
        self._manifest = manifest

    def _release(self) -> None:
        self._shard = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def flush(self) -> None:
        with self._write() as shard:
            _opened(shard).flush()

    # Writing

    def put(self, points: Sequence[Point]) -> None:
        self._check_room()
        retired = edge.Filter(must=[edge.FieldCondition("until", range=edge.RangeFloat(lt=ALIVE))])
        self._update(
            edge.UpdateOperation.upsert_points([_to_edge(point) for point in points], condition=retired),
            len(points),
        )

    def _check_room(self) -> None:
        """StoreFull in time: the engine maps its files, so a full disk would kill the process."""
        free = shutil.disk_usage(self._folder).free
        if free < DISK_FREE_BYTES_MIN:
            raise StoreFull(f"The disk of {self._folder} has {free >> 20} MiB left; nothing more is stored")

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        self._check_room()
        with self._write() as shard:
            known = {str(record.id) for record in _opened(shard).retrieve(list(ids), False, False)}
            if missing := len(set(ids) - known):
                raise PointsMissing(missing)
            named = [
                edge.PointVectors(point, {"text": vector.tolist()})
                for point, vector in zip(ids, vectors, strict=True)
            ]
            self._apply(shard, edge.UpdateOperation.update_vectors(named), len(ids))

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        which = _filter(AllOf((Ids(tuple(ids)), condition)))
        self._update(edge.UpdateOperation.set_payload_by_filter(which, {"until": generation}), len(ids))

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        which = _filter(AllOf((Ids(tuple(ids)), condition)))
        self._update(edge.UpdateOperation.delete_points_by_filter(which), len(ids))

    def _update(self, operation: Any, points: int) -> None:
        with self._write() as shard:
            self._apply(shard, operation, points)

    def _apply(self, shard: Any, operation: Any, points: int) -> None:
        _opened(shard).update(operation)
        self._writes += points
        if self._meanwhile is not None:
            self._meanwhile.add(operation, points)

    # Reading

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        request = edge.ScrollRequest(
            offset=after, limit=limit, filter=_filter(condition), with_payload=False, with_vector=False
        )
        with self._read() as shard:
            records, following = shard.scroll(request)
        return [str(record.id) for record in records], None if following is None else str(following)

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        request = edge.ScrollRequest(limit=limit, filter=_filter(condition), with_payload=True)
        with self._read() as shard:
            records, _ = shard.scroll(request)
            return [from_stored(record.payload) for record in records]

    def points(
        self, condition: Condition, *, after: str | None, limit: int
    ) -> tuple[list[Point], str | None]:
        request = edge.ScrollRequest(
            offset=after, limit=limit, filter=_filter(condition), with_payload=True, with_vector=True
        )
        with self._read() as shard:
            records, following = shard.scroll(request)
            found = [_from_edge(record) for record in records]
        return found, None if following is None else str(following)

    def structures(self, condition: Condition, *, limit: int) -> list[Floats]:
        request = edge.ScrollRequest(
            limit=limit, filter=_filter(condition), with_payload=False, with_vector=["structure"]
        )
        with self._read() as shard:
            records, _ = shard.scroll(request)
        vectors = [record.vector.get("structure") for record in records if record.vector]
        return [np.asarray(vector, dtype=np.float32) for vector in vectors if vector is not None]

    def texts(self, names: Sequence[str]) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        wanted = list(dict.fromkeys(names))
        while wanted:
            request = edge.ScrollRequest(
                limit=len(wanted),
                filter=edge.Filter(
                    must=[
                        edge.FieldCondition("vector", match=edge.MatchAny(wanted)),
                        edge.HasVectorCondition("text"),
                    ]
                ),
                with_payload=["vector"],
                with_vector=["text"],
            )
            with self._read() as shard:
                records, following = shard.scroll(request)
            for record in records:
                found[record.payload["vector"]] = np.asarray(record.vector["text"], dtype=np.float32)
            # Many points may have one vector: those that were hidden behind them are asked for again.
            wanted = [] if following is None else [name for name in wanted if name not in found]
        return found

    def facts(self) -> StoreFacts:
        with self._read() as shard:
            assert self._manifest is not None
            return StoreFacts(
                points=shard.info().points_count,
                bytes_on_disk=_bytes_on_disk(self._folder / self._manifest.shard),
                written=self._writes,
                optimized_at=self._manifest.optimized_at,
            )

    def count(self, condition: Condition) -> int:
        with self._read() as shard:
            return int(shard.count(edge.CountRequest(exact=True, filter=_filter(condition))))

    def counts(self, field: str, condition: Condition) -> dict[str | int, int]:
        request = edge.FacetRequest(field, limit=VALUES_MAX, exact=True, filter=_filter(condition))
        with self._read() as shard:
            return {hit.value: hit.count for hit in shard.facet(request)}

    def nearest(
        self, name: VectorName, vector: Floats | SparseVector, condition: Condition, limit: int
    ) -> list[Hit]:
        plain = (
            edge.SparseVector(list(vector.indices), list(vector.values))
            if isinstance(vector, SparseVector)
            else vector.tolist()
        )
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(plain, using=name),
            filter=_filter(condition),
            with_payload=True,
        )
        with self._read() as shard:
            points = shard.query(request)
        return [
            Hit(id=str(point.id), score=point.score, payload=from_stored(point.payload)) for point in points
        ]

    # Locks

    @contextmanager
    def _read(self) -> Iterator[Any]:
        with self._shard_lock, self._told():
            yield _opened(self._shard)

    @contextmanager
    def _write(self) -> Iterator[Any]:
        """The shard, perhaps closed, for one writer."""
        with self._waiting_lock:
            self._writers_waiting += 1
        try:
            self._writing.acquire()
        finally:
            with self._waiting_lock:
                self._writers_waiting -= 1
        try:
            with self._shard_lock, self._told():
                yield self._shard
        finally:
            self._writing.release()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The engine raises bare Exceptions; ours say which index it was."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise StoreError(f"The index at {self._folder} failed: {error}") from error

    # Optimizing

    def optimize(self) -> bool:
        """Optimize a copy in another process, then put it in the place of the shard.

        What is written meanwhile is written to the copy as well, before the swap. False, and the shard is as
        it was, where little was written since the last time, where another optimization is under way, where
        the disk has no room for the copy, where a writer came while it was made, where more than
        REPEATED_POINTS_MAX were written meanwhile, or where it took more than OPTIMIZE_SECONDS_MAX. After one
        that was begun and came to nothing there is none for REST_TIMES as long.
        """
        if not self._optimizing.acquire(blocking=False):
            return False
        try:
            return self._optimize()
        finally:
            self._optimizing.release()

    def _optimize(self) -> bool:
        if (began := time.monotonic()) < self._rests_until:
            return False
        leftover: Path | None = None
        try:
            with self._writing:
                with self._shard_lock:
                    shard = _opened(self._shard)
                    if not worth_optimizing(shard.info().points_count, self._writes):
                        return False
                    shard.flush()
                assert self._manifest is not None
                current = self._folder / self._manifest.shard
                leftover = self._folder / f"shard-{int(current.name.removeprefix('shard-')) + 1}"
                if not (self._room_for(current) and self._copied(current, leftover)):
                    return False
                meanwhile = self._meanwhile = _Meanwhile()
            if not (self._optimized(leftover, meanwhile) and self._swapped(leftover, meanwhile)):
                return False
            leftover = current
            return True
        finally:
            with self._writing:
                if self._meanwhile is not None and leftover != current:
                    self._rests_until = time.monotonic() + REST_TIMES * (time.monotonic() - began)
                self._meanwhile = None
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)

    def _swapped(self, target: Path, meanwhile: _Meanwhile) -> bool:
        """Put the shard *target* in the place of the live one, once it has what was written meanwhile."""
        with self._told():
            replacement = edge.EdgeShard.load(str(target))
            try:
                for _ in range(CATCH_UP_ROUNDS_MAX):
                    with self._writing:
                        if meanwhile.points <= SWAP_POINTS_MAX:
                            break
                        operations = meanwhile.taken()
                    for operation in operations:
                        replacement.update(operation)
                with self._writing:
                    if meanwhile.too_many or self._closing:
                        return False
                    for operation in meanwhile.taken():
                        replacement.update(operation)
                    replacement.flush()
                    assert self._manifest is not None
                    with self._shard_lock:
                        self._tell(
                            msgspec.structs.replace(
                                self._manifest, shard=target.name, optimized_at=round(time.time(), 3)
                            )
                        )
                        self._shard, replacement = replacement, self._shard
                        self._writes = meanwhile.total
                return True
            finally:
                replacement.close()

    def _room_for(self, shard: Path) -> bool:
        return shutil.disk_usage(self._folder).free > DISK_FREE_BYTES_MIN + 3 * _bytes_on_disk(shard)

    def _copied(self, source: Path, target: Path) -> bool:
        """Whether *target* is a copy now. A writer ends this, but not each time: see COPY_SECONDS_MAX."""
        insists = self._given_way >= GIVEN_WAY_MAX
        ends = time.monotonic() + (COPY_SECONDS_MAX if insists else 0)
        shutil.rmtree(target, ignore_errors=True)
        for file in source.rglob("*"):
            if self._closing or (self._writers_waiting and time.monotonic() >= ends):
                self._given_way = 0 if insists else self._given_way + 1
                return False
            if file.is_file():
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                _copy_sparse(file, copy)
            else:
                (target / file.relative_to(source)).mkdir(parents=True, exist_ok=True)
        self._given_way = 0
        return True

    def _optimized(self, target: Path, meanwhile: _Meanwhile) -> bool:
        child = subprocess.Popen(
            [sys.executable, "-m", "pharos_embedder.edge_store", str(target), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        ends = time.monotonic() + OPTIMIZE_SECONDS_MAX
        try:
            while time.monotonic() < ends and not self._closing and not meanwhile.too_many:
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(_POLL_SECONDS) == 0
            return False
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()


class _Meanwhile:
    """What is written while a copy of the shard is optimized, to be repeated on the copy, in order."""

    def __init__(self) -> None:
        self._operations: list[Any] = []
        self.points = 0  # that are still to be repeated
        self.total = 0
        self.too_many = False

    def add(self, operation: Any, points: int) -> None:
        if self.too_many:
            return
        self._operations.append(operation)
        self.points += points
        self.total += points
        if self.points > REPEATED_POINTS_MAX:
            self.too_many = True
            self._operations.clear()

    def taken(self) -> list[Any]:
        """What there is; it is for the caller to repeat now."""
        operations, self._operations, self.points = self._operations, [], 0
        return operations


def worth_optimizing(points: int, written: int) -> bool:
    """Whether *written* points since the last time justify copying a store of *points*."""
    return written >= max(OPTIMIZE_WRITES_MIN, points // 10)


def _opened(shard: Any) -> Any:
    if shard is None:
        raise StoreClosed("the index is not open")
    return shard


def _index_payload(shard: Any) -> None:
    """Index the fields that filters ask for, where that was not done yet."""
    done = shard.info().payload_schema
    for fields, kind in (
        (_KEYWORDS, edge.PayloadSchemaType.Keyword),
        (_INTEGERS, edge.PayloadSchemaType.Integer),
    ):
        for field in fields:
            if field not in done:
                shard.update(edge.UpdateOperation.create_field_index(field, kind))


def _config(dimensions: int) -> Any:
    return edge.EdgeConfig(
        vectors={
            "text": edge.EdgeVectorParams(dimensions, edge.Distance.Cosine),
            "structure": edge.EdgeVectorParams(STRUCTURE_DIMENSIONS, edge.Distance.Cosine),
        },
        sparse_vectors={"code_bm25": edge.EdgeSparseVectorParams()},
        hnsw_config=edge.HnswIndexConfig(
            m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=SEARCH_THREADS
        ),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=EXACT_POINTS_MAX * dimensions * 4 // 1024),
        max_search_threads=SEARCH_THREADS,
    )


def _to_edge(point: Point) -> Any:
    vectors: dict[str, Any] = {}
    if point.code_bm25 is not None and point.code_bm25.indices:
        vectors["code_bm25"] = edge.SparseVector(list(point.code_bm25.indices), list(point.code_bm25.values))
    if point.text_vector is not None:
        vectors["text"] = point.text_vector.tolist()
    if point.structure is not None:
        vectors["structure"] = point.structure.tolist()
    return edge.Point(point.id, vectors, to_stored(point.payload))


def _from_edge(record: Any) -> Point:
    vectors = record.vector or {}
    words = vectors.get("code_bm25")
    return Point(
        id=str(record.id),
        payload=from_stored(record.payload),
        code_bm25=None if words is None else sorted_vector(words.indices, words.values),
        text_vector=_floats(vectors.get("text")),
        structure=_floats(vectors.get("structure")),
    )


def _floats(vector: Any) -> Floats | None:
    return None if vector is None else np.asarray(vector, dtype=np.float32)


def _filter(condition: Condition) -> Any:
    match condition:
        case AllOf(conditions=parts):
            return edge.Filter(must=[_clause(part) for part in parts])
        case AnyOf(conditions=parts):
            return edge.Filter(should=[_clause(part) for part in parts])
        case Lacks(vector=name):
            return edge.Filter(must_not=[edge.HasVectorCondition(name)])
        case _:
            return edge.Filter(must=[_clause(condition)])


def _clause(condition: Condition) -> Any:
    match condition:
        case Match(field=field, values=(value,)):
            return edge.FieldCondition(field, match=edge.MatchValue(value))
        case Match(field=field, values=values):
            return edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        case Range(field=field, above=above, at_most=at_most):
            return edge.FieldCondition(field, range=edge.RangeFloat(gt=above, lte=at_most))
        case Ids(ids=ids):
            return edge.HasIdCondition(set(ids))
        case _:
            return _filter(condition)


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy a file without its holes: an empty shard has 200 MB of them and half a megabyte of data."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        position = 0
        while position < size:
            try:
                position = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                raise
            end = os.lseek(reader.fileno(), position, os.SEEK_HOLE)
            while position < end:
                data = os.pread(reader.fileno(), min(1 << 20, end - position), position)
                if not data:
                    return
                position += os.pwrite(writer.fileno(), data, position)


def _lock(folder: Path) -> int:
    """Hold the folder for this process. The kernel lets go when the process ends, however it ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise StoreLocked(
            f"The index at {folder} is open in process {holder}. One process at a time may open it: stop "
            "that one, or give this one another PHAROS_HOME, or use a Qdrant server (PHAROS_QDRANT_URL)."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _read_manifest(folder: Path) -> Manifest:
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)


def _bytes_on_disk(folder: Path) -> int:
    """Without the holes of its files."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    temporary = folder / f"{MANIFEST}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(manifest))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _optimize_copy(shard: str, parent: int) -> None:
    """The other process: it ends with its parent, and gives way to queries and the encoder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(1)
    os.nice(10)
    copy = edge.EdgeShard.load(shard)
    copy.optimize()
    copy.flush()
    copy.close()


if __name__ == "__main__":
    _optimize_copy(sys.argv[1], int(sys.argv[2]))
