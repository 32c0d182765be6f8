"""Who is told of an alert, who is not, and the reason that is given."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.machine import NONE, NOTHING, Instance, Key, Observation, Policy, Severity, acknowledge, advance
from alerts.settings import Inhibit
from alerts.silences import Inhibitions, Silence, matches, parse_matchers, silencing
from alerts.stages import Recipient, Suppressed, Surroundings, Tell, Why, context, decide, notify
from monitor.errors import ConfigError

START = datetime(2026, 3, 1, tzinfo=UTC)
KEY = Key("no_data", "bot/m-1")
POLICY = Policy(repeat=timedelta(hours=4), flap_changes=0)
PAGER = Recipient("pager", frozenset({"page"}))
CHAT = Recipient("chat", frozenset({"page", "ticket"}), tells=frozenset({"firing", "resolved"}))
QUIET = Surroundings()


def hours(n: float) -> datetime:
    return START + timedelta(hours=n)


def fire(severity: Severity = "page", now: datetime = START) -> Instance:
    return advance(KEY, NOTHING, Observation(True, severity), POLICY, now)[0]


def told(
    instance: Instance, now: datetime, around: Surroundings = QUIET, *to: Recipient
) -> tuple[Instance, list[tuple[str, str, str]]]:
    """What a pass says: target, status or reason, why."""
    after, said = notify(instance, to or (PAGER,), around, POLICY, now)
    return after, [(x.target, x.status, x.why) if isinstance(x, Tell) else (x.target, x.reason, x.text) for x in said]


def test_told_once_then_repeated() -> None:
    """What fires is told at once, again after the repeat interval, and not between."""
    instance, said = told(fire(), START)
    assert said == [("pager", "firing", "fired")]
    for n in (1, 2, 3.99):
        instance, said = told(instance, hours(n))
        assert said == []
    instance, said = told(instance, hours(4))
    assert said == [("pager", "firing", "repeated, it still stands")]
    assert instance.revision == 2


def test_each_target_gets_its_severities() -> None:
    """A ticket goes where tickets are wanted; when it becomes a page, the pager hears of it and so does the chat."""
    instance, said = told(fire("ticket"), START, QUIET, PAGER, CHAT)
    assert said == [("pager", Why.SEVERITY, "ticket"), ("chat", "firing", "fired")]
    instance, _ = advance(KEY, instance, Observation(True, "page"), POLICY, hours(1))
    instance, said = told(instance, hours(1), QUIET, PAGER, CHAT)
    assert said == [
        ("pager", "firing", "fired earlier, kept back until now: severity not wanted by the target"),
        ("chat", "firing", "severity raised from ticket to page"),
    ]
    instance, _ = advance(KEY, instance, Observation(True, "ticket"), POLICY, hours(2))
    assert told(instance, hours(2), QUIET, PAGER, CHAT)[1] == [("pager", Why.SEVERITY, "ticket")]


def test_silence() -> None:
    """A silence keeps news away and says which one it is; when it ends, what still fires is told."""
    silenced = Surroundings(silence="s1")
    instance, said = told(fire(), START, silenced)
    assert said == [("pager", Why.SILENCED, "by s1")]
    instance, said = told(instance, hours(1), silenced)
    assert said == [], "a reason is given when it is new"
    instance, said = told(instance, hours(2))
    assert said == [("pager", "firing", "fired earlier, kept back until now: silenced")]
    instance, said = told(instance, hours(7), silenced)
    assert said == [("pager", Why.SILENCED, "by s1")]
    ended, _ = advance(KEY, instance, Observation(False), POLICY, hours(8))
    assert told(ended, hours(8), silenced)[1] == [("pager", "resolved", "resolved")], "no incident is left open"


def test_silenced_to_the_end() -> None:
    """What began and ended under a silence is never told of."""
    silenced = Surroundings(silence="s1")
    instance, _ = told(fire(), START, silenced)
    ended, _ = advance(KEY, instance, Observation(False), POLICY, hours(1))
    assert told(ended, hours(1), silenced)[1] == []
    assert told(ended, hours(2))[1] == []


def test_inhibition() -> None:
    """What another alert makes superfluous is not told of, and names that alert."""
    assert told(fire(), START, Surroundings(inhibitor="a9"))[1] == [("pager", Why.INHIBITED, "by alert a9")]


def test_acknowledged() -> None:
    """Targets that understand it hear who has it; nobody hears more until it ends."""
    instance, _ = told(fire(), START, QUIET, PAGER, CHAT)
    instance, _ = acknowledge(instance, "kim", hours(1))
    instance, said = told(instance, hours(1), QUIET, PAGER, CHAT)
    assert said == [("pager", "acknowledged", "acknowledged by kim"), ("chat", Why.STATUS, "")]
    instance, said = told(instance, hours(20), QUIET, PAGER, CHAT)
    assert said == [("pager", Why.ACKNOWLEDGED, "by kim")]
    ended, _ = advance(KEY, instance, Observation(False), POLICY, hours(21))
    assert {t for t, status, _ in told(ended, hours(21), QUIET, PAGER, CHAT)[1] if status == "resolved"} == {
        "pager",
        "chat",
    }


def test_acknowledged_before_it_was_told() -> None:
    """What somebody took in hand while it was silenced is not told when the silence ends."""
    instance, _ = told(fire(), START, Surroundings(silence="s1"))
    instance, _ = acknowledge(instance, "kim", hours(1))
    assert told(instance, hours(2))[1] == [("pager", Why.ACKNOWLEDGED, "by kim")]


def test_watchdog() -> None:
    """What always fires goes to targets that ask for it, whatever severities they take, and to no others."""
    dog = replace(CHAT, name="dog", severities=frozenset(), watchdog=True)
    instance, said = told(fire(NONE), START, QUIET, PAGER, CHAT, dog)
    assert said == [
        ("pager", Why.WATCHDOG_ONLY, ""),
        ("chat", Why.WATCHDOG_ONLY, ""),
        ("dog", "firing", "fired"),
    ]
    assert told(instance, hours(4), QUIET, PAGER, CHAT, dog)[1] == [("dog", "firing", "repeated, it still stands")]


def test_told_once_only() -> None:
    """Without a repeat interval there is one notice."""
    policy = replace(POLICY, repeat=None)
    instance, said = notify(fire(), (PAGER,), QUIET, policy, START)
    assert len(said) == 1
    assert notify(instance, (PAGER,), QUIET, policy, hours(10_000)) == (instance, ())


def test_target_taken_away() -> None:
    """A process that knows other targets does not have those it lacks told again; the end is put down for all."""
    instance, _ = told(fire(), START)
    instance, said = told(instance, hours(1), QUIET, CHAT)
    assert said == [("chat", "firing", "fired")], "one that is new is told of what stands"
    assert told(instance, hours(2), QUIET, PAGER, CHAT) == (instance, [])
    ended, _ = advance(KEY, instance, Observation(False), POLICY, hours(3))
    ended, said = told(ended, hours(3), QUIET, CHAT)
    assert {(target, status) for target, status, _ in said} == {("pager", "resolved"), ("chat", "resolved")}
    assert ended.told == ()


def test_every_reason_can_be_asked_for() -> None:
    """`alerts explain` can ask at any time why a target is not told, also where that goes without saying."""
    instance, _ = told(fire(), START)
    for of, policy, why in (
        (NOTHING, POLICY, Why.NOT_NOTIFIABLE),
        (instance, POLICY, Why.NOT_YET),
        (instance, replace(POLICY, repeat=None), Why.TOLD),
    ):
        no = decide(context(of, PAGER, QUIET, policy, hours(1)))
        assert isinstance(no, Suppressed)
        assert no.reason is why
    assert all(len(why) <= 64 for why in Why)


LABELS = {"rule": "no_data", "series": "bot/m-1", "tenant": "a[1]", "severity": "page"}


@pytest.mark.parametrize(
    ("matchers", "expected"),
    [
        ({"rule": "no_data"}, True),
        ({"rule": "no_data", "series": "other"}, False),
        ({"series": "bot/*"}, True),
        ({"series": "BOT/*"}, False),
        ({"tenant": "a[1]"}, True),
        ({"tenant": "a?1?"}, True),
        ({"route": ""}, True),
        ({"route": "?*"}, False),
        ({}, False),
    ],
)
def test_matchers(matchers: Mapping[str, str], expected: bool) -> None:
    """All matchers must match, by value or glob; an absent label is empty; none match nothing."""
    assert matches(matchers, LABELS) is expected


def test_silence_times() -> None:
    """A silence holds from its start up to its end, or until somebody ends it."""
    silence = Silence("s1", {"rule": "no_data"}, hours(1), hours(3))
    assert [silencing([silence], LABELS, hours(n)) is silence for n in (0.9, 1, 2.9, 3)] == [False, True, True, False]
    ended = replace(silence, ended_at=hours(2))
    assert silencing([ended, silence], LABELS, hours(2)) is silence
    assert silencing([ended], LABELS, hours(2)) is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "would silence everything"),
        (["no_data"], "no_data is no matcher: write label=value"),
        (["=x"], "is no matcher"),
        (["a=1", "a=2"], "comes twice"),
        ([f"l{i}=x" for i in range(17)], "at most 16 matchers, not 17"),
        (["a=" + "x" * 201], "more than 200 characters"),
        (["a=" + "*x" * 11], "more than 10 wildcards"),
    ],
)
def test_bad_matchers(parts: list[str], message: str) -> None:
    """A silence that would cover everything, nothing, or is no matcher, is refused."""
    with pytest.raises(ConfigError, match=message):
        parse_matchers(parts)


@given(st.dictionaries(st.text(max_size=4), st.text("ab*?[]!-\\", max_size=20), max_size=3), st.text("ab", max_size=50))
def test_any_pattern(matchers: dict[str, str], value: str) -> None:
    """Whatever is written in a matcher, it matches or it does not; a value matches itself."""
    assert matches(matchers, {"a": value}) in (True, False)
    assert matches({"a": value}, {"a": value})


def test_inhibitions() -> None:
    """An alert is inhibited by a standing one of the source rule with equal labels, and by no other."""
    rules = (Inhibit("collapse", "behaviour_budget", ("series",)), Inhibit("monitor_unhealthy", "no_*", ()))
    standing = [
        ("a1", {"rule": "collapse", "series": "one"}),
        ("a2", {"rule": "monitor_unhealthy"}),
        ("a3", {"rule": "no_data", "series": "one"}),
    ]
    inhibitions = Inhibitions(rules, standing)
    assert inhibitions.inhibitor({"rule": "behaviour_budget:harm", "series": "one"}) == "a1"
    assert inhibitions.inhibitor({"rule": "behaviour_budget:harm", "series": "two"}) is None
    assert inhibitions.inhibitor({"rule": "no_data", "series": "two"}) == "a2"
    assert inhibitions.inhibitor({"rule": "value_drift", "series": "one"}) is None
    assert Inhibitions(rules, []).inhibitor({"rule": "no_data"}) is None
