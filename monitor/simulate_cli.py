"""`valuedrift simulate`: the second law as a table, a picture and files of its figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from monitor import options
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from monitor.second_law_trials import Runs, Setup

OUT: Final = Path("valuedrift-simulate")


@click.command()
@click.option("--preset", type=click.Choice(["paper"]), help="The abstract of arXiv 2511.10704, beside our figures.")
@click.option("--trials", type=int, help="[20]")
@click.option("--gammas", type=int, help="Work rates from 0 to twice gamma_crit, or more [200].")
@click.option("--steps", type=int, help="How often S is looked at in a trial; it brings no error [10000].")
@click.option("--goals", type=int, help="Goals, the intended one among them [5].")
@click.option("--lambda-max", type=float, help="Twice the rate at which unheld logits relax, 1/time [1.2].")
@click.option("--noise", type=float, help="D, nats^2/time [0.1].")
@click.option("--start-entropy", type=float, help="S at the start, nats [0.32].")
@click.option("--relaxations", type=float, help="Length of a trial in relaxation times 2/lambda_max [10].")
@click.option("--boundary-n", type=float, help="N of gamma_crit = (lambda_max/2) ln N [the number of goals].")
@click.option("--seed", type=int, help="Of everything drawn [0].")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUT,
    show_default=True,
    help="Folder to write to.",
)
@click.option(
    "--format", "picture", type=click.Choice(["png", "svg", "pdf"]), default="png", help="Of the picture [png]."
)
@options.json_object
def simulate(preset: str | None, out: Path, picture: str, as_json: bool, **given: float | None) -> None:
    """Simulate how goals drift without alignment work, and how much work holds them (docs/theory.md).

    Prints a table and writes DIR/simulate.json, boundary.csv, fans.csv and a picture, over those of a former run.
    """
    from monitor.second_law_figures import PAPER, beside_abstract, boundary_rows, fan_rows, values
    from monitor.second_law_plot import draw
    from monitor.second_law_trials import Setup, run

    base = Setup() if preset is None else PAPER
    try:
        setup = replace(base, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    except ValueError as e:
        raise ConfigError(f"simulate: {e}") from e
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"--out {out}: {e.strerror}") from e
    with _bar() as bar:
        task = bar.add_task("simulating", total=1.0)
        runs = run(setup, lambda share: bar.update(task, completed=share))
    found = values(runs)
    found["paper"] = None if preset is None else beside_abstract(runs)
    files = [out / name for name in ("simulate.json", "boundary.csv", "fans.csv", f"simulate.{picture}")]
    found["files"] = [str(f) for f in files]
    encoded = msgspec.json.encode(found)
    try:
        files[0].write_bytes(msgspec.json.format(encoded) + b"\n")
        _write(files[1], boundary_rows(runs))
        _write(files[2], fan_rows(runs))
        draw(runs, files[3])
    except OSError as e:
        raise ConfigError(f"--out {out}: {e.strerror}") from e
    if as_json:
        click.echo(encoded)
        return
    _show(found, setup, runs)
    if found["paper"] is not None:
        _show_paper(found["paper"])
    click.echo(f"files: {', '.join(found['files'])}")


def _bar() -> Progress:
    """Progress on a terminal; nothing when piped."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)


def _write(path: Path, rows: Iterable[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as f:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(f, list(row))
                writer.writeheader()
            writer.writerow(row)


def _show(found: dict[str, Any], setup: Setup, runs: Runs) -> None:
    n = f"{setup.goals} goals" if setup.boundary_n is None else f"{setup.boundary_n:g}"
    click.echo(
        f"{setup.goals} goals, lambda_max {setup.lambda_max:g} (r = {setup.r:g}), D {setup.noise:g}, "
        f"{setup.trials:,} trials of {setup.relaxations:g} relaxation times in {setup.steps:,} steps, seed {setup.seed}"
    )
    click.echo(f"gamma_crit = (lambda_max/2) ln N = {setup.boundary:.4g} for N = {n}\n")
    click.echo(
        f"{'gamma':>9} {'/ gamma_crit':>12} {'S at the end':>15} {'misaligned':>11} "
        f"{'logit gap, simulated':>21} {'closed form':>12} {'odds at rest':>13}"
    )
    for w in found["works"]:
        s, gap = f"{w['S']:.2f} +/- {w['S_deviation']:.2f}", f"{w['gap']:.2f} +/- {w['gap_error']:.2f}"
        click.echo(
            f"{w['gamma']:>9.4g} {w['in_gamma_crit']:>12.2f} {s:>15} {_percent(w['misaligned']):>11} "
            f"{gap:>21} {w['gap_expected']:>12.2f} {w['odds']:>13.2g}"
        )
    held = runs.held_from
    click.echo(
        f"\nS starts at {setup.start_entropy:g} nats and is at most ln {setup.goals} = {math.log(setup.goals):.3f}. "
        "+/- is the deviation over trials of S, the standard error of the gap; all work rates are given the same noise."
    )
    click.echo(
        f"No work rate up to {runs.gammas[-1]:.3g} holds S at 0.00 in every trial."
        if held is None
        else f"Every trial ends with S = 0.00 from gamma = {held:.3g} on ({held / setup.boundary:.2g} gamma_crit)."
    )


def _show_paper(paper: dict[str, Any]) -> None:
    click.echo(f"\n{'':<36} {'abstract of arXiv 2511.10704':<30} here")
    for what, theirs, ours in paper["rows"]:
        click.echo(f"{what:<36} {theirs:<30} {ours}")
    click.echo("")
    for note in paper["notes"]:
        click.echo(f"- {note}")
    click.echo("")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.1g} %"
