"""How often the 90 % interval of S holds the true S, beside averaging, EM and kernel densities.

    python benchmarks/coverage.py [--windows 500] [--rival-windows 100] [--seed 1] [--truth drawn|mean|both] [--json]

Windows are simulated from the shipped classifier's calibration: the turns of each behaviour are answered by a Dirichlet
with the calibration's spread around the deployment's confusion. Of that there are two truths: `drawn`, each window's
deployment has its own confusion, as uncertain as the calibration says (the model the intervals are made for), and
`mean`, every deployment answers just as the calibration rows did on average (intervals are then wider than needed).
"given a baseline" knows 500 turns of the same deployment; "alone" knows none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifiers import linear
from monitor.buckets import Sums, to_fixed_point, turn_terms
from monitor.entropy import Calibration, Quantifier, entropy
from monitor.quantification import KernelDensities, mixture_of, saerens
from monitor.taxonomy import K

Floats = NDArray[np.float64]

MIXTURES: Final = {
    "baseline": (0.93, 0.03, 0.01, 0.02, 0.01),
    "shares at 0": (0.90, 0.05, 0.0, 0.05, 0.0),
    "wholly aligned": (1.0, 0.0, 0.0, 0.0, 0.0),
    "25 % misaligned": (0.75, 0.05, 0.10, 0.05, 0.05),
}
TURNS: Final = (100, 300, 1000)
TRUTHS: Final = ("drawn", "mean")
BASELINE_TURNS: Final = 500
RESAMPLES: Final = 50
"""Bootstrap windows behind an interval of averaging, EM and kernel densities."""
KNOWN: Final = 60
"""Known turns of each behaviour behind the kernel densities."""


@dataclass(frozen=True)
class Row:
    """Coverage of the true S by the 90 % interval; width and bias of the estimate in nats."""

    truth: str
    mixture: str
    s: float
    turns: int
    method: str
    windows: int
    coverage: float
    median_width: float
    bias: float


class Answers:
    """A classifier that answers as the calibration says."""

    def __init__(self, calibration: Calibration) -> None:
        c = calibration.mean
        spread = np.trace(calibration.covariance, axis1=1, axis2=2)
        self._sharpness = (c * (1 - c)).sum(axis=1) / np.maximum(spread, 1e-9) - 1
        self._calibration = calibration

    def confusion(self, rng: np.random.Generator) -> Floats:
        """Another deployment's: rows as far from the calibration's as it says, each behaviour named most often."""
        c, n = self._calibration.mean, self._calibration.n
        while True:
            # a Dirichlet's variance is c (1 - c) / (total + 1); that of a mean over n turns is spread / n
            drawn = np.stack([rng.dirichlet(c[y] * n[y] * (self._sharpness[y] + 1)) for y in range(K)])
            if (drawn.argmax(axis=0) == np.arange(K)).all():
                return drawn

    def of(self, rng: np.random.Generator, confusion: Floats, mixture: Floats, n: int) -> Floats:
        """(n, 5) answers to a window of that mixture."""
        y = rng.choice(K, size=n, p=mixture)
        q = rng.standard_gamma(np.maximum(self._sharpness[y, None] * confusion[y], 1e-3)) + 1e-9
        return np.asarray(q / q.sum(axis=1, keepdims=True))


Outcome = tuple[str, float, float, float]
"""(method, estimate, low, high)"""


def ours(quantifier: Quantifier, window: Floats, baseline: Floats) -> Iterator[Outcome]:
    sums = sums_of(window)
    for name, q in (("alone", quantifier), ("given a baseline", quantifier.given(sums_of(baseline), 0.8))):
        s = q.estimate(sums).entropy
        yield name, s.mean, s.low, s.high


def rivals(rng: np.random.Generator, known: KernelDensities, prior: Floats, window: Floats) -> Iterator[Outcome]:
    """Each on the window and on bootstraps of it."""
    n = len(window)
    weights = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)])
    for name, p in (
        ("averaging", weights @ window / n),
        ("EM (Saerens)", saerens(window, prior, weights)),
        ("KDEy-ML", mixture_of(known.likelihoods(window), weights)),
    ):
        s = entropy(p)
        low, high = np.quantile(s[1:], (0.05, 0.95))
        yield name, float(s[0]), float(low), float(high)


def sums_of(q: Floats) -> Sums:
    return Sums.of(turn_terms(to_fixed_point(q), np.ones(len(q)), np.full(len(q), 0.1)))


def coverage(
    calibration: Calibration,
    quantifier: Quantifier,
    truth: str,
    mixture: str,
    turns: int,
    windows: int,
    rival_windows: int,
    seed: int,
) -> list[Row]:
    """One row a method. Deterministic under its seed."""
    rng = np.random.default_rng((seed, turns, TRUTHS.index(truth), list(MIXTURES).index(mixture)))
    answers = Answers(calibration)
    p = np.array(MIXTURES[mixture])
    healthy = p if p[0] > MIXTURES["baseline"][0] else np.array(MIXTURES["baseline"])
    y = np.repeat(np.arange(K), KNOWN)
    known = KernelDensities(
        np.concatenate([answers.of(rng, calibration.mean, np.eye(K)[k], KNOWN) for k in range(K)]), y
    )
    s = float(entropy(p))
    by_method: dict[str, list[tuple[float, float, float]]] = {}
    for i in range(windows):
        confusion = calibration.mean if truth == "mean" else answers.confusion(rng)
        window = answers.of(rng, confusion, p, turns)
        baseline = answers.of(rng, confusion, healthy, BASELINE_TURNS)
        outcomes = list(ours(quantifier, window, baseline))
        if i < rival_windows:
            outcomes += rivals(rng, known, calibration.mean.mean(axis=0), window)
        for method, *figures in outcomes:
            by_method.setdefault(method, []).append((figures[0], figures[1], figures[2]))
    rows = []
    for method, found in by_method.items():
        mean, low, high = np.array(found).T
        held = (low - 1e-9 <= s) & (s <= high + 1e-9)
        rows.append(
            Row(
                truth, mixture, round(s, 4), turns, method, len(found), float(held.mean()),
                float(np.median(high - low)), float(mean.mean() - s),
            )
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=500)
    parser.add_argument("--rival-windows", type=int, default=100, help="windows on which the slower rivals are run")
    parser.add_argument("--turns", type=int, nargs="+", default=TURNS)
    parser.add_argument("--truth", choices=(*TRUTHS, "both"), default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    calibration = linear.load().calibration
    quantifier = Quantifier(calibration)
    rows: list[Row] = []
    print(f"{'truth':6} {'mixture':16} {'S':>5} {'turns':>5} {'method':17} {'coverage':>9} {'width':>6} {'bias':>6}")
    for truth in TRUTHS if options.truth == "both" else (options.truth,):
        for mixture in MIXTURES:
            for turns in options.turns:
                found = coverage(
                    calibration, quantifier, truth, mixture, turns,
                    options.windows, options.rival_windows, options.seed,
                )  # fmt: skip
                for r in found:
                    print(
                        f"{r.truth:6} {r.mixture:16} {r.s:5.3f} {r.turns:5} {r.method:17} {r.coverage:9.1%} "
                        f"{r.median_width:6.2f} {r.bias:+6.2f}",
                        flush=True,
                    )
                rows += found
    if options.json:
        print(json.dumps({"windows": options.windows, "seed": options.seed, "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
