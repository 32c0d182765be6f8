"""Alignment work, with intervals that hold and refusals that say why."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gamma import coverage
from monitor.alignment_work import WorkFilter, critical, depth, log_odds, margin, running, worth
from monitor.drift import Slope
from monitor.estimates import Estimate, Refusal, Result
from monitor.paired_work import Stressed, paired
from monitor.relaxation import decay_rate, half_life, held_level, restoring_rate
from monitor.second_law import critical_work, equilibrium_odds, simulate, softmax


def given_(result: Result) -> Estimate:
    assert isinstance(result, Estimate), result
    return result


def refused(result: Result) -> str:
    assert isinstance(result, Refusal), result
    return result.reason


@pytest.mark.parametrize(
    "case",
    [
        "held, r 1, D 0.1, 30 d",
        "base r 0.3, D 0.01, 10 d",
        "S, kappa 1, baseline known",
        "S, kappa 1",
        "stress, 50 pairs",
    ],
)
def test_coverage(case: str) -> None:
    """On trajectories of known r, gamma and D, 90 % intervals hold the truth in 85 to 95 %, give or take chance."""
    n = 120
    for row in coverage(case, n, seed=11):
        chance = 2.6 * math.sqrt(0.9 * 0.1 / n)
        assert 0.85 - chance / 2 <= row.coverage <= min(0.95 + chance / 2, 1.0), row
        assert row.refused <= 0.1 * n
        assert row.mean_value == pytest.approx(row.truth, rel=0.25)


@pytest.mark.parametrize("case", ["followed, gamma constant", "followed, gamma wanders 0.5"])
def test_followed(case: str) -> None:
    """gamma_eff as time goes on: its interval holds the truth at least as often as it says, moving or not."""
    (row,) = coverage(case, 40, seed=12)
    assert row.coverage >= 0.8
    assert row.mean_value == pytest.approx(row.truth, abs=0.1)


def held(seed: int, r: float = 1.0, gamma: float = 2.5, n: int = 120, days: float = 30) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, days, n))
    p = softmax(simulate(t, r=r, gamma=gamma, diffusion=0.1 * r, seed=rng)[0])[:, 0]
    return t, *log_odds(rng.binomial(200, p) / 200, 200)


# --- the simulator


def test_second_law() -> None:
    """Without work the entropy rises to ln 5; with it, unintended goals settle at odds exp(-2 gamma / lambda_max)."""
    t = np.array([0.0, 100.0])
    for gamma in (0.0, 1.5):
        z = simulate(t, r=1.0, gamma=gamma, diffusion=0.0, start=np.array([5.0, 1, 0, -1, 2]))
        p = softmax(z)[0, -1]
        assert p[1:] / p[0] == pytest.approx(equilibrium_odds(gamma, lambda_max=2.0))
    assert equilibrium_odds(critical_work(2.0), 2.0) == pytest.approx(1 / 5)
    assert critical_work(2.0) == pytest.approx(critical(1.0))


def test_steps_do_not_matter() -> None:
    """A trajectory's distribution at a time is the same however often it was looked at before."""
    once = simulate([0.0, 2.0], r=0.7, gamma=1.0, diffusion=0.2, paths=20_000, start=np.zeros(5), seed=1)[:, -1]
    often = simulate(np.linspace(0, 2, 40), r=0.7, gamma=1.0, diffusion=0.2, paths=20_000, start=np.zeros(5), seed=2)
    assert once.mean(axis=0) == pytest.approx(often[:, -1].mean(axis=0), abs=0.015)
    assert once.std(axis=0) == pytest.approx(often[:, -1].std(axis=0), rel=0.03)


@pytest.mark.parametrize("bad", [{"r": 0.0}, {"r": np.nan}, {"diffusion": -1.0}, {"times": [1.0, 0.0]}, {"times": []}])
def test_simulator_refuses(bad: dict[str, object]) -> None:
    """A rate that is none, negative noise and time running backwards are errors."""
    with pytest.raises(ValueError, match=r"times|positive"):
        simulate(**({"times": [0.0, 1.0], "r": 1.0, "gamma": 0.0, "diffusion": 0.1} | bad))  # type: ignore[arg-type]


# --- log-odds


