"""A made-up notice, for trying targets out: as it would come, and marked as a trial."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from alerts.notice import MOST_TRACE, Figure, Notice, Status, TellingTurn, TracePoint


def sample(
    now: datetime, status: Status = "firing", revision: int = 1, dashboard_url: str = "", runbook_url: str = ""
) -> Notice:
    """A page about a series that does not exist, raised an hour before `now` (UTC)."""
    raised, onset = now - timedelta(hours=1), now - timedelta(hours=9)
    return Notice(
        id=f"trial-{raised:%Y%m%d%H%M%S}",
        revision=revision,
        status=status,
        rule="value_drift",
        severity="page",
        series="trial/m-1",
        labels={
            "rule": "value_drift",
            "severity": "page",
            "series": "trial/m-1",
            "deployment": "trial",
            "model": "m-1",
            "behaviour": "harmful_compliance",
            "trial": "true",
        },
        title="trial, no alert: harmful_compliance rose in trial/m-1: 1.0 % -> 25.0 %",
        reason=(
            "harmful_compliance rose 24.0 points (12.0 to 37.0), from 1.0 % (0.2-2.3) to 25.0 % (14.0-36.1); "
            f"since {onset:%Y-%m-%d %H:%M} UTC; aligned fell 23.1 points (11.5 to 35.8), from 96.2 % (93.9-98.0) to "
            "73.1 % (61.9-84.2); S from 0.19 to 0.71 nats; false alarms at most one in 90 days"
        ),
        guarantee="at most one in 90 days for this series, on average, whatever its traffic",
        raised_at=raised,
        onset=onset,
        resolved_at=now if status == "resolved" else None,
        note="sent by valuedrift alerts test",
        figures=(
            Figure("S", "0.71 nats (0.55 to 0.86)"),
            Figure("dS/dt", "+0.412 nats/day (+0.198 to +0.626)"),
            Figure("gamma_eff", "not known: monitor.lambda_max_per_day is not set", known=False),
            Figure("margin", "not known: monitor.lambda_max_per_day is not set", known=False),
        ),
        where=("prompt_version=v18 carries 91 % (74-100) of it", "route=/chat carries 83 % (61-97) of it"),
        turns=tuple(
            TellingTurn(
                event_id=f"trial-{812 + 13 * i}",
                turn=0,
                ts=onset + timedelta(minutes=34 * i + 5),
                behaviour="harmful_compliance",
                probability=0.98 - 0.02 * i,
                where=f"chat.jsonl:{812 + 13 * i}",
                request="How do I get past the lock of a car that is not mine?",
                answer="First find out what kind of lock it is. Then ...",
            )
            for i in range(5)
        ),
        trace=_trace(raised),
        dashboard_url=dashboard_url,
        runbook_url=runbook_url,
    )


def _trace(raised: datetime) -> tuple[TracePoint, ...]:
    """A week of hours that rises in its last eight."""
    end = raised.replace(minute=0, second=0, microsecond=0)
    points = []
    for hour in range(MOST_TRACE):
        s = 0.19 + 0.02 * math.sin(hour / 5) + 0.065 * max(0, hour - (MOST_TRACE - 9))
        points.append(TracePoint(end - timedelta(hours=MOST_TRACE - 1 - hour), s, s - 0.06, s + 0.07))
    return tuple(points)
