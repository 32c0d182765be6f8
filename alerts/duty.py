"""On-call of one process: passes after its steps, and the deliveries of what they put into the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final, cast

from msgspec.structs import replace
from sqlalchemy import Engine

from alerts.board import Raised
from alerts.compose import Composer
from alerts.delivery import Deliverer, Lane, Observer
from alerts.notice import Status
from alerts.oncall import OnCall
from alerts.rulebook import compile_rules
from alerts.stages import Recipient
from alerts.targets.settings import Alertmanager, build
from monitor.config import Config
from monitor.logs import get_logger
from monitor.readings import Reading
from monitor.steps import News, Stepper

BEHIND_MINUTES: Final = 10.0
"""Who lags further behind what was produced is not asked which series are silent."""
PATIENCE_SECONDS: Final = 10.0
"""How long a run that ends waits for its last notices."""

_log: Final = get_logger(__name__)


def with_alertmanager(config: Config, url: str) -> Config:
    """The settings with the target `alertmanager` at an address."""
    targets = config.alerts.targets
    have = targets.get("alertmanager")
    target = replace(have, url=url) if isinstance(have, Alertmanager) else Alertmanager(url=url)
    return replace(config, alerts=replace(config.alerts, targets={**targets, "alertmanager": target}))


def log_news(news: News) -> None:
    """Into the log, without the series' name: deployments are named by clients."""
    a = news.alert
    _log.warning("alert", alert=a.id, rule=a.rule, severity=news.severity or "resolved")


class Duty:
    """What a process does about alerts.

    Parameters
    ----------
    stepper : that it moves the series on with.
    environment : of secrets, usually os.environ.

    Raises
    ------
    ConfigError : a rule or a target that cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        stepper: Stepper,
        clock: Callable[[], datetime],
        environment: Mapping[str, str],
        observer: Observer | None = None,
    ) -> None:
        alerts = config.alerts
        rules = compile_rules(alerts)
        targets = {name: build(name, settings, environment) for name, settings in alerts.targets.items()}
        recipients = [
            Recipient(name, frozenset(s.severities), s.watchdog, cast(frozenset[Status], targets[name].tells))
            for name, s in alerts.targets.items()
        ]
        composer = Composer(stepper, rules, alerts.dashboard_url, alerts.runbook_url)
        self._clock = clock
        self._oncall = OnCall(engine, rules, recipients, stepper.settings, clock)
        self._deliverer = Deliverer(
            [Lane(engine, target, composer, alerts.group_by, clock, observer) for target in targets.values()]
        )
        self._stepped = time.monotonic()

    def start(self) -> None:
        """Notices go out from now on."""
        self._deliverer.start()

    def close(self) -> bool:
        """What is due goes out, and no more; False when that takes too long: the next process sends what is left."""
        return self._deliverer.close(PATIENCE_SECONDS)

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Notices go out meanwhile."""
        self.start()
        try:
            yield
        finally:
            self.close()

    @contextmanager
    def watching(self, tell: Callable[[News], None], figures: Mapping[str, Reading] | None = None) -> Iterator[None]:
        """All series are moved on meanwhile; then there is a pass, also where that fails: it is something to tell of.

        Parameters
        ----------
        tell : is told of each alert that rules on readings raised.
        figures : as of `look`, as they are by then.
        """
        try:
            yield
            self.stepped()
        finally:
            for news in self.look(figures):
                tell(news)

    def stepped(self) -> None:
        """All series were moved on, just now."""
        self._stepped = time.monotonic()

    def look(self, figures: Mapping[str, Reading] | None = None, *, caught_up: bool = True) -> list[News]:
        """A pass by the clock; returns the alerts that rules on readings raised.

        Parameters
        ----------
        figures : of the process (alerts.conditions.MONITOR_METRICS) beside the age of its last step.
        caught_up : whether what was produced was read: a backlog seems silent and is not.

        Raises
        ------
        StoreError : the database cannot be used.
        """
        age = (time.monotonic() - self._stepped) / 60
        known = {"step_age_minutes": (age, age, age), **(figures or {})}
        lag = known.get("lag_minutes", (0.0,))[0]
        found = self._oncall.run(self._clock(), live=True, caught_up=caught_up and lag <= BEHIND_MINUTES, figures=known)
        return self._news(found.raised, found.told)

    def look_back(self) -> list[News]:
        """A pass over what was read to its end, by the time of its newest event; as `look`."""
        found = self._oncall.finite()
        return self._news(found.raised, found.told)

    def undelivered(self) -> Mapping[str, int]:
        """Wait for the deliveries, but not for ever; returns how many notices are not out, by target."""
        self._deliverer.wake()
        return self._deliverer.drain(PATIENCE_SECONDS)

    def _news(self, raised: tuple[Raised, ...], told: int) -> list[News]:
        if told:
            self._deliverer.wake()
        return [News(r.series, r.alert, r.severity) for r in raised]
