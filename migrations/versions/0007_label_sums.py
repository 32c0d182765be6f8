"""additive statistics by label value

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Hours from before have no row: labels were not kept."""
    op.create_table(
        "label_sums",
        sa.Column("series_id", _ID, autoincrement=False, nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("shard", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", "classifier_version", "minute", "shard", name=op.f("pk_label_sums")),
        comment="additive statistics of a series in an hour, in all and by label value (monitor.label_sums)",
    )


def downgrade() -> None:
    op.drop_table("label_sums")
