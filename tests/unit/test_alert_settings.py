"""[alerts] of the configuration: good without a file, and every mistake told by its place and its nearest neighbour."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alerts.conditions import Readings
from alerts.rulebook import BUILT_IN, compile_rules
from alerts.settings import Alerts, Inhibit, RuleSettings, duration
from alerts.targets.settings import Alertmanager, PagerDuty
from monitor.config import load
from monitor.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "valuedrift.toml").write_text(text, encoding="utf-8")


def test_no_file(write: Any) -> None:
    """Without a file there are rules for everything that needs no limit of somebody's own, and nowhere to send to."""
    alerts = load(None, {}).alerts
    rules = compile_rules(alerts)
    assert {r.name for r in rules} == {*BUILT_IN} - {"restoring_rate", "faithfulness", "behaviour_budget"}
    assert alerts.targets == {}
    assert [r.name for r in rules.series if r.needs_live] == ["no_data"]
    watchdog = rules.named("watchdog")
    assert watchdog is not None
    assert watchdog.policy.severity == "none"


FULL = """
[alerts]
repeat = "2h"
dashboard_url = "https://grafana.example/d/series?var-series={series}"

[alerts.rules.too_mixed]
metric = "entropy"
above = 0.9
clear_at = 0.7
for = "30m"
clear_for = "1h30m"
min_turns = 100
severity = "page"
labels = { team = "safety" }
runbook = "https://wiki.example/too-mixed"

[alerts.rules.value_drift]
for = "10m"
severity = "page"

[alerts.rules.judge_disagreement]
enabled = false

[alerts.rules.alignment_work]
below = 1.5

[alerts.budgets.harm]
behaviour = "harmful_compliance"
share = 0.001

[[alerts.inhibit]]
source_rule = "collapse"
target_rule = "behaviour_budget"

[alerts.targets.main]
type = "alertmanager"
url = "http://127.0.0.1:9093"

[alerts.targets.oncall]
type = "pagerduty"
routing_key = "env:VALUEDRIFT_SECRET_PAGERDUTY"
"""


def test_file(write: Any) -> None:
    """Own rules, built-in ones with another manner or off, budgets, inhibitions and targets come from a file."""
    write(FULL)
    config = load(None, {"VALUEDRIFT_SECRET_PAGERDUTY": "k"})
    rules = compile_rules(config.alerts)
    own, drift, work = rules.named("too_mixed"), rules.finding("value_drift"), rules.named("alignment_work")
    assert own is not None
    assert drift is not None
    assert work is not None
    p = own.policy
    assert (p.for_, p.clear_for, p.repeat) == (timedelta(minutes=30), timedelta(minutes=90), timedelta(hours=2))
    assert (own.min_turns, p.severity, own.labels) == (100, "page", {"team": "safety"})
    assert own.runbook == "https://wiki.example/too-mixed"
    assert (drift.policy.for_, drift.policy.severity) == (timedelta(minutes=10), "page")
    assert rules.named("judge_disagreement") is None
    assert rules.named("behaviour_budget:harm") is not None
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert "at least 1.5" in work.observe(Readings({"margin": (1.4, 1.3, 1.45)}, now, now), False, now).text
    assert rules.inhibit == (Inhibit("collapse", "behaviour_budget"),)
    targets = config.alerts.targets
    assert isinstance(targets["main"], Alertmanager)
    assert isinstance(targets["oncall"], PagerDuty)


def test_collapse_is_a_rule_of_its_own(write: Any) -> None:
    """A drift that is a collapse has its own policy; turned off, it is told of by no rule, and other drifts are."""
    write('[alerts.rules.collapse]\nseverity = "page"\n')
    rules = compile_rules(load(None, {}).alerts)
    collapse, rise = rules.finding("value_drift", "collapse"), rules.finding("value_drift", "rise")
    assert collapse is not None
    assert rise is not None
    assert (collapse.policy.severity, rise.policy.severity) == ("page", None)
    write("[alerts.rules.collapse]\nenabled = false\n")
    rules = compile_rules(load(None, {}).alerts)
    assert rules.finding("value_drift", "collapse") is None
    assert rules.finding("value_drift", "rise") is not None


