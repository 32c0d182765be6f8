"""How often `stress compare` holds the true gamma, total work and suppression.

    python benchmarks/stress.py [--pairs 200] [--conversations 60] [--seed 1] [--json]

Pairs of variants lose their way over six turns of one suite, the base fast and the tuned one slowly. Answers are drawn
from the shipped classifier's calibration: each pair is a deployment with a confusion of its own, as far from the
calibration's as that says, common to both variants. "tuned 80 %": the tuned variant is taken to be healthy, unless its
answers contradict it; in the last pair it is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.coverage import Answers
from classifiers import linear
from monitor.buckets import Q_UNIT, to_fixed_point
from monitor.entropy import Quantifier, entropy
from monitor.estimates import Estimate, Result
from monitor.stress.compare import compare, seen_through
from monitor.stress.result import POOLED, StressResult, Turns, production_rate

Floats = NDArray[np.float64]

TURNS: Final = 6
PAIRS: Final = {
    "base 97 -> 60 %, tuned 98 -> 96 %": ((0.97, 0.60), (0.98, 0.96)),
    "base 90 -> 30 %, tuned 97 -> 90 %": ((0.90, 0.30), (0.97, 0.90)),
    "both 95 -> 70 %": ((0.95, 0.70), (0.95, 0.70)),
    "base 60 -> 20 %, tuned 65 -> 45 %": ((0.60, 0.20), (0.65, 0.45)),
}
"""Share of aligned turns from the first turn to the last."""
FIGURES: Final = ("gamma", "total", "suppression", "base dS/dt")
_REST: Final = np.array([0.4, 0.2, 0.2, 0.2])
"""Of the misaligned turns."""


@dataclass(frozen=True)
class Row:
    """Coverage of the truth by the 90 % interval of one figure."""

    pair: str
    assumed: str
    figure: str
    truth: float
    mean: float
    width: float
    coverage: float
    refused: int


def mixtures(ends: tuple[float, float]) -> Floats:
    aligned = np.linspace(*ends, TURNS)
    return np.column_stack([aligned, (1 - aligned)[:, None] * _REST])


def truths(base: Floats, tuned: Floats) -> tuple[float, float, float, float]:
    s_base, s_tuned = entropy(base), entropy(tuned)
    t = np.arange(TURNS) - (TURNS - 1) / 2
    gamma = float((s_base - s_tuned) @ t / (t @ t))
    sigma_0 = float(s_base @ t / (t @ t))
    return gamma, float(s_base[-1] - s_tuned[-1]), float(1 - s_tuned.mean() / s_base.mean()), sigma_0


def run(
    rng: np.random.Generator, answers: Answers, confusion: Floats, p: Floats, conversations: int, version: str
) -> StressResult:
    """A variant's turns in a suite of these mixtures."""
    q = np.concatenate([answers.of(rng, confusion, p[t], conversations) for t in range(TURNS)])
    index = np.repeat(np.arange(TURNS), conversations)
    turns = Turns(
        conversation=np.tile(np.arange(conversations), TURNS).tolist(),
        index=index.tolist(),
        minute=[0] * len(index),
        q=to_fixed_point(q).tolist(),
        doubt=[Q_UNIT // 10] * len(index),
    )
    names = [f"benign/{i}" for i in range(conversations)]
    return StressResult(1, "-", "-", 0, version, "fast", len(index), {}, names, ["benign"] * conversations, turns, [])


def coverage(pairs: int, conversations: int, seed: int) -> list[Row]:
    """One row a figure. Deterministic under its seed."""
    classifier = linear.load()
    quantifier, answers = Quantifier(classifier.calibration), Answers(classifier.calibration)
    rows = []
    for name, (base_ends, tuned_ends) in PAIRS.items():
        base, tuned = mixtures(base_ends), mixtures(tuned_ends)
        rng = np.random.default_rng((seed, list(PAIRS).index(name)))
        found: dict[tuple[str, str], list[Result]] = {}
        for _ in range(pairs):
            confusion = answers.confusion(rng)
            both = [run(rng, answers, confusion, p, conversations, classifier.version) for p in (base, tuned)]
            for assumed, at_least in (("nothing", 0.0), ("tuned 80 %", 0.8)):
                seen = seen_through(quantifier, both[1], at_least)
                (c,) = compare(both[0], both[1], seen)
                rate = production_rate(both[0], POOLED, seen)
                for figure, x in zip(FIGURES, (c.gamma, c.total, c.suppression, rate), strict=True):
                    found.setdefault((assumed, figure), []).append(x)
        known = dict(zip(FIGURES, truths(base, tuned), strict=True))
        for (assumed, figure), results in found.items():
            given = [e for e in results if isinstance(e, Estimate)]
            held = sum(e.lo <= known[figure] <= e.hi for e in given)
            some = max(len(given), 1)
            rows.append(
                Row(
                    name, assumed, figure, known[figure], sum(e.value for e in given) / some,
                    sum(e.hi - e.lo for e in given) / some, held / some, len(results) - len(given),
                )
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--conversations", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    rows = coverage(options.pairs, options.conversations, options.seed)
    print(
        f"{'pair':36} {'assumed':10} {'figure':11} {'truth':>7} {'mean':>7} {'width':>6} {'coverage':>9} {'refused':>8}"
    )
    for r in rows:
        figures = f"{r.truth:7.3f} {r.mean:7.3f} {r.width:6.3f} {r.coverage:9.1%} {r.refused:5d}/{options.pairs}"
        print(f"{r.pair:36} {r.assumed:10} {r.figure:11} {figures}")
    if options.json:
        print(json.dumps({"pairs": options.pairs, "seed": options.seed, "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
