"""on-call: readings, states of rules, decisions, silences, the outbox

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("alerts") as batch_op:
        batch_op.alter_column("series_id", existing_type=sa.BigInteger(), nullable=True)
        batch_op.alter_column(
            "rule", existing_type=sa.String(length=64), type_=sa.String(length=200), existing_nullable=False
        )
        batch_op.add_column(sa.Column("severity", sa.String(length=8), nullable=True))
        batch_op.add_column(sa.Column("told_at", _TIME, nullable=True))
        batch_op.add_column(sa.Column("acknowledged_at", _TIME, nullable=True))
        batch_op.add_column(sa.Column("acknowledged_by", sa.String(length=200), nullable=True))
    op.create_table(
        "readings",
        sa.Column("series_id", _ID, autoincrement=False, nullable=False),
        sa.Column("t", _TIME, nullable=True),
        sa.Column("last_event", _TIME, nullable=True),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_readings")),
        comment="what rules compare: the latest figures of a series, each (mean, low, high) (monitor.readings)",
    )
    op.create_table(
        "alert_states",
        sa.Column("rule", sa.String(length=200), nullable=False),
        sa.Column("series_id", _ID, autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("alert_id", sa.String(length=32), nullable=True),
        sa.Column("memory", sa.JSON(), nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("rule", "series_id", name=op.f("pk_alert_states")),
        comment="what the state machine of a rule and a series (0: the monitor) goes on from (alerts.machine)",
    )
    op.create_table(
        "alert_events",
        sa.Column("id", _ID, nullable=False),
        sa.Column("alert_id", sa.String(length=32), nullable=True),
        sa.Column("rule", sa.String(length=200), nullable=False),
        sa.Column("series_id", _ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_events")),
        comment="every decision about an alert and why: state, notify, suppressed, ack, delivery",
    )
    op.create_index(op.f("ix_alert_events_alert_id_id"), "alert_events", ["alert_id", "id"])
    op.create_index(op.f("ix_alert_events_at"), "alert_events", ["at"])
    op.create_table(
        "silences",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("matchers", sa.JSON(), nullable=False),
        sa.Column("starts_at", _TIME, nullable=False),
        sa.Column("ends_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silences")),
        comment="alerts that nobody is told of for a time",
    )
    op.create_index(op.f("ix_silences_ends_at"), "silences", ["ends_at"])
    op.create_table(
        "outbox",
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("alert_id", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("severity", sa.String(length=8), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", _TIME, nullable=True),
        sa.Column("may_have_arrived", sa.Boolean(), nullable=False),
        sa.Column("sent_status", sa.String(length=16), nullable=True),
        sa.Column("sent_severity", sa.String(length=8), nullable=True),
        sa.Column("sent_revision", sa.Integer(), nullable=False),
        sa.Column("sent_at", _TIME, nullable=True),
        sa.Column("last_error", sa.String(length=512), nullable=True),
        sa.PrimaryKeyConstraint("target", "alert_id", name=op.f("pk_outbox")),
        comment="what a target is to know of an alert, and what it was told last; newer replaces older",
    )
    op.create_index(op.f("ix_outbox_target_due_at"), "outbox", ["target", "due_at"])
    op.create_index(op.f("ix_outbox_alert_id"), "outbox", ["alert_id"])


def downgrade() -> None:
    """Alerts about the monitor itself are forgotten: the older schema knows none."""
    for table in ("outbox", "silences", "alert_events", "alert_states", "readings"):
        op.drop_table(table)
    op.execute("DELETE FROM alerts WHERE series_id IS NULL OR length(rule) > 64")
    with op.batch_alter_table("alerts") as batch_op:
        for name in ("severity", "told_at", "acknowledged_at", "acknowledged_by"):
            batch_op.drop_column(name)
        batch_op.alter_column(
            "rule", existing_type=sa.String(length=200), type_=sa.String(length=64), existing_nullable=False
        )
        batch_op.alter_column("series_id", existing_type=sa.BigInteger(), nullable=False)
