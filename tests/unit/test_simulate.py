"""The second law simulated: many trials, many work rates, and what `valuedrift simulate` says of them."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monitor.entropy import entropy
from monitor.second_law import critical_work, equilibrium_odds, simulate, softmax
from monitor.second_law_figures import (
    ABSTRACT,
    NOISE_FOR_ITS_MEAN,
    PAPER,
    POOLED_P,
    STANDARD_ERROR_P,
    WELCH_P,
    beside_abstract,
    fewest_goals,
    unheld,
    values,
)
from monitor.second_law_trials import (
    HELD_NATS,
    Setup,
    draw_paths,
    gap_moments,
    mixed_entropy,
    run,
    settled_entropy,
    shift,
)
from tests.conftest import Run

SMALL = Setup(trials=40, gammas=30, steps=200)


# --- the process


def moments_off(seed: int, n: int = 400) -> list[float]:
    """By how many standard errors n simulated paths miss the closed-form moments of the OU process."""
    r, gamma, noise, goals = 0.6, 1.5, 0.3, 4
    times = np.array([0.0, 0.4, 1.5, 6.0])
    z = simulate(
        times, r=r, gamma=gamma, diffusion=noise, paths=n, goals=goals, start=np.array([2.0, 0, 0, 0]), seed=seed
    )
    off = []
    for i, t in enumerate(times[1:], start=1):
        keep = math.exp(-r * t)
        variance = noise / r * (1 - keep**2)
        means = (2.0 * keep + gamma / r * (1 - keep), 0.0)
        for x, mean in zip((z[:, i, 0], z[:, i, 1]), means, strict=True):
            off.append((x.mean() - mean) / math.sqrt(variance / n))
            off.append((((x - mean) ** 2).mean() / variance - 1) / math.sqrt(2 / n))
    # covariance of two times of one path
    a, b = z[:, 1, 1], z[:, 2, 1]
    v_a, v_b = (noise / r * (1 - math.exp(-2 * r * t)) for t in times[1:3])
    cov = v_a * math.exp(-r * (times[2] - times[1]))
    off.append(((a * b).mean() - cov) / math.sqrt((v_a * v_b + cov**2) / n))
    return off


def test_closed_form_moments() -> None:
    """Means, variances and covariances are those of the closed form: 95 % within two standard errors, none far off."""
    off = np.abs([moments_off(seed) for seed in range(60)])
    within = (off < 2).mean(axis=0)
    assert off.max() < 5
    assert (within >= 0.85).all(), within
    assert 0.93 <= within.mean() <= 0.975


def test_gap_moments() -> None:
    """The gap between the aligned logit and the others has its closed-form mean and scatter, work or no work."""
    setup = Setup(trials=3000, steps=7, gammas=2, goals=6, noise=0.5, relaxations=1.3)
    for fan in run(setup).fans:
        mean, deviation = gap_moments(setup, fan.gamma, float(fan.times[-1]))
        assert abs(fan.gap.mean() - mean) < 2 * deviation / math.sqrt(setup.trials)
        assert abs(fan.gap.std(ddof=1) / deviation - 1) < 2 / math.sqrt(2 * setup.trials)


def test_odds_at_rest() -> None:
    """Under work each unintended goal settles at odds exp(-2 gamma / lambda_max), within two standard errors."""
    setup = Setup(trials=2000, steps=4, gammas=2, relaxations=12.0)
    for fan in run(setup).fans:
        log_odds = -fan.gap
        error = log_odds.std(ddof=1) / math.sqrt(setup.trials)
        assert abs(log_odds.mean() - math.log(equilibrium_odds(fan.gamma, setup.lambda_max))) < 2 * error


@pytest.mark.parametrize("goals", [2, 5, 1000])
def test_boundary(goals: int) -> None:
    """At gamma_crit those odds are 1/N; without noise the simulation settles there."""
    setup = Setup(goals=goals, noise=0.0, trials=2, steps=4, gammas=2, relaxations=40.0)
    fan = next(f for f in run(setup).fans if f.gamma == setup.own_boundary)
    assert equilibrium_odds(setup.own_boundary, setup.lambda_max) == pytest.approx(1 / goals)
    assert np.exp(-fan.gap) == pytest.approx(1 / goals)
    assert fan.misaligned == pytest.approx((goals - 1) / (2 * goals - 1))
    # S is far from 0 there
    assert fan.end == pytest.approx(math.log(2 * goals - 1) - goals / (2 * goals - 1) * math.log(goals))


def test_work_is_a_shift() -> None:
    """One set of noise paths serves every work rate: the same S, to rounding, as simulating with work at once."""
    setup = Setup(goals=4, trials=3, steps=50, gammas=2, noise=0.4)
    paths = draw_paths(setup)
    for gamma in (0.0, 0.7, 5.0):
        z = simulate(
            setup.times,
            r=setup.r,
            gamma=gamma,
            diffusion=setup.noise,
            paths=3,
            goals=4,
            start=setup.start,
            seed=setup.seed,
        )
        s = mixed_entropy(paths.log_odds + shift(setup, gamma, setup.times), paths.others)
        assert s == pytest.approx(entropy(softmax(z)), abs=1e-12)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=12))
@settings(deadline=None)
def test_entropy_in_two_parts(z: list[float]) -> None:
    """S from the aligned log-odds and the entropy among the others is S of the whole mixture."""
    logits = np.array(z)
    rest = logits[1:]
    total = rest.max() + np.log(np.exp(rest - rest.max()).sum())
    s = mixed_entropy(logits[0] - total, entropy(softmax(rest)))
    assert s == pytest.approx(entropy(softmax(logits)), abs=1e-10)


def test_work_balance() -> None:
    """dS/dt = p (1 - p) L (r L - gamma): what relaxation produces of S, less what work takes off (docs/theory.md)."""
    setup = Setup(noise=0.0, trials=2, gammas=2, steps=20_000, start_entropy=1.2)
    paths = draw_paths(setup)
    for gamma in (0.0, 0.8, 3.0):
        log_odds = paths.log_odds[0] + shift(setup, gamma, setup.times)
        p, level = 1 / (1 + np.exp(-log_odds)), log_odds + math.log(setup.goals - 1)
        rate = np.gradient(mixed_entropy(log_odds, paths.others[0]), setup.times)
        expected = p * (1 - p) * level * (setup.r * level - gamma)
        assert rate[1:-1] == pytest.approx(expected[1:-1], abs=1e-6)


def test_entropy_can_fall_without_work() -> None:
    """Noise alone lowers S of a single trial from near ln N; the entropy of the mean mixture still rises to ln N."""
    setup = Setup(goals=11, noise=1.34, trials=2000, steps=1, gammas=2, start_entropy=2.39)
    paths = draw_paths(setup)
    assert mixed_entropy(paths.log_odds, paths.others)[:, -1].mean() < 1.75
    z = simulate(setup.times, r=setup.r, gamma=0.0, diffusion=setup.noise, paths=2000, goals=11, start=setup.start)
    assert entropy(softmax(z[:, -1]).mean(axis=0)) > 2.39


def test_tiny_entropy() -> None:
    """An entropy of 1e-12 keeps its digits, where 1 - p would have lost them."""
    s = settled_entropy(gamma=0.6 * 30, lambda_max=1.2, goals=3)
    odds = math.exp(-30)
    assert s == pytest.approx(2 * odds * (30 + 1), rel=1e-9)


def test_work_that_holds() -> None:
    """Without noise S is below 0.005 from 5.6 gamma_crit on with 5 goals, and from gamma = 6.0 on with 11 goals."""
    crit = critical_work(1.2, 5)
    assert settled_entropy(5.57 * crit, 1.2, 5) > HELD_NATS > settled_entropy(5.6 * crit, 1.2, 5)
    assert settled_entropy(5.95, 1.2, 11) > HELD_NATS > settled_entropy(6.0, 1.2, 11)


def test_as_many_goals_as_parameters() -> None:
    """Were each of 7e9 parameters a goal, S would rise to 22.7 nats, not 1.69, and still be 0.00 at 1.5 gamma_crit."""
    crit = critical_work(1.2, 7e9)
    assert settled_entropy(0.0, 1.2, 7e9) == pytest.approx(math.log(7e9))
    assert settled_entropy(crit, 1.2, 7e9) == pytest.approx(math.log(2) + math.log(7e9) / 2, rel=1e-6)
    assert settled_entropy(1.5 * crit, 1.2, 7e9) < HELD_NATS


# --- a whole run


def test_second_law_and_its_boundary() -> None:
    """Left alone S rises from its start; more work holds it lower; from some rate on it is 0.00 in every trial."""
    found = run(SMALL)
    free = found.fans[0]
    assert free.gamma == 0
    assert free.quantiles[:, 0] == pytest.approx(0.32, abs=1e-9)
    assert free.end.min() > 1.3
    assert (np.diff(found.settled.mean(axis=1)) < 0).all()
    assert found.held_from is not None
    assert (found.end[found.gammas >= found.held_from] < HELD_NATS).all()
    assert (found.end[found.gammas < found.held_from][-1] >= HELD_NATS).any()
    assert run(Setup(trials=2, gammas=5, steps=10, relaxations=0.01)).held_from is None


def test_steps_only_say_how_often_one_looks() -> None:
    """The figures at the end have the same distribution with 1 step and with 300."""
    once, often = (draw_paths(Setup(trials=1500, steps=n, gammas=2, noise=0.6, seed=n)) for n in (1, 300))
    a, b = (mixed_entropy(p.log_odds, p.others)[:, -1] for p in (once, often))
    assert stats.ks_2samp(a, b).pvalue > 0.01


def test_seed() -> None:
    """The same options give the same figures, another seed others."""
    assert values(run(SMALL)) == values(run(SMALL))
    assert values(run(SMALL))["works"] != values(run(Setup(trials=40, gammas=30, steps=200, seed=1)))["works"]


def test_progress() -> None:
    """Progress rises to the end."""
    told: list[float] = []
    run(SMALL, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


# --- the abstract of arXiv 2511.10704


def test_its_p_value() -> None:
    """1.69 +/- 1.08 against 0.00 +/- 0.00 with 20 trials each has the p-values that are printed, not the abstract's."""
    (m, s), n = ABSTRACT.unheld, ABSTRACT.trials
    welch = stats.ttest_ind_from_stats(m, s, n, 0, 0, n, equal_var=False).pvalue
    pooled = stats.ttest_ind_from_stats(m, s, n, 0, 0, n, equal_var=True).pvalue
    assert (welch, pooled) == (pytest.approx(WELCH_P, rel=0.05), pytest.approx(POOLED_P, rel=0.05))
    assert ABSTRACT.p < 1e-6 * pooled
    assert 2 * stats.t.sf(m / s, n - 1) == pytest.approx(STANDARD_ERROR_P, rel=0.05)
    # whatever was rounded away
    assert stats.ttest_ind_from_stats(m + 0.005, s - 0.005, n, 0, 0, n, equal_var=True).pvalue > 1e8 * ABSTRACT.p


