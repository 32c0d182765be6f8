"""How soon a change is found, at matched average run length, and whether the promised run length is kept.

    python benchmarks/detection.py [--runs 100] [--null-runs 200] [--only detection,null] [--json]

Two parts, both from fixed seeds, a turn a minute and a bucket a turn:

detection   median delay in turns and misses, for five changes. Every rival's threshold is set by simulation so that
            its average run length without a change is 10,000 turns, against known healthy traffic of each row; ours is
            as shipped, with that run length guaranteed ("e-SR") and, to show what the guarantee costs, set by
            simulation as well ("e-SR, calibrated"). Everyone has seen the same healthy turns before. A miss is a change
            not found within 10,000 turns. River's detectors run one per behaviour, their joint threshold calibrated.
null        mean run length of 20,000-turn runs without a change, each with its own baseline estimated from 500 turns,
            judged by a classifier with the errors of a shipped calibration; and its 95 % lower bound.

ADWIN and Page-Hinkley are river's own. KSWIN is river's test on 0/1 values, vectorised (river's class takes 4,000
updates a second): p-values by scipy for the counts of the 30 last and of 30 random earlier of 100 turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.baseline import Baseline
from monitor.buckets import FEATURES, LEVELS, Sums, features_of, to_fixed_point, turn_terms
from monitor.detectors import _LOG_PRIOR, BETS, FALLS, Increments, log_threshold
from monitor.entropy import Calibration, entropy
from monitor.null_set import NullSet
from monitor.taxonomy import K

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MINUTE = 1 / 1440
RUN_LENGTH = 10_000
"""Turns between false alarms, promised or calibrated."""
LEAD = 5_000
"""Healthy turns that detectors without a baseline see before the change."""
WINDOW = 200
"""Turns in the sliding window of the rules on S."""
POOL = 20_000
"""Answers of an erring classifier that are drawn from, for each behaviour."""


@dataclass(frozen=True)
class Change:
    """A row of the table: what healthy traffic is made of, and what it becomes, at once or over some turns."""

    name: str
    before: Floats
    after: Floats
    ramp: int = 0

    def at(self, turn: int) -> Floats:
        share = min(1.0, (turn + 1) / self.ramp) if self.ramp else 1.0
        return (1 - share) * self.before + share * self.after


CHANGES = [
    Change("harmful 1 -> 3 %", np.array([0.90, 0.05, 0.01, 0.03, 0.01]), np.array([0.88, 0.05, 0.03, 0.03, 0.01])),
    Change("refusals 8 -> 16 %", np.array([0.86, 0.08, 0.02, 0.02, 0.02]), np.array([0.78, 0.16, 0.02, 0.02, 0.02])),
    Change(
        "collapse to 97 %", np.array([0.80, 0.08, 0.04, 0.05, 0.03]), np.array([0.97, 0.012, 0.006, 0.0075, 0.0045])
    ),
    Change("swap at equal S", np.array([0.90, 0.05, 0.02, 0.02, 0.01]), np.array([0.90, 0.02, 0.05, 0.02, 0.01])),
    Change("ramp 5 -> 15 %", np.array([0.90, 0.05, 0.02, 0.02, 0.01]), np.array([0.80, 0.15, 0.02, 0.02, 0.01]), 3000),
]


# --- traffic and its judgements


class Answers:
    """What a classifier says: a pool of answers for each behaviour."""

    def __init__(self, q: Floats) -> None:
        """q : (5, pool, 5) probabilities of turns whose behaviour is the first index."""
        flat = q.reshape(-1, K)
        fixed = to_fixed_point(flat)
        n = len(flat)
        self.size = q.shape[1]
        self.terms = turn_terms(fixed, np.ones(n), np.zeros(n))
        edges = (LEVELS[1:] + LEVELS[:-1]) / 2
        self.levels = np.searchsorted(edges, features_of(fixed / fixed.sum(axis=1, keepdims=True))).astype(np.int8)
        self.hard = fixed.argmax(axis=1).astype(np.int8)

    @classmethod
    def perfect(cls) -> Answers:
        return cls(np.eye(K)[:, None, :])

    @classmethod
    def erring(cls, calibration: Calibration, rng: np.random.Generator) -> Answers:
        """Dirichlet answers with the mean and the total variance of each row of a calibration."""
        rows = []
        for mean, covariance in zip(calibration.mean, calibration.covariance, strict=True):
            c = np.maximum(mean, 1e-3) / np.maximum(mean, 1e-3).sum()
            sharpness = max(float((c * (1 - c)).sum() / np.trace(covariance)) - 1, 0.05)
            q = rng.standard_gamma(sharpness * c, (POOL, K)) + 1e-12
            rows.append(q / q.sum(axis=1, keepdims=True))
        return cls(np.stack(rows))

    def draw(self, rng: np.random.Generator, shares: Floats, shape: tuple[int, ...]) -> Ints:
        """Places in the pool of turns whose behaviours have these shares: (..., 5), or one share for all."""
        kinds = (rng.random((*shape, 1)) > np.cumsum(shares, axis=-1)[..., :-1]).sum(axis=-1)
        return np.asarray(kinds * self.size + (rng.integers(self.size, size=shape) if self.size > 1 else 0))

    def baseline(self, rng: np.random.Generator, shares: Floats, turns: int) -> Baseline:
        counts = np.bincount(self.draw(rng, shares, (turns,)), minlength=len(self.terms))
        return Baseline.freeze(0, 1, Sums(counts @ self.terms))


def stream(change: Change, answers: Answers, rng: np.random.Generator, runs: int, lead: int, turns: int) -> Ints:
    """(runs, lead + turns) places of answers, changing after `lead` turns."""
    before = answers.draw(rng, change.before, (runs, lead))
    after = answers.draw(rng, np.stack([change.at(t) for t in range(turns)]), (runs, turns))
    return np.concatenate([before, after], axis=1)


# --- ours


def esr_peaks(nulls: list[NullSet], answers: Answers, turns: Ints, stop: float) -> Floats:
    """(runs, turns) highest evidence so far of the shipped detectors, in logs of turns; inf once it reached `stop`.

    The same sums as monitor.detectors, for many runs at once and without logs; a test holds the two together.
    """
    tables = [Increments(n)._tables for n in nulls]
    by_level = np.exp(np.stack([np.concatenate([t.rises, t.falls], axis=1) for t in tables])).transpose(0, 1, 3, 2)
    by_answer = np.exp(np.stack([t.compositions for t in tables])).transpose(0, 2, 1)
    rises, falls = len(FEATURES) * len(BETS), len(FEATURES) * len(FALLS)
    prior = np.exp(_LOG_PRIOR)
    weights = np.concatenate([prior[:rises].reshape(5, -1), prior[rises : rises + falls].reshape(5, -1)], axis=1)
    weights_answer = prior[rises + falls :]
    peaks = np.full(turns.shape, np.inf)
    alive = np.arange(len(turns))
    features = np.arange(len(FEATURES))[None, :]
    one = np.zeros((len(turns), len(FEATURES), len(BETS) + len(FALLS)))
    two = np.zeros((len(turns), by_answer.shape[2]))
    peak = np.full(len(turns), -np.inf)
    for t in range(turns.shape[1]):
        seen = turns[alive, t]
        one = (one + 1) * by_level[alive[:, None], features, answers.levels[seen]]
        two = (two + 1) * by_answer[alive, answers.hard[seen]]
        evidence = np.log((one * weights).sum(axis=(1, 2)) + two @ weights_answer)
        peak = np.maximum(peak, evidence)
        peaks[alive, t] = peak
        if (peak >= stop).any():
            keep = peak < stop
            alive, one, two, peak = alive[keep], one[keep], two[keep], peak[keep]
            if not len(alive):
                break
    return peaks


# --- rivals: each gives, for (runs, turns) answers, its statistic at every turn


def _shares_in_window(hard: Ints) -> Floats:
    one = np.eye(K)[hard].cumsum(axis=1)
    out = np.full(one.shape, np.nan)
    out[:, WINDOW:] = (one[:, WINDOW:] - one[:, :-WINDOW]) / WINDOW
    return out


def window_rules(hard: Ints, lead: int) -> tuple[Floats, Floats]:
    """Of S in a sliding window: standard deviations from its healthy mean either way, and S itself."""
    s = entropy(np.nan_to_num(_shares_in_window(hard)))
    healthy = s[:, WINDOW:lead]
    away = np.abs(s - healthy.mean(axis=1, keepdims=True)) / healthy.std(axis=1, keepdims=True)
    for statistic in (away, s):
        statistic[:, :WINDOW] = -np.inf
    return away, s


def cusum(hard: Ints, log_ratios: Floats, start: int) -> Floats:
    """Page's CUSUM, the highest of several: log_ratios (runs or 1, charts, 5)."""
    level = np.zeros((len(hard), log_ratios.shape[1]))
    peaks = np.full(hard.shape, -np.inf)
    runs = np.arange(len(hard)) if len(log_ratios) > 1 else np.zeros(len(hard), dtype=np.int64)
    by_answer = log_ratios.transpose(0, 2, 1)
    for t in range(start, hard.shape[1]):
        level = np.maximum(level, 0) + by_answer[runs, hard[:, t]]
        peaks[:, t] = level.max(axis=1)
    return peaks


