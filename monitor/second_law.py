"""The dynamics of design 3.4: goal logits that decay to indifference unless alignment work holds them up.

    dz = (-r z + gamma e_aligned) dt + sqrt(2 D) dW,    p = softmax(z),    r = lambda_max / 2

Only the abstract of arXiv 2511.10704 is known here; the dynamics is this project's reading of it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitor.taxonomy import ALIGNED, K

Floats = NDArray[np.float64]


def equilibrium_odds(gamma: float, lambda_max: float) -> float:
    """Odds of each unintended goal against the aligned one under steady work: exp(-2 gamma / lambda_max)."""
    return math.exp(-2 * gamma / lambda_max)


def critical_work(lambda_max: float, goals: float = K) -> float:
    """gamma_crit = (lambda_max / 2) ln N, at which those odds are 1/N; in the units of lambda_max.

    N is the number of goals here; the N of arXiv 2511.10704 is the number of a model's parameters (docs/theory.md).
    """
    return lambda_max / 2 * math.log(goals)


def simulate(
    times: ArrayLike,
    *,
    r: float,
    gamma: ArrayLike,
    diffusion: float,
    paths: int = 1,
    goals: int = K,
    start: ArrayLike | None = None,
    seed: int | np.random.Generator = 0,
) -> Floats:
    """Logits at given times, drawn exactly (no step size enters).

    Parameters
    ----------
    times : (T,) days, not decreasing.
    r : relaxation rate, 1/day, positive.
    gamma : alignment work, nats/day; a number, or (T,) values, of which the i-th acts from times[i] on.
    diffusion : D, nats^2/day, not negative.
    start : (N,) or (paths, N) logits at times[0]; by default drawn from equilibrium under gamma[0].

    Returns
    -------
    (paths, T, N) logits; the aligned goal is the first.

    Raises
    ------
    ValueError : a parameter is out of range or times run backwards.
    """
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 1 or not len(t) or not np.isfinite(t).all() or (np.diff(t) < 0).any():
        raise ValueError("times must be finite, at least one, and not run backwards")
    if not (r > 0 and diffusion >= 0 and math.isfinite(r) and math.isfinite(diffusion)):
        raise ValueError("r must be positive and the diffusion not negative")
    work = np.broadcast_to(np.asarray(gamma, dtype=np.float64), t.shape)
    rng = np.random.default_rng(seed)
    spread = math.sqrt(diffusion / r)
    intended = np.zeros(goals)
    intended[ALIGNED] = 1.0
    z = np.empty((paths, len(t), goals))
    z[:, 0] = work[0] / r * intended + spread * rng.standard_normal((paths, goals)) if start is None else start
    for i in range(1, len(t)):
        keep = math.exp(-r * (t[i] - t[i - 1]))
        drawn = spread * math.sqrt(1 - keep * keep) * rng.standard_normal((paths, goals))
        z[:, i] = keep * z[:, i - 1] + (1 - keep) * work[i - 1] / r * intended + drawn
    return z


def softmax(z: Floats) -> Floats:
    """Shares of the goals from logits, along the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))
