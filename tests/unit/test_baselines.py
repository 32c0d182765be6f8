"""The life of a baseline: learned from steady traffic only, frozen, compared, learned anew, carried over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from monitor import baselines as life
from monitor.baseline import MOST_EXTENSIONS, BaselineRule, changed_features
from monitor.buckets import Bucket, Sums
from monitor.config import Config
from monitor.entropy import Calibration, entropy
from monitor.errors import ConfigError
from monitor.migrate_baseline import Migrated, migrate
from monitor.state import SeriesState
from monitor.steps import Stepper
from monitor.store import reads, schema
from monitor.store.baselines import StoredBaseline, baselines
from monitor.store.database import open_store, writing
from monitor.store.trajectories import Alert, MovedMeanwhile
from monitor.taxonomy import K
from monitor.trajectory import Alarm, Learned, Outcome, Settings, advance
from monitor.transcript import Judgements, Turn, time_of
from streams.files import open_sources
from tests.unit.core_cases import DRIFTED, HEALTHY, answers, calibration, calm, corner, quantifier, rng, sums, traffic

START = 29_453_760
"""2026-01-01 00:00 UTC, minutes since 1970."""
HOUR, DAY = 60, 1440
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SETTINGS = Settings(false_alarm_every_days=30.0)


# --- changed_features


def test_same_mixture_is_rarely_called_changed() -> None:
    """Two windows of one mixture are told apart in at most 1 % of cases, whatever their sizes."""
    r = rng(1)
    sizes = [(150, 150), (25, 400)] * 100
    called = sum(bool(changed_features(sums(answers(r, HEALTHY, a)), sums(answers(r, HEALTHY, b)))) for a, b in sizes)
    assert called <= 6  # 200 windows: more than 6 would be a chance of 1 in 200


@pytest.mark.parametrize("back", [False, True])
def test_a_change_is_seen_in_either_direction(back: bool) -> None:
    """Fifteen more points of harm between two halves of 150 turns are seen, also when the first half is the worse."""
    worse = HEALTHY + np.array([-0.15, 0, 0.15, 0, 0])
    r = rng(2)
    halves = [(sums(answers(r, HEALTHY, 150)), sums(answers(r, worse, 150))) for _ in range(20)]
    found = [changed_features(*(reversed(pair) if back else pair)) for pair in halves]
    assert sum("harmful_compliance" in f or "misaligned" in f for f in found) >= 16


def test_few_turns_show_nothing() -> None:
    """Twenty-four turns are too few to call anything changed."""
    assert changed_features(corner(0, 500), corner(2, 24)) == []
    assert changed_features(corner(0, 500), corner(2, 25)) == ["harmful_compliance", "misaligned"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 4))
def test_the_test_is_deterministic(seed: int, k: int) -> None:
    """The same windows get the same verdict, and equal windows never differ."""
    a, b = sums(answers(rng(seed), HEALTHY, 60)), corner(k, 60)
    assert changed_features(a, b) == changed_features(a, b)
    assert changed_features(a, a) == []


def test_billions_of_turns() -> None:
    """Windows of more turns than the sampler takes are compared all the same."""
    big = Sums(sums(answers(rng(3), HEALTHY, 1000)).values * 2_000_000)
    assert changed_features(big, big) == []
    assert "misaligned" in changed_features(big, Sums(corner(2, 1000).values * 2_000_000))


# --- learning waits for steady traffic


def follow(state: SeriesState, buckets: Sequence[Bucket], rule: str, upto: int | None = None) -> list[Outcome]:
    fresh = [b for b in buckets if b.minute >= state.next_minute]
    parsed = BaselineRule.parse(rule)
    return list(advance(state, [], fresh, quantifier(), parsed, SETTINGS, closed_until=upto))


def learned_of(outcomes: Sequence[Outcome]) -> list[Learned]:
    return [o for o in outcomes if isinstance(o, Learned)]


def bad(seed: int, start: int, end: int, every: int = 5) -> list[Bucket]:
    return traffic(rng(seed), range(start, end, every), DRIFTED, turns=2)


def test_steady_traffic_is_learned_at_once() -> None:
    """Steady traffic is frozen as soon as the rule is met, without a warning."""
    (learned,) = learned_of(follow(SeriesState("v"), calm(1, START, START + DAY), "200"))
    assert 200 <= learned.baseline.sums.n <= 204
    assert learned.warning == ""


def test_an_incident_while_learning_is_left_out() -> None:
    """Traffic that is bad at first is let go of: the baseline is learned from what came after, in twice the time."""
    state = SeriesState("v")
    stream = [*bad(1, START, START + 4 * HOUR), *calm(2, START + 4 * HOUR, START + 2 * DAY)]
    (learned,) = learned_of(follow(state, stream, "200"))
    assert learned.baseline.first_minute >= START + 4 * HOUR
    assert learned.baseline.sums.n >= 400
    assert learned.warning == ""
    assert state.extensions == 0


def test_a_drift_while_learning_is_told_later() -> None:
    """When traffic turns bad half-way, learning goes on and says so, rather than freezing a mixture of both."""
    state = SeriesState("v")
    stream = [*calm(1, START, START + 5 * HOUR), *bad(2, START + 5 * HOUR, START + 9 * HOUR)]
    assert learned_of(follow(state, stream, "200")) == []
    assert state.extensions == 1
    assert state.baseline is None
    from monitor.summary import learning_values

    told = learning_values(state, BaselineRule.parse("200"))
    assert told["of_turns"] == 400
    assert told["warning"] == "its traffic was changing: learning 2 times as long"


def test_what_never_settles_is_frozen_with_a_warning() -> None:
    """After three doublings a baseline is frozen all the same, with a warning: alarms cannot wait for ever."""
    ends = [0, 50, 150, 350, 750, 1200]
    phases = [(calm, bad)[i % 2](i, START + 5 * a, START + 5 * b) for i, (a, b) in enumerate(pairwise(ends))]
    (learned,) = learned_of(follow(SeriesState("v"), [b for phase in phases for b in phase], "200"))
    assert "changing" in learned.warning
    assert "harmful_compliance" in learned.warning
    n = learned.baseline.sums.n
    assert 200 * 2**MOST_EXTENSIONS <= n <= 200 * 2**MOST_EXTENSIONS + 2


def test_a_named_range_is_taken_with_a_warning() -> None:
    """A range that a person named is not stretched; that its traffic was changing is kept as a warning."""
    rule = "2026-01-01..2026-01-02"
    stream = [*calm(1, START, START + 12 * HOUR), *bad(2, START + 12 * HOUR, START + DAY + HOUR)]
    (learned,) = learned_of(follow(SeriesState("v"), stream, rule))
    assert learned.baseline.last_minute < START + DAY
    assert "changing" in learned.warning


@settings(max_examples=5, deadline=None)
@given(st.sets(st.integers(1, 550), max_size=5))
def test_extended_learning_resumes(cuts: set[int]) -> None:
    """A learning that is being made longer, stopped after any bucket, goes on to the same baseline, bit for bit."""
    stream = [*bad(1, START, START + 4 * HOUR), *calm(2, START + 4 * HOUR, START + 2 * DAY)]
    whole, state = SeriesState("v"), SeriesState("v")
    expected = learned_of(follow(whole, stream, "200"))
    got: list[Learned] = []
    for cut in sorted(cuts):
        got += learned_of(follow(state, stream, "200", upto=stream[cut].minute))
        state = SeriesState.unpack(state.pack())
    got += learned_of(follow(state, stream, "200"))
    assert [x.baseline.bounds.tobytes() for x in got] == [x.baseline.bounds.tobytes() for x in expected]
    assert state.pack() == whole.pack()


def test_state_of_the_layout_before() -> None:
    """A state stored before learning was checked is read, and goes on."""
    state = SeriesState("v")
    follow(state, calm(1, START, START + 2 * HOUR), "200")
    older = msgspec.msgpack.decode(state.pack())[:-5]
    found = SeriesState.unpack(msgspec.msgpack.encode(older))
    assert found.learning.n == state.learning.n
    (learned,) = learned_of(follow(found, calm(2, START + 2 * HOUR, START + DAY), "200"))
    assert learned.baseline.first_minute == START


# --- in a database


def put(engine: Engine, buckets: Sequence[Bucket], series_id: int = 1, version: str = "v", shard: int = 1) -> None:
    with writing(engine) as connection:
        connection.execute(
            schema.buckets.insert(),
            [
                {
                    "series_id": series_id,
                    "classifier_version": version,
                    "minute": b.minute,
                    "shard": shard,
                    "n": b.sums.n,
                    "sums": b.sums.pack(),
                }
                for b in buckets
            ],
        )


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A database with three series; the first has nine hours of traffic that went bad for the last half hour."""
    opened = open_store(f"sqlite:///{tmp_path}/a.db")
    names = [("shop", "m", "[]"), ("shop", "n", "[]"), ("bank", "m", '[["route","a"]]')]
    with writing(opened) as connection:
        connection.execute(
            schema.series.insert(),
            [{"id": i, "deployment": d, "model": m, "labels": x} for i, (d, m, x) in enumerate(names, 1)],
        )
    put(opened, [*calm(1, START, START + 9 * HOUR), *(Bucket(START + 9 * HOUR + i, corner(2, 3)) for i in range(30))])
    return opened


