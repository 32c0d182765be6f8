"""Settings of targets, one struct a type, and the way from settings to a target.

A string `env:NAME` is taken from the environment variable NAME when a target is built. Fields that are secrets take
nothing else, so that none stands in a file, and what is taken stays in the target: settings, their repr and errors
name variables only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

import msgspec

from monitor.errors import ConfigError

if TYPE_CHECKING:
    from alerts.targets.base import Target

Severity = Literal["page", "ticket"]
Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=30)]
"""Much shorter than the minute that a delivery holds its lease."""

_VARIABLE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """What every target has."""

    SECRETS: ClassVar[tuple[str, ...]] = ()
    """Fields that must be written as `env:NAME`."""
    NEEDED: ClassVar[tuple[str, ...]] = ()
    """Fields without which there is nowhere to send to."""

    severities: tuple[Severity, ...] = ("page", "ticket")
    """Alerts of other severities are not told."""
    watchdog: bool = False
    """Whether it is told of the alert that always fires."""
    excerpts: bool = False
    """Whether redacted excerpts of telling turns go with it; without, no transcript text leaves this machine."""
    timeout_seconds: Seconds = 10.0
    """Of one request, connecting to last byte."""

    def __post_init__(self) -> None:
        if not self.severities and not self.watchdog:
            raise ValueError("severities is empty: nothing would ever be told")
        for field in self.NEEDED:
            if not getattr(self, field):
                raise ValueError(f"{field} is needed")
        for field in self.SECRETS:
            value = getattr(self, field)
            if value and not _VARIABLE.fullmatch(value):
                raise ValueError(f'{field} is a secret: write {field} = "env:NAME" and put it in the variable NAME')


class Alertmanager(Common, frozen=True, tag="alertmanager"):
    """Prometheus Alertmanager, API v2."""

    SECRETS = ("bearer_token", "password")
    NEEDED = ("url",)

    url: str = ""
    """Such as https://alertmanager.example.com:9093; /api/v2/alerts is added."""
    bearer_token: str = ""
    username: str = ""
    password: str = ""
    allow_http: bool = False
    """Plain http:// to another machine, where anyone on the way reads alerts."""
    refresh_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    """How often a standing alert is sent again; Alertmanager takes it for resolved after five times as long."""


class PagerDuty(Common, frozen=True, tag="pagerduty"):
    """PagerDuty, Events API v2."""

    SECRETS = ("routing_key",)
    NEEDED = ("routing_key",)

    severities: tuple[Severity, ...] = ("page",)
    routing_key: str = ""
    """Integration key of a service."""
    url: str = "https://events.pagerduty.com/v2/enqueue"
    """https://events.eu.pagerduty.com/v2/enqueue for accounts of the EU region."""


class Slack(Common, frozen=True, tag="slack"):
    """A Slack channel, through an incoming webhook."""

    SECRETS = ("url",)
    NEEDED = ("url",)

    url: str = ""
    """The webhook's address: whoever has it can post, so it is a secret."""


class Email(Common, frozen=True, tag="email"):
    """E-mail through an SMTP server."""

    SECRETS = ("password",)
    NEEDED = ("host", "sender", "recipients")

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """0: 587 with starttls, 465 with tls, 25 with none."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: str = ""
    ca_file: str = ""
    """PEM file of whom to trust; empty for the system's."""
    sender: str = ""
    recipients: Annotated[tuple[str, ...], msgspec.Meta(max_length=50)] = ()


class Webhook(Common, frozen=True, tag="webhook"):
    """Any HTTP server: JSON as docs/schemas/alert-webhook.v1.json says."""

    SECRETS = ("secret", "bearer_token")
    NEEDED = ("url",)

    url: str = ""
    secret: str = ""
    """Key of the signature (HMAC-SHA256); without it there is none."""
    bearer_token: str = ""
    allow_http: bool = False
    """Plain http:// to another machine, where anyone on the way reads alerts."""


class Apprise(Common, frozen=True, tag="apprise"):
    """Any service that apprise knows."""

    SECRETS = ("url",)
    NEEDED = ("url",)

    url: str = ""
    """One service's address, such as tgram://... (https://appriseit.com); it holds credentials, so it is a secret."""


TargetSettings = Alertmanager | PagerDuty | Slack | Email | Webhook | Apprise


class Values:
    """The strings of a target's settings, with those of the environment in their places.

    Parameters
    ----------
    name : of the target.
    environment : usually os.environ.
    """

    def __init__(self, name: str, settings: Common, environment: Mapping[str, str]) -> None:
        self.name = name
        self._settings = settings
        self._environment = environment

    def key(self, field: str) -> str:
        """Where a field is set, for errors."""
        return f"alerts.targets.{self.name}.{field}"

    def text(self, field: str) -> str:
        """The value of a field. Raises ConfigError where its variable is not set."""
        value: str = getattr(self._settings, field)
        return self._resolved(field, value)

    def texts(self, field: str) -> tuple[str, ...]:
        """The values of a field that has several. Raises ConfigError as `text` does."""
        values: tuple[str, ...] = getattr(self._settings, field)
        return tuple(self._resolved(field, value) for value in values)

    def _resolved(self, field: str, value: str) -> str:
        if (variable := _VARIABLE.fullmatch(value)) is None:
            return value
        found = self._environment.get(variable[1], "").strip()
        if not found:
            raise ConfigError(f"{self.key(field)}: the environment variable {variable[1]} is not set")
        return found

    def header(self, field: str) -> str:
        """As `text`, for a header. Raises ConfigError also where no header can carry it."""
        value = self.text(field)
        if not re.fullmatch(r"[\x21-\x7e]*", value):
            raise ConfigError(f"{self.key(field)} holds characters that no header can carry")
        return value


def build(name: str, settings: TargetSettings, environment: Mapping[str, str]) -> Target:
    """The target that settings describe.

    Raises
    ------
    ConfigError : a variable that is not set, an address that is none, a library that is not installed.
    """
    values = Values(name, settings, environment)
    try:
        return _built(settings, values)
    except ModuleNotFoundError as e:
        extra = "apprise" if isinstance(settings, Apprise) else "alerts"
        raise ConfigError(
            f"alerts.targets.{name}: type {settings.__struct_config__.tag} needs {e.name}: "
            f"pip install 'valuedrift[{extra}]'"
        ) from e


def _built(settings: TargetSettings, values: Values) -> Target:
    # what a target needs is imported where there is one
    match settings:
        case Alertmanager():
            from alerts.targets.alertmanager import AlertmanagerTarget

            return AlertmanagerTarget(settings, values)
        case PagerDuty():
            from alerts.targets.pagerduty import PagerDutyTarget

            return PagerDutyTarget(settings, values)
        case Slack():
            from alerts.targets.slack import SlackTarget

            return SlackTarget(settings, values)
        case Email():
            from alerts.targets.email import EmailTarget

            return EmailTarget(settings, values)
        case Webhook():
            from alerts.targets.webhook import WebhookTarget

            return WebhookTarget(settings, values)
        case Apprise():
            from alerts.targets.apprise import AppriseTarget

            return AppriseTarget(settings, values)
