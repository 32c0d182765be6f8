"""What keeps alerts quiet from outside: silences that people set, and alerts that make others superfluous. Pure.

Both go by an alert's labels (alerts.notice.Notice.labels). An absent label is the empty string, as in Alertmanager.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final

from alerts.settings import Inhibit
from monitor.errors import ConfigError
from streams.reasons import printable

MOST_MATCHERS: Final = 16
LONGEST_MATCHER: Final = 200
"""Characters of a label's name or value."""
MOST_WILDCARDS: Final = 10
"""`*` in one value."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts whose labels match all matchers are not told of from `starts_at` until `ends_at` or `ended_at`.

    Attributes
    ----------
    matchers : label -> value, or a glob (`*`, `?`, `[ab]`).
    """

    id: str
    matchers: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime
    created_by: str = ""
    comment: str = ""
    ended_at: datetime | None = None

    def active(self, now: datetime) -> bool:
        """Whether it holds at `now`, which does not count its end."""
        return self.starts_at <= now < self.ends_at and (self.ended_at is None or now < self.ended_at)


def parse_matchers(parts: Iterable[str]) -> dict[str, str]:
    """Matchers from `label=value` texts.

    Raises
    ------
    ConfigError : a text that is none, a label that comes twice, none at all (it would silence everything), too many.

    >>> parse_matchers(["rule=value_drift", "series=support-bot/*"])
    {'rule': 'value_drift', 'series': 'support-bot/*'}
    """
    matchers: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{printable(part)} is no matcher: write label=value, such as rule=value_drift")
        if name.strip() in matchers:
            raise ConfigError(f"matcher {printable(name)} comes twice: all matchers must match, so at most one could")
        matchers[name.strip()] = value
    return checked_matchers(matchers)


def checked_matchers(matchers: Mapping[str, str]) -> dict[str, str]:
    """These matchers, within bounds. Raises ConfigError as `parse_matchers` does."""
    if not matchers:
        raise ConfigError(
            "a silence needs a matcher, such as rule=value_drift; without one it would silence everything"
        )
    if len(matchers) > MOST_MATCHERS:
        raise ConfigError(f"a silence has at most {MOST_MATCHERS} matchers, not {len(matchers)}")
    for name, value in matchers.items():
        if not 0 < len(name) <= LONGEST_MATCHER or len(value) > LONGEST_MATCHER:
            raise ConfigError(f"matcher {printable(name, 60)} has more than {LONGEST_MATCHER} characters, or no name")
        if value.count("*") > MOST_WILDCARDS:
            raise ConfigError(f"matcher {printable(name, 60)} has more than {MOST_WILDCARDS} wildcards")
    return dict(matchers)


def matches(matchers: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every matcher matches; no matchers match nothing.

    >>> matches({"series": "bot/*", "tenant": ""}, {"rule": "no_data", "series": "bot/a"})
    True
    """
    return bool(matchers) and all(_fits(value, labels.get(name, "")) for name, value in matchers.items())


def silencing(silences: Iterable[Silence], labels: Mapping[str, str], now: datetime) -> Silence | None:
    """The first active silence that matches."""
    return next((s for s in silences if s.active(now) and matches(s.matchers, labels)), None)


def fits_rule(pattern: str, rule: str) -> bool:
    """Whether a rule is meant: by its name, as a glob, or, of a budget, by the name of all budgets."""
    return _fits(pattern, rule) or _fits(pattern, rule.partition(":")[0])


def _fits(pattern: str, value: str) -> bool:
    # a name may hold what a glob takes for more than itself
    return pattern == value or fnmatchcase(value, pattern)


class Inhibitions:
    """Which alerts the standing ones make superfluous: built once a pass, asked once an alert.

    Parameters
    ----------
    rules : [[alerts.inhibit]].
    standing : (alert id, labels) of every alert that fires or is acknowledged.
    """

    def __init__(self, rules: Sequence[Inhibit], standing: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        self._rules = rules
        self._sources: list[dict[tuple[str, ...], str]] = [{} for _ in rules]
        for alert_id, labels in standing if rules else ():
            for rule, sources in zip(rules, self._sources, strict=True):
                if fits_rule(rule.source_rule, labels.get("rule", "")):
                    sources.setdefault(_values(rule, labels), alert_id)

    def inhibitor(self, labels: Mapping[str, str]) -> str | None:
        """Id of an alert that inhibits one with these labels. No rule inhibits itself (alerts.rulebook)."""
        for rule, sources in zip(self._rules, self._sources, strict=True):
            if sources and fits_rule(rule.target_rule, labels.get("rule", "")):
                found = sources.get(_values(rule, labels))
                if found is not None:
                    return found
        return None


def _values(rule: Inhibit, labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(name, "") for name in rule.equal)
