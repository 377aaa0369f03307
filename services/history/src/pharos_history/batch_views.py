"""What is asked of batches, in SQL. Every query reads a bounded part of an index, but for the statistics of a
user, which read one small row for each of their batches.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Select, Subquery, func, select

from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.history.v1 import (
    BatchSummary,
    ItemView,
    ListBatches,
    ListItems,
    SourceRates,
    SourceSummary,
    SummarizeBatches,
)
from pharos_history.facts import sequence_of
from pharos_history.tables import batch_sources, batches, items, jobs

RATED_FILES: Final = 200
AVERAGED_FILES: Final = 1_000
_MICROSECONDS: Final = 1_000_000

S = TypeVar("S", bound=Select[Any])

_items = msgspec.json.Decoder(ItemView)


def page_of_batches(connection: Connection, query: ListBatches) -> tuple[list[Row[Any]], int]:
    """(the rows of their jobs, newest first; how many there are in all)."""
    # What is skipped over is skipped in the index: the jobs themselves are read for one page only.
    page = (
        _wanted(select(batches.c.job_id), query)
        .order_by(batches.c.first.desc())
        .limit(query.limit)
        .offset(query.offset)
        .subquery("page")
    )
    found = connection.execute(
        select(jobs).join(page, page.c.job_id == jobs.c.job_id).order_by(jobs.c.first.desc())
    )
    total = connection.execute(_wanted(select(func.count()).select_from(batches), query)).scalar_one()
    return list(found.all()), int(total)


def _wanted(chosen: S, query: ListBatches | SummarizeBatches) -> S:
    chosen = chosen.where(batches.c.tenant == query.tenant, batches.c.owner == query.owner)
    if isinstance(query, ListBatches) and query.states:
        chosen = chosen.where(batches.c.state.in_(sorted(set(query.states))))
    if query.projects is not None:
        chosen = chosen.where(batches.c.project.in_(sorted(query.projects)))
    return chosen


def items_of_batch(
    connection: Connection, query: ListItems, *, bytes_max: int
) -> tuple[list[ItemView], int | None]:
    """(items in their order, as many as fit into *bytes_max* and at least one; where the rest begins)."""
    mine = (
        select(items.c.ordinal, items.c.last, items.c.document)
        .where(items.c.job_id == query.job_id, items.c.ordinal >= query.first, items.c.tenant == query.tenant)
        .order_by(items.c.ordinal)
        .limit(query.limit + 1)
    )
    chosen: list[ItemView] = []
    room = bytes_max
    with connection.execution_options(yield_per=500).execute(mine) as found:
        for row in found:
            room -= len(row.document.encode()) + 30
            if len(chosen) == query.limit or (room < 0 and chosen):
                return chosen, int(row.ordinal)
            view = _items.decode(row.document)
            chosen.append(msgspec.structs.replace(view, sequence=sequence_of(row.last)))
    return chosen, None


def summary_of_batches(connection: Connection, query: SummarizeBatches) -> BatchSummary:
    """What became of the batches of one user."""
    counted = _wanted(select(batches.c.state, batches.c.priority, func.count()), query).group_by(
        batches.c.state, batches.c.priority
    )
    by_state: dict[str, int] = {}
    by_priority: dict[str, int] = {}
    for state, priority, count in connection.execute(counted):
        by_state[state] = by_state.get(state, 0) + int(count)
        by_priority[priority] = by_priority.get(priority, 0) + int(count)
    table = batch_sources.c
    files = (
        select(table.source_type, func.sum(table.completed), func.sum(table.failed), func.sum(table.skipped))
        .where(table.tenant == query.tenant, table.owner == query.owner)
        .group_by(table.source_type)
    )
    if query.projects is not None:
        files = files.where(table.project.in_(sorted(query.projects)))
    by_source = {
        str(source_type): SourceSummary(completed=int(completed), failed=int(failed), skipped=int(skipped))
        for source_type, completed, failed, skipped in connection.execute(files)
    }
    newest = _newest_work(AVERAGED_FILES, items.c.tenant == query.tenant, items.c.owner == query.owner)
    return BatchSummary(
        by_state=by_state,
        by_priority=by_priority,
        by_source=by_source,
        seconds_per_file=_mean_seconds(connection, newest),
    )


def rates_of_sources(connection: Connection, tenant: str) -> SourceRates:
    """How long the last files of each type of source took."""
    found: dict[str, float] = {}
    for source_type in SourceType:
        seconds = _mean_seconds(
            connection,
            _newest_work(RATED_FILES, items.c.tenant == tenant, items.c.source_type == source_type.value),
        )
        if seconds is not None:
            found[source_type.value] = seconds
    return SourceRates(seconds_per_file=found)


def _newest_work(limit: int, *conditions: Any) -> Subquery:
    return (
        select(items.c.work_us)
        .where(*conditions, items.c.work_us.is_not(None))
        .order_by(items.c.changed_us.desc())
        .limit(limit)
        .subquery("newest")
    )


def _mean_seconds(connection: Connection, newest: Subquery) -> float | None:
    mean = connection.execute(select(func.avg(newest.c.work_us))).scalar_one()
    return None if mean is None else round(float(mean) / _MICROSECONDS, 6)
