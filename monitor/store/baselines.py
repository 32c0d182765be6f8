"""Baselines in the store: the series' state holds the one in force, the table where it and all before it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, select, update

from monitor.baseline import Baseline
from monitor.buckets import Sums
from monitor.store import schema
from monitor.transcript import minute_of, time_of

LEARNED: Final = "learned"
"""The series' first traffic met the rule."""
FROZEN: Final = "frozen"
"""A person ended the learning."""
RELEARNED: Final = "relearned"
"""Learned anew, for a person's reason."""
MIGRATED: Final = "migrated"
"""Carried over to other classifier weights."""
STRESSED: Final = "stressed"
"""Frozen from a stress run (docs/stress.md)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a baseline came from.

    Attributes
    ----------
    kind : LEARNED, FROZEN, RELEARNED, MIGRATED or STRESSED.
    frozen_at : event time from which it is compared with.
    created_at : when it was made: event time when the series made it itself, else the clock of who did.
    provenance : facts of its making, as plain values.
    """

    kind: str
    frozen_at: datetime
    created_at: datetime
    reason: str = ""
    warning: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredBaseline:
    """A baseline with its origin; `replaced_at` is the event time until which it was in force, None while it is."""

    id: int
    classifier_version: str
    baseline: Baseline
    origin: Origin
    replaced_at: datetime | None


def add_baseline(connection: Connection, series_id: int, version: str, baseline: Baseline, origin: Origin) -> None:
    """Enter a baseline; an earlier one of the same series and classifier version is replaced by it."""
    replace_baseline(connection, series_id, version, origin.frozen_at)
    connection.execute(
        schema.baselines.insert().values(
            series_id=series_id,
            classifier_version=version,
            first_ts=time_of(baseline.first_minute),
            last_ts=time_of(baseline.last_minute),
            n=baseline.sums.n,
            sums=baseline.sums.pack(),
            bounds=baseline.bounds.tolist(),
            origin=origin.kind,
            reason=origin.reason,
            warning=origin.warning,
            provenance=dict(origin.provenance),
            frozen_at=origin.frozen_at,
            created_at=origin.created_at,
        )
    )


def replace_baseline(connection: Connection, series_id: int, version: str, at: datetime) -> None:
    """Mark the baseline that is in force as replaced from an event time on."""
    t = schema.baselines
    connection.execute(
        update(t)
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.replaced_at.is_(None))
        .values(replaced_at=at)
    )


def baselines(connection: Connection, series_id: int) -> list[StoredBaseline]:
    """All baselines that a series has had, oldest first."""
    t = schema.baselines
    return [
        StoredBaseline(
            id=r.id,
            classifier_version=r.classifier_version,
            baseline=Baseline(minute_of(r.first_ts), minute_of(r.last_ts), Sums.unpack(r.sums), np.array(r.bounds)),
            origin=Origin(r.origin, r.frozen_at, r.created_at, r.reason, r.warning, r.provenance),
            replaced_at=r.replaced_at,
        )
        for r in connection.execute(select(t).where(t.c.series_id == series_id).order_by(t.c.id))
    ]


def in_force(history: list[StoredBaseline], version: str) -> StoredBaseline | None:
    """The baseline of a classifier version that nothing has replaced."""
    kept = [b for b in history if b.classifier_version == version and b.replaced_at is None]
    return kept[-1] if kept else None