def test_its_boundary() -> None:
    """Its 20.4 is 1.5 (lambda_max / 2) ln N with N the number of parameters."""
    assert ABSTRACT.in_gamma_crit * critical_work(ABSTRACT.lambda_max, ABSTRACT.parameters) == pytest.approx(
        ABSTRACT.gamma, abs=0.05
    )


def test_fewest_goals() -> None:
    """Entropies of mean 1.69 and deviation 1.08 need 11 goals; the bound is reached by values at 0 and ln K only."""
    assert fewest_goals(*ABSTRACT.unheld, ABSTRACT.trials) == 11
    for mean, deviation in ((1.685, 1.075), (1.695, 1.085)):
        assert fewest_goals(mean, deviation, ABSTRACT.trials) == 11
    extreme = np.repeat([0.0, math.log(9)], [8, 12])
    assert fewest_goals(float(extreme.mean()), float(extreme.std(ddof=1)) - 1e-9, 20) == 9


@pytest.mark.parametrize(("goals", "noise"), NOISE_FOR_ITS_MEAN.items())
def test_noise_for_its_mean(goals: int, noise: float) -> None:
    """With these goals and this noise S without work settles at its mean, with less scatter."""
    mean, scatter = unheld(goals, noise)
    assert mean == pytest.approx(ABSTRACT.unheld[0], abs=0.03)
    assert scatter < 0.85 < ABSTRACT.unheld[1]


