"""Sums by label value, read by PostgreSQL itself: their MessagePack (monitor.label_sums) taken apart in a query.

A row is walked token by token. Layout: [total, {label: {value or nil: sums}}]; a string before a map is a label, one
before an array its value.
"""

from __future__ import annotations

from typing import Final

from alerts.grafana.sql import SERIES, SHOWN_ROWS
from monitor.buckets import Q_UNIT

READ_BYTES: Final = 12_000_000
"""Of the sums in the range, the newest ones: strangers decide how many values an hour has."""
_N: Final = 0
_WEIGHT: Final = 1
_WEIGHTED_Q: Final = 4
"""Places of turns, of their weight and of the weighted probability of the first behaviour, aligned, among the sums."""

_SIZE: Final = """CASE
        WHEN h < 160 OR h IN (192, 193, 194, 195) OR h >= 224 THEN 1
        WHEN h < 192 THEN 1 + (h & 31)
        WHEN h IN (204, 208) THEN 2
        WHEN h IN (205, 209, 220, 222) THEN 3
        WHEN h IN (206, 210, 221, 223) THEN 5
        WHEN h IN (207, 211) THEN 9
        WHEN h = 217 THEN 2 + get_byte(hour.s, t.at + 1)
        WHEN h = 218 THEN 3 + 256 * get_byte(hour.s, t.at + 1) + get_byte(hour.s, t.at + 2)
    END"""
"""Bytes of the token that begins with h; of a map or an array its head alone. Unknown: none, and the walk ends."""
_KIND: Final = """CASE
        WHEN h < 128 OR h BETWEEN 204 AND 211 OR h >= 224 THEN 'number'
        WHEN h < 144 OR h IN (222, 223) THEN 'map'
        WHEN h < 160 OR h IN (220, 221) THEN 'array'
        ELSE 'name'
    END"""
_TEXT: Final = """CASE
        WHEN h BETWEEN 160 AND 191 THEN convert_from(substr(hour.s, t.at + 2, h & 31), 'UTF8')
        WHEN h = 217 THEN convert_from(substr(hour.s, t.at + 3, get_byte(hour.s, t.at + 1)), 'UTF8')
        WHEN h = 218 THEN convert_from(substr(hour.s, t.at + 4, k.size - 3), 'UTF8')
    END"""
"""A name; none for nil, which stands for all values without a sum of their own."""
_NUMBER: Final = """CASE
        WHEN h < 128 THEN h
        ELSE ('x' || lpad(encode(substr(hour.s, t.at + 2, size - 1), 'hex'), 16, '0'))::bit(64)::bigint
    END"""
"""Sums are never negative."""

LABELS: Final = f"""
WITH hour AS MATERIALIZED (
    SELECT x.s FROM (
        SELECT l.sums || ''::bytea AS s, sum(length(l.sums)) OVER (ORDER BY l.minute DESC, l.shard) AS bytes
        FROM label_sums l
        WHERE l.series_id = {SERIES}
            AND l.minute >= floor(extract(epoch FROM $__timeFrom()::timestamptz) / 60)
            AND l.minute < ceil(extract(epoch FROM $__timeTo()::timestamptz) / 60)
    ) x WHERE x.bytes <= {READ_BYTES}
), summed AS (
    SELECT k.label, k.value,
        sum(k.number) FILTER (WHERE k.place = {_N}) AS turns,
        sum(k.number) FILTER (WHERE k.place = {_WEIGHT}) AS weight,
        sum(k.number) FILTER (WHERE k.place = {_WEIGHTED_Q}) AS aligned
    FROM hour CROSS JOIN LATERAL (
        WITH RECURSIVE token AS (
            SELECT 1 AS at, NULL::text AS name, NULL::text AS label, NULL::text AS value, 0 AS place,
                NULL::bigint AS number
            UNION ALL
            SELECT t.at + k.size,
                CASE k.kind WHEN 'name' THEN ({_TEXT}) COLLATE "default" ELSE t.name END,
                CASE k.kind WHEN 'map' THEN t.name ELSE t.label END,
                CASE k.kind WHEN 'array' THEN t.name ELSE t.value END,
                CASE k.kind WHEN 'array' THEN -1 ELSE t.place + 1 END,
                CASE WHEN k.kind = 'number' AND t.label IS NOT NULL AND t.place < {_WEIGHTED_Q} THEN {_NUMBER} END
            FROM token t
            CROSS JOIN LATERAL (SELECT get_byte(hour.s, t.at) AS h WHERE t.at < length(hour.s)) b
            CROSS JOIN LATERAL (SELECT {_SIZE} AS size, {_KIND} AS kind OFFSET 0) k
        )
        SELECT token.label, token.value, token.place, token.number FROM token WHERE token.number IS NOT NULL
    ) k
    GROUP BY 1, 2
)
SELECT label, coalesce(value, '(all others)') AS value, turns::float8 AS turns,
    (turns / nullif(sum(turns) OVER (PARTITION BY label), 0))::float8 AS share,
    (1 - aligned / nullif(weight * {Q_UNIT}, 0))::float8 AS misaligned
FROM summed WHERE turns > 0 ORDER BY label, turns DESC, value LIMIT {SHOWN_ROWS}"""
