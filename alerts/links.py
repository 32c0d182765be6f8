"""Addresses made of templates that a person set and names that come from outside."""

from __future__ import annotations

from string import Formatter
from typing import Final
from urllib.parse import quote, urlsplit

from monitor.errors import ConfigError

DASHBOARD_NAMES: Final = ("series", "deployment", "model", "rule", "alert")
RUNBOOK_NAMES: Final = ("rule",)
RUNBOOK: Final = "docs/runbooks/{rule}.md"
"""Where no template is set: the page in the project's documentation."""


def check_template(key: str, template: str, names: tuple[str, ...]) -> None:
    """Raises ConfigError on a template that is no address, or names what is not known.

    >>> check_template("alerts.dashboard_url", "https://grafana.example/d/series?var-series={series}", ("series",))
    """
    try:
        used = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template)]
    except ValueError as e:
        raise ConfigError(f"{key}: {e}; a brace of its own is written twice") from e
    for name, spec, conversion in used:
        if name is not None and (name not in names or spec or conversion):
            known = ", ".join(f"{{{n}}}" for n in names)
            raise ConfigError(f"{key}: {{{name}}} is not known here; it may hold {known}")
    try:
        parts = urlsplit(fill(template, **dict.fromkeys(names, "x")))
        whole = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        whole = False
    if template and not whole:
        raise ConfigError(
            f"{key} must be an address such as https://grafana.example.com/d/series?var-series={{series}}"
        )


def fill(template: str, **names: str) -> str:
    """A checked template with names in their places, quoted so that none ends a part of the address.

    >>> fill("https://g.example/d?var-series={series}", series="shop/m-1&x=<b>")
    'https://g.example/d?var-series=shop%2Fm-1%26x%3D%3Cb%3E'
    """
    return template.format_map({k: quote(v, safe="", errors="replace") for k, v in names.items()})