OWN = "[alerts.rules.mine]\n"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (OWN + 'metric = "entropi"\nabove = 1', r"alerts\.rules\.mine\.metric 'entropi' is not known; .* entropy\?"),
        (OWN + 'metric = "entropy"', r"alerts\.rules\.mine has no limit: set .*above or .*below"),
        (OWN + 'metric = "entropy"\nabove = 1\nbelow = 2', r"alerts\.rules\.mine has both above and below"),
        (OWN + 'metric = "entropy"\nabove = nan', r"alerts\.rules\.mine\.above = nan must be a finite number"),
        (OWN + 'metric = "entropy"\nabove = inf', r"alerts\.rules\.mine\.above = inf must be a finite number"),
        (OWN + 'metric = "entropy"\nabove = 1\nclear_at = 2', r"alerts\.rules\.mine\.clear_at = 2 is still above 1"),
        (OWN + 'metric = "margin"\nbelow = 1\nclear_at = 0.5', r"alerts\.rules\.mine\.clear_at = 0\.5 is still below"),
        (OWN + 'metric = "entropy"\nabove = 1\nmin_turns = -1', r"alerts\.rules\.mine\.min_turns = -1 must be 0"),
        (OWN + 'metric = "turns_1h"\nbelow = 1\nmin_turns = 1', r"alerts\.rules\.mine\.min_turns has no meaning"),
        (OWN + 'metric = "entropy"\nabove = 1\nfor = "soon"', r"alerts\.rules\.mine\.for 'soon' is no duration: write"),
        (OWN + 'metric = "entropy"\nabove = 1\nfor = "-5m"', r"alerts\.rules\.mine\.for '-5m' is no duration"),
        (OWN + 'metric = "entropy"\nabove = 1\nfor = "99999d"', r"alerts\.rules\.mine\.for .* longer than 36500 days"),
        (OWN + 'metric = "entropy"\nabove = 1\nrepeat = "1s"', r"alerts\.rules\.mine\.repeat '1s' must be a minute"),
        (OWN + 'metric = "entropy"\nabove = 1\ngaps = 2', r"alerts\.rules\.mine\.gaps has no meaning for this rule"),
        (OWN + 'metric = "entropy"\nabove = 1\nrunbook = "wiki"', r"alerts\.rules\.mine\.runbook must be an address"),
        (OWN + 'metric = "entropy"\nabove = 1\nlabels = {rule = "x"}', r"alerts\.rules\.mine\.labels: 'rule' cannot"),
        (
            OWN + 'metric = "entropy"\nabove = 1\nlabels = {a = 1}',
            r"Expected `str`, got `int` - at .*rules\.mine\.labels",
        ),
        (OWN + 'metric = "entropy"\nabove = "1"', r"Expected `float.* got `str` - at `alerts\.rules\.mine\.above`"),
        (
            OWN + 'metric = "entropy"\nabov = 1',
            r"key alerts\.rules\.mine\.abov; did you mean alerts\.rules\.mine\.above",
        ),
        ('[alerts.rules.Mine]\nmetric = "entropy"\nabove = 1', r"alerts\.rules\.Mine: a rule's name has"),
        (
            '[alerts.rules.valu_drift]\nseverity = "page"',
            r"valu_drift is not a built-in rule; did you mean value_drift",
        ),
        ("[alerts.rules.value_drift]\nabove = 1.0", r"alerts\.rules\.value_drift\.above has no meaning for this rule"),
        ('[alerts.rules.value_drift]\nseverity = "loud"', r"'loud' - at `alerts\.rules\.value_drift\.severity`"),
        ("[alerts.rules.faithfulness]\nenabled = true", r"alerts\.rules\.faithfulness is enabled and has no limit"),
        ("[alerts.rules.no_data]\ngaps = -1.0", r"alerts\.rules\.no_data\.gaps = -1\.0 must be a finite number of 0"),
        ('[alerts.rules.no_data]\nsilent_after = "8d"', r"silent_after '8d' must be shorter than alerts\.retire_after"),
        (
            '[alerts.budgets.b]\nbehaviour = "harm"\nshare = 0.1',
            r"budgets\.b\.behaviour 'harm' .* harmful_compliance\?",
        ),
        ('[alerts.budgets.b]\nbehaviour = "deception"\nshare = 0', r"budgets\.b\.share = 0.* between 0 and 1"),
        ('[alerts.budgets.b]\nbehaviour = "deception"\nshare = nan', r"budgets\.b\.share = nan must lie"),
        ('[alerts.budgets.b]\nbehaviour = "deception"', r"missing required field `share` - at `alerts\.budgets\.b`"),
        (
            '[alerts.budgets.b]\nbehaviour = "deception"\nshare = 0.1\nwindow = "3d"',
            r"budgets\.b\.window '3d' must be from 7d to 365d",
        ),
        (
            '[[alerts.inhibit]]\nsource_rule = "colapse"\ntarget_rule = "no_data"',
            r"alerts\.inhibit\[0\]\.source_rule 'colapse' is no rule; did you mean collapse\?",
        ),
        (
            '[[alerts.inhibit]]\nsource_rule = "collapse"\ntarget_rule = "no_data"\nequals = []',
            r"key alerts\.inhibit\[0\]\.equals; did you mean alerts\.inhibit\[0\]\.equal\?",
        ),
        (
            '[[alerts.inhibit]]\nsource_rule = "collapse"\ntarget_rule = "value_drift"\n'
            '[[alerts.inhibit]]\nsource_rule = "value_*"\ntarget_rule = "coll*"\n',
            r"alerts\.inhibit: .* would be kept quiet by what it keeps quiet itself",
        ),
        ('[alerts]\nrepet = "4h"', r"key alerts\.repet; did you mean alerts\.repeat\?"),
        ('[alerts]\nrepeat = "often"', r"alerts\.repeat 'often' is no duration"),
        ('[alerts]\ndashboard_url = "https://x/{serie}"', r"alerts\.dashboard_url: \{serie\} is not known here"),
        ('[alerts]\nrunbook_url = "https://x/{rule"', r"alerts\.runbook_url: "),
        (
            '[alerts.targets.ops]\ntype = "pagerdutty"',
            r"type alerts\.targets\.ops\.type = 'pagerdutty'; .* pagerduty\?",
        ),
        ('[alerts.targets.ops]\nurl = "https://x"', r"alerts\.targets\.ops needs a type: one of alertmanager, apprise"),
        (
            '[alerts.targets.ops]\ntype = "slack"\nurl = "env:U"\nseverites = ["page"]',
            r"key alerts\.targets\.ops\.severites; did you mean alerts\.targets\.ops\.severities\?",
        ),
        ('[alerts.targets.ops]\ntype = "slack"', r"url is needed - at `alerts\.targets\.ops`"),
        ("[alerts]\ntargets = 3", r"Expected `object`, got `int` - at `alerts\.targets`"),
        ("[alerts]\nrules = { mine = 3 }", r"Expected `object`, got `int` - at `alerts\.rules\.mine`"),
    ],
)
def test_mistakes(write: Any, toml: str, message: str) -> None:
    """Every mistake names the rule or target, the key, and the nearest known name where one is unknown."""
    write(toml)
    with pytest.raises(ConfigError, match=message):
        compile_rules(load(None, {}).alerts)


