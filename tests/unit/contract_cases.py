"""Every detector and estimator behind one face, for the contracts of test_contracts.py.

What is public in `monitor` and looks like one (`discovered`) but stands in neither list fails a test.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np

import monitor
from monitor import prediction_powered, quantification
from monitor.alignment_work import WorkFilter, depth, margin, running
from monitor.baseline import Baseline
from monitor.buckets import Sums
from monitor.detectors import COMPONENTS, EDetector, Increments, locate_onset
from monitor.drift import Slope, Trend
from monitor.entropy import Calibration, Quantifier
from monitor.estimates import Estimate, Refusal, normal_estimate
from monitor.irreversibility import irreversibility
from monitor.null_set import NullSet
from monitor.paired_work import Stressed, paired, production
from monitor.relaxation import decay_rate, half_life, held_level, restoring_rate
from monitor.simplex import SimplexSolvers
from monitor.state import SeriesState
from monitor.trajectory import onset_of
from monitor.work_values import work_of
from tests.unit.core_cases import CONFUSION, HEALTHY, Floats, answers, calibration, sums, traffic
from tests.unit.test_work_values import END, point, returning

START: Final = 29_453_760
BASELINE: Final = Baseline.freeze(0, 1, sums(answers(np.random.default_rng(0), HEALTHY, 300)))
INCREMENTS: Final = Increments(NullSet.of(BASELINE))


def observed(seed: int) -> Sums:
    return sums(answers(np.random.default_rng(seed), HEALTHY, 5))


# --- what remembers


class Subject(ABC):
    """A detector or estimator that takes in one observation after another."""

    of: str
    """Its public name."""

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
    def resumed(self) -> Subject:
        """The same one, stored and read back."""


class Detector(Subject):
    of = "monitor.detectors.EDetector"

    def __init__(self) -> None:
        self.state = SeriesState("v")

    def feed(self, seed: int) -> None:
        self.state.detector.update(INCREMENTS.of(observed(seed)), (1 + seed % 3) / 1440)

    def poison(self, bad: float) -> None:
        self.state.detector.update(np.full(COMPONENTS, bad), 1 / 1440)

    def answer(self) -> bytes:
        d = self.state.detector
        return np.array([d.log_evidence, *d.signal_shares]).tobytes()

    def size(self) -> int:
        return len(self.state.pack())

    def resumed(self) -> Detector:
        other = type(self)()
        other.state = SeriesState.unpack(self.state.pack())
        assert isinstance(other.state.detector, EDetector)
        return other


class StandingDetector(Detector):
    """One whose alarm stands: its evidence goes on beside that of the next."""

    def feed(self, seed: int) -> None:
        super().feed(seed)
        if self.state.standing is None:
            self.state.standing = self.state.detector.copy()
        self.state.standing.update(INCREMENTS.of(observed(seed)), 1 / 1440)

    def poison(self, bad: float) -> None:
        assert self.state.standing is not None
        self.state.standing.update(np.full(COMPONENTS, bad), 1 / 1440)

    def answer(self) -> bytes:
        return b"" if self.state.standing is None else self.state.standing.log_wealth.tobytes()


class TrendOfS(Subject):
    of = "monitor.drift.Trend"

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

    def resumed(self) -> TrendOfS:
        other = TrendOfS()
        other.state, other.t = SeriesState.unpack(self.state.pack()), self.t
        assert isinstance(other.state.trend, Trend)
        return other


class Work(Subject):
    """Kept nowhere (monitor.work_values runs it anew over stored points), so pickled whole."""

    of = "monitor.alignment_work.WorkFilter"

    def __init__(self) -> None:
        self.filter = WorkFilter(0.5)
        self.t = 20_000.0

    def feed(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.t += float(rng.exponential(0.3))
        self.filter.update(self.t, float(rng.normal(2.5, 0.2)), 0.2**2)

    def poison(self, bad: float) -> None:
        self.filter.update(self.t + 1, bad, 0.01)

    def answer(self) -> bytes:
        return repr((self.filter.gamma(), self.filter.margin())).encode() + self.filter.mean.tobytes()

    def size(self) -> int:
        return sum(x.nbytes for x in vars(self.filter).values() if isinstance(x, np.ndarray))

    def resumed(self) -> Work:
        other = Work()
        other.filter, other.t = pickle.loads(pickle.dumps(self.filter)), self.t
        return other


class Quantification(Subject):
    """Its memory is its calibration: what it says of a window must not depend on the windows before."""

    of = "monitor.entropy.Quantifier"

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

    def resumed(self) -> Quantification:
        other = Quantification()
        other.last = self.last
        return other


SUBJECTS: Final[tuple[type[Subject], ...]] = (Detector, StandingDetector, TrendOfS, Work, Quantification)


# --- what is computed at once


@dataclass(frozen=True)
class Figure:
    """An estimator that takes all of its input at once.

    Attributes
    ----------
    of : its public name.
    call : good input of this seed in, the answer out.
    odd : names of odd inputs, and the calls with them; each has a finite answer or is refused with a reason.
    few : the call with too little, and what the refusal says.
    """

    of: str
    call: Callable[[int], Any]
    odd: dict[str, Callable[[], Any]]
    few: tuple[Callable[[], Any], str] | None = None


def trajectory(seed: int, n: int = 60) -> tuple[Floats, Floats, Floats]:
    """Times in days, values drawn back to 2.5, and the variances of their errors."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(0.25, n))
    x = np.zeros(n)
    for i in range(1, n):
        keep = np.exp(-(t[i] - t[i - 1]))
        x[i] = keep * x[i - 1] + 0.3 * np.sqrt(1 - keep**2) * rng.standard_normal()
    return t, 2.5 + x + 0.1 * rng.standard_normal(n), np.full(n, 0.01)