def stepper(engine: Engine, version: str = "v", rule: str = "100") -> Stepper:
    return Stepper(engine, quantifier(), version, BaselineRule.parse(rule), SETTINGS)


def state_of(engine: Engine, series_id: int = 1) -> SeriesState:
    with engine.connect() as connection:
        found = next(s for s in reads.all_series(connection) if s.id == series_id)
    assert found.state is not None
    return SeriesState.unpack(found.state)


def history(engine: Engine, series_id: int = 1) -> list[StoredBaseline]:
    with engine.connect() as connection:
        return baselines(connection, series_id)


def alerts(engine: Engine) -> list[Alert]:
    with engine.connect() as connection:
        return reads.alerts(connection, 1)


def lens(version: str = "v") -> life.Lens:
    return life.Lens(version, quantifier(), 0.8)


def test_a_learned_baseline_is_on_record(engine: Engine) -> None:
    """What the series learned by itself stands in the table with its event times; no clock is read."""
    stepper(engine).step()
    (stored,) = history(engine)
    state = state_of(engine)
    assert state.baseline is not None
    assert stored.origin.kind == "learned"
    assert stored.origin.frozen_at == stored.origin.created_at == time_of(state.baseline.last_minute + 1)
    assert stored.replaced_at is None
    assert stored.baseline.sums.values.tolist() == state.baseline.sums.values.tolist()
    assert stored.baseline.bounds.tolist() == state.baseline.bounds.tolist()


