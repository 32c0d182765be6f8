"""Any HTTP server: one alert a request, as docs/schemas/alert-webhook.v1.json says, signed and with a key to tell
what was sent twice."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from alerts.notice import Notice
from alerts.targets.base import Outcome
from alerts.targets.document import Document
from alerts.targets.http import HttpClient, Post, Reading
from alerts.targets.settings import Values, Webhook
from alerts.targets.text import harmless
from monitor.errors import ConfigError

VERSION: Final = 1
"""Of the schema; fields may be added within a version, none is taken away or changes its meaning."""
SIGNATURE: Final = "Valuedrift-Signature"
FEWEST_SECRET_CHARACTERS: Final = 16


class WebhookTarget:
    """Each notice is a request.

    Parameters
    ----------
    clock : the signature's time.
    """

    refresh_seconds: float | None = None

    def __init__(
        self, settings: Webhook, values: Values, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.name = values.name
        self.tells = frozenset({"firing", "acknowledged", "resolved"})
        self._excerpts = settings.excerpts
        self._clock = clock
        self._secret = values.text("secret")
        if 0 < len(self._secret) < FEWEST_SECRET_CHARACTERS:
            raise ConfigError(f"{values.key('secret')} has fewer than {FEWEST_SECRET_CHARACTERS} characters")
        token = values.header("bearer_token")
        self._client = HttpClient(
            values,
            timeout_seconds=settings.timeout_seconds,
            allow_http=settings.allow_http,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            secrets=[self._secret, token],
        )

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """See alerts.targets.base.Target."""
        return self._client.post([self._post(n) for n in notices], _READING)

    def send_document(self, document: Document) -> Outcome:
        """See alerts.targets.document.Carrier."""
        return self._client.post([self._signed(document.json, document.key)], _READING)[0]

    def close(self) -> None:
        """Connections live as long as a send."""

    def _post(self, notice: Notice) -> Post:
        body = msgspec.json.encode(message(harmless(notice, excerpts=self._excerpts)))
        return self._signed(body, f"{notice.id}.{notice.revision}")

    def _signed(self, body: bytes, key: str) -> Post:
        headers = {"Idempotency-Key": key}
        if self._secret:
            headers[SIGNATURE] = signature(body, self._secret, int(self._clock().timestamp()))
        return Post(body, headers)


def signature(body: bytes, secret: str, at: int) -> str:
    """The header `t=SECONDS,v1=HEX`: HMAC-SHA256 of `SECONDS.BODY`, so that an old request cannot be sent again later.

    Parameters
    ----------
    at : seconds since 1970.
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={digest.hexdigest()}"


def message(notice: Notice) -> dict[str, Any]:
    """A notice as plain values.

    Parameters
    ----------
    notice : harmless (alerts.targets.text).
    """
    return {
        "version": VERSION,
        "id": notice.id,
        "revision": notice.revision,
        "status": notice.status,
        "severity": notice.severity,
        "rule": notice.rule,
        "series": notice.series or None,
        "labels": notice.labels,
        "title": notice.title,
        "reason": notice.reason,
        "note": notice.note,
        "guarantee": notice.guarantee,
        "raised_at": notice.raised_at,
        "onset": notice.onset,
        "resolved_at": notice.resolved_at,
        "figures": [{"name": f.name, "text": f.text, "known": f.known} for f in notice.figures],
        "where": list(notice.where),
        "telling_turns": [
            {
                "event_id": t.event_id,
                "turn": t.turn,
                "ts": t.ts,
                "behaviour": t.behaviour,
                "probability": t.probability,
                "where": t.where,
                "request": t.request,
                "answer": t.answer,
            }
            for t in notice.turns
        ],
        "trace": [{"t": p.t, "s": p.s, "low": p.low, "high": p.high} for p in notice.trace],
        "dashboard_url": notice.dashboard_url or None,
        "runbook": notice.runbook_url or None,
    }


def _said(_body: bytes) -> str:
    """Whose server it is, is not known: its words are not repeated."""
    return ""


_READING: Final = Reading(None, _said)
