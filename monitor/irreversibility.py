"""Irreversibility of the turn-to-turn behaviour chain (design 3.7). Experimental: nothing alerts on it.

Fluctuation goes from one behaviour to another as often as back; directed drift does not. The entropy production

    sigma = sum_ij pi_i P_ij ln(P_ij / P_ji)      (nats per turn; pi the stationary distribution of P)

is 0 for the former and positive for the latter (Gaspard 2004, J. Stat. Phys. 117:599; Roldan & Parrondo 2010,
Phys. Rev. Lett. 105:150607).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitor.entropy import TAILS
from monitor.estimates import Estimate, Refusal, Result
from monitor.taxonomy import K

Floats = NDArray[np.float64]

FEWEST_TRANSITIONS: Final = 200
"""Of 25 kinds: with fewer the bias exceeds most effects."""
_PSEUDO: Final = 0.5
"""Transitions of each kind that are added: the same there and back, so that no data mean no irreversibility."""
BOOTSTRAPS: Final = 1000


def transition_counts(conversations: ArrayLike) -> Floats:
    """(5, 5) counts of one conversation's consecutive turns, from its (turns, 5) probabilities; counts add up.

    Soft probabilities count as the products of neighbours. A classifier that errs on either alike makes the counts more
    symmetric: irreversibility is then understated.

    Raises
    ------
    ValueError : a turn is off the simplex.
    """
    q = np.asarray(conversations, dtype=np.float64)
    if q.ndim != 2 or q.shape[1] != K:
        raise ValueError(f"probabilities have shape {q.shape}, expected (turns, {K})")
    if not np.isfinite(q).all() or (q < 0).any() or (np.abs(q.sum(axis=1) - 1) > 1e-6).any():
        raise ValueError("probabilities are not on the simplex")
    return np.asarray(q[:-1].T @ q[1:])


def production(transitions: Floats) -> Floats:
    """sigma of (..., 5, 5) transition matrices, nats per turn; all entries positive."""
    p = np.asarray(transitions, dtype=np.float64)
    k = p.shape[-1]
    balance = np.swapaxes(p, -1, -2) - np.eye(k)
    balance[..., -1, :] = 1.0
    right = np.zeros((*p.shape[:-2], k, 1))
    right[..., -1, 0] = 1.0
    pi = np.linalg.solve(balance, right)
    logs = np.log(p)
    return np.asarray((pi * p * (logs - np.swapaxes(logs, -1, -2))).sum(axis=(-2, -1)))


def _smoothed(counts: Floats) -> Floats:
    n = counts + _PSEUDO
    return np.asarray(n / n.sum(axis=-1, keepdims=True))


def irreversibility(counts: ArrayLike, *, seed: int = 0) -> Result:
    """Entropy production of the behaviour chain, with its bias taken off. Experimental.

    Even a reversible chain shows some production in a finite sample, about (independent cycles) / (transitions). So
    rows are redrawn from the estimated chain, and what that adds is taken off value and interval (basic bootstrap);
    both end at 0, below which sigma cannot be. A lower end above 0 says: directed.

    Parameters
    ----------
    counts : (5, 5) transitions from row to column, hard or soft (`transition_counts`), summed over conversations.
    seed : of the redrawing.

    Returns
    -------
    nats/turn. Refused with fewer than 200 transitions, or counts that are not finite, negative or not (5, 5).
    """
    try:
        n = np.array(counts, dtype=np.float64)
    except (TypeError, ValueError):
        return Refusal("transition counts must be numbers")
    if n.shape != (K, K):
        return Refusal(f"transition counts have shape {n.shape}, expected ({K}, {K})")
    if not np.isfinite(n).all() or (n < 0).any():
        return Refusal("transition counts must be finite and not negative")
    if n.sum() < FEWEST_TRANSITIONS:
        return Refusal(f"not enough transitions: {int(n.sum())} of {FEWEST_TRANSITIONS}")
    chain = _smoothed(n)
    own = float(production(chain))
    rng = np.random.default_rng(seed)
    rows = np.rint(n.sum(axis=1)).astype(np.int64)
    drawn = np.stack([rng.multinomial(rows[i], chain[i], size=BOOTSTRAPS) for i in range(K)], axis=1)
    redrawn = production(_smoothed(drawn.astype(np.float64)))
    low, high = (float(x) for x in np.quantile(redrawn, TAILS))
    value, lo, hi = (max(0.0, 2 * own - x) for x in (float(redrawn.mean()), high, low))
    return Estimate(value, lo, hi, "nats/turn", "plug-in less bootstrap bias, basic bootstrap; experimental")
