"""What every detector and estimator keeps: bounded memory, the same answer every time, no NaN, exact resumption."""

import copy
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.baseline import BaselineRule
from monitor.buckets import MAX_WEIGHT, SIZE, Bucket, Sums, merge, to_fixed_point, turn_terms
from monitor.detectors import COMPONENTS, EDetector
from monitor.estimates import Refusal
from monitor.state import SeriesState
from monitor.trajectory import Alarm, Learned, Outcome, Point, Settings, advance
from tests.unit.contract_cases import (
    BASELINE,
    FIGURES,
    INCREMENTS,
    SUBJECTS,
    Figure,
    Subject,
    discovered,
    estimates_in,
)
from tests.unit.core_cases import DRIFTED, HEALTHY, Floats, answers, quantifier, sums, traffic

LARGEST_STATE = 16_000
"""Bytes of a series, whatever its traffic."""
MINUTE, HOUR, DAY = 1, 60, 1440


def test_every_detector_and_estimator_is_here() -> None:
    """What looks like a detector or an estimator and has no contract fails this test: enter it in contract_cases."""
    entered = {subject.of for subject in SUBJECTS} | {figure.of for figure in FIGURES}
    assert discovered() == entered


# --- what remembers


@pytest.fixture(params=SUBJECTS, ids=lambda s: s.__name__)
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


# --- what is computed at once


@pytest.fixture(params=FIGURES, ids=lambda f: f.of)
def figure(request: pytest.FixtureRequest) -> Figure:
    found: Figure = request.param
    return found


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(flat(a), flat(b), strict=True))


def flat(answer: Any) -> list[Any]:
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return [x for f in dataclasses.fields(answer) for x in flat(getattr(answer, f.name))]
    return [x for part in answer for x in flat(part)] if isinstance(answer, list | tuple) else [answer]


def test_same_answer_every_time(figure: Figure) -> None:
    """The same input gives the same answer to the last bit, whatever random numbers it draws; another gives another."""
    assert same(figure.call(1), figure.call(1))
    np.random.seed(5)  # noqa: NPY002  a global state that nothing may read
    assert same(figure.call(1), figure.call(1))
    assert not same(figure.call(1), figure.call(2)) or figure.of.endswith(("locate_onset", "onset_of"))


def test_good_input_has_an_answer(figure: Figure) -> None:
    """Ordinary input is not refused: a contract that only refuses would be kept by anything."""
    parts = estimates_in(figure.call(1))
    assert not any(isinstance(p, Refusal) for p in parts)


def answer_of(call: Callable[[], Any]) -> Any:
    """What it answers, or the words in which it refuses."""
    try:
        return call()
    except ValueError as refused:
        return Refusal(str(refused))


ODD = [pytest.param(f, name, id=f"{f.of.removeprefix('monitor.')}: {name}") for f in FIGURES for name in f.odd]


@pytest.mark.parametrize(("figure", "name"), ODD)
def test_odd_input(figure: Figure, name: str) -> None:
    """Odd input has finite figures or is refused with a reason; it never leads to a NaN or a warning."""
    parts = flat(answer_of(figure.odd[name]))
    assert "" not in [p for p in parts if isinstance(p, str)], "a refusal says why"
    assert all(np.isfinite(p).all() for p in parts if isinstance(p, float | np.ndarray))


@pytest.mark.parametrize("figure", [f for f in FIGURES if f.few], ids=lambda f: f.of)
def test_too_little_is_refused_by_number(figure: Figure) -> None:
    """Too little input is refused by how much there is and how much it takes, such as "not enough turns: 12 of 50"."""
    assert figure.few is not None
    call, said = figure.few
    reasons = [p.reason for p in estimates_in(answer_of(call)) if isinstance(p, Refusal)]
    assert any(re.search(said, reason) for reason in reasons), reasons


# --- a whole series


def series(seed: int = 5, drift_at: int = 400, minutes: int = 700) -> list[Bucket]:
    rng = np.random.default_rng(seed)
    calm = traffic(rng, range(10_000, 10_000 + drift_at), HEALTHY)
    return [*calm, *traffic(rng, range(10_000 + drift_at, 10_000 + minutes), DRIFTED)]


RULE, SETTINGS = BaselineRule.parse("100"), Settings(false_alarm_every_days=30.0)


def outcomes(buckets: list[Bucket], state: SeriesState) -> list[Outcome]:
    return list(advance(state, [], buckets, quantifier(), RULE, SETTINGS))


def followed(buckets: list[Bucket], state: SeriesState | None = None) -> SeriesState:
    state = SeriesState("v") if state is None else state
    outcomes(buckets, state)
    return state


