"""From [alerts] to rules: built-in defaults, what is set over them, and every mistake by its name. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from alerts.burn import LONGEST_WINDOW, SHORTEST_WINDOW, Budget
from alerts.conditions import METRICS, Always, AnyOf, Condition, DoubtSurge, Silent, Threshold
from alerts.links import DASHBOARD_NAMES, RUNBOOK_NAMES, check_template
from alerts.machine import NONE, Policy
from alerts.reasons import COLLAPSE, VALUE_DRIFT
from alerts.rules import Rule, Rules
from alerts.settings import Alerts, BudgetSettings, RuleSettings, duration
from alerts.silences import fits_rule
from monitor.errors import ConfigError, did_you_mean
from monitor.rules import ENTROPY_LEVEL, ENTROPY_RATE
from monitor.taxonomy import BEHAVIOURS

BUDGETS: Final = "behaviour_budget"
"""The rule of all budgets; that of one is `behaviour_budget:NAME`."""
OWN_LABELS: Final = frozenset({"rule", "series", "deployment", "model", "severity", "behaviour"})
"""Labels that every alert has; a rule adds others."""
MOST_RULES: Final = 200
MOST_LABELS: Final = 16
LONGEST_LABEL: Final = 200
"""Characters of a label's value."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_EVERY_RULE: Final = frozenset({"enabled", "for", "clear_for", "severity", "repeat", "labels", "runbook"})
_OWN_RULE: Final = frozenset({"metric", "above", "below", "clear_at", "min_turns"})

Make = Callable[["_Given"], Condition | None]


@dataclass(frozen=True, slots=True)
class _Given:
    """A rule's settings over its defaults, and where they stand."""

    key: str
    settings: RuleSettings
    alerts: Alerts

    def number(self, name: str, least: float = -math.inf) -> float | None:
        """A finite number, or None where it is not set. Raises ConfigError."""
        value = getattr(self.settings, name)
        if value is not None and not (math.isfinite(value) and value >= least):
            bound = "" if least == -math.inf else f" of {least:g} or more"
            raise ConfigError(f"{self.key}.{name} = {value} must be a finite number{bound}")
        return None if value is None else float(value)

    def time(self, name: str) -> timedelta:
        """A duration, zero where it is not set. Raises ConfigError."""
        return duration(f"{self.key}.{name.rstrip('_')}", getattr(self.settings, name) or "0")


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    """Attributes: about: findings, series or monitor. takes: keys besides those of every rule."""

    about: Literal["findings", "series", "monitor"]
    make: Make = lambda given: None
    takes: frozenset[str] = frozenset()
    defaults: RuleSettings = field(default_factory=RuleSettings)
    needs_live: bool = False


def _side(metric: str, *, ages: bool = True) -> Make:
    """A threshold of a rule that has `above` or `below`; none where neither is set."""

    def make(given: _Given) -> Condition | None:
        above, below, clear_at = (given.number(name) for name in ("above", "below", "clear_at"))
        if above is not None and below is not None:
            raise ConfigError(f"{given.key} has both above and below: make two rules of it")
        limit = above if above is not None else below
        if limit is None:
            return None
        if clear_at is not None and (clear_at > limit if above is not None else clear_at < limit):
            side = "above" if above is not None else "below"
            raise ConfigError(f"{given.key}.clear_at = {clear_at:g} is still {side} {limit:g}: it would never clear")
        return Threshold(metric, limit, limit if clear_at is None else clear_at, above is not None, ages)

    return make


def _doubt(given: _Given) -> Condition:
    limit, margin = given.number("above", 0.0), given.number("margin", 0.0)
    return DoubtSurge(limit or 0.0, margin or 0.0)


def _silent(given: _Given) -> Condition:
    retire_after = duration("alerts.retire_after", given.alerts.retire_after)
    after = given.time("silent_after")
    if after >= retire_after:
        raise ConfigError(
            f"{given.key}.silent_after {given.settings.silent_after!r} must be shorter than alerts.retire_after "
            f"{given.alerts.retire_after!r}, after which silence is no news"
        )
    return Silent(after, given.number("gaps", 0.0) or 0.0, retire_after)


def _unhealthy(given: _Given) -> Condition:
    share = given.number("dead_letter_share", 0.0) or 0.0
    limits = {
        "dead_letter_share": share,
        "lag_minutes": given.time("lag") / timedelta(minutes=1),
        "step_age_minutes": given.time("step_age") / timedelta(minutes=1),
    }
    return AnyOf(tuple(Threshold(metric, limit, limit, ages=False) for metric, limit in limits.items()))


