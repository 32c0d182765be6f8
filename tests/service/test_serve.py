"""`valuedrift serve`: what is answered with 202 is in the database, once."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.own_server import until
from tests.service.serving import JSON, Serving, count, rows, transcript

pytestmark = pytest.mark.service
KEY = "correct-horse-battery-staple"
OTHER = "another-key-of-some-length"


@pytest.fixture
def db(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """For tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("shared")
    with Serving(folder, f"sqlite:///{folder}/a.db") as running:
        yield running


@pytest.fixture
def server(tmp_path: Path, db: str) -> Iterator[Serving]:
    with Serving(tmp_path, db) as running:
        yield running


def test_object_list_and_lines(server: Serving) -> None:
    """One object, a list and lines, plain and gzip, are all counted and stored when the answer comes."""
    one = server.ask("POST", "/v1/transcripts", json.dumps(transcript(1)).encode(), JSON)
    assert (one.status, one.statuses) == (202, ["counted"])
    many = server.ask("POST", "/v1/transcripts", json.dumps([transcript(2), transcript(3)]).encode(), JSON)
    assert (many.status, many.statuses) == (202, ["counted", "counted"])
    assert server.post([transcript(4), transcript(5)]).statuses == ["counted"] * 2
    assert server.post([transcript(6), transcript(7)], zipped=True).statuses == ["counted"] * 2
    assert count(server.url, "turns") == 7
    ids = [r["event_id"] for r in many.json["results"]]
    assert set(ids) < {r["event_id"] for r in rows(server.url, "turns")}


def test_known_formats_side_by_side(server: Serving) -> None:
    """Lines of different formats in one request are each told by themselves."""
    said = {"role": "user", "content": "Hello"}
    openai = {
        "ts": "2026-03-01T10:00:00Z",
        "request": {"model": "gpt-x", "messages": [said]},
        "response": {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "Hi."}}]},
    }
    anthropic = {
        "ts": "2026-03-01T10:00:00Z",
        "request": {"model": "claude-x", "messages": [said]},
        "response": {"id": "msg_1", "type": "message", "content": [{"type": "text", "text": "Hi."}]},
    }
    answer = server.post([openai, transcript(1), anthropic])
    assert answer.statuses == ["counted"] * 3, answer.body
    assert [r["event_id"] for r in answer.json["results"]][::2] == ["chatcmpl-1", "msg_1"]


def test_same_body_twice(server: Serving) -> None:
    """A client that sends a request again, having seen no answer, changes nothing: all are duplicates."""
    events = [transcript(n) for n in range(20)]
    assert server.post(events).statuses == ["counted"] * 20
    assert server.post(events).statuses == ["duplicate"] * 20
    assert count(server.url, "turns") == 20


def test_rejected_items(server: Serving) -> None:
    """Items that are no events are named with their reason, kept as dead letters, and hold up none of the others."""
    bad_time = transcript(2, ts="2999-01-01T00:00:00Z")
    answer = server.post([transcript(1), bad_time, {"model": "m"}, transcript(3)])
    assert answer.status == 202
    assert answer.statuses == ["counted", "rejected", "rejected", "counted"]
    assert "future" in answer.json["results"][1]["reason"]
    letters = rows(server.url, "dead_letters")
    assert sorted(d["reason"] for d in letters) == sorted(r["reason"] for r in answer.json["results"] if "reason" in r)
    assert len({d["payload_hash"] for d in letters}) == 2
    assert {len(d["payload_hash"]) for d in letters} == {16}
    assert server.figure('valuedrift_dead_letters_total{reason="time"}') == 1
    offset = rows(server.url, "offsets")[0]
    assert (offset["events"], offset["judged"], offset["dead_letters"], offset["position"]) == (4, 2, 2, 4)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"no json", JSON, 400),
        (b"", JSON, 400),
        (b'{"a": ', JSON, 400),
        (b'{"a": 1}{"b": 2}', JSON, 400),
        (b"[1, 2", JSON, 400),
        (b"nothing\nof this\n", {"content-type": "application/x-ndjson"}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"{}", {"content-type": "application/json; charset=utf-16"}, 415),
        (b"{}", JSON | {"content-encoding": "br"}, 415),
        (b"not gzip", JSON | {"content-encoding": "gzip"}, 400),
    ],
)
def test_not_taken(shared: Serving, body: bytes, headers: dict[str, str], status: int) -> None:
    """A body that is no transcripts at all is refused as a whole, with the reason, and leaves nothing behind."""
    answer = shared.ask("POST", "/v1/transcripts", body, headers)
    assert answer.status == status
    assert answer.json["error"]
    assert rows(shared.url, "dead_letters") == []


