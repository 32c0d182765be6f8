"""How often judgements of each confidence are right: the numbers, and their picture (a reliability diagram)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers.figures import DRAWS, FEWEST_GROUPS, ece, interval, resample, spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS: Final = 10
"""Bins of the picture, of equal width: fewer than the calibration error's, so that each holds enough turns."""
FEWEST: Final = 10
"""A bin with fewer turns is counted in the histogram and not drawn as a point."""
ACROSS: Final = 3
"""Diagrams side by side."""
_INK: Final = "#1f2a33"
_LINE: Final = "#0b5394"
_GREY: Final = "#5c6a75"


def curve(y: Ints, q: Floats, group: NDArray[np.str_], seed: int = 0) -> dict[str, Any]:
    """What a reliability diagram shows of judgements q (n, 5) of turns of behaviour y (n,).

    Returns `n`, `ece` with `ece_interval`, and `bins`: `from`, `to`, `n`, and where there are at least FEWEST turns
    their mean `confidence` (largest probability), the share `right`, and its 90 % interval `low`, `high` over
    resampled groups.
    """
    top, right = q.max(axis=1), (q.argmax(axis=1) == y).astype(np.float64)
    place = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    of_bin = np.eye(BINS)[place]
    drawn = resample(group, seed, DRAWS)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = drawn.sums(of_bin * right[:, None]) / drawn.sums(of_bin)
    bins = []
    for b in range(BINS):
        of = place == b
        n = int(of.sum())
        cell: dict[str, Any] = {"from": b / BINS, "to": (b + 1) / BINS, "n": n}
        if n >= FEWEST:
            share = float(right[of].mean())
            known = len(np.unique(drawn.place[of])) >= FEWEST_GROUPS
            low, high = (interval(share, shares[:, b], "share") if known else None) or (None, None)
            cell |= {"confidence": float(top[of].mean()), "right": share, "low": low, "high": high}
        bins.append(cell)
    error = ece(y, q)
    bounds = interval(error, spread(y, q, drawn)["ece"], "ece") if drawn.groups >= FEWEST_GROUPS else None
    return {"n": len(y), "ece": error, "ece_interval": bounds, "bins": bins}


def draw(curves: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw named curves side by side: confidence against share right, and how many turns have that confidence."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(ACROSS, len(curves))
    down = -(-len(curves) // across)
    style: Any = {"font.size": 10, "axes.edgecolor": "#9aa5ad", "text.color": _INK, "axes.labelcolor": _INK}
    with mpl.rc_context({**style, "svg.hashsalt": "valuedrift"}):
        figure = Figure(figsize=(4.3 * across + 0.4, 5.6 * down), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2 * down, across, squeeze=False, sharex=True, height_ratios=[3.4, 1] * down)
        for i, (name, found) in enumerate(curves.items()):
            row, column = divmod(i, across)
            _draw_curve(axes[2 * row, column], name, found, first=column == 0)
            _draw_counts(axes[2 * row + 1, column], found, first=column == 0)
        for i in range(len(curves), across * down):
            row, column = divmod(i, across)
            axes[2 * row, column].axis("off")
            axes[2 * row + 1, column].axis("off")
        # the same figures draw the same bytes: no date inside
        dates = {".pdf": "CreationDate", ".svg": "Date"}
        key = dates.get(path.suffix.lower())
        figure.savefig(path, metadata={key: None} if key else None)


def _draw_curve(axes: Any, name: str, found: Mapping[str, Any], *, first: bool) -> None:
    axes.plot([0, 1], [0, 1], color="#5b8c5a", lw=1.2, ls=(0, (4, 3)))
    shown = [b for b in found["bins"] if "right" in b]
    banded = [b for b in shown if b["low"] is not None]
    axes.fill_between([b["confidence"] for b in banded], [b["low"] for b in banded], [b["high"] for b in banded],
                      color=_LINE, alpha=0.18, lw=0)  # fmt: skip
    axes.plot([b["confidence"] for b in shown], [b["right"] for b in shown], color=_LINE, lw=1.8, marker="o", ms=4.5)
    bounds = found["ece_interval"]
    within = "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
    axes.set_title(name, loc="left", fontweight="bold", fontsize=11)
    axes.text(0.03, 0.97, f"{found['n']:,} turns\ncalibration error {found['ece']:.3f}\n{within.strip()}",
              transform=axes.transAxes, va="top", fontsize=9, color=_GREY)  # fmt: skip
    axes.text(0.97, 0.03, "below the line:\nsurer than right", transform=axes.transAxes, ha="right", fontsize=9,
              color="#3f6b3e")  # fmt: skip
    axes.set_xlim(0.15, 1)
    axes.set_ylim(0, 1)
    axes.grid(color="#e3e8eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if first:
        axes.set_ylabel("share right, 90 % band")


def _draw_counts(axes: Any, found: Mapping[str, Any], *, first: bool) -> None:
    total = max(found["n"], 1)
    for b in found["bins"]:
        axes.bar((b["from"] + b["to"]) / 2, b["n"] / total, width=0.9 / BINS, color="#d6dde3")
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.set_xlabel("largest probability")
    axes.tick_params(labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)
    if first:
        axes.set_ylabel("share of turns")
