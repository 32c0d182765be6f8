"""What goes to a pager over HTTP: once, in time, again after trouble, and no flood when it comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from alerts.actions import acknowledge, silence, unacknowledge
from alerts.delivery import FAILURES_TO_OPEN, LEASE, Deliverer, Lane
from alerts.notice import Notice
from alerts.targets.base import Outcome
from monitor.store import schema
from monitor.store.alert_reads import last_events
from monitor.store.database import open_store
from monitor.watch import utc_now
from tests.own_server import wait_for
from tests.service.oncall_cases import FOR, TICK, Clock, alerts, composer, lane, on_call, read, series
from tests.service.pager import Pager, PagerTarget


class Scene:
    """Two series and a pager, in a time that the test moves."""

    def __init__(self, url: str, pager: Pager, refresh_seconds: float | None = None) -> None:
        self.engine: Engine = open_store(url)
        self.clock = Clock()
        self.pager = pager
        self.target = PagerTarget(pager.port, refresh_seconds=refresh_seconds)
        self.a, self.b = series(self.engine, ["a", "b"])
        self.bad: dict[int, float] = {self.a: 0.1, self.b: 0.1}
        self.oncall = on_call(self.engine, self.clock)
        self.lane = lane(self.engine, self.target, self.clock)

    def tick(self, by: timedelta = TICK) -> None:
        read(self.engine, self.clock.now, self.bad)
        self.oncall.run(self.clock.now, live=True)
        self.lane.deliver()
        self.clock.forward(by)

    def ticks(self, n: int) -> None:
        for _ in range(n):
            self.tick()

    def close(self) -> None:
        self.target.close()
        self.engine.dispose()

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(n["series"], n["status"]) for n in self.pager.incidents.notices]

    def reasons(self, alert_id: str) -> list[tuple[str, str]]:
        with self.engine.connect() as connection:
            return [(e.kind, e.reason) for e in last_events(connection, alert_id, 1000)[0]]


@pytest.fixture
def scene(url: str, pager: Pager) -> Iterator[Scene]:
    found = Scene(url, pager)
    yield found
    found.close()


@pytest.mark.service
def test_a_condition_is_told_once_it_held_and_its_end(scene: Scene) -> None:
    """Not before `for` is over; then once, then the end; every decision says why."""
    scene.bad[scene.a] = 0.9
    scene.ticks(FOR // TICK)
    assert scene.told == []
    scene.ticks(3)
    assert scene.told == [("a/m", "firing")]
    scene.bad[scene.a] = 0.1
    scene.ticks(2)
    assert scene.told == [("a/m", "firing"), ("a/m", "resolved")]
    (key,) = scene.pager.incidents.opened
    assert scene.reasons(key) == [
        ("state", "condition holds, waiting for `for`"),
        ("state", "fired"),
        ("notify", "firing"),
        ("delivery", "delivered"),
        ("state", "resolved"),
        ("notify", "resolved"),
        ("delivery", "delivered"),
    ]
    with scene.engine.connect() as connection:
        row = connection.execute(select(schema.alerts).where(schema.alerts.c.id == key)).one()
    assert (row.rule, row.firing, row.severity) == ("too_much", False, "page")
    assert row.reason.startswith("misaligned share of 24 h: 90 %")


@pytest.mark.service
def test_a_pager_that_was_away_gets_what_still_holds(scene: Scene) -> None:
    """Of what came and went meanwhile it hears nothing; of what still holds one notice."""
    scene.pager.close()
    scene.bad[scene.a] = scene.bad[scene.b] = 0.9
    scene.ticks(10)
    scene.bad[scene.b] = 0.1
    scene.ticks(50)
    back = Pager()
    target = PagerTarget(back.port)
    scene.lane = lane(scene.engine, target, scene.clock)
    scene.ticks(8)
    target.close()
    assert [(n["series"], n["status"]) for n in back.incidents.notices] == [("a/m", "firing")]
    assert scene.lane.depth().waiting == 0
    with scene.engine.connect() as connection:
        events = schema.alert_events
        unsaid = connection.execute(select(events.c.series_id).where(events.c.reason == "resolved before it was sent"))
        assert unsaid.scalars().all() == [scene.b]
    back.close()


@pytest.mark.service
def test_a_notice_that_may_have_arrived_gets_its_end(scene: Scene) -> None:
    """The pager took it and its answer was lost: the incident does not stay open."""
    scene.pager.mode = "deaf"
    scene.bad[scene.a] = 0.9
    scene.ticks(4)
    assert scene.pager.incidents.open
    scene.bad[scene.a] = 0.1
    scene.pager.mode = "up"
    scene.ticks(8)
    assert scene.pager.incidents.open == {}
    assert len(scene.pager.incidents.opened) == 1


@pytest.mark.service
def test_what_a_dead_process_held_goes_out_after_its_lease(scene: Scene) -> None:
    """A claim without an end keeps others away for a minute, not for ever."""

    class Dies(PagerTarget):
        def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
            raise KeyboardInterrupt

    scene.bad[scene.a] = 0.9
    scene.ticks(2)
    healthy, dead = scene.lane, Dies(scene.pager.port)
    scene.lane = lane(scene.engine, dead, scene.clock)
    with pytest.raises(KeyboardInterrupt):
        scene.tick()
    dead.close()
    scene.lane = healthy
    scene.tick(timedelta(0))
    assert scene.told == []
    scene.clock.forward(LEASE)
    scene.tick()
    assert scene.told == [("a/m", "firing")]


@pytest.mark.service
def test_a_pager_that_fails_is_left_alone_for_a_while(scene: Scene) -> None:
    """Call after call to one that fails is no help: the waits grow, and one call tries whether it is back."""
    calls = []

    class Counted(PagerTarget):
        def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
            calls.append(len(notices))
            return super().send(notices)

    target = Counted(scene.pager.port)
    scene.lane = lane(scene.engine, target, scene.clock)
    scene.pager.mode = "busy"
    scene.bad[scene.a] = scene.bad[scene.b] = 0.9
    for _ in range(3600):
        scene.lane.deliver()
        if not scene.clock.now.second:
            read(scene.engine, scene.clock.now, scene.bad)
            scene.oncall.run(scene.clock.now, live=True)
        scene.clock.forward(timedelta(seconds=1))
    assert FAILURES_TO_OPEN < len(calls) < 60
    assert set(calls[FAILURES_TO_OPEN:]) == {1}
    scene.pager.mode = "up"
    scene.ticks(8)
    assert len(scene.pager.incidents.open) == 2
    target.close()


@pytest.mark.service
def test_a_standing_alert_is_refreshed_where_the_target_forgets(url: str, pager: Pager) -> None:
    """A target that forgets is told again as often as it asks, under the same revision; of the end once."""
    scene = Scene(url, pager, refresh_seconds=120.0)
    scene.bad[scene.a] = 0.9
    scene.ticks(10)
    firing = [n for n in pager.incidents.notices if n["status"] == "firing"]
    assert len(firing) == 4
    assert {n["revision"] for n in firing} == {1}
    scene.bad[scene.a] = 0.1
    scene.ticks(10)
    assert [n["status"] for n in pager.incidents.notices][4:] == ["resolved"]
    scene.close()


@pytest.mark.service
def test_acknowledged_silenced_and_said_again(scene: Scene) -> None:
    """Who takes an alert in hand hears no repeats; a silence keeps news away until it is over, and says so."""
    scene.bad[scene.a] = 0.9
    scene.ticks(4)
    (key,) = scene.pager.incidents.opened
    assert acknowledge(scene.engine, key, "Ada", scene.clock.now)
    assert not acknowledge(scene.engine, key, "Ada", scene.clock.now)
    scene.tick()
    scene.tick(timedelta(hours=5))
    scene.tick()
    assert scene.told == [("a/m", "firing"), ("a/m", "acknowledged")]
    assert unacknowledge(scene.engine, key, "Ada", scene.clock.now)
    scene.tick()
    assert scene.told[2:] == [("a/m", "firing")]
    silence(scene.engine, {"series": "b/*"}, timedelta(hours=1), "Ada", "a test of ours", scene.clock.now)
    scene.bad[scene.b] = 0.9
    scene.ticks(6)
    assert len(scene.told) == 3
    with scene.engine.connect() as connection:
        events = schema.alert_events
        why = select(events.c.reason).where(events.c.kind == "suppressed", events.c.series_id == scene.b)
        assert connection.execute(why).scalars().all() == ["silenced"]
    scene.tick(timedelta(hours=1))
    scene.tick()
    assert scene.told[3:] == [("b/m", "firing")]


@pytest.mark.service
def test_a_clock_that_was_set_back_holds_up_nothing(scene: Scene) -> None:
    """What was put off, and held by a process that died, by a clock that was a day ahead, goes out all the same."""
    scene.bad[scene.a] = 0.9
    scene.ticks(FOR // TICK)
    read(scene.engine, scene.clock.now, scene.bad)
    scene.oncall.run(scene.clock.now, live=True)
    ahead = scene.clock.now + timedelta(days=1)
    with scene.engine.begin() as connection:
        connection.execute(schema.outbox.update().values(due_at=ahead, lease_until=ahead))
    scene.lane.deliver()
    assert scene.told == [("a/m", "firing")]


@pytest.mark.service
def test_one_bad_alert_keeps_back_no_other(scene: Scene) -> None:
    """An alert of which no notice can be made is tried later; the others go out."""
    scene.bad[scene.a] = scene.bad[scene.b] = 0.9
    scene.ticks(2)
    read(scene.engine, scene.clock.now, scene.bad)
    scene.oncall.run(scene.clock.now, live=True)
    with scene.engine.begin() as connection:
        t = schema.alerts
        connection.execute(t.update().where(t.c.series_id == scene.a).values(telling_turns=[{"no": "turn"}]))
    scene.lane.deliver()
    assert scene.told == [("b/m", "firing")]
    assert scene.lane.depth().waiting == 1


@pytest.mark.service
def test_a_slow_target_holds_up_no_other(url: str, pager: Pager) -> None:
    """Each target has a thread of its own: while one hangs the other is told, and ending waits no longer than asked."""

    class Hangs(PagerTarget):
        def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
            time.sleep(3)
            return [Outcome("retry", "hung")] * len(notices)

    engine = open_store(url)
    (a,) = series(engine, ["a"])
    settings = alerts(for_="0")
    look = on_call(engine, utc_now, settings, ("slow", "pager"))
    targets: list[Any] = [Hangs(pager.port, "slow"), PagerTarget(pager.port)]
    both = Deliverer([Lane(engine, t, composer(engine, settings), ("rule",), utc_now) for t in targets])
    both.start()
    read(engine, utc_now(), {a: 0.9})
    look.run(utc_now(), live=True)
    both.wake()
    wait_for("the other target", lambda: pager.incidents.open, 20)
    wait_for("its word on it", lambda: dict(both.drain(0.0)) == {"slow": 1}, 20)
    assert both.close(20)
    engine.dispose()


@pytest.mark.service
def test_what_a_process_decided_last_goes_out_before_it_ends(scene: Scene) -> None:
    """What came into the outbox between a lane's looks is told at the end, and not by the next process."""
    looked = threading.Event()

    class Looked:
        def notified(self, target: str, result: str) -> None:
            pass

        def outbox(self, target: str, waiting: int, oldest_seconds: float) -> None:
            looked.set()

    out = lane(scene.engine, scene.target, scene.clock, observer=Looked())
    deliverer = Deliverer([out], poll_seconds=3600)
    deliverer.start()
    assert looked.wait(20)
    scene.bad[scene.a] = 0.9
    for _ in range(3):
        read(scene.engine, scene.clock.now, scene.bad)
        scene.oncall.run(scene.clock.now, live=True)
        scene.clock.forward(TICK)
    assert deliverer.close(20)
    assert scene.told == [("a/m", "firing")]
