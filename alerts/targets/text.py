"""Notices made fit to be written anywhere: bounded, every string one printable line. Markup is each target's own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from alerts.notice import MOST_TRACE, MOST_TURNS, Figure, Notice, TellingTurn, TracePoint
from streams.reasons import printable

LONGEST_ID: Final = 200
LONGEST_TITLE: Final = 300
LONGEST_LINE: Final = 1000
"""Characters of one statement: a figure, a place, a note."""
LONGEST_REASON: Final = 4000
LONGEST_EXCERPT: Final = 400
MOST_FIGURES: Final = 12
MOST_WHERE: Final = 10
MOST_LABELS: Final = 48
LONGEST_URL: Final = 2000

_URL: Final = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\])?(?:[!#$&()*+,\-./0-9:;=?@A-Z_a-z~]|%[0-9A-Fa-f]{2})+", re.ASCII
)
"""Without what ends a link in HTML or in Slack's markup."""
_BARS: Final = "▁▂▃▄▅▆▇█"


def harmless(notice: Notice, *, excerpts: bool) -> Notice:
    """The same notice in printable lines of bounded length; what a medium reads as markup is still in it.

    Control characters, line ends and what turns the direction of writing are shown as escapes. What is no address of
    the web is no link.

    Parameters
    ----------
    excerpts : whether turns keep their texts.
    """
    return replace(
        notice,
        id=printable(notice.id, LONGEST_ID),
        rule=printable(notice.rule, LONGEST_TITLE),
        severity=printable(notice.severity, 16),
        series=printable(notice.series, LONGEST_LINE),
        labels={
            printable(k, 100): printable(v, LONGEST_LINE) for k, v in list(notice.labels.items())[:MOST_LABELS] if k
        },
        title=printable(notice.title or notice.rule or "alert", LONGEST_TITLE),
        reason=printable(notice.reason, LONGEST_REASON),
        guarantee=printable(notice.guarantee, LONGEST_LINE),
        note=printable(notice.note, LONGEST_LINE),
        figures=tuple(
            Figure(printable(f.name, 100), printable(f.text, LONGEST_LINE), f.known)
            for f in notice.figures[:MOST_FIGURES]
        ),
        where=tuple(printable(line, LONGEST_LINE) for line in notice.where[:MOST_WHERE]),
        turns=tuple(_turn(t, excerpts) for t in notice.turns[:MOST_TURNS]),
        trace=tuple(p for p in notice.trace[-MOST_TRACE:] if all(map(math.isfinite, (p.s, p.low, p.high)))),
        dashboard_url=_link(notice.dashboard_url),
        runbook_url=_link(notice.runbook_url) or printable(notice.runbook_url, LONGEST_TITLE),
    )


def _turn(turn: TellingTurn, excerpts: bool) -> TellingTurn:
    return replace(
        turn,
        event_id=printable(turn.event_id),
        behaviour=printable(turn.behaviour, 100),
        where=printable(turn.where),
        request=_excerpt(turn.request) if excerpts else None,
        answer=_excerpt(turn.answer) if excerpts else None,
    )


def _excerpt(text: str | None) -> str | None:
    # line ends and indents of prose are of no use in a line
    return None if text is None else printable(" ".join(text[: 4 * LONGEST_EXCERPT].split()), LONGEST_EXCERPT)


def _link(url: str) -> str:
    return url if len(url) <= LONGEST_URL and _URL.fullmatch(url) else ""


def links(notice: Notice) -> list[tuple[str, str]]:
    """What leads on from a notice, by name; a runbook may be the name of a page."""
    return [(k, url) for k, url in (("Dashboard", notice.dashboard_url), ("Runbook", notice.runbook_url)) if url]


def is_link(text: str) -> bool:
    """Whether a notice's runbook is an address of the web, or a name of a page."""
    return text.startswith(("https://", "http://"))


def status_line(notice: Notice) -> str:
    """`FIRING page, since 2026-03-11 09:10 UTC: fired`; of an alert that is over, from when to when."""
    what = f"{notice.status.upper()} {notice.severity}".strip()
    since = f"since {when(notice.raised_at)}"
    if notice.resolved_at is not None:
        since = f"{when(notice.raised_at)} to {when(notice.resolved_at)}"
    return f"{what}, {since}" + (f": {notice.note}" if notice.note else "")


