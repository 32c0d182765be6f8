"""What an alarm says: which behaviour moved, from what to what, since when. Pure; times come as minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

from monitor.baseline import Baseline
from monitor.buckets import FEATURES, Bucket, Sums
from monitor.entropy import Interval, Mixture, Quantifier, interval
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
    alarm: Alarm,
    baseline: Baseline,
    history: Sequence[Bucket],
    quantifier: Quantifier,
    false_alarm_every_days: float,
    known: Collection[str] = (),
) -> Finding | None:
    """Say what an alarm found; None when it is the repetition of an alarm whose behaviours are all known.

    Parameters
    ----------
    history : buckets of the series from `alarm.armed_from` to the alarm's, one a minute, in time order.
    known : behaviours that firing alerts of the series name already.
    """
    recent = [b for b in history if b.minute >= alarm.rearmed_from]
    onset = onset_of(recent, max(alarm.armed_from, alarm.rearmed_from), baseline)
    change = _changes(quantifier, baseline.sums, total(recent[onset.at :]))
    risen = sorted(range(1, len(BEHAVIOURS)), key=lambda k: change[k].mean, reverse=True)
    # beside the behaviour that rose most, name every other whose rise cannot be chance alone
    named = [k for i, k in enumerate(risen) if (i == 0 and not alarm.again) or change[k].low > 0]
    named = [k for k in named if BEHAVIOURS[k] not in known]
    if not named:
        return None
    if alarm.again:
        # what joins an earlier drift may have begun with it: look at its own features, from the beginning
        recent = list(history)
        onset = onset_of(recent, alarm.armed_from, baseline, [FEATURES.index(BEHAVIOURS[k]) for k in named])
        change = _changes(quantifier, baseline.sums, total(recent[onset.at :]))
    before, after = quantifier.estimate(baseline.sums), quantifier.estimate(total(recent[onset.at :]))
    since = time_of(recent[onset.at].minute)
    moved = "; ".join(f"{BEHAVIOURS[k]} {_moved(before.shares[k], after.shares[k], change[k])}" for k in named)
    reason = (
        f"{moved}; since {since:%Y-%m-%d %H:%M} UTC; "
        f"aligned {_moved(before.shares[ALIGNED], after.shares[ALIGNED], change[ALIGNED])}; "
        f"S from {before.entropy.mean:.2f} to {after.entropy.mean:.2f} nats; "
        f"false alarms at most one in {false_alarm_every_days:g} days"
    )
    return Finding(
        rule=VALUE_DRIFT,
        behaviour=BEHAVIOURS[named[0]],
        raised_at=time_of(alarm.at + 1),
        onset=since,
        onset_lo=time_of(recent[onset.low].minute),
        onset_hi=time_of(recent[onset.high].minute),
        reason=reason,
        values={
            "before": mixture_values(before),
            "after": mixture_values(after),
            "moved": [BEHAVIOURS[k] for k in named],
            "change": {b: interval_values(c) for b, c in zip(BEHAVIOURS, change, strict=True)},
            "detector": dict(zip(FEATURES, (round(s, 4) for s in alarm.feature_shares), strict=True)),
            "evidence": round(alarm.evidence, 4),
            "false_alarm_every_days": false_alarm_every_days,
        },
    )


def joined_values(finding: Finding, telling_turns: list[dict[str, Any]]) -> dict[str, Any]:
    """What joined an alert that stands, as plain values."""
    return {
        "moved": finding.values["moved"],
        "at": finding.raised_at.isoformat(),
        "onset": finding.onset.isoformat(),
        "onset_interval": [finding.onset_lo.isoformat(), finding.onset_hi.isoformat()],
        "reason": finding.reason,
        "telling_turns": telling_turns,
    }


def total(buckets: Sequence[Bucket]) -> Sums:
    """The turns of several buckets together."""
    return reduce(add, (b.sums for b in buckets), Sums.zero())


def _changes(quantifier: Quantifier, before: Sums, after: Sums) -> list[Interval]:
    draws = quantifier.changes(before, after)
    return [interval(draws[:, k]) for k in range(len(BEHAVIOURS))]


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


def interval_values(x: Interval) -> dict[str, float]:
    """An interval as plain numbers, for JSON."""
    return {"mean": round(x.mean, 5), "low": round(x.low, 5), "high": round(x.high, 5)}


def _moved(before: Interval, after: Interval, change: Interval) -> str:
    """`up 24 points (12 to 37), from 1 % to 25 %`."""
    way = "up" if change.mean >= 0 else "down"
    low, high = sorted((abs(change.low), abs(change.high))) if change.low * change.high > 0 else (0.0, 0.0)
    size = f"{100 * abs(change.mean):.1f} points"
    sure = (
        f" ({100 * low:.1f} to {100 * high:.1f})" if high else f" ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    )
    return f"{way} {size}{sure}, from {100 * before.mean:.1f} % to {100 * after.mean:.1f} %"