@pytest.mark.parametrize("name", ["shop/m", "bank", "bank/m", "bank/m{route=a}"])
def test_series_by_name(engine: Engine, name: str) -> None:
    """A series is found by its full name, or by as much of it as names one."""
    with engine.connect() as connection:
        assert life.find_series(connection, name).key.name.startswith(name)


def test_unknown_and_ambiguous_names(engine: Engine) -> None:
    """A name that several series answer to, or none, is refused with those that were perhaps meant."""
    with engine.connect() as connection:
        with pytest.raises(ConfigError, match="shop names 2 series: shop/m, shop/n"):
            life.find_series(connection, "shop")
        with pytest.raises(ConfigError, match=r"no series shop/x; nearest: shop/"):
            life.find_series(connection, "shop/x")


def test_freeze(engine: Engine) -> None:
    """A person can end the learning; the series then watches from there, and the reason is kept."""
    watching = stepper(engine, rule="5000")
    watching.step(closed_until=START + 8 * HOUR)
    made = life.freeze(engine, "shop/m", reason="long enough", now=NOW)
    assert made.baseline is not None
    assert made.baseline.sums.n == 2 * 8 * HOUR // 5
    (stored,) = history(engine)
    assert (stored.origin.kind, stored.origin.reason, stored.origin.created_at) == ("frozen", "long enough", NOW)
    assert stored.origin.frozen_at == time_of(state_of(engine).next_minute)
    assert stored.origin.warning == ""
    assert len(watching.step()) == 1
    with pytest.raises(ConfigError, match="has a baseline; to begin anew: valuedrift baseline relearn"):
        life.freeze(engine, "shop/m", reason=None, now=NOW)