BUILT_IN: Final[Mapping[str, _BuiltIn]] = {
    VALUE_DRIFT: _BuiltIn("findings"),
    COLLAPSE: _BuiltIn("findings"),
    ENTROPY_LEVEL: _BuiltIn("findings"),
    ENTROPY_RATE: _BuiltIn("findings"),
    "alignment_work": _BuiltIn(
        "series",
        _side("margin"),
        frozenset({"below", "clear_at", "min_turns"}),
        RuleSettings(below=1.0, clear_for="1h", severity="ticket"),
    ),
    "restoring_rate": _BuiltIn(
        "series",
        _side("kappa"),
        frozenset({"below", "clear_at", "min_turns"}),
        RuleSettings(clear_for="1h", severity="ticket"),
    ),
    BUDGETS: _BuiltIn("series", takes=frozenset({"min_turns"}), defaults=RuleSettings(clear_for="1h")),
    "faithfulness": _BuiltIn(
        "series",
        _side("context_support"),
        frozenset({"below", "clear_at", "min_turns"}),
        RuleSettings(clear_for="1h", severity="ticket"),
    ),
    "classifier_doubt": _BuiltIn(
        "series",
        _doubt,
        frozenset({"above", "margin", "min_turns"}),
        RuleSettings(above=0.4, margin=0.1, for_="1h", clear_for="1h", severity="ticket"),
    ),
    "judge_disagreement": _BuiltIn(
        "series",
        _side("judge_disagreement"),
        frozenset({"above", "clear_at", "min_turns"}),
        RuleSettings(above=0.4, clear_for="1h", severity="ticket"),
    ),
    "no_data": _BuiltIn(
        "series",
        _silent,
        frozenset({"silent_after", "gaps"}),
        RuleSettings(silent_after="1h", gaps=2.0, clear_for="5m", severity="ticket"),
        needs_live=True,
    ),
    "monitor_unhealthy": _BuiltIn(
        "monitor",
        _unhealthy,
        frozenset({"dead_letter_share", "lag", "step_age"}),
        RuleSettings(dead_letter_share=0.1, lag="15m", step_age="10m", for_="5m", clear_for="10m", severity="ticket"),
    ),
    "watchdog": _BuiltIn("monitor", lambda given: Always(), defaults=RuleSettings(severity=NONE)),
}
"""What there is without a file; a rule without a limit is off until it gets one."""


def compile_rules(alerts: Alerts) -> Rules:
    """The rules that are on.

    Raises
    ------
    ConfigError : names the rule, the key, and the nearest known name where one is unknown.
    """
    if len(alerts.rules) + len(alerts.budgets) > MOST_RULES:
        raise ConfigError(f"alerts.rules and alerts.budgets have more than {MOST_RULES} rules")
    check_template("alerts.dashboard_url", alerts.dashboard_url, DASHBOARD_NAMES)
    check_template("alerts.runbook_url", alerts.runbook_url, RUNBOOK_NAMES)
    made: dict[str, list[Rule]] = {"findings": [], "series": [], "monitor": []}
    for name, built_in in BUILT_IN.items():
        settings = alerts.rules.get(name, RuleSettings())
        key = f"alerts.rules.{name}"
        _check_keys(key, settings, built_in.takes)
        given = _Given(key, _over(built_in.defaults, settings), alerts)
        if name == BUDGETS:
            made["series"] += _budgets(given)
            continue
        condition = built_in.make(given)
        rule = _rule(name, given, condition, needs_live=built_in.needs_live)
        if given.settings.enabled is not False and (condition is not None or built_in.about == "findings"):
            made[built_in.about].append(rule)
        elif given.settings.enabled and condition is None:
            raise ConfigError(f"{key} is enabled and has no limit: set {key}.below")
    for name, settings in alerts.rules.items():
        if name not in BUILT_IN:
            made["series"] += _own(f"alerts.rules.{name}", name, settings, alerts)
    rules = Rules({r.name: r for r in made["findings"]}, tuple(made["series"]), tuple(made["monitor"]), alerts.inhibit)
    _check_inhibit(alerts, {*BUILT_IN, *alerts.rules, *(f"{BUDGETS}:{name}" for name in alerts.budgets)})
    return rules


def _own(key: str, name: str, settings: RuleSettings, alerts: Alerts) -> Iterator[Rule]:
    if settings.metric is None:
        hint = did_you_mean(name, BUILT_IN)
        raise ConfigError(f"{key} is not a built-in rule{hint} A rule of one's own needs {key}.metric")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{key}: a rule's name has 1 to 64 of a-z, 0-9 and _, beginning with a letter")
    if settings.metric not in METRICS:
        raise ConfigError(f"{key}.metric {settings.metric!r} is not known{did_you_mean(settings.metric, METRICS)}")
    _check_keys(key, settings, _OWN_RULE)
    given = _Given(key, _over(RuleSettings(severity="ticket"), settings), alerts)
    condition = _side(settings.metric)(given)
    if condition is None:
        raise ConfigError(f"{key} has no limit: set {key}.above or {key}.below")
    rule = _rule(name, given, condition)
    if settings.enabled is not False:
        yield rule


