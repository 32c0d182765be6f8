"""The detection benchmark in small: its sums are the shipped detectors', its bars hold, its rivals are themselves."""

import importlib.util

import numpy as np
import pytest

from benchmarks import detection as bench
from monitor.detectors import EDetector, Increments, log_threshold
from monitor.null_set import NullSet
from tests.unit.core_cases import calibration


def test_many_runs_at_once_are_the_shipped_detectors() -> None:
    """The evidence of vectorised runs is that of `EDetector`, turn by turn."""
    rng = np.random.default_rng(1)
    answers = bench.Answers.erring(calibration(), rng)
    healthy = bench.CHANGES[1].before
    sets = [NullSet.of(answers.baseline(rng, healthy, 200)) for _ in range(3)]
    turns = answers.draw(rng, bench.CHANGES[1].after, (3, 120))
    peaks = bench.esr_peaks(sets, answers, turns, np.inf)
    for run, null in enumerate(sets):
        detector, increments, peak = EDetector(), Increments(null), -np.inf
        for t, place in enumerate(turns[run]):
            detector.update(increments.of(bench.Sums(answers.terms[place])), bench.MINUTE)
            peak = max(peak, detector.log_evidence - np.log(bench.MINUTE))
            assert peaks[run, t] == pytest.approx(peak, abs=1e-6)


def test_promise_is_kept_through_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a baseline of 500 turns and a classifier that errs, the mean run length is at least the promised one."""
    monkeypatch.setattr(bench, "RUN_LENGTH", 300)
    out = bench.null(60, 1200, 500, calibration())
    assert out["lower_bound_95"] >= out["promised"] == 300


@pytest.mark.parametrize("change", bench.CHANGES, ids=lambda c: c.name)
def test_every_change_is_found(change: bench.Change) -> None:
    """Each change is found in every run, at a guaranteed run length, within hundreds of turns."""
    rng = np.random.default_rng(2)
    answers, runs = bench.Answers.perfect(), 6
    sets = [NullSet.of(answers.baseline(rng, change.before, 50_000)) for _ in range(runs)]
    turns = bench.stream(change, answers, rng, runs, 0, 4000)
    found = bench.delays(
        bench.esr_peaks(sets, answers, turns, np.log(bench.RUN_LENGTH) + 1), 0, log_threshold(bench.RUN_LENGTH)
    )
    assert found["missed"] == 0
    assert found["median_delay"] <= {"ramp 5 -> 15 %": 2000, "harmful 1 -> 3 %": 1200}.get(change.name, 800)


def test_calibration() -> None:
    """A threshold set by simulation has the run length asked for, as nearly as the runs can tell."""
    rng = np.random.default_rng(3)
    peaks = bench.watched(rng.standard_normal((40, 20_000)), 0)
    threshold = bench.calibrated(peaks, 0)
    assert bench.RUN_LENGTH <= bench.run_length(peaks, 0, threshold) <= 1.2 * bench.RUN_LENGTH
    assert threshold == pytest.approx(3.72, abs=0.15)  # the normal quantile of 1 - 1/10,000


def test_cusum_is_cusum() -> None:
    """Vectorised charts follow Page's recursion."""
    ratios = np.log(np.array([0.9, 1.5, 2.0, 1.0, 1.0]))
    hard = np.random.default_rng(4).integers(0, 5, (2, 50))
    found = bench.cusum(hard, ratios[None, None, :], 0)
    level = 0.0
    for t, k in enumerate(hard[1]):
        level = max(level, 0.0) + ratios[k]
        assert found[1, t] == pytest.approx(level)


@pytest.mark.skipif(importlib.util.find_spec("river") is None, reason="river is an extra")
def test_rivals_fire_as_rivers_do() -> None:
    """Page-Hinkley's statistic passes a threshold in the turn in which river's own detector fires."""
    from river.drift import PageHinkley

    hard = np.concatenate([np.zeros(300, dtype=np.int64), np.full(200, 2)])[None, :]
    statistic = bench.page_hinkley(hard)[0]
    own = PageHinkley(threshold=20.0)
    for t, x in enumerate((hard[0] == 2).tolist()):
        own.update(float(x))
        if own.drift_detected:
            assert t == int((statistic > 20.0).argmax())
            return
    raise AssertionError("river's detector never fired")
