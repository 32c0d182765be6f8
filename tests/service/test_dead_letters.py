"""`valuedrift dead-letters`: listed, shown redacted, and read once more without counting anything twice."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from monitor.store.database import open_store
from tests.conftest import Run, last_json
from tests.service.serving import rows
from tests.store_cases import contents

pytestmark = pytest.mark.service
SECRET = "sk-proj-9f8e7d6c5b4a39281706"


def event(n: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]
    head = {"event_id": f"e{n}", "ts": f"2026-03-01T10:{n:02}:00Z", "deployment": "d", "model": "m"}
    return head | {"messages": messages} | more


def nameless(n: int) -> dict[str, Any]:
    return {k: v for k, v in event(n).items() if k != "deployment"}


def written(path: Path, events: list[dict[str, Any]]) -> Path:
    data = "".join(json.dumps(e) + "\n" for e in events).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def watch(in_process: Run, log: Path, url: str, *more: str, env: dict[str, str] | None = None) -> dict[str, int]:
    return dict(last_json(in_process("watch", log, "--db", url, "--json", *more, env=env))["events"])


def replay(in_process: Run, url: str, *more: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    return last_json(in_process("dead-letters", "replay", "--db", url, "--json", *more, env=env))


def table(url: str) -> dict[str, Any]:
    engine = open_store(url)
    found = contents(engine, leave_out=("settings", "points", "baselines"))
    engine.dispose()
    return found


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_replayed_once(url: str, in_process: Run, tmp_path: Path, name: str) -> None:
    """What other settings let count is counted once, its letters go, the rest stays: as if it had been so at first."""
    events = [nameless(n) if n % 3 == 0 else event(n) for n in range(20)]
    events[7] = {"nonsense": True}
    log = written(tmp_path / name, events)
    before = watch(in_process, log, url)
    assert (before["judged"], before["dead_letters"]) == (12, 8)
    assert {len(r["payload_hash"]) for r in rows(url, "dead_letters")} == {16}

    unchanged = table(url)
    dry = replay(in_process, url, "--deployment", "d", "--dry-run")
    assert (dry["letters"], dry["settled"], dry["events"], dry["still_bad"]) == (8, 7, 7, 1)
    assert table(url) == unchanged
    done = replay(in_process, url, "--deployment", "d")
    assert done == dry | {"dry_run": False}
    assert [r["line"] for r in rows(url, "dead_letters")] == [8]
    assert {r["event_id"] for r in rows(url, "turns")} == {f"e{n}" for n in range(20) if n != 7}
    assert sum(r["n"] for r in rows(url, "buckets")) == 19
    again = replay(in_process, url, "--deployment", "d")
    assert (again["letters"], again["settled"], again["events"]) == (1, 0, 0)
    after = watch(in_process, log, url)
    assert after == before | {"judged": 19, "turns": 19, "dead_letters": 1}

    if url.startswith("sqlite"):  # the same rows as of a log that was read with these settings at once
        other = f"sqlite:///{tmp_path}/other.db"
        watch(in_process, log, other, "--deployment", "d")
        here, there = table(url), table(other)
        for t in ("event_keys", "buckets", "offsets"):
            assert here[t] == there[t]
        assert len(here["turns"]) == len(there["turns"])


def test_counted_elsewhere_meanwhile(url: str, in_process: Run, tmp_path: Path) -> None:
    """An event that another source has brought since becomes a duplicate; nothing is counted twice."""
    log = written(tmp_path / "a.jsonl", [nameless(1), event(2)])
    watch(in_process, log, url)
    watch(in_process, written(tmp_path / "b.jsonl", [event(1)]), url)
    done = replay(in_process, url, "--deployment", "d")
    assert (done["settled"], done["events"]) == (1, 0)
    counts = watch(in_process, log, url)
    assert (counts["events"], counts["judged"], counts["duplicates"], counts["dead_letters"]) == (2, 1, 1, 0)
    assert [r["kind"] for r in rows(url, "dead_letters")] == ["duplicate"]
    assert len(rows(url, "turns")) == 2


def test_more_series(in_process: Run, tmp_path: Path) -> None:
    """Series that had no room are counted when there is more, and stay dead letters as long as there is none."""
    url = f"sqlite:///{tmp_path}/a.db"
    log = written(tmp_path / "a.jsonl", [event(n, deployment=f"d{n}") for n in range(4)])
    few = {"VALUEDRIFT_INPUT_MAX_SERIES": "2"}
    assert watch(in_process, log, url, env=few)["dead_letters"] == 2
    still = replay(in_process, url, env=few)
    assert (still["still_bad"], still["settled"], still["events"]) == (2, 0, 0)
    assert [r["dead_letters"] for r in rows(url, "offsets")] == [2] == [len(rows(url, "dead_letters"))]
    assert replay(in_process, url)["events"] == 2
    assert [(r["events"], r["judged"], r["dead_letters"]) for r in rows(url, "offsets")] == [(4, 4, 0)]


def test_changed_and_gone(in_process: Run, tmp_path: Path) -> None:
    """A file with other text at the place, or no file, is told and nothing is counted from it."""
    url = f"sqlite:///{tmp_path}/a.db"
    log = written(tmp_path / "a.jsonl", [nameless(1), nameless(2), event(3)])
    watch(in_process, log, url)
    log.write_bytes(log.read_bytes().replace(b"question 1", b"question 9"))
    done = replay(in_process, url, "--deployment", "d", f"{log}:1", f"{log}:2")
    assert (done["missing"], done["settled"], done["events"]) == (1, 1, 1)
    log.unlink()
    told = in_process("dead-letters", "replay", "--db", url).stdout
    assert "0 of 1 dead letters are settled" in told
    assert "the file is gone" in told
    assert "not there any more" in in_process("dead-letters", "show", f"{log}:1", "--db", url).stdout
    assert {r["event_id"] for r in rows(url, "turns")} == {"e2", "e3"}


def test_nothing_kept(in_process: Run, valuedrift: Run, tmp_path: Path) -> None:
    """What came over standard input or is too long has no line to go back to, and says so."""
    url = f"sqlite:///{tmp_path}/a.db"
    log = written(tmp_path / "a.jsonl", [event(1, extra="x" * 5000), event(2)])
    small = {"VALUEDRIFT_INPUT_MAX_EVENT_BYTES": "1024"}
    in_process("watch", log, "--db", url, env=small)
    valuedrift("watch", "-", "--db", url, input=json.dumps(nameless(3)))
    assert replay(in_process, url) | {"dry_run": True} == replay(in_process, url, "--dry-run")
    assert replay(in_process, url)["not_kept"] == 2
    assert "none: its bytes were not kept" in in_process("dead-letters", "show", f"{log}:1", "--db", url).stdout


def test_shown_redacted(in_process: Run, tmp_path: Path) -> None:
    """The line is shown without secrets, also where JSON's escapes hide their edges, and without terminal escapes."""
    url = f"sqlite:///{tmp_path}/a.db"
    inner = json.dumps({"arguments": f"\n{SECRET} a\u0040b.example.org \x1b[2J"})
    log = tmp_path / "a.jsonl"
    log.write_text(json.dumps(nameless(1) | {"note": f"tab\t{SECRET}", "tool": inner}).replace("@", "\\u0040") + "\n")
    watch(in_process, log, url)
    shown = in_process("dead-letters", "show", "a.jsonl:1", "--db", url)
    assert shown.returncode == 0, shown.stderr
    assert SECRET not in shown.stdout
    assert "b.example" not in shown.stdout
    assert "\x1b" not in shown.stdout
    assert shown.stdout.count("[secret]") == 2
    assert "[e-mail]" in shown.stdout
    assert "deployment is missing" in shown.stdout
    found = json.loads(in_process("dead-letters", "show", f"{log}:1", "--db", url, "--json").stdout)
    assert len(found["payload_hash"]) == 32
    assert SECRET not in found["text"]
    missing = in_process("dead-letters", "show", f"{log}:2", "--db", url)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


def test_listed(in_process: Run, tmp_path: Path) -> None:
    """Without a command it lists; by source, kind and time, and no more than asked for."""
    url = f"sqlite:///{tmp_path}/a.db"
    log = written(tmp_path / "a.jsonl", [event(1), event(1), nameless(2)])
    watch(in_process, log, url)
    watch(in_process, written(tmp_path / "b.jsonl", [nameless(3)]), url)

    def lines(*arguments: str) -> int:
        done = in_process("dead-letters", *arguments, "--db", url)
        assert done.returncode == 0, done.stderr
        return len(done.stdout.splitlines())

    assert (lines(), lines("list"), lines("--limit", "2"), lines("--json")) == (3, 3, 2, 3)
    assert (lines("--source", "a.jsonl"), lines("--source", str(log), "--kind", "bad")) == (2, 1)
    assert (lines("--since", "1h"), lines("--since", "2099-01-01"), lines("--kind", "duplicate")) == (3, 0, 1)
    wrong = in_process("dead-letters", "--since", "soon", "--db", url)
    assert wrong.returncode == 2
