"""`valuedrift alerts`: what fires, why it does and why nobody heard; taking it in hand; keeping it quiet for a time."""

from __future__ import annotations

import getpass
import glob
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from monitor import options
from monitor.errors import ConfigError, TargetError, did_you_mean
from monitor.store.retry import reading
from streams.reasons import printable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from alerts.desk import Desk


@click.group(cls=options.ListByDefault)
def alerts() -> None:
    """List alerts (without a command), explain them, take them in hand, silence them, try targets out."""


_by = click.option("--by", metavar="NAME", default=lambda: _user(), help="Who does it [the user of this machine].")
_comment = click.option("--comment", metavar="TEXT", default="", help="Why; kept with it.")
_series = click.option(
    "--series", metavar="NAME", help="Of this series only; its model may be left out where that names one."
)


@alerts.command("list")
@options.db
@click.option("--all", "everything", is_flag=True, help="Also those that are resolved.")
@_series
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="The newest so many.")
@options.json_lines
@click.pass_context
def list_(
    context: click.Context, url: str | None, everything: bool, series: str | None, limit: int, as_json: bool
) -> None:
    """List the alerts that fire, newest first."""
    from alerts import desk_text
    from monitor.baselines import find_series
    from monitor.store.alert_reads import Page

    engine, desk = _opened(context, url)

    def read(connection: Connection) -> list[dict[str, Any]]:
        ids = None if series is None else [find_series(connection, series).id]
        return desk.listed(connection, Page(not everything, ids, limit=limit), _now())

    found = reading(engine, read)
    for x in found:
        click.echo(msgspec.json.encode(x) if as_json else desk_text.listed(x))
    if not found and not as_json:
        click.echo("no alert is kept" if everything else "no alert fires")


@alerts.command()
@click.argument("alert", metavar="ID")
@options.db
@options.json_object
@click.pass_context
def show(context: click.Context, alert: str, url: str | None, as_json: bool) -> None:
    """Show an alert: what moved, since when, the telling turns, likely where."""
    from rich.console import Console

    from alerts import desk_text
    from alerts.console import show_alert
    from monitor.summary import alert_values, with_texts

    engine, desk = _opened(context, url)

    def read(connection: Connection) -> tuple[dict[str, Any], dict[str, Any] | None]:
        subject = desk.found(connection, alert)
        values = desk.shown(connection, subject, _now())
        if subject.alert is None or as_json:
            return values, None
        own = alert_values(subject.alert, values["series"] or "the monitor", values["severity"])
        return values, with_texts(connection, own)

    values, own = reading(engine, read)
    if as_json:
        click.echo(msgspec.json.encode(values))
    elif own is None:
        click.echo(desk_text.lines(desk_text.heading(values)))
    else:
        show_alert(own, Console(highlight=False, soft_wrap=True))
        click.echo(f"  who was told, and why or why not: valuedrift alerts explain {values['id']}")


@alerts.command()
@click.argument("alert", metavar="[ID]", required=False)
@click.option("--rule", metavar="NAME", help="Instead of an ID: this rule, whether or not it fires.")
@click.option("--series", metavar="NAME", help="With --rule: for this series.")
@options.db
@options.json_object
@click.pass_context
def explain(
    context: click.Context, alert: str | None, rule: str | None, series: str | None, url: str | None, as_json: bool
) -> None:
    """Say why an alert fires or does not, who was told, and for everybody else why not.

    With an ID: every decision about this alert in order, then how it stands now. With --rule and --series: why that
    rule does not fire, or what it does.
    """
    from alerts import desk_text

    if (alert is None) == (rule is None) or (series is not None and rule is None):
        raise ConfigError("give the ID of an alert, or --rule NAME and, for a rule about series, --series NAME")
    engine, desk = _opened(context, url)

    def read(connection: Connection) -> dict[str, Any]:
        subject = desk.about(connection, rule or "", series) if alert is None else desk.found(connection, alert)
        return desk.explained(connection, subject, _now())

    values = reading(engine, read)
    click.echo(msgspec.json.encode(values) if as_json else desk_text.lines(desk_text.explained(values)))


@alerts.command()
@click.argument("alert", metavar="ID")
@_by
@_comment
@options.db
@click.pass_context
def ack(context: click.Context, alert: str, by: str, comment: str, url: str | None) -> None:
    """Take an alert in hand: targets are told so by the next pass, and it is not repeated."""
    from alerts.actions import acknowledge

    engine, found = _found(context, url, alert)
    if not acknowledge(engine, found, by, _now(), comment):
        raise ConfigError(f"alert {found} does not fire, or somebody has it in hand: valuedrift alerts show {found}")
    click.echo(printable(f"{found} acknowledged by {by}"))


@alerts.command()
@click.argument("alert", metavar="ID")
@_by
@_comment
@options.db
@click.pass_context
def unack(context: click.Context, alert: str, by: str, comment: str, url: str | None) -> None:
    """Give an alert back: it fires on, and is repeated."""
    from alerts.actions import unacknowledge

    engine, found = _found(context, url, alert)
    if not unacknowledge(engine, found, by, _now(), comment):
        raise ConfigError(f"nobody has alert {found} in hand: valuedrift alerts show {found}")
    click.echo(f"{found} is acknowledged no more")


