"""On-call under kills, restarts and a pager that comes and goes: nothing is missed, told twice or left standing.

Kills come between any two transactions and around every call of the pager; a few are kill -9 of a real process.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from alerts.delivery import LEASE
from monitor.store.database import open_store
from monitor.watch import utc_now
from tests.own_server import wait_for
from tests.service.oncall_cases import FOR, TICK, Clock, lane, on_call, read, series
from tests.service.oncall_process import look_after
from tests.service.pager import Pager, PagerTarget

SEQUENCES = int(os.environ.get("VALUEDRIFT_TEST_ONCALL_SEQUENCES", "120"))
"""1,000 of them take minutes."""
QUIET = timedelta(minutes=6)
"""Longer than the longest wait between two tries."""


class Kill(BaseException):
    """The process is gone."""


class Killer:
    """Ends the process at some boundary between two effects: a transaction's beginning or end, a call of the pager."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left: int | None = None

    def arm(self) -> None:
        self._left = self._rng.randrange(14)

    def disarm(self) -> None:
        self._left = None

    def step(self, *_: Any) -> None:
        if self._left is None:
            return
        if self._left == 0:
            self._left = None
            raise Kill
        self._left -= 1


class FragileTarget(PagerTarget):
    """A target whose process may be killed before it calls, and after it was answered."""

    def __init__(self, pager: Pager, killer: Killer) -> None:
        super().__init__(pager.port)
        self._killer = killer

    def send(self, notices: Any) -> Any:
        self._killer.step()
        outcomes = super().send(notices)
        self._killer.step()
        return outcomes


class World:
    """Series whose condition comes and goes, the pager, and one process at a time that looks after them."""

    def __init__(self, engine: Engine, pager: Pager, rng: random.Random, names: list[str]) -> None:
        self.engine = engine
        self.pager = pager
        self.rng = rng
        self.clock = Clock()
        self.names = names
        self.ids = series(engine, names)
        self.killer = Killer(rng)
        self.target = FragileTarget(pager, self.killer)
        event.listen(engine, "begin", self.killer.step)
        event.listen(engine, "commit", self.killer.step)
        self.bad = dict.fromkeys(self.ids, False)
        self.since = dict.fromkeys(self.ids, self.clock.now)
        self.calm = timedelta(0)
        self.kills = 0
        self.owed = 0
        self.restart()

    def restart(self) -> None:
        """A new process: what it knows stands in the database."""
        self.target.close()
        self.target = FragileTarget(self.pager, self.killer)
        self.oncall = on_call(self.engine, self.clock)
        self.lane = lane(self.engine, self.target, self.clock, seed=self.rng.randrange(1000))

    def tick(self, *, may_kill: bool) -> None:
        """Readings, a pass, deliveries; killed anywhere, the next process is there at the next tick."""
        read(self.engine, self.clock.now, {i: 0.9 if bad else 0.1 for i, bad in self.bad.items()})
        if may_kill and self.rng.random() < 0.3:
            self.killer.arm()
        try:
            self.oncall.run(self.clock.now, live=True)
            self.lane.deliver()
            self.calm = self.calm + TICK if self.pager.mode == "up" else timedelta(0)
        except Kill:
            self.kills += 1
            self.calm = timedelta(0)
            self.restart()
        self.killer.disarm()
        self.check()
        self.clock.forward()

    def turn(self) -> None:
        """Some conditions begin or end, the pager comes or goes."""
        for i in self.ids:
            if self.rng.random() < 0.25:
                self.bad[i] = not self.bad[i]
                self.since[i] = self.clock.now
        if self.rng.random() < 0.3:
            self.pager.mode = self.rng.choice(["up", "up", "away", "deaf", "busy"])

    def settle(self) -> None:
        """The pager is up and nobody dies, for as long as the longest wait: what holds is told by then."""
        self.pager.mode = "up"
        for _ in range((LEASE + QUIET) // TICK + 2):
            self.tick(may_kill=False)

    def check(self) -> None:
        """What must hold at any moment, as the pager sees it."""
        incidents = self.pager.incidents
        assert incidents.reopened == [], "an incident that was resolved came back under its id"
        if self.calm < LEASE + QUIET:
            return
        open_series = [n["series"] for n in incidents.open.values()]
        told = set(open_series)
        assert len(open_series) == len(told), "one condition has two incidents"
        for i, name in zip(self.ids, self.names, strict=True):
            for_how_long = self.clock.now - self.since[i]
            if self.bad[i] and for_how_long > FOR + TICK:
                self.owed += 1
                assert f"{name}/m" in told, "a condition that held long enough was not told"
            if not self.bad[i] and for_how_long > TICK:
                assert f"{name}/m" not in told, "an incident is still open though its condition is over"


@pytest.mark.service
def test_random_kills_restarts_and_outages(tmp_path: Any, pager: Pager) -> None:
    """Whatever dies and whenever: each condition is told once it held long enough, under one id, and its end too."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    world = World(engine, pager, random.Random(7), ["a", "b", "c"])
    run(world, SEQUENCES)
    assert world.kills > SEQUENCES // 2
    assert world.owed > SEQUENCES // 2
    assert len(pager.incidents.opened) > SEQUENCES // 2
    engine.dispose()


@pytest.mark.service
def test_random_kills_on_postgresql(empty_postgres: str, pager: Pager) -> None:
    """The same where passes take turns by a lock and rows are claimed with one."""
    engine = open_store(empty_postgres)
    world = World(engine, pager, random.Random(8), ["a", "b", "c"])
    run(world, 12)
    assert world.kills
    assert world.owed
    engine.dispose()


@pytest.mark.service
def test_processes_killed_for_good(url: str, pager: Pager) -> None:
    """Two processes look after the same alerts and are killed -9 in turn: one incident a condition, and its end."""
    engine = open_store(url)
    ids = dict(zip(names := ["a", "b", "c"], series(engine, names), strict=True))
    rng = random.Random(9)
    bad = dict.fromkeys(names, False)
    processes = [started(url, pager.port) for _ in range(2)]
    try:
        for k in range(12):
            for name in rng.sample(names, 2):
                bad[name] = not bad[name]
            read(engine, utc_now(), {ids[n]: 0.9 if x else 0.1 for n, x in bad.items()})
            pager.mode = rng.choice(["up", "up", "away", "deaf", "busy"])
            time.sleep(rng.uniform(0.1, 0.4))
            processes[k % 2].kill()
            processes[k % 2].join()
            processes[k % 2] = started(url, pager.port)
        pager.mode = "up"

        def standing() -> set[str]:
            return {n["series"] for n in list(pager.incidents.open.values())}

        wait_for("what holds", lambda: standing() == {f"{n}/m" for n, x in bad.items() if x}, 60)
        read(engine, utc_now(), dict.fromkeys(ids.values(), 0.1))
        wait_for("the end", lambda: not pager.incidents.open, 60)
    finally:
        for p in processes:
            p.kill()
            p.join()
    assert pager.incidents.opened
    assert pager.incidents.reopened == []
    engine.dispose()


def started(url: str, port: int) -> Any:
    """A process of its own that looks after alerts until it is killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.service.oncall_process"])
    process = context.Process(target=look_after, args=(url, port), daemon=True)
    process.start()
    return process


def run(world: World, sequences: int) -> None:
    logging.getLogger("alerts.delivery").setLevel(logging.ERROR)
    for _ in range(sequences):
        for _ in range(world.rng.randint(4, 16)):
            world.turn()
            world.tick(may_kill=True)
        world.settle()
    world.target.close()
