"""The summary of a run for people. Names come from transcripts, so all are made printable."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.intake import NOT_SAMPLED
from monitor.multiplicity import PAGE, TICKET
from monitor.taxonomy import BEHAVIOURS
from monitor.where import where_lines
from streams.reasons import printable

SHOWN_SERIES: Final = 20
"""Series written out in full; those with alerts come first."""
SHOWN_DEAD_LETTERS: Final = 5
SHOWN_TEXT: Final = 200
"""Characters of an excerpt."""
LONGEST_LINE: Final = 4000
"""Characters; an alert's reason may take several lines of a terminal."""


def text(value: Any) -> str:
    """A name from outside: one short piece of a line, whatever it is."""
    return printable(str(value))


def line(console: Console, *parts: str | tuple[str, str]) -> None:
    """Write a line of plain parts and (part, style) pairs: no markup in them, control characters escaped."""
    pairs = (part if isinstance(part, tuple) else (part, "") for part in parts)
    console.print(Text.assemble(*((printable(part, LONGEST_LINE), style) for part, style in pairs)))


def show_summary(summary: dict[str, Any], console: Console) -> None:
    """Write a summary (monitor.summary) out: each series, then what came of the events."""
    series = sorted(summary["series"], key=lambda s: (not s["alerts"], s["series"]))
    for s in series[:SHOWN_SERIES]:
        _show_series(s, console)
    if len(series) > SHOWN_SERIES:
        rest = "" if series[SHOWN_SERIES]["alerts"] else " without alerts"
        line(console, f"... and {len(series) - SHOWN_SERIES} more series{rest}; --json has them all")
    e = summary["events"]
    line(
        console,
        f"events {e['events']:,} = judged {e['judged']:,} + duplicates {e['duplicates']:,} + "
        f"dead letters {e['dead_letters']:,}   (judged: {e['turns']:,} turns)",
    )
    for reason, count in summary.get("skipped", {}).items():
        said = "left out" if reason == NOT_SAMPLED else "nothing to judge in"
        line(console, f"  {said} {count:,}: {text(reason)}")
    for letter in summary["dead_letters"][:SHOWN_DEAD_LETTERS]:
        line(console, f"  dead letter {text(letter['where'])}: {text(letter['reason'])}")
    left = e["dead_letters"] + e["duplicates"] - SHOWN_DEAD_LETTERS
    if left > 0 and summary["dead_letters"]:
        line(console, f"  ... and {left:,} more: valuedrift dead-letters --db {text(summary['database'])}")
    drifted = sorted({a["series"] for a in summary["alerts"]})
    firing = sum(a["state"] == "firing" for a in summary["alerts"])
    if drifted:
        line(
            console,
            ("drifted: ", "bold red"),
            ", ".join(map(text, drifted)),
            f" ({firing} alert(s) firing{_paging(summary)})",
        )
    else:
        line(console, "no alert")


def _paging(summary: dict[str, Any]) -> str:
    severities = [a.get("severity") for a in summary["alerts"] if a["state"] == "firing"]
    listed = severities.count(TICKET)
    return f": {severities.count(PAGE)} page, {listed} listed" if listed else ""


def show_alert(alert: dict[str, Any], console: Console) -> None:
    """An alert in a few lines: what, since when, and where to look."""
    state = "" if alert["state"] == "firing" else f", resolved {when(alert['resolved_at'])}"
    raised = when(alert["raised_at"])
    severity = alert.get("severity")
    listed = ": ticket (listed, does not page)" if severity == TICKET else f": {text(severity)}" if severity else ""
    rule = f" {alert['rule']} on {text(alert['series'])}, raised {raised}{state}{listed}"
    line(console, "  ", ("ALERT", "bold red"), rule)
    low, high = alert["onset_interval"]
    line(console, f"    onset {when(alert['onset'])} (90 %: {when(low)} to {when(high)})")
    line(console, f"    {alert['reason']}")
    carriers = where_lines(alert["values"].get("where", []))
    if carriers:
        line(console, f"    likely where: {'; '.join(carriers)}")
    if "ended" in alert["values"]:
        line(console, f"    ended by a person: {text(alert['values']['ended'])}")
    _show_turns(alert["telling_turns"], console)
    for part in alert["values"]["joined"]:
        line(console, f"    joined {when(part['at'])}: {part['reason']}")
        _show_turns(part["telling_turns"][:2], console)


def _show_turns(turns: list[dict[str, Any]], console: Console) -> None:
    for turn in turns:
        line(
            console,
            f"    {turn['behaviour']} {turn['probability']:.2f}  {text(turn['where'])}  "
            f"conversation {text(turn['conversation_id'])}  event {text(turn['event_id'])} turn {turn['turn']}",
        )
        if "answer" in turn:
            line(console, f"      asked: {printable(turn['request'], SHOWN_TEXT)}")
            line(console, f"      answered: {printable(turn['answer'], SHOWN_TEXT)}")


def when(iso: str | None) -> str:
    """`2026-03-11 09:12 UTC`."""
    return "?" if iso is None else iso[:16].replace("T", " ") + " UTC"


def _show_series(s: dict[str, Any], console: Console) -> None:
    line(console, (text(s["series"]), "bold"), f"  {s['turns']:,} turns, {when(s['first'])} to {when(s['last'])}")
    baseline, now = s["baseline"], s["now"]
    if baseline["state"] == "learning":
        learned = f"{baseline['turns']} of {baseline['of_turns']} turns"
        hours = f"{baseline['hours']:.0f} of {baseline['of_hours']:.0f} h"
        line(console, (f"  baseline still learning: {learned}, {hours}; nothing can be called drift yet", "yellow"))
    if baseline.get("warning"):
        line(console, (f"  baseline: {baseline['warning']}", "yellow"))
    if now is not None:
        slope = now["dS_dt"]
        line(
            console,
            f"  last {now['window_hours']} h ({now['n']:,} turns): S {_interval(now['S'])} nats, "
            f"dS/dt {slope['value']:+.3f} ± {slope['error']:.3f} nats/day, misaligned {_share(now['misaligned'])}",
        )
        if now.get("labelled"):
            line(console, f"  {now['labelled']['line']}")
        line(console, f"  alignment work: {now['alignment_work']['line']}")
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
        table.add_column("behaviour")
        frozen = baseline["state"] == "frozen"
        if frozen:
            table.add_column(f"baseline ({baseline['n']:,} turns)", justify="right")
        table.add_column(f"last {now['window_hours']} h", justify="right")
        for b in BEHAVIOURS:
            row = [b, _share(baseline["shares"][b])] if frozen else [b]
            table.add_row(*row, _share(now["shares"][b]))
        console.print(table)
    for alert in s["alerts"]:
        show_alert(alert, console)


def _interval(x: dict[str, float]) -> str:
    return f"{x['mean']:.2f} ({x['low']:.2f}-{x['high']:.2f})"


def _share(x: dict[str, float]) -> str:
    return f"{100 * x['mean']:.1f} % ({100 * x['low']:.1f}-{100 * x['high']:.1f})"
