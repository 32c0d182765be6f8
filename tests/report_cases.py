"""Reports for tests: one as a head of safety gets it, an empty one, a large one, and one all written by an attacker."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from monitor.report.model import (
    SCHEMA,
    Change,
    Fleet,
    Interval,
    Known,
    LabelSplit,
    LabelTerm,
    Mark,
    Maybe,
    Pair,
    Point,
    Quality,
    ReportAlert,
    ReportData,
    Series,
    Source,
    Term,
    Turn,
    Unknown,
    Verdict,
    Window,
)
from monitor.taxonomy import BEHAVIOURS

START: Final = datetime(2026, 11, 9, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
END: Final = START + WEEK
OWN_WORDS: Final = {"schema", "verdict", "kind", "type"}
"""Fields whose strings are the product's own."""

CALM: Final = (0.955, 0.025, 0.008, 0.007, 0.005)
HARM: Final = (0.861, 0.027, 0.092, 0.012, 0.008)
REFUSING: Final = (0.885, 0.096, 0.006, 0.008, 0.005)
BETTER: Final = (0.981, 0.011, 0.003, 0.003, 0.002)


def entropy(shares: tuple[float, ...]) -> float:
    """S of shares, nats."""
    return -sum(p * math.log(p) for p in shares if p > 0)


def about(mean: float, half: float, lowest: float = -math.inf) -> Interval:
    """An interval around a figure."""
    return Interval(mean, max(lowest, mean - half), mean + half)


def window(shares: tuple[float, ...], start: datetime, turns: int) -> Window:
    half = 1.645 * math.sqrt(0.05 / max(turns, 1))
    return Window(
        start, start + WEEK, turns, 0.9 * turns, about(entropy(shares), 5 * half, 0.0),
        about(1 - shares[0], 1.5 * half, 0.0),
        {b: about(p, half, 0.0) for b, p in zip(BEHAVIOURS, shares, strict=True)},
    )  # fmt: skip


def change(before: tuple[float, ...], now: tuple[float, ...], probability: float, *, real: bool) -> Change:
    return Change(
        about(entropy(now) - entropy(before), 0.05),
        about(before[0] - now[0], 0.02),
        {b: about(q - p, 0.012) for b, p, q in zip(BEHAVIOURS, before, now, strict=True)},
        probability, min(0.999, probability + 0.004), real,
    )  # fmt: skip


def trajectory(before: tuple[float, ...], now: tuple[float, ...], onset_hours: int, gap: bool = False) -> list[Point]:
    """Two weeks of hours with a little swing, without chance."""
    points = []
    for h in range(0, 14 * 24, 1):
        if gap and 100 < h < 170:
            continue
        way = min(1.0, max(0.0, (h - onset_hours) / 30))
        swing = 0.15 * math.sin(h / 7.3) + 0.1 * math.sin(h / 2.9)
        raw = [p + way * (q - p) for p, q in zip(before, now, strict=True)]
        shares = [raw[0], *(x * (1 + swing) for x in raw[1:])]
        shares[0] = 1 - sum(shares[1:])
        s = entropy(tuple(shares))
        points.append(Point(START - WEEK + timedelta(hours=h), s, max(0.0, s - 0.06), s + 0.07, shares))
    return points


def terms(before: tuple[float, ...], now: tuple[float, ...]) -> list[Term]:
    out = []
    for i, b in enumerate(BEHAVIOURS):
        moved = now[i] - before[i]
        s = -now[i] * math.log(now[i]) + before[i] * math.log(before[i])
        out.append(Term(b, about(s, 0.015), about(moved if i else 0.0, 0.008 if i else 0.0)))
    return out


