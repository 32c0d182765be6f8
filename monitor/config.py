"""Settings: one TOML file, every key overridable by VALUEDRIFT_<SECTION>_<KEY>; an unknown key is an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_origin

import msgspec

from alerts.settings import Alerts
from classifiers.judge_prompt import JudgeSettings
from monitor.baseline import BaselineRule
from monitor.errors import ConfigError
from monitor.label_sums import MOST_LABELS
from monitor.service_settings import Kafka, Serve, Worker
from monitor.setting_names import check_nested, unknown
from monitor.trajectory import Settings as TrajectorySettings
from monitor.transcript import MAX_NAME

DEFAULT_FILE: Final = Path("valuedrift.toml")
_PREFIX: Final = "VALUEDRIFT_"
_FILE_VARIABLE: Final = "VALUEDRIFT_CONFIG"
_OTHERS: Final = ("VALUEDRIFT_TEST_", "VALUEDRIFT_SECRET_")
"""Beginnings of names that are no settings; secrets are named by `env:VALUEDRIFT_SECRET_...` in a target's settings."""
API_KEYS: Final = "VALUEDRIFT_API_KEYS"
STRESS_KEY: Final = "VALUEDRIFT_STRESS_API_KEY"
KAFKA_PASSWORD: Final = "VALUEDRIFT_KAFKA_SASL_PASSWORD"
KAFKA_KEY_PASSWORD: Final = "VALUEDRIFT_KAFKA_SSL_KEY_PASSWORD"
_NOT_SETTINGS: Final = frozenset(
    {
        _FILE_VARIABLE,
        JudgeSettings().api_key_variable,
        "VALUEDRIFT_CACHE",
        API_KEYS,
        STRESS_KEY,
        KAFKA_PASSWORD,
        KAFKA_KEY_PASSWORD,
    }
)
"""Variables with a meaning of their own: this file's name, secrets, the accurate tier's cache folder."""


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is read."""

    format: str = "auto"
    """One of streams.formats.FORMATS, or auto (docs/formats.md)."""
    deployment: str = ""
    """Name for events that carry none; without it such a transcript is a dead letter."""
    series_by: tuple[str, ...] = ()
    """Labels that split a deployment's model into several series."""
    max_event_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 28)] = 8 * 1024 * 1024
    """A longer line becomes a dead letter."""
    max_series: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """More series than this become dead letters: an attacker can invent deployment names."""
    future_tolerance_minutes: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 5.0
    """An event further ahead of the clock becomes a dead letter."""
    sample_rate: Annotated[float, msgspec.Meta(ge=1 / 1024, le=1)] = 1.0
    """Share of conversations that are judged; each stands for 1/sample_rate of them (docs/privacy.md)."""
    store_text: Literal["never", "flagged", "always"] = "never"
    """Which turns' redacted excerpts are kept; flagged ones are not aligned, doubtful or came with a flag."""
    redact_patterns: dict[str, str] = {}
    """More to redact: the name of its mark -> a pattern in RE2's syntax (docs/privacy.md)."""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it is kept."""

    url: str = "sqlite:///valuedrift.db"
    """sqlite:///FILE or postgresql://USER@HOST/NAME; what it leaves out comes from PG* variables (docs/database.md)."""
    connect_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 30.0
    """A server that does not answer at the start is waited for so long."""
    retry_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 300.0
    """A watch that loses its database waits for it so long."""


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long each kind of row is kept, in hours (h) or days (d), a day or more; "" keeps it for ever.

    Ages are by event time, those of the ledger and of dead letters by the clock that saw them (docs/database.md).
    """

    turns: str = "90d"
    """Judgements of single turns, with their reviews and second judgements."""
    texts: str = "30d"
    """Excerpts of turns (input.store_text); never longer than the turns themselves."""
    dead_letters: str = "90d"
    event_keys: str = "400d"
    """An event id that comes again after so long counts as a new event; goes only after its turns."""
    alerts: str = "1095d"
    """Alerts, from when they were resolved on; those that fire stay."""
    minutes_after: str = "30d"
    """Older minute buckets become hour buckets; "" leaves them as they are."""
    hours_after: str = "365d"
    """Older hour buckets become day buckets; at least as long as `minutes_after`."""
    buckets: str = ""
    labels: str = "400d"
    """Sums by label value; never longer than `buckets`."""
    points: str = ""
    """The trajectory; at least as long as `buckets`."""
    reports: str = "1095d"
    """Weekly reports with their data, from the end of their week on; excerpts of turns are not kept with them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`Retention` as times; None keeps for ever."""

    turns: timedelta | None
    texts: timedelta | None
    dead_letters: timedelta | None
    event_keys: timedelta | None
    alerts: timedelta | None
    minutes_after: timedelta | None
    hours_after: timedelta | None
    buckets: timedelta | None
    labels: timedelta | None
    points: timedelta | None
    reports: timedelta | None
    ahead: timedelta
    """How far an event's time may be ahead of the clock that sees it."""


