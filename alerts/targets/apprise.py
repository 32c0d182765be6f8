"""The long tail: any service that apprise knows, as plain text.

Apprise turns it into the service's own markup. What chat services read as mentions and links is replaced by
look-alikes before, for some of them are told apart by apprise from the text itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import apprise

from alerts.notice import Notice
from alerts.targets.base import Outcome
from alerts.targets.settings import Apprise, Values
from alerts.targets.text import brief, harmless, inert, plain, subject
from monitor.errors import ConfigError
from monitor.multiplicity import PAGE

LONGEST_BODY: Final = 4000
"""Characters; services with a lower limit get it in parts, as apprise splits it."""


class AppriseTarget:
    """All notices of a send are one message."""

    refresh_seconds: float | None = None

    def __init__(self, settings: Apprise, values: Values) -> None:
        self.name = values.name
        self.tells = frozenset({"firing", "acknowledged", "resolved"})
        self._excerpts = settings.excerpts
        self._timeout_seconds = settings.timeout_seconds
        asset = apprise.AppriseAsset(
            service_timeout=settings.timeout_seconds,
            storage_mode=apprise.PersistentStoreMode.MEMORY,
            http_redirects=False,
            interpret_emojis=False,
        )
        self._service = apprise.Apprise(asset=asset)
        if not self._service.add(values.text("url")):
            raise ConfigError(f"{values.key('url')} is not an address that apprise knows")

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """See alerts.targets.base.Target."""
        shown = [harmless(n, excerpts=self._excerpts) for n in notices]
        text = plain(shown[0]) if len(shown) == 1 else "\n\n".join(map(brief, shown))
        over = all(n.status == "resolved" for n in shown)
        urgent = any(n.severity == PAGE for n in shown)
        kind = apprise.NotifyType.FAILURE if urgent else apprise.NotifyType.WARNING
        found = self._service.notify(
            title=inert(subject(shown)),
            body=inert(text)[:LONGEST_BODY],
            notify_type=apprise.NotifyType.SUCCESS if over else kind,
            body_format=apprise.NotifyFormat.TEXT,
            timeout=self._timeout_seconds,
        )
        outcome = Outcome("delivered") if found else Outcome("retry", f"apprise: {found.status.name.lower()}")
        return [outcome] * len(notices)

    def close(self) -> None:
        """Nothing is held."""
