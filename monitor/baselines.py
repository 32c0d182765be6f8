"""The life of baselines in a database: listed, frozen, compared, learned anew, carried over to other weights.

What changes a series takes the lock that its steps take (`replace_state`), and writes its state, which holds the
baseline in force, and the table, which holds where it and those before it came from, in one transaction.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import numpy as np
from sqlalchemy import Connection, Engine

from alerts.reasons import interval_values, mixture_values, total
from monitor.baseline import FEWEST, Baseline, BaselineRule, changed_features, unsteady
from monitor.buckets import FEATURES, LEVELS, Bucket
from monitor.entropy import Quantifier, entropy, interval, kl_divergence
from monitor.errors import ConfigError, StoreError
from monitor.state import SeriesState
from monitor.steps import MOST_TRIES
from monitor.store import reads
from monitor.store.baselines import (
    FROZEN,
    RELEARNED,
    Origin,
    StoredBaseline,
    add_baseline,
    baselines,
    in_force,
    replace_baseline,
)
from monitor.store.database import shown, writing
from monitor.store.trajectories import MovedMeanwhile, end_alerts, replace_state
from monitor.summary import learning_values
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from monitor.transcript import time_of
from streams.reasons import printable

T = TypeVar("T")

MAX_REASON: Final = 500
"""Characters of a reason; it is kept in the series' state."""
SHOWN_NAMES: Final = 5
"""Series that an error about a name lists."""
_WORDS: Final = ((0.995, "almost certainly"), (0.975, "very likely"), (0.9, "probably"))
"""From which probability on a share, or S, is said to have moved one way. Where nothing has changed, chance alone says
so of 1, 5 and 20 in 100 shares."""


@dataclass(frozen=True, slots=True)
class Lens:
    """What mixtures are seen through: a classifier's quantifier, and how healthy baselines are taken to be."""

    version: str
    quantifier: Quantifier
    aligned_at_least: float

    def on(self, baseline: Baseline) -> Quantifier:
        """The quantifier for the deployment whose baseline this is."""
        return self.quantifier.given(baseline.sums, self.aligned_at_least)

    def sees(self, version: str, series: str) -> Lens:
        """Itself. Raises ConfigError when the series is judged by other weights."""
        if version != self.version:
            raise ConfigError(
                f"series {printable(series)} is judged with weights {version}, these are {self.version}; "
                "give the ones it is judged with (--tier, or classifier.weights)"
            )
        return self


@dataclass(frozen=True, slots=True)
class Made:
    """What freezing or learning anew made; `baseline` is None where learning has only begun."""

    series: str
    state: SeriesState
    baseline: Baseline | None
    origin: Origin
    alerts_ended: int = 0


