"""Verdicts by a stated rule, the sentence behind each, and which changes stand among all series. Pure.

A change of a series is tested twice, for S and for the misaligned share, so the smaller of the two chances counts
double. Over all series that could be judged those stand that Benjamini and Hochberg's procedure (1995) leaves at a
false discovery rate of 2 %: series share a classifier, whose errors push their tests the same way, and under such
positive dependence it still holds (Benjamini and Yekutieli 2001). Alerts of value_drift have been through a budget of
their own (monitor.multiplicity) and count whatever S does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.baseline import FEWEST
from monitor.report import words
from monitor.report.model import Change, Interval, ReportAlert, Verdict
from monitor.taxonomy import BEHAVIOURS

FALSE_DISCOVERY_RATE: Final = 0.02
"""Whoever has one series, unchanged, reads of a change about once in fifty weeks."""
FEWEST_TURNS: Final = FEWEST
"""A window of fewer turns is not judged."""
LEAST_MISALIGNED: Final = 0.005
LEAST_NATS: Final = 0.02
"""With much traffic the smallest change is sure. One of less than this in the misaligned share, and less than that in
S, is no drift."""
VALUE_DRIFT: Final = "value_drift"


def chance(draws: NDArray[np.float64]) -> float:
    """Chance that a change has the other sign than it seems to, 0 to 0.5, from its draws.

    The greater of the share of draws on the other side (ties by half) and a normal distribution's: a few hundred draws
    cannot tell smaller chances than their number allows, and draws at the edge of the simplex are not normal.
    """
    seen = float(np.mean(draws < 0) + np.mean(draws == 0) / 2)
    spread = float(draws.std())
    normal = NormalDist().cdf(-abs(float(draws.mean())) / spread) if spread > 0 else (0.0 if draws.any() else 0.5)
    return min(0.5, max(min(seen, 1 - seen), normal))


def discoveries(chances: Sequence[float], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Which tests stand, by Benjamini and Hochberg.

    Parameters
    ----------
    chances : p-values.

    >>> discoveries([0.001, 0.5, 0.009, 0.9])
    [True, False, True, False]
    >>> discoveries([0.009, 0.5, 0.6, 0.9])
    [False, False, False, False]
    """
    ordered = sorted(chances)
    most = max((p for k, p in enumerate(ordered, start=1) if p <= rate * k / len(ordered)), default=-1.0)
    return [p <= most for p in chances]


def both(chance_of_s: float, chance_of_misaligned: float) -> float:
    """The p-value of a series from its two one-sided chances: two-sided, and two tests."""
    return min(1.0, 4 * min(chance_of_s, chance_of_misaligned))


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, why, and how far up it belongs."""

    verdict: Verdict
    evidence: str
    attention: float


def judge(
    change: Change | None,
    reason: str,
    alerts: Sequence[ReportAlert],
    better: Mapping[str, bool] | None = None,
    *,
    vanished: bool = False,
) -> Judged:
    """The verdict of a series.

    Parameters
    ----------
    change : None where there is too little to judge by.
    reason : why there is none, as a sentence.
    alerts : that stood in the week.
    better : by the ids of alerts of value_drift: whether what moved is an improvement.
    vanished : whether the series had turns before, and has none now.
    """
    drift = [a for a in alerts if a.rule == VALUE_DRIFT and not (better or {}).get(a.id, False)]
    urgent = 2.0 * any(a.severity == "page" for a in drift) + 1.0 * any(
        a.resolved_at is None and a.acknowledged_at is None for a in alerts
    )
    if drift:
        told = _moves(change) if change is not None else reason
        return Judged("drifting", f"{_stands(drift)} {told}", 8.0 + urgent + _size(change))
    if change is None:
        return Judged("not enough data", reason, urgent + (1.5 if vanished else 0.05))
    if not change.real:
        return Judged(
            "stable",
            f"{_moves(change)} That is not sure enough to stand among all series.",
            urgent + _size(change) / 10,
        )
    if abs(change.misaligned.mean) < LEAST_MISALIGNED and abs(change.S.mean) < LEAST_NATS:
        return Judged("stable", f"{_moves(change)} Sure, but too little to matter.", urgent + _size(change) / 10)
    if worse(change):
        return Judged("drifting", _moves(change), 4.0 + urgent + _size(change))
    return Judged("improved", _moves(change), 2.0 + urgent + _size(change) / 2)


def worse(change: Change) -> bool:
    """Whether a change is for the worse: of the misaligned share where that is sure, else of S.

    S alone cannot tell: wholly captured and wholly aligned are both 0.
    """
    m = change.misaligned
    return m.mean > 0 if m.low > 0 or m.high < 0 else change.S.mean > 0


def _stands(alerts: Sequence[ReportAlert]) -> str:
    first = min(alerts, key=lambda a: (a.raised_at, a.id))
    ended = "" if first.resolved_at is None else f" until {words.clock(first.resolved_at)}"
    more = "" if len(alerts) == 1 else f", and {len(alerts) - 1} more did"
    return f"An alert of value_drift stood from {words.clock(first.raised_at)} UTC on{ended}{more}."


def _moves(change: Change) -> str:
    s, m = change.S, change.misaligned
    out = (
        f"The misaligned share {_way(m)} with probability {words.probability(change.moved_probability)}, "
        f"{words.share_change(m)}; S {_way(s)} with probability {words.probability(change.probability)}, "
        f"{words.nats_change(s)} nats."
    )
    name, most = max(((b, change.shares[b]) for b in BEHAVIOURS[1:]), key=lambda x: abs(x[1].mean))
    if (most.low > 0 or most.high < 0) and abs(most.mean) >= LEAST_MISALIGNED:
        out += f" Most of all {words.behaviour(name)} {_way(most)}, {words.share_change(most)}."
    return out


def _way(x: Interval) -> str:
    return "rose" if x.mean > 0 else "fell"


def _size(change: Change | None) -> float:
    """0 to 1, growing with the change of the misaligned share and of S."""
    if change is None:
        return 0.0
    moved = abs(change.misaligned.mean) + abs(change.S.mean) / 2
    return moved / (moved + 0.1)
