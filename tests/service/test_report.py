"""The weekly report from the database: what it finds, what it does not claim, and that it stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, update

from monitor.config import Config, Report, Retention
from monitor.decomposition import share_parts
from monitor.errors import ConfigError
from monitor.label_sums import WITHOUT
from monitor.report import archive
from monitor.report.gather import Wanted, gather
from monitor.report.model import Interval, ReportData, Series
from monitor.report.render import render
from monitor.store import reads, report_reads, schema
from monitor.store.database import open_store, writing
from monitor.store.oncall import raise_alerts
from monitor.store.retention import prune
from monitor.store.trajectories import Alert
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from tests.service.report_stream import (
    LATER,
    START,
    VERSION,
    WEEK,
    baseline,
    one_hot,
    put,
    stepper,
    turns,
)
from tests.unit.core_cases import DRIFTED, HEALTHY, answers
from tests.unit.test_decomposition import SHIFTS

pytestmark = pytest.mark.service
SETTINGS = Report(detailed=20)
W46 = Wanted("2026-W46")


@pytest.fixture
def small(tmp_path: Any) -> Iterator[Engine]:
    """A SQLite file, where the kind of database does not matter."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    yield engine
    engine.dispose()


def report(engine: Engine, wanted: Wanted = W46, settings: Report = SETTINGS) -> ReportData:
    return gather(stepper(engine), settings, wanted)


def only(data: ReportData) -> Series:
    [found] = data.series
    return found


def weeks(engine: Engine, name: str, before: Any, now: Any, **options: Any) -> None:
    """A series with a healthy baseline and turns in the week before and in this one, None for none."""
    for start, q in ((START - WEEK, before), (START, now)):
        if q is not None:
            put(engine, name, start, q, **options)
    baseline(engine, name, turns(1, 400))


def standing(series_id: int | None, name: str = "a1", **changes: Any) -> Alert:
    at = START + timedelta(days=2)
    values = {"moved": [], "joined": [], "where": []}
    alert = Alert(name, series_id, "value_drift", True, at, None, at, at, at, "it moved", values, [], "page")
    return replace(alert, **changes)


# --- what it finds


def test_known_shifts_are_recovered(engine: Engine) -> None:
    """On streams of known mixture and rate shifts, the report's parts lie within their intervals, and add up."""
    t, p, u, q = SHIFTS["both"]
    trials = 8
    for seed in range(trials):
        rng = np.random.default_rng([seed, 77])
        for start, n, traffic, mixtures in ((START - WEEK, 1500, t, p), (START, 800, u, q)):
            routes = rng.choice(len(traffic), n, p=traffic)
            judged = np.concatenate([answers(rng, mixtures[r], 1) for r in routes])
            put(engine, f"bot-{seed}", start, judged, routes=[f"v{r}" for r in routes])
        whole = np.array(t) @ np.array(p)
        baseline(engine, f"bot-{seed}", answers(rng, whole, 1500))
    data = report(engine)
    assert len(data.series) == trials
    mixture, rate = share_parts((np.array(t), np.array(u)), (np.array(p), np.array(q)))
    true = {f"v{v}": (-mixture[v, ALIGNED], -rate[v, ALIGNED]) for v in range(len(t))}
    held: list[bool] = []

    def look(x: Interval, truth: float) -> None:
        held.append(x.low - 1e-9 <= truth <= x.high + 1e-9)

    change = np.array(u) @ np.array(q) - np.array(t) @ np.array(p)
    for s in data.series:
        assert s.change is not None
        [split] = s.splits
        assert split.label == "route"
        for term in split.terms:
            look(term.mixture, true[term.value][0])
            look(term.rate, true[term.value][1])
        look(split.mixture_total, sum(m for m, _ in true.values()))
        look(split.rate_total, sum(r for _, r in true.values()))
        look(s.change.misaligned, -change[ALIGNED])
        for term in s.drivers[1:]:
            look(term.misaligned, change[BEHAVIOURS.index(term.name)])
        assert sum(x.mixture.mean for x in split.terms) == pytest.approx(split.mixture_total.mean, abs=1e-9)
        assert sum(x.misaligned.mean for x in s.drivers) == pytest.approx(s.change.misaligned.mean, abs=1e-9)
        assert sum(x.S.mean for x in s.drivers) == pytest.approx(s.change.S.mean, abs=1e-9)
    assert np.mean(held) >= 0.8, f"{np.mean(held):.2f} of {len(held)} parts"


