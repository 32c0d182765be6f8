"""lambda_max of small networks whose Fisher information is known."""

import builtins
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from monitor.errors import ConfigError
from monitor.second_law import critical_work

if importlib.util.find_spec("torch") is None:
    pytest.skip("the extra `train` is not installed: no torch", allow_module_level=True)

import torch
from torch import Tensor, nn

from monitor.fisher import Dominant, categorical, gaussian, lambda_max

# torch's own forward derivatives call what torch itself deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def called(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    assert isinstance(out, Tensor)
    return out


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def from_scores(model: nn.Module, x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """F by its definition: every label's score, weighted by the label's probability, its outer products averaged."""
    free = [p for p in model.parameters() if p.requires_grad]
    fisher: Any = 0.0
    rows = 0
    for i in range(len(x)):
        logs = torch.log_softmax(model(x[i : i + 1]), dim=-1).reshape(-1, model(x[i : i + 1]).shape[-1])
        for row in logs:
            rows += 1
            for log in row:
                g = torch.cat([d.reshape(-1) for d in torch.autograd.grad(log, free, retain_graph=True)]).numpy()
                fisher = fisher + float(log.detach().exp()) * np.outer(g, g)
    return np.asarray(fisher / rows)


def test_linear_regression() -> None:
    """With normal errors the answer is the largest eigenvalue of X^T X / n / sigma^2."""
    x, model = drawn(300, 8) * torch.arange(1, 9), nn.Linear(8, 1, bias=False, dtype=torch.float64).eval()
    found = lambda_max(model, [x], called, gaussian(0.5), tolerance=1e-4, most_passes=2000)
    truth = np.linalg.eigvalsh((x.T @ x).numpy() / 300 / 0.25)[-1]
    assert found.converged
    assert found.value == pytest.approx(truth, rel=1e-6)
    assert (found.parameters, found.predictions) == (8, 300)


def test_softmax_regression() -> None:
    """With logits W x it is that of the mean of (diag p - p p^T) kron x x^T."""
    x, model = drawn(40, 6), nn.Linear(6, 4, bias=False, dtype=torch.float64).eval()
    p = torch.softmax(model(x), dim=-1).detach().numpy()
    fisher = np.mean(
        [np.kron(np.diag(q) - np.outer(q, q), np.outer(a, a)) for q, a in zip(p, x.numpy(), strict=True)], 0
    )
    found = lambda_max(model, [x], called, categorical, tolerance=1e-4, most_passes=2000)
    assert found.value == pytest.approx(np.linalg.eigvalsh(fisher)[-1], rel=1e-6)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double().eval()


class Attending(nn.Module):
    """A transformer layer over positions, a prediction for each; dropout as shipped, off in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(5, 1, dim_feedforward=6, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.layer(x))
        assert isinstance(out, Tensor)
        return out


@pytest.mark.parametrize(
    ("make", "x"), [(two_layers, drawn(30, 5)), (lambda: Attending().double().eval(), drawn(6, 4, 5))]
)
def test_network(make: Callable[[], nn.Module], x: Tensor) -> None:
    """With hidden layers and attention it is that of the mean outer product of scores, labels drawn from the model."""
    torch.manual_seed(1)
    model = make()
    values = np.linalg.eigvalsh(from_scores(model, x))
    found = lambda_max(model, [x[:2], x[2:]], called, tolerance=1e-4, most_passes=2000)
    assert found.converged
    assert found.value == pytest.approx(values[-1], rel=1e-5)
    assert found.predictions == x.shape[:-1].numel()


def test_batches_do_not_matter() -> None:
    """Batches of any size, in any order, give the mean over predictions."""
    x, model = drawn(50, 5), two_layers()
    once, often = (lambda_max(model, list(b), called, most_passes=5, tolerance=0) for b in ([x], x.flip(0).split(7)))
    assert often.value == pytest.approx(once.value, rel=1e-12)


def test_frozen_parameters() -> None:
    """Only parameters that require gradients count: freeze what is not of interest."""
    model = two_layers()
    whole = lambda_max(model, [drawn(30, 5)], called)
    for p in list(model.parameters())[:2]:
        p.requires_grad_(False)
    part = lambda_max(model, [drawn(30, 5)], called)
    assert (whole.parameters, part.parameters) == (5 * 7 + 7 + 7 * 3 + 3, 7 * 3 + 3)
    assert 0 < part.value < whole.value


def test_says_when_it_is_not_there() -> None:
    """Stopped early it says so, its value is a lower bound, and an eigenvalue lies within the residual of it."""
    x, model = drawn(300, 8), nn.Linear(8, 1, bias=False, dtype=torch.float64).eval()
    told: list[tuple[int, float, float]] = []
    found = lambda_max(
        model, [x], called, gaussian(1.0), most_passes=2, tolerance=1e-9, progress=lambda *t: told.append(t)
    )
    values = np.linalg.eigvalsh((x.T @ x).numpy() / 300)
    assert not found.converged
    assert found.value < values[-1]
    assert np.abs(values - found.value).min() <= found.residual
    assert told == [(1, told[0][1], told[0][2]), (2, found.value, found.residual)]


def test_flat_model() -> None:
    """Where no parameter changes the outputs lambda_max is 0, not an error of division."""
    model = nn.Linear(3, 2).eval()
    assert lambda_max(model, [torch.zeros(4, 3)], lambda m, x: called(m, x) * 0).value == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, b: (m.train(), b), "training mode"),
        (lambda m, b: (m, iter(b)), "only once"),
        (lambda m, b: (m.requires_grad_(False), b), "no parameter"),
        (lambda m, b: (m, []), "no prediction"),
        (lambda m, b: (m, [b[0] * float("nan")]), "not finite"),
    ],
)
def test_refuses(change: Callable[..., tuple[nn.Module, Any]], says: str) -> None:
    """What would make another matrix of every pass, or none at all, is an error that says what to do."""
    with pytest.raises(ValueError, match=says):
        lambda_max(*change(two_layers(), [drawn(4, 5)]), called)


def test_deviation_of_nothing() -> None:
    """A normal of no width has no Fisher information."""
    with pytest.raises(ValueError, match="positive"):
        gaussian(0.0)


def test_gamma_crit_of_a_model() -> None:
    """Value and number of parameters are what gamma_crit of arXiv 2511.10704 asks for."""
    found = Dominant(value=1.2, residual=0.0, converged=True, passes=1, parameters=7_000_000_000, predictions=1)
    assert 1.5 * critical_work(found.value, found.parameters) == pytest.approx(20.4, abs=0.01)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the import says what to install."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "monitor.fisher")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'valuedrift\[train\]'"):
        importlib.import_module("monitor.fisher")
