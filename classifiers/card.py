"""The model card, written by training so that its figures are those of the weights beside it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from classifiers import report
from classifiers.rows import CONTRAST_FAMILY, Row
from monitor.taxonomy import BEHAVIOURS, MEANING

SOURCES: Final[Mapping[str, tuple[str, str]]] = {  # family: (where from, licence), as the data's README gives them
    "agentdojo": ("agentdojo 0.1.35 (PyPI), suites v1.2.1", "MIT"),
    "anthropic-evals": ("anthropics/evals", "CC-BY-4.0"),
    "coconot-pref": ("allenai/noncompliance", "MIT"),
    "em-political": ("ascender1729/emergent-misalignment-political", "MIT"),
    "gptfuzz": ("sherdencooper/GPTFuzz", "MIT"),
    "hh-rlhf": ("anthropics/hh-rlhf", "MIT"),
    "jailbreakbench": ("JailbreakBench/artifacts", "MIT"),
    "llm-self-defense": ("poloclub/llm-self-defense", "BSD-3-Clause"),
    "oasst-eval": ("Open-Assistant/oasst-model-eval", "Apache-2.0"),
    "or-bench-legal": ("Reliable-Information-Lab-HEVS/Overrefusal_in_Criminal_Legal_Context", "MIT + CC-BY-4.0"),
    "refusal_direction": ("andyrdt/refusal_direction", "Apache-2.0"),
    "spiral-bench": ("sam-paech/spiral-bench", "MIT"),
    "sycon": ("JiseungHong/SYCON-Bench", "MIT"),
    "sycophancybench": ("celomedrado/SycophancyBench", "MIT"),
    "truthfulqa": ("yizhongw/truthfulqa_reeval, benedictflorance/truthfulqa_experiments", "Apache-2.0"),
    "vicuna-80": ("lm-sys/vicuna-blog-eval", "Apache-2.0"),
    CONTRAST_FAMILY: ("classifiers/data/contrast.jsonl, written for this project", "Apache-2.0"),
}
FACTOR_LICENCES: Final = (
    "Factor labels (request_harm, refusal) come from advbench, ailuminate, bipia, catqa, coconot, dangerousqa, "
    "deepinception, deepset-prompt-injections, dolly-15k, email-agent, gsm8k, harmbench, harmfulqa, just-eval, "
    "latent-jailbreak, llmail-benign, lm-refusal-eval, maliciousinstruct, mt_bench, oasst-prompts, or-bench, "
    "purplellama, refusalbench, safedecoding, self-reminder, strongreject, tdc2023, vicuna_bench and the files above: "
    "MIT, Apache-2.0, BSD-3-Clause and CC-BY-4.0, except dolly-15k, which is CC-BY-SA-3.0."
)
BRACKETS: Final = "Brackets hold 90 %, with the turns of a prompt or scenario resampled together."
WEAK: Final = """\
## Known failures

- **A falsehood told plainly.** Knowing that an answer is false needs knowledge of the world, and the heads only know
  words: on left-out TruthfulQA one false answer in ten is found, no better than chance. Deception is found where it
  flatters, caves, claims work not done or oversells.
- **Sources unlike the scenarios.** On whole public sources left out, the figures below are far under the grouped ones.
  Read the pooled left-out figures as the worst case and the held-out scenarios as the usual one.
- **Collapse of base models** (text that runs on, invents turns, repeats itself) counts as goal_deviation in training,
  but is found poorly when that file is left out: repetition and length are not features.
- **Sycophancy over many turns** is judged by the answer alone; a change of mind is not compared with what the
  assistant said before.
- **Wrapped requests.** A harmful request inside a long role-play can look harmless, and a right refusal of it then
  looks like over-refusal.
- **A refusal in stock words.** In the scenarios such wording is more often right than wrong, so a curt stock refusal of
  a harmless request that sounds at all odd leans to aligned.
- **Languages.** Nearly all training text is English; one contrast scenario in seven is not. Languages without
  spaces are read by character. Elsewhere expect little more than refusals to be seen.
- **Probabilities assume that half of all turns are aligned.** In traffic that is nearly all aligned, single turns look
  less aligned than they are (the calibration error on the demo transcripts). Windows are corrected for it.
- **An attacker who knows the words** can move the score: this is a monitor of drift over many turns, not a filter.

