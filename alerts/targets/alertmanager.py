"""Prometheus Alertmanager, API v2: it groups, silences and routes; we say again and again what stands.

Alertmanager knows an alert by its labels and takes it for resolved once `endsAt` has passed, so a standing one is sent
again every `refresh_seconds` with an `endsAt` of five times as long ahead: a notice that is late does not resolve it.
It hands texts on as they are, to chat services too, so that what these read as mentions and links is replaced by
look-alikes (in labels < and > alone, since they are matched), and excerpts of transcripts stay out.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from alerts.notice import Notice
from alerts.targets.base import Outcome
from alerts.targets.http import HttpClient, Post, Reading
from alerts.targets.settings import Alertmanager, Values
from alerts.targets.text import harmless, inert, is_link, status_line, turn_line

KEEPS_REFRESHES: Final = 5
"""A standing alert that is not sent again for so many refreshes ends."""
_LABEL_MARKS: Final = str.maketrans({"<": "‹", ">": "›"})


class AlertmanagerTarget:
    """All notices of a send go in one request.

    Parameters
    ----------
    clock : an alert's end is measured by it.
    """

    def __init__(
        self, settings: Alertmanager, values: Values, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.name = values.name
        self.refresh_seconds: float | None = settings.refresh_seconds
        # one that is acknowledged here still stands there
        self.tells = frozenset({"firing", "acknowledged", "resolved"})
        self._keeps = timedelta(seconds=settings.refresh_seconds * KEEPS_REFRESHES)
        self._clock = clock
        authorization, secrets = _authorization(settings, values)
        self._client = HttpClient(
            values,
            timeout_seconds=settings.timeout_seconds,
            allow_http=settings.allow_http,
            path="/api/v2/alerts",
            headers={"Authorization": authorization} if authorization else {},
            secrets=secrets,
        )

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """See alerts.targets.base.Target."""
        now = self._clock()
        alerts = [posted(harmless(n, excerpts=False), now, self._keeps) for n in notices]
        began = time.monotonic()
        (outcome,) = self._client.post([_post(alerts)], _READING)
        if outcome.result == "refused" and len(alerts) > 1:
            # it takes all or none: what is wrong with one must not keep the others away
            return self._client.post([_post([alert]) for alert in alerts], _READING, began=began)
        return [outcome] * len(notices)

    def close(self) -> None:
        """Connections live as long as a send."""


def posted(notice: Notice, now: datetime, keeps: timedelta) -> dict[str, Any]:
    """An alert as the API takes it.

    Parameters
    ----------
    notice : harmless (alerts.targets.text).
    now, keeps : a standing one ends so long after now.
    """
    ends = now + keeps
    if notice.status == "resolved":
        ends = min(notice.resolved_at or now, now)
    annotations = {
        "summary": notice.title,
        "description": _description(notice),
        "runbook_url" if is_link(notice.runbook_url) else "runbook": notice.runbook_url,
        "dashboard_url": notice.dashboard_url,
        "alert_id": notice.id,
    }
    alert = {
        "labels": labels(notice),
        "annotations": {k: inert(v) for k, v in annotations.items() if v},
        # an alert that begins after its end is refused, and all that are sent with it
        "startsAt": min(notice.raised_at, ends).isoformat(),
        "endsAt": ends.isoformat(),
    }
    return alert | ({"generatorURL": notice.dashboard_url} if notice.dashboard_url else {})


def labels(notice: Notice) -> dict[str, str]:
    """Labels by which Alertmanager knows and routes the alert: their names are made such as it takes."""
    named = {_label_name(k): v.translate(_LABEL_MARKS) for k, v in notice.labels.items() if v}
    return named | {"alertname": notice.rule.translate(_LABEL_MARKS)}


def _label_name(text: str) -> str:
    """A valid name of a label: ASCII letters, digits and _, no digit first, none that Prometheus keeps for itself.

    >>> _label_name("prompt.version"), _label_name("2nd"), _label_name("__name__")
    ('prompt_version', '_2nd', 'name__')
    """
    name = re.sub(r"[^a-zA-Z0-9_]", "_", text)
    if name.startswith("__"):
        name = name.lstrip("_") or "_"
    return f"_{name}" if name[:1].isdigit() else name


def _description(notice: Notice) -> str:
    figures = "; ".join(f"{f.name} {f.text}" for f in notice.figures)
    turns = [turn_line(t) for t in notice.turns]
    parts = (status_line(notice), notice.reason, figures, notice.guarantee, *notice.where, *turns)
    return "\n".join(part for part in parts if part)


def _authorization(settings: Alertmanager, values: Values) -> tuple[str, list[str]]:
    """The header's value, and what of it is secret."""
    if settings.bearer_token:
        token = values.header("bearer_token")
        return f"Bearer {token}", [token]
    if settings.username:
        password = values.text("password")
        pair = base64.b64encode(f"{values.text('username')}:{password}".encode()).decode()
        return f"Basic {pair}", [pair, password]
    return "", []


def _post(alerts: Sequence[dict[str, Any]]) -> Post:
    return Post(msgspec.json.encode(alerts))


def _wrong(body: bytes) -> str | None:
    return "the answer is not Alertmanager's" if body.strip() else None


def _said(body: bytes) -> str:
    """Its errors are JSON: a text, or an object with a message."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if isinstance(found, dict):
        found = found.get("message")
    return found if isinstance(found, str) else ""


_READING: Final = Reading(_wrong, _said)
