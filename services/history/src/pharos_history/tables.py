"""The tables, as the newest migration leaves them; a test compares the two.

Times are microseconds since 1970, places are those of ``facts``, documents are JSON as text: the same in
both databases, and a NUL in an event cannot break it. The indexes serve the listings: newest first within
a tenant, a project, a kind, a state, and their combinations.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

metadata = MetaData()


def _where(condition: str) -> dict[str, Any]:
    """An index over the rows of *condition* only."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("project", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Index("jobs_first", "first", unique=True),
    Index("jobs_state", "state", "first"),
    Index("jobs_tenant", "tenant", "first"),
    Index("jobs_tenant_state", "tenant", "state", "first"),
    Index("jobs_kind", "tenant", "kind", "first"),
    Index("jobs_kind_state", "tenant", "kind", "state", "first"),
    Index("jobs_project", "tenant", "project", "first"),
    Index("jobs_project_state", "tenant", "project", "state", "first"),
    Index("jobs_number", "number", "first"),
    Index("jobs_changed", "changed_us"),
)

items = Table(
    "items",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("item_id", String, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("lexical_ready_us", BigInteger),
    Column("document", Text, nullable=False),
    # Of the files of batches only.
    Column("ordinal", BigInteger),
    Column("tenant", String),
    Column("owner", String),
    Column("source_type", String),
    Column("work_us", BigInteger),
    Index("items_changed", "changed_us"),
    Index("items_ordinal", "job_id", "ordinal", **_where("ordinal IS NOT NULL")),
    Index("items_source_work", "tenant", "source_type", "changed_us", **_where("work_us IS NOT NULL")),
    Index("items_owner_work", "tenant", "owner", "changed_us", **_where("work_us IS NOT NULL")),
)

batches = Table(
    "batches",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("project", String, nullable=False),
    Column("state", String, nullable=False),
    Column("priority", String, nullable=False),
    Column("first", BigInteger, nullable=False),
    Index("batches_owner", "tenant", "owner", "first"),
    Index("batches_state", "tenant", "owner", "state", "first"),
)

batch_sources = Table(
    "batch_sources",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("source_type", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("project", String, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Index("batch_sources_owner", "tenant", "owner"),
)

events = Table(
    "events",
    metadata,
    Column("digest", String, primary_key=True),
    Column("job_id", String, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("event", String, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Index("events_place", "job_id", "place"),
    Index("events_at", "at_us"),
)

unreadable = Table(
    "unreadable",
    metadata,
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("kept_us", BigInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

position = Table(
    "position",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("stream_created", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)
