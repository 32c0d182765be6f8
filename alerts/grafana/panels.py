"""Parts of a dashboard as Grafana's JSON: queries, panels of the kinds used here, variables, a grid without overlaps.

Plain values: Grafana's own builder library, grafana-foundation-sdk, numbers its releases by time of build and Grafana's
version, so that the newest one an installer finds is that of an old Grafana.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from monitor.plot import COLOURS, LINE

Json = dict[str, Any]

DATASOURCE_TYPE: Final = "grafana-postgresql-datasource"
DATASOURCE_UID: Final = "valuedrift-postgresql"
SOURCE: Final[Json] = {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID}
BAND_OPACITY: Final = 18
ALARM_COLOUR: Final = COLOURS["harmful_compliance"]
COLUMNS: Final = 24
"""Width of a dashboard in units of its grid."""
LONGEST_GAP_MS: Final = 30 * 3600 * 1000
"""A line across a longer silence would be an invention (monitor.plot.stretches)."""
SCHEMA_VERSION: Final = 41
"""Of Grafana 12; newer ones bring it up to theirs when they read it."""
POINT_EVERY: Final = "1h"
"""Points are an hour apart: no finer steps are asked for."""


def target(sql: str, *, ref: str = "A", table: bool = False) -> Json:
    """A query as written, answered as a table or by time."""
    return {
        "refId": ref,
        "datasource": SOURCE,
        "editorMode": "code",
        "format": "table" if table else "time_series",
        "rawQuery": True,
        "rawSql": sql.strip(),
    }


def override(name: str, **properties: Any) -> Json:
    """Properties of the field of this name; `__` in a property stands for a full stop."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": k.replace("__", "."), "value": v} for k, v in properties.items()],
    }


def hidden(name: str) -> Json:
    """A column for links alone."""
    return override(name, custom__hidden=True, custom__hideFrom__viz=True)  # of Grafana to 12.1, and after


def fixed(colour: str) -> Json:
    return {"mode": "fixed", "fixedColor": colour}


UNBROKEN: Final[Json] = {"custom__spanNulls": True, "custom__insertNulls": False}
"""A level between two points, however far apart."""


def band(low: str, high: str, colour: str, **more: Any) -> list[Json]:
    """Two lines that are only the edges of what lies between them."""
    edge: Json = {
        "custom__lineWidth": 0,
        "color": fixed(colour),
        "custom__hideFrom": {"legend": True, "tooltip": False, "viz": False},
        **more,
    }
    return [
        override(low, **edge, custom__fillOpacity=0),
        override(high, **edge, custom__fillBelowTo=low, custom__fillOpacity=BAND_OPACITY),
    ]


def line(name: str, colour: str, *, dashed: bool = False, **more: Any) -> Json:
    style: Json = {"custom__lineStyle": {"fill": "dash", "dash": [8, 6]}} if dashed else {}
    return override(name, color=fixed(colour), **style, **more)


def by_time(
    title: str,
    description: str,
    targets: Sequence[Json],
    overrides: Iterable[Json] = (),
    *,
    unit: str = "short",
    limits: tuple[float | None, float | None] = (None, None),
    stacked: bool = False,
    logarithmic: bool = False,
) -> Json:
    """Lines over time; a silence longer than a window stays a gap."""
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 0 if stacked else 2,
        "fillOpacity": 100 if stacked else 0,
        "showPoints": "auto",
        "spanNulls": LONGEST_GAP_MS,
        "insertNulls": LONGEST_GAP_MS,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
    }
    low, high = limits
    defaults: Json = {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom}
    defaults |= {} if low is None else {"min": low}
    defaults |= {} if high is None else {"max": high}
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "interval": POINT_EVERY,
        "targets": list(targets),
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
    }


def table(title: str, description: str, sql: str, overrides: Iterable[Json] = ()) -> Json:
    """Rows in the order of the query; what strangers wrote is shown as text."""
    return {
        "type": "table",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": [target(sql, table=True)],
        "fieldConfig": {
            "defaults": {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}},
            "overrides": list(overrides),
        },
        "options": {"showHeader": True, "cellHeight": "sm"},
    }


def figures(title: str, description: str, sql: str, overrides: Iterable[Json] = ()) -> Json:
    """The columns of one row, side by side."""
    return {
        "type": "stat",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": [target(sql, table=True)],
        "fieldConfig": {
            "defaults": {"unit": "short", "noValue": "not known", "color": fixed(LINE)},
            "overrides": list(overrides),
        },
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value_and_name",
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
        },
    }


def alarming(name: str, steps: Sequence[tuple[float | None, str]], **properties: Any) -> Json:
    """A field that takes the colour of the highest step it has reached."""
    thresholds = {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in steps]}
    return override(name, thresholds=thresholds, color={"mode": "thresholds"}, **properties)


def query_variable(name: str, label: str, sql: str) -> Json:
    """One value of a query's, chosen by its text; read again whenever the dashboard is opened."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": sql.strip(),
        "definition": sql.strip(),
        "refresh": 1,
        "sort": 0,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": [],
        "current": {},
        "regex": "",
        "skipUrlSync": False,
    }


def custom_variable(name: str, label: str, values: Mapping[str, str], chosen: str) -> Json:
    """One of these values (text -> value)."""
    options = [{"text": t, "value": v, "selected": t == chosen} for t, v in values.items()]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ", ".join(f"{t} : {v}" for t, v in values.items()),
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": options,
        "current": {"text": chosen, "value": values[chosen], "selected": True},
        "skipUrlSync": False,
    }


def marks(name: str, sql: str, colour: str) -> Json:
    """Annotations that the dashboard asks the database for itself."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "rawQuery": sql.strip(),
        "target": target(sql, ref="Anno", table=True),
        "mappings": {},
    }


def grid(rows: Sequence[tuple[int, Sequence[tuple[int, Json]]]]) -> list[Json]:
    """Panels with their places and numbers.

    Parameters
    ----------
    rows : from top to bottom (height, panels from left to right as (width, panel)).

    Raises
    ------
    ValueError : a row is wider than a dashboard.
    """
    out: list[Json] = []
    y = 0
    for height, panels in rows:
        x = 0
        for width, panel in panels:
            out.append({"id": len(out) + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}} | panel)
            x += width
        if x > COLUMNS:
            raise ValueError(f"a row of width {x}")
        y += height
    return out


def dashboard(
    uid: str,
    title: str,
    rows: Sequence[tuple[int, Sequence[tuple[int, Json]]]],
    variables: Sequence[Json] = (),
    annotations: Sequence[Json] = (),
    *,
    span: str,
) -> Json:
    """A whole one, of rows as `grid` takes them; `span` is where the time shown begins."""
    return {
        "uid": uid,
        "title": title,
        "description": "Written by `valuedrift grafana`; changes made here are lost when it is run again.",
        "tags": ["valuedrift"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "1m",
        "time": {"from": span, "to": "now"},
        "links": [
            {
                "title": "valuedrift",
                "type": "dashboards",
                "tags": ["valuedrift"],
                "asDropdown": True,
                "includeVars": False,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "annotations": {"list": list(annotations)},
        "templating": {"list": list(variables)},
        "panels": grid(rows),
    }
