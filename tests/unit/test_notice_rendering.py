"""What targets make of notices: nothing that an attacker wrote acts as markup anywhere, and every limit is kept."""

from __future__ import annotations

import doctest
import email
import email.policy
import json
import re
from collections.abc import Sequence
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alerts.links
import alerts.targets.alertmanager
import alerts.targets.text
from alerts.notice import MOST_TURNS, Notice
from alerts.targets.alertmanager import posted
from alerts.targets.email import message as mail
from alerts.targets.mail_page import page
from alerts.targets.pagerduty import LONGEST_EVENT_BYTES, event
from alerts.targets.slack import message as slack_message
from alerts.targets.text import harmless, inert, plain, sparkline, subject
from alerts.targets.webhook import message as webhook_message
from tests.conftest import ROOT
from tests.notice_cases import HOSTILE, NOW, hostile, notice
from tests.shapes import PAGERDUTY_EVENT, SLACK_MESSAGE, check

WEBHOOK = json.loads((ROOT / "docs" / "schemas" / "alert-webhook.v1.json").read_text(encoding="utf-8"))
OPS = Address("Ops", "ops", "example.org")
every_hostile_string = pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))


def mailed(notices: Sequence[Notice]) -> EmailMessage:
    """A mail as its reader gets it."""
    sent = mail(notices, OPS, [OPS], NOW).as_bytes()
    return email.message_from_bytes(sent, policy=email.policy.default)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def slack_texts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """All text objects of a message."""
    blocks = message["blocks"]
    return [
        *(b["text"] for b in blocks if "text" in b),
        *(t for b in blocks for t in (*b.get("fields", ()), *b.get("elements", ()))),
    ]


def printable_lines(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@every_hostile_string
def test_slack_reads_no_markup_of_others(text: str) -> None:
    """In a Slack message only our own line of links is markup; no mention, link or emoji of a transcript is one."""
    for notices in ([hostile(text)], [hostile(text), notice(), hostile(text, status="resolved", resolved_at=NOW)]):
        message = slack_message([harmless(n, excerpts=True) for n in notices])
        check(SLACK_MESSAGE, message)
        assert not re.search("[<>]", message["text"])
        assert message["mrkdwn"] is False
        for x in slack_texts(message):
            assert printable_lines(x["text"])
            if x["type"] == "plain_text":
                assert not re.search("[<>]", x["text"])
                assert not re.search("&(?!amp;|lt;|gt;)", x["text"])
                assert x["emoji"] is False
            else:
                assert re.fullmatch(
                    r"(<https://(grafana|docs)\.example/[^\s<>|]*\|(Dashboard|Runbook)>\s*)+", x["text"]
                )
        assert len(msgspec.json.encode(message)) < 60_000


@every_hostile_string
def test_mail_page_has_only_our_elements(text: str) -> None:
    """A page shows hostile text as text: the same elements and attributes as with harmless text, no more."""
    shown, harmless_text = (Page(page([harmless(hostile(t), excerpts=True)], "trace@x")) for t in (text, "words"))
    links = {"a"}
    assert [t for t, _ in shown.tags if t not in links] == [t for t, _ in harmless_text.tags if t not in links]
    for _tag, attributes in shown.tags:
        assert attributes.keys() <= {"lang", "charset", "name", "content", "style", "role", "width", "cellpadding",
                                     "cellspacing", "src", "alt", "href"}  # fmt: skip
        assert str(attributes.get("href", "https://grafana.example/")).startswith("https://grafana.example/")
        assert attributes.get("src", "cid:trace@x") == "cid:trace@x"
    assert printable_lines(shown.text)
    assert len(shown.text) < 100_000


@every_hostile_string
def test_no_header_is_broken_out_of(text: str) -> None:
    """Line ends and whatever else in names add no header, no recipient and no part to an e-mail."""
    read = mailed([harmless(hostile(text, id="x\r\nBcc: y@example.org"), excerpts=True)])
    assert sorted(read.keys()) == sorted(
        ["Subject", "From", "To", "Date", "Message-ID", "References", "Auto-Submitted", "Content-Type", "MIME-Version"]
    )
    assert str(read["To"]) == str(read["From"]) == "Ops <ops@example.org>"
    assert "\n" not in str(read["Subject"])
    assert str(read["Subject"]).isprintable()
    assert [p.get_content_type() for p in read.walk()] == [
        "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
    ]  # fmt: skip
    body = read.get_body(("plain",))
    assert body is not None
    assert printable_lines(body.get_content().replace("\r\n", "\n"))
    assert len(read.as_bytes()) < 600_000


@every_hostile_string
def test_alertmanager_hands_on_nothing_that_acts(text: str) -> None:
    """Alertmanager writes texts into chats as they are, so what acts there is replaced; label names are valid."""
    alert = posted(harmless(hostile(text), excerpts=False), NOW, timedelta(minutes=5))
    assert alert["labels"].keys() >= {"alertname", "severity", "series"}
    for name, value in alert["labels"].items():
        assert re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name)
        assert value
        assert value.isprintable()
        assert not re.search("[<>]", value)
    for name, value in alert["annotations"].items():
        if name != "dashboard_url":
            assert not re.search(r"[<>@`\[\]]", value)
        assert printable_lines(value)
    assert len(msgspec.json.encode(alert)) < 200_000