def test_beside_abstract() -> None:
    """Every figure of the abstract stands beside ours; what it leaves open is said to be open."""
    found = beside_abstract(run(PAPER))
    rows = {what: (theirs, ours) for what, theirs, ours in found["rows"]}
    assert rows["S without work"][0] == "1.69 +/- 1.08"
    assert rows["S at gamma = 20.4, 1.5 gamma_crit"] == ("0.00 +/- 0.00", "0.00 +/- 0.00 at 20.4")
    assert rows["number of goals"] == ("open; at least 11", "11")
    assert rows["noise D"][0] == "open"
    assert any("does not follow" in note for note in found["notes"])


# --- the command


def test_command(valuedrift: Run, tmp_path: Path) -> None:
    """`simulate --preset paper` prints both columns and leaves the figures as JSON and CSV, and a picture."""
    said = valuedrift("simulate", "--preset", "paper", "--out", "sim", "--steps", "300")
    assert said.returncode == 0, said.stderr
    assert "1.69 +/- 1.08" in said.stdout
    assert "does not follow" in said.stdout
    found = json.loads((tmp_path / "sim" / "simulate.json").read_text())
    assert found["gamma_crit"] == pytest.approx(13.6, abs=0.01)
    with (tmp_path / "sim" / "boundary.csv").open() as f:
        boundary = list(csv.DictReader(f))
    assert len(boundary) == found["setup"]["gammas"] == 200
    assert float(boundary[-1]["gamma"]) == pytest.approx(2 * found["gamma_crit"])
    with (tmp_path / "sim" / "fans.csv").open() as f:
        assert {float(row["gamma"]) for row in csv.DictReader(f)} == {w["gamma"] for w in found["works"]}
    assert (tmp_path / "sim" / "simulate.png").read_bytes().startswith(b"\x89PNG")


