"""A batch of facts into the tables, within one transaction of the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.history.v1 import ItemView
from pharos_contracts.jobs.v1 import AnyItemEvent, AnyJobEvent, ItemEvent, Job, JobEvent
from pharos_contracts.message import encode, tag_of
from pharos_history import tables
from pharos_history.facts import SEQUENCE_BITS, Fact, Unreadable, place_of
from pharos_history.projection import (
    Item,
    View,
    microseconds,
    project,
    project_item,
    sentence,
    source_type_of,
    tally_of,
)

_jobs = msgspec.json.Decoder(Job)
_items = msgspec.json.Decoder(ItemView)


def fold(
    connection: Connection, epoch: int, facts: Sequence[Fact | Unreadable], *, kept_us: int, is_sqlite: bool
) -> None:
    """Fold *facts*, which are in the order of the stream of *epoch*, into what the tables hold.

    A fact whose bytes were seen earlier on the same stream was published twice and changes nothing.
    """
    readable = [fact for fact in facts if isinstance(fact, Fact)]
    seen = _places(connection, {fact.digest for fact in readable})
    views = _views(connection, {_job_id(fact) for fact in readable})
    items = _items_of(connection, [fact.event for fact in readable if isinstance(fact.event, ItemEvent)])
    changed: dict[Any, View | Item] = {}
    log: dict[str, dict[str, Any]] = {}
    for fact in readable:
        place = place_of(epoch, fact.sequence)
        earlier = seen.setdefault(fact.digest, place)
        if earlier < place and earlier >> SEQUENCE_BITS == epoch:
            continue
        event = fact.event
        log[fact.digest] = _log_row(fact, place)
        if isinstance(event, JobEvent):
            view = project(views.get(event.job.job_id), place, event)
            views[event.job.job_id] = changed[event.job.job_id] = view
        else:
            key = (event.job_id, event.item_id)
            items[key] = changed[key] = project_item(items.get(key), place, event)
    upsert = _Upsert(connection, is_sqlite)
    upsert.rows(tables.jobs, [_job_row(view) for view in changed.values() if isinstance(view, View)])
    upsert.rows(
        tables.items,
        [
            _item_row(key[0], item, views.get(key[0]))
            for key, item in changed.items()
            if isinstance(item, Item)
        ],
    )
    batches = [view for view in changed.values() if isinstance(view, View) and view.job.batch is not None]
    upsert.rows(tables.batches, [_batch_row(view) for view in batches])
    upsert.rows(tables.batch_sources, [row for view in batches for row in _source_rows(view.job)])
    upsert.rows(tables.events, list(log.values()), but=("place",))
    upsert.rows(
        tables.unreadable,
        [_unreadable_row(epoch, each, kept_us) for each in facts if isinstance(each, Unreadable)],
    )


class _Upsert:
    """Insert-or-update in the words of the database at hand."""

    def __init__(self, connection: Connection, is_sqlite: bool) -> None:
        self._connection = connection
        self._is_sqlite = is_sqlite

    def rows(self, table: Table, rows: list[dict[str, Any]], but: Iterable[str] = ()) -> None:
        """Store *rows* by their primary key; of a row that is there already, the columns *but* are kept."""
        if not rows:
            return
        keys = {column.name for column in table.primary_key}
        insert: Any = sqlite.insert(table) if self._is_sqlite else postgresql.insert(table)
        updated = {
            column.name: insert.excluded[column.name]
            for column in table.columns
            if column.name not in keys and column.name not in but
        }
        self._connection.execute(
            insert.on_conflict_do_update(index_elements=sorted(keys), set_=updated), rows
        )


def _job_id(fact: Fact) -> str:
    event = fact.event
    return event.job.job_id if isinstance(event, JobEvent) else event.job_id


def _places(connection: Connection, digests: set[str]) -> dict[str, int]:
    found = connection.execute(
        select(tables.events.c.digest, tables.events.c.place).where(tables.events.c.digest.in_(digests))
    )
    return {str(digest): int(place) for digest, place in found}


def _views(connection: Connection, job_ids: set[str]) -> dict[str, View]:
    table = tables.jobs.c
    found = connection.execute(
        select(table.document, table.first, table.last, table.changed_us).where(table.job_id.in_(job_ids))
    )
    views = (
        View(job=_jobs.decode(document), first=first, last=last, changed_us=changed_us)
        for document, first, last, changed_us in found
    )
    return {view.job.job_id: view for view in views}


def _items_of(
    connection: Connection, events: Sequence[AnyItemEvent | ItemEvent]
) -> dict[tuple[str, str], Item]:
    if not events:
        return {}
    table = tables.items.c
    found = connection.execute(
        select(table.job_id, table.document, table.last).where(
            table.job_id.in_({event.job_id for event in events}),
            table.item_id.in_({event.item_id for event in events}),
        )
    )
    items = ((job_id, Item(view=_items.decode(document), last=last)) for job_id, document, last in found)
    return {(job_id, item.view.item_id): item for job_id, item in items}


def _job_row(view: View) -> dict[str, Any]:
    job = view.job
    return {
        "job_id": job.job_id,
        "tenant": job.tenant,
        "project": job.project,
        "kind": job.kind.value,
        "state": job.state.value,
        "number": job.number,
        "first": view.first,
        "last": view.last,
        "changed_us": view.changed_us,
        "document": encode(job).decode(),
    }


def _batch_row(view: View) -> dict[str, Any]:
    job = view.job
    return {
        "job_id": job.job_id,
        "tenant": job.tenant,
        "owner": job.submitted_by,
        "project": job.project,
        "state": job.state.value,
        "priority": job.priority.value,
        "first": view.first,
    }


def _source_rows(job: Job) -> list[dict[str, Any]]:
    return [
        {
            "job_id": job.job_id,
            "source_type": source_type.value,
            "tenant": job.tenant,
            "owner": job.submitted_by,
            "project": job.project,
            "completed": tally.completed,
            "failed": tally.failed,
            "skipped": tally.skipped,
        }
        for source_type, tally in tally_of(job).items()
    ]


def _item_row(job_id: str, item: Item, of: View | None) -> dict[str, Any]:
    ready, seconds = item.view.lexical_ready_at, item.view.seconds
    job = None if of is None or of.job.batch is None else of.job
    ordinal, source_type = _file_of(item.view.item_id, job)
    return {
        "job_id": job_id,
        "item_id": item.view.item_id,
        "last": item.last,
        "changed_us": microseconds(item.view.changed_at),
        "lexical_ready_us": None if ready is None else microseconds(ready),
        "document": encode(item.view).decode(),
        "ordinal": ordinal,
        "tenant": None if job is None else job.tenant,
        "owner": None if job is None else job.submitted_by,
        "source_type": None if source_type is None else source_type.value,
        "work_us": None if source_type is None or seconds is None else round(seconds * 1_000_000),
    }


def _file_of(item_id: str, job: Job | None) -> tuple[int | None, SourceType | None]:
    """The number of a file of a batch, and where it comes from; what clears a batch away is no file."""
    if job is None or job.batch is None or not item_id.isdecimal():
        return None, None
    source_type = source_type_of(job.batch, int(item_id))
    return (None, None) if source_type is None else (int(item_id), source_type)


def _log_row(fact: Fact, place: int) -> dict[str, Any]:
    event: AnyJobEvent | AnyItemEvent = fact.event
    return {
        "digest": fact.digest,
        "job_id": _job_id(fact),
        "place": place,
        "event": tag_of(event),
        "at_us": microseconds(event.at),
        "text": sentence(event),
    }


def _unreadable_row(epoch: int, fact: Unreadable, kept_us: int) -> dict[str, Any]:
    return {
        "place": place_of(epoch, fact.sequence),
        "kept_us": kept_us,
        "subject": fact.stored.subject,
        "reason": fact.reason,
        "payload": fact.stored.data,
    }
