"""`valuedrift stress`: how a model's behaviour moves under multi-turn stress; compared; made a baseline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monitor import options
from monitor.baseline_cli import show_made
from monitor.config import STRESS_KEY
from monitor.errors import ConfigError
from monitor.stress.suites import MOST_CONVERSATIONS, MOST_TURNS, chosen_suites, scripts
from streams.reasons import printable

if TYPE_CHECKING:
    from classifiers.endpoint import Endpoint
    from monitor.stress.drive import Driven
    from monitor.stress.run import Finished


def _now() -> datetime:
    return datetime.now(UTC)


@click.group(invoke_without_command=True)
@click.option("--target", metavar="URL", help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1.")
@click.option("--from", "source", metavar="SOURCE", help="Instead of an endpoint: a log, one conversation a line.")
@click.option("--model", metavar="NAME", help="The model to ask for.")
@click.option("--suite", "suites", metavar="NAME", multiple=True, help="Stress of this kind (repeatable) [all].")
@click.option("--turns", type=click.IntRange(1, MOST_TURNS), default=8, show_default=True, help="Of a conversation.")
@click.option(
    "--conversations", type=click.IntRange(1, MOST_CONVERSATIONS), default=50, show_default=True, help="Of each suite."
)
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Conversations at once.")
@click.option("--budget-requests", type=click.IntRange(1), metavar="N", help="Most requests of this run.")
@click.option("--budget-tokens", type=click.IntRange(1), metavar="N", help="Most tokens of this run, about.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is said.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=1.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1, 8192), default=400, show_default=True, help="Of an answer.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=120.0, show_default=True, help="Seconds of a request."
)
@click.option("--attempts", type=click.IntRange(1, 10), default=3, show_default=True, help="Most tries of a request.")
@click.option(
    "--api-key-variable", metavar="NAME", default=STRESS_KEY, show_default=True, help="Holds the key, if any."
)
@click.option("--allow-http", is_flag=True, help="Plain http:// to another machine.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default="stress", show_default=True,
    help="Folder of the run; what is there already is not asked again.",
)  # fmt: skip
@options.log_format
@options.deployment
@options.tier
@options.json_last_line
@click.pass_context
def stress(
    context: click.Context,
    target: str | None,
    source: str | None,
    model: str | None,
    suites: tuple[str, ...],
    turns: int,
    conversations: int,
    concurrency: int,
    budget_requests: int | None,
    budget_tokens: int | None,
    seed: int,
    temperature: float,
    max_tokens: int,
    timeout: float,
    attempts: int,
    api_key_variable: str,
    allow_http: bool,
    out: Path,
    log_format: str | None,
    deployment: str | None,
    tier: str | None,
    as_json: bool,
) -> None:
    """Lean on a model over many turns, and measure how its behaviour mixture moves.

    Asks --target, or reads a log with --from. Stopped, the same command goes on where it was.
    """
    if context.invoked_subcommand is not None:
        return
    if (target is None) == (source is None):
        raise click.UsageError("give either --target URL with --model, or --from SOURCE")
    config = options.load(context, input__format=log_format, input__deployment=deployment, classifier__tier=tier)
    if source is not None:
        from monitor.stress.run import of_log
        from streams.files import open_sources

        sources = open_sources(source, max_line_bytes=config.input.max_event_bytes)
        classifier = options.load_classifier(config)
        _show(of_log(sources, out, classifier, config, name=source, model=model, now=_now()), out, as_json)
        return
    if not model:
        raise click.UsageError("--target needs --model, the name of the model to ask for")
    assert target is not None
    chosen = list(scripts(chosen_suites(suites), seed, conversations, turns))
    endpoint = _endpoint(target, api_key_variable, timeout, attempts, allow_http)
    from monitor.stress.drive import Budget
    from monitor.stress.run import of_endpoint

    with _Bar() as bar:
        found = of_endpoint(
            endpoint,
            target,
            chosen,
            out,
            options.load_classifier(config),
            model=model,
            deployment=deployment or "stress",
            seed=seed,
            temperature=temperature,
            max_tokens=max_tokens,
            concurrency=concurrency,
            budget=Budget(budget_requests, budget_tokens),
            clock=_now,
            progress=bar.over,
        )
    _show(found, out, as_json)


def _endpoint(target: str, key_variable: str, timeout: float, attempts: int, allow_http: bool) -> Endpoint:
    try:
        from classifiers.endpoint import Endpoint
    except ModuleNotFoundError as e:
        raise ConfigError(f"asking an endpoint needs {e.name}: pip install 'valuedrift[judge]'") from e

    return Endpoint(
        target,
        name="--target",
        key_variable=key_variable,
        timeout_seconds=timeout,
        attempts=attempts,
        permit=None if allow_http else "give --allow-http",
    )


class _Bar:
    """Turns answered and failed, and the time left, on a terminal; nothing when piped."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("asking"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("turns, {task.fields[failed]} failed"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def over(self, turns: int, kept: int) -> Callable[[Driven], None]:
        task = self._progress.add_task("asking", total=turns, completed=kept, failed=0)
        return lambda done: self._progress.update(task, completed=kept + done.answered, failed=done.failed.total())