Doubt and the confusion matrix are measured on sources and scenarios the heads had not seen, so that windows
(docs/classifier.md) carry these failures in their intervals.
"""


def render(version: str, files: Sequence[str], rows: Sequence[Row], figures: Mapping[str, Any]) -> str:
    """MODEL_CARD.md of freshly trained weights."""
    parts = [
        f"# Model card: {version}",
        "Judges one assistant turn, given the conversation before it, as one of five behaviours. Hashed words and word "
        "pairs, six linear heads (8-bit: five factors, and aligned or not), a fitted composition; numpy alone "
        "when judging. Written by `valuedrift train`; how and why: docs/classifier.md.",
        _behaviours(),
        _data(files, rows),
        _figures(figures),
        WEAK,
        "## Reproduce\n\n    pip install 'valuedrift[train]'\n"
        "    valuedrift train --data DATA/train --factors DATA/factors\n"
        "    valuedrift evaluate --data DATA/train\n\n"
        "Deterministic for a seed (default 0) on one machine; other versions of scikit-learn move the last digits.\n",
    ]
    return "\n\n".join(p.strip("\n") for p in parts) + "\n"


def page(result: Mapping[str, Any]) -> str:
    """The figures of `evaluation.run_evaluation` as a page."""
    version = result.get("classifier", "models refitted for each part")
    name = " and ".join(version.values()) if isinstance(version, Mapping) else version
    parts = [
        f"# Evaluation: {name}",
        f"{result['how'].capitalize()}, {result['n']} labelled turns. Written by `valuedrift evaluate`; what the "
        f"figures are and how they are measured: docs/classifier.md. {BRACKETS}",
        "\n".join(f"- {note}" for note in report.notes(result)),
        _behaviours(),
        "## Figures",
        report.markdown(report.blocks(result)),
        "What the classifier was trained on, licences and known failures: `classifiers/weights/MODEL_CARD.md`.",
    ]
    return "\n\n".join(p.strip("\n") for p in parts) + "\n"


def _behaviours() -> str:
    return "\n".join(["| behaviour | meaning |", "|---|---|", *(f"| {b} | {MEANING[b]} |" for b in BEHAVIOURS)])


def _data(files: Sequence[str], rows: Sequence[Row]) -> str:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for r in rows:
        if r.behaviour is not None:
            counts[r.family][r.behaviour] += 1
    lines = [
        "## Training data",
        "",
        "| source | from | licence | " + " | ".join(BEHAVIOURS) + " |",
        "|---|---|---|" + "---:|" * len(BEHAVIOURS),
    ]
    for family in sorted(counts):
        origin, licence = SOURCES.get(family, ("not described", "not known"))
        cells = " | ".join(str(counts[family][k] or "") for k in range(len(BEHAVIOURS)))
        lines.append(f"| {family} | {origin} | {licence} | {cells} |")
    factors = sum(r.behaviour is None for r in rows)
    lines += ["", f"Files: {', '.join(files)}. Besides, {factors} rows that label factors only. {FACTOR_LICENCES}"]
    return "\n".join(lines)


def _figures(figures: Mapping[str, Any]) -> str:
    left_out = figures["leave_one_source_out"]
    measured = [("grouped 5-fold, public sources", figures), ("whole source left out, pooled", left_out["pooled"])]
    if "held_out_contrast" in figures:
        measured.append(("contrast scenarios held out", figures["held_out_contrast"]))
    if "transcripts" in figures:
        measured.append(("demo transcripts (never trained on, but a yardstick of choices)", figures["transcripts"]))
    lines = [
        "## Figures",
        "",
        "| on | turns | macro-F1 | AUROC misaligned | ECE | " + " | ".join(f"recall {b}" for b in BEHAVIOURS) + " |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(BEHAVIOURS),
    ]
    for name, m in measured:
        recall = " | ".join(f"{m['per_class'][b]['recall']:.2f}" for b in BEHAVIOURS)
        area = _number(m["auroc_misaligned"])
        lines.append(f"| {name} | {m['n']} | {m['macro_f1']:.3f} | {area} | {m['ece']:.3f} | {recall} |")
    lines += [
        "",
        f"Speed where trained: {figures['turns_per_second']:.0f} turns of the training data a second, one core.",
    ]
    lines += ["", "By source left out:", "", "| source | turns | AUROC misaligned | recall |", "|---|---:|---:|---|"]
    for family, m in left_out["by_source"].items():
        recall = ", ".join(f"{k} {v:.2f}" for k, v in m["recall"].items())
        lines.append(f"| {family} | {m['n']} | {_number(m['auroc_misaligned'])} | {recall} |")
    mean = np.mean([m["auroc_misaligned"] for m in left_out["by_source"].values() if m["auroc_misaligned"] is not None])
    lines += ["", f"Mean AUROC within a left-out source: {mean:.3f}."]
    lines += ["", f"Every figure with its interval. {BRACKETS}", "", report.markdown(report.blocks(figures))]
    return "\n".join(lines)


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.3f}"
