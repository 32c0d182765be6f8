"""A database with alerts in it, made by passes over figures that a test sets, as settings in a file say."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from alerts.oncall import OnCall
from alerts.rulebook import compile_rules
from alerts.stages import Recipient
from monitor.config import load
from monitor.store import reads
from monitor.store.database import open_engine, open_store, upgrade
from monitor.trajectory import Settings
from monitor.watch import utc_now
from tests.service.oncall_cases import read, series

TOML = """
[alerts]
flap_changes = 0
inhibit = [{source_rule = "too_much", target_rule = "also_much", equal = ["series"]}]

[alerts.rules.too_much]
metric = "misaligned"
above = 0.5
severity = "page"

[alerts.rules.also_much]
metric = "misaligned"
above = 0.4
for = "10m"

[alerts.targets.pager]
type = "webhook"
url = "http://127.0.0.1:9/"
severities = ["page"]

[alerts.targets.channel]
type = "webhook"
url = "http://127.0.0.1:9/"
"""


class Bench:
    """Series of these deployments, the passes over them, and the folder that commands run in."""

    def __init__(self, url: str, folder: Path, *deployments: str) -> None:
        (folder / "valuedrift.toml").write_text(TOML, encoding="utf-8")
        config = load(folder / "valuedrift.toml", {})
        before = open_engine(url)
        upgrade(before)
        before.dispose()
        self.url = url
        self.engine: Engine = open_store(url)
        self.series = dict(zip(deployments, series(self.engine, deployments), strict=True))
        targets = config.alerts.targets.items()
        recipients = [Recipient(name, frozenset(s.severities), s.watchdog) for name, s in targets]
        self._look = OnCall(self.engine, compile_rules(config.alerts), recipients, Settings(), utc_now)

    def look(self, ago: timedelta = timedelta(0), **shares: float) -> datetime:
        """A pass, so long ago, over these misaligned shares by deployment."""
        at = utc_now() - ago
        read(self.engine, at, {self.series[name]: x for name, x in shares.items()})
        self._look.run(at, live=True)
        return at

    def alert(self, deployment: str, rule: str = "too_much") -> str:
        """The id of the alert of a rule on a deployment that was raised last."""
        with self.engine.connect() as connection:
            return [a.id for a in reads.alerts(connection, self.series[deployment]) if a.rule == rule][-1]

    def close(self) -> None:
        self.engine.dispose()
