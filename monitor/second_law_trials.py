"""Many trials of the second law at once: S(t) under every work rate of a grid, and where work begins to hold it.

The dynamics is linear in z, so work only adds a known shift to the aligned logit: one set of noise paths, drawn exactly
(`monitor.second_law.simulate`: no step size enters, the steps only say how often one looks), serves every work rate.
Common noise also makes rates comparable: what differs between them is work, not luck. And S needs two numbers a
moment, not N: with l the aligned log-odds against all other goals together and H the entropy among these,

    S = h(l) + (1 - sigmoid(l)) H,        h the entropy of the choice "aligned or not".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.entropy import entropy
from monitor.second_law import critical_work, simulate, softmax
from monitor.taxonomy import ALIGNED, K

Floats = NDArray[np.float64]

LEAST_RATE: Final = 1e-6
"""Least lambda_max, and one by the most: choose another unit of time beyond."""
MOST_RELAXATIONS: Final = 1e6
"""Longest trial, in units of 1/r."""
MOST_SPREAD: Final = 100.0
"""Most standard deviation of logits, nats: e^100 is certainty already."""
HELD_NATS: Final = 0.005
"""S below this is printed as 0.00."""
MOST_ENTROPIES: Final = 10_000_000_000
"""trials x work rates x steps of one run: some minutes of one core."""
MOST_LOGITS: Final = 2_000_000_000
"""trials x steps x goals of one run: some minutes of one core."""
MOST_KEPT: Final = 10_000_000
"""trials x steps of one run: what is kept of the noise takes 16 bytes each, and working on it five times as much."""
CHUNK_LOGITS: Final = 4_000_000
"""Logits held in memory at a time, as long as that is at least one trial's."""
MOST_CHUNK: Final = 20_000_000
"""steps x goals: the logits of one trial."""
KEPT_TIMES: Final = 200
"""Points of time of a fan that are kept."""
FAN: Final = (0.05, 0.5, 0.95)
"""Quantiles over trials."""
FAN_MULTIPLES: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Work rates with a fan, in units of gamma_crit for N = the number of goals."""
BOUNDARY_MULTIPLES: Final = (1.0, 1.5)
"""... and of gamma_crit for another N, where one is given."""
GRID_UP_TO: Final = (2.0, 8.0)
"""The grid of work rates ends at so many gamma_crit, or so many of that for the number of goals if it is more."""


@dataclass(frozen=True)
class Setup:
    """What is simulated. The unit of time is that of `lambda_max`.

    Attributes
    ----------
    lambda_max : 1/time; r = lambda_max / 2 is the rate at which unheld logits relax.
    goals : N, the intended one among them.
    noise : D, nats^2/time; logits scatter with standard deviation sqrt(D / r).
    start_entropy : S(0), nats, with all unintended goals alike; below ln N.
    relaxations : length of a trial in units of 1/r.
    boundary_n : the N of gamma_crit = (lambda_max / 2) ln N; by default the number of goals.

    Raises
    ------
    ValueError : a value is out of range, or more is asked for than one run computes.
    """

    lambda_max: float = 1.2
    goals: int = K
    noise: float = 0.1
    trials: int = 20
    gammas: int = 200
    steps: int = 10_000
    start_entropy: float = 0.32
    relaxations: float = 10.0
    boundary_n: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        finite = (self.lambda_max, self.noise, self.start_entropy, self.relaxations, self.boundary_n or 2.0)
        if not all(map(math.isfinite, finite)):
            raise ValueError("every number must be finite")
        if not (LEAST_RATE <= self.lambda_max <= 1 / LEAST_RATE and 0 < self.relaxations <= MOST_RELAXATIONS):
            raise ValueError(
                f"lambda_max must lie between {LEAST_RATE:g} and {1 / LEAST_RATE:g}, a trial be longer than 0 and "
                f"at most {MOST_RELAXATIONS:g} relaxation times"
            )
        if not 0 <= self.noise <= MOST_SPREAD**2 * self.r:
            raise ValueError(
                f"the noise must not be negative, nor spread logits by more than {MOST_SPREAD:g}: sqrt(D / r)"
            )
        if min(self.goals, self.trials, self.gammas) < 2 or self.steps < 1 or self.seed < 0:
            raise ValueError("at least 2 goals, 2 trials, 2 work rates and 1 step, and a seed that is not negative")
        if not 0 < self.start_entropy < math.log(self.goals):
            most = math.log(self.goals)
            raise ValueError(f"the entropy at the start must lie between 0 and ln({self.goals}) = {most:.3f} nats")
        if self.boundary_n is not None and not self.boundary_n > 1:
            raise ValueError("the N of the boundary must be above 1")
        asked = (
            ("trials x work rates x steps", self.trials * self.gammas * self.steps, MOST_ENTROPIES),
            ("trials x steps x goals", self.trials * self.steps * self.goals, MOST_LOGITS),
            ("trials x steps", self.trials * self.steps, MOST_KEPT),
            ("steps x goals", self.steps * self.goals, MOST_CHUNK),
        )
        for what, number, most in asked:
            if number > most:
                raise ValueError(f"{what} = {number:,}: at most {most:,} are computed in one run, take fewer")

    @property
    def r(self) -> float:
        """Relaxation rate lambda_max / 2, 1/time."""
        return self.lambda_max / 2

    @property
    def own_boundary(self) -> float:
        """gamma_crit for N = the number of goals, nats/time."""
        return critical_work(self.lambda_max, self.goals)

    @property
    def boundary(self) -> float:
        """gamma_crit for `boundary_n`, nats/time."""
        return critical_work(self.lambda_max, self.boundary_n or self.goals)

    @cached_property
    def times(self) -> Floats:
        """(steps + 1,) times."""
        return np.linspace(0, self.relaxations / self.r, self.steps + 1)

    @cached_property
    def start(self) -> Floats:
        """(N,) logits at time 0."""
        z = np.zeros(self.goals)
        low, high = 0.0, 745.0  # e^-745 is the smallest float
        while high - low > 1e-12 * high:
            z[ALIGNED] = (low + high) / 2
            low, high = (z[ALIGNED], high) if entropy(softmax(z)) > self.start_entropy else (low, z[ALIGNED])
        return z

    @property
    def fan_gammas(self) -> list[float]:
        """Work rates that get a fan, nats/time, rising."""
        of_boundary = () if self.boundary_n is None else BOUNDARY_MULTIPLES
        rates = {m * self.own_boundary for m in FAN_MULTIPLES} | {m * self.boundary for m in of_boundary}
        return sorted(rates)


def shift(setup: Setup, gamma: float, times: Floats) -> Floats:
    """What work has added to the aligned logit by each time: gamma / r (1 - e^(-r t))."""
    return np.asarray(gamma / setup.r * -np.expm1(-setup.r * times))


def gap_moments(setup: Setup, gamma: float, time: float) -> tuple[float, float]:
    """Closed form: mean and standard deviation over trials of z_aligned - mean of the other z, at a time."""
    decay = math.exp(-setup.r * time)
    mean = setup.start[ALIGNED] * decay + gamma / setup.r * (1 - decay)
    variance = setup.noise / setup.r * (1 - decay * decay) * setup.goals / (setup.goals - 1)
    return float(mean), math.sqrt(variance)


def settled_entropy(gamma: float, lambda_max: float, goals: float) -> float:
    """S at rest without noise, nats: every unintended goal at odds exp(-2 gamma / lambda_max). `goals` may be huge."""
    others = math.log(goals - 1)
    return float(mixed_entropy(np.array(2 * gamma / lambda_max - others), np.array(others)))


def mixed_entropy(log_odds: Floats, others: Floats) -> Floats:
    """S, nats, from the log-odds of the aligned goal against all others together and the entropy among these.

    Written so that an S of 1e-15 keeps its digits.
    """
    size = np.abs(log_odds)
    e = np.exp(-size)
    rare = e / (1 + e)
    return np.asarray(np.log1p(e) + size * rare + np.where(log_odds > 0, rare, 1 - rare) * others)


@dataclass(frozen=True)
class Paths:
    """What the noise did, without work. (trials, steps + 1) each."""

    log_odds: Floats
    """ln(p_aligned / (1 - p_aligned))."""
    others: Floats
    """Entropy among the unintended goals, nats."""
    gap: Floats
    """(trials,) z_aligned - mean of the other z at the end."""


@dataclass(frozen=True)
class Fan:
    """S(t) of all trials under one work rate."""

    gamma: float
    """nats/time"""
    times: Floats
    """(T,)"""
    quantiles: Floats
    """(3, T) of FAN, nats"""
    end: Floats
    """(trials,) S at the end, nats"""
    misaligned: Floats
    """(trials,) 1 - p_aligned at the end"""
    gap: Floats
    """(trials,) z_aligned - mean of the other z at the end, nats"""


@dataclass(frozen=True)
class Runs:
    """Everything one simulation gives."""

    setup: Setup
    fans: list[Fan]
    gammas: Floats
    """(G,) the grid, nats/time"""
    end: Floats
    """(G, trials) S at the end, nats"""
    settled: Floats
    """(G, trials) mean S over the second half of a trial, nats"""

    @property
    def held_from(self) -> float | None:
        """Least work rate of the grid from which on S ends below HELD_NATS in every trial; None: none does."""
        loose = np.flatnonzero((self.end >= HELD_NATS).any(axis=1))
        first = int(loose[-1]) + 1 if len(loose) else 0
        return float(self.gammas[first]) if first < len(self.gammas) else None


def run(setup: Setup, progress: Callable[[float], None] | None = None) -> Runs:
    """Simulate; the same setup gives the same numbers. `progress` is told the share done, 0 to 1."""
    told = progress or (lambda share: None)
    paths = draw_paths(setup, lambda share: told(0.2 * share))
    fans = [_fan(setup, paths, gamma) for gamma in setup.fan_gammas]
    top = max(GRID_UP_TO[0] * setup.boundary, GRID_UP_TO[1] * setup.own_boundary)
    gammas = np.linspace(0, top, setup.gammas)
    half = setup.steps // 2
    end, settled = np.empty((setup.gammas, setup.trials)), np.empty((setup.gammas, setup.trials))
    for i, gamma in enumerate(gammas):
        s = mixed_entropy(paths.log_odds + shift(setup, gamma, setup.times), paths.others)
        end[i], settled[i] = s[:, -1], s[:, half:].mean(axis=1)
        told(0.2 + 0.8 * (i + 1) / setup.gammas)
    return Runs(setup, fans, gammas, end, settled)


def draw_paths(setup: Setup, progress: Callable[[float], None] | None = None) -> Paths:
    """Noise paths without work, a few trials at a time as memory allows."""
    at_once = max(1, CHUNK_LOGITS // (len(setup.times) * setup.goals))
    rng = np.random.default_rng(setup.seed)
    shape = (setup.trials, len(setup.times))
    log_odds, others, gap = np.empty(shape), np.empty(shape), np.empty(setup.trials)
    for first in range(0, setup.trials, at_once):
        part = slice(first, min(first + at_once, setup.trials))
        z = simulate(
            setup.times, r=setup.r, gamma=0.0, diffusion=setup.noise, paths=part.stop - first, goals=setup.goals,
            start=setup.start, seed=rng,
        )  # fmt: skip
        aligned, rest = z[..., ALIGNED], np.delete(z, ALIGNED, axis=-1)
        top = rest.max(axis=-1)
        total = top + np.log(np.exp(rest - top[..., None]).sum(axis=-1))
        log_odds[part] = aligned - total
        others[part] = np.maximum(total - (softmax(rest) * rest).sum(axis=-1), 0.0)
        gap[part] = aligned[:, -1] - rest[:, -1].mean(axis=-1)
        if progress:
            progress(part.stop / setup.trials)
    return Paths(log_odds, others, gap)


def _fan(setup: Setup, paths: Paths, gamma: float) -> Fan:
    kept = np.unique(np.linspace(0, setup.steps, min(KEPT_TIMES, setup.steps + 1)).round().astype(np.int64))
    times = setup.times[kept]
    log_odds = paths.log_odds[:, kept] + shift(setup, gamma, times)
    s = mixed_entropy(log_odds, paths.others[:, kept])
    misaligned = np.exp(-np.logaddexp(0.0, log_odds[:, -1]))
    gap = paths.gap + shift(setup, gamma, times[-1:])
    return Fan(gamma, times, np.quantile(s, FAN, axis=0), s[:, -1], misaligned, gap)