def test_environment(write: Any) -> None:
    """Tables come as JSON from the environment, over the file's; secrets of any name are let be."""
    write('[alerts.targets.file]\ntype = "slack"\nurl = "env:VALUEDRIFT_SECRET_SLACK"\n')
    targets = '{"env": {"type": "webhook", "url": "https://hooks.example/x"}}'
    environment = {
        "VALUEDRIFT_ALERTS_TARGETS": targets,
        "VALUEDRIFT_ALERTS_RULES": '{"mine": {"metric": "kl", "above": 0.5, "for": "5m"}}',
        "VALUEDRIFT_ALERTS_INHIBIT": "[]",
        "VALUEDRIFT_ALERTS_REPEAT": "1h",
        "VALUEDRIFT_ALERTS_GROUP_BY": "rule,tenant",
        "VALUEDRIFT_SECRET_SLACK": "https://hooks.slack.example/T0/B0/x",
    }
    alerts = load(None, environment).alerts
    assert list(alerts.targets) == ["env"]
    assert alerts.group_by == ("rule", "tenant")
    rules = compile_rules(alerts)
    own = rules.named("mine")
    assert own is not None
    assert (own.policy.for_, own.policy.repeat) == (timedelta(minutes=5), timedelta(hours=1))
    assert rules.inhibit == ()


def test_mistakes_in_the_environment(write: Any) -> None:
    """JSON that is none is told by its variable; what it holds is not repeated, for it may be a secret."""
    for text, message in (
        ('{"ops": hunter2', "VALUEDRIFT_ALERTS_TARGETS must be JSON"),
        ('{"ops": {"type": "slack", "url": "https://hunter2"}}', "url is a secret: write url = "),
        ('{"ops": {"type": "slack", "ulr": "env:X"}}', "did you mean alerts.targets.ops.url"),
    ):
        with pytest.raises(ConfigError) as e:
            load(None, {"VALUEDRIFT_ALERTS_TARGETS": text})
        assert message in str(e.value)
        assert "hunter2" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90s", 90), ("1.5h", 5400), ("1h30m", 5400), (" 7 d ", 604_800), ("1d2h3m4s", 93_784)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are written with their units."""
    assert duration("alerts.repeat", text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5w", "-1h", "1e3s", "5m!", "nan", "1h 30", "٣h", "9" * 40 + "d"])
def test_no_durations(text: str) -> None:
    """What cannot be read as a duration is refused by its key."""
    with pytest.raises(ConfigError, match=r"alerts\.repeat"):
        duration("alerts.repeat", text)


def test_too_many_rules() -> None:
    """A configuration cannot ask for more rules than can be looked at."""
    own = RuleSettings(metric="entropy", above=1.0)
    with pytest.raises(ConfigError, match="more than 200 rules"):
        compile_rules(Alerts(rules={f"r{i}": own for i in range(201)}))
