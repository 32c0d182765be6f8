"""SF and SEP of answers given from context, in closed form from topic distributions (proofs: docs/faithfulness.md).

Halperin (arXiv 2512.05156) describes question, context and answer by shares of topics q, c, a (sums to 1) and seeks
channels A and Q from topics of the context, with c A = a and c Q = q, that are as close as they can be:

    D_min = min sum_i c_i sum_j A_ij ln(A_ij / Q_ij),        SF = 1 / (1 + D_min).

D_min is KL(a || q): the context drops out. What does see the context is in faithfulness_text.py.

All functions work along the last axis of arrays that broadcast, in nats.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitor.entropy import entropy, kl_divergences

Floats = NDArray[np.float64]

SUM_TOLERANCE: Final = 1e-6
"""Most by which given shares may miss a sum of 1; they are divided by their sum."""


def distributions(shares: ArrayLike, name: str) -> Floats:
    """Shares of topics (..., topics), checked and brought to sum to 1 exactly.

    Raises
    ------
    ValueError : they are not finite numbers, negative, or do not sum to 1.
    """
    try:
        p = np.asarray(shares, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{name} is not a list of numbers") from e
    if p.ndim == 0 or p.shape[-1] == 0:
        raise ValueError(f"{name} has no topics")
    if not np.isfinite(p).all():
        raise ValueError(f"{name} has a share that is not finite")
    if (p < 0).any():
        raise ValueError(f"{name} has a negative share")
    total = p.sum(axis=-1, keepdims=True)
    if (np.abs(total - 1) > SUM_TOLERANCE).any():
        raise ValueError(f"{name} does not sum to 1")
    return np.asarray(p / total)


def smoothed(p: Floats, share: float) -> Floats:
    """(1 - share) p + share / topics: no topic is impossible. Never done unless asked for.

    Raises
    ------
    ValueError : share lies outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"a smoothing of {share:g} lies outside [0, 1)")
    return np.asarray((1 - share) * p + share / p.shape[-1])


def least_divergence(question: Floats, answer: Floats) -> Floats:
    """D_min = KL(answer || question), nats; infinite where the answer has a topic that the question lacks."""
    return kl_divergences(answer, question)


def reference_divergence(question: Floats, answer: Floats) -> Floats:
    """D_min as the reference implementation finds it: of the answer, its topics that the question lacks left out.

    Its optimiser cannot move mass onto topics that the question lacks, leaves that mass out and brings the rest back to
    a sum of 1; measured on its ten published triplets. Infinite where nothing of the answer is left.
    """
    kept = np.where(question > 0, answer, 0.0)
    total = kept.sum(axis=-1, keepdims=True)
    some = total > 0
    return np.asarray(np.where(some[..., 0], kl_divergences(kept / np.where(some, total, 1.0), question), np.inf))


def faithfulness(divergence: Floats) -> Floats:
    """SF = 1 / (1 + D_min), in [0, 1]: 1 where answer and question have the same shares, 0 where D_min is infinite."""
    return np.asarray(1.0 / (1.0 + divergence))


def entropy_production(context: Floats, answer: Floats) -> Floats:
    """SEP: entropy production of the step from context to answer, against the same channel run backwards; >= 0 nats.

    sum_ij c_i A_ij ln(c_i A_ij / (a_j A_ji)) for the A* of most entropy among the optimal A, which is unique: every row
    of it is a. Then SEP = KL(context || answer); infinite where the answer leaves out a topic of the context. Our
    reading: what is documented is `documented_entropy_production`.
    """
    return kl_divergences(context, answer)


def documented_entropy_production(context: Floats, answer: Floats) -> Floats:
    """SEP as documented, nats: min over reverse channels R (a R = c) of sum_ij c_i A_ij ln(A_ij / R_ji).

    The minimum is H(context) - H(answer) whatever A is, attained by Bayes' reverse of it; it has either sign.
    """
    return np.asarray(entropy(context) - entropy(answer))


def unsupported_topics(question: Floats, context: Floats, answer: Floats) -> Floats:
    """Share of the answer, in [0, 1], on topics that neither context nor question has. Ours; sees the context."""
    return np.asarray(np.where((question > 0) | (context > 0), 0.0, answer).sum(axis=-1))
