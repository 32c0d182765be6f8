"""Figures of shares that allow for the classifier's errors: the same under many draws of its confusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.entropy import TAILS, Quantifier
from monitor.estimates import NORMAL_QUANTILE, Estimate, Refusal, Result

Floats = NDArray[np.float64]
Inverse = Callable[[Floats], Floats]

CONFUSIONS: Final = 48
"""Draws of the confusion: their part of an interval's width is known to about a tenth."""
MOST_REFUSED: Final = 0.1
"""Of the draws: a figure that more of them refuse is refused."""
_SPREAD: Final = np.array([NormalDist().inv_cdf((i + 0.5) / 41) for i in range(41)])


def over_confusions(quantifier: Quantifier, figures: Callable[[Inverse], Sequence[Result]]) -> list[Result]:
    """Each figure with an interval that allows for sampling and for the classifier's errors.

    What `figures` makes of mean answers corrected by one draw of the confusion has the error of sampling; the draws
    differ by the error of the confusion. The interval holds 90 % of all the draws' normals together. Errors that are
    common to two variants cancel in what compares them, for both are seen through the same draw.

    Parameters
    ----------
    figures : a draw's inverse (..., 5) -> (..., 5), to any number of results, always as many.
    """
    drawn = [figures(quantifier.inverse(i)) for i in range(CONFUSIONS)]
    return [_combined([results[k] for results in drawn]) for k in range(len(drawn[0]))]


def _combined(results: Sequence[Result]) -> Result:
    refused = [r for r in results if isinstance(r, Refusal)]
    if len(refused) > MOST_REFUSED * len(results):
        return refused[0]
    kept = [r for r in results if isinstance(r, Estimate)]
    value = np.array([e.value for e in kept])
    sd = np.array([(e.hi - e.lo) / (2 * NORMAL_QUANTILE) for e in kept])
    low, high = np.quantile(value[:, None] + sd[:, None] * _SPREAD, TAILS).tolist()
    mean = float(value.mean())
    first = kept[0]
    method = f"{first.method}; {len(results)} draws of the confusion"
    return Estimate(mean, min(low, mean), max(high, mean), first.units, method)
