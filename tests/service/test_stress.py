"""`valuedrift stress` against a real server of scripted models, which also misbehaves in every way."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from classifiers.endpoint import Endpoint
from monitor.stress.drive import FAILURES_IN_A_ROW, Budget, Driven, drive
from monitor.stress.journal import Journal, Run
from monitor.stress.suites import Script, chosen_suites, scripts
from tests.conftest import Run as Command
from tests.conftest import command, environment, last_json, write_log
from tests.own_server import wait_for
from tests.scripted_model import Scripted, known
from tests.service.test_judge import Server, Time, says, send
from tests.unit.test_stress import played

pytestmark = pytest.mark.service

KEY = "sk-very-private-0123456789"
TURNS = 6
MODELS = {m.name: m for m in (Scripted("base", 0.95, 0.35, TURNS), Scripted("tuned", 0.98, 0.94, TURNS))}
RUN = Run("http://127.0.0.1/v1", "tuned", 0, 1.0, 100, "v")


def plays(handler: BaseHTTPRequestHandler) -> None:
    """Answers as the model that is asked for."""
    asked: Any = handler.asked  # type: ignore[attr-defined]
    says(MODELS[asked["model"]].answer(asked["messages"]), usage={"total_tokens": 50})(handler)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as running:
        running.script = [plays]
        yield running


def some(conversations: int, turns: int = 2, *suites: str) -> list[Script]:
    return list(scripts(chosen_suites(suites or ("benign",)), 0, conversations, turns))


def driven(
    url: str, folder: Path, chosen: list[Script], clock: Time | None = None, budget: Budget | None = None, **more: Any
) -> tuple[Driven, Journal]:
    """What came of driving, in this process; the journal is closed."""
    clock = clock or Time()
    endpoint = Endpoint(
        url,
        name="--target",
        key_variable="KEY",
        permit="",
        sleep=clock.sleep,
        environment={"KEY": KEY},
        **({"timeout_seconds": 20.0, "attempts": 3} | {k: v for k, v in more.items() if k != "concurrency"}),
    )
    journal = Journal(folder, RUN)
    found = drive(
        chosen,
        endpoint,
        journal,
        RUN,
        concurrency=more.get("concurrency", 1),
        budget=budget or Budget(),
        clock=lambda: datetime(2026, 3, 1, tzinfo=UTC),
    )
    journal.close()
    return found, journal


def stress(server: Server, model: str, folder: Path | str, *more: str) -> tuple[str, ...]:
    options = ("--target", server.url, "--model", model, "--out", str(folder), "--json")
    return ("stress", *options, *more)


# --- the whole way


def test_scripted_pair(server: Server, in_process: Command, tmp_path: Path) -> None:
    """The known gamma, work and suppression of two models come back over HTTP; `watch` reads the transcripts too."""
    size = ("--suite", "benign", "--suite", "temptation", "--turns", str(TURNS), "--conversations", "30")
    for model in MODELS:
        done = last_json(in_process(*stress(server, model, model, *size, "--concurrency", "8")))
        assert (done["answered"], done["asked"], done["failed"]) == (360, 360, {})
        assert [f["suite"] for f in done["figures"]] == ["benign", "temptation", "pooled"]
    assert len(server.requests) == 720
    found = last_json(in_process("stress", "compare", "base", "tuned", "--json", "--plot", "pair.png"))
    assert found["assumes_healthy"]
    assert found["suites"][0]["gamma"] == "not known: not enough conversations (base): 30 of 50"
    pooled = found["suites"][-1]
    for name, value in zip(("gamma", "total_work", "suppression"), known(*MODELS.values()), strict=True):
        assert pooled[name]["low"] <= value <= pooled[name]["high"], name
    assert pooled["suppression"]["low"] > 0.3
    assert pooled["conversations"] == {"base": 60, "tuned": 60, "shared": 60}
    assert (tmp_path / "pair.png").stat().st_size > 10_000
    assert (tmp_path / "base" / "stress.png").stat().st_size > 10_000

    again = last_json(in_process(*stress(server, "base", "base", *size)))
    assert again["run"] == {"answered": 0, "kept": 360, "out_of_budget": False, "gave_up": False}
    assert len(server.requests) == 720
    watched = last_json(in_process("watch", "tuned/transcripts.jsonl", "--json"))
    assert (watched["events"]["judged"], watched["events"]["turns"]) == (60, 360)
    assert [s["series"] for s in watched["series"]] == ["stress/tuned"]
    recorded = last_json(in_process("stress", "--from", "tuned/transcripts.jsonl", "--out", "again", "--json"))
    kept = json.loads((tmp_path / "tuned" / "result.json").read_text())
    assert recorded["figures"] == kept["figures"]


def test_longer_run_goes_on(server: Server, in_process: Command) -> None:
    """More turns, conversations or suites in the same folder ask only for what is new."""
    small = ("--suite", "benign", "--turns", "2", "--conversations", "3")
    large = ("--suite", "benign", "--suite", "injection", "--turns", "3", "--conversations", "4")
    last_json(in_process(*stress(server, "tuned", "out", *small)))
    assert len(server.requests) == 6
    done = last_json(in_process(*stress(server, "tuned", "out", *large)))
    assert len(server.requests) == done["answered"] == 24
    other = in_process(*stress(server, "base", "out", *large))
    assert other.returncode == 2
    assert "another model is kept here" in other.stderr
    assert len(server.requests) == 24


def test_killed_and_run_again(server: Server, tmp_path: Path, in_process: Command) -> None:
    """kill -9 loses at most the turns in flight; the rerun asks for those and the rest, and nothing twice."""

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.01)
        plays(handler)

    server.script = [slowly]
    out, size = tmp_path / "out", ("--suite", "benign", "--turns", "5", "--conversations", "30", "--concurrency", "4")
    process = subprocess.Popen(
        command(*stress(server, "tuned", out, *size)), env=environment(), cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    wait_for("some turns", lambda: len(server.requests) >= 40)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = (out / "turns.jsonl").read_bytes().split(b"\n")[1:-1]
    assert 36 <= len(lines) < 150
    done = last_json(in_process(*stress(server, "tuned", out, *size)))
    assert (done["answered"], done["run"]["kept"]) == (150, len(lines))
    assert 150 <= len(server.requests) <= 154
    turns = Counter(
        (t["script"], t["turn"]) for t in map(json.loads, (out / "turns.jsonl").read_text().splitlines()[1:])
    )
    assert set(turns.values()) == {1}
    assert len(turns) == 150


def test_interrupted(server: Server, tmp_path: Path) -> None:
    """Ctrl-C ends a run with one line that says how to go on."""
    server.script = [lambda handler: (time.sleep(0.05), plays(handler))]  # type: ignore[list-item]
    process = subprocess.Popen(
        command(*stress(server, "tuned", tmp_path / "out", "--conversations", "50")),
        env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for("some turns", lambda: len(server.requests) >= 5)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == (
        "valuedrift: interrupted; run the same command again to go on where it stopped"
    )


def test_full_disk(server: Server, tmp_path: Path, in_process: Command) -> None:
    """A disk that is full is one line of error, and what was answered before is there for the rerun."""
    size = ("--suite", "benign", "--turns", "2", "--conversations", "10")
    done = subprocess.run(
        command(*stress(server, "tuned", tmp_path / "out", *size)),
        env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == f"valuedrift: {tmp_path}/out/turns.jsonl: file too large\n"
    kept = (tmp_path / "out" / "turns.jsonl").read_bytes().count(b"\n") - 1
    assert 0 < kept < 20
    again = last_json(in_process(*stress(server, "tuned", tmp_path / "out", *size)))
    assert (again["answered"], again["run"]["kept"]) == (20, kept)


# --- the endpoint misbehaves


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(200):
        handler.wfile.write(b" " * 65536)


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


BAD = {
    "HTTP 401": send(401, b'{"error": "no"}'),
    "HTTP 404": send(404),
    "HTTP 400": send(400),
    "HTTP 500": send(500),
    "HTTP 429": send(429, Retry_After="3600"),
    "HTTP 302": send(302, Location="http://127.0.0.1:9/"),
    "response too large": endless,
    "response is compressed": send(200, b"\x1f\x8b", Content_Encoding="gzip"),
    "response is not a chat completion": send(200, b"<html>hello</html>"),
    "answer is empty": says("  \n"),
    "answer is too long": says("z" * 40_000),
    "timeout": drips,
    "no connection": lambda handler: handler.connection.close(),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_endpoint(server: Server, tmp_path: Path, reason: str) -> None:
    """Whatever it does to one turn, the turn is counted with its reason, its conversation ends, and others go on."""
    # three attempts, or three forms of the request
    times = 3 if reason in ("HTTP 500", "HTTP 400", "no connection") else 1
    server.script = [BAD[reason]] * times + [plays]
    found, journal = driven(server.url, tmp_path, some(3), timeout_seconds=0.5 if reason == "timeout" else 20.0)
    assert found.failed == {reason: 1}
    assert found.answered == 4
    assert sorted(len(a) for a in journal.answers.values()) == [2, 2]
    server.script = [plays]
    again, journal = driven(server.url, tmp_path, some(3))
    assert (again.answered, again.failed) == (2, {})


def test_endpoint_that_never_works(server: Server, in_process: Command, tmp_path: Path) -> None:
    """After so many failures in a row it is given up; the error says why no turn was answered, and exit code is 3."""
    server.script = [send(401, KEY.encode())]
    done = in_process(*stress(server, "tuned", "out"), env={"VALUEDRIFT_STRESS_API_KEY": KEY})
    assert done.returncode == 3
    assert "no turn to judge: HTTP 401 (2" in done.stderr
    assert FAILURES_IN_A_ROW <= len(server.requests) <= FAILURES_IN_A_ROW + 4
    assert KEY not in done.stderr + done.stdout


def test_given_up_in_the_middle(server: Server, in_process: Command) -> None:
    """What was answered before is measured, and the last lines say what failed and what to do."""
    server.script = [plays] * 30 + [send(403)]
    done = in_process(
        *[a for a in stress(server, "tuned", "out", "--suite", "benign", "--turns", "3") if a != "--json"]
    )
    assert done.returncode == 0, done.stderr
    assert "30 of 150 turns answered" in done.stdout
    assert "failed: HTTP 403 (" in done.stdout
    assert "the endpoint was given up" in done.stdout
    assert "run the same command again to go on" in done.stdout


def test_busy_endpoint_is_waited_for(server: Server, tmp_path: Path) -> None:
    """429 with Retry-After costs that pause and no turn; 503 without one a growing pause."""
    clock = Time()
    server.script = [send(429, Retry_After="7"), plays, send(503), send(503), plays]
    found, _ = driven(server.url, tmp_path, some(1), clock)
    assert (found.answered, found.failed) == (2, {})
    assert clock.slept[0] == 7.0
    assert 0.25 <= clock.slept[1] <= 0.75
    assert 0.5 <= clock.slept[2] <= 1.5


def test_endpoint_that_takes_few_parameters(server: Server, tmp_path: Path) -> None:
    """One that refuses max_tokens, or any parameter, is asked in the form it takes, and then always so."""
    for taken in ({"max_completion_tokens"}, set[str]()):

        def picky(handler: BaseHTTPRequestHandler, taken: set[str] = taken) -> None:
            extra = set(handler.asked) - {"model", "messages"}  # type: ignore[attr-defined]
            plays(handler) if extra == taken else send(400)(handler)

        server.script, server.requests[:] = [picky], []
        found, _ = driven(server.url, tmp_path / str(len(taken)), some(2))
        assert (found.answered, found.failed) == (4, {})
        assert len(server.requests) == 4 + (1 if taken else 2)


def test_conversation_too_long_for_the_endpoint(server: Server, tmp_path: Path) -> None:
    """Refused with an answer's length given and taken without: its turn fails, and no other is asked otherwise."""

    def small(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.asked  # type: ignore[attr-defined]
        send(400)(handler) if len(asked["messages"]) > 3 and "max_tokens" in asked else plays(handler)

    server.script = [small]
    found, _ = driven(server.url, tmp_path, some(3))
    assert (found.answered, found.failed) == (3, {"HTTP 400": 3})
    assert all("temperature" in asked["body"] for asked in server.requests)


@pytest.mark.parametrize(("budget", "answered"), [(Budget(requests=5), 5), (Budget(tokens=150), 3)])
def test_budget(server: Server, tmp_path: Path, budget: Budget, answered: int) -> None:
    """A run stops at its budget of requests or tokens; the next one goes on from there."""
    found, _ = driven(server.url, tmp_path, some(4), budget=budget)
    assert (found.answered, found.out_of_budget, found.failed) == (answered, True, {})
    again, _ = driven(server.url, tmp_path, some(4))
    assert (again.answered, again.out_of_budget) == (8 - answered, False)
    assert len(server.requests) == 8


@pytest.mark.parametrize("usage", [{}, None, {"total_tokens": -5}, {"total_tokens": 1e300}, {"total_tokens": "9"}, 7])
def test_senseless_usage(server: Server, tmp_path: Path, usage: object) -> None:
    """An endpoint that does not say what an answer cost, or nonsense, has it estimated from the text."""
    server.script = [says("Gladly.", usage=usage)]
    budget = Budget()
    driven(server.url, tmp_path, some(1, 1), budget=budget)
    assert 10 <= budget.spent_tokens <= 100


def test_as_many_at_once_as_asked(server: Server, tmp_path: Path) -> None:
    """So many conversations are played at once and no more, each turn after the one before it."""

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.03)
        plays(handler)

    server.script = [slowly]
    found, journal = driven(server.url, tmp_path, some(9), concurrency=3)
    assert (found.answered, server.most_at_once) == (18, 3)
    for script in some(9):
        said = [m for r in server.requests for m in [r["body"]["messages"]] if m[1]["content"] == script.messages[0]]
        assert [len(m) for m in said][-1] == 4
        assert [a.turn for a in journal.answers[script.name]] == [0, 1]


