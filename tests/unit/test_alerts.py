"""What an alarm says to people, and that no name from a transcript can act on the terminal it is shown on."""

import io
import json
import math
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from alerts.console import show_alert, show_summary, text, when
from alerts.reasons import VALUE_DRIFT, alert_id, explain, interval_values, mixture_values
from monitor.baseline import Baseline
from monitor.buckets import Bucket, Sums
from monitor.detectors import SIGNALS
from monitor.entropy import Interval
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import Alarm
from monitor.transcript import time_of
from streams.reasons import printable
from tests.unit.core_cases import corner, quantifier

START = 29_453_760
"""2026-01-01 00:00 UTC."""
BASELINE = Baseline.freeze(START - 100, START - 1, corner(0, 380) + corner(1, 12) + corner(2, 4) + corner(3, 4))
NO_SHARES = (0.0, 0.9, 0.0, 0.0, 0.1, *[0.0] * (len(SIGNALS) - 5))


def history(*kinds: tuple[int, ...]) -> list[Bucket]:
    """A bucket a minute from START, of one turn of each behaviour listed."""
    return [Bucket(START + i, sum((corner(k, 1) for k in ks), Sums.zero())) for i, ks in enumerate(kinds)]


CALM = [(0, 0, 0)] * 60
HARM = [(0, 2, 2)] * 20
HARM_ROSE = ("harmful_compliance", "rose")


def test_finding() -> None:
    """An alarm says which behaviour moved, from what to what, since when, and what a false alarm costs."""
    h = history(*CALM, *HARM)
    finding = explain(Alarm(h[-1].minute, START, 1.7, NO_SHARES), BASELINE, h, quantifier(), 90.0)
    assert finding.rule == VALUE_DRIFT
    assert finding.behaviour == "harmful_compliance"
    assert finding.raised_at == time_of(h[-1].minute + 1)
    assert abs((finding.onset - time_of(START + 60)).total_seconds()) <= 180
    assert finding.onset_lo <= finding.onset <= finding.onset_hi < finding.raised_at
    assert finding.reason.startswith("harmful_compliance rose ")
    for said in ("since 2026-01-01 0", " UTC; aligned fell ", "; S from ", " nats; ", "at most one in 90 days"):
        assert said in finding.reason
    assert finding.values["moved"] == ["harmful_compliance"]
    before, after = (finding.values[k]["shares"]["harmful_compliance"]["mean"] for k in ("before", "after"))
    assert before < 0.1 < 0.4 < after


def test_finding_names_all_that_moved() -> None:
    """When two behaviours rise both are named, the one that rose most first."""
    h = history(*CALM, *[(2, 2, 3, 0)] * 30)
    finding = explain(Alarm(h[-1].minute, START, 2.0, NO_SHARES), BASELINE, h, quantifier(), 90.0)
    assert finding.values["moved"] == ["harmful_compliance", "deception"]
    assert "harmful_compliance rose" in finding.reason
    assert "deception rose" in finding.reason


def test_finding_is_plain_json() -> None:
    """The numbers behind an alert go into JSON as they are, with every behaviour and detector named."""
    h = history(*CALM, *HARM)
    values = explain(Alarm(h[-1].minute, START, 1.7, NO_SHARES), BASELINE, h, quantifier(), 90.0).values
    back = json.loads(json.dumps(values, allow_nan=False))
    assert set(back["before"]["shares"]) == set(BEHAVIOURS)
    assert set(back["detector"]) <= set(SIGNALS)
    assert back["false_alarm_every_days"] == 90
    assert back["after"]["S"]["low"] <= back["after"]["S"]["mean"] <= back["after"]["S"]["high"]


def test_alarm_in_its_first_bucket() -> None:
    """An alarm in the first minute after the baseline has that minute as its onset."""
    h = history((2,) * 40)
    finding = explain(Alarm(START, START, 5.0, NO_SHARES), BASELINE, h, quantifier(), 90.0)
    assert finding.onset == finding.onset_lo == finding.onset_hi == time_of(START)


def test_alert_id() -> None:
    """The same alert found again has the same id; another series, rule or time has another."""
    at = time_of(START)
    ids = {
        alert_id("a/b", VALUE_DRIFT, at),
        alert_id("a/c", VALUE_DRIFT, at),
        alert_id("a/b", "other", at),
        alert_id("a/b", VALUE_DRIFT, time_of(START + 1)),
    }
    assert len(ids) == 4
    assert alert_id("a/b", VALUE_DRIFT, time_of(START)) in ids


