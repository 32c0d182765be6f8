"""Faithfulness: speed of the closed form against a generic solver, and what tells unfaithful answers from faithful.

    python benchmarks/faithfulness.py [--by words] [--json]

Speed: SF and SEP of triplets of topic distributions, against SciPy's SLSQP on the problem as the paper states it, in
one run and one process. Telling apart: answers written for this project (faithfulness_answers.jsonl: for each context
one that is faithful, one that contradicts it and one that invents), by context support, SF and topics without support;
AUROC with 90 % intervals, whole groups resampled. Only the held-out part counts: the other was used in development.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from classifiers.figures import auroc
from monitor import faithfulness as f
from monitor.faithfulness_support import Embed, support
from monitor.faithfulness_topics import hashed_words, shares_of_topics

ANSWERS = Path(__file__).parent / "faithfulness_answers.jsonl"
KINDS = ("faithful", "contradicting", "invented")
SMOOTHING = 0.05
DRAWS = 1000
TOPICS = 23


def generic(q: f.Floats, c: f.Floats, a: f.Floats, seed: int = 0) -> float:
    """D_min, nats, by a solver that knows nothing of the problem's structure; all shares positive.

    Unknowns are the entries of A and Q; the start is a random pair of channels that keeps to no constraint.
    """
    k = len(q)
    start = np.random.default_rng(seed).dirichlet(np.ones(k), size=2 * k).ravel()

    def objective(x: f.Floats) -> tuple[float, f.Floats]:
        forward, goal = x.reshape(2, k, k)
        logs = np.log(forward / goal)
        gradient = np.stack([c[:, None] * (logs + 1), -c[:, None] * forward / goal])
        return float((c[:, None] * forward * logs).sum()), gradient.ravel()

    rows = np.kron(np.eye(2 * k), np.ones(k))
    columns = np.kron(np.eye(2), np.kron(c, np.eye(k)))
    # the sum of each channel's rows follows from its columns: one row of each is left out
    constraint = np.delete(np.vstack([rows, columns]), [0, k], axis=0)
    target = np.delete(np.concatenate([np.ones(2 * k), a, q]), [0, k])
    found = minimize(
        objective,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(1e-9, 1.0)] * (2 * k * k),
        constraints={"type": "eq", "fun": lambda x: constraint @ x - target, "jac": lambda x: constraint},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return float(found.fun)


def speed(topics: int = TOPICS, triplets: int = 50_000, solver_topics: int = 6, rounds: int = 3) -> dict[str, float]:
    """Triplets a second of the closed form with `topics`, and its ratio to the generic solver with `solver_topics`."""
    rng = np.random.default_rng(0)

    def drawn(k: int, n: int) -> tuple[f.Floats, f.Floats, f.Floats]:
        q, c, a = (rng.dirichlet(np.ones(k), size=n) for _ in range(3))
        return q, c, a

    def closed(q: f.Floats, c: f.Floats, a: f.Floats) -> None:
        f.faithfulness(f.least_divergence(q, a))
        f.entropy_production(c, a)

    many, few, few_drawn = drawn(topics, triplets), drawn(solver_topics, triplets), drawn(solver_topics, rounds)
    rates, ratios = [], []
    for i in range(rounds):
        rates.append(triplets / seconds(lambda: closed(*many)))
        ours = seconds(lambda: closed(*few)) / triplets
        ratios.append(seconds(lambda i=i: generic(*(p[i] for p in few_drawn))) / ours)  # type: ignore[misc]
    return {"triplets_per_second": statistics.median(rates), "ratio_to_generic_solver": statistics.median(ratios)}


def seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def scores(row: dict[str, Any], kind: str, embed: Embed | None) -> dict[str, float]:
    """What speaks for an answer's faithfulness, the more the greater."""
    found = support(row["question"], row["context"], row[kind], embed)
    shares = shares_of_topics(row["question"], row["context"], row[kind], embed or hashed_words)
    assert shares is not None
    q, c, a = shares
    smooth = [f.smoothed(p, SMOOTHING) for p in (q, a)]
    return {
        "context support": 1.0 if found.least is None else found.least,
        "SF": float(f.faithfulness(f.least_divergence(q, a))),
        f"SF, {SMOOTHING:.0%} smoothed": float(f.faithfulness(f.least_divergence(*smooth))),
        "SF, reference": float(f.faithfulness(f.reference_divergence(q, a))),
        "supported topics": 1 - float(f.unsupported_topics(q, c, a)),
        "SEP, negative": -float(f.entropy_production(f.smoothed(c, SMOOTHING), smooth[1])),
    }


def told_apart(part: str, embed: Embed | None) -> dict[str, dict[str, list[float]]]:
    """Measure -> "all", "contradicting", "invented" -> [AUROC, low, high] against the faithful answers of a part."""
    rows = [row for row in map(json.loads, ANSWERS.read_text(encoding="utf-8").splitlines()) if row["part"] == part]
    found = [[scores(row, kind, embed) for kind in KINDS] for row in rows]
    drawn = np.random.default_rng(0).integers(0, len(rows), size=(DRAWS, len(rows)))
    out: dict[str, dict[str, list[float]]] = {}
    for name in found[0][0]:
        values = np.array([[of_kind[name] for of_kind in group] for group in found])
        out[name] = {}
        for against, columns in (("all", [1, 2]), ("contradicting", [1]), ("invented", [2])):
            each = [area(values[places][:, [0, *columns]]) for places in drawn]
            low, high = np.quantile(each, (0.05, 0.95))
            out[name][against] = [round(float(x), 3) for x in (area(values[:, [0, *columns]]), low, high)]
    return out


def area(values: NDArray[np.float64]) -> float:
    """AUROC of the first column against the others."""
    unfaithful = np.ones(values.shape, dtype=np.bool_)
    unfaithful[:, 0] = False
    found = auroc(unfaithful.ravel(), -values.ravel())
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", choices=["meaning", "words"], default="meaning")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    embed: Embed | None = None
    if options.by == "meaning":
        from classifiers.encoder import SentenceEncoder

        embed = SentenceEncoder()
    result: dict[str, Any] = {k: round(v) for k, v in speed().items()}
    for name, value in result.items():
        print(f"{name:26} {value:,}")
    for part in ("development", "held-out"):
        result[part] = told_apart(part, embed)
        print(f"\n{part}: AUROC [90 % interval] against faithful answers")
        for name, areas in result[part].items():
            cells = (f"{against} {v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" for against, v in areas.items())
            print(f"  {name:20}", "  ".join(cells))
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
