"""The queries of the dashboards, for PostgreSQL and the role valuedrift_reader, with Grafana's macros and variables.

What a viewer chooses gets in through `${name:sqlstring}` alone, is cast to a number, and is never a name: names of
series are written by strangers. Grafana takes a macro's call to end at the next `)`, so its arguments hold none.
"""

from __future__ import annotations

from typing import Final

from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY

SERIES: Final = "nullif(${series:sqlstring}, '')::bigint"
WINDOW: Final = "${window:sqlstring}::int"
SHOWN_SERIES: Final = 200
"""Rows of the fleet's table: those that need attention most."""
DRAWN_SERIES: Final = 8
SHOWN_ROWS: Final = 200
"""Of every other table."""


def _escaped(column: str, separators: str) -> str:
    for character in "%" + separators:
        column = f"replace({column}, '{character}', '%{ord(character):02X}')"
    return column


_TAIL: Final = (
    f"(SELECT '{{' || string_agg({_escaped('l ->> 0', ',=}')} || '=' || {_escaped('l ->> 1', ',=}')}, ',' ORDER BY i)"
    " || '}' FROM json_array_elements(x.labels::json) WITH ORDINALITY AS e (l, i))"
)
NAMES: Final = (
    f"SELECT x.id, {_escaped('x.deployment', '/')} || '/' || {_escaped('x.model', '{')} || coalesce({_TAIL}, '')"
    " AS name FROM series x"
)
"""Series by number and name, as monitor.engine.SeriesKey writes it."""


def name_of(column: str) -> str:
    """A scalar query for the name of the series with this number."""
    return f"(SELECT n.name FROM ({NAMES}) n WHERE n.id = {column})"


def reading(name: str, end: int = 0) -> str:
    """A figure of a row of `readings`: its mean (0), lower (1) or upper end (2)."""
    return f"(r.\"values\" -> '{name}' ->> {end})::float8"


# Annotations and the reasons of alerts hold values that strangers wrote, and are shown as markup.
def _inert(column: str) -> str:
    return f"replace(replace(replace({column}, '&', '&amp;'), '<', '&lt;'), '>', '&gt;')"


# --- variables

SERIES_VARIABLE: Final = f"SELECT n.name AS __text, n.id::text AS __value FROM ({NAMES}) n ORDER BY 1"

# --- the fleet

_FIRING: Final = (
    "SELECT a.series_id, count(*) AS firing, count(*) FILTER (WHERE a.severity = 'page') AS pages"
    " FROM alerts a WHERE a.firing AND a.series_id IS NOT NULL GROUP BY 1"
)
_ATTENTION: Final = f"""
    SELECT r.series_id, r.t, r."values", coalesce(f.firing, 0) AS firing, coalesce(f.pages, 0) AS pages
    FROM readings r LEFT JOIN ({_FIRING}) f ON f.series_id = r.series_id
    WHERE r.series_id > 0
    ORDER BY pages DESC, firing DESC, {reading("evidence")} DESC NULLS LAST, {reading("misaligned")} DESC NULLS LAST,
        {reading("entropy")} DESC NULLS LAST, r.series_id"""

FLEET: Final = f"""
SELECT r.series_id AS id, {name_of("r.series_id")} AS series, r.pages, r.firing,
    {reading("entropy")} AS s, {reading("entropy")} - y.s AS change, {reading("misaligned")} AS misaligned,
    {reading("entropy_rate")} AS rate, {reading("evidence")} AS evidence, {reading("kl")} AS kl,
    {reading("turns_24h")} AS turns, r.t AS as_of
FROM ({_ATTENTION}
    LIMIT {SHOWN_SERIES}) r
LEFT JOIN LATERAL (
    SELECT p.s FROM points p
    WHERE p.series_id = r.series_id AND p.window_minutes = {MINUTES_PER_DAY}
        AND p.t > r.t - interval '26 h' AND p.t <= r.t - interval '24 h'
    ORDER BY p.t DESC LIMIT 1
) y ON true
ORDER BY r.pages DESC, r.firing DESC, evidence DESC NULLS LAST, misaligned DESC NULLS LAST, s DESC NULLS LAST, id"""

FLEET_COUNTS: Final = f"""
SELECT count(*) AS "series", count(*) FILTER (WHERE {reading("kl")} IS NOT NULL) AS "with a baseline",
    (SELECT count(*) FROM alerts a WHERE a.firing) AS "alerts firing",
    (SELECT count(*) FROM alerts a WHERE a.firing AND a.severity = 'page') AS "of them pages",
    coalesce(sum({reading("turns_24h")}), 0) AS "turns in 24 h"
FROM readings r WHERE r.series_id > 0"""

FLEET_ENTROPY: Final = f"""
SELECT q."time", {name_of("r.series_id")} AS metric, q.s AS value
FROM ({_ATTENTION}
    LIMIT {DRAWN_SERIES}) r
CROSS JOIN LATERAL (
    SELECT $__timeGroup(p.t, $__interval) AS "time", avg(p.s) AS s FROM points p
    WHERE p.series_id = r.series_id AND p.window_minutes = {MINUTES_PER_DAY} AND $__timeFilter(p.t)
    GROUP BY 1
) q
ORDER BY 1, 2"""

