"""What all requests to other machines share."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: what is sent there needs no encryption and goes through no proxy."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds of Retry-After; a date counts from the server's own Date, so no clock of ours is needed.

    Parameters
    ----------
    headers : looked up in lower case, as HTTP clients allow.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
