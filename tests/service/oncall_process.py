"""A process that does nothing but look after alerts: passes and deliveries, by the clock, for ever."""

from __future__ import annotations

import time
from datetime import timedelta

from alerts.delivery import Lane
from monitor.store.database import open_store
from monitor.watch import utc_now
from tests.service.oncall_cases import alerts, composer, on_call
from tests.service.pager import PagerTarget


def look_after(url: str, port: int) -> None:
    """Returns never; a lease is short, so that what a killed process held is soon free."""
    engine = open_store(url)
    settings = alerts(for_="1s")
    look = on_call(engine, utc_now, settings)
    out = Lane(
        engine,
        PagerTarget(port),
        composer(engine, settings),
        ("rule",),
        utc_now,
        lease=timedelta(seconds=1),
    )
    while True:
        look.run(utc_now(), live=True)
        out.deliver()
        time.sleep(0.02)
