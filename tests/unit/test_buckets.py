"""Bucket sums: exact in any order, stored and read back without loss."""

import random
from functools import reduce
from operator import add

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monitor.buckets import (
    FEATURES,
    HEALTHY_ODDS,
    LEVELS,
    MAX_WEIGHT,
    Q_UNIT,
    SIZE,
    Bucket,
    Floats,
    Sums,
    merge,
    to_fixed_point,
    turn_terms,
)
from monitor.taxonomy import BEHAVIOURS, K
from tests.unit.core_cases import HEALTHY, answers, corner, sums

DOCUMENTED_TURNS = 2**24
"""What the docstring of MAX_WEIGHT promises to fit a bucket."""

CORNERS = st.sampled_from([np.eye(K)[k] for k in range(K)])
RAW = hnp.arrays(np.float64, (K,), elements=st.floats(0, 1)).filter(lambda p: p.sum() > 1e-3).map(lambda p: p / p.sum())
ROWS = st.lists(CORNERS | RAW, min_size=1, max_size=12).map(np.array)


@st.composite
def turns(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    """Probabilities, weights and doubts of a few turns."""
    q = draw(ROWS)
    weights = st.floats(1 / 8, MAX_WEIGHT) | st.just(1.0) | st.just(MAX_WEIGHT)
    return (
        q,
        np.array(draw(st.lists(weights, min_size=len(q), max_size=len(q)))),
        np.array(draw(st.lists(st.floats(0, 1), min_size=len(q), max_size=len(q)))),
    )


@given(ROWS)
def test_fixed_point_rows(p: Floats) -> None:
    """Rounded probabilities still sum to exactly 1, and each is within 1/4096 of what the classifier said."""
    q = to_fixed_point(p)
    assert (q.sum(axis=1) == Q_UNIT).all()
    assert (q >= 0).all()
    assert (np.abs(q - p * Q_UNIT) <= 1).all()


@given(RAW, st.floats(-9e-7, 9e-7))
def test_fixed_point_slack(p: Floats, slack: float) -> None:
    """A row that sums to 1 up to the float error of a classifier is made to sum to exactly 1."""
    assert to_fixed_point(p[None, :] * (1 + slack)).sum() == Q_UNIT


@given(ROWS)
def test_fixed_point_is_stable(p: Floats) -> None:
    """What has been rounded once is not moved by rounding it again."""
    q = to_fixed_point(p)
    assert (to_fixed_point(q / Q_UNIT) == q).all()


@pytest.mark.parametrize(
    "bad",
    [
        [[np.nan, 0, 0, 0, 1]],
        [[np.inf, 0, 0, 0, 0]],
        [[-0.1, 1.1, 0, 0, 0]],
        [[0.5, 0, 0, 0, 0]],
        [[0.3, 0.3, 0.3, 0.3, 0.3]],
        [[1.0, 0, 0, 0]],
        [1.0, 0, 0, 0, 0],
    ],
)
def test_fixed_point_refuses(bad: list[float]) -> None:
    """What is not a probability vector of the five behaviours never reaches a bucket."""
    with pytest.raises(ValueError, match=r"simplex|shape"):
        to_fixed_point(np.array(bad))


@pytest.mark.parametrize("weight", [0.0, -1.0, 1025.0, np.inf, np.nan])
def test_weights_refused(weight: float) -> None:
    """A turn whose weight lies outside (0, 1024], or is NaN, is refused and not counted as something else."""
    with pytest.raises(ValueError, match="weights lie in"):
        turn_terms(to_fixed_point(HEALTHY[None, :]), np.array([weight]), np.array([0.1]))


@pytest.mark.parametrize("doubt", [np.nan, np.inf])
def test_doubt_refused(doubt: float) -> None:
    """A doubt that is no number is refused: added as an integer it would ruin the mean doubt of its bucket."""
    with pytest.raises(ValueError, match="doubt"):
        turn_terms(to_fixed_point(HEALTHY[None, :]), np.array([1.0]), np.array([doubt]))


@given(turns(), st.randoms(use_true_random=False))
def test_any_order_and_grouping(t: tuple[Floats, Floats, Floats], rng: random.Random) -> None:
    """However turns are shared out over workers and merged, the bucket is the same to the last bit."""
    terms = turn_terms(to_fixed_point(t[0]), t[1], t[2])
    one_by_one = reduce(add, (Sums.of(row[None, :]) for row in terms), Sums.zero())
    order = list(range(len(terms)))
    rng.shuffle(order)
    groups: list[list[int]] = [[] for _ in range(rng.randint(1, 4))]
    for i in order:
        rng.choice(groups).append(i)
    parts = [Sums.of(terms[g]) for g in groups if g]
    while len(parts) > 1:
        a, b = parts.pop(rng.randrange(len(parts))), parts.pop(rng.randrange(len(parts)))
        parts.append(a + b)
    assert parts[0].values.tolist() == one_by_one.values.tolist() == Sums.of(terms).values.tolist()


@given(turns())
def test_batching_changes_nothing(t: tuple[Floats, Floats, Floats]) -> None:
    """A turn adds the same whether it is judged alone or in a batch."""
    q, weights, doubt = t
    together = turn_terms(to_fixed_point(q), weights, doubt)
    for i in range(len(q)):
        alone = turn_terms(to_fixed_point(q[i : i + 1]), weights[i : i + 1], doubt[i : i + 1])
        assert (alone[0] == together[i]).all()


@given(turns(), turns())
def test_subtraction_undoes_addition(a: tuple[Floats, Floats, Floats], b: tuple[Floats, Floats, Floats]) -> None:
    """A bucket that leaves a sliding window leaves no trace in it."""
    x, y = (Sums.of(turn_terms(to_fixed_point(t[0]), t[1], t[2])) for t in (a, b))
    assert ((x + y - y).values == x.values).all()


@given(turns())
def test_what_the_sums_say(t: tuple[Floats, Floats, Floats]) -> None:
    """Turn count, weights, mean, doubt and counts agree with the same figures worked out turn by turn."""
    q, weights, doubt = t
    s = Sums.of(turn_terms(to_fixed_point(q), weights, doubt))
    rounded = np.rint(weights * 8) / 8
    assert s.n == len(q)
    assert s.weight == pytest.approx(rounded.sum())
    assert s.effective_n == pytest.approx(rounded.sum() ** 2 / (rounded**2).sum())
    assert 1 - 1e-9 <= s.effective_n <= s.n + 1e-9
    assert s.mean_doubt == pytest.approx(doubt.mean(), abs=1 / Q_UNIT)
    assert s.mean() == pytest.approx((rounded[:, None] * q).sum(axis=0) / rounded.sum(), abs=2 / Q_UNIT)
    assert s.mean().sum() == pytest.approx(1, abs=1e-12)
    assert s.hard_counts().sum() == len(q)
    assert (s.level_counts().sum(axis=1) == len(q)).all()


@given(ROWS)
def test_levels_are_nearest(p: Floats) -> None:
    """Detectors see each feature at the level nearest to it, `misaligned` being all that is not aligned.

    The probabilities are those under a prior in which aligned is HEALTHY_ODDS times likelier.
    """
    q = to_fixed_point(p) / Q_UNIT * np.array([HEALTHY_ODDS, 1, 1, 1, 1])
    q /= q.sum(axis=1, keepdims=True)
    features = np.column_stack([q[:, 1:], 1 - q[:, 0]])
    for row, feature in zip(turn_terms(to_fixed_point(p), np.ones(len(p)), np.zeros(len(p))), features, strict=True):
        seen = LEVELS[Sums(row).level_counts().argmax(axis=1)]
        assert np.abs(seen - feature) == pytest.approx(np.abs(LEVELS - feature[:, None]).min(axis=1), abs=1e-12)
    assert (*BEHAVIOURS[1:], "misaligned") == FEATURES


def test_no_turns() -> None:
    """An empty window has no mean, and says so instead of returning NaN."""
    zero = Sums.zero()
    assert (zero.n, zero.weight, zero.effective_n, zero.mean_doubt) == (0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no turns"):
        zero.mean()


def many(s: Sums, doublings: int) -> Sums:
    """2^doublings copies of s."""
    for _ in range(doublings):
        s = s + s
    return s


@pytest.mark.parametrize("k", range(K))
def test_heavy_minute(k: int) -> None:
    """Sixteen million turns of the largest weight in one bucket overflow nothing."""
    one = sums(np.eye(K)[[k]], np.array([MAX_WEIGHT]))
    s = many(one, 24)
    assert s.values.tolist() == [v << 24 for v in one.values.tolist()]
    assert s.mean() == pytest.approx(np.eye(K)[k])
    assert s.effective_n == pytest.approx(1 << 24)
    assert np.isfinite(s.mean_covariance(np.eye(K) * 0.01, 10.0)).all()


def test_documented_capacity() -> None:
    """As many turns of the largest weight fit a bucket as its documentation promises."""
    one = sums(np.eye(K)[[0]], np.array([MAX_WEIGHT]))
    assert max(one.values.tolist()) * DOCUMENTED_TURNS < 2**63


def test_covariance_of_the_mean() -> None:
    """The error of a window's mean is that of an average of its turns, and with unequal weights of a weighted one."""
    rng = np.random.default_rng(1)
    q = answers(rng, HEALTHY, 2000)
    weights = rng.choice([1.0, 2.0, 8.0], size=2000)
    direct = np.cov(q.T, aweights=weights, ddof=0) * (weights**2).sum() / weights.sum() ** 2
    # with unequal weights the scatter is weighted by w^2, which estimates the same thing with another noise
    assert sums(q, weights).mean_covariance(np.zeros((K, K)), 0.0) == pytest.approx(direct, abs=2e-5)
    equal = sums(q).mean_covariance(np.zeros((K, K)), 0.0)
    assert equal == pytest.approx(np.cov(q.T, ddof=0) / 2000, abs=1e-7)


def test_few_equal_turns_are_not_certain() -> None:
    """Five turns judged alike are not taken for a window without error: the prior spread stays."""
    prior = np.eye(K) * 0.05
    covariance = corner(0, 5).mean_covariance(prior, 10.0)
    assert covariance == pytest.approx(prior * 10 / 15 / 5)


@given(turns())
def test_pack_round_trip(t: tuple[Floats, Floats, Floats]) -> None:
    """A bucket read back from the store is the bucket that was written."""
    s = Sums.of(turn_terms(to_fixed_point(t[0]), t[1], t[2]))
    back = Sums.unpack(s.pack())
    assert (back.values == s.values).all()
    assert back.values.dtype == np.int64


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=SIZE))
def test_older_layout(values: list[int]) -> None:
    """A bucket of an older version, with fewer sums, is read with zeros for what it did not know."""
    got = Sums.unpack(msgspec.msgpack.encode(values)).values.tolist()
    assert got == values + [0] * (SIZE - len(values))