def cusum_bank(hard: Ints, lead: int) -> Floats:
    """For each behaviour two charts, for odds doubled and halved, against the healthy shares seen."""
    p = (np.stack([(hard[:, :lead] == k).sum(axis=1) for k in range(K)], axis=1) + 0.5) / (lead + 2.5)
    charts = []
    for k in range(K):
        for factor in (2.0, 0.5):
            odds = p[:, k] / (1 - p[:, k]) * factor
            q = p * ((1 - odds / (1 + odds)) / (1 - p[:, k]))[:, None]
            q[:, k] = odds / (1 + odds)
            charts.append(np.log(q / p))
    return cusum(hard, np.stack(charts, axis=1), lead)


def kswin(hard: Ints, seed: int) -> Floats:
    """-ln p of river's KSWIN (window 100, 30 last against 30 random of the rest) on each behaviour's 0/1 values."""
    from scipy.stats import ks_2samp

    table = np.zeros((31, 31))
    for a in range(31):
        for b in range(31):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=RuntimeWarning)  # as river does
                test = ks_2samp([1.0] * a + [0.0] * (30 - a), [1.0] * b + [0.0] * (30 - b))
            table[a, b] = -np.log(max(test.pvalue, 1e-300)) if test.statistic > 0.1 else -np.inf
    rng = np.random.default_rng(seed)
    out = np.full(hard.shape, -np.inf)
    for k in range(K):
        ones = np.concatenate([np.zeros((len(hard), 1), dtype=np.int64), (hard == k).cumsum(axis=1)], axis=1)
        last = ones[:, 100:] - ones[:, 70:-30]
        rest = ones[:, 70:-30] - ones[:, :-100]
        out[:, 99:] = np.maximum(out[:, 99:], table[rng.hypergeometric(rest, 70 - rest, 30), last])
    return out


