"""`valuedrift report` and the weekly schedule, as a user and a receiver see them."""

from __future__ import annotations

import email
import email.policy
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from alerts.settings import Alerts
from alerts.targets.settings import Email, Webhook
from classifiers.tiers import load_tier
from monitor.config import Config, Report
from monitor.errors import ConfigError
from monitor.report import archive
from monitor.report.gather import Wanted
from monitor.report.model import ReportData
from monitor.report.schedule import REPORT_LOCK, Schedule
from monitor.report.send import receivers, send_report
from monitor.store import schema
from monitor.store.database import open_store, writing
from monitor.store.leading import leading
from tests.conftest import Run
from tests.service.receivers import Receiver, answer, smtp
from tests.service.report_stream import START, WEEK, baseline, one_hot, put, stepper, turns

pytestmark = pytest.mark.service
SECRET = {"SECRET": "0123456789abcdef"}
MONDAY = START + WEEK
"""The report of 2026-W46 is due from six o'clock on."""
DUE = MONDAY + timedelta(hours=6)


@pytest.fixture
def filled(url: str) -> Iterator[Engine]:
    """A series with a baseline and two weeks of turns, some of them with excerpts."""
    engine = open_store(url)
    put(engine, "bot", START - WEEK, turns(1, 200))
    put(engine, "bot", START, turns(2, 200))
    put(engine, "bot", START + timedelta(days=3), one_hot("deception", 2), excerpts=True, span=timedelta(hours=1))
    baseline(engine, "bot", turns(3, 300))
    yield engine
    engine.dispose()


def config(**targets: Any) -> Config:
    names = tuple(targets)
    return Config(alerts=Alerts(targets=targets), report=Report(schedule=True, formats=("md", "html"), targets=names))