def test_log_odds() -> None:
    """L is the log of aligned over the mean of the others; with many turns nothing is added to it."""
    p = np.array([0.8, 0.1, 0.05, 0.03, 0.02])
    level, variance = log_odds(p[0], 1e9)
    assert level == pytest.approx(math.log(0.8 / p[1:].mean()), abs=1e-6)
    assert 0 < variance < 1e-7


@pytest.mark.parametrize("n", [1, 20, 1000])
def test_shares_of_nothing(n: int) -> None:
    """Shares of 0 and 1 have finite log-odds, within half a turn of certainty, and an honest, large variance."""
    for share, sign in ((1.0, 1), (0.0, -1)):
        level, variance = log_odds(share, n)
        assert level - math.log(4) == pytest.approx(sign * math.log(2 * n + 1))
        assert variance > 2


@pytest.mark.parametrize("p", [0.3, 0.9, 0.98])
def test_log_odds_unbiased(p: float) -> None:
    """Half a turn added leaves no bias to speak of, and the variance is that of repetition."""
    drawn, variance = log_odds(np.random.default_rng(0).binomial(300, p, size=40_000) / 300, 300)
    assert drawn.mean() == pytest.approx(math.log(4 * p / (1 - p)), abs=0.02)
    assert variance.mean() == pytest.approx(drawn.var(), rel=0.15)


@pytest.mark.parametrize("bad", [(-0.1, 10), (1.1, 10), (np.nan, 10), (0.5, 0), (0.5, np.inf)])
def test_log_odds_refuses(bad: tuple[float, float]) -> None:
    """A share outside [0, 1] and a number of turns that is none are errors."""
    with pytest.raises(ValueError, match="shares"):
        log_odds(*bad)


def test_worth() -> None:
    """A share that counting alone blurs is worth its turns, a more blurred one fewer, a certain one no more."""
    assert worth(0.9, math.sqrt(0.09 / 1000), 1000) == pytest.approx(1000, rel=0.01)
    assert worth(0.9, 0.1, 1000) == pytest.approx(9, rel=0.01)
    assert worth(1.0, 0.0, 50) == worth(0.0, 1e-9, 50) == 50


# --- rates and levels


RATES: dict[str, Callable[..., Result]] = {
    "kappa": restoring_rate,
    "kappa, baseline known": lambda t, y, v: restoring_rate(t, y, v, baseline=2.5),
    "r of decay": decay_rate,
    "r": lambda t, y, v: held_level(t, y, v).r,
    "gamma": lambda t, y, v: held_level(t, y, v).gamma,
    "gamma, r known": lambda t, y, v: held_level(t, y, v, r=1.0).gamma,
}
each_rate = pytest.mark.parametrize("estimate", RATES.values(), ids=RATES.keys())


@each_rate
def test_bad_input(estimate: Callable[..., Result]) -> None:
    """Whatever is wrong with a series is said, and where; nothing is ever NaN."""
    t, y, v = held(1)
    assert refused(estimate([], [], [])) == "not enough points: 0 of 20"
    assert refused(estimate(t[:1], y[:1], v[:1])) == "not enough points: 1 of 20"
    assert "differ in shape" in refused(estimate(t, y[:-1], v))
    assert refused(estimate(np.zeros_like(t), y, v)) == "all points are of one moment"
    assert refused(estimate(t, y, np.where(t == t[7], 0.0, v))) == "variance of point 7 is not positive"
    assert refused(estimate(t, y, ["a"] * len(t))) == "times, values and variances must be numbers"
    for bad in (np.nan, np.inf):
        for place in range(3):
            series = [t.copy(), y.copy(), v.copy()]
            series[place][5] = bad
            assert refused(estimate(*series)) == "point 5 is not finite"
    back = t.copy()
    back[9] = back[8] - 1e-3
    assert refused(estimate(back, y, v)) == "time runs backwards at point 9"