def test_a_fleet(engine: Engine) -> None:
    """The drifting series is found, comes first and is told in detail; calm ones are stable, the new one unknown."""
    for i in range(4):
        weeks(engine, f"calm-{i}", turns(10 + i, 500), turns(20 + i, 500))
    weeks(engine, "drifting", turns(3, 500), turns(4, 500, DRIFTED))
    weeks(engine, "new", None, turns(5, 400))
    put(engine, "gone", START - 8 * WEEK, turns(6, 60))
    data = report(engine, settings=Report(detailed=2))
    assert data.series[0].name == "drifting/m"
    assert [s.verdict for s in data.series if s.name.startswith("calm")] == ["stable"] * 4
    verdicts = {s.deployment: s.verdict for s in data.series}
    assert verdicts["drifting"] == "drifting"
    assert verdicts["new"] == "not enough data"
    assert "gone" not in verdicts, "what had no turns for months is left out"
    assert any("1 series without turns" in note for note in data.notes)
    first = data.series[0]
    assert first.change is not None
    assert first.change.real
    assert first.telling["harmful_compliance"], "the most telling turns are shown"
    assert first.drivers
    assert first.evidence.startswith("The misaligned share rose")
    assert not data.series[-1].drivers, "only two are told in detail"
    f = data.fleet
    assert (f.series, f.drifting, f.stable, f.unknown) == (6, 1, 4, 1)
    assert f.turns == 4 * 500 + 500 + 400
    assert "drifting/m" in f.headline
    assert data == report(engine, settings=Report(detailed=2)), "the same every time"


@pytest.mark.parametrize("compare", ["previous", "baseline", "4w"])
def test_what_it_is_compared_with(small: Engine, compare: Any) -> None:
    """The week before, the baseline, or four weeks: a drift that is a week old shows against what is older only."""
    for k in range(5):
        put(small, "bot", START - k * WEEK, turns(k, 300, DRIFTED if k < 2 else HEALTHY))
    baseline(small, "bot", turns(9, 400), frozen_at=START - 5 * WEEK)
    s = only(report(small, Wanted("2026-W46", compare)))
    assert s.before is not None
    assert s.before.turns == {"previous": 300, "baseline": 400, "4w": 1200}[compare]
    assert s.verdict == ("stable" if compare == "previous" else "drifting")


def test_sums_without_label_sums(engine: Engine) -> None:
    """Hours of which no sums by label are kept are taken from the buckets, none twice and none left out."""
    put(engine, "bot", START, turns(1, 700))
    with writing(engine) as connection:
        [s] = reads.all_series(connection)
        whole = report_reads.span_sums(connection, s.id, VERSION, START, START + WEEK)
        t = schema.label_sums
        noon = int((START + timedelta(days=3, hours=12)).timestamp()) // 60
        connection.execute(t.delete().where(t.c.minute < noon, t.c.minute >= noon - 60 * 50))
        connection.execute(t.delete().where(t.c.minute == noon + 60))
        part = report_reads.span_sums(connection, s.id, VERSION, START, START + WEEK)
        connection.execute(t.delete())
        none = report_reads.span_sums(connection, s.id, VERSION, START, START + WEEK)
    assert whole.sums.n == part.sums.n == none.sums.n == 700
    assert whole.hours == part.hours == none.hours == 168
    for other in (part, none):
        assert (whole.sums.mean() == other.sums.mean()).all()


def test_alerts_of_the_week(small: Engine) -> None:
    """An alert that stood in the week makes a series drift; times to acknowledge and resolve are medians."""
    for name in ("one", "two"):
        weeks(small, name, turns(1, 200), turns(2, 200))
    with writing(small) as connection:
        ids = {s.key.deployment: s.id for s in reads.all_series(connection)}
        at = START + timedelta(days=1)
        quick = {"raised_at": at, "acknowledged_at": at + timedelta(minutes=10), "acknowledged_by": "mara"}
        raise_alerts(connection, [
            standing(ids["one"]),
            standing(ids["two"], "a2", rule="no_data", firing=False, resolved_at=at + timedelta(minutes=90), **quick),
            standing(ids["two"], "old", firing=False, raised_at=START - WEEK, resolved_at=START - timedelta(hours=1)),
            standing(None, "m", rule="monitor_unhealthy"),
        ])  # fmt: skip
    data = report(small)
    one, two = sorted(data.series, key=lambda s: s.name)
    assert one.verdict == "drifting"
    assert one.evidence.startswith("An alert of value_drift stood from Wed 11 Nov 00:00 UTC on.")
    assert two.verdict == "stable"
    assert [a.id for a in two.alerts] == ["a2"]
    assert {m.kind for m in two.marks} == {"alert", "resolved"}
    assert (data.fleet.alerts, data.fleet.minutes_to_acknowledge, data.fleet.minutes_to_resolve) == (2, 10, 90)
    assert any("monitor_unhealthy" in note for note in data.notes)


