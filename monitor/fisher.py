"""lambda_max of a torch model: the dominant eigenvalue of its Fisher information, by power iteration, matrix-free.

    F = mean over predictions of  J^T H J,      J = d outputs / d parameters,   H = Fisher information of the outputs

which is E[g g^T] with g the gradient of the log-likelihood and the label drawn from the model itself: the true Fisher,
not the empirical one of observed labels. Where the outputs are logits or a normal mean, H is known in closed form, so
the expectation over labels is exact and nothing is sampled (Martens 2020, JMLR 21:146). A product F v costs one
forward and one backward derivative of every batch; memory is a few copies of the parameters.

Needs torch (the extra `train`); nothing that watches imports this. What it is good for, and what not: docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from monitor.errors import ConfigError

try:
    import torch
except ImportError as e:
    raise ConfigError("lambda_max of a model needs torch: pip install 'valuedrift[train]'") from e
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

Batch = TypeVar("Batch")
Outputs = Callable[[nn.Module, Batch], Tensor]
Information = Callable[[Tensor, Tensor], Tensor]
"""(outputs, tangent) -> H tangent, for each prediction (everything but the last dimension)."""

MOST_PASSES: Final = 200
"""Passes through all batches before giving up."""
TOLERANCE: Final = 0.01
"""Residual, as a share of the eigenvalue, at which to stop; the error of the eigenvalue itself is of second order."""


def categorical(outputs: Tensor, tangent: Tensor) -> Tensor:
    """Outputs are logits over the last dimension: H = diag(p) - p p^T."""
    p = torch.softmax(outputs, dim=-1)
    along = p * tangent
    return along - p * along.sum(dim=-1, keepdim=True)


def gaussian(deviation: float) -> Information:
    """Outputs are means of independent normals with this standard deviation: H = 1 / deviation^2."""
    if not (deviation > 0 and math.isfinite(deviation)):
        raise ValueError("the standard deviation must be positive")
    return lambda outputs, tangent: tangent / deviation**2


@dataclass(frozen=True)
class Dominant:
    """The dominant eigenvalue, and how surely.

    Attributes
    ----------
    value : Rayleigh quotient v^T F v of a unit v, never above lambda_max; in 1 / (unit of the parameters)^2.
    residual : |F v - value v|; an eigenvalue of F lies within this distance of `value`.
    converged : the residual came below the tolerance. False: raise `most_passes`, or take `value` for a lower bound.
    passes : products F v that were made.
    parameters : entries of v, the N of arXiv 2511.10704's gamma_crit = (lambda_max / 2) ln N.
    predictions : over which F is a mean.
    """

    value: float
    residual: float
    converged: bool
    passes: int
    parameters: int
    predictions: int


def lambda_max(
    model: nn.Module,
    batches: Iterable[Batch],
    outputs: Outputs[Batch],
    information: Information = categorical,
    *,
    tolerance: float = TOLERANCE,
    most_passes: int = MOST_PASSES,
    seed: int = 0,
    progress: Callable[[int, float, float], None] | None = None,
) -> Dominant:
    """Dominant Fisher eigenvalue of the parameters that require gradients.

    Parameters
    ----------
    model : in evaluation mode, as dropout would make another matrix of every pass.
    batches : the same data on every pass: a list or a DataLoader, not a generator.
    outputs : (model, batch) -> (..., C) tensor; the last dimension belongs to one prediction, the others count
        predictions. Leave padding out here: it would count.
    information : `categorical`, `gaussian(deviation)`, or (outputs, tangent) -> H tangent of another likelihood.
    tolerance : stop when the residual is at most this share of the value.
    progress : told (pass, value, residual).

    Raises
    ------
    ValueError : the model trains or has no free parameter, the batches cannot be read twice or hold no prediction, or
        an output is not finite.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    if isinstance(batches, Iterator):
        raise ValueError("the batches can be read only once: give a list or a DataLoader")
    free = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not free:
        raise ValueError("no parameter of the model requires gradients")
    fisher = _Fisher(model, batches, outputs, information, free)
    generator = torch.Generator().manual_seed(seed)
    v = {name: torch.randn(p.shape, generator=generator).to(p) for name, p in free.items()}
    v = _scaled(v, 1 / _norm(v))
    parameters = sum(p.numel() for p in free.values())
    for number in range(1, most_passes + 1):
        product, predictions = fisher.times(v)
        value = _dot(v, product)
        residual = _norm({name: x - value * v[name] for name, x in product.items()})
        if not math.isfinite(residual):
            raise ValueError("the model's outputs, or their derivatives, are not finite on these batches")
        if progress:
            progress(number, value, residual)
        found = Dominant(value, residual, residual <= tolerance * value, number, parameters, predictions)
        if found.converged:  # at once where F is 0
            break
        v = _scaled(product, 1 / _norm(product))
    return found


class _Fisher:
    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        outputs: Outputs[Batch],
        information: Information,
        free: dict[str, Tensor],
    ) -> None:
        self._batches, self._information, self._free = batches, information, free
        self._called = _Called(model, outputs)

    def times(self, v: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
        """F v, and the number of predictions it is a mean over."""
        total = {name: torch.zeros_like(p) for name, p in self._free.items()}
        predictions = 0
        for batch in self._batches:

            def out(free: dict[str, Tensor], batch: object = batch) -> Tensor:
                return functional_call(self._called, {f"model.{k}": p for k, p in free.items()}, (batch,))  # type: ignore[no-any-return]

            # the fused attention kernels have no forward derivative
            with sdpa_kernel(SDPBackend.MATH):
                y, along, *_ = jvp(out, (self._free,), (v,))
                _, back, *_ = vjp(out, self._free)
                (part,) = back(self._information(y, along))
            for name in total:
                total[name] += part[name]
            predictions += y.numel() // y.shape[-1]
        if not predictions:
            raise ValueError("the batches hold no prediction")
        return _scaled(total, 1 / predictions), predictions


class _Called(nn.Module):
    """The model as `outputs` calls it, so that its parameters can be swapped for others."""

    def __init__(self, model: nn.Module, outputs: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self._outputs = model, outputs

    def forward(self, batch: object) -> Tensor:
        return self._outputs(self.model, batch)


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


def _norm(a: dict[str, Tensor]) -> float:
    return math.sqrt(_dot(a, a))


def _scaled(a: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {name: x * factor for name, x in a.items()}
