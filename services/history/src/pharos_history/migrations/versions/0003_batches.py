"""Batches: who has which, what became of their files, and how long those took."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    for name, kind in (
        ("ordinal", sa.BigInteger),
        ("tenant", sa.String),
        ("owner", sa.String),
        ("source_type", sa.String),
        ("work_us", sa.BigInteger),
    ):
        op.add_column("items", sa.Column(name, kind))
    numbered, worked = _where("ordinal IS NOT NULL"), _where("work_us IS NOT NULL")
    op.create_index("items_ordinal", "items", ["job_id", "ordinal"], **numbered)
    op.create_index("items_source_work", "items", ["tenant", "source_type", "changed_us"], **worked)
    op.create_index("items_owner_work", "items", ["tenant", "owner", "changed_us"], **worked)
    op.create_table(
        "batches",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("priority", sa.String, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
    )
    op.create_index("batches_owner", "batches", ["tenant", "owner", "first"])
    op.create_index("batches_state", "batches", ["tenant", "owner", "state", "first"])
    op.create_table(
        "batch_sources",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("source_type", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("skipped", sa.BigInteger, nullable=False),
    )
    op.create_index("batch_sources_owner", "batch_sources", ["tenant", "owner"])
