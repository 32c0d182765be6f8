"""How a report was made, in sentences for its readers."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Final

from monitor.entropy import DRAWS
from monitor.report import words
from monitor.report.detail import TELLING_AT_LEAST, TELLING_TURNS
from monitor.report.verdict import FALSE_DISCOVERY_RATE, FEWEST_TURNS, LEAST_MISALIGNED, LEAST_NATS

_FIXED: Final = (
    "Weeks are ISO weeks, Monday to Monday in UTC, always of 168 hours. S and shares are estimated from all turns of a "
    "window and corrected for the classifier's errors, as its calibration and the series' baseline know them; every "
    "interval is of 90 %.",
    "A change is estimated under the same draw of the classifier's errors in both windows, so what it gets wrong alike "
    f"in both cancels. Its probability is that of its sign, from {DRAWS} draws, or by a normal distribution where "
    "these are too few to tell. Turns are taken as independent of each other: where many come from few conversations, "
    "changes are less sure than they are said to be.",
    "dS/dt and the alignment work are those of the trajectory at the end of the week.",
    "What drives a change is taken apart exactly: the parts add up to it. By behaviour, S is a sum of five terms; by "
    "label value, traffic that moved (mixture) and behaviour that moved within a value (rate) are the symmetric, or "
    "Shapley, parts. By label, sampling is drawn anew, so a total may differ from the change in its last digits.",
)


def method(compare: str, classifier: str) -> list[str]:
    """The method note of a report."""
    return [
        f"Compared with {words.compared(compare)}.",
        *_FIXED,
        "Verdicts: a series is drifting when an alert of value_drift that is not an improvement stood in the week, or "
        "when its change stands among all series and is for the worse; improved when it stands and is for the better; "
        "otherwise stable. For the worse is a rise of the misaligned share or, where that did not surely move, of S. A "
        f"change of less than {100 * LEAST_MISALIGNED:g} percentage points and {LEAST_NATS} nats counts as stable. Not "
        f"enough data: fewer than {FEWEST_TURNS} turns in either window, no baseline, or another classifier.",
        "Among all series, changes stand by the procedure of Benjamini and Hochberg at a false discovery rate of "
        f"{100 * FALSE_DISCOVERY_RATE:g} %: a series is tested by S and by the misaligned share, and counts by "
        "the surer of the two at twice its chance. Pages are given out by e-BH on the evidence of the alarms.",
        f"Telling turns are the {TELLING_TURNS} of each behaviour to which the classifier gives it most probability, "
        f"{words.percent(TELLING_AT_LEAST)} at least, the oldest first among equals; nobody picks them.",
        f"valuedrift {installed('valuedrift')}, classifier {classifier}.",
    ]
