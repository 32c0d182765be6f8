"""What the rest of the product knows of a classifier: turns in, judgements out."""

from collections.abc import Sequence
from typing import Protocol

from monitor.entropy import Calibration
from monitor.transcript import Judgements, Turn


class Classifier(Protocol):
    """Judges turns. Pure: the same turns give the same judgements, whatever they are batched with."""

    @property
    def version(self) -> str:
        """Names the weights; judgements of two versions are never mixed."""

    @property
    def calibration(self) -> Calibration:
        """How the classifier answers turns of known behaviour, for quantification (design 3.2)."""

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        """Judge n turns of any length and script; never NaN, rows sum to 1."""
