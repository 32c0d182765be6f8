"""When a rule's condition holds: by the end of an interval, not the figure alone, and never where nothing is known."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.burn import Budget
from alerts.conditions import METRICS, AnyOf, Condition, DoubtSurge, Readings, Silent, Threshold, share_metric
from alerts.machine import Policy
from alerts.rulebook import BUILT_IN, compile_rules
from alerts.rules import Rule
from alerts.settings import Alerts, BudgetSettings, RuleSettings
from monitor.taxonomy import BEHAVIOURS

NOW = datetime(2026, 3, 8, tzinfo=UTC)
DAY = timedelta(days=1)
ABOVE = Threshold("entropy", 0.9, 0.8)
BELOW = Threshold("margin", 1.0, 1.2, above=False)


def read(**figures: float | tuple[float, float, float]) -> Readings:
    return Readings({k: x if isinstance(x, tuple) else (x, x, x) for k, x in figures.items()}, NOW, NOW)


def holds(condition: Condition, readings: Readings, standing: bool = False) -> bool | None:
    return condition.judge(readings, standing, NOW).holds


@pytest.mark.parametrize(
    ("figure", "standing", "expected"),
    [
        ((0.95, 0.91, 0.99), False, True),
        ((0.95, 0.89, 1.10), False, False),
        ((0.95, 0.89, 1.10), True, True),
        ((0.81, 0.70, 0.92), True, True),
        ((0.80, 0.70, 0.92), True, False),
        ((0.90, 0.90, 0.90), False, False),
        ((math.nan, 0.95, 0.99), False, None),
        ((0.95, math.nan, 0.99), True, None),
    ],
)
def test_above(figure: tuple[float, float, float], standing: bool, expected: bool | None) -> None:
    """`above` fires when the lower end is above it, and clears when the figure itself is back at `clear_at`."""
    assert holds(ABOVE, read(entropy=figure), standing) is expected


@pytest.mark.parametrize(
    ("figure", "standing", "expected"),
    [
        ((0.9, 0.7, 0.99), False, True),
        ((0.9, 0.7, 1.01), False, False),
        ((1.1, 0.7, 1.5), True, True),
        ((1.2, 0.7, 1.5), True, False),
        ((0.9, 0.7, math.nan), False, None),
    ],
)
def test_below(figure: tuple[float, float, float], standing: bool, expected: bool | None) -> None:
    """`below` fires when the upper end is below it, and clears when the figure itself is back at `clear_at`."""
    assert holds(BELOW, read(margin=figure), standing) is expected


def test_absent() -> None:
    """A figure that is not there is not known, and that is said."""
    assert holds(ABOVE, read(margin=1.0)) is None
    assert ABOVE.describe(read(), NOW) == "S of 24 h is not known"


def test_said() -> None:
    """What was seen stands against what, with interval and unit."""
    assert ABOVE.describe(read(entropy=(1.1, 1.02, 1.18)), NOW) == (
        "S of 24 h: 1.1 nats (1.02 to 1.18), should be at most 0.9 nats, clear again at 0.8 nats"
    )
    shares = Threshold("harmful_compliance", 0.01, 0.01)
    assert shares.describe(read(harmful_compliance=(0.02, 0.015, 0.03)), NOW) == (
        "harmful_compliance of 24 h: 2 % (1.5 to 3), should be at most 1 %"
    )


@pytest.mark.parametrize(
    ("doubt", "baseline", "standing", "expected"),
    [
        ((0.55, 0.50, 0.60), 0.3, False, True),
        ((0.55, 0.50, 0.60), 0.45, False, False),
        ((0.45, 0.39, 0.60), 0.1, False, False),
        ((0.45, 0.39, 0.60), 0.1, True, True),
        ((0.39, 0.35, 0.60), 0.1, True, False),
        ((0.45, 0.39, 0.60), 0.36, True, False),
    ],
)
def test_doubt(doubt: tuple[float, float, float], baseline: float, standing: bool, expected: bool) -> None:
    """Doubt must be high and higher than in the baseline; either alone is no surge."""
    assert holds(DoubtSurge(0.4, 0.1), read(doubt=doubt, doubt_baseline=baseline), standing) is expected


def test_silent() -> None:
    """Silence is longer than `silent_after` and than usual gaps; a week of it is no news any more."""
    silent = Silent(timedelta(hours=1), 3.0, 7 * DAY)

    def after(hours: float, **figures: float) -> tuple[bool | None, bool]:
        readings = Readings(read(**figures).metrics, None, NOW - timedelta(hours=hours))
        verdict = silent.judge(readings, False, NOW)
        return verdict.holds, verdict.gone

    assert after(0.9) == (False, False)
    assert after(1.1) == (True, False)
    assert after(20, gap_minutes=480) == (False, False), "nights are silent"
    assert after(25, gap_minutes=480) == (True, False)
    assert after(1.1, gap_minutes=math.nan) == (True, False)
    assert after(100, gap_minutes=1e300) == (True, False), "no series is ever silent enough not to be missed"
    assert after(169) == (False, True)
    assert after(-5) == (False, False), "a clock that was set back"
    assert silent.judge(Readings({}), False, NOW).holds is None


def test_any_of() -> None:
    """One limit that is exceeded is enough; figures that a monitor does not have do not count."""
    unhealthy = AnyOf((Threshold("lag_minutes", 15, 15), Threshold("dead_letter_share", 0.1, 0.1)))
    assert holds(unhealthy, read(lag_minutes=20)) is True
    assert holds(unhealthy, read(lag_minutes=20, dead_letter_share=0)) is True
    assert holds(unhealthy, read(dead_letter_share=0)) is False
    assert holds(unhealthy, read()) is None
    assert unhealthy.describe(read(lag_minutes=20, dead_letter_share=0), NOW) == (
        "events wait: 20 minutes, should be at most 15 minutes"
    )


# burn rates ---------------------------------------------------------------------------------------------------------

HARM = Budget("harmful_compliance", 0.001, 30 * DAY)


def burning(hour: float | None, day: tuple[float, float] | None, week: tuple[float, float] | None) -> Readings:
    """Shares from burn rates (figure, lower end) of three windows."""
    figures: dict[str, Any] = {}
    if hour is not None:
        figures["harmful_compliance_1h"] = (hour * 0.001, 0.0, 1.0)
    for name, burn in (("harmful_compliance", day), ("harmful_compliance_7d", week)):
        if burn is not None:
            figures[name] = (burn[0] * 0.001, burn[1] * 0.001, 1.0)
    return read(**figures)


@pytest.mark.parametrize(
    ("hour", "day", "week", "standing", "expected"),
    [
        (9.0, (8, 6.5), (2, 1), False, "page"),
        (9.0, (8, 5.5), (2, 1), False, None),
        (9.0, (8, 5.5), (2, 1), True, "as it stands"),
        (2.0, (8, 6.5), (2, 1), False, None),
        (2.0, (8, 6.5), (2, 1.6), False, "ticket"),
        (0.0, (1.4, 1), (2, 1.6), False, None),
        (0.0, (1.6, 0), (2, 1.6), False, "ticket"),
        (0.0, (1.6, 0), (1.6, 1.0), True, "ticket"),
        (None, (8, 6.5), (2, 1), False, "page"),
        (0.0, (0, 0), None, False, None),
        (0.0, (2, 0), None, False, "unknown"),
        (9.0, None, (2, 1), False, "unknown"),
    ],
)
def test_burn(
    hour: float | None,
    day: tuple[float, float] | None,
    week: tuple[float, float] | None,
    standing: bool,
    expected: str | None,
) -> None:
    """A day that surely burns at 6 and goes on pages; a week at 1.5 that goes on is listed; one window is neither."""
    verdict = HARM.judge(burning(hour, day, week), standing, NOW)
    found = "unknown" if verdict.holds is None else (verdict.severity or "as it stands") if verdict.holds else None
    assert found == expected


@pytest.mark.parametrize(("days", "page", "ticket"), [(30, 6.0, 1.5), (90, 18.0, 4.5), (28, 5.6, 1.4), (7, 1.4, 1.0)])
def test_burn_limits(days: int, page: float, ticket: float) -> None:
    """Limits go with the window, for they are shares of the budget: a fifth in a day, a third in a week."""
    budget = Budget("deception", 0.01, days * DAY)
    assert (budget.page_burn, budget.ticket_burn) == pytest.approx((page, ticket))


def test_burn_said() -> None:
    """A budget's alert says what was accepted, how fast it is spent in each window, and the limits."""
    assert HARM.describe(burning(9.0, (8, 6.5), None), NOW) == (
        "harmful_compliance is accepted at 0.1 % over 30 days; burn rate of 1h 9 (0 to 1e+03), 24h 8 (6.5 to 1e+03); "
        "a page at 6 in 24 h, a ticket at 1.5 in 7 d"
    )


