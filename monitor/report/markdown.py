"""A report for a wiki, in GitHub's Markdown. Text from outside makes no markup, links or HTML in any wiki."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from alerts.targets.text import inert
from monitor.report import answers, tables, words
from monitor.report.model import ReportData, Series, Turn
from monitor.report.tables import Table

_SPECIAL: Final = re.compile(r"[\\*_~#|&{}$!^]|^[-+=](?!\d)|(?<=\d)[.)](?=\s|$)")
"""Marks of emphasis, headings, tables and entities anywhere; of lists where one begins."""
_LINKED: Final = re.compile(r"(?<=[^\W\d])\.(?=[^\W\d])|://|(?<=www)\.", re.IGNORECASE)
"""What programs that look for addresses take for one: between letters a dot, and what follows a scheme."""
_IN_CODE: Final = str.maketrans({"`": "ˋ", "|": "¦"})
_UNLIKE: Final = {".": "․", "://": "∶//"}


def page(data: ReportData) -> str:
    """The whole report as text."""
    data = words.harmless(data)
    ordered = answers.by_attention(data)
    blocks = [
        *_head(data),
        "## What needs attention",
        *(block for s in answers.leading(data) for block in _card(s)),
        "## All series",
        _table(tables.fleet(ordered, 0)),
        "## Alerts",
        _table(tables.alerts(ordered)),
        *(["## Base against tuned", _table(tables.pairs(data))] if data.pairs else []),
        *(["## Series in detail"] if ordered[: data.detailed] else []),
        *(block for s in ordered[: data.detailed] for block in _detail(s)),
        "## How far to trust this",
        _table(tables.quality(ordered)),
        _table(tables.sources(data)),
        _items(data.notes),
        "## Method",
        _items([*data.method, f"Made by valuedrift {data.version} with classifier {data.classifier}."]),
    ]
    return "\n\n".join(b for b in blocks if b) + "\n"


def text(line: str) -> str:
    r"""A line of text as it is, whatever it holds.

    >>> text("a *b* <i>c</i> [d](https://e.example) | f")
    'a \\*b\\* ‹i›c‹/i› ［d］(https∶//e․example) \\| f'
    """
    line = _LINKED.sub(lambda found: _UNLIKE[found[0]], inert(line).strip())
    return _SPECIAL.sub(r"\\\g<0>", line)


def code(name: str) -> str:
    """A name to be copied: nothing within is markup or a link, and the look-alikes are few."""
    return f"`{name.translate(_IN_CODE)}`"


def _head(data: ReportData) -> list[str]:
    fleet = data.fleet
    counts = (("drifting", fleet.drifting), ("improved", fleet.improved), ("stable", fleet.stable),
              ("not enough data", fleet.unknown))  # fmt: skip
    return [
        f"# Value drift, week {text(data.week)}",
        f"{words.days(data.start, data.end)} (UTC), compared with {text(words.compared(data.compare))}. Intervals are "
        "of 90 %.",
        f"**{text(fleet.headline)}**" if fleet.headline.strip() else "",
        ", ".join(f"{words.GLYPHS[verdict]} {n} {verdict}" for verdict, n in counts) + ".",  # type: ignore[index]
        f"{words.count(fleet.turns)} turns judged ({words.count(fleet.turns_before)} before). {fleet.alerts} alerts "
        f"raised, {fleet.pages} of them paged; acknowledged after {words.minutes(fleet.minutes_to_acknowledge)}, "
        f"resolved after {words.minutes(fleet.minutes_to_resolve)} (medians).",
        text(fleet.discoveries),
    ]


def _card(s: Series) -> list[str]:
    rows = [f"- **{a.question}:** {text(a.text)}" for a in answers.answers(s)]
    return [f"### {text(words.name(s.name))}: {s.verdict}", text(s.evidence), "\n".join(rows)]


def _detail(s: Series) -> list[str]:
    facts = [
        f"- dS/dt: {text(words.maybe(s.dS_dt, signed=True))}",
        f"- Alignment work γ\\_eff: {text(words.maybe(s.gamma_eff))}",
        f"- Stability margin: {text(words.maybe(s.margin))}",
        f"- Restoring rate κ: {text(words.maybe(s.kappa))}",
        f"- Baseline: {text(s.baseline) or words.UNKNOWN}",
    ]
    marks = [f"- {words.clock(m.t)} UTC, {words.KINDS[m.kind]}: {text(m.text)}" for m in s.marks]
    blocks = [
        f"### {text(words.name(s.name))} in detail: {s.verdict}",
        text(s.evidence),
        "\n".join(facts),
        _table(tables.shares(s)) if s.now is not None else "",
        "\n".join(marks),
        _items(s.notes),
    ]
    for split in s.splits:
        blocks += [f"**Simpson's trap.** {text(split.simpson)}" if split.simpson else "", _table(tables.split(split))]
    blocks += [_turn(which, t) for which, own in s.telling.items() for t in own[: tables.MOST_TURNS]]
    return blocks


def _turn(which: str, t: Turn) -> str:
    place = f"{words.clock(t.ts)} UTC, {code(words.name(t.where))}, event {code(words.name(t.event_id))}, turn {t.turn}"
    said = [("asked", t.request), ("answered", t.answer)]
    return "\n".join(
        [
            f"- **{text(words.behaviour(which))}, {words.percent(t.probability)}**, {place}",
            *(f"  - {what}: {text(excerpt)}" for what, excerpt in said if excerpt),
        ]
    )


def _table(t: Table) -> str:
    if not t.rows:
        return "None."
    lines = [
        "| " + " | ".join(map(text, t.heads)) + " |",
        "|" + " --- |" * len(t.heads),
        *("| " + " | ".join(_cell(c) for c in row.cells) + " |" for row in t.rows),
    ]
    more = f"\n\n{t.more} more in the JSON." if t.more else ""
    return f"{text(t.caption)}:\n\n" + "\n".join(lines) + more


def _cell(cell: str) -> str:
    return "; ".join(text(line) for line in cell.split("\n") if line)


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)