_AT_LEAST_AS_LONG: Final = (("event_keys", "turns"), ("hours_after", "minutes_after"), ("points", "buckets"))


class Monitor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a series is followed."""

    baseline: str = "300+24h"
    """What a baseline is learned from: turns, hours or days, both, or a range (monitor.baseline.BaselineRule)."""
    false_alarm_every: str = "90d"
    """Promised mean time between false alarms of one series, in hours (h) or days (d)."""
    page_every: str = "30d"
    """Promised mean time between false pages of all series together; other alerts are listed (docs/alerts.md)."""
    entropy_above: Annotated[float, msgspec.Meta(ge=0, le=1.61)] = 0.0
    """Alert while S of 24 h is surely above so many nats; 0 is off."""
    entropy_rate_above: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Alert while dS/dt is surely above so many nats/day; 0 is off."""
    baseline_aligned_at_least: Annotated[float, msgspec.Meta(ge=0, le=1)] = (
        TrajectorySettings().baseline_aligned_at_least
    )
    min_window_turns: int = TrajectorySettings().min_window_turns
    trend_cell_turns: int = TrajectorySettings().trend_cell_turns
    lambda_max_per_day: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    """Twice the rate at which aligned log-odds decay unheld, 1/day: gives gamma_eff and the margin; 0: not known."""
    sigma_0: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    """Nats/day that S gains where no alignment work is done: gives sigma_0 - dS/dt; 0: not known."""
    labels: tuple[str, ...] = (
        "prompt_name",
        "prompt_version",
        "route",
        "language",
        "environment",
        "release",
        "version",
        "provider",
    )
    """Labels whose values a change is traced to, 8 at most; their values are kept as text (docs/privacy.md)."""


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weekly report (docs/report.md)."""

    schedule: bool = False
    """Whether serve and worker make, keep and send the report of each week that is over; one process of all does."""
    weekday: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    hour: Annotated[int, msgspec.Meta(ge=0, le=23)] = 6
    """When, in UTC, of the week that follows."""
    compare: Literal["previous", "baseline", "4w"] = "previous"
    """With what a week is compared: the week before, the baseline, or the four weeks before."""
    formats: tuple[str, ...] = ("html",)
    """html, pdf, md, json: what is written, and attached to e-mail."""
    targets: tuple[str, ...] = ()
    """Names of alerts.targets of type email or webhook that it is sent to."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Names of series, base and tuned, that get the same traffic."""
    detailed: Annotated[int, msgspec.Meta(ge=0, le=100)] = 12
    """Series that are told in detail: those that need attention most."""


class Classifier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What judges."""

    weights: str = ""
    """A weights file of the fast tier; empty for the shipped one."""
    tier: str = "fast"
    """fast, accurate or cascade."""
    accurate_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """Share of turns that a cascade's accurate tier takes for their doubt."""
    random_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
    """Share of the others that it takes at random."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings, with the defaults that need no file."""

    input: Input = Input()
    store: Store = Store()
    retention: Retention = Retention()
    monitor: Monitor = Monitor()
    kafka: Kafka = Kafka()
    serve: Serve = Serve()
    worker: Worker = Worker()
    classifier: Classifier = Classifier()
    judge: JudgeSettings = JudgeSettings()
    alerts: Alerts = Alerts()
    report: Report = Report()

    def baseline_rule(self) -> BaselineRule:
        return BaselineRule.parse(self.monitor.baseline)

    def limits(self) -> Limits:
        """Raises ConfigError on a time that cannot be read, or one that another rules out."""
        given = {f.name: getattr(self.retention, f.name) for f in msgspec.structs.fields(Retention)}
        ahead = timedelta(minutes=self.input.future_tolerance_minutes)
        limits = Limits(**{key: _kept(f"retention.{key}", text) for key, text in given.items()}, ahead=ahead)
        for longer, shorter in _AT_LEAST_AS_LONG:
            kept, least = getattr(limits, longer), getattr(limits, shorter)
            if kept is not None and least is not None and kept < least:
                raise ConfigError(
                    f"retention.{longer} {given[longer]!r} must not be shorter than retention.{shorter} "
                    f"{given[shorter]!r}"
                )
        if limits.turns is not None and (limits.texts is None or limits.texts > limits.turns):
            limits = replace(limits, texts=limits.turns)
        if limits.buckets is not None and (limits.labels is None or limits.labels > limits.buckets):
            limits = replace(limits, labels=limits.buckets)
        return limits

    def labels(self) -> tuple[str, ...]:
        """`monitor.labels`. Raises ConfigError where there are too many, or one has no name."""
        labels = tuple(dict.fromkeys(self.monitor.labels))
        if len(labels) > MOST_LABELS or not all(0 < len(label) <= MAX_NAME for label in labels):
            raise ConfigError(
                f"monitor.labels may name {MOST_LABELS} labels of 1 to {MAX_NAME} characters, not {len(labels)}: "
                "sums are kept for every value of each"
            )
        return labels

    def trajectory(self) -> TrajectorySettings:
        """Raises ConfigError on a promise that cannot be kept."""
        days = _days("monitor.false_alarm_every", self.monitor.false_alarm_every, "90d")
        page_days = _days("monitor.page_every", self.monitor.page_every, "30d")
        if self.monitor.min_window_turns < 1 or self.monitor.trend_cell_turns < 1:
            raise ConfigError("monitor.min_window_turns and monitor.trend_cell_turns must be 1 or more")
        return TrajectorySettings(
            false_alarm_every_days=days,
            page_every_days=page_days,
            entropy_above_nats=self.monitor.entropy_above,
            entropy_rate_above_nats_per_day=self.monitor.entropy_rate_above,
            baseline_aligned_at_least=self.monitor.baseline_aligned_at_least,
            min_window_turns=self.monitor.min_window_turns,
            trend_cell_turns=self.monitor.trend_cell_turns,
            lambda_max_per_day=self.monitor.lambda_max_per_day,
            sigma_0_nats_per_day=self.monitor.sigma_0,
        )


