"""The views in SQL: what is folded in, what is asked for, what is forgotten. Methods block; use threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import product
from types import TracebackType
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, union_all, update
from sqlalchemy.exc import DBAPIError

from pharos_contracts.history.v1 import (
    BatchPage,
    BatchSummary,
    FindJob,
    ItemPage,
    ItemView,
    JobLog,
    JobPage,
    JobView,
    ListBatches,
    ListItems,
    ListJobs,
    LogEntry,
    MeasureSources,
    ReadLog,
    SourceRates,
    SummarizeBatches,
)
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import TERMINAL
from pharos_contracts.message import encode
from pharos_history import batch_views, folding
from pharos_history.database import Database, is_passing
from pharos_history.facts import Fact, Position, Unreadable, place_of, sequence_of
from pharos_history.facts import unreadable as unreadable_fact
from pharos_history.projection import microseconds, moment
from pharos_history.tables import batch_sources, batches, events, items, jobs, position, unreadable

log = structlog.get_logger()

# NATS refuses a message beyond 1 MiB: a page ends early rather than not arrive.
PAGE_BYTES_MAX: Final = 900_000
ITEMS_MAX: Final = 1000
_ROW: Final = 1

_jobs = msgspec.json.Decoder(Job)
_items = msgspec.json.Decoder(ItemView)


class PositionMoved(Exception):
    """The stream was made anew, or the facts do not join on to what has been read."""


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of JOBS. ``created`` differs between two streams of that name."""

    created: str
    first_sequence: int
    last_sequence: int


