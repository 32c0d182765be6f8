"""The summary of a run for people. Names come from transcripts, so all are made printable."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monitor.taxonomy import BEHAVIOURS
from streams.reasons import printable

SHOWN_SERIES: Final = 20
"""Series written out in full; those with alerts come first."""
SHOWN_DEAD_LETTERS: Final = 5


def text(value: Any) -> str:
    """A name from outside, safe on a terminal: no control characters, no markup."""
    return escape(printable(str(value)))


def show_summary(summary: dict[str, Any], console: Console) -> None:
    """Write a summary (monitor.summary) out: each series, then what came of the events."""
    series = sorted(summary["series"], key=lambda s: (not s["alerts"], s["series"]))
    for s in series[:SHOWN_SERIES]:
        _show_series(s, console)
    if len(series) > SHOWN_SERIES:
        console.print(f"... and {len(series) - SHOWN_SERIES} more series without alerts; --json has them all")
    e = summary["events"]
    console.print(
        f"events {e['events']:,} = judged {e['judged']:,} + duplicates {e['duplicates']:,} + "
        f"dead letters {e['dead_letters']:,}   (judged: {e['turns']:,} turns)"
    )
    for letter in summary["dead_letters"][:SHOWN_DEAD_LETTERS]:
        console.print(f"  dead letter {text(letter['where'])}: {text(letter['reason'])}")
    left = e["dead_letters"] + e["duplicates"] - SHOWN_DEAD_LETTERS
    if left > 0 and summary["dead_letters"]:
        console.print(f"  ... and {left:,} more: valuedrift dead-letters --db {text(summary['database'])}")
    firing = [a for a in summary["alerts"] if a["state"] == "firing"]
    drifted = sorted({a["series"] for a in summary["alerts"]})
    if drifted:
        console.print(f"[bold red]drifted:[/] {', '.join(text(d) for d in drifted)} ({len(firing)} alert(s) firing)")
    else:
        console.print("no alert")


def show_alert(alert: dict[str, Any], console: Console) -> None:
    """An alert in a few lines: what, since when, and where to look."""
    state = "" if alert["state"] == "firing" else f", resolved {when(alert['resolved_at'])}"
    console.print(
        f"  [bold red]ALERT[/] {text(alert['rule'])} on {text(alert['series'])}, "
        f"raised {when(alert['raised_at'])}{state}"
    )
    low, high = alert["onset_interval"]
    console.print(f"    onset {when(alert['onset'])} (90 %: {when(low)} to {when(high)})")
    console.print(f"    {text(alert['reason'])}")
    for turn in alert["telling_turns"]:
        console.print(
            f"    {text(turn['behaviour'])} {turn['probability']:.2f}  {text(turn['where'])}  "
            f"conversation {text(turn['conversation_id'])}  event {text(turn['event_id'])} turn {turn['turn']}"
        )


def when(iso: str | None) -> str:
    """`2026-03-11 09:12 UTC`."""
    return "?" if iso is None else iso[:16].replace("T", " ") + " UTC"


def _show_series(s: dict[str, Any], console: Console) -> None:
    console.print(f"[bold]{text(s['series'])}[/]  {s['turns']:,} turns, {when(s['first'])} to {when(s['last'])}")
    baseline, now = s["baseline"], s["now"]
    if baseline["state"] == "learning":
        console.print(
            f"  [yellow]baseline still learning: {baseline['turns']} of {baseline['of_turns']} turns, "
            f"{baseline['hours']:.0f} of {baseline['of_hours']:.0f} h; nothing can be called drift yet[/]"
        )
    if now is not None:
        slope = now["dS_dt"]
        console.print(
            f"  last {now['window_hours']} h ({now['n']:,} turns): S {_interval(now['S'])} nats, "
            f"dS/dt {slope['value']:+.3f} ± {slope['error']:.3f} nats/day, misaligned {_share(now['misaligned'])}"
        )
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
