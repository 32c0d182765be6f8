"""redacted excerpts of turns, by month; hashes of dead letters

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# as in 0004, for the tables it is told of
_MAKE_MONTH = """
CREATE OR REPLACE FUNCTION valuedrift_make_month(table_name text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    part text;
BEGIN
    IF table_name IS NULL OR table_name NOT IN ({tables}) THEN
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
    op.create_table(
        "turn_texts",
        sa.Column("ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("ts", "event_id", "turn", name=op.f("pk_turn_texts")),
        comment="redacted excerpts of turns, where input.store_text asks for them",
        postgresql_partition_by="RANGE (ts)",
    )
    _make_months_of("turns", "turn_texts", "points")
    op.add_column("dead_letters", sa.Column("payload_hash", sa.LargeBinary(length=16), nullable=True))


def downgrade() -> None:
    _make_months_of("turns", "points")
    op.drop_table("turn_texts")
    op.drop_column("dead_letters", "payload_hash")


def _make_months_of(*tables: str) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(_MAKE_MONTH.format(schema=schema, tables=", ".join(f"'{t}'" for t in tables)))
