"""Verdicts: the rule that is stated in the report's method, and that chance alone finds little."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.decomposition import entropy_parts
from monitor.report import windows
from monitor.report.model import Change, Interval, ReportAlert
from monitor.report.verdict import FALSE_DISCOVERY_RATE, both, chance, discoveries, judge
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from tests.unit.core_cases import DRIFTED, HEALTHY, answers, quantifier, sums

AT = datetime(2026, 11, 11, 10, tzinfo=UTC)


def change(misaligned: float, s: float, *, real: bool, half: float = 0.004) -> Change:
    def about(x: float) -> Interval:
        return Interval(x, x - half, x + half)

    shares = {b: about(0.0) for b in BEHAVIOURS} | {"aligned": about(-misaligned), "deception": about(misaligned)}
    return Change(about(s), about(misaligned), shares, 0.99, 0.99, real)


def alert(rule: str = "value_drift", **times: datetime | None) -> ReportAlert:
    resolved, acknowledged = times.get("resolved"), times.get("acknowledged")
    return ReportAlert("a", "s", rule, "page", AT, resolved, acknowledged, "", "why", [])


def test_verdicts_in_words() -> None:
    """A change for the worse drifts, one for the better improves, one that may be chance or is tiny is stable."""
    assert judge(change(0.05, 0.2, real=True), "", []).verdict == "drifting"
    assert judge(change(-0.05, -0.2, real=True), "", []).verdict == "improved"
    assert judge(change(0.05, 0.2, real=False), "", []).verdict == "stable"
    assert judge(change(0.003, 0.01, real=True, half=0.001), "", []).verdict == "stable"
    assert "too little to matter" in judge(change(0.003, 0.01, real=True, half=0.001), "", []).evidence
    assert judge(None, "12 of the 50 turns.", []).evidence == "12 of the 50 turns."


def test_captured_is_no_improvement() -> None:
    """A model that goes over to one misaligned behaviour wholly has less entropy, and drifts."""
    assert judge(change(0.4, -0.6, real=True), "", []).verdict == "drifting"


def test_an_alert_of_drift_is_drift() -> None:
    """Whatever S does, and with no week before; an alert of an improvement or of another rule is not."""
    assert judge(change(0.0, 0.0, real=False), "", [alert()]).verdict == "drifting"
    assert judge(None, "It has no week before.", [alert()]).verdict == "drifting"
    assert judge(None, "It has no week before.", [alert()]).evidence.endswith("It has no week before.")
    assert judge(change(0.0, 0.0, real=False), "", [alert()], {"a": True}).verdict == "stable"
    assert judge(change(0.0, 0.0, real=False), "", [alert("no_data")]).verdict == "stable"


def test_what_needs_attention_comes_first() -> None:
    """An alert nobody looked at, then one at work, then drift, an improvement, calm, nothing known."""
    rows = [
        judge(change(0.1, 0.2, real=True), "", [alert()]),
        judge(change(0.1, 0.2, real=True), "", [alert(acknowledged=AT + timedelta(minutes=5))]),
        judge(change(0.1, 0.2, real=True), "", []),
        judge(change(-0.1, -0.2, real=True), "", []),
        judge(None, "No turns.", [], vanished=True),
        judge(change(0.01, 0.02, real=False), "", []),
    ]
    assert [r.attention for r in rows] == sorted((r.attention for r in rows), reverse=True)
    assert len({r.attention for r in rows}) == len(rows)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_discoveries_are_the_smallest(chances: list[float]) -> None:
    """Those that stand are the k smallest, each at most k-th of the rate; one at 0 always stands."""
    stands = discoveries(chances)
    k = sum(stands)
    chosen = [p for p, x in zip(chances, stands, strict=True) if x]
    assert sorted(chosen) == sorted(chances)[:k]
    assert all(p <= FALSE_DISCOVERY_RATE * k / len(chances) for p in chosen)
    assert all(x for p, x in zip(chances, stands, strict=True) if p == 0)


def test_chance_alone() -> None:
    """Where nothing changed, a change seems real as seldom as its chance says; where much did, always."""
    p = []
    for seed in range(100):
        rng = np.random.default_rng([seed, 17])
        first, before, now = (sums(answers(rng, HEALTHY, n)) for n in (300, 300, 250))
        _, chances = windows.change(*quantifier().given(first, 0.6).pairs(before, now))
        p.append(both(*chances))
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    assert np.mean(np.array(p) <= 0.5) >= 0.2, "the test is not empty"
    rng = np.random.default_rng(3)
    lens = quantifier().given(sums(answers(rng, HEALTHY, 300)), 0.6)
    found, chances = windows.change(*lens.pairs(sums(answers(rng, HEALTHY, 300)), sums(answers(rng, DRIFTED, 300))))
    assert both(*chances) < 1e-6, "far below what 256 draws can count"
    assert found.probability > 0.999


@pytest.mark.parametrize("draws", [np.zeros(256), np.full(256, 0.3), np.linspace(-1, 1, 256)])
def test_chance_of_odd_draws(draws: np.ndarray) -> None:
    """Draws that are all alike: nothing moved is a coin's toss, all moved alike is sure."""
    expected = {0.0: 0.5, 0.3: 0.0}.get(float(draws.mean().round(6)), 0.5)
    assert chance(draws) == pytest.approx(expected, abs=1e-9)


def test_drivers_add_up() -> None:
    """By behaviour, the parts of S and of the misaligned share add up to the changes that are shown."""
    rng = np.random.default_rng(5)
    lens = quantifier().given(sums(answers(rng, HEALTHY, 300)), 0.6)
    pair = lens.pairs(sums(answers(rng, HEALTHY, 300)), sums(answers(rng, DRIFTED, 200)))
    found, _ = windows.change(*pair)
    terms = windows.drivers(*pair)
    assert [t.name for t in terms] == list(BEHAVIOURS)
    assert sum(t.S.mean for t in terms) == pytest.approx(found.S.mean, abs=1e-12)
    assert sum(t.misaligned.mean for t in terms) == pytest.approx(found.misaligned.mean, abs=1e-12)
    assert terms[ALIGNED].misaligned.mean == 0
    assert entropy_parts(*pair).sum(axis=1).mean() == pytest.approx(found.S.mean, abs=1e-12)
    assert max(terms, key=lambda t: t.S.mean).name in ("aligned", "harmful_compliance")
