"""Coverage of the 90 % intervals of alignment work, rates and irreversibility on simulated trajectories.

    python benchmarks/gamma.py [--trajectories 500] [--seed 1] [--case NAME] [--json]

Trajectories follow design 3.4's dynamics with known r, gamma and D (monitor/second_law.py, exact), are seen at random
times, and each time as a multinomial sample of turns. `coverage` returns the same rows to other programs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.coverage import Answers, sums_of
from classifiers import linear
from monitor.alignment_work import WorkFilter, log_odds
from monitor.baseline import BaselineRule
from monitor.buckets import Bucket
from monitor.entropy import Quantifier, entropy
from monitor.estimates import Estimate, Result
from monitor.irreversibility import irreversibility, production
from monitor.paired_work import Stressed, paired
from monitor.relaxation import decay_rate, held_level, restoring_rate
from monitor.second_law import simulate, softmax
from monitor.state import SeriesState
from monitor.store.trajectories import point_row
from monitor.trajectory import MINUTES_PER_DAY, WINDOWS_MINUTES, Learned, Point, Settings, advance
from monitor.work_values import work_of

Floats = NDArray[np.float64]
START = 29_453_760
"""2026-01-01 00:00 UTC, minutes since 1970."""
Outcomes = Iterator[tuple[str, float, Result]]
"""(figure, truth, estimate) of one trajectory after another."""


@dataclass(frozen=True)
class Row:
    """How often intervals held the truth. `mean_value`, `mean_width` in the figure's units, over those not refused."""

    case: str
    figure: str
    truth: float
    trajectories: int
    refused: int
    coverage: float
    mean_value: float
    mean_width: float


