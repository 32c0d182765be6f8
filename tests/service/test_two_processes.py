"""Several processes on one database."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, command, environment, last_json, repeated, write_log
from tests.service.test_kill import contents


@pytest.mark.service
def test_two_logs_at_once(tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]) -> None:
    """Two logs of the same series, watched at the same time into one database: every event is counted once."""
    events = repeated(examples, 3)
    logs = [write_log(tmp_path / f"{i}.jsonl", events[i::2]) for i in range(2)]
    running = [
        subprocess.Popen(
            command("watch", log, "--db", f"sqlite:///{tmp_path}/both.db"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for log in logs
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    last_json(valuedrift("watch", tmp_path / "0.jsonl", "--db", f"sqlite:///{tmp_path}/both.db", "--json"))
    write_log(tmp_path / "all.jsonl", events)
    assert valuedrift("watch", tmp_path / "all.jsonl", "--db", f"sqlite:///{tmp_path}/one.db").returncode == 0
    both, one = contents(tmp_path / "both.db"), contents(tmp_path / "one.db")
    judged = [sorted((r[0], r[1], *r[9:20]) for r in rows["turns"]) for rows in (both, one)]
    assert judged[0] == judged[1]
    assert sum(r[4] for r in both["buckets"]) == sum(r[4] for r in one["buckets"]) == len(one["turns"])


@pytest.mark.service
def test_the_same_log_twice_at_once(tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """A log that is being read into a database cannot be read into it a second time at once: one of the two says so."""
    log = write_log(tmp_path / "log.jsonl", repeated(examples, 6))
    running = [
        subprocess.Popen(
            command("watch", log, "--db", f"sqlite:///{tmp_path}/a.db"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [(p.communicate(timeout=120)[1], p.returncode) for p in running]
    assert sorted(code for _, code in ended) in ([0, 0], [0, 3])
    for err, code in ended:
        assert code == 0 or "another process" in err
    assert len(contents(tmp_path / "a.db")["turns"]) == 6 * 1063
