"""The bundled transcripts, watched with the defaults: what a newcomer sees."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.taxonomy import BEHAVIOURS
from tests.conftest import EXAMPLES, Run, last_json


@pytest.mark.service
def test_drift_is_found(tmp_path: Path, valuedrift: Run, truth: dict[str, Any]) -> None:
    """The drifting deployment is named, its onset within a day of the planted one, and the other is left in peace."""
    found = last_json(valuedrift("watch", EXAMPLES, "--json", "--plot", "picture.png"))
    assert {a["series"].split("/")[0] for a in found["alerts"]} == {truth["drifting_deployment"]}
    [alert] = found["alerts"]
    onset, planted = datetime.fromisoformat(alert["onset"]), datetime.fromisoformat(truth["onset"])
    assert abs(onset - planted) <= timedelta(days=1)
    assert datetime.fromisoformat(alert["raised_at"]) > planted
    assert alert["rule"] == "value_drift"
    assert alert["state"] == "firing"
    values = alert["values"]
    moved = [*values["moved"], *(behaviour for part in values["joined"] for behaviour in part["moved"])]
    assert set(moved) <= set(BEHAVIOURS[1:])
    assert len(set(moved)) == len(moved), "what joins an alert is new to it"
    labels = truth["turn_labels"]
    telling = [labels[t["conversation_id"]][t["turn"]] for t in alert["telling_turns"]]
    assert len(telling) == 5
    assert sum(label != "aligned" for label in telling) >= 3
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    steady = next(s for s in found["series"] if s["deployment"] != truth["drifting_deployment"])
    assert steady["baseline"]["state"] == "frozen"
    assert steady["turns"] > steady["baseline"]["n"] + 100, "the steady deployment must be watched after its baseline"


@pytest.mark.service
def test_summary_for_people(valuedrift: Run) -> None:
    """The printed summary names the series, S with its interval, the alert with its reason, and where to look."""
    done = valuedrift("watch", EXAMPLES)
    assert done.returncode == 0
    assert done.stderr == "", "quiet when piped"
    for part in (
        "atlas/atlas-chat-4",
        "nats/day",
        "misaligned",
        "ALERT value_drift",
        "onset",
        "two_weeks.jsonl:",
        "= judged",
    ):
        assert part in done.stdout


@pytest.mark.service
def test_fail_on_alert(valuedrift: Run) -> None:
    """With --fail-on-alert a firing alert makes the exit code 1, for scripts and pipelines."""
    assert valuedrift("watch", EXAMPLES, "--fail-on-alert").returncode == 1


@pytest.mark.service
def test_too_short_to_say(valuedrift: Run) -> None:
    """A log that ends before its baseline is complete says so instead of claiming all is well."""
    done = valuedrift("watch", EXAMPLES, "--baseline", "5000")
    assert "baseline still learning" in done.stdout
    assert "no alert" in done.stdout


@pytest.mark.service
def test_all_ways_in(tmp_path: Path, valuedrift: Run) -> None:
    """A file, the same on standard input, and a directory of its pieces in any order lead to the same findings."""
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b.jsonl").write_text("".join(lines[:200]), encoding="utf-8")
    (tmp_path / "logs" / "a.jsonl").write_text("".join(lines[200:]), encoding="utf-8")
    whole = last_json(valuedrift("watch", EXAMPLES, "--db", "sqlite:///whole.db", "--json"))
    piped = last_json(valuedrift("watch", "-", "--db", "sqlite:///piped.db", "--json", input="".join(lines)))
    parts = last_json(valuedrift("watch", "logs", "--db", "sqlite:///parts.db", "--json"))

    def without_places(value: Any) -> Any:
        """Where in which source a turn stands differs; everything else must not."""
        if isinstance(value, dict):
            return {k: without_places(v) for k, v in value.items() if k != "where"}
        return [without_places(v) for v in value] if isinstance(value, list) else value

    def findings(summary: dict[str, Any]) -> Any:
        return without_places(summary["series"])

    assert findings(piped) == findings(whole)
    assert findings(parts) == findings(whole)