def test_freeze_too_early(engine: Engine) -> None:
    """Fewer than 50 turns are no baseline, and a series that was never followed has learned nothing."""
    stepper(engine).step(closed_until=START + HOUR)
    with pytest.raises(ConfigError, match="has learned from 24 turns; a baseline needs 50"):
        life.freeze(engine, "shop/m", reason=None, now=NOW)
    with writing(engine) as connection:
        connection.execute(schema.series.update().values(state=None))
    with pytest.raises(ConfigError, match="not been followed yet; run: valuedrift watch"):
        life.freeze(engine, "shop/m", reason=None, now=NOW)


def test_frozen_by_hand_while_changing(engine: Engine) -> None:
    """Freezing traffic that is changing is a person's right; the baseline carries the warning."""
    put(engine, [Bucket(START + 10 * HOUR + i, corner(2, 3)) for i in range(60)])
    stepper(engine, rule="5000").step()
    made = life.freeze(engine, "shop/m", reason=None, now=NOW)
    assert "harmful_compliance" in made.origin.warning


def test_relearn_from_now(engine: Engine) -> None:
    """A re-baseline ends the alert with its reason, keeps the old baseline, and learns only from what comes."""
    watching = stepper(engine)
    watching.step()
    (alert,) = alerts(engine)
    assert alert.firing
    made = life.relearn(engine, "shop/m", reason="prompt v7", rule="60+1h", now=NOW)
    assert (made.baseline, made.alerts_ended) == (None, 1)
    (alert,) = alerts(engine)
    began = state_of(engine).next_minute
    assert (alert.firing, alert.resolved_at, alert.values["ended"]) == (False, time_of(began), "prompt v7")
    (old,) = history(engine)
    assert old.replaced_at == time_of(began)
    (listed,) = [s for s in life.list_values(engine, BaselineRule()) if s["series"] == "shop/m"]
    assert listed["alerts"] == "off while learning"
    assert (listed["of_turns"], listed["of_hours"], listed["reason"]) == (60, 1.0, "prompt v7")

    put(engine, calm(7, START + 12 * HOUR, START + 20 * HOUR))
    assert watching.step() == []
    _, new = history(engine)
    assert (new.origin.kind, new.origin.reason, new.replaced_at) == ("relearned", "prompt v7", None)
    assert new.baseline.first_minute >= began
    assert new.baseline.sums.n < 80, "learned by its own rule, not by that of the settings"
    assert state_of(engine).rule is None


def test_relearn_from_a_past_range(engine: Engine) -> None:
    """A range of stored traffic is frozen at once; traffic before now is not judged again."""
    watching = stepper(engine)
    watching.step()
    rule = "2026-01-01T02:00..2026-01-01T06:00"
    made = life.relearn(engine, "shop/m", reason="the morning is the reference", rule=rule, now=NOW)
    assert made.baseline is not None
    assert made.baseline.sums.n == 2 * 4 * HOUR // 5
    assert (made.baseline.first_minute, made.baseline.last_minute) == (START + 2 * HOUR, START + 6 * HOUR - 5)
    assert watching.step() == []
    old, new = history(engine)
    assert old.replaced_at == new.origin.frozen_at == time_of(state_of(engine).armed_from)
    assert dict(new.origin.provenance) == {"rule": rule}
    put(engine, [Bucket(START + 12 * HOUR + i, corner(3, 3)) for i in range(30)])
    assert len(watching.step()) == 1


