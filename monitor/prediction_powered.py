"""Shares and S from a window's judgements and a labelled random slice of it (prediction-powered inference).

The classifier's answers to all turns make the labels of a few go further, and cannot mislead: its error is measured on
the slice itself and taken off, whatever the deployment (Angelopoulos, Duchi and Zrnic 2023, PPI++). Turns are chosen
with unequal probabilities, so each counts by the inverse of its own.

What is estimated is the mean of the *labels*. Those of a judge or of people are taken for the truth. A second judgement
by the accurate tier is not: with it as label the result is the accurate tier's mean answer, whose `mean` and
`covariance` still have to go through that tier's confusion (`monitor.entropy.Quantifier.inverted`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import Sums
from monitor.entropy import TAILS, Interval, entropy
from monitor.quantification import checked
from monitor.taxonomy import ALIGNED, K

Floats = NDArray[np.float64]

FEWEST_LABELS: Final = 30
"""With fewer labels nothing is estimated."""
RARE_SHARE: Final = 0.02
"""Below this share the normal interval of PPI++ under-covers."""
FEWEST_POSITIVES: Final = 10.0
"""Effective labels of a behaviour, and of the others, below which it does so too."""
DRAWS: Final = 4000
PPI: Final = "PPI++"
EXACT: Final = "exact"


class TooFewLabels(ValueError):
    """The slice does not carry an estimate; says how many labels there are and how many it takes."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The labelled turns of a window.

    Attributes
    ----------
    q : (m, 5) the classifier's probabilities.
    labels : (m, 5) what was said instead: 1 for a label of a judge or a person, or the accurate tier's probabilities.
    choice_probability : (m,) of being labelled, in (0, 1].
    weights : (m,) turn weights, 1 / sample rate.
    """

    q: Floats
    labels: Floats
    choice_probability: Floats
    weights: Floats

    def __post_init__(self) -> None:
        m = len(checked(self.q))
        if len(checked(self.labels)) != m or self.choice_probability.shape != (m,) or self.weights.shape != (m,):
            raise ValueError("a labelled slice has as many labels, probabilities and weights as turns")
        if not ((self.choice_probability > 0) & (self.choice_probability <= 1)).all():
            raise ValueError("choice probabilities lie in (0, 1]")
        if not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError("turn weights must be finite and positive")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Mean of the labels over a window.

    Attributes
    ----------
    labels : how many labelled turns.
    effective_labels : how many equally weighted ones they are worth.
    power : lambda of PPI++, 0 (the labels alone) to 1.
    shares : one Interval a behaviour, in taxonomy order; each is valid by itself.
    methods : how each was found: "PPI++" or, of a rare behaviour, "exact" (Clopper-Pearson on the weighted slice).
    entropy, misaligned : S (nats) and 1 - share of aligned.
    mean, covariance : (5,) and (5, 5) of PPI++, before anything is cut off.
    """

    labels: int
    effective_labels: float
    power: float
    shares: tuple[Interval, ...]
    methods: tuple[str, ...]
    entropy: Interval
    misaligned: Interval
    mean: Floats
    covariance: Floats


def estimate(window: Sums, labelled: Slice) -> Labelled:
    """Shares and S with 90 % intervals. Deterministic.

    Parameters
    ----------
    window : sums of all its turns, the labelled ones among them.

    Raises
    ------
    TooFewLabels : fewer than FEWEST_LABELS, or as little by weight as a third of that.
    ValueError : the window has no turns.
    """
    m = len(labelled.q)
    a = labelled.weights / labelled.choice_probability
    a = a / a.sum() if m else a
    worth = float(1 / (a * a).sum()) if m else 0.0
    if m < FEWEST_LABELS or worth < FEWEST_LABELS / 3:
        raise TooFewLabels(f"not enough labels: {m} of {FEWEST_LABELS} (worth {worth:.0f} equally chosen ones)")
    of_labels = a @ labelled.labels
    y, q = labelled.labels - of_labels, labelled.q - a @ labelled.q
    squares = (a * a)[:, None] * m / (m - 1)
    of_all = window.mean_covariance(np.cov(labelled.q.T), 1.0)
    # one lambda for all five, so that the shares still sum to 1; the one of least total variance
    power = float((squares * y * q).sum() / max((squares * q * q).sum() + np.trace(of_all), 1e-12))
    power = min(max(power, 0.0), 1.0)
    mean = of_labels + power * (window.mean() - a @ labelled.q)
    error = y - power * q
    covariance = (squares * error).T @ error + power**2 * of_all
    counts = worth * of_labels
    rare = (mean < RARE_SHARE) | (counts < FEWEST_POSITIVES) | (worth - counts < FEWEST_POSITIVES)
    return _with_intervals(m, worth, power, mean, covariance, counts, rare)


def _with_intervals(
    m: int, worth: float, power: float, mean: Floats, covariance: Floats, counts: Floats, rare: NDArray[np.bool_]
) -> Labelled:
    rng = np.random.default_rng(m)
    values, vectors = np.linalg.eigh(covariance)
    normal = mean + rng.standard_normal((DRAWS, K)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    low, high = normal.copy(), normal.copy()
    for k in np.flatnonzero(rare).tolist():
        # a positive more or less than was seen: the two Betas whose quantiles are the limits of Clopper and Pearson
        x = min(max(float(counts[k]), 0.0), worth)
        low[:, k] = rng.beta(x, worth - x + 1, DRAWS) if x > 1e-9 else 0.0
        high[:, k] = rng.beta(x + 1, worth - x, DRAWS) if worth - x > 1e-9 else 1.0
    shares = []
    point = np.where(rare, counts / worth, mean)
    for k in range(K):
        bottom, top = np.quantile(low[:, k], TAILS[0]), np.quantile(high[:, k], TAILS[1])
        bottom, top = (float(min(max(v, 0.0), 1.0)) for v in (bottom, top))
        shares.append(Interval(min(max(float(point[k]), bottom), top), bottom, top))
    low, high, middle = _on_simplex(low, rare), _on_simplex(high, rare), _on_simplex((low + high) / 2, rare)
    s = entropy(middle)
    # more of a rare behaviour is more entropy, but where a rare one is all the rest: take the outer of both
    ends = [np.quantile(entropy(d), TAILS) for d in (low, high)]
    s_low, s_high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
    aligned = shares[ALIGNED]
    return Labelled(
        labels=m,
        effective_labels=worth,
        power=power,
        shares=tuple(shares),
        methods=tuple(EXACT if r else PPI for r in rare),
        entropy=Interval(float(s.mean()), min(s_low, float(s.mean())), max(s_high, float(s.mean()))),
        misaligned=Interval(1 - aligned.mean, 1 - aligned.high, 1 - aligned.low),
        mean=mean,
        covariance=covariance,
    )


def _on_simplex(draws: Floats, rare: NDArray[np.bool_]) -> Floats:
    """Negative parts cut off; the frequent behaviours share what the rare ones leave."""
    p = np.maximum(draws, 0.0)
    if rare.all() or not rare.any():
        return np.asarray(p / np.maximum(p.sum(axis=1, keepdims=True), 1e-12))
    of_rare = p[:, rare].sum(axis=1, keepdims=True)
    left = np.maximum(1.0 - of_rare, 1e-9)
    rest = p[:, ~rare] / np.maximum(p[:, ~rare].sum(axis=1, keepdims=True), 1e-12)
    p[:, ~rare] = rest * left
    return np.asarray(p / p.sum(axis=1, keepdims=True))