def test_newer_layout() -> None:
    """A bucket of a newer version is refused, not cut short."""
    with pytest.raises(ValueError, match="newer layout"):
        Sums.unpack(msgspec.msgpack.encode([0] * (SIZE + 1)))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"not a bucket", msgspec.msgpack.encode({"n": 1}), corner(0, 3).pack()[:-1]]
)
def test_damaged_bytes(data: bytes) -> None:
    """Damaged bytes in the store are named as such."""
    with pytest.raises(ValueError, match="damaged bucket"):
        Sums.unpack(data)


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_damaged_number(value: int) -> None:
    """A sum that no 64-bit count can be is a damaged bucket too."""
    with pytest.raises(ValueError, match="damaged bucket"):
        Sums.unpack(msgspec.msgpack.encode([value]))


def test_pack_is_small() -> None:
    """An ordinary minute takes little room in the store."""
    assert len(sums(answers(np.random.default_rng(2), HEALTHY, 3)).pack()) < 350


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, K - 1)), max_size=20), st.randoms(use_true_random=False))
def test_merge(pieces: list[tuple[int, int]], rng: random.Random) -> None:
    """Buckets of several workers, arriving in any order, become one a minute in time order."""
    shuffled = rng.sample(pieces, len(pieces))
    merged = merge(Bucket(m, corner(k, 1)) for m, k in shuffled)
    assert [b.minute for b in merged] == sorted({m for m, _ in pieces})
    for b in merged:
        assert b.sums.hard_counts().tolist() == [pieces.count((b.minute, k)) for k in range(K)]