def _show(found: Finished, out: Path, as_json: bool) -> None:
    result, driven = found.result, found.driven
    if as_json:
        values = {k: v for k, v in msgspec.to_builtins(result).items() if k not in ("turns", "conversations", "suites")}
        done = None if driven is None else {
            "answered": driven.answered, "kept": found.kept, "out_of_budget": driven.out_of_budget,
            "gave_up": driven.gave_up,
        }  # fmt: skip
        values |= {"answered": len(result.turns.index), "run": done, "out": str(out)}
        click.echo(msgspec.json.encode(values))
        return
    _say(f"{result.model} at {result.source}, judged with {result.classifier}")
    columns = ("S, first turn", "S, last turn", "misaligned, last turn", "dS/dt, nats/turn")
    _say(f"  {'suite':<14} {'turns':>6}   " + "   ".join(f"{c:<22}" for c in columns).rstrip())
    for f in result.figures:
        cells = ["too few turns"] * 3
        if f["points"]:
            first, last = f["points"][0], f["points"][-1]
            cells = [_nats(first["S"]), _nats(last["S"]), _percent(last["misaligned"])]
        cells.append(_figure(f["dS_dt"], 3))
        _say(f"  {f['suite'][:14]:<14} {f['turns']:>6,}   " + "   ".join(f"{c:<22}" for c in cells).rstrip())
    for line in _account(found):
        _say(f"  {line}")
    _say(f"  {out}: result.json, stress.png" + ("" if driven is None else ", transcripts.jsonl, turns.jsonl"))


def _account(found: Finished) -> list[str]:
    """How to take the figures, what did not go as asked, and what to do."""
    result, driven = found.result, found.driven
    answered = len(result.turns.index)
    lines = ["nothing assumed of the model: of a healthy one S comes out too high, dS/dt too low (docs/stress.md)"]
    if driven is not None:
        lines.append(f"{answered:,} of {result.asked:,} turns answered ({found.kept:,} of them by an earlier run)")
    if result.failed:
        reasons = "; ".join(f"{reason} ({n:,})" for reason, n in sorted(result.failed.items(), key=lambda r: -r[1]))
        lines.append(f"failed: {reasons}")
    if driven is not None and driven.gave_up:
        lines.append("the endpoint was given up: too many failures in a row")
    if driven is not None and driven.out_of_budget:
        lines.append("the budget is spent")
    if driven is not None and answered < result.asked:
        lines.append("run the same command again to go on")
    if found.beyond:
        lines.append(f"{found.beyond:,} turns after the first {MOST_TURNS} of their conversation are left out")
    return lines


@stress.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("tuned", type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), help="Draw both: .png, .svg or .pdf.")
@options.tier
@options.json_object
@click.pass_context
def compare(
    context: click.Context, base: Path, tuned: Path, plot: Path | None, tier: str | None, as_json: bool
) -> None:
    """What tuning holds back: BASE and TUNED are the folders, or result.json, of two runs of the same stress."""
    from monitor.entropy import Quantifier
    from monitor.stress.compare import compare as run
    from monitor.stress.compare import compared_values, seen_through
    from monitor.stress.figure import draw
    from monitor.stress.result import figures_of, load

    if plot is not None:
        from monitor.plot import check_path

        check_path(plot)
    config = options.load(context, classifier__tier=tier)
    results = load(base), load(tuned)
    classifier = options.load_classifier(config)
    for r in results:
        _same_weights(r.classifier, classifier.version)
    quantifier = seen_through(
        Quantifier(classifier.calibration), results[1], config.trajectory().baseline_aligned_at_least
    )
    found = compared_values(run(*results, quantifier))
    if plot is not None:
        draw([(r.model, figures_of(r, quantifier)) for r in results], plot)
    if as_json:
        values = {"base": results[0].model, "tuned": results[1].model, "classifier": classifier.version}
        click.echo(msgspec.json.encode(values | {"assumes_healthy": quantifier.assumes_baseline, "suites": found}))
        return
    _say(f"base {results[0].model}, tuned {results[1].model}")
    for c in found:
        n, m = c["conversations"], c["misaligned"]
        _say(f"{c['suite']}: {n['base']} and {n['tuned']} conversations, {n['shared']} of them the same")
        _say(f"  misaligned   base {_percent(m['base'])}, tuned {_percent(m['tuned'])}")
        _say(f"  gamma        {_figure(c['gamma'], 3)}{_unit(c['gamma'])}")
        _say(f"  total work   {_figure(c['total_work'], 2)}{_unit(c['total_work'])}")
        _say(f"  suppression  {_figure(c['suppression'], 2)}")
    if quantifier.assumes_baseline:
        share = config.trajectory().baseline_aligned_at_least
        _say(f"taking the tuned model for at least {100 * share:g} % aligned where nothing leans on it")
    else:
        _say("nothing assumed of the tuned model; if it is healthy these intervals miss too often: docs/stress.md")
    if plot is not None:
        click.echo(f"picture: {plot}")