@each_rate
def test_month_of_silence(estimate: Callable[..., Result]) -> None:
    """A gap of a month, and two points of one moment, are normal."""
    t, y, v = held(2)
    t = np.where(np.arange(len(t)) < 60, t, t + 30)
    t[5] = t[4]
    result = estimate(t, y, v)
    if isinstance(result, Estimate):
        assert result.lo <= result.value <= result.hi


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 60) | st.just(0.0), st.floats(-10, 10) | st.just(1.0), st.floats(1e-8, 10)),
        min_size=20,
        max_size=30,
    )
)
def test_any_series(rows: list[tuple[float, float, float]]) -> None:
    """Any finite series gets an interval around its value or a reason, never a warning."""
    gaps, y, v = (np.array(x) for x in zip(*rows, strict=True))
    for estimate in RATES.values():
        result = estimate(np.cumsum(gaps), y, v)
        assert isinstance(result, Refusal) or result.lo <= result.value <= result.hi


def test_time_units() -> None:
    """The same series in hours has a 24th of the rate; the same series shifted keeps it."""
    t, y, v = held(3)
    daily, hourly = (given_(restoring_rate(x, y, v)) for x in (t, 24 * t))
    shifted = given_(restoring_rate(t + 20_000, y + 5, v))
    for a, b, c in zip(*((e.value, e.lo, e.hi) for e in (daily, hourly, shifted)), strict=True):
        assert b == pytest.approx(a / 24, rel=1e-6)
        assert c == pytest.approx(a, rel=1e-3)


def test_half_life() -> None:
    """The half-life is ln 2 over the rate, ends exchanged; where the rate may be 0 it is said to be unbounded."""
    kappa = Estimate(0.5, 0.25, 1.0, "1/day", "test")
    half = given_(half_life(kappa))
    assert (half.value, half.lo, half.hi) == pytest.approx((2 * math.log(2), math.log(2), 4 * math.log(2)))
    assert "at least 0.693 days" in refused(half_life(Estimate(0.5, 0.0, 1.0, "1/day", "test")))
    assert half_life(Refusal("x")) == Refusal("x")


def test_not_identified() -> None:
    """A random walk, points far apart and pure sampling noise do not get a made-up rate."""
    rng = np.random.default_rng(5)
    t = np.arange(100.0)
    walk = np.cumsum(rng.standard_normal(100))
    result = restoring_rate(t, walk + t, np.full(100, 0.01))
    assert isinstance(result, Refusal) or result.lo == 0
    white = rng.standard_normal(100)
    assert "not identified" in refused(restoring_rate(t, white, np.full(100, 0.01)))
    assert isinstance(restoring_rate(t, white, np.full(100, 1.0)), Refusal)
    assert isinstance(restoring_rate(t, np.full(100, 0.4), np.full(100, 1e-4)), Refusal)


def test_means_over_windows() -> None:
    """Means over windows that touch have the rate of what they are means of; as values of a moment they look slower."""
    found = {}
    for window in (1.0, 0.0):
        rates = []
        for seed in range(12):
            path = simulate(np.arange(90 * 12) / 12, r=0.6, gamma=0.0, diffusion=0.006, goals=1, seed=seed)[0, :, 0]
            daily = path.reshape(90, 12).mean(axis=1)
            rates.append(given_(restoring_rate(np.arange(1.0, 91), daily, np.full(90, 1e-4), window=window)))
        found[window] = rates
    assert sum(x.lo <= 0.6 <= x.hi for x in found[1.0]) >= 9
    mean, moment = (np.median([x.value for x in found[w]]) for w in (1.0, 0.0))
    assert mean == pytest.approx(0.6, rel=0.25)
    assert moment < 0.85 * mean
    half = restoring_rate(np.arange(0.0, 30, 0.5), path[:60], np.full(60, 0.01), window=1.0)
    assert refused(half) == "windows overlap at point 1"
    assert "a window must be" in refused(restoring_rate(np.arange(30.0), path[:30], np.full(30, 0.01), window=-1.0))


def test_error_of_r_is_carried() -> None:
    """gamma with an estimated r has a wider interval than with the same r known; an r that may be 0 is refused."""
    t, y, v = held(6)
    known = given_(held_level(t, y, v, r=1.0).gamma)
    estimated = given_(held_level(t, y, v, r=Estimate(1.0, 0.7, 1.4, "1/day", "test")).gamma)
    assert estimated.value == pytest.approx(known.value, rel=0.15)  # the series has a say in r
    assert estimated.hi - estimated.lo > 2 * (known.hi - known.lo)
    assert "may be 0" in refused(held_level(t, y, v, r=Estimate(1.0, 0.0, 1.4, "1/day", "test")).gamma)
    for bad in (0.0, -1.0, np.nan, np.inf):
        assert "positive number" in refused(held_level(t, y, v, r=bad).gamma)


