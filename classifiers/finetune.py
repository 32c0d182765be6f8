"""Adapting the encoder's upper layers (needs torch; nothing that judges imports this).

The lower layers stay as they are: they know manner and grammar, and tuning them only taught the model to tell the
training sources apart (docs/classifier.md). Weights are kept in 32 bits and used in 16 (bfloat16), which is several
times as fast where the processor multiplies such matrices (AMX, AVX-512 BF16).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import encoder
from classifiers.accurate import pairs
from classifiers.heads import Mask, Progress
from classifiers.recipe import AccurateRecipe
from classifiers.rows import CONTRAST_FAMILY, REFUSAL, UNKNOWN, Row
from monitor.errors import ConfigError
from monitor.taxonomy import FACTORS, K

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

READ_AHEAD: Final = 8
"""Batches drawn at once and sorted by length, so that little is padded."""
LONG: Final = 60
"""Words from which on an answer may lose its end in augmentation."""
_MARKUP: Final = re.compile(r"(?m)^\s*(?:#{1,6}|[-*+>]|\d{1,2}[.)])\s+|\*\*|__|`{1,3}")

Read = tuple[NDArray[np.int64], int]
"""Token numbers of a turn, and where its answer begins."""


class Material:
    """The rows as the encoder reads them, plainly and augmented.

    Augmentation takes away what must not tell the behaviour: headings, bullets and bold, and how long a text is.
    """

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        tokens, rng = encoder.Tokens(), np.random.default_rng(seed)
        texts = pairs([(r.before, r.answer) for r in rows])
        self.rows = rows
        self.plain: list[Read] = [tokens.of_turn(*t) for t in texts]
        self.augmented: list[Read] = [tokens.of_turn(request, _shortened(answer, rng)) for request, answer in texts]
        self.behaviour = np.array([-1 if r.behaviour is None else r.behaviour for r in rows], dtype=np.int64)
        self.factors = np.array([r.factors for r in rows], dtype=np.float32)
        # rows that only label a request have no answer to read
        self.usable = np.array([bool(r.answer.strip()) and r.weight > 0 for r in rows])


def _shortened(answer: str, rng: np.random.Generator) -> str:
    text = _MARKUP.sub("", answer)
    words = text.split(" ")
    return " ".join(words[: int(len(words) * rng.uniform(0.5, 1.0))]) if len(words) > LONG else text


def tune(
    material: Material, keep: Mask, recipe: AccurateRecipe, seed: int, progress: Progress | None = None
) -> dict[str, NDArray[Any]]:
    """Train on the kept rows; returns the adapter (encoder.TUNED_SHAPES and HEAD_SHAPES) in 16 bits.

    The factors' losses count where a row says something of them, the behaviours' where it names one. Deterministic for
    a seed on one machine.
    """
    torch = _torch()
    torch.manual_seed(seed)
    model = _Model(torch, recipe.dropout)
    groups = [
        {"params": model.masters, "lr": recipe.encoder_rate},
        {"params": model.head, "lr": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1.0, (s + 1) / recipe.warm_up_steps) * max(0.02, 1 - s / recipe.steps)
    )
    batches = _batches(material, np.flatnonzero(keep & material.usable), recipe, seed)
    total = 0.0
    for step in range(recipe.steps):
        rows, reads = next(batches)
        loss = _loss(torch, model.scores(reads), material, rows, recipe.label_smoothing)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        model.collect_gradients()
        torch.nn.utils.clip_grad_norm_([*model.masters, *model.head], 1.0)
        optimiser.step()
        schedule.step()
        model.use_masters()
        total += float(loss.detach())
        if progress and (step + 1) % 100 == 0:
            progress(f"step {step + 1} of {recipe.steps}: loss {total / 100:.3f}")
            total = 0.0
    return model.adapter()


def _torch() -> Any:
    try:
        import torch
    except ImportError as e:
        raise ConfigError("training the accurate tier needs torch: pip install 'valuedrift[train]'") from e
    return torch


def _batches(material: Material, use: Ints, recipe: AccurateRecipe, seed: int) -> Iterator[tuple[Ints, list[Read]]]:
    """Endless batches of row numbers and what is read of them; sources and labels in balance within each half."""
    rng = np.random.default_rng(seed)
    contrast = np.array([material.rows[i].family == CONTRAST_FAMILY for i in use])
    halves = [(use[part], _chances(material, use[part], recipe.cell_power)) for part in (contrast, ~contrast)]
    sizes = [round(recipe.batch * recipe.contrast_share)] * 2
    sizes[1] = recipe.batch - sizes[0]
    if not all(len(rows) for rows, _ in halves):  # no scenarios, or nothing else
        halves, sizes = [(use, _chances(material, use, recipe.cell_power))], [recipe.batch]
    while True:
        drawn = []
        for (rows, chances), size in zip(halves, sizes, strict=True):
            part = rng.choice(rows, size * READ_AHEAD, p=chances)
            lengths = np.array([len(material.plain[i][0]) for i in part])
            drawn.append(part[np.argsort(lengths, kind="stable")].reshape(READ_AHEAD, size))
        for batch in rng.permutation(np.concatenate(drawn, axis=1)):
            augmented = (rng.random(len(batch)) < recipe.augmented_share).tolist()
            reads = (material.plain, material.augmented)
            yield batch, [reads[a][i] for i, a in zip(batch.tolist(), augmented, strict=True)]


def _chances(material: Material, use: Ints, power: float) -> Floats:
    """How likely each row is to be drawn: a cell is one source's rows of one label."""
    cells: dict[tuple[str, float], float] = defaultdict(float)
    weight = np.array([material.rows[i].weight for i in use])
    names = []
    for i, w in zip(use.tolist(), weight, strict=True):
        label = material.behaviour[i] if material.behaviour[i] >= 0 else K + material.factors[i, REFUSAL]
        names.append((material.rows[i].family, float(label)))
        cells[names[-1]] += w
    chances = np.array([w * cells[n] ** (power - 1) for n, w in zip(names, weight, strict=True)])
    return np.asarray(chances / chances.sum())