def test_command_json(valuedrift: Run, tmp_path: Path) -> None:
    """`--json` prints one object and no progress; the same picture twice has the same bytes."""
    pictures = []
    for out in ("a", "b"):
        said = valuedrift("simulate", "--trials", "3", "--steps", "50", "--json", "--format", "svg", "--out", out)
        assert said.stderr == ""
        found = json.loads(said.stdout)
        assert found["setup"]["trials"] == 3
        assert found["paper"] is None
        pictures.append((tmp_path / out / "simulate.svg").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"goals": 1}, "at least 2 goals"),
        ({"trials": 1}, "2 trials"),
        ({"gammas": 1}, "2 work rates"),
        ({"steps": 0}, "1 step"),
        ({"seed": -1}, "seed"),
        ({"lambda_max": math.nan}, "finite"),
        ({"lambda_max": 0.0}, "between 1e-06 and 1e+06"),
        ({"lambda_max": 1e300}, "between 1e-06 and 1e+06"),
        ({"noise": math.inf}, "finite"),
        ({"noise": -1.0}, "not be negative"),
        ({"noise": 1e12}, "spread logits by more than 100"),
        ({"relaxations": 0.0}, "longer than 0"),
        ({"start_entropy": 1.7}, "ln(5) = 1.609"),
        ({"start_entropy": 0.0}, "between 0"),
        ({"boundary_n": 1.0}, "above 1"),
        ({"trials": 10**6, "gammas": 2, "steps": 100}, "trials x steps = 100,000,000: at most"),
        ({"gammas": 10**6}, "trials x work rates x steps"),
        ({"goals": 10**9, "steps": 1}, "goals = "),
    ],
)
def test_refuses(given_: dict[str, float], says: str) -> None:
    """What cannot be simulated, or not in one run, is an error that says what to change."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Setup(**given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "says"), [(["--lambda-max", "nan"], "every number must be finite"), (["--out", "file"], "--out")]
)
def test_command_refuses(valuedrift: Run, tmp_path: Path, options: list[str], says: str) -> None:
    """What the command cannot do is one line on stderr, and exit code 2."""
    (tmp_path / "file").write_text("")
    said = valuedrift("simulate", *options)
    assert said.returncode == 2
    assert says in said.stderr
    assert said.stderr.count("\n") == 1
