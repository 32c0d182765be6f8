"""The shipped classifier: hashed n-grams, linear heads, a composition. numpy only.

The heads' weights are 8-bit integers, so that a turn's score is a sum of integers: exact, and the same whatever the
turn is batched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import composition, features
from classifiers.weights_file import COMPOSITION, Layout
from monitor.entropy import Calibration
from monitor.errors import WeightsError
from monitor.taxonomy import FACTORS
from monitor.transcript import Judgements, Message, Turn

Floats = NDArray[np.float64]

SHIPPED: Final = Path(__file__).parent / "weights" / "linear.safetensors"
BATCH: Final = 256
"""Turns hashed together: beyond this nothing gets faster, and memory grows."""
LAYOUT: Final = Layout(
    tier="linear",
    number="2",
    shapes={
        "table": (features.ROWS, "heads"),
        "scale": (features.N_SEGMENTS, "heads"),
        "bias": ("heads",),
        "words": (features.WORD_SLOTS // 8,),
        **COMPOSITION,
    },
)


class LinearClassifier:
    """Judges turns with linear heads; the `Classifier` of classifiers/api.py.

    Parameters
    ----------
    tensors : the arrays of a weights file (`LAYOUT`), checked.
    metadata : its description: behaviours, training families, fingerprint.
    version : names the weights.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], version: str) -> None:
        if (
            tensors["table"].dtype != np.int8
            or tensors["words"].dtype != np.uint8
            or len(tensors["bias"]) < len(FACTORS)
        ):
            raise WeightsError("weights have the wrong type of table or of words, or too few heads")
        self.metadata = dict(metadata)
        self._version = version
        self._table = np.ascontiguousarray(tensors["table"])
        self.trained_rows = np.sort(tensors["trained_rows"])
        self._scale, self._bias = (np.ascontiguousarray(tensors[k], dtype=np.float64) for k in ("scale", "bias"))
        self._composition = composition.Composition(tensors, version)
        self._unknown = 1 - np.unpackbits(tensors["words"])

    @property
    def version(self) -> str:
        """Names the weights by their content, such as linear-1-ab12cd34."""
        return self._version

    @property
    def calibration(self) -> Calibration:
        """How these weights answer turns of known behaviour from sources they have not seen."""
        return self._composition.calibration

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        """Judge n turns of any length and script; never NaN, rows sum to 1."""
        return self._composition.judge(*self.scores([(t.before, t.answer) for t in turns]), "fast")

    def scores(self, turns: Sequence[tuple[Sequence[Message], str]]) -> tuple[Floats, Floats]:
        """Of turns given as (messages before, answer).

        Returns (n, heads) logits of the heads, of which the first five are the factors, and the novelty (n,): the share
        of the answer's words that hardly occur in the training data, 0 to 1.
        """
        out = np.empty((len(turns), len(self._bias)))
        novelty = np.empty(len(turns))
        for start in range(0, len(turns), BATCH):
            part = features.extract(turns[start : start + BATCH])
            out[start : start + part.n] = self._scores(part)
            novelty[start : start + part.n] = features.mean_of_words(part, self._unknown)
        return composition.gated(out), novelty

    def _scores(self, part: features.Features) -> Floats:
        heads = len(self._bias)
        sums = np.add.reduceat(self._table[part.rows], part.starts, axis=0, dtype=np.int32)
        # Each segment counts as a unit vector of its features, however long the text is.
        share = sums / np.sqrt(part.counts)[:, None]
        share = share.reshape(part.n, features.N_SEGMENTS, heads)
        out = np.tile(self._bias, (part.n, 1))
        for s in range(features.N_SEGMENTS):
            out += share[:, s] * self._scale[s]
        return out


def load(path: Path | None = None) -> LinearClassifier:
    """The classifier of a weights file, by default the shipped one; WeightsError when it cannot be used."""
    where = SHIPPED if path is None else path
    tensors, metadata, version = LAYOUT.read(where)
    try:
        return LinearClassifier(tensors, metadata, version)
    except WeightsError as e:
        raise WeightsError(f"{where}: {e}") from e
