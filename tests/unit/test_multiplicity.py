"""The page budget: few false pages however many series there are, and none lost when many drift at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.multiplicity import log_page_thresholds, paging


def wealth(rng: np.random.Generator, series: int, days: int, drifted: int = 0, shared: bool = False) -> np.ndarray:
    """(days, series) wealth of e-detectors that bet on coins a hundred times a day; the first `drifted` have changed.

    Where `shared`, all unchanged series see the same coins: as dependent as can be.
    """
    out = np.zeros((days, series))
    m = np.zeros(series)
    for day in range(days):
        for _ in range(20):
            x = rng.random(1 if shared else series) < 0.1
            x = np.broadcast_to(x, series).copy()
            x[:drifted] = rng.random(drifted) < 0.4
            m = (m + 1 / 20) * (1 + 2.0 * (x - 0.1))
        out[day] = m
    return out


def test_one_series_is_its_own_fleet() -> None:
    """With one series an alarm at the promise of one page in as many days pages at once."""
    assert paging([math.log(90.0)], 1, 90.0) == [True]
    assert paging([math.log(89.9)], 1, 90.0) == [False]
    assert paging([], 500, 90.0) == []


@pytest.mark.parametrize("shared", [False, True])
def test_first_false_page(shared: bool) -> None:
    """Where nothing has changed, the first page of a whole fleet comes no sooner, on average, than promised."""
    rng = np.random.default_rng(1)
    every, most = 5.0, 25
    first = []
    for _ in range(120):
        days = wealth(rng, 40, most, shared=shared)
        paged = [any(paging(np.log(day).tolist(), 40, every)) for day in days]
        first.append(1 + paged.index(True) if any(paged) else most)
    assert np.mean(first) - 2.33 * np.std(first, ddof=1) / np.sqrt(len(first)) >= every
    assert min(first) < most, "a test in which no page is possible shows nothing"


@pytest.mark.parametrize("shared", [False, True])
def test_share_of_false_pages(shared: bool) -> None:
    """Ten days after ten of forty series drifted, at most a tenth of the pages is false (budget: 100 days)."""
    rng = np.random.default_rng(2)
    false, found = [], []
    for _ in range(100):
        last = wealth(rng, 40, 10, drifted=10, shared=shared)[-1]
        pages = paging(np.log(np.maximum(last, 1e-300)).tolist(), 40, 100.0)
        false.append(sum(pages[10:]) / max(1, sum(pages)))
        found.append(sum(pages[:10]))
    assert np.mean(false) <= 0.1
    assert np.mean(found) >= 9.9, "those that drifted are paged"


def test_an_alone_budget_would_page_all_day() -> None:
    """Series judged each by itself at the same promise raise many times as many false alarms."""
    rng = np.random.default_rng(3)
    last = wealth(rng, 500, 20)
    alone = (np.maximum.accumulate(last) >= 5.0)[-1].sum()
    paged = {i for day in last for i, p in enumerate(paging(np.log(day).tolist(), 500, 5.0)) if p}
    assert alone > 100
    assert len(paged) < alone / 10


def test_many_need_less_each() -> None:
    """What one series of 500 needs alone to page is 500 times what each needs when all drift at once."""
    needed = log_page_thresholds(500, 30.0)
    assert math.exp(needed[0]) == pytest.approx(15_000)
    assert math.exp(needed[-1]) == pytest.approx(30)
    weak = math.log(90.0)
    assert sum(paging([weak] * 10, 500, 30.0)) == 0
    assert sum(paging([weak] * 400, 500, 30.0)) == 400


evidence = st.floats(-1e6, 1e6) | st.just(-math.inf) | st.just(math.inf)


@given(st.lists(evidence, max_size=30), st.integers(0, 100), st.floats(0.1, 1000))
def test_more_evidence_never_unpages(found: list[float], others: int, every: float) -> None:
    """The pages are those of most evidence; more evidence for one alert silences no other; more series page no more."""
    n = max(1, len(found) + others)
    pages = paging(found, n, every)
    if any(pages) and not all(pages):
        paged = min(e for e, p in zip(found, pages, strict=True) if p)
        assert paged >= max(e for e, p in zip(found, pages, strict=True) if not p)
    for i in range(len(found)):
        more = paging([e + 5.0 if j == i else e for j, e in enumerate(found)], n, every)
        assert all(m for m, p in zip(more, pages, strict=True) if p)
    assert all(p for p, q in zip(pages, paging(found, n + 1, every), strict=True) if q)


@given(st.permutations([math.log(x) for x in (1, 50, 400, 3000, 90_000)]))
def test_order_does_not_matter(found: list[float]) -> None:
    """Alerts in any order page alike."""
    pages = dict(zip(found, paging(found, 20, 30.0), strict=True))
    assert [pages[e] for e in sorted(found)] == [False, False, True, True, True]


def test_refusals() -> None:
    """Evidence that is no number, more alerts than series, and budgets that are none are refused."""
    with pytest.raises(ValueError, match="NaN"):
        paging([math.nan], 1, 30.0)
    with pytest.raises(ValueError, match="2 alerts of 1 series"):
        paging([0.0, 0.0], 1, 30.0)
    for every in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="page_every"):
            paging([0.0], 1, every)
