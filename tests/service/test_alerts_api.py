"""Alerts over HTTP: looked at and acted on by keys marked +oncall, each within its own deployments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.store import schema
from monitor.store.database import writing
from tests.service.desk_cases import Bench
from tests.service.serving import JSON, Answer, Serving, count, transcript

pytestmark = pytest.mark.service
MINUTE = timedelta(minutes=1)
WRITER, FLEET, SHOP = "a-key-that-only-writes", "a-key-of-the-fleet's-pager", "a-key-of-the-shop's-pager"
KEYS = f'app {WRITER}; fleet "{FLEET}" +oncall; shop "{SHOP}" +oncall "shop*"'
ENV = {"VALUEDRIFT_API_KEYS": KEYS, "VALUEDRIFT_SERVE_STEP_SECONDS": "0"}


class Api:
    """A server over a bench of three deployments; passes are the test's."""

    def __init__(self, url: str, folder: Path, **env: str) -> None:
        self.bench = Bench(url, folder, "shop*", "shop-eu", "bank")
        self.server = Serving(folder, url, env=ENV | env)

    def ask(self, method: str, path: str, key: str | None = FLEET, body: Any = None, **headers: str) -> Answer:
        sent = ({"authorization": f"Bearer {key}"} if key else {}) | (JSON if body is not None else {}) | headers
        return self.server.ask(method, path, None if body is None else json.dumps(body).encode(), sent)

    def ids(self, key: str = FLEET, query: str = "") -> list[str]:
        return [a["id"] for a in self.ask("GET", f"/v1/alerts{query}", key).json["alerts"]]


def running(url: str, folder: Path, **env: str) -> Iterator[Api]:
    found = Api(url, folder, **env)
    yield found
    assert found.server.stop() == 0, found.server.logged
    found.server.__exit__(None, None, None)
    found.bench.close()


@pytest.fixture
def either(url: str, tmp_path: Path) -> Iterator[Api]:
    """On either database."""
    yield from running(url, tmp_path)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    yield from running(f"sqlite:///{tmp_path}/a.db", tmp_path)


@pytest.fixture
def keeping_texts(tmp_path: Path) -> Iterator[Api]:
    yield from running(f"sqlite:///{tmp_path}/a.db", tmp_path, VALUEDRIFT_INPUT_STORE_TEXT="always")


def test_an_alert_from_the_list_to_its_end(either: Api) -> None:
    """Listed, shown, explained, taken in hand by whom the key names, given back, resolved."""
    api = either
    api.bench.look(MINUTE, **{"shop*": 0.9, "bank": 0.9})
    key = api.bench.alert("bank")
    listed = api.ask("GET", "/v1/alerts?series=bank/m")
    assert (listed.status, [a["id"] for a in listed.json["alerts"]]) == (200, [key])
    assert listed.headers["cache-control"] == "no-store"
    shown = api.ask("GET", f"/v1/alerts/{key}").json
    assert (shown["state"], shown["severity"], shown["series"]) == ("firing", "page", "bank/m")
    assert shown["values"]["figures"] == {"misaligned": [0.9, 0.9, 0.9]}
    assert "Z" in shown["raised_at"]
    acked = api.ask("POST", f"/v1/alerts/{key}/ack", body={"by": "Ada", "comment": "on it"})
    assert (acked.status, acked.json["state"], acked.json["acknowledged_by"]) == (
        200,
        "acknowledged",
        "Ada (key fleet)",
    )
    assert api.ask("POST", f"/v1/alerts/{key}/ack", body={}).status == 409
    explained = api.ask("GET", f"/v1/alerts/{key}/explain").json
    assert [(e["reason"], e["text"]) for e in explained["events"] if e["kind"] == "ack"] == [
        ("acknowledged", "by Ada (key fleet): on it")
    ]
    assert {t["target"] for t in explained["now"]["targets"]} == {"pager", "channel"}
    assert api.ask("DELETE", f"/v1/alerts/{key}/ack").json["state"] == "firing"
    api.bench.look(bank=0.1)
    assert api.ids() == [api.bench.alert("shop*")]
    assert set(api.ids(query="?all=true")) == {key, api.bench.alert("shop*")}


