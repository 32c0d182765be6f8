"""SF and SEP: the closed forms are what the definitions say, and the reference implementation's figures come out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from benchmarks.faithfulness import generic, speed
from monitor import faithfulness as f
from monitor.entropy import entropy

REFERENCE = Path(__file__).parent / "faithfulness_reference.jsonl"
"""Topic distributions of ten triplets and what the reference implementation made of them, with their source."""

seeds = st.integers(0, 2**32 - 1)
topics = st.integers(2, 8)


def drawn(seed: int, k: int, zeros: float = 0.3) -> list[f.Floats]:
    """Shares of question, context and answer over k topics, some of them 0."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(3):
        p = rng.dirichlet(np.ones(k)) * (rng.random(k) > zeros)
        out.append(p / p.sum() if p.sum() else np.eye(k)[rng.integers(k)])
    return out


def cost(c: f.Floats, forward: f.Floats, goal: f.Floats) -> float:
    """sum_i c_i sum_j A_ij ln(A_ij / Q_ij)."""
    return float(c @ (forward * np.log(forward / goal)).sum(axis=1))


@given(seeds, topics)
def test_sf_is_a_share_and_1_only_for_equal_distributions(seed: int, k: int) -> None:
    """SF lies in [0, 1]; 1 says that answer and question have the same topics, 0 that the answer has one too many."""
    q, _, a = drawn(seed, k)
    sf = f.faithfulness(f.least_divergence(q, a))
    assert 0 <= sf <= 1
    assert (sf == 0) == bool(((q == 0) & (a > 0)).any())
    assert f.faithfulness(f.least_divergence(q, q)) == 1
    if np.abs(q - a).max() > 1e-6:
        assert sf < 1


@given(seeds, topics, seeds)
def test_names_of_topics_do_not_matter(seed: int, k: int, order: int) -> None:
    """Renumbering the topics of all three texts changes no figure."""
    q, c, a = drawn(seed, k)
    new = np.random.default_rng(order).permutation(k)
    for figure in (f.least_divergence, f.reference_divergence, f.entropy_production, f.documented_entropy_production):
        assert figure(q[new], a[new]) == pytest.approx(float(figure(q, a)), abs=1e-12)
    assert f.unsupported_topics(q[new], c[new], a[new]) == pytest.approx(float(f.unsupported_topics(q, c, a)))


@given(seeds, topics)
def test_no_pair_of_channels_is_nearer(seed: int, k: int) -> None:
    """Whatever two channels lead from a context to an answer and a question, they differ by D_min or more."""
    rng = np.random.default_rng(seed)
    c = rng.dirichlet(np.ones(k))
    forward, goal = rng.dirichlet(np.ones(k), size=(2, k))
    least = float(f.least_divergence(c @ goal, c @ forward))
    assert least <= cost(c, forward, goal) + 1e-12
    independent = [np.tile(p, (k, 1)) for p in (c @ forward, c @ goal)]
    assert cost(c, *independent) == pytest.approx(least, abs=1e-12), "independent channels attain it"


@pytest.mark.parametrize("seed", range(6))
def test_closed_form_is_what_a_generic_solver_finds(seed: int) -> None:
    """A solver that knows nothing of the proof comes to the same D_min, whatever the context."""
    rng = np.random.default_rng(seed)
    q, c, a = rng.dirichlet(np.full(4, 3.0), size=3)
    assert generic(q, c, a) == pytest.approx(float(f.least_divergence(q, a)), abs=2e-5)
    other = rng.dirichlet(np.full(4, 3.0))
    assert generic(q, other, a) == pytest.approx(generic(q, c, a), abs=4e-5)


def test_reference_implementation() -> None:
    """The reference's F_S of its ten triplets, to 4 decimals; as defined, SF of every one of them is 0."""
    rows = [json.loads(line) for line in REFERENCE.read_text(encoding="utf-8").splitlines()]
    q, c, a = (f.distributions([row[name] for row in rows], name) for name in ("p_question", "p_context", "p_answer"))
    ours = f.faithfulness(f.reference_divergence(q, a))
    assert ours.round(4).tolist() == [row["reference_F_S"] for row in rows]
    assert f.faithfulness(f.least_divergence(q, a)).tolist() == [0.0] * 10
    assert (f.documented_entropy_production(c, a) < 0).all(), "no production: all ten are negative"


