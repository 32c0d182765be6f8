"""[alerts] of valuedrift.toml: typed, with the defaults that need no file. alerts.rules makes rules of it."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated, Final, Literal

import msgspec

from alerts.targets.settings import TargetSettings
from monitor.errors import ConfigError

LONGEST: Final = timedelta(days=36_500)
"""Of durations; dates end not far beyond."""
_PIECE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class RuleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[alerts.rules.NAME]: a rule of one's own, or another manner for a built-in one; what is not given stays.

    A rule of one's own has a `metric` and one of `above` and `below`. Of built-in rules all take `enabled`, `for`,
    `clear_for`, `severity`, `repeat`, `labels` and `runbook`; which take more stands in alerts.rules.
    """

    enabled: bool | None = None
    metric: str | None = None
    """What a rule of one's own looks at (alerts.conditions.METRICS)."""
    above: float | None = None
    """Holds while the lower end of the interval is above this."""
    below: float | None = None
    """Holds while the upper end of the interval is below this."""
    clear_at: float | None = None
    """A standing alert is clear once the figure itself is back at this; the limit where not given."""
    margin: float | None = None
    """classifier_doubt: surely above the baseline's by so much, too."""
    silent_after: str | None = None
    """no_data: not sooner than after so long."""
    gaps: float | None = None
    """no_data: nor sooner than after so many times the longest usual gap."""
    dead_letter_share: float | None = None
    """monitor_unhealthy: more dead letters among the events of an hour."""
    lag: str | None = None
    """monitor_unhealthy: events wait longer than this."""
    step_age: str | None = None
    """monitor_unhealthy: the last step is longer ago than this."""
    for_: str | None = msgspec.field(default=None, name="for")
    """A condition must have held so long to fire."""
    clear_for: str | None = None
    """A condition must have been clear so long to resolve."""
    min_turns: int | None = None
    """Fewer turns in the metric's window say nothing."""
    severity: Literal["page", "ticket", "none"] | None = None
    repeat: str | None = None
    """Instead of alerts.repeat."""
    labels: dict[str, str] = {}
    """Added to the labels of its alerts."""
    runbook: str | None = None
    """Address of what to do; instead of alerts.runbook_url."""


class BudgetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[alerts.budgets.NAME]: so much of a behaviour in so long is accepted (alerts.burn)."""

    behaviour: str
    share: float
    """Of turns, such as 0.001."""
    window: str = "30d"


class Inhibit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[[alerts.inhibit]]: while an alert of one rule stands, those of another with equal labels are not told of."""

    source_rule: str
    target_rule: str
    equal: tuple[str, ...] = ("series",)


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told what, and when (docs/alerts.md)."""

    repeat: str = "4h"
    """Targets are told again of what stands after so long; "" tells them once."""
    flap_window: str = "1h"
    flap_changes: Annotated[int, msgspec.Meta(ge=0, le=100)] = 4
    """After so many changes of an alert within flap_window its resolves are held back; 0: never."""
    retire_after: str = "7d"
    """A series without an event for so long is retired: its silence is no news, and what rules said of it is gone."""
    dashboard_url: str = ""
    """Of a series, with {series} where its name goes."""
    runbook_url: str = ""
    """With {rule} where the rule's name goes; empty for the project's own."""
    group_by: tuple[str, ...] = ("rule",)
    """Notices that share these labels are sent together."""
    rules: dict[str, RuleSettings] = {}
    budgets: dict[str, BudgetSettings] = {}
    inhibit: tuple[Inhibit, ...] = (Inhibit("monitor_unhealthy", "no_data", ()),)
    targets: dict[str, TargetSettings] = {}


def duration(key: str, text: str) -> timedelta:
    """`90s`, `30m`, `1h30m`, `4h`, `7d` or `0`. Raises ConfigError that names the key.

    >>> str(duration("alerts.repeat", "1h30m"))
    '1:30:00'
    """
    compact = re.sub(r"\s+", "", text)
    pieces = _PIECE.findall(compact)
    seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in pieces)
    if compact != "0" and (not pieces or "".join(n + u for n, u in pieces) != compact):
        raise ConfigError(f"{key} {text!r} is no duration: write 30m, 4h, 1h30m, 7d or 0")
    if seconds > LONGEST.total_seconds():
        raise ConfigError(f"{key} {text!r} is longer than {LONGEST.days} days")
    return timedelta(seconds=seconds)
