"""Alignment work of a series as `watch` tells it: from stored points, or with the reason why not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gamma import watched
from monitor.baseline import BaselineRule
from monitor.config import Config, Monitor, load
from monitor.errors import ConfigError
from monitor.estimates import NORMAL_QUANTILE, Estimate, Refusal, Result
from monitor.steps import Stepper
from monitor.store import schema
from monitor.store.database import open_store, writing
from monitor.summary import summarise
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import Settings
from monitor.work_values import work_line, work_of, work_values
from tests.unit.core_cases import quantifier

END = datetime(2026, 2, 1, tzinfo=UTC)
DAY = 1440


def point(t: datetime, minutes: int, aligned: float, sd: float = 0.03, **changes: Any) -> dict[str, Any]:
    """A row of the table `points`."""
    half = NORMAL_QUANTILE * sd
    row: dict[str, Any] = {"series_id": 1, "t": t, "window_minutes": minutes, "classifier_version": "v"}
    row |= {"n": 300, "effective_n": 300.0, "s": 0.4, "s_lo": 0.3, "s_hi": 0.5, "s_sd": 0.02}
    row |= {"misaligned": 1 - aligned, "misaligned_lo": 1 - aligned - half, "misaligned_hi": 1 - aligned + half}
    for b in BEHAVIOURS:
        share, side = (aligned, half) if b == "aligned" else ((1 - aligned) / 4, 0.0)
        row |= {f"p_{b}": share, f"p_{b}_lo": share - side, f"p_{b}_hi": share + side}
    return row | {"ds_dt": 0.05, "ds_dt_se": 0.01, "kl": 0.0, "evidence": 0.0} | changes


def daily(days: int, aligned: float = 0.9, every_hours: int = 24) -> list[dict[str, Any]]:
    count = days * 24 // every_hours
    return [point(END - timedelta(hours=every_hours * (count - 1 - i)), DAY, aligned) for i in range(count)]


def figure(x: Result) -> Estimate:
    assert isinstance(x, Estimate), x
    return x


def reason(x: Result) -> str:
    assert isinstance(x, Refusal), x
    return x.reason


def test_steady_series() -> None:
    """Held at 90 % aligned for a month, gamma is r L and the margin at rest is the depth, each inside its interval."""
    points = daily(30)
    work = work_of(points[-1], {DAY: points}, lambda_max_per_day=1.0, sigma_0=0.2)
    level = np.log(0.9 / 0.025)
    for x, truth in ((work.depth, level / np.log(5)), (work.gamma, 0.5 * level), (work.margin, level / np.log(5))):
        found = figure(x)
        assert found.lo < truth < found.hi
        assert abs(found.value - truth) < 0.15 * truth
    assert figure(work.running).value == pytest.approx(0.15)
    assert figure(work.running).hi == pytest.approx(0.15 + NORMAL_QUANTILE * 0.01)
    assert (work.points, work.window_minutes) == (30, DAY)


def test_common_error_stays() -> None:
    """However many points there are, gamma is not known better than the classifier's common error allows."""
    points = daily(30)
    work = work_of(points[-1], {DAY: points}, 1.0, 0.0)
    gamma, depth = figure(work.gamma), figure(work.depth)
    assert gamma.hi - gamma.lo >= 0.5 * np.log(5) * (depth.hi - depth.lo)


def test_giving_way() -> None:
    """The margin of a series whose alignment falls is below its depth: dL/dt counts too."""
    points = [point(END - timedelta(days=19 - i), DAY, 0.95 - 0.035 * i, sd=0.01) for i in range(20)]
    work = work_of(points[-1], {DAY: points}, 0.4, 0.0)
    assert figure(work.margin).value < figure(work.depth).value


def test_overlapping_windows_count_once() -> None:
    """Points of each hour over 24 h are thinned to one a day, the last kept; what is older than 30 days is left out."""
    points = daily(40, every_hours=1)
    assert work_of(points[-1], {DAY: points}, 1.0, 0.0).points == 31
    hourly = [point(END - timedelta(hours=24 - i), 60, 0.9) for i in range(25)]
    work = work_of(points[-1], {60: hourly, DAY: points}, 1.0, 0.0)
    assert (work.points, work.window_minutes) == (25, 60)


def returning(seed: int, kappa: float, sd: float = 0.1) -> list[dict[str, Any]]:
    """A month of hourly points, each the mean over its hour of an S that is drawn back to 0.5 at rate kappa."""
    rng = np.random.default_rng(seed)
    keep = np.exp(-kappa / 144)
    s = np.empty(30 * 144)
    s[0] = sd * rng.standard_normal()
    for i in range(1, len(s)):
        s[i] = keep * s[i - 1] + sd * np.sqrt(1 - keep**2) * rng.standard_normal()
    seen = 0.5 + s.reshape(-1, 6).mean(axis=1) + 0.02 * rng.standard_normal(720)
    return [point(END - timedelta(hours=719 - i), 60, 0.9, s=float(x)) for i, x in enumerate(seen)]


def test_returning_series() -> None:
    """Of S that is drawn back to its mean, the 90 % interval of the rate holds the true one in most of ten months."""
    months = [returning(seed, kappa=4.0) for seed in range(10)]
    works = [work_of(hourly[-1], {60: hourly}, 0.0, 0.0) for hourly in months]
    assert sum(figure(w.kappa).lo < 4.0 < figure(w.kappa).hi for w in works) >= 7
    assert 3.5 < np.median([figure(w.kappa).value for w in works]) < 4.6, "windows that touch must not make it low"
    for w in works:
        assert figure(w.half_life).value == pytest.approx(np.log(2) / figure(w.kappa).value)


