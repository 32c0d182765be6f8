"""A log that is being written: judged as it grows, alerts at once, a clean end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command, environment


@pytest.mark.service
def test_follow(tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """With --follow the alert is printed while the log still grows; SIGTERM ends the run with the summary."""
    log = tmp_path / "live.jsonl"
    log.write_text("")
    err = tmp_path / "stderr.txt"
    with err.open("w") as stderr:
        process = subprocess.Popen(
            command("watch", log, "--follow", "--json"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        with log.open("a", encoding="utf-8") as f:
            for e in examples:
                f.write(json.dumps(e, ensure_ascii=False) + "\n")
                f.flush()
        deadline = time.monotonic() + 60
        while "ALERT value_drift" not in err.read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert re.search(r"ALERT value_drift on \S+, raised [\d: -]+ UTC: page$", err.read_text(), re.MULTILINE)
        with log.open("a", encoding="utf-8") as f:
            f.write("not json\n")
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, err.read_text()
    summary = json.loads(out.splitlines()[-1])
    assert summary["events"]["events"] == len(examples) + 1
    assert summary["events"]["dead_letters"] == 1
    assert {a["series"] for a in summary["alerts"]} == {"atlas/atlas-chat-4"}