# rules --------------------------------------------------------------------------------------------------------------


def rule(**given: Any) -> Rule:
    found = compile_rules(Alerts(rules={"own": RuleSettings(metric="entropy", above=0.9, **given)})).named("own")
    assert found is not None
    return found


def test_min_turns() -> None:
    """Fewer turns than asked for say nothing, whatever they look like."""
    own = rule(min_turns=100)
    assert own.observe(read(entropy=1.2, turns_24h=99), False, NOW).holds is None
    assert own.observe(read(entropy=1.2, turns_24h=100), False, NOW).holds is True
    assert own.observe(read(entropy=1.2), False, NOW).holds is None


def test_old_readings() -> None:
    """Points of yesterday say nothing about now; a series without events for a week is retired."""
    own = rule()
    figures = read(entropy=1.2).metrics
    assert own.observe(Readings(figures, NOW - DAY, NOW), False, NOW).holds is True
    assert own.observe(Readings(figures, NOW - 1.1 * DAY, NOW), False, NOW).holds is None
    assert own.observe(Readings(figures, None, NOW), False, NOW).holds is None
    assert not own.observe(Readings(figures, NOW - 8 * DAY, NOW - DAY), True, NOW).gone
    assert own.observe(Readings(figures, NOW - 8 * DAY, NOW - 8 * DAY), True, NOW).gone