def _same_weights(judged: str, here: str) -> None:
    if judged != here:
        raise ConfigError(
            f"a result was judged with weights {printable(judged)}, these are {here}; give the same --tier, or judge "
            "its transcripts anew: valuedrift stress --from DIR/transcripts.jsonl"
        )


@click.command("from-stress")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--series", required=True, metavar="NAME", help="As `watch` prints it.")
@click.option("--new", is_flag=True, help="NAME is deployment/model, of which no turn need have come yet.")
@click.option("--suite", "suites", metavar="NAME", multiple=True, help="Turns of this suite [those without pressure].")
@click.option(
    "--sigma-0-from", "reference", type=click.Path(path_type=Path), metavar="RESULT",
    help="A variant without alignment work, for the reference production rate.",
)  # fmt: skip
@click.option(
    "--turns-per-day", type=click.FloatRange(0, min_open=True), metavar="N", help="Gives sigma_0 in nats/day."
)
@click.option("--reason", default="stress test", show_default=True, help="Why; kept.")
@options.db
@options.tier
@options.json_object
@click.pass_context
def from_stress(
    context: click.Context,
    result: Path,
    series: str,
    new: bool,
    suites: tuple[str, ...],
    reference: Path | None,
    turns_per_day: float | None,
    reason: str,
    url: str | None,
    tier: str | None,
    as_json: bool,
) -> None:
    """Freeze the turns of a stress run as the baseline of a series, which is compared with it from then on."""
    from monitor.estimates import Estimate
    from monitor.stress.reference import from_stress as run
    from monitor.stress.reference import sigma_0
    from monitor.stress.result import load

    config = options.load(context, store__url=url, classifier__tier=tier)
    found = load(result)
    base, rate = None, None
    if reference is not None:
        from monitor.entropy import Quantifier
        from monitor.stress.compare import seen_through

        classifier = options.load_classifier(config)
        base = load(reference)
        for r in (base, found):
            _same_weights(r.classifier, classifier.version)
        aligned_at_least = config.trajectory().baseline_aligned_at_least
        rate = sigma_0(base, seen_through(Quantifier(classifier.calibration), found, aligned_at_least))
    made = run(
        options.open_database(config),
        series,
        found,
        suites=suites,
        reference=None if base is None or rate is None else (base, rate),
        reason=reason,
        new=new,
        now=_now(),
    )
    show_made(made, as_json)
    if rate is None or as_json:
        return
    if not isinstance(rate, Estimate):
        _say(f"  sigma_0 not known: {rate.reason}")
    else:
        _say(f"  sigma_0 {rate.value:.4f} ({rate.lo:.4f} to {rate.hi:.4f}) nats/turn")
        if turns_per_day is not None:
            _say(f"  at {turns_per_day:g} turns a day: monitor.sigma_0 = {rate.value * turns_per_day:.4g}")


def _say(text: str) -> None:
    click.echo(printable(text, 4000))


def _nats(x: dict[str, float]) -> str:
    return f"{x['mean']:.2f} ({x['low']:.2f}-{x['high']:.2f})"


def _percent(x: dict[str, float]) -> str:
    return f"{100 * x['mean']:.0f} % ({100 * x['low']:.0f}-{100 * x['high']:.0f})"


def _figure(x: dict[str, Any] | str, digits: int) -> str:
    """A rate or share with its interval, whose ends may be negative; or why there is none."""
    if isinstance(x, str):
        return x
    return f"{x['mean']:+.{digits}f} ({x['low']:+.{digits}f} to {x['high']:+.{digits}f})"


def _unit(x: dict[str, Any] | str) -> str:
    return "" if isinstance(x, str) else f" {x['unit']}"
