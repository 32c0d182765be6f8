"""What a simulation of the second law says in numbers, and beside it what the abstract of arXiv 2511.10704 says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monitor.second_law import equilibrium_odds
from monitor.second_law_trials import FAN, Runs, Setup, draw_paths, gap_moments, mixed_entropy, settled_entropy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Abstract:
    """The numbers of the abstract of arXiv 2511.10704; S in nats, "+/-" as printed there: of what it does not say."""

    parameters: float = 7e9
    """The N of its gamma_crit: the number of model parameters, not of goals."""
    lambda_max: float = 1.2
    start: float = 0.32
    unheld: tuple[float, float] = (1.69, 1.08)
    held: tuple[float, float] = (0.0, 0.0)
    gamma: float = 20.4
    in_gamma_crit: float = 1.5
    trials: int = 20
    p: float = 4.19e-17


ABSTRACT: Final = Abstract()
NOISE_FOR_ITS_MEAN: Final = {11: 1.34, 100: 7.6, 1000: 15.2}
"""Goals -> the noise D, nats^2/time, with which S without work settles at the abstract's 1.69 on average."""
MANY_TRIALS: Final = 4000
"""Trials behind mean and scatter for those."""
WELCH_P: Final = 1.2e-6
"""Two-sided p of 1.69 +/- 1.08 against 0.00 +/- 0.00, 20 trials each: t = 7.00 with 19 degrees of freedom."""
POOLED_P: Final = 2.5e-8
"""... with the 38 of Student's pooled test."""
STANDARD_ERROR_P: Final = 0.13
"""... by Welch's, were the 1.08 a standard error."""


def fewest_goals(mean: float, deviation: float, n: int) -> int:
    """Least number of goals for which n entropies can have this mean and sample standard deviation.

    0 <= S <= ln K bounds the variance by mean (ln K - mean) (Bhatia & Davis 2000), n / (n - 1) of it in a sample.
    """
    return math.ceil(math.exp(mean + deviation**2 * (n - 1) / n / mean))


PAPER: Final = Setup(
    lambda_max=ABSTRACT.lambda_max,
    goals=11,
    noise=NOISE_FOR_ITS_MEAN[11],
    trials=ABSTRACT.trials,
    start_entropy=ABSTRACT.start,
    boundary_n=ABSTRACT.parameters,
)
"""`--preset paper`: what the abstract leaves open is filled in by the fewest goals that its own figures allow, and
the noise with which S without work settles at its mean."""


def mean_and_deviation(x: Floats) -> tuple[float, float]:
    """Mean and sample standard deviation."""
    return float(x.mean()), float(x.std(ddof=1))


def values(runs: Runs) -> dict[str, Any]:
    """The figures of a run as plain numbers (nats, nats/time, in the unit of time of lambda_max)."""
    setup = runs.setup
    works = []
    for fan in runs.fans:
        (s, s_sd), (gap, gap_sd) = mean_and_deviation(fan.end), mean_and_deviation(fan.gap)
        expected, _ = gap_moments(setup, fan.gamma, float(fan.times[-1]))
        works.append(
            {
                "gamma": fan.gamma,
                "in_gamma_crit": fan.gamma / setup.boundary,
                "S": s,
                "S_deviation": s_sd,
                "S_at_rest_without_noise": settled_entropy(fan.gamma, setup.lambda_max, setup.goals),
                "misaligned": float(fan.misaligned.mean()),
                "odds": equilibrium_odds(fan.gamma, setup.lambda_max),
                "gap": gap,
                "gap_error": gap_sd / math.sqrt(setup.trials),
                "gap_expected": expected,
            }
        )
    return {
        "setup": asdict(setup),
        "r": setup.r,
        "duration": float(setup.times[-1]),
        "gamma_crit": setup.boundary,
        "gamma_crit_of_goals": setup.own_boundary,
        "held_from": runs.held_from,
        "works": works,
    }


def boundary_rows(runs: Runs) -> Iterator[dict[str, float]]:
    """One row for each work rate of the grid."""
    setup = runs.setup
    for gamma, end, settled in zip(runs.gammas.tolist(), runs.end, runs.settled, strict=True):
        (s, s_sd), (rest, rest_sd) = mean_and_deviation(end), mean_and_deviation(settled)
        yield {
            "gamma": gamma,
            "in_gamma_crit": gamma / setup.boundary,
            "S_end": s,
            "S_end_deviation": s_sd,
            "S_second_half": rest,
            "S_second_half_deviation": rest_sd,
            "S_at_rest_without_noise": settled_entropy(gamma, setup.lambda_max, setup.goals),
        }


