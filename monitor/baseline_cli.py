"""`valuedrift baseline`: what series are compared with; listed, frozen, compared, learned anew, carried over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from monitor import config as configuration
from monitor import options
from monitor.taxonomy import BEHAVIOURS
from streams.reasons import printable

if TYPE_CHECKING:
    from classifiers.api import Classifier
    from monitor.baselines import Lens, Made

TEXT_LIMIT: Final = 4000
"""Characters of one line."""
SHIPPED: Final = "shipped"
ACCURATE: Final = "accurate"


@click.group()
def baseline() -> None:
    """Look after what series are compared with.

    SERIES is a name as `watch` prints it; its model and labels may be left out where that names one series.
    """


_rule = click.option("--baseline", "rule", metavar="RULE", help="The rule `watch` learns by, if not in the settings.")


def _lens(config: configuration.Config) -> Lens:
    from monitor.baselines import Lens
    from monitor.entropy import Quantifier

    classifier = options.load_classifier(config)
    aligned_at_least = config.trajectory().baseline_aligned_at_least
    return Lens(classifier.version, Quantifier(classifier.calibration), aligned_at_least)


def _say(text: str) -> None:
    click.echo(printable(text, TEXT_LIMIT))


@baseline.command("list")
@options.db
@_rule
@options.json_object
@click.pass_context
def list_(context: click.Context, url: str | None, rule: str | None, as_json: bool) -> None:
    """Every series: learning (how far), or frozen (from what, since when, why)."""
    from monitor.baselines import list_values

    config = options.load(context, store__url=url, monitor__baseline=rule)
    found = list_values(options.open_database(config), config.baseline_rule())
    if as_json:
        click.echo(msgspec.json.encode({"series": found}))
        return
    if not found:
        click.echo("no series yet; run: valuedrift watch SOURCE")
    for s in found:
        _show_standing(s)


@baseline.command()
@click.argument("series")
@options.db
@_rule
@options.tier
@options.json_object
@click.pass_context
def show(
    context: click.Context, series: str, url: str | None, rule: str | None, tier: str | None, as_json: bool
) -> None:
    """The baseline of SERIES: shares, S, the detectors' bounds, where it came from, and those before it."""
    from monitor.baselines import show_values

    config = options.load(context, store__url=url, monitor__baseline=rule, classifier__tier=tier)
    found = show_values(options.open_database(config), series, _lens(config), config.baseline_rule())
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    _show_standing(found)
    if "mixture" in found:
        m = found["mixture"]
        _say(f"  S {_nats(m['S'])}, misaligned {_percent(m['misaligned'])}")
        for b in BEHAVIOURS:
            _say(f"    {b:<20} {_percent(m['shares'][b]):>24}")
    elif "detectors" in found:
        _say(f"  its shares need the weights it was judged with: {found['classifier']} (--tier, classifier.weights)")
    if "detectors" in found:
        _say("  the detectors call it drift when the mean of a feature, as they see it, rises above its bound:")
        for f, d in found["detectors"].items():
            _say(f"    {f:<20} mean {100 * d['mean']:5.1f} %   bound {100 * d['bound']:5.1f} %")
    if found["history"]:
        _say("  history, latest first:")
    for h in found["history"]:
        kept = "in force" if h["classifier"] == found["classifier"] else "kept for its weights"
        until = kept if h["until"] is None else f"until {_when(h['until'])}"
        _say(f"    {_when(h['since'])}, {until}: {h['origin']}, {h['turns']:,} turns, weights {h['classifier']}")
        for kind in ("reason", "warning"):
            if h[kind]:
                _say(f"      {kind}: {h[kind]}")


@baseline.command()
@click.argument("series")
@click.option("--reason", help="Why; kept.")
@options.db
@options.json_object
@click.pass_context
def freeze(context: click.Context, series: str, reason: str | None, url: str | None, as_json: bool) -> None:
    """Freeze what SERIES has learned so far, now."""
    from monitor.baselines import freeze as run

    engine = options.open_database(options.load(context, store__url=url))
    show_made(run(engine, series, reason=reason, now=datetime.now(UTC)), as_json)


