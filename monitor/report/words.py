"""Figures and names as a report writes them: sensible digits, units, a true minus, nothing that acts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from monitor.report.model import Interval, Known, Maybe, ReportData, Verdict
from streams.reasons import printable

LONGEST_TEXT: Final = 1000
"""Characters shown of a sentence or an excerpt; all of it is in the JSON."""
LONGEST_NAME: Final = 160
UNKNOWN: Final = "–"
"""Stands where there is no figure."""
GLYPHS: Final[dict[Verdict, str]] = {"drifting": "▲", "improved": "▼", "stable": "●", "not enough data": "○"}
"""Verdicts are told apart without colour."""
KINDS: Final = {
    "alert": "alert raised",
    "resolved": "alert resolved",
    "baseline": "new baseline",
    "classifier": "other classifier",
}
COMPARED: Final = {
    "previous": "the week before",
    "baseline": "each series' baseline",
    "4w": "the four weeks before",
}
_Row = TypeVar("_Row")
_OWN: Final = {"verdict", "kind", "schema"}


def harmless(data: ReportData) -> ReportData:
    """The same report in printable, bounded lines; what a medium reads as markup is still in it."""
    return msgspec.convert(_harmless(msgspec.to_builtins(data, builtin_types=(datetime,)), ""), ReportData)


def _harmless(value: Any, field: str) -> Any:
    if isinstance(value, dict):
        return {printable(k, LONGEST_NAME): _harmless(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_harmless(v, field) for v in value]
    if isinstance(value, str) and field not in _OWN:
        return printable(value, LONGEST_TEXT)
    return value


def name(text: str) -> str:
    """A name for a table's cell: short, and no formula where the table is pasted into a spreadsheet.

    >>> name("=cmd()")
    "'=cmd()"
    >>> name("")
    '(none)'
    """
    text = text.strip()
    guard = "'" if text[:1] in ("=", "+", "-", "@") else ""
    return guard + printable(text, LONGEST_NAME) if text else "(none)"


def behaviour(text: str) -> str:
    """`harmful compliance`, `over-refusal`."""
    return "over-refusal" if text == "over_refusal" else name(text).replace("_", " ")


def number(x: float, decimals: int, *, signed: bool = False) -> str:
    """With a true minus sign, and no minus before nought.

    >>> number(-0.0004, 2), number(-0.126, 2), number(0.126, 2, signed=True)
    ('0.00', '−0.13', '+0.13')
    """
    if not math.isfinite(x):
        return UNKNOWN
    text = f"{abs(x):,.{decimals}f}"
    if not any(c in "123456789" for c in text):
        return text
    return ("−" if x < 0 else "+" if signed else "") + text


def nats(x: Interval | None) -> str:
    """`0.41 (0.30–0.52)`."""
    return _interval(x, _decimals(x, 2, 3))


def nats_change(x: Interval | None) -> str:
    """`+0.23 (+0.11 to +0.35)`."""
    return _interval(x, _decimals(x, 2, 3), signed=True)


def share(x: Interval | None) -> str:
    """`8.3 % (6.1–10.4)`."""
    x = _hundred(x)
    return _interval(x, _decimals(x, 0, 1), unit=" %")


def share_change(x: Interval | None) -> str:
    """`+6.2 pp (+4.0 to +8.5)`, in percentage points."""
    x = _hundred(x)
    return _interval(x, 1, unit=" pp", signed=True)


def maybe(x: Maybe, *, signed: bool = False) -> str:
    """A figure with its interval and unit, or why it is not known."""
    if isinstance(x, Known):
        return f"{figure(x, signed=signed)} {x.unit}".rstrip()
    return f"not known: {x.reason}"


def figure(x: Maybe, *, signed: bool = False) -> str:
    """A figure with its interval, for a column whose head names the unit."""
    if isinstance(x, Known):
        return _interval(x.value, _decimals(x.value, 0, 4), signed=signed or x.value.low < 0)
    return UNKNOWN


def percent(x: float | None) -> str:
    """`62 %`; of a part of all traffic or turns.

    >>> percent(0.0042), percent(0.62), percent(None)
    ('0.4 %', '62 %', '–')
    """
    return UNKNOWN if x is None else f"{number(100 * x, 0 if abs(x) >= 0.0995 else 1)} %"


def probability(x: float) -> str:
    """`97 %`; no estimate from draws is certain.

    >>> probability(0.9991), probability(0.614)
    ('above 99 %', '61 %')
    """
    return UNKNOWN if not math.isfinite(x) else "above 99 %" if x > 0.9949 else f"{100 * x:.0f} %"


def count(n: float) -> str:
    """`48,210`."""
    return number(n, 0)


def minutes(x: float | None) -> str:
    """`14 min`, `2.8 h`, `3.1 days`.

    >>> minutes(14), minutes(167), minutes(4500), minutes(None)
    ('14 min', '2.8 h', '3.1 days', '–')
    """
    if x is None or not math.isfinite(x):
        return UNKNOWN
    if x < 90:
        return f"{x:.0f} min"
    return f"{x / 60:.1f} h" if x < 48 * 60 else f"{x / 1440:.1f} days"


def between(start: datetime, end: datetime | None) -> str:
    """How long from one time to another."""
    return UNKNOWN if end is None else minutes((end - start).total_seconds() / 60)


def day(t: datetime) -> str:
    """`9 November 2026`."""
    return f"{t.day} {t:%B %Y}"


def days(start: datetime, end: datetime) -> str:
    """`9 to 15 November 2026` of a span whose end is not in it."""
    last = end - timedelta(microseconds=1)
    if start.date() == last.date():
        return day(start)
    left = f"{start.day}" if (start.year, start.month) == (last.year, last.month) else f"{start.day} {start:%B}"
    return f"{left if start.year == last.year else day(start)} to {day(last)}"


def clock(t: datetime) -> str:
    """`Wed 11 Nov 10:31`, UTC."""
    return f"{t:%a} {t.day} {t:%b %H:%M}"


def compared(compare: str) -> str:
    """What a report is compared with, in words."""
    return COMPARED.get(compare, compare)


def thinned(rows: Sequence[_Row], most: int) -> Sequence[_Row]:
    """Every so manieth row, the last one among them, at most `most`."""
    step = -(-len(rows) // most) if rows else 1
    return rows[(len(rows) - 1) % step :: step]


def _interval(x: Interval | None, decimals: int, unit: str = "", *, signed: bool = False) -> str:
    if x is None:
        return UNKNOWN
    mean, low, high = (number(v, decimals, signed=signed) for v in (x.mean, x.low, x.high))
    return f"{mean}{unit} ({low}{' to ' if signed else '–'}{high})"


def _decimals(x: Interval | None, fewest: int, most: int) -> int:
    """Two digits of the interval's width tell how exact a figure is; more would be invention."""
    if x is None or not 0 < (width := x.high - x.low) < math.inf:
        return fewest
    return min(most, max(fewest, math.ceil(1 - math.log10(width))))


def _hundred(x: Interval | None) -> Interval | None:
    return None if x is None else Interval(100 * x.mean, 100 * x.low, 100 * x.high)
