"""An alert's life: fires once what holds has held long enough, resolves once, and survives whatever happens between."""

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.machine import (
    NOTHING,
    RANK,
    STANDING,
    Decision,
    Instance,
    Key,
    Observation,
    Policy,
    Reason,
    State,
    acknowledge,
    advance,
    unacknowledge,
)
from alerts.stages import Recipient, Suppressed, Surroundings, Tell, notify

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KEY = Key("entropy_high", "bot/m-1")
HOLDS, CLEAR, UNKNOWN = Observation(True, text="S 1.2"), Observation(False), Observation(None)
AT_ONCE = Policy(flap_changes=0)


def after(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def run(
    policy: Policy, seen: dict[float, Observation], instance: Instance = NOTHING
) -> tuple[Instance, list[tuple[float, Reason, State]]]:
    """Observations by minute; what was decided, by minute."""
    decided = []
    for minute, observation in seen.items():
        instance, decisions = advance(KEY, instance, observation, policy, after(minute))
        decided += [(minute, d.reason, d.after) for d in decisions]
    return instance, decided


def test_fires_after_for() -> None:
    """What holds waits until it has held for `for`, and fires in the first pass after."""
    _, decided = run(replace(AT_ONCE, for_=5 * MINUTE), dict.fromkeys(range(8), HOLDS))
    assert decided == [(0, Reason.WAITING, State.PENDING), (5, Reason.FIRED, State.FIRING)]


def test_falls_back() -> None:
    """What clears before `for` is over never fires, and waits anew when it comes back."""
    seen = {0: HOLDS, 4: CLEAR, 6: HOLDS, 10: HOLDS, 11: HOLDS}
    _, decided = run(replace(AT_ONCE, for_=5 * MINUTE), seen)
    assert [(m, r) for m, r, _ in decided] == [
        (0, Reason.WAITING),
        (4, Reason.FELL_BACK),
        (6, Reason.WAITING),
        (11, Reason.FIRED),
    ]


def test_finding_held_before() -> None:
    """A finding that stood for longer than `for` when it is first looked at fires at once, under its own id."""
    finding = Observation(True, alert_id="f1", since=after(-10))
    instance, decided = run(replace(AT_ONCE, for_=5 * MINUTE), {0: finding})
    assert decided == [(0, Reason.FIRED, State.FIRING)]
    assert (instance.alert_id, instance.since) == ("f1", after(-10))


def test_resolves_after_clear_for() -> None:
    """What cleared waits for `clear_for`; if it comes back before, nothing was resolved."""
    seen = {0: HOLDS, 1: CLEAR, 3: HOLDS, 4: CLEAR, 8: CLEAR, 9: CLEAR}
    _, decided = run(replace(AT_ONCE, clear_for=5 * MINUTE), seen)
    assert [(m, r) for m, r, _ in decided] == [
        (0, Reason.FIRED),
        (1, Reason.CLEARING),
        (3, Reason.HOLDS_AGAIN),
        (4, Reason.CLEARING),
        (9, Reason.RESOLVED),
    ]


def test_unknown_keeps() -> None:
    """What cannot be told neither fires nor resolves; both go on from there once it can."""
    policy = replace(AT_ONCE, for_=2 * MINUTE, clear_for=2 * MINUTE)
    instance, decided = run(policy, {0: HOLDS, 1: UNKNOWN, 5: UNKNOWN, 6: HOLDS, 7: CLEAR, 8: UNKNOWN, 30: UNKNOWN})
    assert [(m, r) for m, r, _ in decided] == [
        (0, Reason.WAITING),
        (1, Reason.UNKNOWN),
        (6, Reason.KNOWN),
        (6, Reason.FIRED),
        (7, Reason.CLEARING),
        (8, Reason.UNKNOWN),
    ]
    assert instance.state is State.FIRING
    assert run(policy, {40: CLEAR}, instance)[1] == [
        (40, Reason.KNOWN, State.FIRING),
        (40, Reason.RESOLVED, State.RESOLVED),
    ]


def test_unknown_for_too_long() -> None:
    """What was not known for a week stands no longer."""
    _, decided = run(AT_ONCE, {0: HOLDS, 1: UNKNOWN, 1 + 7 * 1440: UNKNOWN})
    assert decided[-1] == (1 + 7 * 1440, Reason.GONE, State.RESOLVED)


def test_gone() -> None:
    """A series that is no more, or a rule that was turned off, leaves nothing standing and waits for nothing."""
    gone = Observation(False, gone=True, text="the rule is off")
    patient = Policy(clear_for=60 * MINUTE)
    assert run(patient, {0: HOLDS, 1: gone})[1][-1] == (1, Reason.GONE, State.RESOLVED)
    assert run(replace(patient, for_=5 * MINUTE), {0: HOLDS, 1: gone})[1][-1] == (1, Reason.GONE, State.INACTIVE)
    assert advance(KEY, NOTHING, gone, patient, START) == (NOTHING, ())


def test_flapping() -> None:
    """After four changes in an hour an end is held back, however long that goes on, and told once it is quiet."""
    flips = {float(m): HOLDS if m % 4 == 0 else CLEAR for m in range(0, 240, 2)}
    instance, decided = run(Policy(), flips)
    fire_and_end = [Reason.FIRED, Reason.RESOLVED]
    assert [r for _, r, _ in decided[:7]] == [*fire_and_end * 2, Reason.FIRED, Reason.HELD, Reason.HOLDS_AGAIN]
    assert sum(r is Reason.RESOLVED for _, r, _ in decided) == 2
    assert instance.held
    quiet = {238.0 + m: CLEAR for m in range(1, 70)}
    ended, more = run(Policy(), quiet, instance)
    assert [r for _, r, _ in more] == [Reason.RESOLVED]
    assert more[0][0] <= 238 + 60
    assert ended.alert_id == instance.alert_id


def test_another_finding() -> None:
    """A finding that takes another's place ends that one first: there are never two."""
    one, two = Observation(True, alert_id="f1"), Observation(True, alert_id="f2")
    instance, _ = run(AT_ONCE, {0: one})
    instance, decisions = advance(KEY, instance, two, AT_ONCE, after(1))
    assert [(d.reason, d.alert_id) for d in decisions] == [(Reason.REPLACED, "f1"), (Reason.FIRED, "f2")]
    assert instance.alert_id == "f2"


def test_severity() -> None:
    """Severity follows the observation; an acknowledged ticket that becomes a page is news, the other way is not."""
    ticket, page = Observation(True, "ticket"), Observation(True, "page")
    instance, _ = run(AT_ONCE, {0: ticket})
    instance, _ = acknowledge(instance, "kim", after(1))
    instance, (raised,) = advance(KEY, instance, page, AT_ONCE, after(2))
    assert (raised.reason, raised.before, raised.after) == (Reason.ESCALATED, State.ACKNOWLEDGED, State.FIRING)
    instance, _ = acknowledge(instance, "kim", after(3))
    instance, (lowered,) = advance(KEY, instance, ticket, AT_ONCE, after(4))
    assert (lowered.reason, lowered.after) == (Reason.LOWERED, State.ACKNOWLEDGED)
    assert run(replace(AT_ONCE, severity="page"), {0: ticket})[0].severity == "page"


def test_acknowledgement() -> None:
    """Only what fires can be acknowledged; it may be taken back, and ends with the alert."""
    assert acknowledge(NOTHING, "kim", START) == (NOTHING, ())
    firing, _ = run(AT_ONCE, {0: HOLDS})
    taken, (decision,) = acknowledge(firing, "kim\n\x1b[2J" + 300 * "x", after(1))
    assert decision.reason is Reason.ACKNOWLEDGED
    assert taken.acked_by is not None
    assert len(taken.acked_by) <= 200
    assert taken.acked_by.isprintable()
    assert acknowledge(taken, "lee", after(2)) == (taken, ())
    back, (decision,) = unacknowledge(taken, "kim")
    assert (decision.reason, back.state, back.acked_by) == (Reason.UNACKNOWLEDGED, State.FIRING, None)
    ended, _ = advance(KEY, taken, CLEAR, AT_ONCE, after(3))
    assert (ended.state, ended.acked_by) == (State.RESOLVED, None)


def test_ids() -> None:
    """Every episode has an id of its own, even at one moment; the same history gives the same ids."""
    flips = [(0.0, HOLDS), (1.0, CLEAR), (1.0, HOLDS), (1.0, CLEAR), (1.0, HOLDS)]

    def ids() -> list[str | None]:
        instance, found = NOTHING, []
        for minute, seen in flips:
            instance, decisions = advance(KEY, instance, seen, replace(Policy(), flap_changes=9), after(minute))
            found += [d.alert_id for d in decisions if d.reason is Reason.FIRED]
        return found

    assert len(set(ids())) == 3
    assert ids() == ids()


def test_clock_set_back() -> None:
    """A clock that goes back a year delays a waiting alert by `for` at most, not by a year."""
    policy = replace(AT_ONCE, for_=5 * MINUTE, clear_for=5 * MINUTE)
    year = -525_600.0
    _, decided = run(policy, {0: HOLDS, year: HOLDS, year + 5: HOLDS, year - 10: CLEAR, year - 5: CLEAR})
    assert [r for _, r, _ in decided] == [Reason.WAITING, Reason.FIRED, Reason.CLEARING, Reason.RESOLVED]


def test_memory_of_another_version() -> None:
    """Memory that this version did not write is refused by name, not misread."""
    stored = run(AT_ONCE, {0: HOLDS})[0].to_json()
    for damaged in (stored | {"version": 2}, stored | {"state": "asleep"}, stored | {"more": 1}, {}):
        with pytest.raises(ValueError, match="memory of an alert"):
            Instance.from_json(damaged)


HISTORIES = int(os.environ.get("VALUEDRIFT_TEST_ALERT_HISTORIES", "400"))
"""Many thousands for a thorough look."""

# random histories ---------------------------------------------------------------------------------------------------

LEGAL = {
    (State.INACTIVE, State.PENDING),
    (State.RESOLVED, State.PENDING),
    (State.INACTIVE, State.FIRING),
    (State.RESOLVED, State.FIRING),
    (State.PENDING, State.FIRING),
    (State.PENDING, State.INACTIVE),
    (State.FIRING, State.ACKNOWLEDGED),
    (State.ACKNOWLEDGED, State.FIRING),
    (State.FIRING, State.RESOLVED),
    (State.ACKNOWLEDGED, State.RESOLVED),
}
ALL, PAGES = Recipient("all", frozenset({"page", "ticket"})), Recipient("pages", frozenset({"page"}))
RECIPIENTS = (ALL, PAGES)

times = st.integers(0, 4).map(lambda n: n * MINUTE)
policies = st.builds(
    Policy,
    for_=times,
    clear_for=times,
    repeat=st.none() | st.integers(1, 6).map(lambda n: n * MINUTE),
    flap_window=st.integers(1, 8).map(lambda n: n * MINUTE),
    flap_changes=st.integers(0, 4),
    gone_after=st.just(10 * MINUTE),
    severity=st.sampled_from([None, None, "page"]),
)
observations = st.one_of(
    st.just(HOLDS),
    st.just(CLEAR),
    st.just(UNKNOWN),
    st.builds(Observation, st.just(True), st.sampled_from(["page", "ticket", None])),
    st.builds(
        Observation,
        st.just(True),
        st.sampled_from(["page", "ticket"]),
        st.sampled_from(["f1", "f2"]),
        st.integers(-10, 30).map(after) | st.none(),
    ),
    st.just(Observation(False, gone=True)),
)
events = st.one_of(
    # how long after the last pass, in half minutes; a few go backwards
    st.tuples(st.just("pass"), observations, st.integers(0, 4)),
    st.tuples(st.just("pass"), st.sampled_from([HOLDS, CLEAR]), st.integers(1, 2)),
    st.tuples(st.just("pass"), st.sampled_from([HOLDS, CLEAR, Observation(True, "page")]), st.integers(1, 2)),
    st.tuples(st.just("back"), observations, st.integers(1, 60)),
    st.tuples(st.sampled_from(["ack", "unack", "silence", "inhibit", "restart"])),
)


@dataclass
class World:
    """One key, its targets, and what an onlooker who knows only passes and notices says of them."""

    policy: Policy
    now: datetime = START
    instance: Instance = NOTHING
    silenced: bool = False
    inhibited: bool = False
    holding_since: datetime | None = None
    clear_since: datetime | None = None
    known: dict[str, Tell] = field(default_factory=dict)
    """What each target believes to stand."""
    sent: dict[str, tuple[Tell, datetime]] = field(default_factory=dict)
    fired: set[str] = field(default_factory=set)
    changed: list[datetime] = field(default_factory=list)
    """When it fired and resolved."""

    def happens(self, kind: str, *how: Any) -> None:
        if kind in ("pass", "back"):
            observation, halves = how
            self.passes(observation, halves * MINUTE / (2 if kind == "pass" else -2))
        elif kind == "ack":
            self.took(*acknowledge(self.instance, "kim", self.now))
        elif kind == "unack":
            self.took(*unacknowledge(self.instance, "kim"))
        elif kind == "silence":
            self.silenced = not self.silenced
        elif kind == "inhibit":
            self.inhibited = not self.inhibited
        else:
            stored = msgspec.json.encode(self.instance.to_json())
            restored = Instance.from_json(msgspec.json.decode(stored))
            assert restored == self.instance
            assert len(stored) < 4000
            self.instance = NOTHING if restored.forgettable else restored

    def passes(self, seen: Observation, later: timedelta) -> None:
        self.now += later
        back = later < timedelta(0)
        holds, clear = seen.holds is True and not seen.gone, seen.holds is False
        self.changed = [min(at, self.now) for at in self.changed]
        self.sent = {target: (tell, min(at, self.now)) for target, (tell, at) in self.sent.items()}
        same = self.instance.alert_id == seen.alert_id or seen.alert_id is None
        self.holding_since = (self.now if back or not same else self.holding_since or self.now) if holds else None
        self.clear_since = (self.now if back else self.clear_since or self.now) if clear else None
        self.took(*advance(KEY, self.instance, seen, self.policy, self.now))
        again, more = advance(KEY, self.instance, seen, self.policy, self.now)
        assert more == (), "a pass that is repeated decides nothing"
        self.instance = again
        self.tells()
        self.promises(seen)

    def took(self, instance: Instance, decisions: tuple[Decision, ...]) -> None:
        state = self.instance.state
        for d in decisions:
            assert d.before == state or (d.before, state) == (State.INACTIVE, State.RESOLVED), (
                "no gap between decisions"
            )
            assert d.before == d.after or (d.before, d.after) in LEGAL
            assert len(d.reason) <= 64
            assert d.alert_id is not None
            state = d.after
            if d.after in STANDING:
                self.fired.add(d.alert_id)
            if d.after is State.RESOLVED:
                assert d.alert_id in self.fired, "resolved only after firing"
            n = self.policy.flap_changes
            if d.reason is Reason.RESOLVED and 0 < n <= len(self.changed):
                assert self.now - self.changed[-n] >= self.policy.flap_window, "what flaps is held back"
            if d.reason is Reason.FIRED or d.after is State.RESOLVED:
                self.changed.append(self.now)
        assert instance.state == state or (not decisions and instance.state is State.INACTIVE)
        assert len(instance.changes) <= self.policy.flap_changes
        self.instance = instance

    def tells(self) -> None:
        surroundings = Surroundings("s1" if self.silenced else None, "a1" if self.inhibited else None)
        instance, said = notify(self.instance, RECIPIENTS, surroundings, self.policy, self.now)
        for x in said:
            if isinstance(x, Suppressed):
                continue
            known = self.known.get(x.target)
            if x.status == "resolved":
                assert known is not None, "an end is told only where a beginning was"
                assert known.alert_id == x.alert_id
                del self.known[x.target]
                continue
            assert known is None or known.alert_id == x.alert_id, "never two firing for one key"
            assert x.alert_id in self.fired, "pending is never told"
            if x.status == "firing":
                assert not self.silenced
                assert not self.inhibited
                assert x.severity == "page" or x.target == "all"
                self.at_most_as_often_as_repeated(x, known)
            self.known[x.target] = x
            self.sent[x.target] = (x, self.now)
        again, more = notify(instance, RECIPIENTS, surroundings, self.policy, self.now)
        assert not any(isinstance(x, Tell) for x in more), "a pass that is repeated tells nothing"
        self.instance = again

    def at_most_as_often_as_repeated(self, tell: Tell, known: Tell | None) -> None:
        if known is None or known.status != "firing" or (known.severity, tell.severity) == ("ticket", "page"):
            return
        assert self.policy.repeat is not None
        assert self.now - self.sent[tell.target][1] >= self.policy.repeat

    def promises(self, seen: Observation) -> None:
        standing = self.instance.standing
        for tell in self.known.values():
            assert standing, "nothing is left firing at a target after it resolved"
            assert tell.alert_id == self.instance.alert_id
        if self.holding_since is not None and self.now - self.holding_since >= self.policy.for_:
            assert standing, "what has held for `for` fires"
        if self.instance.state is State.FIRING and not self.silenced and not self.inhibited:
            wanting = {"all", "pages"} if self.instance.severity == "page" else {"all"}
            assert wanting <= self.known.keys(), "what fires is told to all who want it"
            raised = {t for t in wanting if RANK[self.known[t].severity] < RANK[self.instance.severity]}
            assert not raised, "what became a page is told as one"
            assert {self.known[t].status for t in wanting} == {"firing"}
        if seen.holds and not seen.gone and standing:
            assert self.instance.alert_id == seen.alert_id or seen.alert_id is None, "the finding that holds is told"
            assert self.instance.severity == (self.policy.severity or seen.severity or self.instance.severity)
        patience = self.policy.clear_for + (self.policy.flap_window if self.policy.flap_changes else timedelta(0))
        if self.clear_since is not None and self.now - self.clear_since >= patience:
            assert not standing, "a resolve is held back for a while, never lost"
        if seen.gone:
            assert not standing


@settings(max_examples=HISTORIES, deadline=None)
@given(policies, st.lists(events, min_size=8, max_size=40))
def test_any_history(policy: Policy, history: list[tuple[Any, ...]]) -> None:
    """Whatever happens in whatever order, the promises of docs/alerts.md hold after every pass."""
    world = World(policy)
    for kind, *how in history:
        world.happens(kind, *how)


@settings(max_examples=HISTORIES // 4, deadline=None)
@given(policies, st.lists(events, max_size=40))
def test_restart_changes_nothing(policy: Policy, history: list[tuple[Any, ...]]) -> None:
    """Memory that is stored and read back after every event leads to the same notices as memory that never was."""
    one, other = World(policy), World(policy)
    for kind, *how in history:
        one.happens(kind, *how)
        other.happens(kind, *how)
        other.happens("restart")
        assert one.known == other.known
        assert one.instance.state == other.instance.state