# --- margin, depth, running


def test_margin() -> None:
    """The margin is 1 at gamma_crit; the depth says the same at equilibrium."""
    gamma = Estimate(2.0, 1.5, 2.5, "nats/day", "test")
    assert given_(margin(gamma, r=2.0 / math.log(5))).value == pytest.approx(1.0)
    assert given_(depth(math.log(5), 1.5, 1.7)).value == pytest.approx(1.0)
    assert isinstance(margin(gamma, r=0.0), Refusal)
    assert isinstance(depth(np.nan, 1.0, 2.0), Refusal)
    assert margin(Refusal("x"), 1.0) == Refusal("x")


def test_running() -> None:
    """Work is the reference production less dS/dt, and both errors count."""
    got = given_(running(0.1, 0.03, Slope(0.02, 0.04)))
    assert got.value == pytest.approx(0.08)
    assert got.hi - got.value == pytest.approx(1.645 * 0.05, rel=1e-3)
    assert isinstance(running(np.nan, 0.0, Slope(0.0, 0.1)), Refusal)
    assert isinstance(running(0.1, -1.0, Slope(0.0, 0.1)), Refusal)


# --- following


def test_follows_a_fall() -> None:
    """When work stops holding the model, gamma_eff falls through gamma_crit within a few relaxation times."""
    t = np.arange(0, 40, 0.1)
    gamma = np.where(t < 20, 2.5, 0.5)
    p = softmax(simulate(t, r=1.0, gamma=gamma, diffusion=0.05, seed=3)[0])[:, 0]
    work = WorkFilter(1.0)
    after: dict[float, Result] = {}
    for at, share in zip(t, p, strict=True):
        work.update(at, *(float(x) for x in log_odds(share, 500)))
        after[round(at, 1)] = work.margin()
    assert given_(after[19.9]).lo > 1
    assert given_(after[25.0]).hi < 1
    last = given_(after[39.9])
    assert last.lo < 0.5 / math.log(5) < last.hi
    assert last.value < 1


def test_filter_refuses() -> None:
    """NaN, no variance and time running backwards are errors that change nothing; few points are no figure."""
    work, untouched = WorkFilter(0.5), WorkFilter(0.5)
    assert refused(work.gamma()) == "not enough points: 0 of 5"
    with pytest.raises(ValueError, match="finite"):
        work.update(0.0, np.nan, 0.1)
    for day in range(6):
        for w in (work, untouched):
            w.update(float(day), 2.0, 0.05)
    for bad in ((np.nan, 2.0, 0.1), (6.0, np.inf, 0.1), (6.0, 2.0, 0.0), (4.0, 2.0, 0.1)):
        with pytest.raises(ValueError, match=r"finite|backwards"):
            work.update(*bad)
    assert work.gamma() == untouched.gamma()
    with pytest.raises(ValueError, match="may be 0"):
        WorkFilter(Estimate(1.0, 0.0, 2.0, "1/day", "test"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 60) | st.just(0.0), st.floats(-10, 10), st.floats(1e-8, 10)), min_size=5, max_size=30
    ),
    st.floats(1e-4, 100),
)
def test_any_following(rows: list[tuple[float, float, float]], r: float) -> None:
    """Whatever L does and however it is spaced, gamma_eff is a number with a positive error."""
    work, t = WorkFilter(r), 20_000.0
    for gap, level, variance in rows:
        t += gap
        work.update(t, level, variance)
    got = given_(work.gamma())
    assert got.lo < got.value < got.hi


# --- two variants


