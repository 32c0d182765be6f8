"""A baseline carried over to other classifier weights: both judge the same turns, and the new ones' answers are frozen.

Judgements of two versions never mix, and transcripts are not kept; so the turns come from a log, best that of the
baseline's own time.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Engine

from alerts.reasons import mixture_values
from classifiers.api import Classifier
from monitor.baseline import FEWEST, Baseline, changed_features
from monitor.baselines import Lens, change_series
from monitor.buckets import Sums, to_fixed_point, turn_terms
from monitor.config import Config
from monitor.engine import SeriesKey, series_of
from monitor.entropy import Quantifier
from monitor.errors import ConfigError
from monitor.recorded import recorded
from monitor.state import SeriesState
from monitor.store import reads
from monitor.store.baselines import MIGRATED, Origin, add_baseline, baselines, in_force
from monitor.store.trajectories import end_alerts, replace_state
from monitor.transcript import Event, Turn, minute_of, time_of, turns_of
from streams.files import FileSource
from streams.reasons import printable

BATCH: Final = 256
"""Turns judged at once."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """One series, judged by both; `skipped` says why it was left alone."""

    series: str
    stored: Baseline
    turns: int = 0
    in_range: bool = True
    sample_old: Sums | None = None
    baseline: Baseline | None = None
    unlike: tuple[str, ...] = ()
    skipped: str = ""


@dataclass(slots=True)
class _Sample:
    """At most `most` turns, those of the lowest hash: whatever the order of the log, the same turns."""

    most: int
    heap: list[tuple[int, int, Turn]] = field(default_factory=list)

    def add(self, rank: int, turn: Turn) -> None:
        entry = (-rank, turn.index, turn)
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, entry)
        elif entry[0] > self.heap[0][0]:
            heapq.heapreplace(self.heap, entry)

    @property
    def turns(self) -> list[Turn]:
        return [turn for _, _, turn in sorted(self.heap, key=lambda entry: -entry[0])]


def migrate(
    engine: Engine,
    sources: Sequence[FileSource],
    old: Classifier,
    new: Classifier,
    config: Config,
    *,
    now: datetime,
    sample: int,
    force: bool = False,
) -> list[Migrated]:
    """Give every series that has a baseline of the old weights one of the new ones, in force when these are used.

    Parameters
    ----------
    sample : turns a series that are judged, at most.
    force : migrate also from turns that the old weights judge otherwise than the stored baseline's.

    Raises
    ------
    ConfigError : nothing to carry over, or turns that are not like the baseline's; nothing is changed then.
    """
    if old.version == new.version:
        raise ConfigError(f"both weights are {old.version}; there is nothing to carry over")
    with engine.connect() as connection:
        stored = {s.key: b for s in reads.all_series(connection) if (b := _baseline_of(connection, s, old.version))}
    if not stored:
        raise ConfigError(f"no series has a frozen baseline of weights {old.version}; see: valuedrift baseline list")
    within = {key: _Sample(sample) for key in stored}
    anywhere = {key: _Sample(sample) for key in stored}
    seen: set[int] = set()
    for turn in _turns(sources, config, now):
        key = series_of(turn.event, config.input.series_by)
        rank = _rank(turn)
        if key not in stored or rank in seen:
            continue
        seen.add(rank)
        anywhere[key].add(rank, turn)
        if stored[key].first_minute <= minute_of(turn.event.ts) <= stored[key].last_minute:
            within[key].add(rank, turn)
    found = [_rejudge(key, stored[key], within[key].turns, anywhere[key].turns, old, new) for key in sorted(stored)]
    unlike = [m for m in found if m.unlike]
    if unlike and not force:
        raise ConfigError(
            "these turns are not like the baseline's, by the old weights' own judgement: "
            + "; ".join(f"{printable(m.series)} ({', '.join(m.unlike)})" for m in unlike)
            + "; give a log of the baseline's time, or --force; nothing was changed"
        )
    if all(m.skipped for m in found):
        raise ConfigError("; ".join(f"{printable(m.series)}: {m.skipped}" for m in found) + "; nothing was changed")
    for m in found:
        if m.baseline is not None:
            _keep(engine, m, m.baseline, old.version, new.version, [s.name for s in sources], now)
    return found


def _baseline_of(connection: Connection, series: reads.StoredSeries, version: str) -> Baseline | None:
    """The series' baseline of a classifier version: the one in force, or that of weights used before."""
    state = None if series.state is None else SeriesState.unpack(series.state)
    if state is not None and state.classifier_version == version:
        return state.baseline
    stored = in_force(baselines(connection, series.id), version)
    return None if stored is None else stored.baseline


