"""Jobs, items, events, what could not be read, and how far JOBS has been read."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("project", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("jobs_first", "jobs", ["first"], unique=True)
    op.create_index("jobs_state", "jobs", ["state", "first"])
    op.create_index("jobs_tenant", "jobs", ["tenant", "first"])
    op.create_index("jobs_tenant_state", "jobs", ["tenant", "state", "first"])
    op.create_index("jobs_project", "jobs", ["tenant", "project", "first"])
    op.create_index("jobs_project_state", "jobs", ["tenant", "project", "state", "first"])
    op.create_index("jobs_number", "jobs", ["number", "first"])
    op.create_index("jobs_changed", "jobs", ["changed_us"])
    op.create_table(
        "items",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("item_id", sa.String, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sa.Column("lexical_ready_us", sa.BigInteger),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("items_changed", "items", ["changed_us"])
    op.create_table(
        "events",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("events_place", "events", ["job_id", "place"])
    op.create_index("events_at", "events", ["at_us"])
    op.create_table(
        "unreadable",
        sa.Column("place", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kept_us", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "position",
        sa.Column("row", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stream_created", sa.String, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