def decaying(seed: int) -> tuple[Floats, Floats, Floats]:
    """The same on its way from 5.5 to 0."""
    t, x, v = trajectory(seed)
    return t, x - 2.5 + 5.5 * np.exp(-0.3 * (t - t[0])), v


def with_bad(which: int, bad: float) -> tuple[Floats, ...]:
    columns = trajectory(1)
    columns[which][7] = bad
    return columns


def odd_trajectories() -> dict[str, tuple[Any, ...]]:
    t, x, v = trajectory(1)
    back = t.copy()
    back[30:] -= 3.0
    gap = t.copy()
    gap[30:] += 30.0
    return {
        "no point": ([], [], []),
        "one point": (t[:1], x[:1], v[:1]),
        "a time that is NaN": with_bad(0, np.nan),
        "a value that is NaN": with_bad(1, np.nan),
        "a value that is infinite": with_bad(1, np.inf),
        "a variance that is NaN": with_bad(2, np.nan),
        "a variance of 0": with_bad(2, 0.0),
        "a variance below 0": with_bad(2, -1.0),
        "a clock that jumps back": (back, x, v),
        "all of one moment": (np.full(60, 3.0), x, v),
        "every point twice": (np.repeat(t, 2), np.repeat(x, 2), np.repeat(v, 2)),
        "a gap of a month": (gap, x, v),
        "one a day": (np.arange(60.0), x, v),
        "one a day, without end": (np.arange(400.0), np.resize(x, 400), np.resize(v, 400)),
        "a million an hour": (20_000 + np.arange(500) / 24e6, np.resize(x, 500), np.resize(v, 500)),
        "all values alike": (t, np.full(60, 2.5), v),
        "values of another world": (t, x * 1e6, v),
        "errors that drown all": (t, x, v * 1e8),
        "words": (["a"], ["b"], ["c"]),
        "shapes that differ": (t, x[:5], v),
    }