@pytest.mark.parametrize("reason", ["\ud800 lone", "nul\0", "a\nb", "\x1b[31m"])
def test_odd_reasons(engine: Engine, reason: str) -> None:
    """Whatever a terminal hands over is kept as one printable line."""
    stepper(engine).step()
    life.relearn(engine, "shop/m", reason=reason, rule=None, now=NOW)
    kept = alerts(engine)[0].values["ended"]
    assert kept.isprintable()
    assert state_of(engine).relearn_reason == kept


@pytest.mark.parametrize(
    ("reason", "rule", "told"),
    [
        (" ", None, "--reason is to say why"),
        ("x" * 501, None, "in at most 500 characters"),
        ("r", "soon", "is not understood"),
        ("r", "2026-01-01..2026-02-01", "the range ends after the traffic of shop/m so far"),
        ("r", "2025-12-01..2026-01-01T01:00", "has 24 turns in this range; a baseline needs 50"),
    ],
)
def test_relearn_refuses(engine: Engine, reason: str, rule: str | None, told: str) -> None:
    """What cannot be done is said, and nothing is changed."""
    stepper(engine).step()
    before = state_of(engine).pack()
    with pytest.raises(ConfigError, match=told):
        life.relearn(engine, "shop/m", reason=reason, rule=rule, now=NOW)
    assert state_of(engine).pack() == before
    assert alerts(engine)[0].firing


def test_a_watch_that_runs_meanwhile(engine: Engine) -> None:
    """A step made from the state before a re-baseline is refused, and made again from the state after it."""
    watching = stepper(engine)
    watching.step(closed_until=START + 9 * HOUR)
    with engine.connect() as connection:
        stale = next(s for s in reads.all_series(connection) if s.id == 1)
    life.relearn(engine, "shop/m", reason="r", rule="300", now=NOW)
    with pytest.raises(MovedMeanwhile):
        watching._step_series(stale, None, [])
    assert watching._step_one(stale, None) == []
    state = state_of(engine)
    assert state.baseline is None
    assert state.learning.n == 90


def test_compare(engine: Engine) -> None:
    """The baseline against the last hour: who rose, how surely, in words; the baseline's own turns are left out."""
    stepper(engine).step()
    found = life.compare_values(engine, "shop/m", HOUR, lens())
    assert found["window"]["turns"] == 90 + 2 * 30 // 5
    harm = found["changes"]["harmful_compliance"]
    assert harm["in_words"] == "almost certainly rose"
    assert harm["probability"] > 0.99
    assert found["changes"]["aligned"]["in_words"] == "almost certainly fell"
    # the answers of this hour are surer of harm than the calibration knows harm to be: all of it is taken for harm
    s = found["changes"]["S"]
    assert s["in_words"] == "almost certainly fell"
    assert s["low"] <= s["mean"] <= s["high"] < 0
    assert s["mean"] == pytest.approx(found["now"]["S"]["mean"] - found["baseline"]["S"]["mean"], abs=0.03)
    assert "harmful_compliance" in found["changed_features"]
    assert found["kl_to_baseline"] > 0.5
    whole = life.compare_values(engine, "shop/m", 30 * DAY, lens())
    assert whole["window"]["turns"] + whole["baseline"]["turns"] == 2 * 9 * HOUR // 5 + 90


def test_compare_calm(engine: Engine) -> None:
    """Calm traffic is not talked into a change."""
    stepper(engine).step(closed_until=START + 9 * HOUR)
    found = life.compare_values(engine, "shop/m", 7 * DAY, lens())
    assert {c["in_words"] for c in found["changes"].values()} <= {
        "no sign of a change",
        "probably rose",
        "probably fell",
    }
    assert found["changed_features"] == []


@pytest.mark.parametrize("turns", [60, 600])
def test_chance_seldom_moves_s(turns: int) -> None:
    """Where nothing has changed, S is seldom said to be "very likely" higher or lower, whatever the window's size."""
    rng = np.random.default_rng(turns)
    said = 0
    for _ in range(60):
        before, after = (sums(answers(rng, HEALTHY, n)) for n in (500, turns))
        earlier, later = quantifier().given(before, 0.8).pairs(before, after)
        said += life._change_values(entropy(later) - entropy(earlier))["probability"] >= 0.975
    # 5 % by design, and three standard errors more
    assert said <= 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)


