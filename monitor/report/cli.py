"""`valuedrift report`: the weekly report as files, and to those who are to have it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from monitor import options
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from monitor.report.model import ReportData
    from monitor.report.render import Format

FORMATS: Final = ("html", "pdf", "md", "json")


@click.command()
@click.option("--week", metavar="YYYY-Www", help="ISO week, UTC [the last that is over].")
@click.option("--series", "names", metavar="NAME", multiple=True, help="Only this series (repeatable) [all].")
@click.option(
    "--compare",
    type=click.Choice(["previous", "baseline", "4w"]),
    help="With the week before, the baseline, or the four weeks before [previous].",
)
@click.option("--format", "formats", metavar="LIST", help="Of html, pdf, md, json, by commas [html].")
@click.option("--out", type=click.Path(path_type=Path), help="Files to write, without their ending [report-WEEK].")
@click.option("--send", is_flag=True, help="Send it to the targets that report.targets names.")
@click.option("--again", is_flag=True, help="Make a week's report anew that is kept already.")
@options.db
@options.tier
@click.pass_context
def report(
    context: click.Context,
    week: str | None,
    names: tuple[str, ...],
    compare: str | None,
    formats: str | None,
    out: Path | None,
    send: bool,
    again: bool,
    url: str | None,
    tier: str | None,
) -> int:
    """Report what a week's traffic was made of, what moved and how sure that is, where and why, and what was done.

    The report of a week that is over is kept in the database and is the same whenever it is asked for.
    """
    from monitor.report import archive, weeks
    from monitor.report.gather import Wanted
    from monitor.report.render import render
    from monitor.report.send import receivers, send_report
    from monitor.steps import Stepper

    config = options.load(context, store__url=url, classifier__tier=tier, report__compare=compare)
    chosen = chosen_formats(config.report.formats if formats is None else formats.split(","))
    now = datetime.now(UTC)
    wanted = Wanted(week or weeks.last_complete(now), config.report.compare, names)
    weeks.span(wanted.week)  # a wrong one is told before any work
    to = receivers(config, os.environ) if send else []
    stem = out or Path(f"report-{wanted.week}")
    if not stem.name:
        raise ConfigError(f"--out {stem} names no file")
    if not stem.parent.is_dir():
        raise ConfigError(f"--out {stem}: the folder {stem.parent} does not exist")
    classifier = options.load_classifier(config)
    engine = options.open_database(config)
    stepper = Stepper.of(engine, classifier, config)
    data, key = archive.made(stepper, config.report, wanted, now, again=again)
    shown = archive.with_texts(engine, data)
    for form in chosen:
        path = stem.with_name(f"{stem.name}.{form}")
        write(path, render(shown, form))
        click.echo(f"report: {path}")
    failed = send_report(engine, key, shown, chosen, to, now, anew=True) if to else {}
    for name, outcome in failed.items():
        click.echo(f"valuedrift: the report did not reach {name}: {outcome.reason}", err=True)
    click.echo(told(data))
    return 2 if failed else 0


def chosen_formats(names: Any) -> list[Format]:
    """Raises ConfigError on a format that there is not."""
    found = list(dict.fromkeys(n.strip() for n in names if n.strip()))
    wrong = [n for n in found if n not in FORMATS]
    if wrong or not found:
        raise ConfigError(f"report formats are {', '.join(FORMATS)}, not {', '.join(map(repr, wrong)) or 'none'}")
    return cast("list[Format]", found)


def write(path: Path, content: bytes) -> None:
    """Raises ConfigError where there can be no such file."""
    try:
        path.write_bytes(content)
    except OSError as e:
        raise ConfigError(f"{path} cannot be written: {e.strerror or e}") from e


def told(data: ReportData) -> str:
    """The week and its headline, for a terminal."""
    from streams.reasons import printable

    return f"week {data.week}: {printable(data.fleet.headline)}"
