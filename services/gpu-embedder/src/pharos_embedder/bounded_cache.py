"""Bytes by key on the disk of a machine, within a limit: what it would cost time to make again.

One LMDB file, shared by the machine's processes, with two segments. Writes go to the young one. When it is
full the old one is emptied and the two change places; what is still asked for is copied from the old one to
the young one. So the file never exceeds its limit, and what was used lately survives. A lost cache costs
time only: whatever goes wrong here is a warning and a miss, never an error.

Until a job has published, the cache remembers what is only here because of it, so that nothing is left on
this disk of a job that was cancelled. From then on it remembers for which dataset, so that nothing is left of
one that is deleted, of none of its commits. What it can remember is bounded as well; beyond that the oldest
jobs' entries go with what is remembered of them, so that nothing stays of which nobody knows whose it is.
"""

import fcntl
import hashlib
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import lmdb

LIMIT_BYTES_MIN: Final = 4 << 20
"""A smaller cache would hold less than one batch a segment."""

_SEGMENT_SHARE: Final = 0.35
"""Of the limit, for each of two segments; the rest is for pages that a transaction copies before it frees
them.
"""

_READ_KEYS: Final = (
    4_096  # keys looked up in one read transaction: a long one would keep freed pages from reuse
)
_WRITE_SHARE: Final = 64  # a write transaction stores at most limit / this
_REMEMBERED_SHARE: Final = 32
"""The keys by job take at most limit / this, and so do those by dataset: as much as those of vectors of 384
numbers that fill both segments.
"""

_OLDEST_SHARE: Final = 8  # of the records of a full table, this part goes at once
_VALUE_SHARE: Final = 64  # a value of more than limit / this is not kept: it would drive out all else
_CHECKSUM_BYTES: Final = 4
_KEY_BYTES: Final = 32

_STATE: Final = b"state"
_JOBS: Final = b"jobs"
_OWNERS: Final = b"owners"
_YOUNG: Final = b"young"
_SEGMENTS: Final = (b"segment-0", b"segment-1")
_STATE_AT, _JOBS_AT, _OWNERS_AT = 2, 3, 4
"""Where these are among all tables."""

Warn = Callable[[str], None]


def label_of(name: str, tenant: str) -> str:
    """What the cache calls the item that is held by *name*; labels are in the order of their jobs."""
    return f"{name}.{tenant}"


def parse_label(label: str) -> tuple[str, str]:
    """(name, tenant), from what ``label_of`` made. The part of the name before a dot is its job's id."""
    name, _, tenant = label.rpartition(".")
    return name, tenant


def owner_of(tenant: str, project: str, dataset: str) -> str:
    """What the cache calls a dataset."""
    return key_of("dataset", tenant, project, dataset).hex()


