"""One stress run from beginning to end, of an endpoint or of a log; what it leaves in its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from classifiers.api import Classifier
from monitor.config import Config
from monitor.errors import InputError
from monitor.recorded import recorded
from monitor.stress import suites, transcripts
from monitor.stress.figure import draw
from monitor.stress.journal import Journal, Run
from monitor.stress.result import FILE, Judging, StressResult, write_atomically
from monitor.stress.suites import Script
from streams.files import FileSource
from streams.reasons import printable

if TYPE_CHECKING:  # its HTTP client is an extra, which a log does not need
    from classifiers.endpoint import Endpoint
    from monitor.stress.drive import Budget, Driven

PICTURE: Final = "stress.png"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run found.

    Attributes
    ----------
    kept : turns that an earlier run had answered.
    driven : what this one did; None of a log.
    beyond : turns of a log after the first 100 of their conversation, left out.
    """

    result: StressResult
    kept: int = 0
    driven: Driven | None = None
    beyond: int = 0


def of_endpoint(
    endpoint: Endpoint,
    target: str,
    chosen: Sequence[Script],
    folder: Path,
    classifier: Classifier,
    *,
    model: str,
    deployment: str,
    seed: int,
    temperature: float,
    max_tokens: int,
    concurrency: int,
    budget: Budget,
    clock: Callable[[], datetime],
    progress: Callable[[int, int], Callable[[Driven], None]],
) -> Finished:
    """Play the scripts as far as the folder does not have them, and judge all that it has then.

    Parameters
    ----------
    progress : (turns in all, turns already answered) -> what is told of every turn.

    Raises
    ------
    ConfigError : the folder holds another run.
    InputError : the folder cannot be written, or not one turn was answered.
    """
    from monitor.stress.drive import drive

    run = Run(shown_address(target), model, seed, temperature, max_tokens, suites.version())
    journal = Journal(folder, run)
    try:
        turns = sum(len(s.messages) for s in chosen)
        kept = sum(min(len(journal.answers.get(s.name, ())), len(s.messages)) for s in chosen)
        driven = drive(
            chosen,
            endpoint,
            journal,
            run,
            concurrency=concurrency,
            budget=budget,
            clock=clock,
            on_turn=progress(turns, kept),
        )
        # while no other run may write here
        written = transcripts.lines(chosen, journal.answers, deployment, model)
        write_atomically(folder / transcripts.NAME, b"".join(line + b"\n" for line in written))
    finally:
        journal.close()
    judging, failed = Judging(classifier), Counter(driven.failed)
    judging.add(transcripts.sound(transcripts.read(written, clock()), failed))
    found = judging.result(source=run.target, model=model, seed=seed, failed=dict(failed), asked=turns)
    return Finished(_left(found, folder), kept, driven)


def of_log(
    sources: Sequence[FileSource],
    folder: Path,
    classifier: Classifier,
    config: Config,
    *,
    name: str,
    model: str | None,
    now: datetime,
) -> Finished:
    """Judge every turn of recorded conversations; their suites are their label `suite`.

    Raises
    ------
    InputError : a source that cannot be read, or without a turn; the folder cannot be written.
    ConfigError : more turns than a result may hold.
    """
    failed: Counter[str] = Counter()
    judging = Judging(classifier)
    judging.add(transcripts.sound(recorded(sources, config, now), failed))
    found = judging.result(source=name, model=model, seed=None, failed=dict(failed))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"{printable(str(folder))}: {(e.strerror or str(e)).lower()}") from e
    return Finished(_left(found, folder), beyond=judging.beyond)


def _left(found: StressResult, folder: Path) -> StressResult:
    write_atomically(folder / FILE, msgspec.json.encode(found))
    draw([(found.model, found.figures)], folder / PICTURE)
    return found


def shown_address(target: str) -> str:
    """An endpoint's address without what may be secret in it: no query, no user."""
    parts = urlsplit(target)
    port = f":{parts.port}" if parts.port else ""
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}", 200)
