"""Settings of targets: mistakes are named, secrets stand in no file, no repr and no error."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from alerts.links import DASHBOARD_NAMES, check_template, fill
from alerts.targets.settings import TargetSettings, build
from monitor.errors import ConfigError
from monitor.outgoing import is_loopback, wait_asked

KEY = "0123456789abcdef0123456789ABCDEF"
SECRET = "s3cr3t-that-nobody-may-see"
ENVIRONMENT = {
    "PD": KEY,
    "HOOK": f"https://hooks.slack.com/services/T0/B0/{SECRET}",
    "S": SECRET,
    "JSON": f"jsons://user:{SECRET}@apprise.example/x",
}
GOOD: dict[str, dict[str, Any]] = {
    "alertmanager": {"url": "https://am.example:9093", "bearer_token": "env:S"},
    "pagerduty": {"routing_key": "env:PD"},
    "slack": {"url": "env:HOOK"},
    "email": {
        "host": "mail.example", "sender": "Ops <ops@example.org>", "recipients": ["a@example.org"],
        "username": "ops", "password": "env:S",
    },
    "webhook": {"url": "https://hook.example/in", "secret": "env:S"},
    "apprise": {"url": "env:JSON"},
}  # fmt: skip


def settings(kind: str, **changes: Any) -> TargetSettings:
    return msgspec.convert({"type": kind} | GOOD[kind] | changes, TargetSettings)


@pytest.mark.parametrize("kind", GOOD)
def test_every_type_is_built(kind: str) -> None:
    """A target of every type is made of a few lines, and neither its settings nor it show what is secret."""
    made = settings(kind)
    target = build("night", made, ENVIRONMENT)
    assert target.name == "night"
    assert target.tells == {"firing", "acknowledged", "resolved"}
    assert (target.refresh_seconds is not None) == (kind == "alertmanager")
    assert SECRET not in f"{made!r} {target!r}"
    assert made.severities == (("page",) if kind == "pagerduty" else ("page", "ticket"))
    assert not made.watchdog
    target.close()


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("alertmanager", "bearer_token"), ("alertmanager", "password"), ("pagerduty", "routing_key"), ("slack", "url"),
        ("email", "password"), ("webhook", "secret"), ("webhook", "bearer_token"), ("apprise", "url"),
    ],
)  # fmt: skip
def test_secret_in_the_file(kind: str, field: str) -> None:
    """A secret that is written out is refused, and the error says what to do without showing it."""
    with pytest.raises(msgspec.ValidationError, match=rf'{field} is a secret: write {field} = "env:NAME"') as e:
        settings(kind, **{field: SECRET})
    assert SECRET not in str(e.value)


@pytest.mark.parametrize("kind", GOOD)
def test_variable_that_is_not_set(kind: str) -> None:
    """The error names the key and the variable."""
    with pytest.raises(ConfigError, match=r"alerts\.targets\.night\.\w+: the environment variable \w+ is not set"):
        build("night", settings(kind), {})


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("alertmanager", {"url": "http://am.example"}, "night.url is plain http://.*allow_http = true"),
        ("webhook", {"url": "am.example"}, "night.url must be an address"),
        ("webhook", {"url": f"https://u:{SECRET}@hook.example"}, "night.url holds a password"),
        ("webhook", {"url": "https://x:abc/"}, "night.url is not an address"),
        ("webhook", {"secret": "env:SHORT"}, "night.secret has fewer than 16 characters"),
        ("webhook", {"bearer_token": "env:LINES"}, "night.bearer_token holds characters that no header can carry"),
        ("pagerduty", {"routing_key": "env:S"}, "night.routing_key is not an integration key"),
        ("slack", {"url": "env:PLAIN"}, "night.url is plain http://.*use https://$"),
        ("slack", {"url": "env:S"}, "night.url must be an address"),
        ("email", {"security": "none"}, "night.security is none: the password would go to mail.example in plain text"),
        ("email", {"sender": "nobody"}, "night.sender: 'nobody' is not an e-mail address"),
        ("email", {"recipients": ["a@b.example\r\nBcc: x@y.example"]}, "night.recipients: .* is not an e-mail address"),
        ("email", {"ca_file": "/no/such/file"}, "night.ca_file: /no/such/file cannot be read"),
        ("apprise", {"url": "env:S"}, "night.url is not an address that apprise knows"),
    ],
)
def test_setting_that_cannot_be_used(kind: str, changes: dict[str, Any], said: str) -> None:
    """What is wrong, where, and what to do; never the secret."""
    odd = {"SHORT": "short", "LINES": f"{SECRET}\nx: y", "PLAIN": f"http://hooks.slack.com/{SECRET}"}
    with pytest.raises(ConfigError, match=said) as e:
        build("night", settings(kind, **changes), ENVIRONMENT | odd)
    assert SECRET not in str(e.value)
    assert e.value.__cause__ is None or SECRET not in str(e.value.__cause__)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"type": "pager"}, "Invalid value 'pager'"),
        ({"type": "slack"}, "url is needed"),
        ({"type": "email", "host": "h", "sender": "a@b.example"}, "recipients is needed"),
        ({"type": "slack", "url": "env:X", "chanel": "#ops"}, "unknown field `chanel`"),
        ({"type": "slack", "url": "env:X", "severities": []}, "nothing would ever be told"),
        ({"type": "slack", "url": "env:X", "severities": ["critical"]}, "Invalid enum value 'critical'"),
        ({"type": "slack", "url": "env:X", "timeout_seconds": 600}, "<= 30"),
    ],
)
def test_mistakes_in_the_file(values: dict[str, Any], said: str) -> None:
    """A mistake is told when the file is read, before anything is sent."""
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(values, TargetSettings)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("https://g.example/{serie}", r"\{serie\} is not known here; it may hold \{series\}"),
        ("https://g.example/{series!r}", "is not known"),
        ("https://g.example/{", "k: .*a brace of its own is written twice"),
        ("g.example/{series}", "k must be an address"),
        ("javascript:alert({series})", "k must be an address"),
    ],
)
def test_template_that_cannot_be_used(template: str, said: str) -> None:
    """A template with a mistake in it is told of at the start, not at night."""
    with pytest.raises(ConfigError, match=said):
        check_template("k", template, DASHBOARD_NAMES)


@pytest.mark.parametrize(
    ("kind", "library", "extra"), [("slack", "httpx2", "alerts"), ("apprise", "apprise", "apprise")]
)
def test_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, kind: str, library: str, extra: str) -> None:
    """The error names what to install."""
    for module in (f"alerts.targets.{kind}", "alerts.targets.http"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"type {kind} needs {library}: pip install 'valuedrift\[{extra}\]'"):
        build("night", settings(kind), ENVIRONMENT)


def test_names_stay_in_their_place_of_an_address() -> None:
    """A name from a transcript ends no part of an address, however it is written."""
    check_template("k", "https://g.example/d?a={series}&b=1", DASHBOARD_NAMES)
    hostile = "a&b=2#x/../<b>\"' \n\ud800"
    found = fill("https://g.example/d?a={series}&b=1", series=hostile)
    assert found.startswith("https://g.example/d?a=a%26b%3D2%23x%2F..%2F%3Cb%3E%22%27%20%0A")
    assert found.endswith("&b=1")


def test_this_machine() -> None:
    """What is meant for this machine is known by its address."""
    hosts = ("localhost", "127.0.0.1", "::1", "10.0.0.1", "localhost.example")
    assert [is_loopback(h) for h in hosts] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or a date; whatever else is there asks for nothing."""
    assert wait_asked(headers) == seconds
