"""What an alarm says: which behaviour moved, from what to what, since when. Pure; times come as minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

from monitor.baseline import Baseline
from monitor.buckets import FEATURES, Bucket, Sums
from monitor.entropy import Interval, Mixture, Quantifier
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from monitor.trajectory import Alarm, onset_of
from monitor.transcript import time_of

VALUE_DRIFT = "value_drift"
"""The rule of the sequential detectors."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An alarm explained."""

    rule: str
    behaviour: str
    raised_at: datetime
    onset: datetime
    onset_lo: datetime
    onset_hi: datetime
    reason: str
    values: dict[str, Any]


def explain(
    alarm: Alarm, baseline: Baseline, history: Sequence[Bucket], quantifier: Quantifier, false_alarm_every_days: float
) -> Finding:
    """Say what an alarm found.

    Parameters
    ----------
    history : buckets of the series from `alarm.armed_from` to the alarm's, one a minute, in time order.
    """
    onset = onset_of(alarm, baseline, history)
    before = quantifier.estimate(baseline.sums)
    after = quantifier.estimate(reduce(add, (b.sums for b in history[onset.at :]), Sums.zero()))
    risen = sorted(range(1, len(BEHAVIOURS)), key=lambda k: after.shares[k].mean - before.shares[k].mean, reverse=True)
    # beside the behaviour that rose most, name every other whose rise cannot be chance alone
    named = [k for i, k in enumerate(risen) if i == 0 or after.shares[k].low > before.shares[k].high]
    since = time_of(history[onset.at].minute)
    moved = ", ".join(f"{BEHAVIOURS[k]} from {percent(before.shares[k])} to {percent(after.shares[k])}" for k in named)
    reason = (
        f"{moved} since {since:%Y-%m-%d %H:%M} UTC; "
        f"aligned from {percent(before.shares[ALIGNED])} to {percent(after.shares[ALIGNED])}, "
        f"S from {before.entropy.mean:.2f} to {after.entropy.mean:.2f} nats; "
        f"false alarms at most one in {false_alarm_every_days:g} days"
    )
    return Finding(
        rule=VALUE_DRIFT,
        behaviour=BEHAVIOURS[named[0]],
        raised_at=time_of(alarm.at + 1),
        onset=since,
        onset_lo=time_of(history[onset.low].minute),
        onset_hi=time_of(history[onset.high].minute),
        reason=reason,
        values={
            "before": mixture_values(before),
            "after": mixture_values(after),
            "moved": [BEHAVIOURS[k] for k in named],
            "detector": dict(zip(FEATURES, (round(s, 4) for s in alarm.feature_shares), strict=True)),
            "evidence": round(alarm.evidence, 4),
            "false_alarm_every_days": false_alarm_every_days,
        },
    )


def alert_id(series: str, rule: str, raised_at: datetime) -> str:
    """A stable id: the same alert found again is the same alert."""
    return hashlib.blake2b(f"{series}\n{rule}\n{raised_at.isoformat()}".encode(), digest_size=8).hexdigest()


def mixture_values(mixture: Mixture) -> dict[str, Any]:
    """A mixture as plain numbers, for JSON."""
    return {
        "n": mixture.n,
        "S": interval_values(mixture.entropy),
        "misaligned": interval_values(mixture.misaligned),
        "shares": {b: interval_values(s) for b, s in zip(BEHAVIOURS, mixture.shares, strict=True)},
    }


def interval_values(interval: Interval) -> dict[str, float]:
    return {"mean": round(interval.mean, 5), "low": round(interval.low, 5), "high": round(interval.high, 5)}


def percent(share: Interval) -> str:
    """`4.2 % (2.9-6.0)`."""
    digits = 1 if share.mean < 0.1 else 0
    low, mean, high = (f"{100 * x:.{digits}f}" for x in (share.low, share.mean, share.high))
    return f"{mean} % ({low}-{high})"
