"""Irreversibility: directed drift from one behaviour to another, told from mere fluctuation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gamma import coverage
from monitor.estimates import Estimate, Refusal
from monitor.irreversibility import irreversibility, production, transition_counts


def cycle(part: float) -> np.ndarray:
    return (1 - part) * np.full((5, 5), 0.2) + part * np.roll(np.eye(5), 1, axis=1)


def test_production() -> None:
    """A chain round a cycle produces (forward - back) ln(forward / back) nats a turn; a reversible one none."""
    forward, back = 0.12 + 0.4, 0.12
    assert production(cycle(0.4)) == pytest.approx((forward - back) * math.log(forward / back))
    flow = np.random.default_rng(0).uniform(0.1, 1, (5, 5))
    flow = flow + flow.T
    assert production(flow / flow.sum(axis=1, keepdims=True)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("case", ["chain driven 0.1, 1000", "chain driven 0.4, 5000"])
def test_coverage(case: str) -> None:
    """For driven chains the 90 % interval holds the truth nine times in ten, and the value is unbiased."""
    (row,) = coverage(case, 150, seed=3)
    assert 0.82 <= row.coverage <= 0.97
    assert row.mean_value == pytest.approx(row.truth, rel=0.1)


def test_fluctuation_is_not_drift() -> None:
    """A chain at rest is seldom called directed, and its bias is taken off."""
    (row,) = coverage("chain at rest, 1000", 100, seed=4)
    assert row.coverage >= 0.95
    assert row.mean_value < 0.006


def test_rare_behaviours() -> None:
    """Traffic that is all aligned, and behaviours never seen, give a figure near 0, not infinity."""
    counts = np.zeros((5, 5))
    counts[0, 0] = 1000
    got = irreversibility(counts)
    assert isinstance(got, Estimate)
    assert 0 <= got.lo <= got.value <= got.hi < 0.05


def test_one_way() -> None:
    """A passage that is only ever gone one way is finite and plainly directed."""
    counts = np.diag([300.0, 50, 50, 1, 1])
    counts[0, 1] = counts[1, 2] = counts[2, 0] = 60
    got = irreversibility(counts)
    assert isinstance(got, Estimate)
    assert got.lo > 0.5
    assert "experimental" in got.method


def test_soft_counts() -> None:
    """Counts of certain judgements are whole; those of any conversation sum to its turns less one."""
    hard = transition_counts(np.eye(5)[[0, 0, 3, 1]])
    assert hard[0, 0] == hard[0, 3] == hard[3, 1] == 1
    soft = transition_counts(np.random.default_rng(0).dirichlet(np.ones(5), 8))
    assert soft.sum() == pytest.approx(7)
    assert transition_counts(np.eye(5)[[2]]).sum() == 0
    assert transition_counts(np.zeros((0, 5))).sum() == 0
    for bad in (np.full((3, 5), 0.3), np.full((3, 5), np.nan), np.eye(4)):
        with pytest.raises(ValueError, match="probabilities"):
            transition_counts(bad)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (np.zeros((5, 5)), "not enough transitions: 0 of 200"),
        (np.full((5, 5), 4.0), "not enough transitions: 100 of 200"),
        (np.full((5, 5), np.nan), "transition counts must be finite and not negative"),
        (np.full((5, 5), np.inf), "transition counts must be finite and not negative"),
        (np.eye(5) * 400 - 1, "transition counts must be finite and not negative"),
        (np.ones((4, 5)), "transition counts have shape (4, 5), expected (5, 5)"),
        ([], "transition counts have shape (0,), expected (5, 5)"),
        ("many", "transition counts must be numbers"),
    ],
)
def test_refused(counts: object, reason: str) -> None:
    """Too few transitions and counts that are none are refused by name."""
    assert irreversibility(counts) == Refusal(reason)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2000) | st.just(0), min_size=25, max_size=25), st.integers(0, 5))
def test_any_counts(counts: list[int], seed: int) -> None:
    """Any counts give a figure that is not negative, the same every time, or a refusal."""
    n = np.array(counts).reshape(5, 5)
    got = irreversibility(n, seed=seed)
    assert got == irreversibility(n, seed=seed)
    assert isinstance(got, Refusal) == (n.sum() < 200)
    if isinstance(got, Estimate):
        assert 0 <= got.lo <= got.hi
        assert got.value >= 0
