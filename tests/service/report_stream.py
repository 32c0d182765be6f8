"""Traffic for reports, through the store's own writer: turns of a classifier of known confusion, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import Engine

from monitor.baseline import Baseline, BaselineRule
from monitor.buckets import Sums, to_fixed_point, turn_terms
from monitor.engine import Judged, series_of
from monitor.entropy import Quantifier
from monitor.steps import Stepper
from monitor.store import reads
from monitor.store.baselines import LEARNED, Origin, add_baseline
from monitor.store.database import writing
from monitor.store.ledger import Arrival
from monitor.store.writes import StoredText
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import Settings
from monitor.transcript import Event, Message, Turn, minute_of
from tests.store_cases import writer
from tests.unit.core_cases import HEALTHY, Floats, answers, quantifier, sums

VERSION = "known"
WEEK = timedelta(days=7)
START = datetime(2026, 11, 9, tzinfo=UTC)
"""Of 2026-W46."""
LATER = START + 2 * WEEK
"""A clock at which that week is over."""


def put(
    engine: Engine,
    deployment: str,
    start: datetime,
    q: Floats,
    *,
    span: timedelta = WEEK,
    routes: Sequence[str] = (),
    version: str = VERSION,
    model: str = "m",
    excerpts: bool = False,
) -> None:
    """Turns of these probabilities, evenly over [start, start + span), each with a `route` where routes are given."""
    name = f"{deployment}-{start.isoformat()}-{version}"
    some = [
        Event(
            event_id=f"{name}-{i}",
            ts=start + span * ((i + 0.5) / len(q)),
            deployment=deployment,
            model=model,
            conversation_id=f"c-{i}",
            messages=(Message("user", "q"), Message("assistant", "a")),
            labels={"route": routes[i]} if routes else {},
        )
        for i in range(len(q))
    ]
    fixed, doubt, ones = to_fixed_point(q), np.full(len(q), 0.1), np.ones(len(q))
    judged = Judged(
        turns=[Turn(e, 0, e.messages[:1], e.messages[1].content) for e in some],
        series=[series_of(e) for e in some],
        minutes=[minute_of(e.ts) for e in some],
        q=fixed,
        factors=np.zeros((len(q), 5), dtype=np.int64),
        doubt=doubt,
        terms=turn_terms(fixed, ones, doubt),
        version=version,
        tier="fast",
    )
    to = writer(engine, name)
    texts = [StoredText(e.ts, e.event_id, 0, "asked this", "said that") for e in some] if excerpts else []
    arrivals = [Arrival(e, i + 1, 100 * i, 100) for i, e in enumerate(some)]
    to.write(arrivals, judged, [], texts=texts, position=100 * len(q), line=len(q), fingerprint="f", format="canonical")


def turns(seed: int, n: int, mixture: Floats = HEALTHY) -> Floats:
    return answers(np.random.default_rng([seed, n]), mixture, n)


def baseline(
    engine: Engine, deployment: str, q: Floats, *, frozen_at: datetime = START - 3 * WEEK, version: str = VERSION
) -> Sums:
    """Give a series a baseline of turns of these probabilities."""
    of = sums(q)
    first = minute_of(frozen_at) - 7 * 1440
    with writing(engine) as connection:
        series_id = next(s.id for s in reads.all_series(connection) if s.key.deployment == deployment)
        add_baseline(
            connection,
            series_id,
            version,
            Baseline.freeze(first, minute_of(frozen_at) - 1, of),
            Origin(LEARNED, frozen_at, frozen_at),
        )
    return of


def stepper(engine: Engine, lens: Quantifier | None = None) -> Stepper:
    return Stepper(
        engine, lens or quantifier(), VERSION, BaselineRule.parse("300"), Settings(baseline_aligned_at_least=0.6)
    )


def one_hot(behaviour: str, n: int = 1) -> Floats:
    """Turns of which the classifier is sure."""
    return np.tile(np.eye(len(BEHAVIOURS))[BEHAVIOURS.index(behaviour)], (n, 1))
