"""How well known shifts by label value are recovered: coverage of each part, and what is named.

    python benchmarks/decomposition.py [--pairs 100] [--seed 1] [--json]

Pairs of windows are simulated as in benchmarks/coverage.py, truth `drawn`: each deployment answers by a confusion of
its own, as far from the shipped classifier's calibration as that says. The window before is the baseline, too, and
taken to be at least 80 % aligned.

coverage   of the true mixture shift and rate shift by their 90 % intervals: of the misaligned mass, of S, and of the
           parts of single values
right      pairs in which exactly the values are named that the case says; `wrong`, in which another one is
trap       pairs in which Simpson's trap is named
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.coverage import Answers, sums_of
from classifiers import linear
from monitor.decomposition import decompose, entropy_slopes, likely_where, share_parts
from monitor.entropy import Interval, Quantifier
from monitor.label_sums import Split
from monitor.taxonomy import ALIGNED, K

Floats = NDArray[np.float64]

HEALTHY: Final = (0.93, 0.03, 0.01, 0.02, 0.01)
WORSE: Final = (0.70, 0.08, 0.12, 0.06, 0.04)
BAD: Final = (0.42, 0.03, 0.50, 0.03, 0.02)
RISKY: Final = (0.60, 0.10, 0.20, 0.05, 0.05)
LESS_RISKY: Final = (0.72, 0.08, 0.12, 0.05, 0.03)
BETTER: Final = (0.98, 0.01, 0.0, 0.01, 0.0)
TURNS: Final = ((1500, 600), (500, 200), (300, 60))
_MISALIGNED: Final = [k for k in range(K) if k != ALIGNED]

Mixtures = tuple[tuple[float, ...], ...]


class Case(NamedTuple):
    """Traffic shares and mixtures of the values before and after; which value the change comes from."""

    before: tuple[float, ...]
    was: Mixtures
    after: tuple[float, ...]
    became: Mixtures
    from_value: str | None = None


CASES: Final = {
    "nothing moved": Case((0.5, 0.3, 0.2), (HEALTHY,) * 3, (0.5, 0.3, 0.2), (HEALTHY,) * 3),
    "one value of three": Case((0.5, 0.3, 0.2), (HEALTHY,) * 3, (0.5, 0.3, 0.2), (HEALTHY, HEALTHY, BAD), "v2"),
    "traffic to a bad value": Case(
        (0.8, 0.15, 0.05), (HEALTHY, HEALTHY, BAD), (0.5, 0.1, 0.4), (HEALTHY, HEALTHY, BAD), "v2"
    ),
    "a new version": Case((1.0, 0.0), (HEALTHY, BAD), (0.02, 0.98), (HEALTHY, BAD), "v1"),
    "both": Case((0.6, 0.25, 0.15), (HEALTHY, WORSE, RISKY), (0.4, 0.25, 0.35), (WORSE, HEALTHY, LESS_RISKY)),
    "Simpson's trap": Case((0.85, 0.15), (HEALTHY, RISKY), (0.3, 0.7), (BETTER, LESS_RISKY)),
    "everywhere, 8 values": Case((0.125,) * 8, (HEALTHY,) * 8, (0.125,) * 8, (WORSE,) * 8),
    "everywhere, one value nearly all": Case((0.95, 0.05), (HEALTHY,) * 2, (0.95, 0.05), (WORSE,) * 2),
}


def truths(case: Case) -> dict[str, float]:
    t, p, u, q = (np.array(x) for x in case[:4])
    mixture, rate = share_parts((t, u), (p, q))
    slopes = entropy_slopes(t @ p, u @ q)
    out = {f"{name} of {v}": -x[v, ALIGNED] for v in range(len(t)) for name, x in (("m", mixture), ("r", rate))}
    return out | {
        "mixture shift": -mixture[:, ALIGNED].sum(),
        "rate shift": -rate[:, ALIGNED].sum(),
        "S mixture": (mixture * slopes).sum(),
        "S rate": (rate * slopes).sum(),
    }


def window(
    rng: np.random.Generator, answers: Answers, confusion: Floats, traffic: tuple[float, ...], p: Mixtures, turns: int
) -> Split:
    counts = rng.multinomial(turns, traffic).tolist()
    return {f"v{v}": sums_of(answers.of(rng, confusion, np.array(p[v]), n)) for v, n in enumerate(counts) if n}


def measured(
    case: Case, turns: tuple[int, int], pairs: int, seed: int, quantifier: Quantifier, answers: Answers
) -> dict[str, Any]:
    true = truths(case)
    held: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    right = wrong = trapped = 0
    for i in range(pairs):
        rng = np.random.default_rng([seed, i])
        confusion = answers.confusion(rng)
        before = window(rng, answers, confusion, case.before, case.was, turns[0])
        after = window(rng, answers, confusion, case.after, case.became, turns[1])
        whole = list(before.values())
        lens = quantifier.given(sum(whole[1:], whole[0]), 0.8)
        found = decompose(lens, before, after)
        intervals: dict[str, Interval] = {
            "mixture shift": found.misaligned.mixture,
            "rate shift": found.misaligned.rate,
            "S mixture": found.entropy.mixture,
            "S rate": found.entropy.rate,
        }
        for x in found.values:
            if x.value is not None:
                intervals |= {f"m of {x.value[1:]}": x.misaligned.mixture, f"r of {x.value[1:]}": x.misaligned.rate}
        for name, x in intervals.items():
            seen[name] += 1
            held[name] += x.low - 1e-9 <= true[name] <= x.high + 1e-9
        trapped += found.simpson
        named = {c.value for c in likely_where(lens, {"label": before}, {"label": after}, _MISALIGNED)}
        right += named == ({case.from_value} if case.from_value else set())
        wrong += bool(named - {case.from_value})
    single = [n for n in true if n.startswith(("m of", "r of"))]
    return {
        **{name: held[name] / pairs for name in true if name not in single},
        "of values": sum(held[n] for n in single) / max(1, sum(seen[n] for n in single)),
        "right": right / pairs,
        "wrong": wrong / pairs,
        "trap": trapped / pairs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    calibration = linear.load().calibration
    quantifier, answers = Quantifier(calibration), Answers(calibration)
    rows = []
    for name, case in CASES.items():
        for turns in TURNS:
            row = measured(case, turns, options.pairs, options.seed, quantifier, answers)
            if not rows:
                print(f"{'':34} turns     " + "  ".join(row))
            rows.append({"case": name, "turns": turns, **row})
            figures = "  ".join(f"{100 * x:{len(k)}.0f}" for k, x in row.items())
            print(f"{name:34} {turns[0]:4},{turns[1]:4} {figures}", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