def _turns(sources: Iterable[FileSource], config: Config, now: datetime) -> Iterator[Turn]:
    """The turns of a log that are to be judged; lines that cannot be read are passed over."""
    for found in recorded(sources, config, now):
        if isinstance(found, Event):
            yield from turns_of(found)


def _rank(turn: Turn) -> int:
    name = f"{turn.event.event_id}\n{turn.index}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())


def _rejudge(
    key: SeriesKey, stored: Baseline, within: list[Turn], anywhere: list[Turn], old: Classifier, new: Classifier
) -> Migrated:
    in_range = len(within) >= FEWEST
    turns = within if in_range else anywhere
    if len(turns) < FEWEST:
        return Migrated(key.name, stored, len(turns), skipped=f"{len(turns)} turns in the log, {FEWEST} are needed")
    by_old, by_new = sums_of(turns, old), sums_of(turns, new)
    minutes = [minute_of(t.event.ts) for t in turns]
    return Migrated(
        key.name,
        stored,
        len(turns),
        in_range,
        by_old,
        Baseline.freeze(min(minutes), max(minutes), by_new),
        tuple(changed_features(stored.sums, by_old)),
    )


def sums_of(turns: Sequence[Turn], classifier: Classifier) -> Sums:
    """What a classifier's judgements of these turns add up to."""
    sums = Sums.zero()
    for start in range(0, len(turns), BATCH):
        batch = turns[start : start + BATCH]
        judged = classifier.classify(batch)
        weights = np.array([1.0 / t.event.sample_rate for t in batch])
        sums = sums + Sums.of(turn_terms(to_fixed_point(judged.probabilities), weights, judged.doubt))
    return sums


def _keep(
    engine: Engine, m: Migrated, baseline: Baseline, old: str, new: str, sources: Sequence[str], now: datetime
) -> None:
    """Into the state when the new weights are in use already, else into the table, where their first step finds it."""

    def make(connection: Connection, series: reads.StoredSeries, state: SeriesState) -> None:
        used = state.classifier_version == new
        at = time_of(state.next_minute if used else m.stored.last_minute + 1)
        if used:
            state.adopt(baseline, state.next_minute)
        replace_state(connection, series.id, series.state, state)
        where = "of the baseline's own time" if m.in_range else "not of the baseline's time"
        forced = f"its turns are unlike the old baseline's: {', '.join(m.unlike)}" if m.unlike else ""
        origin = Origin(
            MIGRATED,
            at,
            now,
            f"{m.turns} turns, {where}, judged again",
            forced,
            {
                "from": old,
                "to": new,
                "turns": m.turns,
                "in_range": m.in_range,
                "source": printable(", ".join(sources), 1024),
            },
        )
        add_baseline(connection, series.id, new, baseline, origin)
        if used:
            end_alerts(connection, series.id, at, f"baseline carried over from weights {old}")

    change_series(engine, m.series, make)


def values(m: Migrated, old: Classifier, new: Classifier, aligned_at_least: float) -> dict[str, Any]:
    """What became of a series: its mixture as stored, and of these turns by the old weights and by the new."""
    out: dict[str, Any] = {"series": m.series, "turns": m.turns, "in_range": m.in_range, "skipped": m.skipped}
    if m.baseline is not None and m.sample_old is not None:
        before = Lens(old.version, Quantifier(old.calibration), aligned_at_least).on(m.stored)
        after = Lens(new.version, Quantifier(new.calibration), aligned_at_least).on(m.baseline)
        out |= {
            "stored": mixture_values(before.estimate(m.stored.sums)),
            "sample_old": mixture_values(before.estimate(m.sample_old)),
            "sample_new": mixture_values(after.estimate(m.baseline.sums)),
            "unlike": list(m.unlike),
        }
    return out
