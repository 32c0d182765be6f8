"""turns and points by month, an event ledger that can be pruned

Revision ID: 0004
Revises: 0003

Rows are copied into the new tables and the old ones dropped, in one transaction: it needs room for both, and whoever
else uses these tables waits until it is done.
"""

from collections.abc import Sequence
from datetime import date

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BEHAVIOURS = ("aligned", "over_refusal", "harmful_compliance", "deception", "goal_deviation")
_FACTORS = ("request_harm", "refusal", "response_harm", "dishonesty", "deviation")
_LEDGER_PARTS = 8

# Months are made for a role that may write and nothing else, so the function runs with its owner's rights: it takes no
# name but the two tables', pins where names are looked up, and reads times as UTC whatever the caller has set.
# LIKE + ATTACH instead of PARTITION OF: it does not keep writers of other months waiting.
_MAKE_MONTH = """
CREATE FUNCTION valuedrift_make_month(table_name text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    part text;
BEGIN
    IF table_name IS NULL OR table_name NOT IN ('turns', 'points') THEN
        RAISE EXCEPTION 'valuedrift_make_month: % has no months', coalesce(table_name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF month IS NULL OR extract(day FROM month) <> 1 OR extract(year FROM month) NOT BETWEEN 1990 AND 2200 THEN
        RAISE EXCEPTION 'valuedrift_make_month: % is not the first day of a month from 1990 to 2200',
            coalesce(month::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    part := table_name || to_char(month, '_YYYY_MM');
    IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE c.relname = part AND i.inhparent = table_name::regclass)
    THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('valuedrift_make_month'), hashtext(part));
    IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE c.relname = part AND i.inhparent = table_name::regclass)
    THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, table_name);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        table_name, part, month::timestamptz, (month + interval '1 month')::timestamptz);
    RETURN true;
END $$
"""


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    with op.batch_alter_table("buckets") as batch_op:
        batch_op.drop_constraint("fk_buckets_series_id", type_="foreignkey")

    ledger = _set_aside("event_keys", "fk_event_keys_offset_id")
    op.create_table(
        "event_keys",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("offset_id", _ID, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.func.current_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_event_keys")),
        comment="the ledger that alone decides whether an event is new; seen_at is the clock of the database",
        postgresql_partition_by="HASH (event_id)",
    )
    if postgresql:
        for k in range(_LEDGER_PARTS):
            op.execute(
                f"CREATE TABLE event_keys_{k} PARTITION OF event_keys "
                f"FOR VALUES WITH (MODULUS {_LEDGER_PARTS}, REMAINDER {k})"
            )
    _move(ledger, "event_keys", ["event_id", "offset_id", "line"])
    op.create_index(op.f("ix_event_keys_seen_at"), "event_keys", ["seen_at"], postgresql_using="brin")

    op.drop_index(op.f("ix_turns_series_id_ts"), "turns")
    turns = _set_aside("turns", "fk_turns_series_id")
    op.create_table("turns", *_turns(["event_id", "turn", "ts"]), comment=_TURNS, postgresql_partition_by="RANGE (ts)")
    points = _set_aside("points", "fk_points_series_id")
    op.create_table("points", *_points(), comment=_POINTS, postgresql_partition_by="RANGE (t)")
    if postgresql:
        schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
        op.execute("DROP FUNCTION IF EXISTS valuedrift_make_month(text, date)")
        op.execute(_MAKE_MONTH.format(schema=schema))
        op.execute("REVOKE ALL ON FUNCTION valuedrift_make_month(text, date) FROM PUBLIC")
        _make_months(turns, "turns", "ts")
        _make_months(points, "points", "t")
    _move(turns, "turns", _names(_turns([])))
    _move(points, "points", _names(_points()))
    op.create_index(op.f("ix_turns_series_id_ts"), "turns", ["series_id", "ts"])


def downgrade() -> None:
    """An event that was counted again after the ledger had forgotten it keeps its first turns: ids are unique there."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute(
        "DELETE FROM turns WHERE EXISTS (SELECT 1 FROM turns AS first WHERE first.event_id = turns.event_id "
        "AND first.turn = turns.turn AND first.ts < turns.ts)"
    )
    op.drop_index(op.f("ix_turns_series_id_ts"), "turns")
    turns = _set_aside("turns")
    op.create_table(
        "turns",
        *_turns(["event_id", "turn"]),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_turns_series_id")),
        comment=_TURNS,
    )
    _move(turns, "turns", _names(_turns([])))
    op.create_index(op.f("ix_turns_series_id_ts"), "turns", ["series_id", "ts"])

    points = _set_aside("points")
    op.create_table(
        "points",
        *_points(),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_points_series_id")),
        comment=_POINTS,
    )
    _move(points, "points", _names(_points()))

    op.drop_index(op.f("ix_event_keys_seen_at"), "event_keys")
    ledger = _set_aside("event_keys")
    op.create_table(
        "event_keys",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("offset_id", _ID, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["offset_id"], ["offsets.id"], name=op.f("fk_event_keys_offset_id")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_event_keys")),
        comment="the ledger that alone decides whether an event is new",
    )
    _move(ledger, "event_keys", ["event_id", "offset_id", "line"])

    with op.batch_alter_table("buckets") as batch_op:
        batch_op.create_foreign_key("fk_buckets_series_id", "series", ["series_id"], ["id"])
    if postgresql:
        op.execute("DROP FUNCTION valuedrift_make_month(text, date)")


_TURNS = "judgements; no transcript text, only a keyed hash of the answer"
_POINTS = "the trajectory: S (nats), shares and dS/dt (nats/day) over the window that ends at t"


def _turns(key: Sequence[str]) -> list[sa.schema.SchemaItem]:
    columns: list[sa.schema.SchemaItem] = [
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("series_id", _ID, nullable=False),
        sa.Column("conversation_id", sa.String(length=200), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("tier", sa.String(length=16), nullable=False),
        *(sa.Column(f"q_{b}", sa.SmallInteger(), nullable=False) for b in _BEHAVIOURS),
        *(sa.Column(f"f_{f}", sa.SmallInteger(), nullable=False) for f in _FACTORS),
        sa.Column("doubt", sa.SmallInteger(), nullable=False),
        sa.Column("text_hash", sa.LargeBinary(length=16), nullable=False),
    ]
    return [*columns, sa.PrimaryKeyConstraint(*key, name=op.f("pk_turns"))] if key else columns


def _points() -> list[sa.schema.SchemaItem]:
    figures = [f"s{end}" for end in ("", "_lo", "_hi", "_sd")]
    figures += [f"misaligned{end}" for end in ("", "_lo", "_hi")]
    figures += [f"p_{b}{end}" for b in _BEHAVIOURS for end in ("", "_lo", "_hi")]
    return [
        sa.Column("series_id", _ID, autoincrement=False, nullable=False),
        sa.Column("t", sa.DateTime(timezone=True), nullable=False),
        sa.Column("window_minutes", sa.Integer(), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("effective_n", sa.Float(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=False) for name in figures),
        sa.Column("ds_dt", sa.Float(), nullable=False),
        sa.Column("ds_dt_se", sa.Float(), nullable=False),
        sa.Column("kl", sa.Float(), nullable=True),
        sa.Column("evidence", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", "t", "window_minutes", name=op.f("pk_points")),
    ]


def _names(items: Sequence[sa.schema.SchemaItem]) -> list[str]:
    return [c.name for c in items if isinstance(c, sa.Column)]


def _set_aside(table: str, foreign_key: str | None = None) -> str:
    """Give a table and its key another name, so that a new one can take theirs; returns the table's."""
    old = f"{table}_before"
    if op.get_bind().dialect.name == "postgresql":
        if foreign_key is not None:
            op.drop_constraint(foreign_key, table, type_="foreignkey")
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT pk_{table} TO pk_{old}")
    op.rename_table(table, old)
    return old


def _move(old: str, table: str, columns: Sequence[str]) -> None:
    """All rows into the new table, and the old one away."""
    listed = ", ".join(columns)
    op.execute(f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {old}")
    op.drop_table(old)


def _make_months(old: str, table: str, time: str) -> None:
    """A partition for every month that the old table has rows of."""
    months = f"SELECT DISTINCT date_trunc('month', {time} AT TIME ZONE 'UTC')::date FROM {old}"
    for month in op.get_bind().execute(sa.text(months)).scalars().all():
        assert isinstance(month, date)
        op.get_bind().execute(sa.select(sa.func.valuedrift_make_month(table, month)))