def test_other_paths(shared: Serving) -> None:
    """Other paths and methods are told apart from refusals."""
    assert shared.get("/").status == 404
    assert shared.get("/v1/transcripts").status == 405
    assert shared.ask("POST", "/v1/transcripts/", b"{}", JSON).status == 404


def test_keys(tmp_path: Path, db: str) -> None:
    """Without a key 401, with a wrong one 403; a key bound to a deployment writes no other, and need not name it."""
    hashed = hashlib.sha256(OTHER.encode()).hexdigest()
    keys = tmp_path / "keys"
    keys.write_text(f'# who\nshop {KEY} shop\n"every body" sha256:{hashed}\n', encoding="utf-8")
    with Serving(tmp_path, db, env={"VALUEDRIFT_SERVE_API_KEYS_FILE": str(keys)}) as server:
        assert server.post([transcript(1)]).status == 401
        assert server.post([transcript(1)], {"authorization": "Bearer wrong-but-long-enough"}).status == 403
        assert server.post([transcript(1)], {"x-api-key": KEY + "x"}).status == 403
        mine = {"authorization": f"Bearer {KEY}"}
        unnamed = transcript(3)
        del unnamed["deployment"]
        answer = server.post([transcript(1), transcript(2, deployment="bank"), unnamed], mine)
        assert answer.statuses == ["counted", "rejected", "counted"]
        assert "deployment" in answer.json["results"][1]["reason"]
        assert server.post([transcript(2, deployment="bank")], {"x-api-key": OTHER}).statuses == ["counted"]
        assert {r["deployment"] for r in rows(db, "series")} == {"shop", "bank"}
        assert server.get("/metrics").status == 200
        assert [d["reason"] for d in rows(db, "dead_letters")] == ["deployment is not one of this key's"]


def test_keys_of_the_environment(tmp_path: Path, db: str) -> None:
    """Keys may come from a variable; /metrics may be made to need one, too."""
    env = {"VALUEDRIFT_API_KEYS": f"a {KEY}; b {OTHER} bank", "VALUEDRIFT_SERVE_METRICS_NEED_KEY": "true"}
    with Serving(tmp_path, db, "--host", "0.0.0.0", env=env) as server:
        assert server.post([transcript(1)], {"x-api-key": KEY}).statuses == ["counted"]
        assert server.get("/metrics").status == 401
        assert server.get("/metrics", {"x-api-key": OTHER}).status == 200
        assert server.get("/readyz").status == 200