class ViewStore:
    """The projection. Writers of several processes take turns (see ``database``)."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def open(self, stream: StreamState) -> Position:
        """How far *stream* has been read.

        A stream that was made anew, or that ends before what was read of it (it was restored), begins a
        new epoch: its events are read from the start, and come after all that was read before.
        """
        with self._database.reading() as connection:
            row = _row(connection)
            if row is not None and _is_same(row, stream):
                return Position(row.epoch, row.sequence)
        with self._database.writing() as connection:
            return _open(connection, stream)

    def position(self) -> Position | None:
        """How far JOBS has been read; None before the first ``open``."""
        with self._database.reading() as connection:
            return _position(connection)

    def fold(self, after: Position, facts: Sequence[Fact | Unreadable]) -> Position:
        """Fold *facts*, which are everything that the stream holds from *after* to the last of them.

        Facts and position change in one transaction; what was read before changes nothing. PositionMoved
        when *after* is not a position that this store has passed.
        """
        assert facts, "a batch has at least one fact"
        with self._database.writing() as connection:
            now = _position(connection)
            if now is None or now.epoch != after.epoch or now.sequence < after.sequence:
                raise PositionMoved(f"facts follow {after}, the store is at {now}")
            return self._advance(connection, now, facts)

    def rebuild(self, stream: StreamState) -> Rebuild:
        """Begin to fold *stream* again from its first event, in one transaction.

        Readers see the old views until it ends. Rows whose last event is no longer in the stream stay as
        they are; all others are made again from the events.
        """
        return Rebuild(self._database, stream, self._advance)

    def _advance(self, connection: Connection, now: Position, facts: Sequence[Fact | Unreadable]) -> Position:
        fresh = [fact for fact in facts if fact.sequence > now.sequence]
        if not fresh:
            return now
        try:
            self._fold(connection, now.epoch, fresh)
        except Exception as error:
            if isinstance(error, DBAPIError) and is_passing(error):
                raise
            for fact in fresh:
                self._fold_one(connection, now.epoch, fact)
        connection.execute(update(position).where(position.c.row == _ROW).values(sequence=fresh[-1].sequence))
        return Position(now.epoch, fresh[-1].sequence)

    def _fold(self, connection: Connection, epoch: int, facts: Sequence[Fact | Unreadable]) -> None:
        kept_us, is_sqlite = microseconds(self._clock()), self._database.is_sqlite
        with connection.begin_nested():
            folding.fold(connection, epoch, facts, kept_us=kept_us, is_sqlite=is_sqlite)

    def _fold_one(self, connection: Connection, epoch: int, fact: Fact | Unreadable) -> None:
        """Fold *fact*, or keep it aside when the database will not have it: the others must go on."""
        try:
            self._fold(connection, epoch, [fact])
        except Exception as error:
            if isinstance(error, DBAPIError) and is_passing(error):
                raise
            reason = f"It could not be stored: {type(error).__name__}"
            log.error("event_refused", sequence=fact.sequence, subject=fact.stored.subject, reason=reason)
            self._fold(connection, epoch, [unreadable_fact(fact.stored, reason)])

    def list_jobs(self, query: ListJobs) -> JobPage:
        """A page of jobs, newest first; it may be shorter than asked for: the cursor says if more follow."""
        with self._database.reading() as connection:
            found = connection.execute(_listing(query)).all()
            more = len(found) > query.limit
            chosen = _fitting(found[: query.limit])
            more = more or len(chosen) < min(len(found), query.limit)
            return JobPage(
                jobs=_views(connection, chosen),
                cursor=chosen[-1].first if more else None,
                sequence=_sequence(connection),
            )

    def find_job(self, query: FindJob) -> JobPage:
        """The job, with its items; of several with the same number the newest. An empty page for none."""
        wanted = select(jobs).order_by(jobs.c.first.desc()).limit(1)
        if query.job_id is not None:
            wanted = wanted.where(jobs.c.job_id == query.job_id)
        if query.number is not None:
            wanted = wanted.where(jobs.c.number == query.number)
        if query.tenant is not None:
            wanted = wanted.where(jobs.c.tenant == query.tenant)
        with self._database.reading() as connection:
            views = _views(connection, connection.execute(wanted).all())
            return JobPage(
                jobs=tuple(
                    msgspec.structs.replace(view, items=_items_of(connection, view)) for view in views
                ),
                sequence=_sequence(connection),
            )

    def list_batches(self, query: ListBatches) -> BatchPage:
        """A page of the batches of one user, newest first."""
        with self._database.reading() as connection:
            found, total = batch_views.page_of_batches(connection, query)
            return BatchPage(
                jobs=_views(connection, _fitting(found)), total=total, sequence=_sequence(connection)
            )

    def list_items(self, query: ListItems) -> ItemPage:
        """A page of the items of a batch; none for a batch that there is not."""
        with self._database.reading() as connection:
            found, following = batch_views.items_of_batch(connection, query, bytes_max=PAGE_BYTES_MAX)
            return ItemPage(items=tuple(found), next=following, sequence=_sequence(connection))

    def summarize_batches(self, query: SummarizeBatches) -> BatchSummary:
        """What became of the batches of one user."""
        with self._database.reading() as connection:
            return batch_views.summary_of_batches(connection, query)

    def measure_sources(self, query: MeasureSources) -> SourceRates:
        """How long files took."""
        with self._database.reading() as connection:
            return batch_views.rates_of_sources(connection, query.tenant)

    def read_log(self, query: ReadLog) -> JobLog:
        """What happened to a job, oldest first; no entries for a job that there is not."""
        wanted = (
            select(events)
            .where(events.c.job_id == query.job_id, events.c.place > (query.after or 0))
            .order_by(events.c.place)
            .limit(query.limit + 1)
        )
        if query.tenant is not None:
            wanted = wanted.join(jobs, jobs.c.job_id == events.c.job_id).where(jobs.c.tenant == query.tenant)
        with self._database.reading() as connection:
            found = connection.execute(wanted).all()
        chosen = found[: query.limit]
        return JobLog(
            entries=tuple(
                LogEntry(
                    sequence=sequence_of(row.place), event=row.event, at=moment(row.at_us), text=row.text
                )
                for row in chosen
            ),
            cursor=chosen[-1].place if len(found) > len(chosen) else None,
        )

    def unreadable_count(self) -> int:
        """How many messages of JOBS are kept aside."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(unreadable)).scalar_one())

    def prune(self, before: datetime, limit: int) -> int:
        """Forget at most *limit* jobs that ended before *before*, with all of theirs; how many rows went.

        A job that has not ended is kept, however old. Call it again until it answers 0.
        """
        oldest = microseconds(before)
        ended = [state.value for state in TERMINAL]
        with self._database.writing() as connection:
            old = (
                select(jobs.c.job_id)
                .where(jobs.c.changed_us < oldest, jobs.c.state.in_(ended))
                .order_by(jobs.c.changed_us)
                .limit(limit)
            )
            job_ids = list(connection.execute(old).scalars())
            gone = 0
            for table in (items, events, batch_sources, batches, jobs):
                gone += connection.execute(delete(table).where(table.c.job_id.in_(job_ids))).rowcount
            # Items and log lines of a job that history never saw itself.
            for table, moment_us in ((items, items.c.changed_us), (events, events.c.at_us)):
                orphan = ~select(jobs.c.job_id).where(jobs.c.job_id == table.c.job_id).exists()
                gone += connection.execute(delete(table).where(moment_us < oldest, orphan)).rowcount
            gone += connection.execute(delete(unreadable).where(unreadable.c.kept_us < oldest)).rowcount
            return gone


