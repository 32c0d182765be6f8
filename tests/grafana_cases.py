"""What Grafana does with a query before PostgreSQL sees it, and the queries of the dashboards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from alerts.grafana.dashboards import dashboards

_VARIABLE = re.compile(r"\$\{(\w+):sqlstring\}")
_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
"""As Grafana's engine of macros finds them."""


def sqlstring(value: str) -> str:
    """Grafana's format of that name: a literal of SQL."""
    return "'" + value.replace("'", "''").replace('"', '\\"') + "'"


def expand(sql: str, start: datetime, end: datetime, *, interval: str = "1h", **variables: str) -> str:
    """A query as it reaches PostgreSQL: variables, then macros (Grafana's documentation of its PostgreSQL data source).

    Raises KeyError on a variable or macro that there is none of, ValueError on what would reach PostgreSQL as it is.
    """
    values: Mapping[str, str] = variables
    sql = _VARIABLE.sub(lambda m: sqlstring(values[m[1]]), sql)
    sql = re.sub(r"\$__interval(?!_ms)\b", interval, sql)
    out = _MACRO.sub(lambda m: _macro(m[1], [a.strip() for a in m[2].split(",")], start, end), sql)
    if not values and ("${" in out or "[[" in out or re.search(r"\$[a-zA-Z_]", out)):
        raise ValueError(f"left as it is: {out}")
    return out


def _macro(name: str, arguments: list[str], start: datetime, end: datetime) -> str:
    first, last = (f"'{t.astimezone(UTC).isoformat().replace('+00:00', 'Z')}'" for t in (start, end))
    if name == "__timeFilter":
        return f"{arguments[0]} BETWEEN {first} AND {last}"
    if name == "__timeFrom":
        return first
    if name == "__timeTo":
        return last
    if name == "__timeGroup":
        number, unit = re.fullmatch(r"'?(\d+)([smhd])'?", arguments[1]).groups()  # type: ignore[union-attr]
        seconds = int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
        return f"floor(extract(epoch from {arguments[0]})/{seconds})*{seconds}"
    raise KeyError(name)


def queries() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every target of every panel: a name for it, the panel and the target."""
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{dashboard['uid']}: {panel['title']} {target['refId']}", panel, target


def other_queries() -> Iterator[tuple[str, str]]:
    """Of variables and annotations."""
    for dashboard in dashboards():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{dashboard['uid']}: variable {variable['name']}", variable["query"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{dashboard['uid']}: annotation {annotation['name']}", annotation["rawQuery"]
