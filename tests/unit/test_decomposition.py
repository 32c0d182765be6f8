"""Where a change comes from: parts add up exactly, known shifts are recovered, and only what is sure is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.decomposition import (
    MOST_NAMED,
    Decomposition,
    Parts,
    decompose,
    entropy_parts,
    entropy_slopes,
    likely_where,
    share_parts,
)
from monitor.entropy import Interval, Quantifier, entropy
from monitor.label_sums import OTHER, Split
from monitor.taxonomy import ALIGNED, K
from tests.unit.core_cases import DRIFTED, HEALTHY, Floats, answers, quantifier, sums

V = 4
MISALIGNED = [k for k in range(K) if k != ALIGNED]


def simplex(seed: int, shape: tuple[int, ...]) -> Floats:
    """Shares along the last axis, some of them 0 or nearly so."""
    rng = np.random.default_rng([seed, *shape])
    p = rng.dirichlet(np.full(shape[-1], rng.choice([0.05, 0.3, 1.0])), size=shape[:-1])
    p = np.where(p < rng.choice([0.0, 1e-3]), 0.0, p)
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


SEED = st.integers(0, 2**32 - 1)
WINDOW = SEED.map(lambda seed: (simplex(seed, (V,)), simplex(seed, (V, K))))
MIXTURE = SEED.map(lambda seed: simplex(seed, (K,)))
QUICK = settings(max_examples=60, deadline=None)


def total(window: tuple[Floats, Floats]) -> Floats:
    return np.asarray(window[0] @ window[1])


def parts_of(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    return share_parts((a[0], b[0]), (a[1], b[1]))


# --- parts add up


@QUICK
@given(WINDOW, WINDOW, MIXTURE)
def test_parts_are_the_change(a: tuple[Floats, Floats], b: tuple[Floats, Floats], reference: Floats) -> None:
    """Mixture and rate shifts of all values add up to the change of every share, whatever they are compared with."""
    for given_reference in (None, reference):
        mixture, rate = share_parts((a[0], b[0]), (a[1], b[1]), given_reference)
        assert (mixture + rate).sum(axis=0) == pytest.approx(total(b) - total(a), abs=1e-12)


@QUICK
@given(WINDOW, WINDOW)
def test_there_and_back(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> None:
    """The other way round every part is the same with its sign turned."""
    for there, back in zip(parts_of(a, b), parts_of(b, a), strict=True):
        assert there == pytest.approx(-back, abs=1e-14)
    assert entropy_parts(total(a), total(b)).tolist() == (-entropy_parts(total(b), total(a))).tolist()


@QUICK
@given(WINDOW, WINDOW)
def test_nothing_moved(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> None:
    """Where nothing moved there is nothing; where only traffic or only behaviour did, no shift of the other."""
    assert all(not part.any() for part in parts_of(a, a))
    assert not entropy_parts(total(a), total(a)).any()
    assert not parts_of(a, (b[0], a[1]))[1].any()
    assert not parts_of(a, (a[0], b[1]))[0].any()


@QUICK
@given(WINDOW, WINDOW, st.floats(0, 1), st.floats(0, 1))
def test_like_values_may_be_one(a: tuple[Floats, Floats], b: tuple[Floats, Floats], x: float, y: float) -> None:
    """A value that is cut into two of the same behaviour has, in all, the parts it had before."""

    def cut(window: tuple[Floats, Floats], at: float) -> tuple[Floats, Floats]:
        t, p = window
        return np.array([t[0] * at, t[0] * (1 - at), *t[1:]]), np.concatenate([p[:1], p])

    for whole, pieces in zip(parts_of(a, b), parts_of(cut(a, x), cut(b, y)), strict=True):
        assert pieces[:2].sum(axis=0) == pytest.approx(whole[0], abs=1e-12)
        assert pieces[2:] == pytest.approx(whole[1:], abs=1e-12)


@QUICK
@given(MIXTURE, MIXTURE)
def test_entropy_parts_are_the_change(p: Floats, q: Floats) -> None:
    """The parts of the behaviours add up to the change of S; each is that of its own term -p ln p."""
    parts = entropy_parts(p, q)
    assert parts.sum() == pytest.approx(float(entropy(q) - entropy(p)), abs=1e-9)
    terms = [-np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0) for x in (p, q)]
    assert parts == pytest.approx(terms[1] - terms[0], abs=1e-9)


@QUICK
@given(st.floats(1e-9, 1), st.floats(-1e-9, 1e-9))
def test_slope_where_nothing_moves(p: float, by: float) -> None:
    """For a change of next to nothing the slope is the derivative of -p ln p; of what is not there it is 0."""
    there, back = entropy_slopes(np.array([p, 0.0]), np.array([max(p + by * p, 0), 0.0]))
    assert there == pytest.approx(-np.log(p) - 1, abs=1e-6)
    assert back == 0


@QUICK
@given(WINDOW, WINDOW)
def test_entropy_by_value(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> None:
    """Carried over by the slopes, the parts of the values add up to the change of S."""
    slopes = entropy_slopes(total(a), total(b))
    of_s = sum(float((part * slopes).sum()) for part in parts_of(a, b))
    assert of_s == pytest.approx(float(entropy(total(b)) - entropy(total(a))), abs=1e-8)


# --- known shifts are recovered

Mixtures = Sequence[Floats]


def window(rng: np.random.Generator, traffic: Sequence[float], mixtures: Mixtures, turns: int) -> Split:
    """A window of turns by value, judged by a classifier of known confusion."""
    counts = rng.multinomial(turns, traffic)
    return {f"v{v}": sums(answers(rng, p, n)) for v, (p, n) in enumerate(zip(mixtures, counts, strict=True)) if n}


def lens(before: Split) -> Quantifier:
    whole = list(before.values())
    return quantifier().given(sum(whole[1:], whole[0]), 0.6)


WORSE: Floats = np.array([0.70, 0.08, 0.12, 0.06, 0.04])
RISKY: Floats = np.array([0.60, 0.10, 0.20, 0.05, 0.05])
LESS_RISKY: Floats = np.array([0.72, 0.08, 0.12, 0.05, 0.03])
BETTER: Floats = np.array([0.98, 0.01, 0.0, 0.01, 0.0])
SHIFTS: dict[str, tuple[list[float], Mixtures, list[float], Mixtures]] = {
    "rates": ([0.5, 0.3, 0.2], [HEALTHY] * 3, [0.5, 0.3, 0.2], [HEALTHY, HEALTHY, DRIFTED]),
    "traffic": ([0.7, 0.2, 0.1], [HEALTHY, HEALTHY, DRIFTED], [0.4, 0.2, 0.4], [HEALTHY, HEALTHY, DRIFTED]),
    "both": ([0.6, 0.25, 0.15], [HEALTHY, WORSE, RISKY], [0.4, 0.25, 0.35], [WORSE, HEALTHY, LESS_RISKY]),
    "Simpson": ([0.8, 0.2], [HEALTHY, RISKY], [0.3, 0.7], [BETTER, LESS_RISKY]),
    "nothing": ([0.5, 0.3, 0.2], [HEALTHY] * 3, [0.5, 0.3, 0.2], [HEALTHY] * 3),
}


def truths(case: str) -> dict[str, float]:
    """The true parts: of the misaligned mass and of S, in all and of each value."""
    t, p, u, q = (np.array(x) for x in SHIFTS[case])
    mixture, rate = share_parts((t, u), (p, q))
    slopes = entropy_slopes(t @ p, u @ q)
    out = {
        "mixture": -mixture[:, ALIGNED].sum(),
        "rate": -rate[:, ALIGNED].sum(),
        "S mixture": (mixture * slopes).sum(),
        "S rate": (rate * slopes).sum(),
    }
    for v in range(len(t)):
        out |= {f"mixture v{v}": -mixture[v, ALIGNED], f"rate v{v}": -rate[v, ALIGNED]}
    return out


def intervals_of(found: Decomposition) -> dict[str, Interval]:
    out = {
        "mixture": found.misaligned.mixture,
        "rate": found.misaligned.rate,
        "S mixture": found.entropy.mixture,
        "S rate": found.entropy.rate,
    }
    for value in found.values:
        out |= {f"mixture {value.value}": value.misaligned.mixture, f"rate {value.value}": value.misaligned.rate}
    return out


@pytest.mark.parametrize("case", SHIFTS)
def test_known_shifts_are_recovered(case: str) -> None:
    """Of simulated windows of known shifts the 90 % intervals hold the true parts; the trap is named where it is."""
    true, trials = truths(case), 40
    held = dict.fromkeys(true, 0)
    errors: dict[str, list[float]] = {k: [] for k in true}
    trapped = 0
    for seed in range(trials):
        rng = np.random.default_rng([seed, 5])
        t, p, u, q = SHIFTS[case]
        before, after = window(rng, t, p, 1500), window(rng, u, q, 600)
        found = decompose(lens(before), before, after)
        for name, x in intervals_of(found).items():
            held[name] += x.low - 1e-9 <= true[name] <= x.high + 1e-9
            errors[name].append(x.mean - true[name])
        trapped += found.simpson
    assert all(n >= 0.75 * trials for n in held.values()), held
    assert sum(held.values()) >= 0.85 * trials * len(held), held
    assert all(abs(np.mean(e)) < (0.01 if "S" not in name else 0.03) for name, e in errors.items())
    assert trapped >= 0.8 * trials if case == "Simpson" else trapped <= 0.05 * trials


def test_what_is_shown_adds_up() -> None:
    """The figures shown add up: values to the whole, mixture and rate to the change, behaviours to the misaligned."""
    rng = np.random.default_rng(1)
    t, p, u, q = SHIFTS["both"]
    before, after = window(rng, t, p, 900), window(rng, u, q, 400)
    found = decompose(lens(before), before, after)
    assert {v.value for v in found.values} == {"v0", "v1", "v2"}
    assert found == decompose(lens(before), before, after), "the same every time"

    def check(whole: Parts, pieces: Sequence[Parts]) -> None:
        for parts in (whole, *pieces):
            assert parts.mixture.mean + parts.rate.mean == pytest.approx(parts.change.mean, abs=1e-12)
        for name in ("change", "mixture", "rate"):
            assert sum(getattr(x, name).mean for x in pieces) == pytest.approx(getattr(whole, name).mean, abs=1e-12)

    check(found.misaligned, [v.misaligned for v in found.values])
    check(found.misaligned, [found.shares[k] for k in MISALIGNED])
    check(found.entropy, [v.entropy for v in found.values])
    for k in range(K):
        check(found.shares[k], [v.shares[k] for v in found.values])
    for v in found.values:
        check(v.misaligned, [v.shares[k] for k in MISALIGNED])
    assert sum(v.traffic[0] for v in found.values) == pytest.approx(1)


def test_a_window_without_turns() -> None:
    """There is no change to a window without turns."""
    full = {"a": sums(answers(np.random.default_rng(0), HEALTHY, 30))}
    for pair in ((full, {}), ({}, full), ({}, {})):
        with pytest.raises(ValueError, match="no turns"):
            decompose(quantifier(), *pair)
        assert likely_where(quantifier(), {"l": pair[0]}, {"l": pair[1]}, MISALIGNED) == []


# --- likely where


def named(case: tuple[list[float], Mixtures, list[float], Mixtures], turns: tuple[int, int], seed: int) -> list[str]:
    rng = np.random.default_rng([seed, 9])
    t, p, u, q = case
    before, after = window(rng, t, p, turns[0]), window(rng, u, q, turns[1])
    found = likely_where(lens(before), {"route": before}, {"route": after}, MISALIGNED)
    assert len(found) <= MOST_NAMED
    assert all(c.label == "route" and c.share.low <= c.share.mean <= c.share.high for c in found)
    return [str(c.value) for c in found]


def test_the_value_that_drifted_is_named() -> None:
    """Of a drift on one route of three that route is named, with its share of it; so is one that gained traffic."""
    shares = []
    for seed in range(10):
        assert named(SHIFTS["traffic"], (1500, 600), seed) == ["v2"]
        rng = np.random.default_rng([seed, 3])
        t, p, u, q = SHIFTS["rates"]
        before, after = window(rng, t, p, 1500), window(rng, u, q, 600)
        (found,) = likely_where(lens(before), {"route": before}, {"route": after}, MISALIGNED)
        assert found.value == "v2"
        assert found.traffic == pytest.approx((0.2, 0.2), abs=0.05)
        assert found.rate[0] is not None
        assert found.rate[1] is not None
        assert found.rate[0].high < 0.25 < found.rate[1].low
        shares.append(found.share)
    assert np.mean([x.mean for x in shares]) == pytest.approx(1.0, abs=0.1)
    assert sum(x.low <= 1 <= x.high for x in shares) >= 7


def test_a_new_version_is_named() -> None:
    """A prompt version that replaces another and brings the drift carries all of it; the one that left is not named."""
    switch = ([1.0, 0.0], [HEALTHY, DRIFTED], [0.02, 0.98], [HEALTHY, DRIFTED])
    for seed in range(5):
        assert named(switch, (800, 300), seed) == ["v1"]


@pytest.mark.parametrize("values", [2, 8, 30])
def test_what_is_everywhere_is_nowhere(values: int) -> None:
    """A drift on all values alike is not said to come from any, be they many or one nearly all there is."""
    traffic = [0.9] + [0.1 / (values - 1)] * (values - 1) if values == 2 else [1 / values] * values
    everywhere = (traffic, [HEALTHY] * values, traffic, [WORSE] * values)
    wrongly = [named(everywhere, turns, seed) for turns in ((1500, 600), (300, 60)) for seed in range(15)]
    assert sum(map(bool, wrongly)) <= 2


def test_no_change_comes_from_nowhere() -> None:
    """Where nothing surely moved no value is named; nor where a label has but one value, or is in one window only."""
    assert [named(SHIFTS["nothing"], (600, 300), seed) for seed in range(10)].count([]) >= 9
    rng = np.random.default_rng(4)
    one = {"a": sums(answers(rng, HEALTHY, 500))}, {"a": sums(answers(rng, DRIFTED, 200))}
    assert likely_where(quantifier(), {"l": one[0], "m": one[0]}, {"l": one[1]}, MISALIGNED) == []


def test_a_long_tail_is_taken_as_one() -> None:
    """Values with a few turns each are looked at together; a drift in them is told of all of them."""
    rng = np.random.default_rng(5)
    tail = {f"/user/{k}": HEALTHY for k in range(100)}
    before: Split = {
        "/chat": sums(answers(rng, HEALTHY, 500)),
        **{v: sums(answers(rng, p, 5)) for v, p in tail.items()},
    }
    after: Split = {"/chat": sums(answers(rng, HEALTHY, 200)), **{v: sums(answers(rng, DRIFTED, 2)) for v in tail}}
    (found,) = likely_where(lens(before), {"route": before}, {"route": after}, MISALIGNED)
    assert found.value is OTHER
    assert found.share.mean > 0.9
