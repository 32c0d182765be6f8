"""PagerDuty, Events API v2: trigger, acknowledge and resolve one incident, known by the alert's id.

Limits are those of its documentation: 1,024 characters of summary, 512 KB an event; 202 is taken, 400 is wrong, 429
and 5xx are sent again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from alerts.notice import Notice
from alerts.targets.base import Outcome
from alerts.targets.http import HttpClient, Post, Reading
from alerts.targets.settings import PagerDuty, Values
from alerts.targets.text import harmless, is_link, links, status_line, trace_line, turn_line
from monitor.errors import ConfigError
from monitor.multiplicity import PAGE, TICKET
from streams.reasons import printable

LONGEST_SUMMARY: Final = 1024
LONGEST_EVENT_BYTES: Final = 512_000
_ACTIONS: Final = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}
_SEVERITIES: Final = {PAGE: "critical", TICKET: "warning"}


class PagerDutyTarget:
    """Each notice is an event."""

    refresh_seconds: float | None = None

    def __init__(self, settings: PagerDuty, values: Values) -> None:
        self.name = values.name
        self.tells = frozenset(_ACTIONS)
        self._excerpts = settings.excerpts
        self._routing_key = values.text("routing_key")
        if not re.fullmatch(r"[A-Za-z0-9]{32}", self._routing_key):
            raise ConfigError(
                f"{values.key('routing_key')} is not an integration key: 32 letters and digits, from the service's "
                "Integrations tab, Events API v2"
            )
        self._client = HttpClient(
            values, timeout_seconds=settings.timeout_seconds, allow_http=False, secrets=[self._routing_key]
        )

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """See alerts.targets.base.Target."""
        events = (event(harmless(n, excerpts=self._excerpts)) for n in notices)
        return self._client.post([Post(_encoded(e | {"routing_key": self._routing_key})) for e in events], _READING)

    def close(self) -> None:
        """Connections live as long as a send."""


def event(notice: Notice) -> dict[str, Any]:
    """An event as the API takes it, without its routing key.

    Parameters
    ----------
    notice : harmless (alerts.targets.text).
    """
    known = {"event_action": _ACTIONS[notice.status], "dedup_key": notice.id}
    if notice.status != "firing":
        return known
    leads = [{"href": url, "text": name} for name, url in links(notice) if is_link(url)]
    payload = {
        "summary": printable(notice.title, LONGEST_SUMMARY),
        "timestamp": notice.raised_at.isoformat(),
        "severity": _SEVERITIES.get(notice.severity, "info"),
        "source": notice.series or "valuedrift",
        "component": notice.labels.get("model", ""),
        "group": notice.labels.get("deployment", ""),
        "class": notice.rule,
        "custom_details": details(notice),
    }
    client = {"client": "valuedrift"} | ({"client_url": notice.dashboard_url} if notice.dashboard_url else {})
    return known | client | {"payload": {k: v for k, v in payload.items() if v}, "links": leads}


def details(notice: Notice) -> dict[str, Any]:
    """What the incident's page shows beside its title."""
    turns = [
        {"turn": turn_line(t)} | {k: v for k, v in (("asked", t.request), ("answered", t.answer)) if v is not None}
        for t in notice.turns
    ]
    shown = {
        "status": status_line(notice),
        "what moved": notice.reason,
        "figures": {f.name: f.text for f in notice.figures},
        "likely where": list(notice.where),
        "false alarms": notice.guarantee,
        "S": trace_line(notice.trace),
        "telling turns": turns,
        "labels": notice.labels,
        "runbook": notice.runbook_url,
    }
    return {k: v for k, v in shown.items() if v}


def _encoded(whole: dict[str, Any]) -> bytes:
    body = msgspec.json.encode(whole)
    if len(body) <= LONGEST_EVENT_BYTES:
        return body
    # only what labels carry can be so long
    payload = whole["payload"] | {"custom_details": {"what moved": whole["payload"]["custom_details"]["what moved"]}}
    return msgspec.json.encode(whole | {"payload": payload})


def _answer(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _wrong(body: bytes) -> str | None:
    return None if _answer(body).get("status") == "success" else "the answer is not PagerDuty's"


def _said(body: bytes) -> str:
    found = _answer(body)
    errors = found.get("errors")
    parts = [found.get("message"), *(errors[:3] if isinstance(errors, list) else [])]
    return "; ".join(part for part in parts if isinstance(part, str))


_READING: Final = Reading(_wrong, _said)
