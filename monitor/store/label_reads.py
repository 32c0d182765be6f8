"""Reads of sums by label value."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from monitor.label_sums import MOST_VALUES, OTHER, WITHOUT, LabelSums, Split, Terms, added, as_sums
from monitor.store import schema

READ_VALUES: Final = 2000
"""Values of a label that are held while a window is read: an hour names few, but each may name others."""


def label_splits(
    connection: Connection, series_id: int, version: str, start: int, end: int, *, most_values: int = MOST_VALUES
) -> dict[str, Split]:
    """The turns of a series by the values of each label, of the hours that begin at a minute in [start, end).

    Shards and hours are added up. What has become days (docs/database.md) counts where its day begins.

    Parameters
    ----------
    most_values : as many values of a label, those of most turns, stand alone; the rest is added to OTHER.

    Returns
    -------
    Label -> its split, of hours in which it was followed; WITHOUT are the turns that did not have it.
    """
    t = schema.label_sums
    query = (
        select(t.c.sums)
        .where(t.c.series_id == series_id, t.c.classifier_version == version, t.c.minute >= start, t.c.minute < end)
        .order_by(t.c.minute, t.c.shard)
        .execution_options(yield_per=500)
    )
    totals: dict[str, Terms] = {}
    values: dict[str, dict[str | None, Terms]] = {}
    for packed in connection.execute(query).scalars():
        hour = LabelSums.unpack(packed)
        for label, of in hour.values.items():
            totals[label] = added(totals.get(label, []), hour.total)
            mine = values.setdefault(label, {})
            for value, terms in of.items():
                place = value if value in mine or len(mine) < READ_VALUES else OTHER
                mine[place] = added(mine.get(place, []), terms)
    return {label: _split(totals[label], mine, most_values) for label, mine in values.items()}


def _split(total: Terms, values: dict[str | None, Terms], most_values: int) -> Split:
    without = total
    for of in values.values():
        without = added(without, [-x for x in of])
    named = sorted((v for v in values if v is not OTHER), key=lambda v: (-values[v][0], v or ""))
    out: dict[str | None, Terms] = {v: values[v] for v in named[:most_values]}
    for v in (*named[most_values:], *([OTHER] if OTHER in values else [])):
        out[OTHER] = added(out.get(OTHER, []), values[v])
    if without[0]:
        out[WITHOUT] = without
    return {v: as_sums(of) for v, of in out.items()}
