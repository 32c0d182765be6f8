"""Requests that are not taken: which status, why, and when to come again."""

from __future__ import annotations

import math


class Refused(Exception):
    """Answered with `status`; the reason says nothing of what the request holds.

    Attributes
    ----------
    retry_after : seconds until it is worth trying again; None: as it is, never.
    headers : what else the answer carries.
    """

    def __init__(
        self, status: int, reason: str, *, retry_after: float | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after)))
