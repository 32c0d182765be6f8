"""dS/dt: the slope of S in nats a day, with an error that can be believed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.drift import Trend


def fed(times: list[float], values: list[float], variance: float = 1e-4) -> Trend:
    trend = Trend()
    for t, s in zip(times, values, strict=True):
        trend.update(t, s, variance)
    return trend


@pytest.mark.parametrize("slope", [-0.08, -0.01, 0.0, 0.02, 0.1])
def test_ramp(slope: float) -> None:
    """A steady rise or fall is recovered in nats a day, in the midst of noise, within its stated error."""
    rng = np.random.default_rng(1)
    times = [i / 4 for i in range(80)]
    got = fed(times, [0.8 + slope * t + rng.normal(0, 0.03) for t in times], 0.03**2).slope
    assert abs(got.value - slope) < 3 * got.error
    assert abs(got.value - slope) < 0.02


def test_slope_error_is_honest() -> None:
    """Over many series whose slope is as likely as the prior says, the truth lies within two errors 9 times in 10."""
    rng = np.random.default_rng(2)
    times = [float(i) for i in range(8)]
    inside = 0
    for _ in range(150):
        slope = rng.normal(0, 0.1)
        got = fed(times, [0.5 + slope * t + rng.normal(0, 0.05) for t in times], 0.05**2).slope
        inside += abs(got.value - slope) < 2 * got.error
    assert inside / 150 >= 0.9


def test_turning_point() -> None:
    """When a flat series begins to rise, the slope follows within days."""
    times = [i / 4 for i in range(120)]
    got = fed(times, [0.3 + 0.05 * max(0.0, t - 20) for t in times]).slope
    assert got.value == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("gap", [0.0, 1e-6, 0.3, 30.0, 400.0])
def test_gaps(gap: float) -> None:
    """Irregular spacing and long silence are normal: the slope stays finite, and a gap widens its error."""
    before = [0.0, 0.1, 0.15, 1.0, 1.7, 2.0, 3.3]
    trend = fed(before, [0.3 + 0.05 * t for t in before])
    was = trend.slope
    trend.update(before[-1] + gap, 0.3 + 0.05 * (before[-1] + gap), 1e-4)
    assert np.isfinite([trend.slope.value, trend.slope.error]).all()
    assert trend.slope.value == pytest.approx(0.05, abs=0.02)
    if gap == 0.0:
        assert trend.slope.error <= was.error


def test_irregular_ramp() -> None:
    """A ramp seen at random times has the same slope as one seen every hour."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.exponential(0.5, size=100)).tolist()
    got = fed(times, [0.2 + 0.01 * t + rng.normal(0, 0.02) for t in times], 4e-4).slope
    assert got.value == pytest.approx(0.01, abs=0.01)


def test_before_anything_is_known() -> None:
    """With no estimate, or one, the slope is 0 and its error says that it is not known."""
    assert Trend().slope.value == 0.0
    once = fed([5.0], [0.4]).slope
    assert once.value == 0.0
    assert once.error == pytest.approx(Trend().slope.error) == pytest.approx(0.3)


def test_scatter_is_not_slope() -> None:
    """Noise about a constant S is seldom called a drift."""
    rng = np.random.default_rng(4)
    called = 0
    for _ in range(100):
        got = fed([i / 4 for i in range(40)], (0.4 + rng.normal(0, 0.05, 40)).tolist(), 0.05**2).slope
        called += abs(got.value) > 3 * got.error
    assert called <= 3


@pytest.mark.parametrize(
    "bad",
    [
        (np.nan, 0.3, 0.01),
        (9.0, np.nan, 0.01),
        (9.0, 0.3, np.nan),
        (np.inf, 0.3, 0.01),
        (9.0, np.inf, 0.01),
        (9.0, 0.3, np.inf),
        (9.0, 0.3, 0.0),
        (9.0, 0.3, -1.0),
        (1.9, 0.3, 0.01),
    ],
)
def test_refused(bad: tuple[float, float, float]) -> None:
    """NaN, a variance that is none, and time running backwards are refused and leave the trend as it was."""
    trend, untouched = (fed([0.0, 1.0, 2.0], [0.3, 0.35, 0.4]) for _ in range(2))
    with pytest.raises(ValueError, match=r"finite|backwards"):
        trend.update(*bad)
    assert trend.slope == untouched.slope
    trend.update(3.0, 0.45, 1e-4)
    untouched.update(3.0, 0.45, 1e-4)
    assert trend.slope == untouched.slope


@pytest.mark.parametrize("bad", [(np.nan, 0.3, 0.01), (0.0, np.nan, 0.01), (0.0, 0.3, 0.0)])
def test_first_refused(bad: tuple[float, float, float]) -> None:
    """The first estimate is checked like any other."""
    with pytest.raises(ValueError, match="finite"):
        Trend().update(*bad)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 60) | st.just(0.0),
            st.floats(0, 1.61),
            st.floats(1e-8, 1) | st.just(1e-8),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_series(steps: list[tuple[float, float, float]]) -> None:
    """Whatever S does and however it is spaced, the slope is a number and its error positive."""
    trend, t = Trend(), 20_000.0
    for gap, s, variance in steps:
        t += gap
        trend.update(t, s, variance)
        assert np.isfinite(trend.slope.value)
        assert trend.slope.error > 0


def test_years_of_hours() -> None:
    """Five thousand very certain estimates in a row wear nothing out: weights sum to 1, errors stay positive."""
    trend = Trend()
    for i in range(5000):
        trend.update(20_000 + i / 24, 0.4 + 0.1 * np.sin(i / 500), 1e-8)
    assert trend.covariance is not None
    assert trend.log_weight is not None
    assert np.exp(trend.log_weight).sum() == pytest.approx(1)
    assert (np.linalg.eigvalsh(trend.covariance) > 0).all()
