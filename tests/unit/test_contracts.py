"""What every detector and estimator keeps: bounded memory, the same answer every time, no NaN, exact resumption."""

import pickle
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytest

from monitor.baseline import Baseline, BaselineRule
from monitor.buckets import Bucket, Sums, merge
from monitor.detectors import COMPONENTS, EDetector, Increments
from monitor.drift import Trend
from monitor.entropy import Calibration, Quantifier
from monitor.null_set import NullSet
from monitor.state import SeriesState
from monitor.trajectory import Settings, advance
from tests.unit.core_cases import DRIFTED, HEALTHY, answers, calibration, quantifier, sums, traffic


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
    increments = Increments(NullSet.of(Baseline.freeze(0, 1, sums(answers(np.random.default_rng(0), HEALTHY, 300)))))

    def __init__(self) -> None:
        self.state = SeriesState("v")

    def feed(self, seed: int) -> None:
        self.state.detector.update(self.increments.of(observed(seed)), (1 + seed % 3) / 1440)

    def poison(self, bad: float) -> None:
        self.state.detector.update(np.full(COMPONENTS, bad), 1 / 1440)

    def answer(self) -> bytes:
        d = self.state.detector
        return np.array([d.log_evidence, *d.signal_shares]).tobytes()

    def size(self) -> int:
        return len(self.state.pack())

    def resumed(self) -> "Detector":
        other = Detector()
        other.state = SeriesState.unpack(self.state.pack())
        assert isinstance(other.state.detector, EDetector)
        return other


class StandingDetector(Detector):
    """One whose alarm stands: its evidence goes on beside that of the next."""

    def feed(self, seed: int) -> None:
        super().feed(seed)
        if self.state.standing is None:
            self.state.standing = self.state.detector.copy()
        self.state.standing.update(self.increments.of(observed(seed)), 1 / 1440)

    def poison(self, bad: float) -> None:
        assert self.state.standing is not None
        self.state.standing.update(np.full(COMPONENTS, bad), 1 / 1440)

    def answer(self) -> bytes:
        return b"" if self.state.standing is None else self.state.standing.log_wealth.tobytes()

    def resumed(self) -> "StandingDetector":
        other = StandingDetector()
        other.state = SeriesState.unpack(self.state.pack())
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


@pytest.fixture(params=[Detector, StandingDetector, TrendOfS, Quantification])
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


# --- a whole series


def series(seed: int = 5, drift_at: int = 400, minutes: int = 700) -> list[Bucket]:
    rng = np.random.default_rng(seed)
    calm = traffic(rng, range(10_000, 10_000 + drift_at), HEALTHY)
    return [*calm, *traffic(rng, range(10_000 + drift_at, 10_000 + minutes), DRIFTED)]


def followed(buckets: list[Bucket], state: SeriesState | None = None) -> SeriesState:
    state = SeriesState("v") if state is None else state
    rule, settings = BaselineRule.parse("100"), Settings(false_alarm_every_days=30.0)
    for _ in advance(state, [], buckets, quantifier(), rule, settings):
        pass
    return state


def test_state_is_small_and_constant() -> None:
    """Learning, calm, or with an alarm that stands: a series takes less than 16 kB, however long it is followed."""
    stream = series(minutes=1200)
    sizes = [len(followed(stream[:n]).pack()) for n in (20, 300, 600)]
    alarmed = followed(stream)
    sizes.append(len(alarmed.pack()))
    assert alarmed.standing is not None
    assert max(sizes) < 16_000
    assert abs(sizes[-1] - sizes[-2]) < 400


@pytest.mark.parametrize("seed", range(3))
def test_merge_in_any_order(seed: int) -> None:
    """Buckets that came in pieces from several shards, in any order, leave the state of those that came in order."""
    rng = np.random.default_rng(seed)
    pieces = []
    for minute in range(10_000, 10_300):
        turns = [sums(answers(rng, HEALTHY if minute < 10_200 else DRIFTED, 1)) for _ in range(3)]
        pieces.append([Bucket(minute, t) for t in turns])
    in_order = [Bucket(p[0].minute, p[0].sums + p[1].sums + p[2].sums) for p in pieces]
    loose = [b for p in pieces for b in p]
    shuffled = [loose[i] for i in rng.permutation(len(loose))]
    assert followed(merge(shuffled)).pack() == followed(in_order).pack()


@pytest.mark.parametrize("gap", [1, 60, 40 * 1440])
def test_gaps(gap: int) -> None:
    """After silence of a minute, an hour or forty days the evidence is finite, and no alarm comes of the silence."""
    rng = np.random.default_rng(8)
    calm = traffic(rng, range(10_000, 10_400), HEALTHY)
    later = traffic(rng, range(10_400 + gap, 10_500 + gap), HEALTHY)
    state = followed([*calm, *later])
    assert state.alarmed_at is None
    assert np.isfinite(state.detector.log_evidence)


@pytest.mark.parametrize("back", [0.0, -1.0])
def test_clock_that_jumps_back(back: float) -> None:
    """Time that stands still or runs back is refused by detector and trend alike; what was known stays."""
    state = followed(series()[:300])
    before = state.pack()
    with pytest.raises(ValueError, match="stake"):
        state.detector.update(np.zeros(COMPONENTS), back)
    assert state.trend.t is not None
    if back:
        with pytest.raises(ValueError, match="backwards"):
            state.trend.update(state.trend.t + back, 0.3, 0.01)
    assert state.pack() == before


@pytest.mark.parametrize("turns", [1, 100_000])
def test_one_turn_and_a_great_many(turns: int) -> None:
    """A minute of one turn, or of a hundred thousand, leaves finite evidence and a readable state."""
    many = sums(answers(np.random.default_rng(1), HEALTHY, 1))
    state = followed([*series()[:300], Bucket(20_000, Sums(many.values * turns))])
    detector = state.detector if state.standing is None else state.standing
    assert np.isfinite(detector.log_evidence)
    assert SeriesState.unpack(state.pack()).pack() == state.pack()
