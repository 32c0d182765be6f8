"""The on-call pass: after every step of all series, what each rule sees, what its alerts do next, who is told.

A pass reads what is stored, decides (`alerts.board`, pure), and writes states, decisions and the outbox in one
transaction; passes of several processes take turns. Killed anywhere, nothing is written, and the next pass comes to the
same result, for it looks at how things stand and not at what happened since. What it wants told is sent by
alerts.delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from alerts.board import Board, Decided, Finding, Raised, decide
from alerts.conditions import Readings
from alerts.machine import Instance
from alerts.rules import Rules
from alerts.severity import severities
from alerts.silences import Silence
from alerts.stages import Recipient
from monitor.readings import Reading
from monitor.state import SeriesState
from monitor.store import oncall as store
from monitor.store import outbox, reads
from monitor.store.database import committed
from monitor.store.retry import reading
from monitor.store.trajectories import FINDINGS, Alert
from monitor.trajectory import Settings
from monitor.unhealthy import monitor_figures

UNSAID: Final = "resolved before it was sent"
"""Reason of an event: a target is told neither the beginning nor the end."""


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass came to.

    Attributes
    ----------
    raised : alerts of rules on readings that fire since now; those of findings are told by the step that found them.
    told : how many notices went to the outbox.
    """

    raised: tuple[Raised, ...] = ()
    told: int = 0


@dataclass(frozen=True, slots=True)
class OnCall:
    """Everything a pass needs but time.

    Parameters
    ----------
    recipients : the targets, as far as it is asked here.
    settings : that series are followed with; the severity of findings follows from them.
    clock : by which the outbox is sent, whatever time a pass decides by.
    """

    engine: Engine
    rules: Rules
    recipients: Sequence[Recipient]
    settings: Settings
    clock: Callable[[], datetime]

    def run(
        self, now: datetime, *, live: bool, caught_up: bool = True, figures: Mapping[str, Reading] | None = None
    ) -> PassResult:
        """One pass.

        Parameters
        ----------
        now : the clock's time where events come from a live source; else that of the newest event.
        live : whether events come from a live source.
        caught_up : whether what was produced was read; what is half read seems silent.
        figures : of this process, for the rule monitor_unhealthy (alerts.conditions.MONITOR_METRICS).

        Raises
        ------
        StoreError : the database cannot be used.
        """

        def work(connection: Connection) -> PassResult:
            store.take_turn(connection)
            board = self._board(connection, now, live, figures or {}, silence_tells=live and caught_up)
            decided = decide(board, self.rules, self.recipients, now)
            self._write(connection, decided, now)
            return PassResult(decided.raised, len(decided.told))

        return committed(self.engine, work)

    def finite(self) -> PassResult:
        """A pass over what was read to its end: by the time of its newest event, or of the last pass by the clock."""
        newest = reading(self.engine, store.newest_event)
        return PassResult() if newest is None else self.run(newest, live=False)

    def _board(
        self, connection: Connection, now: datetime, live: bool, figures: Mapping[str, Reading], *, silence_tells: bool
    ) -> Board:
        memories = {(r.rule, r.series_id): Instance.from_json(r.memory) for r in store.states(connection)}
        firing = [a for a in reads.firing_alerts(connection) if a.rule in FINDINGS]
        known = {a.id: a for a in firing}
        remembered = {i.alert_id for i in memories.values() if i.alert_id is not None}
        known |= {a.id: a for a in reads.alerts_by_id(connection, remembered - known.keys())}
        severity = self._severities(connection, firing)
        at_hand = store.readings(connection)
        own = next((r.values for r in at_hand if r.series_id == store.MONITOR), {})
        monitor, kept = monitor_figures(connection, own, now)
        if live:
            store.put_reading(connection, store.ReadingRow(store.MONITOR, now, now, kept))
        return Board(
            series=store.series_keys(connection),
            readings={
                r.series_id: Readings(r.values, r.t, r.last_event) for r in at_hand if r.series_id != store.MONITOR
            },
            monitor=Readings({**monitor, **figures}, now, now),
            memories=memories,
            alerts=known,
            findings=[Finding(a, severity[a.id]) for a in firing],
            silences=[silence_of(row) for row in store.silences(connection, now)],
            live=silence_tells,
        )

    def _severities(self, connection: Connection, firing: Sequence[Alert]) -> dict[str, str]:
        """`page` or `ticket` of every finding that fires, decided among all series together."""
        if not firing:
            return {}
        packed = store.packed_states(connection)
        of_series: dict[int, list[Alert]] = {}
        for a in firing:
            if a.series_id is not None:
                of_series.setdefault(a.series_id, []).append(a)
        states = [(SeriesState.unpack(packed[s]), alerts) for s, alerts in of_series.items() if s in packed]
        armed = sum(SeriesState.is_armed(data) for data in packed.values())
        found = severities(states, self.settings, armed=armed)
        return {a.id: found.get(a.id, "ticket") for a in firing}

    def _write(self, connection: Connection, decided: Decided, now: datetime) -> None:
        store.put_states(connection, decided.put, now)
        store.forget_states(connection, decided.forgotten, now)
        store.raise_alerts(connection, [r.alert for r in decided.raised])
        for alert_id in decided.ended:
            store.end_raised(connection, alert_id, now)
        for alert_id, values in decided.changed.items():
            store.change_alert(connection, alert_id, **values)
        events = list(decided.events)
        at = self.clock()
        for w in outbox.want(connection, decided.told, at):
            rule, series_id = decided.keys[w.alert_id]
            events.append(
                store.AlertEvent(w.alert_id, rule, series_id, now, "suppressed", UNSAID, target=w.target),
            )
        store.add_events(connection, events)


def silence_of(row: Mapping[str, object]) -> Silence:
    """A silence as it is kept."""
    return Silence(**{k: v for k, v in row.items() if k != "created_at"})  # type: ignore[arg-type]