def key_of(*parts: str) -> bytes:
    """The key of what *parts* decide, (32,)."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


class BoundedCache:
    """The cache at *path*, a folder of its own. Thread-safe; open it once a process, and not before a fork.

    *limit_bytes* bounds the data file. A database that cannot be used is moved to `<path>.broken` (one is
    kept) and a new one is begun. `warn` is told about that and about everything else that went wrong.
    """

    name: ClassVar[str]
    """What warnings call it."""

    without: ClassVar[str]
    """What its loss costs, as a sentence."""

    def __init__(self, path: Path, *, limit_bytes: int, warn: Warn) -> None:
        if limit_bytes < LIMIT_BYTES_MIN:
            raise ValueError(f"limit_bytes is at least {LIMIT_BYTES_MIN}")
        self._path = path
        # LMDB asks for whole pages; 64 KiB suits every page size in use.
        self._limit_bytes = limit_bytes // 65_536 * 65_536
        self._segment_bytes = int(self._limit_bytes * _SEGMENT_SHARE)
        self._warn = warn
        self._lock = threading.Lock()
        self._environment: Any = None
        self._segments: tuple[Any, ...] = ()
        self._inode = 0
        with self._lock:
            self._guarded("open", self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a closed cache misses everything and stores nothing."""
        with self._lock:
            self._close()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values that are there, by key."""
        found: dict[bytes, bytes] = {}
        with self._lock:
            for part in _parts(keys, _READ_KEYS):
                values, old = self._guarded("read", partial(self._read, part)) or ({}, [])
                for key, value in values.items():
                    body = _checked(value)
                    if body is not None:  # a value that fails its checksum is a miss, and is written again
                        found[key] = body
                promoted = {key: values[key] for key in old if key in found}
                if promoted:
                    self._guarded("write", partial(self._write, promoted))
        return found

    def write(self, values: Mapping[bytes, bytes], *, job: str = "") -> None:
        """Stores *values*, but for one that takes a good part of the limit by itself. After a crash each is
        there whole or not at all.

        *job*: for whom, until `keep` or `forget` is called for that job.
        """
        most = self._limit_bytes // _VALUE_SHARE
        sealed = {key: _sealed(value) for key, value in values.items() if len(value) <= most}
        with self._lock:
            self._guarded("write", lambda: self._write(sealed, job))

    def keep(self, job: str, owner: str = "") -> None:
        """What was stored for *job* is like any other entry from now on, until *owner* is forgotten."""
        with self._lock:
            self._guarded("write", lambda: self._hand_over(job, owner))

    def forget(self, job: str) -> int:
        """Removes what was stored for *job*, though others may use it as well; how many entries."""
        with self._lock:
            return self._guarded("write", lambda: self._let_go(job, _JOBS_AT, self._drop)) or 0

    def forget_owner(self, owner: str) -> int:
        """Removes what jobs stored that were kept for *owner*, as far as it is known; how many entries."""
        with self._lock:
            return self._guarded("write", lambda: self._let_go(owner, _OWNERS_AT, self._drop)) or 0

    def remove(self, keys: Sequence[bytes]) -> None:
        """Removes these, though others may use them as well."""
        with self._lock:
            for part in _parts(keys, _READ_KEYS):
                self._guarded("write", partial(self._remove, part))

    def jobs(self) -> list[str]:
        """For whom something is stored that is neither kept nor forgotten."""
        with self._lock:
            return self._guarded("read", self._list_jobs) or []

    def count(self) -> int:
        """Entries in both segments, those that were copied twice; for metrics."""
        with self._lock:
            return self._guarded("read", self._count) or 0

    # Everything below is called with the lock held.

    def _guarded(self, what: str, action: Callable[[], Any]) -> Any:
        """*action*'s value; None, after a warning, when the database or the disk fails it."""
        if self._environment is None and what != "open":
            return None
        try:
            return action()
        except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError) as error:
            self._warn(f"the {self.name} was corrupt and is begun anew ({type(error).__name__})")
            try:
                self._replace()
            except (lmdb.Error, OSError) as second:
                self._give_up(second)
        except (lmdb.Error, OSError) as error:
            if what == "open":
                self._give_up(error)
            else:
                self._warn(f"the {self.name} could not {what} ({type(error).__name__})")
        return None

    def _give_up(self, error: Exception) -> None:
        self._warn(f"the {self.name} cannot be used; {self.without} ({type(error).__name__})")
        self._close()

    def _open(self) -> None:
        with self._exclusive():
            try:
                self._open_environment()
            except (
                lmdb.InvalidError,
                lmdb.CorruptedError,
                lmdb.VersionMismatchError,
                lmdb.PageNotFoundError,
                lmdb.IncompatibleError,
                lmdb.PanicError,
            ) as error:
                self._warn(f"the {self.name} was corrupt and is begun anew ({type(error).__name__})")
                self._close()
                self._move_aside()
                self._open_environment()

    def _replace(self) -> None:
        """Begins anew after an error at run time, unless another process has done so already."""
        self._close()
        with self._exclusive():
            if self._inode_at_path() == self._inode:
                self._move_aside()
            self._open_environment()

    def _open_environment(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o700)  # it may hold what is in private repositories, whatever the umask
        found = self._file_bytes() > 0
        self._environment = lmdb.open(
            str(self._path),
            map_size=self._limit_bytes,
            mode=0o600,
            max_dbs=len(_SEGMENTS) + 3,
            max_readers=512,
            metasync=False,  # one sync a commit: the last commit may be lost with the power, nothing else
            readahead=False,
        )
        with self._environment.begin() as transaction:
            page = transaction.stat()["psize"]
        # LMDB maps the file and trusts it: reading what a truncation took away would end this process. The
        # size is read last: another process may be writing, and what it has committed is in the file.
        needed = (self._environment.info()["last_pgno"] + 1) * page
        size = self._file_bytes()
        if found and needed > size:
            raise lmdb.CorruptedError("the file is shorter than it says")
        if size > self._limit_bytes:  # an installation that lowered its limit: it cannot shrink in place
            raise lmdb.InvalidError("the file is over its limit")
        self._segments = tuple(
            self._environment.open_db(name) for name in (*_SEGMENTS, _STATE, _JOBS, _OWNERS)
        )
        self._environment.reader_check()  # slots of processes that were killed
        self._inode = self._inode_at_path()

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment = None
        self._segments = ()

    def _move_aside(self) -> None:
        aside = self._path.with_name(self._path.name + ".broken")
        shutil.rmtree(aside, ignore_errors=True)
        self._path.rename(aside)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time opens or replaces the database. The system drops the lock of a dead one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(self._path.name + ".lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def _inode_at_path(self) -> int:
        try:
            return (self._path / "data.mdb").stat().st_ino
        except OSError:
            return 0

    def _file_bytes(self) -> int:
        try:
            return (self._path / "data.mdb").stat().st_size
        except OSError:
            return 0

    def _young(self, transaction: Any) -> int:
        return 1 if transaction.get(_YOUNG, db=self._segments[_STATE_AT]) == b"1" else 0

    def _read(self, keys: Sequence[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
        """The values that are there, and which keys were in the old segment only."""
        values: dict[bytes, bytes] = {}
        old: list[bytes] = []
        with self._environment.begin() as transaction:
            young = self._young(transaction)
            for key in keys:
                value = transaction.get(key, db=self._segments[young])
                if value is None:
                    value = transaction.get(key, db=self._segments[1 - young])
                    if value is not None:
                        old.append(key)
                if value is not None:
                    values[key] = value
        return values, old

    def _write(self, values: Mapping[bytes, bytes], job: str = "") -> None:
        if not values:
            return
        largest = _KEY_BYTES + max(len(value) for value in values.values())
        # A random insert copies up to one page of 4 KiB, whatever the size of the value.
        size = max(1, self._limit_bytes // _WRITE_SHARE // (largest + 4_096))
        for part in _parts(sorted(values), size):
            # Twice an entry's size, for a page is two thirds full on average.
            self._make_room(2 * sum(_KEY_BYTES + len(values[key]) for key in part))
            with self._environment.begin(write=True) as transaction:
                segment = self._segments[self._young(transaction)]
                if job:  # in the same transaction: no entry is ever without its job
                    transaction.put(_record(job, part[0]), b"".join(part), db=self._segments[_JOBS_AT])
                for key in part:
                    transaction.put(key, values[key], db=segment)
            if job:
                self._bound(_JOBS_AT, lambda record: record)

    def _list_jobs(self) -> list[str]:
        jobs = self._segments[_JOBS_AT]
        with self._environment.begin() as transaction, transaction.cursor(db=jobs) as cursor:
            records = cursor.iternext(keys=True, values=False)
            return list(dict.fromkeys(record.partition(b"\0")[0].decode() for record in records))

    def _remove(self, keys: Sequence[bytes]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key in keys:
                for segment in self._segments[:2]:
                    transaction.delete(key, db=segment)

    def _hand_over(self, job: str, owner: str) -> None:
        def note(transaction: Any, keys: bytes) -> int:
            # Jobs may begin with the same key.
            record = _record(owner, keys[:_KEY_BYTES] + job.encode())  # see `_job_in`
            transaction.put(record, keys, db=self._segments[_OWNERS_AT])
            return 0

        self._let_go(job, _JOBS_AT, note if owner else _nothing)
        self._bound(_OWNERS_AT, _job_in)

    def _drop(self, transaction: Any, keys: bytes) -> int:
        removed = 0
        for at in range(0, len(keys), _KEY_BYTES):
            key = keys[at : at + _KEY_BYTES]
            gone = [transaction.delete(key, db=segment) for segment in self._segments[:2]]
            removed += any(gone)
        return removed

    def _let_go(self, name: str, place: int, action: Callable[[Any, bytes], int]) -> int:
        """Remember no more what stands under *name* in the table *place*, after *action* on the keys of each
        write; the sum of what it returns.

        A transaction for each write that there was: one for all could need more pages than are free.
        """
        prefix = _record(name, b"")
        total = 0
        while True:
            with (
                self._environment.begin(write=True) as transaction,
                transaction.cursor(db=self._segments[place]) as cursor,
            ):
                if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
                    return total
                keys = cursor.value()
                cursor.delete()
                total += action(transaction, keys)

    def _bound(self, place: int, age: Callable[[bytes], bytes]) -> None:
        """Within its share of the limit, the table *place*: the records that are first by their *age* go, and
        with them the entries that they name, of which nobody would know any more whose they are.

        A transaction for each record, as in `_let_go`.
        """
        while True:
            with self._environment.begin() as transaction:
                if self._used_bytes(transaction, place) <= self._limit_bytes // _REMEMBERED_SHARE:
                    return
                records = int(transaction.stat(self._segments[place])["entries"])
                with transaction.cursor(db=self._segments[place]) as cursor:
                    # Copies: what the cursor gives is valid while its transaction lasts.
                    names = map(bytes, cursor.iternext(keys=True, values=False))
                    oldest = nsmallest(1 + records // _OLDEST_SHARE, names, key=age)
            for record in oldest:
                with self._environment.begin(write=True) as transaction:
                    keys = transaction.pop(record, db=self._segments[place])
                    if keys is not None:  # another process may have been faster
                        self._drop(transaction, keys)

    def _make_room(self, more_bytes: int) -> None:
        """Empties the old segment and makes it the young one, when the young one has no room for
        *more_bytes*.

        In a transaction of its own: LMDB reuses freed pages only after the commit.
        """
        with self._environment.begin(write=True) as transaction:
            young = self._young(transaction)
            if self._used_bytes(transaction, young) + more_bytes <= self._segment_bytes:
                return
            transaction.drop(self._segments[1 - young], delete=False)
            transaction.put(_YOUNG, b"0" if young else b"1", db=self._segments[_STATE_AT])

    def _used_bytes(self, transaction: Any, segment: int) -> int:
        pages = transaction.stat(self._segments[segment])
        return int(pages["psize"] * (pages["branch_pages"] + pages["leaf_pages"] + pages["overflow_pages"]))

    def _count(self) -> int:
        with self._environment.begin() as transaction:
            return sum(int(transaction.stat(segment)["entries"]) for segment in self._segments[:2])


def _nothing(_transaction: Any, _keys: bytes) -> int:
    return 0


def _record(job: str, first: bytes) -> bytes:
    """Where the keys of one write are; those of a job lie together, and jobs in the order of their ids."""
    return job.encode() + b"\0" + first


def _job_in(record: bytes) -> bytes:
    """The job of a record of the keys by dataset; jobs are in the order of their ids."""
    _, _, rest = record.partition(b"\0")
    return rest[_KEY_BYTES:]


def _sealed(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") + body


def _checked(value: bytes) -> bytes | None:
    body = value[_CHECKSUM_BYTES:]
    return body if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") == value[:_CHECKSUM_BYTES] else None


def _parts(keys: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    remaining = iter(keys)
    while part := list(islice(remaining, size)):
        yield part
