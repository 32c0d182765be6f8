"""Dashboards for Grafana: what is written, and what is pushed to a server that keeps state as Grafana's API does."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.grafana import cli, dashboards, files, panels
from alerts.grafana.marks import LONGEST_TEXT, TAG, Mark
from alerts.grafana.push import GrafanaError, Pushed, connect, holds, push
from monitor.errors import ConfigError
from monitor.plot import COLOURS
from tests.conftest import ROOT, Run
from tests.grafana_cases import expand, other_queries, queries
from tests.grafana_server import TOKEN, Grafana, grafana

T0 = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = files.datasource("db:5432", "valuedrift", "valuedrift_reader", "require")
PASSWORD = "not-a-secret-either"
MARKS = [
    Mark("alert:0f3a", T0, T0 + timedelta(hours=1), "value_drift (a/b): <b>x</b> & more", ("alert", "series:1")),
    Mark("baseline:7", T0, T0, "baseline relearned", ("baseline", "series:1")),
]


@pytest.fixture
def server() -> Iterator[Grafana]:
    with grafana() as running:
        yield running


def pushed(server: Grafana, marks: list[Mark] = MARKS, password: str | None = PASSWORD, **more: Any) -> Pushed:
    client = connect(server.url, TOKEN)
    try:
        return push(client, SOURCE, password, marks, **more)
    finally:
        client.api.s.close()


# --- dashboards


def test_committed_files_are_what_is_built(tmp_path: Path) -> None:
    """docker/grafana holds what `valuedrift grafana write` writes, and nothing else."""
    files.write(tmp_path)
    committed = ROOT / "docker" / "grafana"

    def texts(folder: Path) -> dict[str, str]:
        return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}

    assert texts(committed) == texts(tmp_path)
    assert files.write(tmp_path) == []


@pytest.mark.parametrize("dashboard", dashboards.dashboards(), ids=lambda d: d["uid"])
def test_dashboards_are_sound(dashboard: dict[str, Any]) -> None:
    """Numbers and places of panels are their own, uids fit, and every query goes to the one data source."""
    assert dashboard["schemaVersion"] >= 41
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", dashboard["uid"])
    assert "id" not in dashboard
    ids = [p["id"] for p in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = [p["gridPos"] for p in dashboard["panels"]]
    assert all(g["x"] >= 0 and g["w"] > 0 and g["h"] > 0 and g["x"] + g["w"] <= 24 for g in places)
    for a, b in combinations(places, 2):
        apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        apart_y = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart_x or apart_y
    asked = [*dashboard["panels"], *dashboard["annotations"]["list"], *dashboard["templating"]["list"]]
    assert {x["datasource"]["uid"] for x in asked if "datasource" in x} == {panels.DATASOURCE_UID}
    for panel in dashboard["panels"]:
        assert panel["type"] in ("timeseries", "table", "stat")
        assert panel["title"]
        refs = [t["refId"] for t in panel["targets"]]
        assert len(set(refs)) == len(refs)
        assert {t["format"] for t in panel["targets"]} == {"time_series" if panel["type"] == "timeseries" else "table"}
    assert json.loads(json.dumps(dashboard)) == dashboard


def test_links_lead_to_dashboards_that_there_are() -> None:
    """What a table links to is a dashboard of ours, with a variable that it has."""
    by_uid = {d["uid"]: d for d in dashboards.dashboards()}
    links = re.findall(
        r'"url": "/d/([^?"]+)\?var-(\w+)=\$\{__data\.fields\.(\w+)\}"', json.dumps(list(by_uid.values()))
    )
    assert links
    for uid, variable, column in links:
        assert variable in {v["name"] for v in by_uid[uid]["templating"]["list"]}
        assert column == "id"


def test_colours_are_those_of_the_pictures() -> None:
    """Behaviours have the colours they have in plots and mails."""
    panel = next(p for _, p, _ in queries() if p["title"] == "What the turns are")
    shown = {
        o["matcher"]["options"]: q["value"]["fixedColor"]
        for o in panel["fieldConfig"]["overrides"]
        for q in o["properties"]
        if q["id"] == "color"
    }
    assert shown == COLOURS


def test_variables_get_into_queries_quoted() -> None:
    """Nowhere but as `${name:sqlstring}`, and only variables that the dashboard has."""
    texts = [(n, t["rawSql"]) for n, _, t in queries()] + list(other_queries())
    by_uid = {d["uid"]: {v["name"] for v in d["templating"]["list"]} for d in dashboards.dashboards()}
    used = 0
    for name, query in texts:
        found = re.findall(r"\$\{(\w+)(:\w+)?\}", query)
        used += len(found)
        assert {form for _, form in found} <= {":sqlstring"}
        assert {variable for variable, _ in found} <= by_uid[name.partition(":")[0]]
        assert "[[" not in query
        rest = expand(query, T0, T0 + timedelta(days=1), series="1", window="60")
        assert not re.search(r"\$[\w{]", rest)
    assert used > 10


def test_provisioning_files_fit_the_compose_file() -> None:
    """Address, role, database and the password's variable are those of docker-compose.yml; no password stands there."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    written = files.files()
    (source,) = yaml.safe_load(written["provisioning/datasources/valuedrift.yaml"])["datasources"]
    assert source["url"].partition(":")[0] in compose
    assert source["jsonData"]["database"] == compose["postgres"]["environment"]["POSTGRES_DB"]
    (variable,) = re.fullmatch(r"\$\{(\w+)\}", source["secureJsonData"]["password"]).groups()  # type: ignore[union-attr]
    assert variable in compose["grafana"]["environment"]
    assert "valuedrift_reader" in (ROOT / "docker" / "roles.sh").read_text()
    assert source["user"] == "valuedrift_reader"
    (provider,) = yaml.safe_load(written["provisioning/dashboards/valuedrift.yaml"])["providers"]
    mounts = dict(v.split(":")[:2] for v in compose["grafana"]["volumes"])
    assert provider["options"]["path"] == mounts["./docker/grafana/dashboards"]
    assert provider["folderUid"] == dashboards.FOLDER_UID
    assert mounts["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_write_says_what_it_wrote(in_process: Run, tmp_path: Path) -> None:
    """`valuedrift grafana write` into a new folder, again, and where it may not."""
    first = in_process("grafana", "write", tmp_path / "new")
    assert (first.returncode, first.stdout.count(": written")) == (0, 5)
    assert "already as it should be" in in_process("grafana", "write", tmp_path / "new").stdout
    (tmp_path / "file").touch()
    refused = in_process("grafana", "write", tmp_path / "file" / "below")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


# --- push


def test_push_makes_everything(server: Grafana) -> None:
    """An empty Grafana has data source, folder, the dashboards in it and the annotations, with the password as told."""
    done = pushed(server)
    assert len(done.created) == 1 + 1 + 3 + 2
    assert (done.changed, done.removed, done.unchanged) == ([], [], [])
    assert holds(server.datasources[panels.DATASOURCE_UID], SOURCE)
    assert server.secrets == {"password": PASSWORD}
    assert {d["meta"]["folderUid"] for d in server.dashboards.values()} == {dashboards.FOLDER_UID}
    assert set(server.dashboards) == {d["uid"] for d in dashboards.dashboards()}
    first = server.annotations[1]
    assert (first["time"], first["timeEnd"]) == (1772323200000, 1772326800000)
    assert first["tags"] == [TAG, "alert:0f3a", "alert", "series:1"]
    assert first["text"] == "value_drift (a/b): &lt;b&gt;x&lt;/b&gt; &amp; more"


def test_push_again_changes_nothing(server: Grafana) -> None:
    """The second push asks, finds everything as it is to be, and sends nothing; with no password either."""
    pushed(server)
    before = len(server.changes)
    again = pushed(server, password=None)
    assert server.changes[before:] == []
    assert (again.created, again.changed, again.removed, len(again.unchanged)) == ([], [], [], 7)


def test_push_mends_what_differs(server: Grafana) -> None:
    """What somebody changed or moved is made as it was; an alert that has ended gets its end; twins become one."""
    pushed(server)
    uid = dashboards.SERIES_UID
    server.dashboards[uid]["dashboard"]["panels"][0]["title"] = "mine"
    server.dashboards[dashboards.FLEET_UID]["meta"]["folderUid"] = "elsewhere"
    server.folders[dashboards.FOLDER_UID]["title"] = "renamed"
    server.datasources[panels.DATASOURCE_UID]["user"] = "postgres"
    server.annotations[9] = server.annotations[1] | {"id": 9}
    server.annotations[10] = {"id": 10, "time": 1, "timeEnd": 1, "tags": [TAG, "alert:0f3"], "text": "another"}
    ended = [Mark(MARKS[0].key, T0, T0 + timedelta(hours=5), MARKS[0].text, MARKS[0].tags), MARKS[1]]
    done = pushed(server, ended)
    assert len(done.changed) == 5
    assert done.removed == ["annotation alert:0f3a"]
    assert set(server.annotations) == {1, 2, 10}
    assert server.annotations[1]["timeEnd"] - server.annotations[1]["time"] == 5 * 3600 * 1000
    assert server.datasources[panels.DATASOURCE_UID]["user"] == "valuedrift_reader"
    assert server.dashboards[uid]["dashboard"]["version"] == 2
    assert pushed(server, ended).changed == []


def test_a_push_that_was_cut_short_is_finished_by_the_next(server: Grafana) -> None:
    """Wherever it fails, the next one does the rest and nothing twice."""
    server.instead["POST", "/api/annotations"] = (502, b"bad gateway")
    with pytest.raises(GrafanaError):
        pushed(server)
    server.instead.clear()
    done = pushed(server)
    assert done.created == ["annotation alert:0f3a", "annotation baseline:7"]
    assert len(server.annotations) == 2


def test_a_new_password_is_sent_when_asked(server: Grafana) -> None:
    """Grafana does not tell the password it has: a changed one is sent with `renew`."""
    pushed(server)
    assert pushed(server, password="newer").changed == []
    assert pushed(server, password="newer", renew=True).changed == ["data source valuedrift"]
    assert server.secrets == {"password": "newer"}


def test_without_a_password_nothing_is_made(server: Grafana) -> None:
    """A data source without a password would answer nothing: it is asked for."""
    with pytest.raises(ConfigError, match="--password-env"):
        pushed(server, password=None)
    assert server.changes == []


def test_grafana_at_a_path() -> None:
    """A Grafana below a path of a larger site."""
    with grafana("/tools/grafana") as server:
        assert len(pushed(server).created) == 7
        assert all(" /tools/grafana/api/" in asked for asked in server.asked)


REFUSALS = [
    (401, b'{"message": "Invalid API key"}', ["401", "Invalid API key", "Service accounts"]),
    (403, b'{"message": "Access denied"}', ["403", "role Admin"]),
    (404, b"<html>nginx</html>", ["404", "--url"]),
    (409, b'{"message": "same name"}', ["409", "same name", "another uid"]),
    (412, b'{"message": "version mismatch"}', ["412", "changed meanwhile"]),
    (500, b'{"message": "boom"}', ["500", "boom", "log"]),
    (503, b"", ["503"]),
    (400, b'{"message": "Cannot save provisioned dashboard"}', ["400", "provisioned"]),
    (400, b'{"message": "' + b"a" * 5000 + b'"}', ["400", "aaa"]),
    (302, b"", ["another address"]),
    (200, b"<html>login</html>", ["not one of Grafana's"]),
    (200, b"[1, 2]", ["Grafana"]),
    (500, b"7", ["not one of Grafana's"]),
    (429, b'{"message": "slow <down> \\u001b[31m"}', ["429"]),
]


@pytest.mark.parametrize(("status", "body", "said"), REFUSALS)
@pytest.mark.parametrize("at", ["GET /api/datasources", "POST /api/dashboards", "GET /api/annotations"])
def test_refusals_are_told(server: Grafana, status: int, body: bytes, said: list[str], at: str) -> None:
    """One line: what, what Grafana said of it, what to do; no token, no password, nothing a terminal would act on."""
    method, path = at.split()
    server.instead[method, path] = (status, body)
    if (status, at) == (200, "POST /api/dashboards") and body == b"[1, 2]":
        return  # what it says of a dashboard it has taken is not looked at
    with pytest.raises(GrafanaError) as refusal:
        pushed(server)
    text = str(refusal.value)
    assert all(word in text for word in said), text
    assert TOKEN not in text
    assert PASSWORD not in text
    assert text.isprintable()
    assert len(text) < 500


def test_a_grafana_that_repeats_secrets(server: Grafana) -> None:
    """A password that the answer repeats is not passed on."""
    server.instead["POST", "/api/datasources"] = (500, json.dumps({"message": f"bad password {PASSWORD}"}).encode())
    with pytest.raises(GrafanaError, match=r"bad password \*\*\*"):
        pushed(server)


def test_nobody_there() -> None:
    """An address where nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        client = connect(f"http://127.0.0.1:{s.getsockname()[1]}", TOKEN)
        with pytest.raises(GrafanaError, match="does not answer"):
            push(client, SOURCE, PASSWORD, [])


@pytest.mark.parametrize(
    "url", ["", "grafana", "ftp://x", "http://", "https://u:p@x", "https://x:99999", "https://x/?a=b"]
)
def test_addresses_that_are_none(url: str) -> None:
    """They are refused before anything is sent."""
    with pytest.raises(ConfigError, match="--url"):
        connect(url, TOKEN)


def test_no_token_goes_unencrypted_to_another_machine() -> None:
    """Unless that is asked for."""
    with pytest.raises(ConfigError, match="--allow-http"):
        connect("http://grafana.example.com", TOKEN)
    connect("http://grafana.example.com", TOKEN, allow_http=True)
    connect("https://grafana.example.com", TOKEN)


@pytest.mark.parametrize("token", ["", "a b", "a\nX-Evil: 1", "é"])
def test_tokens_that_are_none(token: str) -> None:
    """A token that would break out of its header is refused, and not repeated."""
    with pytest.raises(ConfigError) as refusal:
        connect("http://127.0.0.1", token)
    assert not token or token not in str(refusal.value)


def test_texts_are_bounded_and_inert() -> None:
    """Reasons hold label values that strangers wrote; what is shown of them is text."""
    values = Mark("alert:1", T0, T0, "<img src=x onerror=alert(1)>" * 1000, ()).values()
    assert "<" not in values["text"]
    assert len(values["text"]) <= 4 * LONGEST_TEXT


@pytest.mark.parametrize(
    ("url", "postgres", "address", "mode"),
    [
        ("postgresql://w@db/valuedrift", None, "db:5432", "require"),
        ("postgresql://w:secret@db:6000/valuedrift?sslmode=verify-full", None, "db:6000", "verify-full"),
        ("postgresql+psycopg://w@[::1]/valuedrift?sslmode=prefer", None, "[::1]:5432", "require"),
        ("postgresql:///valuedrift?host=/tmp/s", "pg:5433", "pg:5433", "require"),
    ],
)
def test_data_source_from_the_settings(url: str, postgres: str | None, address: str, mode: str) -> None:
    """The address that Grafana is given is that of the settings, or the one given; never their user or password."""
    found = cli._datasource(url, postgres, "valuedrift_reader", None)
    assert (found["url"], found["jsonData"]["sslmode"]) == (address, mode)
    assert found["jsonData"]["database"] == "valuedrift"
    assert "secret" not in json.dumps(found)


def test_sqlite_cannot_be_read_by_grafana(in_process: Run) -> None:
    """Said before anything is sent; so is a variable that is not set."""
    push_it = ("grafana", "push", "--url", "http://127.0.0.1:9", "--token-env", "T")
    refused = in_process(*push_it, "--db", "sqlite:///x.db", env={"T": TOKEN})
    assert refused.returncode == 2
    assert "PostgreSQL" in refused.stderr
    unset = in_process(*push_it, "--db", "sqlite:///x.db")
    assert unset.returncode == 2
    assert "variable T is not set" in unset.stderr
    assert TOKEN not in refused.stderr
