"""A baseline frozen from a stress run: what a series is compared with from its first turn on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import numpy as np
from sqlalchemy import Connection, Engine

from monitor.baseline import FEWEST, Baseline, changed_features, unsteady
from monitor.baselines import Made, change_series, checked_reason
from monitor.engine import SeriesKey
from monitor.entropy import Quantifier
from monitor.errors import ConfigError
from monitor.estimates import Estimate, Refusal, Result
from monitor.state import SeriesState
from monitor.store import reads, schema
from monitor.store.baselines import STRESSED, Origin, add_baseline
from monitor.store.database import insert, writing
from monitor.store.trajectories import end_alerts, replace_state
from monitor.stress.result import HARMLESS, POOLED, StressResult, estimate_values, production_rate
from monitor.transcript import MAX_NAME, time_of
from streams.reasons import printable


def baseline_of(result: StressResult, suites: Sequence[str]) -> tuple[Baseline, str]:
    """The baseline of a result's turns in these suites, and a warning where later turns differ from earlier ones.

    Raises
    ------
    ConfigError : a suite it does not have, or fewer than 50 turns.
    """
    wanted = suites or [s for s in HARMLESS if s in result.names]
    missing = [s for s in wanted if s not in result.names]
    if missing or not wanted:
        what = f"no suite {printable(', '.join(missing), 100)}" if missing else "no suite without pressure"
        raise ConfigError(f"the result has {what}; --suite may name {printable(', '.join(result.names))}")
    rows = np.concatenate([result.rows(s) for s in dict.fromkeys(wanted)])
    if len(rows) < FEWEST:
        raise ConfigError(f"the result has {len(rows)} turns of these suites; a baseline needs {FEWEST}")
    minutes = np.array(result.turns.minute)[rows]
    index = np.array(result.turns.index)[rows]
    late = index > np.median(index)
    changed = changed_features(result.sums(rows[~late]), result.sums(rows[late]))
    return Baseline.freeze(int(minutes.min()), int(minutes.max()), result.sums(rows)), unsteady(changed)


def sigma_0(reference: StressResult, quantifier: Quantifier) -> Result:
    """Rate at which S of a variant without alignment work rises under stress, nats a turn, all suites pooled.

    Refused where it does not surely rise: there is then no production for work to hold back.
    """
    found = production_rate(reference, POOLED, quantifier)
    if isinstance(found, Estimate) and found.lo <= 0:
        return Refusal(f"S of {printable(reference.model)} does not surely rise under this stress")
    return found


def from_stress(
    engine: Engine,
    name: str,
    result: StressResult,
    *,
    suites: Sequence[str] = (),
    reference: tuple[StressResult, Result] | None = None,
    reason: str,
    new: bool,
    now: datetime,
) -> Made:
    """Compare a series with a stress run's turns: from now on, or where it is `new` from its first turn on.

    Parameters
    ----------
    reference : the result of a variant without alignment work, and its `sigma_0`; kept with the baseline.
    new : the series need not exist; `name` is deployment/model then.

    Raises
    ------
    ConfigError : no such series, a result without enough turns, or a series judged with other weights.
    """
    reason = checked_reason(reason)
    baseline, warning = baseline_of(result, suites)
    provenance: dict[str, Any] = {
        "source": result.source,
        "model": result.model,
        "suites": list(suites) or [s for s in HARMLESS if s in result.names],
        "turns": baseline.sums.n,
    }
    if reference is not None:
        provenance |= {"sigma_0": estimate_values(reference[1]), "sigma_0_from": reference[0].model}
    if new:
        _create(engine, name)

    def begin() -> SeriesState:
        return SeriesState(result.classifier, next_minute=baseline.last_minute + 1)

    def make(connection: Connection, series: reads.StoredSeries, state: SeriesState) -> Made:
        if state.classifier_version != result.classifier:
            raise ConfigError(
                f"series {printable(series.key.name)} is judged with weights {state.classifier_version}, the result "
                f"with {result.classifier}; judge its transcripts anew: valuedrift stress --from"
            )
        at = time_of(state.next_minute)
        state.adopt(baseline, state.next_minute)
        replace_state(connection, series.id, series.state, state)
        origin = Origin(STRESSED, at, now, reason, warning, provenance)
        add_baseline(connection, series.id, result.classifier, baseline, origin)
        ended = end_alerts(connection, series.id, at, reason)
        return Made(series.key.name, state, baseline, origin, ended)

    return change_series(engine, name, make, begin)


def _create(engine: Engine, name: str) -> None:
    """Enter a series that no turn has come of yet, unless it is there."""
    deployment, _, model = name.partition("/")
    key = SeriesKey(unquote(deployment), unquote(model))
    if key.name != name or not all(0 < len(part) <= MAX_NAME and "\0" not in part for part in key[:2]):
        raise ConfigError(f"--new: write the series as deployment/model, not {printable(name, 100)}")
    with writing(engine) as connection:
        row = {"deployment": key.deployment, "model": key.model, "labels": json.dumps(key.labels)}
        connection.execute(insert(schema.series, connection).values(row).on_conflict_do_nothing())
