"""What every detector and estimator keeps: bounded memory, the same answer every time, no NaN, exact resumption."""

import pickle
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytest

from monitor.buckets import Sums
from monitor.detectors import EDetector, Increments
from monitor.drift import Trend
from monitor.entropy import Calibration, Quantifier
from monitor.state import SeriesState
from tests.unit.core_cases import HEALTHY, answers, calibration, sums


class Subject(ABC):
    """A detector or estimator behind one face."""

    @abstractmethod
    def feed(self, seed: int) -> None:
        """Take in the observation of this number."""

    @abstractmethod
    def poison(self, bad: float) -> None:
        """Offer something that is no number."""

    @abstractmethod
    def answer(self) -> bytes:
        """What it says now, to the last bit."""

    @abstractmethod
    def size(self) -> int:
        """Bytes it takes to remember."""

    @abstractmethod
    def resumed(self) -> "Subject":
        """The same one, stored and read back."""


def observed(seed: int) -> Sums:
    return sums(answers(np.random.default_rng(seed), HEALTHY, 5))


class Detector(Subject):
    increments = Increments(np.array([0.06, 0.05, 0.05, 0.05, 0.15]))

    def __init__(self) -> None:
        self.state = SeriesState("v")

    def feed(self, seed: int) -> None:
        self.state.detector.update(self.increments.of(observed(seed).level_counts()), (1 + seed % 3) / 1440)

    def poison(self, bad: float) -> None:
        self.state.detector.update(np.full((5, 8), bad), 1 / 1440)

    def answer(self) -> bytes:
        d = self.state.detector
        return np.array([d.log_evidence, *d.feature_shares]).tobytes()

    def size(self) -> int:
        return len(self.state.pack())

    def resumed(self) -> "Detector":
        other = Detector()
        other.state = SeriesState.unpack(self.state.pack())
        assert isinstance(other.state.detector, EDetector)
        return other


class TrendOfS(Subject):
    def __init__(self) -> None:
        self.state = SeriesState("v")
        self.t = 20_000.0

    def feed(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.t += float(rng.exponential(0.3))
        self.state.trend.update(self.t, float(rng.normal(0.4, 0.05)), 0.05**2)

    def poison(self, bad: float) -> None:
        self.state.trend.update(self.t + 1, bad, 0.01)

    def answer(self) -> bytes:
        slope = self.state.trend.slope
        return np.array([slope.value, slope.error]).tobytes()

    def size(self) -> int:
        return len(self.state.pack())

    def resumed(self) -> "TrendOfS":
        other = TrendOfS()
        other.state, other.t = SeriesState.unpack(self.state.pack()), self.t
        assert isinstance(other.state.trend, Trend)
        return other


class Quantification(Subject):
    """Its memory is its calibration: what it says of a window must not depend on the windows before."""

    def __init__(self) -> None:
        self.quantifier = Quantifier(calibration())
        self.last: Any = None

    def feed(self, seed: int) -> None:
        self.last = self.quantifier.estimate(observed(seed))

    def poison(self, bad: float) -> None:
        good = calibration()
        Quantifier(Calibration(good.n, np.full_like(good.mean, bad), good.covariance))

    def answer(self) -> bytes:
        return repr(self.last).encode()

    def size(self) -> int:
        return len(pickle.dumps(self.quantifier))

    def resumed(self) -> "Quantification":
        other = Quantification()
        other.last = self.last
        return other


@pytest.fixture(params=[Detector, TrendOfS, Quantification])
def subject(request: pytest.FixtureRequest) -> type[Subject]:
    kind: type[Subject] = request.param
    return kind


def fed(subject: type[Subject], *numbers: int) -> Subject:
    made = subject()
    for i in numbers:
        made.feed(i)
    return made


def test_bounded_memory(subject: type[Subject]) -> None:
    """After hundreds of observations it remembers no more than after ten."""
    made = fed(subject, *range(10))
    early = made.size()
    for i in range(10, 400):
        made.feed(i)
    assert made.size() <= early + 16


def test_deterministic(subject: type[Subject]) -> None:
    """The same observations give the same answer to the last bit."""
    assert fed(subject, *range(50)).answer() == fed(subject, *range(50)).answer()
    assert fed(subject, *range(50)).answer() != fed(subject, *range(1, 51)).answer()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_no_number(subject: type[Subject], bad: float) -> None:
    """NaN and infinity are refused, and what was known before stays as it was."""
    made = fed(subject, *range(20))
    before = made.answer()
    with pytest.raises(ValueError, match="finite"):
        made.poison(bad)
    assert made.answer() == before


@pytest.mark.parametrize("stop", [0, 1, 7, 39])
def test_resumes(subject: type[Subject], stop: int) -> None:
    """Stored and read back at any time, it goes on as if nothing had happened, bit for bit."""
    whole = fed(subject, *range(40))
    made = fed(subject, *range(stop)).resumed()
    for i in range(stop, 40):
        made.feed(i)
    assert made.answer() == whole.answer()
    assert made.size() == whole.size()


def test_answering_changes_nothing(subject: type[Subject]) -> None:
    """Asking often is the same as asking once."""
    made = fed(subject, *range(5))
    assert made.answer() == made.answer()
    made.feed(5)
    assert made.answer() == fed(subject, *range(6)).answer()
