"""The page of a report: one file, no script, nothing fetched. Every value is escaped where it is written."""

from __future__ import annotations

from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from monitor.report import answers, figures, tables, words
from monitor.report.model import ReportData
from monitor.taxonomy import BEHAVIOURS

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load and run: styles of the page itself, nothing else."""


def page(data: ReportData, *, printed: bool = False) -> str:
    """The whole page.

    Parameters
    ----------
    printed : for paper: light, and without the tables behind plots, which page and JSON have.
    """
    return _template().render(data=words.harmless(data), printed=printed)


def _whole_units(value: object) -> object:
    """No line ends between a number and its unit."""
    return value.replace(" %", "\u00a0%").replace(" pp", "\u00a0pp") if type(value) is str else value


@cache
def _template() -> Template:
    made = Environment(
        loader=PackageLoader("monitor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_whole_units,
    )
    made.filters |= {
        f.__name__: f
        for f in (
            words.name, words.behaviour, words.nats, words.nats_change, words.share, words.share_change, words.maybe,
            words.percent, words.probability, words.count, words.minutes, words.clock, words.compared,
        )
    }  # fmt: skip
    made.globals |= {
        "answers": answers,
        "figures": figures,
        "tables": tables,
        "words": words,
        "BEHAVIOURS": BEHAVIOURS,
        "POLICY": POLICY,
    }
    return made.get_template("report.html.j2")
