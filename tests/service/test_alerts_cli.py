"""`valuedrift alerts` as somebody on call uses it, on both databases."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from alerts.targets.settings import Webhook, build
from monitor.store import schema
from monitor.store.database import writing
from monitor.watch import utc_now
from tests.conftest import EXAMPLES, Run
from tests.service.desk_cases import Bench
from tests.service.oncall_cases import Clock, lane
from tests.service.pager import Pager
from tests.service.receivers import Receiver, answer

pytestmark = pytest.mark.service
MINUTE = timedelta(minutes=1)

Alerts = Callable[..., str]


@pytest.fixture
def bench(url: str, tmp_path: Path) -> Iterator[Bench]:
    found = Bench(url, tmp_path, "shop", "bank")
    yield found
    found.close()


@pytest.fixture
def alerts(bench: Bench, in_process: Run) -> Alerts:
    """Runs `valuedrift alerts ...`, which must go well; its output."""

    def run(*arguments: str) -> str:
        done = in_process("alerts", *arguments, "--db", bench.url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def now_of(alerts: Alerts, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(alerts("explain", *arguments, "--json"))["now"]
    return found


def targets(now: dict[str, Any]) -> dict[str, Any]:
    return {t["target"]: t["reason"] for t in now["targets"]}


def test_an_alert_from_the_list_to_its_end(bench: Bench, alerts: Alerts) -> None:
    """Listed, shown by the beginning of its id, taken in hand, given back; resolved it is listed with --all only."""
    assert alerts() == "no alert fires\n"
    bench.look(5 * MINUTE, shop=0.9, bank=0.1)
    key = bench.alert("shop")
    line = alerts("list")
    assert line.startswith(key)
    assert "firing page  too_much in shop/m: misaligned share of 24 h: 90 %" in line
    shown = alerts("show", key[:5])
    assert "ALERT too_much on shop/m" in shown
    assert f"valuedrift alerts explain {key}" in shown
    assert alerts("ack", key[:6], "--by", "Ada", "--comment", "on it") == f"{key} acknowledged by Ada\n"
    assert "acknowledged by Ada page" in alerts("list")
    assert "by hand    acknowledged: by Ada: on it" in alerts("explain", key)
    assert alerts("unack", key, "--by", "Ada") == f"{key} is acknowledged no more\n"
    bench.look(4 * MINUTE, shop=0.1)
    assert alerts() == "no alert fires\n"
    (whole,) = map(json.loads, alerts("list", "--all", "--json").splitlines())
    assert (whole["id"], whole["state"], whole["series"]) == (key, "resolved", "shop/m")
    assert "it is over" in alerts("explain", key)


def test_explain_a_silenced_alert(bench: Bench, alerts: Alerts) -> None:
    """Which silence keeps it from whom, until when and by whom; ended, the next pass tells."""
    made = alerts("silence", "--matcher", "deployment=sh*", "--for", "2h", "--by", "Ada", "--comment", "a move")
    silence = made.split()[0]
    bench.look(shop=0.9)
    key = bench.alert("shop")
    text = alerts("explain", key)
    assert f"in short: pager is kept quiet: silenced (by {silence}); channel is kept quiet: silenced" in text
    assert re.search(rf"kept back  pager: silenced: by {silence}$", text, re.M)
    assert re.search(rf"silence {silence} until .* by Ada: a move$", text, re.M)
    assert ", silenced  too_much" in alerts("list")
    assert silence in alerts("silences")
    assert alerts("unsilence", silence[:6]) == f"{silence} ended\n"
    assert alerts("silences") == "no silence stands\n"
    assert "(over)" in alerts("silences", "--all")
    assert all(t["tells_next"] for t in now_of(alerts, key)["targets"])
    bench.look(shop=0.9)
    text = alerts("explain", key)
    assert "to tell    pager: firing: page: fired earlier, kept back until now: silenced" in text
    assert "pager is told" not in text


def test_explain_an_inhibited_alert(bench: Bench, alerts: Alerts) -> None:
    """It fires, and another alert on the same series makes it superfluous; that one is named."""
    bench.look(20 * MINUTE, shop=0.45)
    bench.look(12 * MINUTE, shop=0.9)
    bench.look(MINUTE, shop=0.9)
    first, also = bench.alert("shop"), bench.alert("shop", "also_much")
    text = alerts("explain", also)
    assert "condition holds, waiting for `for`" in text
    assert f"channel is kept quiet: inhibited (by alert {first})" in text
    assert "pager is kept quiet: severity not wanted by the target (ticket)" in text
    assert f"inhibited by: alert {first}" in text
    assert targets(now_of(alerts, first)) == dict.fromkeys(("pager", "channel"), "repeat interval not reached")


@pytest.mark.parametrize(("status", "said"), [(503, "could not be told in 1 attempt(s)"), (404, "refused it")])
def test_explain_a_target_that_does_not_take_it(tmp_path: Path, in_process: Run, status: int, said: str) -> None:
    """An alert that fired and did not arrive says so first, with what the target answered."""
    bench = Bench(url := f"sqlite:///{tmp_path}/a.db", tmp_path, "shop")
    bench.look(shop=0.9)
    with Receiver(answer(status)).running() as receiver:
        target = build("pager", Webhook(url=receiver.url), {})
        assert lane(bench.engine, target, Clock(utc_now())).deliver() == 1
        target.close()
    text = in_process("alerts", "explain", bench.alert("shop"), "--db", url).stdout
    assert f"in short: pager {said}: HTTP {status}" in text
    assert re.search(rf"delivery   pager: {'retry' if status == 503 else 'refused'}: firing: HTTP {status}", text)
    bench.close()


def test_why_a_rule_does_not_fire(bench: Bench, alerts: Alerts, in_process: Run) -> None:
    """For a rule and a series: the condition as it is seen now, what it waits for, or why nothing can be said."""
    bench.look(MINUTE, shop=0.45, bank=0.1)
    on_shop = ("--series", "shop/m", "--rule")
    now = now_of(alerts, *on_shop, "too_much")
    assert (now["state"], now["holds"]) == ("inactive", False)
    assert now["condition"] == "misaligned share of 24 h: 45 %, should be at most 50 %"
    waits = alerts("explain", *on_shop, "also_much")
    assert re.search(r"in short: it waits for `for`: it fires at \d{4}-.* UTC if its condition holds until then", waits)
    assert "also_much on shop/m: pending" in waits
    assert "needs monitor.lambda_max_per_day" in alerts("explain", *on_shop, "alignment_work")
    assert "the series has not been stepped yet" in alerts("explain", *on_shop, "value_drift")
    assert "it is off until monitor" not in alerts("explain", *on_shop, "entropy_level")
    assert "monitor.entropy_above is set" in alerts("explain", *on_shop, "entropy_level")
    assert "alerts.rules.restoring_rate.below is set" in alerts("explain", *on_shop, "restoring_rate")
    assert "no target has watchdog = true" in alerts("explain", "--rule", "watchdog")
    bench.look(shop=0.9)
    assert "too_much on shop/m: firing" in alerts("explain", *on_shop, "too_much")
    for arguments, said in {
        ("--rule", "to_much", "--series", "shop/m"): "did you mean too_much?",
        ("--rule", "too_much", "--series", "shp/m"): "nearest: shop/m",
        ("--rule", "too_much"): "name it with --series",
        ("--rule", "watchdog", "--series", "shop/m"): "leave --series out",
        (): "give the ID of an alert",
    }.items():
        done = in_process("alerts", "explain", *arguments, "--db", bench.url)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_a_monitor_that_stands_still_is_told(bench: Bench, alerts: Alerts) -> None:
    """Where no process looks at the rules any more, an explanation begins with that."""
    bench.look(90 * MINUTE, shop=0.9)
    assert "WARNING: no watch, serve or worker has looked at the rules for 1 h 30 min" in alerts(
        "explain", bench.alert("shop")
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "zzzz"), "is no alert's id"),
        (("show", "abc"), "is no alert's id"),
        (("show", "abcd"), "no alert abcd"),
        (("ack", "abcd"), "no alert abcd"),
        (("silence", "--for", "2h"), "--matcher label=value"),
        (("silence", "--matcher", "rule", "--for", "2h"), "write label=value"),
        (("silence", "--matcher", "rule=x", "--for", "2 weeks"), "no duration"),
        (("silence", "--matcher", "rule=x", "--for", "31d"), "30 days at most"),
        (("silence", "--matcher", "rule=x", "--for", "0"), "longer than nothing"),
        (("unsilence", "abcd"), "is no silence that stands"),
        (("list", "--series", "nobody/m"), "no series yet"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, in_process: Run, arguments: tuple[str, ...], said: str) -> None:
    """Said in one line of stderr with what to do, and exit code 2."""
    done = in_process("alerts", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_id_that_begins_several_is_refused(bench: Bench, alerts: Alerts, in_process: Run) -> None:
    """A beginning that fits several alerts does nothing, and names them."""
    bench.look(MINUTE, shop=0.9, bank=0.9)
    t = schema.alerts
    for name in ("shop", "bank"):
        with writing(bench.engine) as connection:
            connection.execute(t.update().where(t.c.id == bench.alert(name)).values(id=f"abcd{name.encode().hex()}"))
    done = in_process("alerts", "show", "abcd", "--db", bench.url)
    assert done.returncode == 2
    assert "is the beginning of several alerts: abcd62616e6b, abcd73686f70" in done.stderr


def test_names_from_outside_are_inert(url: str, tmp_path: Path, in_process: Run) -> None:
    """A deployment that calls itself an escape sequence moves no cursor, and a silence of its alert covers only it."""
    evil, beside = "shop\x1bc*", "shop\x1bc-eu"
    bench = Bench(url, tmp_path, evil, beside)
    bench.look(MINUTE, **{evil: 0.9, beside: 0.9})
    key, other = bench.alert(evil), bench.alert(beside)
    for command in (("list",), ("show", key), ("explain", key), ("silence", key, "--for", "1h"), ("silences",)):
        done = in_process("alerts", *command, "--db", url)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
    silenced = {
        x["id"]: x["silenced_by"] is not None
        for x in map(json.loads, in_process("alerts", "--json", "--db", url).stdout.splitlines())
    }
    assert silenced == {key: True, other: False}
    bench.close()


def test_a_target_is_tried_out(tmp_path: Path, valuedrift: Run) -> None:
    """A trial alert and its end arrive under one id; a target that does not take it is exit code 3."""
    pager = Pager()
    (tmp_path / "valuedrift.toml").write_text(f'[alerts.targets.hook]\ntype = "webhook"\nurl = "{pager.url}"\n')
    done = valuedrift("alerts", "test", "hook")
    assert (done.returncode, done.stdout) == (0, "hook: firing delivered\nhook: resolved delivered\n"), done.stderr
    first, second = pager.incidents.notices
    assert first["id"] == second["id"]
    assert first["labels"]["trial"] == "true"
    pager.close()
    gone = valuedrift("alerts", "test", "hook")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "hook: firing was not taken (would be tried again)" in gone.stderr
    assert "did you mean hook?" in valuedrift("alerts", "test", "hok").stderr


def test_the_drift_of_a_finished_log(in_process: Run) -> None:
    """After a plain `watch FILE` the alert is shown with its telling turns, and explained by the time of the log."""
    assert in_process("watch", EXAMPLES).returncode == 0
    (alert,) = map(json.loads, in_process("alerts", "--json").stdout.splitlines())
    assert (alert["rule"], alert["severity"], alert["state"]) == ("value_drift", "page", "firing")
    shown = in_process("alerts", "show", alert["id"]).stdout
    assert "over_refusal" in shown
    assert "event ev-atlas-" in shown
    text = in_process("alerts", "explain", alert["id"]).stdout
    assert "nobody is told, for no target is set" in text
    assert "by the time of a finished log" in text
    why = ("alerts", "explain", "--series", "helpdesk/lark-small-2", "--rule")
    assert "the detectors' evidence of drift is" in in_process(*why, "value_drift").stdout
    assert "finished logs" in in_process(*why, "no_data").stdout