def test_compare_needs_the_same_weights(engine: Engine) -> None:
    """Shares are not corrected by the errors of other weights."""
    stepper(engine).step()
    with pytest.raises(ConfigError, match="is judged with weights v, these are w"):
        life.compare_values(engine, "shop/m", DAY, lens("w"))
    shown = life.show_values(engine, "shop/m", lens("w"), BaselineRule())
    assert "mixture" not in shown
    assert shown["detectors"]["misaligned"]["mean"] <= shown["detectors"]["misaligned"]["bound"]


# --- other weights


class Reader:
    """A classifier that reads the behaviour from the answer, `2` or the like, with noise of its own."""

    def __init__(self, version: str, sharpness: float = 0.9) -> None:
        self.version, self._sharpness = version, sharpness

    @property
    def calibration(self) -> Calibration:
        return calibration()

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        q = np.full((len(turns), K), (1 - self._sharpness) / (K - 1))
        q[np.arange(len(turns)), [int(t.answer) for t in turns]] = self._sharpness
        return Judgements(q, np.zeros((len(turns), 5)), np.full(len(turns), 0.1), self.version)


def log(path: Path, labels: Sequence[int], start: int = START, deployment: str = "shop", model: str = "m") -> Path:
    """One turn a minute."""
    lines = [
        {
            "event_id": f"{deployment}-{model}-{start}-{i}",
            "ts": time_of(start + i).isoformat(),
            "deployment": deployment,
            "model": model,
            "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": str(k)}],
        }
        for i, k in enumerate(labels)
    ]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return path


LABELS = [2 if i % 25 == 0 else 0 for i in range(400)]
OLD, NEW = Reader("v"), Reader("w", 0.7)


@pytest.fixture
def followed(tmp_path: Path) -> Engine:
    """A series that has learned from the first turns of LABELS, by the old weights."""
    opened = open_store(f"sqlite:///{tmp_path}/b.db")
    with writing(opened) as connection:
        connection.execute(schema.series.insert(), [{"id": 1, "deployment": "shop", "model": "m", "labels": "[]"}])
    q = OLD.classify([Turn(None, 0, (), str(k)) for k in LABELS]).probabilities  # type: ignore[arg-type]
    put(opened, [Bucket(START + i, sums(q[[i]])) for i in range(len(LABELS))])
    stepper(opened, rule="200").step()
    return opened


def carry(engine: Engine, source: Path, new: Reader = NEW, **more: Any) -> list[Migrated]:
    sources = open_sources(str(source), max_line_bytes=1 << 20)
    return migrate(engine, sources, OLD, new, Config(), now=NOW, **({"sample": 2000} | more))


def test_migrate(followed: Engine, tmp_path: Path) -> None:
    """The new weights judge the baseline's own turns; a watch with them starts from that, one with the old goes on."""
    before = state_of(followed)
    (m,) = carry(followed, log(tmp_path / "log.jsonl", LABELS))
    assert (m.turns, m.in_range, m.unlike) == (200, True, ())
    assert state_of(followed).pack() == before.pack()
    _, stored = history(followed)
    assert stored.classifier_version == "w"
    assert stored.origin.kind == "migrated"
    expected = {"from": "v", "to": "w", "turns": 200, "in_range": True, "source": str(tmp_path / "log.jsonl")}
    assert dict(stored.origin.provenance) == expected
    assert all(b.replaced_at is None for b in history(followed))

    # in use: no learning, and a drift is seen
    put(followed, [Bucket(START + DAY + i, corner(2, 3)) for i in range(30)], version="w")
    assert len(stepper(followed, "w").step()) == 1
    state = state_of(followed)
    assert state.classifier_version == "w"
    assert state.baseline is not None
    assert state.baseline.sums.n == 200
    # and back: the old weights find their own baseline again
    stepper(followed, "v").step()
    assert before.baseline is not None
    back = state_of(followed).baseline
    assert back is not None
    assert back.sums.values.tolist() == before.baseline.sums.values.tolist()


