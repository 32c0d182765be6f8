"""Settings: one TOML file, every key overridable by VALUEDRIFT_<SECTION>_<KEY>; an unknown key is an error."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from classifiers.judge_prompt import JudgeSettings
from monitor.baseline import BaselineRule
from monitor.errors import ConfigError
from monitor.trajectory import Settings as TrajectorySettings

DEFAULT_FILE: Final = Path("valuedrift.toml")
_PREFIX: Final = "VALUEDRIFT_"
_FILE_VARIABLE: Final = "VALUEDRIFT_CONFIG"
_TEST_PREFIX: Final = "VALUEDRIFT_TEST_"
_NOT_SETTINGS: Final = frozenset({_FILE_VARIABLE, JudgeSettings().api_key_variable, "VALUEDRIFT_CACHE"})
"""Variables with a meaning of their own: this file's name, the judge's key, the accurate tier's cache folder."""


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is read."""

    format: str = "auto"
    """canonical, openai, anthropic or auto."""
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


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it is kept."""

    url: str = "sqlite:///valuedrift.db"


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
    monitor: Monitor = Monitor()
    classifier: Classifier = Classifier()
    judge: JudgeSettings = JudgeSettings()

    def baseline_rule(self) -> BaselineRule:
        return BaselineRule.parse(self.monitor.baseline)

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
        other = name in _NOT_SETTINGS or name.startswith(_TEST_PREFIX)
        if name.startswith(_PREFIX) and not other:
            section, key = _from_variable(name)
            values.setdefault(section, {})[key] = _typed(section, key, text, name)
    for (section, key), value in (options or {}).items():
        if value is not None:
            values.setdefault(section, {})[key] = value
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
            raise _unknown(f"section [{section}]", section, _sections())
        if not isinstance(content, dict):
            raise ConfigError(f"configuration: {section} is a section, write [{section}]")
        for key in content:
            if f"{section}.{key}" not in known:
                raise _unknown(f"key {section}.{key}", f"{section}.{key}", known)


def _from_variable(name: str) -> tuple[str, str]:
    known = {f"{_PREFIX}{s}_{k}".upper(): (s, k) for s, keys in _sections().items() for k in keys}
    if name not in known:
        raise _unknown(f"environment variable {name}", name, known)
    return known[name]


def _unknown(what: str, name: str, known: Mapping[str, Any] | set[str]) -> ConfigError:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return ConfigError(f"unknown configuration {what}; did you mean {near[0]}?")


def _typed(section: str, key: str, text: str, name: str) -> Any:
    kind = _sections()[section][key]
    value: Any = [part for part in text.split(",") if part] if kind == tuple[str, ...] else text
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{name}={text!r}: {e}") from e
