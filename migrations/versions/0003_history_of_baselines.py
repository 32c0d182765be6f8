"""history of baselines

Revision ID: 0003
Revises: 0002
"""

from datetime import timedelta

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_baselines = sa.table(
    "baselines",
    sa.column("id", sa.BigInteger()),
    sa.column("series_id", sa.BigInteger()),
    sa.column("classifier_version", sa.String()),
    sa.column("first_ts", sa.DateTime(timezone=True)),
    sa.column("last_ts", sa.DateTime(timezone=True)),
    sa.column("origin", sa.String()),
    sa.column("reason", sa.Text()),
    sa.column("warning", sa.Text()),
    sa.column("provenance", sa.JSON()),
    sa.column("frozen_at", sa.DateTime(timezone=True)),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("replaced_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    with op.batch_alter_table("baselines") as batch_op:
        batch_op.add_column(sa.Column("origin", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("reason", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("warning", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("provenance", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("created_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_constraint("uq_baselines_start", type_="unique")
    t, connection = _baselines, op.get_bind()
    since: dict[tuple[int, str], int] = {}
    for row in connection.execute(sa.select(t).order_by(t.c.id)).all():
        frozen_at = row.last_ts + timedelta(minutes=1)
        before = since.get((row.series_id, row.classifier_version))
        if before is not None:
            connection.execute(t.update().where(t.c.id == before).values(replaced_at=frozen_at))
        since[row.series_id, row.classifier_version] = row.id
        values = {"origin": "learned", "reason": "", "warning": "", "provenance": {}}
        times = {"frozen_at": frozen_at, "created_at": frozen_at}
        connection.execute(t.update().where(t.c.id == row.id).values(values | times))
    with op.batch_alter_table("baselines") as batch_op:
        batch_op.alter_column("origin", existing_type=sa.String(length=16), nullable=False)
        batch_op.alter_column("reason", existing_type=sa.Text(), nullable=False)
        batch_op.alter_column("warning", existing_type=sa.Text(), nullable=False)
        batch_op.alter_column("provenance", existing_type=sa.JSON(), nullable=False)
        batch_op.alter_column("frozen_at", existing_type=sa.DateTime(timezone=True), nullable=False)
        batch_op.alter_column("created_at", existing_type=sa.DateTime(timezone=True), nullable=False)
        batch_op.create_index(batch_op.f("ix_baselines_series_id_frozen_at"), ["series_id", "frozen_at"], unique=False)


def downgrade() -> None:
    """What was replaced is forgotten: the older schema has one baseline for each start."""
    t, connection = _baselines, op.get_bind()
    newest = sa.select(sa.func.max(t.c.id)).group_by(t.c.series_id, t.c.classifier_version, t.c.first_ts)
    kept = list(connection.execute(newest).scalars())
    for key in connection.execute(sa.select(t.c.id)).scalars().all():
        if key not in kept:
            connection.execute(t.delete().where(t.c.id == key))
    with op.batch_alter_table("baselines") as batch_op:
        batch_op.drop_index(batch_op.f("ix_baselines_series_id_frozen_at"))
        for name in ("origin", "reason", "warning", "provenance", "frozen_at", "created_at", "replaced_at"):
            batch_op.drop_column(name)
        batch_op.create_unique_constraint("uq_baselines_start", ["series_id", "classifier_version", "first_ts"])
