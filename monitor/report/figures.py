"""The pictures of a report as SVG to stand within a page: matplotlib draws, the page colours them, light and dark.

No text from outside is drawn: marks are numbered, and the page says beside it what each of them is.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

import matplotlib as mpl
import msgspec
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import AutoDateLocator, num2date
from matplotlib.figure import Figure

from monitor.plot import AXIS, BASELINE, COLOURS, GRID, INK, LINE, ONE_AT_A_TIME, draw_band, stretches
from monitor.report import words
from monitor.report.model import Interval, Mark, Point, Series, Window
from monitor.taxonomy import BEHAVIOURS, LN_K

_MUTED: Final = "#52606b"
_MARK: Final = "#9c2315"
PROPERTIES: Final = {
    INK: "--ink",
    _MUTED: "--muted",
    AXIS: "--axis",
    GRID: "--grid",
    LINE: "--line",
    BASELINE: "--before",
    _MARK: "--mark",
    **{colour: f"--{behaviour.replace('_', '-')}" for behaviour, colour in COLOURS.items()},
}
"""Of the page's style, by the colour that is drawn: a dark page gives each another value."""
_WIDTH, _HEIGHT = 6.4, 2.7
_SIZE: Final = 12
"""Of writing, in 460ths of a picture's width: legible where that is a telephone's."""
_ORDER: Final = (*BEHAVIOURS[1:], BEHAVIOURS[0])
MOST_MARKS: Final = 20
MOST_POINTS: Final = 168
"""Drawn: more than a week's hours make a page heavy, and no eye tells them apart."""


@dataclass(frozen=True, slots=True)
class _Content:
    """A series by what it says, so that page and paper share what was drawn."""

    encoded: bytes
    series: Series = field(compare=False)


def picture(which: Literal["trajectory", "composition", "drivers"], s: Series, *, themed: bool) -> Markup:
    """A picture as an element of a page.

    Parameters
    ----------
    themed : whether the page's style sets the colours; else they are those of paper.
    """
    svg = _drawn(which, _Content(msgspec.json.encode(s), s))
    if themed:
        for colour, name in PROPERTIES.items():
            svg = svg.replace(colour, f"var({name})")
    return Markup(svg)


@lru_cache(maxsize=100)
def _drawn(which: str, content: _Content) -> str:
    return _PICTURES[which](content.series)


def _trajectory(s: Series) -> str:
    """S of 24 h windows with its 90 % band, nats, the two compared spans, and numbered marks."""

    def draw(axes: Any) -> None:
        points = _finite(s.trajectory)
        draw_band(axes, [p.t for p in points], [p.S for p in points], [p.low for p in points], [p.high for p in points])
        for window, colour in ((s.before, BASELINE), (s.now, INK)):
            _level(axes, window, colour)
        highest = max([0.4, *(p.high for p in points)])
        axes.set_ylim(0, min(LN_K, highest * 1.3))
        axes.set_ylabel("S, nats")
        _times(axes, points, s.marks)

    return _svg(draw, describe(s), salt=f"S {s.name}")


def _composition(s: Series) -> str:
    """Shares of the behaviours in 24 h windows, stacked, what is not aligned at the foot and enlarged."""

    def draw(axes: Any) -> None:
        points = [p for p in _finite(s.trajectory) if len(p.shares) == len(BEHAVIOURS)]
        columns = [BEHAVIOURS.index(b) for b in _ORDER]
        for before, after in stretches([p.t for p in points]):
            part = points[before:after]
            axes.stackplot([p.t for p in part], *([p.shares[c] for p in part] for c in columns),
                           colors=[COLOURS[b] for b in _ORDER], lw=0)  # fmt: skip
        most = max([0.08, *(1 - p.shares[0] for p in points)])
        axes.set_ylim(0, min(1.0, most * 1.3))
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
        axes.set_ylabel("share of turns")
        _times(axes, points, s.marks)

    return _svg(draw, f"Shares of behaviours in 24 h windows. {_shares(s)}", salt=f"shares {s.name}")


def _drivers(s: Series) -> str:
    """What each behaviour adds to the change of the misaligned share, percentage points, with 90 % intervals."""
    rows = [
        (words.behaviour(t.name), t.misaligned, COLOURS.get(t.name, INK)) for t in s.drivers if t.name in _ORDER[:-1]
    ]
    if s.change is not None:
        rows.append(("all together", s.change.misaligned, INK))

    def draw(axes: Any) -> None:
        for y, (_, x, colour) in enumerate(rows):
            axes.barh(y, 100 * x.mean, height=0.6, color=colour, alpha=0.85, lw=0)
            axes.plot([100 * x.low, 100 * x.high], [y, y], color=INK, lw=1.4, marker="|", ms=7)
        axes.axvline(0, color=AXIS, lw=1)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("change of the misaligned share, percentage points")
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    told = "; ".join(f"{label} {_points(x)}" for label, x, _ in rows)
    return _svg(
        draw,
        f"What each behaviour adds to the change of the misaligned share: {told}.",
        salt=f"drivers {s.name}",
        left=0.31,
    )