def observed(p: Floats, turns: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """L and its variance from so many turns at each time; p is (T, 5)."""
    return log_odds(rng.binomial(turns, p[:, 0]) / turns, turns)


def stationary(
    n: int, rng: np.random.Generator, *, r: float, depth: float, d: float, days: float, points: int
) -> Outcomes:
    """A model held at L = depth: gamma with r known, and both from the one series."""
    gamma = r * depth
    for _ in range(n):
        t = np.sort(rng.uniform(0, days, points))
        p = softmax(simulate(t, r=r, gamma=gamma, diffusion=d, seed=rng)[0])
        level, variance = observed(p, 200, rng)
        yield "gamma, r known", gamma, held_level(t, level, variance, r=r).gamma
        both = held_level(t, level, variance)
        yield "r", r, both.r
        yield "gamma", gamma, both.gamma


def base_and_tuned(n: int, rng: np.random.Generator, *, r: float, d: float, days: float, points: int) -> Outcomes:
    """r from a base model's decay, then gamma of a model held at L = 2.5 with that r and its error."""
    gamma, start = 2.5 * r, np.array([3.0, 0, 0, 0, 0])
    for _ in range(n):
        t = np.sort(rng.uniform(0, days, points))
        base = softmax(simulate(t, r=r, gamma=0.0, diffusion=d, start=start, seed=rng)[0])
        rate = decay_rate(t, *observed(base, 200, rng))
        yield "r of the base's decay", r, rate
        t = np.sort(rng.uniform(0, 30, 120))
        held = softmax(simulate(t, r=r, gamma=gamma, diffusion=d, seed=rng)[0])
        if isinstance(rate, Estimate):
            yield "gamma, r from the base", gamma, held_level(t, *observed(held, 200, rng), r=rate).gamma


def restored(n: int, rng: np.random.Generator, *, kappa: float, sd: float, baseline: bool) -> Outcomes:
    """S itself an Ornstein-Uhlenbeck process about 0.6 nats, seen 120 times in 30 days with errors of 0.03 nats."""
    for _ in range(n):
        t = np.sort(rng.uniform(0, 30, 120))
        s = 0.6 + simulate(t, r=kappa, gamma=0.0, diffusion=kappa * sd**2, goals=1, seed=rng)[0, :, 0]
        variance = 0.03**2 * rng.uniform(0.5, 2, len(t))
        seen = s + np.sqrt(variance) * rng.standard_normal(len(t))
        yield "kappa", kappa, restoring_rate(t, seen, variance, baseline=0.6 if baseline else None)


def averaged(n: int, rng: np.random.Generator, *, kappa: float, window: float, windows: int) -> Outcomes:
    """The same S seen as means over windows that touch, of 0.02 nats of error: what stored points are."""
    parts = 12
    for _ in range(n):
        t = np.arange(windows * parts) * window / parts
        s = simulate(t, r=kappa, gamma=0.0, diffusion=kappa * 0.1**2, goals=1, seed=rng)[0, :, 0]
        seen = 0.6 + s.reshape(windows, parts).mean(axis=1) + 0.02 * rng.standard_normal(windows)
        ends = (1 + np.arange(windows)) * window
        yield "kappa", kappa, restoring_rate(ends, seen, np.full(windows, 0.02**2), window=window)


def watched(
    n: int, rng: np.random.Generator, *, depth: float, turns: int, confusion: str, days: int = 24, daily: int = 4
) -> Outcomes:
    """gamma_eff and depth as `watch` tells them: turns judged with errors, buckets, baseline, points, work_of.

    confusion : of the deployment: "shipped", another one each time, as far from the shipped calibration as that says;
        "calibration", the shipped one's own.
    """
    calibration = linear.load().calibration
    quantifier, answers, r = Quantifier(calibration), Answers(calibration), 0.5
    rule, settings = BaselineRule.parse("500"), Settings(min_window_turns=60)
    for _ in range(n):
        own = answers.confusion(rng) if confusion == "shipped" else calibration.mean
        t = np.arange(days * daily) / daily
        p = softmax(simulate(t, r=r, gamma=r * depth, diffusion=0.05, seed=rng)[0])
        buckets = [
            Bucket(START + round(at * MINUTES_PER_DAY) + 30, sums_of(answers.of(rng, own, shares, turns)))
            for at, shares in zip(t, p, strict=True)
        ]
        since, points, lens = math.inf, [], quantifier
        for o in advance(SeriesState("v"), [], buckets, quantifier, rule, settings):
            if isinstance(o, Learned):
                since = o.baseline.last_minute + 1
                lens = quantifier.given(o.baseline.sums, settings.baseline_aligned_at_least)
            elif isinstance(o, Point) and o.t > since:
                points.append(point_row(1, "v", o))
        windows = {m: [x for x in points if x["window_minutes"] == m] for m in WINDOWS_MINUTES}
        found = work_of(windows[MINUTES_PER_DAY][-1], windows, 2 * r, 0.0, fits=lens is not quantifier)
        yield "gamma_eff", r * depth, found.gamma
        aligned = p[-daily:, 0].mean()
        yield "depth", float(np.log(4 * aligned / (1 - aligned)) / np.log(5)), found.depth


def followed(n: int, rng: np.random.Generator, *, wander: float) -> Outcomes:
    """gamma_eff(t) at the end of 30 days, gamma wandering by `wander` nats of equilibrium in a relaxation time."""
    r = 0.5
    for _ in range(n):
        t = np.sort(rng.uniform(0, 30, 240))
        steps = rng.standard_normal(len(t)) * np.sqrt(r * np.diff(t, prepend=t[0]))
        gamma = r * (2.5 + wander * np.cumsum(steps))
        p = softmax(simulate(t, r=r, gamma=gamma, diffusion=0.05, seed=rng)[0])
        work = WorkFilter(r)
        for at, level, variance in zip(t, *observed(p, 100, rng), strict=True):
            work.update(float(at), float(level), float(variance))
        yield "gamma_eff now", float(gamma[-1]), work.gamma()


def stressed(n: int, rng: np.random.Generator, *, conversations: int, linked: bool) -> Outcomes:
    """Base and tuned variants under the same stress, one-hot judgements; the truth is that of infinitely many."""
    turns, r = 12, 0.15
    t = np.arange(turns, dtype=np.float64)
    start = np.array([4.0, 0, 0, 0, 0])

    def shares(gamma: float, noise: Floats) -> Floats:
        mean = start * np.exp(-r * t)[:, None]
        mean[:, 0] += gamma / r * -np.expm1(-r * t)
        return softmax(mean + noise[:, None, :])

    many = 0.5 * np.random.default_rng(0).standard_normal((200_000, 5))
    s = [entropy(shares(g, many).mean(axis=0)) for g in (0.0, 0.5)]
    centred = t - t.mean()
    rate = float((s[0] - s[1]) @ centred / (centred @ centred))
    total, suppression = float(s[0][-1] - s[1][-1]), float(1 - s[1].mean() / s[0].mean())
    for _ in range(n):
        noise = 0.5 * rng.standard_normal((2, conversations, 5))
        if linked:
            noise[1] = noise[0]
        runs = []
        for g, e in zip((0.0, 0.5), noise, strict=True):
            p = shares(g, e).reshape(-1, 5)
            behaviour = (rng.uniform(size=len(p))[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
            names = [f"{'' if linked else g}c{c}" for c in range(conversations) for _ in range(turns)]
            runs.append(Stressed(names, np.tile(t, conversations), np.eye(5)[behaviour]))
        got = paired(*runs)
        yield "gamma_paired", rate, got.rate
        yield "total work", total, got.total
        yield "suppression", suppression, got.suppression


def chain(n: int, rng: np.random.Generator, *, cycle: float, transitions: int) -> Outcomes:
    """Behaviours at rest (0) or driven round a cycle, in conversations of ten transitions."""
    p = (1 - cycle) * np.full((5, 5), 0.2) + cycle * np.roll(np.eye(5), 1, axis=1)
    truth, cumulative = float(production(p)), p.cumsum(axis=1)[:, :-1]
    for i in range(n):
        at = rng.integers(5, size=transitions // 10)
        counts = np.zeros((5, 5))
        for _ in range(10):
            to = (rng.uniform(size=len(at))[:, None] > cumulative[at]).sum(axis=1)
            np.add.at(counts, (at, to), 1)
            at = to
        yield "entropy production", truth, irreversibility(counts, seed=i)


CASES: dict[str, Callable[[int, np.random.Generator], Outcomes]] = {
    "held, r 1, D 0.1, 30 d": partial(stationary, r=1.0, depth=2.5, d=0.1, days=30, points=120),
    "held, r 0.3, D 0.03, 30 d": partial(stationary, r=0.3, depth=2.5, d=0.03, days=30, points=120),
    "held, r 1, D 0.3, 60 d": partial(stationary, r=1.0, depth=2.5, d=0.3, days=60, points=200),
    "base r 0.3, D 0.01, 10 d": partial(base_and_tuned, r=0.3, d=0.01, days=10, points=40),
    "base r 0.1, D 0.005, 30 d": partial(base_and_tuned, r=0.1, d=0.005, days=30, points=120),
    "base r 1, D 0.2, 10 d": partial(base_and_tuned, r=1.0, d=0.2, days=10, points=60),
    "S, kappa 1, baseline known": partial(restored, kappa=1.0, sd=0.1, baseline=True),
    "S, kappa 1": partial(restored, kappa=1.0, sd=0.1, baseline=False),
    "S, kappa 0.3": partial(restored, kappa=0.3, sd=0.1, baseline=False),
    "S by the hour, kappa 4": partial(averaged, kappa=4.0, window=1 / 24, windows=720),
    "S by the day, kappa 0.5": partial(averaged, kappa=0.5, window=1.0, windows=60),
    "watched, L 3.5, 100 a day": partial(watched, depth=3.5, turns=25, confusion="shipped"),
    "watched, L 3.5, 300 a day": partial(watched, depth=3.5, turns=75, confusion="shipped"),
    "watched, L 4.5, 100 a day": partial(watched, depth=4.5, turns=25, confusion="shipped"),
    "watched, errs as known": partial(watched, depth=3.5, turns=25, confusion="calibration"),
    "followed, gamma constant": partial(followed, wander=0.0),
    "followed, gamma wanders 0.1": partial(followed, wander=0.1),
    "followed, gamma wanders 0.5": partial(followed, wander=0.5),
    "stress, 50 pairs": partial(stressed, conversations=50, linked=True),
    "stress, 100 unpaired": partial(stressed, conversations=100, linked=False),
    "chain at rest, 1000": partial(chain, cycle=0.0, transitions=1000),
    "chain driven 0.1, 1000": partial(chain, cycle=0.1, transitions=1000),
    "chain driven 0.4, 5000": partial(chain, cycle=0.4, transitions=5000),
}


def coverage(case: str, trajectories: int, seed: int) -> list[Row]:
    """One row a figure of the case. Deterministic under its seed."""
    by_figure: dict[str, list[tuple[float, Result]]] = {}
    for figure, truth, estimate in CASES[case](trajectories, np.random.default_rng(seed)):
        by_figure.setdefault(figure, []).append((truth, estimate))
    rows = []
    for figure, outcomes in by_figure.items():
        given = [(truth, e) for truth, e in outcomes if isinstance(e, Estimate)]
        held = sum(e.lo <= truth <= e.hi for truth, e in given)
        some = max(len(given), 1)
        rows.append(
            Row(
                case=case,
                figure=figure,
                truth=sum(truth for truth, _ in outcomes) / len(outcomes),
                trajectories=len(outcomes),
                refused=len(outcomes) - len(given),
                coverage=held / some,
                mean_value=sum(e.value for _, e in given) / some,
                mean_width=sum(e.hi - e.lo for _, e in given) / some,
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=500)
    parser.add_argument("--case", choices=CASES, action="append", help="only this one (repeatable)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    rows = [row for case in options.case or CASES for row in coverage(case, options.trajectories, options.seed)]
    print(f"{'case':28} {'figure':24} {'truth':>8} {'mean':>8} {'width':>8} {'coverage':>9} {'refused':>8}")
    for r in rows:
        figures = f"{r.truth:8.3f} {r.mean_value:8.3f} {r.mean_width:8.3f} {r.coverage:9.1%}"
        print(f"{r.case:28} {r.figure:24} {figures} {r.refused:5d}/{r.trajectories}")
    if options.json:
        print(
            json.dumps({"trajectories": options.trajectories, "seed": options.seed, "rows": [asdict(r) for r in rows]})
        )


if __name__ == "__main__":
    main()
