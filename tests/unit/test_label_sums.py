"""Sums by label value: they add exactly, are bounded whatever comes, and estimate as buckets do."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.buckets import MIXTURE_SIZE, Sums
from monitor.config import Config, load
from monitor.engine import fold_labels, series_of
from monitor.errors import ConfigError
from monitor.label_sums import LONGEST_VALUE, MOST_LABELS, MOST_VALUES, OTHER, LabelSums, as_sums
from monitor.transcript import Event
from tests.store_cases import events, judged
from tests.unit.core_cases import quantifier

QUICK = settings(max_examples=40, deadline=None)
TERMS = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 2**40, MIXTURE_SIZE).tolist()
)
SUMS = st.builds(
    LabelSums,
    TERMS,
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from([OTHER, "x", "y", "z", ""]), TERMS)),
)


def labelled(some: list[Event], **labels: list[str]) -> list[Event]:
    """Each event with the next value of each label; an empty one is left out."""
    return [
        replace(e, labels={k: v[i % len(v)] for k, v in labels.items() if v[i % len(v)]}) for i, e in enumerate(some)
    ]


def folded(some: list[Event], *labels: str) -> LabelSums:
    """Of events of one series and hour, as they are stored."""
    (sums,) = fold_labels(judged(some), range(len(some)), labels).values()
    return LabelSums.zero() + sums


@QUICK
@given(SUMS, SUMS, SUMS)
def test_adding_knows_no_order(a: LabelSums, b: LabelSums, c: LabelSums) -> None:
    """While there is room, sums are the same in any order and grouping."""
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + LabelSums.zero() == a


@QUICK
@given(SUMS)
def test_pack_round_trip(a: LabelSums) -> None:
    """What is stored comes back, in the same order."""
    back = LabelSums.unpack(a.pack())
    assert back == a
    assert [list(of) for of in back.values.values()] == [list(of) for of in a.values.values()]


@QUICK
@given(st.binary(max_size=40))
def test_damaged_bytes(data: bytes) -> None:
    """Bytes that are no such sums are refused in words; a few happen to be."""
    with contextlib.suppress(ValueError):
        assert isinstance(LabelSums.unpack(data), LabelSums)
    with pytest.raises(ValueError, match="damaged label sums"):
        LabelSums.unpack(data + b"\xc1")  # no MessagePack has this byte


def test_an_older_layout_grows() -> None:
    """Sums of a version that kept fewer of them are added to today's, the missing ones as 0."""
    old, new = LabelSums([1, 2], {"a": {"x": [1, 2]}}), LabelSums([1] * MIXTURE_SIZE, {"a": {"x": [5] * MIXTURE_SIZE}})
    for both in (old + new, new + old):
        assert both.total == [2, 3] + [1] * (MIXTURE_SIZE - 2)
        assert both.values["a"]["x"] == [6, 7] + [5] * (MIXTURE_SIZE - 2)


def test_values_estimate_as_their_turns_do() -> None:
    """The sums of a value give the mixture that a bucket of just its turns gives, to the last bit."""
    some = labelled(events(1, 60, series=1, step_seconds=1.0), route=["/chat", "/chat", "/search"])
    truth = judged(some)
    sums = folded(some, "route", "language")
    assert sums.total == truth.terms[:, :MIXTURE_SIZE].sum(axis=0).tolist()
    assert list(sums.values["route"]) == ["/chat", "/search"]
    assert sums.values["language"] == {}, "followed, and no turn had it"
    chat = [i for i, e in enumerate(some) if (e.labels or {})["route"] == "/chat"]
    mine, theirs = as_sums(sums.values["route"]["/chat"]), Sums.of(truth.terms[chat])
    assert mine.values[:MIXTURE_SIZE].tolist() == theirs.values[:MIXTURE_SIZE].tolist()
    assert quantifier().estimate(mine) == quantifier().estimate(theirs)


def test_hours_and_series_are_apart() -> None:
    """Each series has a sum for each hour it had traffic in; a label that splits series is not followed within them."""
    some = labelled(events(1, 40, series=3, step_seconds=600.0), route=["/a", "/b"], tenant=["x", "y"])
    truth = judged(some)
    truth = replace(truth, series=[series_of(e, ("tenant",)) for e in some])
    found = fold_labels(truth, range(len(some)), ("route", "tenant"))
    assert {minute % 60 for _, minute in found} == {0}
    assert {(s, m // 60) for s, m in found} == {(s, m // 60) for s, m in zip(truth.series, truth.minutes, strict=True)}
    assert {tuple(sums.values) for sums in found.values()} == {("route",)}
    assert sum(sums.n for sums in found.values()) == 40
    assert fold_labels(truth, range(len(some)), ()) == fold_labels(truth, range(len(some)), ("tenant",)) == {}


@QUICK
@example([*range(50), *range(50, 110), 0, 0], 50)
@given(st.lists(st.integers(0, 120), min_size=1, max_size=300), st.integers(1, 299))
def test_a_million_values_are_fifty(values: list[int], cut: int) -> None:
    """However many values come, an hour names 50 and adds the others up; how it is cut into chunks changes nothing."""
    some = labelled(events(1, len(values), series=1, step_seconds=0.1), route=[f"/{v}" for v in values])
    whole = folded(some, "route")
    of = whole.values["route"]
    named = list(dict.fromkeys(f"/{v}" for v in values))[:MOST_VALUES]
    assert [v for v in of if v is not OTHER] == named
    assert np.sum(list(of.values()), axis=0).tolist() == whole.total
    if cut < len(some):
        first, then = (fold_labels(judged(x), range(len(x)), ("route",)) for x in (some[:cut], some[cut:]))
        (own, more) = (sums for found in (first, then) for sums in found.values())
        assert LabelSums.zero() + own + more == whole


@pytest.mark.parametrize("hostile", ["x" * 200, "é" * 200, "\ud800half", "<script>\x1b[31m\x00", "=1+1", "😀" * 120])
def test_hostile_values(hostile: str) -> None:
    """A value of any text is kept as a bounded piece of text that can be stored, and told apart from others."""
    sums = folded(labelled(events(1, 4, series=1, step_seconds=1.0), route=[hostile, "/a"]), "route")
    kept, other = sums.values["route"]
    assert kept is not None
    assert len(kept) <= LONGEST_VALUE
    assert other == "/a"
    assert kept == hostile or kept[:30] == hostile.encode("utf-8", "replace").decode()[:30]
    assert LabelSums.unpack(sums.pack()) == sums


def test_which_labels() -> None:
    """Without settings well-known labels are followed; a list of one's own replaces them, an empty one follows none."""
    assert {"prompt_version", "route", "language"} <= set(Config().labels())
    assert len(Config().labels()) <= MOST_LABELS
    assert load(None, {"VALUEDRIFT_MONITOR_LABELS": "team,route,team"}).labels() == ("team", "route")
    assert load(None, {"VALUEDRIFT_MONITOR_LABELS": ""}).labels() == ()
    with pytest.raises(ConfigError, match="may name 8 labels"):
        load(None, {"VALUEDRIFT_MONITOR_LABELS": ",".join("abcdefghi")}).labels()