def test_pairs(small: Engine) -> None:
    """A base and a tuned series that are named give suppression and work; one that is not there says so."""
    put(small, "base", START, turns(1, 400, DRIFTED))
    put(small, "tuned", START, turns(2, 400))
    data = report(small, settings=Report(pairs=(("base", "tuned"), ("base", "nobody"))))
    found, missing = data.pairs
    assert found.suppression.value.low > 0.2  # type: ignore[union-attr]
    assert found.work.value.low > 0  # type: ignore[union-attr]
    assert "nobody" in missing.work.reason  # type: ignore[union-attr]


# --- bad input


def test_nothing_at_all(engine: Engine) -> None:
    """A database without series, or a week without turns, is a report that says so."""
    assert "No series" in report(engine).fleet.headline
    weeks(engine, "bot", None, turns(1, 100))
    data = report(engine, Wanted("2020-W53"))
    assert data.series == []
    assert render(data, "md")
    with pytest.raises(ConfigError, match="nearest"):
        report(engine, Wanted("2026-W46", series=("nobody",)))


def test_one_turn(engine: Engine) -> None:
    """A week of one turn has wide intervals and no verdict."""
    weeks(engine, "bot", turns(1, 300), turns(2, 1))
    s = only(report(engine))
    assert s.verdict == "not enough data"
    assert "1 of the 50 turns" in s.evidence
    assert s.now is not None
    assert s.now.S.high > 0.5


def test_appeared_and_vanished(small: Engine) -> None:
    """A series without a week before, and one without this week, cannot be judged, and each says which."""
    weeks(small, "appeared", None, turns(1, 200))
    weeks(small, "vanished", turns(2, 200), None)
    found = {s.deployment: s for s in report(small).series}
    assert {s.verdict for s in found.values()} == {"not enough data"}
    assert "nothing to compare with" in found["appeared"].evidence
    assert (
        found["vanished"].evidence == "No turns were judged in this week. There were 200 in what it is compared with."
    )
    assert found["vanished"].attention > found["appeared"].attention
    assert found["vanished"].now is None


def test_without_a_baseline(small: Engine) -> None:
    """A series that still learns is not judged."""
    put(small, "bot", START - WEEK, turns(1, 200))
    put(small, "bot", START, turns(2, 200))
    s = only(report(small))
    assert s.verdict == "not enough data"
    assert "no baseline" in s.evidence


def test_another_baseline_in_the_middle(small: Engine) -> None:
    """A baseline of the week is marked and told; both windows are estimated under it, so its change is no drift."""
    weeks(small, "bot", turns(1, 400), turns(2, 400))
    baseline(small, "bot", turns(3, 400), frozen_at=START + timedelta(days=3))
    s = only(report(small))
    assert s.verdict == "stable"
    assert [m.kind for m in s.marks] == ["baseline"]
    assert any("another baseline" in note for note in s.notes)
    assert only(report(small, Wanted("2026-W46", "baseline"))).verdict == "not enough data"
    earlier = only(report(small, Wanted("2026-W45")))
    assert not earlier.notes, "the week before had the old one"


def test_another_classifier_in_the_middle(engine: Engine) -> None:
    """Turns of two classifiers are never added up: figures are of the one at hand, and the other is named."""
    put(engine, "bot", START - WEEK, turns(1, 300), version="older")
    half = WEEK / 2
    put(engine, "bot", START, turns(2, 200), version="older", span=half)
    put(engine, "bot", START + half, turns(3, 150), span=half)
    baseline(engine, "bot", turns(4, 300))
    s = only(report(engine))
    assert s.now is not None
    assert s.now.turns == 150
    assert s.quality.classifiers == ["older", VERSION]
    assert [m.text for m in s.marks if m.kind == "classifier"] == [f"classifier {VERSION} follows older"]
    assert any("2 classifiers" in note for note in s.notes)
    assert s.verdict == "not enough data"
    assert "this classifier judged" in s.evidence
    assert "another classifier (older)" in only(report(engine, Wanted("2026-W45"))).evidence


HOSTILE = "<script>alert(1)</script>=cmd()\x1b[31m\u202e" + "x" * 60


