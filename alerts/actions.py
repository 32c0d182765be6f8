"""What people do to alerts: take them in hand, keep them quiet. The next pass tells the targets (alerts.oncall)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from alerts.machine import LONGEST_NAME, Instance, Step
from alerts.machine import acknowledge as acknowledged
from alerts.machine import unacknowledge as unacknowledged
from alerts.silences import Silence, checked_matchers
from monitor.errors import ConfigError
from monitor.store import oncall as store
from monitor.store.database import committed
from streams.reasons import printable

LONGEST_COMMENT: Final = 1000
"""Characters of why somebody silences or acknowledges."""
LONGEST_SILENCE: Final = timedelta(days=30)
"""What should be quiet for longer is a matter of the settings, where others see it."""
MOST_SILENCES: Final = 500
"""At a time: a pass holds every alert against each."""


def acknowledge(engine: Engine, alert_id: str, by: str, now: datetime, comment: str = "") -> bool:
    """Somebody has an alert in hand; returns whether it fired.

    Raises
    ------
    StoreError : the database cannot be used.
    """
    return _act(engine, alert_id, lambda instance: acknowledged(instance, by, now), now, comment)


def unacknowledge(engine: Engine, alert_id: str, by: str, now: datetime, comment: str = "") -> bool:
    """Nobody has it in hand any more; returns whether somebody had. Raises StoreError."""
    return _act(engine, alert_id, lambda instance: unacknowledged(instance, by), now, comment)


def silence(
    engine: Engine, matchers: Mapping[str, str], time: timedelta, by: str, comment: str, now: datetime
) -> Silence:
    """Nobody is told of alerts whose labels match (alerts.silences.parse_matchers) from now on for a time.

    Raises
    ------
    ConfigError : no time at all, or too long; matchers that are none; too many silences already.
    StoreError : the database cannot be used.
    """
    if time <= timedelta(0):
        raise ConfigError("a silence lasts longer than nothing, such as 2h")
    if time > LONGEST_SILENCE:
        raise ConfigError(
            f"a silence lasts {LONGEST_SILENCE.days} days at most; for longer turn the rule off or give it other "
            "limits (docs/alerts.md)"
        )
    made = Silence(
        id=secrets.token_hex(8),
        matchers=checked_matchers(matchers),
        starts_at=now,
        ends_at=now + time,
        created_by=printable(by, LONGEST_NAME),
        comment=printable(comment, LONGEST_COMMENT),
    )
    values = {name: getattr(made, name) for name in Silence.__slots__} | {"created_at": now}

    def work(connection: Connection) -> None:
        if len(store.silences(connection, now)) >= MOST_SILENCES:
            raise ConfigError(f"there are {MOST_SILENCES} silences already: end some, or make one of several")
        store.add_silence(connection, values)

    committed(engine, work)
    return made


def end_silence(engine: Engine, silence_id: str, now: datetime) -> bool:
    """Returns whether it stood. Raises StoreError."""
    return committed(engine, lambda connection: store.end_silence(connection, silence_id, now))


def _act(engine: Engine, alert_id: str, act: Callable[[Instance], Step], now: datetime, comment: str) -> bool:
    because = f": {printable(comment, LONGEST_COMMENT)}" if comment else ""

    def work(connection: Connection) -> bool:
        store.take_turn(connection)
        changed = False
        for row in store.states(connection, alert_id):
            instance, decisions = act(Instance.from_json(row.memory))
            if not decisions:
                continue
            changed = True
            kept = store.StateRow(row.rule, row.series_id, instance.state, instance.alert_id, instance.to_json())
            store.put_states(connection, [kept], now)
            store.change_alert(
                connection, alert_id, acknowledged_at=instance.acked_at, acknowledged_by=instance.acked_by
            )
            store.add_events(
                connection,
                [
                    store.AlertEvent(alert_id, row.rule, row.series_id, now, "ack", d.reason, d.text + because)
                    for d in decisions
                ],
            )
        return changed

    return committed(engine, work)
