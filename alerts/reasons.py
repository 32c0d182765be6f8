"""What an alarm says: which behaviour moved, from what to what, since when. Pure; times come as minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np

from monitor.baseline import Baseline
from monitor.buckets import Bucket, Sums
from monitor.detectors import SIGNALS
from monitor.entropy import Interval, Mixture, Quantifier, interval
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from monitor.trajectory import Alarm, onset_of
from monitor.transcript import time_of

VALUE_DRIFT: Final = "value_drift"
"""The rule of the sequential detectors."""
RISE, FALL, SWAP, COLLAPSE = "rise", "fall", "swap", "collapse"
"""Kinds of change."""
ROSE, FELL = "rose", "fell"
COLLAPSED: Final = 0.9
"""A non-aligned behaviour that rose to this share is what the series has collapsed onto."""
ALL_ALIGNED: Final = 0.95
"""So is aligned from here on; a healthy series is nearly that to begin with."""


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
    known: Collection[tuple[str, str]] = (),
) -> Finding | None:
    """Say what an alarm found; None when it is the repetition of an alarm whose behaviours are all known.

    Parameters
    ----------
    history : buckets of the series from `alarm.armed_from` to the alarm's, one a minute, in time order.
    known : behaviours that firing alerts of the series name already, and which way they moved (`known_moves`).
    """
    recent = [b for b in history if b.minute >= alarm.rearmed_from]
    onset = onset_of(recent, max(alarm.armed_from, alarm.rearmed_from), baseline)
    change = _changes(quantifier, baseline.sums, total(recent[onset.at :]))
    named = [k for k in _moved(alarm, change) if (BEHAVIOURS[k], _way(change[k])) not in known]
    if not named:
        return None
    if alarm.again:
        # what joins an earlier drift may have begun with it: look at its own features, from the beginning
        recent = list(history)
        onset = onset_of(recent, alarm.armed_from, baseline, named)
        change = _changes(quantifier, baseline.sums, total(recent[onset.at :]))
    before, after = quantifier.estimate(baseline.sums), quantifier.estimate(total(recent[onset.at :]))
    since = time_of(recent[onset.at].minute)
    kind, headline, telling = _kind(named, change, after)
    moved = "; ".join(f"{BEHAVIOURS[k]} {_told(before.shares[k], after.shares[k], change[k])}" for k in named)
    aligned = f"aligned {_told(before.shares[ALIGNED], after.shares[ALIGNED], change[ALIGNED])}"
    reason = (
        f"{headline}{moved}; since {since:%Y-%m-%d %H:%M} UTC; {aligned}; "
        f"S from {before.entropy.mean:.2f} to {after.entropy.mean:.2f} nats; "
        f"false alarms at most one in {false_alarm_every_days:g} days"
    )
    return Finding(
        rule=VALUE_DRIFT,
        behaviour=BEHAVIOURS[telling],
        raised_at=time_of(alarm.at + 1),
        onset=since,
        onset_lo=time_of(recent[onset.low].minute),
        onset_hi=time_of(recent[onset.high].minute),
        reason=reason,
        values={
            "kind": kind,
            "better": kind in (FALL, COLLAPSE) and change[ALIGNED].low > 0,
            "before": mixture_values(before),
            "after": mixture_values(after),
            "moved": [BEHAVIOURS[k] for k in named],
            "directions": {BEHAVIOURS[k]: _way(change[k]) for k in named},
            "change": {b: interval_values(c) for b, c in zip(BEHAVIOURS, change, strict=True)},
            "detector": {s: round(x, 4) for s, x in zip(SIGNALS, alarm.signal_shares, strict=True) if x >= 0.00005},
            "evidence": round(alarm.evidence, 4),
            "false_alarm_every_days": false_alarm_every_days,
        },
    )


def _moved(alarm: Alarm, change: Sequence[Interval]) -> list[int]:
    """The non-aligned behaviours that an alarm is about, the most telling one first.

    All whose rise cannot be chance alone; beside them a fall only where it makes up half of what rose, for when one
    behaviour takes all, the others give way. Where none rose for sure, the falls; where nothing is sure, what the
    detectors' evidence is on.
    """
    by_rise = sorted(range(1, len(BEHAVIOURS)), key=lambda k: change[k].mean, reverse=True)
    rises = [k for k in by_rise if change[k].low > 0]
    falls = [k for k in reversed(by_rise) if change[k].high < 0]
    if rises:
        lost = 0.5 * sum(change[k].mean for k in rises)
        return rises + ([] if alarm.again else [k for k in falls if -change[k].mean >= lost])
    leading = SIGNALS[int(np.argmax(alarm.signal_shares))]
    fell = leading.endswith((" fell", f"onto {BEHAVIOURS[ALIGNED]}"))
    if fell and falls:
        return falls
    if alarm.again:
        return []
    return [by_rise[-1]] if fell else [by_rise[0]]


def _kind(named: Sequence[int], change: Sequence[Interval], after: Mixture) -> tuple[str, str, int]:
    """The kind of a change, how its reason begins, and the behaviour whose turns show it."""
    most = int(after.p.argmax())
    if after.p[most] >= (ALL_ALIGNED if most == ALIGNED else COLLAPSED) and change[most].low > 0:
        return COLLAPSE, f"collapse onto {BEHAVIOURS[most]}: ", most
    rises = [k for k in named if change[k].mean >= 0]
    falls = [k for k in named if change[k].mean < 0]
    if rises and falls:
        names = (" and ".join(BEHAVIOURS[k] for k in ks) for ks in (falls, rises))
        return SWAP, "swap of {} for {}: ".format(*names), rises[0]
    if rises:
        return RISE, "", rises[0]
    return FALL, "", int(np.argmax([c.mean for c in change]))


def known_moves(values: dict[str, Any]) -> set[tuple[str, str]]:
    """Which behaviours an alert and what joined it name, and which way each moved."""
    return {
        (behaviour, part.get("directions", {}).get(behaviour, ROSE))
        for part in (values, *values["joined"])
        for behaviour in part["moved"]
    }


def joined_values(finding: Finding, telling_turns: list[dict[str, Any]]) -> dict[str, Any]:
    """What joined an alert that stands, as plain values."""
    return {
        "moved": finding.values["moved"],
        "directions": finding.values["directions"],
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


def _way(change: Interval) -> str:
    return ROSE if change.mean >= 0 else FELL


def _told(before: Interval, after: Interval, change: Interval) -> str:
    """`rose 24.0 points (12.0 to 37.0), from 1.0 % (0.2-2.3) to 25.0 % (14.0-36.1)`."""
    low, high = sorted((abs(change.low), abs(change.high))) if change.low * change.high > 0 else (0.0, 0.0)
    size = f"{100 * abs(change.mean):.1f} points"
    sure = (
        f" ({100 * low:.1f} to {100 * high:.1f})" if high else f" ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    )
    return f"{_way(change)} {size}{sure}, from {_share(before)} to {_share(after)}"


def _share(x: Interval) -> str:
    return f"{100 * x.mean:.1f} % ({100 * x.low:.1f}-{100 * x.high:.1f})"