@baseline.command()
@click.argument("series")
@click.option("--reason", required=True, help="Why; kept with the baseline, and with alerts that end by it.")
@click.option(
    "--rule", metavar="RULE", help="Learn by this rule, or at once from a past range FROM..TO [as in the settings]."
)
@options.db
@options.json_object
@click.pass_context
def relearn(context: click.Context, series: str, reason: str, rule: str | None, url: str | None, as_json: bool) -> None:
    """Let go of SERIES' baseline and learn anew; alerts that stand end with the reason."""
    from monitor.baselines import relearn as run

    engine = options.open_database(options.load(context, store__url=url))
    show_made(run(engine, series, reason=reason, rule=rule, now=datetime.now(UTC)), as_json)


@baseline.command()
@click.argument("series")
@click.option("--window", default="7d", show_default=True, metavar="TIME", help="Hours (h) or days (d) up to the last.")
@options.db
@options.tier
@options.json_object
@click.pass_context
def compare(context: click.Context, series: str, window: str, url: str | None, tier: str | None, as_json: bool) -> None:
    """The baseline of SERIES against its last window: what changed, and how surely."""
    from monitor.baselines import compare_values, minutes_of

    config = options.load(context, store__url=url, classifier__tier=tier)
    found = compare_values(options.open_database(config), series, minutes_of(window), _lens(config))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    b, now, w = found["baseline"], found["now"], found["window"]
    _say(f"{found['series']}")
    _say(f"  baseline: {_when(b['from'])} to {_when(b['to'])}, {b['turns']:,} turns")
    _say(f"  window:   {_when(w['from'])} to {_when(w['to'])}, {w['turns']:,} turns")
    _say(f"  {'':<20} {'baseline':>22} {'window':>22}   change in points")
    for name in (*BEHAVIOURS, "misaligned"):
        before, after = (x["misaligned"] if name == "misaligned" else x["shares"][name] for x in (b, now))
        c = found["changes"][name]
        _say(
            f"  {name:<20} {_percent(before):>22} {_percent(after):>22}   "
            f"{100 * c['mean']:+.1f} ({100 * c['low']:+.1f} to {100 * c['high']:+.1f}): {_moved(c)}"
        )
    c = found["changes"]["S"]
    _say(
        f"  {'S, nats':<20} {_nats(b['S'])[:-5]:>22} {_nats(now['S'])[:-5]:>22}   "
        f"{c['mean']:+.2f} ({c['low']:+.2f} to {c['high']:+.2f}): {_moved(c)}"
    )
    _say(f"  KL(window || baseline) {found['kl_to_baseline']:.3f} nats")
    moved = found["changed_features"]
    _say(
        f"  the classifier's answers differ from the baseline's in {', '.join(moved)} (error 1 %)"
        if moved
        else "  the classifier's answers are those of the baseline, as far as chance allows (error 1 %)"
    )


@baseline.command()
@click.argument("source")
@click.option("--to-weights", "to", required=True, metavar="FILE", help="The new weights: FILE, shipped, or accurate.")
@click.option(
    "--from-weights", "from_", required=True, metavar="FILE", help="The old ones: FILE, shipped, or accurate."
)
@click.option("--sample", type=click.IntRange(50), default=2000, show_default=True, help="Turns a series, at most.")
@click.option("--force", is_flag=True, help="Also from turns that are unlike the baseline's.")
@options.log_format
@options.deployment
@click.option("--series-by", metavar="LABEL", multiple=True, help="As given to `watch` (repeatable).")
@options.db
@options.json_object
@click.pass_context
def migrate(
    context: click.Context,
    source: str,
    to: str,
    from_: str,
    sample: int,
    force: bool,
    log_format: str | None,
    deployment: str | None,
    series_by: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> None:
    """Carry baselines over to other weights: both judge the turns of SOURCE, a log of the baseline's time."""
    from monitor import migrate_baseline
    from streams.files import open_sources

    config = options.load(
        context,
        store__url=url,
        input__format=log_format,
        input__deployment=deployment,
        input__series_by=series_by or None,
    )
    sources = open_sources(source, max_line_bytes=config.input.max_event_bytes)
    old, new = _weights(from_), _weights(to)
    engine = options.open_database(config)
    done = migrate_baseline.migrate(
        engine, sources, old, new, config, now=datetime.now(UTC), sample=sample, force=force
    )
    aligned_at_least = config.trajectory().baseline_aligned_at_least
    found = [migrate_baseline.values(m, old, new, aligned_at_least) for m in done]
    if as_json:
        click.echo(msgspec.json.encode({"from": old.version, "to": new.version, "series": found}))
        return
    _say(f"from {old.version} to {new.version}")
    for s in found:
        _show_migrated(s)


def _weights(name: str) -> Classifier:
    from classifiers.tiers import load_tier

    if name == ACCURATE:
        return load_tier(ACCURATE)
    return load_tier("fast", None if name == SHIPPED else Path(name))


def _show_migrated(s: dict[str, Any]) -> None:
    if s["skipped"]:
        _say(f"{s['series']}: left alone: {s['skipped']}")
        return
    where = "of the baseline's time" if s["in_range"] else "not of the baseline's time: the log has too few of that"
    _say(f"{s['series']}: {s['turns']:,} turns {where}")
    columns = ("stored", "sample_old", "sample_new")
    _say(f"  {'':<20} {'stored, old weights':>24} {'these turns, old':>24} {'these turns, new':>24}")
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        *((b, lambda m, b=b: _percent(m["shares"][b])) for b in BEHAVIOURS),
        ("misaligned", lambda m: _percent(m["misaligned"])),
        ("S, nats", lambda m: _nats(m["S"])[:-5]),
    ]
    for name, cell in rows:
        _say(f"  {name:<20} " + " ".join(f"{cell(s[c]):>24}" for c in columns))
    if s["unlike"]:
        _say(f"  forced: by the old weights these turns are unlike the baseline's in {', '.join(s['unlike'])}")