def turn_line(turn: TellingTurn) -> str:
    """`harmful_compliance 0.97  chat.jsonl:812  event e-17 turn 0  2026-03-11 09:12 UTC`."""
    return (
        f"{turn.behaviour} {turn.probability:.2f}  {turn.where}  event {turn.event_id} turn {turn.turn}  "
        f"{when(turn.ts)}"
    )


def when(t: datetime) -> str:
    """`2026-03-11 09:12 UTC`; times of notices are in UTC."""
    return f"{t:%Y-%m-%d %H:%M} UTC"


def sparkline(trace: Sequence[TracePoint], width: int = 40) -> str:
    """S over time as bars from 0 to its highest; each stands for the highest of its share of the points.

    >>> from datetime import UTC, datetime
    >>> sparkline([TracePoint(datetime(2026, 3, 1, h, tzinfo=UTC), s, s, s) for h, s in enumerate((0.1, 0.1, 0.8))])
    '▂▂█'
    """
    if not trace:
        return ""
    count = min(width, len(trace))
    edges = [i * len(trace) // count for i in range(count + 1)]
    highest = [max(p.s for p in trace[a:b]) for a, b in pairwise(edges)]
    top = max(max(highest), 1e-9)
    return "".join(_BARS[min(len(_BARS) - 1, max(0, int(len(_BARS) * s / top)))] for s in highest)


def trace_line(trace: Sequence[TracePoint]) -> str:
    """`▁▁▂▇█  S of 24 h from 0.12 to 0.80 nats, 2026-03-04 09:00 UTC to 2026-03-11 09:00 UTC`; empty without points."""
    if not trace:
        return ""
    first, last = trace[0], trace[-1]
    return f"{sparkline(trace)}  S of 24 h from {first.s:.2f} to {last.s:.2f} nats, {when(first.t)} to {when(last.t)}"


_UNLIKE: Final = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "ˋ", "[": "［", "]": "］"})


def inert(text: str) -> str:
    """Look-alikes for what chat services read as mentions and links, where another program writes the markup.

    >>> inert("<!channel> @here [a](https://b.example)")
    '‹!channel› ＠here ［a］(https://b.example)'
    """
    return text.translate(_UNLIKE)


def subject(notices: Sequence[Notice]) -> str:
    """`[FIRING] harmful_compliance rose in shop/m-1: 1.0 % -> 25.0 %`, or how many alerts of which rules there are."""
    if len(notices) == 1:
        return f"[{notices[0].status.upper()}] {notices[0].title}"
    statuses = [n.status for n in notices]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
    return printable(f"{len(notices)} alerts ({counts}): {', '.join(dict.fromkeys(n.rule for n in notices))}")


def plain(notice: Notice) -> str:
    """A notice as text of several lines, without its title."""
    blocks: list[Sequence[str]] = [
        [status_line(notice)],
        [notice.reason],
        [f"{f.name}: {f.text}" for f in notice.figures],
        [f"{name}: {url}" for name, url in links(notice)],
        [trace_line(notice.trace)],
        ["Likely where:", *(f"  {line}" for line in notice.where)] if notice.where else [],
        ["Telling turns:", *(line for t in notice.turns for line in _turn_lines(t))] if notice.turns else [],
        [f"False alarms: {notice.guarantee}"] if notice.guarantee else [],
        [f"Alert {notice.id}" + (f" on {notice.series}" if notice.series else "")],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if any(block))


def brief(notice: Notice) -> str:
    """A notice among others: its title, status and link."""
    return "\n".join(part for part in (notice.title, status_line(notice), notice.dashboard_url) if part)


def _turn_lines(turn: TellingTurn) -> list[str]:
    excerpts = (("asked", turn.request), ("answered", turn.answer))
    return [f"  {turn_line(turn)}", *(f"    {what}: {text}" for what, text in excerpts if text is not None)]
