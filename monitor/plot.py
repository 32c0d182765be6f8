"""The picture of a run: S(t) with its band over the baseline's, the behaviour mixture below, alerts marked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from sqlalchemy import Engine

from monitor.errors import ConfigError, InputError
from monitor.store import reads
from monitor.taxonomy import BEHAVIOURS, LN_K
from monitor.trajectory import MINUTES_PER_DAY
from streams.reasons import printable

COLOURS: Final = {
    "aligned": "#d6dde3",
    "over_refusal": "#e69f00",
    "harmful_compliance": "#c8321f",
    "deception": "#7b4ab8",
    "goal_deviation": "#0a7f8c",
}
"""Told apart in print and by colour-blind readers; aligned stays in the background."""
INK: Final = "#1f2a33"
LINE: Final = "#0b5394"
AXIS: Final = "#9aa5ad"
GRID: Final = "#e3e8eb"
BASELINE: Final = "#5b8c5a"
STYLE: Final[Any] = {"font.size": 10, "axes.edgecolor": AXIS, "text.color": INK, "axes.labelcolor": INK}
SHOWN_SERIES: Final = 6
ONE_AT_A_TIME: Final = threading.Lock()
"""Threads of a service draw pictures of alerts and reports, and matplotlib draws in one."""
FORMATS: Final = (".png", ".svg", ".pdf")


def check_path(path: Path) -> None:
    """Raises ConfigError when no picture can be written there; called before the work, not after."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--plot {path}: write a name that ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: the folder {path.parent} does not exist")