def test_pages_of_a_long_list(api: Api) -> None:
    """A list is cut into pages, each says where the next begins, and together they are all, newest first."""
    for k in range(3, 0, -1):
        api.bench.look(2 * k * MINUTE, **{"shop*": 0.9, "bank": 0.9})
        api.bench.look((2 * k - 1) * MINUTE, **{"shop*": 0.1, "bank": 0.1})
    pages, before = [], ""
    for _ in range(4):
        answer = api.ask("GET", f"/v1/alerts?all=true&limit=2{before}").json
        pages.append([a["id"] for a in answer["alerts"]])
        before = f"&before={answer['before']}"
        if answer["before"] is None:
            break
    assert [len(p) for p in pages] == [2, 2, 2, 0]
    assert [alert for page in pages for alert in page] == api.ids(query="?all=true&limit=500")


def test_silence_and_its_end(api: Api) -> None:
    """What is silenced says by what; ended, it says so no more. A silence of one deployment is none of another."""
    api.bench.look(MINUTE, **{"shop*": 0.9, "bank": 0.9})
    body = {"matchers": {"rule": "too_*", "deployment": "bank"}, "for": "2h", "comment": "a move"}
    made = api.ask("POST", "/v1/silences", body=body)
    assert (made.status, made.json["created_by"]) == (201, "fleet")
    (bank,) = (a for a in api.ask("GET", "/v1/alerts").json["alerts"] if a["silenced_by"])
    assert (bank["id"], bank["silenced_by"]) == (api.bench.alert("bank"), made.json["id"])
    assert [s["id"] for s in api.ask("GET", "/v1/silences").json["silences"]] == [made.json["id"]]
    assert api.ask("DELETE", f"/v1/silences/{made.json['id']}").json == {"id": made.json["id"], "ended": True}
    assert api.ask("GET", "/v1/silences").json["silences"] == []
    assert len(api.ask("GET", "/v1/silences?all=true").json["silences"]) == 1
    assert api.ask("DELETE", f"/v1/silences/{made.json['id']}").status == 404


def test_a_key_of_one_deployment_reaches_no_other(either: Api) -> None:
    """It sees, takes in hand and silences its own; of others there is nothing for it, by name or by wildcard."""
    api = either
    api.bench.look(MINUTE, **{"shop*": 0.9, "shop-eu": 0.9, "bank": 0.9})
    own, others = api.bench.alert("shop*"), [api.bench.alert("shop-eu"), api.bench.alert("bank")]
    assert api.ids(SHOP) == [own]
    assert api.ids(SHOP, "?all=true") == [own]
    assert api.ids(SHOP, "?series=bank/m") == api.ids(SHOP, "?series=nobody/m") == []
    for other in others:
        for method, path in (("GET", ""), ("GET", "/explain"), ("POST", "/ack"), ("DELETE", "/ack")):
            answer = api.ask(method, f"/v1/alerts/{other}{path}", SHOP, {} if method == "POST" else None)
            assert (answer.status, answer.json) == (404, {"error": "no such alert"}), (method, path)
    for matchers in ({"deployment": "*"}, {"deployment": "shop-eu"}, {"deployment": "[s]hop*"}, {"deployment": ""}):
        assert api.ask("POST", "/v1/silences", SHOP, {"matchers": matchers, "for": "1h"}).status == 403
    made = api.ask("POST", "/v1/silences", SHOP, {"matchers": {"rule": "*"}, "for": "1h"})
    assert made.json["matchers"] == {"rule": "*", "deployment": "shop[*]"}
    silenced = {a["id"] for a in api.ask("GET", "/v1/alerts").json["alerts"] if a["silenced_by"]}
    assert silenced == {own}
    theirs = {"matchers": {"rule": "*"}, "for": "1d", "comment": "what the bank is up to"}
    all_over = api.ask("POST", "/v1/silences", body=theirs).json["id"]
    assert [s["id"] for s in api.ask("GET", "/v1/silences", SHOP).json["silences"]] == [made.json["id"]]
    assert api.ask("DELETE", f"/v1/silences/{all_over}", SHOP).status == 404
    explained = api.ask("GET", f"/v1/alerts/{own}/explain", SHOP)
    assert explained.json["now"]["silence"]["id"] == all_over
    assert b"up to" not in explained.body
    assert api.ask("POST", f"/v1/alerts/{own}/ack", SHOP, {}).status == 200


