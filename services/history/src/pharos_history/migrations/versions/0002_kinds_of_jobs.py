"""The kind of a job, so that listings of repositories pass the documents by."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # There were jobs of repositories only.
    op.add_column("jobs", sa.Column("kind", sa.String, nullable=False, server_default="repository"))
    op.create_index("jobs_kind", "jobs", ["tenant", "kind", "first"])
    op.create_index("jobs_kind_state", "jobs", ["tenant", "kind", "state", "first"])
