"""The embedded store: Qdrant Edge, in this process, for one machine.

What was measured and shapes this module (qdrant-edge-py 0.9.0, 384 dimensions, 2 cores): every call holds
the interpreter lock, so all calls are kept small, and `optimize`, which takes 7 s for 20,000 points, runs in
another process on a copy. Below some 50,000 points an exact scan is as fast as the graph index and misses
nothing (54,000 points scanned: 19 ms), so only larger stores get one. Acknowledged writes are in the
write-ahead log and survive kill -9; `flush` makes them survive a power loss.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import qdrant_edge as edge

from pharos_embedder.bm25 import SparseVector
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


def edge_store(folder: Path, *, dimensions: int) -> GenerationStore:
    """A store in *folder*, and folders beside it, for text vectors of *dimensions*; `open` it before use."""
    return GenerationStore(edge_volumes(folder, dimensions=dimensions), dimensions=dimensions)


def edge_volumes(folder: Path, *, dimensions: int) -> Volumes:
    """Its engine: the first volume is in *folder*, and one for another length *n* in `folder-n` beside it."""

    def find() -> tuple[EdgeEngine, list[EdgeEngine]]:
        lengths: dict[int, Path] = {}
        for place in (folder, *sorted(folder.parent.glob(f"{folder.name}-*"))):
            if (place / MANIFEST).exists():
                lengths.setdefault(_read_manifest(place).text_dimensions, place)
        beside = folder.with_name(f"{folder.name}-{dimensions}") if lengths else folder
        current = EdgeEngine(lengths.pop(dimensions, beside), dimensions=dimensions)
        others = [EdgeEngine(place, dimensions=length) for length, place in sorted(lengths.items())]
        others = [engine for engine in others if not engine.remove_if_empty()]
        if len(others) >= VOLUMES_MAX:
            raise TooManyVolumes(str(folder))
        return current, others

    return Volumes(find)


class EdgeEngine:
    """One shard in one folder, opened by one process at a time.

    Two locks. `_writing` is held by a write, and by an optimization for as long as it takes; `_shard_lock` by
    any use of the shard, which is short, and by the swap that ends an optimization. So reads go on meanwhile.
    """

    def __init__(self, folder: Path, *, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._lock_file: int | None = None
        self._shard: Any = None  # edge.EdgeShard; its stubs are incomplete
        self._manifest: Manifest | None = None
        self._writing = threading.Lock()
        self._shard_lock = threading.RLock()
        self._writers_waiting = 0
        self._waiting_lock = threading.Lock()
        self._writes = 0

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
                self._writes = self._shard.info().points_count  # written who knows when: optimize may look
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
        with self._write():
            if self._shard is not None:
                self._shard.flush()
                self._shard.close()
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
            _opened(shard).update(edge.UpdateOperation.update_vectors(named))
            self._writes += len(ids)

    def set_until(self, ids: Sequence[str], generation: int) -> None:
        self._update(edge.UpdateOperation.set_payload(list(ids), {"until": generation}), len(ids))

    def delete(self, ids: Sequence[str]) -> None:
        self._update(edge.UpdateOperation.delete_points(list(ids)), len(ids))

    def _update(self, operation: Any, points: int) -> None:
        with self._write() as shard:
            _opened(shard).update(operation)
            self._writes += points

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
        """The shard, perhaps closed, for one writer; an optimization that is under way gives up for it."""
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

        False where little was written since the last time, where a write came in between, where the disk has
        no room for the copy, or where it took more than OPTIMIZE_SECONDS_MAX: the shard is then as it was.
        """
        with self._writing:
            with self._shard_lock:
                shard = _opened(self._shard)
                points = shard.info().points_count
                if not worth_optimizing(points, self._writes):
                    return False
                shard.flush()
            assert self._manifest is not None
            current = self._folder / self._manifest.shard
            target = self._folder / f"shard-{int(current.name.removeprefix('shard-')) + 1}"
            try:
                if not (self._room_for(current) and self._copy(current, target) and self._optimized(target)):
                    return False
                manifest = msgspec.structs.replace(self._manifest, shard=target.name)
                with self._shard_lock:
                    replacement = edge.EdgeShard.load(str(target))
                    shard.close()
                    _write_manifest(self._folder, manifest)
                    self._shard, self._manifest, self._writes = replacement, manifest, 0
                target = current
                return True
            finally:
                shutil.rmtree(target, ignore_errors=True)  # the old shard after success, else the copy

    def _room_for(self, shard: Path) -> bool:
        size = sum(file.stat().st_blocks * 512 for file in shard.rglob("*") if file.is_file())
        return shutil.disk_usage(self._folder).free > DISK_FREE_BYTES_MIN + 3 * size

    def _copy(self, source: Path, target: Path) -> bool:
        shutil.rmtree(target, ignore_errors=True)
        for file in source.rglob("*"):
            if self._writers_waiting:
                return False
            if file.is_file():
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                _copy_sparse(file, copy)
            else:
                (target / file.relative_to(source)).mkdir(parents=True, exist_ok=True)
        return True

    def _optimized(self, target: Path) -> bool:
        child = subprocess.Popen(
            [sys.executable, "-m", "pharos_embedder.edge_store", str(target), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        waited = 0.0
        try:
            while waited < OPTIMIZE_SECONDS_MAX and not self._writers_waiting:
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(_POLL_SECONDS) == 0
                waited += _POLL_SECONDS
            return False
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()


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
