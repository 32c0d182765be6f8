"""The command line. Exit codes: 0 fine, 1 alert firing with --fail-on-alert, 2 usage or configuration, 3 input."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from alerts.cli import alerts as alert_commands
from alerts.console import SHOWN_DEAD_LETTERS, show_alert, show_summary
from alerts.grafana.cli import grafana
from monitor import options
from monitor.baseline_cli import baseline as baseline_commands
from monitor.db_cli import db as db_commands
from monitor.errors import ConfigError, ValueDriftError
from monitor.faithfulness_cli import faithfulness
from monitor.ingest import Ingest
from monitor.kafka_cli import kafka as kafka_commands
from monitor.kafka_cli import replay, ship
from monitor.letters_cli import dead_letters
from monitor.report.cli import report
from monitor.serve_cli import serve
from monitor.simulate_cli import simulate
from monitor.steps import News
from monitor.store import reads
from monitor.store.database import shown
from monitor.store.retry import reading, retrying
from monitor.stress_cli import from_stress, stress
from monitor.summary import alert_values, summarise, with_texts
from monitor.worker_cli import worker


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; every foreseen failure is one line on stderr and the exit code of its kind."""
    try:
        code = cli.main(args=arguments, prog_name="valuedrift", standalone_mode=False)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.format_message())
        sys.exit(2)
    except click.Abort:
        _fail("interrupted; run the same command again to go on where it stopped", 130)
    except click.ClickException as e:
        where = e.ctx.command_path if isinstance(e, click.UsageError) and e.ctx else "valuedrift"
        _fail(f"{' '.join(e.format_message().split())} (see: {where} --help)", 2)
    except ValueDriftError as e:
        _fail(str(e), e.exit_code)
    except BrokenPipeError:
        # whoever read our output has gone, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"valuedrift: {message}\n")
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Documentation: docs/ in the project.")
@click.version_option(package_name="valuedrift", message="%(prog)s %(version)s")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings file [./valuedrift.toml].")
@click.pass_context
def cli(context: click.Context, config_path: Path | None) -> None:
    """Watch what language models in production do, and say when it drifts."""
    context.obj = config_path


baseline_commands.add_command(from_stress)
cli.add_command(alert_commands)
cli.add_command(baseline_commands, "baseline")
cli.add_command(db_commands, "db")
cli.add_command(dead_letters)
cli.add_command(faithfulness)
cli.add_command(grafana)
cli.add_command(kafka_commands, "kafka")
cli.add_command(replay)
cli.add_command(report)
cli.add_command(serve)
cli.add_command(ship)
cli.add_command(stress)
cli.add_command(simulate)
cli.add_command(worker)


@cli.command()
@click.argument("source")
@click.option("--follow", is_flag=True, help="Go on as the log grows, until interrupted.")
@options.db
@click.option("--baseline", metavar="RULE", help="What is normal: 300 (turns), 7d, 300+24h (both), or FROM..TO dates.")
@click.option("--false-alarm-every", metavar="TIME", help="Promised mean time between false alarms of a series [90d].")
@options.log_format
@options.deployment
@options.tier
@click.option("--series-by", metavar="LABEL", multiple=True, help="Split a deployment by this label (repeatable).")
@options.json_last_line
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the trajectories: .png, .svg or .pdf.")
@click.option("--alertmanager", metavar="URL", help="Tell this Alertmanager, beside the targets that are set.")
@click.option("--fail-on-alert", is_flag=True, help="Exit 1 when an alert is firing at the end.")
@click.pass_context
def watch(
    context: click.Context,
    source: str,
    follow: bool,
    url: str | None,
    baseline: str | None,
    false_alarm_every: str | None,
    log_format: str | None,
    deployment: str | None,
    tier: str | None,
    series_by: tuple[str, ...],
    as_json: bool,
    plot: Path | None,
    alertmanager: str | None,
    fail_on_alert: bool,
) -> int:
    """Judge every turn of SOURCE (a file, a directory, or - for standard input) and say what drifted.

    SOURCE holds one transcript a line, plain or gzip. What was read before is not read again.
    """
    from alerts.duty import with_alertmanager
    from classifiers.tiers import load_judge
    from monitor.plot import check_path, draw
    from monitor.watch import Watch
    from streams.files import open_sources

    config = options.load(
        context,
        store__url=url,
        monitor__baseline=baseline,
        monitor__false_alarm_every=false_alarm_every,
        input__format=log_format,
        input__deployment=deployment,
        classifier__tier=tier,
        input__series_by=series_by or None,
    )
    if alertmanager is not None:
        config = with_alertmanager(config, alertmanager)
    config.baseline_rule(), config.trajectory()  # a wrong setting is told before any work
    if plot is not None:
        check_path(plot)
    sources = open_sources(source, max_line_bytes=config.input.max_event_bytes)
    classifier = options.load_classifier(config)
    judge = load_judge(config.judge)
    engine = options.open_database(config)
    run = Watch(engine, sources, classifier, config, judge=judge, environment=os.environ)
    out = Console(highlight=False, soft_wrap=True)
    with _Bar(run.ingests) as bar:
        if follow:
            _until_stopped(run, bar, Console(stderr=True, highlight=False, soft_wrap=True) if as_json else out)
        else:
            run.run(bar.advance)
    summary = retrying(engine, lambda: summarise(engine, run.offsets, run.stepper))
    offset_ids = [o.id for o in run.offsets]
    letters = reading(engine, lambda connection: reads.dead_letters(connection, offset_ids, SHOWN_DEAD_LETTERS))
    summary["database"] = shown(engine)
    summary["dead_letters"] = [{"where": f"{d.source}:{d.line}", "kind": d.kind, "reason": d.reason} for d in letters]
    summary["skipped"] = dict(run.skipped)
    summary["undelivered"] = dict(run.undelivered)
    summary["plot"] = None if plot is None else str(plot)
    if plot is not None:
        draw(engine, summary, plot)
    for target, notices in run.undelivered.items():
        click.echo(
            f"valuedrift: {notices} notice(s) did not reach {target}; the next watch, serve or worker on this database "
            "sends what still holds",
            err=True,
        )
    if as_json:
        click.echo(msgspec.json.encode(summary))
    else:
        show_summary(summary, out)
        if plot is not None:
            click.echo(f"picture: {plot}")
        click.echo(f"database: {summary['database']}")
    return int(fail_on_alert and any(a["state"] == "firing" for a in summary["alerts"]))


