"""Which of many alerts page: a budget of false pages for all series together.

`false_alarm_every` is a promise for one series; 500 of them raise 500 times as many false alarms. So an alert pages
only once its evidence is strong enough among all series. The evidence of a series is the wealth M of its e-detectors in
days (monitor.detectors), which an alert that stands keeps gathering. Of N series, the k alerts of most evidence page,
where k is the largest number for which each of them has

    M >= N * page_every / k

(e-BH of Wang & Ramdas 2022, on e-detectors instead of e-values). Let F be the share of false ones among the pages that
stand. Each false one has M k / (N page_every) >= 1, so F is at most the sum of M over all unchanged series by
N page_every, whose mean is at most the elapsed time by page_every. Hence, however the series depend on each other:

- at any time T since all series were armed, the mean of F is at most T / page_every;
- the mean time until a share c of the standing pages is false is at least c * page_every. With c = 1: where nothing has
  changed anywhere, the first page of the whole fleet comes, on average, no sooner than after `page_every`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

PAGE: Final = "page"
"""Wake somebody up."""
TICKET: Final = "ticket"
"""Worth a look in working hours: listed, not sent."""


def log_page_thresholds(series: int, page_every_days: float) -> list[float]:
    """ln of the evidence, in days, that each of the first 1, 2, ... series needs to page.

    Raises ValueError on a budget that is not a positive number of days.
    """
    if not (math.isfinite(page_every_days) and page_every_days > 0):
        raise ValueError(f"page_every must be a positive number of days, not {page_every_days}")
    return [math.log(series * page_every_days / k) for k in range(1, series + 1)]


def paging(log_evidence: Sequence[float], series: int, page_every_days: float) -> list[bool]:
    """Which alerts page.

    Parameters
    ----------
    log_evidence : of each alert that stands: ln of its wealth in days; -inf where there is none.
    series : how many series are watched, those without an alert among them.
    page_every_days : promised mean time between false pages of all series together, days.

    Raises
    ------
    ValueError : evidence that is NaN, more alerts than series, or a budget that is not positive.

    >>> paging([math.log(100.0)], series=1, page_every_days=90.0)
    [True]
    >>> paging([math.log(100.0)], series=500, page_every_days=90.0)
    [False]
    >>> paging([math.log(100.0)] * 500, series=500, page_every_days=90.0)[:3]
    [True, True, True]
    """
    if any(math.isnan(e) for e in log_evidence):
        raise ValueError("evidence must not be NaN")
    if len(log_evidence) > series:
        raise ValueError(f"{len(log_evidence)} alerts of {series} series")
    order = sorted(range(len(log_evidence)), key=lambda i: -log_evidence[i])
    needed = log_page_thresholds(series, page_every_days)
    most = max((k for k, i in enumerate(order, start=1) if log_evidence[i] >= needed[k - 1]), default=0)
    chosen = set(order[:most])
    return [i in chosen for i in range(len(log_evidence))]