@every_hostile_string
def test_pagerduty_event_keeps_its_limits(text: str) -> None:
    """An event is of PagerDuty's shape and below its size, with the alert's id to know it by."""
    for status in ("firing", "acknowledged", "resolved"):
        found = event(harmless(hostile(text, status=status), excerpts=True)) | {"routing_key": "k" * 32}
        check(PAGERDUTY_EVENT, found)
        assert found["dedup_key"] == notice().id
        encoded = msgspec.json.encode(found)
        assert len(encoded) < LONGEST_EVENT_BYTES
        assert printable_lines(encoded.decode())


@every_hostile_string
def test_webhook_message_is_of_the_published_schema(text: str) -> None:
    """A webhook's message is what docs/schemas says, and has no field that stands not there."""
    for found in (notice(), hostile(text), hostile(text, series="", onset=None, figures=(), turns=(), trace=())):
        message = msgspec.json.decode(msgspec.json.encode(webhook_message(harmless(found, excerpts=True))))
        check(WEBHOOK, message)
        assert message.keys() == WEBHOOK["properties"].keys() == set(WEBHOOK["required"])
        turns = WEBHOOK["properties"]["telling_turns"]["items"]
        assert all(t.keys() == turns["properties"].keys() for t in message["telling_turns"])


@every_hostile_string
def test_text_for_other_services_is_plain(text: str) -> None:
    """What goes out through apprise has no mention and no link but ours."""
    shown = harmless(hostile(text), excerpts=True)
    for line in (*inert(plain(shown)).split("\n"), inert(subject([shown]))):
        assert line.isprintable()
        assert not re.search(r"[<>@`\[\]]", line)


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(codec=None), max_size=200), count=st.integers(1, 3))
def test_any_text_in_any_place(text: str, count: int) -> None:
    """No text whatever makes a rendering fail or break its medium's rules."""
    shown = [harmless(hostile(text), excerpts=True)] * count
    check(SLACK_MESSAGE, slack_message(shown))
    check(PAGERDUTY_EVENT, event(shown[0]) | {"routing_key": "k" * 32})
    check(WEBHOOK, msgspec.json.decode(msgspec.json.encode(webhook_message(shown[0]))))
    posted(shown[0], NOW, timedelta(minutes=5))
    assert len(Page(page(shown, None)).tags) > 5
    mail([harmless(hostile(text, trace=()), excerpts=True)], OPS, [OPS], NOW).as_bytes()


def test_excerpts_stay_here_unless_asked_for() -> None:
    """Without `excerpts = true` no rendering holds what a transcript says."""
    said = "an answer that nobody else may read"
    turns = tuple(t.__class__("e", 0, NOW, "deception", 0.9, "log:1", said, said) for t in notice().turns)
    quiet, told = (harmless(notice(turns=turns), excerpts=e) for e in (False, True))
    for n, expected in ((quiet, False), (told, True)):
        renderings = [
            json.dumps(slack_message([n])),
            json.dumps(event(n)),
            msgspec.json.encode(webhook_message(n)).decode(),
            page([n], None),
            plain(n),
        ]
        assert [said in r for r in renderings] == [expected] * len(renderings)
    assert said not in json.dumps(posted(told, NOW, timedelta(minutes=5)))