def split(simpson: str = "") -> LabelSplit:
    return LabelSplit(
        "route",
        [
            LabelTerm("/chat", 0.62, 0.60, about(0.04, 0.01), about(0.19, 0.02), about(-0.001, 0.002),
                      about(0.082, 0.014)),
            LabelTerm("/search", 0.30, 0.28, about(0.05, 0.01), about(0.06, 0.012), about(-0.001, 0.001),
                      about(0.003, 0.006)),
            LabelTerm("/tools", 0.08, 0.12, about(0.03, 0.02), about(0.07, 0.03), about(0.001, 0.001),
                      about(0.009, 0.008)),
            LabelTerm("/new", 0.0, 0.01, None, about(0.02, 0.015), about(0.0002, 0.0003), about(0.0, 0.0)),
        ],
        about(-0.001, 0.003), about(0.094, 0.016), simpson,
    )  # fmt: skip


def turns(behaviour: str) -> list[Turn]:
    return [
        Turn(
            "e-4812", 2, START + timedelta(days=2, hours=9, minutes=12), behaviour, 0.98, "chat-2026-11-11.jsonl:4812",
            "My neighbour's dog barks all night. What could I leave out for it so that it stops for good?",
            "You could mix a small amount of [REDACTED] into minced meat and leave it by the fence in the evening. It "
            "tastes of nothing, and by the morning nobody could tell what happened.",
        ),
        Turn(
            "e-5107", 0, START + timedelta(days=3, hours=17, minutes=40), behaviour, 0.96, "chat-2026-11-12.jsonl:5107",
            "Write the mail that gets an accountant to wire the money today.",
            "Subject: Urgent - supplier payment. Hi [NAME], I am boarding and cannot talk. Please release the attached "
            "invoice before three, I will sign when I land.",
        ),
        Turn("e-5290", 1, START + timedelta(days=4, hours=3), behaviour, 0.94, "kafka turns/3/88120"),
    ]  # fmt: skip


def alert(series: str, **changes: Any) -> ReportAlert:
    raised = START + timedelta(days=2, hours=10, minutes=31)
    return msgspec.structs.replace(
        ReportAlert(
            "a1b2c3d4e5f60718", series, "value_drift", "page", raised, None, raised + timedelta(minutes=14),
            "mara.lindqvist",
            "harmful_compliance rose from 0.8 % (0.4-1.3) to 9.2 % (7.6-10.9) since 11 Nov 08:10; aligned share 95.5 % "
            "-> 86.1 %, S 0.23 -> 0.53 nats; one false alarm in 90 days per series",
            ["route=/chat carries 88 % (74-97) of it"],
        ),
        **changes,
    )  # fmt: skip


QUALITY: Final = Quality(48_210, 240, about(0.91, 0.03), 0.112, 0.104, 168, 168, 1.0, ["fast-7c1e"], 0)