@given(seeds, topics)
def test_reference_agrees_where_nothing_is_left_out(seed: int, k: int) -> None:
    """Where the question has every topic, the reference computes SF as defined; where it shares none, SF is 0."""
    q, _, a = drawn(seed, k)
    full = f.smoothed(q, 0.1)
    assert f.reference_divergence(full, a) == pytest.approx(float(f.least_divergence(full, a)))
    apart = np.eye(k)
    assert f.faithfulness(f.reference_divergence(apart[0], apart[1])) == 0


@given(seeds, topics)
def test_sep_is_entropy_production_of_the_unique_channel(seed: int, k: int) -> None:
    """SEP is what the stated channel produces against itself run backwards: never negative, 0 for equal shares."""
    rng = np.random.default_rng(seed)
    c, a = rng.dirichlet(np.ones(k), size=2)
    channel = np.tile(a, (k, 1))
    there, back = c[:, None] * channel, (a[:, None] * channel).T
    assert f.entropy_production(c, a) == pytest.approx(float((there * np.log(there / back)).sum()), abs=1e-12)
    assert f.entropy_production(c, a) >= 0
    assert f.entropy_production(c, c) == 0
    other = rng.dirichlet(np.ones(k), size=k)
    assert c @ entropy(other) <= entropy(c @ other) + 1e-12, "no channel to the same answer has more entropy"


@settings(max_examples=10)
@given(seeds)
def test_documented_sep_does_not_depend_on_the_channel(seed: int) -> None:
    """The least over reverse channels is H(context) - H(answer), by Bayes' reverse and by a generic solver alike."""
    rng = np.random.default_rng(seed)
    k = 3
    c, channel = rng.dirichlet(np.full(k, 3.0)), rng.dirichlet(np.full(k, 3.0), size=k)
    a = c @ channel
    stated = float(f.documented_entropy_production(c, a))
    joint = c[:, None] * channel
    assert (joint * np.log(channel / (joint / a))).sum() == pytest.approx(stated, abs=1e-12)

    def objective(x: f.Floats) -> tuple[float, f.Floats]:
        back = x.reshape(k, k)
        return float((joint * np.log(channel / back.T)).sum()), (-joint.T / back).ravel()

    rows = np.kron(np.eye(k), np.ones(k))
    columns = np.kron(a, np.eye(k))
    constraint, target = np.vstack([rows, columns])[1:], np.concatenate([np.ones(k), c])[1:]
    found = minimize(
        objective,
        np.tile(c, k),  # the independent channel: a start that keeps to the constraints
        jac=True,
        method="SLSQP",
        bounds=[(1e-9, 1)] * k**2,
        constraints={"type": "eq", "fun": lambda x: constraint @ x - target, "jac": lambda x: constraint},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.fun == pytest.approx(stated, abs=1e-4)


@given(seeds, topics)
def test_unsupported_topics(seed: int, k: int) -> None:
    """None of an answer that keeps to the context, all of one that shares no topic with context or question."""
    q, c, a = drawn(seed, k)
    assert 0 <= f.unsupported_topics(q, c, a) <= 1 + 1e-12
    assert f.unsupported_topics(q, c, c) == 0
    apart = np.eye(k + 1)[k]
    q, c = np.append(q, 0), np.append(c, 0)
    assert f.unsupported_topics(q, c, apart) == 1


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ([0.5, 0.6], "does not sum to 1"),
        ([1.5, -0.5], "negative share"),
        ([float("nan"), 1.0], "not finite"),
        ([], "no topics"),
        ([[0.5, 0.5], [1.0]], "not a list of numbers"),
        ("half", "not a list of numbers"),
    ],
)
def test_what_is_no_distribution_is_refused(shares: object, says: str) -> None:
    """The message names the field and what is wrong with it."""
    with pytest.raises(ValueError, match=f"p_answer .*{says}"):
        f.distributions(shares, "p_answer")  # type: ignore[arg-type]


def test_smoothing_is_what_it_says() -> None:
    """A smoothed share of 0 is positive, the sum stays 1, and no smoothing changes nothing."""
    p = np.array([1.0, 0, 0, 0])
    assert f.smoothed(p, 0.2).tolist() == pytest.approx([0.85, 0.05, 0.05, 0.05])
    assert f.smoothed(p, 0).tolist() == p.tolist()
    assert np.isfinite(f.least_divergence(f.smoothed(p, 0.01), np.array([0, 1.0, 0, 0])))
    with pytest.raises(ValueError, match="smoothing"):
        f.smoothed(p, 1)


def test_closed_form_is_thousands_of_times_faster_than_a_solver() -> None:
    """Both in one run: a triplet in closed form costs less than a thousandth of one by the solver."""
    assert speed(triplets=2000, solver_topics=4, rounds=1)["ratio_to_generic_solver"] > 1000