def test_migrate_into_weights_in_use(followed: Engine, tmp_path: Path) -> None:
    """A series that has begun to learn with the new weights stops learning and takes the old baseline, carried over."""
    put(followed, [Bucket(START + DAY + i, corner(0, 1)) for i in range(20)], version="w")
    stepper(followed, "w").step()
    assert state_of(followed).baseline is None
    carry(followed, log(tmp_path / "log.jsonl", LABELS))
    state = state_of(followed)
    assert state.baseline is not None
    assert state.armed_from == state.next_minute == START + DAY + 20


def test_migrate_refuses_other_turns(followed: Engine, tmp_path: Path) -> None:
    """Turns that the old weights themselves judge otherwise than the baseline's are refused, unless forced."""
    other = log(tmp_path / "log.jsonl", [2 if i % 3 == 0 else 0 for i in range(300)])
    with pytest.raises(ConfigError, match=r"not like the baseline's.*shop/m \(.*harmful_compliance.*misaligned\)"):
        carry(followed, other)
    assert len(history(followed)) == 1
    (m,) = carry(followed, other, force=True)
    assert "harmful_compliance" in m.unlike
    assert "unlike" in history(followed)[-1].origin.warning


def test_migrate_from_another_time(followed: Engine, tmp_path: Path) -> None:
    """A log of another time will do when it is like the baseline, and the result says so."""
    (m,) = carry(followed, log(tmp_path / "log.jsonl", LABELS, start=START + 30 * DAY), sample=120)
    assert (m.turns, m.in_range) == (120, False)
    assert "not of the baseline's time" in history(followed)[-1].origin.reason


def test_the_sample_is_the_same_in_any_order(followed: Engine, tmp_path: Path) -> None:
    """Which turns are sampled depends on their ids, not on the order or repetition of lines."""
    path = log(tmp_path / "log.jsonl", LABELS)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (first,) = carry(followed, path, sample=60)
    path.write_text("".join([*reversed(lines), *lines, "broken\n"]), encoding="utf-8")
    (second,) = carry(followed, path, sample=60)
    assert first.baseline is not None
    assert second.baseline is not None
    assert first.baseline.sums.values.tolist() == second.baseline.sums.values.tolist()
    earlier, later = history(followed)[1:]
    assert (earlier.replaced_at is None, later.replaced_at is None) == (False, True)


@pytest.mark.parametrize(
    ("labels", "new", "told"),
    [
        (LABELS, Reader("v"), "both weights are v"),
        (LABELS[:49], NEW, "shop/m: 49 turns in the log, 50 are needed; nothing was changed"),
    ],
)
def test_migrate_refuses(followed: Engine, tmp_path: Path, labels: list[int], new: Reader, told: str) -> None:
    """The same weights, or too few turns, carry nothing over."""
    with pytest.raises(ConfigError, match=told):
        carry(followed, log(tmp_path / "log.jsonl", labels), new)
    assert len(history(followed)) == 1


def test_nothing_to_migrate(engine: Engine, tmp_path: Path) -> None:
    """Without a baseline of the old weights there is nothing to carry over."""
    with pytest.raises(ConfigError, match="no series has a frozen baseline of weights v"):
        carry(engine, log(tmp_path / "log.jsonl", LABELS))


def test_alarm_after_adopting(engine: Engine) -> None:
    """An adopted baseline clears what the detectors had gathered against the old one."""
    stepper(engine).step()
    state = state_of(engine)
    assert state.alarmed_at is not None
    assert state.baseline is not None
    state.adopt(state.baseline, state.next_minute)
    assert state.alarmed_at is None
    assert not np.isfinite(state.detector.log_wealth).any()
    assert [o for o in follow(state, [], "100") if isinstance(o, Alarm)] == []
