"""Weights on disk: one safetensors file a tier, checked whole before anything reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from monitor.errors import WeightsError
from monitor.taxonomy import BEHAVIOURS, FACTORS, K

Tensors = Mapping[str, NDArray[Any]]
Shape = tuple[int | str, ...]

MAX_BYTES: Final = 64 << 20
"""A weights file beyond this is not one of ours and is not read into memory."""
COMPOSITION: Final[Mapping[str, Shape]] = {
    "factor_scale": (len(FACTORS),),
    "factor_bias": (len(FACTORS),),
    "term_weights": ("terms", K),
    "term_bias": (K,),
    "doubt_x": ("knots",),
    "doubt_y": ("knots",),
    "calibration_n": (K,),
    "calibration_mean": (K, K),
    "calibration_covariance": (K, K, K),
    "novelty_from": (1,),
    "trained_rows": ("rows",),
}
"""Tensors that every tier has, above its heads."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a tier's weights file holds.

    Attributes
    ----------
    tier : first part of the version, such as linear-1-ab12cd34.
    number : second part; changes whenever the code would read old weights wrongly.
    shapes : tensor -> shape. A name stands for any size, the same wherever it occurs; `sizes` fixes some.
    described : what the file must say of itself, besides the layout and the behaviours.
    """

    tier: str
    number: str
    shapes: Mapping[str, Shape]
    sizes: Mapping[str, int] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)

    def read(self, where: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str], str]:
        """Tensors, description and version of a weights file; WeightsError when it cannot be used."""
        try:
            if where.stat().st_size > MAX_BYTES:
                raise WeightsError(f"{where}: larger than {MAX_BYTES} bytes, not weights of this classifier")
            data = where.read_bytes()
        except OSError as e:
            raise WeightsError(
                f"{where}: weights cannot be read: {e.strerror}; train some with `valuedrift train`"
            ) from e
        try:
            tensors = safetensors.numpy.load(data)
            metadata = _header(data).get("__metadata__") or {}
        except (SafetensorError, ValueError, KeyError, OverflowError, MemoryError) as e:
            raise WeightsError(
                f"{where}: damaged weights ({e}); install again, or train with `valuedrift train`"
            ) from e
        if any(metadata.get(k) != v for k, v in self._said().items()):
            raise WeightsError(
                f"{where}: weights of another layout than {self.tier} {self.number}; "
                "install again, or train with `valuedrift train`"
            )
        try:
            self.check(tensors)
        except WeightsError as e:
            raise WeightsError(f"{where}: {e}") from e
        return tensors, metadata, self.version_of(data)

    def save(self, path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> str:
        """Write a weights file and return its version; WeightsError when the tensors are not those of the layout."""
        self.check(tensors)
        kept = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
        data = safetensors.numpy.save(kept, {**metadata, **self._said()})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return self.version_of(data)

    def version_of(self, data: bytes) -> str:
        """The version of weights: a hash of their tensors and description, whatever order the file's header is in."""
        size = int.from_bytes(data[:8], "little")
        header = json.dumps(_header(data), sort_keys=True).encode()
        return f"{self.tier}-{self.number}-{hashlib.blake2b(header + data[8 + size :], digest_size=4).hexdigest()}"

    def check(self, tensors: Tensors) -> None:
        """Every array is there, finite, and of the shape the code expects."""
        if set(tensors) != set(self.shapes):
            odd = sorted(set(tensors) ^ set(self.shapes))
            raise WeightsError(f"weights lack or do not know: {', '.join(odd)}")
        sizes = dict(self.sizes)
        for name, shape in self.shapes.items():
            array = tensors[name]
            if array.ndim == len(shape):
                for want, have in zip(shape, array.shape, strict=True):
                    if isinstance(want, str):
                        sizes.setdefault(want, have)
            if array.shape != tuple(sizes.get(s, -1) if isinstance(s, str) else s for s in shape):
                raise WeightsError(f"weights {name} have shape {array.shape}")
            if not np.isfinite(array).all():
                raise WeightsError(f"weights {name} are not finite")
        if not tensors["doubt_x"].size:
            raise WeightsError("weights have no doubt curve")

    def _said(self) -> dict[str, str]:
        return {"layout": self.number, "behaviours": ",".join(BEHAVIOURS), **self.described}


def _header(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header
