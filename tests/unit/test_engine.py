"""The one path from transcripts to buckets: which turns are judged, what they weigh, and where they are added."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import reduce
from hashlib import blake2b
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.api import Classifier
from monitor.buckets import Q_UNIT, SIZE, Sums
from monitor.engine import SeriesKey, fold, judge, series_of
from monitor.entropy import Calibration
from monitor.taxonomy import K
from monitor.transcript import Event, Judgements, Message, Turn, default_event_id, minute_of, time_of, turns_of
from tests.unit.core_cases import calibration

AT = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)


class Stub:
    """Judges a turn by the hash of what was said, and by nothing else."""

    version = "stub-1"

    @property
    def calibration(self) -> Calibration:
        return calibration()

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        rows = np.empty((len(turns), 2 * K + 1))
        for i, turn in enumerate(turns):
            text = "\0".join([*(m.content for m in turn.before), turn.answer])
            seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
            rows[i] = np.random.default_rng(seed).random(2 * K + 1)
        p = rows[:, :K] / rows[:, :K].sum(axis=1, keepdims=True)
        return Judgements(p, rows[:, K : 2 * K], rows[:, -1], self.version)


STUB: Classifier = Stub()


def event(number: int = 0, *said: str, **changes: object) -> Event:
    """An event in which user and assistant speak in turn."""
    lines = said or ("hello", f"answer {number}")
    made = Event(
        event_id=f"e{number}",
        ts=AT,
        deployment="chat",
        model="m1",
        conversation_id=f"c{number}",
        messages=tuple(Message("assistant" if i % 2 else "user", s) for i, s in enumerate(lines)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """A few events of several series and minutes."""
    return [
        event(
            i,
            *draw(st.lists(st.text(max_size=5), max_size=6)),
            ts=AT + timedelta(seconds=draw(st.integers(0, 180))),
            deployment=draw(st.sampled_from(["a", "b"])),
            labels=draw(st.sampled_from([None, {"route": "x"}, {"route": "y", "other": "z"}])),
            judge_all=draw(st.booleans()),
            sample_rate=draw(st.sampled_from([1.0, 0.5, 0.1, 1 / 1024])),
        )
        for i in range(draw(st.integers(0, 8)))
    ]


# --- transcripts and turns


def test_last_turn_is_judged() -> None:
    """Of a conversation the last answer is judged, with everything before it as its context."""
    (turn,) = turns_of(event(1, "q1", "a1", "q2", "a2"))
    assert (turn.index, turn.answer) == (1, "a2")
    assert [m.content for m in turn.before] == ["q1", "a1", "q2"]


def test_all_turns_are_judged() -> None:
    """With judge = all every answer is judged, each by what came before it only."""
    got = list(turns_of(event(1, "q1", "a1", "q2", "a2", judge_all=True)))
    assert [(t.index, t.answer, len(t.before)) for t in got] == [(0, "a1", 1), (1, "a2", 3)]


@pytest.mark.parametrize("judge_all", [True, False])
def test_nobody_answered(judge_all: bool) -> None:
    """A transcript in which no assistant speaks has no turns, and is no error."""
    silent = event(1, "anyone?", judge_all=judge_all)
    assert list(turns_of(silent)) == []
    judged = judge([silent], STUB)
    assert judged.turns == []
    assert judged.terms.shape == (0, SIZE)
    assert fold(judged, []) == {}


def test_trailing_question() -> None:
    """A conversation that ends with the user is judged by its last answer, without what came after."""
    (turn,) = turns_of(event(1, "q1", "a1", "q2"))
    assert (turn.answer, len(turn.before)) == ("a1", 1)


def test_minutes() -> None:
    """A turn belongs to the minute of its event time, in UTC, whatever zone it was written in."""
    assert time_of(minute_of(AT)) == AT.replace(second=0)
    assert minute_of(AT.astimezone(timezone(timedelta(hours=5, minutes=45)))) == minute_of(AT)
    edge = AT.replace(second=59, microsecond=999_999)
    assert minute_of(edge) + 1 == minute_of(edge + timedelta(microseconds=1))
    assert minute_of(datetime(1969, 12, 31, 23, 59, 30, tzinfo=UTC)) == -1


def test_default_event_id() -> None:
    """An event that names no id is known by its deployment, conversation, time and messages."""
    m = (Message("user", "q"), Message("assistant", "a"))
    same = default_event_id("d", "c", AT, m)
    assert default_event_id("d", "c", AT, list(m)) == same
    others = [
        default_event_id("d2", "c", AT, m),
        default_event_id("d", "c2", AT, m),
        default_event_id("d", "c", AT + timedelta(microseconds=1), m),
        default_event_id("d", "c", AT, m[:1]),
        default_event_id("d", "c", AT, (m[0], Message("assistant", "a "))),
        default_event_id("d", "c", AT, (m[0], Message("tool", "a"))),
    ]
    assert len({same, *others}) == 7


def test_default_event_id_is_not_forged() -> None:
    """No text within one message can make a transcript pass for another one, already counted."""
    two = (Message("user", "q"), Message("assistant", "a"))
    one = (Message("user", "q\x01assistant\x00a"),)
    assert default_event_id("d", "c", AT, one) != default_event_id("d", "c", AT, two)
    assert default_event_id("d\0c", "", AT, two) != default_event_id("d", "c\0", AT, two)


# --- judging and folding


@settings(max_examples=40, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_batches_and_shards(log: list[Event], rng: random.Random) -> None:
    """However events are batched and rows shared out over workers, the buckets are the same to the last bit."""
    judged = judge(log, STUB, ["route"])
    whole = fold(judged, range(len(judged.turns)))
    parts = [fold(j, range(len(j.turns))) for j in (judge([e], STUB, ["route"]) for e in log)]
    rng.shuffle(parts)
    merged: dict[tuple[SeriesKey, int], Sums] = {}
    for part in parts:
        for key, s in part.items():
            merged[key] = merged[key] + s if key in merged else s
    assert {k: v.pack() for k, v in merged.items()} == {k: v.pack() for k, v in whole.items()}


@settings(max_examples=40, deadline=None)
@given(logs())
def test_every_turn_once(log: list[Event]) -> None:
    """Every turn that asks for it is counted, once, in the bucket of its series and minute."""
    judged = judge(log, STUB, ["route"])
    assert len(judged.turns) == sum(len(list(turns_of(e))) for e in log)
    buckets = fold(judged, range(len(judged.turns)))
    assert sum(s.n for s in buckets.values()) == len(judged.turns)
    for (key, minute), s in buckets.items():
        mine = [t for t in judged.turns if series_of(t.event, ["route"]) == key and minute_of(t.event.ts) == minute]
        assert s.n == len(mine)
        # a weight is kept in eighths
        assert s.weight == pytest.approx(sum(1 / t.event.sample_rate for t in mine), abs=len(mine) / 16)


def test_chosen_rows_only() -> None:
    """Turns that were counted before are left out of the buckets."""
    judged = judge([event(i) for i in range(5)], STUB)
    (chosen,) = fold(judged, [0, 3]).values()
    assert chosen.n == 2
    assert (chosen.values == judged.terms[0] + judged.terms[3]).all()
    assert reduce(add, (Sums(t) for t in judged.terms), Sums.zero()).n == 5


def test_columns() -> None:
    """A judgement is kept in whole 4096ths, beside its factors, its doubt and who judged."""
    judged = judge([event(i) for i in range(3)], STUB)
    said = STUB.classify(judged.turns)
    assert (judged.q.sum(axis=1) == Q_UNIT).all()
    assert judged.q / Q_UNIT == pytest.approx(said.probabilities, abs=1 / Q_UNIT)
    assert judged.factors / Q_UNIT == pytest.approx(said.factors, abs=0.5 / Q_UNIT)
    assert judged.doubt.tolist() == said.doubt.tolist()
    assert (judged.version, judged.tier) == ("stub-1", "fast")


def test_sampled_traffic_weighs_more() -> None:
    """A turn from traffic sampled at 1 % counts for a hundred."""
    (s,) = fold(judge([event(1, sample_rate=0.01)], STUB), [0]).values()
    assert (s.n, s.weight) == (1, 100.0)


@pytest.mark.parametrize("p", [[np.nan] * 5, [0.5, 0.5, 0.5, 0, 0], [-1.0, 2, 0, 0, 0]])
def test_broken_classifier(p: list[float]) -> None:
    """A classifier that answers NaN, or no probabilities, is stopped before anything is added."""

    class Broken(Stub):
        def classify(self, turns: Sequence[Turn]) -> Judgements:
            return replace(super().classify(turns), probabilities=np.array([p] * len(turns)))

    with pytest.raises(ValueError, match="simplex"):
        judge([event(1)], Broken())


# --- series


def test_series_by_labels() -> None:
    """A deployment's model is one series, split only by the labels asked for; a missing label counts as empty."""
    e = event(1, labels={"route": "/a", "tenant": "t"})
    assert series_of(e) == SeriesKey("chat", "m1")
    assert series_of(e, ["route"]) == SeriesKey("chat", "m1", (("route", "/a"),))
    assert series_of(event(1), ["route"]) == SeriesKey("chat", "m1", (("route", ""),))
    assert series_of(e).name == "chat/m1"
    assert series_of(e, ["route", "tenant"]).name == "chat/m1{route=/a,tenant=t}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SeriesKey("a/b", "c"), SeriesKey("a", "b/c")),
        (SeriesKey("a", "b", (("k", "1,j=2"),)), SeriesKey("a", "b", (("k", "1"), ("j", "2")))),
        (SeriesKey("a", "b{k=1}"), SeriesKey("a", "b", (("k", "1"),))),
    ],
)
def test_series_names_differ(one: SeriesKey, other: SeriesKey) -> None:
    """Two series never bear one name, so that none hides behind another's or takes its alert's id."""
    assert one.name != other.name
