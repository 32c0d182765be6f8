"""Two tiers: every turn gets the fast one; the accurate one takes the most doubtful within a budget, and a random slice
of the rest, so that the two can be compared without bias.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from classifiers.api import Classifier
from monitor.entropy import Calibration
from monitor.errors import ConfigError
from monitor.transcript import Judgements, SecondJudgements, Turn

Floats = NDArray[np.float64]


class Cascade:
    """The fast tier's judgements, with second ones by the accurate tier for some turns.

    Parameters
    ----------
    accurate_share : share of turns that the accurate tier takes for their doubt, 0 to 1.
    random_share : share of the others that it takes at random, more than 0 and at most 1.
    """

    def __init__(self, fast: Classifier, accurate: Classifier, accurate_share: float, random_share: float) -> None:
        if not (0 <= accurate_share <= 1 and 0 < random_share <= 1):
            raise ConfigError("classifier.accurate_share lies in [0, 1], classifier.random_share in (0, 1]")
        self._fast = fast
        self._accurate = accurate
        self._accurate_share = accurate_share
        self._random_share = random_share

    @property
    def version(self) -> str:
        """The fast tier's: it judges every turn, and what is monitored is its answer."""
        return self._fast.version

    @property
    def calibration(self) -> Calibration:
        return self._fast.calibration

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        """Judgements of the fast tier for all turns; `second` holds those of the accurate tier."""
        first = self._fast.classify(turns)
        probability = self._choice_probabilities(turns, first.doubt)
        rows = np.flatnonzero(np.array([chance(t) for t in turns]) < probability)
        judged = self._accurate.classify([turns[i] for i in rows.tolist()])
        return replace(
            first,
            second=SecondJudgements(rows, judged.probabilities, judged.doubt, probability[rows], judged.version),
        )

    def combined(self, turns: Sequence[Turn]) -> Judgements:
        """The best judgement of each turn: the accurate tier's where there is one."""
        first = self.classify(turns)
        probabilities, doubt = first.probabilities.copy(), first.doubt.copy()
        if first.second is not None:
            probabilities[first.second.rows] = first.second.probabilities
            doubt[first.second.rows] = first.second.doubt
        return replace(first, probabilities=probabilities, doubt=doubt, tier="cascade", second=None)

    def _choice_probabilities(self, turns: Sequence[Turn], doubt: Floats) -> Floats:
        """1 for the most doubtful turns of the batch, `random_share` for the others."""
        probability = np.full(len(turns), self._random_share)
        if len(turns):
            # the fraction of a turn that the share leaves over is left to chance: single turns keep to the share too
            most = int(self._accurate_share * len(turns) + chance(turns[0], b"budget"))
            probability[np.argsort(-doubt, kind="stable")[:most]] = 1.0
        return probability


def chance(turn: Turn, purpose: bytes = b"slice") -> float:
    """A uniform number in [0, 1) that depends on the turn's id alone: a rerun chooses the same turns."""
    name = f"{turn.event.event_id}\n{turn.index}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8, person=purpose).digest(), "big") / 2**64