def _loss(torch: Any, scores: Tensor, material: Material, rows: Ints, smoothing: float) -> Tensor:
    functional = torch.nn.functional
    factors = torch.from_numpy(material.factors[rows])
    known = (factors != UNKNOWN).float()
    logits = scores[:, : len(FACTORS)]
    each = functional.binary_cross_entropy_with_logits(logits, factors.clamp(0, 1), reduction="none")
    loss = (each * known).sum() / known.sum().clamp(min=1)
    behaviour = torch.from_numpy(material.behaviour[rows])
    named = behaviour >= 0
    if named.any():
        of = scores[named][:, len(FACTORS) :]
        loss = loss + functional.cross_entropy(of, behaviour[named], label_smoothing=smoothing)
    total: Tensor = loss
    return total


class _Model:
    """The encoder in 16 bits, its tuned layers and head also in 32."""

    def __init__(self, torch: Any, dropout: float) -> None:
        self._torch, self._dropout = torch, dropout
        weights = encoder.read_wheel(encoder.wheel_folder() / "model.safetensors")
        full = {k: torch.from_numpy(np.array(v, dtype=np.float32)) for k, v in weights.items()}
        self._w: dict[str, torch.Tensor] = {k: v.bfloat16() for k, v in full.items()}
        self.masters = [torch.nn.Parameter(full[k]) for k in encoder.TUNED_SHAPES]
        self.use_masters()
        for k in encoder.TUNED_SHAPES:
            self._w[k].requires_grad_(True)
        self.head = []
        for shape in encoder.HEAD_SHAPES.values():
            bound = (shape[-1] if len(shape) > 1 else 2 * encoder.WIDTH) ** -0.5
            self.head.append(torch.nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def use_masters(self) -> None:
        """Round the 32-bit weights to those that are used."""
        with self._torch.no_grad():
            for k, master in zip(encoder.TUNED_SHAPES, self.masters, strict=True):
                self._w[k].copy_(master)

    def collect_gradients(self) -> None:
        """Hand the 16-bit weights' gradients to the 32-bit ones."""
        for k, master in zip(encoder.TUNED_SHAPES, self.masters, strict=True):
            gradient = self._w[k].grad
            master.grad = None if gradient is None else gradient.float()
            self._w[k].grad = None

    def scores(self, reads: Sequence[Read]) -> Tensor:
        """(n, encoder.SCORES) of turns as Tokens reads them."""
        torch = self._torch
        longest = max(len(ids) for ids, _ in reads)
        ids = torch.zeros((len(reads), longest), dtype=torch.long)
        answer = torch.zeros((len(reads), longest), dtype=torch.long)
        there = torch.zeros((len(reads), longest), dtype=torch.bool)
        for i, (numbers, begin) in enumerate(reads):
            ids[i, : len(numbers)] = torch.from_numpy(numbers)
            answer[i, begin : len(numbers)] = 1
            there[i, : len(numbers)] = True
        hidden = self._hidden(ids, answer, there).float()
        pool_weight, pool_bias, score_weight, score_bias = self.head
        attention = (hidden @ pool_weight.T + pool_bias).masked_fill(~there[..., None], -1e4).softmax(1).mean(2)
        share = answer.float() / answer.sum(1, keepdim=True)
        both = torch.einsum("nkt,ntd->nkd", torch.stack([share, attention], 1), hidden).flatten(1)
        out: Tensor = torch.nn.functional.dropout(both, self._dropout) @ score_weight.T + score_bias
        return out

    def _hidden(self, ids: Tensor, answer: Tensor, there: Tensor) -> Tensor:
        torch, w = self._torch, self._w
        mask = torch.zeros(there.shape, dtype=torch.bfloat16).masked_fill(~there, -1e4)[:, None, None, :]
        with torch.no_grad():
            x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][answer]
            x = self._norm(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings.LayerNorm")
            for i in range(min(encoder.TUNED)):
                x = self._layer(x, mask, i)
        for i in encoder.TUNED:
            x = self._layer(x, mask, i)
        return x

    def _layer(self, x: Tensor, mask: Tensor, i: int) -> Tensor:
        key = f"encoder.layer.{i}"
        n, t, _ = x.shape
        q, k, v = (
            self._linear(x, f"{key}.attention.self.{part}").view(n, t, encoder.ATTENTION_HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        depth = encoder.WIDTH // encoder.ATTENTION_HEADS
        attention = (q @ k.transpose(2, 3) * depth**-0.5 + mask).softmax(-1)
        mixed = (attention @ v).transpose(1, 2).reshape(n, t, encoder.WIDTH)
        x = self._norm(self._linear(mixed, f"{key}.attention.output.dense") + x, f"{key}.attention.output.LayerNorm")
        wide = self._torch.nn.functional.gelu(self._linear(x, f"{key}.intermediate.dense"))
        return self._norm(self._linear(wide, f"{key}.output.dense") + x, f"{key}.output.LayerNorm")

    def _linear(self, x: Tensor, key: str) -> Tensor:
        y: Tensor = self._torch.nn.functional.linear(x, self._w[f"{key}.weight"], self._w[f"{key}.bias"])
        return y

    def _norm(self, x: Tensor, key: str) -> Tensor:
        scale, shift = self._w[f"{key}.weight"], self._w[f"{key}.bias"]
        y: Tensor = self._torch.nn.functional.layer_norm(x, (encoder.WIDTH,), scale, shift, eps=1e-12)
        return y

    def adapter(self) -> dict[str, NDArray[Any]]:
        """The trained tensors by name, in 16 bits."""
        names = [*encoder.TUNED_SHAPES, *encoder.HEAD_SHAPES]
        values = [*self.masters, *self.head]
        return {k: v.detach().numpy().astype(np.float16) for k, v in zip(names, values, strict=True)}