_ALERT_COLUMNS: Final = f"""
SELECT a.raised_at, CASE WHEN a.firing THEN 'firing' ELSE 'resolved' END AS state, a.rule,
    coalesce({name_of("a.series_id")}, 'the monitor') AS series, a.series_id AS id, a.severity, a.onset, a.resolved_at,
    a.acknowledged_by, a.reason
FROM alerts a"""
ALERTS: Final = f"""{_ALERT_COLUMNS}
WHERE (a.firing OR $__timeFilter(a.raised_at)) AND a.rule <> 'watchdog'
ORDER BY a.firing DESC, a.raised_at DESC LIMIT {SHOWN_ROWS}"""

# --- one series

_POINTS: Final = f"FROM points p WHERE p.series_id = {SERIES} AND p.window_minutes = {WINDOW} AND $__timeFilter(p.t)"


def _trajectory(columns: str) -> str:
    return f'\nSELECT $__timeGroup(p.t, $__interval) AS "time", {columns}\n{_POINTS}\nGROUP BY 1 ORDER BY 1'


ENTROPY: Final = _trajectory('avg(p.s) AS "S", min(p.s_lo) AS "S low", max(p.s_hi) AS "S high"')
MISALIGNED: Final = _trajectory(
    'avg(p.misaligned) AS "misaligned", min(p.misaligned_lo) AS "misaligned low",'
    ' max(p.misaligned_hi) AS "misaligned high"'
)
COMPOSITION: Final = _trajectory(", ".join(f'avg(p.p_{b}) AS "{b}"' for b in (*BEHAVIOURS[1:], BEHAVIOURS[0])))
RATE: Final = _trajectory(
    'avg(p.ds_dt) AS "dS/dt", min(p.ds_dt - 1.645 * p.ds_dt_se) AS "dS/dt low",'
    ' max(p.ds_dt + 1.645 * p.ds_dt_se) AS "dS/dt high"'
)
# a logarithmic axis has no place for 0
EVIDENCE: Final = _trajectory('greatest(max(p.evidence), 1e-6) AS "evidence", 1.0::float8 AS "alarm"')
TURNS: Final = _trajectory('max(p.n)::float8 AS "turns", max(p.effective_n) AS "effective turns"')

BASELINE: Final = f"""
SELECT e.at AS "time", w.s AS "baseline", w.s_lo AS "baseline low", w.s_hi AS "baseline high"
FROM baselines b
CROSS JOIN LATERAL (
    SELECT p.s, p.s_lo, p.s_hi FROM points p
    WHERE p.series_id = b.series_id AND p.t >= b.frozen_at AND p.t < b.frozen_at + interval '26 h'
    ORDER BY p.t, p.window_minutes <= 1.1 * extract(epoch FROM b.last_ts - b.first_ts) / 60 DESC,
        p.window_minutes * CASE
            WHEN p.window_minutes <= 1.1 * extract(epoch FROM b.last_ts - b.first_ts) / 60 THEN -1 ELSE 1 END
    LIMIT 1
) w
CROSS JOIN LATERAL (VALUES
    (greatest(b.frozen_at, $__timeFrom()::timestamptz)),
    (least(coalesce(b.replaced_at, $__timeTo()::timestamptz), $__timeTo()::timestamptz))
) e (at)
WHERE b.series_id = {SERIES} AND b.frozen_at < $__timeTo()::timestamptz
    AND coalesce(b.replaced_at, $__timeTo()::timestamptz) > $__timeFrom()::timestamptz
ORDER BY 1"""
"""A level over its time in force: that of the first window that knows of it and is no longer than its learning."""

SERIES_NOW: Final = f"""
SELECT {reading("entropy")} AS "S", {reading("misaligned")} AS "misaligned", {reading("entropy_rate")} AS "dS/dt",
    {reading("evidence")} AS "evidence", {reading("kl")} AS "distance from baseline",
    (SELECT count(*) FROM alerts a WHERE a.series_id = r.series_id AND a.firing) AS "alerts firing"
FROM readings r WHERE r.series_id = {SERIES}"""

WORK: Final = f"""
SELECT w.label AS figure, w.unit, (v.value ->> 0)::float8 AS mean, (v.value ->> 1)::float8 AS low,
    (v.value ->> 2)::float8 AS high, r.t AS as_of
FROM readings r
CROSS JOIN LATERAL json_each(r."values") v
JOIN (VALUES ('depth', 1, 'depth L / ln N', ''), ('gamma_eff', 2, 'alignment work gamma_eff', '1/day'),
    ('margin', 3, 'stability margin', 'gamma_eff / gamma_crit'), ('kappa', 4, 'restoring rate kappa', '1/day'),
    ('half_life', 5, 'half-life of a disturbance', 'days'), ('doubt', 6, 'classifier''s doubt', ''),
    ('judge_disagreement', 7, 'judge and classifier differ', 'share'),
    ('context_support', 8, 'support by the given context', '')
) w (name, place, label, unit) ON w.name = v.key
WHERE r.series_id = {SERIES} ORDER BY w.place"""