def test_who_may(api: Api) -> None:
    """Without a key, and with one that writes, nothing; and a key that looks after alerts writes no transcripts."""
    api.bench.look(MINUTE, bank=0.9)
    one = f"/v1/alerts/{api.bench.alert('bank')}"
    paths = [("GET", "/v1/alerts"), ("GET", one), ("GET", f"{one}/explain"), ("POST", f"{one}/ack"),
             ("DELETE", f"{one}/ack"), ("GET", "/v1/silences"), ("POST", "/v1/silences"),
             ("DELETE", "/v1/silences/0123456789abcdef")]  # fmt: skip
    for method, path in paths:
        body = {"matchers": {"rule": "*"}, "for": "1h"} if method == "POST" else None
        assert api.ask(method, path, None, body).status == 401
        assert api.ask(method, path, "a-key-that-nobody-has", body).status == 403
        assert api.ask(method, path, WRITER, body).status == 403
    assert api.server.post([transcript(1)], {"authorization": f"Bearer {FLEET}"}).status == 403
    assert api.server.post([transcript(1)], {"authorization": f"Bearer {WRITER}"}).status == 202
    assert count(api.bench.url, "silences") == 0
    assert api.ask("GET", one).json["state"] == "firing"


def test_without_keys_alerts_are_nobodys(tmp_path: Path) -> None:
    """Where anybody on this machine may write, still nobody may read or silence alerts."""
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", env={"VALUEDRIFT_SERVE_STEP_SECONDS": "0"}) as open_to_all:
        assert open_to_all.post([transcript(1)]).status == 202
        assert open_to_all.get("/v1/alerts").status == 403
        body = json.dumps({"matchers": {"rule": "*"}, "for": "1h"}).encode()
        assert open_to_all.ask("POST", "/v1/silences", body, JSON).status == 403


def test_what_is_not_understood(api: Api) -> None:
    """A misspelt parameter or field, a foreign body, ids that are none: refused, and nothing happens."""
    for path in ("/v1/alerts?al=true", "/v1/alerts?limit=0", "/v1/alerts?limit=501", "/v1/alerts?limit=x",
                 "/v1/alerts?all=yes", "/v1/alerts?before=%00",
                 "/v1/silences?series=x"):  # fmt: skip
        assert api.ask("GET", path).status == 400, path
    for alert in ("abcd", "%00", "x" * 2000, "..%2f..", "'%20OR%201=1"):
        assert api.ask("GET", f"/v1/alerts/{alert}").status == 404, alert
    bodies = ({"matchers": {}, "for": "1h"}, {"matchers": {"rule": "*"}}, {"matchers": {"rule": "*"}, "for": "31d"},
              {"matchers": {"rule": "*"}, "for": "-1h"}, {"matchers": {"rule": 1}, "for": "1h"},
              {"matchers": {"rule": "*"}, "for": "1h", "until": "x"},
              {"matchers": {"rule": "*" * 50}, "for": "1h"},
              {"matchers": {str(i): "x" for i in range(99)}, "for": "1h"},
              {"matchers": {"rule": "*"}, "for": "1h", "comment": "x" * 5000})  # fmt: skip
    for body in bodies:
        assert api.ask("POST", "/v1/silences", body=body).status == 400, body
    text = {"content-type": "text/plain"}
    assert api.ask("POST", "/v1/silences", body=bodies[0], **text).status == 415
    assert api.ask("POST", "/v1/silences", body={"comment": "x" * 100_000}).status == 413
    assert api.ask("PUT", "/v1/silences", body={}).status == 405
    assert count(api.bench.url, "silences") == 0
    assert '/v1/alerts"' in api.server.get("/metrics").body.decode()


def test_no_transcript_text(keeping_texts: Api) -> None:
    """Telling turns are named by id and place; what was kept of their texts stays in the database."""
    api, said = keeping_texts, transcript(1)
    api.bench.look(MINUTE, bank=0.9)
    (event,) = api.server.post([said], {"authorization": f"Bearer {WRITER}"}).json["results"]
    assert count(api.bench.url, "turn_texts") == 1
    turn = {"event_id": event["event_id"], "turn": 0, "ts": said["ts"], "behaviour": "deception", "probability": 0.9,
            "where": "log:1", "conversation_id": "c"}  # fmt: skip
    with writing(api.bench.engine) as connection:
        connection.execute(schema.alerts.update().values(telling_turns=[turn]))
    one = f"/v1/alerts/{api.bench.alert('bank')}"
    shown, explained = api.ask("GET", one).body, api.ask("GET", f"{one}/explain").body
    assert event["event_id"].encode() in shown
    assert b"parcel" not in (shown + explained).lower()