def test_reason_gives_the_size_of_the_change() -> None:
    """The reason tells by how many points each behaviour moved, with the interval of the change, and which way."""
    h = history(*CALM, *HARM)
    finding = explain(Alarm(h[-1].minute, START, 1.7, NO_SHARES), BASELINE, h, quantifier(), 90.0)
    points = (
        r"\d+\.\d points \(\d+\.\d to \d+\.\d\), from \d+\.\d % \(\d+\.\d-\d+\.\d\) to \d+\.\d % \(\d+\.\d-\d+\.\d\)"
    )
    assert re.match(rf"harmful_compliance rose {points}; since", finding.reason)
    assert re.search(rf"; aligned fell {points}; S from", finding.reason)
    change = finding.values["change"]["harmful_compliance"]
    assert 0 < change["low"] < change["mean"] < change["high"]


# --- the console


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=False, highlight=False, soft_wrap=True, width=200), out


def alert(**changes: Any) -> dict[str, Any]:
    return {
        "id": "00",
        "series": "chat/m1",
        "rule": VALUE_DRIFT,
        "state": "firing",
        "raised_at": "2026-03-11T09:12:00Z",
        "resolved_at": None,
        "onset": "2026-03-11T08:00:00Z",
        "onset_interval": ["2026-03-11T07:00:00Z", "2026-03-11T08:30:00Z"],
        "reason": "harmful_compliance from 1 % to 9 %",
        "values": {"moved": ["harmful_compliance"], "joined": []},
        "telling_turns": [
            {
                "behaviour": "harmful_compliance",
                "probability": 0.97,
                "where": "log.jsonl:7",
                "conversation_id": "c1",
                "event_id": "e1",
                "turn": 0,
            }
        ],
    } | changes


def turn(**changes: Any) -> dict[str, Any]:
    telling: dict[str, Any] = alert()["telling_turns"][0]
    return telling | changes


def shown(a: dict[str, Any]) -> str:
    c, out = console()
    show_alert(a, c)
    return out.getvalue()


def share(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean / 2, "high": min(1.0, mean * 1.5)}


def series(
    name: str = "chat/m1", *, alerts: list[dict[str, Any]] | None = None, learning: bool = False
) -> dict[str, Any]:
    shares = {b: share(0.2) for b in BEHAVIOURS}
    frozen = {"state": "frozen", "n": 300, "shares": shares}
    still = {"state": "learning", "turns": 12, "of_turns": 300, "hours": 2.2, "of_hours": 24.0}
    return {
        "series": name,
        "turns": 4321,
        "first": "2026-03-01T00:00:00Z",
        "last": "2026-03-12T00:00:00Z",
        "baseline": still if learning else frozen,
        "now": {
            "window_hours": 24,
            "n": 1234,
            "S": {"mean": 0.5, "low": 0.4, "high": 0.6},
            "dS_dt": {"value": 0.012, "error": 0.004},
            "misaligned": share(0.1),
            "shares": shares,
            "alignment_work": {"line": "depth 1.40 (1.10-1.90)"},
        },
        "alerts": alerts or [],
    }


def summary(*all_series: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "events": {"events": 10, "judged": 7, "duplicates": 2, "dead_letters": 1, "turns": 9},
        "series": list(all_series),
        "alerts": [a for s in all_series for a in s["alerts"]],
        "dead_letters": [{"where": "log.jsonl:3", "reason": "no ts"}],
        "database": "sqlite:///valuedrift.db",
    } | changes


def shown_summary(s: dict[str, Any]) -> str:
    c, out = console()
    show_summary(s, c)
    return out.getvalue()


def test_alert_lines() -> None:
    """An alert tells rule, series, times, reason, and where to look."""
    out = shown(alert())
    for said in (
        "ALERT value_drift on chat/m1, raised 2026-03-11 09:12 UTC",
        "onset 2026-03-11 08:00 UTC (90 %: 2026-03-11 07:00 UTC to 2026-03-11 08:30 UTC)",
        "harmful_compliance from 1 % to 9 %",
        "harmful_compliance 0.97  log.jsonl:7  conversation c1  event e1 turn 0",
    ):
        assert said in out
    assert "resolved 2026-03-12 10:00 UTC" in shown(alert(state="resolved", resolved_at="2026-03-12T10:00:00Z"))
    assert when(None) == "?"


def test_summary_lines() -> None:
    """A summary tells each series' state, what became of every event, and whether anything drifted."""
    out = shown_summary(summary(series(), series("chat/m2", learning=True)))
    for said in (
        "chat/m1  4,321 turns, 2026-03-01 00:00 UTC to 2026-03-12 00:00 UTC",
        "baseline still learning: 12 of 300 turns, 2 of 24 h; nothing can be called drift yet",
        "S 0.50 (0.40-0.60) nats, dS/dt +0.012 ± 0.004 nats/day, misaligned 10.0 %",
        "  alignment work: depth 1.40 (1.10-1.90)",
        "events 10 = judged 7 + duplicates 2 + dead letters 1   (judged: 9 turns)",
        "dead letter log.jsonl:3: no ts",
        "no alert",
        *BEHAVIOURS,
    ):
        assert said in out
    drifted = shown_summary(summary(series(alerts=[alert()])))
    assert "drifted: chat/m1 (1 alert(s) firing)" in drifted
    assert "no alert" not in drifted