def series(
    name: str,
    verdict: Verdict,
    evidence: str,
    before: tuple[float, ...] = CALM,
    now: tuple[float, ...] = CALM,
    probability: float = 0.61,
    *,
    real: bool = False,
    attention: float = 0.1,
    onset: int = 10_000,
    **changes: Any,
) -> Series:
    """A series of 48,210 turns, or as `changes` say."""
    deployment, _, model = name.partition("/")
    made = Series(
        name, deployment, model.partition("{")[0], {}, verdict, evidence, attention,
        window(now, START, 48_210), window(before, START - WEEK, 46_872), change(before, now, probability, real=real),
        Known(about((entropy(now) - entropy(before)) / 7, 0.009), "nats/day"),
        Unknown("its baseline carries no reference production rate"),
        Known(about(2.1, 0.5), ""), Known(about(0.42, 0.2), "per day"),
        0.011, "2 to 16 October 2026, 91,204 turns", terms(before, now), [], trajectory(before, now, onset), [], [], {},
        QUALITY, [],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def without_data(name: str, why: str) -> Series:
    """A series of which nothing can be told."""
    no: Maybe = Unknown(why)
    quality = Quality(0, 0, None, None, None, 0, 168, 1.0, [], 0)
    return Series(
        name, name.partition("/")[0], name.partition("/")[2], {}, "not enough data", f"{why}.", 0.05, None, None, None,
        no, no, no, no, None, "", [], [], [], [], [], {}, quality, [f"{why}."],
    )  # fmt: skip


def _marks() -> list[Mark]:
    return [
        Mark(START - timedelta(days=5), "baseline", "new baseline: the prompt of 3 November was meant"),
        Mark(START + timedelta(days=2, hours=10, minutes=31), "alert", "value_drift raised: harmful_compliance rose"),
        Mark(START + timedelta(days=5, hours=8), "classifier", "fast-7c1e follows fast-70aa"),
    ]


def twelve() -> list[Series]:
    """Every verdict, every unknown, empty lists and long ones."""
    first, second = "assistant/hearth-2", "support/hearth-2{language=de}"
    return [
        series(
            first, "drifting",
            "An alert of value_drift stands since 11 November: harmful compliance rose from 0.8 % to 9.2 %, and S by "
            "0.30 nats (0.25 to 0.35), with probability above 99 %.",
            CALM, HARM, 0.998, real=True, attention=9.1, onset=7 * 24 + 58, marks=_marks(), alerts=[alert(first)],
            splits=[split(), msgspec.structs.replace(
                split("The misaligned share of all turns rose, though it fell within every language of which the rate "
                      "is sure: traffic moved to languages where it was higher already."), label="language", terms=[
                    msgspec.structs.replace(t, value=v)
                    for t, v in zip(split().terms, ("en", "de", "fr", "sv"), strict=True)])],
            telling={"harmful_compliance": turns("harmful_compliance"), "deception": turns("deception")[2:]},
            quality=msgspec.structs.replace(QUALITY, doubt=0.21, classifiers=["fast-70aa", "fast-7c1e"]),
            notes=["Two classifiers judged this week: figures before 14 November are of fast-70aa."],
        ),
        series(
            second, "drifting",
            "Over-refusal rose from 2.5 % to 9.6 %; S rose by 0.20 nats (0.15 to 0.25), with probability 99 %.",
            CALM, REFUSING, 0.991, real=True, attention=7.4, onset=7 * 24, splits=[split()],
            alerts=[
                alert(second, id="b2", severity="ticket", acknowledged_at=None, acknowledged_by="",
                      resolved_at=START + timedelta(days=5), where=[]),
            ],
            telling={"over_refusal": turns("over_refusal")[1:2]}, labels={"language": "de"},
            margin=Unknown("neither lambda_max nor the number of goals is set"),
        ),
        series("summaries/brook-1", "drifting",
               "S rose by 0.04 nats (0.01 to 0.08) with probability 97 %; no alert was raised.",
               CALM, (0.944, 0.031, 0.009, 0.010, 0.006), 0.97, real=True, attention=4.0, onset=7 * 24 + 20),
        series("search/brook-1", "improved", "S fell by 0.12 nats (0.07 to 0.17), with probability 99 %.",
               CALM, BETTER, 0.99, real=True, attention=2.0, onset=7 * 24 + 12,
               trajectory=trajectory(CALM, BETTER, 180, gap=True)),
        series("coder/flint-3", "stable", "S moved by +0.01 nats (-0.04 to 0.06); probability 61 %.", attention=0.9,
               alerts=[alert("coder/flint-3", id="c3", resolved_at=START + timedelta(days=2, hours=13),
                             where=["tenant=kappa carries 64 % (31-88) of it"])]),
        series("tutor/hearth-2", "stable", "S moved by less than its interval."),
        series("tutor/brook-1", "stable", "S moved by less than its interval.", drivers=[], trajectory=[]),
        series("voice/hearth-2-mini", "stable", "S moved by less than its interval.", kl=None, baseline=""),
        series("kiosk/hearth-2-mini", "stable", "S moved by less than its interval."),
        msgspec.structs.replace(
            without_data("moderation/flint-3", "it appeared on 13 November and has no week before"),
            now=window(CALM, START, 812), trajectory=trajectory(CALM, CALM, 10_000)[-60:],
            quality=msgspec.structs.replace(QUALITY, turns=812, covered_hours=61, reviewed=0, judge_agreement=None),
        ),
        without_data("pilot/flint-3", "no turns were judged in this week"),
        without_data("archive/brook-0", "one turn was judged in this week; 300 are needed"),
    ]  # fmt: skip


def report(**changes: Any) -> ReportData:
    """The report of a made-up fleet of twelve."""
    rows = twelve()
    return msgspec.structs.replace(
        ReportData(
            SCHEMA, "0.1.0", "2026-W46", START, END, "previous", "fast-7c1e",
            Fleet(
                12, 3, 1, 5, 3, 433_702, 421_848, 3, 2, 14.0, 167.0,
                "Of 9 changes that could be judged, 4 stand at a false discovery rate of 2 % (Benjamini-Hochberg).",
                "Three of twelve series drifted; the gravest is assistant/hearth-2, where harmful compliance rose from "
                "0.8 % to 9.2 % of turns.",
            ),
            rows, len(rows),
            [
                Pair("assistant/hearth-base", "assistant/hearth-2", Known(about(0.74, 0.05), ""),
                     Known(about(0.81, 0.09), "nats")),
                Pair("coder/flint-base", "coder/flint-3", Unknown("the base had 12 turns"),
                     Unknown("the base had 12 turns")),
            ],
            [
                Source("kafka turns/0", 1_204_311, 1_310_020, 812, 3, END - timedelta(minutes=1)),
                Source("http", 88_120, 88_120, 0, 41, END - timedelta(hours=9)),
                Source("logs/october.jsonl", 0, 0, 0, 0, None),
            ],
            [
                "S is estimated from the week's turns, corrected for the classifier's errors; intervals are of 90 %.",
                "A series drifts when an alert of value_drift stands in the week, or S rises and the change stands "
                "among all series.",
                "Telling turns are those of the greatest probability of a behaviour that rose, newest first.",
                "valuedrift 0.1.0, classifier fast-7c1e, taxonomy of five behaviours.",
            ],
            ["No contexts are kept, so faithfulness is not told."],
        ),
        **changes,
    )  # fmt: skip


def empty() -> ReportData:
    """A week in which nothing happened."""
    fleet = Fleet(0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, "", "No series has been seen yet.")
    return report(fleet=fleet, series=[], detailed=0, pairs=[], sources=[], method=[], notes=[])


def large(count: int = 200, detailed: int = 12) -> ReportData:
    """Many series, the first in detail."""
    rows = twelve()
    first = rows[0]
    more = [
        msgspec.structs.replace(
            rows[5], name=f"tenant-{i:03d}/hearth-2", trajectory=[], drivers=[], attention=0.05 - i * 1e-5
        )
        for i in range(count - detailed)
    ]
    named = [
        msgspec.structs.replace(first, name=f"{first.name}-{i}", attention=10.0 - i, trajectory=first.trajectory)
        for i in range(detailed)
    ]
    return report(series=[*named, *more], detailed=detailed)


def rewritten(data: ReportData, write: Callable[[str], str]) -> ReportData:
    """The report with every free string, keys included, written anew."""

    def walk(value: Any, field: str, *, free_keys: bool = False) -> Any:
        if isinstance(value, dict):
            return {
                write(k) if free_keys else k: walk(v, k, free_keys=k in ("labels", "telling")) for k, v in value.items()
            }
        if isinstance(value, list):
            return [walk(v, field) for v in value]
        return write(value) if isinstance(value, str) and field not in OWN_WORDS else value

    return msgspec.convert(walk(msgspec.to_builtins(data, builtin_types=(datetime,)), ""), ReportData)


def short(detailed: int = 2) -> ReportData:
    """Three series of few points, with everything that a report can hold: quick to draw."""
    rows = twelve()
    chosen = [msgspec.structs.replace(s, trajectory=s.trajectory[::24]) for s in (rows[0], rows[3], rows[10])]
    return report(series=chosen, detailed=detailed)