def show_made(made: Made, as_json: bool) -> None:
    b, state = made.baseline, made.state
    if as_json:
        out = {
            "series": made.series,
            "state": "learning" if b is None else "frozen",
            "since": made.origin.frozen_at.isoformat(),
            "turns": 0 if b is None else b.sums.n,
            "reason": made.origin.reason,
            "warning": made.origin.warning,
            "alerts_ended": made.alerts_ended,
        }
        click.echo(msgspec.json.encode(out))
        return
    if b is None:
        rule = "the rule of the settings" if state.rule is None else state.rule
        since = _when(made.origin.frozen_at.isoformat())
        _say(f"{made.series}: learns anew from {since} on, by {rule}; no alerts until it has learned")
    else:
        _say(f"{made.series}: baseline of {b.sums.n:,} turns, in force from {_when(made.origin.frozen_at.isoformat())}")
    if made.origin.warning:
        _say(f"  warning: {made.origin.warning}")
    if made.alerts_ended:
        _say(f"  {made.alerts_ended} alert(s) ended: {made.origin.reason}")


def _show_standing(s: dict[str, Any]) -> None:
    if s["state"] == "learning":
        anew = " anew" if s["reason"] else ""
        hours = f", {s['hours']:.0f} of {s['of_hours']:.0f} h" if s["of_hours"] else ""
        _say(
            f"{s['series']}: learning{anew}, {s['turns']:,} of {s['of_turns']:,} turns{hours}; "
            "ALERTS ARE OFF while it learns"
        )
    else:
        _say(
            f"{s['series']}: frozen, {_when(s['from'])} to {_when(s['to'])}, {s['turns']:,} turns, weights "
            f"{s['classifier']}; {s['origin'] or 'learned'}, in force since {_when(s.get('since'))}"
        )
    for kind in ("reason", "warning"):
        if s[kind]:
            _say(f"  {kind}: {s[kind]}")
    for o in s["other_weights"]:
        _say(f"  for weights {o['classifier']}: {o['origin']}, {o['turns']:,} turns, in force when `watch` uses them")


def _percent(x: dict[str, float]) -> str:
    return f"{100 * x['mean']:.1f} % ({100 * x['low']:.1f}-{100 * x['high']:.1f})"


def _nats(x: dict[str, float]) -> str:
    return f"{x['mean']:.2f} ({x['low']:.2f}-{x['high']:.2f}) nats"


def _moved(change: dict[str, Any]) -> str:
    """`very likely rose, 98 %`, or `no sign of a change`."""
    words, p = change["in_words"], change["probability"]
    if "no sign" in words:
        return str(words)
    return f"{words}, {'more than 99 %' if p > 0.99 else f'{100 * p:.0f} %'}"


def _when(iso: str | None) -> str:
    return "?" if iso is None else iso[:16].replace("T", " ") + " UTC"
