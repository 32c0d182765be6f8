"""The tables. Times are UTC; probabilities of single turns are kept in fixed point (1/4096).

On PostgreSQL `turns`, `turn_texts` and `points` are partitioned by month (monitor.store.partitions), `event_keys` by a
hash of its key. Tables that are written once a turn or more name their series or source by its number alone: a foreign
key costs a look-up of its own for every row, and the numbers come from rows that are never deleted
(docs/decisions/0013).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.types import TypeDecorator

from monitor.taxonomy import BEHAVIOURS, FACTORS
from monitor.transcript import MAX_NAME

HOUR_SHARD: Final = -1
"""Shard of buckets that hold the hour which begins with their minute; writers have their source's number."""
DAY_SHARD: Final = -2
"""Shard of buckets that hold the UTC day which begins with their minute."""

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

MAX_RULE: Final = 200
"""Characters of a rule's name."""

_PARTITION: Final = re.compile(r"(?:turns|turn_texts|points)_\d{4}_\d{2}|event_keys_\d+")


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """For Alembic: partitions are no tables of their own."""
    return kind != "table" or name is None or _PARTITION.fullmatch(name) is None


class UtcDateTime(TypeDecorator[datetime]):
    """A time zone aware time in UTC; SQLite, which knows no zones, keeps it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_ID: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite gives only INTEGER PRIMARY KEY a rowid."""


def _id() -> Column[int]:
    return Column("id", _ID, primary_key=True)


def _each(prefix: str, names: tuple[str, ...], kind: type[Any]) -> list[Column[Any]]:
    return [Column(f"{prefix}_{name}", kind, nullable=False) for name in names]


def _sums() -> list[Column[Any]]:
    """Columns of a table of additive statistics: each writer has rows of its own (monitor.store.bucket_rows)."""
    return [
        Column("series_id", _ID, primary_key=True, autoincrement=False),
        Column("classifier_version", String(64), primary_key=True),
        Column("minute", Integer, primary_key=True),
        Column("shard", BigInteger, primary_key=True),
        Column("n", BigInteger, nullable=False),
        Column("sums", LargeBinary, nullable=False),
    ]


settings = Table(
    "settings",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    comment="facts about this database, such as the key its text hashes are made with",
)