def test_state_is_small_and_constant() -> None:
    """Learning, calm, or with an alarm that stands: a series takes less than 16 kB, however long it is followed."""
    stream = series(minutes=1200)
    sizes = [len(followed(stream[:n]).pack()) for n in (20, 300, 600)]
    alarmed = followed(stream)
    sizes.append(len(alarmed.pack()))
    assert alarmed.standing is not None
    assert max(sizes) < LARGEST_STATE
    assert abs(sizes[-1] - sizes[-2]) < 400


def test_the_largest_state() -> None:
    """Were every sum as large as it can be and every text as long, a series would still take less than 16 kB."""
    full = Sums(np.full(SIZE, np.iinfo(np.int64).max))
    state = followed(series(minutes=1200))
    assert state.baseline is not None
    state.baseline = dataclasses.replace(state.baseline, sums=full)
    state.learning = state.cell = state.earlier = full
    state.detector = EDetector(np.full(COMPONENTS, np.pi))
    state.standing = state.detector.copy()
    state.rule = state.relearn_reason = "\N{BLACK SUN WITH RAYS}" * 500
    assert len(state.pack()) < LARGEST_STATE


TURNS = answers(np.random.default_rng(9), DRIFTED, 360)
"""Two hours of three turns a minute."""


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_merge_in_any_order(random: Any, shards: int) -> None:
    """Turns dealt to shards at random and merged in any order leave the state of those that came in order."""
    parts: dict[tuple[int, int], list[int]] = {}
    for i in range(len(TURNS)):
        parts.setdefault((10_000 + i // 3, random.randrange(shards)), []).append(i)
    loose = [Bucket(minute, sums(TURNS[i])) for (minute, _), i in parts.items()]
    random.shuffle(loose)
    in_order = [Bucket(10_000 + m, sums(TURNS[3 * m : 3 * m + 3])) for m in range(len(TURNS) // 3)]
    merged = merge(loose)
    state, expected = SeriesState("v"), SeriesState("v")
    assert [repr(o) for o in outcomes(merged, state)] == [repr(o) for o in outcomes(in_order, expected)]
    assert state.pack() == expected.pack()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(TURNS) - 1), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_estimates_do_not_depend_on_order(chosen: list[int], random: Any) -> None:
    """A window's figures are those of its turns, in whatever order and pieces they were added up."""
    whole = quantifier().estimate(sums(TURNS[chosen]))
    random.shuffle(chosen)
    cut = random.randint(0, len(chosen))
    pieces = [sums(TURNS[part]) if part else Sums.zero() for part in (chosen[:cut], chosen[cut:])]
    assert quantifier().estimate(pieces[1] + pieces[0]) == whole


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 50, 5_000, 16_667]), st.sampled_from([1, 7, HOUR, DAY])), max_size=40))
def test_any_traffic(minutes: list[tuple[int, int]]) -> None:
    """Whatever the number of turns and the gaps between them: finite points, a small state that is read back."""
    rng = np.random.default_rng(0)
    stream, at = [], 10_000
    for turns, gap in minutes:
        at += gap
        stream.append(Bucket(at, Sums(sums(answers(rng, HEALTHY, min(turns, 50))).values * max(1, turns // 50))))
    state = SeriesState("v")
    for o in outcomes(stream, state):
        if isinstance(o, Point):
            figures = [o.mixture.entropy, *o.mixture.shares, o.mixture.misaligned]
            assert np.isfinite([x for f in figures for x in (f.low, f.mean, f.high)]).all()
            assert np.isfinite([o.slope.value, o.slope.error, o.evidence, o.kl or 0.0]).all()
    data = state.pack()
    assert len(data) < LARGEST_STATE
    assert SeriesState.unpack(data).pack() == data


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


def test_buckets_that_run_backwards() -> None:
    """A bucket of before what was taken in is refused by its minute, while learning and after; nothing is changed."""
    for n in (5, 300):
        stream = series()[:n]
        state = followed(stream)
        before = state.pack()
        with pytest.raises(ValueError, match=rf"minute {stream[0].minute} .* {state.next_minute}"):
            outcomes([stream[0]], state)
        assert state.pack() == before


def test_late_turns_are_seen_by_windows_only() -> None:
    """After a clock jumped back, what was counted into minutes past is in the next windows, and no detector rewinds."""
    stream = series(drift_at=700)[:390]
    late = [Bucket(b.minute, b.sums + b.sums) for b in stream]
    fresh = traffic(np.random.default_rng(1), range(10_390, 10_450), HEALTHY)
    seen = []
    for recent in (stream, late):
        state = followed(stream)
        found = list(advance(state, recent, fresh, quantifier(), RULE, SETTINGS))
        day = next(o for o in found if isinstance(o, Point) and o.window_minutes == DAY)
        seen.append((day.mixture.n, state.detector.log_evidence))
    (n, evidence), (more, same_evidence) = seen
    assert more == n + sum(b.sums.n for b in stream)
    assert same_evidence == evidence


def test_one_turn_a_day() -> None:
    """A turn a day: a baseline after as many days as it takes turns, no pretended window, no alarm of calm."""
    rng = np.random.default_rng(2)
    state = SeriesState("v")
    found = outcomes(traffic(rng, range(10_000, 10_000 + 250 * DAY, DAY), HEALTHY, turns=1), state)
    assert [type(o) for o in found if not isinstance(o, Point)] == [Learned]
    assert all(o.mixture.n >= SETTINGS.min_window_turns for o in found if isinstance(o, Point))
    assert state.alarmed_at is None


def test_a_million_an_hour() -> None:
    """A million turns in an hour: narrow intervals, no alarm of calm, and the drift's within its minute."""
    rng = np.random.default_rng(3)
    calm = [Bucket(10_000 + i, sums(answers(rng, HEALTHY, 16_667))) for i in range(60)]
    state = SeriesState("v")
    found = outcomes(calm, state)
    assert not [o for o in found if isinstance(o, Alarm)]
    last = [o for o in found if isinstance(o, Point)][-1].mixture
    assert last.n == 60 * 16_667
    assert last.entropy_sd < 0.01
    drifted = Bucket(10_060, sums(answers(rng, DRIFTED, 16_667)))
    (alarm,) = [o for o in outcomes([drifted], state) if isinstance(o, Alarm)]
    assert np.isfinite(alarm.evidence)


@pytest.mark.parametrize("weight", [1 / 1024, 1.0, 1000.0, MAX_WEIGHT])
def test_a_single_turn_of_any_weight(weight: float) -> None:
    """A window of one turn, however much it weighs, is known to be one turn: its interval says next to nothing."""
    q: Floats = np.array([[0.9, 0.05, 0.02, 0.02, 0.01]])
    mixture = quantifier().estimate(sums(q, np.array([weight])))
    assert mixture.effective_n == pytest.approx(1.0)
    assert mixture.entropy.high - mixture.entropy.low > 0.5


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf, 2000.0])
def test_weights_that_are_none(weight: float) -> None:
    """A turn of no weight, or of one that is no number, is refused where it would be counted."""
    with pytest.raises(ValueError, match="weights lie in"):
        turn_terms(to_fixed_point(HEALTHY[None]), np.array([weight]), np.zeros(1))


@pytest.mark.parametrize("q", [[np.nan] * 5, [1.1, -0.1, 0, 0, 0], [0.5, 0, 0, 0, 0], [np.inf, 0, 0, 0, 0]])
def test_judgements_off_the_simplex(q: list[float]) -> None:
    """Probabilities that are no probabilities never reach a bucket."""
    with pytest.raises(ValueError, match="simplex"):
        to_fixed_point(np.array([q]))


def test_windows_of_nothing() -> None:
    """A window without turns has no shares; it is refused, by estimate, mean and onset alike."""
    for call in (quantifier().estimate, quantifier().level, Sums.mean, Sums.feature_means):
        with pytest.raises(ValueError, match="no turns"):
            call(Sums.zero())
    assert np.isfinite(INCREMENTS.of(Sums.zero())).all()
    assert quantifier().given(BASELINE.sums, 0.8).estimate(sums(HEALTHY[None])).n == 1


@pytest.mark.parametrize("cut", [1, 60, 399, 450, 1000])
def test_a_series_resumes(cut: int) -> None:
    """Learning, calm or with an alarm that stands: stored and read back, a series goes on to the last bit."""
    stream = series(minutes=1200)
    whole, state = SeriesState("v"), SeriesState("v")
    expected = outcomes(stream, whole)
    found = outcomes(stream[:cut], state)
    left = copy.deepcopy(stream[:cut])
    state = SeriesState.unpack(state.pack())
    found += list(advance(state, left, stream[cut:], quantifier(), RULE, SETTINGS))
    assert state.pack() == whole.pack()
    alarms, learned = ([repr(o) for o in found if isinstance(o, kind)] for kind in (Alarm, Learned))
    assert alarms == [repr(o) for o in expected if isinstance(o, Alarm)]
    assert learned == [repr(o) for o in expected if isinstance(o, Learned)]


@pytest.mark.parametrize("turns", [1, 100_000])
def test_one_turn_and_a_great_many(turns: int) -> None:
    """A minute of one turn, or of a hundred thousand, leaves finite evidence and a readable state."""
    many = sums(answers(np.random.default_rng(1), HEALTHY, 1))
    state = followed([*series()[:300], Bucket(20_000, Sums(many.values * turns))])
    detector = state.detector if state.standing is None else state.standing
    assert np.isfinite(detector.log_evidence)
    assert SeriesState.unpack(state.pack()).pack() == state.pack()
