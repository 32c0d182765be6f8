"""Head sampling: what is kept, what it weighs, and that shares stay unbiased."""

import doctest
from datetime import UTC, datetime
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streams.sampling
from monitor.buckets import MAX_WEIGHT
from monitor.transcript import Event, Message
from streams.checks import DEFAULT_LIMITS
from streams.sampling import Sampler, is_flagged

IDS = [f"conversation {i}" for i in range(20_000)]
RATES = st.floats(1e-6, 1.0)


def event(conversation: str, sample_rate: float = 1.0, **labels: str) -> Event:
    return Event(
        f"{conversation}/1",
        datetime(2026, 3, 1, tzinfo=UTC),
        "d",
        "m",
        conversation,
        (Message("assistant", "a"),),
        labels=labels or None,
        sample_rate=sample_rate,
    )


@given(st.text(max_size=20), RATES, RATES)
def test_rates_are_nested(conversation: str, one: float, other: float) -> None:
    """What is kept at a low rate is kept at every higher one, and 1 keeps everything."""
    low, high = sorted((one, other))
    given = event(conversation)
    if Sampler(low, "s").keep(given):
        assert Sampler(high, "s").keep(given)
    assert Sampler(1.0, "s").keep(given) == given


def test_a_conversation_is_kept_whole() -> None:
    """Its events share one fate, whatever else they hold."""
    sampler = Sampler(0.5, "s")
    for name in IDS[:200]:
        fates = {sampler.keep(event(name, route=route)) is None for route in "abc"}
        assert len(fates) == 1


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01])
def test_the_share_kept_is_the_rate(rate: float) -> None:
    """Within four standard errors, and every kept event carries it."""
    sampler = Sampler(rate, "s")
    kept = [e for name in IDS if (e := sampler.keep(event(name, 0.5)))]
    assert abs(len(kept) / len(IDS) - rate) < 4 * sqrt(rate * (1 - rate) / len(IDS))
    assert {e.sample_rate for e in kept} == {0.5 * rate}


def test_stages_and_keys_decide_independently() -> None:
    """Half of a half is a quarter; whoever does not know the key cannot tell who is kept."""
    for second in (Sampler(0.5, "serve"), Sampler(0.5, "ship", b"key")):
        first = Sampler(0.5, "ship")
        kept = [e for name in IDS if (half := first.keep(event(name))) and (e := second.keep(half))]
        assert abs(len(kept) / len(IDS) - 0.25) < 4 * sqrt(0.25 * 0.75 / len(IDS))
        assert {e.sample_rate for e in kept} == {0.25}
    again = [e for name in IDS if (half := first.keep(event(name))) and (e := Sampler(0.5, "ship").keep(half))]
    assert len(again) > 0.45 * len(IDS)  # the same stage twice decides the same: why stages must differ


def test_weighted_shares_are_unbiased_with_flagged_events_on_top() -> None:
    """Bad turns are flagged upstream far more often than good ones; their weighted share is still the true one."""

    def traffic(key: bytes) -> float:
        sampler, weights = Sampler(0.2, "s", key), {True: 0.0, False: 0.0}
        for i, name in enumerate(IDS[:4000]):
            bad = i % 20 == 0
            flagged = (bad and i % 40 == 0) or i % 100 == 7
            if e := sampler.keep(event(name, **({"flagged": "true"} if flagged else {}))):
                weights[bad] += 1 / e.sample_rate
        return weights[True] / (weights[True] + weights[False])

    shares = [traffic(bytes([i])) for i in range(60)]
    mean = sum(shares) / len(shares)
    error = sqrt(sum((s - mean) ** 2 for s in shares) / (len(shares) - 1) / len(shares))
    assert abs(mean - 0.05) < 4 * error
    assert error < 0.001  # otherwise the test above could not fail


def test_flagged_events_are_always_kept() -> None:
    """At the weight they came with; another value of the label is no flag."""
    sampler = Sampler(1e-6, "s")
    for labels in ({"flagged": "true"}, {"feedback": "negative"}, {"feedback": "thumbs_down"}):
        given = event("c", 0.25, **labels)
        assert is_flagged(given)
        assert sampler.keep(given) == given
    for labels in ({}, {"flagged": "false"}, {"feedback": "positive"}):
        assert not is_flagged(event("c", **labels))
        assert sampler.keep(event("c", **labels)) is None


@given(st.floats(1 / MAX_WEIGHT, 1.0), RATES)
def test_no_weight_outgrows_the_limit(before: float, rate: float) -> None:
    """A rate too low to be weighed is raised, so what is kept can always be read back."""
    sampler = Sampler(rate, "s")
    for name in IDS[:50]:
        if e := sampler.keep(event(name, before)):
            assert DEFAULT_LIMITS.min_sample_rate <= e.sample_rate <= before


def test_settings_that_cannot_be_used() -> None:
    for rate in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="rate"):
            Sampler(rate, "s")
    for stage in ("", "a stage with a long name"):
        with pytest.raises(ValueError, match="stage"):
            Sampler(0.5, stage)


def test_the_example_in_the_documentation() -> None:
    assert doctest.testmod(streams.sampling) == (0, 2)