def test_five_hundred_alerts_are_one_message() -> None:
    """A group of any size is one Slack message and one e-mail, which say how many are left out."""
    many = [harmless(notice(id=f"id{i}"), excerpts=False) for i in range(500)]
    message = slack_message(many)
    check(SLACK_MESSAGE, message)
    assert "480 more" in message["blocks"][-1]["elements"][0]["text"]
    read = mailed(many)
    body = read.get_body(("plain",))
    assert body is not None
    assert "450 more" in body.get_content()
    assert subject(many) == "500 alerts (500 firing): value_drift"


def test_turns_and_figures_are_few() -> None:
    """Of a notice with too much of everything the first of each are shown."""
    shown = harmless(hostile("x"), excerpts=True)
    assert (len(shown.turns), len(shown.figures), len(shown.where)) == (MOST_TURNS, 12, 10)
    assert len(shown.trace) == 168


def test_mails_of_an_alert_are_one_thread() -> None:
    """A mail that is sent again is the same message, a later one another, and all refer to the alert's first."""
    first, again, later = (mailed([harmless(notice(revision=r), excerpts=False)]) for r in (1, 1, 2))
    other = mailed([harmless(notice(id="other"), excerpts=False)])
    assert first["Message-ID"] == again["Message-ID"] != later["Message-ID"]
    assert first["References"] == later["References"] != other["References"]
    assert len({m["Message-ID"] for m in (first, later, other)}) == 3


def test_message_says_what_a_person_needs() -> None:
    """Title, status, what moved, figures, where, turns, promise and links are in the text of every medium."""
    n = harmless(notice(), excerpts=True)
    wanted = (n.title, "FIRING page", "rose 24.0 points", "0.71 nats (0.55 to 0.86)", "prompt_version=v18 carries 91 %",
              "event trial-812 turn 0", "at most one in 90 days")  # fmt: skip
    texts = {
        "slack": "\n".join(x["text"] for x in slack_texts(slack_message([n]))),
        "mail": n.title + "\n" + plain(n),
        "page": Page(page([n], None)).text,
        "alertmanager": "\n".join(posted(n, NOW, timedelta(minutes=5))["annotations"].values()),
    }
    assert {k: [w for w in wanted if w not in t] for k, t in texts.items()} == {k: [] for k in texts}
    details = event(n)["payload"]["custom_details"]
    assert details["figures"]["S"] == "0.71 nats (0.55 to 0.86)"
    assert details["telling turns"][0]["answered"] == n.turns[0].answer


def test_alert_of_the_monitor_itself() -> None:
    """An alert without a series, and one that is the watchdog's, are told like any other."""
    n = harmless(notice(series="", severity="none", labels={"rule": "watchdog"}, trace=(), turns=()), excerpts=True)
    check(SLACK_MESSAGE, slack_message([n]))
    found = event(n) | {"routing_key": "k" * 32}
    check(PAGERDUTY_EVENT, found)
    assert (found["payload"]["source"], found["payload"]["severity"]) == ("valuedrift", "info")
    assert [p.get_content_type() for p in mailed([n]).walk()] == ["multipart/alternative", "text/plain", "text/html"]


def test_end_of_an_alert() -> None:
    """A resolved alert ends when it was resolved, never before it began and never ahead of the clock."""
    keeps = timedelta(minutes=5)
    for resolved_at, ends in ((NOW - keeps, NOW - keeps), (NOW + keeps, NOW), (None, NOW)):
        alert = posted(harmless(notice(status="resolved", resolved_at=resolved_at), excerpts=False), NOW, keeps)
        assert alert["endsAt"] == ends.isoformat()
    standing = posted(harmless(notice(status="acknowledged"), excerpts=False), NOW, keeps)
    assert standing["endsAt"] == (NOW + keeps).isoformat()
    ahead = posted(harmless(notice(raised_at=NOW + 9 * keeps), excerpts=False), NOW, keeps)
    assert ahead["startsAt"] <= ahead["endsAt"]


def test_examples_in_the_documentation() -> None:
    """The examples of the modules run."""
    assert doctest.testmod(alerts.targets.text) == (0, 3)
    assert doctest.testmod(alerts.targets.alertmanager) == (0, 1)
    assert doctest.testmod(alerts.links) == (0, 2)


def test_sparkline_shows_the_highest() -> None:
    """However many points a bar stands for, it is as high as the highest of them; no points, no line."""
    trace = notice().trace
    line = sparkline(trace, width=10)
    assert len(line) == 10
    assert line[-1] == "█"
    assert sparkline(()) == ""
    assert sparkline(trace[:3]) == sparkline(trace[:3], width=3)