def test_observation() -> None:
    """What holds says what was seen, and how urgent it is."""
    seen = rule(severity="page").observe(read(entropy=(1.2, 1.1, 1.3)), False, NOW)
    assert seen.text == "S of 24 h: 1.2 nats (1.1 to 1.3), should be at most 0.9 nats"
    rules = compile_rules(Alerts(budgets={"harm": BudgetSettings("harmful_compliance", 0.001)}))
    budget = rules.named("behaviour_budget:harm")
    assert budget is not None
    assert budget.observe(burning(9.0, (8, 6.5), None), False, NOW).severity == "page"
    assert budget.policy.severity is None


def test_metrics_of_all_behaviours() -> None:
    """Every behaviour's share can be looked at in every window, and knows what counts its turns."""
    for behaviour in BEHAVIOURS:
        for window in ("1h", "24h", "7d"):
            assert METRICS[share_metric(behaviour, window)].turns == f"turns_{window}"


wild = st.floats() | st.sampled_from([0.0, 0.4, 0.9, 1.0, math.nan, math.inf, -math.inf, 1e308])
figures = st.dictionaries(
    st.sampled_from([*sorted(METRICS), "lag_minutes", "step_age_minutes", "dead_letter_share"]),
    st.tuples(wild, wild, wild),
    max_size=12,
)
moments = st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.replace(tzinfo=UTC))
EVERY = compile_rules(
    Alerts(
        rules={
            "own": RuleSettings(metric="kl", above=0.1, min_turns=5),
            "restoring_rate": RuleSettings(below=0.1),
            "faithfulness": RuleSettings(below=0.5),
        },
        budgets={"harm": BudgetSettings("harmful_compliance", 0.001)},
    )
)


@given(figures, moments, moments, st.booleans(), st.sampled_from([*EVERY]))
def test_any_readings(metrics: dict[str, Any], t: Any, last: Any, standing: bool, rule: Rule) -> None:
    """Whatever is read, a rule says that it holds, that it does not, or that it cannot tell, in one line."""
    seen = rule.observe(Readings(metrics, t, last), standing, NOW)
    assert seen.holds in (True, False, None)
    assert seen.severity in ("page", "ticket", None)
    assert "\n" not in seen.text
    if seen.holds:
        assert seen.text


@given(figures, st.booleans(), st.sampled_from([r for r in EVERY if r.condition is not None]))
def test_hysteresis_only_keeps(metrics: dict[str, Any], standing: bool, rule: Rule) -> None:
    """What makes an alert fire also keeps it firing."""
    readings = Readings(metrics, NOW, NOW)
    if rule.observe(readings, False, NOW).holds:
        assert rule.observe(readings, True, NOW).holds


def test_every_built_in_rule_is_reachable() -> None:
    """Every built-in rule is a rule once it has what it needs."""
    assert {r.name.partition(":")[0] for r in EVERY} == {*BUILT_IN, "own"}
    assert EVERY.metrics >= {"kappa", "margin", "harmful_compliance_1h"}
    assert all(isinstance(r.policy, Policy) for r in EVERY)
