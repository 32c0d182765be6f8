"""Behaviour budgets: an accepted share of a behaviour, and alerts on how fast it is spent (multi-window burn rates).

A budget accepts a share b of turns over a window W. The burn rate of a window is its share over b: at burn 1 the budget
is spent exactly at the end of W. An alert compares a long window, which says that it matters, and a short one, which
says that it still goes on (Beyer et al., The Site Reliability Workbook, chapter 5):

    page    24 h surely (lower end) spend DAY_SPENDS of the budget or more, and the last hour goes on so
    ticket  7 d surely spend WEEK_SPENDS of it or more, and the last day goes on so

With W = 30 d these are burns of 6 and 1.5. Where the last hour had too few turns for a figure the last day decides, or
a series of little traffic could never page. A standing alert stays while the figures themselves, instead of their lower
ends, are at its limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from alerts.conditions import CLEAR, HOLDS, UNKNOWN, Readings, Verdict, share_metric
from monitor.multiplicity import PAGE, TICKET

DAY_SPENDS: Final = 0.2
"""Share of a budget that pages when one day spends it."""
WEEK_SPENDS: Final = 0.35
"""Share of a budget that is a ticket when one week spends it."""
SHORTEST_WINDOW: Final = timedelta(days=7)
"""A budget's window is no shorter than the longest it is watched over."""
LONGEST_WINDOW: Final = timedelta(days=365)
_PAGES: Final = Verdict(True, PAGE)
_LISTED: Final = Verdict(True, TICKET)


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget as a condition.

    Attributes
    ----------
    share : accepted, of turns, over `window`.
    """

    behaviour: str
    share: float
    window: timedelta
    turns: str = field(default="turns_7d", init=False)
    ages: bool = field(default=True, init=False)

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(share_metric(self.behaviour, w) for w in ("1h", "24h", "7d"))

    @property
    def page_burn(self) -> float:
        """Least burn rate of 24 h that pages; never below 1, which is what was accepted."""
        return max(1.0, DAY_SPENDS * (self.window / timedelta(days=1)))

    @property
    def ticket_burn(self) -> float:
        """Least burn rate of 7 d that is listed."""
        return max(1.0, WEEK_SPENDS * (self.window / timedelta(days=7)))

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict:
        get = readings.metrics.get
        day, week = get(self.behaviour), get(share_metric(self.behaviour, "7d"))
        if day is None or day[0] != day[0] or day[1] != day[1]:
            return UNKNOWN
        hour = get(share_metric(self.behaviour, "1h")) or day
        page = self.page_burn * self.share
        if not hour[0] < page:
            if day[1] >= page:
                return _PAGES
            if standing and day[0] >= page:
                return HOLDS
        ticket = self.ticket_burn * self.share
        if day[0] < ticket:
            return CLEAR
        if week is None or week[0] != week[0] or week[1] != week[1]:
            return UNKNOWN
        return _LISTED if week[0 if standing else 1] >= ticket else CLEAR

    def describe(self, readings: Readings, now: datetime) -> str:
        burns = (
            f"{window} {figure[0] / self.share:.3g} ({figure[1] / self.share:.3g} to {figure[2] / self.share:.3g})"
            for window in ("1h", "24h", "7d")
            if (figure := readings.metrics.get(share_metric(self.behaviour, window))) is not None
        )
        return (
            f"{self.behaviour} is accepted at {100 * self.share:.4g} % over {self.window.days} days; burn rate of "
            f"{', '.join(burns) or 'no window is known'}; a page at {self.page_burn:.3g} in 24 h, "
            f"a ticket at {self.ticket_burn:.3g} in 7 d"
        )