class Rebuild:
    """A rebuild under way: ``fold`` as often as needed, then leave the block; an exception undoes it all."""

    def __init__(
        self,
        database: Database,
        stream: StreamState,
        advance: Callable[[Connection, Position, Sequence[Fact | Unreadable]], Position],
    ) -> None:
        self._database = database
        self._stream = stream
        self._advance = advance
        self._stack = ExitStack()
        self._connection: Connection | None = None
        self._position = Position(0, 0)

    def __enter__(self) -> Rebuild:
        self._connection = connection = self._stack.enter_context(self._database.writing())
        epoch = _open(connection, self._stream).epoch
        start = place_of(epoch, self._stream.first_sequence)
        for table in (jobs, items):
            connection.execute(update(table).where(table.c.last >= start).values(last=0))
        connection.execute(delete(unreadable).where(unreadable.c.place >= start))
        connection.execute(update(position).where(position.c.row == _ROW).values(sequence=0))
        self._position = Position(epoch, 0)
        return self

    def fold(self, facts: Sequence[Fact | Unreadable]) -> None:
        """Fold the next *facts* of the stream."""
        assert self._connection is not None, "enter the rebuild first"
        self._position = self._advance(self._connection, self._position, facts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _open(connection: Connection, stream: StreamState) -> Position:
    row = _row(connection)
    if row is None:
        connection.execute(
            insert(position).values(row=_ROW, stream_created=stream.created, epoch=0, sequence=0)
        )
        return Position(0, 0)
    if _is_same(row, stream):
        return Position(row.epoch, row.sequence)
    connection.execute(
        update(position)
        .where(position.c.row == _ROW)
        .values(stream_created=stream.created, epoch=row.epoch + 1, sequence=0)
    )
    log.warning("stream_made_anew", epoch=row.epoch + 1, read_before=row.sequence)
    return Position(row.epoch + 1, 0)


def _is_same(row: Row[Any], stream: StreamState) -> bool:
    return bool(row.stream_created == stream.created and stream.last_sequence >= row.sequence)


def _row(connection: Connection) -> Row[Any] | None:
    return connection.execute(select(position).where(position.c.row == _ROW)).first()


def _position(connection: Connection) -> Position | None:
    row = _row(connection)
    return None if row is None else Position(row.epoch, row.sequence)


def _sequence(connection: Connection) -> int:
    now = _position(connection)
    return 0 if now is None else now.sequence


def _listing(query: ListJobs) -> Select[Any]:
    """Each state and kind by its own index, then merged: a rare one is found as fast as a common one."""
    conditions: list[ColumnElement[bool]] = []
    if query.tenant is not None:
        conditions.append(jobs.c.tenant == query.tenant)
    if query.project is not None:
        conditions.append(jobs.c.project == query.project)
    if query.before is not None:
        conditions.append(jobs.c.first < query.before)

    def newest(*more: ColumnElement[bool]) -> Select[Any]:
        return select(jobs).where(*conditions, *more).order_by(jobs.c.first.desc()).limit(query.limit + 1)

    states = [jobs.c.state == state for state in sorted(set(query.states))]
    kinds = [jobs.c.kind == kind.value for kind in sorted(set(query.kinds))]
    if not states and not kinds:
        return newest()
    parts = [
        select(newest(*each).subquery(f"part_{number}"))
        for number, each in enumerate(product(*(choice for choice in (kinds, states) if choice)))
    ]
    merged = union_all(*parts).subquery("merged")
    return select(merged).order_by(merged.c.first.desc()).limit(query.limit + 1)


def _fitting(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """As many of the first *rows* as one answer may carry, and at least one."""
    total = 0
    for count, row in enumerate(rows):
        total += len(row.document.encode()) + 200
        if total > PAGE_BYTES_MAX and count > 0:
            return rows[:count]
    return rows


def _views(connection: Connection, rows: Sequence[Row[Any]]) -> tuple[JobView, ...]:
    if not rows:
        return ()
    ready = connection.execute(
        select(items.c.job_id, func.min(items.c.lexical_ready_us))
        .where(items.c.job_id.in_([row.job_id for row in rows]), items.c.lexical_ready_us.is_not(None))
        .group_by(items.c.job_id)
    )
    ready_us: dict[str, int] = {str(job_id): int(us) for job_id, us in ready}
    return tuple(
        JobView(
            job=_slim(_jobs.decode(row.document), len(row.document)),
            sequence=sequence_of(row.last),
            changed_at=moment(row.changed_us),
            lexical_ready_at=moment(ready_us[row.job_id]) if row.job_id in ready_us else None,
        )
        for row in rows
    )


def _slim(job: Job, size: int) -> Job:
    """*job*, without the warnings of its result where they alone would not fit into an answer."""
    if size <= PAGE_BYTES_MAX or job.result is None:
        return job
    return msgspec.structs.replace(job, result=msgspec.structs.replace(job.result, warnings=(), losses=()))


def _items_of(connection: Connection, view: JobView) -> tuple[ItemView, ...]:
    """The first items of a job, as many as fit into an answer beside the job itself; none of a batch."""
    if view.job.batch is not None:
        return ()
    found = connection.execute(
        select(items.c.document)
        .where(items.c.job_id == view.job.job_id)
        .order_by(items.c.item_id)
        .limit(ITEMS_MAX)
    )
    room = PAGE_BYTES_MAX - len(encode(view.job))
    chosen = []
    for document in found.scalars():
        room -= len(document.encode())
        if room < 0:
            break
        chosen.append(_items.decode(document))
    return tuple(chosen)