class Hours:
    """Clocks that a test moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def steady(self) -> float:
        return self.now.timestamp()


def schedule(engine: Engine, settings: Config, clock: Hours) -> Schedule:
    return Schedule(stepper(engine), settings, clock, SECRET, clock.steady)


def weeks_kept(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(r.week for r in connection.execute(schema.reports.select()))


# --- the command


def test_command(tmp_path: Path, in_process: Run) -> None:
    """It writes the forms that are asked for, says where and what it found, and the same again when asked again."""
    database = f"sqlite:///{tmp_path}/a.db"
    version = load_tier("fast", None, 0.1, 0.02).version
    engine = open_store(database)
    for start, seed in ((START - WEEK, 1), (START, 2)):
        put(engine, "bot", start, turns(seed, 120), version=version)
    baseline(engine, "bot", turns(3, 300), version=version)
    engine.dispose()
    done = in_process("report", "--week", "2026-W46", "--db", database, "--format", "md,json", "--out", "mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["report: mine.md", "report: mine.json"]
    assert "week 2026-W46: " in done.stdout
    first = (tmp_path / "mine.json").read_bytes()
    data = msgspec.json.decode(first, type=ReportData)
    assert data.fleet.turns == 120
    again = in_process("report", "--week", "2026-W46", "--db", database, "--format", "json", "--series", "bot")
    assert again.returncode == 0, again.stderr
    assert msgspec.json.decode((tmp_path / "report-2026-W46.json").read_bytes(), type=ReportData) == data
    assert (
        in_process("report", "--week", "2026-W46", "--db", database, "--format", "json", "--out", "mine").returncode
        == 0
    )
    assert (tmp_path / "mine.json").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--week", "2025-W53"], "2026-W46"),
        (["--format", "docx"], "html, pdf, md, json"),
        (["--format", ","], "html, pdf, md, json"),
        (["--out", "nowhere/report"], "nowhere does not exist"),
        (["--out", "."], "names no file"),
        (["--series", "nobody"], "no series yet"),
        (["--send"], "report.targets"),
        (["--compare", "5w"], "previous"),
    ],
)
def test_wrong_usage(in_process: Run, arguments: list[str], said: str) -> None:
    """What cannot be done is one line that says what to do, and exit code 2."""
    done = in_process("report", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_targets() -> None:
    """A target that is not there, or cannot carry a report, is told when settings are read, not on Monday."""
    from alerts.targets.settings import Slack

    with pytest.raises(ConfigError, match=r"there is no \[alerts.targets.mail\]"):
        receivers(Config(report=Report(targets=("mail",))), {})
    with pytest.raises(ConfigError, match="only email and webhook"):
        receivers(config(chat=Slack(url="env:SECRET")), SECRET)


# --- sent


def test_mail_and_webhook(filled: Engine) -> None:
    """The mail has the files, the webhook the JSON, signed; excerpts go only where they are allowed."""
    with smtp() as box, Receiver(answer(200)).running() as hook:
        settings = config(
            mail=Email(
                host="127.0.0.1", port=box.port, security="none", sender="monitor@example.com",
                recipients=("head@example.com",), excerpts=True,
            ),
            hook=Webhook(url=f"{hook.url}/reports", secret="env:SECRET"),
        )  # fmt: skip
        reports = schedule(filled, settings, Hours(DUE))
        reports.look()
    [envelope] = box.envelopes
    mail = email.message_from_bytes(envelope.content or b"", policy=email.policy.default)
    assert mail["Subject"] == "valuedrift 2026-W46: 0 of 1 series drifted"
    attached = {part.get_filename(): part for part in mail.iter_attachments()}  # type: ignore[attr-defined]
    assert set(attached) == {"valuedrift-2026-W46.md", "valuedrift-2026-W46.html"}
    assert "said that" in attached["valuedrift-2026-W46.html"].get_content()
    [request] = hook.requests
    assert request.headers["idempotency-key"] == "report-2026-W46-previous"
    assert request.headers["valuedrift-signature"].startswith("t=")
    assert request.json["schema"] == "valuedrift.report/1"
    assert b"said that" not in request.body


def test_sent_once(filled: Engine) -> None:
    """One report a week reaches each target, whichever processes look how often; what failed is tried again later."""
    clock = Hours(DUE)
    with Receiver(answer(503), answer(200)).running() as hook:
        settings = config(hook=Webhook(url=hook.url))
        one, other = schedule(filled, settings, clock), schedule(filled, settings, clock)
        one.look()
        assert weeks_kept(filled) == ["2026-W46"]
        one.look()
        assert len(hook.requests) == 1, "not again at once"
        other.look()
        clock.now += timedelta(minutes=16)
        for reports in (one, other, schedule(filled, settings, clock)):
            reports.look()
        clock.now += timedelta(days=3)
        one.look()
    assert len(hook.requests) == 2, "refused once, taken once"
    assert len({r.headers["idempotency-key"] for r in hook.requests}) == 1


def test_not_before_its_hour(filled: Engine) -> None:
    """A minute before its hour the last report due is that of the week before."""
    schedule(filled, config(), Hours(DUE - timedelta(minutes=1))).look()
    assert weeks_kept(filled) == ["2026-W45"]


def test_refused_for_good(filled: Engine) -> None:
    """A target that refuses is not asked every quarter of an hour."""
    clock = Hours(DUE)
    with Receiver(answer(404)).running() as hook:
        reports = schedule(filled, config(hook=Webhook(url=hook.url)), clock)
        for _ in range(4):
            reports.look()
            clock.now += timedelta(hours=1)
    assert len(hook.requests) == 1


def test_made_up_for_after_downtime(filled: Engine) -> None:
    """Weeks that nobody reported of are made and sent when a process is there again, oldest first."""
    with Receiver(answer(200)).running() as hook:
        settings = config(hook=Webhook(url=hook.url))
        schedule(filled, settings, Hours(DUE)).look()
        schedule(filled, settings, Hours(DUE + 2 * WEEK)).look()
    assert weeks_kept(filled) == ["2026-W46", "2026-W47", "2026-W48"]
    assert [r.json["week"] for r in hook.requests] == ["2026-W46", "2026-W47", "2026-W48"]


def test_one_that_cannot_be_read(filled: Engine) -> None:
    """A kept report that cannot be read any more does not keep the later ones away."""
    with Receiver(answer(200)).running() as hook:
        settings = config(hook=Webhook(url=hook.url))
        schedule(filled, settings, Hours(DUE)).look()
        with writing(filled) as connection:
            connection.execute(schema.reports.update().values(data=b"?"))
        schedule(filled, settings, Hours(DUE + WEEK)).look()
    assert [r.json["week"] for r in hook.requests] == ["2026-W46", "2026-W47"]


def test_sent_before_the_week_is_over(filled: Engine) -> None:
    """Of a week that is not over nothing is kept: its report arrives, and nothing is noted of it."""
    now = START + WEEK / 2
    data, key = archive.made(stepper(filled), Report(), Wanted("2026-W46"), now)
    with Receiver(answer(200)).running() as hook:
        to = receivers(config(hook=Webhook(url=hook.url)), SECRET)
        assert send_report(filled, key, data, ["json"], to, now, anew=True) == {}
    assert [r.json["week"] for r in hook.requests] == ["2026-W46"]
    assert weeks_kept(filled) == []


def test_killed_between_making_and_sending(filled: Engine) -> None:
    """A report that was kept and not sent is sent by the next process, as it was made."""
    data, _ = archive.made(stepper(filled), Report(), Wanted("2026-W46"), DUE)
    with Receiver(answer(200)).running() as hook:
        schedule(filled, config(hook=Webhook(url=hook.url)), Hours(DUE + timedelta(hours=5))).look()
    assert msgspec.json.decode(hook.requests[0].body, type=ReportData) == archive.without_texts(data)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # a SQLite file is one process's
def test_only_the_leader(filled: Engine) -> None:
    """While another process makes the report, this one leaves it alone, and looks again later."""
    clock = Hours(DUE)
    reports = schedule(filled, config(), clock)
    with leading(filled, REPORT_LOCK) as leads:
        assert leads
        reports.look()
        assert weeks_kept(filled) == []
    clock.now += timedelta(minutes=16)
    reports.look()
    assert weeks_kept(filled) == ["2026-W46"]


def test_two_at_once(filled: Engine) -> None:
    """Two that make the same report at the same time keep one, and both go on with it."""
    found: list[ReportData] = []

    def make() -> None:
        found.append(archive.made(stepper(filled), Report(), Wanted("2026-W46"), DUE)[0])

    threads = [threading.Thread(target=make) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert weeks_kept(filled) == ["2026-W46"]


def test_off_by_default(filled: Engine) -> None:
    """Without `report.schedule` nothing is made by itself."""
    Schedule(stepper(filled), Config(), Hours(DUE), {}).look()
    assert weeks_kept(filled) == []
    assert json.loads(msgspec.json.encode(Config().report))["schedule"] is False