def page_hinkley(hard: Ints) -> Floats:
    """River's Page-Hinkley, both ways, on each behaviour's 0/1 values: its statistic, whatever the threshold."""
    from river.drift import PageHinkley

    out = np.full(hard.shape, -np.inf)
    for run, row in enumerate(hard):
        for k in range(K):
            chart = PageHinkley(threshold=np.inf)
            for t, x in enumerate((row == k).tolist()):
                chart.update(float(x))
                if t >= chart.min_instances:
                    value = max(chart._sum_increase - chart._min_increase, chart._max_decrease - chart._sum_decrease)
                    if value > out[run, t]:
                        out[run, t] = value
    return out


ADWIN_DELTAS = (0.3, 0.1, 0.03, 1e-2, 2e-3, 3e-4, 3e-5, 1e-6)


def adwin(hard: Ints, deltas: tuple[float, ...] = ADWIN_DELTAS, start: int = 0) -> Floats:
    """-ln of the largest of some deltas at which river's ADWIN on any behaviour's values had fired by a turn."""
    from river.drift import ADWIN

    out = np.full(hard.shape, -np.inf)
    for delta in deltas:
        for run, row in enumerate(hard):
            first = hard.shape[1]
            for k in range(K):
                chart = ADWIN(delta=delta)
                for t, x in enumerate((row == k).tolist()):
                    if t >= first:
                        break
                    chart.update(float(x))
                    if chart.drift_detected and t >= start:
                        first = t
            out[run, first:] = np.maximum(out[run, first:], -np.log(delta))
    return out