SERIES_ALERTS: Final = f"""{_ALERT_COLUMNS}
WHERE a.series_id = {SERIES} AND (a.firing OR $__timeFilter(a.raised_at))
ORDER BY a.firing DESC, a.raised_at DESC LIMIT {SHOWN_ROWS}"""

BASELINES: Final = f"""
SELECT b.frozen_at, b.replaced_at, b.origin, b.n AS turns, b.first_ts, b.last_ts, b.reason, b.warning
FROM baselines b WHERE b.series_id = {SERIES} ORDER BY b.frozen_at DESC LIMIT {SHOWN_ROWS}"""

ALERT_MARKS: Final = f"""
SELECT a.raised_at AS "time", coalesce(a.resolved_at, a.raised_at) AS timeend,
    {_inert("a.rule || ': ' || a.reason")} AS text, 'alert,' || coalesce(a.severity, 'ticket') AS tags
FROM alerts a WHERE a.series_id = {SERIES} AND $__timeFilter(a.raised_at) ORDER BY 1 LIMIT {SHOWN_ROWS}"""
_NEW_BASELINE: Final = "'baseline ' || b.origin || coalesce(': ' || nullif(b.reason, ''), '')"
BASELINE_MARKS: Final = f"""
SELECT b.frozen_at AS "time", {_inert(_NEW_BASELINE)} AS text, 'baseline' AS tags
FROM baselines b WHERE b.series_id = {SERIES} AND $__timeFilter(b.frozen_at) ORDER BY 1 LIMIT {SHOWN_ROWS}"""

# --- the monitor

SOURCES: Final = f"""
SELECT o.source, o.events, o.judged, o.turns, o.duplicates, o.dead_letters,
    o.dead_letters::float8 / greatest(o.events, 1) AS dead_share, o.newest_ts,
    extract(epoch FROM max(o.newest_ts) OVER () - o.newest_ts)::float8 AS behind
FROM offsets o ORDER BY behind DESC NULLS LAST, o.source LIMIT {SHOWN_ROWS}"""

HEALTH: Final = """
SELECT extract(epoch FROM now() - max(o.newest_ts))::float8 AS "newest event, age",
    (SELECT extract(epoch FROM now() - max(r.t))::float8 FROM readings r) AS "newest point, age",
    sum(o.dead_letters)::float8 / greatest(sum(o.events), 1)::float8 AS "dead letters",
    extract(epoch FROM max(o.newest_ts) - min(o.newest_ts))::float8 AS "lag, furthest behind",
    sum(o.turns)::float8 AS "turns"
FROM offsets o"""

_WAITING: Final = "b.due_at IS NOT NULL AND b.revision > b.sent_revision"
OUTBOX_NOW: Final = f"""
SELECT count(*) AS "undelivered", coalesce(max(b.attempts), 0) AS "most attempts",
    extract(epoch FROM now() - min(coalesce(b.sent_at, b.created_at)))::float8 AS "oldest undelivered, age"
FROM outbox b WHERE {_WAITING}"""

OUTBOX: Final = f"""
SELECT b.target, count(*) FILTER (WHERE {_WAITING}) AS undelivered,
    extract(epoch FROM now() - min(coalesce(b.sent_at, b.created_at)) FILTER (WHERE {_WAITING}))::float8 AS oldest,
    max(b.attempts) FILTER (WHERE {_WAITING}) AS attempts, max(b.sent_at) AS last_sent,
    max(b.last_error) FILTER (WHERE {_WAITING}) AS last_error
FROM outbox b GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {SHOWN_ROWS}"""

DECISIONS: Final = f"""
SELECT e.at, e.kind, e.rule, coalesce({name_of("e.series_id")}, 'the monitor') AS series, e.target, e.reason, e.text
FROM alert_events e WHERE $__timeFilter(e.at) ORDER BY e.at DESC, e.id DESC LIMIT {SHOWN_ROWS}"""

DECISION_COUNTS: Final = """
SELECT $__timeGroup(e.at, $__interval) AS "time", e.kind AS metric, count(*)::float8 AS value
FROM alert_events e WHERE $__timeFilter(e.at) GROUP BY 1, 2 ORDER BY 1, 2"""

DEAD_LETTERS: Final = f"""
SELECT d.seen_at, o.source, d.line, d.kind, d.reason
FROM offsets o CROSS JOIN LATERAL (
    SELECT * FROM dead_letters x WHERE x.offset_id = o.id ORDER BY x.line DESC LIMIT 20
) d
ORDER BY d.seen_at DESC LIMIT {SHOWN_ROWS}"""

STATES: Final = f"""
SELECT s.changed_at, s.state, s.rule, coalesce({name_of("s.series_id")}, 'the monitor') AS series
FROM alert_states s WHERE s.state <> 'inactive' AND s.rule <> 'watchdog'
ORDER BY s.changed_at DESC LIMIT {SHOWN_ROWS}"""
