"""Which firing alerts page: decided among all series together, whenever it is asked, and kept nowhere.

The evidence of an alert grows while it stands, and how much it needs depends on the other series, so a severity that
was stored would be wrong by the next minute. It is a function of what is stored: series' states and their alerts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from alerts.reasons import VALUE_DRIFT
from monitor.detectors import log_threshold
from monitor.multiplicity import PAGE, TICKET, paging
from monitor.state import SeriesState
from monitor.store.trajectories import FINDINGS, Alert
from monitor.trajectory import Settings


def severities(
    series: Sequence[tuple[SeriesState, Sequence[Alert]]], settings: Settings, *, armed: int | None = None
) -> dict[str, str]:
    """`page` or `ticket` of every alert that fires, by its id.

    Parameters
    ----------
    series : the state of every series, and its alerts.
    armed : how many series have a baseline; None: as many as of these have.
    """
    firing = [[a for a in alerts if a.firing] for _, alerts in series]
    have = [i for i, alerts in enumerate(firing) if alerts]
    with_baseline = sum(state.baseline is not None for state, _ in series) if armed is None else armed
    armed = max(1, with_baseline, len(have))
    evidence = [_evidence(series[i][0], firing[i], settings) for i in have]
    pages = paging(evidence, armed, settings.page_every_days)
    return {alert.id: _severity(alert, page) for i, page in zip(have, pages, strict=True) for alert in firing[i]}


def _severity(alert: Alert, page: bool) -> str:
    if alert.rule not in FINDINGS:
        return alert.severity or TICKET  # its rule's own
    return PAGE if page and _may_page(alert) else TICKET


def _evidence(state: SeriesState, firing: Sequence[Alert], settings: Settings) -> float:
    """ln of the wealth behind a series' alerts, days; none where nothing of it may page."""
    if not any(map(_may_page, firing)):
        return -math.inf
    # an alert from before evidence went on is taken at its alarm
    return log_threshold(settings.false_alarm_every_days) if state.standing is None else state.standing.log_evidence


def _may_page(alert: Alert) -> bool:
    """Limits that a person set promise nothing about false alarms, and nobody is woken up for an improvement."""
    return alert.rule == VALUE_DRIFT and not alert.values.get("better", False)
