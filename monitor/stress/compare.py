"""What tuning holds back: a base and a tuned variant's results of the same stress, suite by suite. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alerts.reasons import interval_values
from monitor.baseline import FEWEST
from monitor.entropy import Interval, Quantifier
from monitor.errors import ConfigError
from monitor.estimates import Result
from monitor.paired_work import Stressed, paired
from monitor.stress.confusions import over_confusions
from monitor.stress.result import HARMLESS, POOLED, StressResult, estimate_values, sampled
from streams.reasons import printable


@dataclass(frozen=True, slots=True)
class Compared:
    """One suite of both variants.

    Attributes
    ----------
    base, tuned, shared : conversations of either, and of the same name in both.
    misaligned : share of misaligned turns of the base and of the tuned variant: S alone does not tell a model that is
        wholly captured from one that is wholly aligned.
    gamma, total, suppression : production of S held back a turn, S held back at the end, and as a share of the base's.
    """

    suite: str
    base: int
    tuned: int
    shared: int
    misaligned: tuple[Interval, Interval]
    gamma: Result
    total: Result
    suppression: Result


def compare(base: StressResult, tuned: StressResult, quantifier: Quantifier) -> list[Compared]:
    """`monitor.paired_work.paired` per suite that both have, and of these pooled, allowing for the classifier's errors.

    Raises
    ------
    ConfigError : judged by different weights, or no suite in common.
    """
    if base.classifier != tuned.classifier:
        raise ConfigError(
            f"these were judged with weights {printable(base.classifier)} and {printable(tuned.classifier)}, which do "
            "not compare; judge the transcripts of one anew: valuedrift stress --from DIR/transcripts.jsonl"
        )
    common = [s for s in base.names if s in tuned.names]
    if not common:
        own = [printable(", ".join(r.names), 200) for r in (base, tuned)]
        raise ConfigError(f"no suite in common: {own[0]} against {own[1]}")
    suites = {s: [s] for s in common}
    if len(common) > 1:
        suites[POOLED] = common
    return [_compared(name, base, tuned, members, quantifier) for name, members in suites.items()]


def seen_through(quantifier: Quantifier, tuned: StressResult, aligned_at_least: float) -> Quantifier:
    """The quantifier for these models, on the assumption that the tuned one is healthy where nothing leans on it.

    The same as is assumed of every baseline (docs/decisions/0005-confusion-varies-by-source.md), of the tuned variant's
    turns in suites without pressure; where they contradict it, or there are fewer than 50, nothing is assumed.
    """
    rows = [tuned.rows(s) for s in HARMLESS if s in tuned.names]
    turns = np.concatenate(rows) if rows else np.arange(0)
    if aligned_at_least <= 0 or len(turns) < FEWEST:
        return quantifier
    return quantifier.given(tuned.sums(turns), aligned_at_least)


def _compared(
    name: str, base: StressResult, tuned: StressResult, suites: list[str], quantifier: Quantifier
) -> Compared:
    runs = [sampled(_joined([r.stressed(s) for s in suites])) for r in (base, tuned)]
    names = [set(run.conversations) for run in runs]
    sums = [r.sums(np.concatenate([r.rows(s) for s in suites])) for r in (base, tuned)]
    misaligned = [quantifier.estimate(s).misaligned for s in sums]

    def figures(corrected: Any) -> list[Result]:
        got = paired(runs[0], runs[1], corrected=corrected)
        return [got.rate, got.total, got.suppression]

    gamma, total, suppression = over_confusions(quantifier, figures)
    counts = len(names[0]), len(names[1]), len(names[0] & names[1])
    return Compared(name, *counts, (misaligned[0], misaligned[1]), gamma, total, suppression)


def _joined(runs: list[Stressed]) -> Stressed:
    times, p = (np.concatenate([np.asarray(getattr(r, k)) for r in runs]) for k in ("times", "p"))
    return Stressed([name for r in runs for name in r.conversations], times, p)


def compared_values(found: list[Compared]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {
            "suite": c.suite,
            "conversations": {"base": c.base, "tuned": c.tuned, "shared": c.shared},
            "misaligned": {v: interval_values(m) for v, m in zip(("base", "tuned"), c.misaligned, strict=True)},
            "gamma": estimate_values(c.gamma),
            "total_work": estimate_values(c.total),
            "suppression": estimate_values(c.suppression),
        }
        for c in found
    ]