def draw(engine: Engine, summary: dict[str, Any], path: Path) -> None:
    """Draw the summarised series, those with alerts first."""
    chosen = sorted(summary["series"], key=lambda s: (not s["alerts"], s["series"]))[:SHOWN_SERIES]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.7 + 4.6 * max(1, len(chosen))), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        shown = max(1, len(chosen))
        rows = figure.subplots(2 * shown, 1, squeeze=False, height_ratios=[3, 2] * shown)[:, 0]
        with engine.connect() as connection:
            ids = {s.key.name: s.id for s in reads.all_series(connection)}
            for i, s in enumerate(chosen):
                points = reads.points(connection, ids[s["series"]], summary["classifier"], MINUTES_PER_DAY)
                _draw_entropy(rows[2 * i], s, points)
                _draw_mixture(rows[2 * i + 1], s, points, legend=i == 0)
                rows[2 * i + 1].sharex(rows[0])
                rows[2 * i].sharex(rows[0])
        if chosen:
            margin = timedelta(minutes=30)
            rows[0].set_xlim(
                min(_time(s["first"]) for s in chosen) - margin, max(_time(s["last"]) for s in chosen) + margin
            )
        else:
            for axes in rows:
                axes.axis("off")
            rows[0].text(0.5, 0.5, "no turns were judged", ha="center")
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a picture without a date inside: the same run draws the same bytes. Raises InputError."""
    date = {".pdf": "CreationDate", ".svg": "Date"}.get(path.suffix.lower())
    try:
        figure.savefig(path, metadata={date: None} if date else None)
    except OSError as e:
        raise InputError(f"{printable(str(path))}: {(e.strerror or str(e)).lower()}") from e


def _draw_entropy(axes: Any, s: dict[str, Any], points: Any) -> None:
    t = [p["t"] for p in points]
    highest = max([0.4, *(p["s_hi"] for p in points)])
    axes.set_ylim(0, min(LN_K, highest * 1.25))
    baseline = s["baseline"]
    if baseline["state"] == "frozen":
        band = baseline["S"]
        axes.axhspan(band["low"], band["high"], color=BASELINE, alpha=0.16, lw=0)
        axes.axhline(band["mean"], color=BASELINE, lw=1.2, ls=(0, (4, 3)))
        axes.axvspan(_time(baseline["from"]), _time(baseline["to"]), ymax=0.02, color=BASELINE, lw=0)
        axes.annotate(
            "baseline", (1.0, band["mean"]), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", color="#3f6b3e", fontsize=9,
        )  # fmt: skip
    draw_band(axes, t, [p["s"] for p in points], [p["s_lo"] for p in points], [p["s_hi"] for p in points])
    top = axes.get_ylim()[1]
    for alert in s["alerts"]:
        onset, raised = _time(alert["onset"]), _time(alert["raised_at"])
        axes.axvline(onset, color="#c8321f", lw=1, ls=":")
        axes.axvline(raised, color="#c8321f", lw=1.4)
        late = bool(t) and raised > t[0] + (t[-1] - t[0]) * 0.6
        axes.annotate(
            f"alert {raised:%d %b %H:%M}\nonset {onset:%d %b %H:%M}\n{', '.join(_behaviours(alert))}",
            (onset if late else raised, top), xytext=(-6 if late else 6, -6), textcoords="offset points",
            ha="right" if late else "left", va="top", fontsize=9, color="#9c2315",
        )  # fmt: skip
    axes.set_ylabel("ethical entropy S, nats")
    state = "drifted" if s["alerts"] else "steady" if baseline["state"] == "frozen" else "baseline still learning"
    name = printable(s["series"]).replace("$", r"\$")
    axes.set_title(f"{name}   ·   {s['turns']:,} turns   ·   {state}", loc="left", fontweight="bold", fontsize=11)
    axes.text(1, 1.02, "24 h window, 90 % band", transform=axes.transAxes, ha="right", va="bottom", fontsize=9,
              color="#5c6a75")  # fmt: skip
    axes.tick_params(labelbottom=False)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if not points:
        axes.text(0.5, 0.5, "not enough turns in any 24 h window", transform=axes.transAxes, ha="center")


def _draw_mixture(axes: Any, s: dict[str, Any], points: Any, *, legend: bool) -> None:
    order = (*BEHAVIOURS[1:], BEHAVIOURS[0])
    for before, after in stretches([p["t"] for p in points]):
        part = points[before:after]
        axes.stackplot(
            [p["t"] for p in part],
            *([p[f"p_{b}"] for p in part] for b in order),
            colors=[COLOURS[b] for b in order],
            labels=[b.replace("_", " ") for b in order] if before == 0 else [],
            lw=0,
        )
    for alert in s["alerts"]:
        axes.axvline(_time(alert["onset"]), color="#c8321f", lw=1, ls=":")
        axes.axvline(_time(alert["raised_at"]), color="#c8321f", lw=1.4)
    # most of the mixture is aligned; the scale shows what is not
    most = max([0.08, *(1 - p["p_aligned"] for p in points)])
    axes.set_ylim(0, min(1.0, most * 1.25))
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    axes.set_ylabel("share of turns")
    axes.tick_params(labelbottom=True)
    locator: Any = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.spines[["top", "right"]].set_visible(False)
    if legend and points:
        axes.legend(
            ncols=5, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9, handlelength=1.2,
            columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip


def _behaviours(alert: dict[str, Any]) -> list[str]:
    return [*alert["values"]["moved"], *(b for part in alert["values"]["joined"] for b in part["moved"])]


def draw_band(
    axes: Any, t: Sequence[datetime], s: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> None:
    """S over time with its band; a point between two silences is a dot."""
    for a, b in stretches(t):
        axes.fill_between(t[a:b], low[a:b], high[a:b], color=LINE, alpha=0.18, lw=0)
        axes.plot(t[a:b], s[a:b], color=LINE, lw=1.8, marker="o" if b - a == 1 else None, ms=3)


def stretches(times: Sequence[datetime], most_hours: float = 30.0) -> list[tuple[int, int]]:
    """Index ranges of times without a gap longer than a window: a line across silence would be an invention."""
    cuts = [i for i in range(1, len(times)) if (times[i] - times[i - 1]).total_seconds() > most_hours * 3600]
    edges = [0, *cuts, len(times)]
    return [(a, b) for a, b in pairwise(edges) if b > a]


def _time(iso: str) -> datetime:
    return datetime.fromisoformat(iso)