def test_hostile_names(engine: Engine) -> None:
    """Names and label values of strangers are kept as they are, and what they turn a page into is text."""
    rng = np.random.default_rng(1)
    routes = [HOSTILE if rng.random() < 0.5 else WITHOUT for _ in range(300)]
    for start, q in ((START - WEEK, turns(1, 300)), (START, turns(2, 300))):
        put(engine, HOSTILE, start, q, routes=routes, model="a/b{c=d}")
    baseline(engine, HOSTILE, turns(3, 300))
    data = report(engine)
    s = only(data)
    assert s.deployment == HOSTILE
    page = render(data, "md").decode()
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert msgspec.json.decode(render(data, "json"), type=ReportData) == data


# --- kept


def made(engine: Engine, wanted: Wanted = W46, **options: Any) -> tuple[ReportData, archive.Key]:
    return archive.made(stepper(engine), SETTINGS, wanted, LATER, **options)


def test_last_years_report(engine: Engine) -> None:
    """A report that was made once comes out byte for byte as it was, whatever came in meanwhile, until made again."""
    weeks(engine, "bot", turns(1, 200), turns(2, 200))
    first, key = made(engine)
    put(engine, "bot", START + timedelta(hours=1), turns(3, 300, DRIFTED), span=WEEK / 2)
    assert made(engine)[0] == first
    for form in ("json", "md"):
        assert render(made(engine)[0], form) == render(first, form)  # type: ignore[arg-type]
    archive.note_sent(engine, key, "mail", LATER)
    again, _ = made(engine, again=True)
    assert again.fleet.turns == 500
    assert made(engine)[0] == again
    assert archive.sent(engine, key) == {}, "those who have the old one have not got the new one"


def test_each_comparison_and_scope_is_kept(small: Engine) -> None:
    """Reports of one week that are compared otherwise, or are of other series, are reports of their own."""
    for name in ("one", "two"):
        weeks(small, name, turns(1, 200), turns(2, 200))
    made(small)
    made(small, Wanted("2026-W46", "baseline"))
    assert made(small, Wanted("2026-W46", series=("one",)))[0].fleet.series == 1
    assert made(small, Wanted("2026-W46", series=("one/m", "two")))[0].fleet.series == 2
    with small.connect() as connection:
        assert len(connection.execute(schema.reports.select()).all()) == 4
    assert made(small)[0].compare == "previous"


def test_a_week_that_is_not_over(small: Engine) -> None:
    """It can be looked at, and is not kept: the rest of the week is still to come."""
    weeks(small, "bot", turns(1, 200), turns(2, 200))
    now = START + timedelta(days=5)
    data, key = archive.made(stepper(small), SETTINGS, W46, now)
    assert data.fleet.turns == 200
    assert archive.kept(small, key) is None


def test_excerpts_are_not_kept(engine: Engine) -> None:
    """Excerpts are shown as long as they are kept for themselves, and go with them, not with the report."""
    put(engine, "bot", START, one_hot("deception", 3), excerpts=True)
    data, key = made(engine)
    shown = archive.with_texts(engine, data)
    assert [t.answer for t in only(shown).telling["deception"]] == ["said that"] * 3
    with engine.connect() as connection:
        assert b"said that" not in render(archive.kept(engine, key) or data, "json")
        assert connection.execute(schema.turn_texts.select()).all()
    with writing(engine) as connection:
        connection.execute(schema.turn_texts.delete())
    assert archive.with_texts(engine, data) == archive.without_texts(shown)


def test_a_damaged_report(small: Engine) -> None:
    """What cannot be read is said to be so, with the way to make it anew."""
    weeks(small, "bot", turns(1, 60), turns(2, 60))
    made(small)
    with writing(small) as connection:
        connection.execute(update(schema.reports).values(data=b"not a report"))
    with pytest.raises(Exception, match="--again"):
        made(small)
    assert made(small, again=True)[0].fleet.turns == 60


def test_old_reports_go(engine: Engine) -> None:
    """Reports go by the end of their week, after as long as retention says."""
    weeks(engine, "bot", turns(1, 60), turns(2, 60))
    made(engine)
    made(engine, Wanted("2026-W45"))
    limits = Config(retention=Retention(reports="7d", turns="", texts="", event_keys="")).limits()
    assert prune(engine, limits, START + 2 * WEEK, dry_run=True).rows["reports"] == 1
    assert prune(engine, limits, START + 2 * WEEK).rows["reports"] == 1
    with engine.connect() as connection:
        assert [r.week for r in connection.execute(schema.reports.select())] == ["2026-W46"]
