"""The picture of a notice: S(t) with its band over the last days, the onset and the alarm marked."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from alerts.notice import Notice
from monitor.plot import AXIS, COLOURS, GRID, INK, ONE_AT_A_TIME, draw_band
from monitor.taxonomy import LN_K

_ALARM: Final = COLOURS["harmful_compliance"]
_POINTS: Final = 11
"""Size of writing: still legible where the picture is as wide as a telephone."""
_BEYOND: Final = timedelta(hours=2)
"""An alarm comes before the point of its hour."""


def trace_png(notice: Notice) -> bytes:
    """A PNG of 1200 x 480 pixels, to be shown at half that size; the same notice gives the same bytes.

    Parameters
    ----------
    notice : harmless (alerts.targets.text), with a trace.
    """
    with ONE_AT_A_TIME:  # its settings, which all threads share, are left alone
        figure = Figure(figsize=(6, 2.4), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure.subplots(), notice)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
        return picture.getvalue()


def _draw(axes: Any, notice: Notice) -> None:
    trace = notice.trace
    times = [p.t for p in trace]
    draw_band(axes, times, [p.s for p in trace], [p.low for p in trace], [p.high for p in trace])
    axes.set_ylim(0, min(LN_K, max(0.4, *(p.high for p in trace)) * 1.25))
    for at, name, style in ((notice.onset, "onset", ":"), (notice.raised_at, "raised", "-")):
        if at is not None and times[0] <= at <= times[-1] + _BEYOND:
            axes.axvline(at, color=_ALARM, lw=1.2, ls=style, label=name)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", frameon=False, fontsize=_POINTS - 1, labelcolor=INK)
    axes.set_ylabel("S, nats", fontsize=_POINTS, color=INK)
    axes.tick_params(labelsize=_POINTS, labelcolor=INK, color=AXIS)
    locator: Any = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.set_axisbelow(True)