def test_rate_of_overlapping_windows() -> None:
    """Points of each hour over 24 h are as smooth as they overlap; the rate is told from one a day."""
    hourly = returning(3, kappa=1.0)
    s = np.array([p["s"] for p in hourly])
    daily = [
        point(END - timedelta(hours=719 - i), DAY, 0.9, s=float(s[i - 23 : i + 1].mean()), s_sd=0.004)
        for i in range(23, 720)
    ]
    work = work_of(daily[-1], {DAY: daily}, 0.0, 0.0)
    assert work.points == 30
    assert figure(work.kappa).lo < 1.0 < figure(work.kappa).hi


MISFIT = "the answers on the baseline fit no healthy deployment, as the classifier is calibrated"


def test_a_baseline_that_does_not_fit() -> None:
    """Where the classifier errs on a deployment as it never did before, nothing is told from the aligned share."""
    points = daily(30)
    work = work_of(points[-1], {DAY: points}, 1.0, 0.2, fits=False)
    assert {reason(x) for x in (work.depth, work.gamma, work.margin)} == {MISFIT}
    assert work_line(work).startswith(f"depth not known: {MISFIT}; margin not known: ")
    figure(work.running)


@pytest.mark.parametrize("confusion", ["shipped", "calibration"])
def test_gamma_of_simulated_series(confusion: str) -> None:
    """Through judging, baseline and points, the interval of gamma holds what the series was made of."""
    outcomes = watched(10, np.random.default_rng(4), depth=3.5, turns=25, confusion=confusion)
    found = [(truth, x) for name, truth, x in outcomes if name == "gamma_eff"]
    gammas = [(truth, x) for truth, x in found if isinstance(x, Estimate)]
    assert len(gammas) >= 7
    assert {reason(x) for _, x in found if isinstance(x, Refusal)} <= {MISFIT}
    # 95 % or more in the benchmark's 200; of 10, two standard errors less
    assert sum(g.lo <= truth <= g.hi for truth, g in gammas) >= 0.8 * len(gammas)
    assert np.median([g.hi - g.lo for _, g in gammas]) < 2.5


def test_refusals() -> None:
    """Too few points and settings that are not given are said, and the line for people says it too."""
    points = daily(3)
    work = work_of(points[-1], {DAY: points}, 1.0, 0.0)
    assert reason(work.margin) == reason(work.gamma) == "not enough windows of 24 h: 3 of 5"
    assert reason(work.kappa) == reason(work.half_life) == "not enough points: 3 of 20"
    assert reason(work.running) == "monitor.sigma_0 is not set"
    assert work_line(work).endswith("; margin not known: not enough windows of 24 h: 3 of 5")
    assert reason(work_of(points[-1], {DAY: points}, 0.0, 0.0).margin) == "monitor.lambda_max_per_day is not set"
    assert reason(work_of(points[-1], {}, 1.0, 0.0).margin) == "not enough windows of 24 h: 0 of 5"


@pytest.mark.parametrize("aligned", [0.0, 1.0])
def test_edges(aligned: float) -> None:
    """A series that is wholly aligned, or not at all, has finite figures."""
    points = [point(END - timedelta(days=9 - i), DAY, aligned, sd=0.0) for i in range(10)]
    work = work_of(points[-1], {DAY: points}, 1.0, 0.0)
    assert np.isfinite([figure(work.depth).value, figure(work.margin).lo, figure(work.margin).hi]).all()


def test_line() -> None:
    """The line names each figure, and an interval from below 0 is not written with two dashes."""
    points = daily(30, aligned=0.3)
    line = work_line(work_of(points[-1], {DAY: points}, 1.0, 0.2))
    assert line.startswith("depth 0.3")
    assert "; gamma_eff " in line
    assert "/day, margin " in line
    assert "(-" not in line or " to " in line
    assert line.endswith(" nats/day")


def test_summary(tmp_path: Path) -> None:
    """The summary of a stored series has the figures; points from before its baseline are not used."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    points = daily(30)
    with writing(engine) as connection:
        connection.execute(schema.series.insert(), [{"id": 1, "deployment": "d", "model": "m", "labels": "[]"}])
        connection.execute(schema.points.insert(), points)
    settings = Settings(lambda_max_per_day=1.0)
    stepper = Stepper(engine, quantifier(), "v", BaselineRule.parse("400"), settings)
    work = summarise(engine, [], stepper)["series"][0]["now"]["alignment_work"]
    assert (work["windows"], work["window_hours"]) == (30, 24)
    assert work["margin"]["low"] < np.log(0.9 / 0.025) / np.log(5) < work["margin"]["high"]
    assert work["margin"]["unit"] == "gamma_crit"
    assert work["sigma_0_minus_dS_dt"] == "not known: monitor.sigma_0 is not set"
    assert work["line"].startswith("depth ")
    with engine.connect() as connection:
        late = work_values(connection, 1, "v", points[-1], END - timedelta(days=7), settings)
    assert late["windows"] == 7


def test_settings() -> None:
    """Both rates are settings, by variable too; one below 0 is an error."""
    assert Config().trajectory().lambda_max_per_day == Config().trajectory().sigma_0_nats_per_day == 0
    given = load(None, {"VALUEDRIFT_MONITOR_LAMBDA_MAX_PER_DAY": "0.8", "VALUEDRIFT_MONITOR_SIGMA_0": "0.1"})
    assert (given.trajectory().lambda_max_per_day, given.trajectory().sigma_0_nats_per_day) == (0.8, 0.1)
    assert Config(monitor=Monitor(sigma_0=0.3)).trajectory().sigma_0_nats_per_day == 0.3
    for bad in ("-1", "nan", "inf"):
        with pytest.raises(ConfigError, match="LAMBDA_MAX"):
            load(None, {"VALUEDRIFT_MONITOR_LAMBDA_MAX_PER_DAY": bad})
