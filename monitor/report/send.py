"""Sending a report: by e-mail with its files attached, to a webhook as JSON.

Sent again, it is the same message: its id and its key follow from what it is of. Excerpts of turns leave this machine
only for targets that are set to have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Engine

from alerts.targets.base import Outcome
from alerts.targets.document import Carrier, Document, File
from alerts.targets.settings import Email, Webhook, build
from alerts.targets.text import LONGEST_LINE
from monitor.config import Config
from monitor.errors import ConfigError
from monitor.report import archive
from monitor.report.model import ReportData
from monitor.report.render import Format, render
from streams.reasons import printable

_KINDS: Final[dict[Format, str]] = {
    "html": "text/html",
    "pdf": "application/pdf",
    "md": "text/markdown",
    "json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Receiver:
    """A target by its name, and whether it may have excerpts."""

    name: str
    carrier: Carrier
    excerpts: bool


def receivers(config: Config, environment: Mapping[str, str]) -> list[Receiver]:
    """The targets that reports go to.

    Raises
    ------
    ConfigError : report.targets is empty or names one that is not there or cannot carry a report; or as
        alerts.targets.settings.build.
    """
    found = []
    for name in config.report.targets:
        settings = config.alerts.targets.get(name)
        if settings is None:
            raise ConfigError(f"report.targets names {name!r}, but there is no [alerts.targets.{name}]")
        if not isinstance(settings, Email | Webhook):
            raise ConfigError(f"report.targets names {name!r}, which cannot carry a report: only email and webhook can")
        found.append(Receiver(name, cast(Carrier, build(name, settings, environment)), settings.excerpts))
    if not found:
        raise ConfigError('there is nobody to send to: set report.targets = ["NAME"] of [alerts.targets.NAME]')
    return found


def send_report(
    engine: Engine,
    key: archive.Key,
    data: ReportData,
    formats: Sequence[Format],
    to: Sequence[Receiver],
    at: datetime,
    *,
    anew: bool = False,
) -> dict[str, Outcome]:
    """Send a report to those that it has not reached; returns why it did not reach others, by target.

    Parameters
    ----------
    data : with excerpts.
    at : the clock, for the note of whom a kept report has reached.
    anew : to those it has reached, too.
    """
    reached = {} if anew else archive.sent(engine, key)
    forms: dict[bool, Document] = {}
    failed = {}
    for receiver in to:
        if receiver.name in reached:
            continue
        if receiver.excerpts not in forms:
            forms[receiver.excerpts] = document(
                key, data if receiver.excerpts else archive.without_texts(data), formats
            )
        outcome = receiver.carrier.send_document(forms[receiver.excerpts])
        if outcome.result == "delivered":
            archive.note_sent(engine, key, receiver.name, at)
        else:
            failed[receiver.name] = outcome
    return failed


def document(key: archive.Key, data: ReportData, formats: Sequence[Format]) -> Document:
    """A report as something to send. Deterministic."""
    files = tuple(File(f"valuedrift-{data.week}.{f}", _KINDS[f], render(data, f)) for f in formats)
    title = f"valuedrift {data.week}: {data.fleet.drifting} of {data.fleet.series} series drifted"
    lines = (data.fleet.headline, data.fleet.discoveries, "The report is attached.")
    text = "\n\n".join(printable(x, LONGEST_LINE) for x in lines) + "\n"
    name = f"report-{key.week}-{key.compare}" + (f"-{key.scope}" if key.scope else "")
    return Document(name, title, text, files, render(data, "json"))
