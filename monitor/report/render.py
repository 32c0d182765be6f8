"""A report in its four forms: the same data and version give the same bytes."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from monitor.errors import ConfigError
from monitor.report.model import SCHEMA, ReportData

Format = Literal["html", "pdf", "md", "json"]
_NEEDS: Final = "needs what is not installed ({}); install it with: pip install 'valuedrift[report]'"


def render(data: ReportData, format: Format) -> bytes:
    """A report as a file; pure.

    Raises
    ------
    ConfigError : html or pdf without the packages or libraries that make them.
    """
    if format == "json":
        return msgspec.json.encode(data, order="deterministic") + b"\n"
    if format == "md":
        from monitor.report import markdown

        return markdown.page(data).encode()
    try:
        from monitor.report import html

        if format == "html":
            return html.page(data).encode()
        from monitor.report.pdf import pdf

        return pdf(html.page(data, printed=True))
    except (ImportError, OSError) as e:  # OSError: WeasyPrint without the Pango library
        raise ConfigError(f"a report as {format} {_NEEDS.format(e)}") from e


def schema() -> dict[str, Any]:
    """The JSON schema of a report (docs/schemas/report.v1.json)."""
    made = msgspec.json.schema(ReportData)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('.', ':').replace('/', ':v')}",
        "title": "A weekly report of value drift",
        "description": "Within version 1 fields may be added, none is taken away or changes its meaning: ignore what "
        "you do not know. Shares are between 0 and 1, S and its changes in nats, rates in nats/day, times RFC 3339 in "
        "UTC. Names and excerpts come from transcripts, so escape them wherever you show them.",
    } | made
