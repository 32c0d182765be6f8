"""The shipped classifier: hashed n-grams, linear heads, a composition. numpy only.

The heads' weights are 8-bit integers, so that a turn's score is a sum of integers: exact, and the same whatever the
turn is batched with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from classifiers import composition, features
from monitor.entropy import Calibration
from monitor.errors import WeightsError
from monitor.taxonomy import BEHAVIOURS, FACTORS, K
from monitor.transcript import Judgements, Message, Turn

Floats = NDArray[np.float64]

LAYOUT: Final = "1"
"""Changes whenever `features` or `composition` would read old weights wrongly."""
SHIPPED: Final = Path(__file__).parent / "weights" / "linear.safetensors"
MAX_BYTES: Final = 64 << 20
"""A weights file beyond this is not one of ours and is not read into memory."""
BATCH: Final = 256
"""Turns hashed together: beyond this nothing gets faster, and memory grows."""

_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {  # -1: number of heads, -2: composition terms, -3, -4: any
    "table": (features.ROWS, -1),
    "scale": (features.N_SEGMENTS, -1),
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


class LinearClassifier:
    """Judges turns with linear heads; the `Classifier` of classifiers/api.py.

    Parameters
    ----------
    tensors : the arrays of a weights file (`_SHAPES`), checked.
    metadata : its description: behaviours, training families, fingerprint.
    version : names the weights.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], version: str) -> None:
        _check(tensors)
        self.metadata = dict(metadata)
        self._version = version
        self._table = np.ascontiguousarray(tensors["table"])
        self.trained_rows = np.sort(tensors["trained_rows"])
        self._scale, self._bias = (np.ascontiguousarray(tensors[k], dtype=np.float64) for k in ("scale", "bias"))
        self._composition = composition.Composition(tensors, version)

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
        return self._composition.judge(self.logits([(t.before, t.answer) for t in turns]), "fast")

    def logits(self, turns: Sequence[tuple[Sequence[Message], str]]) -> Floats:
        """(n, heads) scores of the heads for (messages before, answer); the first five are the factors."""
        out = np.empty((len(turns), len(self._bias)))
        for start in range(0, len(turns), BATCH):
            part = features.extract(turns[start : start + BATCH])
            out[start : start + part.n] = self._scores(part)
        return out

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
    tensors, metadata, data = read_file(where)
    if metadata.get("layout") != LAYOUT or metadata.get("behaviours") != ",".join(BEHAVIOURS):
        raise WeightsError(f"{where}: weights of another layout than {LAYOUT}; train again with `valuedrift train`")
    try:
        return LinearClassifier(tensors, metadata, version_of(data))
    except WeightsError as e:
        raise WeightsError(f"{where}: {e}") from e


def read_file(where: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str], bytes]:
    """Tensors, description and bytes of a weights file of any tier; WeightsError when it is none."""
    try:
        if where.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{where}: larger than {MAX_BYTES} bytes, not weights of this classifier")
        data = where.read_bytes()
    except OSError as e:
        raise WeightsError(f"{where}: weights cannot be read: {e.strerror}; train some with `valuedrift train`") from e
    try:
        tensors = safetensors.numpy.load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, OverflowError, MemoryError) as e:
        raise WeightsError(f"{where}: damaged weights ({e}); install again, or train with `valuedrift train`") from e
    return tensors, metadata, data


def save(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Write a weights file and return its version."""
    _check(tensors)
    described = {**metadata, "layout": LAYOUT, "behaviours": ",".join(BEHAVIOURS)}
    data = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, described)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return version_of(data)


def version_of(data: bytes) -> str:
    """The version of weights: a hash of their tensors and description, whatever order the file's header is in."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True).encode()
    return f"linear-{LAYOUT}-{hashlib.blake2b(header + data[8 + size :], digest_size=4).hexdigest()}"


def _check(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Every array is there, finite, and of the shape the code expects."""
    if set(tensors) != set(_SHAPES):
        odd = sorted(set(tensors) ^ set(_SHAPES))
        raise WeightsError(f"weights lack or do not know: {', '.join(odd)}")
    heads = tensors["bias"].shape[-1] if tensors["bias"].ndim else 0
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
    if tensors["table"].dtype != np.int8 or heads < len(FACTORS) or not tensors["doubt_x"].size:
        raise WeightsError("weights have the wrong type of table, too few heads or no doubt curve")
