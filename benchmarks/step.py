"""What one closed minute of many series costs: all detectors and estimators, on one core.

    python benchmarks/step.py [--series 1000] [--hours 168] [--json]

Every series has a baseline of its own, three turns a minute, and a state that is unpacked before the step and packed
after it, as the store keeps it. Two kinds of minute are timed:

ordinary     detectors move on, the trend's cell fills.
closes_hour  the same, and the points of three windows (1 h, 24 h, 7 d) and an estimate for the trend. The buckets of
             the last `--hours` hours are in memory; reading them from a database comes on top and is not counted.

An hour has 59 of the former and one of the latter; `mean_seconds_a_minute` is their mean. Bounds: --series 1000 in less
than a second, a state of less than 16 kB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.baseline import Baseline, BaselineRule
from monitor.buckets import Bucket, Sums, to_fixed_point, turn_terms
from monitor.entropy import Calibration, Quantifier
from monitor.state import SeriesState
from monitor.taxonomy import K
from monitor.trajectory import Point, Settings, advance

Floats = NDArray[np.float64]

HEALTHY: Floats = np.array([0.93, 0.03, 0.01, 0.02, 0.01])
BASELINE_TURNS = 500
TURNS_A_MINUTE = 3
SHARPNESS = 2.0
"""A classifier's answer to a turn of behaviour y is Dirichlet with this times row y of its confusion."""
START = 29_453_760
"""2026-01-01 00:00 UTC, minutes since 1970."""
HOUR = 60
RULE, SETTINGS = BaselineRule.parse("500"), Settings()


def drawn(rng: np.random.Generator, calibration: Calibration, turns: int) -> Sums:
    """Healthy turns through the classifier's errors."""
    rows = calibration.mean[rng.choice(K, size=turns, p=HEALTHY)]
    q = rng.standard_gamma(SHARPNESS * rows) + 1e-12
    q /= q.sum(axis=1, keepdims=True)
    return Sums.of(turn_terms(to_fixed_point(q), np.ones(turns), np.full(turns, 0.1)))


@dataclass
class Fleet:
    """Packed states of many series just after the full hour `now`, and the buckets of their windows, shared by all."""

    quantifier: Quantifier
    states: list[bytes]
    recent: list[Bucket]
    now: int

    @classmethod
    def of(cls, calibration: Calibration, series: int, hours: int, rng: np.random.Generator) -> Fleet:
        now = START + 7 * 24 * HOUR
        end = now + HOUR - 1
        recent = [Bucket(m, drawn(rng, calibration, TURNS_A_MINUTE)) for m in range(end - hours * HOUR, end)]
        states = []
        for _ in range(series):
            state = SeriesState("v")
            state.adopt(Baseline.freeze(START - 100, START - 1, drawn(rng, calibration, BASELINE_TURNS)), START)
            states.append(state.pack())
        fleet = cls(Quantifier(calibration), states, recent, now)
        for minute in (now, now + 1):
            fleet.step([Bucket(minute, drawn(rng, calibration, TURNS_A_MINUTE)) for _ in range(series)])
        return fleet

    def step(self, fresh: Sequence[Bucket]) -> tuple[float, int]:
        """Seconds that a bucket of each series took, and the points that came of it."""
        points, until = 0, fresh[0].minute + 1
        started = time.perf_counter()
        for i, bucket in enumerate(fresh):
            state = SeriesState.unpack(self.states[i])
            for outcome in advance(state, self.recent, [bucket], self.quantifier, RULE, SETTINGS, closed_until=until):
                points += isinstance(outcome, Point)
            self.states[i] = state.pack()
        return time.perf_counter() - started, points


def measure(calibration: Calibration, series: int, hours: int, seed: int = 3) -> dict[str, Any]:
    """The two kinds of minute. Deterministic but for the times."""
    rng = np.random.default_rng(seed)
    fleet = Fleet.of(calibration, series, hours, rng)

    def buckets(minute: int) -> list[Bucket]:
        return [Bucket(minute, drawn(rng, calibration, TURNS_A_MINUTE)) for _ in range(series)]

    ordinary, _ = fleet.step(buckets(fleet.now + 2))
    # a cell for the trend that the last minute of the hour completes
    for i, data in enumerate(fleet.states):
        state = SeriesState.unpack(data)
        state.cell, state.cell_from = Sums(state.cell.values * HOUR // 3), fleet.now - 1
        fleet.states[i] = state.pack()
    closes, points = fleet.step(buckets(fleet.now + HOUR - 1))
    return {
        "series": series,
        "ordinary_seconds": ordinary,
        "closes_hour_seconds": closes,
        "mean_seconds_a_minute": (59 * ordinary + closes) / 60,
        "points": points,
        "bytes_of_state": max(map(len, fleet.states)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--hours", type=int, default=168, help="of buckets before the minute [168]")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    from classifiers import linear

    classifier = linear.load()
    found = measure(classifier.calibration, options.series, options.hours) | {"classifier": classifier.version}
    if options.json:
        print(json.dumps(found))
        return
    for name in ("ordinary_seconds", "closes_hour_seconds", "mean_seconds_a_minute"):
        print(f"{name:24} {found[name]:8.3f}   {1e3 * found[name] / options.series:8.3f} ms a series")
    print(f"{'bytes_of_state':24} {found['bytes_of_state']:8,}")


if __name__ == "__main__":
    main()