def _until_stopped(run: Any, bar: _Bar, console: Console) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)

    def on_alert(news: News) -> None:
        values = alert_values(news.alert, news.series, news.severity)
        show_alert(reading(run.stepper.engine, lambda connection: with_texts(connection, values)), console)

    with contextlib.suppress(KeyboardInterrupt):
        run.follow(bar.advance, on_alert)
    run.finish(live=True)


class _Bar:
    """Progress with rate and time left on a terminal; nothing when piped."""

    def __init__(self, ingests: list[Ingest]) -> None:
        self._ingests = ingests
        self._started = time.monotonic()
        self._total = sum(i.size or 0 for i in ingests) or None
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[turns]:,} turns, {task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("judging", total=self._total, turns=0, rate=0.0)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, _ingest: Ingest) -> None:
        turns = sum(i.progress.turns for i in self._ingests)
        seconds = max(time.monotonic() - self._started, 1e-3)
        done = sum(i.consumed for i in self._ingests)
        self._progress.update(self._task, completed=done, turns=turns, rate=turns / seconds)


@cli.command()
@click.argument("source", default="-")
@options.tier
@click.pass_context
def classify(context: click.Context, source: str, tier: str | None) -> None:
    """Judge the turns of SOURCE [standard input] and print the judgements, one JSON object a line.

    A line needs no more than {"messages": [...]}; its last assistant message is judged, with "judge": "all" every one.
    """
    from monitor.classify import classify as judgements
    from streams.files import open_sources

    config = options.load(context, classifier__tier=tier)
    classifier = options.load_classifier(config)
    for opened in open_sources(source, max_line_bytes=config.input.max_event_bytes):
        for judgement in judgements(opened, classifier):
            click.echo(msgspec.json.encode(judgement))


@cli.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A labelled file or a directory of them.")
@options.json_last_line
@click.option("--weights-only", is_flag=True, help="Measure the shipped weights even on what they were trained on.")
@click.option(
    "--tier", type=click.Choice(["fast", "accurate", "cascade", "all"]), help="What judges; all: compare them [fast]."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a reliability diagram: .png, .svg or .pdf.")
@click.option("--card", type=click.Path(path_type=Path), help="Write the figures as a page in markdown.")
def evaluate(
    data: Path, as_json: bool, weights_only: bool, tier: str | None, plot: Path | None, card: Path | None
) -> None:
    """Measure the classifier on labelled turns, in all and by source, script, length and depth, with 90 % intervals.

    On the data it was trained on, the figures are cross-validated by group, and by leaving whole sources out.
    """
    from classifiers.card import page
    from classifiers.evaluation import run_evaluation, table

    if plot is not None:
        from monitor.plot import check_path

        check_path(plot)
    if card is not None and not card.parent.is_dir():
        raise ConfigError(f"--card {card}: the folder {card.parent} does not exist")
    result = run_evaluation(data, weights_only=weights_only, progress=_say, tier=tier or "fast")
    if plot is not None:
        from classifiers.reliability import draw

        draw(result["reliability"], plot)
    if card is not None:
        card.write_text(page(result), encoding="utf-8")
    if as_json:
        click.echo(msgspec.json.encode(result))
    else:
        click.echo(table(result))


@cli.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Directory of labelled .jsonl[.gz] files.")
@click.option("--factors", type=click.Path(path_type=Path), help="Directory of factor labels (requests, refusals).")
@click.option("--check", type=click.Path(path_type=Path), help="Labelled turns to measure on, never trained on.")
@click.option("--out", type=click.Path(path_type=Path), help="Weights file to write [the shipped one].")
@click.option("--config", "recipe", type=click.Path(path_type=Path), help="TOML file of a recipe [the shipped one].")
@click.option("--seed", type=int, help="Of everything drawn [the recipe's].")
@click.option("--keep", type=click.Path(path_type=Path), help="Directory by which an accurate training is resumed.")
@click.option("--tier", type=click.Choice(["fast", "accurate"]), default="fast", show_default=True)
def train(
    data: Path,
    factors: Path | None,
    check: Path | None,
    out: Path | None,
    recipe: Path | None,
    seed: int | None,
    keep: Path | None,
    tier: str,
) -> None:
    """Train, calibrate and measure a tier of the classifier, and write its weights and model card.

    The accurate tier is built on the fast one: train that first.
    """
    from classifiers.recipe import load
    from classifiers.rows import CONTRAST_FILE

    chosen = load(recipe)
    if seed is not None:
        chosen = msgspec.structs.replace(chosen, seed=seed)
    if tier == "accurate":
        from classifiers.accurate import SHIPPED as ACCURATE
        from classifiers.accurate_training import train_accurate

        train_accurate(data, factors, CONTRAST_FILE, out or ACCURATE, chosen, _say, check, keep)
        return
    from classifiers.linear import SHIPPED
    from classifiers.training import train as run_training

    run_training(data, factors, CONTRAST_FILE, out or SHIPPED, chosen, progress=_say, transcripts=check)


def _say(message: str) -> None:
    click.echo(message, err=True)