@alerts.command()
@click.argument("alert", metavar="[ID]", required=False)
@click.option(
    "--matcher", "matchers", metavar="LABEL=VALUE", multiple=True, help="* and ? are wildcards; all must fit."
)
@click.option("--for", "time", metavar="TIME", required=True, help="Such as 2h or 1d12h; 30d at most.")
@_comment
@_by
@options.db
@click.pass_context
def silence(
    context: click.Context,
    alert: str | None,
    matchers: tuple[str, ...],
    time: str,
    comment: str,
    by: str,
    url: str | None,
) -> None:
    """Tell nobody of alerts whose labels match, for a time; with an ID: of this rule on this series.

    What was told already gets its end all the same. Prints the silence's id, for `unsilence`.
    """
    from alerts import actions, desk_text
    from alerts.settings import duration
    from alerts.silences import parse_matchers

    if (alert is None) == (not matchers):
        raise ConfigError("give the ID of an alert, or --matcher label=value, such as --matcher rule=value_drift")
    lasts = duration("--for", time)
    engine, desk = _opened(context, url)
    if alert is None:
        wanted = parse_matchers(matchers)
    else:
        labels = reading(engine, lambda connection: desk.found(connection, alert)).labels
        wanted = {k: glob.escape(labels[k]) for k in ("rule", "series") if k in labels}
    made = actions.silence(engine, wanted, lasts, by, comment, _now())
    click.echo(desk_text.silence_line(made, made.starts_at))


@alerts.command()
@click.argument("silence", metavar="ID")
@options.db
@click.pass_context
def unsilence(context: click.Context, silence: str, url: str | None) -> None:
    """End a silence: what still fires is told by the next pass."""
    from alerts import desk
    from alerts.actions import end_silence

    engine, _ = _opened(context, url)
    standing = reading(engine, lambda connection: desk.silences(connection, _now()))
    found = [s.id for s in standing if len(silence) >= desk.SHORTEST_ID and s.id.startswith(silence)]
    if len(found) != 1:
        several = f"is the beginning of {len(found)} silences" if found else "is no silence that stands"
        raise ConfigError(f"{printable(silence, 60)} {several}; valuedrift alerts silences lists them")
    if end_silence(engine, found[0], _now()):
        click.echo(f"{found[0]} ended")


@alerts.command()
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@options.db
@options.json_lines
@click.pass_context
def silences(context: click.Context, everything: bool, url: str | None, as_json: bool) -> None:
    """List the silences."""
    from alerts import desk, desk_text

    engine, _ = _opened(context, url)
    now = _now()
    found = reading(engine, lambda connection: desk.silences(connection, None if everything else now))
    for s in found:
        click.echo(msgspec.json.encode(desk.silence_values(s)) if as_json else desk_text.silence_line(s, now))
    if not found and not as_json:
        click.echo("no silence is kept" if everything else "no silence stands")


@alerts.command("test")
@click.argument("target")
@click.option("--leave-open", is_flag=True, help="Do not send the end of the trial, too.")
@click.pass_context
def test_(context: click.Context, target: str, leave_open: bool) -> None:
    """Send a made-up alert to a target that is set, and then its end; say what came of each."""
    from alerts.links import RUNBOOK, fill
    from alerts.sample import sample
    from alerts.targets.settings import build

    config = options.load(context)
    if (settings := config.alerts.targets.get(target)) is None:
        raise ConfigError(f"no target {printable(target)!r}{did_you_mean(target, config.alerts.targets)}")
    at = build(target, settings, os.environ)
    of_trial = {"series": "trial/m-1", "deployment": "trial", "model": "m-1", "rule": "value_drift", "alert": "trial"}
    links = {
        "dashboard_url": fill(config.alerts.dashboard_url, **of_trial),
        "runbook_url": fill(config.alerts.runbook_url or RUNBOOK, rule="value_drift"),
    }
    now = _now()
    notices = [sample(now, "firing", 1, **links)]
    if not leave_open:
        notices.append(sample(now, "resolved", 2, **links))
    try:
        for notice in notices:
            (outcome,) = at.send([notice])
            if outcome.result != "delivered":
                said = "refused, and not tried again" if outcome.result == "refused" else "would be tried again"
                raise TargetError(f"{target}: {notice.status} was not taken ({said}): {printable(outcome.reason)}")
            click.echo(f"{target}: {notice.status} delivered")
    finally:
        at.close()


def _opened(context: click.Context, url: str | None) -> tuple[Engine, Desk]:
    from alerts.desk import Desk

    config = options.load(context, store__url=url)
    desk = Desk(config)  # a wrong setting is told before any work
    return options.open_database(config), desk


def _found(context: click.Context, url: str | None, alert: str) -> tuple[Engine, str]:
    """The whole ID of an alert, and where it is kept."""
    engine, desk = _opened(context, url)
    return engine, reading(engine, lambda connection: desk.find(connection, alert))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return f"user {os.getuid()}"


def _now() -> datetime:
    return datetime.now(UTC)