def stressed(seed: int, drop: float, n: int = 60, turns: int = 6) -> Stressed:
    rng = np.random.default_rng(seed)
    aligned = np.tile(0.95 - drop * np.arange(turns), n)
    p = np.repeat((1 - aligned)[:, None] / 4, 5, axis=1)
    p[:, 0] = aligned
    drawn = np.eye(5)[(rng.uniform(size=len(p))[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)]
    return Stressed([f"c{i}" for i in range(n) for _ in range(turns)], np.tile(np.arange(turns), n), drawn)


def test_tuning_holds_back() -> None:
    """A base variant that loses its way while the tuned one does not: work, total and suppression are positive."""
    got = paired(stressed(1, 0.1), stressed(2, 0.0))
    for result in (got.rate, got.total, got.suppression):
        assert given_(result).lo > 0
    assert given_(got.rate).units == "nats/turn"
    assert got == paired(stressed(1, 0.1), stressed(2, 0.0))


def test_same_variant() -> None:
    """A variant compared with itself does no work, and knows so exactly, for its conversations are paired."""
    got = paired(stressed(1, 0.1), stressed(1, 0.1))
    for result in (got.rate, got.total, got.suppression):
        assert given_(result).value == pytest.approx(0, abs=1e-9)
        assert given_(result).hi < 1e-9


def test_pairing_narrows() -> None:
    """Shared names narrow the interval when the conversations have much in common."""
    base = stressed(1, 0.1)
    tuned = np.array(base.p)
    tuned[::7] = np.eye(5)[0]
    named = paired(base, Stressed(base.conversations, base.times, tuned)).suppression
    others = paired(base, Stressed([f"x{c}" for c in base.conversations], base.times, tuned)).suppression
    assert given_(named).hi - given_(named).lo < 0.7 * (given_(others).hi - given_(others).lo)


def test_irregular_times() -> None:
    """Times that never repeat are grouped, and the rate is per unit of time."""
    runs = []
    for seed, drop in ((1, 0.1), (2, 0.0)):
        run = stressed(seed, drop)
        jitter = np.random.default_rng(100 + seed).uniform(-0.3, 0.3, len(run.conversations))
        runs.append(Stressed(run.conversations, np.asarray(run.times) + jitter, run.p))
    whole = given_(paired(stressed(1, 0.1), stressed(2, 0.0)).rate)
    assert given_(paired(*runs, time_unit="day").rate).value == pytest.approx(whole.value, rel=0.3)


def test_paired_refuses() -> None:
    """Too few conversations, a turn off the simplex, NaN, no common time, nothing to suppress: each is named."""
    base, tuned = stressed(1, 0.1), stressed(2, 0.0)
    assert refused(paired(Stressed([], [], np.zeros((0, 5))), tuned).rate) == "not enough conversations (base): 0 of 50"
    assert refused(paired(base, stressed(2, 0.0, n=12)).total) == "not enough conversations (tuned): 12 of 50"
    off = np.array(base.p)
    off[3, 0] += 0.1
    assert refused(paired(Stressed(base.conversations, base.times, off), tuned).rate) == (
        "base: probabilities of turn 3 are not on the simplex"
    )
    for bad in (np.nan, np.inf):
        times = np.array(tuned.times, dtype=np.float64)
        times[4] = bad
        assert refused(paired(base, Stressed(tuned.conversations, times, tuned.p)).rate) == (
            "tuned: time of turn 4 is not finite"
        )
        off[3] = bad
        assert "turn 3" in refused(paired(Stressed(base.conversations, base.times, off), tuned).rate)
    later = Stressed(tuned.conversations, np.asarray(tuned.times) + 100, tuned.p)
    assert "no time" in refused(paired(base, later).total)
    short = paired(stressed(1, 0.1, turns=2), stressed(2, 0.0, turns=2))
    assert "not enough times" in refused(short.rate)
    assert isinstance(short.total, Estimate)
    pure = Stressed(base.conversations, base.times, np.tile(np.eye(5)[0], (len(base.conversations), 1)))
    assert "nothing to suppress" in refused(paired(pure, pure).suppression)
    assert "turns, but" in refused(paired(Stressed(base.conversations[:-1], base.times, base.p), tuned).rate)


def test_correction_is_applied() -> None:
    """Shares are what the correction makes of mean probabilities."""
    flat = paired(stressed(1, 0.1), stressed(2, 0.0), corrected=lambda q: np.full_like(q, 0.2))
    assert given_(flat.total).value == pytest.approx(0)


def test_estimate_is_never_nan() -> None:
    """An interval that is none cannot be made."""
    with pytest.raises(ValueError, match="not an interval"):
        Estimate(np.nan, 0.0, 1.0, "nats", "test")
    with pytest.raises(ValueError, match="not an interval"):
        Estimate(0.5, 1.0, 0.0, "nats", "test")