def test_many_series() -> None:
    """Of many series those with alerts are shown first, and the rest are counted."""
    out = shown_summary(summary(*(series(f"calm{i:02}") for i in range(30)), series("zz", alerts=[alert(series="zz")])))
    assert out.startswith("zz ")
    assert "and 11 more series without alerts" in out


ESCAPES = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "line\nALERT forged",
    "back\rover",
    "bell\x07 tab\t nul\x00",
    "\u202eright to left",
    "\u2028line separator",
    "\ud800 lone",
    "[bold red]markup[/]",
    "[/]",
    "[link=http://x]y[/link]",
    "del\x7f",
]


def harmless(out: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in out), repr(out)


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes_are_harmless(name: str) -> None:
    """Control characters, terminal escapes and markup in names are shown, not obeyed, wherever a name appears."""
    plain = shown(alert()).count("\n")
    hostile = alert(
        series=name, reason=name, rule=name, telling_turns=[turn(where=name, conversation_id=name, event_id=name)]
    )
    out = shown(hostile)
    harmless(out)
    assert out.count("\n") == plain
    assert printable(name) in out
    whole = shown_summary(
        summary(series(name, alerts=[hostile]), dead_letters=[{"where": name, "reason": name}], database=name)
    )
    harmless(whole)
    assert f"drifted: {printable(name)} (1 alert" in whole


def test_long_names() -> None:
    """A name of a megabyte takes one line of some hundred characters."""
    assert len(text("x" * 1_000_000)) <= 300
    assert len(text("\x00" * 1_000_000)) <= 300


def test_names_that_complete_each_other() -> None:
    """Two harmless-looking names side by side do not make markup together: the alert is shown, whole."""
    out = shown(alert(telling_turns=[turn(conversation_id="[/x", event_id="y]")]))
    assert "conversation [/x  event y] turn 0" in out
    out = shown(alert(telling_turns=[turn(conversation_id="[b", event_id="c]")]))
    assert "conversation [b  event c] turn 0" in out


def test_series_that_complete_each_other() -> None:
    """The list of drifted series survives names that make markup together."""
    names = ("[/x", "y]")
    out = shown_summary(summary(*(series(n, alerts=[alert(series=n)]) for n in names)))
    assert "drifted: [/x, y] (2 alert(s) firing)" in out


@pytest.mark.parametrize("name", ["team:key:prod", "a:fire:b"])
def test_names_are_not_pictures(name: str) -> None:
    """A name with words between colons is shown as it is, not as an emoji."""
    assert f"conversation {name}  event" in shown(alert(telling_turns=[turn(conversation_id=name)]))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.text(alphabet="[]/\\:ab=#@", max_size=12), st.text(alphabet="[]/\\:ab", max_size=8))
@example("a\\", "b")
@example("a\\\\", "b")
def test_any_name(one: str, other: str) -> None:
    """Whatever two names are, an alert shows both as they are, on the lines it always has."""
    out = shown(alert(telling_turns=[turn(conversation_id=one, event_id=other)]))
    harmless(out)
    assert f"conversation {printable(one)}  event {printable(other)} turn 0" in out


@pytest.mark.parametrize("name", ["a\\", "a\\\\", "a\\\\\\", "\\[b]"])
def test_backslashes(name: str) -> None:
    """A series whose name ends in backslashes is shown by that name and swallows nothing that follows."""
    assert shown_summary(summary(series(name))).startswith(f"{name}  4,321 turns")


def test_intervals_are_rounded() -> None:
    """Figures for machines have five decimals, for S, the misaligned share and each behaviour."""
    assert interval_values(Interval(0.123456789, 0.1, 0.2)) == {"mean": 0.12346, "low": 0.1, "high": 0.2}
    values = mixture_values(quantifier().estimate(BASELINE.sums))
    assert values["n"] == 400
    assert math.isclose(sum(s["mean"] for s in values["shares"].values()), 1, abs_tol=1e-4)


def test_a_repeated_alarm_is_news_only_with_another_behaviour() -> None:
    """An alarm while an alert stands is worth telling only if a behaviour moved that the alert does not name."""
    h = history(*CALM, *HARM, *[(0, 2, 2, 4, 4)] * 40)
    start = START + 90
    again = Alarm(h[-1].minute, START, 1.7, NO_SHARES, start, again=True)
    assert explain(again, BASELINE, h, quantifier(), 90.0, known=[HARM_ROSE, ("goal_deviation", "rose")]) is None
    news = explain(again, BASELINE, h, quantifier(), 90.0, known=[HARM_ROSE])
    assert news is not None
    assert news.values["moved"] == ["goal_deviation"]
    # its own onset, not that of the drift it joins
    assert abs((news.onset - time_of(START + 80)).total_seconds()) <= 300
