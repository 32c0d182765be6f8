"""Judged events without a classifier, and all rows of a database, for tests of the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, Table, select

from monitor.buckets import MAX_WEIGHT, to_fixed_point, turn_terms
from monitor.engine import Judged, series_of
from monitor.store import schema
from monitor.store.ledger import Arrival
from monitor.store.writes import ChunkWriter, StoredReview, open_offset
from monitor.transcript import Event, Message, SecondJudgements, Turn, minute_of

START = datetime(2026, 3, 31, 23, 30, tzinfo=UTC)
VERSION = "v1"
KEY = b"k" * 32
LABELS = ("route", "language", "region")
"""Followed by `writer`; no event has the last one."""


def events(seed: int, n: int, *, series: int = 5, first: int = 0, step_seconds: float = 7.0) -> list[Event]:
    """Events of several series, in the order of time, over a turn of the month."""
    rng = np.random.default_rng(seed)
    return [
        Event(
            event_id=f"{seed}-{first + i}",
            ts=START + timedelta(seconds=step_seconds * (first + i)),
            deployment=f"deployment-{rng.integers(series)}",
            model="model",
            conversation_id=f"conversation-{i}",
            messages=(Message("user", "question"), Message("assistant", f"answer {i}")),
            labels={"route": f"/{(first + i) % 7}"} | ({"language": "de"} if i % 4 else {}),
            sample_rate=float(rng.choice([1.0, 0.3, 1 / MAX_WEIGHT])),
        )
        for i in range(n)
    ]


def judged(some: list[Event], seed: int = 0) -> Judged:
    """Judgements that depend on nothing but the event, with a second one of every fifth."""
    rows = [np.random.default_rng([seed, *e.event_id.encode()]) for e in some]
    q = to_fixed_point(np.array([r.dirichlet(np.ones(5)) for r in rows]))
    doubt = np.array([r.random() / 2 for r in rows])
    weights = np.array([1 / e.sample_rate for e in some])
    chosen = np.arange(0, len(some), 5)
    return Judged(
        turns=[Turn(e, 0, e.messages[:1], e.messages[1].content) for e in some],
        series=[series_of(e) for e in some],
        minutes=[minute_of(e.ts) for e in some],
        q=q,
        factors=np.array([r.integers(0, 4097, 5) for r in rows]),
        doubt=doubt,
        terms=turn_terms(q, weights, doubt),
        version=VERSION,
        tier="cascade",
        second=SecondJudgements(chosen, q[chosen] / 4096, doubt[chosen], np.full(len(chosen), 0.2), "second"),
    )


def review_of(event: Event) -> StoredReview:
    return StoredReview(event.event_id, 0, "aligned", 0.9, None, "judge", "r1", 0.05)


def writer(engine: Engine, source: str, max_series: int = 100) -> ChunkWriter:
    offset = open_offset(engine, source)
    return ChunkWriter(engine, offset, hash_key=KEY, series_by=(), max_series=max_series, labels=LABELS)


def write(to: ChunkWriter, some: list[Event], *, known: frozenset[str] = frozenset()) -> None:
    """One chunk; events that are `known` to be in the ledger are not judged, as in a watch."""
    line = to.offset.line
    arrivals = [Arrival(e, line + i + 1, 100 * (line + i), 100) for i, e in enumerate(some)]
    fresh = list({e.event_id: e for e in reversed(some) if e.event_id not in known}.values())[::-1]
    end = line + len(some)
    to.write(
        arrivals,
        judged(fresh) if fresh else None,
        [],
        reviews=[review_of(e) for e in fresh[:2]],
        position=100 * end,
        line=end,
        fingerprint="f",
        format="canonical",
    )


def contents(engine: Engine, *, leave_out: tuple[str, ...] = ("settings",)) -> dict[str, list[Any]]:
    """Every row of every table, in order, without the database's clock; series by name instead of number."""
    with engine.connect() as connection:
        t = schema.series
        names = {r.id: (r.deployment, r.model, r.labels) for r in connection.execute(select(t))}

        def rows(table: Table) -> list[Any]:
            kept = [c for c in table.c if c.name != "seen_at" and not (table.name == "series" and c.name == "id")]
            found = [
                tuple(names[v] if c.name == "series_id" else v for c, v in zip(kept, r, strict=True))
                for r in connection.execute(select(*kept))
            ]
            return sorted(found, key=repr)

        return {name: rows(table) for name, table in schema.METADATA.tables.items() if name not in leave_out}
