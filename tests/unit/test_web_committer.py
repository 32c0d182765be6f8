"""The queue and its thread, against a real SQLite file: what goes wrong, goes wrong for those it concerns only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from classifiers.linear import load
from monitor.config import Config
from monitor.errors import StoreError, StoreUnreachable
from monitor.intake import Intake
from monitor.metrics import REASON_CLASSES, Metrics, reason_class
from monitor.store import schema
from monitor.store.database import open_store
from monitor.transcript import Event, Message
from monitor.web.committer import Committer, Item, Outcome, Submission
from monitor.web.keys import ANYBODY, Key
from monitor.web.refusals import Refused

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def item(name: str, text: str = "It left today.", deployment: str = "shop") -> Item:
    messages = (Message("user", "Where is it?"), Message("assistant", text))
    return Item(100, Event(name, NOW, deployment, "m", name, messages))


class Desk:
    """A committer over an intake whose `store` and database the test may break."""

    def __init__(self, engine: Engine, **settings: Any) -> None:
        self.metrics = Metrics()
        self.intake = Intake(engine, load(), Config(), lambda: NOW, None, self.metrics)
        given = {"instance": "x", "queue_events": 100, "batch_events": 50, "max_series_per_key": 9, "retry_after": 2.0}
        self.committer = Committer(self.intake, self.metrics, series_by=(), **(given | settings))
        self.stored = self.intake.store

    def breaks(self, how: Callable[[list[str]], None]) -> None:
        def store(writer: Any, arrivals: Any, bad: Any, **rest: Any) -> Any:
            how([a.event.event_id for a in arrivals])
            return self.stored(writer, arrivals, bad, **rest)

        self.intake.store = store  # type: ignore[method-assign]

    def put(self, *items: Item, key: Key = ANYBODY) -> list[Outcome]:
        return self.committer.submit(Submission(items, key)).result(20)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = open_store(f"sqlite:///{tmp_path}/a.db", retry_seconds=0.2)
    yield found
    found.dispose()


@pytest.fixture
def desk(engine: Engine) -> Iterator[Desk]:
    made = Desk(engine)
    made.committer.start()
    yield made
    assert made.committer.close(20)


def table(engine: Engine, name: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(schema.METADATA.tables[name])).all())


def test_poison_is_found(desk: Desk, engine: Engine) -> None:
    """Events that break the judging are found one by one among many and become dead letters; all others are counted."""

    def poison(ids: list[str]) -> None:
        if {"e7", "e30"} & set(ids):
            raise ZeroDivisionError("text of a transcript")

    desk.breaks(poison)
    outcomes = desk.put(*(item(f"e{n}") for n in range(40)))
    assert [o.event_id for o in outcomes if o.status == "counted"] == [f"e{n}" for n in range(40) if n not in (7, 30)]
    assert outcomes[7].reason == "cannot be judged or stored (ZeroDivisionError)"
    assert len(table(engine, "turns")) == 38
    assert {d.reason for d in table(engine, "dead_letters")} == {outcomes[7].reason}
    offset = table(engine, "offsets")[0]
    assert offset.events == offset.judged + offset.duplicates + offset.dead_letters == 40
    assert offset.position == offset.line == 40


def test_refusing_database(desk: Desk, engine: Engine) -> None:
    """An error of the database concerns the batch at hand: its clients come again, and the next one is taken."""

    def refuse(ids: list[str]) -> None:
        if "bad" in ids:
            raise StoreError("disk full")

    desk.breaks(refuse)
    with pytest.raises(Refused) as e:
        desk.put(item("bad"))
    assert (e.value.status, e.value.headers["retry-after"]) == (503, "2")
    assert desk.put(item("good")) == [Outcome("good", "counted")]
    assert not desk.committer.away


def test_database_away(desk: Desk) -> None:
    """While the database is away all are turned away at once; it is looked for, and found."""
    state = {"away": True}

    def leave(ids: list[str]) -> None:
        if state["away"]:
            raise StoreUnreachable("away")

    desk.breaks(leave)
    with pytest.raises(Refused):
        desk.put(item("a"))
    assert desk.committer.away
    with pytest.raises(Refused):
        desk.committer.check()
    state["away"] = False
    give_up = time.monotonic() + 10
    while desk.committer.away:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert desk.put(item("a")) == [Outcome("a", "counted")]


def test_full_queue(engine: Engine) -> None:
    """More events than the queue holds are refused, but a single request of any size is taken where nothing waits."""
    desk = Desk(engine, queue_events=10)
    desk.committer._thread.is_alive = lambda: True  # type: ignore[method-assign]  # it is begun later
    first = desk.committer.submit(Submission([item(f"a{n}") for n in range(20)], ANYBODY))
    assert desk.committer.full
    with pytest.raises(Refused) as e:
        desk.committer.submit(Submission([item("b")], ANYBODY))
    assert e.value.status == 503
    del desk.committer._thread.is_alive  # type: ignore[method-assign]
    desk.committer.start()
    assert {o.status for o in first.result(20)} == {"counted"}
    assert desk.committer.close(20)
    with pytest.raises(Refused):
        desk.committer.check()


def test_gone_clients(engine: Engine) -> None:
    """A request whose client has gone before it was begun is left out: it will come again."""
    desk = Desk(engine)
    desk.committer._thread.is_alive = lambda: True  # type: ignore[method-assign]
    gone = desk.committer.submit(Submission([item("gone")], ANYBODY))
    stays = desk.committer.submit(Submission([item("stays")], ANYBODY))
    assert gone.cancel()
    del desk.committer._thread.is_alive  # type: ignore[method-assign]
    desk.committer.start()
    assert stays.result(20) == [Outcome("stays", "counted")]
    assert desk.committer.close(20)
    assert [t.event_id for t in table(engine, "turns")] == ["stays"]


def test_closing_stores_what_waits(engine: Engine) -> None:
    """What was taken in before the end is stored before the end."""
    desk = Desk(engine)
    desk.committer.start()
    futures = [desk.committer.submit(Submission([item(f"e{n}")], ANYBODY)) for n in range(90)]
    assert desk.committer.close(20)
    assert {f.result(0)[0].status for f in futures} == {"counted"}
    assert len(table(engine, "turns")) == 90


def test_two_of_one_name(engine: Engine) -> None:
    """Committers of one instance name that take turns each end up with a source of their own, and lose nothing."""
    desks = [Desk(engine), Desk(engine), Desk(engine)]
    for desk in desks:
        desk.committer.start()
    for n in range(10):
        for k, desk in enumerate(desks):
            assert desk.put(item(f"e{k}-{n}")) == [Outcome(f"e{k}-{n}", "counted")]
    for desk in desks:
        assert desk.committer.close(20)
    offsets = table(engine, "offsets")
    assert sorted(o.source for o in offsets) == ["http@x", "http@x#2", "http@x#3"]
    assert sum(o.judged for o in offsets) == len(table(engine, "turns")) == 30


def test_the_same_event_of_two_clients(desk: Desk) -> None:
    """The same event twice in one transaction is counted for the first and a duplicate for the second."""
    assert [o.status for o in desk.put(item("e"), item("e"))] == ["counted", "duplicate"]


def test_bound_keys(desk: Desk) -> None:
    """A key writes its own deployments only."""
    key = Key("k", frozenset({"shop"}))
    outcomes = desk.put(item("a"), item("b", deployment="bank"), key=key)
    assert [o.status for o in outcomes] == ["counted", "rejected"]


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("JSON is malformed: invalid character (byte 5)", "json"),
        ("not UTF-8 (byte 7)", "encoding"),
        ("nested too deeply", "size"),
        ("Object missing required field `ts`", "missing"),
        ("deployment is missing", "missing"),
        ("ts 2999-01-01T00:00:00+00:00 is in the future", "time"),
        ("ts has no time zone", "time"),
        ("no assistant message to judge", "no_answer"),
        ("more than 1000 series; raise input.max_series or name fewer deployments", "too_many_series"),
        ("deployment is not one of this key's", "deployment"),
        ("sample_rate lies outside (0, 1]", "sample_rate"),
        ("deployment has 5,000 characters, over the limit of 200", "size"),
        ("cannot be judged or stored (ValueError)", "undecodable"),
        ("Expected `str`, got `int` - at `$.model`", "field"),
        ("whatever else", "other"),
    ],
)
def test_reason_classes(reason: str, named: str) -> None:
    """Every reason has one of a few classes; what an attacker writes makes no new one."""
    assert reason_class(reason) == named
    assert named in REASON_CLASSES
