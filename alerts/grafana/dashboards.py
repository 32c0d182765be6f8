"""The dashboards: the fleet, one series in depth, the monitor's own health. Pure; the same bytes every time."""

from __future__ import annotations

from typing import Final

from alerts.grafana import sql
from alerts.grafana.health import health
from alerts.grafana.label_sql import LABELS
from alerts.grafana.panels import (
    ALARM_COLOUR,
    UNBROKEN,
    Json,
    alarming,
    band,
    by_time,
    custom_variable,
    dashboard,
    figures,
    fixed,
    hidden,
    line,
    marks,
    override,
    query_variable,
    table,
    target,
)
from monitor.plot import BASELINE, COLOURS, LINE
from monitor.taxonomy import LN_K

FOLDER_UID: Final = "valuedrift"
FOLDER_TITLE: Final = "valuedrift"
FLEET_UID: Final = "valuedrift-fleet"
SERIES_UID: Final = "valuedrift-series"
WINDOWS: Final = {"1 h": "60", "24 h": "1440", "7 d": "10080"}
GREY: Final = "#5c6a75"

_ALARM_STEPS: Final = [(None, "text"), (1.0, ALARM_COLOUR)]
_TO_SERIES: Final = [{"title": "This series in depth", "url": f"/d/{SERIES_UID}?var-series=${{__data.fields.id}}"}]


def dashboards() -> tuple[Json, Json, Json]:
    """All of them, each by its own uid."""
    return fleet(), series(), health()


def fleet() -> Json:
    """Which series need attention."""
    nats = {"unit": "short", "decimals": 3}
    share = {"unit": "percentunit", "decimals": 2}
    columns = [
        hidden("id"),
        override("series", links=_TO_SERIES, custom__minWidth=260),
        alarming("pages", _ALARM_STEPS, custom__cellOptions={"type": "color-text"}),
        alarming(
            "firing",
            [(None, "text"), (1.0, COLOURS["over_refusal"])],
            custom__cellOptions={"type": "color-text"},
            displayName="alerts firing",
        ),
        override("s", displayName="S (nats)", **nats),
        override("change", displayName="change in 24 h", **nats),
        override("misaligned", **share),
        override("rate", displayName="dS/dt (nats/day)", **nats),
        alarming("evidence", _ALARM_STEPS, decimals=3, custom__cellOptions={"type": "color-text"}),
        override("kl", displayName="from baseline (nats)", **nats),
        override("turns", displayName="turns in 24 h", unit="locale"),
        override("as_of", displayName="as of"),
    ]
    rows = [
        (
            4,
            [
                (
                    24,
                    figures(
                        "Now",
                        "Series that have points, and the alerts that fire.",
                        sql.FLEET_COUNTS,
                        [alarming("alerts firing", _ALARM_STEPS), alarming("of them pages", _ALARM_STEPS)],
                    ),
                )
            ],
        ),
        (
            13,
            [
                (
                    24,
                    table(
                        "Series by need of attention",
                        f"The first {sql.SHOWN_SERIES}: alerts that page, then alerts, then evidence (1 raises an "
                        "alarm), misaligned share and S of 24 h. S is near 0 for a wholly aligned model and for a "
                        "wholly captured one: read it beside the misaligned share.",
                        sql.FLEET,
                        columns,
                    ),
                )
            ],
        ),
        (
            9,
            [
                (
                    12,
                    by_time(
                        f"S of the {sql.DRAWN_SERIES} series that need most attention",
                        "Ethical entropy of 24 h windows, nats.",
                        [target(sql.FLEET_ENTROPY)],
                        limits=(0, None),
                    ),
                ),
                (12, _alerts("Alerts", "Those that fire, and those raised in the time shown.", sql.ALERTS)),
            ],
        ),
    ]
    return dashboard(FLEET_UID, "valuedrift: fleet", rows, span="now-7d")