def describe(s: Series) -> str:
    """A trajectory in a sentence, for who cannot see it."""
    points = _finite(s.trajectory)
    if not points:
        return "No 24 h window has enough turns."
    lowest, highest = min(points, key=lambda p: p.S), max(points, key=lambda p: p.S)
    return (
        f"S of 24 h windows from {points[0].t:%d %b} to {points[-1].t:%d %b}: {points[0].S:.2f} nats at first, "
        f"{points[-1].S:.2f} at last; lowest {lowest.S:.2f} on {lowest.t:%d %b}, highest {highest.S:.2f} on "
        f"{highest.t:%d %b}. Marks: {len(s.marks)}."
    )


def _shares(s: Series) -> str:
    shares = {} if s.now is None else s.now.shares
    told = [f"{words.behaviour(b)} {100 * shares[b].mean:.1f} %" for b in BEHAVIOURS if b in shares]
    return f"This week: {', '.join(told)}." if told else ""


def _points(x: Interval) -> str:
    return f"{100 * x.mean:+.1f} points ({100 * x.low:+.1f} to {100 * x.high:+.1f})"


def _finite(points: Sequence[Point]) -> list[Point]:
    finite = [p for p in points if all(map(math.isfinite, (p.S, p.low, p.high, *p.shares)))]
    return list(words.thinned(finite, MOST_POINTS))


def _level(axes: Any, window: Window | None, colour: str) -> None:
    if window is None or not all(map(math.isfinite, (window.S.mean, window.S.low, window.S.high))):
        return
    span = [window.start, window.end]
    axes.fill_between(span, [window.S.low] * 2, [window.S.high] * 2, color=colour, alpha=0.14, lw=0)
    axes.plot(span, [window.S.mean] * 2, color=colour, lw=1.2, ls=(0, (4, 3)))


def _times(axes: Any, points: Sequence[Point], marks: Sequence[Mark]) -> None:
    """The axis of time, as far as there are points, with the marks on it."""
    if points:
        axes.set_xlim(points[0].t - timedelta(hours=3), points[-1].t + timedelta(hours=3))
    low, high = num2date(axes.get_xlim())  # type: ignore[no-untyped-call]
    last: datetime | None = None
    for i, mark in enumerate(marks[:MOST_MARKS], start=1):
        if not low <= mark.t <= high:
            continue
        colour = _MARK if mark.kind == "alert" else _MUTED
        axes.axvline(mark.t, color=colour, lw=1.2, ls="-" if mark.kind == "alert" else ":")
        # numbers of marks close together stand below each other
        near = last is not None and mark.t - last < (high - low) / 20
        axes.annotate(
            str(i), (mark.t, 0.87 if near else 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", color=colour, fontsize=_SIZE, fontweight="bold",
        )  # fmt: skip
        last = mark.t
    axes.xaxis.set_major_locator(AutoDateLocator(maxticks=7))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(lambda x, _: _date(num2date(x)))  # type: ignore[no-untyped-call]
    axes.grid(axis="y", color=GRID, lw=0.8)


def _date(t: datetime) -> str:
    return f"{t.day} {t:%b}" if t.hour == t.minute == 0 else f"{t:%H:%M}"


def _svg(draw: Callable[[Any], None], description: str, *, salt: str, left: float = 0.13) -> str:
    """`salt` : what no other picture of the page has; the names within follow from it, and from nothing by chance."""
    with ONE_AT_A_TIME, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        FigureCanvasSVG(figure)
        figure.subplots_adjust(left=left, right=0.985, top=0.97, bottom=0.2 if left > 0.2 else 0.13)
        axes: Any = figure.subplots()
        axes.patch.set_visible(False)
        figure.patch.set_visible(False)
        draw(axes)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(AXIS)
        axes.tick_params(labelsize=_SIZE, labelcolor=_MUTED, color=AXIS)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(fontsize=_SIZE, color=_MUTED)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), description)


def _inline(svg: str, description: str) -> str:
    """The element alone, without names that another picture of the page has too, in the page's font."""
    body = svg[svg.index("<g id=") :]
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*; ", "", body).replace("xlink:href", "href")
    body = re.sub(r"(\d+\.\d{2})\d+", r"\1", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    size = re.search(r'viewBox="([^"]+)"', svg)
    assert size is not None
    return f'<svg viewBox="{size[1]}" role="img" aria-label="{escape(description)}">\n{body}'


_PICTURES: Final = {"trajectory": _trajectory, "composition": _composition, "drivers": _drivers}
