"""newest event of a source, and when a dead letter was seen

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Dead letters on record count as seen now."""
    op.add_column("offsets", sa.Column("newest_ts", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("dead_letters") as batch_op:
        batch_op.add_column(
            sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.func.current_timestamp(), nullable=False)
        )


def downgrade() -> None:
    with op.batch_alter_table("dead_letters") as batch_op:
        batch_op.drop_column("seen_at")
    # not a new table in place of the old: dead letters refer to it
    op.drop_column("offsets", "newest_ts")