offsets = Table(
    "offsets",
    METADATA,
    _id(),
    Column("source", String(1024), nullable=False, unique=True),
    Column("fingerprint", String(64), nullable=False),
    Column("format", String(32), nullable=True),
    Column("position", BigInteger, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("judged", BigInteger, nullable=False),
    Column("turns", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("dead_letters", BigInteger, nullable=False),
    Column("newest_ts", UtcDateTime, nullable=True),
    comment="how far each source has been read, advanced with what was read; its id is the shard of the buckets",
)

series = Table(
    "series",
    METADATA,
    _id(),
    Column("deployment", String(MAX_NAME), nullable=False),
    Column("model", String(MAX_NAME), nullable=False),
    Column("labels", Text, nullable=False),
    Column("state", LargeBinary, nullable=True),
    UniqueConstraint("deployment", "model", "labels"),
    comment="what is monitored as one, and the state its detectors resume from",
)

event_keys = Table(
    "event_keys",
    METADATA,
    Column("event_id", String(MAX_NAME), primary_key=True),
    Column("offset_id", _ID, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False, server_default=func.current_timestamp()),
    # pruned by the clock of its entries, which lie in the order of that clock
    Index(None, "seen_at", postgresql_using="brin"),
    postgresql_partition_by="HASH (event_id)",
    comment="the ledger that alone decides whether an event is new; seen_at is the clock of the database",
)

turns = Table(
    "turns",
    METADATA,
    Column("event_id", String(MAX_NAME), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("ts", UtcDateTime, primary_key=True),
    Column("series_id", _ID, nullable=False),
    Column("conversation_id", String(MAX_NAME), nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("weight", Float, nullable=False),
    Column("classifier_version", String(64), nullable=False),
    Column("tier", String(16), nullable=False),
    *_each("q", BEHAVIOURS, SmallInteger),
    *_each("f", FACTORS, SmallInteger),
    Column("doubt", SmallInteger, nullable=False),
    Column("text_hash", LargeBinary(16), nullable=False),
    Index(None, "series_id", "ts"),
    postgresql_partition_by="RANGE (ts)",
    comment="judgements; no transcript text, only a keyed hash of the answer",
)

turn_texts = Table(
    "turn_texts",
    METADATA,
    Column("ts", UtcDateTime, primary_key=True),  # first: they go by age
    Column("event_id", String(MAX_NAME), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("request", Text, nullable=False),
    Column("answer", Text, nullable=False),
    postgresql_partition_by="RANGE (ts)",
    comment="redacted excerpts of turns, where input.store_text asks for them",
)

second_judgements = Table(
    "second_judgements",
    METADATA,
    Column("event_id", String(MAX_NAME), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("classifier_version", String(64), nullable=False),
    *_each("q", BEHAVIOURS, SmallInteger),
    Column("doubt", SmallInteger, nullable=False),
    Column("choice_probability", Float, nullable=False),
    comment="what the accurate tier says of the turns it took, and how likely it was to take each",
)

reviews = Table(
    "reviews",
    METADATA,
    Column("event_id", String(MAX_NAME), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("label", String(32), nullable=True),
    Column("confidence", Float, nullable=True),
    Column("refused", String(512), nullable=True),
    Column("model", String(MAX_NAME), nullable=False),
    Column("rubric_version", String(64), nullable=False),
    Column("choice_probability", Float, nullable=False),
    comment="what the judge says of a random slice of turns, or why it says nothing; its words are not kept",
)

buckets = Table(
    "buckets",
    METADATA,
    *_sums(),
    comment="additive statistics of a series in a minute (monitor.buckets)",
)

label_sums = Table(
    "label_sums",
    METADATA,
    *_sums(),
    comment="additive statistics of a series in an hour, in all and by label value (monitor.label_sums)",
)

points = Table(
    "points",
    METADATA,
    Column("series_id", _ID, primary_key=True, autoincrement=False),
    Column("t", UtcDateTime, primary_key=True),
    Column("window_minutes", Integer, primary_key=True),
    Column("classifier_version", String(64), nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("effective_n", Float, nullable=False),
    *(Column(f"s{end}", Float, nullable=False) for end in ("", "_lo", "_hi", "_sd")),
    *(Column(f"misaligned{end}", Float, nullable=False) for end in ("", "_lo", "_hi")),
    *(Column(f"p_{b}{end}", Float, nullable=False) for b in BEHAVIOURS for end in ("", "_lo", "_hi")),
    Column("ds_dt", Float, nullable=False),
    Column("ds_dt_se", Float, nullable=False),
    Column("kl", Float, nullable=True),
    Column("evidence", Float, nullable=False),
    postgresql_partition_by="RANGE (t)",
    comment="the trajectory: S (nats), shares and dS/dt (nats/day) over the window that ends at t",
)

baselines = Table(
    "baselines",
    METADATA,
    _id(),
    Column("series_id", ForeignKey("series.id"), nullable=False),
    Column("classifier_version", String(64), nullable=False),
    Column("first_ts", UtcDateTime, nullable=False),
    Column("last_ts", UtcDateTime, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("sums", LargeBinary, nullable=False),
    Column("bounds", JSON, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("warning", Text, nullable=False),
    Column("provenance", JSON, nullable=False),
    Column("frozen_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("replaced_at", UtcDateTime, nullable=True),
    Index(None, "series_id", "frozen_at"),
    comment="frozen references",
)

alerts = Table(
    "alerts",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("series_id", ForeignKey("series.id"), nullable=True),  # none: it is about the monitor itself
    Column("rule", String(MAX_RULE), nullable=False),
    Column("firing", Boolean, nullable=False),
    Column("raised_at", UtcDateTime, nullable=False),
    Column("resolved_at", UtcDateTime, nullable=True),
    Column("onset", UtcDateTime, nullable=False),
    Column("onset_lo", UtcDateTime, nullable=False),
    Column("onset_hi", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("values", JSON, nullable=False),
    Column("telling_turns", JSON, nullable=False),
    Column("severity", String(8), nullable=True),
    Column("told_at", UtcDateTime, nullable=True),
    Column("acknowledged_at", UtcDateTime, nullable=True),
    Column("acknowledged_by", String(MAX_NAME), nullable=True),
    Index(None, "series_id", "raised_at"),
    comment="what drifted, since when, and which turns show it",
)

dead_letters = Table(
    "dead_letters",
    METADATA,
    Column("offset_id", ForeignKey("offsets.id"), primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", String(512), nullable=False),
    Column("payload_hash", LargeBinary(16), nullable=True),
    Column("seen_at", UtcDateTime, nullable=False, server_default=func.current_timestamp()),
    comment="what could not be counted, where it stands and why; kind is 'bad' or 'duplicate'",
)

readings = Table(
    "readings",
    METADATA,
    Column("series_id", _ID, primary_key=True, autoincrement=False),
    Column("t", UtcDateTime, nullable=True),
    Column("last_event", UtcDateTime, nullable=True),
    Column("values", JSON, nullable=False),
    comment="what rules compare: the latest figures of a series, each (mean, low, high) (monitor.readings)",
)

alert_states = Table(
    "alert_states",
    METADATA,
    Column("rule", String(MAX_RULE), primary_key=True),
    Column("series_id", _ID, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("alert_id", String(32), nullable=True),
    Column("memory", JSON, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    comment="what the state machine of a rule and a series (0: the monitor) goes on from (alerts.machine)",
)

alert_events = Table(
    "alert_events",
    METADATA,
    _id(),
    Column("alert_id", String(32), nullable=True),
    Column("rule", String(MAX_RULE), nullable=False),
    Column("series_id", _ID, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("target", String(MAX_RULE), nullable=True),
    Index(None, "alert_id", "id"),
    Index(None, "at"),
    comment="every decision about an alert and why: state, notify, suppressed, ack, delivery",
)

silences = Table(
    "silences",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("matchers", JSON, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("created_by", String(MAX_NAME), nullable=False),
    Column("comment", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    Index(None, "ends_at"),
    comment="alerts that nobody is told of for a time",
)

outbox = Table(
    "outbox",
    METADATA,
    Column("target", String(MAX_RULE), primary_key=True),
    Column("alert_id", String(32), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("severity", String(8), nullable=False),
    Column("note", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=True),  # none: there is nothing to send
    Column("attempts", Integer, nullable=False),
    Column("lease_until", UtcDateTime, nullable=True),
    Column("may_have_arrived", Boolean, nullable=False),
    Column("sent_status", String(16), nullable=True),
    Column("sent_severity", String(8), nullable=True),
    Column("sent_revision", Integer, nullable=False),
    Column("sent_at", UtcDateTime, nullable=True),
    Column("last_error", String(512), nullable=True),
    Index(None, "target", "due_at"),
    Index(None, "alert_id"),
    comment="what a target is to know of an alert, and what it was told last; newer replaces older",
)

reports = Table(
    "reports",
    METADATA,
    Column("week", String(8), primary_key=True),
    Column("compare", String(16), primary_key=True),
    Column("scope", String(32), primary_key=True),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("version", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("sent", JSON, nullable=False),
    comment="weekly reports, with all that a rendering needs (monitor.report.model)",
)
