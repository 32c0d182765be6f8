"""A drift from the log to the pager: `watch --follow` tells a real Alertmanager, which tells when it is over, too."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, command, environment
from tests.own_server import wait_for
from tests.service.receivers import AlertmanagerServer, Receiver

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
SERIES = "shop/m-1"


class Stream:
    """Transcripts of one deployment: prose of the bundled log, dealt out by behaviour."""

    def __init__(self, examples: list[dict[str, Any]], labels: dict[str, list[str]]) -> None:
        self._rng = random.Random(7)
        self._said: dict[str, list[list[dict[str, str]]]] = {"aligned": [], "harmful_compliance": []}
        for e in examples:
            which = labels[e["conversation_id"]][0]
            if which in self._said:
                self._said[which].append(e["messages"][:2])
        self._n = 0

    def lines(self, start: datetime, end: datetime, every: timedelta, harmful: float) -> Iterator[str]:
        while start < end:
            self._n += 1
            which = "harmful_compliance" if self._rng.random() < harmful else "aligned"
            event = {
                "event_id": f"e{self._n}",
                "ts": start.isoformat(),
                "deployment": "shop",
                "model": "m-1",
                "messages": self._rng.choice(self._said[which]),
            }
            yield json.dumps(event) + "\n"
            start += every


@pytest.mark.service
def test_a_drift_arrives_and_ends(
    tmp_path: Path,
    examples: list[dict[str, Any]],
    truth: dict[str, Any],
    alertmanager: AlertmanagerServer,
    told: Receiver,
    in_process: Run,
) -> None:
    """While the log grows the alert is in Alertmanager with what routes and explains it; recovered it is resolved."""
    log, stream, few = tmp_path / "live.jsonl", Stream(examples, truth["turn_labels"]), timedelta(minutes=8)
    drift, recovery = NOW - timedelta(hours=44), NOW - timedelta(hours=36)
    with log.open("w", encoding="utf-8") as f:
        f.writelines(stream.lines(NOW - timedelta(hours=100), drift, few, 0.0))
        f.writelines(stream.lines(drift, recovery, timedelta(minutes=2), 0.5))
    errors = tmp_path / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command("watch", log, "--follow", "--json", "--alertmanager", alertmanager.url),
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
    try:
        wait_for("the alert", lambda: _drift(alertmanager))
        (alert,) = _drift(alertmanager)
        labels, said = alert["labels"], alert["annotations"]
        assert (labels["series"], labels["deployment"], labels["model"]) == (SERIES, "shop", "m-1")
        assert (labels["severity"], labels["behaviour"]) == ("page", "harmful_compliance")
        assert f"harmful_compliance rose in {SERIES}" in json.dumps(said)
        assert "at most one in 90 days" in json.dumps(said)
        explain = ("alerts", "explain", said["alert_id"])
        wait_for("its note", lambda: "delivery   alertmanager: delivered: firing" in in_process(*explain).stdout)
        explained = in_process(*explain).stdout
        assert "in short: alertmanager was told" in explained
        assert "to tell    alertmanager: firing: page: fired" in explained
        with log.open("a", encoding="utf-8") as f:
            f.writelines(stream.lines(recovery, NOW - timedelta(minutes=5), few, 0.0))
        wait_for("the end", lambda: not _drift(alertmanager))
        wait_for("the end to be told", lambda: "resolved" in _statuses(told))
        assert _statuses(told) == ["firing", "resolved"]
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, errors.read_text()
    summary = json.loads(out.splitlines()[-1])
    assert [(a["rule"], a["state"]) for a in summary["alerts"] if a["id"] == said["alert_id"]] == [
        ("value_drift", "resolved")
    ]
    assert "delivery   alertmanager: delivered: resolved" in in_process(*explain).stdout


def _drift(alertmanager: AlertmanagerServer) -> list[dict[str, Any]]:
    return [a for a in alertmanager.alerts() if a["labels"]["alertname"] == "value_drift"]


def _statuses(told: Receiver) -> list[str]:
    """Of what Alertmanager said of the drift, in order, each once."""
    found = (r.json for r in told.requests)
    return list(dict.fromkeys(x["status"] for x in found if x["groupLabels"].get("alertname") == "value_drift"))