def _budgets(given: _Given) -> Iterator[Rule]:
    for name, budget in given.alerts.budgets.items():
        key = f"alerts.budgets.{name}"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{key}: a budget's name has 1 to 64 of a-z, 0-9 and _, beginning with a letter")
        rule = _rule(f"{BUDGETS}:{name}", given, _budget(key, budget))
        if given.settings.enabled is not False:
            yield rule


def _budget(key: str, budget: BudgetSettings) -> Budget:
    if budget.behaviour not in BEHAVIOURS:
        hint = did_you_mean(budget.behaviour, BEHAVIOURS)
        raise ConfigError(f"{key}.behaviour {budget.behaviour!r} is not known{hint}")
    if not 0 < budget.share < 1:
        raise ConfigError(f"{key}.share = {budget.share} must lie between 0 and 1, such as 0.001")
    window = duration(f"{key}.window", budget.window)
    if not SHORTEST_WINDOW <= window <= LONGEST_WINDOW:
        raise ConfigError(
            f"{key}.window {budget.window!r} must be from {SHORTEST_WINDOW.days}d to {LONGEST_WINDOW.days}d"
        )
    return Budget(budget.behaviour, budget.share, window)


def _rule(name: str, given: _Given, condition: Condition | None, *, needs_live: bool = False) -> Rule:
    s, alerts = given.settings, given.alerts
    least = s.min_turns or 0
    if least < 0:
        raise ConfigError(f"{given.key}.min_turns = {least} must be 0 or more")
    if least and condition is not None and not condition.turns:
        raise ConfigError(f"{given.key}.min_turns has no meaning: {', '.join(condition.metrics)} counts no turns")
    repeat_key, repeat = (f"{given.key}.repeat", s.repeat) if s.repeat is not None else ("alerts.repeat", alerts.repeat)
    policy = Policy(
        for_=given.time("for_"),
        clear_for=given.time("clear_for"),
        repeat=duration(repeat_key, repeat) if repeat else None,
        flap_window=duration("alerts.flap_window", alerts.flap_window),
        flap_changes=alerts.flap_changes,
        gone_after=duration("alerts.retire_after", alerts.retire_after),
        severity=s.severity,
    )
    if policy.repeat is not None and policy.repeat < timedelta(minutes=1):
        raise ConfigError(f'{repeat_key} {repeat!r} must be a minute or more, or "" to tell once')
    _check_labels(given.key, s.labels)
    check_template(f"{given.key}.runbook", s.runbook or "", ())
    return Rule(
        name,
        policy,
        condition,
        needs_live,
        least,
        s.labels,
        s.runbook or "",
        policy.gone_after,
    )


def _over(defaults: RuleSettings, settings: RuleSettings) -> RuleSettings:
    return msgspec.structs.replace(defaults, **_set(settings))


def _set(settings: RuleSettings) -> dict[str, Any]:
    """What is set of them, by field."""
    return {k: v for k in settings.__struct_fields__ if (v := getattr(settings, k)) not in (None, {})}


def _check_keys(key: str, settings: RuleSettings, takes: frozenset[str]) -> None:
    allowed = _EVERY_RULE | takes
    for name in (name.rstrip("_") for name in _set(settings)):
        if name not in allowed:
            raise ConfigError(f"{key}.{name} has no meaning for this rule; it takes {', '.join(sorted(allowed))}")


def _check_labels(key: str, labels: Mapping[str, str]) -> None:
    if len(labels) > MOST_LABELS:
        raise ConfigError(f"{key}.labels has more than {MOST_LABELS} labels")
    for name, value in labels.items():
        if name in OWN_LABELS or not _LABEL.fullmatch(name):
            raise ConfigError(
                f"{key}.labels: {name!r} cannot be used: letters, digits and _, and none of {sorted(OWN_LABELS)}"
            )
        if len(value) > LONGEST_LABEL:
            raise ConfigError(f"{key}.labels.{name} has more than {LONGEST_LABEL} characters")


def _check_inhibit(alerts: Alerts, names: Iterable[str]) -> None:
    """Raises ConfigError on a name that no rule has, and on rules that would keep each other quiet."""
    known = sorted(names)
    edges: dict[str, set[str]] = {name: set() for name in known}
    for i, rule in enumerate(alerts.inhibit):
        sides = {}
        for key in ("source_rule", "target_rule"):
            pattern = getattr(rule, key)
            sides[key] = [name for name in known if fits_rule(pattern, name)]
            if not sides[key]:
                raise ConfigError(f"alerts.inhibit[{i}].{key} {pattern!r} is no rule{did_you_mean(pattern, known)}")
        for source in sides["source_rule"]:
            edges[source].update(sides["target_rule"])
    for name in known:
        seen: set[str] = set()
        ahead = list(edges[name])
        while ahead:
            if (at := ahead.pop()) == name:
                raise ConfigError(f"alerts.inhibit: {name} would be kept quiet by what it keeps quiet itself")
            if at not in seen:
                seen.add(at)
                ahead += edges[at]