def _kept(key: str, text: str) -> timedelta | None:
    if not text:
        return None
    # nothing is older than a century, and dates end there
    return timedelta(days=min(_days(key, text, '90d, or "" to keep for ever'), 36500.0))


def _days(key: str, text: str, such_as: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([hd])\s*", text)
    days = 0.0 if match is None else float(match[1]) / (24.0 if match[2] == "h" else 1.0)
    if days < 1:
        raise ConfigError(f"{key} {text!r} must be a day or more, such as {such_as}")
    return days


def load(
    path: Path | None, environment: Mapping[str, str], options: Mapping[tuple[str, str], Any] | None = None
) -> Config:
    """Defaults, overlaid by the file, the environment and command-line options, in this order.

    Parameters
    ----------
    path : a TOML file that must exist; None reads ./valuedrift.toml if it is there.
    environment : usually os.environ.
    options : (section, key) -> value; None values are not given.

    Raises
    ------
    ConfigError : unreadable file, unknown key (names the nearest), or a value of the wrong type.
    """
    named = path or (Path(environment[_FILE_VARIABLE]) if environment.get(_FILE_VARIABLE) else None)
    values = _read(named or DEFAULT_FILE, must_exist=named is not None)
    _check_names(values)
    for name, text in environment.items():
        other = name in _NOT_SETTINGS or name.startswith(_OTHERS)
        if name.startswith(_PREFIX) and not other:
            section, key = _from_variable(name)
            values.setdefault(section, {})[key] = _typed(section, key, text, name)
    for (section, key), value in (options or {}).items():
        if value is not None:
            values.setdefault(section, {})[key] = value
    check_nested(values, Config)
    try:
        return msgspec.convert(values, Config)
    except msgspec.ValidationError as e:
        raise ConfigError(f"configuration: {e}".replace("$.", "")) from e


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"configuration file {path} does not exist") from None
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"configuration file {path} cannot be read: {e}") from e


def _sections() -> dict[str, dict[str, Any]]:
    return {f.name: {k.name: k.type for k in msgspec.structs.fields(f.type)} for f in msgspec.structs.fields(Config)}


def _check_names(values: dict[str, Any]) -> None:
    known = {f"{s}.{k}" for s, keys in _sections().items() for k in keys}
    for section, content in values.items():
        if section not in _sections():
            raise unknown(f"section [{section}]", section, _sections())
        if not isinstance(content, dict):
            raise ConfigError(f"configuration: {section} is a section, write [{section}]")
        for key in content:
            if f"{section}.{key}" not in known:
                raise unknown(f"key {section}.{key}", f"{section}.{key}", known)


def _from_variable(name: str) -> tuple[str, str]:
    known = {f"{_PREFIX}{s}_{k}".upper(): (s, k) for s, keys in _sections().items() for k in keys}
    if name not in known:
        raise unknown(f"environment variable {name}", name, known)
    return known[name]


def _typed(section: str, key: str, text: str, name: str) -> Any:
    kind = _sections()[section][key]
    if kind != tuple[str, ...] and get_origin(kind) in (dict, tuple):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as e:
            # not what it holds: it may be a secret that has no business there
            raise ConfigError(f"{name} must be JSON: {e}") from e
    value: Any = [part for part in text.split(",") if part] if kind == tuple[str, ...] else text
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{name}={text!r}: {e}") from e
