"""The frozen baseline: when it is complete, and bounds on its means that hold."""

import contextlib
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.baseline import Baseline, BaselineRule, upper_bound
from monitor.buckets import FEATURES, LEVELS, Ints
from monitor.errors import ConfigError
from tests.unit.core_cases import HEALTHY, answers, corner, sums

MINUTE_0 = 29_000_000


def counted(level_of_each: Ints) -> Ints:
    return np.bincount(level_of_each, minlength=len(LEVELS))


def binary(ones: int, n: int) -> Ints:
    counts = np.zeros(len(LEVELS), dtype=np.int64)
    counts[0], counts[-1] = n - ones, ones
    return counts


# --- upper_bound


@pytest.mark.parametrize("p", [0.01, 0.05, 0.2])
def test_bound_covers_rare_events(p: float) -> None:
    """The 99 % bound of a share learned from 300 turns lies below the truth in about 1 of 100 baselines, no more."""
    rng = np.random.default_rng(int(p * 1000))
    missed = sum(upper_bound(binary(int(k), 300)) < p for k in rng.binomial(300, p, size=400))
    assert missed <= 0.015 * 400


@pytest.mark.parametrize("shape", [(0.3, 8.0), (2.0, 20.0), (0.5, 0.5)], ids=["skew", "narrow", "two-sided"])
def test_bound_covers_soft_scores(shape: tuple[float, float]) -> None:
    """It holds just so for graded scores, whatever their distribution."""
    rng = np.random.default_rng(7)
    edges = (LEVELS[1:] + LEVELS[:-1]) / 2
    truth = float(LEVELS[np.searchsorted(edges, rng.beta(*shape, size=1_000_000))].mean())
    missed = sum(upper_bound(counted(np.searchsorted(edges, rng.beta(*shape, size=300)))) < truth for _ in range(400))
    assert missed <= 0.015 * 400


def test_bound_is_useful() -> None:
    """A bound from 300 turns is near enough to the mean to notice a drift, nearer from 3000 or for soft scores."""
    assert 0.05 < upper_bound(binary(15, 300)) < 0.11
    assert upper_bound(binary(150, 3000)) < 0.07
    soft = np.zeros(len(LEVELS), dtype=np.int64)
    soft[4], soft[6] = 150, 150  # 0.035 and 0.075
    assert upper_bound(soft) < upper_bound(binary(round(300 * 0.055), 300))


@given(st.lists(st.integers(0, 40), min_size=len(LEVELS), max_size=len(LEVELS)).filter(any))
def test_bound_is_between_mean_and_one(counts: list[int]) -> None:
    """For any counts the bound is at least the mean and at most 1."""
    c = np.array(counts)
    assert float(c @ LEVELS) / c.sum() - 1e-9 <= upper_bound(c) <= 1.0


@settings(max_examples=40)
@given(st.integers(0, 200), st.integers(50, 200))
def test_bound_shrinks(ones: int, n: int) -> None:
    """The same share seen in three times as many turns is bounded more tightly, and a rarer one lower."""
    ones = min(ones, n)
    assert upper_bound(binary(3 * ones, 3 * n)) <= upper_bound(binary(ones, n)) + 1e-9
    if ones:
        assert upper_bound(binary(ones - 1, n)) <= upper_bound(binary(ones, n)) + 1e-9
    assert upper_bound(binary(ones, n), error=0.05) <= upper_bound(binary(ones, n)) + 1e-9


def test_bound_at_the_ends() -> None:
    """Never seen in 300 turns means at most 1.8 %; always seen means 1."""
    assert upper_bound(binary(0, 300)) == pytest.approx(1 - math.exp(-math.log(200) / 300), rel=1e-6)
    assert upper_bound(binary(300, 300)) == 1.0


# --- Baseline


def test_freeze() -> None:
    """A baseline bounds each of the five features from its own counts."""
    s = sums(answers(np.random.default_rng(1), HEALTHY, 400))
    b = Baseline.freeze(10, 20, s)
    assert (b.first_minute, b.last_minute, b.sums.n) == (10, 20, 400)
    assert b.bounds.shape == (len(FEATURES),)
    assert (b.bounds >= s.level_counts() @ LEVELS / 400).all()
    assert b.bounds[-1] >= b.bounds[:-1].max() - 0.01


def test_freeze_too_few() -> None:
    """Fewer than 50 turns are no baseline."""
    with pytest.raises(ValueError, match="49 of 50"):
        Baseline.freeze(0, 0, corner(0, 49))


# --- BaselineRule


@pytest.mark.parametrize(
    ("text", "turns", "hours"),
    [
        ("300", 300, 0),
        ("36h", 50, 36),
        ("7d", 50, 168),
        ("300+24h", 300, 24),
        ("24h + 300", 300, 24),
        (" 500 + 7d ", 500, 168),
        ("50", 50, 0),
    ],
)
def test_parse(text: str, turns: int, hours: float) -> None:
    """Turns, hours, days, and both in either order are understood."""
    assert BaselineRule.parse(text) == BaselineRule(turns=turns, hours=hours)


def test_parse_range() -> None:
    """A range is in UTC unless it says otherwise, and its end is not included."""
    rule = BaselineRule.parse("2026-01-01..2026-01-08T12:00+02:00")
    assert rule.start == datetime(2026, 1, 1, tzinfo=UTC)
    assert rule.end == datetime(2026, 1, 8, 10, tzinfo=UTC)
    first, last = (int(t.timestamp()) // 60 for t in (rule.start, rule.end))
    assert [rule.wants(m) for m in (first - 1, first, last - 1, last)] == [False, True, True, False]
    assert [rule.over(m) for m in (first - 1, last - 1, last)] == [False, False, True]
    assert not rule.complete(10**6, 10**6)


@pytest.mark.parametrize(
    "text",
    ["", "abc", "7w", "-5", "1.5d", "300+", "+", "300 24h", "2026-01-08..2026-01-01", "2026-01-01..", "..", "a..b..c"],
)
def test_parse_refuses(text: str) -> None:
    """A rule that cannot be read is named, with examples of what can."""
    with pytest.raises(ConfigError, match=r"is not understood; write 300 \(turns\)"):
        BaselineRule.parse(text)


def test_parse_too_few() -> None:
    """A baseline of 49 turns is refused before any work."""
    with pytest.raises(ConfigError, match="at least 50 turns, not 49"):
        BaselineRule.parse("49")


@pytest.mark.parametrize("text", ["300+400", "24h+7d", "300+24h+1d"])
def test_parse_contradiction(text: str) -> None:
    """A rule that gives the turns or the time twice is refused, not half followed."""
    with pytest.raises(ConfigError):
        BaselineRule.parse(text)


def test_complete() -> None:
    """Both parts of a rule must be met: 300 turns in an hour are not yet 300+24h."""
    rule = BaselineRule.parse("300+24h")
    assert not rule.complete(10_000, 1439)
    assert not rule.complete(299, 100_000)
    assert rule.complete(300, 1440)
    assert rule.wants(MINUTE_0)
    assert not rule.over(MINUTE_0)


@settings(max_examples=200)
@given(st.text(alphabet="0123456789+.hdT:-Z ", max_size=24))
def test_parse_anything(text: str) -> None:
    """Any text is a rule or a ConfigError."""
    with contextlib.suppress(ConfigError):
        assert BaselineRule.parse(text).turns >= 50