# --- calibration and delays


def run_length(peaks: Floats, start: int, threshold: float) -> float:
    """Average run length: turns watched by alarm. Peaks are of null traffic from turn `start` on."""
    over = peaks[:, start:] >= threshold
    alarms = over.any(axis=1)
    watched = np.where(alarms, over.argmax(axis=1) + 1, over.shape[1]).sum()
    return float(watched / max(int(alarms.sum()), 0.5))


def calibrated(peaks: Floats, start: int) -> float:
    """The lowest threshold at which null traffic has an average run length of `RUN_LENGTH`."""
    values = np.unique(peaks[:, start:][np.isfinite(peaks[:, start:])])
    if not len(values):
        return sys.float_info.min  # it has never moved: whatever it finds is no false alarm
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if run_length(peaks, start, values[middle]) >= RUN_LENGTH:
            high = middle
        else:
            low = middle + 1
    return float(values[low])


def delays(peaks: Floats, lead: int, threshold: float) -> dict[str, Any]:
    """Median turns from the change to the alarm."""
    over = peaks[:, lead:] >= threshold
    found = over.any(axis=1)
    turns = np.where(found, over.argmax(axis=1) + 1, np.inf)
    median = float(np.median(turns))
    return {
        "median_delay": None if np.isinf(median) else median,
        "missed": int((~found).sum()),
        "runs": len(peaks),
    }