def test_open_to_the_world(tmp_path: Path, valuedrift: Run) -> None:
    """Without keys no other address than this machine's is listened on, unless that is said."""
    done = valuedrift("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "--no-auth" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with Serving(tmp_path, f"sqlite:///{tmp_path}/b.db", "--host", "0.0.0.0", "--no-auth") as server:
        assert server.post([transcript(1)]).statuses == ["counted"]


@pytest.mark.parametrize("keys", ["short tooshort", "onlyaname", 'a "unclosed', f"a {KEY}; a {OTHER}"])
def test_wrong_keys(valuedrift: Run, keys: str) -> None:
    """Keys that cannot be right are told before anything is served, without being shown."""
    done = valuedrift("serve", "--port", "0", env={"VALUEDRIFT_API_KEYS": keys})
    assert done.returncode == 2
    assert KEY not in done.stderr
    assert "tooshort" not in done.stderr


def test_port_in_use(shared: Serving, valuedrift: Run) -> None:
    """A port that is taken is told in one line."""
    done = valuedrift("serve", "--port", str(shared.port))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_rate_limit(tmp_path: Path, db: str) -> None:
    """A key that has sent its share is asked to wait; having waited it gets through, and others are not held up."""
    env = {
        "VALUEDRIFT_API_KEYS": f"a {KEY}; b {OTHER}",
        "VALUEDRIFT_SERVE_EVENTS_PER_SECOND": "20",
        "VALUEDRIFT_SERVE_BURST_SECONDS": "1",
    }
    with Serving(tmp_path, db, env=env) as server:
        assert server.post([transcript(n) for n in range(50)], {"x-api-key": KEY}).status == 202
        refused = server.post([transcript(100)], {"x-api-key": KEY})
        assert refused.status == 429
        wait = int(refused.headers["retry-after"])
        assert 1 <= wait <= 3
        assert server.post([transcript(101)], {"x-api-key": OTHER}).status == 202
        time.sleep(wait)
        assert server.post([transcript(100)], {"x-api-key": KEY}).statuses == ["counted"]


def test_series_limits(tmp_path: Path, db: str) -> None:
    """A key that invents deployments fills its own share of series; all keys together not more than there may be."""
    env = {
        "VALUEDRIFT_API_KEYS": f"a {KEY}; b {OTHER}",
        "VALUEDRIFT_SERVE_MAX_SERIES_PER_KEY": "3",
        "VALUEDRIFT_INPUT_MAX_SERIES": "5",
    }
    with Serving(tmp_path, db, env=env) as server:
        invented = [transcript(n, deployment=f"d{n}") for n in range(6)]
        assert server.post(invented, {"x-api-key": KEY}).statuses == ["counted"] * 3 + ["rejected"] * 3
        more = server.post([transcript(n, deployment=f"e{n}") for n in range(3)], {"x-api-key": OTHER})
        assert more.statuses == ["counted"] * 2 + ["rejected"]
        assert count(db, "series") == 5
        assert server.figure('valuedrift_dead_letters_total{reason="too_many_series"}') == 4


def test_too_many_at_once(tmp_path: Path, db: str) -> None:
    """A request of more events than may be is refused as a whole."""
    with Serving(tmp_path, db, env={"VALUEDRIFT_SERVE_MAX_REQUEST_EVENTS": "10"}) as server:
        assert server.post([transcript(n) for n in range(11)]).status == 413
        assert count(db, "turns") == 0


def test_many_clients(server: Serving) -> None:
    """Clients that send at once share transactions, and each gets the outcomes of its own items."""
    found: dict[int, list[str]] = {}

    def send(n: int) -> None:
        answer = server.post([transcript(100 * n + k, event_id=f"c{n}-{k}") for k in range(20)])
        assert answer.statuses == ["counted"] * 20
        found[n] = [r["event_id"] for r in answer.json["results"]]

    threads = [threading.Thread(target=send, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {n: [f"c{n}-{k}" for k in range(20)] for n in range(16)}
    assert count(server.url, "turns") == 320
    assert server.figure("valuedrift_batch_seconds_count") < 16
    assert server.figure("valuedrift_turns_total") == 320
    assert server.figure("valuedrift_queue_events") == 0
    assert server.figure("valuedrift_held_bytes") == 0


def test_two_processes_of_one_name(tmp_path: Path, db: str) -> None:
    """Two servers that were given one name go on side by side: the second to write takes a source of its own."""
    env = {"VALUEDRIFT_SERVE_INSTANCE": "twin"}
    with Serving(tmp_path, db, env=env) as a, Serving(tmp_path, db, env=env) as b:
        for n in range(0, 40, 2):
            assert a.post([transcript(n)]).statuses == ["counted"]
            assert b.post([transcript(n + 1)]).statuses == ["counted"]
        assert a.post([transcript(1)]).statuses == ["duplicate"]
        assert "instance name in use" in a.logged + b.logged
    sources = {r["source"]: r["judged"] for r in rows(db, "offsets")}
    assert set(sources) == {"http@twin", "http@twin#2"}
    assert sum(sources.values()) == count(db, "turns") == 40


def test_steps_beside_requests(tmp_path: Path, db: str, examples: list[dict[str, Any]]) -> None:
    """What is posted becomes a trajectory and, where it drifts, an alert, without anything else being run."""
    with Serving(tmp_path, db, env={"VALUEDRIFT_SERVE_STEP_SECONDS": "0.3"}) as server:
        for start in range(0, len(examples), 400):
            assert server.post(examples[start : start + 400], zipped=True).status == 202
        until(lambda: rows(db, "alerts"), 60)
        until(lambda: "alert" in server.logged)
        assert count(db, "points") > 100
        until(lambda: server.figure("valuedrift_series") == len({(e["deployment"], e["model"]) for e in examples}))
        assert server.figure('valuedrift_step_seconds_count{outcome="done"}') > 0


def test_no_steps(tmp_path: Path, db: str) -> None:
    """With steps turned off nothing is moved on, which is no fault, and stopping does not wait for a step."""
    with Serving(tmp_path, db, env={"VALUEDRIFT_SERVE_STEP_SECONDS": "0"}) as server:
        assert server.post([transcript(n) for n in range(20)]).status == 202
        assert server.get("/readyz").status == 200
        assert server.stop() == 0
    assert count(db, "turns") == 20
    assert count(db, "points") == 0


def test_stopped_while_busy(tmp_path: Path, db: str) -> None:
    """SIGTERM under load: what was answered is stored, what is stored was sent, and the exit code is 0."""
    with Serving(tmp_path, db) as server:
        told: list[int] = []

        def send(n: int) -> None:
            k = 0
            while True:
                try:
                    if server.post([transcript(n * 100_000 + k, event_id=f"s{n}-{k}")]).status != 202:
                        return
                except OSError:
                    return
                told.append(1)
                k += 1

        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        until(lambda: len(told) > 50)
        assert server.stop() == 0
        for t in threads:
            t.join()
        assert len(told) <= count(db, "turns") <= len(told) + 4
        assert "all stored" in server.logged


def test_killed_while_busy(tmp_path: Path, db: str) -> None:
    """kill -9 again and again while clients repeat what was not answered: in the end every event is there once."""
    events = [transcript(n, event_id=f"k{n}") for n in range(600)]
    left = [events[n : n + 5] for n in range(0, 600, 5)]
    for _ in range(3):
        with Serving(tmp_path, db) as server:
            timer = threading.Timer(0.5, server.process.send_signal, [signal.SIGKILL])
            timer.start()
            try:
                while left:
                    assert server.post(left[-1]).status == 202
                    left.pop()
            except OSError:
                pass
            timer.cancel()
    with Serving(tmp_path, db) as server:
        for body in left:
            assert server.post(body).status == 202
    turns = [r["event_id"] for r in rows(db, "turns")]
    assert sorted(turns) == sorted(e["event_id"] for e in events)
    assert sum(r["judged"] for r in rows(db, "offsets")) == 600


def test_health(shared: Serving) -> None:
    """Probes need no key and say what is checked."""
    assert shared.get("/healthz").json == {"alive": True}
    ready = shared.get("/readyz")
    assert ready.status == 200
    assert set(ready.json["checks"].values()) == {"ok"}
    assert {"database", "classifier", "queue", "steps"} <= set(ready.json["checks"])
    text = shared.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"valuedrift_build_info{" in text.body
