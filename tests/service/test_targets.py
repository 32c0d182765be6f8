"""Targets against real servers that take what they are sent, and that misbehave in every way."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerts.notice import Notice
from alerts.targets import email as email_target
from alerts.targets import http
from alerts.targets.alertmanager import AlertmanagerTarget
from alerts.targets.base import Outcome, Target
from alerts.targets.settings import Alertmanager, TargetSettings, Values, build
from tests.conftest import ROOT
from tests.notice_cases import HOSTILE, hostile, notice
from tests.own_server import wait_for
from tests.service import receivers
from tests.service.brokers import free_port
from tests.service.receivers import AlertmanagerServer, Receiver, answer
from tests.shapes import PAGERDUTY_EVENT, SLACK_MESSAGE, check

pytestmark = pytest.mark.service

KEY = "0123456789abcdef0123456789ABCDEF"
SECRET = "a-long-secret-of-the-webhook"
TAKEN = {
    "alertmanager": answer(200),
    "pagerduty": answer(202, b'{"status": "success", "message": "Event processed", "dedup_key": "x"}'),
    "slack": answer(200, b"ok"),
    "webhook": answer(204),
    "apprise": answer(200, b"{}"),
}
"""What each service says to what it takes."""


def target(kind: str, url: str, **more: Any) -> Target:
    """A target that sends to a server of ours."""
    fields: dict[str, Any] = {
        "alertmanager": {"url": url, "bearer_token": "env:SECRET"},
        "pagerduty": {"url": f"{url}/v2/enqueue", "routing_key": "env:KEY"},
        "slack": {"url": "env:HOOK"},
        "webhook": {"url": f"{url}/in", "secret": "env:SECRET"},
        "apprise": {"url": "env:APPRISE"},
    }[kind]
    environment = {
        "KEY": KEY,
        "SECRET": SECRET,
        "HOOK": f"{url}/services/T0/B0/{SECRET}",
        "APPRISE": f"{url.replace('http://', 'json://')}/{SECRET}",
    }
    settings = msgspec.convert({"type": kind, "timeout_seconds": 5.0} | fields | more, TargetSettings)
    return build("night", settings, environment)


def sent(kind: str, receiver: Receiver, *notices: Notice, **more: Any) -> list[Outcome]:
    found = list(target(kind, receiver.url, **more).send(notices or [notice()]))
    assert all(SECRET not in o.reason and KEY not in o.reason for o in found)
    assert all(o.reason.isprintable() and len(o.reason) <= 200 for o in found)
    return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(answer(500)).running() as running:
        yield running


every_http_target = pytest.mark.parametrize("kind", ["alertmanager", "pagerduty", "slack", "webhook"])
every_target = pytest.mark.parametrize("kind", list(TAKEN))


@every_target
def test_taken(kind: str, receiver: Receiver) -> None:
    """What a service takes is delivered, and every notice of a send has its outcome."""
    receiver.script = [TAKEN[kind]]
    notices = [notice(), notice(id="b", status="resolved", revision=2), notice(id="c", status="acknowledged")]
    assert sent(kind, receiver, *notices) == [Outcome("delivered")] * 3
    assert len(receiver.requests) == (3 if kind in ("pagerduty", "webhook") else 1)
    assert all(r.headers["content-type"].startswith("application/json") for r in receiver.requests)


@every_http_target
@pytest.mark.parametrize(
    ("status", "result", "lost"),
    [
        (301, "refused", False), (308, "refused", False), (302, "retry", True), (307, "retry", True),
        (400, "refused", False), (401, "refused", False), (404, "refused", False), (410, "refused", False),
        (408, "retry", True), (429, "retry", True), (500, "retry", False), (503, "retry", False),
    ],
)  # fmt: skip
def test_what_comes_back(kind: str, receiver: Receiver, status: int, result: str, lost: bool) -> None:
    """A status says whether it is worth trying again, and whether it can have arrived; nobody is followed."""
    with Receiver(TAKEN[kind]).running() as elsewhere:
        receiver.script = [answer(status, b"a page of a proxy", Location=elsewhere.url, Retry_After="7")]
        (found,) = sent(kind, receiver)
        assert (found.result, found.lost) == (result, lost)
        assert found.reason.startswith(f"HTTP {status}")
        assert found.retry_after_seconds == (7.0 if status in (408, 429, 500, 503) else None)
        assert elsewhere.requests == []


@every_http_target
def test_service_that_is_away(kind: str) -> None:
    """Nobody there: it surely did not arrive, and after the first the rest is not tried."""
    port = free_port()
    found = list(target(kind, f"http://127.0.0.1:{port}").send([notice(), notice(id="b")]))
    assert [(o.result, o.lost) for o in found] == [("retry", True)] * 2
    assert "no connection" in found[0].reason


@every_http_target
def test_garbage_that_says_it_is_fine(kind: str, receiver: Receiver) -> None:
    """A proxy's page under status 200 is no delivery, where we know what the service itself would say."""
    for body in (b"<html>Please log in</html>", b"[]", b"\xff\x00", b"{" * 100_000, b" " * 1_000_000 + b"x"):
        receiver.script = [answer(200, body)]
        (found,) = sent(kind, receiver)
        assert found.result == ("delivered" if kind == "webhook" else "retry")
    receiver.script = [answer(200, gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip")]
    assert sent(kind, receiver)[0].result == ("delivered" if kind == "webhook" else "retry")


@every_http_target
def test_server_that_hangs_or_drips(kind: str, receiver: Receiver) -> None:
    """Silence, and a byte now and then, end at the time limit."""

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(60):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    for reply in (drip, lambda handler: time.sleep(3)):
        receiver.script = [reply]
        found = sent(kind, receiver, notice(), notice(id="b"), timeout_seconds=0.3)
        assert [o.result for o in found] == ["retry"] * 2
        assert not found[0].lost
    assert "no whole answer within 0.3 s" in found[0].reason


@every_http_target
def test_secrets_that_come_back(kind: str, receiver: Receiver) -> None:
    """A server that throws back what it was sent gets no secret into a reason."""
    secret = KEY if kind == "pagerduty" else SECRET
    echo = json.dumps({"status": "bad", "message": f"no {secret}", "errors": [secret]}).encode()
    for status in (200, 400, 500):
        receiver.script = [answer(status, echo)]
        sent(kind, receiver)  # looks for them


@every_http_target
def test_not_http_at_all(kind: str) -> None:
    """A port where something else listens."""
    with receivers.rude(lambda c: c.sendall(b"220 mail.example ESMTP\r\n")) as port:
        (found,) = target(kind, f"http://127.0.0.1:{port}").send([notice()])
    assert found.result == "retry"
    assert not found.lost


@every_http_target
@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_notices_are_taken(kind: str, receiver: Receiver, text: str) -> None:
    """Whatever names and excerpts hold, the request is whole and of bounded size."""
    receiver.script = [TAKEN[kind]]
    assert [o.result for o in sent(kind, receiver, hostile(text), excerpts=True)] == ["delivered"]
    assert len(receiver.requests[0].body) < 512_000
    json.loads(receiver.requests[0].body.decode())


def test_time_of_a_whole_send(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are slow each do not outlast a delivery's lease together: what is left is due again."""
    monkeypatch.setattr(http, "SEND_SECONDS", 5.3)  # the time limit of one request is 5 s
    receiver.script = [lambda handler: (time.sleep(0.2), TAKEN["webhook"](handler))[0]]
    found = sent("webhook", receiver, *(notice(id=f"n{i}") for i in range(20)))
    assert found[0] == Outcome("delivered")
    assert found[-1].result == "retry"
    assert found[-1].lost
    assert len(receiver.requests) < 10


def test_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that takes the machine's resolver for ever holds nothing up beyond the time limit."""
    enough, ended = threading.Event(), threading.Event()

    def resolve(*_: Any, **__: Any) -> Any:
        enough.wait(30)
        ended.set()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    (found,) = target("webhook", "https://hooks.invalid", timeout_seconds=0.3).send([notice()])
    assert found.result == "retry"
    assert not ended.is_set()
    enough.set()
    assert ended.wait(30)


def test_time_of_a_send_that_is_split(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts that Alertmanager refuses together are sent one by one in what is left of the same time."""
    monkeypatch.setattr(http, "SEND_SECONDS", 5.3)  # the time limit of one request is 5 s
    receiver.script = [lambda handler: (time.sleep(0.5), answer(400)(handler))[0]]
    found = sent("alertmanager", receiver, notice(id="a"), notice(id="b"))
    assert [(o.result, o.lost) for o in found] == [("retry", True)] * 2
    assert len(receiver.requests) == 1


def test_one_bad_event_does_not_hold_up_the_others(receiver: Receiver) -> None:
    """PagerDuty refuses one event of three: the other two are delivered. Too many: the rest is not even tried."""
    bad = answer(400, b'{"status": "invalid event", "message": "Event object is invalid", "errors": ["no summary"]}')
    receiver.script = [TAKEN["pagerduty"], bad, TAKEN["pagerduty"]]
    notices = [notice(id=i) for i in "abc"]
    found = sent("pagerduty", receiver, *notices)
    assert [o.result for o in found] == ["delivered", "refused", "delivered"]
    assert found[1].reason == "HTTP 400: Event object is invalid; no summary"
    receiver.script = [answer(429, Retry_After="30")]
    receiver.requests.clear()
    assert [o.retry_after_seconds for o in sent("pagerduty", receiver, *notices)] == [30.0] * 3
    assert len(receiver.requests) == 1


def test_one_incident_of_pagerduty(receiver: Receiver) -> None:
    """Trigger, acknowledge and resolve go to one incident, in PagerDuty's shape."""
    receiver.script = [TAKEN["pagerduty"]]
    for status in ("firing", "acknowledged", "resolved"):
        sent("pagerduty", receiver, notice(status=status))
    events = [r.json for r in receiver.requests]
    for event in events:
        check(PAGERDUTY_EVENT, event)
    assert [e["event_action"] for e in events] == ["trigger", "acknowledge", "resolve"]
    assert {e["dedup_key"] for e in events} == {notice().id}
    assert {e["routing_key"] for e in events} == {KEY}
    assert events[0]["links"] == [
        {"href": notice().dashboard_url, "text": "Dashboard"},
        {"href": notice().runbook_url, "text": "Runbook"},
    ]


def test_slack_message(receiver: Receiver) -> None:
    """A group is one message of Slack's shape; what Slack says of a bad one is told."""
    receiver.script = [TAKEN["slack"], answer(400, b"invalid_blocks")]
    assert [o.result for o in sent("slack", receiver, notice(), notice(id="b"))] == ["delivered"] * 2
    (request,) = receiver.requests
    check(SLACK_MESSAGE, request.json)
    assert request.path == f"/services/T0/B0/{SECRET}"
    assert sent("slack", receiver) == [Outcome("refused", "HTTP 400: invalid_blocks")]


def documented(name: str) -> Any:
    """A function as docs/alert-targets.md has it."""
    page = (ROOT / "docs" / "alert-targets.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    space: dict[str, Any] = {}
    exec(code, space)
    return space[name]


def test_webhook_can_be_checked_by_its_receiver(receiver: Receiver) -> None:
    """The signature is that of time and body, the message is of the published schema, a repetition has the same key."""
    genuine = documented("genuine")
    receiver.script = [TAKEN["webhook"]]
    for revision in (1, 1, 2):
        sent("webhook", receiver, notice(revision=revision))
    schema = json.loads((ROOT / "docs" / "schemas" / "alert-webhook.v1.json").read_text(encoding="utf-8"))
    for request in receiver.requests:
        check(schema, request.json)
        header = request.headers["valuedrift-signature"]
        assert genuine(header, request.body, SECRET)
        assert not genuine(header, request.body + b" ", SECRET)
        assert not genuine(header.replace("t=", "t=1"), request.body, SECRET)
    keys = [r.headers["idempotency-key"] for r in receiver.requests]
    assert keys[0] == keys[1] != keys[2]


def test_apprise_sends_plain_text(receiver: Receiver) -> None:
    """A service of apprise gets a title and a text without mentions; a failure is tried again."""
    receiver.script = [TAKEN["apprise"]]
    assert sent("apprise", receiver, hostile("<!channel> @everyone"))[0].result == "delivered"
    found = receiver.requests[0].json
    assert "@" not in found["message"] + found["title"]
    assert "<" not in found["message"] + found["title"]
    assert "‹!channel› ＠everyone" in found["message"]
    for reply in (answer(500), answer(302, Location=receiver.url), lambda handler: time.sleep(2)):
        receiver.script = [reply]
        assert sent("apprise", receiver, timeout_seconds=1.0)[0].result == "retry"


# --- Alertmanager


def now() -> datetime:
    return datetime.now(UTC)


def current(**changes: Any) -> Notice:
    """A notice of an alert that was raised a minute ago."""
    return notice(**({"raised_at": now() - timedelta(minutes=1)} | changes))


def test_alertmanager_from_firing_to_resolved(alertmanager: AlertmanagerServer, told: Receiver) -> None:
    """An alert is read back with its labels and texts, told on once, silenced by its labels, and ends when it ends."""
    at = target("alertmanager", alertmanager.url)
    firing = current()
    hostiles = [current(id=f"h{i}", labels={"series": f"s{i}", text[:300]: text}, title=text, reason=text)
                for i, text in enumerate(HOSTILE.values())]  # fmt: skip
    outcomes = at.send([firing, *hostiles])
    assert list(outcomes) == [Outcome("delivered")] * (1 + len(HOSTILE))
    assert len(alertmanager.alerts()) == 1 + len(HOSTILE)
    (found,) = [a for a in alertmanager.alerts() if a["labels"]["series"] == "trial/m-1"]
    assert found["labels"] == firing.labels | {"alertname": "value_drift"}
    assert found["annotations"]["summary"] == firing.title
    assert found["annotations"]["runbook_url"] == firing.runbook_url
    assert "rose 24.0 points" in found["annotations"]["description"]
    assert found["generatorURL"] == firing.dashboard_url
    assert datetime.fromisoformat(found["startsAt"]) - firing.raised_at < timedelta(milliseconds=1)
    assert found["status"]["state"] == "active"
    wait_for("the alert to be told on", lambda: any(firing.title in r.body.decode() for r in told.requests))

    matcher = {"name": "series", "value": "trial/m-1", "isRegex": False, "isEqual": True}
    times = {"startsAt": now().isoformat(), "endsAt": (now() + timedelta(hours=1)).isoformat()}
    silence = {"matchers": [matcher], "createdBy": "test", "comment": "looked at"} | times
    alertmanager.post("/silences", silence)
    at.send([current(revision=2, raised_at=firing.raised_at)])
    wait_for("the silence", lambda: len(alertmanager.alerts(silenced="false")) == len(HOSTILE))

    at.send([current(status="resolved", resolved_at=now(), revision=3, raised_at=firing.raised_at)])
    wait_for("the end", lambda: all(a["labels"]["series"] != "trial/m-1" for a in alertmanager.alerts()))


def test_alertmanager_that_is_killed(alertmanager: AlertmanagerServer) -> None:
    """While it is away notices are due again; when it is back the next refresh brings the alert back."""
    at = target("alertmanager", alertmanager.url)
    firing = current()
    assert [o.result for o in at.send([firing])] == ["delivered"]
    alertmanager.stop(signal.SIGKILL)
    assert [(o.result, o.lost) for o in at.send([firing])] == [("retry", True)]
    alertmanager.start()
    assert alertmanager.alerts() == []
    assert [o.result for o in at.send([firing])] == ["delivered"]
    assert [a["annotations"]["alert_id"] for a in alertmanager.alerts()] == [firing.id]


def test_alertmanager_lets_go_of_what_is_not_refreshed(alertmanager: AlertmanagerServer) -> None:
    """A monitor that died leaves no alert behind: what is not sent again ends by itself."""
    settings = Alertmanager(url=alertmanager.url, refresh_seconds=60)
    at = AlertmanagerTarget(settings, Values("night", settings, {}), clock=lambda: now() - timedelta(seconds=299))
    at.send([current()])
    (found,) = alertmanager.alerts()
    assert datetime.fromisoformat(found["endsAt"]) - now() <= timedelta(seconds=1)
    wait_for("the end", lambda: alertmanager.alerts() == [])


# --- e-mail


def mail_target(port: int, environment: dict[str, str] | None = None, **more: Any) -> Target:
    values: dict[str, Any] = {
        "type": "email", "host": "127.0.0.1", "port": port, "security": "none", "sender": "Ops <ops@example.org>",
        "recipients": ["night@example.org", "day@example.org"], "timeout_seconds": 5.0,
    }  # fmt: skip
    return build("mail", msgspec.convert(values | more, TargetSettings), environment or {})


def test_mail_arrives() -> None:
    """A mail reaches all recipients with text, page and picture."""
    with receivers.smtp() as box:
        assert list(mail_target(box.port).send([notice()])) == [Outcome("delivered")]
        for text in HOSTILE.values():
            assert list(mail_target(box.port, excerpts=True).send([hostile(text, trace=())])) == [Outcome("delivered")]
    envelope = box.envelopes[0]
    assert (envelope.mail_from, envelope.rcpt_tos) == ("ops@example.org", ["night@example.org", "day@example.org"])
    content = envelope.content
    assert isinstance(content, bytes)
    read = email.message_from_bytes(content, policy=email.policy.default)
    assert read["Subject"] == f"[FIRING] {notice().title}"
    (picture,) = [p for p in read.walk() if p.get_content_type() == "image/png"]
    assert picture.get_content().startswith(b"\x89PNG")
    html = read.get_body(("html",))
    assert html is not None
    assert f"cid:{picture['Content-ID'].strip('<>')}" in html.get_content()
    assert all(e.rcpt_tos == envelope.rcpt_tos for e in box.envelopes)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # it knows STARTTLS only
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_encrypted_with_a_login(tmp_path: Path, security: str) -> None:
    """STARTTLS and TLS with a certificate that is checked; a wrong password is refused and not shown."""
    cert, context = receivers.certificate(tmp_path)
    more = {"security": security, "username": "ops", "password": "env:P", "ca_file": str(cert)}
    with receivers.smtp(context, implicit=security == "tls", password=SECRET) as box:
        assert list(mail_target(box.port, {"P": SECRET}, **more).send([notice()])) == [Outcome("delivered")]
        assert box.encrypted == [True]
        (wrong,) = mail_target(box.port, {"P": "wrong-" + SECRET}, **more).send([notice()])
        assert wrong.result == "refused"
        assert wrong.reason.startswith("SMTP 535")
        assert SECRET not in wrong.reason
        (stranger,) = mail_target(box.port, {"P": SECRET}, **(more | {"ca_file": ""})).send([notice()])
        assert stranger.result == "retry"
        assert "certificate" in stranger.reason
        assert len(box.envelopes) == 1


def test_mail_server_that_repeats_the_password() -> None:
    """What a server sends back of a login is not shown, encoded neither."""
    heard: list[bytes] = []

    def repeat(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        for line in connection.makefile("rb"):
            heard.append(line)
            greeting = line.lower().startswith(b"ehlo")
            connection.sendall(b"250-hello\r\n250 AUTH PLAIN\r\n" if greeting else b"535 what is " + line)

    with receivers.rude(repeat) as port:
        (found,) = mail_target(port, {"P": SECRET}, username="ops", password="env:P").send([notice()])
    assert any(line.startswith(b"AUTH PLAIN ") for line in heard)
    assert found.reason == "SMTP 535: what is AUTH PLAIN [secret]"


def test_mail_server_that_cannot_encrypt() -> None:
    """Where STARTTLS is wanted and not offered nothing is sent in plain text."""
    with receivers.smtp() as box:
        (found,) = mail_target(box.port, security="starttls").send([notice()])
    assert found.result == "refused"
    assert "STARTTLS" in found.reason
    assert box.envelopes == []


@pytest.mark.parametrize(
    ("said", "result", "lost"),
    [("451 later", "retry", True), ("552 too big", "refused", False), ("554 \x1b[31mno", "refused", False)],
)
def test_mail_server_that_says_no(said: str, result: str, lost: bool) -> None:
    """4xx is tried again, 5xx is not."""
    with receivers.smtp() as box:
        box.answers = said
        (found,) = mail_target(box.port).send([notice()])
    assert (found.result, found.lost) == (result, lost)
    assert found.reason.startswith(f"SMTP {said[:3]}")
    assert found.reason.isprintable()


def test_recipients_that_are_refused() -> None:
    """One of two: it is delivered to the other and says so. All: later or never, by what the server says of them."""
    with receivers.smtp() as box:
        box.unknown = {"day@example.org": "550 no such user"}
        (found,) = mail_target(box.port).send([notice()])
        assert found == Outcome("delivered", "not to 1 of 2 recipients: the server refused them")
        assert box.envelopes[0].rcpt_tos == ["night@example.org"]
        box.unknown["night@example.org"] = "550 no such user"
        assert mail_target(box.port).send([notice()])[0].result == "refused"
        box.unknown["night@example.org"] = "450 busy"
        assert mail_target(box.port).send([notice()])[0].result == "retry"


def test_mail_server_that_is_away_hangs_or_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, silence, a byte now and then, nonsense: each ends, in time, and is tried again."""

    def hang(connection: socket.socket) -> None:
        connection.recv(1)

    def greet_and_hang(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        while connection.recv(100):
            pass

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        for _ in range(200):
            connection.sendall(b"2")
            time.sleep(0.05)

    def drip_from_the_start(connection: socket.socket) -> None:
        while True:  # until it is hung up on
            connection.sendall(b"2")
            time.sleep(0.05)

    def nonsense(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    monkeypatch.setattr(email_target, "SEND_SECONDS", 0.8)
    (away,) = mail_target(free_port(), timeout_seconds=0.3).send([notice()])
    assert (away.result, away.lost) == ("retry", True)
    for say in (hang, greet_and_hang, drip, drip_from_the_start, nonsense):
        with receivers.rude(say) as port:
            (found,) = mail_target(port, timeout_seconds=0.3).send([notice()])
        assert found.result == "retry", say


def test_certificate_of_somebody_else(tmp_path: Path, receiver: Receiver) -> None:
    """An HTTPS address whose certificate nobody vouches for is not sent to."""
    _, context = receivers.certificate(tmp_path)

    def speak(connection: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    with receivers.rude(speak) as port:
        (found,) = target("webhook", f"https://localhost:{port}").send([notice()])
    assert (found.result, found.lost) == ("retry", True)
    assert "CERTIFICATE_VERIFY_FAILED" in found.reason
