"""The picture of a simulation: S(t) of all trials under a few work rates, and S at the end against work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monitor.plot import GRID, STYLE, save
from monitor.second_law_figures import boundary_rows
from monitor.second_law_trials import Runs

_COLOURS: Final = ("#c8321f", "#e69f00", "#7b4ab8", "#0a7f8c", "#0b5394", "#5b8c5a", "#1f2a33")
_GREY: Final = "#5c6a75"


def draw(runs: Runs, path: Path) -> None:
    """Draw to .png, .svg or .pdf; the same runs draw the same bytes. Raises InputError."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": "valuedrift"}):
        figure = Figure(figsize=(13, 5.8), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        fans, boundary = figure.subplots(1, 2, width_ratios=[1.1, 1])
        _draw_fans(fans, runs)
        _draw_boundary(boundary, runs)
        for axes in (fans, boundary):
            axes.axhline(np.log(runs.setup.goals), color="#9aa5ad", lw=1, ls=(0, (4, 3)))
            axes.set_ylim(0, 1.2 * np.log(runs.setup.goals))
            axes.set_ylabel("entropy S, nats")
            axes.grid(axis="y", color=GRID, lw=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        save(figure, path)


def _draw_fans(axes: Any, runs: Runs) -> None:
    setup = runs.setup
    for fan, colour in zip(runs.fans, _COLOURS, strict=False):
        t = fan.times * setup.r
        low, middle, high = fan.quantiles
        axes.fill_between(t, low, high, color=colour, alpha=0.12, lw=0)
        label = f"{fan.gamma:.2f} ({fan.gamma / setup.boundary:.2g})" if fan.gamma else "none"
        axes.plot(t, middle, color=colour, lw=1.6, label=label)
    axes.set_xlim(0, setup.relaxations)
    axes.set_xlabel("time, in relaxation times 1/r = 2/lambda_max")
    axes.set_title(f"S(t), median and 90 % of {setup.trials:,} trials", loc="left", fontweight="bold", fontsize=11)
    axes.text(setup.relaxations, np.log(setup.goals), f"ln {setup.goals} ", ha="right", va="bottom", color=_GREY)
    _legend(axes, "work gamma (in gamma_crit)")


def _draw_boundary(axes: Any, runs: Runs) -> None:
    setup, rows = runs.setup, list(boundary_rows(runs))
    gamma = runs.gammas
    low, high = np.quantile(runs.end, (0.05, 0.95), axis=1)
    axes.fill_between(gamma, low, high, color=_COLOURS[4], alpha=0.18, lw=0, label="90 % of trials")
    axes.plot(gamma, [r["S_end"] for r in rows], color=_COLOURS[4], lw=1.8, label="mean at the end")
    rest = [r["S_at_rest_without_noise"] for r in rows]
    axes.plot(gamma, rest, color=_GREY, lw=1.2, ls=":", label="at rest, without noise")
    marks = {setup.own_boundary: f"gamma_crit, N = {setup.goals} goals"}
    if setup.boundary_n is not None:
        marks[setup.boundary] = f"gamma_crit, N = {setup.boundary_n:g}"
    for i, (place, name) in enumerate(sorted(marks.items())):
        axes.axvline(place, color=_COLOURS[0], lw=1.2)
        axes.annotate(
            name, (place, 0.985 - 0.055 * i), xycoords=("data", "axes fraction"), xytext=(5, 0),
            textcoords="offset points", va="top", fontsize=9, color="#9c2315",
        )  # fmt: skip
    axes.set_xlim(0, gamma[-1])
    axes.set_xlabel("alignment work gamma, nats of log-odds per unit of time")
    axes.set_title("S against work", loc="left", fontweight="bold", fontsize=11)
    _legend(axes, "")


def _legend(axes: Any, title: str) -> None:
    axes.legend(
        title=title or None, fontsize=9, title_fontsize=9, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.12),
        frameon=False, handlelength=1.4, alignment="left",
    )  # fmt: skip