def test_same_requests_again(server: Server, tmp_path: Path) -> None:
    """A run that is repeated says the same words under the same seeds."""
    sent = []
    for k in range(2):
        server.requests.clear()
        driven(server.url, tmp_path / str(k), some(2, 3))
        sent.append([r["body"] for r in server.requests])
    assert sent[0] == sent[1]
    assert len({r["seed"] for r in sent[0]}) == 6


def test_hostile_answers(server: Server, in_process: Command, tmp_path: Path) -> None:
    """Answers with escapes, NUL and halves of surrogates are kept, judged, and shown nowhere."""
    text = '"\\ud83d \\u0000 \\u001b[2J <script>alert(1)</script> PRIVATE"'
    body = b'{"choices":[{"message":{"content":' + text.encode() + b"}}]}"
    server.script = [send(200, body)]
    done = in_process(*stress(server, "tuned", "out", "--suite", "benign", "--conversations", "2", "--turns", "2"))
    assert last_json(done)["answered"] == 4
    assert "PRIVATE" not in done.stdout + done.stderr
    assert "PRIVATE" not in (tmp_path / "out" / "result.json").read_text()
    assert last_json(in_process("watch", "out/transcripts.jsonl", "--json"))["events"]["turns"] == 4


def test_key_is_kept_nowhere(server: Server, in_process: Command, tmp_path: Path) -> None:
    """The key goes to the endpoint, and into no file and no output."""
    target = f"{server.url}?api-key={KEY}"
    options = ("--target", target, "--model", "tuned", "--suite", "benign", "--conversations", "2", "--turns", "2")
    done = in_process("stress", *options, env={"VALUEDRIFT_STRESS_API_KEY": KEY})
    assert done.returncode == 0, done.stderr
    assert server.requests[0]["headers"]["Authorization"] == f"Bearer {KEY}"
    written = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {f.name for f in written} == {"turns.jsonl", "transcripts.jsonl", "result.json", "stress.png"}
    assert all(KEY.encode() not in f.read_bytes() for f in written)
    assert KEY not in done.stdout + done.stderr
    assert all(f.stat().st_mode & 0o077 == 0 for f in written if f.suffix != ".png")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "give either --target URL with --model, or --from SOURCE"),
        (("--target", "http://127.0.0.1:9/v1"), 2, "--target needs --model"),
        (("--target", "http://192.0.2.7/v1", "--model", "m"), 2, "use https:// or give --allow-http"),
        (("--target", "http://u:p@127.0.0.1/v1", "--model", "m"), 2, "--target holds a password"),
        (("--target", "ftp://h", "--model", "m"), 2, "--target must be an address"),
        (("--target", "http://127.0.0.1:9", "--model", "m", "--suite", "x"), 2, "--suite 'x' is none of benign"),
        (("--target", "http://127.0.0.1:9", "--model", "m", "--turns", "1000"), 2, "1<=x<=100"),
        (("--from", "nowhere.jsonl"), 3, "nowhere.jsonl: no such file"),
        (("--from", "bad.jsonl"), 3, "bad.jsonl: no turn to judge: "),
        (("compare", "nowhere", "nowhere"), 3, "nowhere"),
    ],
)
def test_usage(in_process: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    """What cannot be run is one line that says why, before anything is asked."""
    (tmp_path / "bad.jsonl").write_text("not json\n{}\n")
    done = in_process("stress", *arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- baseline


@pytest.fixture
def tuned_run(tmp_path: Path) -> Path:
    """The folder of a run of the tuned model, and beside it one of the base."""
    for model in MODELS.values():
        (tmp_path / model.name).mkdir()
        found = played(model, 60, "benign", when=datetime.now(UTC))
        (tmp_path / model.name / "result.json").write_bytes(msgspec.json.encode(found))
    return tmp_path / "tuned"


def later(model: str, minutes: int, n: int = 30, step: int = 1) -> list[dict[str, Any]]:
    """A log of benign turns, so many minutes after the run, some seconds apart."""
    start = datetime.now(UTC) + timedelta(minutes=minutes)
    asked = MODELS["tuned"]
    messages = [[{"role": "user", "content": s.messages[0]}] for s in some(n, 1)]
    return [
        {
            "event_id": f"later-{minutes}-{i}",
            "ts": (start + timedelta(seconds=step * i)).isoformat(),
            "deployment": "shop",
            "model": model,
            "messages": [*m, {"role": "assistant", "content": asked.answer(m)}],
        }
        for i, m in enumerate(messages)
    ]


def test_baseline_of_a_series_to_come(url: str, tuned_run: Path, in_process: Command, tmp_path: Path) -> None:
    """A series is compared with the stress run from its first turn on; where the baseline is from is on record."""
    if url.startswith("postgresql"):
        assert in_process("db", "upgrade", "--db", url).returncode == 0
    db = ("--db", url, "--json")
    freeze = ("baseline", "from-stress", tuned_run, "--series", "shop/m-1", *db)
    refused = in_process(*freeze)
    assert refused.returncode == 2
    assert "this database has no series yet" in refused.stderr
    made = last_json(in_process(*freeze, "--new", "--sigma-0-from", "base", "--reason", "release test"))
    assert (made["series"], made["state"], made["turns"]) == ("shop/m-1", "frozen", 60 * TURNS)
    watched = last_json(in_process("watch", write_log(tmp_path / "later.jsonl", later("m-1", 2)), *db))
    (series,) = watched["series"]
    assert series["baseline"]["state"] == "frozen"
    shown = last_json(in_process("baseline", "show", "shop", *db))
    assert (shown["origin"], shown["reason"]) == ("stressed", "release test")
    facts = shown["history"][0]["provenance"]
    assert (facts["model"], facts["suites"], facts["turns"]) == ("tuned", ["benign"], 60 * TURNS)
    assert facts["sigma_0_from"] == "base"
    assert isinstance(facts["sigma_0"], str) or facts["sigma_0"]["unit"] == "nats/turn"


def test_baseline_of_a_series_that_is_watched(tuned_run: Path, in_process: Command, tmp_path: Path) -> None:
    """A series that was learning, or had a baseline, takes the stress run's; that before it stays in the history."""
    in_process("watch", write_log(tmp_path / "first.jsonl", later("m-2", -500, 60, 60)), "--baseline", "50")
    made = in_process("baseline", "from-stress", tuned_run, "--series", "shop", "--sigma-0-from", "base")
    assert made.returncode == 0, made.stderr
    assert "baseline of 360 turns, in force from" in made.stdout
    assert "sigma_0" in made.stdout
    shown = last_json(in_process("baseline", "show", "shop", "--json"))
    assert [h["origin"] for h in shown["history"]] == ["stressed", "learned"]
    again = last_json(in_process("watch", write_log(tmp_path / "later.jsonl", later("m-2", 2)), "--json"))
    assert again["series"][0]["baseline"]["n"] == 360


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--series", f"a/{'b' * 201}", "--new"), "--new: write the series as deployment/model"),
        (("--series", "nobody", "--new"), "--new: write the series as deployment/model"),
        (("--series", "a/b", "--new", "--suite", "injection"), "no suite injection"),
        (("--series", "a/b", "--new", "--reason", " "), "--reason is to say why"),
        (("--series", "a/b", "--new", "--sigma-0-from", "nowhere"), "nowhere"),
    ],
)
def test_baseline_that_cannot_be(tuned_run: Path, in_process: Command, arguments: tuple[str, ...], told: str) -> None:
    """What cannot be frozen is one line of error, and no series is made."""
    done = in_process("baseline", "from-stress", tuned_run, *arguments)
    assert done.returncode in (2, 3)
    assert told in done.stderr
    assert last_json(in_process("baseline", "list", "--json"))["series"] == []