def series() -> Json:
    """One series: what it does, how that moves, and what holds it in place."""
    lead = [*band("S low", "S high", LINE), line("S", LINE)]
    lead += [
        *band("baseline low", "baseline high", BASELINE, **UNBROKEN),
        line("baseline", BASELINE, dashed=True, **UNBROKEN),
    ]
    shares = [
        override(b, color=fixed(c), displayName=b.replace("_", " "), custom__fillOpacity=80) for b, c in COLOURS.items()
    ]
    rows = [
        (
            4,
            [
                (
                    24,
                    figures(
                        "Now",
                        "The latest figures, of 24 h.",
                        sql.SERIES_NOW,
                        [
                            override("misaligned", unit="percentunit"),
                            alarming("evidence", _ALARM_STEPS),
                            alarming("alerts firing", _ALARM_STEPS),
                        ],
                    ),
                )
            ],
        ),
        (
            10,
            [
                (
                    24,
                    by_time(
                        "Ethical entropy S",
                        "Nats, with its 90 % interval, over the baseline's level: the first window that was compared "
                        "with it and is no longer than what it was learned from.",
                        [target(sql.ENTROPY), target(sql.BASELINE, ref="B")],
                        lead,
                        limits=(0, round(LN_K, 4)),
                    ),
                )
            ],
        ),
        (
            9,
            [
                (
                    12,
                    by_time(
                        "What the turns are",
                        "Shares of the behaviours, estimated.",
                        [target(sql.COMPOSITION)],
                        shares,
                        unit="percentunit",
                        limits=(0, 1),
                        stacked=True,
                    ),
                ),
                (
                    12,
                    by_time(
                        "Misaligned share",
                        "Everything but aligned, with its 90 % interval.",
                        [target(sql.MISALIGNED)],
                        [*band("misaligned low", "misaligned high", ALARM_COLOUR), line("misaligned", ALARM_COLOUR)],
                        unit="percentunit",
                        limits=(0, None),
                    ),
                ),
            ],
        ),
        (
            9,
            [
                (
                    12,
                    by_time(
                        "Drift dS/dt",
                        "Nats per day, with its 90 % interval.",
                        [target(sql.RATE)],
                        [*band("dS/dt low", "dS/dt high", LINE), line("dS/dt", LINE)],
                    ),
                ),
                (
                    12,
                    by_time(
                        "Evidence of drift",
                        "The detectors' wealth over what raises an alarm: 1.",
                        [target(sql.EVIDENCE)],
                        [line("evidence", LINE), line("alarm", ALARM_COLOUR, dashed=True)],
                        logarithmic=True,
                    ),
                ),
            ],
        ),
        (
            8,
            [
                (
                    12,
                    table(
                        "Alignment work, and what may be wrong",
                        "The latest of those that are known, each with its interval (docs/statistics.md).",
                        sql.WORK,
                        [override(f"{x}", decimals=3) for x in ("mean", "low", "high")],
                    ),
                ),
                (
                    12,
                    by_time(
                        "Turns in the window",
                        "And how many unweighted ones they are worth.",
                        [target(sql.TURNS)],
                        [line("turns", LINE), line("effective turns", GREY, dashed=True)],
                        limits=(0, None),
                    ),
                ),
            ],
        ),
        (
            9,
            [
                (
                    12,
                    table(
                        "By label value",
                        "Turns of the time shown by the labels that are followed, turns without the label left out; "
                        "the misaligned share as the classifier answers, not corrected for its errors.",
                        LABELS,
                        [
                            override("turns", unit="locale"),
                            override("share", unit="percentunit", decimals=1),
                            override("misaligned", unit="percentunit", decimals=2),
                        ],
                    ),
                ),
                (12, _alerts("Alerts", "Those that fire, and those raised in the time shown.", sql.SERIES_ALERTS)),
            ],
        ),
        (
            7,
            [(24, table("Baselines", "What it is and was compared with, the latest first.", sql.BASELINES))],
        ),
    ]
    variables = [
        query_variable("series", "Series", sql.SERIES_VARIABLE),
        custom_variable("window", "Window", WINDOWS, "24 h"),
    ]
    annotations = [
        marks("Alerts of the series", sql.ALERT_MARKS, ALARM_COLOUR),
        marks("New baselines", sql.BASELINE_MARKS, BASELINE),
    ]
    return dashboard(SERIES_UID, "valuedrift: one series", rows, variables, annotations, span="now-14d")


def _alerts(title: str, description: str, query: str) -> Json:
    columns = [
        hidden("id"),
        override("series", links=_TO_SERIES),
        override("raised_at", displayName="raised"),
        override("resolved_at", displayName="resolved"),
        override("acknowledged_by", displayName="acknowledged by"),
        override("reason", custom__minWidth=400),
    ]
    return table(title, description, query, columns)
