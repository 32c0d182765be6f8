"""The dashboard of the monitor's own health."""

from __future__ import annotations

from typing import Final

from alerts.grafana import sql
from alerts.grafana.panels import (
    ALARM_COLOUR,
    Json,
    alarming,
    by_time,
    dashboard,
    figures,
    override,
    table,
    target,
)
from monitor.plot import BASELINE, COLOURS

HEALTH_UID: Final = "valuedrift-health"

_AGE_STEPS: Final = [(None, BASELINE), (3600.0, COLOURS["over_refusal"]), (86400.0, ALARM_COLOUR)]
_DEAD_STEPS: Final = [(None, BASELINE), (0.01, ALARM_COLOUR)]


def health() -> Json:
    """Whether the monitor itself can be trusted."""
    age = {"unit": "s", "decimals": 0}
    rows = [
        (
            5,
            [
                (
                    14,
                    figures(
                        "Reading",
                        "Ages by the database's clock, lag by event time between sources.",
                        sql.HEALTH,
                        [
                            alarming("newest event, age", _AGE_STEPS, **age),
                            alarming("newest point, age", _AGE_STEPS, **age),
                            alarming("lag, furthest behind", _AGE_STEPS, **age),
                            alarming("dead letters", _DEAD_STEPS, unit="percentunit"),
                            override("turns", unit="locale"),
                        ],
                    ),
                ),
                (
                    10,
                    figures(
                        "Telling",
                        "Notices that targets have not been told yet.",
                        sql.OUTBOX_NOW,
                        [
                            alarming("undelivered", [(None, BASELINE), (1.0, COLOURS["over_refusal"])]),
                            alarming("most attempts", [(None, BASELINE), (3.0, ALARM_COLOUR)]),
                            alarming(
                                "oldest undelivered, age",
                                [(None, BASELINE), (60.0, COLOURS["over_refusal"]), (600.0, ALARM_COLOUR)],
                                noValue="none",
                                **age,
                            ),
                        ],
                    ),
                ),
            ],
        ),
        (
            9,
            [
                (
                    24,
                    table(
                        "Sources",
                        "What came of each, those furthest behind first.",
                        sql.SOURCES,
                        [
                            override("dead_share", displayName="dead letters, share", unit="percentunit", decimals=2),
                            override("newest_ts", displayName="newest event"),
                            override("behind", displayName="behind the newest", **age),
                        ],
                    ),
                )
            ],
        ),
        (
            8,
            [
                (
                    12,
                    table(
                        "Outbox by target",
                        "What is still to be told, and why it was not.",
                        sql.OUTBOX,
                        [override("oldest", displayName="oldest undelivered", **age)],
                    ),
                ),
                (12, table("Rules that do not rest", "States of rules, the last to change first.", sql.STATES)),
            ],
        ),
        (
            9,
            [
                (8, by_time("Decisions", "By kind.", [target(sql.DECISION_COUNTS)], limits=(0, None))),
                (16, table("Latest decisions", "In the time shown, and why.", sql.DECISIONS)),
            ],
        ),
        (
            8,
            [(24, table("Latest dead letters", "Where they stand, and why they were not counted.", sql.DEAD_LETTERS))],
        ),
    ]
    return dashboard(HEALTH_UID, "valuedrift: the monitor", rows, span="now-24h")
