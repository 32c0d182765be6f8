"""The picture of stress results: S over the turns of a conversation with its band, suite by suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monitor.plot import GRID, INK, STYLE, save
from monitor.taxonomy import LN_K
from streams.reasons import printable

COLOURS: Final = ("#0b5394", "#c8321f")
"""Of the first result and the second; told apart in print, too, by their line."""
_STYLES: Final = ("-", (0, (5, 2)))
_COLUMNS: Final = 4
SHOWN_SUITES: Final = 12


def draw(results: Sequence[tuple[str, Sequence[dict[str, Any]]]], path: Path) -> None:
    """Draw named figures (monitor.stress.result.figures_of), one result or two in the same axes.

    A panel a suite, all on one scale; S with its 90 % interval, nats, over the turn, from 1. Raises InputError.
    """
    names = list(dict.fromkeys(f["suite"] for _, figures in results for f in figures))[:SHOWN_SUITES]
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.5, 3.1 * columns), 0.9 + 2.6 * rows), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(names) :]:
            axes.axis("off")
        for axes, suite in zip(panels.flat, names, strict=False):
            for k, (name, figures) in enumerate(results):
                own = [f["points"] for f in figures if f["suite"] == suite]
                _draw(axes, own[0] if own else [], name, k)
            axes.set_title(_plain(suite).replace("_", " "), loc="left", fontweight="bold", fontsize=11)
            axes.set_ylim(0, LN_K)
            axes.grid(axis="y", color=GRID, lw=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        figure.supxlabel("turn of the conversation", fontsize=10, color=INK)
        figure.supylabel("ethical entropy S, nats, 90 % band", fontsize=10, color=INK)
        if len(results) > 1:
            panels[0][0].legend(loc="upper left", frameon=False, fontsize=9)
        save(figure, path)


def _draw(axes: Any, points: Sequence[dict[str, Any]], name: str, which: int) -> None:
    turns = [p["turn"] for p in points]
    colour = COLOURS[which]
    axes.fill_between(
        turns, [p["S"]["low"] for p in points], [p["S"]["high"] for p in points], color=colour, alpha=0.14, lw=0
    )
    axes.plot(
        turns, [p["S"]["mean"] for p in points], color=colour, lw=1.8, ls=_STYLES[which], marker="o", ms=3.5,
        label=_plain(name),
    )  # fmt: skip


def _plain(text: str) -> str:
    """A name from outside: one line, no formula."""
    return printable(text, 40).replace("$", r"\$")
