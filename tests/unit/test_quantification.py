"""Other ways to a window's mixture: right where their assumptions hold, spread where nothing is known, no NaN."""

import numpy as np
import pytest

from monitor.quantification import Floats, KernelDensities, mixture_of, of_means, saerens
from monitor.taxonomy import K
from tests.unit.core_cases import CONFUSION, answers

MIXTURE: Floats = np.array([0.6, 0.1, 0.2, 0.05, 0.05])


def calibrated(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """(n, 5) true posteriors under equal shares of turns of MIXTURE: hard answers, as sure as they deserve."""
    said = np.array([rng.choice(K, p=CONFUSION[y]) for y in rng.choice(K, size=n, p=MIXTURE)])
    posterior = (CONFUSION / CONFUSION.sum(axis=0)).T
    return posterior[said], np.full(K, 1 / K)


def test_em_with_true_posteriors() -> None:
    """Where the classifier's posteriors are true, the EM of Saerens finds the shares, and averaging does not."""
    q, prior = calibrated(np.random.default_rng(1), 6000)
    assert saerens(q, prior) == pytest.approx(MIXTURE, abs=0.03)
    assert np.abs(q.mean(axis=0) - MIXTURE).max() > 0.05


def test_kernel_densities() -> None:
    """KDEy-ML finds the shares from known turns of each behaviour."""
    rng = np.random.default_rng(2)
    y = np.repeat(np.arange(K), 200)
    known = KernelDensities(np.concatenate([answers(rng, np.eye(K)[k], 200) for k in range(K)]), y)
    assert known.mixture(answers(rng, MIXTURE, 1500)) == pytest.approx(MIXTURE, abs=0.06)


def test_em_of_means_inverts() -> None:
    """From a mean answer alone EM finds the mixture behind it, wherever it starts, when C tells behaviours apart."""
    rng = np.random.default_rng(3)
    starts = rng.dirichlet(np.ones(K), size=20)
    p = of_means(np.tile(CONFUSION, (20, 1, 1)), np.tile(CONFUSION.T @ MIXTURE, (20, 1)), starts)
    assert p == pytest.approx(np.tile(MIXTURE, (20, 1)), abs=0.02)


def test_em_of_means_does_not_pretend() -> None:
    """Two behaviours that are answered alike: their sum is found, their split is left as open as it was."""
    rng = np.random.default_rng(4)
    alike = CONFUSION.copy()
    alike[4] = alike[3]
    starts = rng.dirichlet(np.ones(K), size=200)
    p = of_means(np.tile(alike, (200, 1, 1)), np.tile(alike.T @ MIXTURE, (200, 1)), starts)
    assert p[:, 3] + p[:, 4] == pytest.approx(np.full(200, 0.1), abs=0.03)
    split = p[:, 3] / (p[:, 3] + p[:, 4])
    assert np.quantile(split, 0.05) < 0.1
    assert np.quantile(split, 0.95) > 0.9


def test_weights_are_repetitions() -> None:
    """A turn of weight 3 counts as three turns; windows given together are those given one by one."""
    q, prior = calibrated(np.random.default_rng(5), 60)
    weights = np.tile([1.0, 2.0, 3.0], 20)
    one = saerens(q, prior, weights)
    assert saerens(np.repeat(q, weights.astype(int), axis=0), prior) == pytest.approx(one, abs=1e-3)
    assert saerens(q, prior, np.stack([weights, np.ones(60)]))[0] == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2])
def test_single_turns(n: int) -> None:
    """A window of one turn has a mixture on the simplex."""
    q = answers(np.random.default_rng(6), MIXTURE, n)
    p = saerens(q, np.full(K, 1 / K))
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1)


def test_refusals() -> None:
    """NaN, points off the simplex, no turns and no weight are refused by name."""
    q = np.full((3, K), 1 / K)
    prior = np.full(K, 1 / K)
    with pytest.raises(ValueError, match="finite and on the simplex"):
        saerens(np.where(np.eye(3, K) > 0, np.nan, q), prior)
    with pytest.raises(ValueError, match="simplex"):
        saerens(q * 2, prior)
    with pytest.raises(ValueError, match="shape"):
        saerens(q[:, :4], prior)
    with pytest.raises(ValueError, match="no turns"):
        saerens(q[:0], prior)
    with pytest.raises(ValueError, match="no weight"):
        saerens(q, prior, np.zeros(3))
    with pytest.raises(ValueError, match="every behaviour"):
        KernelDensities(q, np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="not negative"):
        mixture_of(-q)
