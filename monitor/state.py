"""What is remembered of a series between two steps, beside its stored buckets; packs to a few kilobytes, exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.baseline import Baseline
from monitor.buckets import Sums
from monitor.detectors import COMPONENTS, EDetector
from monitor.drift import Trend

_NIL: Final = msgspec.msgpack.encode(None)


@dataclass(slots=True)
class SeriesState:
    """State of one series under one classifier version."""

    classifier_version: str
    next_minute: int = 0
    """Buckets before this minute have been taken in."""
    last_minute: int | None = None
    """Minute of the last bucket taken in."""
    point_due: bool = False
    """The hour of the last bucket has had no point yet."""
    baseline: Baseline | None = None
    learning: Sums = field(default_factory=Sums.zero)
    learning_from: int | None = None
    armed_from: int = 0
    """An onset is searched from this minute on: the end of the baseline, or of the last alert."""
    detector: EDetector = field(default_factory=EDetector)
    alarmed_at: int | None = None
    """Minute of the first alarm that has not recovered yet."""
    rearm_at: int = 0
    """The detectors rest until this minute: an alarm is not repeated at once."""
    standing: EDetector | None = None
    """The detectors of the first alarm that has not recovered, gathering evidence on: how sure the alert is by now."""
    trend: Trend = field(default_factory=Trend)
    cell: Sums = field(default_factory=Sums.zero)
    """Turns that the trend has not taken in yet."""
    cell_from: int = 0
    cell_moment: int = 0
    """Sum of turns x minutes since cell_from: the cell's time is its turns' mean minute."""
    earlier: Sums | None = None
    """The first half of `learning`, once it is full; the second is compared with it."""
    later_from: int = 0
    """Minute at which the second half begins."""
    extensions: int = 0
    """How often learning was made twice as long because its traffic was changing."""
    rule: str | None = None
    """Rule of this learning (monitor.baseline.BaselineRule): given when it was asked for, or else when it began."""
    relearn_reason: str | None = None
    """Why the series learns anew; None when it learns for the first time."""

    def relearn(self, reason: str, rule: str | None) -> None:
        """Let go of the baseline, and of an alarm that stands; learn from the next bucket on."""
        self.baseline = None
        self._begin_learning()
        self._arm(self.next_minute)
        self.rule, self.relearn_reason = rule, reason

    def adopt(self, baseline: Baseline, armed_from: int) -> None:
        """Compare with this baseline from a minute on."""
        self.baseline = baseline
        self._begin_learning()
        self._arm(armed_from)

    def _begin_learning(self) -> None:
        self.learning, self.learning_from = Sums.zero(), None
        self.earlier, self.later_from, self.extensions = None, 0, 0
        self.rule = self.relearn_reason = None

    def _arm(self, minute: int) -> None:
        self.armed_from, self.rearm_at, self.alarmed_at = minute, 0, None
        self.detector, self.standing = EDetector(), None

    def pack(self) -> bytes:
        """To bytes; floats keep every bit."""
        baseline, trend = self.baseline, self.trend
        return msgspec.msgpack.encode(
            _Packed(
                classifier_version=self.classifier_version,
                next_minute=self.next_minute,
                last_minute=self.last_minute,
                point_due=self.point_due,
                baseline=None
                if baseline is None
                else (baseline.first_minute, baseline.last_minute, baseline.sums.pack(), baseline.bounds.tolist()),
                learning=self.learning.pack(),
                learning_from=self.learning_from,
                armed_from=self.armed_from,
                log_wealth=_flat(self.detector.log_wealth),
                alarmed_at=self.alarmed_at,
                rearm_at=self.rearm_at,
                trend=None
                if trend.t is None or trend.mean is None or trend.covariance is None or trend.log_weight is None
                else (trend.t, _flat(trend.mean), _flat(trend.covariance), _flat(trend.log_weight)),
                cell=self.cell.pack(),
                cell_from=self.cell_from,
                cell_moment=self.cell_moment,
                earlier=None if self.earlier is None else self.earlier.pack(),
                later_from=self.later_from,
                extensions=self.extensions,
                rule=self.rule,
                relearn_reason=self.relearn_reason,
                standing=None if self.standing is None else _flat(self.standing.log_wealth),
            )
        )

    @staticmethod
    def is_armed(data: bytes) -> bool:
        """Whether a packed state has a baseline; for thousands of them. Raises ValueError as `unpack`."""
        try:
            return bytes(msgspec.msgpack.decode(data, type=_Head).baseline) != _NIL
        except msgspec.MsgspecError as e:
            raise ValueError(f"damaged series state: {e}") from e

    @classmethod
    def unpack(cls, data: bytes) -> SeriesState:
        """Inverse of `pack`. Raises ValueError on bytes of another layout."""
        try:
            p = msgspec.msgpack.decode(data, type=_Packed)
        except msgspec.MsgspecError as e:
            raise ValueError(f"damaged series state: {e}") from e
        state = cls(
            classifier_version=p.classifier_version,
            next_minute=p.next_minute,
            last_minute=p.last_minute,
            point_due=p.point_due,
            learning=Sums.unpack(p.learning),
            learning_from=p.learning_from,
            armed_from=p.armed_from,
            alarmed_at=p.alarmed_at,
            rearm_at=p.rearm_at,
            cell=Sums.unpack(p.cell),
            cell_from=p.cell_from,
            cell_moment=p.cell_moment,
            earlier=None if p.earlier is None else Sums.unpack(p.earlier),
            later_from=p.later_from,
            extensions=p.extensions,
            rule=p.rule,
            relearn_reason=p.relearn_reason,
        )
        if p.baseline is not None:
            first, last, sums, bounds = p.baseline
            state.baseline = Baseline(first, last, Sums.unpack(sums), np.array(bounds))
        state.detector = _detector(p.log_wealth)
        state.standing = None if p.standing is None else _detector(p.standing)
        if p.trend is not None:
            t, mean, covariance, log_weight = p.trend
            state.trend = Trend(
                t, np.array(mean).reshape(-1, 2), np.array(covariance).reshape(-1, 2, 2), np.array(log_weight)
            )
        return state


class _Head(msgspec.Struct, array_like=True):
    """The first fields of `_Packed`, unread."""

    classifier_version: msgspec.Raw
    next_minute: msgspec.Raw
    last_minute: msgspec.Raw
    point_due: msgspec.Raw
    baseline: msgspec.Raw


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    classifier_version: str
    next_minute: int
    last_minute: int | None
    point_due: bool
    baseline: tuple[int, int, bytes, list[float]] | None
    learning: bytes
    learning_from: int | None
    armed_from: int
    log_wealth: list[float]
    alarmed_at: int | None
    rearm_at: int
    trend: tuple[float, list[float], list[float], list[float]] | None
    cell: bytes
    cell_from: int
    cell_moment: int
    earlier: bytes | None = None
    later_from: int = 0
    extensions: int = 0
    rule: str | None = None
    relearn_reason: str | None = None
    standing: list[float] | None = None


def _detector(log_wealth: list[float]) -> EDetector:
    """States from when only rises were bet on know the first gamblers; the others enter with the next bucket."""
    if len(log_wealth) > COMPONENTS:
        raise ValueError(f"series state of a newer layout: {len(log_wealth)} bets, this version knows {COMPONENTS}")
    return EDetector(np.array(log_wealth + [-np.inf] * (COMPONENTS - len(log_wealth))))


def _flat(array: NDArray[np.float64]) -> list[float]:
    return [float(x) for x in array.ravel()]