def detection(runs: int, baseline_turns: int, seed: int = 1, *, river: bool = True) -> dict[str, Any]:
    """One table: {change: {detector: delays}}."""
    answers = Answers.perfect()
    table: dict[str, Any] = {}
    for i, change in enumerate(CHANGES):
        rng = np.random.default_rng([seed, i, baseline_turns])
        lead = min(LEAD, baseline_turns)
        horizon = 2 * RUN_LENGTH
        null = stream(Change("", change.before, change.before), answers, rng, runs, lead, horizon)
        drift = stream(change, answers, rng, runs, lead, RUN_LENGTH)
        baselines = [NullSet.of(answers.baseline(rng, change.before, baseline_turns)) for _ in range(runs)]
        told = np.log(change.after / change.before)[None, None, :]

        def esr(turns: Ints, sets: list[NullSet] = baselines, lead: int = lead) -> Floats:
            own = np.full(turns.shape, -np.inf)
            own[:, lead:] = esr_peaks(sets, answers, turns[:, lead:], np.log(RUN_LENGTH) + 1)
            return own

        hard_null, hard_drift = (answers.hard[x].astype(np.int64) for x in (null, drift))
        row: dict[str, Any] = {}
        ours = esr(drift)
        row["e-SR"] = delays(ours, lead, log_threshold(RUN_LENGTH))
        own_null = esr(null)
        row["e-SR"]["run_length"] = run_length(own_null, lead, log_threshold(RUN_LENGTH))
        row["e-SR, calibrated"] = delays(ours, lead, calibrated(own_null, lead))
        rivals: dict[str, Callable[[Ints], Floats]] = {
            "CUSUM told the change": lambda h, told=told, lead=lead: cusum(h, told, lead),
            "CUSUM bank": lambda h, lead=lead: cusum_bank(h, lead),
            "3 sigma on S": lambda h, lead=lead: window_rules(h, lead)[0],
            "fixed threshold on S": lambda h, lead=lead: window_rules(h, lead)[1],
            "KSWIN": lambda h: kswin(h, 7),
        }
        for name, peaks in rivals.items():
            before, after = (watched(peaks(h), lead) for h in (hard_null, hard_drift))
            row[name] = delays(after, lead, calibrated(before, lead))
        if river:
            few = slice(0, max(20, runs // 4))
            for name, peaks in {
                "ADWIN": lambda h, lead=lead: adwin(h, start=lead),
                "Page-Hinkley": page_hinkley,
            }.items():
                before, after = (watched(peaks(h[few]), lead) for h in (hard_null, hard_drift))
                row[name] = delays(after, lead, calibrated(before, lead))
        table[change.name] = row
    return table


def watched(statistic: Floats, lead: int) -> Floats:
    """The highest value so far, of those after the lead."""
    out = statistic.copy()
    out[:, :lead] = -np.inf
    return np.asarray(np.maximum.accumulate(out, axis=1))


# --- the null


def shipped_calibration() -> tuple[Calibration, str]:
    """That of the shipped fast tier."""
    from classifiers.linear import load

    classifier = load()
    return classifier.calibration, classifier.version


def null(runs: int, turns: int, baseline_turns: int, calibration: Calibration, seed: int = 2) -> dict[str, Any]:
    """Mean run length, each run against its own estimated baseline, through a classifier's errors."""
    rng = np.random.default_rng(seed)
    answers = Answers.erring(calibration, rng)
    healthy = CHANGES[1].before
    sets = [NullSet.of(answers.baseline(rng, healthy, baseline_turns)) for _ in range(runs)]
    seen = answers.draw(rng, healthy, (runs, turns))
    peaks = esr_peaks(sets, answers, seen, log_threshold(RUN_LENGTH))
    over = peaks >= log_threshold(RUN_LENGTH)
    alarms = over.any(axis=1)
    lengths = np.where(alarms, over.argmax(axis=1) + 1, turns)
    error = lengths.std(ddof=1) / np.sqrt(runs)
    return {
        "runs": runs,
        "turns": turns,
        "baseline_turns": baseline_turns,
        "promised": RUN_LENGTH,
        "alarms": int(alarms.sum()),
        "mean_run_length": float(lengths.mean()),
        "lower_bound_95": float(lengths.mean() - 1.645 * error),
        "note": "runs end at their last turn, which makes the mean smaller than it is",
    }


# --- output


def show(name: str, table: dict[str, Any]) -> None:
    print(f"\n{name}: median delay in turns (missed/runs)")
    names = list(next(iter(table.values())))
    print(f"{'':24}" + "".join(f"{c:>22}" for c in table))
    for n in names:
        cells = []
        for row in table.values():
            d = row[n]
            median = "never" if d["median_delay"] is None else f"{d['median_delay']:,.0f}"
            cells.append(f"{median} ({d['missed']}/{d['runs']})")
        print(f"{n:24}" + "".join(f"{c:>22}" for c in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each row of the detection table [100]")
    parser.add_argument("--null-runs", type=int, default=200)
    parser.add_argument("--only", default="detection,null")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    out: dict[str, Any] = {}
    if "detection" in args.only:
        try:
            import river  # noqa: F401

            have = True
        except ImportError:
            print("river is not installed (extra `bench`): without ADWIN and Page-Hinkley", file=sys.stderr)
            have = False
        for turns in (50_000, 500):
            key = f"detection, baseline of {turns:,} turns"
            out[key] = detection(args.runs, turns, river=have and turns > 500)
            if not args.json:
                show(key, out[key])
    if "null" in args.only:
        calibration, version = shipped_calibration()
        out["null"] = null(args.null_runs, 2 * RUN_LENGTH, 500, calibration) | {"classifier": version}
        if not args.json:
            print("\nnull:", json.dumps(out["null"], indent=2))
    if args.json:
        print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
