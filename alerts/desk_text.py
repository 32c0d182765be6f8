"""What the desk says (alerts.desk), in lines for a terminal. Names come from outside: every line is made printable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from alerts.desk import ELSEWHERE
from alerts.machine import State
from alerts.silences import Silence
from alerts.stages import Why
from streams.reasons import printable

LONGEST: Final = 2000
"""Characters of a line; reasons are long."""
_KINDS: Final = {
    "state": "state",
    "notify": "to tell",
    "suppressed": "kept back",
    "ack": "by hand",
    "delivery": "delivery",
}
_HOLDS: Final = {True: "holds", False: "does not hold", None: "is not known"}
_ALREADY: Final = frozenset({Why.TOLD, Why.NOT_YET, Why.ACKNOWLEDGED, ELSEWHERE})
"""Of a target that was told: no reason to worry."""
_STANDING: Final = frozenset({State.FIRING, State.ACKNOWLEDGED})


def lines(found: Iterator[str]) -> str:
    """Lines of plain text, control characters escaped."""
    return "\n".join(printable(line, LONGEST) for line in found)


def listed(x: Mapping[str, Any]) -> str:
    """One alert in one line."""
    severity = f" {x['severity']}" if x["severity"] else ""
    quiet = ", silenced" if x["silenced_by"] else ", inhibited" if x["inhibited_by"] else ""
    by = f" by {x['acknowledged_by']}" if x["state"] == State.ACKNOWLEDGED else ""
    return printable(f"{x['id']}  {_when(x['raised_at'])}  {x['state']}{by}{severity}{quiet}  {x['title']}", LONGEST)


def heading(x: Mapping[str, Any]) -> Iterator[str]:
    """What it is, in two lines or three."""
    place = x["series"] or "the monitor"
    severity = f" ({x['severity']})" if x["severity"] else ""
    since = f" since {_when(x['raised_at'])}" if x["raised_at"] and x["state"] in _STANDING else ""
    if x["state"] == State.RESOLVED:
        since = f" {_when(x['resolved_at'])}, raised {_when(x['raised_at'])}"
    by = f" by {x['acknowledged_by']}, {_when(x['acknowledged_at'])}" if x["state"] == State.ACKNOWLEDGED else ""
    yield f"{x['rule']} on {place}: {x['state']}{since}{severity}{by}" + (f"   [{x['id']}]" if x["id"] else "")
    if x["reason"]:
        yield f"  {x['reason']}"


def explained(x: Mapping[str, Any]) -> Iterator[str]:
    """An explanation: in short, what happened, how it stands now."""
    yield from heading(x["alert"])
    yield f"  in short: {in_short(x)}"
    if x["events"]:
        yield "what was decided, in order (UTC):"
    if x["events_left_out"]:
        yield f"  ... {x['events_left_out']:,} decisions before these; --json has the last {len(x['events'])}"
    said_above = x["alert"]["reason"]
    for e in x["events"]:
        target = f"{e['target']}: " if e["target"] else ""
        text = f": {e['text']}" if e["text"] and e["text"] != said_above else ""
        yield f"  {_when(e['at'])[:16]}  {_KINDS.get(e['kind'], e['kind']):<9}  {target}{e['reason']}{text}"
    yield from _now(x["now"])


def in_short(x: Mapping[str, Any]) -> str:
    """The answer to `why did I hear of it, or why not`, in one line."""
    now = x["now"]
    if now["state"] == State.PENDING:
        return f"it waits for `for`: it fires at {_when(now['waits_until'])} if its condition holds until then"
    if now["state"] == State.RESOLVED:
        return "it is over; ends are told to every target that was told of the beginning"
    if now["state"] not in _STANDING:
        return f"nothing fires: the condition {_HOLDS[now['holds']]} ({now['condition']})"
    if not now["targets"]:
        return "nobody is told, for no target is set: [alerts.targets.NAME] in valuedrift.toml"
    said = []
    for t in now["targets"]:
        out = t["outbox"]
        if out is not None and out["last_error"]:
            failed = "refused it" if out["due_at"] is None else f"could not be told in {out['attempts']} attempt(s)"
            said.append(f"{t['target']} {failed}: {out['last_error']}")
        elif t["tells_next"]:
            said.append(f"{t['target']} is told next")
        elif t["told"] is not None and t["reason"] in _ALREADY:
            said.append(f"{t['target']} was told {_when(t['told']['at'])}")
        else:
            heard = "" if t["told"] is None else f" (was told {_when(t['told']['at'])})"
            said.append(f"{t['target']} is kept quiet: {_why(t)}{heard}")
    return "; ".join(said)


def _now(now: Mapping[str, Any]) -> Iterator[str]:
    yield f"now, {_when(now['at'])}:"
    if now["last_pass"] is None:
        yield "  rules were looked at by the time of a finished log, not by the clock"
    elif (age := now["at"] - now["last_pass"]) > timedelta(minutes=2):
        yield f"  WARNING: no watch, serve or worker has looked at the rules for {_span(age)}"
    yield f"  condition {_HOLDS[now['holds']]}: {now['condition']}"
    if now["state"] in _STANDING and now["waits_until"] is not None:
        held = "; resolves are held back while it flaps" if now["flapping"] else ""
        yield f"  it is clear by now: resolves at {_when(now['waits_until'])} if it stays so{held}"
    silence = now["silence"]
    if silence is None:
        yield "  silence: none covers it"
    else:
        comment = f": {silence['comment']}" if silence["comment"] else ""
        yield f"  silence {silence['id']} until {_when(silence['ends_at'])} by {silence['created_by']}{comment}"
    yield f"  inhibited by: {'nothing' if now['inhibited_by'] is None else 'alert ' + now['inhibited_by']}"
    for t in now["targets"] if now["state"] in _STANDING or any(t["outbox"] for t in now["targets"]) else ():
        yield f"  target {t['target']}: {_target(t)}"
    if not now["targets"]:
        yield "  targets: none is set"


def _target(t: Mapping[str, Any]) -> str:
    wanted = ""
    if t["told"] is not None:
        wanted = f"put down for it: {t['told']['status']} ({t['told']['severity']}) {_when(t['told']['at'])}; "
    next_ = "the next pass tells it" if t["tells_next"] else f"nothing new for it: {_why(t)}"
    out = t["outbox"]
    if out is None:
        return wanted + next_
    sent = f"; last sent {out['sent_status']} {_when(out['sent_at'])}" if out["sent_status"] else "; nothing sent yet"
    if out["due_at"] is not None and out["attempts"]:
        sent += f", {out['attempts']} attempt(s), again {_when(out['due_at'])}"
    if out["last_error"]:
        sent += f", last error: {out['last_error']}"
    return wanted + next_ + sent


def _why(t: Mapping[str, Any]) -> str:
    return f"{t['reason']} ({t['text']})" if t["text"] else str(t["reason"])


def silence_line(silence: Silence, now: datetime) -> str:
    """One silence in one line."""
    matchers = ", ".join(f"{k}={v}" for k, v in silence.matchers.items())
    over = "" if silence.active(now) else " (over)" if silence.starts_at <= now else " (not begun)"
    comment = f": {silence.comment}" if silence.comment else ""
    end = min(silence.ends_at, silence.ended_at or silence.ends_at)
    by = f" by {silence.created_by}" if silence.created_by else ""
    return printable(f"{silence.id}  until {_when(end)}{over}  {matchers}{by}{comment}", LONGEST)


def _when(t: datetime | None) -> str:
    return "?" if t is None else f"{t:%Y-%m-%d %H:%M} UTC"


def _span(t: timedelta) -> str:
    minutes = int(t.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
