"""first tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "offsets",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source", sa.String(length=1024), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("judged", sa.BigInteger(), nullable=False),
        sa.Column("turns", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("dead_letters", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offsets")),
        sa.UniqueConstraint("source", name=op.f("uq_offsets_source")),
        comment="how far each source has been read, advanced with what was read; its id is the shard of the buckets",
    )
    op.create_table(
        "series",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("deployment", sa.String(length=200), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("deployment", "model", "labels", name=op.f("uq_series_deployment_model_labels")),
        comment="what is monitored as one, and the state its detectors resume from",
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_settings")),
        comment="facts about this database, such as the key its text hashes are made with",
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("firing", sa.Boolean(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("onset", sa.DateTime(timezone=True), nullable=False),
        sa.Column("onset_lo", sa.DateTime(timezone=True), nullable=False),
        sa.Column("onset_hi", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("telling_turns", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_alerts_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        comment="what drifted, since when, and which turns show it",
    )
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alerts_series_id_raised_at"), ["series_id", "raised_at"], unique=False)

    op.create_table(
        "baselines",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("first_ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.Column("bounds", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_baselines_series_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_baselines")),
        sa.UniqueConstraint(
            "series_id",
            "classifier_version",
            "first_ts",
            name="uq_baselines_start",
        ),
        comment="frozen references",
    )
    op.create_table(
        "buckets",
        sa.Column("series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("shard", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_buckets_series_id")),
        sa.PrimaryKeyConstraint("series_id", "classifier_version", "minute", "shard", name=op.f("pk_buckets")),
        comment="additive statistics of a series in a minute (monitor.buckets)",
    )
    op.create_table(
        "dead_letters",
        sa.Column("offset_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=512), nullable=False),
        sa.ForeignKeyConstraint(["offset_id"], ["offsets.id"], name=op.f("fk_dead_letters_offset_id")),
        sa.PrimaryKeyConstraint("offset_id", "line", name=op.f("pk_dead_letters")),
        comment="what could not be counted, where it stands and why; kind is 'bad' or 'duplicate'",
    )
    op.create_table(
        "event_keys",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("offset_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["offset_id"], ["offsets.id"], name=op.f("fk_event_keys_offset_id")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_event_keys")),
        comment="the ledger that alone decides whether an event is new",
    )
    op.create_table(
        "points",
        sa.Column("series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("t", sa.DateTime(timezone=True), nullable=False),
        sa.Column("window_minutes", sa.Integer(), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("effective_n", sa.Float(), nullable=False),
        sa.Column("s", sa.Float(), nullable=False),
        sa.Column("s_lo", sa.Float(), nullable=False),
        sa.Column("s_hi", sa.Float(), nullable=False),
        sa.Column("s_sd", sa.Float(), nullable=False),
        sa.Column("misaligned", sa.Float(), nullable=False),
        sa.Column("misaligned_lo", sa.Float(), nullable=False),
        sa.Column("misaligned_hi", sa.Float(), nullable=False),
        sa.Column("p_aligned", sa.Float(), nullable=False),
        sa.Column("p_aligned_lo", sa.Float(), nullable=False),
        sa.Column("p_aligned_hi", sa.Float(), nullable=False),
        sa.Column("p_over_refusal", sa.Float(), nullable=False),
        sa.Column("p_over_refusal_lo", sa.Float(), nullable=False),
        sa.Column("p_over_refusal_hi", sa.Float(), nullable=False),
        sa.Column("p_harmful_compliance", sa.Float(), nullable=False),
        sa.Column("p_harmful_compliance_lo", sa.Float(), nullable=False),
        sa.Column("p_harmful_compliance_hi", sa.Float(), nullable=False),
        sa.Column("p_deception", sa.Float(), nullable=False),
        sa.Column("p_deception_lo", sa.Float(), nullable=False),
        sa.Column("p_deception_hi", sa.Float(), nullable=False),
        sa.Column("p_goal_deviation", sa.Float(), nullable=False),
        sa.Column("p_goal_deviation_lo", sa.Float(), nullable=False),
        sa.Column("p_goal_deviation_hi", sa.Float(), nullable=False),
        sa.Column("ds_dt", sa.Float(), nullable=False),
        sa.Column("ds_dt_se", sa.Float(), nullable=False),
        sa.Column("kl", sa.Float(), nullable=True),
        sa.Column("evidence", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_points_series_id")),
        sa.PrimaryKeyConstraint("series_id", "t", "window_minutes", name=op.f("pk_points")),
        comment="the trajectory: S (nats), shares and dS/dt (nats/day) over the window that ends at t",
    )
    op.create_table(
        "turns",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("conversation_id", sa.String(length=200), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("tier", sa.String(length=16), nullable=False),
        sa.Column("q_aligned", sa.SmallInteger(), nullable=False),
        sa.Column("q_over_refusal", sa.SmallInteger(), nullable=False),
        sa.Column("q_harmful_compliance", sa.SmallInteger(), nullable=False),
        sa.Column("q_deception", sa.SmallInteger(), nullable=False),
        sa.Column("q_goal_deviation", sa.SmallInteger(), nullable=False),
        sa.Column("f_request_harm", sa.SmallInteger(), nullable=False),
        sa.Column("f_refusal", sa.SmallInteger(), nullable=False),
        sa.Column("f_response_harm", sa.SmallInteger(), nullable=False),
        sa.Column("f_dishonesty", sa.SmallInteger(), nullable=False),
        sa.Column("f_deviation", sa.SmallInteger(), nullable=False),
        sa.Column("doubt", sa.SmallInteger(), nullable=False),
        sa.Column("text_hash", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_turns_series_id")),
        sa.PrimaryKeyConstraint("event_id", "turn", name=op.f("pk_turns")),
        comment="judgements; no transcript text, only a keyed hash of the answer",
    )
    with op.batch_alter_table("turns", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_turns_series_id_ts"), ["series_id", "ts"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("turns", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_turns_series_id_ts"))

    op.drop_table("turns")
    op.drop_table("points")
    op.drop_table("event_keys")
    op.drop_table("dead_letters")
    op.drop_table("buckets")
    op.drop_table("baselines")
    with op.batch_alter_table("alerts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alerts_series_id_raised_at"))

    op.drop_table("alerts")
    op.drop_table("settings")
    op.drop_table("series")
    op.drop_table("offsets")