def fan_rows(runs: Runs) -> Iterator[dict[str, float]]:
    """One row for each work rate with a fan and each point of time: quantiles of S over trials."""
    names = [f"S_{100 * q:.0f}" for q in FAN]
    for fan in runs.fans:
        for time, cells in zip(fan.times.tolist(), fan.quantiles.T.tolist(), strict=True):
            yield {"gamma": fan.gamma, "time": time, **dict(zip(names, cells, strict=True))}


def unheld(goals: int, noise: float) -> tuple[float, float]:
    """Mean and scatter of S without work at the end of many trials of PAPER; exact, as only the end is drawn."""
    paths = draw_paths(replace(PAPER, goals=goals, noise=noise, trials=MANY_TRIALS, gammas=2, steps=1))
    return mean_and_deviation(mixed_entropy(paths.log_odds[:, -1], paths.others[:, -1]))


def beside_abstract(runs: Runs) -> dict[str, Any]:
    """The abstract's figures and ours: `rows` of (what, theirs, ours), `notes` on what follows and what does not."""
    a, setup = ABSTRACT, runs.setup
    free, held = runs.fans[0], runs.fans[-1]
    least = fewest_goals(*a.unheld, a.trials)
    t = (a.unheld[0] - a.held[0]) / math.sqrt((a.unheld[1] ** 2 + a.held[1] ** 2) / a.trials)
    scatter = {k: unheld(k, d) for k, d in NOISE_FOR_ITS_MEAN.items()}
    rows = [
        ("lambda_max", f"{a.lambda_max:g}", f"{setup.lambda_max:g}"),
        ("N of the boundary", f"{a.parameters:.0e} parameters", f"{setup.boundary_n or setup.goals:.0e}"),
        ("gamma_crit = (lambda_max/2) ln N", f"{a.gamma / a.in_gamma_crit:.1f}", f"{setup.boundary:.1f}"),
        ("number of goals", f"open; at least {least}", f"{setup.goals}"),
        ("noise D", "open", f"{setup.noise:g}"),
        ("length of a trial", "open", f"{setup.relaxations:g} relaxation times"),
        ("trials", f"{a.trials}", f"{setup.trials}"),
        ("S at the start", f"{a.start:.2f}", f"{setup.start_entropy:.2f}"),
        ("S without work", _plus_minus(*a.unheld), _plus_minus(*mean_and_deviation(free.end))),
        (
            f"S at gamma = {a.gamma:g}, {a.in_gamma_crit:g} gamma_crit",
            _plus_minus(*a.held),
            f"{_plus_minus(*mean_and_deviation(held.end))} at {held.gamma:.1f}",
        ),
        ("S held at 0.00 in every trial from", "-", "-" if runs.held_from is None else f"gamma = {runs.held_from:.1f}"),
    ]
    notes = [
        f"The number of goals is open, but not free: S lies between 0 and its logarithm, so 20 values with mean "
        f"{a.unheld[0]} and sample deviation {a.unheld[1]} need at least {least} goals (ln {least} = "
        f"{math.log(least):.2f}).",
        "With the noise chosen so that S without work settles near 1.69, its scatter over "
        + f"{MANY_TRIALS:,} trials is "
        + ", ".join(f"{sd:.2f} with {k:,} goals (mean {mean:.2f})" for k, (mean, sd) in scatter.items())
        + f": the abstract's {a.unheld[1]} is not reached here.",
        f"The p-value of {a.p:g} does not follow from {_plus_minus(*a.unheld)} against {_plus_minus(*a.held)} with 20 "
        f"trials each by a t-test: t = {t:.2f}, two-sided p = {WELCH_P:g} (Welch, 19 degrees of freedom) or "
        f"{POOLED_P:g} (pooled, 38); with +/- read as a standard error, t = {a.unheld[0] / a.unheld[1]:.2f}, p = "
        f"{STANDARD_ERROR_P:g}. Nor by an exact rank or permutation test, whose least p is "
        f"{2 / math.comb(2 * a.trials, a.trials):.1e}. Which test it is from the abstract does not say.",
        "N in the abstract's boundary is the number of parameters. In the dynamics simulated here gamma_crit for N is "
        f"where the odds of one unintended goal fall to 1/N; for N = our {setup.goals} goals that is gamma = "
        f"{setup.own_boundary:.2f}. Nothing jumps at either: S falls smoothly in gamma.",
        "The dynamics is this project's reading of the abstract (docs/theory.md), not the paper's program.",
    ]
    return {"abstract": asdict(a), "rows": rows, "notes": notes, "scatter": scatter}


def _plus_minus(mean: float, deviation: float) -> str:
    return f"{mean:.2f} +/- {deviation:.2f}"