def trajectories_into(call: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    return {name: lambda c=columns: call(*c) for name, columns in odd_trajectories().items()}


FEW_POINTS: Final = r"not enough points: 12 of 20"


def few_points(call: Callable[..., Any]) -> tuple[Callable[[], Any], str]:
    return (lambda: call(*trajectory(1, 12)), FEW_POINTS)


def stressed(seed: int, conversations: int = 60) -> Stressed:
    rng = np.random.default_rng(seed)
    turns = 6
    p = rng.dirichlet([6, 1, 1, 1, 1], conversations * turns)
    return Stressed(
        [f"c{i}" for i in range(conversations) for _ in range(turns)], np.tile(range(turns), conversations), p
    )


def stressed_with(bad: Any, conversations: int = 60) -> Stressed:
    good = stressed(1, conversations)
    p = np.array(good.p)
    p[3] = bad
    return Stressed(good.conversations, good.times, p)


def counted(seed: int, n: float = 1000.0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.ones(25)).reshape(5, 5) * n


def labelled(seed: int, m: int = 80) -> tuple[Sums, prediction_powered.Slice]:
    rng = np.random.default_rng(seed)
    q = answers(rng, HEALTHY, 400)
    labels = np.eye(5)[rng.choice(5, size=m, p=HEALTHY)]
    return sums(q), prediction_powered.Slice(q[:m], labels, np.full(m, 0.2), np.ones(m))


def kernel_mixture(q: Floats, weights: Floats | None = None) -> Floats:
    rng = np.random.default_rng(0)
    known = np.concatenate([answers(rng, row, 10) for row in np.eye(5)])
    return quantification.KernelDensities(known, np.repeat(np.arange(5), 10)).mixture(q, weights)


def turns_into(call: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """Odd judgements of single turns."""
    q = answers(np.random.default_rng(1), HEALTHY, 30)
    off, nan, negative = q.copy(), q.copy(), q.copy()
    off[3] *= 1.1
    nan[3, 0] = np.nan
    negative[3] = [1.2, -0.2, 0, 0, 0]
    return {
        "no turn": lambda: call(q[:0]),
        "a single turn": lambda: call(q[:1]),
        "off the simplex": lambda: call(off),
        "NaN": lambda: call(nan),
        "below 0": lambda: call(negative),
        "no weight": lambda: call(q, np.zeros(30)),
        "a weight that is NaN": lambda: call(q, np.full(30, np.nan)),
        "certain answers": lambda: call(np.eye(5)[[0, 0, 2]]),
        "a great many turns": lambda: call(np.resize(q, (20_000, 5))),
    }


def slope_of(bad: float) -> Slope:
    return Slope(bad, 0.1)


def onset(seed: int) -> Any:
    buckets = [INCREMENTS.of(observed(seed + i)) for i in range(30)]
    return locate_onset(np.array(buckets), np.full(30, 1 / 1440))


def onset_in_traffic(seed: int) -> Any:
    history = traffic(np.random.default_rng(seed), range(START, START + 30))
    return onset_of(history, START, BASELINE)


def stored_points(seed: int, n: int = 30, **changes: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0.85, 0.95, n)
    return [point(END - timedelta(days=n - 1 - i), 1440, float(a), **changes) for i, a in enumerate(shares)]


def work(points: list[dict[str, Any]]) -> Any:
    return work_of(points[-1], {1440: points}, 1.0, 0.2)


def returning_work(hourly: list[dict[str, Any]]) -> Any:
    return work_of(hourly[-1], {60: hourly}, 1.0, 0.2)


KNOWN: Final = normal_estimate(1.0, 0.1, "1/day", "given")
"""A rate whose error is known."""
NAN, INF = float("nan"), float("inf")
NUMBERS: Final = (NAN, INF, -INF, 0.0, -1.0)

FIGURES: Final = (
    Figure(
        "monitor.relaxation.restoring_rate",
        lambda seed: restoring_rate(*trajectory(seed)),
        trajectories_into(restoring_rate)
        | {"no baseline": lambda: restoring_rate(*trajectory(1), baseline=NAN)}
        | {f"window {x}": lambda x=x: restoring_rate(*trajectory(1), window=x) for x in (*NUMBERS, 1e-12, 1e3)}
        | {
            f"means: {name}": call
            for name, call in trajectories_into(lambda *c: restoring_rate(*c, window=1e-3)).items()
        },
        few_points(restoring_rate),
    ),
    Figure(
        "monitor.relaxation.decay_rate",
        lambda seed: decay_rate(*decaying(seed)),
        trajectories_into(decay_rate),
        few_points(decay_rate),
    ),
    Figure(
        "monitor.relaxation.held_level",
        lambda seed: held_level(*trajectory(seed), r=KNOWN),
        trajectories_into(held_level)
        | {f"given r: {name}": call for name, call in trajectories_into(lambda *c: held_level(*c, r=0.5)).items()}
        | {f"r {x}": lambda x=x: held_level(*trajectory(1), r=x) for x in NUMBERS},
        few_points(held_level),
    ),
    Figure(
        "monitor.relaxation.half_life",
        lambda seed: half_life(normal_estimate(1.0 + seed, 0.2, "1/day", "given")),
        {"may be 0": lambda: half_life(normal_estimate(0.1, 0.2, "1/day", "given"))},
    ),
    Figure(
        "monitor.alignment_work.margin",
        lambda seed: margin(normal_estimate(1.0 + seed, 0.2, "nats/day", "given"), 0.5),
        {f"r {x}": lambda x=x: margin(KNOWN, x) for x in NUMBERS} | {"one goal": lambda: margin(KNOWN, 0.5, goals=1)},
    ),
    Figure(
        "monitor.alignment_work.depth",
        lambda seed: depth(2.0 + seed, 1.0, 9.0),
        {f"level {x}": lambda x=x: depth(x, -2.0, 2.0) for x in NUMBERS}
        | {f"end {x}": lambda x=x: depth(1.0, 0.5, x) for x in NUMBERS},
    ),
    Figure(
        "monitor.alignment_work.running",
        lambda seed: running(0.2 + seed, 0.01, Slope(0.1, 0.02)),
        {f"sigma_0 {x}": lambda x=x: running(x, 0.01, Slope(0.1, 0.1)) for x in NUMBERS}
        | {f"slope {x}": lambda x=x: running(0.2, 0.01, slope_of(x)) for x in NUMBERS}
        | {f"error {x}": lambda x=x: running(0.2, x, Slope(0.1, 0.1)) for x in NUMBERS},
    ),
    Figure(
        "monitor.paired_work.paired",
        lambda seed: paired(stressed(seed), stressed(seed + 100)),
        {
            "NaN": lambda: paired(stressed_with(NAN), stressed(2)),
            "off the simplex": lambda: paired(stressed(1), stressed_with([0.5, 0.6, 0, 0, 0])),
            "below 0": lambda: paired(stressed(1), stressed_with([1.5, -0.5, 0, 0, 0])),
            "no turn": lambda: paired(Stressed([], [], []), Stressed([], [], [])),
            "no time in common": lambda: paired(
                stressed(1), Stressed(stressed(2).conversations, np.array(stressed(2).times) + 100, stressed(2).p)
            ),
            "a base without entropy": lambda: paired(
                Stressed(stressed(1).conversations, stressed(1).times, np.eye(5)[np.zeros(360, dtype=int)]), stressed(2)
            ),
            "one against itself": lambda: paired(stressed(1), stressed(1)),
        },
        (lambda: paired(stressed(1, 12), stressed(2, 12)), r"not enough conversations \(base\): 12 of 50"),
    ),
    Figure(
        "monitor.paired_work.production",
        lambda seed: production(stressed(seed)),
        {
            "NaN": lambda: production(stressed_with(NAN)),
            "off the simplex": lambda: production(stressed_with([0.5, 0.6, 0, 0, 0])),
            "no turn": lambda: production(Stressed([], [], [])),
        },
        (lambda: production(stressed(1, 12)), r"not enough conversations \(run\): 12 of 50"),
    ),
    Figure(
        "monitor.irreversibility.irreversibility",
        lambda seed: irreversibility(counted(seed)),
        {f"a count of {x}": lambda x=x: irreversibility(np.where(np.eye(5) > 0, x, 30.0)) for x in NUMBERS}
        | {
            "no transition": lambda: irreversibility(np.zeros((5, 5))),
            "another shape": lambda: irreversibility(np.ones((4, 4))),
            "one behaviour only": lambda: irreversibility(np.diag([1000.0, 0, 0, 0, 0])),
            "a great many": lambda: irreversibility(counted(1, 1e9)),
        },
        (lambda: irreversibility(counted(1, 150.0)), r"not enough transitions: 150 of 200"),
    ),
    Figure(
        "monitor.prediction_powered.estimate",
        lambda seed: prediction_powered.estimate(*labelled(seed)),
        {
            "no turn": lambda: prediction_powered.estimate(Sums.zero(), labelled(1)[1]),
            "all alike": lambda: prediction_powered.estimate(
                labelled(1)[0],
                prediction_powered.Slice(
                    np.tile(HEALTHY, (40, 1)), np.eye(5)[np.zeros(40, dtype=int)], np.ones(40), np.ones(40)
                ),
            ),
            "no weight": lambda: prediction_powered.Slice(
                np.eye(5), np.eye(5), np.ones(5), np.array([1.0, 1, 0, 1, 1])
            ),
            "NaN": lambda: prediction_powered.Slice(np.full((5, 5), NAN), np.eye(5), np.ones(5), np.ones(5)),
            "off the simplex": lambda: prediction_powered.Slice(np.eye(5) * 2, np.eye(5), np.ones(5), np.ones(5)),
        },
        (lambda: prediction_powered.estimate(*labelled(1, 12)), r"not enough labels: 12 of 30"),
    ),
    Figure(
        "monitor.quantification.saerens",
        lambda seed: quantification.saerens(answers(np.random.default_rng(seed), HEALTHY, 50), np.full(5, 0.2)),
        turns_into(lambda q, w=None: quantification.saerens(q, np.full(5, 0.2), w)),
    ),
    Figure(
        "monitor.quantification.KernelDensities",
        lambda seed: kernel_mixture(answers(np.random.default_rng(seed), HEALTHY, 50)),
        turns_into(kernel_mixture),
    ),
    Figure(
        "monitor.quantification.mixture_of",
        lambda seed: quantification.mixture_of(answers(np.random.default_rng(seed), HEALTHY, 50)),
        {
            "no turn": lambda: quantification.mixture_of(np.zeros((0, 5))),
            "NaN": lambda: quantification.mixture_of(np.full((3, 5), NAN)),
            "impossible turns": lambda: quantification.mixture_of(np.vstack([np.eye(5), np.full((1, 5), 1e-300)])),
        },
    ),
    Figure(
        "monitor.quantification.of_means",
        lambda seed: quantification.of_means(CONFUSION[None], observed(seed).mean()[None], np.full((1, 5), 0.2)),
        {
            "a mean below 0": lambda: quantification.of_means(
                CONFUSION[None], np.array([[1.1, -0.1, 0, 0, 0]]), np.full((1, 5), 0.2)
            ),
            "rows alike": lambda: quantification.of_means(
                np.full((1, 5, 5), 0.2), observed(1).mean()[None], np.eye(5)[[2]]
            ),
        },
    ),
    Figure(
        "monitor.simplex.SimplexSolvers",
        lambda seed: SimplexSolvers(CONFUSION[None], np.eye(5)).solve(observed(seed).mean()[None]),
        {
            "far off the simplex": lambda: SimplexSolvers(CONFUSION[None], np.eye(5)).solve(np.full((1, 5), -3.0)),
            "rows alike": lambda: SimplexSolvers(np.full((1, 5, 5), 0.2), np.eye(5)).solve(np.full((1, 5), 0.2)),
        },
    ),
    Figure(
        "monitor.detectors.locate_onset",
        onset,
        {
            "no bucket": lambda: locate_onset(np.zeros((0, COMPONENTS)), np.zeros(0)),
            "one bucket": lambda: locate_onset(np.zeros((1, COMPONENTS)), np.ones(1)),
            "a great many turns": lambda: locate_onset(
                np.array([INCREMENTS.of(Sums(observed(i).values * 1_000_000)) for i in range(5)]), np.full(5, 1 / 1440)
            ),
        },
    ),
    Figure(
        "monitor.trajectory.onset_of",
        onset_in_traffic,
        {"no bucket": lambda: onset_of([], START, BASELINE)},
    ),
    Figure(
        "monitor.work_values.work_of",
        lambda seed: returning_work(returning(seed, kappa=4.0)),
        {
            "one point": lambda: work(stored_points(1, 1)),
            "no width": lambda: work(stored_points(1, sd=0.0)),
            "no turn's worth": lambda: work(stored_points(1, effective_n=1.0)),
            "all aligned": lambda: work(stored_points(1, p_aligned=1.0, p_aligned_hi=1.0)),
            "none aligned": lambda: work(stored_points(1, p_aligned=0.0, p_aligned_lo=0.0)),
            "S that stands still": lambda: work(stored_points(1, s=0.0, s_sd=0.0)),
        },
        (lambda: work(stored_points(1, 3)), r"not enough points: 3 of 20"),
    ),
)


# --- the register

REMEMBERS: Final = ("update", "estimate", "mixture", "solve")
"""Methods by which a class shows that it is a detector or an estimator."""
ANSWERS: Final = re.compile(r"\b(Result|Held|Paired|Labelled|Onset|Mixture|Work)\b")
"""What a function returns that is one; beside these all of monitor.quantification."""


def discovered() -> set[str]:
    """Names of everything public in `monitor` that is a detector or an estimator."""
    found = set()
    for info in pkgutil.iter_modules(monitor.__path__, "monitor."):
        module = importlib.import_module(info.name)
        for name, member in vars(module).items():
            if name.startswith("_") or getattr(member, "__module__", None) != info.name:
                continue
            if inspect.isclass(member):
                if any(callable(getattr(member, method, None)) for method in REMEMBERS):
                    found.add(f"{info.name}.{name}")
            elif inspect.isfunction(member):
                returned = str(member.__annotations__.get("return", ""))
                if ANSWERS.search(returned) or (info.name == "monitor.quantification" and name != "checked"):
                    found.add(f"{info.name}.{name}")
    return found


def estimates_in(answer: Any) -> list[Any]:
    """The figures and refusals that an answer is made of."""
    if isinstance(answer, Estimate | Refusal):
        return [answer]
    if hasattr(answer, "__dataclass_fields__"):
        return [x for name in answer.__dataclass_fields__ for x in estimates_in(getattr(answer, name))]
    if isinstance(answer, list | tuple):
        return [x for part in answer for x in estimates_in(part)]
    return [answer] if isinstance(answer, int | float | np.ndarray) else []