def find_series(connection: Connection, name: str) -> reads.StoredSeries:
    """The series of a name as the summary prints it; its labels, and then its model, may be left out.

    Raises
    ------
    ConfigError : no series, or several; the nearest are named.
    """
    every = reads.all_series(connection)
    for match in (
        lambda s: s.key.name == name,
        lambda s: s.key._replace(labels=()).name == name,
        lambda s: name in (s.key.deployment, s.key.name.split("/")[0]),
    ):
        found = [s for s in every if match(s)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{printable(name)} names {len(found)} series: {_names([s.key.name for s in found])}")
    if not every:
        raise ConfigError("this database has no series yet; run: valuedrift watch SOURCE")
    near = difflib.get_close_matches(name, [s.key.name for s in every], n=SHOWN_NAMES, cutoff=0.0)
    raise ConfigError(f"no series {printable(name)}; nearest: {_names(near)}")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(printable(n) for n in names[:SHOWN_NAMES]) + more


# --- read


def list_values(engine: Engine, rule: BaselineRule) -> list[dict[str, Any]]:
    """Every series and where its baseline stands, as plain values; `rule` is that of series without their own."""
    with engine.connect() as connection:
        return [
            _standing(s, None if s.state is None else SeriesState.unpack(s.state), baselines(connection, s.id), rule)
            for s in reads.all_series(connection)
        ]


def _standing(
    series: reads.StoredSeries, state: SeriesState | None, history: list[StoredBaseline], rule: BaselineRule
) -> dict[str, Any]:
    version = None if state is None else state.classifier_version
    out: dict[str, Any] = {"series": series.key.name, "classifier": version}
    if state is None or state.baseline is None:
        out |= learning_values(SeriesState("") if state is None else state, rule)
        out["alerts"] = "off while learning"
        out["reason"] = "" if state is None else state.relearn_reason or ""
        out["since"] = None if state is None or state.learning_from is None else _iso(time_of(state.learning_from))
    else:
        stored = in_force(history, state.classifier_version)
        out |= {"state": "frozen", "alerts": "on", **_numbers(state.baseline)}
        # a state of before the table had a history
        out |= {"origin": "", "reason": "", "warning": ""} if stored is None else _provenance(stored)
    out["other_weights"] = [
        {"classifier": b.classifier_version, **_numbers(b.baseline), **_provenance(b)}
        for b in history
        if b.replaced_at is None and b.classifier_version != version
    ]
    return out


def _numbers(baseline: Baseline) -> dict[str, Any]:
    return {
        "from": _iso(time_of(baseline.first_minute)),
        "to": _iso(time_of(baseline.last_minute + 1)),
        "turns": baseline.sums.n,
    }


def _provenance(stored: StoredBaseline) -> dict[str, Any]:
    o = stored.origin
    return {
        "since": _iso(o.frozen_at),
        "until": _iso(stored.replaced_at),
        "origin": o.kind,
        "reason": o.reason,
        "warning": o.warning,
        "created_at": _iso(o.created_at),
        "provenance": dict(o.provenance),
    }


def show_values(engine: Engine, name: str, lens: Lens, rule: BaselineRule) -> dict[str, Any]:
    """All there is to know of a series' baseline, as plain values.

    The mixture and S are left out when the series is judged with weights other than those of `lens`.
    """
    with engine.connect() as connection:
        series = find_series(connection, name)
        history = baselines(connection, series.id)
    state = None if series.state is None else SeriesState.unpack(series.state)
    out = _standing(series, state, history, rule)
    if state is not None and state.baseline is not None:
        b = state.baseline
        means = b.sums.level_counts() @ LEVELS / b.sums.n
        out["detectors"] = {
            f: {"mean": round(float(m), 5), "bound": round(float(u), 5)}
            for f, m, u in zip(FEATURES, means, b.bounds, strict=True)
        }
        if state.classifier_version == lens.version:
            out["mixture"] = mixture_values(lens.on(b).estimate(b.sums))
    out["history"] = [
        {"classifier": h.classifier_version, **_numbers(h.baseline), **_provenance(h)} for h in reversed(history)
    ]
    return out


def compare_values(engine: Engine, name: str, window_minutes: int, lens: Lens) -> dict[str, Any]:
    """A series' baseline against the last window after it, as plain values.

    Raises
    ------
    ConfigError : still learning, no traffic since, or judged with other weights.
    """
    with engine.connect() as connection:
        series = find_series(connection, name)
        state = _state_of(series)
        lens.sees(state.classifier_version, series.key.name)
        baseline = state.baseline
        if baseline is None:
            raise ConfigError(f"series {printable(series.key.name)} has no baseline yet: it is still learning")
        # the baseline's own turns are not held against it
        start = max(state.next_minute - window_minutes, baseline.last_minute + 1)
        window = total(list(reads.buckets(connection, series.id, lens.version, start, state.next_minute)))
    if not window.n:
        raise ConfigError(f"series {printable(series.key.name)} has had no turn since its baseline to compare with it")
    quantifier = lens.on(baseline)
    before, after = quantifier.estimate(baseline.sums), quantifier.estimate(window)
    earlier, later = quantifier.pairs(baseline.sums, window)
    draws = later - earlier
    p = before.p + 1e-6
    return {
        "series": series.key.name,
        "classifier": lens.version,
        "window": {"from": _iso(time_of(start)), "to": _iso(time_of(state.next_minute)), "turns": window.n},
        "baseline": {**_numbers(baseline), **mixture_values(before)},
        "now": mixture_values(after),
        "kl_to_baseline": round(kl_divergence(after.p, p / p.sum()), 5),
        "changes": {b: _change_values(draws[:, k]) for k, b in enumerate(BEHAVIOURS)}
        | {"misaligned": _change_values(-draws[:, ALIGNED]), "S": _change_values(entropy(later) - entropy(earlier))},
        "changed_features": changed_features(baseline.sums, window),
    }


def _change_values(draws: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    up, down = float((draws > 0).mean()), float((draws < 0).mean())
    probability = max(up, down)
    sure = next((word for least, word in _WORDS if probability >= least), None)
    words = "no sign of a change" if sure is None else f"{sure} {'rose' if up > down else 'fell'}"
    return {**interval_values(interval(draws)), "probability": round(probability, 4), "in_words": words}


# --- change


def freeze(engine: Engine, name: str, *, reason: str | None, now: datetime) -> Made:
    """Freeze what a series has learned so far.

    Raises
    ------
    ConfigError : it has a baseline already, or has learned from fewer than 50 turns.
    """

    given = None if reason is None else checked_reason(reason)

    def make(connection: Connection, series: reads.StoredSeries, state: SeriesState) -> Made:
        shown_name = printable(series.key.name)
        if state.baseline is not None:
            raise ConfigError(f"series {shown_name} has a baseline; to begin anew: valuedrift baseline relearn")
        if state.learning.n < FEWEST or state.learning_from is None or state.last_minute is None:
            raise ConfigError(
                f"series {shown_name} has learned from {state.learning.n} turns; a baseline needs {FEWEST}"
            )
        seen = list(reads.buckets(connection, series.id, state.classifier_version, state.learning_from))
        baseline = Baseline.freeze(state.learning_from, state.last_minute, state.learning)
        at = time_of(state.next_minute)
        why = given or state.relearn_reason or ""
        origin = Origin(FROZEN, at, now, why, _halves_differ([b for b in seen if b.minute <= baseline.last_minute]))
        state.adopt(baseline, state.next_minute)
        replace_state(connection, series.id, series.state, state)
        add_baseline(connection, series.id, state.classifier_version, baseline, origin)
        return Made(series.key.name, state, baseline, origin)

    return change_series(engine, name, make)


def relearn(engine: Engine, name: str, *, reason: str, rule: str | None, now: datetime) -> Made:
    """Let go of a series' baseline, and of its alerts that stand; learn from what comes, or at once from a past range.

    Raises
    ------
    ConfigError : no reason, a rule that cannot be read, a range that is not over or has fewer than 50 turns.
    """
    reason = checked_reason(reason)
    wanted = None if rule is None else BaselineRule.parse(rule)

    def make(connection: Connection, series: reads.StoredSeries, state: SeriesState) -> Made:
        at = time_of(state.next_minute)
        baseline = None
        origin = Origin(RELEARNED, at, now, reason)
        if wanted is not None and wanted.start is not None and wanted.end is not None:
            seen = _range(connection, series, state, wanted.start, wanted.end)
            baseline = Baseline.freeze(seen[0].minute, seen[-1].minute, total(seen))
            origin = Origin(RELEARNED, at, now, reason, _halves_differ(seen), {"rule": rule})
            state.adopt(baseline, state.next_minute)
        else:
            state.relearn(reason, rule)
        replace_state(connection, series.id, series.state, state)
        if baseline is None:
            replace_baseline(connection, series.id, state.classifier_version, at)
        else:
            add_baseline(connection, series.id, state.classifier_version, baseline, origin)
        ended = end_alerts(connection, series.id, at, reason)
        return Made(series.key.name, state, baseline, origin, ended)

    return change_series(engine, name, make)


def checked_reason(reason: str) -> str:
    """A person's reason as it is kept. Raises ConfigError when it says nothing or is too long."""
    reason = printable(reason.strip(), MAX_REASON + 1)
    if not 0 < len(reason) <= MAX_REASON:
        raise ConfigError(f"--reason is to say why, in at most {MAX_REASON} characters")
    return reason


def _range(
    connection: Connection, series: reads.StoredSeries, state: SeriesState, start: datetime, end: datetime
) -> list[Bucket]:
    upto = time_of(state.next_minute)
    if end > upto:
        raise ConfigError(
            f"the range ends after the traffic of {printable(series.key.name)} so far ({upto:%Y-%m-%d %H:%M} UTC); "
            "to learn from what comes give turns or hours, such as 300+24h"
        )
    first, last = (math.ceil(t.timestamp() / 60) for t in (start, end))
    seen = list(reads.buckets(connection, series.id, state.classifier_version, first, last))
    n = total(seen).n
    if n < FEWEST:
        raise ConfigError(f"series {printable(series.key.name)} has {n} turns in this range; a baseline needs {FEWEST}")
    return seen


def _halves_differ(seen: Sequence[Bucket]) -> str:
    """The warning, if any, that the second half of these turns differs from the first."""
    turns = np.cumsum([b.sums.n for b in seen])
    cut = int(np.searchsorted(turns, turns[-1] / 2)) + 1
    return unsteady(changed_features(total(seen[:cut]), total(seen[cut:])))


def change_series(
    engine: Engine,
    name: str,
    make: Callable[[Connection, reads.StoredSeries, SeriesState], T],
    begin: Callable[[], SeriesState] | None = None,
) -> T:
    """Run a change of a series in one transaction, again whenever a watch has moved the series meanwhile.

    `begin` gives the state of a series that has not been followed yet; without it such a one is an error.
    """
    for _ in range(MOST_TRIES):
        with contextlib.suppress(MovedMeanwhile), writing(engine) as connection:
            series = find_series(connection, name)
            fresh = begin() if begin is not None and series.state is None else _state_of(series)
            return make(connection, series, fresh)
    raise StoreError(f"{shown(engine)}: series {printable(name)} keeps being moved on by another process; try again")


def _state_of(series: reads.StoredSeries) -> SeriesState:
    if series.state is None:
        raise ConfigError(
            f"series {printable(series.key.name)} has not been followed yet; run: valuedrift watch SOURCE"
        )
    return SeriesState.unpack(series.state)


def minutes_of(text: str) -> int:
    """`36h` or `7d` in minutes. Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d+)\s*([hd])\s*", text)
    if match is None or int(match[1]) < 1:
        raise ConfigError(f"window {text!r} is not understood; write hours or days, such as 24h or 7d")
    return int(match[1]) * (60 if match[2] == "h" else 1440)


def _iso(t: datetime | None) -> str | None:
    return None if t is None else t.isoformat().replace("+00:00", "Z")
